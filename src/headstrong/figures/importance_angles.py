"""How far pictures lie from the weight vector of their class, by loss: does a margin narrow the important class?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from headstrong.analysis import importance
from headstrong.analysis.importance_records import NEUTRAL
from headstrong.errors import MissingDataError
from headstrong.figures import frames, importance_grid, style
from headstrong.figures.importance_grid import NAMES

SHOWN = ("ce", "softmax", "arcface", "camri")
IMPORTANT_COLOUR, OTHERS_COLOUR, OTHERS_EDGE = "#D55E00", "#D9D9D9", "#7F7F7F"
FIRST = "worst1"
BINS = 40
Two = tuple[NDArray[np.float64], NDArray[np.float64]]
HEADROOM = 1.35  # above the highest bar, for the words in the corner
FEWEST = 0.002  # share of pictures that may lie beyond either end of the axis


def main_key(table: pd.DataFrame | None, family: str) -> tuple[str, tuple[str, ...]]:
    """The key of important classes shown of a family, worst1 or else the first, and its classes.

    table: camri_table_1.csv. Raises MissingDataError when it is absent or has no such family.
    """
    table = frames.need(table, "camri_table_1", importance_grid.CHOICE_COLUMNS)
    part = table.loc[table["family"].eq(family)].drop_duplicates("important").set_index("important")
    if part.empty:
        raise MissingDataError(f"camri_table_1.csv: no family {family}")
    key = FIRST if FIRST in part.index else str(part.index[0])
    return key, tuple(str(part.at[key, "classes"]).split("; "))


def draw(
    table: pd.DataFrame | None,
    choices: pd.DataFrame | None,
    path: Path | None,
    family: str,
    settings: Mapping[str, Any] | None = None,
) -> Figure:
    """Of one family, a panel per loss: angles of the test pictures to the weight vectors of their true classes.

    table: importance_settings.csv; choices: camri_table_1.csv, which says the settings; of a loss of which none keeps
    accuracy the most accurate is shown, and said to be so. path: the evaluation of the family. Trials are pooled.
    Raises MissingDataError when one of them is absent, BrokenFileError for an evaluation that cannot be read.
    """
    key, names = main_key(choices, family)
    picked = importance_grid.shown(table, choices, family, key)
    shown = [loss for loss in SHOWN if loss in picked]
    if path is None:
        raise MissingDataError(f"angles: no evaluation of the family {family}")
    found = _angles(path, key, {loss: picked[loss] for loss in shown}, names)
    edges = _edges([values for pair in found.values() for values in pair])
    columns = 1 if len(shown) == 1 else 2
    lines = math.ceil(len(shown) / columns)
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"] if columns > 1 else 0.6 * whole["width"], 1.75 * lines + 1.0)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for panel, loss in zip(panels.flat, shown, strict=False):
            _draw_loss(panel, *found[loss], edges)
            _title(panel, picked[loss])
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        for column in range(columns):
            lowest = [panel for panel in panels[:, column] if panel.get_visible()][-1]
            lowest.tick_params(labelbottom=True)
            lowest.set_xlabel("Angle to the weight vector of the true class (°)")
        panels[0, 0].set_ylim(0, HEADROOM * max(panel.dataLim.y1 for panel in panels.flat[: len(shown)]))
        for panel in panels[:, 0]:
            panel.set_ylabel("Pictures (% per degree)")
        importance_grid.heading(figure, family, key, names, "angles of the test pictures")
        handles = [
            Line2D(
                [],
                [],
                color=IMPORTANT_COLOUR,
                lw=1.6,
                label=shorten(f"important: {', '.join(names)}", 60, placeholder=" …"),
            ),
            Patch(facecolor=OTHERS_COLOUR, edgecolor=OTHERS_EDGE, label="other classes"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        return figure


def _angles(path: Path, key: str, picked: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Two]:
    """By loss, angles in degrees of the important classes' pictures and of all others, over the trials of its setting.

    picked: by loss, the row that says the setting. One reading for all losses: files are large.
    """
    trials = importance.trials(path)
    ids = {}
    for loss, row in picked.items():
        wanted = "" if loss in NEUTRAL else key
        same = trials["loss"].eq(loss) & trials["important"].eq(wanted) & importance_grid.same_setting(trials, row)
        ids[loss] = list(trials.loc[same, "id"])
    frame = importance.angles(path, [one for group in ids.values() for one in group])
    important = frame["truth"].isin(names)
    return {
        loss: (
            frame.loc[frame["loss"].eq(loss) & important, "angle"].to_numpy(float),
            frame.loc[frame["loss"].eq(loss) & ~important, "angle"].to_numpy(float),
        )
        for loss in picked
    }


def _edges(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Borders of bins (BINS + 1,) in degrees that hold nearly all of each array (n,)."""
    known = [each for each in values if each.size]
    if not known:
        return np.linspace(0, 180, BINS + 1)
    low = min(float(np.quantile(each, FEWEST)) for each in known)
    high = max(float(np.quantile(each, 1 - FEWEST)) for each in known)
    return np.linspace(math.floor(low), max(math.ceil(high), math.floor(low) + 1), BINS + 1)


def _draw_loss(
    panel: Any, important: NDArray[np.float64], others: NDArray[np.float64], edges: NDArray[np.float64]
) -> None:
    width = edges[1] - edges[0]
    if others.size:
        share = 100 * np.histogram(others, edges)[0] / others.size / width
        panel.stairs(share, edges, fill=True, facecolor=OTHERS_COLOUR, edgecolor=OTHERS_EDGE, lw=0.8, zorder=2)
    if important.size:
        share = 100 * np.histogram(important, edges)[0] / important.size / width
        panel.stairs(share, edges, color=IMPORTANT_COLOUR, lw=1.5, zorder=3, baseline=None)
    panel.set_xlim(edges[0], edges[-1])
    panel.yaxis.set_major_locator(MaxNLocator(4))


def _title(panel: Any, row: Mapping[str, Any]) -> None:
    """The loss and its setting above the panel, the ratio of variances in its corner."""
    words = importance_grid.setting_words(row["margin"], row["scale"], row["weight"])
    lost = "" if row["kept"] else "\nloses accuracy"
    panel.set_title(NAMES[row["loss"]] + (f", {words}" if words else "") + lost, fontsize=8)
    panel.text(
        *(0.98, 0.96, f"variance ratio\n{ratio_words(row)}"),
        transform=panel.transAxes, ha="right", va="top", fontsize=7, zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )  # fmt: skip


def ratio_words(row: Mapping[str, Any]) -> str:
    """The ratio of variances, important classes to the others, with its 95 % interval where there is one."""
    if math.isnan(row["angle_ratio"]):
        return "none: too few pictures"
    words = f"{row['angle_ratio']:.2f}"
    if math.isnan(row["angle_ratio_low"]):
        return words
    return f"{words} ({row['angle_ratio_low']:.2f} to {row['angle_ratio_high']:.2f})".replace("-", "−")
