"""Reading one evaluation file: the per-sample numbers of one model, clean and under every attack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.tasks import TASKS

FORMAT = "headstrong-evaluation-1"
CLEAN = "clean"  # the name of "no attack" in every table
REMEDY = "delete it and run the evaluation again"


@dataclass(frozen=True)
class TaskRecord:
    """One task of one model on the N samples.

    `loss` and `error` are float64 (N,): the training loss of a sample, and its error (100 - mIoU in percent for
    segmentation, else the mean squared error). `confusion` is int64 (N, C, C) for segmentation, [true, predicted].
    An error is NaN where a sample has nothing to measure (no labelled pixel).
    """

    loss: NDArray[np.float64]
    error: NDArray[np.float64]
    confusion: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class AttackRecord:
    """One attack on one model: its fields, the sizes of its perturbations (N,) in pixel units, and every task."""

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
    linf: NDArray[np.float64]
    l2: NDArray[np.float64]
    tasks: Mapping[str, TaskRecord]

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
        )


@dataclass(frozen=True)
class Evaluation:
    """Everything one evaluation file holds. `job` is the EvaluationJob as a dictionary; `index` names the N samples."""

    id: str
    tasks: str
    job: Mapping[str, Any]
    code: str
    data: str
    classes: tuple[str, ...]
    index: tuple[str, ...]
    clean: Mapping[str, TaskRecord]
    attacks: Mapping[str, AttackRecord]


def read_evaluation(path: Path) -> Evaluation:
    """Read one evaluation file whole.

    Raises MissingDataError when it is absent, BrokenFileError when it is truncated, foreign, incomplete, or holds a
    number that cannot be (an infinite loss, an error that exists clean but not under attack).
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such evaluation; run the evaluation of this model first")
    try:
        # No lock: files are renamed into place when whole, and locks fail on some network file systems.
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise BrokenFileError(f"{path}: not an evaluation of headstrong ({FORMAT}); {REMEDY}")
            return _read(file, path)
    except BrokenFileError:
        raise
    except KeyError as error:
        raise BrokenFileError(f"{path}: incomplete, {error.args[0]}; {REMEDY}") from error
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFileError(f"{path}: truncated or foreign, {reason}; {REMEDY}") from error


def _read(file: h5py.File, path: Path) -> Evaluation:
    tasks = str(file.attrs["tasks"])
    index = tuple(file["index"].asstr()[:])
    job = json.loads(file.attrs["job"])
    clean = {letter: _task(file["clean"][letter], letter, len(index), path) for letter in tasks}
    attacks = {name: _attack(file["attacks"][name], name, tasks, clean, path) for name in sorted(file["attacks"])}
    expected = {str(attack["name"]) for attack in job["attacks"]}
    if expected != set(attacks):
        lacking = ", ".join(sorted(expected ^ set(attacks)))
        raise BrokenFileError(f"{path}: its attacks are not those of its job ({lacking}); {REMEDY}")
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
    )


def _attack(group: h5py.Group, name: str, tasks: str, clean: Mapping[str, TaskRecord], path: Path) -> AttackRecord:
    count = len(next(iter(clean.values())).loss)
    records = {letter: _task(group[letter], letter, count, path) for letter in tasks}
    for letter, record in records.items():
        if np.any(np.isnan(record.error) & ~np.isnan(clean[letter].error)):
            raise BrokenFileError(f"{path}: attack {name}, task {letter}: an error is not a number; {REMEDY}")
    fields = group.attrs
    return AttackRecord(
        name=str(fields["name"]),
        family=str(fields["family"]),
        balancer=str(fields["balancer"]),
        attacked=str(fields["attacked"]),
        stepper=str(fields["stepper"]),
        norm=str(fields["norm"]),
        epsilon=float(fields["epsilon"]),
        step_size=float(fields["step_size"]),
        steps=int(fields["steps"]),
        start=str(fields["start"]),
        restarts=int(fields["restarts"]),
        linf=_numbers(group["linf"], count, path),
        l2=_numbers(group["l2"], count, path),
        tasks=records,
    )


def _task(group: h5py.Group, letter: str, count: int, path: Path) -> TaskRecord:
    loss = _numbers(group["loss"], count, path)
    error = _numbers(group["error"], count, path, holes=True)
    if TASKS[letter].loss != "cross_entropy":
        return TaskRecord(loss, error)
    confusion = group["confusion"][:].astype(np.int64)
    if confusion.ndim != 3 or confusion.shape[0] != count or confusion.shape[1] != confusion.shape[2]:
        raise BrokenFileError(f"{path}: {group.name}/confusion has shape {confusion.shape}; {REMEDY}")
    return TaskRecord(loss, error, confusion)


def _numbers(dataset: h5py.Dataset, count: int, path: Path, holes: bool = False) -> NDArray[np.float64]:
    values = dataset[:].astype(np.float64)
    if values.shape != (count,):
        raise BrokenFileError(f"{path}: {dataset.name} has shape {values.shape}, expected ({count},); {REMEDY}")
    if np.any(np.isinf(values)) or (not holes and np.any(np.isnan(values))):
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
