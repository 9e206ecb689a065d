"""DGBA's comparison (arXiv 2305.12066): average relative performance under attack, by balancer, stepper and radius."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from headstrong import layouts
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style

COLUMNS = (
    "model",
    "stepper",
    "norm",
    "epsilon",
    "steps",
    "balancer",
    "attacked",
    "task",
    "relative_performance",
    "standard_error",
)
STEPPERS = ("fgsm", "ifgsm", "pgd", "mim", "apgd")


@dataclass(frozen=True)
class BalancerLook:
    """How one balancer is drawn: the marker tells balancers apart without colour."""

    words: str
    colour: str
    marker: str


LOOKS: Mapping[str, BalancerLook] = {
    "single": BalancerLook("SINGLE", "#8C8C8C", "x"),
    "total": BalancerLook("TOTAL", "#0072B2", "s"),
    "sign_sum": BalancerLook("SIGNSUM", "#009E73", "^"),
    "wgd_published": BalancerLook("WGD", "#E69F00", "v"),
    "wgd_released": BalancerLook("WGD (released)", "#7A4B00", "P"),
    "wgd_cyclic": BalancerLook("WGD (cyclic)", "#CC79A7", "X"),
    "dgba": BalancerLook("DGBA", "#D55E00", "D"),
}


@dataclass(frozen=True)
class Family:
    """Models that differ only in how they were trained: encoder, tasks, and layout ("" when the encoder is shared)."""

    encoder: str
    tasks: str
    layout: str

    @property
    def shares(self) -> float:
        """How much the tasks share, 0 to 1; 1 with one encoder for all."""
        return layouts.sharing(layouts.layout(int(self.layout), len(self.tasks))) if self.layout else 1.0

    @property
    def words(self) -> str:
        """In a title: "resnet34, tasks sDn, layout 0"."""
        return f"{self.encoder}, tasks {self.tasks}" + (f", layout {self.layout}" if self.layout else "")


def comparable(balanced: pd.DataFrame | None, plan: pd.DataFrame, norm: str = "linf") -> pd.DataFrame:
    """Rows of average relative performance of the models of `frames.fully_trained`, the most steps of each stepper.

    Columns: those of balanced.csv, with encoder, tasks, layout and adversarial as the plan has them.
    Raises MissingDataError when there are none.
    """
    table = frames.need(balanced, "balanced", COLUMNS)
    table = table.drop(columns=["encoder", "tasks", "layout", "adversarial"], errors="ignore")
    table = table.loc[frames.text(table["task"]).eq("") & table["norm"].eq(norm) & table["stepper"].isin(STEPPERS)]
    table = table.merge(frames.fully_trained(plan), on="model")
    if table.empty:
        raise MissingDataError(f"balanced.csv: no model of the plan has an average under an attack in {norm}")
    most = table.groupby(["model", "stepper"])["steps"].transform("max")
    return table.loc[table["steps"].eq(most)].reset_index(drop=True)


def families(table: pd.DataFrame, at_most: int = 8) -> list[Family]:
    """Families worth a figure, from `comparable`: with adversarial training, with layouts, or under most balancers.

    Of the layouts of one network, that which shares the most and that which shares the least stand for all, beside
    those that were trained adversarially.
    """
    groups = table.drop_duplicates(["encoder", "tasks", "layout", "adversarial"])
    found: dict[Family, bool] = {}
    for row in groups.to_dict("records"):
        family = Family(row["encoder"], row["tasks"], row["layout"])
        found[family] = found.get(family, False) or bool(row["adversarial"])
    compared = _balancers(table)
    most = max((count, len(family.tasks)) for family, count in compared.items())

    def ends(family: Family) -> bool:
        shares = [f.shares for f in found if (f.encoder, f.tasks) == (family.encoder, family.tasks) and f.layout]
        return family.shares in (min(shares), max(shares))

    first = [family for family, adversarial in found.items() if adversarial]
    then = [f for f in found if f.layout and f not in first and ends(f)]
    last = [f for f in found if not f.layout and f not in first and (compared[f], len(f.tasks)) == most]
    return [*first, *then, *last][:at_most]


def _balancers(table: pd.DataFrame) -> dict[Family, int]:
    counts = table.groupby(["encoder", "tasks", "layout"])["balancer"].nunique()
    return {Family(*map(str, key)): int(count) for key, count in counts.items()}


def draw(
    balanced: pd.DataFrame | None,
    plan: pd.DataFrame,
    family: Family,
    settings: Mapping[str, Any] | None = None,
    *,
    norm: str = "linf",
) -> Figure:
    """Average relative performance in percent against the radius; the lower, the stronger the attack.

    balanced: balanced.csv; plan: `analysis.plan.read_plan`. Balancers without a look (LOOKS) are not drawn. One column
    per stepper, one row per way of training. Bars are standard errors. SINGLE is the mean over the tasks attacked
    alone, its band reaches from the weakest to the strongest of them.
    Raises MissingDataError when the family is not in the table.
    """
    table = comparable(balanced, plan, norm)
    table = table.loc[
        table["encoder"].eq(family.encoder) & table["tasks"].eq(family.tasks) & table["layout"].eq(family.layout)
    ]
    if table.empty:
        raise MissingDataError(f"balanced.csv: no attack on {family.words}")
    steppers = [name for name in STEPPERS if name in set(table["stepper"])]
    trainings = sorted(set(table["adversarial"]))
    balancers = [name for name in LOOKS if name in set(table["balancer"])]
    unit, words_of_axis = frames.radius_axis(norm)
    radii = sorted({round(unit * float(value), 4) for value in table["epsilon"]})
    doubling = _doubling(radii)
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], 2.15 * len(trainings) + 0.85)
        panels = figure.subplots(len(trainings), len(steppers), sharex=True, sharey="row", squeeze=False)
        for line, training in enumerate(trainings):
            for column, stepper in enumerate(steppers):
                panel = panels[line, column]
                part = table.loc[table["stepper"].eq(stepper) & table["adversarial"].eq(training)]
                _draw_panel(panel, part, balancers, unit, doubling)
                if line == 0:
                    panel.set_title(_stepper_words(table, stepper), fontsize=8)
                if column == 0:
                    panel.set_ylabel(f"{frames.trained(training)}\nAverage relative\nperformance (%)")
        for panel in panels[-1]:
            _set_radii(panel, radii, doubling)
            panel.set_xlabel(words_of_axis)
        figure.suptitle(f"{family.words}, {frames.norm_words(norm)}", x=0.01, ha="left", fontsize=8.5)
        figure.legend(
            handles=_legend(balancers),
            loc="outside lower center",
            ncols=len(balancers) + 1 if len(balancers) <= 5 else 4,
        )
        return figure


def _draw_panel(panel: Any, part: pd.DataFrame, balancers: list[str], unit: float, doubling: bool) -> None:
    part = part.assign(x=(unit * part["epsilon"].astype(float)).round(4), y=100 * part["relative_performance"])
    panel.axhline(0, color="#333333", lw=0.7)
    panel.yaxis.set_major_locator(MaxNLocator(5))
    if part.empty:
        panel.text(0.5, 0.5, "not run", transform=panel.transAxes, ha="center", color="#555555")
    alone, few = part["x"].nunique() == 1, part["x"].nunique() <= 8
    for number, balancer in enumerate(balancers):
        these = part.loc[part["balancer"].eq(balancer)].sort_values("x")
        if these.empty:
            continue
        # points of one radius stand side by side, lines over several radii do not need it
        shift = number - (len(balancers) - 1) / 2 if alone else 0.0
        these = these.assign(x=these["x"] * 2 ** (0.14 * shift) if doubling else these["x"] + 0.35 * shift)
        look = LOOKS[balancer]
        marks = {"color": look.colour, "marker": look.marker, "ms": 4 if few else 2.8, "lw": 1.2 if few else 1.0}
        marks["zorder"] = 3 + number
        if balancer == "single":
            groups = these.groupby("x")["y"].agg(["mean", "min", "max"])
            if len(groups) == 1:  # a band of no width would not show
                panel.plot(
                    groups.index.repeat(2),
                    groups[["min", "max"]].iloc[0],
                    color=look.colour,
                    alpha=0.3,
                    lw=9,
                    solid_capstyle="butt",
                )
            panel.fill_between(
                groups.index, groups["min"], groups["max"], color=look.colour, alpha=0.25, lw=0, zorder=1
            )
            panel.plot(groups.index, groups["mean"], **marks)
        else:
            panel.errorbar(
                these["x"],
                these["y"],
                100 * these["standard_error"],
                elinewidth=0.8,
                capsize=1.6 if few else 0,
                markeredgecolor="#333333",
                markeredgewidth=0.4,
                **marks,
            )


def _doubling(radii: list[float]) -> bool:
    """Few radii that double rather than add up: a logarithmic axis keeps the small ones apart."""
    return 1 < len(radii) <= 6 and radii[0] > 0 and radii[-1] / radii[0] >= 6


def _set_radii(panel: Any, radii: list[float], doubling: bool) -> None:
    if len(radii) == 1:
        panel.set_xlim(radii[0] - 1.6, radii[0] + 1.6)
        panel.set_xticks(radii, [f"{radii[0]:g}"])
    elif len(radii) <= 6:
        if doubling:
            panel.set_xscale("log", base=2)
        panel.set_xticks(radii, [f"{radius:g}" for radius in radii])
        panel.xaxis.set_minor_locator(NullLocator())
    else:
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _stepper_words(table: pd.DataFrame, stepper: str) -> str:
    steps = int(table.loc[table["stepper"].eq(stepper), "steps"].max())
    return stepper.upper() + (f", {steps} steps" if steps > 1 else "")


def _legend(balancers: list[str]) -> list[Any]:
    handles: list[Any] = []
    for name in balancers:
        look = LOOKS[name]
        edge: dict[str, Any] = {} if name == "single" else {"markeredgecolor": "#333333", "markeredgewidth": 0.4}
        words = "SINGLE, mean" if name == "single" else look.words
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, ms=4.5, label=words, **edge))
        if name == "single":
            handles.append(Patch(facecolor=look.colour, alpha=0.25, label="SINGLE, range"))
    return handles
