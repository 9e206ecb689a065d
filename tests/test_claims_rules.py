"""What claims rest on: the rule of a verdict, and intervals against analytic ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from headstrong.analysis import (
    claims_stats,
)
from headstrong.analysis.claims_rules import Claim, Evidence, LackingError, verdict

SEEDED = {"seed": 3, "draws": 4000}


# --- the rule -----------------------------------------------------------------------------------------------------


def claim_of(side: str, threshold: float = 10.0, fewest: int = 5) -> Claim:
    return Claim(
        "R0", "", "", "", {}, lambda _: Evidence(0, 0, 0, 0, 0), "% of cells", side, threshold, fewest, "cells"
    )


@pytest.mark.parametrize(
    ("side", "low", "high", "wanted"),
    [
        ("above", 11, 20, "reproduced"),
        ("above", 10, 20, "not decidable"),
        ("above", 1, 9, "contradicted"),
        ("above", 1, 10, "not decidable"),
        ("at least", 10, 20, "reproduced"),
        ("at least", 1, 9, "contradicted"),
        ("below", 1, 9, "reproduced"),
        ("below", 11, 20, "contradicted"),
        ("below", 9, 11, "not decidable"),
        ("above", math.nan, math.nan, "not decidable"),
    ],
)
def test_a_verdict_needs_the_whole_interval(side: str, low: float, high: float, wanted: str) -> None:
    found, reason = verdict(claim_of(side), Evidence((low + high) / 2, low, high, 5, 5, 36))
    assert found == wanted
    assert "5 cells, 36 images" in reason


def test_no_verdict_on_fewer_data_than_the_claim_names() -> None:
    assert verdict(claim_of("above"), Evidence(50, 40, 60, 4, 4)) == ("not decidable", "4 of the 5 cells needed")


# --- intervals ----------------------------------------------------------------------------------------------------


def rows(values: Sequence[float], errors: Sequence[float] | float = 0.0, groups: Sequence[object] | None = None):
    frame = pd.DataFrame({"value": values, "error": errors})
    return frame.assign(group=range(len(frame)) if groups is None else groups, model=[f"m{i}" for i in frame.index])


def test_the_interval_of_a_mean_is_that_of_student_for_many_groups() -> None:
    values = np.random.default_rng(0).normal(2, 3, 400)
    found = claims_stats.mean_of(rows(values), **SEEDED)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.effect == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)
    assert (found.units, found.models) == (400, 400)


def test_errors_over_images_add_as_if_they_went_together() -> None:
    values = np.random.default_rng(1).normal(0, 1, 100)
    found = claims_stats.mean_of(rows(values, 0.5), **SEEDED)
    half = 1.96 * math.hypot(values.std(ddof=1) / 10, 0.5)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    single = claims_stats.mean_of(rows([4.0], 2.0), **SEEDED)
    assert (single.low, single.high) == pytest.approx((4 - 3.92, 4 + 3.92), abs=0.2)


def test_rows_of_a_group_are_not_independent() -> None:
    by_group = np.random.default_rng(2).normal(0, 1, 50)
    found = claims_stats.mean_of(rows(np.repeat(by_group, 8), groups=np.repeat(np.arange(50), 8)), **SEEDED)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * by_group.std(ddof=1) / math.sqrt(50), rel=0.06)


def test_one_group_without_errors_has_no_interval() -> None:
    assert math.isnan(claims_stats.mean_of(rows([1.0, 2.0], groups=["a", "a"]), **SEEDED).low)


def test_a_share_has_the_interval_of_wilson_and_counts_only_what_is_clear() -> None:
    all_of_them = claims_stats.share_of(rows([1.0] * 20, 0.1), **SEEDED)
    assert (all_of_them.effect, all_of_them.high) == (100, 100)
    assert all_of_them.low == pytest.approx(100 * 20 / (20 + 1.959964**2))
    unclear = claims_stats.share_of(rows([1.0] * 20, 1.0), **SEEDED)
    assert unclear.effect == 100
    assert unclear.low < 1e-9
    assert unclear.high == 100


def test_the_share_of_what_has_some_row_above_zero() -> None:
    values, errors = [5.0, -5.0, 1.0, -5.0, -5.0, -5.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    found = claims_stats.some_in_every(rows(values, errors, ["a", "a", "b", "b", "c", "c"]), "group")
    assert (found.effect, found.low, found.high) == pytest.approx((200 / 3, 100 / 3, 200 / 3))
    assert found.units == 3


def test_a_slope_within_strata() -> None:
    x = np.tile([0.0, 0.25, 0.5, 0.75, 1.0], 3)
    frame = rows(3 * x + np.repeat([0.0, 10.0, -4.0], 5), groups=np.tile(np.arange(5), 3))
    frame = frame.assign(x=x, stratum=np.repeat(["a", "b", "c"], 5))
    found = claims_stats.slope_within(frame, units=5, **SEEDED)
    assert (found.effect, found.low, found.high) == pytest.approx((3, 3, 3))
    with pytest.raises(LackingError):
        claims_stats.slope_within(frame.assign(x=1.0), units=5, **SEEDED)


def test_numbers_that_are_all_equal_have_no_rank_correlation() -> None:
    found = claims_stats.rank_correlation(rows([1.0] * 6).assign(other=range(6)), **SEEDED)
    assert all(math.isnan(number) for number in (found.effect, found.low, found.high))
    assert verdict(claim_of("above"), found)[0] == "not decidable"


def test_a_ratio_to_nothing_does_not_count() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    found = claims_stats.mean_of(rows([*values, math.inf, -math.inf, math.nan]), **SEEDED)
    assert vars(found) == vars(claims_stats.mean_of(rows(values), **SEEDED))
    with pytest.raises(LackingError):
        claims_stats.mean_of(rows([math.inf]), **SEEDED)


def test_a_rank_correlation() -> None:
    values = np.arange(30.0)
    found = claims_stats.rank_correlation(rows(values).assign(other=values**3), **SEEDED)
    assert (found.effect, found.low, found.high) == pytest.approx((1, 1, 1))
