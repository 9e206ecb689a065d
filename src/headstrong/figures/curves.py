"""Supplement Figure 14 of Ghamizi et al. (2022): how the loss of a main task grows, step by step of the attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from headstrong import radius
from headstrong.analysis.plan import plain
from headstrong.analysis.tables import AttackChoice
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style
from headstrong.tasks import TASKS, in_order

COLUMNS = ("model", "attack", "family", "stepper", "norm", "epsilon", "steps", "attacked", "task", "step", "relative")
LINES = {"single": ("main task attacked", "-"), "multi": ("all tasks attacked", (0, (4, 1.6)))}
ALONE = "#111111"
MANY = 7  # auxiliary tasks from which lines are thinner


def lines(
    curves: pd.DataFrame, vulnerability: pd.DataFrame, plan: pd.DataFrame, choice: AttackChoice, encoder: str
) -> pd.DataFrame:
    """Rows (attack, main, auxiliary, model, step, relative): what is drawn, the longest attack of the chosen stepper.

    attack: "single" (the main task alone) or "multi" (all tasks at once, by the balancer of `choice`); auxiliary: ""
    for the single-task model; relative: mean loss over the clean mean loss, less 1. Single tasks and pairs of one
    encoder.
    Raises MissingDataError when no curve of these models and this norm and radius was stored.
    """
    curves = frames.need(curves, "curves", COLUMNS)
    models = frames.fully_trained(plain(plan))
    models = models.loc[models["encoder"].eq(encoder) & models["tasks"].str.len().le(2), ["model", "tasks"]]
    known = vulnerability.drop_duplicates(["model", "attack"])[["model", "attack", "balancer"]]
    table = curves.drop(columns="balancer", errors="ignore").merge(known, on=["model", "attack"])
    table = table.merge(models, on="model")
    fits = table["stepper"].eq(frames.stepper_of(vulnerability, choice)) & table["norm"].eq(choice.norm)
    table = table.loc[fits & frames.same(table["epsilon"], choice.epsilon)]
    if table.empty:
        threat = f"{choice.norm} {radius.text(choice.epsilon, choice.norm)}"
        raise MissingDataError(f"curves.csv: no curve of a single-task model or pair of {encoder} at {threat}")
    table = table.loc[table["steps"].eq(table["steps"].max())]
    table = table.assign(attacked=table["attacked"].map(in_order), foreign=table["family"].ne(choice.family))
    table = table.sort_values(["foreign", "family"])
    single = table.loc[table["balancer"].eq("single") & table["attacked"].eq(table["task"])]
    alone = table["tasks"].str.len().eq(1)
    multi = table.loc[table["balancer"].eq(choice.multi) & table["attacked"].eq(table["tasks"]) & ~alone]
    found = pd.concat([single.assign(attack="single"), multi.assign(attack="multi")])
    found = found.drop_duplicates(["attack", "model", "task", "step"]).rename(columns={"task": "main"})
    found["auxiliary"] = [tasks.replace(main, "") for tasks, main in zip(found["tasks"], found["main"], strict=True)]
    found = found.sort_values(["model", "main", "attack", "step"])
    return found[["attack", "main", "auxiliary", "model", "step", "relative"]].reset_index(drop=True)


def draw(
    curves: pd.DataFrame,
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    choice: AttackChoice,
    encoder: str,
    settings: Mapping[str, Any] | None = None,
) -> Figure:
    """One panel per main task; colour and marker are the auxiliary task, black is the single-task model.

    Solid: the main task is attacked; dashed: all tasks of the model. Raises MissingDataError as `lines`.
    """
    table = lines(curves, vulnerability, plan, choice, encoder)
    mains = frames.task_order(table["main"])
    with style.context(settings) as whole:
        rows, columns = frames.grid_of(len(mains))
        figure = style.new_figure(whole["width"], 2.05 * rows + 0.9)
        panels = figure.subplots(rows, columns, squeeze=False)
        many = table["auxiliary"].nunique() > MANY
        for number, (panel, main) in enumerate(zip(panels.flat, mains, strict=False)):
            for (_, attack), part in table.loc[table["main"].eq(main)].groupby(["model", "attack"]):
                _draw_line(panel, part, str(attack), many)
            panel.set_title(f"{TASKS[main].title} ({main})", fontsize=8)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(5))
            panel.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
            if number % columns == 0:
                panel.set_ylabel("Loss against clean loss")
            if number + columns >= len(mains):
                panel.set_xlabel("Step of the attack")
        for panel in list(panels.flat)[len(mains) :]:
            panel.set_visible(False)
        size = radius.text(choice.epsilon, choice.norm)
        figure.suptitle(f"{encoder}, {frames.norm_words(choice.norm)}, radius {size}", x=0.01, ha="left", fontsize=8.5)
        handles = _legend(frames.task_order(table["auxiliary"]), bool(table["auxiliary"].eq("").any()))
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=len(handles) if len(handles) <= 5 else 4 if len(handles) <= 8 else 6,
        )
        return figure


def _draw_line(panel: Any, part: pd.DataFrame, attack: str, many: bool) -> None:
    letter = part["auxiliary"].iloc[0]
    if not letter:
        panel.plot(part["step"], part["relative"], color=ALONE, ls="-", lw=1.8, zorder=4)
        return
    every = max(1, len(part) // 5)
    panel.plot(
        part["step"],
        part["relative"],
        ls=LINES[attack][1],
        lw=0.7 if many else 1.1,
        ms=2.6 if many else 3.6,
        markevery=(every // 2, every),
        zorder=3,
        **_look(letter),
    )


def _look(letter: str) -> dict[str, Any]:
    """Line and marker of an auxiliary task; a white marker gets a grey line, which shows on paper."""
    look = {**style.marker(letter), "markeredgewidth": 0.4}
    return {**look, "color": "#A8A8A8", "markerfacecolor": "#FFFFFF"} if look["color"] == "#FFFFFF" else look


def _legend(letters: list[str], alone: bool) -> list[Line2D]:
    handles = [Line2D([], [], color="#555555", ls=dashes, label=words) for words, dashes in LINES.values()]
    if alone:
        handles.insert(0, Line2D([], [], color=ALONE, lw=1.8, label="single-task model"))
    pairs = [Line2D([], [], label=f"with {letter}", ms=4, **_look(letter)) for letter in letters]
    return [*handles, *pairs]
