"""Do the attacks bite? Errors under attack and under random noise of the same size, as multiples of the clean error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from headstrong import radius
from headstrong.analysis.records import CLEAN
from headstrong.analysis.tables import AttackChoice, select
from headstrong.errors import MissingDataError
from headstrong.figures import style
from headstrong.tasks import TASKS

KINDS = {
    "noise": ("random noise of the same size", style.NOISE_COLOUR, ""),
    "single": ("the task itself attacked", style.SINGLE_COLOUR, ""),
    "multi": ("all tasks attacked", style.MULTI_COLOUR, "////"),
}


def multiples(vulnerability: pd.DataFrame, choice: AttackChoice) -> pd.DataFrame:
    """Rows (kind, model, task, multiple): error of the task divided by its clean error, kind one of KINDS.

    vulnerability: vulnerability.csv. Raises MissingDataError when neither the attack nor the noise of this norm and
    radius is in the table.
    """
    errors = vulnerability.loc[vulnerability["metric"].eq("adversarial_error")]
    chosen = select(errors, choice)
    same = errors["norm"].eq(choice.norm) & ((errors["epsilon"] - choice.epsilon).abs() < 1e-9)
    own = pd.Series(
        [t in a for t, a in zip(chosen["task"], chosen["attacked"], strict=True)], index=chosen.index, dtype=bool
    )
    models = vulnerability.loc[vulnerability["attack"].eq(CLEAN) & vulnerability["metric"].eq("clean_error")]
    tasks = models.groupby("model")["task"].nunique()
    every = chosen["attacked"].str.len().eq(chosen["model"].map(tasks))
    parts = {
        "noise": errors.loc[same & errors["stepper"].eq("noise")],
        "single": chosen.loc[own & chosen["balancer"].eq("single")],
        "multi": chosen.loc[own & chosen["balancer"].eq(choice.multi) & every],
    }
    clean = models[["model", "task", "mean"]].rename(columns={"mean": "clean"})
    found = pd.concat([part.assign(kind=kind).merge(clean, on=["model", "task"]) for kind, part in parts.items()])
    if found.empty:
        raise MissingDataError(
            f"attack check: no attack or noise of {choice.norm} {radius.text(choice.epsilon, choice.norm)} in the table"
        )
    return found.assign(multiple=found["mean"] / found["clean"])[["kind", "model", "task", "multiple"]]


def draw(vulnerability: pd.DataFrame, choice: AttackChoice, settings: Mapping[str, Any] | None = None) -> Figure:
    """Box plots over all models, one group per task, logarithmic axis; whiskers reach the least and the most.

    Raises MissingDataError as `multiples`.
    """
    table = multiples(vulnerability, choice)
    letters = [letter for letter in TASKS if letter in set(table["task"])]
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], 3.2)
        panel = figure.subplots()
        for number, (kind, (_, colour, hatch)) in enumerate(KINDS.items()):
            part = table.loc[table["kind"].eq(kind)]
            data = [part.loc[part["task"].eq(letter), "multiple"].dropna().to_numpy() for letter in letters]
            places = np.arange(len(letters)) + 0.27 * (number - 1)
            boxes = panel.boxplot(
                data, positions=places, widths=0.22, whis=(0, 100), patch_artist=True, manage_ticks=False
            )
            for box in boxes["boxes"]:
                box.set(facecolor=colour, hatch=hatch, edgecolor="#333333", linewidth=0.7)
            for line in (*boxes["medians"], *boxes["whiskers"], *boxes["caps"]):
                line.set(color="#111111", linewidth=0.9)
        panel.axhline(1, color="#333333", lw=0.8)
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        panel.yaxis.set_major_formatter("× {x:g}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_xticks(
            range(len(letters)),
            [f"{letter}\n{TASKS[letter].title}" if len(letters) < 7 else letter for letter in letters],
        )
        panel.set_ylabel("Error / error without attack")
        size = radius.text(choice.epsilon, choice.norm)
        panel.set_title(f"{choice.family}, {choice.norm} ball of radius {size}, {choice.steps} steps; all models")
        handles = [Patch(facecolor=c, hatch=h, edgecolor="#333333", label=words) for words, c, h in KINDS.values()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return figure
