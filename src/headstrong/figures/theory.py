"""The theorems of Ghamizi et al. (2022) against measurement: Theorem 2's formula and Theorem 4's bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headstrong import radius
from headstrong.analysis.tables import AttackChoice
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style

THEORY_COLUMNS = ("model", "tasks", "size", "quantity", "value")
MARGINAL_COLUMNS = (
    "model",
    "family",
    "norm",
    "epsilon",
    "steps",
    "attacked",
    "added",
    "measured",
    "first_order",
    "bound",
)
FEW = 5  # sets of tasks below which a box hides more than it shows
MEASURED = "mean_gradient"
PREDICTIONS = {
    "theorem_2": ("Theorem 2", "#0072B2", "s", ""),
    "independent": ("uncorrelated tasks: $1/\\sqrt{M}$", "#E69F00", "^", "////"),
}
SIDES = {
    "bound": ("Bound of Theorem 4", "above the bound"),
    "first_order": ("First-order value", "above the first-order value"),
}


def gradients(theory: pd.DataFrame | None, plan: pd.DataFrame) -> pd.DataFrame:
    """Rows (model, tasks, size, mean_gradient, theorem_2, independent): every set of tasks of a model of
    `frames.fully_trained` with all three numbers.

    Raises MissingDataError when no subset of two or more tasks has them.
    """
    table = frames.need(theory, "theory", THEORY_COLUMNS)
    table = table.loc[table["model"].isin(frames.fully_trained(plan)["model"])]
    wanted = table.loc[table["quantity"].isin([MEASURED, *PREDICTIONS])]
    grid = wanted.pivot_table(index=["model", "tasks", "size"], columns="quantity", values="value", aggfunc="first")
    grid = grid.reindex(columns=[MEASURED, *PREDICTIONS]).dropna().reset_index()
    grid["size"] = grid["size"].astype(int)
    if not (grid["size"] > 1).any():
        raise MissingDataError("theory.csv: no set of two or more tasks has the gradient, Theorem 2 and 1/sqrt(M)")
    return grid


def draw_gradients(
    theory: pd.DataFrame | None, plan: pd.DataFrame, settings: Mapping[str, Any] | None = None
) -> Figure:
    """Left: the mean length of the mean gradient by number of tasks, in the model with the most tasks, beside
    Theorem 2 and 1/sqrt(M). Right: measured over formula, all models and sets of tasks; whiskers reach the ends.

    Dots are sets of tasks, lines means over the sets of one size. Raises MissingDataError as `gradients`.
    """
    table = gradients(theory, plan)
    largest = table.sort_values(["size", "model"], ascending=[False, True])["model"].iloc[0]
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], 3.3)
        left, right = figure.subplots(1, 2)
        _draw_by_size(left, table.loc[table["model"].eq(largest)])
        left.set_title(str(largest), fontsize=8)
        several = table.loc[table["size"].gt(1)]
        models = several["model"].nunique()
        _draw_quotients(right, several)
        right.set_title(f"{models} model{'s' if models > 1 else ''}, every set of tasks", fontsize=8)
        figure.legend(handles=_legend(), loc="outside lower center", ncols=3)
        return figure


def _draw_by_size(panel: Any, part: pd.DataFrame) -> None:
    panel.plot(part["size"], part[MEASURED], ls="", marker="o", ms=3, color="#8C8C8C", alpha=0.7, zorder=2)
    means = part.groupby("size")[[MEASURED, *PREDICTIONS]].mean()
    panel.plot(means.index, means[MEASURED], color="#111111", marker="o", ms=4.5, lw=1.6, zorder=4)
    for name, (_, colour, marker, _) in PREDICTIONS.items():
        panel.plot(
            means.index, means[name], color=colour, marker=marker, ms=4.5, ls="--", mec="#333333", mew=0.4, zorder=5
        )
    panel.set_yscale("log")
    frames.plain_log(panel.yaxis)
    panel.set_xticks(means.index.tolist())
    panel.set_xlabel("Number of tasks M")
    panel.set_ylabel("Length of the mean gradient\n(loss per pixel unit, $L_2$)")


def _draw_quotients(panel: Any, part: pd.DataFrame) -> None:
    sizes = sorted(set(part["size"]))
    for side, (name, (_, colour, marker, hatch)) in zip((-0.2, 0.2), PREDICTIONS.items(), strict=True):
        look = {"color": colour, "marker": marker, "ms": 4.0, "mec": "#333333", "mew": 0.4}
        quotients = part[MEASURED] / part[name]
        groups = [quotients.loc[part["size"].eq(size)].to_numpy() for size in sizes]
        boxes = panel.boxplot(
            groups,
            positions=[size + side for size in sizes],
            widths=0.34,
            whis=(0, 100),
            patch_artist=True,
            manage_ticks=False,
        )
        for box in boxes["boxes"]:
            box.set(facecolor=colour, hatch=hatch, edgecolor="#333333", linewidth=0.6, alpha=0.85)
        for line in (*boxes["medians"], *boxes["whiskers"], *boxes["caps"]):
            line.set(color="#111111", linewidth=0.9)
        for size, group in zip(sizes, groups, strict=True):
            if len(group) < FEW:
                panel.plot(np.full(len(group), size + side), group, ls="", zorder=5, **look)
    panel.axhline(1, color="#333333", lw=0.8)
    panel.set_xticks(sizes)
    panel.set_xlim(min(sizes) - 0.7, max(sizes) + 0.7)
    panel.set_xlabel("Number of tasks M")
    panel.set_ylabel("Measured / formula")


def _legend() -> list[Any]:
    handles: list[Any] = [Line2D([], [], color="#111111", marker="o", ms=4.5, label="measured (dots: sets of tasks)")]
    for words, colour, marker, _ in PREDICTIONS.values():
        handles.append(Line2D([], [], color=colour, ls="--", marker=marker, ms=4.5, mec="#333333", label=words))
    return handles


def marginals(marginal: pd.DataFrame | None, plan: pd.DataFrame, choice: AttackChoice) -> pd.DataFrame:
    """Rows of marginal.csv under the chosen attack, of the models of `frames.fully_trained`.

    Raises MissingDataError when there are none.
    """
    table = frames.need(marginal, "marginal", MARGINAL_COLUMNS)
    for name in ("measured", "first_order", "bound"):
        table = table.assign(**{name: pd.to_numeric(table[name], errors="coerce")})
    fits = table["family"].eq(choice.family) & table["norm"].eq(choice.norm) & table["steps"].eq(choice.steps)
    fits &= table["model"].isin(frames.fully_trained(plan)["model"])
    table = table.loc[fits & frames.same(table["epsilon"], choice.epsilon)]
    table = table.dropna(subset=["measured", "first_order", "bound"])
    if table.empty:
        raise MissingDataError(
            f"marginal.csv: no task was added under {choice.family} at {choice.norm} "
            f"{radius.text(choice.epsilon, choice.norm)}, {choice.steps} steps"
        )
    return table.reset_index(drop=True)


def draw_marginal(
    marginal: pd.DataFrame | None,
    plan: pd.DataFrame,
    choice: AttackChoice,
    settings: Mapping[str, Any] | None = None,
) -> Figure:
    """Measured marginal vulnerability against Theorem 4's bound (left) and the first-order value (right), log-log.

    A point above the diagonal exceeds the formula. Marker and colour are the task added. Hollow points at the edge are
    zero or less, which has no place on the axis. Raises MissingDataError as `marginals`.
    """
    table = marginals(marginal, plan, choice)
    letters = frames.task_order(table["added"])
    low, high = _ends(table)
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], 3.75)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, (column, (label, words)) in zip(panels, SIDES.items(), strict=True):
            panel.grid(visible=True, axis="both")
            panel.plot([low, high], [low, high], color="#333333", lw=0.8, zorder=1)
            _draw_points(panel, table, column, letters, low)
            above = int((table["measured"] > table[column]).sum())
            panel.set_title(f"{above} of {len(table)} {words}", fontsize=8)
            panel.set_xlabel(label)
        panels[0].set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        frames.plain_log(panels[0].xaxis)
        frames.plain_log(panels[0].yaxis)
        panels[0].set_ylabel("Measured marginal vulnerability")
        size = radius.text(choice.epsilon, choice.norm)
        heading = f"{choice.family}, {frames.norm_words(choice.norm)}, radius {size}, {choice.steps} steps"
        figure.suptitle(heading, x=0.01, ha="left", fontsize=8.5)
        handles = [Line2D([], [], ls="", label=f"{letter} added", **style.marker(letter)) for letter in letters]
        if (table[["measured", *SIDES]] <= 0).any(axis=None):
            hollow: dict[str, Any] = {"marker": "o", "mfc": "none", "mec": "#333333"}
            handles.append(Line2D([], [], ls="", label="hollow, at the edge: zero or less", **hollow))
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
        return figure


def _ends(table: pd.DataFrame) -> tuple[float, float]:
    numbers = table[["measured", *SIDES]].to_numpy(dtype=float).ravel()
    positive = numbers[numbers > 0]
    if positive.size == 0:
        return 0.1, 10.0
    return float(positive.min()) / 2, float(positive.max()) * 2


def _draw_points(panel: Any, table: pd.DataFrame, column: str, letters: list[str], low: float) -> None:
    for letter in letters:
        these = table.loc[table["added"].eq(letter)]
        x, y = these[column].to_numpy(dtype=float), these["measured"].to_numpy(dtype=float)
        placed = (x > 0) & (y > 0)
        look = {**style.marker(letter), "markeredgewidth": 0.5}
        panel.plot(x[placed], y[placed], ls="", ms=4.2, alpha=0.85, zorder=3, **look)
        if placed.all():  # an empty line that is not clipped upsets the layout
            continue
        edge = {**look, "markerfacecolor": "none", "markeredgecolor": look["color"], "markeredgewidth": 1.0}
        at = [np.where(values > 0, values, low)[~placed] for values in (x, y)]
        panel.plot(*at, ls="", ms=4.2, zorder=4, clip_on=False, **edge)
