"""Whether a classifier learned anything: one flag for all that are trained, attacked or made to forget.

What was not learned cannot be attacked or forgotten: numbers about it say nothing, and verdicts leave it out.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

NOT_LEARNED = "not learned: its accuracy is not clearly above that of the majority class"
NOT_FORGOTTEN = "not learned: the copy has not clearly forgotten the hidden task"
NO_GENERATOR = "not learned: its perturbations are not clearly stronger than noise of the same size"
CLEARLY = 1.96  # standard errors of the mean difference: 95 %


def learned(right: ArrayLike, majority: ArrayLike) -> bool:
    """Whether a classifier is clearly better than the majority class on the same N pictures.

    right, majority: (N,), the share of a task's labels that classifier and majority class tell rightly; NaN where there
    is none. The 95 % interval of the mean of their paired differences must lie above 0.
    """
    return clearly_more(right, majority)


def majority_right(truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool (N,): the pictures classified correctly by giving all of them the most frequent class; truth: (N,)."""
    return truth == np.bincount(truth).argmax()


def clearly_more(more: ArrayLike, less: ArrayLike) -> bool:
    """Whether the 95 % interval of the mean of more - less, paired (N,), lies above 0; a NaN does not count."""
    lead = np.asarray(more, dtype=np.float64) - np.asarray(less, dtype=np.float64)
    lead = lead[~np.isnan(lead)]
    if lead.size < 2:
        return False
    return bool(lead.mean() > CLEARLY * lead.std(ddof=1) / math.sqrt(lead.size))


def words(is_learned: bool) -> str:
    """How a table says it: "yes" or "no"."""
    return "yes" if is_learned else "no"
