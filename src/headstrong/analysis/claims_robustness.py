"""Evidence on the claims of "Adversarial Robustness in Multi-Task Learning: Promises and Illusions" (2022).

Two models are compared by how much an attack multiplies the error of a task: 1 + relative task vulnerability, the error
after the attack over the error before. Differences are of its logarithm, so that a ratio and its inverse are as far
from 0; a mean difference is told in percent. Only cells of fully trained models, uniform weights unless said so.

Every function raises LackingError, which says what is not there, where the study has no rows for its claim.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pandas as pd

from headstrong.analysis import claims_samples, claims_stats, tables
from headstrong.analysis.claims_rules import Evidence, LackingError, Tables
from headstrong.analysis.tables import AttackChoice

LEAST_STEPS = 50  # of an attack with many steps: supplement Figure 14 ends there
WEAK = 4 / 255  # the radius above which the paper calls attacks strong
_NEAR = 1e-9


def more_vulnerable(study: Tables, quantity: str, encoders: Collection[str] | None = None) -> Evidence:
    """Share of the cells with auxiliary tasks that are more vulnerable than their main task alone, same encoder.

    quantity: "single" (the main task attacked) or "multi" (all tasks of the model). encoders: None for all.
    """
    cells = study("cells")
    if encoders is not None:
        cells = cells.loc[cells["encoder"].isin(encoders)]
    return _share(against_alone(study, cells, quantity), study)


def more_vulnerable_at_radii(study: Tables) -> Evidence:
    """The same under PGD at every radius above WEAK in the maximum norm, at least two of them."""
    rows = _attacked(study, "linf")
    rows = rows.loc[rows["epsilon"] > WEAK + _NEAR]
    most = rows.groupby("epsilon")["steps"].transform("max")
    found = _by_threat(study, rows.loc[rows["steps"].eq(most)])
    if found["epsilon"].nunique() < 2:
        raise LackingError("models with and without auxiliary tasks under fewer than two radii above 4/255")
    return _share(found, study)


def more_vulnerable_at_steps(study: Tables) -> Evidence:
    """The same under PGD of at least LEAST_STEPS steps in the maximum norm."""
    rows = _attacked(study, "linf")
    return _share(_by_threat(study, rows.loc[rows["steps"].ge(LEAST_STEPS)]), study)


def growth_under_l2(study: Tables) -> Evidence:
    """How much more, in percent, PGD in L2 balls multiplies errors with auxiliary tasks than without."""
    return _growth(_by_threat(study, _attacked(study, "l2")), study)


def less_vulnerable_partner(study: Tables, attack: str) -> Evidence:
    """Share of main tasks, by encoder, that some set of auxiliary tasks makes less vulnerable.

    attack: "pgd", the attack of cells.csv, or "apgd" of table_2.csv.
    """
    found = against_alone(study, study("cells") if attack == "pgd" else _table_2(study), "single")
    return claims_stats.some_in_every(claims_stats.turned(found), "group")


def _table_2(study: Tables) -> pd.DataFrame:
    """Auto-PGD's block of table_2.csv as cells; the main task as its own auxiliary is the single-task model."""
    rows = study("table_2")
    rows = rows.loc[rows["attack"].eq("apgd") & rows["weighting"].eq("uniform")]
    size = np.where(rows["main"].eq(rows["auxiliary"]), 1, 2)
    return rows.rename(columns={"ours": "value"}).assign(quantity="single", size=size, epochs=1, full_epochs=1)


def weighted_against_uniform(study: Tables, attack: str) -> Evidence:
    """How much more, in percent, errors of weighted pairs are multiplied than those of the same uniform pairs.

    attack: "pgd" of table_1.csv, "apgd" or "wgd" of table_2.csv.
    """
    rows = study("table_1" if attack == "pgd" else "table_2")
    rows = rows.loc[rows["block"].eq("single")] if attack == "pgd" else rows.loc[rows["attack"].eq(attack)]
    rows = rows.loc[rows["main"].ne(rows["auxiliary"])]
    key = ["encoder", "main", "auxiliary"]
    parts = [rows.loc[rows["weighting"].eq(name), [*key, "model", "ours", "standard_error", "n"]] for name in WEIGHTS]
    both = parts[0].merge(parts[1][[*key, "model", "ours", "standard_error"]], on=key, suffixes=("", "_other"))
    return _growth(_differences(study, both, "ours").assign(group=both["main"]), study)


WEIGHTS = ("weighted", "uniform")


def adaptive_against_pgd(study: Tables, attack: str) -> Evidence:
    """How much more, in percent, an adaptive attack multiplies errors than PGD does on the same models and tasks.

    attack: "apgd", the main task attacked, or "wgd", both tasks of a pair.
    """
    key = ["weighting", "block", "main", "auxiliary", "model"]
    adaptive = study("table_2")
    adaptive = adaptive.loc[adaptive["attack"].eq(attack)]
    both = adaptive.merge(study("table_1")[[*key, "ours", "standard_error"]], on=key, suffixes=("", "_other"))
    both = both.assign(model_other=both["model"])
    return _growth(_differences(study, both, "ours").assign(group=both["model"]), study)


def surrogate(study: Tables, name: str, scope: str, proxy: str, target: str) -> Evidence:
    """Correlation of a surrogate with what it stands for, the main task attacked.

    scope: "pooled" over all cells (bootstrap over cells), or "within" main tasks (partial correlation of logarithms).
    proxy, target: what their names begin and end with in the paper's own comparison; where a study lacks it, the
    comparison with the most cells stands in.
    """
    rows = study("surrogates")
    statistic = "pearson_bootstrap" if scope == "pooled" else "pearson"
    rows = rows.loc[
        rows["surrogate"].eq(name)
        & rows["attack"].eq("single")
        & rows["scope"].eq(scope)
        & rows["statistic"].eq(statistic)
        & rows["target"].str.endswith(target)
    ]
    if rows.empty:
        raise LackingError(f"no models for the surrogate {name}")
    own = rows.loc[rows["proxy"].str.startswith(proxy)]
    row = (own if len(own) else rows).sort_values("n", ascending=False, kind="stable").iloc[0]
    if math.isnan(row["value"]):
        raise LackingError(str(row["note"]))
    cells = int(row["n"])
    return Evidence(float(row["value"]), float(row["low"]), float(row["high"]), cells, cells)


def within_bound(study: Tables) -> Evidence:
    """Share of cases in which the measured marginal vulnerability is at most the bound of Theorem 4."""
    rows = _marginal(study)
    return _share(rows.assign(value=rows["bound"] - rows["measured"]), study)


def follows_bound(study: Tables) -> Evidence:
    """Rank correlation of the measured marginal vulnerability and the bound of Theorem 4."""
    rows = _marginal(study)
    rows = rows.assign(value=rows["measured"], other=rows["bound"])
    return claims_stats.rank_correlation(rows, seed=study.seed, draws=study.draws)


def raised_by_one_more(study: Tables) -> Evidence:
    """Share of cases in which one attacked task more raises the adversarial vulnerability."""
    rows = _marginal(study)
    return _share(rows.assign(value=rows["measured"]), study)


def segmentation_adds_most(study: Tables) -> Evidence:
    """Share of attacked sets with segmentation in which no other task has as large a marginal vulnerability."""
    rows = _marginal(study)
    segmentation = rows.loc[rows["added"].eq("s")]
    others = rows.loc[rows["added"].ne("s")].sort_values("measured", ascending=False)
    others = others.drop_duplicates(["model", "attack"])[["model", "attack", "measured", "standard_error"]]
    both = segmentation.merge(others, on=["model", "attack"], suffixes=("", "_other"))
    both = both.assign(
        value=both["measured"] - both["measured_other"],
        error=np.hypot(both["standard_error"], both["standard_error_other"]),
    )
    return _share(both, study)


def _marginal(study: Tables) -> pd.DataFrame:
    rows = study.under_protocol("marginal")
    return rows.assign(error=rows["standard_error"], group=rows["model"])


def later_plateau(study: Tables) -> Evidence:
    """How many points more of its final effect on a task PGD gains in the second half of its steps where it attacks
    that task alone than where it attacks all tasks of the model. Attacks of at least ten steps that have an effect."""
    rows = study.under_protocol("curves")
    rows = rows.loc[rows["stepper"].eq("pgd") & rows["norm"].eq("linf") & rows["steps"].ge(10)]
    key = ["model", "family", "epsilon", "steps", "attacked", "task", "attack"]
    last = rows.groupby(key, sort=False)["step"].transform("max")
    ends = rows.loc[rows["step"].eq(last), [*key, "relative"]]
    halves = rows.loc[rows["step"].eq(last // 2), [*key, "relative"]]
    both = ends.merge(halves, on=key, suffixes=("", "_half"))
    both = both.loc[both["relative"] > 0.01]
    both = both.assign(late=100 * (1 - both["relative_half"] / both["relative"]))
    alone = both.loc[both["attack"].str.contains(".single.", regex=False) & both["attacked"].eq(both["task"])]
    several = both.loc[both["attack"].str.contains(".total.", regex=False)]
    widest = several.groupby("model")["attacked"].transform(lambda names: names.str.len().max())
    several = several.loc[several["attacked"].str.len().eq(widest)]
    shared = ["model", "family", "epsilon", "steps", "task"]
    pairs = alone.merge(several[[*shared, "late"]], on=shared, suffixes=("", "_all"))
    pairs = pairs.assign(value=pairs["late"] - pairs["late_all"], group=pairs["model"])
    return claims_stats.mean_of(pairs, seed=study.seed, draws=study.draws)


def against_alone(study: Tables, cells: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Rows of cells with auxiliary tasks: value, log of how much more the error is multiplied than without any.

    cells: columns of `tables.cells`. Beside theirs the rows have error and moves (see `claims_stats`) and group,
    encoder and main task.
    """
    full = tables.full_epochs(cells)
    full = full.loc[full["quantity"].eq(quantity)]
    alone = full.loc[full["size"].eq(1), ["encoder", "main", "model", "value", "standard_error"]]
    several = full.loc[full["size"].ge(2)]
    both = several.merge(alone, on=["encoder", "main"], suffixes=("", "_other"))
    if both.empty:
        raise LackingError("no models with auxiliary tasks beside the main task alone")
    return _differences(study, both, "value").assign(group=both["encoder"] + " " + both["main"])


def _differences(study: Tables, both: pd.DataFrame, name: str) -> pd.DataFrame:
    """value of log (1 + v) - log (1 + v of the other), its error as if the two were independent, and where the study
    has evaluations how resamples of the images move it."""
    own, other = 1 + both[name], 1 + both[f"{name}_other"]
    errors = np.hypot(both["standard_error"] / own, both["standard_error_other"] / other)
    both = both.assign(v=both[name], v_other=both[f"{name}_other"])
    moves = claims_samples.moves(study, both)
    return both.assign(value=np.log(own / other), error=errors, moves=moves)


def _attacked(study: Tables, norm: str) -> pd.DataFrame:
    rows = study.under_protocol("vulnerability")
    return rows.loc[rows["stepper"].eq("pgd") & rows["balancer"].eq("single") & rows["norm"].eq(norm)]


def _by_threat(study: Tables, rows: pd.DataFrame) -> pd.DataFrame:
    """`against_alone` under every threat of these rows, the main task attacked, one after the other."""
    plan = study.plan()
    found = []
    for family, norm, epsilon, steps in rows[["family", "norm", "epsilon", "steps"]].drop_duplicates().to_numpy():
        choice = AttackChoice(family, norm, float(epsilon), int(steps))
        cells = tables.cells(rows, plan, choice)
        if cells["size"].ge(2).any() and cells["size"].eq(1).any():
            found.append(against_alone(study, cells, "single").assign(epsilon=float(epsilon)))
    if not found:
        raise LackingError("no such attack on models both with and without auxiliary tasks")
    return pd.concat(found, ignore_index=True)


def _share(rows: pd.DataFrame, study: Tables) -> Evidence:
    return claims_stats.share_of(rows, seed=study.seed, draws=study.draws)


def _growth(rows: pd.DataFrame, study: Tables) -> Evidence:
    return claims_stats.mean_of(rows, seed=study.seed, draws=study.draws, scale=lambda x: 100 * math.expm1(x))
