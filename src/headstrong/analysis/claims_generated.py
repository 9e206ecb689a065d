"""Evidence on the claims about attacks on all tasks at once (DGBA) and about generated perturbations (MTA, GAP).

Every function raises LackingError, which says what is not there, where the study has no rows for its claim.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from headstrong.analysis import claims_stats
from headstrong.analysis.claims_rules import Evidence, LackingError, Tables
from headstrong.analysis.generated import REACH, UNTARGETED, harm

THREAT = ["model", "stepper", "norm", "epsilon", "steps"]
LEVELS = 5  # coarse levels that tasks of a branched network may share
_CLASSES = ("fooling_ratio", "accuracy", "target_accuracy")
_PLACE = ["family", "victim", "norm", "epsilon", "task", "metric"]


def stronger_balancer(study: Tables, own: str, other: str, *, adversarial: bool) -> Evidence:
    """How many points of average relative performance one way of balancing costs more than another, same threat.

    own, other: balancers; "single" is the one of the attacks on one task that costs most. adversarial: models trained
    on attacked images, or on clean ones. Errors are those of paired differences where the table has them.
    """
    rows = study.under_protocol("balanced")
    rows = rows.loc[rows["task"].eq("") & rows["adversarial"].ne("").eq(adversarial)]
    mine = rows.loc[rows["balancer"].eq(own)].drop_duplicates(THREAT)
    rivals = rows.loc[rows["balancer"].eq(other)].sort_values("relative_performance").drop_duplicates(THREAT)
    both = mine.merge(rivals[[*THREAT, "relative_performance", "standard_error"]], on=THREAT, suffixes=("", "_other"))
    if both.empty:
        trained = "adversarially" if adversarial else "on clean images"
        raise LackingError(f"no {own} beside {other} on models trained {trained}")
    value = both["relative_performance_other"] - both["relative_performance"]
    error = np.hypot(both["standard_error"], both["standard_error_other"])
    if other == "total":
        error = both["gain_standard_error"].fillna(error)
    both = both.assign(value=100 * value, error=100 * error, group=both["model"])
    return claims_stats.mean_of(both, seed=study.seed, draws=study.draws, units=both["model"].nunique())


def sharing_and_transfer(study: Tables) -> Evidence:
    """How many points of relative performance more an attack on one task costs another, all levels shared, than with
    none: slope over the share of levels, for each encoder, attack and pair of tasks. Branched networks, clean
    training."""
    rows = study.under_protocol("transfer")
    rows = rows.loc[rows["layout"].ne("") & rows["adversarial"].eq("")]
    if rows.empty:
        raise LackingError("no branched networks")
    stratum = rows[["encoder", "attack", "measured"]].agg(" ".join, axis=1)
    rows = rows.assign(
        value=-100 * rows["relative_performance"],
        error=100 * rows["standard_error"],
        x=rows["shared_levels"].astype(float) / LEVELS,
        group=rows["model"],
        stratum=stratum,
    )
    return claims_stats.slope_within(rows, seed=study.seed, draws=study.draws, units=rows["model"].nunique())


def mta_against_gap(study: Tables, *, classes: bool) -> Evidence:
    """How much more MTA harms than GAP, on the same images: points of fooling ratio or target accuracy for classifiers,
    percent of GAP's number for dense models, mean over their measures."""
    rows = _generated(study, classes=classes)
    rows = rows.loc[rows["method"].eq("mta") & rows["gain"].notna() & rows["metric"].ne(REACH)]
    sign = rows["metric"].map(harm)
    if classes:
        main = np.where(rows["goal"].eq(UNTARGETED), "fooling_ratio", "target_accuracy")
        rows, factor = rows.loc[rows["metric"].eq(main)], 1.0
    else:
        factor = 100 / (rows["value"] - rows["gain"]).abs()
    rows = rows.assign(value=sign * factor * rows["gain"], error=factor * rows["gain_standard_error"])
    return _by_task(rows, study)


def transfer_over_noise(study: Tables) -> Evidence:
    """How many percent of their clean number victims never trained against lose more to MTA than to noise of the same
    size, mean over measures."""
    rows = study("generated")
    rows = rows.loc[~rows["metric"].isin(("fooling_ratio", "target_accuracy", REACH))]
    mta = rows.loc[rows["method"].eq("mta") & rows["goal"].eq(UNTARGETED) & rows["victim"].ne(rows["trained_on"])]
    if mta.empty:
        raise LackingError("no victims but those trained against")
    clean = rows.loc[rows["method"].eq("clean"), ["family", "victim", "task", "metric", "value"]]
    noise = rows.loc[rows["method"].eq("noise"), [*_PLACE, "value", "standard_error"]]
    both = mta.merge(noise, on=_PLACE, suffixes=("", "_noise"))
    both = both.merge(clean, on=["family", "victim", "task", "metric"], suffixes=("", "_clean"))
    factor = 100 / both["value_clean"].abs()
    error = factor * np.hypot(both["standard_error"], both["standard_error_noise"])
    value = both["metric"].map(harm) * factor * (both["value"] - both["value_noise"])
    return _by_task(both.assign(value=value, error=error), study)


def instance_against_universal(study: Tables, *, classes: bool) -> Evidence:
    """How much more untargeted per-instance perturbations harm than universal ones of the same method and radius:
    points of fooling ratio for classifiers, percent of the universal number for dense models."""
    rows = _generated(study, classes=classes)
    rows = rows.loc[rows["goal"].eq(UNTARGETED) & rows["victim"].eq(rows["trained_on"]) & rows["metric"].ne(REACH)]
    if classes:
        rows = rows.loc[rows["metric"].eq("fooling_ratio")]
    key = [*_PLACE, "method"]
    instance, universal = (rows.loc[rows["mode"].eq(mode)] for mode in ("instance", "universal"))
    both = instance.merge(universal[[*key, "value", "standard_error"]], on=key, suffixes=("", "_other"))
    factor = 1.0 if classes else 100 / both["value_other"].abs()
    error = factor * np.hypot(both["standard_error"], both["standard_error_other"])
    both = both.assign(value=both["metric"].map(harm) * factor * (both["value"] - both["value_other"]), error=error)
    return _by_task(both, study)


def _generated(study: Tables, *, classes: bool) -> pd.DataFrame:
    rows = study("generated")
    rows = rows.loc[rows["metric"].isin(_CLASSES).eq(classes) | rows["metric"].eq(REACH)]
    kinds = rows.loc[rows["metric"].ne(REACH), "family"].unique()
    return rows.loc[rows["family"].isin(kinds)]


def _by_task(rows: pd.DataFrame, study: Tables) -> Evidence:
    """The mean over measures. A task, whose numbers in all families go together, is resampled as one; what is counted
    is perturbations of a task."""
    if rows.empty:
        raise LackingError("nothing to compare with")
    situations = rows[["family", "mode", "goal", "norm", "task"]].assign(epsilon=rows["epsilon"]).drop_duplicates()
    rows = rows.assign(group=rows["task"], model=rows["generator"])
    return claims_stats.mean_of(rows, seed=study.seed, draws=study.draws, units=len(situations))


def cost_ratio(study: Tables, what: str) -> Evidence:
    """How many percent more of `what` ("parameters" or "time") MTA takes than GAP for the same perturbations.

    Parameters are counted: the interval is from the least to the largest of the families. Times are medians over
    rounds; the interval is from MTA's lower quartile over GAP's upper one to the opposite, means over families: the
    quartiles of twenty rounds are about the 95 % interval of their median. units: the fewest rounds.
    """
    rows = study("generator_cost")
    key = ["family", "mode", "size", "filters", "blocks"]
    mta, gap = (rows.loc[rows["method"].eq(name)] for name in ("mta", "gap"))
    both = mta.merge(gap, on=key, suffixes=("", "_gap"))
    if both.empty:
        raise LackingError("no cost of MTA beside GAP's")
    if what == "parameters":
        ratios = np.log((both["parameters"] / both["parameters_gap"]).to_numpy(float))
        ends = [_percent(float(number)) for number in (ratios.mean(), ratios.min(), ratios.max())]
        return Evidence(ends[0], ends[1], ends[2], units=len(both), models=2 * len(both))
    effect = np.log(both["median_ms"] / both["median_ms_gap"]).mean()
    low = np.log(both["low_ms"] / both["high_ms_gap"]).mean()
    high = np.log(both["high_ms"] / both["low_ms_gap"]).mean()
    rounds = int(min(both["rounds"].min(), both["rounds_gap"].min()))
    ends = [_percent(float(number)) for number in (effect, low, high)]
    return Evidence(ends[0], ends[1], ends[2], units=rounds, models=2 * len(both))


def _percent(logarithm: float) -> float:
    return 100 * math.expm1(logarithm)
