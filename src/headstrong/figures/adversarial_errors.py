"""Supplement Figures 1 to 11 of Ghamizi et al. (2022): adversarial error of a main task in every model that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from headstrong.errors import MissingDataError
from headstrong.figures import style
from headstrong.tasks import TASKS

ATTACKS = (("single_error", style.SINGLE_COLOUR, ""), ("multi_error", style.MULTI_COLOUR, "////"))


def bars(cells: pd.DataFrame, encoder: str, main: str) -> pd.DataFrame:
    """Rows in drawing order: label ("sn s": model, attacked tasks), quantity, value, standard_error, clean, baseline.

    The single-task model and all pairs with this main task, fully trained, uniformly weighted; each pair twice.
    cells: `analysis.tables.cells`. value, clean: errors, percent for s, else mean squared.
    Raises MissingDataError when the single-task model is not there to compare with.
    """
    chosen = cells.loc[
        cells["encoder"].eq(encoder)
        & cells["main"].eq(main)
        & cells["weighting"].eq("uniform")
        & cells["epochs"].eq(cells["full_epochs"])
        & cells["size"].le(2)
    ]
    clean = chosen.loc[chosen["quantity"].eq("clean_error")].set_index("auxiliary")["value"]
    order = [letter for letter in TASKS if letter in set(chosen["auxiliary"])]
    rows = []
    for auxiliary in ["", *order]:
        for quantity, _, _ in ATTACKS if auxiliary else ATTACKS[:1]:
            cell = chosen.loc[chosen["quantity"].eq(quantity) & chosen["auxiliary"].eq(auxiliary)]
            for row in cell.to_dict("records"):
                attacked = main if quantity == "single_error" else main + auxiliary
                rows.append(
                    {
                        "label": f"{main}{auxiliary} {attacked}",
                        "quantity": quantity,
                        "value": row["value"],
                        "standard_error": row["standard_error"],
                        "clean": float(clean[auxiliary]),
                        "baseline": auxiliary == "",
                    }
                )
    table = pd.DataFrame(rows)
    if table.empty or not table["baseline"].any():
        raise MissingDataError(
            f"figure of task {main}: no attack on the single-task model of {encoder} to compare with"
        )
    return table


def draw(cells: pd.DataFrame, encoder: str, main: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """Bars with standard errors, the single-task model as a line across, diamonds for the error without attack.

    Raises MissingDataError as `bars`.
    """
    table = bars(cells, encoder, main)
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], 3.0)
        panel = figure.subplots()
        positions = _positions(table)
        for quantity, colour, hatch in ATTACKS:
            these = table["quantity"].eq(quantity)
            x = [position for position, wanted in zip(positions, these, strict=True) if wanted]
            part = table.loc[these]
            panel.bar(x, part["value"], 0.86, color=colour, edgecolor="#333333", lw=0.6, hatch=hatch)
        panel.errorbar(positions, table["value"], table["standard_error"], ls="", color="#111111", lw=0.9)
        panel.plot(positions, table["clean"], ls="", marker="D", ms=3.5, mfc="white", mec="#111111", mew=0.8)
        baseline = float(table.loc[table["baseline"], "value"].iloc[0])
        panel.axhline(baseline, color=style.LINE_COLOUR, ls="--", lw=1.2)
        panel.set_xticks(positions, table["label"], rotation=90 if len(table) > 12 else 0)
        panel.set_xlim(positions[0] - 0.8, positions[-1] + 0.8)
        panel.tick_params(axis="x", length=0)
        task = TASKS[main]
        panel.set_ylabel(f"{task.error}{' (%)' if task.loss == 'cross_entropy' else ''} under attack")
        panel.set_xlabel("Model, then attacked tasks")
        panel.set_title(f"{task.title} ({main}), {encoder}")
        figure.legend(handles=_legend(), loc="outside lower center", ncols=4)
        return figure


def _positions(table: pd.DataFrame) -> list[float]:
    """Bars of one model touch; models stand apart."""
    positions: list[float] = []
    previous = ""
    for label in table["label"]:
        model = label.split(" ")[0]
        step = 0.0 if not positions else 0.92 if model == previous else 1.35
        positions.append((positions[-1] if positions else 0.0) + step)
        previous = model
    return positions


def _legend() -> list[Any]:
    words = ("main task attacked", "both tasks attacked")
    patches = [
        Patch(facecolor=colour, edgecolor="#333333", hatch=hatch, label=label)
        for (_, colour, hatch), label in zip(ATTACKS, words, strict=True)
    ]
    line = Line2D([], [], color=style.LINE_COLOUR, ls="--", label="single-task model")
    clean = Line2D([], [], ls="", marker="D", ms=3.5, mfc="white", mec="#111111", label="without attack")
    return [*patches, line, clean]
