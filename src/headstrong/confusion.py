"""Mean intersection over union from confusion matrices: pure numpy, for evaluation and analysis alike."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Convention = Literal["labelled", "all"]


def miou_from_confusion(confusion: NDArray[np.integer[Any]], convention: Convention) -> NDArray[np.float64]:
    """Mean IoU (...,) in [0, 1] of confusion matrices (..., C, C), [true, predicted] pixel counts.

    IoU of a class: intersection over union of its true and predicted pixels; the mean is over classes with a non-empty
    union. "labelled": pixels of true class 0 (unlabelled) do not count, nor does class 0 itself. "all": class 0 is a
    class like any other, as in the released code of Ghamizi et al. (2022).
    NaN where no class has a union: with "labelled", an image without a labelled pixel.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    if convention == "labelled":
        counts = counts[..., 1:, :]  # the columns stay: a labelled pixel called "unlabelled" is a miss
        intersection = np.diagonal(counts[..., 1:], axis1=-2, axis2=-1)
        predicted = counts[..., 1:].sum(axis=-2)
    else:
        intersection = np.diagonal(counts, axis1=-2, axis2=-1)
        predicted = counts.sum(axis=-2)
    union = counts.sum(axis=-1) + predicted - intersection
    present = union > 0
    shares = np.divide(intersection, union, out=np.zeros_like(union), where=present)
    classes = present.sum(axis=-1)
    return np.divide(shares.sum(axis=-1), classes, out=np.full(classes.shape, np.nan), where=classes > 0)
