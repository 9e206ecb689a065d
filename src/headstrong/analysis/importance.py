"""importance.csv: how well classifiers tell the important classes, one row per trial and split.

The evaluation keeps, of every picture, the predicted class and the angle between its feature vector and the weight
vector of its true class. The measures are those of Nishiyama et al., "CAMRI Loss" (IJCNN 2022, arXiv 2209.10920): the
recall of the important classes, the accuracy over all classes, and the variance of that angle within a class, which a
margin on the important class should make smaller than elsewhere.

Losses that know no important class (NEUTRAL) are trained once per trial. They count for every key of important classes
of their family, so that each key has all losses to compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from headstrong.analysis.importance_records import LOSSES, NEUTRAL, Array, Classifier, Study, Whole, read_study
from headstrong.errors import BrokenFileError
from headstrong.learned import learned, majority_right, words

KEYS = ("family", "dataset", "loss", "important", "classes", "margin", "scale", "weight")
COLUMNS = (
    *KEYS,
    "trial",
    "split",
    "recall",
    "accuracy",
    "angle_mean",
    "angle_mean_others",
    "angle_variance",
    "angle_variance_others",
    "pictures_important",
    "pictures",
    "majority",
    "learned",
)
ANGLE_COLUMNS = ("family", "loss", "important", "margin", "scale", "weight", "trial", "class", "truth", "angle")
TRIAL_COLUMNS = ("id", "loss", "important", "margin", "scale", "weight", "trial")
WHOLE = ("trial", "pictures_important", "pictures")


@dataclass(frozen=True)
class Features:
    """One classifier with 2-D features on the N test pictures of C classes.

    important: the key, "" of a loss that knows none, whose important_classes are (). margin in sixty-fourths of pi.
    features float64 (N, 2), weights float64 (C, 2): the weight vectors of the last layer; truth int64 (N,).
    """

    loss: str
    important: str
    margin: float
    scale: float
    trial: int
    features: Array
    weights: Array
    truth: Whole
    classes: tuple[str, ...]
    important_classes: tuple[str, ...]


def build_table(paths: Sequence[Path]) -> pd.DataFrame:
    """importance.csv of these evaluations, columns COLUMNS; no evaluation, no row.

    Families in the order of `paths`, keys of important classes in the order of the file, losses in that of LOSSES, then
    by margin, scale, weight, trial and split. Recall and accuracy are percent, angles degrees, variances squared
    degrees. margin (sixty-fourths of pi), scale and weight are NaN where the loss has none.

    recall: of all pictures of the important classes together. angle_mean, angle_variance (ddof 1): within a class, then
    averaged over the important classes, _others over the rest; a class without pictures, for the variance with fewer
    than two, does not count. What has no picture to measure is NaN. majority: accuracy of the class that most pictures
    have; learned: "no" where the accuracy is not clearly above it (`headstrong.learned`), else "yes".
    Raises MissingDataError or BrokenFileError, naming the file, as `importance_records.read_study` does; also where two
    files hold one family.
    """
    rows = [row for study in _studies(paths) for row in _rows(study)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(WHOLE, "Int64"))


def tolerances(paths: Sequence[Path]) -> dict[str, float]:
    """By family, how many points of accuracy a setting may lose and still keep accuracy. Raises as `build_table`."""
    return {study.family: study.tolerance for study in _studies(paths)}


def trials(path: Path) -> pd.DataFrame:
    """The classifiers of a file, columns TRIAL_COLUMNS: which id has which setting. Raises as `build_table`."""
    rows = [{name: getattr(one, name) for name in TRIAL_COLUMNS} for one in _in_order(read_study(path))]
    return pd.DataFrame(rows, columns=list(TRIAL_COLUMNS)).astype({"trial": "Int64"})


def angles(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    """The angles of the test pictures to the weight vectors of their true classes: a row per classifier and picture.

    ids: of classifiers, as `trials` names them. Columns ANGLE_COLUMNS: `class` and `truth` are number and name of the
    true class, angle is in degrees, important is "" of a loss that knows none.
    Raises BrokenFileError when the file has no classifier of an id, else as `build_table`.
    """
    study = read_study(path)
    known = {one.id: one for one in study.classifiers}
    lacking = sorted(set(ids) - known.keys())
    if lacking:
        raise BrokenFileError(f"{path}: holds no classifier {', '.join(lacking)}; evaluate the family that has it")
    truth = study.truth["test"]
    names = np.array(study.classes, dtype=object)[truth]
    parts = [
        pd.DataFrame(
            {
                "family": study.family,
                **{name: getattr(known[key], name) for name in TRIAL_COLUMNS[1:]},
                "class": truth,
                "truth": names,
                "angle": np.degrees(known[key].splits["test"].angle),
            }
        )
        for key in ids
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(ANGLE_COLUMNS))


def features(path: Path) -> list[Features]:
    """The classifiers of a file that have 2-D features, ordered as `trials`. Raises as `build_table`."""
    study = read_study(path)
    return [
        Features(
            loss=one.loss,
            important=one.important,
            margin=one.margin,
            scale=one.scale,
            trial=one.trial,
            features=one.features,
            weights=one.weights,
            truth=study.truth["test"],
            classes=study.classes,
            important_classes=study.important.get(one.important, ()),
        )
        for one in _in_order(study)
        if one.features is not None and one.weights is not None
    ]


def _studies(paths: Sequence[Path]) -> Iterator[Study]:
    seen: dict[str, Path] = {}
    for path in paths:
        study = read_study(path)
        if study.family in seen:
            raise BrokenFileError(f"{path}: family {study.family} stands in {seen[study.family]} as well; give one")
        seen[study.family] = path
        yield study


def _in_order(study: Study) -> list[Classifier]:
    """Classifiers by loss, key of important classes, margin, scale, weight and trial."""
    keys = ["", *study.important]

    def place(one: Classifier) -> tuple[float, ...]:
        numbers = (-math.inf if math.isnan(value) else value for value in (one.margin, one.scale, one.weight))
        return (LOSSES.index(one.loss), keys.index(one.important), *numbers, one.trial)

    return sorted(study.classifiers, key=place)


def _rows(study: Study) -> Iterator[dict[str, object]]:
    ordered = _in_order(study)
    for key, names in study.important.items():
        chosen = np.isin(np.arange(len(study.classes)), [study.classes.index(name) for name in names])
        for one in ordered:
            if one.loss not in NEUTRAL and one.important != key:
                continue
            for split, found in one.splits.items():
                yield {
                    "family": study.family,
                    "dataset": study.dataset,
                    "loss": one.loss,
                    "important": key,
                    "classes": "; ".join(names),
                    "margin": one.margin,
                    "scale": one.scale,
                    "weight": one.weight,
                    "trial": one.trial,
                    "split": split,
                    **measures(study.truth[split], found.predicted, np.degrees(found.angle), chosen),
                }


def measures(truth: Whole, predicted: Whole, angle: Array, important: np.ndarray) -> Mapping[str, float | str]:
    """The measured columns of one classifier on the N pictures of a split.

    truth, predicted: class numbers (N,). angle: degrees (N,). important: bool (C,), which classes are.
    """
    count = important.size
    right, favoured = predicted == truth, important[truth]
    many = np.bincount(truth, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.bincount(truth, weights=angle, minlength=count) / many
        spread = np.bincount(truth, weights=(angle - centre[truth]) ** 2, minlength=count)
        variance = np.where(many > 1, spread / (many - 1), math.nan)
    return {
        "recall": 100 * _mean(right[favoured]),
        "accuracy": 100 * _mean(right),
        "angle_mean": _mean(centre[important]),
        "angle_mean_others": _mean(centre[~important]),
        "angle_variance": _mean(variance[important]),
        "angle_variance_others": _mean(variance[~important]),
        "pictures_important": int(favoured.sum()),
        "pictures": truth.size,
        "majority": 100 * _mean(majority_right(truth)) if truth.size else math.nan,
        "learned": words(learned(right, majority_right(truth))) if truth.size else "",
    }


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are numbers, NaN where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
