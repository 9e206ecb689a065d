"""Effects with 95 % intervals from rows that carry a number, its standard error and a group.

A frame of rows has value; error, the standard error over images (0 where there is none); group, what was drawn as one:
a main task, a model, a trial; model, the trained network; n, the number of images, where it is known; moves
(draws,), how far each resample of the images moves the value, where per-sample numbers tell it.

Two things are uncertain. Groups are resampled whole: a seeded bootstrap, whose deviations are stretched by
sqrt(k / (k - 1)) for k groups, as the variance of few has it. And the rows of a study are measured on the same images:
their errors may go together. Where moves are known, each draw moves every row as its images do; elsewhere it moves all
rows by the same number of standard errors, which is the widest that the error of a mean can be.

Rows without a value do not count; where none is left, every function that gives evidence raises LackingError.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from headstrong.analysis.claims_rules import Evidence, LackingError
from headstrong.analysis.stats import Array, resamples

_PERCENTILES = [2.5, 97.5]


def mean_of(
    rows: pd.DataFrame, *, seed: int, draws: int, scale: Callable[[float], float] = float, units: int | None = None
) -> Evidence:
    """Mean of the values of the rows. scale: a rising function to the claim's unit, such as percent from logarithms.

    units: what the claim counts, None: the rows.
    """
    rows = _counted(rows)
    values, errors = rows["value"].to_numpy(float), _errors(rows)
    codes, groups = _codes(rows)
    weights = resamples(groups, draws, seed)
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes).astype(float)
    drawn = (weights @ sums) / (weights @ sizes)
    moves = _moves(rows)
    by_images = _normal(draws, seed) * errors.mean() if moves is None else moves.mean(axis=0)
    moved = drawn[0] + _stretched(drawn[1:] - drawn[0], groups) + by_images
    low, high = _interval(moved, groups, by_images)
    return _evidence(rows, scale(float(drawn[0])), scale(low), scale(high), units)


def share_of(rows: pd.DataFrame, *, seed: int, draws: int) -> Evidence:
    """Share of the rows whose value is above 0, in percent.

    The interval goes from the lower end for the rows clearly above 0 (by their own 95 % interval) to the upper end for
    those not clearly below. Each end is the outer one of Wilson's interval and the bootstrap over groups, which has no
    width where all rows agree.
    """
    rows = _counted(rows)
    values = rows["value"].to_numpy(float)
    least, most = _ends(rows, 0.025)
    sure, possible = least > 0, most > 0
    low = min(_wilson(sure)[0], _resampled_share(rows, sure, seed, draws)[0])
    high = max(_wilson(possible)[1], _resampled_share(rows, possible, seed, draws)[1])
    return _evidence(rows, 100 * float((values > 0).mean()), 100 * max(0.0, low), 100 * min(1.0, high), None)


def some_in_every(rows: pd.DataFrame, by: str) -> Evidence:
    """Share in percent of the values of `by` that have a row above 0.

    Low counts those with a row clearly above 0, with Bonferroni's correction for how many there are to choose from,
    high those with a row not clearly below. A claim about these very tasks: nothing is resampled.
    """
    rows = _counted(rows)
    found = []
    for _, part in rows.groupby(by, sort=False):
        least, most = _ends(part, 0.025 / len(part))
        found.append(((part["value"] > 0).any(), (least > 0).any(), (most > 0).any()))
    effect, low, high = (100 * float(share) for share in np.mean(found, axis=0))
    return _evidence(rows, effect, low, high, len(found))


def rank_correlation(rows: pd.DataFrame, *, seed: int, draws: int) -> Evidence:
    """Spearman's correlation of columns value and other, groups resampled. Errors over images are left out.

    One group has no interval (NaN), and neither have numbers that are all equal.
    """
    rows = _counted(rows)
    x, y = rows["value"].to_numpy(float), rows["other"].to_numpy(float)
    codes, groups = _codes(rows)
    members = [np.flatnonzero(codes == code) for code in range(groups)]
    chosen = np.random.default_rng(seed).integers(groups, size=(draws, groups))
    whole = _spearman(x, y)
    drawn = np.array([_spearman(x[at], y[at]) for at in (np.concatenate([members[c] for c in row]) for row in chosen)])
    drawn = drawn[~np.isnan(drawn)]  # in a draw of equal numbers there is no order
    low, high = np.percentile(drawn, _PERCENTILES) if groups > 1 and len(drawn) else (math.nan, math.nan)
    return _evidence(rows, whole, float(low), float(high), None)


def slope_within(rows: pd.DataFrame, *, seed: int, draws: int, units: int) -> Evidence:
    """Slope of value over column x, each stratum with a mean of its own (column stratum); models (group) resampled.

    Raises LackingError where x does not vary within any stratum.
    """
    rows = _counted(rows)
    codes, groups = _codes(rows)
    strata, count = _codes(rows, "stratum")
    x, y, ones = (np.zeros((groups, count)) for _ in range(3))
    x[codes, strata], y[codes, strata], ones[codes, strata] = rows["x"], rows["value"], 1
    weights = resamples(groups, draws, seed) * groups
    size = np.maximum(weights @ ones, 1e-300)
    sx, sy = weights @ x, weights @ y
    spread = (weights @ (x * x) - sx * sx / size).sum(axis=1)
    both = (weights @ (x * y) - sx * sy / size).sum(axis=1)
    if spread[0] <= 1e-9:
        raise LackingError("no two models that differ in what they share")
    drawn = both[1:][spread[1:] > 1e-9] / spread[1:][spread[1:] > 1e-9]
    slope = both[0] / spread[0]
    centred = np.abs(x - sx[0] / size[0]) * ones
    image = float((centred[codes, strata] * _errors(rows)).sum() / spread[0])
    moved = slope + _stretched(drawn - slope, groups) + _normal(drawn.size, seed) * image
    low, high = np.percentile(moved, _PERCENTILES)
    return _evidence(rows, float(slope), float(low), float(high), units)


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.loc[np.isfinite(rows["value"].to_numpy(float))]
    if rows.empty:
        raise LackingError("no number to compare")
    return rows


def _errors(rows: pd.DataFrame) -> Array:
    return rows["error"].fillna(0.0).to_numpy(float) if "error" in rows else np.zeros(len(rows))


def _moves(rows: pd.DataFrame) -> Array | None:
    """(rows, draws), None where any row has none."""
    if "moves" not in rows or rows["moves"].isna().any():
        return None
    return np.stack(rows["moves"].to_list())


def _ends(rows: pd.DataFrame, tail: float) -> tuple[Array, Array]:
    """Ends of every row's own interval over images that leaves out `tail` on either side, by the normal law,
    as the resamples are too few for the small tails of many choices."""
    values, moves = rows["value"].to_numpy(float), _moves(rows)
    errors = _errors(rows) if moves is None else moves.std(axis=1, ddof=1)
    half = float(scipy_stats.norm.ppf(1 - tail)) * errors
    return values - half, values + half


def turned(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with value and moves of the other sign."""
    moves = [-one for one in rows["moves"]] if _moves(rows) is not None else None
    return rows.assign(value=-rows["value"], moves=moves)


def _codes(rows: pd.DataFrame, column: str = "group") -> tuple[np.ndarray, int]:
    codes, names = pd.factorize(rows[column])
    return codes, len(names)


def _stretched(deviations: Array, groups: int) -> Array:
    return deviations * math.sqrt(groups / (groups - 1)) if groups > 1 else deviations


def _normal(draws: int, seed: int) -> Array:
    """Standard normal numbers, not those of the resamples."""
    return np.random.default_rng([seed, 1]).standard_normal(draws)


def _interval(drawn: Array, groups: int, by_images: Array) -> tuple[float, float]:
    if groups < 2 and not by_images.any():
        return math.nan, math.nan
    low, high = np.percentile(drawn, _PERCENTILES)
    return float(low), float(high)


def _wilson(true: np.ndarray) -> tuple[float, float]:
    found = scipy_stats.binomtest(int(true.sum()), true.size).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _resampled_share(rows: pd.DataFrame, true: np.ndarray, seed: int, draws: int) -> tuple[float, float]:
    codes, groups = _codes(rows)
    weights = resamples(groups, draws, seed)
    drawn = (weights @ np.bincount(codes, weights=true.astype(float))) / (weights @ np.bincount(codes).astype(float))
    low, high = np.percentile(drawn[0] + _stretched(drawn[1:] - drawn[0], groups), _PERCENTILES)
    return float(low), float(high)


def _spearman(x: Array, y: Array) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(scipy_stats.rankdata(x), scipy_stats.rankdata(y))[0, 1])


def _evidence(rows: pd.DataFrame, effect: float, low: float, high: float, units: int | None) -> Evidence:
    return Evidence(
        effect,
        low,
        high,
        len(rows) if units is None else units,
        int(rows["model"].nunique()),
        int(rows["n"].min()) if "n" in rows else None,
    )
