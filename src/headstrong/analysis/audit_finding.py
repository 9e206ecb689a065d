"""What one finding of the audit is, and the few words and tools that all of its modules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pandas as pd

YES, NO, OPEN = "yes", "no", "not decidable"
GHAMIZI, MTA, CAMRI = "Ghamizi et al. 2022", "Guo et al. 2020 (MTA)", "Nishiyama et al. 2022 (CAMRI)"
Load = Callable[[str], pd.DataFrame]  # `published.load`, or one that changes a cell
Cells = dict[tuple[str, str], float]  # (main, auxiliary): value; a single task is its own auxiliary


class Finding(NamedTuple):
    """One statement of a paper, in our words, beside what its printed numbers give; see `audit.COLUMNS`."""

    id: str
    paper: str
    table: str
    statement: str
    recomputed: str
    printed: str
    agrees: str
    how: str


def judged(holds: bool) -> str:
    """YES or NO."""
    return YES if holds else NO


def of(hits: Iterable[bool]) -> str:
    """How many of them are true: "15 of 20"."""
    listed = list(hits)
    return f"{sum(listed)} of {len(listed)}"


def percent(hits: Iterable[bool]) -> float:
    """Share that is true, in percent; ZeroDivisionError of nothing."""
    listed = list(hits)
    return 100 * sum(listed) / len(listed)


def said(load: Load, paper: str, name: str) -> float:
    """A number that a paper prints in its prose (published/statements.csv); IndexError for one that is not there."""
    frame = load("statements")
    return float(frame.loc[frame["paper"].eq(paper) & frame["name"].eq(name), "value"].iloc[0])


def cells(frame: pd.DataFrame, **where: str) -> Cells:
    """The cells of a published table whose columns have these values, in the order of the print."""
    for column, value in where.items():
        frame = frame.loc[frame[column].eq(value)]
    return {(str(row.main), str(row.auxiliary)): float(row.value) for row in frame.itertuples()}


def pairs(found: Cells) -> Cells:
    """Without the single tasks."""
    return {(main, auxiliary): value for (main, auxiliary), value in found.items() if main != auxiliary}


def alone(found: Cells) -> dict[str, float]:
    """The single tasks, by letter."""
    return {main: value for (main, auxiliary), value in found.items() if main == auxiliary}


def listed(names: Iterable[str], nothing: str = "none") -> str:
    """Names with commas."""
    return ", ".join(names) or nothing


def cell_name(key: tuple[str, str]) -> str:
    """d|s: the error of main task d in the model that also has s."""
    return "|".join(key)
