"""Recall of the important class against accuracy, for every setting that was tried (after arXiv 2209.10920, Table 1).

Also what the figures of important classes share: looks and names of the losses, and which setting was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import shorten, wrap
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from headstrong.analysis import camri_table
from headstrong.analysis.importance_records import BASE, LOSSES
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style

SETTING = ("margin", "scale", "weight")
COLUMNS = (
    *("family", "loss", "important", "classes", *SETTING, "split"),
    *("recall", "recall_low", "recall_high", "accuracy", "accuracy_low", "accuracy_high"),
)
CHOICE_COLUMNS = ("family", "rule", "loss", "important", "classes", *SETTING, "recall")
NAMES: Mapping[str, str] = {**camri_table.NAMES, "softmax": "Normalised softmax"}
LOOKS: Mapping[str, dict[str, Any]] = {
    "camri": {"color": "#D55E00", "marker": "D"},
    "arcface": {"color": "#0072B2", "marker": "s"},
    "softmax": {"color": "#56B4E9", "marker": "^"},
    "crwwce": {"color": "#CC79A7", "marker": "v"},
    "wce": {"color": "#009E73", "marker": "P"},
    "ce": {"color": "#000000", "marker": "o"},
}
RULES: Mapping[str, str] = {"validation": "chosen on validation", "published": "chosen by the paper's rule"}
FAR = 10.0  # points of accuracy below the cross entropy from which a setting stands at the edge
LETTERS = 12  # of a heading, per inch
SPACE = 1.2  # points of accuracy between that edge and the others


def families(table: pd.DataFrame) -> list[str]:
    """Families of a table with a column family, in its order."""
    return list(dict.fromkeys(table["family"]))


def setting_words(margin: float, scale: float, weight: float) -> str:
    """A setting as printed, e.g. "margin 4π/64, scale 16"; "" where the loss has none. margin in 64ths of pi."""
    parts = [("margin", margin, "π/64"), ("scale", scale, ""), ("weight", weight, "")]
    return ", ".join(f"{name} {value:g}{unit}" for name, value, unit in parts if not math.isnan(value))


def key_words(important: str, classes: str) -> str:
    """A key and its classes as printed: "worst1: cat", or "cat" where the key is called as its class.

    classes: names with "; " between them.
    """
    names = classes.replace("; ", ", ")
    return names if names == important else f"{important}: {names}"


def heading(figure: Figure, family: str, key: str, names: Sequence[str], words: str) -> None:
    """What a figure of one key shows, above its panels. names: of the important classes."""
    classes = "" if [key] == list(names) else f" ({shorten(', '.join(names), 40, placeholder=' …')})"
    lines = wrap(f"{family}, {key}{classes}: {words}", int(LETTERS * figure.get_figwidth()))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8.5)


def rule_of(table: pd.DataFrame, family: str) -> str:
    """The rule by which settings of a family are chosen: "validation", or "published" where it has no such pictures.

    table: camri_table_1.csv; "validation" too where the family is not in it.
    """
    rules = set(table.loc[table["family"].eq(family), "rule"])
    return next((rule for rule in RULES if rule in rules), "validation")


def chosen(table: pd.DataFrame | None, family: str, key: str) -> dict[str, dict[str, Any]]:
    """By loss, the chosen setting of one key: its row of camri_table_1.csv. A loss of which no setting keeps accuracy
    is not there. Raises MissingDataError when there is no such table."""
    table = frames.need(table, "camri_table_1", CHOICE_COLUMNS)
    here = table["family"].eq(family) & table["important"].eq(key) & table["rule"].eq(rule_of(table, family))
    return {str(row["loss"]): row for row in table.loc[here & table["recall"].notna()].to_dict("records")}


def shown(table: pd.DataFrame | None, choices: pd.DataFrame | None, family: str, key: str) -> dict[str, dict[str, Any]]:
    """By loss, the setting to show of one key: the chosen one; of a loss of which none keeps accuracy, the one that is
    the most accurate on the pictures that are chosen by. `kept` in a row says which of the two it is.

    table: importance_settings.csv, of whose test rows the latter are. Raises as `chosen`.
    """
    table = frames.need(table, "importance_settings", COLUMNS)
    picked = {loss: {**row, "kept": True} for loss, row in chosen(choices, family, key).items()}
    of_key = table.loc[table["family"].eq(family) & table["important"].eq(key)]
    split = "validation" if of_key["split"].eq("validation").any() else "test"
    for loss, rows in of_key.loc[of_key["split"].eq(split)].groupby("loss"):
        if loss not in picked:
            best = rows.sort_values("accuracy", ascending=False, kind="stable").iloc[0].to_dict()
            tests = of_key.loc[of_key["split"].eq("test") & of_key["loss"].eq(loss) & same_setting(of_key, best)]
            picked[str(loss)] = {**tests.iloc[0].to_dict(), "kept": False}
    return picked


def same_setting(frame: pd.DataFrame, row: Mapping[str, Any]) -> pd.Series:
    """Which rows of a table have the margin, scale and weight of `row`; what is missing in both is the same."""
    same = pd.Series(True, index=frame.index)
    for name in SETTING:
        column = frame[name].astype(float)
        same &= column.isna() if math.isnan(row[name]) else column.eq(row[name])
    return same


def draw(
    table: pd.DataFrame | None,
    choices: pd.DataFrame | None,
    family: str,
    settings: Mapping[str, Any] | None = None,
) -> Figure:
    """Of one family, a panel per key of important classes: every setting's test recall against its accuracy, percent.

    table: importance_settings.csv; choices: camri_table_1.csv, whose settings are ringed.
    Raises MissingDataError when a table is absent or has no test pictures of the family.
    """
    table = frames.need(table, "importance_settings", COLUMNS)
    part = table.loc[table["family"].eq(family) & table["split"].eq("test") & table["recall"].notna()]
    if part.empty:
        raise MissingDataError(f"importance_settings.csv: no test pictures of the family {family}")
    keys = list(dict.fromkeys(part["important"]))
    lines, columns = frames.grid_of(len(keys))
    with style.context(settings) as whole:
        width = whole["width"] if columns > 1 else 0.6 * whole["width"]
        figure = style.new_figure(width, 2.35 * lines + 1.05)
        panels = figure.subplots(lines, columns, sharex=True, squeeze=False)
        for panel, key in zip(panels.flat, keys, strict=False):
            rows = part.loc[part["important"].eq(key)]
            _draw_key(panel, rows, chosen(choices, family, key))
            words = wrap(key_words(key, rows["classes"].iloc[0]), 30, max_lines=2, placeholder=" …")
            panel.set_title("\n".join(words), fontsize=8)
        for panel in panels.flat[len(keys) :]:
            panel.set_visible(False)
        for column in range(columns):
            lowest = [panel for panel in panels[:, column] if panel.get_visible()][-1]
            lowest.tick_params(labelbottom=True)
            lowest.set_xlabel("Accuracy, all classes (%)")
        for panel in panels[:, 0]:
            panel.set_ylabel("Recall, important class (%)")
        figure.suptitle(f"{family}: every setting, test pictures", x=0.01, ha="left", fontsize=8.5)
        rule = rule_of(frames.need(choices, "camri_table_1", CHOICE_COLUMNS), family)
        figure.legend(handles=_handles(part, rule), loc="outside lower center", ncols=4 if columns > 1 else 2)
        return figure


def _draw_key(panel: Any, rows: pd.DataFrame, picked: Mapping[str, Mapping[str, Any]]) -> None:
    panel.grid(visible=True, axis="both")
    base = rows.loc[rows["loss"].eq(BASE)]
    for row in base.to_dict("records"):
        panel.axvline(row["accuracy"], color="#333333", lw=0.9, zorder=1)
        panel.axhline(row["recall"], color="#333333", lw=0.9, ls=(0, (4, 2)), zorder=1)
    floor = float(base["accuracy"].max()) - FAR if len(base) else -math.inf
    for loss in reversed(LOSSES):  # the first of the poster's table on top
        of_loss = rows.loc[rows["loss"].eq(loss)]
        ringed = same_setting(of_loss, picked[loss]) if loss in picked else pd.Series(False, index=of_loss.index)
        for row, ring in zip(of_loss.to_dict("records"), ringed, strict=True):
            _draw_point(panel, row, LOOKS[loss], bool(ring), floor)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.margins(0.08)


def _draw_point(panel: Any, row: Mapping[str, Any], look: Mapping[str, Any], ring: bool, floor: float) -> None:
    """One setting with its intervals; one far below `floor` stands left of it, its accuracy written beside it."""
    far = row["accuracy"] < floor
    x = floor - SPACE if far else row["accuracy"]
    bars = {"ls": "", "elinewidth": 0.6, "capsize": 0, "ecolor": look["color"], "alpha": 0.55, "zorder": 2}
    panel.errorbar(x, row["recall"], yerr=_reach(row, "recall"), xerr=None if far else _reach(row, "accuracy"), **bars)
    point = {"ls": "", "marker": look["marker"], "clip_on": not far}
    if ring:
        panel.plot(x, row["recall"], ms=6, color=look["color"], mec="#000000", mew=1.1, zorder=5, **point)
    else:
        panel.plot(x, row["recall"], zorder=3, **_open(row["loss"]), **point)
    if far:
        panel.annotate(
            f"← {row['accuracy']:.0f}", (x, row["recall"]), (5, 0), textcoords="offset points", fontsize=6, va="center"
        )


def _open(loss: str) -> dict[str, Any]:
    """A setting that was not chosen: the cross is larger, or its edges would fill it."""
    return {"ms": 5 if LOOKS[loss]["marker"] == "P" else 4, "mfc": "white", "mec": LOOKS[loss]["color"], "mew": 0.9}


def _reach(row: Mapping[str, Any], name: str) -> list[list[float]] | None:
    """The 95 % interval as distances below and above (2, 1); None where there is none, as of one trial."""
    below, above = row[name] - row[f"{name}_low"], row[f"{name}_high"] - row[name]
    return None if math.isnan(below) or math.isnan(above) else [[max(below, 0.0)], [max(above, 0.0)]]


def _handles(part: pd.DataFrame, rule: str) -> list[Line2D]:
    handles = [
        Line2D([], [], ls="", marker=LOOKS[loss]["marker"], label=NAMES[loss], **_open(loss))
        for loss in LOSSES
        if part["loss"].eq(loss).any()
    ]
    handles.append(
        Line2D([], [], ls="", marker="D", ms=6, color="#8C8C8C", mec="#000000", mew=1.1, label=f"filled: {RULES[rule]}")
    )
    handles.append(Line2D([], [], color="#333333", lw=0.9, label="accuracy of CE, to keep"))
    handles.append(Line2D([], [], color="#333333", lw=0.9, ls=(0, (4, 2)), label="recall of CE"))
    return handles
