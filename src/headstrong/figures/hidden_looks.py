"""What the figures of hidden tasks share: names and looks of objectives, which attacks are shown, units, axes.

A `part` is rows of one family of hidden.csv or hidden_summary.csv, as `of_family` gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, SymmetricalLogLocator

from headstrong import radius
from headstrong.errors import MissingDataError
from headstrong.figures import frames
from headstrong.tasks import TASKS

NAMES: Mapping[str, str] = {
    "cf": "CF",
    "cf_delta": "CF-delta",
    "disruption": "feature disruption",
    "dgba": "DGBA on visible tasks",
    "total": "total on visible tasks",
    "single": "single visible tasks",
    "oracle": "oracle",
    "noise": "noise",
}
LOOKS: Mapping[str, dict[str, Any]] = {
    "cf": {"color": "#D55E00", "marker": "D"},
    "cf_delta": {"color": "#0072B2", "marker": "s"},
    "disruption": {"color": "#009E73", "marker": "^"},
    "dgba": {"color": "#CC79A7", "marker": "v"},
    "total": {"color": "#E69F00", "marker": "P"},
    "single": {"color": "#56B4E9", "marker": "o"},
    "oracle": {"color": "#000000", "marker": "*"},
    "noise": {"color": "#8C8C8C", "marker": "X"},
}
LARGER: Mapping[str, float] = {"*": 1.6, "P": 1.2, "X": 1.2}  # markers that look smaller than they are
CONTROLS = ("oracle", "noise")  # not attacks of somebody who cannot see the task: no access to tell apart
ACCESSES: Mapping[str, str] = {"heads": "with the visible heads", "backbone": "backbone only"}
FILLS: Mapping[str, str] = {
    "heads": "filled: attacker has the visible heads",
    "backbone": "hollow: attacker has the backbone only",
    "": "pale: attacker needs no head",
}
KEYS = ("objective", "access", "stealth", "norm", "epsilon", "steps")
SMALL_TEXT = 8.5
LETTERS = 13.0  # of a heading, per inch
WIDE_FROM = 200.0  # percent from which the errors of dense tasks stand on a logarithmic axis
LINEAR_TO = 10.0  # percent up to which that axis is linear, as damage may be zero or less
FEW_TO = 5000.0  # percent from which powers of ten are ticks enough


@dataclass(frozen=True)
class Shown:
    """The attacks of a figure, and in words how strong they are."""

    rows: pd.DataFrame
    words: str


def families(*tables: pd.DataFrame | None) -> list[str]:
    """Families of the first table that is there, in its order, then those that only the others have."""
    names = [name for table in tables if table is not None and "family" in table.columns for name in table["family"]]
    return list(dict.fromkeys(str(name) for name in names))


def of_family(table: pd.DataFrame | None, name: str, columns: Sequence[str], family: str) -> pd.DataFrame:
    """Rows of one family of the table `name`, an empty access as "", in the order of objectives.

    Raises MissingDataError when the table or the family is absent, or has an objective that has no name here.
    """
    table = frames.need(table, name, columns)
    part = table.loc[table["family"].eq(family)]
    if part.empty:
        raise MissingDataError(f"{name}.csv: no family {family}")
    part = part.assign(access=frames.text(part["access"]))
    if "objective" not in part.columns:
        return part.reset_index(drop=True)
    unknown = sorted(set(part["objective"]) - set(NAMES))
    if unknown:
        raise MissingDataError(f"{name}.csv: the objective {unknown[0]!r} is not known; write the table again")
    places = part["objective"].map(list(NAMES).index)
    return part.assign(place=places).sort_values("place", kind="stable").drop(columns="place").reset_index(drop=True)


def kind_of(part: pd.DataFrame) -> str:
    """ "classes" or "dense": what a family's damage is measured in. A family has one kind."""
    return str(part["kind"].iloc[0])


def main_norm(part: pd.DataFrame) -> str:
    """The norm shown: the maximum norm where it was run, else the first of the table."""
    norms = [str(norm) for norm in part["norm"]]
    return "linf" if "linf" in norms else norms[0]


def longest(part: pd.DataFrame) -> pd.DataFrame:
    """Of attacks that differ in their number of steps alone, the longest."""
    turn = ["hidden"] if "hidden" in part.columns else []
    groups = part.groupby([*turn, *(key for key in KEYS if key != "steps")], dropna=False)
    return part.loc[part["steps"].eq(groups["steps"].transform("max"))]


def at_largest(part: pd.DataFrame, table: str) -> Shown:
    """The attacks at the largest epsilon of the main norm. Raises MissingDataError when there is noise alone."""
    attacks = part.loc[part["objective"].ne("noise")]
    if attacks.empty:
        raise MissingDataError(f"{table}.csv: no attack but noise")
    norm = main_norm(attacks)
    epsilon = float(attacks.loc[attacks["norm"].eq(norm), "epsilon"].max())
    rows = longest(part.loc[part["norm"].eq(norm) & frames.same(part["epsilon"], epsilon)])
    words = f"{frames.norm_words(norm)}, radius {radius.text(epsilon, norm)}, {steps_words(rows)}"
    weaker = [NAMES[name] for name in dict.fromkeys(part["objective"]) if not rows["objective"].eq(name).any()]
    return Shown(rows.reset_index(drop=True), words + (f"; not run there: {', '.join(weaker)}" if weaker else ""))


def steps_words(rows: pd.DataFrame) -> str:
    """How many steps the attacks took, e.g. "50 steps"; noise takes none."""
    steps = rows.loc[rows["objective"].ne("noise"), "steps"].astype(int)
    least, most = steps.min(), steps.max()
    return f"{most} step{'' if most == 1 else 's'}" if least == most else f"{least} to {most} steps"


def lines(part: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(objective, access, rows by stealth) of each way to attack, objectives in their order.

    An attack that needs no head until predictions are to be kept starts, in each access, at the point they share.
    """
    found = []
    for objective in NAMES:
        rows = part.loc[part["objective"].eq(objective)]
        ways = [access for access in ("heads", "backbone", "") if rows["access"].eq(access).any()]
        free = rows.loc[rows["access"].eq("")]
        for access in ways:
            own = rows.loc[rows["access"].eq(access)]
            if access and not own["stealth"].eq(0).any():
                own = pd.concat([free.loc[free["stealth"].eq(0)], own])
            found.append((objective, access, own.sort_values("stealth", kind="stable")))
    return found


def stealths(part: pd.DataFrame) -> list[float]:
    """Weights above 0 that were run, least first."""
    return sorted({float(weight) for weight in part["stealth"] if weight > 0})


def shared_stealth(part: pd.DataFrame) -> float:
    """The largest weight that all objectives have which were run with any; 0 where there is none."""
    sets = [set(stealths(rows)) for _, rows in part.groupby("objective")]
    kept = [weights for weights in sets if weights]
    return max(set.intersection(*kept), default=0.0) if kept else 0.0


def point(objective: str, access: str, size: float = 5.0) -> dict[str, Any]:
    """How a point is drawn: filled, hollow, or pale (no access, but not a control)."""
    look = LOOKS[objective]
    size *= LARGER.get(look["marker"], 1.0)
    colours = {"color": look["color"], "markeredgecolor": look["color"], "markeredgewidth": 0.9}
    if access == "backbone":
        colours["markerfacecolor"] = "white"
    elif access == "heads" or objective in CONTROLS:
        colours |= {"markerfacecolor": look["color"], "markeredgecolor": "#333333", "markeredgewidth": 0.5}
    else:
        colours["markerfacecolor"] = pale(look["color"])
    return {"marker": look["marker"], "ms": size, **colours}


def pale(colour: str, part: float = 0.45) -> str:
    """A colour (#RRGGBB) mixed with white; `part` of it stays."""
    parts = [round(255 - part * (255 - int(colour[i : i + 2], 16))) for i in (1, 3, 5)]
    return "#" + "".join(f"{value:02X}" for value in parts)


def damage_words(kind: str, whose: str) -> str:
    """The label of an axis of damage, e.g. "Hidden task: accuracy lost (points)"."""
    what = "accuracy lost (points)" if kind == "classes" else "error grows by (%)"
    return f"{whose}: {what}"


def set_scale(panel: Any, kind: str, values: Iterable[float], axes: str = "y") -> bool:
    """Whether damage stands on symmetric logarithmic axes, which it does where errors of dense tasks grow far.

    values: all that these axes of the figure show. axes: "x", "y" or "xy". Linear axes get few ticks.
    """
    known = [abs(value) for value in values if value == value]
    largest = max(known, default=0.0)
    wide = kind == "dense" and largest > WIDE_FROM
    ticks = [1.0, 3.0] if largest < FEW_TO else [1.0]
    for name in axes:
        axis = panel.xaxis if name == "x" else panel.yaxis
        if not wide:
            axis.set_major_locator(MaxNLocator(5))
            continue
        getattr(panel, f"set_{name}scale")("symlog", linthresh=LINEAR_TO, linscale=0.6)
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=LINEAR_TO, subs=ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
        axis.set_minor_locator(NullLocator())
    return wide


def scale_words(wide: bool) -> str:
    """What the heading adds for such axes."""
    return f"; logarithmic beyond ±{LINEAR_TO:g}" if wide else ""


def task_words(task: str, kind: str) -> str:
    """A task as printed: the letter of a dense task by its title."""
    return TASKS[task].title if kind == "dense" and task in TASKS else task


def title_words(words: str, letters: int = 28) -> str:
    """Words in at most two lines, for above a panel."""
    return "\n".join(wrap(words, letters, max_lines=2, placeholder=" …"))


def heading(figure: Figure, words: str) -> None:
    """What a figure shows, above its panels, in as many lines as it takes."""
    signs = {printed: chr(0xE000 + i) * 2 for i, printed in enumerate(frames.NORMS.values())}  # as wide as they print
    for printed, sign in signs.items():
        words = words.replace(printed, sign)
    text = "\n".join(wrap(words, int(LETTERS * figure.get_figwidth())))
    for printed, sign in signs.items():
        text = text.replace(sign, printed)
    figure.suptitle(text, x=0.01, ha="left", fontsize=SMALL_TEXT)


def handles(part: pd.DataFrame) -> list[Line2D]:
    """Entries of a legend for the objectives that are there."""
    return [
        Line2D([], [], ls="", label=NAMES[name], **point(name, "heads"))
        for name in NAMES
        if part["objective"].eq(name).any()
    ]


def fill_handles(part: pd.DataFrame) -> list[Line2D]:
    """Entries of a legend for what filled, hollow and pale points say, where there are any."""
    attacks = part.loc[~part["objective"].isin(CONTROLS)]
    return [
        Line2D([], [], ls="", label=words, **{**point("disruption", access), **_grey(access)})
        for access, words in FILLS.items()
        if attacks["access"].eq(access).any()
    ]


def _grey(access: str) -> dict[str, Any]:
    faces = {"heads": "#555555", "backbone": "white", "": "#CCCCCC"}
    return {"marker": "o", "markerfacecolor": faces[access], "markeredgecolor": "#555555"}


def label_lowest(panels: Any, words: str) -> None:
    """The axis of x under the lowest panel that is seen in each column; panels: array (rows, columns)."""
    for column in range(panels.shape[1]):
        seen = [panel for panel in panels[:, column] if panel.get_visible()]
        if seen:
            seen[-1].tick_params(labelbottom=True)
            seen[-1].set_xlabel(words)
