"""generated.csv: how far generated perturbations (GAP and MTA) harm their victims, beside noise of the same size.

The measures are those of "Multi-Task Adversarial Attack" (arXiv 2011.09824), section 4. Of classifiers, in percent:
fooling ratio, the share of images whose predicted class the perturbation changes; accuracy against the labels;
target accuracy, the share predicted as the class that a targeted perturbation asks for. Of dense models, the nine of
its Table 5: mIoU and pixel accuracy (percent) from the confusion matrices summed over images, depth errors (metres, and
relative), angles of normals (degrees) and shares of pixels within an angle (percent).

The published numbers come from code that averages over batches of two images: means of batch means, and of batch
medians. Here an image is measured by itself and the mean is taken over images. Which of the two mIoUs of that code was
published is not said: `seg_miou` is that of the summed matrix, `seg_miou_image` the mean over images of the mIoU over
the classes with a pixel in the image, which the code took until November 2020. Class 0 is treated in both as the
evaluation's `miou` says (`headstrong.confusion`).

Every standard error is over images: of a mean the usual one, of a ratio of sums and of a difference that of a
bootstrap. All situations of a family are measured on the same resamples of a task's images, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.generated_records import CLEAN, NOISE, Family, Leaf, Situation, read_family
from headstrong.analysis.performance import estimate, means, segmentation_measures
from headstrong.analysis.stats import BOOTSTRAP_DRAWS, Array, Estimate
from headstrong.confusion import Convention, miou_from_confusion
from headstrong.learned import clearly_more, learned, majority_right, words
from headstrong.seeds import derive_seed

COLUMNS = (
    "family",
    "dataset",
    "victim",
    "trained_on",
    "method",
    "mode",
    "goal",
    "norm",
    "epsilon",
    "task",
    "metric",
    "value",
    "standard_error",
    "n",
    "target",
    "generator",
    "gain",
    "gain_standard_error",
    "majority",
    "learned",
)
UNTARGETED, TARGETED = "untargeted", "targeted"
REACH = "radius_reached"
# Names as in the published tables, by the names of `headstrong.measures`, with the factor to their units.
_NORMALS = {
    "angle_mean": ("normal_mean", 1.0),
    "angle_median": ("normal_median", 1.0),
    "within_11.25": ("normal_within_11.25", 100.0),
    "within_22.5": ("normal_within_22.5", 100.0),
    "within_30": ("normal_within_30", 100.0),
}
_DEPTH = {"absolute": ("depth_abs_err", 1.0), "relative": ("depth_rel_err", 1.0)}
_NAMES: Mapping[str, Mapping[str, tuple[str, float]]] = {"n": _NORMALS, "d": _DEPTH, "D": _DEPTH}
_OTHER = {"absolute": ("abs_err", 1.0)}
_RISING = ("fooling_ratio", "target_accuracy", "depth_", "abs_err", "normal_mean", "normal_median")
Row = dict[str, Any]


def harm(metric: str) -> int:
    """1 where a stronger perturbation makes the metric larger, -1 where it makes it smaller."""
    return 1 if metric.startswith(_RISING) else -1


@dataclass(frozen=True)
class Measure:
    """One number of one task: its value, standard error and images, and `drawn` (1 + draws,), the value over all
    images and then over each resample, NaN where it cannot be resampled."""

    estimate: Estimate
    drawn: Array


def build_table(evaluations: Sequence[Path], *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> pd.DataFrame:
    """generated.csv: the rows of `rows` of every evaluation, columns COLUMNS; no evaluation, no row.

    evaluations: HDF5 files of families. The same seed, the same table.
    Raises MissingDataError or BrokenFileError, naming the file, as reading one does.
    """
    found = [row for path in evaluations for row in rows(read_family(path), seed=seed, draws=draws)]
    return pd.DataFrame(found, columns=list(COLUMNS)).astype({"n": "Int64"})


def rows(family: Family, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> list[Row]:
    """One row per situation, task and metric, situations in the order of the file.

    Columns COLUMNS; epsilon is in pixel units, images in [0, 1], values are in the units of the head of this module.
    `victim` is the set of victims measured (of the trivial predictor ""), `trained_on` the set that a generator was
    trained against ("" else). Clean rows and those of noise have goal "", but for target accuracies, one for each
    class that a targeted generator of the family asks of the task: these have goal "targeted" and the class as target.
    REACH: the largest perturbation, in percent of the radius; never above 100 if the perturbations keep to the ball.
    gain: this number minus that of GAP with the same victim, mode, goal, norm, radius and target, on the same images;
    NaN where GAP was not run so. Where `harm` of the metric is -1, a negative gain is the stronger attack.
    majority: of rows of accuracy, that of the class that most images have. learned: "no" where a classifier's accuracy
    is not clearly above it (clean rows), or a generator's perturbations are not clearly stronger than noise of the same
    size, else "yes"; "" in other rows.
    """
    weights = {
        task: stats.resamples(len(names), draws, derive_seed(seed, "generated", task, len(names)))
        for task, names in family.index.items()
    }
    measured = [(one, _Measurer(family, one, weights)) for one in family.situations]
    gap = {_key(one): maker for one, maker in measured if one.method == "gap"}
    return [row for one, maker in measured for row in _rows(family, one, maker, gap)]


def _key(one: Situation) -> tuple[object, ...]:
    return one.victim, one.mode, one.goal, one.norm, one.epsilon, tuple(sorted(one.targets.items()))


def _rows(
    family: Family, one: Situation, maker: _Measurer, gap: Mapping[tuple[object, ...], _Measurer]
) -> Iterator[Row]:
    for task in family.tasks:
        learned_it = _learned(family, one, task)
        rival = gap.get(_key(one))
        against = {} if rival is None or rival is maker else rival.measures(task)
        for (metric, target), measure in maker.measures(task).items():
            other = against.get((metric, target)) if metric != REACH else None
            gain = None if other is None else estimate(measure.drawn - other.drawn, measure.estimate.n)
            yield {
                "family": family.family,
                "dataset": family.dataset,
                "victim": one.victim,
                "trained_on": family.victims if one.generator else "",
                "method": one.method,
                "mode": one.mode,
                "goal": one.goal or (TARGETED if target else ""),
                "norm": one.norm,
                "epsilon": one.epsilon,
                "task": task,
                "metric": metric,
                "value": measure.estimate.value,
                "standard_error": measure.estimate.error,
                "n": measure.estimate.n,
                "target": target or one.targets.get(task, ""),
                "generator": one.generator,
                "gain": math.nan if gain is None else gain.value,
                "gain_standard_error": math.nan if gain is None else gain.error,
                "majority": 100 * float(majority_right(family.labels[task]).mean())
                if metric == "accuracy"
                else math.nan,
                "learned": learned_it,
            }


def _learned(family: Family, one: Situation, task: str) -> str:
    """Whether the victim, or the generator, of a situation learned its task; "" for what does not learn."""
    leaf = one.tasks[task]
    if one.method == CLEAN and leaf.prediction is not None:
        return words(learned(leaf.prediction == family.labels[task], majority_right(family.labels[task])))
    noises = [other for other in family.of(NOISE, one.victim) if (other.norm, other.epsilon) == (one.norm, one.epsilon)]
    if not (one.generator and noises):
        return ""
    noise = noises[0].tasks[task]
    if one.goal == TARGETED and leaf.prediction is not None and noise.prediction is not None:
        target = family.classes[task].index(one.targets[task])
        return words(clearly_more(leaf.prediction == target, noise.prediction == target))
    return words(clearly_more(leaf.loss, noise.loss))


class _Measurer:
    """The measures of one situation by task, each made once, under weights (1 + draws, N) by task."""

    def __init__(self, family: Family, one: Situation, weights: Mapping[str, Array]) -> None:
        self._family, self._one, self._weights = family, one, weights
        self._made: dict[str, dict[tuple[str, str], Measure]] = {}

    def measures(self, task: str) -> dict[tuple[str, str], Measure]:
        """Measures by metric and the class aimed at, "" where the metric knows none."""
        if task not in self._made:
            leaf, weights = self._one.tasks[task], self._weights[task]
            measure = self._classes if self._family.kind == "classes" else self._dense
            found = measure(task, leaf, weights)
            if leaf.size is not None:
                reach = 100 * float(leaf.size.max()) / self._one.epsilon
                unknown = np.full(weights.shape[0], math.nan)
                found[REACH, ""] = Measure(Estimate(reach, math.nan, leaf.size.size), unknown)
            self._made[task] = found
        return self._made[task]

    def _classes(self, task: str, leaf: Leaf, weights: Array) -> dict[tuple[str, str], Measure]:
        prediction, family = leaf.prediction, self._family
        assert prediction is not None
        found = {}
        if self._one.method != CLEAN:
            before = family.of(CLEAN, self._one.victim)[0].tasks[task].prediction
            found["fooling_ratio", ""] = _share(prediction != before, weights)
        found["accuracy", ""] = _share(prediction == family.labels[task], weights)
        for target in self._targets(task):
            found["target_accuracy", target] = _share(prediction == family.classes[task].index(target), weights)
        return found

    def _targets(self, task: str) -> list[str]:
        """The classes aimed at: the generator's own, or those of every generator where there is none."""
        if self._one.generator:
            return [self._one.targets[task]] if self._one.goal == TARGETED else []
        return list(dict.fromkeys(one.targets[task] for one in self._family.situations if task in one.targets))

    def _dense(self, task: str, leaf: Leaf, weights: Array) -> dict[tuple[str, str], Measure]:
        if leaf.confusion is not None:
            convention: Convention = self._family.job["miou"]
            count = int(leaf.confusion.any(axis=(1, 2)).sum())  # images with labels
            summed = segmentation_measures(leaf.confusion, weights, convention)
            return {
                ("seg_miou", ""): Measure(estimate(100 * summed["miou"], count), 100 * summed["miou"]),
                ("seg_miou_image", ""): _mean(100 * miou_from_confusion(leaf.confusion, convention), weights),
                ("seg_pixel_accuracy", ""): Measure(
                    estimate(100 * summed["pixel_accuracy"], count), 100 * summed["pixel_accuracy"]
                ),
            }
        names = _NAMES.get(task, _OTHER)
        return {
            (name, ""): _mean(factor * leaf.measures[measure], weights) for measure, (name, factor) in names.items()
        }


def _share(true: Any, weights: Array) -> Measure:
    return _mean(100 * np.asarray(true, dtype=np.float64), weights)


def _mean(values: Array, weights: Array) -> Measure:
    """The mean over the images that have a number, its standard error, and its resamples."""
    return Measure(stats.mean(values[~np.isnan(values)]), means(weights, values[:, None])[:, 0])
