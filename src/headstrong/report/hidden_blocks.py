"""What the report shows of attacks on hidden tasks: tables of damage, task by task, and of what the copies forget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from headstrong import radius
from headstrong.analysis.hidden_records import STEALTHY
from headstrong.figures.hidden_looks import NAMES
from headstrong.report.blocks import number
from headstrong.report.hidden_verdicts import (
    ACCESS,
    NOT_ABOVE,
    WHICH,
    Harm,
    Row,
    Turn,
    beside,
    between,
    percent,
    plain,
    same_attack,
    share,
    strongest,
    variants,
    verdicts,
    words_of,
)
from headstrong.tasks import TASKS

TABLES = {
    "hidden": "attacks on hidden tasks, every task",
    "hidden_summary": "attacks on hidden tasks, means over which task is hidden",
    "forgetting": "what the attacker's copies forget",
}
NORMS = {"linf": "L∞", "l2": "L2"}
UNITS = {"classes": "points", "dense": "%"}
COMPARED = ("cf", "disruption", "noise", "oracle")  # columns of the table of turns


def context(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Everything the template asks for, by name; an empty list where the summary is absent or has no rows."""
    summary = tables.get("hidden_summary")
    if summary is None or summary.empty:
        return {"hidden": []}
    families = summary.groupby("family", sort=False)
    return {"hidden": [_family(str(name), part, tables) for name, part in families]}


def _family(name: str, summary: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """One family: a part for each norm, and what the copies forget."""
    kind = str(summary["kind"].iloc[0])
    hidden, forgotten = (_of(tables.get(table), name) for table in ("hidden", "forgetting"))
    norms = [norm for norm in NORMS if summary["norm"].eq(norm).any()]
    return {
        "family": name,
        "dataset": str(summary["dataset"].iloc[0]),
        "kind": kind,
        "unit": UNITS[kind],
        "parts": [_part(summary.loc[summary["norm"].eq(norm)], hidden, kind) for norm in norms],
        "forgetting": _forgetting(forgotten, kind),
    }


def _of(table: pd.DataFrame | None, family: str) -> pd.DataFrame:
    return pd.DataFrame() if table is None or table.empty else table.loc[table["family"].eq(family)]


def _part(of_norm: pd.DataFrame, hidden: pd.DataFrame, kind: str) -> dict[str, Any]:
    """One norm at its largest radius: every attack, the sentences, the chosen variant task by task and by radius."""
    part = of_norm.loc[of_norm["epsilon"].eq(of_norm["epsilon"].max())]
    chosen, _ = strongest(variants(part))
    turns = [] if chosen is None else _turns(part, chosen, hidden)
    return {
        "title": _threat(part.iloc[0]),
        "steps": _steps(part),
        "tasks": int(part["turns"].max()),
        "lines": _lines(part, chosen),
        "says": [*_not_learned(part), *verdicts(part, turns, UNITS[kind])],
        "chosen": "" if chosen is None else words_of(chosen),
        "radii": [] if chosen is None else _radii(of_norm, chosen),
        "turns": _turn_table(turns, kind),
    }


def _not_learned(part: pd.DataFrame) -> list[str]:
    """The tasks that the network did not learn; older tables do not say."""
    names = str(part["not_learned"].iloc[0]) if "not_learned" in part else ""
    if not names:
        return []
    return [
        f"Not learned: {', '.join(names.split())}. The accuracy is not clearly above that of the majority class, so "
        "these tasks take no turn and do not count as visible and undamaged."
    ]


def _threat(row: Row) -> str:
    return f"{NORMS[row['norm']]}, radius {radius.text(row['epsilon'], row['norm'])}"


def _steps(part: pd.DataFrame) -> str:
    """The steps of all attacks but noise, which has none; "" where they differ."""
    steps = part.loc[part["objective"].ne("noise"), "steps"].unique()
    return "" if len(steps) != 1 else "1 step" if steps[0] == 1 else f"{steps[0]} steps"


def _lines(part: pd.DataFrame, chosen: Row | None) -> list[dict[str, Any]]:
    """Every attack in the order of NAMES, then access and stealth; the name of an objective stands once."""
    places = {"objective": list(NAMES), "access": list(ACCESS)}
    rows = part.sort_values(
        ["objective", "access", "stealth", "steps"],
        key=lambda column: column.map(places[column.name].index) if column.name in places else column,
    )
    several, before = _steps(part) == "", ""
    lines = []
    for row in rows.to_dict("records"):
        name = NAMES[row["objective"]]
        lines.append(
            {
                "attack": "" if name == before else name,
                "access": row["access"] or "–",
                "stealth": f"{row['stealth']:g}" if row["objective"] in STEALTHY else "–",
                "steps": f"{row['steps']}" if several else "",
                **_numbers(row),
                "chosen": chosen is not None and same_attack(row, chosen),
            }
        )
        before = name
    return lines


def _numbers(row: Row) -> dict[str, Any]:
    return {
        "hidden": _estimate(row["hidden_damage"], row["hidden_damage_error"], row["kind"]),
        "visible": _estimate(row["visible_damage"], row["visible_damage_error"], row["kind"]),
        "worst": plain(row["visible_worst"]),
        "visible_share": share(row["visible_share"], row["visible_damage"], row["hidden_damage"]),
        "over_noise": share(row["over_noise"], row["hidden_damage"], row["noise_damage"], number, instead=NOT_ABOVE),
        "oracle_share": share(row["oracle_share"], row["hidden_damage"], row["oracle_damage"]),
    }


def _estimate(value: float, error: float, kind: str) -> tuple[str, str]:
    return plain(value), between(value, error, kind)


def _radii(of_norm: pd.DataFrame, chosen: Row) -> list[dict[str, Any]]:
    """The chosen variant at every radius of its norm, small to large; empty where there is but one."""
    found = []
    for _, part in of_norm.groupby("epsilon"):
        rows = part.loc[part["access"].eq(chosen["access"])]
        row = beside(rows, chosen, chosen["objective"])
        if row is not None:
            found.append({"radius": radius.text(row["epsilon"], row["norm"]), **_numbers(row)})
    return found if len(found) > 1 else []


def _turns(part: pd.DataFrame, chosen: Row, hidden: pd.DataFrame) -> list[Turn]:
    """The chosen variant, and what it is compared with at equal stealth, for each task that is hidden in turn."""
    if hidden.empty:
        return []
    attacks = {"cf": chosen} | {name: beside(part, chosen, name) for name in COMPARED if name != "cf"}
    rows = {name: hidden.loc[_same(hidden, row)] for name, row in attacks.items() if row is not None}
    turns = []
    for task in dict.fromkeys(hidden["hidden"]):
        own = {name: of.loc[of["hidden"].eq(task)] for name, of in rows.items()}
        harms = {name: _harm(of) for name, of in own.items() if len(of)}
        if "cf" in harms:
            clean = own["cf"].loc[own["cf"]["role"].eq("hidden"), "clean"].mean()
            turns.append(Turn(str(task), float(clean), harms))
    return turns


def _same(hidden: pd.DataFrame, row: Row) -> pd.Series:
    """Which rows of hidden.csv are of an attack of the summary."""
    same = pd.Series(True, index=hidden.index)
    for name in WHICH:
        column = hidden[name]
        same &= column.eq(row[name]) if isinstance(row[name], str) else np.isclose(column.astype(float), row[name])
    return same


def _harm(rows: pd.DataFrame) -> Harm:
    own, others = rows.loc[rows["role"].eq("hidden")], rows.loc[rows["role"].eq("visible")]
    return Harm(float(own["damage"].mean()), float(own["damage_error"].mean()), float(others["damage"].mean()))


def _turn_table(turns: Sequence[Turn], kind: str) -> dict[str, Any]:
    """A line per hidden task: its clean number, then hidden and mean visible damage of each attack that has any."""
    attacks = [name for name in COMPARED if any(name in turn.harms for turn in turns)]
    nothing = Harm(math.nan, math.nan, math.nan)
    lines = []
    for turn in turns:
        harms = [turn.harms.get(name, nothing) for name in attacks]
        cells = [{"hidden": _estimate(harm.hidden, harm.error, kind), "visible": plain(harm.visible)} for harm in harms]
        lines.append({"task": _task(turn.task, kind), "clean": _clean(turn.clean, kind), "cells": cells})
    return {"attacks": ["this variant" if name == "cf" else NAMES[name] for name in attacks], "lines": lines}


def _task(task: str, kind: str) -> str:
    """The name of a task; letters of dense tasks with their title."""
    return f"{task}: {TASKS[task].title.lower()}" if kind == "dense" and task in TASKS else task


def _clean(value: float, kind: str) -> str:
    return plain(value) if kind == "classes" else number(value)


def _forgetting(table: pd.DataFrame, kind: str) -> dict[str, Any] | None:
    """What the copies have lost after their last epoch under the true heads, by access and hidden task; None if no
    copy was trained."""
    if table.empty:
        return None
    last = table.groupby(["access", "hidden"])["epoch"].transform("max")
    ends = table.loc[table["epoch"].eq(last) & last.gt(0)]
    accesses = [access for access in ACCESS if ends["access"].eq(access).any()]
    if not accesses:
        return None
    starts = table.loc[table["epoch"].eq(0) & table["role"].eq("hidden")].groupby("hidden")["value"].mean()
    lines = []
    for task in dict.fromkeys(ends["hidden"]):
        of_task = ends.loc[ends["hidden"].eq(task)]
        cells = [_forgot(of_task.loc[of_task["access"].eq(access)]) for access in accesses]
        clean = _clean(float(starts.get(task, math.nan)), kind)
        lines.append({"task": _task(str(task), kind), "clean": clean, "cells": cells})
    return {
        "accesses": [ACCESS[access] for access in accesses],
        "lines": lines,
        "says": [_forgetting_says(ends.loc[ends["access"].eq(access)], access, kind) for access in accesses],
    }


def _forgot(rows: pd.DataFrame) -> dict[str, str]:
    """One copy: loss of the hidden task and of the visible ones on average, and how far its features have moved."""
    own, others = (rows.loc[rows["role"].eq(role), "damage"].mean() for role in ("hidden", "visible"))
    return {"hidden": plain(own), "visible": plain(others), "distance": percent(rows["distance"].mean())}


def _forgetting_says(ends: pd.DataFrame, access: str, kind: str) -> str:
    """Means over the hidden tasks, and for how many the copy loses more of the hidden task than of the visible ones."""
    lost = ends.pivot_table(index="hidden", columns="role", values="damage", aggfunc="mean")
    lost = lost.reindex(columns=["hidden", "visible"])
    own, others = lost["hidden"], lost["visible"]
    least, most = int(ends["epoch"].min()), int(ends["epoch"].max())
    epochs = f"{least} to {most} epochs" if least != most else "1 epoch" if most == 1 else f"{most} epochs"
    place = f"{ACCESS[access][:1].upper()}{ACCESS[access][1:]}, after" if access else "After"
    numbers = (plain(own.mean()), plain(others.mean()))
    lost_words = (
        "the hidden task has lost {} points of accuracy, the visible tasks {}"
        if kind == "classes"
        else "the error of the hidden task has risen by {} % of what it was, that of the visible tasks by {} %"
    )
    more = int(own.gt(others).sum())
    kept = ends.loc[ends["learned"].eq("no"), "hidden"].unique() if "learned" in ends else []
    unlearned = f" Not learned: the copy has not clearly forgotten {', '.join(kept)}." if len(kept) else ""
    return (
        f"{place} {epochs}: {lost_words.format(*numbers)} (means over {len(lost)} hidden "
        f"{'task' if len(lost) == 1 else 'tasks'}). The copy has lost more of the hidden task than of the visible ones "
        f"for {more} of {len(lost)}.{unlearned}"
    )
