"""Reading one evaluation of important classes: per-picture classes and angles of every classifier of one family."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong.analysis.evaluation_files import opened
from headstrong.errors import BrokenFileError

FORMAT = "headstrong-importance-1"
REMEDY = "delete it and evaluate this family of important classes again"
LOSSES = ("camri", "arcface", "softmax", "crwwce", "wce", "ce")  # in the order of the poster's Table 1
NEUTRAL = frozenset(["ce", "softmax", "arcface"])  # know no important class
BASE = "ce"  # what every other loss is compared with
SPLITS = ("validation", "test")

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One classifier on the N pictures of a split: predicted class numbers int64 (N,), angles float64 (N,) in radians
    between a picture's feature vector and the weight vector of its true class."""

    predicted: Whole
    angle: Array


@dataclass(frozen=True)
class Classifier:
    """One trained classifier. important: "" of a loss that knows none. margin: in sixty-fourths of pi; margin, scale
    and weight are NaN where the loss has none. features float64 (N, 2) of the test pictures and weights float64 (C, 2)
    only of classifiers with 2-D features."""

    id: str
    loss: str
    important: str
    margin: float
    scale: float
    weight: float
    trial: int
    splits: Mapping[str, Split]
    features: Array | None = None
    weights: Array | None = None


@dataclass(frozen=True)
class Study:
    """Everything that one file holds. important: class names by key. truth: true class numbers int64 (N,) by split, in
    the order of SPLITS. tolerance: points of accuracy that a setting may lose and still keep accuracy."""

    family: str
    dataset: str
    label: str
    classes: tuple[str, ...]
    important: Mapping[str, tuple[str, ...]]
    tolerance: float
    truth: Mapping[str, Whole]
    classifiers: tuple[Classifier, ...]


def read_study(path: Path) -> Study:
    """Read and check one evaluation of important classes.

    Raises MissingDataError when it is absent, BrokenFileError when it is truncated, foreign, incomplete, holds a number
    that cannot be (a class there is none of, an angle beyond pi), or no classifier to compare with.
    """
    source = "evaluate this family of important classes"
    with opened(path, FORMAT, "an evaluation of important classes", source, REMEDY) as file:
        if int(file.attrs.get("complete", 0)) != 1:
            raise BrokenFileError(f"{path}: incomplete, it was not written to its end; {REMEDY}")
        return _read(file, path)


def _read(file: h5py.File, path: Path) -> Study:
    classes = tuple(str(name) for name in json.loads(file.attrs["classes"]))
    important = {str(key): tuple(names) for key, names in json.loads(file.attrs["important"]).items()}
    unknown = sorted({name for names in important.values() for name in names} - set(classes))
    if unknown or not important or not all(important.values()):
        said = f"{', '.join(unknown)} is no class of it" if unknown else "a key has no class"
        raise BrokenFileError(f"{path}: important classes: {said}; {REMEDY}")
    splits = [split for split in SPLITS if split in file["truth"]]
    if "test" not in splits:
        raise BrokenFileError(f"{path}: incomplete, no true classes of a test split; {REMEDY}")
    reader = _Reader(path, len(classes))
    truth = {split: reader.classes_of(file[f"truth/{split}"]) for split in splits}
    classifiers = tuple(reader.classifier(file[f"trials/{name}"], name, truth, important) for name in file["trials"])
    _check_set(path, classifiers)
    return Study(
        family=str(file.attrs["family"]),
        dataset=str(file.attrs["dataset"]),
        label=str(file.attrs["label"]),
        classes=classes,
        important=important,
        tolerance=float(json.loads(file.attrs["job"])["tolerance"]),
        truth=truth,
        classifiers=classifiers,
    )


def _check_set(path: Path, classifiers: tuple[Classifier, ...]) -> None:
    """There is something to compare with, and nothing stands twice."""
    if not any(one.loss == BASE for one in classifiers):
        raise BrokenFileError(f"{path}: no classifier of the cross entropy ({BASE}) to compare with; {REMEDY}")
    # Numbers as text: NaN, which stands for "has none", equals itself only so.
    seen = [f"{one.loss} {one.important} {one.margin} {one.scale} {one.weight} {one.trial}" for one in classifiers]
    twice = [one.id for one, key in zip(classifiers, seen, strict=True) if seen.count(key) > 1]
    if twice:
        raise BrokenFileError(f"{path}: {' and '.join(twice)} are the same trial of one setting; {REMEDY}")


@dataclass(frozen=True)
class _Reader:
    """Reads arrays of a file of so many classes, and checks them."""

    path: Path
    many: int

    def classifier(
        self, group: h5py.Group, name: str, truth: Mapping[str, Whole], important: Mapping[str, tuple[str, ...]]
    ) -> Classifier:
        fields = group.attrs
        loss, key = str(fields["loss"]), str(fields["important"])
        if loss not in LOSSES:
            raise BrokenFileError(f"{self.path}: {name} has a loss '{loss}', known are {', '.join(LOSSES)}; {REMEDY}")
        if key != "" if loss in NEUTRAL else key not in important:
            raise BrokenFileError(f"{self.path}: {name} ({loss}) cannot be of important classes '{key}'; {REMEDY}")
        splits = {
            split: Split(
                self.classes_of(group[f"{split}/predicted"], numbers.size),
                self._angles(group[f"{split}/angle"], numbers.size),
            )
            for split, numbers in truth.items()
        }
        flat = "features" in group["test"] or "weights" in group
        return Classifier(
            id=name,
            loss=loss,
            important=key,
            margin=self._number(fields["margin"], name),
            scale=self._number(fields["scale"], name),
            weight=self._number(fields["weight"], name),
            trial=int(fields["trial"]),
            splits=splits,
            features=self._points(group["test/features"], truth["test"].size) if flat else None,
            weights=self._points(group["weights"], self.many) if flat else None,
        )

    def classes_of(self, dataset: h5py.Dataset, count: int | None = None) -> Whole:
        """Class numbers (N,); `count` is N where it is known."""
        values: Whole = dataset[:].astype(np.int64)
        self._check_shape(dataset, (values.size if count is None else count,))
        if np.any(values < 0) or np.any(values >= self.many):
            raise BrokenFileError(f"{self.path}: {dataset.name} holds a class that is none of {self.many}; {REMEDY}")
        return values

    def _angles(self, dataset: h5py.Dataset, count: int) -> Array:
        values: Array = dataset[:].astype(np.float64)
        self._check_shape(dataset, (count,))
        # float32 of pi is a little more than pi
        if not np.all((values >= 0) & (values <= math.pi + 1e-6)):
            raise BrokenFileError(f"{self.path}: {dataset.name} holds an angle that is not within 0 to pi; {REMEDY}")
        return values

    def _points(self, dataset: h5py.Dataset, count: int) -> Array:
        values: Array = dataset[:].astype(np.float64)
        self._check_shape(dataset, (count, 2))
        if not np.all(np.isfinite(values)):
            raise BrokenFileError(f"{self.path}: {dataset.name} holds a value that is not a finite number; {REMEDY}")
        return values

    def _check_shape(self, dataset: h5py.Dataset, shape: tuple[int, ...]) -> None:
        if dataset.shape != shape:
            raise BrokenFileError(
                f"{self.path}: {dataset.name} has shape {dataset.shape}, {shape} is expected; {REMEDY}"
            )

    def _number(self, value: float, name: str) -> float:
        if math.isinf(value):
            raise BrokenFileError(f"{self.path}: {name} has an infinite margin, scale or weight; {REMEDY}")
        return float(value)
