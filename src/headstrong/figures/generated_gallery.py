"""The figures of generated perturbations, for the gallery: one set for each family of generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from headstrong.errors import MissingDataError
from headstrong.figures import generated_pictures as pictures
from headstrong.figures import generated_strength as strength

TITLE = "Generated perturbations (GAP and MTA)"
CAPTIONS = {
    "strength": (
        "What perturbations of GAP (a generator per task) and MTA (an encoder for all tasks) do to the victims they "
        "were trained against, and noise of the same size for comparison; bars are standard errors over test images. "
        "Arrows point to the better side for the victim, so an attack wants the other."
    ),
    "comparison": (
        "MTA minus GAP in the cells of the paper's tables, on the same images: to the right, MTA is the stronger "
        "attack. For dense models in percent of what GAP changes of the clean measure; a measure that GAP hardly "
        "changes is left out. Bars are two standard errors; circles are the published differences, where the radius "
        "is a published one."
    ),
    "pictures": (
        "The first test pictures, the perturbation made against each task, stretched so that grey is no change and the "
        "radius is black or full colour, and the perturbed picture. {more}"
    ),
    "classes": "Below a picture is the class that its classifier predicts, red where the perturbation changed it.",
    "dense": (
        "To the right the truth and what the dense model predicts, each task under its own perturbation. Depth is "
        "drawn in the range of its truth, bright is far; normals as colours; pale grey pixels have no label."
    ),
}
Fields = tuple[str, str, str, str, str]  # stem, title, caption, module, reason why it is absent


def figures(
    generated: pd.DataFrame | None,
    mta_tables: pd.DataFrame | None,
    examples: Sequence[Path],
    settings: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Fields, Callable[[], Figure]]]:
    """Each figure: its fields, and what draws it (MissingDataError where it cannot be drawn).

    generated, mta_tables: the tables of these names, None where a study has none; examples: evaluations of generators.
    A study without generators has no figure of them, and none that is missed. Raises BrokenFileError for an evaluation
    that cannot be read.
    """
    if generated is None or generated.empty:
        return
    for family in strength.families(strength.comparable(generated)):
        fields = _fields(f"generated-{family}", f"{TITLE}: {family}", "strength", strength.__name__)
        yield fields, partial(strength.draw, generated, family, settings)
        fields = _fields(f"mta-against-gap-{family}", f"MTA against GAP: {family}", "comparison", strength.__name__)
        yield fields, partial(strength.draw_comparison, mta_tables, family, settings)
    yield from _pictures(examples, settings)


def _pictures(
    examples: Sequence[Path], settings: Mapping[str, Any] | None
) -> Iterator[tuple[Fields, Callable[[], Figure]]]:
    try:
        choices = pictures.choices(examples)
    except MissingDataError as error:
        yield _fields("pictures", "MTA Figures 3 and 4", "pictures", pictures.__name__), partial(_absent, error)
        return
    for choice in choices:
        family, mode = choice.family, choice.situation.mode
        number = "Figure 3" if family.kind == "classes" else "Figure 4"
        title = f"MTA {number}: {pictures.MODES[mode]} perturbations, {family.family}"
        fields = _fields(f"pictures-{family.family}-{mode}", title, "pictures", pictures.__name__, family.kind)
        yield fields, partial(pictures.draw, choice, settings)


def _fields(stem: str, title: str, caption: str, module: str, kind: str = "dense") -> Fields:
    return stem, title, CAPTIONS[caption].format(more=CAPTIONS[kind]), module, ""


def _absent(error: MissingDataError) -> Figure:
    raise error
