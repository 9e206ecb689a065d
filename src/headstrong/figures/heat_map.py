"""Relative task vulnerability of every pair of tasks beside that of the single-task model, one encoder at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from headstrong.analysis.tables import wide
from headstrong.errors import MissingDataError
from headstrong.figures import style

LEAST_RANGE, MOST_RANGE = 0.5, 2.0  # of the colours, in doublings: noise must not look like an effect, nor drown one
SMALL = 6  # tasks up to which both panels fit side by side
BLOCKS = {"single": "main task attacked", "multi": "all tasks attacked"}


def ratios(grid: pd.DataFrame) -> pd.DataFrame:
    """log2 of each cell (`tables.wide`) over the single-task model of its row, the diagonal; NaN without a number."""
    baseline = pd.Series(np.diag(grid), index=grid.index)
    quotient = grid.div(baseline.where(baseline > 0), axis=0)
    return np.log2(quotient.where(quotient > 0))


def draw(table: pd.DataFrame, encoder: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """Two panels, single and multi, from `tables.pairs_table`: the number is the vulnerability, the second line and the
    colour its change against the single-task model of the row (purple: less vulnerable; orange: more).

    Raises MissingDataError when the table has no vulnerability for this encoder.
    """
    part = table.loc[table["encoder"].eq(encoder) & table["block"].isin(list(BLOCKS))]
    if part.empty:
        raise MissingDataError(f"heat map: no vulnerability of {encoder} in the table of pairs")
    grids = {block: wide(part, block) for block in BLOCKS}
    with style.context(settings) as whole:
        count = max(len(grid) for grid in grids.values())
        beside = count <= SMALL
        height = 3.5 if beside else 2 * (0.36 * count + 0.9)
        figure = style.new_figure(whole["width"], height)
        panels = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
        changes = {block: ratios(grid) for block, grid in grids.items()}
        largest = max(
            (float(np.nanmax(np.abs(c))) for c in changes.values() if np.isfinite(c).any(axis=None)), default=0
        )
        limit = min(max(largest, LEAST_RANGE), MOST_RANGE)
        norm = TwoSlopeNorm(0, -limit, limit)
        for panel, (block, words) in zip(panels, BLOCKS.items(), strict=True):
            picture = panel.imshow(changes[block], cmap="PuOr_r", norm=norm, aspect="auto")
            _annotate(panel, grids[block], changes[block], picture)
            panel.set_title(f"{encoder}, {words}")
            panel.set_xlabel("Auxiliary task")
            panel.set_ylabel("Main task")
        bar = figure.colorbar(picture, ax=list(panels), shrink=0.8, pad=0.02, aspect=30)
        ticks = np.linspace(-limit, limit, 5)
        bar.set_ticks(ticks.tolist(), labels=[f"× {2**tick:.2g}" for tick in ticks])
        bar.set_label("against the single-task model")
        bar.outline.set_visible(False)
        return figure


def _annotate(panel: Any, grid: pd.DataFrame, change: pd.DataFrame, picture: Any) -> None:
    panel.grid(visible=False)
    panel.set_xticks(range(len(grid.columns)), grid.columns)
    panel.set_yticks(range(len(grid.index)), grid.index)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    size = 7 if len(grid) <= SMALL else 5.5
    for i, j in np.ndindex(grid.shape):
        value, doubling = float(grid.iat[i, j]), float(change.iat[i, j])
        if math.isnan(value):
            continue
        if i == j:
            panel.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, lw=1, ec="#333333"))
        against = "" if i == j or math.isnan(doubling) else f"\n{_percent(100 * (2**doubling - 1))}"
        dark = not math.isnan(doubling) and _lightness(picture.to_rgba(doubling)) < 0.5
        panel.text(
            j, i, f"{value:.3g}{against}", ha="center", va="center", size=size, color="white" if dark else "black"
        )


def _percent(change: float) -> str:
    return "±0 %" if abs(change) < 0.5 else f"{change:+.0f} %".replace("-", "−")


def _lightness(colour: tuple[float, float, float, float]) -> float:
    red, green, blue, _ = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue
