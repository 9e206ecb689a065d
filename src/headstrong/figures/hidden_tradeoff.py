"""What an attack on a task that it cannot see does to this task, against what it does to the tasks that it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from headstrong.figures import hidden_looks as looks
from headstrong.figures import style

COLUMNS = (
    *("family", "kind", *looks.KEYS),
    *("hidden_damage", "hidden_damage_error", "visible_damage", "visible_damage_error"),
)
THIRD = 3.0  # hidden over visible damage on the dashed line
THIRD_LOOK: Mapping[str, Any] = {"color": "#555555", "lw": 0.9, "ls": (0, (5, 3))}
BARS: Mapping[str, Any] = {"ls": "", "elinewidth": 0.6, "capsize": 0, "alpha": 0.5, "zorder": 2}
MARKER = 3.4  # points from the middle of a marker to its edge
HALO = withStroke(linewidth=1.6, foreground="white")
# Where the number of a point may stand, in points from it: beside it last, where a bar would look like a minus sign.
PLACES = ((0, 7), (0, -7), (6, 6), (-6, 6), (6, -6), (-6, -6), (7, 0), (-7, 0), (0, 12), (0, -12), (11, 0), (-11, 0))


def draw(table: pd.DataFrame | None, family: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """Of one family, hidden against visible damage, means over which task is hidden, at the largest radius.

    table: hidden_summary.csv. A line joins the weights of stealth of an objective, in their order; numbers are the
    weights, left out where there is no room. Bars are standard errors.
    Raises MissingDataError when the table or the family is absent.
    """
    shown = looks.at_largest(looks.of_family(table, "hidden_summary", COLUMNS, family), "hidden_summary")
    rows = shown.rows
    kind = looks.kind_of(rows)
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], 0.68 * whole["width"])
        panel = figure.subplots()
        panel.grid(visible=True, axis="both")
        for objective, access, line in looks.lines(rows):
            _draw_line(panel, objective, access, line)
        values = rows[["hidden_damage", "visible_damage"]].to_numpy(float).ravel()
        wide = looks.set_scale(panel, kind, values, "xy")
        panel.margins(0.07)
        panel.axhline(0, color="#333333", lw=0.6, zorder=1)
        panel.axvline(0, color="#333333", lw=0.6, zorder=1)
        _draw_third(panel)
        panel.set_xlabel(looks.damage_words(kind, "Visible tasks"))
        panel.set_ylabel(looks.damage_words(kind, "Hidden task"))
        numbers = "; numbers: stealth" if looks.stealths(rows) else ""
        words = f"mean over which task is hidden, {shown.words}{numbers}{looks.scale_words(wide)}"
        looks.heading(figure, f"{family}: {words}")
        third = Line2D([], [], label="visible tasks lose a third of what the hidden task loses", **THIRD_LOOK)
        figure.legend(
            handles=[*looks.handles(rows), *looks.fill_handles(rows), third], loc="outside lower center", ncols=3
        )
        _write_weights(figure, panel, looks.lines(rows))
        return figure


def _draw_line(panel: Any, objective: str, access: str, rows: pd.DataFrame) -> None:
    look = looks.point(objective, access)
    x, y = rows["visible_damage"], rows["hidden_damage"]
    errors = {"xerr": rows["visible_damage_error"], "yerr": rows["hidden_damage_error"]}
    panel.errorbar(x, y, **errors, ecolor=look["color"], **BARS)
    panel.plot(x, y, color=look["color"], lw=0.9, alpha=0.8, zorder=3)
    own = rows.loc[rows["access"].eq(access)]  # the point that two accesses share is drawn as its own
    panel.plot(own["visible_damage"], own["hidden_damage"], ls="", zorder=4, label=objective, **look)


def _draw_third(panel: Any) -> None:
    """The line on which visible tasks lose a third of what the hidden one loses, as far as the panel shows it."""
    x_end, y_end = panel.get_xlim()[1], panel.get_ylim()[1]
    panel.set_xlim(panel.get_xlim())
    panel.set_ylim(panel.get_ylim())
    x = np.linspace(0, max(min(x_end, y_end / THIRD), 0), 200)
    panel.plot(x, THIRD * x, zorder=1.5, **THIRD_LOOK)


def _write_weights(figure: Figure, panel: Any, lines: Sequence[tuple[str, str, pd.DataFrame]]) -> None:
    """Numbers beside the points of lines of several weights, the ends first, each where it covers nothing."""
    figure.draw_without_rendering()  # places in the figure are known only now
    taken = [box for _, _, rows in lines for row in rows.to_dict("records") for box in _covered(figure, panel, row)]
    ends: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for _, _, rows in lines:
        known = rows.loc[rows["hidden_damage"].notna() & rows["visible_damage"].notna()].to_dict("records")
        if len(known) > 1:
            ends += [row for row in (known[-1], known[0]) if row not in ends]  # accesses may share the first
            others += known[1:-1]
    for row in ends + others:
        _write_weight(figure, panel, row, taken)


def _covered(figure: Figure, panel: Any, row: Mapping[str, Any]) -> list[Bbox]:
    """What a point covers, in pixels: its marker, and its bar to both sides."""
    x, y, error = row["visible_damage"], row["hidden_damage"], row["visible_damage_error"]
    error = 0.0 if np.isnan(error) else error
    (left, low), (middle, _), (right, _) = panel.transData.transform([(x - error, y), (x, y), (x + error, y)])
    if not np.isfinite((left, low, right)).all():
        return []
    half = MARKER * figure.dpi / 72
    return [Bbox([[middle - half, low - half], [middle + half, low + half]]), Bbox([[left, low - 1], [right, low + 1]])]


def _write_weight(figure: Figure, panel: Any, row: Mapping[str, Any], taken: list[Bbox]) -> None:
    inside = panel.get_window_extent()
    place = row["visible_damage"], row["hidden_damage"]
    look = {"fontsize": 6.5, "color": looks.LOOKS[row["objective"]]["color"], "path_effects": [HALO], "zorder": 6}
    for dx, dy in PLACES:
        side = "left" if dx > 0 else "right" if dx < 0 else "center"
        text = panel.annotate(
            f"{row['stealth']:g}", place, (dx, dy), textcoords="offset points", ha=side, va="center", **look
        )
        text.set_in_layout(False)
        box = text.get_window_extent(figure.canvas.get_renderer()).padded(1)  # type: ignore[attr-defined]
        within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if within and not box.count_overlaps(taken):
            taken.append(box)
            return
        text.remove()
