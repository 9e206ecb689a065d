"""Made-up evaluations of hidden tasks in the layout that the evaluation writes, and the tables made of them."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

FORMAT = "headstrong-hidden-1"
TASKS = {"classes": ("shape", "colour", "size", "pose"), "dense": ("s", "d", "n")}
LABELS = {"size": 4}  # tasks of several labels: their error is a share, that of all others 0 or 1
DATASETS = {"classes": "objects", "dense": "rooms"}
ACCESSES = ("heads", "backbone")
STEALTHS = (0.0, 1.0)
BUDGETS = (("linf", 4 / 255), ("linf", 8 / 255))
EPOCHS = (0, 1, 2, 4)
IMAGES = 60
STEALTHY = ("cf", "cf_delta", "disruption", "oracle")
ON_VISIBLE = ("dgba", "total", "single")
# Share of a task's right labels that an attack at 8/255 makes wrong (dense: the relative increase of its error), by
# objective: of the hidden task, and of those that are attacked or merely visible.
STRENGTH = {
    "cf": (0.45, 0.3),
    "cf_delta": (0.5, 0.25),
    "disruption": (0.35, 0.3),
    "dgba": (0.15, 0.6),
    "total": (0.15, 0.55),
    "single": (0.1, 0.3),
    "oracle": (0.8, 0.15),
    "noise": (0.02, 0.02),
}
CLEAN = {"classes": 0.2, "dense": 0.5}
Errors = Mapping[str, np.ndarray]
NAN = math.nan
# Two tasks on four images: told right or wrong, clean and under an attack.
RIGHT = {"a": np.array([0.0, 0, 1, 0]), "b": np.array([0.0, 0.5, 1, 0.25])}
WRONG = {"a": np.array([1.0, 0, 1, 1]), "b": np.array([0.0, 0.5, 0.5, 0.25])}
# The same of dense tasks; the fourth image has no valid pixel of the first.
DENSE_RIGHT = {"a": np.array([1.0, 2, 3, NAN]), "b": np.array([2.0, 2, 2, 2])}
DENSE_WRONG = {"a": np.array([2.0, 2, 8, NAN]), "b": np.array([2.0, 2, 5, 3])}


@dataclass(frozen=True)
class Attack:
    """One attack: its fields, and by task the errors (N,) under it."""

    objective: str
    errors: Errors
    access: str = ""
    stealth: float = 0.0
    norm: str = "linf"
    epsilon: float = 8 / 255
    steps: int = 10
    stepper: str = "pgd"
    attacked: tuple[str, ...] = ()
    called: str = ""

    @property
    def name(self) -> str:
        shown = [self.access, "".join(self.attacked), f"s{self.stealth:g}", f"{self.norm}{255 * self.epsilon:.4g}"]
        return self.called or "-".join([self.objective, *(part for part in shown if part), str(self.steps)])


class Frames(NamedTuple):
    """hidden.csv, hidden_summary.csv and forgetting.csv of one study."""

    hidden: pd.DataFrame
    summary: pd.DataFrame
    forgetting: pd.DataFrame


def write_file(
    path: Path,
    clean: Errors,
    attacks: Sequence[Attack],
    *,
    hidden: str,
    kind: str = "classes",
    forgetting: Mapping[str, Mapping[int, tuple[Errors, np.ndarray]]] | None = None,
    family: str = "family",
    dataset: str = "objects",
    index: Sequence[str] | None = None,
) -> Path:
    """A file of just these numbers, its tasks those of `clean` in their order.

    forgetting: by access and epoch the errors by task, and the distances (N,). Where it is None, every access of the
    attacks has an epoch 0, which is the clean network. Losses are twice the errors. Errors and losses are NaN where an
    image has no label for what is attacked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(clean.values())))
    if forgetting is None:
        forgetting = {one.access: {0: (clean, np.zeros(count))} for one in attacks if one.access}
    with h5py.File(path, "w") as file:
        file.attrs.update(
            format=FORMAT,
            complete=1,
            family=family,
            kind=kind,
            hidden=hidden,
            tasks=json.dumps(list(clean)),
            dataset=dataset,
            job=json.dumps({"family": family, "hidden": hidden}),
            code="0123456789abcdef",
        )
        file["index"] = np.array(index or [f"image-{number}" for number in range(count)], dtype=h5py.string_dtype())
        _tasks(file.create_group("clean"), clean)
        file.create_group("attacks")
        for one in attacks:
            group = file.create_group(f"attacks/{one.name}")
            group.attrs.update(
                objective=one.objective,
                access=one.access,
                stealth=float(one.stealth),
                stepper=one.stepper,
                norm=one.norm,
                epsilon=float(one.epsilon),
                steps=one.steps,
                attacked=json.dumps(list(one.attacked)),
            )
            made = np.any([~np.isnan(clean[task]) for task in one.attacked or clean], axis=0)
            _tasks(group, {task: np.where(made, values, NAN) for task, values in one.errors.items()})
            group["linf"] = np.full(count, one.epsilon if one.norm == "linf" else one.epsilon / 10, np.float32)
            group["l2"] = np.full(count, one.epsilon * 10 if one.norm == "linf" else one.epsilon, np.float32)
        file.create_group("forgetting")
        for access, epochs in forgetting.items():
            for epoch, (errors, distance) in epochs.items():
                group = file.create_group(f"forgetting/{access}/{epoch}")
                for task, values in errors.items():
                    group[f"{task}/error"] = np.asarray(values, np.float32)
                group["distance"] = np.asarray(distance, np.float32)
    return path


def _tasks(group: h5py.Group, errors: Errors) -> None:
    for task, values in errors.items():
        group[f"{task}/error"] = np.asarray(values, np.float32)
        group[f"{task}/loss"] = np.asarray(2 * np.asarray(values), np.float32)


def write_family(
    folder: Path,
    kind: str = "classes",
    *,
    family: str | None = None,
    dataset: str | None = None,
    tasks: Sequence[str] | None = None,
    hidden: Sequence[str] | None = None,
    accesses: Sequence[str] = ACCESSES,
    stealths: Sequence[float] = STEALTHS,
    budgets: Sequence[tuple[str, float]] = BUDGETS,
    steps: int = 10,
    objectives: Sequence[str] = tuple(STRENGTH),
    epochs: Sequence[int] = EPOCHS,
    images: int = IMAGES,
    seed: int = 0,
) -> list[Path]:
    """The files `folder`/<family>/<hidden>.h5 of one family; the same arguments, the same numbers.

    family: "objects" of kind classes, "rooms" of kind dense, unless said otherwise. hidden: the tasks that have a turn,
    all unless said otherwise. budgets: norms and epsilons. Images are paired: an image that is hard clean is hard under
    every attack. Damages are about those of STRENGTH, smaller for the attacker without heads, for smaller radii and
    with stealth, which keeps the visible tasks most. Kind dense: images 1 and 5 have no valid pixel of the last task.
    """
    tasks = tuple(tasks or TASKS[kind])
    family = family or DATASETS[kind]
    maker = _Maker(kind, tasks, images, seed)
    paths = []
    for task in hidden or tasks:
        attacks = [
            Attack(
                errors=maker.errors(objective, access, stealth, (norm, epsilon), task, attacked),
                objective=objective,
                access=access,
                stealth=stealth,
                norm=norm,
                epsilon=epsilon,
                steps=1 if objective == "noise" else steps,
                stepper="noise" if objective == "noise" else "pgd",
                attacked=attacked,
            )
            for norm, epsilon in budgets
            for objective, access, stealth, attacked in _variants(objectives, accesses, stealths, tasks, task)
        ]
        paths.append(
            write_file(
                folder / family / f"{task}.h5",
                maker.clean(),
                attacks,
                hidden=task,
                kind=kind,
                forgetting={access: maker.forgetting(access, task, epochs) for access in accesses},
                family=family,
                dataset=dataset or DATASETS[kind],
            )
        )
    return paths


def _variants(
    objectives: Sequence[str], accesses: Sequence[str], stealths: Sequence[float], tasks: Sequence[str], hidden: str
) -> Iterator[tuple[str, str, float, tuple[str, ...]]]:
    """Objective, access, stealth and attacked tasks of the attacks on one radius."""
    visible = tuple(task for task in tasks if task != hidden)
    for objective in objectives:
        targets: list[tuple[str, ...]] = [()]
        if objective in ON_VISIBLE:
            targets = [(task,) for task in visible] if objective == "single" else [visible]
        elif objective == "oracle":
            targets = [(hidden,)]
        for access in ("",) if objective in ("oracle", "noise") else accesses:
            for stealth in stealths if objective in STEALTHY else (0.0,):
                yield from ((objective, access, stealth, attacked) for attacked in targets)


@dataclass(frozen=True)
class _Maker:
    """Draws the errors of one family. One draw per image and task serves every situation."""

    kind: str
    tasks: tuple[str, ...]
    images: int
    seed: int

    def clean(self) -> dict[str, np.ndarray]:
        return {task: self._error(task, 0.0, 0) for task in self.tasks}

    def errors(
        self,
        objective: str,
        access: str,
        stealth: float,
        threat: tuple[str, float],
        hidden: str,
        attacked: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Errors by task under an attack. threat: norm and epsilon."""
        norm, epsilon = threat
        reach = min(1.5, epsilon * 255 / 8 if norm == "linf" else epsilon)
        reach *= 0.7 if access == "backbone" else 1.0
        turn = self.tasks.index(hidden)
        found = {}
        for number, task in enumerate(self.tasks):
            own, other = STRENGTH[objective]
            strength = own if task == hidden else other * (1.0 if not attacked or task in attacked else 0.5)
            strength *= reach * (0.9 + 0.05 * number)
            strength *= 1 / (1 + 0.3 * stealth) if task == hidden else 1 / (1 + 3 * stealth)
            found[task] = self._error(task, strength, 1 + list(STRENGTH).index(objective) + len(STRENGTH) * turn)
        return found

    def forgetting(
        self, access: str, hidden: str, epochs: Sequence[int]
    ) -> dict[int, tuple[dict[str, np.ndarray], np.ndarray]]:
        rng = np.random.default_rng([self.seed, 99, self.tasks.index(hidden)])
        far = rng.uniform(0.5, 1.0, self.images) * (1.0 if access == "heads" else 0.8)
        found = {}
        for epoch in epochs:
            grown = 1 - math.exp(-epoch / 2)
            errors = {task: self._error(task, grown * (0.7 if task == hidden else 0.05), 0) for task in self.tasks}
            found[epoch] = (errors, far * grown)
        return found

    def _error(self, task: str, strength: float, which: int) -> np.ndarray:
        """Error (N,) where an attack of this strength is added; `which` attack it is adds its own noise."""
        place = self.tasks.index(task)
        labels = LABELS.get(task, 1)
        hard = np.random.default_rng([self.seed, place]).uniform(size=(labels, self.images))
        own = np.random.default_rng([self.seed, place, 1 + which]).uniform(size=(labels, self.images))
        clean = CLEAN[self.kind] * (1 + 0.2 * place)
        if self.kind == "classes":
            return ((hard < clean) | (own < strength)).mean(axis=0)
        grown = clean * (0.5 + hard[0]) * (1 + 2 * strength * own[0])
        if place == len(self.tasks) - 1:
            grown[[1, 5]] = np.nan
        return grown


def oracle(errors: Errors, attacked: str = "a", **other: object) -> Attack:
    """An attack that sees the hidden task."""
    return Attack("oracle", errors, attacked=(attacked,), **other)  # type: ignore[arg-type]


def only(table: pd.DataFrame) -> pd.Series:
    """The one row of a table."""
    assert len(table) == 1
    return table.iloc[0]


def deviation(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


def stored(path: Path) -> dict[str, dict[str, list[float]]]:
    """Errors of a file as plain lists: by "clean" or the name of an attack, and by task."""
    with h5py.File(path) as file:
        tasks = json.loads(file.attrs["tasks"])
        groups = {"clean": file["clean"], **file["attacks"]}
        return {
            name: {task: [float(v) for v in group[f"{task}/error"][:]] for task in tasks}
            for name, group in groups.items()
        }


@cache
def _frames() -> Frames:
    from headstrong.analysis import hidden, hidden_summary

    with tempfile.TemporaryDirectory() as folder:
        paths = [*write_family(Path(folder)), *write_family(Path(folder), "dense", seed=1)]
        return Frames(hidden.build_table(paths), hidden_summary.build_table(paths), hidden.build_forgetting(paths))


def frames() -> Frames:
    """The three tables of a study of two families: "objects" (kind classes, four tasks) and "rooms" (dense, three).

    Every objective, two radii, accesses heads and backbone, stealth 0 and 1. Copies: change them as you like.
    """
    return Frames(*(frame.copy() for frame in _frames()))
