"""Errors per sample and per task: what tables and vulnerabilities are made of.

Segmentation: 100 - mIoU in percent. Other tasks: mean squared error, in the target's units squared: those of its
encoding, or square metres where depths are in metres. It is the mean over channels and pixels; the tables of Ghamizi et
al. (2022) have their sum, which for C channels at 256x256 is 65536 C times as large.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from headstrong.confusion import Convention, miou_from_confusion
from headstrong.data.batches import Batch


@torch.no_grad()
def per_sample_errors(
    outputs: dict[str, Tensor], batch: Batch, tasks: str, *, pixels: Literal["all", "valid"], miou: Convention
) -> tuple[Tensor, Tensor | None]:
    """Errors float32 (B, T), columns in the order of `tasks`, and confusion counts int64 (B, C, C) when `s` is asked.

    pixels: "valid" leaves masked pixels out of the squared error, "all" counts them. miou: see `miou_from_confusion`;
    it decides by itself about unlabelled pixels. NaN where an error is undefined: no pixel of the sample is valid,
    or it has no label for the task, which then counts nowhere.
    """
    columns, counts = [], None
    for letter in tasks:
        output, target = outputs[letter].float(), batch.targets[letter]
        if letter == "s":
            counts = batch_confusion(output, batch)
            share = torch.from_numpy(miou_from_confusion(counts.cpu().numpy(), miou))
            columns.append((100 * (1 - share)).float().to(output.device))
        else:
            squares = (output - target).square().mean(dim=1)
            counted = batch.counted(letter, pixels)
            # Nothing to count is 0 / 0: not a number, rather than an error of zero.
            columns.append(torch.where(counted, squares, 0).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)))
    return torch.stack(columns, dim=1), counts


def batch_confusion(logits: Tensor, batch: Batch) -> Tensor:
    """`confusion` (B, C, C) of a batch, logits (B, C, H, W); all 0 for an image without labels."""
    counts = confusion(logits, batch.targets["s"], logits.shape[1])
    return counts * ~batch.absent["s"][:, None, None] if "s" in batch.absent else counts


def confusion(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Pixel counts int64 (B, classes, classes), [true, predicted], over all pixels, the unlabelled (class 0) included.

    logits (B, C, H, W) with C <= classes; labels long (B, H, W) in 0..classes-1.
    """
    sample = torch.arange(len(labels), device=labels.device)[:, None, None]
    cell = (sample * classes + labels) * classes + logits.argmax(dim=1)
    counts = torch.bincount(cell.flatten(), minlength=len(labels) * classes * classes)
    return counts.view(len(labels), classes, classes)
