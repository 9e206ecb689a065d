"""Statistics of a split: what constant predictors know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstrong.data.cache import SplitFile
from headstrong.data.depth import LETTERS, read_depth
from headstrong.tasks import TASKS

Pixels = Literal["all", "valid"]
BATCH = 256


def batches(count: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers 0..count-1 in portions that fit in memory."""
    return (np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def counted(split: SplitFile, letter: str, indices: NDArray[np.int64], pixels: str) -> NDArray[np.bool_]:
    """Bool (B, 1, H, W): the pixels that count for a regression task ("all": every one; "valid": where its mask is
    true); none of an image without a label for it."""
    present = split.read_present(letter, indices)[:, None, None, None]
    if pixels == "all" or TASKS[letter].mask == "none":
        return np.broadcast_to(present, (indices.size, 1, *split.size))
    return split.read_valid(indices)[:, None] & present


def read_target(split: SplitFile, letter: str, indices: NDArray[np.int64], depth: str) -> NDArray[np.float64]:
    """Regression targets (B, C, H, W); those of d and D encoded, or in metres."""
    target = split.read_target(letter, indices).astype(np.float64)
    return np.asarray(read_depth(target, depth), dtype=np.float64) if letter in LETTERS else target


def target_mean(split: SplitFile, letter: str, pixels: str, depth: str = "encoded") -> NDArray[np.float64]:
    """Mean (C,) of a regression target over the pixels that count; those of d and D encoded, or in metres.

    0 where none counts.
    """
    total, count = np.zeros(TASKS[letter].channels or 1), 0
    for indices in batches(split.count):
        mask = counted(split, letter, indices, pixels)
        target = read_target(split, letter, indices, depth)
        total += np.sum(target, axis=(0, 2, 3), where=mask)
        count += int(mask.sum())
    return total / max(count, 1)
