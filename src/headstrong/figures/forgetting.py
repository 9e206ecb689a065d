"""What the attacker's copy forgets: each task under the true heads, epoch by epoch of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from headstrong.errors import MissingDataError
from headstrong.figures import frames, style
from headstrong.figures import hidden_looks as looks

COLUMNS = ("family", "kind", "hidden", "access", "epoch", "task", "role", "value", "damage")
LOOKS: Mapping[str, dict[str, Any]] = {
    "heads": {"color": "#D55E00", "marker": "D", "ls": "-", "mfc": "#D55E00"},
    "backbone": {"color": "#0072B2", "marker": "o", "ls": (0, (3, 1.4)), "mfc": "white"},
}
GREY = "#9A9A9A"
WORDS: Mapping[str, str] = {
    "heads": "trained under the visible heads",
    "backbone": "trained under heads of its own",
}


def draw(table: pd.DataFrame | None, family: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """Of one family, a panel per hidden task: accuracy in percent by epoch; errors of dense tasks, whose units differ,
    in percent more than before training. The hidden task thick and coloured, visible tasks thin and grey.

    table: forgetting.csv. Raises MissingDataError when the table or the family is absent, or nothing was trained.
    """
    part = looks.of_family(table, "forgetting", COLUMNS, family)
    part = part.loc[part["access"].isin(list(LOOKS))].astype({"epoch": float})
    if part["epoch"].nunique() < 2:
        raise MissingDataError(f"forgetting.csv: no copy of {family} was trained for an epoch or more")
    kind = looks.kind_of(part)
    column = "value" if kind == "classes" else "damage"
    tasks = list(dict.fromkeys(part["hidden"]))
    lines, columns = frames.grid_of(len(tasks))
    with style.context(settings) as whole:
        width = whole["width"] if columns > 1 else 0.7 * whole["width"]
        figure = style.new_figure(width, 1.75 * lines + (1.05 if columns > 1 else 1.4))
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for panel, task in zip(panels.flat, tasks, strict=False):
            _draw_task(panel, part.loc[part["hidden"].eq(task)], column)
            wide = looks.set_scale(panel, kind, part[column])
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            panel.set_title(looks.title_words(looks.task_words(str(task), kind)), fontsize=8)
        for panel in panels.flat[len(tasks) :]:
            panel.set_visible(False)
        looks.label_lowest(panels, "Epoch of the copy")
        for panel in panels[:, 0]:
            panel.set_ylabel("Accuracy (%)" if kind == "classes" else "Error, more than\nat epoch 0 (%)")
        looks.heading(
            figure, f"{family}: the copy under the true heads, a panel per hidden task{looks.scale_words(wide)}"
        )
        figure.legend(handles=_handles(part), loc="outside lower center", ncols=2 if columns > 1 else 1)
        return figure


def _draw_task(panel: Any, rows: pd.DataFrame, column: str) -> None:
    for access, look in LOOKS.items():
        here = rows.loc[rows["access"].eq(access)].sort_values("epoch", kind="stable")
        for task, line in here.loc[here["role"].eq("visible")].groupby("task", sort=False):
            panel.plot(line["epoch"], line[column], color=GREY, lw=0.7, ls=look["ls"], zorder=2, label=str(task))
        for _, line in here.loc[here["role"].eq("hidden")].groupby("task", sort=False):
            panel.plot(line["epoch"], line[column], lw=2, ms=3.6, zorder=4, label=f"hidden, {access}", **look)


def _handles(part: pd.DataFrame) -> list[Line2D]:
    there = [access for access in LOOKS if part["access"].eq(access).any()]
    hidden = [Line2D([], [], lw=2, ms=3.6, label=f"hidden task, {WORDS[a]}", **LOOKS[a]) for a in there]
    visible = [Line2D([], [], lw=0.7, color=GREY, ls=LOOKS[a]["ls"], label=f"visible tasks, {WORDS[a]}") for a in there]
    return hidden + visible
