"""Relative performance under attack: the metric of "Attacking all tasks at once" (DGBA, arXiv 2305.12066).

    r_t = (1 / |M_t|) sum over m in M_t of s_m (v_m - b_m) / b_m,        ARP = mean of r_t over the tasks of the model

M_t are the measures of task t, v_m is the measure under attack and b_m the clean one of the same model; s_m is +1 where
higher is better, -1 where lower is better. So r_t is 0 without harm, negative with it, and -1 where every measure that
is better higher fell to 0; a measure that is better lower knows no limit. The relative loss change of the same authors
is here (mean loss under attack - mean clean loss) / mean clean loss: positive with harm.

Measures of a data set: for segmentation mIoU and pixel accuracy of the confusion matrix summed over samples, by the
evaluation's convention for unlabelled pixels; for the others the mean over samples of what `headstrong.measures` took
of each: five for normals, five for depth, the absolute error for the rest. A measure that is 0 on clean images has no
relative change and is left out of M_t; `undefined` names it, and flags.csv reports it.

The published code differs in two ways, which are not followed here: it rounds measures to four decimals before the
ratio, and its mIoU drops a class as soon as no pixel of it is right, which hides the worst that an attack can do. On
Taskonomy it takes one measure per task, where the five of normals and of depth are taken here on all data.

Standard errors are those of a bootstrap over samples. All attacks on a model are measured on the same resamples, so
differences between attacks are paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstrong.analysis.records import AttackRecord, Evaluation, TaskRecord
from headstrong.analysis.stats import Array, Estimate, resamples
from headstrong.confusion import Convention
from headstrong.seeds import derive_seed

DRAWS = 200  # a standard error from so many resamples is itself off by 5 %
UNDEFINED = "undefined measure"
_HIGHER_IS_BETTER = ("miou", "pixel_accuracy", "within")  # by how their names begin

Measures = Mapping[str, Array]


@dataclass(frozen=True)
class Change:
    """How one attack changes each task of a model, by letter.

    Arrays are (1 + draws,): the value over all samples, then over each resample. `performance` holds r_t, `loss` the
    relative change of the mean loss, `counts` the number of samples on which there was something to measure.
    """

    performance: Measures
    loss: Measures
    counts: Mapping[str, int]

    def performance_of(self, task: str) -> Array:
        """r_t (1 + draws,) of a task; with task "", ARP, which is NaN where a task has no measure."""
        return self.performance[task] if task else np.mean(list(self.performance.values()), axis=0)

    def loss_of(self, task: str) -> Array:
        """The relative loss change (1 + draws,) of a task; with task "", its mean over the tasks."""
        return self.loss[task] if task else np.mean(list(self.loss.values()), axis=0)

    def count_of(self, task: str) -> int:
        """The number of samples behind a task; with task "", the most of any task."""
        return self.counts[task] if task else max(self.counts.values())

    def estimates(self) -> list[tuple[str, str, Estimate]]:
        """(task, metric, estimate) of every task, and of the average over them with task ""."""
        found = []
        for task in (*self.counts, ""):
            prefix, count = "" if task else "average_", self.count_of(task)
            found.append((task, f"{prefix}relative_performance", estimate(self.performance_of(task), count)))
            found.append((task, f"{prefix}relative_loss_change", estimate(self.loss_of(task), count)))
        return found


@dataclass(frozen=True)
class Reference:
    """One model on its clean images: what every attack on it is compared with.

    `weights` (1 + draws, N): how often each sample counts; the first row is all samples once. `losses` and `measures`
    are the clean values on each row, by letter and by name, of the samples that count, as `counts` by letter.
    """

    evaluation: Evaluation
    weights: Array
    losses: Measures
    measures: Mapping[str, Measures]
    counts: Mapping[str, int]

    @staticmethod
    def of(evaluation: Evaluation, *, seed: int = 0, draws: int = DRAWS) -> Reference:
        """The clean values of an evaluation on `draws` resamples; the same seed and model, the same resamples."""
        weights = resamples(len(evaluation.index), draws, derive_seed(seed, "performance", evaluation.id))
        return Reference._on(evaluation, weights, evaluation.clean)

    @staticmethod
    def _on(evaluation: Evaluation, weights: Array, clean: Mapping[str, TaskRecord]) -> Reference:
        convention: Convention = evaluation.job["miou"]
        return Reference(
            evaluation=evaluation,
            weights=weights,
            losses={letter: means(weights, record.loss[:, None])[:, 0] for letter, record in clean.items()},
            measures={letter: measures(record, weights, convention) for letter, record in clean.items()},
            counts={letter: int((~np.isnan(record.error)).sum()) for letter, record in clean.items()},
        )

    def undefined(self) -> dict[str, tuple[str, ...]]:
        """By letter, the measures that are 0 or unknown on clean images, and so are left out of r_t."""
        return {
            letter: tuple(name for name, values in found.items() if not _usable(values))
            for letter, found in self.measures.items()
        }

    def change(self, attack: AttackRecord) -> Change:
        """What an attack on the same model changes, on the samples it was made on.

        A loss that is 0 on clean images has no relative change (NaN).
        """
        before = self
        if not attack.made.all():
            before = Reference._on(self.evaluation, self.weights, self.evaluation.before(attack))
        performance, loss = {}, {}
        for letter, record in attack.tasks.items():
            attacked = measures(record, self.weights, self.evaluation.job["miou"])
            performance[letter] = relative_performance(before.measures[letter], attacked)
            after = means(self.weights, record.loss[:, None])[:, 0]
            loss[letter] = _relative(before.losses[letter], after)
        return Change(performance, loss, before.counts)


def means(weights: Array, values: Array) -> Array:
    """Means (rows, k) of values (N, k) under weights (rows, N); NaN does not count, and is the mean of nothing."""
    known = ~np.isnan(values)
    total = weights @ np.where(known, values, 0)
    counted = weights @ known.astype(np.float64)
    return np.divide(total, counted, out=np.full(total.shape, math.nan), where=counted > 0)


def measures(record: TaskRecord, weights: Array, convention: Convention) -> dict[str, Array]:
    """The measures of one task by name, each (rows,) under weights (rows, N)."""
    if record.confusion is not None:
        return segmentation_measures(record.confusion, weights, convention)
    found = means(weights, np.stack(list(record.measures.values()), axis=1))
    return dict(zip(record.measures, found.T, strict=True))


def segmentation_measures(confusion: NDArray[np.int64], weights: Array, convention: Convention) -> dict[str, Array]:
    """mIoU and pixel accuracy in [0, 1], each (rows,), of confusion (N, C, C) summed under weights (rows, N).

    mIoU and `convention` are those of `headstrong.confusion.miou_from_confusion`. "labelled": neither measure counts
    pixels of true class 0. NaN where no pixel counts.
    """
    counts = confusion.astype(np.float64)
    first = 0
    if convention == "labelled":
        counts[:, 0, :] = 0
        first = 1
    # sums of classes are all that is needed: far fewer numbers to resample than whole matrices
    parts = (np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1))
    hit, true, predicted = (weights @ part[:, first:] for part in parts)
    union = true + predicted - hit
    present = union > 0
    shares = np.divide(hit, union, out=np.zeros_like(union), where=present)
    return {
        "miou": _ratio(shares.sum(axis=1), present.sum(axis=1).astype(np.float64)),
        "pixel_accuracy": _ratio(hit.sum(axis=1), true.sum(axis=1)),
    }


def relative_performance(clean: Measures, attacked: Measures) -> Array:
    """r_t (rows,) of measures (rows,) by name.

    A measure whose first clean value is 0 or unknown does not count; NaN when none counts. A row is NaN where a measure
    that counts is 0 in this row.
    """
    parts = [_sign(name) * _relative(base, attacked[name]) for name, base in clean.items() if _usable(base)]
    if not parts:
        return np.full_like(next(iter(clean.values())), math.nan)
    return np.mean(parts, axis=0)


def estimate(drawn: Array, count: int) -> Estimate:
    """The value over all `count` samples, which comes first, and the deviation of the resamples as standard error.

    The error is NaN for a single sample, for fewer than two resamples, and where a resample has no value.
    """
    error = float(drawn[1:].std(ddof=1)) if count > 1 and drawn.size > 2 else math.nan
    return Estimate(float(drawn[0]), error, count)


def _usable(base: Array) -> bool:
    return bool(np.isfinite(base[0]) and base[0] != 0)


def _sign(name: str) -> int:
    return 1 if name.startswith(_HIGHER_IS_BETTER) else -1


def _relative(before: Array, after: Array) -> Array:
    """(after - before) / before; NaN where before is 0."""
    return _ratio(after - before, before)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(above.shape, math.nan), where=below != 0)
