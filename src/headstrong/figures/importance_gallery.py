"""The figures of losses for important classes (CAMRI), for the gallery: one set for each family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from headstrong.analysis import importance
from headstrong.analysis.importance_records import read_study
from headstrong.figures import importance_angles as angles
from headstrong.figures import importance_features as features
from headstrong.figures import importance_grid as grid

CAPTIONS = {
    "grid": (
        "Each point is a setting (margin and scale, or weight) of a loss, the mean of its trials with 95 % intervals "
        "by Student's t; filled is the setting chosen for its loss among those that keep accuracy. Up is better for "
        "the important class; left of the vertical line accuracy is lost. Losses that know no important class stand "
        "at the same accuracy in every panel. A point with an arrow lies beyond the left edge, at the accuracy "
        "written. The intervals are of each setting by itself; trials are paired, so differences can be surer than "
        "they look here: see the table."
    ),
    "angles": (
        "Angle between the feature vector of a picture and the weight vector of its true class, at the setting chosen "
        "for each loss, or at its most accurate one where all of them lose accuracy, over all trials. The ratio is the "
        "variance within the important class by that within the others, mean over trials with its 95 % interval; below "
        "1 the important class is the narrower. The shapes pool classes and trials, so they are wider than the "
        "variances within a class."
    ),
    "features": (
        "Classifiers whose features are two numbers (the poster's Figure 3), first trial: points are test pictures, "
        "arrows the weight vectors of the classes, drawn at equal length, with the numbers of the legend. Strong: the "
        "important class. At most 1500 pictures of a panel are drawn, and the farthest 1 % may lie outside it."
    ),
}
Fields = tuple[str, str, str, str, str]  # stem, title, caption, module, reason why it is absent


def figures(
    table: pd.DataFrame | None,
    choices: pd.DataFrame | None,
    files: Sequence[Path],
    settings: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Fields, Callable[[], Figure]]]:
    """Each figure: its fields, and what draws it (MissingDataError where it cannot be drawn).

    table, choices: importance_settings.csv and camri_table_1.csv, None where a study has none; files: the evaluations.
    A study without this part has no figure of it, and none that is missed; so has a family without 2-D features.
    Raises MissingDataError or BrokenFileError for an evaluation that cannot be read.
    """
    if table is None or table.empty:
        return
    paths = {read_study(path).family: path for path in files}
    for family in grid.families(table):
        fields = _fields("grid", family, "Recall of the important class against accuracy", grid.__name__)
        yield fields, partial(grid.draw, table, choices, family, settings)
        fields = _fields("angles", family, "Angles of the important class and of the others", angles.__name__)
        yield fields, partial(angles.draw, table, choices, paths.get(family), family, settings)
        flat = importance.features(paths[family]) if family in paths else []
        if flat:
            fields = _fields("features", family, "Features of two numbers", features.__name__)
            yield fields, partial(features.draw, flat, choices, family, settings)


def _fields(kind: str, family: str, title: str, module: str) -> Fields:
    return f"importance-{kind}-{family}", f"{title}: {family}", CAPTIONS[kind], module, ""
