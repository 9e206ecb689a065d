"""Losses per sample and per task: cross entropy for segmentation, L1 for the other ten, both masked.

Source: the released training code of Ghamizi et al. (2022). Its loss is the batch mean of what `pixels="all"` gives.
A task that is absent from a sample (`Batch.labelled`) has no loss there, and the sample counts in no mean of the task.
The cosine loss of normals is that of MTAN (Liu et al. 2019, arXiv 1803.10704) and its released code.
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
from headstrong.errors import ConfigError

Pixels = Literal["all", "valid"]
NORMALS = ("l1", "cosine")
SHORTEST = 1e-24  # product of two squared lengths below which a vector has no direction
# Taskonomy's classes: background, which is masked here as there, and 16 objects (semseg_prior_factor.npy of the
# released code of Ghamizi et al., whose first value, of background, is 0.542 and meets a mask of 0).
PUBLISHED_WEIGHTS = (
    0.0, 9.167, 7.331, 7.162, 8.723, 7.613, 8.237, 9.149, 8.822, 9.086, 8.914, 9.177, 9.035, 8.604, 9.170, 9.147, 9.137,
)  # fmt: skip
REBALANCING = 0.5  # l of `prior_class_weights`: half the class frequencies, half uniform


def per_sample_losses(
    outputs: dict[str, Tensor],
    batch: Batch,
    tasks: str,
    *,
    pixels: Pixels,
    class_weights: Tensor | None,
    normals: str = "l1",
) -> Tensor:
    """Losses float32 (B, T), differentiable, columns in the order of `tasks`.

    outputs: (B, C, H, W) by letter. A masked pixel adds nothing. "all" divides by all H W pixels (as released),
    "valid" by those the mask lets through. NaN, with a gradient of 0, where a task is absent: take means over samples
    with `batch_means`. class_weights: (classes,) on the outputs'
    device, factors on the cross entropy of each true class; None: ones. normals: "l1", or "cosine" for one minus the
    cosine of the angle to the truth, 0 to 2. Raises ConfigError for other `normals`.
    """
    if normals not in NORMALS:
        raise ConfigError(f"normals '{normals}' is unknown; choose {' or '.join(NORMALS)}")
    columns = []
    for letter in tasks:
        output, target, mask = outputs[letter].float(), batch.targets[letter], batch.masks[letter]
        if letter == "s":
            maps = cross_entropy(output, target)
            if class_weights is not None:
                maps = maps * class_weights[target]
        elif letter == "n" and normals == "cosine":
            # Rounding takes a cosine past 1, and what divides by a loss or takes its logarithm needs it at least 0.
            maps = (1 - cosine(output, target)).clamp(min=0)
        else:
            maps = (output - target).abs().mean(dim=1)
        columns.append(masked_mean(maps, mask[:, 0], pixels))
    return torch.where(batch.labelled(tasks), torch.stack(columns, dim=1), torch.nan)


def batch_means(losses: Tensor, labelled: Tensor) -> Tensor:
    """Means (T,) of losses (B, T) over the samples that have each task, labelled bool (B, T); 0 where none has it.

    Of losses (B,) of one task, its mean. Where all samples have all tasks, these are the bits of `losses.mean(dim=0)`.
    """
    count = labelled.sum(dim=0).clamp(min=1)
    return torch.where(labelled, losses, 0).mean(dim=0) * (len(losses) / count)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (B, H, W) in nats, >= 0, of logits (B, C, H, W) for labels long (B, H, W) in 0..C-1."""
    # As one long list of pixels: torch's loss over images has no deterministic kernel on CUDA, and is slower here.
    pixels = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    return F.cross_entropy(pixels, labels.flatten(), reduction="none").view(labels.shape)


def cosine(predicted: Tensor, true: Tensor) -> Tensor:
    """Cosines (B, H, W) of the angles between vectors (B, C, H, W) of any length.

    0, with a gradient of 0, where one of two has length 0; NaN where one has a NaN.
    """
    products = (predicted * true).sum(dim=1)
    squares = (predicted * predicted).sum(dim=1) * (true * true).sum(dim=1)
    # A square root has no gradient at 0: such pixels are taken out before it, and give 0.
    nowhere = squares <= SHORTEST
    return torch.where(nowhere, 0, products / torch.where(nowhere, 1, squares).sqrt())


def masked_mean(maps: Tensor, mask: Tensor, pixels: Pixels) -> Tensor:
    """Mean (B,) of maps (B, H, W) where mask bool (B, H, W) is True; denominators as in `per_sample_losses`."""
    # A product with the mask would let a NaN of a masked pixel through.
    total = torch.where(mask, maps, 0).sum(dim=(1, 2))
    if pixels == "all":
        return total / mask[0].numel()
    return total / mask.sum(dim=(1, 2)).clamp(min=1)


def published_class_weights(dataset: str, classes: int) -> Tensor:
    """Class weights float32 (17,) as published for Taskonomy; ConfigError for another data set or number of classes."""
    if dataset != "taskonomy" or classes != len(PUBLISHED_WEIGHTS):
        raise ConfigError(
            f"class_weights 'published': those of taskonomy's {len(PUBLISHED_WEIGHTS)} classes; the data are "
            f"{dataset}, {classes} classes: choose prior or uniform"
        )
    return torch.tensor(PUBLISHED_WEIGHTS, dtype=torch.float32)


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
