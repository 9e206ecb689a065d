"""From a stratified sample of measured jobs to all jobs of a study: a total, and how sure it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ERRORS = 2.0  # standard errors from the total to either end of its range


@dataclass(frozen=True)
class Total:
    """Seconds of all jobs. low, high: `ERRORS` standard errors off, from the spread within strata; None where no
    stratum has two measurements. guessed: jobs of strata without any, each taken as long as a job of another."""

    seconds: float
    low: float | None
    high: float | None
    measured: int
    jobs: int
    guessed: int

    def __add__(self, other: Total) -> Total:
        """Of two kinds of jobs; their errors are taken as independent."""
        known = self.high is not None and other.high is not None
        error = math.hypot((self.high or 0) - self.seconds, (other.high or 0) - other.seconds) if known else None
        return _total(
            self.seconds + other.seconds,
            error,
            (self.measured + other.measured, self.jobs + other.jobs, self.guessed + other.guessed),
        )


def extrapolate(sizes: Mapping[str, int], measured: Mapping[str, Sequence[float]]) -> Total:
    """The total over strata of `sizes` jobs, from seconds of some jobs of each stratum.

    A stratum counts its number times the mean of its measurements. The variance of that is the one of a sample without
    replacement, n^2 (1 - m / n) s^2 / m, s relative to the mean being the stratum's own, or the mean of the others'
    where it has one measurement only. A stratum without any takes the largest mean of those with the same second word
    (the encoder), or of all. Raises ValueError where nothing was measured.
    """
    means = {name: statistics.fmean(found) for name, found in measured.items() if found}
    if not means:
        raise ValueError("no job was measured: there is nothing to extrapolate from")
    spreads = {name: _spread(measured[name]) for name in means if len(measured[name]) > 1 and name in sizes}
    usual = math.sqrt(statistics.fmean(value**2 for value in spreads.values())) if spreads else None
    total, variance, guessed = 0.0, 0.0, 0
    for name, size in sizes.items():
        mean, count = means.get(name), len(measured.get(name, ()))
        if mean is None:
            mean, count, guessed = _like(name, means), 1, guessed + size
        total += size * mean
        spread = spreads.get(name, usual)
        if spread is not None:
            variance += size**2 * (1 - min(1.0, count / size)) * (spread * mean) ** 2 / count
    error = None if usual is None else ERRORS * math.sqrt(variance)
    counts = sum(len(measured.get(name, ())) for name in sizes), sum(sizes.values()), guessed
    return _total(total, error, counts)


def _total(seconds: float, error: float | None, counts: tuple[int, int, int]) -> Total:
    low, high = (None, None) if error is None else (max(0.0, seconds - error), seconds + error)
    return Total(seconds, low, high, *counts)


def _spread(values: Sequence[float]) -> float:
    """Standard deviation relative to the mean."""
    return statistics.stdev(values) / statistics.fmean(values)


def _like(name: str, means: Mapping[str, float]) -> float:
    encoder = name.split()[1:2]
    same = [mean for other, mean in means.items() if other.split()[1:2] == encoder]
    return max(same or means.values())
