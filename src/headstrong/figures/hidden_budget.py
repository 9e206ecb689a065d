"""What attacks on hidden tasks do to the hidden task and to the visible ones, as their radius grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headstrong.errors import MissingDataError
from headstrong.figures import frames, style
from headstrong.figures import hidden_looks as looks
from headstrong.figures.hidden_tradeoff import COLUMNS

BARS: Mapping[str, Any] = {"elinewidth": 0.6, "capsize": 0}
HIDDEN, VISIBLE = "-", (0, (3, 1.6))
MOST_TICKS = 7


def radii(part: pd.DataFrame, family: str) -> pd.DataFrame:
    """Rows of the norm shown, which is one that was run with two radii or more, each by its longest attack.

    part: rows of hidden_summary.csv, of one family. Raises MissingDataError when every norm was run with one radius.
    """
    attacks = part.loc[part["objective"].ne("noise")]
    counts = attacks["epsilon"].astype(float).round(9).groupby(attacks["norm"]).nunique()
    several = attacks.loc[attacks["norm"].isin(counts.index[counts.ge(2)])]
    if several.empty:
        raise MissingDataError(
            f"hidden_summary.csv: {family} was attacked with one epsilon only; set several in the config"
        )
    return looks.longest(part.loc[part["norm"].eq(looks.main_norm(several))]).reset_index(drop=True)


def draw(table: pd.DataFrame | None, family: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """Of one family, a panel per access and stealth: hidden (solid) and visible (dashed) damage against the radius.

    table: hidden_summary.csv. Stealth: 0, and the largest weight there is, where the objectives without one are absent
    but for noise. Attacks that need no head stand in the panels of every access. Bars are standard errors.
    Raises MissingDataError when the table or the family is absent, or there is one radius only.
    """
    rows = radii(looks.of_family(table, "hidden_summary", COLUMNS, family), family)
    kind, norm = looks.kind_of(rows), str(rows["norm"].iloc[0])
    found = panels_of(rows)
    lines, columns = frames.grid_of(len(found))
    with style.context(settings) as whole:
        width = whole["width"] if columns > 1 else 0.7 * whole["width"]
        figure = style.new_figure(width, 2.3 * lines + (1.15 if columns > 1 else 1.5))
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        unit, words_of_axis = frames.radius_axis(norm)
        values = pd.concat(part for _, _, part in found)[["hidden_damage", "visible_damage"]].to_numpy(float).ravel()
        for panel, (access, stealth, part) in zip(panels.flat, found, strict=False):
            panel.axhline(0, color="#333333", lw=0.6, zorder=1)
            for objective in looks.NAMES:
                _draw_objective(panel, objective, part.loc[part["objective"].eq(objective)], unit)
            words = f"{looks.ACCESSES[access]}, " if access else ""
            panel.set_title(f"{words}stealth {stealth:g}", fontsize=8)
            wide = looks.set_scale(panel, kind, values)
        for panel in panels.flat[len(found) :]:
            panel.set_visible(False)
        ticks = sorted({round(unit * float(value), 6) for value in rows["epsilon"]})
        if len(ticks) <= MOST_TICKS:
            panels[0, 0].set_xticks(ticks, [f"{value:.4g}" for value in ticks])
        looks.label_lowest(panels, words_of_axis)
        for panel in panels[:, 0]:
            panel.set_ylabel(looks.damage_words(kind, "Damage").replace(": ", ":\n"))
        words = f"mean over which task is hidden, {frames.norm_words(norm)}, {looks.steps_words(rows)}"
        looks.heading(figure, f"{family}: {words}{looks.scale_words(wide)}")
        figure.legend(handles=_handles(rows), loc="outside lower center", ncols=4 if columns > 1 else 2)
        return figure


def panels_of(rows: pd.DataFrame) -> list[tuple[str, float, pd.DataFrame]]:
    """(access, stealth, rows) of each panel: what an attacker with this access can do, and the controls.

    rows: from `radii`.
    """
    accesses = [access for access in looks.ACCESSES if rows["access"].eq(access).any()] or [""]
    weights = [0.0, *looks.stealths(rows)[-1:]]
    found = []
    for access in accesses:
        for weight in weights:
            part = rows.loc[rows["access"].isin([access, ""])]
            part = part.loc[part["stealth"].eq(weight) | part["objective"].eq("noise")]
            if (~part["objective"].isin(looks.CONTROLS)).any():
                found.append((access, weight, part))
    return found or [(accesses[0], 0.0, rows.loc[rows["stealth"].eq(0)])]


def _draw_objective(panel: Any, objective: str, rows: pd.DataFrame, unit: float) -> None:
    if rows.empty:
        return
    # One that needs no head at some weight and heads at others is one attack at this weight.
    rows = rows.sort_values(["epsilon", "access"], kind="stable").drop_duplicates("epsilon", keep="last")
    look = looks.point(objective, "heads", 4.2)
    x = unit * rows["epsilon"].astype(float)
    for name, dashes, face in (("hidden", HIDDEN, look["markerfacecolor"]), ("visible", VISIBLE, "white")):
        drawn = {**look, "markerfacecolor": face, "ls": dashes, "lw": 1.1, "label": f"{objective} {name}"}
        if name == "visible":
            drawn |= {"ms": 0.75 * look["ms"], "markeredgecolor": look["color"]}
        panel.errorbar(x, rows[f"{name}_damage"], rows[f"{name}_damage_error"], zorder=3, **drawn, **BARS)


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    grey: dict[str, Any] = {"color": "#555555", "lw": 1.1, "marker": "o"}
    return [
        *looks.handles(rows),
        Line2D([], [], ls=HIDDEN, ms=4.2, label="hidden task", **grey),
        Line2D([], [], ls=VISIBLE, ms=3.2, markerfacecolor="white", label="visible tasks", **grey),
    ]
