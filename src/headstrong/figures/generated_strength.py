"""How strong generated perturbations are: against their radius, and MTA against GAP (arXiv 2011.09824)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from headstrong import radius
from headstrong.analysis.generated import harm
from headstrong.analysis.generated_records import CLEAN, METHODS, NOISE, TRIVIAL
from headstrong.analysis.mta_tables import AVERAGE, CLASS_TABLES, HEADINGS
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style

COLUMNS = ("family", "victim", "trained_on", "method", "mode", "goal", "norm", "epsilon", "task", "metric", "value")
LOOKS: Mapping[str, dict[str, Any]] = {
    "gap": {"color": "#E69F00", "marker": "s"},
    "mta": {"color": "#0072B2", "marker": "D"},
    NOISE: {"color": "#7F7F7F", "marker": "v"},
}
LINES: Mapping[str, Any] = {"universal": "-", "instance": (0, (4, 1.6))}
MODES = {"universal": "universal", "instance": "per-instance"}
GOALS = {"untargeted": ("fooling_ratio", "Fooling ratio (%)"), "targeted": ("target_accuracy", "Called the target (%)")}
TITLES = {
    "seg_miou": "mIoU (%)",
    "seg_pixel_accuracy": "Pixel accuracy (%)",
    "depth_abs_err": "Depth error (m)",
    "depth_rel_err": "Relative depth error",
    "normal_mean": "Normals, mean angle (°)",
    "normal_median": "Normals, median angle (°)",
    "normal_within_11.25": "Normals within 11.25° (%)",
    "normal_within_22.5": "Normals within 22.5° (%)",
    "normal_within_30": "Normals within 30° (%)",
    "abs_err": "absolute error",
}
PUBLISHED: dict[str, Any] = {"marker": "o", "ms": 4.2, "markerfacecolor": "none", "markeredgecolor": "#7A4A00"}
BARS: dict[str, Any] = {"elinewidth": 0.8, "capsize": 1.6, "markeredgecolor": "#333333", "markeredgewidth": 0.4}
ROW = 0.155  # inches of one line of the comparison
DOUBT = 2.0  # standard errors of GAP's damage below which there is nothing to compare with


def comparable(generated: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of generated.csv of the victims that the generators were trained against, and of the constant predictor.

    Raises MissingDataError when the study has no generators.
    """
    table = frames.need(generated, "generated", COLUMNS)
    generators = table.loc[table["method"].isin(METHODS)]
    own = set(zip(generators["family"], generators["trained_on"], strict=True))
    kept = [(f, v) in own or v == "" for f, v in zip(table["family"], table["victim"], strict=True)]
    return table.loc[kept].reset_index(drop=True)


def families(table: pd.DataFrame) -> list[str]:
    """Families of generators, in the order of the table (columns family, method)."""
    return list(dict.fromkeys(table.loc[table["method"].isin(METHODS), "family"]))


def draw(generated: pd.DataFrame | None, family: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """Of one family, against the radius: what the perturbations of GAP, of MTA, and noise do to their victims.

    Classifiers: the fooling ratio, and the share called the target. Dense models: each measure of Table 5.
    Raises MissingDataError when the family is not in the table.
    """
    table = comparable(generated)
    part = table.loc[table["family"].eq(family)]
    generators = part.loc[part["method"].isin(METHODS)]
    if generators.empty:
        raise MissingDataError(f"generated.csv: no generator of the family {family}")
    norm = "linf" if generators["norm"].eq("linf").any() else str(generators["norm"].iloc[0])
    part = part.loc[part["norm"].isin((norm, ""))]
    with style.context(settings) as whole:
        drawing = _draw_classes if part["metric"].eq("accuracy").any() else _draw_dense
        figure = drawing(part, whole["width"])
        figure.suptitle(
            f"{family}: generated perturbations, {frames.norm_words(norm)}", x=0.01, ha="left", fontsize=8.5
        )
        return figure


def _draw_classes(part: pd.DataFrame, width: float) -> Figure:
    """A column per mode, a row per goal; small points are tasks, lines their mean."""
    modes = [mode for mode in MODES if part["mode"].eq(mode).any()]
    goals = [goal for goal in GOALS if (part["goal"].eq(goal) & part["mode"].ne("")).any()]
    figure = style.new_figure(width, 2.0 * len(goals) + 0.85)
    panels = figure.subplots(len(goals), len(modes), sharex=True, sharey=True, squeeze=False)
    radii, (unit, words_of_axis) = _radii(part), _axis(part)
    for line, goal in enumerate(goals):
        metric, words = GOALS[goal]
        rows = part.loc[part["metric"].eq(metric)]
        for column, mode in enumerate(modes):
            panel = panels[line, column]
            here = rows.loc[rows["goal"].eq(goal) & rows["mode"].eq(mode)]
            noise = rows.loc[rows["method"].eq(NOISE) & rows["epsilon"].isin(list(here["epsilon"]))]
            for number, (method, look) in enumerate(LOOKS.items()):
                these = noise if method == NOISE else here.loc[here["method"].eq(method)]
                _mean_line(panel, these, look, unit, _shift(radii, number))
            panel.set_title(f"{MODES[mode]}, {goal}", fontsize=8)
            _set_radii(panel, radii)
        panels[line, 0].set_ylabel(words)
        panels[line, 0].set_ylim(-4, 104)
    for panel in panels[-1]:
        panel.set_xlabel(words_of_axis)
    handles = [Line2D([], [], ms=4, label=_word(method), **look) for method, look in LOOKS.items()]
    handles.append(Line2D([], [], ls="", marker="o", ms=2.6, color="#333333", alpha=0.5, label="one task"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _mean_line(panel: Any, rows: pd.DataFrame, look: dict[str, Any], unit: float, shift: float) -> None:
    if rows.empty:
        return
    panel.plot(unit * rows["epsilon"] + shift, rows["value"], ls="", marker="o", ms=2.6, alpha=0.5, color=look["color"])
    groups = rows.groupby("epsilon")
    # Images of tasks differ: their errors are independent.
    errors = groups["standard_error"].apply(lambda values: float(np.sqrt((values**2).sum())) / len(values))
    means = groups["value"].mean()
    panel.errorbar(unit * means.index + shift, means, errors, ms=4, zorder=4, **look, **BARS)


def _draw_dense(part: pd.DataFrame, width: float) -> Figure:
    """A panel per measure; lines are methods and modes, level lines the clean victim and a constant predictor."""
    wanted = part.loc[part["metric"].isin(list(TITLES)), ["task", "metric"]].drop_duplicates()
    measures = list(zip(wanted["task"], wanted["metric"], strict=True))
    lines, columns = frames.grid_of(len(measures))
    figure = style.new_figure(width, 1.6 * lines + 0.95)
    panels = figure.subplots(lines, columns, sharex=True, squeeze=False)
    radii, (unit, words_of_axis) = _radii(part), _axis(part)
    for panel, (task, metric) in zip(panels.flat, measures, strict=False):
        rows = part.loc[part["task"].eq(task) & part["metric"].eq(metric)]
        for method, dots in ((CLEAN, ":"), (TRIVIAL, "-.")):
            for value in rows.loc[rows["method"].eq(method), "value"]:
                panel.axhline(value, color="#333333", lw=0.9, ls=dots, zorder=1)
        for number, (method, look) in enumerate(LOOKS.items()):
            for mode in [""] if method == NOISE else MODES:
                these = rows.loc[rows["method"].eq(method) & rows["mode"].eq(mode)].sort_values("epsilon")
                x = unit * these["epsilon"] + _shift(radii, number)
                dashes = LINES.get(mode, "-")
                filled = {} if mode != "instance" else {"markerfacecolor": "white"}
                edge = {**BARS, "markeredgecolor": look["color"] if filled else "#333333"}
                if len(these):
                    panel.errorbar(
                        x, these["value"], these["standard_error"], ms=3.6, ls=dashes, **look, **edge, **filled
                    )
        title = TITLES[metric] if task in "sdn" else f"{task}: {TITLES[metric]}"
        panel.set_title(f"{title} {'↑' if harm(metric) < 0 else '↓'}", fontsize=7.5)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.margins(y=0.12)
        _set_radii(panel, radii)
    for panel in panels.flat[len(measures) :]:
        panel.set_visible(False)
    for column in range(columns):
        lowest = [panel for panel in panels[:, column] if panel.get_visible()][-1]
        lowest.set_xlabel(words_of_axis)
        lowest.tick_params(labelbottom=True)
    handles = [
        Line2D([], [], ms=4, ls=LINES[mode], label=f"{_word(method)}, {words}", **LOOKS[method], **_face(mode, method))
        for method in METHODS
        for mode, words in MODES.items()
        if (part["method"].eq(method) & part["mode"].eq(mode)).any()
    ]
    handles.append(Line2D([], [], ms=4, label=_word(NOISE), **LOOKS[NOISE]))
    handles.append(Line2D([], [], color="#333333", lw=0.9, ls=":", label="clean"))
    handles.append(Line2D([], [], color="#333333", lw=0.9, ls="-.", label="constant predictor"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _face(mode: str, method: str) -> dict[str, Any]:
    hollow = {"markerfacecolor": "white", "markeredgecolor": LOOKS[method]["color"]}
    return hollow if mode == "instance" else {"markeredgecolor": "#333333", "markeredgewidth": 0.4}


def _word(method: str) -> str:
    return method.upper() if method in METHODS else "noise of the same size"


def _axis(part: pd.DataFrame) -> tuple[float, str]:
    """`frames.radius_axis` of the one norm of these rows."""
    return frames.radius_axis(str(part.loc[part["method"].isin(METHODS), "norm"].iloc[0]))


def _radii(part: pd.DataFrame) -> list[float]:
    """The radii of the generators in the units of the axis."""
    unit, _ = _axis(part)
    return sorted({round(unit * float(value), 6) for value in part.loc[part["method"].isin(METHODS), "epsilon"]})


def _shift(radii: Sequence[float], number: int) -> float:
    """Points of one radius stand side by side: the methods are often equally strong."""
    return (number - 1) * 0.025 * ((radii[-1] - radii[0]) or 4.0)


def _set_radii(panel: Any, radii: Sequence[float]) -> None:
    if len(radii) == 1:
        panel.set_xlim(radii[0] - 1, radii[0] + 1)
    if len(radii) <= 6:
        panel.set_xticks(list(radii), [f"{value:g}" for value in radii])


def gains(mta_tables: pd.DataFrame | None, family: str) -> pd.DataFrame:
    """How much stronger MTA is than GAP, cell by cell of Tables 1 to 5: (setting, column, gain, error, published).

    Classifiers: percentage points of the fooling ratio, or of the share called the target. Dense models: percent of the
    damage that GAP does to the measure; measures that GAP moves by less than DOUBT standard errors are left out.
    Positive: MTA is the stronger attack. published: the same of the printed numbers, NaN where there are none.
    Raises MissingDataError when there are no cells with both.
    """
    table = frames.need(mta_tables, "mta_tables", ("table", "block", "row", "column", "ours", "gain", "published"))
    part = table.loc[table["family"].eq(family) & table["table"].isin([*CLASS_TABLES, "5"])]
    found = []
    for row in part.loc[part["row"].eq("MTA") & part["gain"].notna()].to_dict("records"):
        if row["metric"] in ("accuracy", "seg_miou_image"):  # of the same pictures as the cell beside it
            continue
        cell = part["table"].eq(row["table"]) & part["column"].eq(row["column"]) & part["metric"].eq(row["metric"])
        gap = part.loc[cell & part["block"].eq(row["block"]) & part["row"].eq("GAP")].iloc[0]
        clean = part.loc[cell & part["row"].eq("Clean")] if row["table"] == "5" else None
        found += _gain(row, gap, clean)
    if not found:
        raise MissingDataError(f"mta_tables.csv: GAP and MTA were not both run in the family {family}")
    cells = pd.DataFrame(found)
    # One printed average is wrong: the mean of the printed tasks takes the place of all.
    average = cells["column"].eq(AVERAGE)
    means = cells["setting"].map(cells.loc[~average].groupby("setting")["published"].mean())
    return cells.assign(published=cells["published"].mask(average & cells["published"].notna(), means))


def _gain(row: dict[str, Any], gap: pd.Series, clean: pd.DataFrame | None) -> list[dict[str, Any]]:
    sign = harm(row["metric"])
    cell = {"setting": _setting(row), "column": row["column"]}
    said = row["published"] - gap["published"]
    if clean is None:
        errors = {"gain": sign * row["gain"], "error": row["gain_standard_error"]}
        return [{**cell, **errors, "published": sign * said}]
    if clean.empty:
        return []
    base = clean.iloc[0]
    damage = sign * (gap["ours"] - base["ours"])
    if not damage > DOUBT * np.hypot(gap["standard_error"], base["standard_error"]):
        return []
    scale = 100 / damage
    published = 100 * sign * said / abs(gap["published"] - base["published"])
    return [
        {
            **cell,
            "gain": sign * scale * row["gain"],
            "error": scale * row["gain_standard_error"],
            "published": published,
        }
    ]


def _setting(row: dict[str, Any]) -> str:
    norm = "" if row["norm"] == "linf" else f", {frames.norm_words(row['norm'])}"
    size = f"radius {radius.text(row['epsilon'], row['norm'])}{norm}"
    if row["table"] == "5":
        return f"{row['block'].rpartition(', ')[2]}, {size}"
    mode, goal, _ = CLASS_TABLES[row["table"]]
    return f"{MODES[mode]}, {goal}, {size}"


def draw_comparison(mta_tables: pd.DataFrame | None, family: str, settings: Mapping[str, Any] | None = None) -> Figure:
    """MTA against GAP, one line per cell of the paper's tables: right of zero, sharing the encoder helps the attack.

    mta_tables: mta_tables.csv. Raises MissingDataError as `gains`.
    """
    table = gains(mta_tables, family)
    dense = table["column"].isin(list(HEADINGS.values())).any()
    settings_of = list(dict.fromkeys(table["setting"]))
    columns = 2 if len(settings_of) > 1 else 1
    lines = -(-len(settings_of) // columns)
    rows = max(table["setting"].value_counts())
    with style.context(settings) as whole:
        figure = style.new_figure(whole["width"], lines * (ROW * rows + 0.36) + 0.95)
        panels = figure.subplots(lines, columns, sharex=True, squeeze=False)
        for panel, name in zip(panels.flat, settings_of, strict=False):
            _draw_gains(panel, table.loc[table["setting"].eq(name)])
            panel.set_title(name, fontsize=7.5)
        for panel in panels.flat[len(settings_of) :]:
            panel.set_visible(False)
        for column in range(columns):
            lowest = [panel for panel in panels[:, column] if panel.get_visible()][-1]
            lowest.tick_params(labelbottom=True)
            lowest.set_xlabel("MTA over GAP, % of GAP's damage" if dense else "MTA over GAP, percentage points")
        figure.suptitle(f"{family}: MTA against GAP", x=0.01, ha="left", fontsize=8.5)
        handles: list[Any] = [
            Line2D([], [], ls="", ms=4, label="ours, 2 standard errors", markeredgecolor="#333333", **LOOKS["mta"])
        ]
        if table["published"].notna().any():
            handles.append(Line2D([], [], ls="", label="published", **PUBLISHED))
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return figure


def _draw_gains(panel: Any, part: pd.DataFrame) -> None:
    places = np.arange(len(part))[::-1]
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")
    panel.axvline(0, color="#333333", lw=0.8, zorder=1)
    panel.plot(part["published"], places, ls="", zorder=3, **PUBLISHED)
    panel.errorbar(part["gain"], places, xerr=2 * part["error"], ls="", ms=4, zorder=4, **LOOKS["mta"], **BARS)
    panel.set_yticks(places, [_name(column) for column in part["column"]])
    panel.set_ylim(-0.7, len(part) - 0.3)
    panel.tick_params(axis="y", length=0, labelsize=7)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))


def _name(column: str) -> str:
    """A cell of the paper's tables by a name that can stand alone."""
    words = {heading: TITLES[metric].split(" (")[0] for metric, heading in HEADINGS.items() if metric in TITLES}
    return {**words, "Abs Err": "Depth error", AVERAGE: "average of tasks"}.get(column, column)
