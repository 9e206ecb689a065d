"""switches.csv: what each departure from the study's protocol does to errors and vulnerabilities.

A section of the plan can set protocol switches of its own. Each of its models is put beside its base: the same encoder,
tasks, weights, epochs, layout and adversarial training under the study's own protocol.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from headstrong.analysis.plan import APART
from headstrong.analysis.stats import NORMAL

METRICS = ("clean_error", "adversarial_error", "relative_task_vulnerability", "adversarial_vulnerability")
COLUMNS = (
    "model",
    "base",
    "switch",
    "attack",
    "attacked",
    "task",
    "metric",
    "base_value",
    "value",
    "difference",
    "relative_difference",
    "standard_error",
)
_SAME_ATTACK = ["family", "attacked", "norm", "epsilon", "steps", "single"]


def bases(plan: pd.DataFrame) -> dict[str, str]:
    """Id of the base of every model with switches; a model the plan has no base for is absent.

    plan: `plan.read_plan`. Tasks are compared as a set, each with its own weight. Where two plain sections hold the
    base, the first counts.
    """
    own: dict[tuple[object, ...], str] = {}
    for row in plan.loc[plan["switches"].eq("")].to_dict("records"):
        own.setdefault(_identity(row), str(row["id"]))
    switched = plan.loc[plan["switches"].ne("")].to_dict("records")
    return {str(row["id"]): own[_identity(row)] for row in switched if _identity(row) in own}


def _identity(row: dict[str, object]) -> tuple[object, ...]:
    """Everything about a model but its section, seed and switches."""
    letters = str(row["main"]) + str(row["auxiliary"])
    weighted = tuple(sorted(zip(letters, str(row["weights"]).split(";"), strict=True)))
    others = (row[column] for column in ("encoder", "epochs", *APART) if column != "switches")
    return (weighted, *others)


def build_table(vulnerability: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """switches.csv, columns COLUMNS, from vulnerability.csv and the plan of `plan.read_plan`; METRICS only.

    switch: the text of the plan's `switches`. attack, attacked: those of the switched model, "clean" and "" without
    attack. task: "" for adversarial_vulnerability, which is of all attacked tasks together. difference: value minus
    base_value; relative_difference: difference / |base_value|, NaN unless that is clearly above 0. standard_error: of
    the difference, as if both models were measured on images of their own; they share them, so it is too large where
    their numbers go up and down together. Attacks are matched by name. One that has no namesake, because the switch
    changes its name (the form of WGD), is matched with one that also has none and agrees in family, attacked tasks,
    norm, epsilon, steps and in whether it attacks one task by itself. What has no match, and a model without base, has
    no rows.
    """
    switches = plan.set_index("id")["switches"]
    shown = vulnerability.loc[vulnerability["metric"].isin(METRICS)]
    models = dict(iter(shown.groupby("model", sort=False)))
    parts = [
        _compare(models[model], models[base]).assign(model=model, base=base, switch=switches[model])
        for model, base in bases(plan).items()
        if model in models and base in models
    ]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _compare(ours: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """The rows of one model that have a counterpart in its base, in the order of the model's own."""
    names = _namesakes(ours, base)
    ours = ours.assign(namesake=[names.get(name, "") for name in ours["attack"]])
    key = ["attack", "task", "metric"]
    theirs = base[[*key, "mean", "standard_error"]].rename(columns={"attack": "namesake", "mean": "base_value"})
    joined = ours.merge(theirs, on=["namesake", "task", "metric"], suffixes=("", "_base"))
    value, base_value = joined["mean"], joined["base_value"]
    size, error = base_value.abs(), joined["standard_error_base"].fillna(0)  # of a single image the error is not known
    return joined.assign(
        task=joined["task"].where(joined["metric"].ne("adversarial_vulnerability"), ""),
        value=value,
        difference=value - base_value,
        relative_difference=(value - base_value) / size.where(size.gt(NORMAL * error)),
        standard_error=np.hypot(joined["standard_error"], joined["standard_error_base"]),
    )


def _namesakes(ours: pd.DataFrame, base: pd.DataFrame) -> dict[str, str]:
    """Name of the base's attack for every attack of ours that has a counterpart."""
    names, base_names = set(ours["attack"]), set(base["attack"])
    left, right = _attacks(ours, names - base_names), _attacks(base, base_names - names)
    # several forms of one attack in a model would make several pairs; none of them would be the switch's doing
    pairs = left.merge(right, on=_SAME_ATTACK, suffixes=("", "_base"))
    alone = ~(pairs["attack"].duplicated(keep=False) | pairs["attack_base"].duplicated(keep=False))
    renamed = dict(zip(pairs.loc[alone, "attack"], pairs.loc[alone, "attack_base"], strict=True))
    return {**{name: name for name in names & base_names}, **renamed}


def _attacks(rows: pd.DataFrame, names: set[str]) -> pd.DataFrame:
    chosen = rows.loc[rows["attack"].isin(names)].drop_duplicates("attack")
    return chosen.assign(single=chosen["balancer"].eq("single"))[["attack", *_SAME_ATTACK]]
