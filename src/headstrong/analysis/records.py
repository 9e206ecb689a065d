"""Reading one evaluation file: the per-sample numbers of one model, clean and under every attack."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headstrong.analysis.evaluation_files import opened
from headstrong.errors import BrokenFileError
from headstrong.tasks import TASKS

FORMAT = "headstrong-evaluation-2"
CLEAN = "clean"  # the name of "no attack" in every table
REMEDY = "delete it and run the evaluation again"
ANGLE_MEASURES = ("angle_mean", "angle_median", "within_11.25", "within_22.5", "within_30")
DEPTH_MEASURES = ("absolute", "relative", "within_1.25", "within_1.25^2", "within_1.25^3")
_FLAG_TYPES = {"attack": str, "task": str, "flag": str, "message": str, "samples": int, "of": int}

Array = NDArray[np.float64]


def measures_of(letter: str) -> tuple[str, ...]:
    """Names of a task's measures per sample; none for segmentation, whose confusion matrix says it all."""
    if TASKS[letter].loss == "cross_entropy":
        return ()
    return {"n": ANGLE_MEASURES, "d": DEPTH_MEASURES, "D": DEPTH_MEASURES}.get(letter, ("absolute",))


@dataclass(frozen=True)
class TaskRecord:
    """One task of one model on the N samples.

    `loss` and `error` are float64 (N,): the training loss of a sample, and its error (100 - mIoU in percent for
    segmentation, else the mean squared error). `confusion` is int64 (N, C, C) for segmentation, [true, predicted].
    `measures` are float64 (N,) by the names of `measures_of`: angles in degrees, depths in metres, shares in [0, 1].
    NaN, and counts of 0, where the task is absent from a sample: it has no labelled pixel, or the attack was not made.
    """

    loss: Array
    error: Array
    confusion: NDArray[np.int64] | None = None
    measures: Mapping[str, Array] = field(default_factory=dict)

    def only(self, samples: NDArray[np.bool_]) -> TaskRecord:
        """The same record with the task absent from all samples but these, bool (N,)."""
        if samples.all():
            return self

        def kept(values: Array) -> Array:
            return np.where(samples, values, math.nan)

        counts = None if self.confusion is None else self.confusion * samples[:, None, None]
        measures = {name: kept(values) for name, values in self.measures.items()}
        return TaskRecord(kept(self.loss), kept(self.error), counts, measures)


@dataclass(frozen=True)
class Programs:
    """What the integer programs of N images came to, see `headstrong.attacks.ilp.Solution`.

    `status` and `fallback` are words; `value`, `bound` and `gap` float64 (N,). Where no bound is known, bound and gap
    are infinite.
    """

    status: tuple[str, ...]
    fallback: tuple[str, ...]
    value: Array
    bound: Array
    gap: Array


@dataclass(frozen=True)
class Gradients:
    """Gradients r_t of the tasks' losses with respect to the clean image in [0, 1], N images and T tasks, float64.

    `gram` (N, T, T): inner products of an image's r_t. `mean_gram` (T, T): inner products of their means over images.
    `l1`, `l2` (N, S): norms of the sum of r_t over each of `subsets`, S strings of letters. NaN where a task is absent.
    """

    tasks: str
    subsets: tuple[str, ...]
    gram: Array
    mean_gram: Array
    l1: Array
    l2: Array

    def with_tasks(self, tasks: str) -> NDArray[np.bool_]:
        """Bool (N,): the images that have all of these tasks."""
        own = np.diagonal(self.gram, axis1=1, axis2=2)[:, [self.tasks.index(letter) for letter in tasks]]
        return np.asarray(~np.isnan(own).any(axis=1))


@dataclass(frozen=True)
class AttackRecord:
    """One attack on one model: its fields, the sizes of its perturbations (N,) in pixel units, and every task.

    `made` bool (N,): the samples that have a label for any attacked task; on the others there was no attack. `curve`
    float64 (E, A): mean losses of the A attacked tasks, in the order of `attacked`, at the E gradient evaluations of
    the first restart; None for noise. `at_start`: every task, without measures, at the images where
    the first restart started; None where the job compares with clean images. `programs`: None but for ilp_* steppers.
    """

    name: str
    family: str
    balancer: str
    attacked: str
    stepper: str
    norm: str
    epsilon: float
    step_size: float
    steps: int
    start: str
    restarts: int
    linf: Array
    l2: Array
    tasks: Mapping[str, TaskRecord]
    made: NDArray[np.bool_]
    l2_step: str = "direction"
    pixels: int | None = None
    curve: Array | None = None
    at_start: Mapping[str, TaskRecord] | None = None
    programs: Programs | None = None

    @property
    def threat(self) -> tuple[object, ...]:
        """Everything but the attacked tasks and their balance: attacks with equal threats can be compared."""
        return (
            self.family,
            self.stepper,
            self.norm,
            self.epsilon,
            self.step_size,
            self.steps,
            self.start,
            self.restarts,
            self.l2_step,
            self.pixels,
        )


@dataclass(frozen=True)
class Evaluation:
    """Everything one evaluation file holds. `job` is the EvaluationJob as a dictionary; `index` names the N samples.

    `gradients` is None unless they were measured. `flags` are those of `headstrong.sanity`: dictionaries with attack
    (name or ""), task (letter or ""), flag, message, samples and of.
    """

    id: str
    tasks: str
    job: Mapping[str, Any]
    code: str
    data: str
    classes: tuple[str, ...]
    index: tuple[str, ...]
    clean: Mapping[str, TaskRecord]
    attacks: Mapping[str, AttackRecord]
    gradients: Gradients | None = None
    flags: tuple[Mapping[str, Any], ...] = ()

    def before(self, attack: AttackRecord, *, at_start: bool = False) -> Mapping[str, TaskRecord]:
        """Every task on clean images, of those samples that the attack was made on: what its numbers compare with.

        at_start: where the attack started, if the job compares with that.
        """
        records = attack.at_start if at_start and attack.at_start is not None else self.clean
        if attack.made.all():
            return records
        return {letter: record.only(attack.made) for letter, record in records.items()}


def read_evaluation(path: Path) -> Evaluation:
    """Read one evaluation file whole.

    Raises MissingDataError when it is absent, BrokenFileError when it is truncated, foreign, incomplete, or holds a
    number that cannot be (an infinite loss, a number that exists clean but not under attack). Where a task is absent
    from a sample, older files hold a loss of 0, and numbers of attacks that were not made; both are read as NaN.
    """
    source = "run the evaluation of this model"
    with opened(path, FORMAT, "an evaluation of headstrong", source, REMEDY) as file:
        return _read(file, path)


def _read(file: h5py.File, path: Path) -> Evaluation:
    tasks = str(file.attrs["tasks"])
    index = tuple(file["index"].asstr()[:])
    job = json.loads(file.attrs["job"])
    clean = _tasks(file["clean"], tasks, len(index), path)
    _check_losses(clean, job, path)
    expected = {str(attack["name"]) for attack in job["attacks"]}
    if expected != set(file["attacks"]):
        lacking = ", ".join(sorted(expected ^ set(file["attacks"])))
        raise BrokenFileError(f"{path}: its attacks are not those of its job ({lacking}); {REMEDY}")
    from_start = job["baseline"] == "start"
    attacks = {name: _attack(file["attacks"][name], tasks, clean, from_start, path) for name in sorted(expected)}
    measured = job["gradients"] or "gradients" in file
    return Evaluation(
        id=str(file.attrs["id"]),
        tasks=tasks,
        job=job,
        code=str(file.attrs["code"]),
        data=str(file.attrs["data"]),
        classes=tuple(json.loads(file.attrs["classes"])),
        index=index,
        clean=clean,
        attacks=attacks,
        gradients=_gradients(file["gradients"], tasks, len(index), path) if measured else None,
        flags=_flags(file["flags"], path),
    )


def _attack(
    group: h5py.Group, tasks: str, clean: Mapping[str, TaskRecord], from_start: bool, path: Path
) -> AttackRecord:
    count = len(next(iter(clean.values())).loss)
    fields = group.attrs
    attacked, stepper = str(fields["attacked"]), str(fields["stepper"])
    made = np.any([~np.isnan(clean[letter].loss) for letter in attacked], axis=0)
    records = _tasks(group, tasks, count, path)
    at_start = _tasks(group["start"], tasks, count, path, measures=False) if from_start else None
    for found in (records, at_start or {}):
        _check_holes(group, found, clean, made, path)
    records = {letter: record.only(made) for letter, record in records.items()}
    if at_start is not None:
        at_start = {letter: record.only(made) for letter, record in at_start.items()}
    return AttackRecord(
        name=str(fields["name"]),
        family=str(fields["family"]),
        balancer=str(fields["balancer"]),
        attacked=attacked,
        stepper=stepper,
        norm=str(fields["norm"]),
        epsilon=float(fields["epsilon"]),
        step_size=float(fields["step_size"]),
        steps=int(fields["steps"]),
        start=str(fields["start"]),
        restarts=int(fields["restarts"]),
        linf=_numbers(group["linf"], (count,), path),
        l2=_numbers(group["l2"], (count,), path),
        tasks=records,
        made=made,
        l2_step=str(fields["l2_step"]),
        pixels=int(fields["pixels"]) if "pixels" in fields else None,
        curve=None if stepper == "noise" else _numbers(group["curve"], (None, len(attacked)), path),
        at_start=at_start,
        programs=_programs(group["program"], count, path) if stepper.startswith("ilp_") else None,
    )


def _check_losses(clean: Mapping[str, TaskRecord], job: Mapping[str, Any], path: Path) -> None:
    """A loss is absent where the error is; where all pixels have an error, also on a sample without a labelled one."""
    for letter, record in clean.items():
        everywhere = (job["miou"] if TASKS[letter].loss == "cross_entropy" else job["error_pixels"]) == "all"
        if not everywhere and np.any(np.isnan(record.loss) & ~np.isnan(record.error)):
            raise BrokenFileError(f"{path}: /clean/{letter}/loss holds a value that is not a finite number; {REMEDY}")


def _check_holes(
    group: h5py.Group,
    records: Mapping[str, TaskRecord],
    clean: Mapping[str, TaskRecord],
    made: NDArray[np.bool_],
    path: Path,
) -> None:
    """What was measured on the clean image must have been measured under an attack that was made on it."""
    for letter, record in records.items():
        before = clean[letter]
        pairs = [("an error or a measure", record.error, before.error)]
        pairs += [("an error or a measure", record.measures[name], before.measures[name]) for name in record.measures]
        pairs += [("a loss", record.loss, before.loss)]
        for what, under_attack, known in pairs:
            if np.any(np.isnan(under_attack) & ~np.isnan(known) & made):
                name = group.name.rpartition("/")[2]
                raise BrokenFileError(f"{path}: attack {name}, task {letter}: {what} is not a number; {REMEDY}")


def _tasks(group: h5py.Group, tasks: str, count: int, path: Path, measures: bool = True) -> dict[str, TaskRecord]:
    return {letter: _task(group[letter], letter, count, path, measures) for letter in tasks}


def _task(group: h5py.Group, letter: str, count: int, path: Path, measures: bool) -> TaskRecord:
    error = _numbers(group["error"], (count,), path, holes=True)
    loss = np.where(np.isnan(error), math.nan, _numbers(group["loss"], (count,), path, holes=True))
    if TASKS[letter].loss != "cross_entropy":
        names = measures_of(letter) if measures else ()
        found = {name: _numbers(group[f"measures/{name}"], (count,), path, holes=True) for name in names}
        return TaskRecord(loss, error, measures=found)
    confusion = group["confusion"][:].astype(np.int64)
    if confusion.ndim != 3 or confusion.shape[0] != count or confusion.shape[1] != confusion.shape[2]:
        raise BrokenFileError(f"{path}: {group.name}/confusion has shape {confusion.shape}; {REMEDY}")
    return TaskRecord(loss, error, confusion)


def _programs(group: h5py.Group, count: int, path: Path) -> Programs:
    status, fallback = (tuple(group[name].asstr()[:]) for name in ("status", "fallback"))
    if len(status) != count or len(fallback) != count:
        raise BrokenFileError(f"{path}: {group.name} has {len(status)} programs, expected {count}; {REMEDY}")
    bound, gap = (_numbers(group[name], (count,), path, infinite=True) for name in ("bound", "gap"))
    return Programs(status, fallback, _numbers(group["value"], (count,), path), bound, gap)


def _gradients(group: h5py.Group, tasks: str, count: int, path: Path) -> Gradients:
    letters, subsets = str(group.attrs["tasks"]), tuple(json.loads(group.attrs["subsets"]))
    size = len(tasks)
    if sorted(letters) != sorted(tasks):
        raise BrokenFileError(f"{path}: gradients of tasks {letters}, expected {tasks}; {REMEDY}")
    return Gradients(
        tasks=letters,
        subsets=subsets,
        gram=_numbers(group["gram"], (count, size, size), path, holes=True),
        mean_gram=_numbers(group["mean_gram"], (size, size), path, holes=True),
        l1=_numbers(group["l1"], (count, len(subsets)), path, holes=True),
        l2=_numbers(group["l2"], (count, len(subsets)), path, holes=True),
    )


def _flags(dataset: h5py.Dataset, path: Path) -> tuple[Mapping[str, Any], ...]:
    flags = json.loads(dataset.asstr()[()])
    for flag in flags:
        if not isinstance(flag, dict) or {key: type(value) for key, value in flag.items()} != _FLAG_TYPES:
            raise BrokenFileError(f"{path}: a flag has other keys than {', '.join(_FLAG_TYPES)}; {REMEDY}")
    return tuple(flags)


def _numbers(
    dataset: h5py.Dataset, shape: tuple[int | None, ...], path: Path, *, holes: bool = False, infinite: bool = False
) -> Array:
    """Numbers of a shape (None: any length above 0). holes: NaN is allowed; infinite: infinity is."""
    values: Array = dataset[:].astype(np.float64)
    fits = (n == w if w is not None else n > 0 for n, w in zip(values.shape, shape, strict=False))
    if values.ndim != len(shape) or not all(fits):
        wanted = tuple("any" if length is None else length for length in shape)
        raise BrokenFileError(f"{path}: {dataset.name} has shape {values.shape}, expected {wanted}; {REMEDY}")
    if (not infinite and np.any(np.isinf(values))) or (not holes and np.any(np.isnan(values))):
        raise BrokenFileError(f"{path}: {dataset.name} holds a value that is not a finite number; {REMEDY}")
    return values


def to_frame(evaluation: Evaluation) -> pd.DataFrame:
    """One row per attack (or "clean"), task and sample: columns model, attack, attacked, task, sample, loss, error."""
    situations = [(CLEAN, "", evaluation.clean)]
    situations += [(attack.name, attack.attacked, attack.tasks) for attack in evaluation.attacks.values()]
    parts = [
        pd.DataFrame(
            {
                "model": evaluation.id,
                "attack": name,
                "attacked": attacked,
                "task": letter,
                "sample": evaluation.index,
                "loss": record.loss,
                "error": record.error,
            }
        )
        for name, attacked, records in situations
        for letter, record in records.items()
    ]
    return pd.concat(parts, ignore_index=True)
