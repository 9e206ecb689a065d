"""Means with standard errors, ratios, and correlations with intervals. Arrays are float64 (n,) unless said so."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

FEWEST = 4  # cells below which a correlation says nothing: its interval would need n > 3
BOOTSTRAP_DRAWS = 2000
ROUNDING = 1e-12  # differences below this share of the numbers they come from are rounding
NORMAL = 1.96  # standard errors on either side of a mean: 95 %
NOTHING = 1e-9  # of damages in percent and the like: less is rounding
EXACT_UP_TO = 7  # 7! = 5040 orders: still quick to enumerate for an exact p-value


class Estimate(NamedTuple):
    """A value, its standard error (NaN when unknown) and the number of samples behind it."""

    value: float
    error: float
    n: int


class Correlation(NamedTuple):
    """A correlation with its 95 % interval and two-sided p-value; NaN and a note where it cannot be computed."""

    value: float
    low: float
    high: float
    p_value: float
    n: int
    note: str = ""


class Interval(NamedTuple):
    """A mean with its 95 % interval, and the number of samples behind it; NaN where it cannot be computed."""

    value: float
    low: float
    high: float
    n: int


class Gain(NamedTuple):
    """A mean difference of paired samples with its 95 % interval and two-sided p-value; NaN where there is none."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


def mean(values: ArrayLike) -> Estimate:
    """Mean of independent samples and its standard error (sample deviation / sqrt n); NaN of none, no error of one."""
    x = np.asarray(values, dtype=np.float64)
    n = x.size
    if n == 0:
        return Estimate(math.nan, math.nan, 0)
    return Estimate(float(x.mean()), _standard_error(x), n)


def above_zero(found: Estimate) -> bool:
    """Whether a value is clearly above zero: its 95 % interval is. False where the error is not known."""
    return found.value - NORMAL * found.error > NOTHING


def ratio(above: float, below: Estimate) -> float:
    """above / below; NaN unless what it is divided by is clearly above zero, as a ratio to noise says nothing."""
    return above / below.value if above_zero(below) else math.nan


def known(values: Array) -> Array:
    """The values (n,) of samples that have one; NaN stands for none."""
    return values[~np.isnan(values)]


def _standard_error(x: Array) -> float:
    return float(x.std(ddof=1) / math.sqrt(x.size)) if x.size > 1 else math.nan


def mean_interval(values: ArrayLike, least: float = -math.inf, most: float = math.inf) -> Interval:
    """Mean of independent samples with its 95 % interval by Student's t with n - 1 degrees of freedom.

    One sample has no interval (NaN); samples that do not vary have one of no width. A NaN among them makes all NaN.
    least, most: bounds of the quantity, where its interval ends.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(x.mean())
    half = _half_width(x, float(np.abs(x).max()))
    return Interval(value, max(value - half, least), min(value + half, most), x.size)


def paired_gain(before: ArrayLike, after: ArrayLike, most: float = math.inf) -> Gain:
    """Mean of after - before, paired, with the 95 % interval and the two-sided p-value of the paired t-test.

    One pair has neither interval nor p-value (NaN). Differences that do not vary have an interval of no width, and a
    p-value of 0, or NaN where all are 0. A NaN among them makes all NaN. most: the largest difference there can be, of
    either sign, where the interval ends.
    """
    x, y = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    differences = y - x
    if differences.size == 0:
        return Gain(math.nan, math.nan, math.nan, math.nan, 0)
    size = float(max(np.abs(x).max(), np.abs(y).max()))
    value, half = float(differences.mean()), _half_width(differences, size)
    if half > 0:
        p_value = float(2 * stats.t.sf(abs(value) / _standard_error(differences), differences.size - 1))
    else:
        p_value = 0.0 if half == 0 and abs(value) > ROUNDING * size else math.nan
    return Gain(value, max(value - half, -most), min(value + half, most), p_value, differences.size)


def _half_width(x: Array, size: float) -> float:
    """Half of the 95 % interval of a mean; 0 where samples differ by no more than numbers of this size are rounded."""
    if x.size > 1 and np.ptp(x) <= ROUNDING * size:
        return 0.0
    return float(stats.t.ppf(0.975, x.size - 1)) * _standard_error(x) if x.size > 1 else math.nan


def relative_increase_of_means(before: ArrayLike, after: ArrayLike) -> Estimate:
    """(mean after - mean before) / mean before, paired samples, standard error by the delta method.

    With R the ratio of means, the linearised error of R is the mean of (after - R * before) / mean before.
    NaN when the mean before is 0.
    """
    x, y = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if x.size == 0 or x.mean() == 0:
        return Estimate(math.nan, math.nan, x.size)
    ratio = y.mean() / x.mean()
    return Estimate(float(ratio - 1), _standard_error((y - ratio * x) / x.mean()), x.size)


def mean_relative_increase(before: ArrayLike, after: ArrayLike) -> Estimate:
    """Mean over samples of (after - before) / before; samples with before = 0 have no ratio and do not count in n."""
    x, y = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    counted = x != 0
    return mean((y[counted] - x[counted]) / x[counted])


def absolute_mean(values: ArrayLike) -> Estimate:
    """|mean| and the standard error of the mean; NaN as in `mean`."""
    value, error, n = mean(values)
    return Estimate(abs(value), error, n)


def pearson(x: ArrayLike, y: ArrayLike, covariates: int = 0) -> Correlation:
    """Pearson's r, its 95 % interval by Fisher's z and the p-value of Student's t.

    `covariates` is the number of further parameters already fitted to both (a partial correlation): the degrees of
    freedom are n - 2 - covariates and the variance of z is 1 / (n - 3 - covariates).
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    note = _reason_against(a, b, FEWEST + covariates)
    if note:
        return Correlation(math.nan, math.nan, math.nan, math.nan, a.size, note)
    r = float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
    freedom = a.size - 2 - covariates
    low, high = fisher_interval(r, 1 / math.sqrt(freedom - 1))
    t = r * math.sqrt(freedom / (1 - r * r)) if abs(r) < 1 else math.inf
    return Correlation(r, low, high, float(2 * stats.t.sf(abs(t), freedom)), a.size)


def pearson_bootstrap(x: ArrayLike, y: ArrayLike, seed: int, draws: int = BOOTSTRAP_DRAWS) -> Correlation:
    """Pearson's r with a percentile interval over `draws` resamples of the pairs; the same seed, the same interval.

    A resample of one pair repeated has no correlation and is left out.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    note = _reason_against(a, b, FEWEST)
    if note:
        return Correlation(math.nan, math.nan, math.nan, math.nan, a.size, note)
    chosen = np.random.default_rng(seed).integers(a.size, size=(draws, a.size))
    u, v = a[chosen], b[chosen]
    u, v = u - u.mean(axis=1, keepdims=True), v - v.mean(axis=1, keepdims=True)
    scale = np.sqrt((u * u).sum(axis=1) * (v * v).sum(axis=1))
    drawn = (u * v).sum(axis=1)[scale > 0] / scale[scale > 0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Correlation(float(np.corrcoef(a, b)[0, 1]), float(low), float(high), math.nan, a.size)


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Spearman's rank correlation; exact permutation p-value for n <= 7, Student's t above.

    The interval is Fisher's z with the variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright (2000).
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    note = _reason_against(a, b, FEWEST)
    if note:
        return Correlation(math.nan, math.nan, math.nan, math.nan, a.size, note)
    ranks_a, ranks_b = stats.rankdata(a), stats.rankdata(b)
    r = float(np.clip(np.corrcoef(ranks_a, ranks_b)[0, 1], -1, 1))
    low, high = fisher_interval(r, math.sqrt((1 + r * r / 2) / (a.size - 3)))
    if a.size <= EXACT_UP_TO:
        p_value = _exact_p_value(ranks_a, ranks_b)
    else:
        p_value = float(stats.spearmanr(a, b).pvalue)
    return Correlation(r, low, high, p_value, a.size)


def _exact_p_value(ranks_a: Array, ranks_b: Array) -> float:
    """Share of all orders of the second ranks whose products are at least as far from independence."""
    orders = np.array(list(itertools.permutations(ranks_b)))
    expected = ranks_a.size * ranks_a.mean() * ranks_b.mean()
    distance = np.abs(orders @ ranks_a - expected)
    observed = abs(float(ranks_b @ ranks_a) - expected)
    return float(np.mean(distance >= observed - 1e-9))


def fisher_interval(r: float, deviation: float) -> tuple[float, float]:
    """95 % interval of a correlation whose Fisher transform atanh r has this standard deviation."""
    if abs(r) >= 1:
        return r, r
    half = stats.norm.ppf(0.975) * deviation
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def centre_within(values: ArrayLike, groups: ArrayLike) -> Array:
    """Values minus the mean of their group."""
    x, labels = np.asarray(values, dtype=np.float64), np.asarray(groups)
    return x - group_means(x, labels)


def log_centred(values: ArrayLike, groups: ArrayLike) -> Array:
    """Logarithms of positive values minus the mean logarithm of their group."""
    return centre_within(np.log(np.asarray(values, dtype=np.float64)), groups)


def group_means(values: ArrayLike, groups: ArrayLike) -> Array:
    """For every value (n,), the mean of its group (n,)."""
    x = np.asarray(values, dtype=np.float64)
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    return (np.bincount(inverse, weights=x) / np.bincount(inverse))[inverse]


def share_between(values: ArrayLike, groups: ArrayLike) -> float:
    """Share of the variance that lies between groups (eta squared); NaN for constant values."""
    x = np.asarray(values, dtype=np.float64)
    total = float(np.sum((x - x.mean()) ** 2)) if x.size else 0.0
    if total == 0:
        return math.nan
    return float(np.sum((group_means(x, groups) - x.mean()) ** 2)) / total


def _reason_against(a: Array, b: Array, fewest: int) -> str:
    if a.size < fewest:
        return f"{a.size} cells are too few, {fewest} are needed"
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return "a cell has no number"
    for side, values in (("proxy", a), ("target", b)):
        if np.ptp(values) <= 1e-12 * max(1e-300, float(np.abs(values).max())):
            return f"the {side} does not vary"
    return ""


def resamples(count: int, draws: int, seed: int) -> Array:
    """Weights (1 + draws, count), each row with mean 1: every sample once, then bootstrap resamples."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return np.vstack([np.ones(count), drawn])
