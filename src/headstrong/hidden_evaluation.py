"""Evaluation of one hidden task: what forgetting did, and what every attack does to the hidden and visible tasks.

    /index                                     str     (N,)   names of the images
    /clean/<task>/error, loss                  float32 (N,)   every task, the hidden one included
    /attacks/<name>/<task>/error, loss         float32 (N,)
    /attacks/<name>/linf, l2                   float32 (N,)   size of the perturbation, in pixel units
    /forgetting/<access>/<epoch>/<task>/error  float32 (N,)   of the copy after so many epochs, 0: before, under the
                                                              true heads
    /majority/<task>/error                     float32 (N,)   classes only: of telling every image the class that most
                                                              of these images have, label by label
    /forgetting/<access>/<epoch>/distance      float32 (N,)   |f1(x) - f0(x)| / |f0(x)|

error: of classes the share of a task's labels told wrongly; of a dense task `headstrong.metrics`. Error and loss are
NaN where a dense task is absent from an image, and of an attack, for all tasks, where all that it attacks are. File
attributes: format, family, kind, hidden, tasks (JSON), dataset, job (JSON), code, complete.
Attributes of an attack: objective, access, stealth, attacked (JSON), stepper, norm, epsilon, steps. Equal runs give
equal bytes.

The judge sees everything and measures; attackers (`headstrong.hidden_attackers`) see what their access allows.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstrong.data.cache import SplitFile
from headstrong.data.hdf5_files import FILE_FORMAT
from headstrong.data.pictures import PictureFile
from headstrong.errors import BrokenFileError, ConfigError, DivergedError
from headstrong.feature_files import FeatureFile
from headstrong.hidden_attackers import Attacker, check_attack, open_attacker
from headstrong.hidden_measures import errors, folded
from headstrong.hidden_views import ClassView, View, open_view
from headstrong.jobs import HiddenAttackJob, HiddenJob, to_dict
from headstrong.learned import NOT_FORGOTTEN, NOT_LEARNED, clearly_more, learned
from headstrong.progress import BatchProgress
from headstrong.provenance import atomic_path, file_digest, settings_json
from headstrong.runtime import reproducible

FORMAT = "headstrong-hidden-1"
log = logging.getLogger(__name__)
Array = NDArray[np.float32]


class Measured(NamedTuple):
    """Losses and errors float32 (N, T) of N images and T tasks, and the size (N, 2) of what was added: Linf, L2.

    labelled: bool (N, T), the losses there are; others are NaN.
    """

    losses: Array
    errors: Array
    sizes: Array
    labelled: NDArray[np.bool_]


def evaluate(
    job: HiddenJob,
    victim: Path,
    test: Path,
    forgettings: Mapping[str, tuple[Path, Path]],
    output: Path,
    *,
    device: str,
    threads: int,
    code: str,
) -> None:
    """Measure one hidden task's forgetting and attacks into `output`, an HDF5 that appears only when whole.

    victim: weights of the network. test: data file. forgettings: by access, the copy's weights and features that
    `headstrong.forgetting` wrote. device: "cpu" or "cuda". threads: of the CPU. code: digest of the evaluation code.

    Raises ConfigError for a job that cannot be, MissingDataError or BrokenFileError
    where files are not what they should be, DivergedError where a loss is not a number.
    """
    _check_job(job, forgettings)
    outputs = dict(job.tasks)
    with reproducible(device, threads), contextlib.ExitStack() as stack:
        judge = folded(open_view(job.kind, outputs, victim, test, device, limit=job.samples))
        visible = {task: names for task, names in outputs.items() if task != job.hidden}
        attackers = {"": Attacker(judge)}  # of noise, which sees nothing, and the oracle, which may see all
        for access, (copies, features) in forgettings.items():
            found = open_attacker(job.kind, visible, access, victim, test, copies, features, device, job.samples)
            if found.forgetful is not None:
                stack.enter_context(found.forgetful)
                _check_forgetting(job, access, found, victim, features)
                _check_numbers(found.forgetful, found.view, job.batch_size)
            attackers[access] = found
        bench = _Bench(job, judge, attackers)
        part = stack.enter_context(atomic_path(output))
        file = stack.enter_context(h5py.File(part, "w", libver=FILE_FORMAT, locking=False))
        _describe(file, job, test, judge.count, code)
        _measure_all(bench, file)
        file.attrs["complete"] = 1


def _measure_all(bench: _Bench, file: h5py.File) -> None:
    job = bench.job
    total = bench.rounds * (1 + len(job.accesses) + len(job.attacks))
    with BatchProgress(f"{job.family}, {job.hidden} hidden", total) as progress:
        clean = bench.clean(progress)
        _store_measured(file.create_group("clean"), bench.judge.tasks, clean)
        progress.finished("clean", partial(_in_words, bench.judge.tasks, clean, clean))
        if isinstance(bench.judge, ClassView):
            for column, (task, wrong) in enumerate(bench.judge.majority_errors().items()):
                _store(file, f"majority/{task}/error", wrong)
                if not learned(1 - clean.errors[:, column], 1 - wrong):
                    log.warning("family %s, %s hidden: task %s: %s", job.family, job.hidden, task, NOT_LEARNED)
        for access in job.accesses:
            copies = bench.forgetting(access, progress)
            for place, values in copies.items():
                _store(file, f"forgetting/{access}/{place}", values)
            last = max(int(place.partition("/")[0]) for place in copies)
            if not clearly_more(copies[f"{last}/{job.hidden}/error"], copies[f"0/{job.hidden}/error"]):
                log.warning("family %s, %s hidden, access %s: %s", job.family, job.hidden, access, NOT_FORGOTTEN)
        group = file.create_group("attacks")
        for attack in job.attacks:
            found = bench.attacked(attack, progress)
            one = group.create_group(attack.method.name)
            _store_measured(one, bench.judge.tasks, found)
            _store(one, "linf", found.sizes[:, 0])
            _store(one, "l2", found.sizes[:, 1])
            _describe_attack(one, attack)
            progress.finished(attack.method.name, partial(_in_words, bench.judge.tasks, clean, found))


class _Bench:
    """The judge and the attackers, by access, of one job."""

    def __init__(self, job: HiddenJob, judge: View, attackers: Mapping[str, Attacker]) -> None:
        self.job, self.judge, self.attackers = job, judge, attackers

    @property
    def rounds(self) -> int:
        return -(-self.judge.count // self.job.batch_size)

    def clean(self, progress: BatchProgress) -> Measured:
        """All tasks on the clean images."""
        return self._whole([self._measure(rows, None) for rows in self._parts(progress)], "clean images")

    def attacked(self, attack: HiddenAttackJob, progress: BatchProgress) -> Measured:
        """All tasks on the images that an attack makes; the attacker is asked for these, and told nothing."""
        attacker, seed = self.attackers[attack.access], self.job.seed
        parts = []
        for rows in self._parts(progress):
            labelled = attacker.labelled(attack, rows)
            made = None if labelled is None else labelled.any(dim=1)
            parts.append(self._measure(rows, attacker.perturb(attack, rows, seed), made))
        return self._whole(parts, attack.method.name)

    def forgetting(self, access: str, progress: BatchProgress) -> dict[str, Array]:
        """By place: the errors of the copy's features under the true heads after each epoch, and their distance."""
        file = self.attackers[access].forgetful
        assert file is not None  # opened with each access
        parts: dict[str, list[Tensor]] = {}
        for rows in self._parts(progress):
            original = file.original(rows)
            for epoch in (0, *file.epochs):
                features = file.forgetful(rows, epoch) if epoch else original
                found = self._errors(features, rows)
                for column, task in enumerate(self.judge.tasks):
                    parts.setdefault(f"{epoch}/{task}/error", []).append(found[:, column].cpu())
                parts.setdefault(f"{epoch}/distance", []).append(_relative_distance(features, original))
        return {place: torch.cat(values).numpy() for place, values in parts.items()}

    def _parts(self, progress: BatchProgress) -> Any:
        for rows in self.judge.rows(self.job.batch_size):
            yield rows
            progress.advance()

    @torch.no_grad()
    def _errors(self, features: Tensor, rows: Tensor) -> Tensor:
        batch = self.judge.batch(rows)
        return self._errors_of(self.judge.outputs(features.to(batch.images.device)), batch)

    def _errors_of(self, outputs: Mapping[str, Tensor], batch: Any) -> Tensor:
        return errors(self.judge, outputs, batch, error_pixels=self.job.error_pixels, miou=self.job.miou)

    @torch.no_grad()
    def _measure(self, rows: Tensor, images: Tensor | None, made: Tensor | None = None) -> Measured:
        """All tasks on these images; made: bool (B,), False for those that are to count nowhere."""
        batch: Any = self.judge.batch(rows)
        if made is not None and not bool(made.all()):
            batch = batch.without(~made)
        shown = batch.images if images is None else images
        outputs = {name: found.float() for name, found in self.judge.outputs(self.judge.features(shown)).items()}
        change = (shown - batch.images).flatten(1)
        sizes = torch.stack([change.abs().amax(dim=1), change.norm(dim=1)], dim=1)
        found = (self.judge.losses(outputs, batch), self._errors_of(outputs, batch), sizes)
        losses, wrong, size = (_numpy(values) for values in found)
        return Measured(losses, wrong, size, self.judge.labelled(batch).cpu().numpy())

    def _whole(self, parts: list[Measured], where: str) -> Measured:
        whole = Measured(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        broken = np.argwhere(whole.labelled & ~np.isfinite(whole.losses))
        if len(broken):
            sample, column = broken[0]
            raise DivergedError(
                f"family {self.job.family!r}, {self.job.hidden} hidden, {where}: the loss of task "
                f"{self.judge.tasks[column]!r} is {whole.losses[sample, column]} on image {sample}; train it again"
            )
        return whole


def _relative_distance(features: Tensor, original: Tensor) -> Tensor:
    length = original.flatten(1).double().norm(dim=1)
    apart = (features - original).flatten(1).double().norm(dim=1)
    return (apart / torch.where(length > 0, length, 1)).float()


def _check_job(job: HiddenJob, forgettings: Mapping[str, tuple[Path, Path]]) -> None:
    where = f"family {job.family!r}, {job.hidden} hidden"
    tasks = [task for task, _ in job.tasks]
    if job.hidden not in tasks or len(tasks) < 2:
        raise ConfigError(f"{where}: of the tasks {', '.join(tasks)}; expected one of at least two")
    if set(job.accesses) != set(forgettings):
        raise ConfigError(f"{where}: forgetful copies of {sorted(forgettings)} given, expected {sorted(job.accesses)}")
    names = [attack.method.name for attack in job.attacks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{where}: two attacks are called {twice[0]!r}; give each its own name")
    for attack in job.attacks:
        check_attack(attack)
        if attack.access not in ("", *job.accesses):
            raise ConfigError(f"{where}: attack {attack.method.name} has access {attack.access!r}, which is none here")
        # The entry without an access is the judge's own: it is for who is meant to see all, or nothing.
        if attack.access == "" and attack.objective not in ("oracle", "noise"):
            raise ConfigError(
                f"{where}: attack {attack.method.name} names no access, which only oracle and noise need not"
            )
        if attack.objective != "oracle" and job.hidden in attack.attacked:
            raise ConfigError(f"{where}: attack {attack.method.name} attacks the hidden task, as only the oracle can")


def _check_forgetting(job: HiddenJob, access: str, attacker: Attacker, victim: Path, features: Path) -> None:
    """BrokenFileError where a copy forgot another task, of another network, or with another access."""
    assert attacker.forgetful is not None
    made = json.loads(attacker.forgetful.job)
    visible = [[task, list(names)] for task, names in job.tasks if task != job.hidden]
    alike = (made["hidden"], made["access"], made["visible"]) == (job.hidden, access, visible)
    if not alike or attacker.forgetful.weights_sha256 != file_digest(victim):
        raise BrokenFileError(
            f"{features}: of {made['hidden']} hidden with access {made['access']}, or of another network; delete it "
            "and forget this task again"
        )


def _check_numbers(file: FeatureFile, view: View, batch_size: int) -> None:
    """BrokenFileError for a feature that is not a number: the class told from it would look like a prediction."""

    def check(name: str, values: Tensor, first: int | None = None) -> None:
        broken = torch.nonzero(~torch.isfinite(values))
        if len(broken):
            row = "" if first is None else f", row {first + int(broken[0, 0])}"
            raise BrokenFileError(
                f"{file.path}: {name}{row} holds numbers that are not finite; delete it and forget this task again"
            )

    check("mean_direction", file.mean_direction())
    for rows in view.rows(batch_size):
        check("original", file.original(rows), int(rows[0]))
        for epoch in file.epochs:
            check(f"forgetful/{epoch}", file.forgetful(rows, epoch), int(rows[0]))


def _describe(file: h5py.File, job: HiddenJob, test: Path, count: int, code: str) -> None:
    names: Any
    if job.kind == "classes":
        with PictureFile(test) as pictures:
            names, dataset = pictures.names, pictures.dataset
    else:
        with SplitFile(test, job.samples) as split:
            names, dataset = split.names, split.dataset
    file.attrs["format"] = FORMAT
    for key in ("family", "kind", "hidden"):
        file.attrs[key] = getattr(job, key)
    file.attrs["tasks"] = json.dumps([task for task, _ in job.tasks], ensure_ascii=False)
    file.attrs["dataset"] = dataset
    file.attrs["job"] = settings_json(to_dict(job))
    file.attrs["code"] = code
    _store(file, "index", np.array(names[:count], dtype=object))


def _describe_attack(group: h5py.Group, attack: HiddenAttackJob) -> None:
    for key in ("objective", "access", "stealth"):
        group.attrs[key] = getattr(attack, key)
    for key in ("stepper", "norm", "epsilon", "steps"):
        group.attrs[key] = getattr(attack.method, key)
    group.attrs["attacked"] = json.dumps(attack.attacked, ensure_ascii=False)


def _store_measured(group: h5py.Group, tasks: tuple[str, ...], measured: Measured) -> None:
    for column, task in enumerate(tasks):
        _store(group, f"{task}/error", measured.errors[:, column])
        _store(group, f"{task}/loss", measured.losses[:, column])


def _store(group: h5py.Group, place: str, values: Any) -> None:
    text = {"dtype": h5py.string_dtype()} if values.dtype == object else {}
    group.create_dataset(
        place, data=values, track_times=False, **text
    )  # without times, equal content gives equal bytes


def _numpy(values: Tensor) -> Array:
    found: Array = values.float().cpu().numpy()
    return found


def _in_words(tasks: tuple[str, ...], clean: Measured, attacked: Measured) -> str:
    means = (np.nanmean(measured.errors, axis=0) for measured in (clean, attacked))
    return ", ".join(f"{task} {a:.4g} -> {b:.4g}" for task, a, b in zip(tasks, *means, strict=True))
