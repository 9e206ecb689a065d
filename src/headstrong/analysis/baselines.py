"""baselines.csv: what a predictor that never looks at the image would get, to judge clean errors against."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headstrong.analysis import stats
from headstrong.confusion import miou_from_confusion
from headstrong.data.cache import SplitFile
from headstrong.data.curvature import read_as_grey
from headstrong.data.statistics import batches, counted, read_target, target_mean
from headstrong.errors import ConfigError
from headstrong.tasks import in_order

COLUMNS = ("task", "predictor", "error", "n")
MEAN = "training mean"


def majority(convention: str, confusion: bool = False) -> str:
    """Name of the majority-class predictor's row: by mIoU convention, per sample or of the summed confusion matrix."""
    return f"majority class, {convention}, {'confusion' if confusion else 'per sample'}"


def build_table(
    train: Path,
    test: Path,
    tasks: str,
    *,
    pixels: str = "valid",
    samples: int | None = None,
    curvature: str = "decoded",
    depth: str = "encoded",
) -> pd.DataFrame:
    """Errors on the test split of constant predictions taken from the training split. Columns COLUMNS.

    Regression tasks: the training mean of each channel; error is the mean over samples of the squared error over the
    pixels that count ("valid": where the task's mask is true; "all") and channels, as evaluation takes it.
    Segmentation: the most frequent class of the training split; error is 100 - mIoU in percent, for both conventions
    ("labelled": most frequent labelled class; "all": unlabelled pixels are class 0), per sample and from the summed
    confusion matrix. samples: number of test images, those that an evaluation takes; None: all. curvature: "decoded",
    or "grey" for the targets of p as the released loader reads them. depth: whether d and D are "encoded" or in
    "metres". n is the number of samples that counted.
    Raises MissingDataError or BrokenFileError for a split that is absent or broken, ConfigError for other `pixels`.
    """
    if pixels not in ("valid", "all"):
        raise ConfigError(f"protocol.error_pixels: {pixels!r} is not known; allowed: valid, all")
    rows = []
    with SplitFile(train) as learnt, SplitFile(test, samples) as seen:
        for letter in in_order(tasks):
            if letter == "s":
                rows += _majority_rows(learnt, seen)
            else:
                grey = letter == "p" and curvature == "grey"
                constant = target_mean(learnt, letter, pixels, depth)
                errors = _errors_of(seen, letter, constant, pixels, grey, depth)
                known = errors[~np.isnan(errors)]
                rows.append((letter, MEAN, stats.mean(known).value, known.size))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _errors_of(
    split: SplitFile, letter: str, constant: NDArray[np.float64], pixels: str, grey: bool, depth: str
) -> NDArray[np.float64]:
    """Mean squared error (N,) of one constant per channel; NaN where no pixel counts."""
    found = []
    constant = np.array(read_as_grey(*constant)) if grey else constant
    for indices in batches(split.count):
        mask = counted(split, letter, indices, pixels)
        target = read_target(split, letter, indices, depth)
        if grey:
            target = np.stack(read_as_grey(target[:, 0], target[:, 1]), axis=1)
        squares = np.sum((target - constant[:, None, None]) ** 2, axis=(1, 2, 3), where=mask)
        number = mask.sum(axis=(1, 2, 3)) * constant.size
        found.append(np.divide(squares, number, out=np.full(indices.size, math.nan), where=number > 0))
    return np.concatenate(found) if found else np.zeros(0)


def _majority_rows(learnt: SplitFile, seen: SplitFile) -> list[tuple[str, str, float, int]]:
    classes, count = len(seen.classes), seen.count
    frequencies = sum(
        (_histograms(learnt, i, classes).sum(axis=0) for i in batches(learnt.count)), np.zeros(classes, int)
    )
    labels = np.concatenate([_histograms(seen, indices, classes) for indices in batches(count)])
    rows = []
    for convention in ("labelled", "all"):
        first = 1 if convention == "labelled" else 0
        predicted = first + int(np.argmax(frequencies[first:]))
        confusion = np.zeros((count, classes, classes), dtype=np.int64)
        confusion[:, :, predicted] = labels
        errors = 100 * (1 - miou_from_confusion(confusion, convention))
        known = errors[~np.isnan(errors)]
        whole = 100 * (1 - float(miou_from_confusion(confusion.sum(axis=0), convention)))
        rows.append(("s", majority(convention), stats.mean(known).value, known.size))
        rows.append(("s", majority(convention, confusion=True), whole, count))
    return rows


def _histograms(split: SplitFile, indices: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Pixel counts (B, classes) of each class in each sample; all 0 in one without labels."""
    labels = split.read_target("s", indices).reshape(indices.size, -1).astype(np.int64)
    shifted = labels + classes * np.arange(indices.size)[:, None]
    counts = np.bincount(shifted.ravel(), minlength=indices.size * classes).reshape(indices.size, classes)
    return counts * split.read_present("s", indices)[:, None]
