"""What the report says about attacks: balancers compared, programs, transfer, theorems, switches and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from headstrong import radius
from headstrong.figures.balanced import LOOKS, STEPPERS
from headstrong.report.blocks import grid, number

TABLES = {
    "table_2": "Table 2 (APGD and WGD)",
    "balanced": "DGBA's comparison of balancers",
    "transfer": "transfer between tasks",
    "theory": "Theorem 2",
    "marginal": "Theorem 4",
    "switches": "what each switch of the protocol changes",
    "flags": "the attacks' checks of themselves",
    "programs": "integer programs",
}
MOST = 20  # rows of the table of transfer, where no model is branched
THEOREM_2 = ("mean_gradient", "theorem_2", "independent", "zero_mean", "equal_variance", "mean_cosine")


def context(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Everything the template asks for, by name; an empty list for a table that is absent or has no rows. But flags is
    None without its table: what was not recorded is not the same as no warning."""
    makers = {
        "balanced": balancers,
        "programs": programs,
        "transfer": transfer,
        "theory": theorem_2,
        "marginal_bound": theorem_4,
        "switches": switches,
        "flags": flags,
        "table_2": table_2,
    }
    sources = {name: name for name in makers} | {"marginal_bound": "marginal"}
    found: dict[str, Any] = {
        name: make(tables[source]) if (source := sources[name]) in tables and len(tables[source]) else []
        for name, make in makers.items()
    }
    return found if "flags" in tables else {**found, "flags": None}


def _percent(value: Any, digits: int = 3) -> str:
    return "–" if pd.isna(value) else number(100 * float(value), digits)


def _trained(adversarial: str) -> str:
    return f"against {adversarial}" if adversarial else "on clean images"


def balancers(table: pd.DataFrame) -> dict[str, Any]:
    """DGBA's comparison (balanced.csv): the average relative performance in percent of each balancer, one row per
    model, stepper, norm, radius and steps; SINGLE is the mean over the attacked tasks. And DGBA's gain over TOTAL, with
    its standard error."""
    joint = table.loc[table["task"].eq("") & table["stepper"].isin(STEPPERS)]
    keys = ["model", "adversarial", "stepper", "norm", "epsilon", "steps"]
    compared = joint["balancer"].eq("dgba").groupby([joint[key] for key in keys]).transform("any")
    joint = joint.loc[compared]
    present = [name for name in LOOKS if joint["balancer"].eq(name).any()]
    rows = []
    for key, part in joint.groupby(keys, sort=False):
        means = part.groupby("balancer")["relative_performance"].mean()
        dgba = part.loc[part["balancer"].eq("dgba")].iloc[0]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "trained": _trained(key[1]),
                "order": (key[0], STEPPERS.index(key[2]), key[3], key[4], key[5]),
                "radius": radius.text(key[4], key[3]),
                "values": [_percent(means.get(name)) for name in present],
                "gain": _percent(dgba["gain"]),
                "error": _percent(dgba["gain_standard_error"], 2),
            }
        )
    names = [name.replace("_", " ") for name in present]
    return {"balancers": names, "rows": sorted(rows, key=lambda row: row["order"])} if rows else {}


def table_2(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The blocks of Table 2: a grid for each part (A uniform, B weighted) and attack. table: table_2.csv."""
    found = []
    for (weighting, attack, block), part in table.groupby(["weighting", "attack", "block"], sort=False):
        shown = grid(part, block)
        letter = "A, uniform weights" if weighting == "uniform" else "B, weighted"
        found.append({**shown, "title": f"{attack.upper()} ({letter}): {shown['title'].lower()}"})
    return found


def programs(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Integer programs against the closed form, one row per model and program. table: programs.csv."""
    return [
        {
            "model": row["model"],
            "program": row["stepper"].removeprefix("ilp_").replace("_", "-")
            + ("" if pd.isna(row["pixels"]) else f", {int(row['pixels'])} pixels"),
            "radius": radius.text(row["epsilon"]),
            "images": int(row["images"]),
            "optimal": int(row["optimal"]),
            "fell_back": int(row["fell_back"]),
            "gap": _percent(row["mean_gap"], 2),
            "closed_form": _percent(row["least_closed_form"]),
            "program_value": _percent(row["least_program"]),
            "gain": _percent(row["gain"]),
        }
        for row in table.to_dict("records")
    ]


def transfer(table: pd.DataFrame) -> dict[str, Any]:
    """How much of an attack's damage to its own task reaches the others, by model and attack: the median ratio.

    table: transfer.csv. rows: those of branched models where there are any, else no more than the first MOST. of: how
    many there are of all models. branched: whether there are any.
    """
    rows = []
    keys = ["model", "encoder", "adversarial", "stepper", "norm", "epsilon", "steps"]
    for key, part in table.groupby(keys, sort=False):
        first = part.iloc[0]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "trained": _trained(key[2]),
                "radius": radius.text(key[5], key[4]),
                "layout": "–" if pd.isna(first["layout"]) or first["layout"] == "" else str(first["layout"]),
                "sharing": _percent(first["shared_fraction"], 2),
                "own": _percent(part["own"].mean()),
                "others": _percent(part["relative_performance"].mean()),
                "ratio": number(part["ratio"].median(), 2),
            }
        )
    branched = [row for row in rows if row["layout"] != "–"]
    return {"rows": branched or rows[:MOST], "of": len(rows), "branched": bool(branched)}


def theorem_2(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Theorem 2 (theory.csv) over all models and sets of tasks, by the number of tasks: medians of what it says over
    what is measured, and of the numbers that it assumes."""
    values = table.pivot_table(index=["model", "tasks", "size"], columns="quantity", values="value")
    values = values.reindex(columns=[*THEOREM_2])  # a study of single tasks has no cosines
    rows = []
    for size, part in values.groupby("size"):
        measured = part["mean_gradient"]
        rows.append(
            {
                "size": int(size),
                "sets": len(part),
                "formula": number((part["theorem_2"] / measured).median()),
                "independent": number((part["independent"] / measured).median()),
                "zero_mean": number(part["zero_mean"].median(), 2),
                "equal_variance": number(part["equal_variance"].median(), 2),
                "cosine": number(part["mean_cosine"].median(), 2) if size > 1 else "–",
            }
        )
    return rows


def theorem_4(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Theorem 4 (marginal.csv) by attack and added task: cases, in how many the bound holds, medians beside the
    bound's."""
    rows = []
    holds = table["holds"].astype(str).str.lower().isin(("true", "1", "1.0"))
    table = table.assign(holds=holds)
    for (stepper, norm, epsilon, added), part in table.groupby(["stepper", "norm", "epsilon", "added"], sort=False):
        rows.append(
            {
                "attack": f"{stepper}, {norm}, {radius.text(epsilon, norm)}",
                "added": added,
                "cases": len(part),
                "holds": int(part["holds"].sum()),
                "measured": number(part["measured"].median()),
                "first_order": number(part["first_order"].median()),
                "bound": number(part["bound"].median()),
            }
        )
    return rows


def switches(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each switch (switches.csv): how many numbers it changes, the median of the relative changes, and the largest with
    its place.

    Noise is left out: what it does is next to nothing, and the relative change of that says nothing.
    """
    rows = []
    table = table.loc[~table["attack"].str.startswith("noise.")]
    for switch, part in table.groupby("switch", sort=False):
        change = part["relative_difference"].abs()
        moved = change > 1e-9
        known = part.loc[change.notna()]
        largest = known.loc[change.loc[known.index].idxmax()] if len(known) else None
        where = ""
        if largest is not None:
            attack = "" if largest["attack"] == "clean" else f" under {largest['attack']}"
            where = f"{largest['metric'].replace('_', ' ')} of {largest['task'] or largest['attacked']}{attack}"
        rows.append(
            {
                "switch": switch,
                "numbers": len(part),
                "moved": int(moved.sum()),
                "median": _percent(change.median(), 2),
                "largest": "–" if largest is None else _percent(largest["relative_difference"], 3),
                "where": where,
            }
        )
    return rows


def flags(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each kind of warning (flags.csv): how often, in how many models, and one example."""
    rows = []
    for flag, part in table.groupby("flag", sort=True):
        example = part.iloc[0]
        rows.append(
            {
                "flag": flag,
                "count": len(part),
                "models": part["model"].nunique(),
                "example": f"{example['model']}: {example['message']}",
            }
        )
    return rows
