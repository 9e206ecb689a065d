"""The constant predictor of a training split: what a dense network should do better than, whatever is done to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstrong.data.cache import LEVELS, SplitFile, class_frequencies, from_codes
from headstrong.data.curvature import read_as_grey
from headstrong.data.depth import read_depth
from headstrong.data.statistics import target_mean

RAREST = 1e-7  # share of a class that never comes: its logit stays a number


def constant_outputs(
    path: Path, letters: Sequence[str], *, depth: str = "encoded", curvature: str = "decoded"
) -> dict[str, NDArray[np.float32]]:
    """Outputs float32 (C,) of one pixel by letter, to be repeated over every pixel of every image.

    s: logits, the logarithms of the classes' shares of the labelled pixels, so that the majority class is predicted.
    d and D: the median depth over the pixels with one, of an even number the lower of the middle two; encoded, or in
    metres with `depth` "metres". n: the direction of the mean normal, of length 1. Others: the mean target, with
    `curvature` as a network of p sees it. Raises MissingDataError or BrokenFileError for a split that cannot be read.
    """
    shares = np.maximum(class_frequencies(path), RAREST) if "s" in letters else None
    found: dict[str, NDArray[np.float32]] = {}
    with SplitFile(path) as split:
        for letter in letters:
            if shares is not None and letter == "s":
                value = np.log(shares)
            elif letter in ("d", "D"):
                value = read_depth(median_depth(split, letter), depth)
            else:
                value = target_mean(split, letter, "valid")
                if letter == "n":
                    value = value / max(float(np.linalg.norm(value)), np.finfo(np.float64).tiny)
                elif letter == "p" and curvature == "grey":
                    value = np.array(read_as_grey(*value))
            found[letter] = np.asarray(value, dtype=np.float32)
    return found


def median_depth(split: SplitFile, letter: str) -> NDArray[np.float32]:
    """The median (1,) of an encoded depth over the pixels that have one: exact, and never all of them in memory.

    The encoding grows with the depth, so this is the encoded median of the metres. 0 where no pixel has a depth.
    """
    counts = np.zeros(LEVELS + 1, dtype=np.int64)
    for block in split.blocks():
        rows = np.asarray(block)
        codes = split.read_codes(letter, rows)[:, 0]
        known = split.read_valid(rows) & split.read_present(letter, rows)[:, None, None]
        counts += np.bincount(codes[known], minlength=LEVELS + 1)
    middle = (counts.sum() + 1) // 2
    code = np.searchsorted(np.cumsum(counts), middle)
    return from_codes(np.array([code], dtype=np.uint16), *split.bounds(letter))
