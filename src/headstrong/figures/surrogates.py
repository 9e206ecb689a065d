"""Scatter plots behind Table 3 of Ghamizi et al. (2022): a cheap proxy against the number it should tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from headstrong.analysis.stats import group_means
from headstrong.analysis.surrogates import KEY, Comparison
from headstrong.errors import MissingDataError
from headstrong.figures import style
from headstrong.tasks import TASKS

SHOWN = 30  # points up to which each carries the letter of its auxiliary task
TITLE_SIZE = 7.5  # what fits above half a page


def draw(comparisons: list[Comparison], table: pd.DataFrame, settings: Mapping[str, Any] | None = None) -> Figure:
    """One column per comparison (the same surrogate under the single and the multi attack). Above: all cells. Below:
    each cell divided by the geometric mean of its main task, which leaves what an auxiliary task changes.

    Marker and colour are the main task, the small letter the auxiliary task, bars standard errors.
    comparisons: from `analysis.surrogates.comparisons`; table: surrogates.csv, for the correlations in the titles.
    The lower row is absent when a cell is not positive. Raises MissingDataError when no cell has both numbers.
    """
    joined = [_joined(comparison) for comparison in comparisons]
    if any(part.empty for part in joined):
        raise MissingDataError(f"scatter plot {comparisons[0].proxy} against {comparisons[0].target}: no cell has both")
    positive = all((part[["value_x", "value_y"]] > 0).all(axis=None) for part in joined)
    with style.context(settings) as whole:
        lines = 2 if positive else 1
        figure = style.new_figure(whole["width"], 2.8 * lines + 0.5)
        panels = figure.subplots(lines, len(comparisons), squeeze=False)
        for column, (comparison, points) in enumerate(zip(comparisons, joined, strict=True)):
            _draw_above(panels[0, column], comparison, points, table, positive)
            if positive:
                _draw_below(panels[1, column], comparison, points, table)
        used = set().union(*(set(points["main"]) for points in joined))
        handles = [Line2D([], [], ls="", label=letter, **style.marker(letter)) for letter in TASKS if letter in used]
        legend = figure.legend(handles=handles, title="Main task", loc="outside lower center", ncols=len(handles))
        legend.get_title().set_fontsize(7.5)
        return figure


def _joined(comparison: Comparison) -> pd.DataFrame:
    columns = [*KEY, "value", "standard_error"]
    return comparison.proxy_cells[columns].merge(comparison.target_cells[columns], on=KEY, suffixes=("_x", "_y"))


def _draw_above(panel: Any, comparison: Comparison, points: pd.DataFrame, table: pd.DataFrame, positive: bool) -> None:
    _draw_points(panel, points, letters=False)
    words = "main task attacked" if comparison.attack == "single" else "all tasks attacked"
    r = _correlation(comparison, table, "pooled")
    panel.set_title(f"{words}: r = {r} pooled, n = {len(points)}", fontsize=TITLE_SIZE)
    panel.set_xlabel(_axis(comparison, comparison.proxy))
    panel.set_ylabel(_axis(comparison, comparison.target))
    if positive:
        panel.set_xscale("log")
        panel.set_yscale("log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(LogLocator(numticks=6))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_below(panel: Any, comparison: Comparison, points: pd.DataFrame, table: pd.DataFrame) -> None:
    centred = points.copy()
    for side in ("x", "y"):
        middle = np.exp(group_means(np.log(points[f"value_{side}"]), points["main"]))
        centred[f"value_{side}"] = points[f"value_{side}"] / middle
        centred[f"standard_error_{side}"] = points[f"standard_error_{side}"] / middle
    _draw_points(panel, centred, letters=len(points) <= SHOWN)
    panel.axhline(1, color="#8C8C8C", lw=0.7, zorder=1)
    panel.axvline(1, color="#8C8C8C", lw=0.7, zorder=1)
    panel.set_title(f"within a main task: r = {_correlation(comparison, table, 'within')}", fontsize=TITLE_SIZE)
    panel.set_xlabel(f"{comparison.proxy} / mean of main task")
    panel.set_ylabel(f"{comparison.target}\n/ mean of main task")


def _draw_points(panel: Any, points: pd.DataFrame, letters: bool) -> None:
    panel.grid(visible=True, axis="both")
    for row in points.to_dict("records"):
        x, y = row["value_x"], row["value_y"]
        bars = {"xerr": row["standard_error_x"], "yerr": row["standard_error_y"]}
        bars = {key: None if math.isnan(size) else size for key, size in bars.items()}
        look = style.marker(row["main"])
        panel.errorbar(x, y, **bars, ecolor="#777777", elinewidth=0.7, capsize=0, ms=4.5, zorder=3, **look)
        if letters and row["auxiliary"]:
            panel.annotate(
                row["auxiliary"],
                (x, y),
                xytext=(3.5, 2.5),
                textcoords="offset points",
                size=6.5,
                color="#111111",
                zorder=4,
            )


def _correlation(comparison: Comparison, table: pd.DataFrame, scope: str) -> str:
    rows = table.loc[
        table["surrogate"].eq(comparison.surrogate)
        & table["proxy"].eq(comparison.proxy)
        & table["target"].eq(comparison.target)
        & table["attack"].eq(comparison.attack)
        & table["statistic"].eq("pearson")
        & table["scope"].eq(scope)
    ]
    value = float(rows["value"].iloc[0]) if len(rows) else math.nan
    return "none" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _axis(comparison: Comparison, name: str) -> str:
    return name if comparison.surrogate == "clean performance" else f"Relative vulnerability, {name}"
