"""What the numbers of images and dense labels can be: colours, depth, normals, classes, sizes.

`verify` and the readers ask here, so that what the one calls broken the others never read. Each rule returns what is
wrong, in words that fit behind the name of the file, or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.errors import BrokenFileError

# The farthest point of a frame, in metres. NYUv2: a Kinect sees ten metres, and no frame's farthest point is nearer
# than 1.2 m, so that centimetres read as millimetres, at most 1.004, are noticed. Taskonomy: up to the last valid code.
NYUV2_FARTHEST = (1.05, 10.04)
TASKONOMY_FARTHEST = (0.2, 126.0)
AGREEMENT = 0.25  # mean cosine of a frame's stored normals with those of its depth; genuine ones have far more
_BLACK = 1 / 64  # an image whose brightest value is below it shows nothing
_SLACK = 0.1  # of a normal's length: 8 bits leave 0.01
_FEW = 0.01  # share of pixels that may be off: an image that was resized mixes some


def refuse(path: Path | str, fault: str | None) -> None:
    """BrokenFileError that names the file, where a rule found a fault."""
    if fault is not None:
        raise BrokenFileError(f"{path}: {fault}; get it again or convert it (docs/data.md)")


def colour_fault(values: NDArray[Any]) -> str | None:
    """What is wrong with an image of real numbers: colours lie in 0..1."""
    low, high = float(values.min()), float(values.max())
    if np.isnan(low):
        return "values that are not numbers, expected 0 to 1"
    if low >= -1e-3 and high <= 1 + 1e-3:
        dark = f"values of {low:g} to {high:g}, which is black, expected 0 to 1; divided by 255 twice?"
        return dark if high < _BLACK else None
    guess = "normalised by mean and deviation?" if low < 0 else "divide by 255?"
    return f"values of {low:g} to {high:g}, expected 0 to 1; {guess}"


def depth_fault(metres: NDArray[Any], farthest: tuple[float, float] = NYUV2_FARTHEST) -> str | None:
    """What is wrong with a depth in metres (H, W), 0 or not a number where it has a hole.

    farthest: between which the farthest point of a frame lies.
    """
    known = metres[np.isfinite(metres) & (metres != 0)]
    if not known.size:
        return "no depth in it, every pixel is a hole"
    if known.min() < 0:
        return f"depth of {known.min():g} m, expected none below 0"
    low, high = farthest
    if known.max() > high or known.max() < low:
        return f"depth up to {known.max():g} m, expected a farthest point at {low:g} to {high:g} m; in other units?"
    return None


def normal_fault(normals: NDArray[Any]) -> str | None:
    """What is wrong with normals (H, W, 3); a pixel without a normal has length 0.

    Shorter than 1 they may be on edges, where resizing has mixed some, longer nowhere.
    """
    vectors = normals.astype(np.float64)
    lengths = _lengths(vectors)
    if not np.isfinite(lengths).all():
        return "normals that are not numbers"
    there = lengths > _SLACK
    known = lengths[there]
    if not known.size:
        return None
    off = np.abs(known - 1) > _SLACK
    if vectors[there].min() >= 0 and (np.abs(_lengths(2 * vectors[there] - 1) - 1) > _SLACK).mean() < off.mean():
        return "normals of components 0 to 1 only, expected -1 to 1; stored as (n + 1) / 2?"
    if (known > 1 + _SLACK).mean() > _FEW or off.mean() > 0.5:
        return (
            f"normals of lengths {known.min():.2f} to {known.max():.2f}, {off.mean():.0%} of them not of unit length; "
            "expected -1 to 1 and length 1"
        )
    return None


def agreement_fault(cosine: float) -> str | None:
    """What is wrong with the normals of a frame, by their mean cosine with those that its depth has."""
    if cosine >= AGREEMENT:
        return None
    return f"normals that are not those of the depth (mean cosine {cosine:.2f}, expected {AGREEMENT} or more)"


def class_fault(classes: NDArray[Any], low: int, high: int) -> str | None:
    """What is wrong with class numbers (H, W), which are whole numbers in low..high."""
    if not classes.size or (classes.min() >= low and classes.max() <= high and not np.any(classes % 1)):
        return None
    outside = next((value for value in (classes.min(), classes.max()) if not low <= value <= high), None)
    found = f"{outside:g}" if outside is not None else f"{classes[classes % 1 != 0].flat[0]:g}"
    return f"class {found}, expected {low}..{high}"


def size_faults(pixels: Mapping[str, NDArray[Any]], image: str) -> dict[str, str]:
    """The kinds whose size is not that of their image. pixels: (H, W, ...) of each kind; `image` is that of the
    image."""
    if image not in pixels:
        return {}
    height, width = pixels[image].shape[:2]
    return {
        kind: f"{array.shape[1]}x{array.shape[0]} pixels, its image has {width}x{height}"
        for kind, array in pixels.items()
        if array.shape[:2] != (height, width)
    }


def _lengths(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.sqrt((vectors**2).sum(axis=-1))
    return found
