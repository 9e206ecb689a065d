"""Generated perturbations to look at: Figures 3 and 4 of "Multi-Task Adversarial Attack" (arXiv 2011.09824).

The pictures come from the examples of an evaluation of generators, not from tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from headstrong import radius
from headstrong.analysis.generated_records import (
    METHODS,
    Examples,
    Family,
    Perturbed,
    Pictures,
    Situation,
    read_examples,
    read_family,
)
from headstrong.errors import MissingDataError
from headstrong.figures import frames, style
from headstrong.tasks import TASKS

AT_MOST = 2  # examples of a task
RADIUS = 5 / 255  # of the published pictures; the nearest is shown
MODES = {"instance": "per-instance", "universal": "universal"}
CHANGED, KEPT = "#B22222", "#333333"
UNLABELLED, UNKNOWN = "#E4E4E4", "#FFFFFF"
MOST_CLASSES = 18  # in the legend of segmentation
Image = NDArray[Any]


@dataclass(frozen=True)
class Choice:
    """One generator of one file."""

    path: Path
    family: Family
    situation: Situation

    @property
    def words(self) -> str:
        """What is shown, for the heading."""
        one = self.situation
        size = f"{frames.norm_words(one.norm)}, radius {radius.text(one.epsilon, one.norm)}"
        return f"{one.method.upper()}, {MODES[one.mode]}, {one.goal}, {size}"


def choices(files: Sequence[Path]) -> list[Choice]:
    """The generators worth a figure: of each family and mode one, MTA before GAP, targeted before untargeted, the
    maximum norm before others, the radius nearest to the published.

    Raises MissingDataError when no file has an example, BrokenFileError for one that cannot be read.
    """
    found = []
    for path in files:
        family, examples = read_family(path), read_examples(path)
        for mode in MODES:
            there = [one for one in _generators(family) if one.mode == mode and one.generator in examples.perturbed]
            if there and all(len(pictures.image) for pictures in examples.clean.values()):
                found.append(Choice(path, family, min(there, key=_preference)))
    if not found:
        raise MissingDataError("generated perturbations: no evaluation keeps examples; set examples in the study")
    return found


def _generators(family: Family) -> list[Situation]:
    return [one for method in METHODS for one in family.of(method, family.victims)]


def _preference(one: Situation) -> tuple[object, ...]:
    return one.method != "mta", one.goal != "targeted", one.norm != "linf", abs(one.epsilon - RADIUS), one.epsilon


def draw(choice: Choice, settings: Mapping[str, Any] | None = None) -> Figure:
    """The pictures of one generator: of classifiers with what is predicted, of a dense model with all its maps."""
    examples = read_examples(choice.path)
    return (_draw_classes if choice.family.kind == "classes" else _draw_dense)(choice, examples, settings)


def _draw_classes(choice: Choice, examples: Examples, settings: Mapping[str, Any] | None) -> Figure:
    """Figure 3: a row per task; picture, perturbation and their sum, with the predicted class before and after."""
    tasks, one = choice.family.tasks, choice.situation
    shown = min(AT_MOST, *(len(examples.clean[task].image) for task in tasks))
    with style.context(settings) as whole:
        cell = whole["width"] / 6.7
        mistaken = any((examples.clean[task].output != examples.clean[task].truth)[:shown].any() for task in tasks)
        figure = style.new_figure(whole["width"], len(tasks) * (cell + (0.38 if mistaken else 0.26)) + 0.6)
        ratios = [1, 1, 1, 0.12, 1, 1, 1][: 4 * shown - 1]
        panels = figure.subplots(len(tasks), len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})
        for line, task in enumerate(tasks):
            _bare(panels[line])
            clean, perturbed = examples.clean[task], examples.perturbed[one.generator][task]
            names = choice.family.classes[task]
            for k in range(shown):
                row = panels[line, 4 * k : 4 * k + 3]
                _three(row, clean.image[k], perturbed.perturbation[k], one)
                before, after, true = (
                    names[int(classes[k])] for classes in (clean.output, perturbed.output, clean.truth)
                )
                row[0].set_xlabel(before + ("" if before == true else f"\n(it is: {true})"), fontsize=7)
                row[2].set_xlabel(after, fontsize=7, color=CHANGED if after != before else KEPT)
                if line == 0:
                    _titles(row, one, perturbed.perturbation)
            panels[line, 0].set_ylabel(task, fontsize=8)
        for spacer in panels[:, 3::4].flat:
            spacer.set_visible(False)
        aim = f", to be called {_targets(one)}" if one.targets else ""
        _heading(figure, choice.words + aim)
        return figure


def _targets(one: Situation) -> str:
    return ", ".join(dict.fromkeys(one.targets.values()))


def _draw_dense(choice: Choice, examples: Examples, settings: Mapping[str, Any] | None) -> Figure:
    """Figure 4: a row per picture and task: the picture, its perturbation, their sum, and the task's three maps."""
    tasks, one = choice.family.tasks, choice.situation
    shown = min(AT_MOST, *(len(examples.clean[task].image) for task in tasks))
    height, width = examples.clean[tasks[0]].image.shape[2:]
    classes = choice.family.classes.get("s", ())
    with style.context(settings) as whole:
        cell = whole["width"] / 6.45 * height / width
        legend = 0.3 + 0.16 * -(-min(len(classes), MOST_CLASSES) // 6)
        block = len(tasks) + 1  # a narrow row parts the pictures
        heights = ([1.0] * len(tasks) + [0.06]) * shown
        figure = style.new_figure(whole["width"], shown * len(tasks) * (cell + 0.05) + 0.6 + legend)
        panels = figure.subplots(len(heights), 6, squeeze=False, gridspec_kw={"height_ratios": heights})
        for spacer in panels[block - 1 :: block].flat:
            spacer.set_visible(False)
        for k, number in np.ndindex(shown, len(tasks)):
            line, task = k * block + number, tasks[number]
            _bare(panels[line])
            clean, perturbed = examples.clean[task], examples.perturbed[one.generator][task]
            _three(panels[line, :3], clean.image[k], perturbed.perturbation[k], one)
            maps, words = _maps(task, clean, perturbed, k, len(classes))
            for panel, values in zip(panels[line, 3:], maps, strict=True):
                panel.imshow(values)
            panels[line, 0].set_ylabel(words, fontsize=7)
            if line == 0:
                _titles(panels[0, :3], one, perturbed.perturbation)
                for panel, title in zip(panels[0, 3:], ("truth", "predicted", "predicted\nunder attack"), strict=True):
                    panel.set_title(title, fontsize=7.5, loc="center", fontweight="normal")
        if "s" in tasks:
            handles = list(_legend(classes, _present(examples, one, shown)))
            figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=7, handlelength=1.2)
        _heading(figure, choice.words)
        return figure


def _three(row: Any, image: Image, perturbation: Image, one: Situation) -> None:
    """Picture, perturbation and their sum, as colours (H, W, 3)."""
    picture = image / radius.SHADES
    change = 0.5 + perturbation / (2 * _largest(one, perturbation))
    for panel, colours in zip(row, (picture, change, picture + perturbation), strict=True):
        panel.imshow(np.clip(np.moveaxis(colours, 0, -1), 0, 1))


def _largest(one: Situation, perturbation: Image) -> float:
    """What is drawn as black or full colour: the radius in the maximum norm, else the largest value there is."""
    return one.epsilon if one.norm == "linf" else max(float(np.abs(perturbation).max()), 1e-9)


def _titles(row: Any, one: Situation, perturbations: Image) -> None:
    times = 0.5 / _largest(one, perturbations[0])
    scale = f"perturbation,\n× {times:.3g}" if one.norm == "linf" else "perturbation,\nscaled to fill"
    for panel, title in zip(row, ("picture", scale, "picture and\nperturbation"), strict=True):
        panel.set_title(title, fontsize=7.5, loc="center", fontweight="normal")


def _heading(figure: Figure, words: str) -> None:
    figure.suptitle(words, x=0.01, ha="left", fontsize=8.5)


def _bare(row: Any) -> None:
    for panel in row:
        panel.grid(visible=False)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)


def _maps(task: str, clean: Pictures, perturbed: Perturbed, k: int, classes: int) -> tuple[list[Image], str]:
    """Truth and the outputs without and with perturbation as colours (H, W, 3), and what the row is called."""
    three = [clean.truth[k], clean.output[k], perturbed.output[k]]
    title = {"s": "Segmentation", "n": "Normals"}.get(task, TASKS[task].title)
    if task == "s":
        return [palette(classes)[values] for values in three], title
    if task == "n":
        return [np.clip((np.moveaxis(values, 0, -1) + 1) / 2, 0, 1) for values in three], title
    single = [values if values.ndim == 2 else values[0] for values in three]
    known = single[0][np.isfinite(single[0]) & ((single[0] > 0) | (task not in "dD"))]
    low, high = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
    high = max(high, low + 1e-6)
    coloured = [mpl.colormaps["viridis"](np.clip((values - low) / (high - low), 0, 1))[..., :3] for values in single]
    if task in "dD":
        coloured[0][~(np.isfinite(single[0]) & (single[0] > 0))] = to_rgb(UNKNOWN)
        return coloured, f"Depth\n{low:.1f} to {high:.1f} m"
    return coloured, title


def palette(classes: int) -> NDArray[np.float64]:
    """Colours (classes, 3) of segmentation: pale grey for class 0, unlabelled; from class 37 on they come again."""
    strong = [mpl.colormaps["tab20"](k)[:3] for k in (*range(0, 20, 2), *range(1, 20, 2)) if k not in (14, 15)]
    more = [mpl.colormaps["tab20b"](k)[:3] for k in range(20)]
    cycle = [*strong, *more]
    return np.array([to_rgb(UNLABELLED), *(cycle[k % len(cycle)] for k in range(classes - 1))])


def _present(examples: Examples, one: Situation, shown: int) -> list[int]:
    """Classes in the maps shown, the most frequent first, at most as many as the legend has room for."""
    clean, perturbed = examples.clean["s"], examples.perturbed[one.generator]["s"]
    maps = np.concatenate([values[:shown].ravel() for values in (clean.truth, clean.output, perturbed.output)])
    numbers, counts = np.unique(maps, return_counts=True)
    return sorted(int(number) for number in numbers[np.argsort(-counts, kind="stable")][:MOST_CLASSES])


def _legend(classes: Sequence[str], present: list[int]) -> Iterator[Patch]:
    colours = palette(len(classes))
    for number in present:
        yield Patch(facecolor=tuple(colours[number]), edgecolor="#333333", linewidth=0.4, label=classes[number])
