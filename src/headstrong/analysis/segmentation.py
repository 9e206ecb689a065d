"""mIoU of a whole data set from per-sample confusion matrices, with the influence of each sample on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstrong.analysis.stats import Estimate
from headstrong.confusion import Convention, miou_from_confusion


class Miou(NamedTuple):
    """mIoU in [0, 1] of the summed confusion matrix, and the influence (n,) of each sample, which sums to 0.

    The n samples are those with a pixel that counts, whatever is predicted.
    """

    value: float
    influence: NDArray[np.float64]

    @property
    def estimate(self) -> Estimate:
        """mIoU with its standard error by the delta method."""
        return Estimate(self.value, _spread(self.influence), self.influence.size)


def miou(confusion: NDArray[np.int64], convention: Convention) -> Miou:
    """mIoU of confusion (n, C, C) summed over samples; convention "labelled" or "all" as in `headstrong.confusion`.

    IoU_c is a ratio of sums TP_c / U_c, so sample k moves it by (tp_kc - IoU_c u_kc) / U_c to first order; the mean
    over the classes that occur is the influence of the sample.
    """
    counts = confusion.astype(np.float64)
    if convention == "labelled":
        counts[:, 0, :] = 0
    counts = counts[counts.any(axis=(1, 2))]
    hit = np.diagonal(counts, axis1=1, axis2=2)
    union = counts.sum(axis=1) + counts.sum(axis=2) - hit
    if convention == "labelled":
        hit, union = hit[:, 1:], union[:, 1:]
    occurs = union.sum(axis=0) > 0
    hit, union = hit[:, occurs], union[:, occurs]
    share = hit.sum(axis=0) / union.sum(axis=0)
    influence = ((hit - share * union) / union.sum(axis=0)).sum(axis=1) / max(1, int(occurs.sum()))
    return Miou(float(miou_from_confusion(confusion.sum(axis=0), convention)), influence)


def relative_increase(clean: Miou, attacked: Miou) -> Estimate:
    """Relative increase of 1 - mIoU under attack, with its standard error by the delta method (paired samples)."""
    before, after = 1 - clean.value, 1 - attacked.value
    n = clean.influence.size
    if not before > 0:
        return Estimate(math.nan, math.nan, n)
    influence = -attacked.influence / before + after / before**2 * clean.influence
    return Estimate(after / before - 1, _spread(influence), n)


def _spread(influence: NDArray[np.float64]) -> float:
    """Standard error of a statistic from its samples' influences, each already divided by n."""
    n = influence.size
    return math.sqrt(n / (n - 1) * float(np.sum(influence**2))) if n > 1 else math.nan
