"""Reading evaluations of hidden tasks: the per-image numbers of every task of a network of which one task is hidden.

A family is one network with its tasks and attacks. Each of its files is one turn: another of its tasks is hidden.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong.analysis.evaluation_files import opened
from headstrong.errors import BrokenFileError
from headstrong.learned import learned, words

FORMAT = "headstrong-hidden-1"
SOURCE = "evaluate this family with this task hidden"
REMEDY = "delete it and evaluate this family with this task hidden again"
KINDS = ("classes", "dense")
OBJECTIVES = ("cf", "cf_delta", "disruption", "dgba", "total", "single", "oracle", "noise")  # in the order of tables
ACCESSES = ("", "heads", "backbone")
NORMS = ("linf", "l2")
STEALTHY = frozenset(["cf", "cf_delta", "disruption", "oracle"])  # may keep the visible predictions
ON_VISIBLE = frozenset(["dgba", "total", "single"])  # attack the visible tasks themselves
ANYWHERE = frozenset(["disruption"])  # needs heads only where it keeps the visible predictions
NO_ACCESS = frozenset(["oracle", "noise"])

Array = NDArray[np.float64]
Setting = tuple[str, str, float, str, float, int]  # what tables tell attacks apart by, see `Attack.setting`


@dataclass(frozen=True)
class TaskRecord:
    """One task on the N images, float64 (N,). error: see `Turn.kind`. loss: the training loss of an image.

    NaN in both where a dense task is absent from an image, or the attack was not made on it because all tasks that it
    attacks are.
    """

    error: Array
    loss: Array


@dataclass(frozen=True)
class Attack:
    """One attack in one turn. epsilon, and the sizes linf and l2 (N,) of its perturbations, in pixels within [0, 1].

    access: what the attacker has, one of ACCESSES. stealth: weight of the term that keeps visible predictions.
    attacked: the visible tasks that ON_VISIBLE attack, the hidden one of the oracle, else ().
    """

    name: str
    objective: str
    access: str
    stealth: float
    stepper: str
    norm: str
    epsilon: float
    steps: int
    attacked: tuple[str, ...]
    linf: Array
    l2: Array
    tasks: Mapping[str, TaskRecord]

    @property
    def setting(self) -> Setting:
        """Objective, access, stealth, norm, epsilon, steps."""
        return (self.objective, self.access, self.stealth, self.norm, self.epsilon, self.steps)


@dataclass(frozen=True)
class Copy:
    """The attacker's copy of the backbone after an epoch: errors float64 (N,) by task under the true heads, and
    distance float64 (N,), ||f1(x) - f0(x)|| / ||f0(x)|| of its features f1 to those of the original f0."""

    errors: Mapping[str, Array]
    distance: Array


@dataclass(frozen=True)
class Turn:
    """Everything that one file holds: one family with one task hidden, on the N images of `index`.

    kind: "classes", where an error is the share of a task's labels told wrongly, in [0, 1]; or "dense", where it is
    that of `headstrong.metrics`, at least 0, NaN where an image has nothing to measure. attacks: by objective, access,
    stealth, norm, epsilon, steps, attacked tasks. forgetting: by access and epoch, both ascending; epoch 0 is always
    there. job: the job as a dictionary. majority: of classes, by task the errors (N,) of the majority class; empty in
    older files.
    """

    family: str
    kind: str
    hidden: str
    tasks: tuple[str, ...]
    dataset: str
    job: Mapping[str, Any]
    code: str
    index: tuple[str, ...]
    clean: Mapping[str, TaskRecord]
    attacks: tuple[Attack, ...]
    forgetting: Mapping[str, Mapping[int, Copy]]
    majority: Mapping[str, Array] = field(default_factory=dict)

    def learned(self, task: str) -> str:
        """Whether the network learned a task: "yes", "no", or "" where the file does not say."""
        if task not in self.majority:
            return ""
        return words(learned(1 - self.clean[task].error, 1 - self.majority[task]))

    @property
    def visible(self) -> tuple[str, ...]:
        """The tasks that the attacker sees."""
        return tuple(task for task in self.tasks if task != self.hidden)


def in_order(setting: Setting) -> tuple[float, ...]:
    """What sorts settings: objective, access, norm in the order of their names above, numbers ascending."""
    objective, access, stealth, norm, epsilon, steps = setting
    places = (OBJECTIVES.index(objective), ACCESSES.index(access), stealth, NORMS.index(norm))
    return (*places, epsilon, steps)


def read_families(paths: Sequence[Path]) -> Iterator[tuple[Turn, ...]]:
    """The turns of each family: families in the order of `paths`, turns in the order of the family's tasks.

    A family at a time is held in memory; a task that is hidden in no file has no turn.
    Raises MissingDataError or BrokenFileError, naming the file, as `read_turn` does; also where a task is hidden in two
    files of a family, or its files disagree about data set, kind, tasks, images or attacks.
    """
    families: dict[str, list[Path]] = {}
    for path in paths:
        with _opened(path) as file:
            families.setdefault(str(file.attrs["family"]), []).append(path)
    for members in families.values():
        turns = [read_turn(path) for path in members]
        _check_agreement(members, turns)
        yield tuple(sorted(turns, key=lambda turn: turn.tasks.index(turn.hidden)))


def _check_agreement(paths: Sequence[Path], turns: Sequence[Turn]) -> None:
    seen: dict[str, Path] = {}
    traits = [_traits(turn) for turn in turns]
    for path, turn, own in zip(paths, turns, traits, strict=True):
        if turn.hidden in seen:
            said = f"family {turn.family} with task {turn.hidden} hidden stands in {seen[turn.hidden]} as well"
            raise BrokenFileError(f"{path}: {said}; give one")
        seen[turn.hidden] = path
        other = [name for name, value in own.items() if value != traits[0][name]]
        if other:
            said = f"has other {', '.join(other)} than {paths[0]}, which is of family {turn.family} as well"
            raise BrokenFileError(f"{path}: {said}; delete the one that is out of date and evaluate it again")


def _traits(turn: Turn) -> dict[str, object]:
    """What all files of a family share. Which tasks are attacked is left out: another task is hidden in each."""
    return {
        "data set": turn.dataset,
        "kind": turn.kind,
        "tasks": turn.tasks,
        "images": turn.index,
        "attacks": {(*attack.setting, attack.stepper) for attack in turn.attacks},
    }


def _opened(path: Path) -> AbstractContextManager[h5py.File]:
    return opened(path, FORMAT, "an evaluation of a hidden task", SOURCE, REMEDY)


def read_turn(path: Path) -> Turn:
    """Read and check one evaluation of a hidden task.

    Raises MissingDataError when it is absent, BrokenFileError when it is truncated, foreign, incomplete, holds what
    this version does not know (a kind, objective, access, norm), a number that cannot be, or an attack twice.
    """
    with _opened(path) as file:
        reader = _Reader.of(file, path)
        if int(file.attrs.get("complete", 0)) != 1:
            raise reader.broken("incomplete, it was not written to its end")
        attacks = [reader.attack(group, name) for name, group in file["attacks"].items()]
        places = reader.tasks.index
        attacks.sort(key=lambda one: (in_order(one.setting), [places(task) for task in one.attacked], one.name))
        reader.check_attacks(attacks)
        return Turn(
            family=str(file.attrs["family"]),
            kind=reader.kind,
            hidden=reader.hidden,
            tasks=reader.tasks,
            dataset=str(file.attrs["dataset"]),
            job=json.loads(file.attrs["job"]),
            code=str(file.attrs["code"]),
            index=reader.index,
            clean=reader.clean,
            attacks=tuple(attacks),
            forgetting=reader.forgetting(file["forgetting"], {one.access for one in attacks} - {""}),
            majority=reader.majority(file["majority"]) if "majority" in file else {},
        )


def _names(text: str, what: str) -> tuple[str, ...]:
    """A JSON list of different names."""
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"{what} is not a list of different names")
    return tuple(names)


@dataclass(frozen=True)
class _Reader:
    """Reads the groups of one file and checks them against its own fields. clean: every task without attack.

    everywhere: errors are over all pixels, so that an image without a labelled one has an error but no loss.
    """

    path: Path
    kind: str
    hidden: str
    tasks: tuple[str, ...]
    index: tuple[str, ...]
    clean: Mapping[str, TaskRecord]
    everywhere: bool = False

    @classmethod
    def of(cls, file: h5py.File, path: Path) -> _Reader:
        tasks, hidden, kind = _names(file.attrs["tasks"], "tasks"), str(file.attrs["hidden"]), str(file.attrs["kind"])
        job = json.loads(file.attrs["job"])
        everywhere = kind == "dense" and "all" in (job.get("error_pixels"), job.get("miou"))
        bare = cls(path, kind, hidden, tasks, tuple(file["index"].asstr()[:]), {}, everywhere)
        bare.known("kind", kind, KINDS, "the file")
        if hidden not in tasks or len(tasks) < 2:
            raise bare.broken(f"task {hidden} cannot be hidden among the tasks {', '.join(tasks)}")
        if not bare.index:
            raise bare.broken("holds no image")
        if sorted(file["clean"]) != sorted(tasks):
            raise bare.broken(f"has clean errors of {', '.join(file['clean'])}, its tasks are {', '.join(tasks)}")
        return replace(bare, clean=bare.records(file["clean"]))

    def broken(self, what: str) -> BrokenFileError:
        return BrokenFileError(f"{self.path}: {what}; {REMEDY}")

    def known(self, what: str, value: str, allowed: Iterable[str], where: str) -> str:
        if value not in allowed:
            listed = ", ".join(one or "''" for one in allowed)
            raise self.broken(f"{where} has the {what} '{value}', known are {listed}")
        return value

    def attack(self, group: h5py.Group, name: str) -> Attack:
        fields, where = group.attrs, f"attack {name}"
        attack = Attack(
            name=name,
            objective=self.known("objective", str(fields["objective"]), OBJECTIVES, where),
            access=self.known("access", str(fields["access"]), ACCESSES, where),
            stealth=self._size(float(fields["stealth"]), "stealth", where),
            stepper=str(fields["stepper"]),
            norm=self.known("norm", str(fields["norm"]), NORMS, where),
            epsilon=self._size(float(fields["epsilon"]), "epsilon", where),
            steps=int(self._size(float(fields["steps"]), "number of steps", where)),
            attacked=_names(fields["attacked"], f"attacked of {name}"),
            linf=self._sizes(group["linf"]),
            l2=self._sizes(group["l2"]),
            tasks={},
        )
        self._check_fields(attack)
        made = np.any([~np.isnan(self.clean[task].loss) for task in attack.attacked or self.tasks], axis=0)
        return replace(attack, tasks=self.records(group, made if attack.attacked else np.ones_like(made)))

    def _check_fields(self, attack: Attack) -> None:
        """Access, stealth and attacked tasks that the objective can have."""
        objective, attacked = attack.objective, set(attack.attacked)
        said = f"attack {attack.name} ({objective}) cannot"
        if objective not in ANYWHERE and (attack.access == "") != (objective in NO_ACCESS):
            raise self.broken(f"{said} have the access '{attack.access}'")
        if attack.stealth > 0 and objective not in STEALTHY:
            raise self.broken(f"{said} have a stealth of {attack.stealth:g}")
        visible = set(self.tasks) - {self.hidden}
        if objective in ON_VISIBLE:
            fits = bool(attacked) and attacked <= visible and (objective != "single" or len(attacked) == 1)
        else:
            fits = attacked == ({self.hidden} if objective == "oracle" else set())
        if not fits:
            listed = ", ".join(attack.attacked) or "no task"
            raise self.broken(f"{said} attack {listed} where {self.hidden} is hidden")

    def check_attacks(self, attacks: Sequence[Attack]) -> None:
        """There is an attack, and none stands twice."""
        if not attacks:
            raise self.broken("incomplete, it holds no attack")
        seen: dict[object, str] = {}
        for attack in attacks:
            # "single" alone has several attacks of one setting: one for each visible task.
            key = (attack.setting, attack.attacked if attack.objective == "single" else ())
            if key in seen:
                raise self.broken(f"{seen[key]} and {attack.name} differ in stepper or attacked tasks at most")
            seen[key] = attack.name

    def forgetting(self, group: h5py.Group, needed: set[str]) -> dict[str, dict[int, Copy]]:
        """Copies by access and epoch. needed: the accesses of the attacks."""
        for access in group:
            self.known("copy of access", access, ACCESSES[1:], "forgetting")
        lacking = sorted(needed - set(group))
        if lacking:
            raise self.broken(f"incomplete, it holds attacks but no copy of access {', '.join(lacking)}")
        return {access: self._copies(group[access]) for access in ACCESSES if access in set(group)}

    def _copies(self, group: h5py.Group) -> dict[int, Copy]:
        other = [name for name in group if not name.isdecimal() or name != str(int(name))]
        if other:
            raise self.broken(f"{group.name} has {', '.join(other)}, which is no epoch")
        if "0" not in group:
            raise self.broken(f"incomplete, {group.name} has no epoch 0")
        return {
            epoch: Copy(
                errors={task: self._errors(group[f"{epoch}/{task}/error"], task) for task in self.tasks},
                distance=self._sizes(group[f"{epoch}/distance"]),
            )
            for epoch in sorted(int(name) for name in group)
        }

    def majority(self, group: h5py.Group) -> dict[str, Array]:
        return {task: self._finite(group[f"{task}/error"]) for task in self.tasks}

    def records(self, group: h5py.Group, made: NDArray[np.bool_] | None = None) -> dict[str, TaskRecord]:
        """Every task; made: bool (N,), the images that the attack was made on.

        Older files hold a loss of 0 where a task is absent, and numbers of attacks that were not made.
        """
        return {task: self._record(group[task], task, made) for task in self.tasks}

    def _record(self, group: h5py.Group, task: str, made: NDArray[np.bool_] | None) -> TaskRecord:
        error, loss = self._errors(group["error"], task, made), self._values(group["loss"])
        loss = np.where(np.isnan(error), math.nan, loss)
        absent = np.isnan(error)
        if self.everywhere:
            absent = np.isnan(self.clean[task].loss if task in self.clean else loss)
        if not np.all(np.isfinite(loss) | absent):
            raise self.broken(f"{group.name}/loss holds a value that is not a finite number")
        return TaskRecord(error, loss)

    def _errors(self, dataset: h5py.Dataset, task: str, made: NDArray[np.bool_] | None = None) -> Array:
        values = self._values(dataset)
        if made is not None:
            values = np.where(made, values, math.nan)
        holes = np.isnan(values)
        if self.kind == "classes" and not np.all((values >= 0) & (values <= 1)):  # no class is absent
            raise self.broken(f"{dataset.name} holds an error that is no share within 0 to 1")
        if np.any(values < 0) or np.any(np.isinf(values)):
            raise self.broken(f"{dataset.name} holds an error that is negative or infinite")
        # Whether an image has a valid pixel is a matter of its labels, not of what is done to it.
        if task in self.clean and not np.array_equal(holes, self._absent(task, made)):
            raise self.broken(f"{dataset.name} is measured on other images than without attack")
        return values

    def _absent(self, task: str, made: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        absent = np.isnan(self.clean[task].error)
        return absent if made is None else absent | ~made

    def _sizes(self, dataset: h5py.Dataset) -> Array:
        values = self._finite(dataset)
        if np.any(values < 0):
            raise self.broken(f"{dataset.name} holds a negative number")
        return values

    def _finite(self, dataset: h5py.Dataset) -> Array:
        values = self._values(dataset)
        if not np.all(np.isfinite(values)):
            raise self.broken(f"{dataset.name} holds a value that is not a finite number")
        return values

    def _values(self, dataset: h5py.Dataset) -> Array:
        if dataset.shape != (len(self.index),):
            raise self.broken(f"{dataset.name} has shape {dataset.shape}, {(len(self.index),)} is expected")
        values: Array = dataset[:].astype(np.float64)
        return values

    def _size(self, value: float, what: str, where: str) -> float:
        if not (math.isfinite(value) and value >= 0):
            raise self.broken(f"{where} has the {what} {value}")
        return value
