"""Damage of each task in the turn in which it is the hidden one, by objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headstrong.figures import frames, style
from headstrong.figures import hidden_looks as looks

COLUMNS = ("family", "kind", "hidden", "attack", *looks.KEYS, "task", "role", "damage", "damage_error")
GROUP = ["hidden", "objective", "access", "stealth"]
ROW = 0.165  # inches of one line of a panel
SIDES = {"heads": 0.17, "backbone": -0.17, "": 0.0}
VISIBLE: Mapping[str, Any] = {"marker": "s", "ms": 2.8, "mfc": "none", "mec": "#444444", "mew": 0.7, "ls": ""}


def values(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per hidden task, objective, access and stealth: (*GROUP, damage, error, visible).

    rows: of hidden.csv, attacks of one radius. damage, error: of the hidden task, points or percent; of objectives with
    several attacks in a turn (single) the mean of both, which for the error is an upper bound. visible: mean over the
    visible tasks.
    """
    hidden = rows.loc[rows["role"].eq("hidden")].groupby(GROUP, sort=False)
    visible = rows.loc[rows["role"].eq("visible")].groupby(GROUP, sort=False)["damage"].mean()
    means = hidden[["damage", "damage_error"]].mean().rename(columns={"damage_error": "error"})
    return means.join(visible.rename("visible")).reset_index()


def draw(table: pd.DataFrame | None, family: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """Of one family, a panel per hidden task: its damage by objective, and the mean damage of the visible tasks.

    table: hidden.csv. Attacks of the largest radius, without stealth and with the largest weight that all objectives
    have which vary it. Bars are standard errors.
    Raises MissingDataError when the table or the family is absent.
    """
    part = looks.of_family(table, "hidden", COLUMNS, family)
    shown = looks.at_largest(part, "hidden")
    kind = looks.kind_of(shown.rows)
    weight = looks.shared_stealth(shown.rows)
    found = values(shown.rows.loc[shown.rows["stealth"].isin([0.0, weight])])
    tasks = list(dict.fromkeys(table.loc[table["family"].eq(family), "hidden"])) if table is not None else []
    ways = list(dict.fromkeys(zip(found["objective"], found["stealth"], strict=True)))
    ways.sort(key=lambda way: (list(looks.NAMES).index(way[0]), way[1]))
    lines, columns = frames.grid_of(len(tasks))
    with style.context(settings) as whole:
        width = whole["width"] if columns > 1 else 0.75 * whole["width"]
        figure = style.new_figure(width, lines * (ROW * len(ways) + 0.5) + (1.35 if columns > 1 else 1.7))
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        spread = found[["damage", "visible"]].to_numpy(float).ravel()
        for panel, task in zip(panels.flat, tasks, strict=False):
            _draw_task(panel, found.loc[found["hidden"].eq(task)], ways)
            wide = looks.set_scale(panel, kind, spread, "x")
            panel.set_title(looks.title_words(looks.task_words(str(task), kind)), fontsize=8)
        for panel in panels.flat[len(tasks) :]:
            panel.set_visible(False)
        panels[0, 0].set_yticks(range(len(ways)), [_way(*way) for way in ways])
        panels[0, 0].set_ylim(len(ways) - 0.4, -0.6)
        label = "Accuracy lost (points)" if kind == "classes" else "Error grows by (%)"
        looks.label_lowest(panels, label)
        stealth = f", stealth 0 and {weight:g}" if weight else ", stealth 0"
        looks.heading(figure, f"{family}: each task hidden in turn, {shown.words}{stealth}{looks.scale_words(wide)}")
        figure.legend(handles=_handles(found), loc="outside lower center", ncols=2)
        return figure


def _draw_task(panel: Any, rows: pd.DataFrame, ways: Sequence[tuple[str, float]]) -> None:
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")
    panel.axvline(0, color="#333333", lw=0.7, zorder=1)
    for number, (objective, stealth) in enumerate(ways):
        here = rows.loc[rows["objective"].eq(objective) & rows["stealth"].eq(stealth)]
        if number and ways[number - 1][0] != objective:
            panel.axhline(number - 0.5, color="#E3E3E3", lw=0.5, zorder=0)
        for row in here.to_dict("records"):
            y = number - (SIDES[row["access"]] if len(here) > 1 else 0.0)
            look = looks.point(objective, row["access"], 3.9)
            bars = {"elinewidth": 0.9, "capsize": 0, "ecolor": look["color"], "zorder": 3}
            panel.errorbar(row["damage"], y, xerr=row["error"], ls="", label=objective, **look, **bars)
            panel.plot(row["visible"], y, zorder=4, label="visible", **VISIBLE)
    panel.tick_params(axis="y", length=0, labelsize=7)


def _way(objective: str, stealth: float) -> str:
    return looks.NAMES[objective] + (f", stealth {stealth:g}" if stealth else "")


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    """Rows of the panels have the names of the objectives; the legend says what the marks are."""
    return [*looks.fill_handles(rows), Line2D([], [], label="mean of the visible tasks", **VISIBLE)]
