"""Evaluation of one model: clean errors, then every attack, all tasks measured, per sample, into one HDF5 file.

    /index                             str     (N,)       names of the samples
    /clean/<letter>/loss, error        float32 (N,)       `headstrong.losses`, `headstrong.metrics`; NaN where
                                                          the task is absent from the sample
    /clean/<letter>/measures/<name>    float32 (N,)       `headstrong.measures`; NaN where no pixel counts; not for s
    /clean/s/confusion                 uint32  (N, C, C)  pixel counts, [true, predicted]; 0 for a sample without labels
    /attacks/<name>/<letter>/...       the same on the adversarial images, for all tasks of the model, attacked or not;
                                       absent, whatever the task, where all attacked tasks are: no such attack was made
    /attacks/<name>/linf, l2           float32 (N,)       size of the perturbation, in pixel units
    /attacks/<name>/curve              float64 (E, A)     mean loss of each attacked task over the samples that have it,
                                                          at the E gradient evaluations of the first restart; not for
                                                          noise
    /attacks/<name>/start/<letter>/... as clean, without measures, where the first restart started; only if the job's
                                       baseline is "start"
    /attacks/<name>/program/...        ilp_* only: status, fallback str (N,); gap, bound, value float64 (N,)
    /gradients/gram, mean_gram         float64 (N, T, T), (T, T)    `headstrong.gradients`; only if the job asks for it
    /gradients/l1, l2                  float64 (N, S)     over the S subsets of tasks in the attribute subsets (JSON);
                                                          NaN in all where a task is absent
    /flags                             str                JSON, `headstrong.sanity`

File attributes: format, id, tasks, job (JSON), code, weights_sha256, data, classes (JSON), precision. Attributes of an
attack: the fields of its job, without those that are None. Of gradients: tasks, subsets. Equal runs give equal bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstrong.attacks.ilp import Solution
from headstrong.attacks.run import check, perturb
from headstrong.attacks.steppers import Notes
from headstrong.data.batches import Batch, Batches
from headstrong.data.cache import SplitFile
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.folding import frozen
from headstrong.gradients import Gradients, measure_gradients
from headstrong.jobs import AttackJob, EvaluationJob, to_dict
from headstrong.losses import per_sample_losses
from headstrong.measures import per_sample_measures
from headstrong.metrics import per_sample_errors
from headstrong.models import MultiTaskModel, load_metadata, load_model
from headstrong.progress import BatchProgress
from headstrong.provenance import atomic_path, file_digest, settings_json
from headstrong.runtime import autocast, computes_in_bfloat16, reproducible
from headstrong.sanity import Outcome, flags

FORMAT = "headstrong-evaluation-2"
BASELINES = ("clean", "start")


def evaluate(
    job: EvaluationJob, weights: Path, data: Path, output: Path, *, device: str, threads: int, code: str
) -> None:
    """Measure the model of `weights` on the test split `data`, clean and under every attack of the job, into `output`.

    device: "cpu" or "cuda". threads: of the CPU. code: digest of the evaluation code, stored in the file.

    The file appears only when whole. Equal arguments on one type of device give equal bytes. Raises ConfigError for a
    job that cannot be, MissingDataError or BrokenFileError where weights or data are not what they should be, and
    DivergedError where a loss or a gradient is not a number.
    """
    _check_job(job)
    with reproducible(device, threads):
        model = load_model(weights, device)
        batches = Batches(data, job.tasks, device, limit=job.samples, curvature=job.curvature, depth=job.depth)
        with contextlib.closing(batches), SplitFile(data, job.samples) as split:
            _check_match(job, model, batches, weights, data)
            bench = _Bench.build(job, model, batches, _class_weights(job, weights, device))
            with atomic_path(output) as part, h5py.File(part, "w", locking=False) as file:
                file.attrs["format"] = FORMAT
                file.attrs["id"] = job.id
                file.attrs["tasks"] = job.tasks
                file.attrs["job"] = settings_json(to_dict(job))
                file.attrs["code"] = code
                file.attrs["weights_sha256"] = file_digest(weights)
                file.attrs["data"] = split.dataset
                file.attrs["classes"] = json.dumps(split.classes, ensure_ascii=False)
                file.attrs["precision"] = "bfloat16" if computes_in_bfloat16(job.precision, device) else "float32"
                _store(file, "index", np.array(split.names, dtype=object))
                _measure_all(bench, file)


def _measure_all(bench: _Bench, file: h5py.File) -> None:
    job = bench.job
    outcomes = []
    total = bench.rounds * (1 + job.gradients + len(job.attacks))
    with BatchProgress(job.id, total) as progress:
        clean = bench.clean(progress)
        _store_measured(file.create_group("clean"), clean, job.tasks)
        progress.finished("clean", partial(_in_words, job.tasks, clean, clean))
        gradients = bench.gradients(progress, clean.labelled) if job.gradients else None
        if gradients is not None:
            _store_gradients(file.create_group("gradients"), gradients)
        group = file.create_group("attacks")
        for attack in job.attacks:
            found = bench.attacked(attack, clean.losses, progress)
            _store_attacked(group.create_group(attack.name), found, attack, job.tasks)
            progress.finished(attack.name, partial(_in_words, job.tasks, clean, found.end))
            outcomes.append(Outcome(attack, found.end.losses, found.end.linf, found.curve))
    norms = None if gradients is None else np.sqrt(np.diagonal(gradients.gram, axis1=1, axis2=2))
    _store(file, "flags", json.dumps(flags(job.tasks, clean.losses, outcomes, norms)))


@dataclass(frozen=True)
class _Measured:
    """Numbers of N samples and T tasks: losses and errors float32 (N, T); sizes of the perturbation float32 (N,).

    labelled: bool (N, T), the losses there are; others are NaN.
    """

    labelled: NDArray[np.bool_]
    losses: NDArray[np.float32]
    errors: NDArray[np.float32]
    confusion: NDArray[np.uint32] | None  # (N, C, C)
    measures: dict[str, NDArray[np.float32]]  # (N,), by "<letter>/measures/<name>"
    linf: NDArray[np.float32]
    l2: NDArray[np.float32]


@dataclass(frozen=True)
class _Attacked:
    """Numbers at the end of an attack and, if asked for, at its start; and what the attack noted."""

    end: _Measured
    start: _Measured | None
    curve: NDArray[np.float64] | None  # (evaluations, attacked tasks)
    programs: dict[str, NDArray[Any]]  # (N,), by name


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
        return _Bench(job, frozen(model, example), batches, class_weights)

    @property
    def rounds(self) -> int:
        return -(-self.batches.count // self.job.batch_size)

    def clean(self, progress: BatchProgress) -> _Measured:
        """All tasks on all clean images."""
        return self._whole([self._measure(batch, batch.images) for batch in self._parts(progress)], "clean images")

    def attacked(self, attack: AttackJob, clean_losses: NDArray[np.float32], progress: BatchProgress) -> _Attacked:
        """All tasks on the images an attack makes, and what it noted on the way."""
        ends, starts, curves, programs = [], [], [], []
        counts: Any = 0
        for batch in self._parts(progress):
            notes = Notes()
            labelled = batch.labelled(attack.attacked)
            counts = counts + labelled.sum(dim=0).cpu().numpy()
            made = labelled.any(dim=1)
            ends.append(self._measure(batch, self._perturbed(batch, attack, clean_losses, notes), made))
            if self.job.baseline == "start":
                if notes.start is None:
                    raise RuntimeError(f"attack {attack.name!r} did not note its start")
                starts.append(self._measure(batch, notes.start, made, measures=False))
            if notes.curve:
                curves.append(torch.stack(notes.curve).numpy())
            programs += notes.programs
        return _Attacked(
            end=self._whole(ends, attack.name),
            start=self._whole(starts, f"start of {attack.name}") if starts else None,
            curve=np.sum(curves, axis=0) / counts if curves else None,
            programs=_program_columns(programs),
        )

    def gradients(self, progress: BatchProgress, labelled: NDArray[np.bool_]) -> Gradients:
        """In float32 whatever the precision of the job: differences of gradients matter here, not speed."""
        tasks = self.job.tasks
        parts = (
            (
                batch.images,
                partial(self._losses_at, batch=batch, tasks=tasks, precision="float32"),
                batch.labelled(tasks),
            )
            for batch in self._parts(progress)
        )
        found = measure_gradients(parts, tasks)
        if not np.isfinite(np.diagonal(found.gram, axis1=1, axis2=2)[labelled]).all():
            raise DivergedError(f"model {self.job.id!r}: a gradient at a clean image is not a number; train it again")
        return found

    def _parts(self, progress: BatchProgress) -> Iterator[Batch]:
        for rows in torch.arange(self.batches.count).split(self.job.batch_size):
            yield self.batches.get(rows)
            progress.advance()

    def _outputs(self, images: Tensor, tasks: str, precision: str) -> dict[str, Tensor]:
        with autocast(precision, images.device):
            found = self.model(images, tasks)
        return {letter: output.float() for letter, output in found.items()}

    def _losses(self, outputs: dict[str, Tensor], batch: Batch, tasks: str) -> Tensor:
        how: Any = {"pixels": self.job.loss_pixels, "normals": self.job.normals}
        return per_sample_losses(outputs, batch, tasks, class_weights=self.class_weights, **how)

    def _losses_at(self, images: Tensor, batch: Batch, tasks: str, precision: str) -> Tensor:
        return self._losses(self._outputs(images, tasks, precision), batch, tasks)

    def _perturbed(self, batch: Batch, attack: AttackJob, clean_losses: NDArray[np.float32], notes: Notes) -> Tensor:
        """Only the attacked tasks' decoders run while the attack looks for its images."""
        attacked = attack.attacked
        columns = [self.job.tasks.index(letter) for letter in attacked]
        places = np.searchsorted(self.batches.rows, batch.index.cpu().numpy())
        known = torch.from_numpy(clean_losses[places][:, columns]).to(batch.images.device)
        losses = partial(self._losses_at, batch=batch, tasks=attacked, precision=self.job.precision)
        how: Any = {"clean_losses": known, "labelled": batch.labelled(attacked), "notes": notes}
        return perturb(losses, batch.images, attack, attacked, batch.index, self.job.seed, **how)

    @torch.no_grad()
    def _measure(self, batch: Batch, images: Tensor, made: Tensor | None = None, *, measures: bool = True) -> _Measured:
        """All tasks on these images; made: bool (B,), False for those that are to count nowhere."""
        job = self.job
        pixels: Any = job.error_pixels
        miou: Any = job.miou
        if made is not None and not bool(made.all()):
            batch = batch.without(~made)
        outputs = self._outputs(images, job.tasks, job.precision)
        errors, confusion = per_sample_errors(outputs, batch, job.tasks, pixels=pixels, miou=miou)
        change = (images - batch.images).flatten(1)
        return _Measured(
            labelled=batch.labelled(job.tasks).cpu().numpy(),
            losses=_numpy(self._losses(outputs, batch, job.tasks)),
            errors=_numpy(errors),
            confusion=None if confusion is None else confusion.cpu().numpy().astype(np.uint32),
            measures=_measures(outputs, batch, job) if measures else {},
            linf=_numpy(change.abs().amax(dim=1)),
            l2=_numpy(change.norm(dim=1)),
        )

    def _whole(self, parts: list[_Measured], where: str) -> _Measured:
        """The batches put together. Raises DivergedError where a loss is not a number."""
        measured = _concatenated(parts)
        broken = np.argwhere(measured.labelled & ~np.isfinite(measured.losses))
        if len(broken):
            sample, column = broken[0]
            raise DivergedError(
                f"model {self.job.id!r}, {where}: the loss of task {self.job.tasks[column]!r} is "
                f"{measured.losses[sample, column]} on sample {sample}; train it again"
            )
        return measured


def _measures(outputs: dict[str, Tensor], batch: Batch, job: EvaluationJob) -> dict[str, NDArray[np.float32]]:
    pixels: Any = job.error_pixels
    found = {
        f"{letter}/measures/{name}": values
        for letter, values_by_name in per_sample_measures(
            outputs, batch, job.tasks, pixels=pixels, depth=job.depth
        ).items()
        for name, values in values_by_name.items()
    }
    # One transfer from the device, not one for each.
    return dict(zip(found, _numpy(torch.stack(list(found.values()))), strict=True)) if found else {}


def _concatenated(parts: list[_Measured]) -> _Measured:
    def together(values: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        present = [value for value in values if value is not None]
        return np.concatenate(present) if present else None

    names = [name for name in _Measured.__annotations__ if name != "measures"]
    fields: dict[str, Any] = {name: together([getattr(part, name) for part in parts]) for name in names}
    measures = {key: np.concatenate([part.measures[key] for part in parts]) for key in parts[0].measures}
    return _Measured(**fields, measures=measures)


def _program_columns(programs: list[tuple[int, Solution]]) -> dict[str, NDArray[Any]]:
    """By name, in the order of the samples. Seconds are left out: equal runs give equal bytes."""
    if not programs:
        return {}
    solutions = [solution for _, solution in sorted(programs, key=lambda pair: pair[0])]
    words = {key: np.array([getattr(s, key) for s in solutions], dtype=object) for key in ("status", "fallback")}
    numbers = {key: np.array([getattr(s, key) for s in solutions], np.float64) for key in ("gap", "bound", "value")}
    return {**words, **numbers}


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


def _check_job(job: EvaluationJob) -> None:
    if job.baseline not in BASELINES:
        raise ConfigError(
            f"evaluation {job.id!r}: baseline {job.baseline!r} is unknown; choose one of {', '.join(BASELINES)}"
        )
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


def _store(group: h5py.Group, name: str, values: Any, **filters: Any) -> None:
    # Without times, equal content gives equal bytes.
    text = isinstance(values, str) or values.dtype == object
    filters |= {"dtype": h5py.string_dtype()} if text else {}
    group.create_dataset(name, data=values, track_times=False, **filters)


def _store_measured(group: h5py.Group, measured: _Measured, tasks: str) -> None:
    for column, letter in enumerate(tasks):
        task = group.create_group(letter)
        _store(task, "loss", measured.losses[:, column])
        _store(task, "error", measured.errors[:, column])
        if letter == "s" and measured.confusion is not None:
            _store(task, "confusion", measured.confusion, compression="gzip", compression_opts=4, shuffle=True)
    for place, values in measured.measures.items():
        _store(group, place, values)


def _store_attacked(group: h5py.Group, found: _Attacked, attack: AttackJob, tasks: str) -> None:
    for key, value in asdict(attack).items():
        if value is not None:
            group.attrs[key] = value
    _store(group, "linf", found.end.linf)
    _store(group, "l2", found.end.l2)
    _store_measured(group, found.end, tasks)
    if found.curve is not None:
        _store(group, "curve", found.curve)
    if found.start is not None:
        _store_measured(group.create_group("start"), found.start, tasks)
    for name, values in found.programs.items():
        _store(group, f"program/{name}", values)


def _store_gradients(group: h5py.Group, found: Gradients) -> None:
    group.attrs["tasks"] = found.tasks
    group.attrs["subsets"] = json.dumps(found.subsets)
    for name in ("gram", "mean_gram", "l1", "l2"):
        _store(group, name, getattr(found, name))


def _in_words(tasks: str, clean: _Measured, attacked: _Measured) -> str:
    # An error can be undefined on a sample without a valid pixel, or on all of them.
    means = (np.nansum(m.errors, 0) / np.maximum(1, np.isfinite(m.errors).sum(0)) for m in (clean, attacked))
    return ", ".join(f"{letter} {a:.4g} -> {b:.4g}" for letter, a, b in zip(tasks, *means, strict=True))
