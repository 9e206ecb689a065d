"""What each protocol switch changes: a model and its base, which differ in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from headstrong.analysis.tables import AttackChoice, select
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style

COLUMNS = ("model", "switch", "attack", "task", "metric", "relative_difference")
METRICS = {
    "clean_error": "Error without attack",
    "adversarial_error": "Error under attack",
    "relative_task_vulnerability": "Relative task vulnerability",
    "adversarial_vulnerability": "Adversarial vulnerability",
}
JOINT: dict[str, Any] = {"marker": "d", "color": "#BFBFBF", "markeredgecolor": "#333333", "markeredgewidth": 0.6}
LINE, LEAST_LINES = 0.125, 2.7  # inches of one line of a label, lines that a row takes at least
LINEAR = 10.0  # percent up to which the axis is linear


def differences(switches: pd.DataFrame | None, vulnerability: pd.DataFrame, choice: AttackChoice) -> pd.DataFrame:
    """Rows (switch, metric, task, percent): relative differences without attack and under the chosen one.

    switches, vulnerability: the tables of these names. task: "" for the joint metric. Raises MissingDataError when
    there are none.
    """
    table = frames.need(switches, "switches", COLUMNS)
    names = set(select(vulnerability, choice)["attack"])
    chosen = table["metric"].eq("clean_error") | table["attack"].isin(names)
    table = table.loc[chosen & table["metric"].isin(list(METRICS)) & np.isfinite(table["relative_difference"])]
    if table.empty:
        raise MissingDataError(f"switches.csv: no model differs from its base under {choice.family}, or without attack")
    found = table.assign(
        switch=frames.text(table["switch"]),
        task=frames.text(table["task"]),
        percent=100 * table["relative_difference"].astype(float),
    )
    return found[["switch", "metric", "task", "percent"]].reset_index(drop=True)


def draw(
    switches: pd.DataFrame | None,
    vulnerability: pd.DataFrame,
    choice: AttackChoice,
    settings: Mapping[str, Any] | None = None,
) -> Figure:
    """One row per switch, one panel per metric; dots are models, tasks and attacked sets, the bar is their median.

    The axis is linear within LINEAR percent and logarithmic beyond when a difference passes 100 %.
    Raises MissingDataError as `differences`.
    """
    table = differences(switches, vulnerability, choice)
    names = sorted(set(table["switch"]))
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    with style.context(settings) as whole:
        labels = [name.replace(";", "\n").replace("=", " = ") for name in names]
        places, bottom = _places(labels)
        figure = style.new_figure(whole["width"], LINE * bottom + 1.4)
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, metrics, strict=True):
            part = table.loc[table["metric"].eq(metric)]
            _draw_panel(panel, part, dict(zip(names, places, strict=True)))
            _set_axis(panel, part["percent"].to_numpy())
            panel.set_title("\n".join(_two_lines(METRICS[metric])), fontsize=8)
        panels[0].set_yticks(places, labels)
        panels[0].set_ylim(bottom, 0)
        figure.suptitle("Models under a switch, against the study's own protocol", x=0.01, ha="left", fontsize=8.5)
        letters = frames.task_order(table["task"])
        handles = [Line2D([], [], ls="", label=letter, **style.marker(letter)) for letter in letters]
        if table["task"].eq("").any():
            handles.append(Line2D([], [], ls="", label="all tasks together", **JOINT))
        handles.append(Line2D([], [], ls="", marker="|", ms=11, mew=1.6, color="#111111", label="median"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 9))
        return figure


def _places(labels: list[str]) -> tuple[list[float], float]:
    """Where the rows stand, in lines of text from the top, and where the last one ends."""
    heights = [max(LEAST_LINES, label.count("\n") + 1.6) for label in labels]
    ends = list(np.cumsum(heights))
    return [float(end - height / 2) for end, height in zip(ends, heights, strict=True)], float(ends[-1])


def _draw_panel(panel: Any, part: pd.DataFrame, places: Mapping[str, float]) -> None:
    panel.grid(visible=True, axis="both")
    panel.axvline(0, color="#333333", lw=0.8, zorder=1)
    letters = ["", *frames.task_order(part["task"])]
    shifts = dict(zip(letters, np.linspace(-0.8, 0.8, len(letters)) if len(letters) > 1 else [0.0], strict=True))
    for name, line in places.items():
        these = part.loc[part["switch"].eq(name)]
        for letter, group in these.groupby("task"):
            look = {**(style.marker(str(letter)) if letter else JOINT), "markeredgewidth": 0.4}
            y = np.full(len(group), line + (shifts[str(letter)] if len(letters) > 2 else 0.0))
            panel.plot(group["percent"], y, ls="", ms=3.6, alpha=0.85, zorder=3, **look)
        if len(these):
            panel.plot(these["percent"].median(), line, ls="", marker="|", ms=15, mew=1.6, color="#111111", zorder=4)
    panel.tick_params(axis="y", length=0)


def _set_axis(panel: Any, percent: np.ndarray[Any, Any]) -> None:
    largest = float(np.abs(percent).max())
    if largest > 100:
        panel.set_xscale("symlog", linthresh=LINEAR, linscale=0.6)
        locator = SymmetricalLogLocator(base=10, linthresh=LINEAR)
        locator.set_params(numticks=3)  # four panels in seven inches: more labels would run into each other
        panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    panel.tick_params(axis="x", labelsize=6.5)
    panel.set_xlabel("Difference (%)")


def _two_lines(words: str) -> list[str]:
    first, *rest = words.split(" ")
    return [first, " ".join(rest)] if rest else [first]
