"""Whether the numbers of dense labels can be what they are said to be: depth, normals, shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.data.verify_findings import Finding

# NYUv2's Kinect sees from half a metre to ten; 39 mm are the steps of its depth.
NYUV2_METRES = (0.5, 10.04)
_SLACK = 0.1  # of a normal's length: 8 bits leave 0.01
_FEW = 0.01  # share of pixels that may be off: an image that was resized mixes some


def depth_fault(metres: NDArray[Any]) -> str | None:
    """What is wrong with a depth of NYUv2, metres (H, W), 0 or no number where there is a hole."""
    known = metres[np.isfinite(metres) & (metres != 0)]
    if not known.size:
        return "no depth in it, every pixel is a hole"
    if known.min() < 0:
        return f"depth of {known.min():g} m, expected none below 0"
    low, high = NYUV2_METRES
    if known.max() > high or known.max() < low:
        return f"depth up to {known.max():g} m, expected {low:g} to {high:g} m; in other units?"
    return None


def normal_fault(normals: NDArray[Any]) -> str | None:
    """What is wrong with normals (H, W, 3); where there is none, its length is 0.

    Shorter than 1 they may be on edges, where resizing has mixed some, longer nowhere.
    """
    lengths = np.sqrt((normals.astype(np.float64) ** 2).sum(axis=-1))
    if not np.isfinite(lengths).all():
        return "normals that are no numbers"
    known = lengths[lengths > _SLACK]
    if not known.size:
        return None
    longer, off = (known > 1 + _SLACK).mean(), (np.abs(known - 1) > _SLACK).mean()
    if longer > _FEW or off > 0.5:
        return f"normals of lengths {known.min():.2f} to {known.max():.2f}, {off:.0%} of them not of unit length"
    return None


def share_fault(values: NDArray[Any]) -> str | None:
    """What is wrong with an image of colour shares: they lie in 0..1."""
    low, high = float(values.min()), float(values.max())
    if low >= -1e-3 and high <= 1 + 1e-3:
        return None
    return f"values of {low:g} to {high:g}, expected 0 to 1"


def sizes(paths: Mapping[str, str], pixels: Mapping[str, NDArray[Any]], image: str) -> list[Finding]:
    """The labels of a frame that are not of the size of its image. pixels: (H, W, ...) of each kind, `image` is that of
    the image. paths: of each kind."""
    if image not in pixels:
        return []
    height, width = pixels[image].shape[:2]
    return [
        Finding("broken", paths[kind], f"{array.shape[1]}x{array.shape[0]} pixels, its image has {width}x{height}")
        for kind, array in pixels.items()
        if array.shape[:2] != (height, width)
    ]
