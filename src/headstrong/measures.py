"""Performance measures per sample and per task, in the units in which the field reports a task.

Surface normals: the angle to the truth. Depth: metres. Others: the mean absolute difference. Segmentation has none
here: mIoU and pixel accuracy follow from its confusion matrix (`headstrong.confusion`). The nine measures of normals,
depth and segmentation on NYUv2 are those of Eigen and Fergus (2015), "Predicting Depth, Surface Normals and Semantic
Labels with a Common Multi-Scale Convolutional Architecture", sections 4 and 5.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from headstrong.data import batches
from headstrong.data.batches import Batch

Measures = dict[str, Tensor]

ANGLES = (11.25, 22.5, 30.0)  # degrees
RATIO = 1.25
TINY = 1e-12  # a shorter vector has no direction
NEAREST, FARTHEST = 0.0, 1.0  # encoded; 0 and 128 metres


@torch.no_grad()
def per_sample_measures(
    outputs: dict[str, Tensor], batch: Batch, tasks: str, *, pixels: Literal["all", "valid"], depth: str = "encoded"
) -> dict[str, Measures]:
    """Measures float32 (B,) by letter and name; an empty dictionary for `s`.

    outputs: (B, C, H, W) by letter, in the units of the targets. pixels: "valid" leaves masked pixels out, "all" counts
    them, as in `per_sample_errors`. depth: whether outputs and targets of d and D are "encoded" or in "metres", in
    which a prediction below 0 counts as it is. NaN where no pixel of a sample counts.

    n: angle_mean, angle_median (degrees), within_11.25, within_22.5, within_30 (shares). d and D: absolute (metres),
    relative, within_1.25, within_1.25^2, within_1.25^3 (shares). Others: absolute, in encoded units.
    """
    found: dict[str, Measures] = {}
    for letter in tasks:
        if letter == "s":
            found[letter] = {}
            continue
        output, target, counted = outputs[letter].float(), batch.targets[letter], batch.counted(letter, pixels)
        if letter == "n":
            found[letter] = normal_measures(angles(output, target), counted)
        elif letter in "dD":
            predicted, true = (output, target) if depth == "metres" else (metres(output), metres(target))
            found[letter] = depth_measures(predicted[:, 0], true[:, 0], counted)
        else:
            found[letter] = {"absolute": _mean((output - target).abs().mean(dim=1), counted)}
    return found


def angles(predicted: Tensor, true: Tensor) -> Tensor:
    """Angles (B, H, W) in degrees between vectors (B, 3, H, W) of any length; 90 where one of two has length 0."""
    predicted, true = (vectors / _length(vectors).clamp(min=TINY)[:, None] for vectors in (predicted, true))
    # The arc cosine of float32 cannot see angles below 0.02 degrees; this form (Kahan) can.
    return torch.atan2(_length(predicted - true), _length(predicted + true)) * (2 * 180 / math.pi)


def _length(vectors: Tensor) -> Tensor:
    # Channel by channel: on a CPU twenty times as fast as torch's norm over channels.
    x, y, z = vectors.unbind(dim=1)
    return (x * x + y * y + z * z).sqrt()


def normal_measures(angle: Tensor, counted: Tensor) -> Measures:
    """Mean, median and shares (B,) of angles (B, H, W) in degrees, over the pixels counted bool (B, H, W).

    The median of an even number of angles is the lower of the middle two. within_t: share of angles <= t.
    """
    shares = {f"within_{limit:g}": _mean((angle <= limit).float(), counted) for limit in ANGLES}
    return {"angle_mean": _mean(angle, counted), "angle_median": _median(angle, counted), **shares}


def metres(encoded: Tensor) -> Tensor:
    """Metres from encoded depths, any shape: the inverse of `tasks.encode`, as `tasks.decode_depth` is in numpy.

    A network may leave the range of the encoding: below 0 counts as 0 metres, above 1 as 128 metres.
    """
    return batches.metres(encoded.clamp(NEAREST, FARTHEST))


def depth_measures(predicted: Tensor, true: Tensor, counted: Tensor) -> Measures:
    """Errors and shares (B,) of depths (B, H, W) in metres, over the pixels counted bool (B, H, W).

    absolute: mean of |p - g|, metres. relative: mean of |p - g| / g, over the pixels with g > 0: a hole (g = 0) has no
    relative error. within_t: share with max(p / g, g / p) <= t; a depth of 0 or less, predicted or true, is outside.
    """
    off = (predicted - true).abs()
    known = true > 0
    relative = off / torch.where(known, true, 1)
    positive = known & (predicted > 0)
    found = {"absolute": _mean(off, counted), "relative": _mean(relative, counted & known)}
    for power, name in ((1, "within_1.25"), (2, "within_1.25^2"), (3, "within_1.25^3")):
        limit = RATIO**power
        # The ratios, multiplied out: nothing is divided.
        inside = positive & (predicted <= limit * true) & (true <= limit * predicted)
        found[name] = _mean(inside.float(), counted)
    return found


def _mean(maps: Tensor, counted: Tensor) -> Tensor:
    # Nothing to count is 0 / 0: not a number, rather than a measure of zero.
    return torch.where(counted, maps, 0).sum(dim=(1, 2)) / counted.sum(dim=(1, 2))


def _median(maps: Tensor, counted: Tensor) -> Tensor:
    # Not torch.nanmedian, which has no deterministic kernel on CUDA: sorted, pixels that do not count come last.
    ordered = torch.where(counted, maps, torch.inf).flatten(1).sort(dim=1).values
    count = counted.flatten(1).sum(dim=1)
    middle = ((count - 1) // 2).clamp(min=0)
    return torch.where(count > 0, ordered.gather(1, middle[:, None])[:, 0], torch.nan)
