"""What a claim is, what speaks for or against it, and how a verdict follows from the two.

Rule: a claim is reproduced where the whole 95 % interval of its effect lies on the side that it names, contradicted
where the whole interval lies on the other side, and not decidable otherwise, or where there are fewer data than the
claim asks for. The side, the threshold and the least data are written down with the claim, the same for every study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from headstrong.analysis.files import read_table
from headstrong.analysis.plan import read_plan
from headstrong.analysis.stats import Array

SYSTEMS: Mapping[str, str] = {
    "R": "task-combination robustness (Ghamizi et al. 2022)",
    "B": "DGBA, attacks balanced over all tasks (arXiv 2305.12066)",
    "G": "MTA and GAP, generated perturbations (arXiv 2011.09824)",
    "H": "CF and CF-delta, attacks on hidden tasks (arXiv 2405.15244)",
    "C": "CAMRI loss (arXiv 2209.10920)",
}
REPRODUCED, CONTRADICTED, NOT_DECIDABLE = "reproduced", "contradicted", "not decidable"
Side = Literal["above", "at least", "below"]


class LackingError(Exception):
    """A study has nothing for a claim; the text says what is not there, in a few words."""


@dataclass
class Tables:
    """The tables of one study by name, read when first asked for.

    paths: files of tables by the stem of their name. plan: plan.csv, None where the study has none. draws, seed: of
    every bootstrap. evaluations: the folder of per-sample numbers, None where only tables are at hand. growth,
    image_weights: what `claims_samples` made once.
    """

    paths: Mapping[str, Path]
    plan_path: Path | None = None
    draws: int = 2000
    seed: int = 0
    evaluations: Path | None = None
    growth: dict[tuple[str, str, str], Array] = field(default_factory=dict)
    image_weights: dict[int, Array] = field(default_factory=dict)
    _read: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __call__(self, name: str) -> pd.DataFrame:
        """One table. Raises LackingError where the study has none of that name, or one without rows."""
        if name not in self.paths:
            raise LackingError(f"no {name}.csv")
        if name not in self._read:
            self._read[name] = read_table(self.paths[name])
        if self._read[name].empty:
            raise LackingError(f"{name}.csv has no rows")
        return self._read[name]

    def plan(self) -> pd.DataFrame:
        """plan.csv. Raises LackingError where the study has none."""
        if self.plan_path is None:
            raise LackingError("no plan.csv")
        return read_plan(self.plan_path)

    def under_protocol(self, name: str) -> pd.DataFrame:
        """A table with a column model, without models that have switches of their own. Raises LackingError."""
        plan = self.plan()
        own = plan.loc[plan["switches"].ne(""), "id"]
        rows = self(name)
        return rows.loc[~rows["model"].isin(own)]


@dataclass(frozen=True)
class Evidence:
    """What a study has on one claim, in the claim's unit.

    low, high: the 95 % interval of effect. units: how much of what the claim counts its least data in. models: trained
    networks behind it. images: the fewest images behind any number.
    """

    effect: float
    low: float
    high: float
    units: int
    models: int
    images: int | None = None


@dataclass(frozen=True)
class Claim:
    """One claim of one paper. statement: in our words. published: the evidence as printed, with its place.

    measure: the effect in words. columns: by table, what carries it. evidence: makes it from the tables of a study,
    raises LackingError. side, threshold: where the effect lies if it holds. fewest, of: the least number of what. most:
    how large the effect can be, of either sign.
    """

    id: str
    statement: str
    published: str
    measure: str
    columns: Mapping[str, tuple[str, ...]]
    evidence: Callable[[Tables], Evidence]
    unit: str
    side: Side
    threshold: float
    fewest: int
    of: str
    most: float = math.inf

    @property
    def bounds(self) -> tuple[float, float]:
        """Between what the effect can lie: shares, correlations, and differences of percentages (`most`)."""
        if self.unit.startswith("% of "):
            return 0.0, 100.0
        most = 1.0 if self.unit == "r" else self.most
        return -most, most

    @property
    def system(self) -> str:
        """The letter of its system."""
        return self.id[0]

    @property
    def rule(self) -> str:
        """Where the whole interval must lie for the claim to be reproduced: "above 10 %"."""
        return f"{self.side} {amount(self.threshold, self.unit)}"


def within_bounds(claim: Claim, found: Evidence) -> Evidence:
    """The same evidence with an interval that ends where the quantity does."""
    low, high = (float(np.clip(end, *claim.bounds)) for end in (found.low, found.high))
    return replace(found, low=low, high=high)


def verdict(claim: Claim, found: Evidence) -> tuple[str, str]:
    """The verdict on a claim, and why in a few words with the scale of the evidence."""
    if found.units < claim.fewest:
        return NOT_DECIDABLE, f"{found.units} of the {claim.fewest} {claim.of} needed"
    scale = f"{found.units} {claim.of}"
    if found.images is not None:
        scale += f", {found.images} images"
    limit = amount(claim.threshold, claim.unit)
    if math.isnan(found.low) or math.isnan(found.high):
        return NOT_DECIDABLE, f"no interval; {scale}"
    if _inside(claim, found.low, found.high):
        return REPRODUCED, f"the whole interval is {claim.side} {limit}; {scale}"
    if _outside(claim, found.low, found.high):
        other = "above" if claim.side == "below" else "below"
        return CONTRADICTED, f"the whole interval is {other} {limit}; {scale}"
    return NOT_DECIDABLE, f"the interval reaches across {limit}; {scale}"


def _inside(claim: Claim, low: float, high: float) -> bool:
    if claim.side == "below":
        return high < claim.threshold
    return low >= claim.threshold if claim.side == "at least" else low > claim.threshold


def _outside(claim: Claim, low: float, high: float) -> bool:
    return low > claim.threshold if claim.side == "below" else high < claim.threshold


def amount(value: float, unit: str) -> str:
    """A number with its unit: "10 %", "0.5"; the words of a long unit ("points of accuracy") shortened to the first."""
    return f"{value:g} {unit.split()[0]}" if unit and unit != "r" else f"{value:g}"
