"""Evaluation of one model: clean errors, then every attack, all tasks measured, per sample, into one HDF5 file.

    /index                             str     (N,)       names of the samples
    /clean/<letter>/loss, error        float32 (N,)       `headstrong.losses`, `headstrong.metrics`
    /clean/s/confusion                 uint32  (N, C, C)  pixel counts, [true, predicted]
    /attacks/<name>/<letter>/...       the same on the adversarial images, for all tasks of the model, attacked or not
    /attacks/<name>/linf, l2           float32 (N,)       size of the perturbation, in pixel units

File attributes: format, id, tasks, job (JSON), code, weights_sha256, data, classes (JSON), precision. Attributes of an
attack: the fields of its job. Equal runs give equal bytes.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from headstrong.attacks.run import check, perturb
from headstrong.data.batches import Batch, Batches
from headstrong.data.cache import SplitFile
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.jobs import AttackJob, EvaluationJob, to_dict
from headstrong.losses import per_sample_losses
from headstrong.metrics import per_sample_errors
from headstrong.models import MultiTaskModel, load_metadata, load_model
from headstrong.provenance import atomic_path, file_digest, settings_json
from headstrong.runtime import autocast, computes_in_bfloat16, reproducible

FORMAT = "headstrong-evaluation-1"
FOLDING_TOLERANCE = 1e-4  # relative; float rounding of a deep network stays an order of magnitude below

log = logging.getLogger(__name__)


def evaluate(
    job: EvaluationJob, weights: Path, data: Path, output: Path, *, device: str, threads: int, code: str
) -> None:
    """Measure the model of `weights` on the test split `data`, clean and under every attack of the job, into `output`.

    The file appears only when whole. Equal arguments on one type of device give equal bytes. Raises ConfigError for a
    job that cannot be, MissingDataError or BrokenFileError where weights or data are not what they should be, and
    DivergedError where a loss or a gradient is not a number.
    """
    _check_job(job)
    with reproducible(device, threads):
        model = load_model(weights, device)
        batches = Batches(data, job.tasks, device, limit=job.samples)
        with contextlib.closing(batches), SplitFile(data) as split:
            _check_match(job, model, batches, weights, data)
            bench = _Bench.build(job, model, batches, _class_weights(job, weights, device))
            with atomic_path(output) as partial, h5py.File(partial, "w", locking=False) as file:
                file.attrs["format"] = FORMAT
                file.attrs["id"] = job.id
                file.attrs["tasks"] = job.tasks
                file.attrs["job"] = settings_json(to_dict(job))
                file.attrs["code"] = code
                file.attrs["weights_sha256"] = file_digest(weights)
                file.attrs["data"] = split.dataset
                file.attrs["classes"] = json.dumps(split.classes, ensure_ascii=False)
                file.attrs["precision"] = "bfloat16" if computes_in_bfloat16(job.precision, device) else "float32"
                _store(file, "index", np.array(split.names[: batches.count], dtype=h5py.string_dtype()))
                _measure_all(bench, file)


def _measure_all(bench: _Bench, file: h5py.File) -> None:
    job = bench.job
    with _Progress(job, bench.rounds) as progress:
        clean = bench.measure(progress)
        _store_measured(file.create_group("clean"), clean, job.tasks)
        progress.finished("clean", clean, clean)
        group = file.create_group("attacks")
        for attack in job.attacks:
            attacked = bench.measure(progress, attack, clean)
            found = group.create_group(attack.name)
            for key, value in asdict(attack).items():
                found.attrs[key] = value
            _store(found, "linf", attacked.linf)
            _store(found, "l2", attacked.l2)
            _store_measured(found, attacked, job.tasks)
            progress.finished(attack.name, clean, attacked)


@dataclass(frozen=True)
class _Measured:
    """Numbers of N samples and T tasks: losses and errors float32 (N, T); sizes of the perturbation float32 (N,)."""

    losses: NDArray[np.float32]
    errors: NDArray[np.float32]
    confusion: NDArray[np.uint32] | None  # (N, C, C)
    linf: NDArray[np.float32]
    l2: NDArray[np.float32]


@dataclass(frozen=True)
class _Bench:
    """One model with the test data and the protocol it is measured by."""

    job: EvaluationJob
    model: nn.Module
    batches: Batches
    class_weights: Tensor | None

    @staticmethod
    def build(job: EvaluationJob, model: MultiTaskModel, batches: Batches, class_weights: Tensor | None) -> _Bench:
        example = batches.get([0]).images
        # Measured on one CPU core, resnet18 at width 1/4 and 64x64: 1.5 times as many steps per second with both.
        folded = fold_batch_norm(model, example).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return _Bench(job, folded.requires_grad_(False), batches, class_weights)

    @property
    def rounds(self) -> int:
        return -(-self.batches.count // self.job.batch_size)

    def outputs(self, images: Tensor, tasks: str) -> dict[str, Tensor]:
        with autocast(self.job.precision, images.device):
            found = self.model(images, tasks)
        return {letter: output.float() for letter, output in found.items()}

    def losses(self, outputs: dict[str, Tensor], batch: Batch, tasks: str) -> Tensor:
        pixels: Any = self.job.loss_pixels
        return per_sample_losses(outputs, batch, tasks, pixels=pixels, class_weights=self.class_weights)

    def measure(
        self, progress: _Progress, attack: AttackJob | None = None, clean: _Measured | None = None
    ) -> _Measured:
        """Losses and errors of all tasks on all samples: of the clean images, or of those an attack makes."""
        parts = []
        for rows in torch.arange(self.batches.count).split(self.job.batch_size):
            batch = self.batches.get(rows)
            images = batch.images
            if attack is not None and clean is not None:
                images = self._attacked(batch, attack, torch.from_numpy(clean.losses[rows.numpy()]))
            parts.append(self._measure_batch(batch, images))
            progress.advance()
        measured = _concatenated(parts)
        broken = np.argwhere(~np.isfinite(measured.losses))
        if len(broken):
            sample, column = broken[0]
            raise DivergedError(
                f"model {self.job.id!r}, {attack.name if attack else 'clean images'}: the loss of task "
                f"{self.job.tasks[column]!r} is {measured.losses[sample, column]} on sample {sample}; train it again"
            )
        return measured

    def _attacked(self, batch: Batch, attack: AttackJob, clean_losses: Tensor) -> Tensor:
        """Only the attacked tasks' decoders run while the attack looks for its images."""
        attacked = attack.attacked
        columns = [self.job.tasks.index(letter) for letter in attacked]

        def losses(points: Tensor) -> Tensor:
            return self.losses(self.outputs(points, attacked), batch, attacked)

        known = clean_losses[:, columns].to(batch.images.device)
        return perturb(losses, batch.images, attack, attacked, batch.index, self.job.seed, clean_losses=known)

    @torch.no_grad()
    def _measure_batch(self, batch: Batch, images: Tensor) -> _Measured:
        job = self.job
        pixels: Any = job.error_pixels
        miou: Any = job.miou
        outputs = self.outputs(images, job.tasks)
        errors, confusion = per_sample_errors(outputs, batch, job.tasks, pixels=pixels, miou=miou)
        change = (images - batch.images).flatten(1)
        return _Measured(
            losses=_numpy(self.losses(outputs, batch, job.tasks)),
            errors=_numpy(errors),
            confusion=None if confusion is None else confusion.cpu().numpy().astype(np.uint32),
            linf=_numpy(change.abs().amax(dim=1)),
            l2=_numpy(change.norm(dim=1)),
        )


def _concatenated(parts: list[_Measured]) -> _Measured:
    def together(values: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        present = [value for value in values if value is not None]
        return np.concatenate(present) if present else None

    fields: dict[str, Any] = {name: together([getattr(p, name) for p in parts]) for name in _Measured.__annotations__}
    return _Measured(**fields)


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


def fold_batch_norm(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a model in evaluation mode whose batch norms are folded into the convolutions before them.

    The same function up to float rounding, with fewer passes over memory. `example` is an image (1, 3, H, W) that is
    run through the model to see which convolution feeds which batch norm, and to check the result.
    """
    model = copy.deepcopy(model).eval()
    before, pairs = _run_and_pair(model, example)
    places = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    for norm, conv in pairs.items():
        fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
        setattr(*places[conv], fused)
        setattr(*places[norm], nn.Identity())
    with torch.no_grad():
        after = model(example)
    for letter, output in before.items():
        off = float((after[letter] - output).abs().max())
        if off > FOLDING_TOLERANCE * max(1.0, float(output.abs().max())):
            raise RuntimeError(f"folding batch norm changed the output of task {letter!r} by {off}")
    return model


def _run_and_pair(model: nn.Module, example: Tensor) -> tuple[dict[str, Tensor], dict[nn.BatchNorm2d, nn.Conv2d]]:
    """The model's outputs, and the convolution whose output each batch norm was given."""
    feeders: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by identity of the output, kept alive so that it is unique
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def remember(layer: Any, _: Any, output: Tensor) -> None:
        feeders[id(output)] = (layer, output)

    def match(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in feeders:
            pairs[layer] = feeders[id(inputs[0])][0]

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                hooks.callback(layer.register_forward_hook(remember).remove)
            elif isinstance(layer, nn.BatchNorm2d):
                hooks.callback(layer.register_forward_pre_hook(match).remove)
        return model(example), pairs


def _check_job(job: EvaluationJob) -> None:
    for attack in job.attacks:
        check(attack, job.tasks)
    names = [attack.name for attack in job.attacks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"evaluation {job.id!r}: two attacks are called {twice[0]!r}; give each its own name")


def _check_match(job: EvaluationJob, model: MultiTaskModel, batches: Batches, weights: Path, data: Path) -> None:
    if model.tasks != job.tasks:
        raise BrokenFileError(
            f"{weights}: a model of tasks {model.tasks!r}, the job is about {job.tasks!r}; train again"
        )
    if batches.count == 0:
        raise MissingDataError(f"{data}: no samples; make the data set again with at least one test image")
    if "s" in job.tasks and model.classes != len(batches.classes):
        raise BrokenFileError(
            f"{weights}: a model of {model.classes} classes, {data} has {len(batches.classes)}; train on the same data"
        )


def _class_weights(job: EvaluationJob, weights: Path, device: str) -> Tensor | None:
    """Class weights (C,) of the training, kept beside the model's weights: the test set has frequencies of its own."""
    if job.class_weights == "uniform" or "s" not in job.tasks:
        return None
    stored = json.loads(load_metadata(weights).get("class_weights") or "null")
    if stored is None:
        raise ConfigError(
            f"{weights}: trained without class weights, the evaluation asks for {job.class_weights!r}; train again, "
            "or set protocol.class_weights to uniform"
        )
    return torch.tensor(stored, dtype=torch.float32, device=device)


def _store(group: h5py.Group, name: str, values: NDArray[Any], **filters: Any) -> None:
    # Without times, equal content gives equal bytes.
    group.create_dataset(name, data=values, track_times=False, **filters)


def _store_measured(group: h5py.Group, measured: _Measured, tasks: str) -> None:
    for column, letter in enumerate(tasks):
        task = group.create_group(letter)
        _store(task, "loss", measured.losses[:, column])
        _store(task, "error", measured.errors[:, column])
        if letter == "s" and measured.confusion is not None:
            _store(task, "confusion", measured.confusion, compression="gzip", compression_opts=4, shuffle=True)


class _Progress:
    """A bar on a terminal; else one line in the log for every attack done."""

    def __init__(self, job: EvaluationJob, rounds: int) -> None:
        self.tasks = job.tasks
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=rounds * (1 + len(job.attacks)), desc=job.id, unit="batch")
        self.start = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def finished(self, name: str, clean: _Measured, attacked: _Measured) -> None:
        seconds, self.start = time.monotonic() - self.start, time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(name)
            return
        # An error can be undefined on a sample without a valid pixel, or on all of them.
        means = (np.nansum(m.errors, 0) / np.maximum(1, np.isfinite(m.errors).sum(0)) for m in (clean, attacked))
        changes = ", ".join(f"{letter} {a:.4g} -> {b:.4g}" for letter, a, b in zip(self.tasks, *means, strict=True))
        log.info("%s: %s, %.1f s", name, changes, seconds)
