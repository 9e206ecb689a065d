"""What a resample of the test images does to a comparison of two models, from per-sample errors of their evaluations.

Tables tell the standard error of each number; that of a difference on the same images is smaller, and only the errors
of each image tell by how much. Every model of a study is measured on the same images, so that one resample of them
moves all rows of a comparison at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from operator import itemgetter

import h5py
import numpy as np
import pandas as pd

from headstrong.analysis.claims_rules import Tables
from headstrong.analysis.evaluation_files import opened
from headstrong.analysis.records import FORMAT, REMEDY
from headstrong.analysis.stats import Array, resamples

METRIC = "relative_task_vulnerability"
Key = tuple[str, str, str]  # model, attack, task


def moves(study: Tables, rows: pd.DataFrame) -> list[Array] | None:
    """By row, how far log (1 + v) - log (1 + v of the other) moves in each of the study's draws of images (draws,).

    rows: main, model, v, model_other, v_other; v as vulnerability.csv has it, which says by its value which attack it
    is of. None where the study comes without evaluations, or was measured in a way that errors of images alone do not
    give: another baseline or aggregation.
    """
    if study.evaluations is None or "vulnerability" not in study.paths:
        return None
    attacks = _attacks(study("vulnerability"))
    sides = []
    for model, value in (("model", "v"), ("model_other", "v_other")):
        named = zip(rows[model], rows["main"], rows[value], strict=True)
        sides.append([attacks.get((name, task, _digits(number))) for name, task, number in named])
    if any(key is None for side in sides for key in side):
        return None
    own, other = ([key for key in side if key is not None] for side in sides)
    growth = _growth(study, {*own, *other})
    for keys, values in ((own, rows["v"]), (other, rows["v_other"])):
        if not np.allclose([growth[key][0] for key in keys], np.log1p(values.to_numpy(float)), atol=1e-6):
            return None
    both = (growth[one] - growth[two] for one, two in zip(own, other, strict=True))
    return [difference[1:] - difference[0] for difference in both]


def _attacks(vulnerability: pd.DataFrame) -> Mapping[tuple[str, str, str], Key]:
    """The attack that a number is of, by model, task and its digits."""
    rows = vulnerability.loc[vulnerability["metric"].eq(METRIC)]
    names = zip(rows["model"], rows["task"], rows["mean"], rows["attack"], strict=True)
    return {(model, task, _digits(mean)): (model, attack, task) for model, task, mean, attack in names}


def _digits(value: float) -> str:
    return f"{value:.10e}"  # a table made from a table may differ in the last of its digits


def _growth(study: Tables, keys: set[Key]) -> Mapping[Key, Array]:
    """log of mean error under attack over mean clean error (1 + draws,): all images, then each resample.

    Claims share many of them, so that what was made once is kept with the study.
    """
    assert study.evaluations is not None
    pairs: dict[Key, tuple[Array, Array]] = {}
    for model, own in itertools.groupby(sorted(keys - study.growth.keys()), key=itemgetter(0)):
        path = study.evaluations / f"{model}.h5"
        with opened(path, FORMAT, "an evaluation of headstrong", "run the evaluation of this model", REMEDY) as file:
            pairs.update((key, _errors(file, key[1], key[2])) for key in own)
    if pairs:
        study.growth.update(zip(pairs, _resampled(list(pairs.values()), study), strict=True))
    return study.growth


def _resampled(pairs: Sequence[tuple[Array, Array]], study: Tables) -> Array:
    """Of K pairs of errors before and after, each (N,), the log of the ratio of their means (K, 1 + draws)."""
    before, after = (np.stack(side) for side in zip(*pairs, strict=True))
    size = before.shape[1]
    if size not in study.image_weights:
        study.image_weights[size] = resamples(size, study.draws, study.seed).T
    both = (
        np.concatenate([before, after]) @ study.image_weights[size]
    )  # one product: many small ones wait for each other
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.log(both[len(pairs) :] / both[: len(pairs)])
    return found


def _errors(file: h5py.File, attack: str, task: str) -> tuple[Array, Array]:
    """Errors (N,) of one task on clean images and under one attack, 0 in both where task or attack is absent."""
    before = file[f"clean/{task}/error"][:].astype(np.float64)
    after = file[f"attacks/{attack}/{task}/error"][:].astype(np.float64)
    there = ~(np.isnan(before) | np.isnan(after))
    return np.where(there, before, 0.0), np.where(there, after, 0.0)
