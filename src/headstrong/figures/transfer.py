"""Does sharing help an attack on one task to break another? After the abstract of DGBA (arXiv 2305.12066)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from headstrong import radius
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style

COLUMNS = (
    "model",
    "stepper",
    "norm",
    "epsilon",
    "steps",
    "attacked",
    "measured",
    "shared_levels",
    "shared_fraction",
    "relative_performance",
    "ratio",
)
MEAN_COLOUR = "#111111"


def comparable(transfer: pd.DataFrame | None, plan: pd.DataFrame) -> pd.DataFrame:
    """Rows between two different tasks, of the models of `frames.fully_trained`.

    Columns: those of transfer.csv, with encoder, tasks, layout and adversarial as the plan has them.
    Raises MissingDataError when there are none.
    """
    table = frames.need(transfer, "transfer", COLUMNS)
    table = table.drop(columns=["encoder", "tasks", "layout", "adversarial"], errors="ignore")
    table = table.merge(frames.fully_trained(plan), on="model")
    table = table.loc[table["attacked"].ne(table["measured"]) & table["ratio"].notna()]
    if table.empty:
        raise MissingDataError("transfer.csv: no attack on one task of a model was measured on another")
    return table.reset_index(drop=True)


def encoders(table: pd.DataFrame) -> list[str]:
    """Encoders whose models differ in how much they share, from `comparable`."""
    differing = table.groupby("encoder")["shared_fraction"].nunique()
    return sorted(str(name) for name in differing.index[differing > 1])


def chosen(table: pd.DataFrame, encoder: str, epsilon: float, norm: str = "linf") -> pd.DataFrame:
    """Rows of one encoder under one attack: the most steps there are, the radius nearest to `epsilon`.

    Raises MissingDataError when the encoder has none in this norm, or all its models share alike.
    """
    part = table.loc[table["encoder"].eq(encoder) & table["norm"].eq(norm)]
    if part.empty:
        raise MissingDataError(f"transfer.csv: no attack in {norm} on a model of {encoder}")
    attacks = part[["stepper", "epsilon", "steps"]].drop_duplicates()
    attacks = attacks.assign(distance=(attacks["epsilon"].astype(float) - epsilon).abs().round(9))
    best = attacks.sort_values(["distance", "steps", "stepper"], ascending=[True, False, True]).iloc[0]
    part = part.loc[
        part["stepper"].eq(best["stepper"])
        & part["steps"].eq(best["steps"])
        & frames.same(part["epsilon"], float(best["epsilon"]))
    ]
    if part["shared_fraction"].nunique() < 2:
        raise MissingDataError(f"transfer.csv: all models of {encoder} share alike; set several layouts in the plan")
    return part.reset_index(drop=True)


def draw(
    transfer: pd.DataFrame | None,
    plan: pd.DataFrame,
    encoder: str,
    epsilon: float = 8 / 255,
    settings: Mapping[str, Any] | None = None,
) -> Figure:
    """Left: the harm done to another task, by the coarse levels the two tasks share. Right: its mean in each layout.

    The harm is in percent of the harm done to the attacked task itself. Marker and colour are the task measured. Black:
    mean and standard error over pairs of tasks (left: and layouts). One row per way of training.
    transfer: transfer.csv; plan: plan.csv; epsilon: pixel units. Raises MissingDataError as `comparable` and `chosen`.
    """
    table = chosen(comparable(transfer, plan), encoder, epsilon)
    trainings = sorted(set(table["adversarial"]))
    table = table.assign(y=100 * table["ratio"])
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], 2.35 * len(trainings) + 0.75)
        panels = figure.subplots(len(trainings), 2, sharex="col", sharey="row", squeeze=False)
        letters = frames.task_order(table["measured"])
        for line, training in enumerate(trainings):
            part = table.loc[table["adversarial"].eq(training)]
            _draw_pairs(panels[line, 0], part, letters)
            _draw_layouts(panels[line, 1], part)
            panels[line, 0].set_ylabel(f"{frames.trained(training)}\nHarm to another task,\n% of harm to the attacked")
        panels[0, 0].set_title("Pairs of tasks", fontsize=8)
        panels[0, 1].set_title("Layouts, mean over pairs of tasks", fontsize=8)
        panels[-1, 0].set_xlabel("Coarse levels that both tasks share")
        panels[-1, 1].set_xlabel("Share of levels that tasks have in common")
        panels[-1, 0].set_xticks(range(int(table["shared_levels"].max()) + 1))
        panels[-1, 1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        first = table.iloc[0]
        size = radius.text(float(first["epsilon"]), str(first["norm"]))
        steps = f"{int(first['steps'])} step{'s' if int(first['steps']) > 1 else ''}"
        heading = (
            f"{encoder}, {first['stepper'].upper()}, {frames.norm_words(str(first['norm']))}, radius {size}, {steps}"
        )
        figure.suptitle(heading, x=0.01, ha="left", fontsize=8.5)
        handles = [Line2D([], [], ls="", label=f"{letter} measured", **style.marker(letter)) for letter in letters]
        mean = Line2D([], [], color=MEAN_COLOUR, marker="_", ms=7, label="mean, standard error")
        figure.legend(handles=[*handles, mean], loc="outside lower center", ncols=6)
        return figure


def _draw_pairs(panel: Any, part: pd.DataFrame, letters: list[str]) -> None:
    shifts = dict(zip(letters, np.linspace(-0.24, 0.24, len(letters)) if len(letters) > 1 else [0.0], strict=True))
    for letter in letters:
        these = part.loc[part["measured"].eq(letter)]
        look = {**style.marker(letter), "markeredgewidth": 0.4}
        panel.plot(these["shared_levels"] + shifts[letter], these["y"], ls="", ms=3.6, alpha=0.75, zorder=2, **look)
    means = part.groupby("shared_levels")["y"].agg(["mean", "sem"])
    panel.errorbar(
        means.index, means["mean"], means["sem"], color=MEAN_COLOUR, marker="_", ms=13, mew=1.6, lw=1.2, zorder=4
    )
    panel.axhline(0, color="#8C8C8C", lw=0.7, zorder=1)


def _draw_layouts(panel: Any, part: pd.DataFrame) -> None:
    means = part.groupby(["shared_fraction", "model", "layout"])["y"].agg(["mean", "sem"]).reset_index()
    panel.errorbar(
        means["shared_fraction"], means["mean"], means["sem"], color=MEAN_COLOUR, ls="", marker="_", ms=7, mew=1.6
    )
    crowded = len(means) > 12
    for row in means.to_dict("records"):
        if row["layout"] and not crowded:
            panel.annotate(
                row["layout"],
                (row["shared_fraction"], row["mean"]),
                xytext=(5, 2),
                textcoords="offset points",
                size=6.5,
                color="#111111",
            )
    panel.axhline(0, color="#8C8C8C", lw=0.7, zorder=1)
    panel.margins(x=0.08)
