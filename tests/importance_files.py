"""Made-up evaluations of important classes in the layout that the evaluation writes, and the tables made of them."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

FORMAT = "headstrong-importance-1"
SHAPES = ("cube", "brick", "ball", "egg", "cylinder", "bucket", "cone", "ring", "dumb-bell", "table lamp")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMPORTANT: dict[str, dict[str, tuple[str, ...]]] = {
    "objects": {"worst1": ("bucket",), "worst2": ("egg",), "median": ("ring",)},
    "cifar10": {"worst1": ("cat",), "worst2": ("dog",), "median": ("airplane",)},
}
PICTURES = 100  # of each class and split
TRIALS = 5
MARGINS, SCALES, WEIGHTS = (4.0, 8.0), (8.0, 16.0), (2.0, 8.0)
SPLITS = ("validation", "test")
TOLERANCE = 0.5
# Points of recall of the important classes, and of all others, that a loss gains over the cross entropy.
GAIN = {"ce": (0, 0), "wce": (5, -0.5), "crwwce": (2, -4), "softmax": (1, 0.5), "arcface": (2, 1), "camri": (5, 1)}


@dataclass(frozen=True)
class Trial:
    """One trained classifier; margins in sixty-fourths of pi."""

    loss: str
    trial: int
    important: str = ""
    margin: float = math.nan
    scale: float = math.nan
    weight: float = math.nan

    @property
    def id(self) -> str:
        numbers = [f"{name}{value:g}" for name, value in self._numbers().items() if not math.isnan(value)]
        return "-".join([self.loss, *([self.important] if self.important else []), *numbers, str(self.trial)])

    def _numbers(self) -> dict[str, float]:
        return {"m": self.margin, "s": self.scale, "w": self.weight}


class Frames(NamedTuple):
    """importance.csv, importance_settings.csv and camri_table_1.csv of one study."""

    importance: pd.DataFrame
    settings: pd.DataFrame
    table: pd.DataFrame


def grid(important: Sequence[str], trials: int = TRIALS) -> list[Trial]:
    """Six losses: two margins by two scales, two weights, each for every important key that the loss knows."""
    return [one for number in range(trials) for one in _settings(important, number)]


def _settings(important: Sequence[str], number: int) -> Iterator[Trial]:
    yield Trial("ce", number)
    for scale in SCALES:
        yield Trial("softmax", number, scale=scale)
        for margin in MARGINS:
            yield Trial("arcface", number, margin=margin, scale=scale)
            yield from (Trial("camri", number, key, margin, scale) for key in important)
    for weight in WEIGHTS:
        for loss in ("wce", "crwwce"):
            yield from (Trial(loss, number, key, weight=weight) for key in important)


def write_file(
    path: Path,
    trials: Sequence[tuple[Trial, Mapping[str, tuple[np.ndarray, np.ndarray]]]],
    truth: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str],
    important: Mapping[str, Sequence[str]],
    family: str = "objects",
    dataset: str = "objects",
    tolerance: float = TOLERANCE,
    flat: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Path:
    """A file of just these numbers: by trial and split the predicted classes and angles in radians.

    flat: features (N, 2) of the test pictures and weights (C, 2), by the ids of classifiers that have them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            format=FORMAT,
            complete=1,
            family=family,
            dataset=dataset,
            label="shape",
            classes=json.dumps(list(classes)),
            important=json.dumps({key: list(names) for key, names in important.items()}),
            ranking="validation",
            job=json.dumps({"family": family, "tolerance": tolerance}),
            code="0123456789abcdef",
        )
        for split, numbers in truth.items():
            file[f"truth/{split}"] = np.asarray(numbers, np.int16)
        for one, found in trials:
            group = file.create_group(f"trials/{one.id}")
            group.attrs.update(
                loss=one.loss,
                important=one.important,
                margin=one.margin,
                scale=one.scale,
                weight=one.weight,
                trial=one.trial,
            )
            for split, (predicted, angle) in found.items():
                group[f"{split}/predicted"] = np.asarray(predicted, np.int16)
                group[f"{split}/angle"] = np.asarray(angle, np.float32)
            if flat and one.id in flat:
                features, weights = flat[one.id]
                group["test/features"] = np.asarray(features, np.float32)
                group["weights"] = np.asarray(weights, np.float32)
    return path


def write_evaluation(
    path: Path,
    *,
    family: str = "objects",
    dataset: str = "objects",
    classes: Sequence[str] | None = None,
    important: Mapping[str, Sequence[str]] | None = None,
    trials: Sequence[Trial] | None = None,
    splits: Sequence[str] = SPLITS,
    pictures: int = PICTURES,
    tolerance: float = TOLERANCE,
    flat: bool = False,
    seed: int = 0,
) -> Path:
    """A file of classifiers that gain as GAIN says, with the noise of trials; the same arguments, the same numbers.

    CRWWCE keeps no accuracy. Angles of the important classes are narrower, the larger the margin. Trials are paired:
    the same number gives the same noise in every loss. flat: every classifier has 2-D features, and their angles.
    """
    classes = classes or (CIFAR if dataset == "cifar10" else SHAPES)
    important = important or IMPORTANT["cifar10" if dataset == "cifar10" else "objects"]
    trials = grid(tuple(important)) if trials is None else trials
    truth = {split: np.repeat(np.arange(len(classes)), pictures) for split in splits}
    made, features = [], {}
    for one in trials:
        favoured = np.isin(classes, [name for name in important.get(one.important, ())])
        found = {}
        for split in splits:
            rng = np.random.default_rng([seed, one.trial, SPLITS.index(split)])
            predicted = _predicted(one, favoured, pictures, rng)
            angle = _angles(one, favoured, pictures, rng)
            if flat:
                angle, points, weights = _flat(truth[split], angle, len(classes))
                if split == "test":
                    features[one.id] = (points, weights)
            found[split] = (predicted, angle)
        made.append((one, found))
    return write_file(
        path, made, truth, classes=classes, important=important, family=family, dataset=dataset, tolerance=tolerance,
        flat=features,
    )  # fmt: skip


def _predicted(one: Trial, favoured: np.ndarray, pictures: int, rng: np.random.Generator) -> np.ndarray:
    """Of every class the first so many pictures are right, the others are called the next class."""
    count = len(favoured)
    recall = 75 + 20 * np.abs(np.linspace(-1, 1, count)) + rng.normal(0, 1.5, count)
    gain, rest = GAIN[one.loss]
    strength = 1 if math.isnan(one.margin) else one.margin / 6 * (1 if one.scale < 10 else 0.8)
    heavy = 1 if math.isnan(one.weight) else math.log2(one.weight) / 2
    recall = recall + np.where(favoured, gain * strength * heavy, rest * strength * heavy)
    recall = recall + rng.normal(0, 1.5, count) * (one.loss != "ce")
    right = np.clip(np.round(recall / 100 * pictures), 0, pictures).astype(int)
    place = np.tile(np.arange(pictures), count)
    truth = np.repeat(np.arange(count), pictures)
    return np.where(place < right[truth], truth, (truth + 1) % count)


def _angles(one: Trial, favoured: np.ndarray, pictures: int, rng: np.random.Generator) -> np.ndarray:
    """Radians around 0.9 (0.7 with a margin); a margin narrows the classes that have it."""
    margin = 0.0 if math.isnan(one.margin) else one.margin
    narrowed = favoured | (one.loss == "arcface")
    spread = np.where(narrowed, 0.15 / (1 + margin / 8), 0.15) * rng.uniform(0.9, 1.1, len(favoured))
    spread = spread * (1 + 0.02 * list(GAIN).index(one.loss) * rng.uniform(-1, 1, len(favoured)))
    centre = np.where(narrowed & (margin > 0), 0.7, 0.9)
    drawn = rng.normal(np.repeat(centre, pictures), np.repeat(spread, pictures))
    return np.clip(drawn, 0.01, 3.1)


def _flat(truth: np.ndarray, angle: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles a fifth as wide, features (N, 2) at those angles to the weights (C, 2) of the true classes, which lie on
    a circle."""
    around = 2 * np.pi * np.arange(count) / count
    weights = np.stack([np.cos(around), np.sin(around)], axis=1)
    side = np.where(np.arange(len(truth)) % 2 == 0, 1, -1)
    direction = around[truth] + side * angle / 5
    length = 3 + np.sin(np.arange(len(truth)))
    return angle / 5, length[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1), weights


@cache
def _frames() -> Frames:
    from headstrong.analysis import camri_table, importance, importance_settings

    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_evaluation(Path(folder) / "objects.h5", seed=1),
            write_evaluation(Path(folder) / "photographs.h5", family="photographs", dataset="cifar10", seed=2),
        ]
        rows = importance.build_table(paths)
        settings = importance_settings.build_table(rows, importance.tolerances(paths))
    return Frames(rows, settings, camri_table.build_table(settings))


def frames() -> Frames:
    """The three tables of a study of two families: "objects" (data set objects) and "photographs" (cifar10).

    Five trials, two margins by two scales, two weights, all six losses, important worst1, worst2 and median. Copies:
    change them as you like.
    """
    return Frames(*(frame.copy() for frame in _frames()))
