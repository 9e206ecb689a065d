"""Losses per sample and per task: cross entropy for segmentation, L1 for the other ten, both masked.

Source: the released training code of Ghamizi et al. (2022). Its loss is the batch mean of what `pixels="all"` gives.
Only operations with deterministic kernels on every device are used.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from headstrong.data.batches import Batch

Pixels = Literal["all", "valid"]
REBALANCING = 0.5  # l of `prior_class_weights`: half the class frequencies, half uniform


def per_sample_losses(
    outputs: dict[str, Tensor], batch: Batch, tasks: str, *, pixels: Pixels, class_weights: Tensor | None
) -> Tensor:
    """Losses float32 (B, T), differentiable, columns in the order of `tasks`.

    outputs: (B, C, H, W) by letter. A masked pixel adds nothing. "all" divides by all H W pixels (as released),
    "valid" by those the mask lets through, and gives 0 where there is none. class_weights: (classes,) on the outputs'
    device, factors on the cross entropy of each true class; None: ones.
    """
    columns = []
    for letter in tasks:
        output, target, mask = outputs[letter].float(), batch.targets[letter], batch.masks[letter]
        if letter == "s":
            maps = cross_entropy(output, target)
            if class_weights is not None:
                maps = maps * class_weights[target]
        else:
            maps = (output - target).abs().mean(dim=1)
        columns.append(masked_mean(maps, mask[:, 0], pixels))
    return torch.stack(columns, dim=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (B, H, W) in nats of logits (B, C, H, W) for labels long (B, H, W)."""
    # As one long list of pixels: torch's loss over images has no deterministic kernel on CUDA, and is slower here.
    pixels = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    return F.cross_entropy(pixels, labels.flatten(), reduction="none").view(labels.shape)


def masked_mean(maps: Tensor, mask: Tensor, pixels: Pixels) -> Tensor:
    """Mean (B,) of maps (B, H, W) where mask bool (B, H, W) is True; denominators as in `per_sample_losses`."""
    # A product with the mask would let a NaN of a masked pixel through.
    total = torch.where(mask, maps, 0).sum(dim=(1, 2))
    if pixels == "all":
        return total / mask[0].numel()
    return total / mask.sum(dim=(1, 2)).clamp(min=1)


def prior_class_weights(frequencies: NDArray[np.float64]) -> Tensor:
    """Class weights float32 (C,) that rebalance classes: rare ones count more; class 0 (unlabelled) gets 0.

    frequencies: (C,) share of each class among the labelled pixels, [0] = 0. w_c is proportional to
    1 / ((1 - l) p_c + l / K), K the number of labelled classes, l = 1/2, with sum_c p_c w_c = 1: the rule of Zhang et
    al. (2016), "Colorful Image Colorization", eq. 4, which the weights published with Taskonomy follow.
    """
    shares = np.asarray(frequencies, dtype=np.float64)[1:]
    weights = 1 / ((1 - REBALANCING) * shares + REBALANCING / len(shares))
    expected = float(shares @ weights)
    if expected > 0:  # a split without any label has no expectation to normalise, and no loss to weigh
        weights /= expected
    return torch.tensor([0.0, *weights], dtype=torch.float32)
