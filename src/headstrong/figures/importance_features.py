"""Features of two numbers, seen from above: the poster's Figure 3 (CAMRI loss, arXiv 2209.10920)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from headstrong.analysis.importance import Features
from headstrong.analysis.importance_records import NEUTRAL
from headstrong.errors import MissingDataError
from headstrong.figures import importance_grid, style
from headstrong.figures.importance_angles import IMPORTANT_COLOUR, SHOWN, main_key
from headstrong.figures.importance_grid import NAMES

MARKERS = "osv^<>PXpd"
MOST = 1500  # pictures of a panel; more are thinned out evenly
RAY, NUMBER, EDGE = 1.0, 1.1, 1.22  # of the largest feature shown: ends of rays, their numbers, the panel
LETTERS, LONGEST = 17, 24  # of the legend, per inch, and in a name
INNER = 0.99  # share of features within the rays
Colour = tuple[float, float, float]


def draw(
    found: Sequence[Features], choices: pd.DataFrame | None, family: str, settings: Mapping[str, Any] | None = None
) -> Figure:
    """Of one family, a panel per loss: 2-D features of the test pictures of one trial, and the classes' weight vectors.

    found: the classifiers of the family with such features; choices: camri_table_1.csv, which says the settings. Where
    the chosen one has no such features, or no setting keeps accuracy, the first that has some is shown.
    Raises MissingDataError when no loss has any.
    """
    key, names = main_key(choices, family)
    picked = importance_grid.chosen(choices, family, key)
    shown = [one for loss in SHOWN if (one := _pick(found, loss, key, picked.get(loss))) is not None]
    if not shown:
        raise MissingDataError(f"features: no classifier of {family} has features of two numbers")
    columns = 1 if len(shown) == 1 else 2
    lines = -(-len(shown) // columns)
    classes = shown[0].classes
    labels = [f"{number}  {shorten(name, LONGEST, placeholder='…')}" for number, name in enumerate(classes)]
    with style.context(settings) as whole:
        cell = whole["width"] / 2
        side_by_side = max(1, min(5, int(columns * cell / (0.45 + max(map(len, labels)) / LETTERS))))
        figure = style.new_figure(columns * cell, lines * cell + 0.65 + 0.17 * -(-len(classes) // side_by_side))
        panels = figure.subplots(lines, columns, squeeze=False)
        for panel, one in zip(panels.flat, shown, strict=False):
            _draw_trial(panel, one, names)
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        importance_grid.heading(figure, family, key, names, "features of the test pictures")
        ink: dict[str, Any] = {"ls": "", "ms": 4, "mec": "#333333", "mew": 0.4}
        handles = [Line2D([], [], label=label, **ink, **_look(k, classes, names)) for k, label in enumerate(labels)]
        figure.legend(handles=handles, loc="outside lower center", ncols=side_by_side, fontsize=7)
        return figure


def _pick(found: Sequence[Features], loss: str, key: str, choice: Mapping[str, Any] | None) -> Features | None:
    """The classifier of a loss that is shown: of the chosen setting if it is there, of the first trial."""
    wanted = "" if loss in NEUTRAL else key
    there = [one for one in found if one.loss == loss and one.important == wanted]

    def rank(one: Features) -> tuple[bool, int]:
        return choice is None or not _same(one, choice), one.trial

    return min(there, key=rank, default=None)


def _same(one: Features, choice: Mapping[str, Any]) -> bool:
    pairs = ((one.margin, choice["margin"]), (one.scale, choice["scale"]))
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


def _draw_trial(panel: Any, one: Features, names: Sequence[str]) -> None:
    size = float(np.quantile(np.linalg.norm(one.features, axis=1), INNER)) or 1.0
    step = -(-len(one.truth) // MOST)
    points, truth = one.features[::step], one.truth[::step]
    favoured = [one.classes.index(name) for name in names if name in one.classes]
    order = [number for number in range(len(one.classes)) if number not in favoured] + favoured
    for number in order:
        look, strong = _look(number, one.classes, names), number in favoured
        here = points[truth == number]
        ink = {"ms": 2.4, "mec": "none", "alpha": 0.9} if strong else {"ms": 2.2, "mec": "none", "alpha": 0.7}
        panel.plot(*here.T, ls="", zorder=4 if strong else 2, rasterized=True, **ink, **look)
        length = float(np.linalg.norm(one.weights[number]))
        if length:
            _draw_ray(panel, one.weights[number] / length, size, number, strong, look["color"])
    words = importance_grid.setting_words(one.margin, one.scale, math.nan)
    panel.set_title(NAMES[one.loss] + (f", {words}" if words else ""), fontsize=8)
    panel.set_aspect("equal")
    panel.set_xlim(-EDGE * size, EDGE * size)
    panel.set_ylim(-EDGE * size, EDGE * size)
    panel.grid(visible=True, axis="both")
    for axis, label in ((panel.xaxis, "First feature"), (panel.yaxis, "Second feature")):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_label_text(label)


def _draw_ray(panel: Any, direction: Any, size: float, number: int, strong: bool, colour: Colour) -> None:
    tip = RAY * size * direction
    ink = colour if strong else "#4D4D4D"
    arrow = {"arrowstyle": "-|>", "color": ink, "lw": 1.6 if strong else 0.7, "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", tip, (0, 0), arrowprops={**arrow, "mutation_scale": 9 if strong else 6}, zorder=5)
    halo = [withStroke(linewidth=1.5, foreground="white")]
    panel.text(
        *(NUMBER * size * direction), str(number), color=ink, fontsize=8 if strong else 6.5, ha="center", va="center",
        fontweight="bold" if strong else "normal", zorder=6, path_effects=halo,
    )  # fmt: skip


def _look(number: int, classes: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Colour and marker of a class: the important ones strong diamonds, the others muted and each of its own shape."""
    if classes[number] in names:
        return {"color": IMPORTANT_COLOUR, "marker": "D"}
    return {"color": _muted(number), "marker": MARKERS[number % len(MARKERS)]}


def _muted(number: int) -> Colour:
    """A pale colour of class `number` without the reds and oranges of the important one, neighbours in hue unlike in
    lightness; the colours come again after 10 classes."""
    place = number * 3 % 10
    red, green, blue = hsv_to_rgb((0.14 + 0.72 * place / 10, 0.4, 0.85 if place % 2 else 0.55))
    return float(red), float(green), float(blue)
