"""Reading one evaluation of generated perturbations: the per-image numbers of one family of generators."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong.analysis.evaluation_files import opened
from headstrong.analysis.records import Array, measures_of
from headstrong.errors import BrokenFileError
from headstrong.radius import SHADES

FORMAT = "headstrong-generated-2"
FIRST_FORMAT = "headstrong-generated-1"  # radii, sizes and perturbations on a scale of 0 to 255
CLEAN, NOISE, TRIVIAL = "clean", "noise", "trivial"  # the methods that are no generator, in every table
METHODS = ("gap", "mta")
REMEDY = "delete it and evaluate this family of generators again"

Whole = NDArray[np.int64]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Leaf:
    """One task on its N images, in one situation.

    `loss` is float64 (N,), NaN where a dense task is absent from an image. Classes: `prediction` int64 (N,), class
    numbers. Dense: `measures` float64 (N,) by the names of `records.measures_of`, NaN where an image has nothing to
    measure, and for segmentation `confusion` int64 (N, C, C), [true, predicted]. `size` float64 (N,): the norm of the
    perturbation in pixel units; None without one.
    """

    loss: Array
    prediction: Whole | None = None
    measures: Mapping[str, Array] = field(default_factory=dict)
    confusion: Whole | None = None
    size: Array | None = None


@dataclass(frozen=True)
class Situation:
    """Every task of one set of victims, clean, under noise, or each under its own perturbation from one generator.

    method: "clean" | "noise" | "trivial" (a constant predictor, which has no victim) | "gap" | "mta". mode, goal:
    "" but for generators. norm: "" without a perturbation; epsilon: its radius in pixel units, else 0.
    targets: class names by task, of targeted generators. parameters: of the generators together, else 0.
    """

    method: str
    victim: str
    tasks: Mapping[str, Leaf]
    norm: str = ""
    epsilon: float = 0.0
    mode: str = ""
    goal: str = ""
    generator: str = ""
    targets: Mapping[str, str] = field(default_factory=dict)
    parameters: int = 0


@dataclass(frozen=True)
class Family:
    """Everything one file holds, but its examples.

    kind: "classes", where a task is a domain, or "dense", where it is a letter. dataset: name of the data set, or of a
    folder of one's own. `victims` is the set of victims that
    the generators were trained against. `job` is the GeneratedJob as a dictionary. `classes` are names by task,
    `labels` int64 (N,) the true class numbers by task (classes only), `index` names the images of each task.
    """

    family: str
    kind: str
    tasks: tuple[str, ...]
    victims: str
    dataset: str
    job: Mapping[str, Any]
    code: str
    classes: Mapping[str, tuple[str, ...]]
    index: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, Whole]
    situations: tuple[Situation, ...]

    def of(self, method: str, victim: str) -> list[Situation]:
        """The situations of a method and a set of victims, in the order of the file's job."""
        return [one for one in self.situations if (one.method, one.victim) == (method, victim)]


@dataclass(frozen=True)
class Pictures:
    """K example pictures of one task: image uint8 (K, 3, H, W), truth and output of the task's own victim.

    truth and output: class numbers (K,); s class numbers (K, H, W); d metres (K, H, W); n unit vectors (K, 3, H, W);
    other letters (K, C, H, W), encoded.
    """

    image: NDArray[np.uint8]
    truth: NDArray[Any]
    output: NDArray[Any]


@dataclass(frozen=True)
class Perturbed:
    """The same K pictures under a generator: perturbation float32 (K, 3, H, W), pixel units; output as in Pictures."""

    perturbation: NDArray[np.float32]
    output: NDArray[Any]


@dataclass(frozen=True)
class Examples:
    """What a file keeps for pictures: by task clean, and by the id of a generator and task."""

    clean: Mapping[str, Pictures]
    perturbed: Mapping[str, Mapping[str, Perturbed]]


def read_family(path: Path) -> Family:
    """Read one evaluation of generators, without its examples.

    Raises MissingDataError when it is absent, BrokenFileError when it is truncated, foreign, incomplete, or holds a
    number that cannot be (an infinite loss, a class there is none of).
    """
    return _opened(path, lambda file: _read(file, path))


def read_examples(path: Path) -> Examples:
    """The example pictures of one evaluation of generators. Raises as `read_family`."""
    return _opened(path, _examples)


def _opened(path: Path, read: Callable[[h5py.File], Found]) -> Found:
    source = "evaluate this family of generators"
    with opened(path, FORMAT, "an evaluation of generators of headstrong", source, REMEDY, [FIRST_FORMAT]) as file:
        return read(file)


def _read(file: h5py.File, path: Path) -> Family:
    tasks, kind = tuple(json.loads(file.attrs["tasks"])), str(file.attrs["kind"])
    job = json.loads(file.attrs["job"])
    index = {task: tuple(file[f"index/{task}"].asstr()[:]) for task in tasks}
    classes = {task: tuple(names) for task, names in json.loads(file.attrs["classes"]).items()}
    reader = _Reader(path, kind, {task: len(names) for task, names in index.items()}, classes, _unit(file))
    victims = (str(file.attrs["victims"]), *job["transfer"])
    expected = {str(generator["id"]) for generator in job["generators"]}
    if expected != set(file["generated"]):
        lacking = ", ".join(sorted(expected ^ set(file["generated"])))
        raise BrokenFileError(f"{path}: its generators are not those of its job ({lacking}); {REMEDY}")
    labels = {task: reader.classes_of(file[f"labels/{task}"], task) for task in tasks} if kind == "classes" else {}
    situations = [Situation(CLEAN, victim, reader.leaves(file[f"clean/{victim}"])) for victim in victims]
    for group in sorted(file["noise"].values(), key=_noise_ball):
        norm, epsilon = _noise_ball(group)
        situations += [
            Situation(NOISE, victim, reader.leaves(group[victim], norm), norm, epsilon) for victim in victims
        ]
    if kind == "dense":
        situations.append(Situation(TRIVIAL, "", reader.leaves(file["trivial"])))
    for generator in job["generators"]:
        group = file[f"generated/{generator['id']}"]
        situations += [_generated(group, str(generator["id"]), victim, reader) for victim in victims]
    return Family(
        family=str(file.attrs["family"]),
        kind=kind,
        tasks=tasks,
        victims=victims[0],
        dataset=str(file.attrs["dataset"]),
        job=job,
        code=str(file.attrs["code"]),
        classes=classes,
        index=index,
        labels=labels,
        situations=tuple(situations),
    )


def _unit(file: h5py.File) -> float:
    """What radii, sizes and perturbations of the file are divided by to be in pixel units."""
    return SHADES if file.attrs["format"] == FIRST_FORMAT else 1.0


def _noise_ball(group: h5py.Group) -> tuple[str, float]:
    """Norm and radius of a noise; the first format has them in its name alone."""
    norm, _, shades = group.name.rpartition("/")[2].partition("-")
    return norm, float(group.attrs.get("epsilon", float(shades) / SHADES))


def _generated(group: h5py.Group, generator: str, victim: str, reader: _Reader) -> Situation:
    fields = group.attrs
    norm = str(fields["norm"])
    return Situation(
        method=str(fields["method"]),
        victim=victim,
        tasks=reader.leaves(group[victim], norm),
        norm=norm,
        epsilon=float(fields["epsilon"]) / reader.unit,
        mode=str(fields["mode"]),
        goal=str(fields["goal"]),
        generator=generator,
        targets=json.loads(fields["targets"]),
        parameters=int(fields["parameters"]),
    )


@dataclass(frozen=True)
class _Reader:
    """Reads leaves and checks them: `counts` images and `classes` names by task, sizes in `unit` (`_unit`)."""

    path: Path
    kind: str
    counts: Mapping[str, int]
    classes: Mapping[str, tuple[str, ...]]
    unit: float

    def leaves(self, group: h5py.Group, norm: str = "") -> dict[str, Leaf]:
        return {task: self._leaf(group[task], task, norm) for task in self.counts}

    def _leaf(self, group: h5py.Group, task: str, norm: str) -> Leaf:
        loss = self._numbers(group["loss"], task, holes=self.kind == "dense")
        size = self._numbers(group[norm], task) / self.unit if norm else None
        if self.kind == "classes":
            return Leaf(loss, prediction=self.classes_of(group["prediction"], task), size=size)
        measures = {name: self._numbers(group[f"measures/{name}"], task, holes=True) for name in measures_of(task)}
        confusion = self._confusion(group["confusion"], task) if task == "s" else None
        return Leaf(loss, measures=measures, confusion=confusion, size=size)

    def classes_of(self, dataset: h5py.Dataset, task: str) -> Whole:
        """Class numbers (N,) of a task."""
        values: Whole = dataset[:].astype(np.int64)
        many = len(self.classes[task])
        if values.shape != (self.counts[task],) or np.any(values < 0) or np.any(values >= many):
            raise BrokenFileError(
                f"{self.path}: {dataset.name} should hold {self.counts[task]} of {many} classes; {REMEDY}"
            )
        return values

    def _confusion(self, dataset: h5py.Dataset, task: str) -> Whole:
        many = len(self.classes[task])
        if dataset.shape != (self.counts[task], many, many):
            raise BrokenFileError(f"{self.path}: {dataset.name} has shape {dataset.shape}; {REMEDY}")
        return np.asarray(dataset[:].astype(np.int64))

    def _numbers(self, dataset: h5py.Dataset, task: str, *, holes: bool = False) -> Array:
        values: Array = dataset[:].astype(np.float64)
        if values.shape != (self.counts[task],):
            raise BrokenFileError(
                f"{self.path}: {dataset.name} has shape {values.shape}, expected {self.counts[task]} numbers; {REMEDY}"
            )
        if np.any(np.isinf(values)) or (not holes and np.any(np.isnan(values))):
            raise BrokenFileError(f"{self.path}: {dataset.name} holds a value that is not a finite number; {REMEDY}")
        return values


def _examples(file: h5py.File) -> Examples:
    tasks, generators = json.loads(file.attrs["tasks"]), json.loads(file.attrs["job"])["generators"]
    names = [str(generator["id"]) for generator in generators]
    if "examples" not in file:
        return Examples({}, {})
    group = file["examples"]
    clean = {
        task: Pictures(*(group[f"clean/{task}/{name}"][:] for name in ("image", "truth", "output"))) for task in tasks
    }
    perturbed = {
        name: {
            task: Perturbed(group[f"{name}/{task}/perturbation"][:] / _unit(file), group[f"{name}/{task}/output"][:])
            for task in tasks
        }
        for name in names
    }
    return Examples(clean, perturbed)
