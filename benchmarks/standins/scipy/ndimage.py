"""The filters of scipy.ndimage that labels of rooms are made with, to rounding: images of two dimensions, float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_PADDING: dict[str, Any] = {"nearest": "edge", "constant": "constant"}


def gaussian_filter(
    input: Floats, sigma: float, order: int | Sequence[int] = 0, mode: str = "nearest", truncate: float = 4.0
) -> Floats:
    """Convolution with a Gaussian, or its first or second derivative along each axis, cut off at `truncate` sigmas."""
    orders = (order,) * np.ndim(input) if isinstance(order, int) else tuple(order)
    x = np.arange(-int(truncate * sigma + 0.5), int(truncate * sigma + 0.5) + 1, dtype=np.float64)
    bell = np.exp(-(x**2) / (2 * sigma**2))
    bell /= bell.sum()
    kernels = (bell, bell * x / sigma**2, bell * (x**2 / sigma**4 - 1 / sigma**2))
    for axis, derivative in enumerate(orders):
        input = _correlate(input, kernels[derivative], axis, mode)
    return input


def sobel(input: Floats, axis: int = -1, mode: str = "nearest") -> Floats:
    """Difference of the neighbours along an axis, and along the others their sum with weights 1, 2, 1."""
    for other in range(np.ndim(input)):
        weights = [-1.0, 0.0, 1.0] if other == axis % np.ndim(input) else [1.0, 2.0, 1.0]
        input = _correlate(input, np.array(weights), other, mode)
    return input


def uniform_filter(input: Floats, size: int, mode: str = "nearest") -> Floats:
    """Mean over a window of an odd size."""
    for axis in range(np.ndim(input)):
        input = _correlate(input, np.full(size, 1 / size), axis, mode)
    return input


def _correlate(image: Floats, weights: Floats, axis: int, mode: str) -> Floats:
    radius, length = len(weights) // 2, image.shape[axis]
    widths = [(radius, radius) if other == axis else (0, 0) for other in range(image.ndim)]
    padded = np.moveaxis(np.pad(np.asarray(image, dtype=np.float64), widths, mode=_PADDING[mode]), axis, 0)
    total = sum(weight * padded[start : start + length] for start, weight in enumerate(weights))
    return np.moveaxis(np.asarray(total), 0, axis)
