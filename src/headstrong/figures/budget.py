"""Supplement Figures 15, 16 and 17 of Ghamizi et al. (2022): vulnerability against steps, radius, or norm.

Boxes over the models that pair a main task with one auxiliary task, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from headstrong import radius
from headstrong.analysis import tables
from headstrong.analysis.tables import AttackChoice
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style
from headstrong.tasks import TASKS, in_order

VARIED = {"steps": "Steps", "epsilon": "Radius", "norm": "Norm and radius"}
ATTACKS = {
    "single": ("main task attacked", style.SINGLE_COLOUR, ""),
    "multi": ("all tasks attacked", style.MULTI_COLOUR, "////"),
}
FEW = 5  # models below which a box hides more than it shows
FEWEST = 3  # models below which there is no box, but a bar at their median
LOG_FROM = 30.0  # largest over smallest value from which a linear axis hides the small boxes


def settings_of(vulnerability: pd.DataFrame, choice: AttackChoice, varied: str) -> list[AttackChoice]:
    """The attacks to compare, least first: as `choice`, but for what is varied ("steps", "epsilon", "norm").

    The chosen family is taken where it has the attack, else another family of the same stepper. For "norm": the radius
    of `choice`, every radius of the other norms, and the same radii in its own norm.
    Raises MissingDataError when there are not at least two.
    """
    stepper = frames.stepper_of(vulnerability, choice)
    columns = ["family", "norm", "epsilon", "steps"]
    there = vulnerability.loc[vulnerability["stepper"].eq(stepper) & vulnerability["balancer"].ne(""), columns]
    there = there.drop_duplicates()
    there = there.assign(radius=there["epsilon"].astype(float).round(9), other=there["norm"].ne(choice.norm))
    at = {
        "norm": there["norm"].eq(choice.norm),
        "epsilon": frames.same(there["epsilon"], choice.epsilon),
        "steps": there["steps"].astype(int).eq(choice.steps),
    }
    keep = pd.Series(True, index=there.index)
    for name, fits in at.items():
        if name != varied and not (varied == "norm" and name == "epsilon"):
            keep &= fits
    if varied == "norm":
        foreign = set(there.loc[keep & there["other"], "radius"])
        keep &= there["other"] | at["epsilon"] | there["radius"].isin(foreign)
    found = there.loc[keep].assign(foreign=there["family"].ne(choice.family))
    found = found.sort_values(["foreign", "family"]).drop_duplicates(["norm", "radius", "steps"])
    found = found.sort_values(["other", "norm", "radius", "steps"])
    if len(found) < 2 or (varied == "norm" and found["norm"].nunique() < 2):
        raise MissingDataError(
            f"attacks by {varied}: {stepper} was run with one value of {varied} only; set attacks in the config"
        )
    return [
        replace(choice, family=str(r.family), norm=str(r.norm), epsilon=float(r.epsilon), steps=int(r.steps))
        for r in found.itertuples()
    ]


def values(
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    choice: AttackChoice,
    varied: str,
    encoder: str,
    *,
    segmentation: str = "per_sample",
) -> pd.DataFrame:
    """Rows (place, label, attack, main, auxiliary, model, value): what the boxes are drawn from.

    place: number of the setting, 0 first; label: its words; attack: "single" (the main task) or "multi" (all);
    value: relative task vulnerability of the main task. Fully trained, uniformly weighted pairs of one encoder that
    were attacked at every setting; larger sets of tasks where no pair was.
    Raises MissingDataError when no multi-task model was attacked at two settings or more.
    """
    parts = []
    for place, setting in enumerate(settings_of(vulnerability, choice, varied)):
        cells = tables.full_epochs(tables.cells(vulnerability, plan, setting, segmentation=segmentation))
        several = cells.loc[cells["encoder"].eq(encoder) & cells["size"].ge(2) & cells["quantity"].isin(list(ATTACKS))]
        parts.append(several.assign(place=place, label=_label(setting, varied)))
    found = pd.concat(parts).rename(columns={"quantity": "attack"})
    found = found.loc[found["value"].notna()]
    # the same models in every box: another set of models would look like an effect of the setting
    times = found.groupby(["model", "main", "attack"])["place"].transform("nunique")
    found = found.loc[times.eq(len(parts))]
    if found.empty:
        raise MissingDataError(
            f"attacks by {varied}: no multi-task model of {encoder} was attacked in every setting there is"
        )
    if found["size"].eq(2).any():
        found = found.loc[found["size"].eq(2)]
    return found[["place", "label", "attack", "main", "auxiliary", "model", "value"]].reset_index(drop=True)


def draw(
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    choice: AttackChoice,
    varied: str,
    encoder: str,
    settings: Mapping[str, Any] | None = None,
    *,
    segmentation: str = "per_sample",
) -> Figure:
    """One panel per main task; two boxes per setting: main task attacked, all tasks of the model attacked.

    Whiskers reach the ends. With fewer than FEW models in a box, each model is a point of its auxiliary task.
    varied: a key of VARIED. Raises MissingDataError when the study varies nothing of the kind.
    """
    table = values(vulnerability, plan, choice, varied, encoder, segmentation=segmentation)
    mains = frames.task_order(table["main"])
    few = int(table.groupby(["place", "attack", "main"]).size().max()) < FEW
    spread = table.groupby("main")["value"].agg(lambda column: column.max() / column.min())
    log = bool((table["value"] > 0).all() and spread.max() > LOG_FROM)
    with style.context(settings) as whole:
        lines, columns = frames.grid_of(len(mains))
        figure = style.new_figure(whole["width"], 1.95 * lines + 0.75)
        panels = figure.subplots(lines, columns, squeeze=False)
        for number, (panel, main) in enumerate(zip(panels.flat, mains, strict=False)):
            _draw_panel(panel, table.loc[table["main"].eq(main)], table, few)
            panel.set_title(f"{TASKS[main].title} ({main})", fontsize=8)
            _set_scale(panel, log)
            if number % columns == 0:
                panel.set_ylabel("Relative task\nvulnerability")
            if number + columns >= len(mains):
                panel.set_xlabel(VARIED[varied])
        for panel in list(panels.flat)[len(mains) :]:
            panel.set_visible(False)
        figure.suptitle(f"{_models(table)}, {encoder}, {_fixed(choice, varied)}", x=0.01, ha="left", fontsize=8.5)
        figure.legend(handles=_boxes(), loc="outside lower left", ncols=2)
        if few and table["auxiliary"].str.len().eq(1).all():
            letters = frames.task_order(table["auxiliary"])
            figure.legend(
                handles=[Line2D([], [], ls="", label=f"with {t}", ms=4, **_marker(t)) for t in letters],
                loc="outside lower right",
                ncols=6,
                columnspacing=1.0,
                handletextpad=0.1,
            )
        return figure


def _draw_panel(panel: Any, part: pd.DataFrame, whole: pd.DataFrame, few: bool) -> None:
    ticks = whole.drop_duplicates("place").sort_values("place")
    auxiliaries = sorted(set(part["auxiliary"]), key=lambda letters: [list(TASKS).index(t) for t in letters])
    shifts = dict(
        zip(auxiliaries, np.linspace(-0.1, 0.1, len(auxiliaries)) if len(auxiliaries) > 1 else [0.0], strict=True)
    )
    for side, (attack, (_, colour, _)) in zip((-0.2, 0.2), ATTACKS.items(), strict=True):
        these = part.loc[part["attack"].eq(attack)]
        every = [(place, group["value"].to_numpy()) for place, group in these.groupby("place")]
        groups = [(place, data) for place, data in every if len(data) >= FEWEST]
        for place, data in every:
            if len(data) < FEWEST:  # a box of one value would have neither height nor colour
                ends = [place + side - 0.17, place + side + 0.17]
                panel.plot(ends, [np.median(data)] * 2, color=colour, lw=5, solid_capstyle="butt", zorder=2)
        if groups:
            _draw_boxes(panel, groups, side, attack, few)
        if few:
            for row in these.to_dict("records"):
                x = row["place"] + side + shifts[row["auxiliary"]]
                panel.plot(x, row["value"], ls="", ms=3.1, zorder=5, **_marker(row["auxiliary"]))
    panel.set_xticks(ticks["place"].tolist(), ticks["label"].tolist())
    panel.set_xlim(-0.55, float(ticks["place"].max()) + 0.55)


def _draw_boxes(panel: Any, groups: list[tuple[Any, Any]], side: float, attack: str, few: bool) -> None:
    _, colour, hatch = ATTACKS[attack]
    boxes = panel.boxplot(
        [data for _, data in groups],
        positions=[place + side for place, _ in groups],
        widths=0.34,
        whis=(0, 100),
        patch_artist=True,
        manage_ticks=False,
    )
    for box in boxes["boxes"]:
        box.set(facecolor=colour, hatch=hatch, edgecolor="#333333", linewidth=0.6, alpha=0.75 if few else 1)
    for line in (*boxes["medians"], *boxes["whiskers"], *boxes["caps"]):
        line.set(color="#111111", linewidth=0.9)


def _set_scale(panel: Any, log: bool) -> None:
    if not log:
        panel.yaxis.set_major_locator(MaxNLocator(5))
        return
    panel.set_yscale("log")
    frames.plain_log(panel.yaxis)


def _label(setting: AttackChoice, varied: str) -> str:
    if varied == "steps":
        return str(setting.steps)
    if varied == "epsilon":
        return radius.text(setting.epsilon, setting.norm)
    return f"{frames.norm_words(setting.norm)}\n{radius.text(setting.epsilon, setting.norm)}"


def _models(table: pd.DataFrame) -> str:
    tasks = {in_order(main + auxiliary) for main, auxiliary in zip(table["main"], table["auxiliary"], strict=True)}
    if table["auxiliary"].str.len().eq(1).all():
        return "Pairs"
    return f"The model of {next(iter(tasks))}" if len(tasks) == 1 else f"{len(tasks)} models of more than two tasks"


def _fixed(choice: AttackChoice, varied: str) -> str:
    parts = {
        "norm": frames.norm_words(choice.norm),
        "epsilon": f"radius {radius.text(choice.epsilon, choice.norm)}",
        "steps": f"{choice.steps} steps",
    }
    hidden = ("norm", "epsilon") if varied == "norm" else (varied,)
    return ", ".join(words for name, words in parts.items() if name not in hidden)


def _marker(auxiliary: str) -> dict[str, Any]:
    """The look of the auxiliary task; white where there are several, which have no common look."""
    several = {"marker": "o", "color": "#FFFFFF", "markeredgecolor": "#333333"}
    return {**(style.marker(auxiliary) if len(auxiliary) == 1 else several), "markeredgewidth": 0.5}


def _boxes() -> list[Patch]:
    return [Patch(facecolor=c, hatch=h, edgecolor="#333333", label=words) for words, c, h in ATTACKS.values()]
