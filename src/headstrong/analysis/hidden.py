"""hidden.csv and forgetting.csv: what attacks do to a task that the attacker cannot see, and to those it sees.

A network has a head for each of its tasks; one task is hidden from the attacker, in turn every one. What an attack does
to a task is its damage: points of accuracy lost where the task's labels are classes, else the increase of its mean
error in percent of the mean error without attack (the relative task vulnerability, a ratio of means). Attack and clean
image are compared image by image: the standard errors are those of paired images, for the ratio by the delta method.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.hidden_records import Array, Turn, read_families
from headstrong.learned import words

HIDDEN, VISIBLE = "hidden", "visible"  # the roles of a task
FAMILY = ("family", "dataset", "kind")
SETTING = ("objective", "access", "stealth", "norm", "epsilon", "steps")
COLUMNS = (
    *FAMILY,
    "hidden",
    "attack",
    *SETTING,
    "task",
    "role",
    "clean",
    "under_attack",
    "damage",
    "damage_error",
    "n",
    "majority",
    "learned",
)
FORGETTING_COLUMNS = (
    *FAMILY,
    *("hidden", "access", "epoch", "task", "role", "value", "damage", "distance", "n", "damage_error", "learned"),
)


@dataclass(frozen=True)
class Change:
    """What became of one task: its value before and after, the damage with its standard error, and the n images that
    count. Values are accuracies in percent (classes) or mean errors (dense), damages points or percent.

    influence: float64 (N,), how much each image moves the damage, with mean 0 over the images that count; NaN for the
    others, and for all where the damage is not known. The standard error is that of its mean.
    """

    before: float
    after: float
    damage: float
    error: float
    n: int
    influence: Array

    @property
    def estimate(self) -> stats.Estimate:
        """The damage with its standard error."""
        return stats.Estimate(self.damage, self.error, self.n)


def change(kind: str, before: Array, after: Array) -> Change:
    """What became of one task between two situations. before, after: its errors (N,), NaN where an image has none.

    kind "classes": damage is 100 * (mean after - mean before) points. "dense": 100 * (mean after - mean before) /
    mean before percent, NaN where the mean before is 0; its influence is 100 * (after - r * before) / mean before with
    r the ratio of the means. No image that counts: all numbers NaN, n 0. One image: the standard error is NaN.
    """
    counted = ~(np.isnan(before) | np.isnan(after))
    x, y = before[counted], after[counted]
    influence = np.full(before.shape, math.nan)
    if not x.size:
        return Change(math.nan, math.nan, math.nan, math.nan, 0, influence)
    start, end = float(x.mean()), float(y.mean())
    if kind == "classes":
        damage = 100 * (end - start)
        influence[counted] = 100 * (y - x) - damage
        values = (100 * (1 - start), 100 * (1 - end))
    else:
        values = (start, end)
        damage = 100 * (end - start) / start if start > 0 else math.nan
        if start > 0:
            influence[counted] = 100 * (y - end / start * x) / start
    return Change(*values, damage, stats.mean(influence[counted]).error, x.size, influence)


def role(turn: Turn, task: str) -> str:
    """HIDDEN or VISIBLE."""
    return HIDDEN if task == turn.hidden else VISIBLE


def build_table(paths: Sequence[Path]) -> pd.DataFrame:
    """hidden.csv of these evaluations: a row per family, hidden task, attack and task, columns COLUMNS.

    Families in the order of `paths`, hidden tasks in that of the family's tasks, attacks by objective
    (`hidden_records.OBJECTIVES`), access, stealth, norm, epsilon, steps and attacked task, then tasks in their order.
    clean, under_attack: accuracy in percent (kind classes) or mean error (dense), over the n images that count. damage,
    damage_error: see `change`; positive where the attack harms. epsilon is in pixel units, images in [0, 1]. majority:
    accuracy of the majority class in percent; learned: "yes", or "no" where the clean accuracy is not clearly above it
    (`headstrong.learned`); NaN and "" for dense tasks and where a file does not say.
    Raises MissingDataError or BrokenFileError, naming the file, as `hidden_records.read_families` does.
    """
    rows = [row for turn in _turns(paths) for row in _attack_rows(turn)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"steps": "Int64", "n": "Int64"})


def build_forgetting(paths: Sequence[Path]) -> pd.DataFrame:
    """forgetting.csv: how the attacker's copy forgets, a row per family, hidden task, access, epoch and task.

    Columns FORGETTING_COLUMNS; ordered as `build_table`, epochs ascending. value: of the task on clean images under the
    true heads, accuracy in percent or mean error; damage: its `change` since epoch 0, the original backbone. distance:
    mean over all images of the relative distance of the copy's features from the original ones. n: images that count
    for value and damage. damage_error: the standard error over images. learned: of the hidden task after an epoch,
    "yes" where its damage is clearly above zero, else "no": the copy has not forgotten it. "" in other rows. Raises as
    `build_table`.
    """
    rows = [row for turn in _turns(paths) for row in _forgetting_rows(turn)]
    return pd.DataFrame(rows, columns=list(FORGETTING_COLUMNS)).astype({"epoch": "Int64", "n": "Int64"})


def _turns(paths: Sequence[Path]) -> Iterator[Turn]:
    return (turn for turns in read_families(paths) for turn in turns)


def _head(turn: Turn) -> dict[str, object]:
    return {name: getattr(turn, name) for name in (*FAMILY, "hidden")}


def _attack_rows(turn: Turn) -> Iterator[dict[str, object]]:
    for attack in turn.attacks:
        place = {**_head(turn), "attack": attack.name, **dict(zip(SETTING, attack.setting, strict=True))}
        for task in turn.tasks:
            found = change(turn.kind, turn.clean[task].error, attack.tasks[task].error)
            yield {
                **place,
                "task": task,
                "role": role(turn, task),
                "clean": found.before,
                "under_attack": found.after,
                "damage": found.damage,
                "damage_error": found.error,
                "n": found.n,
                "majority": 100 * (1 - float(turn.majority[task].mean())) if task in turn.majority else math.nan,
                "learned": turn.learned(task),
            }


def _forgetting_rows(turn: Turn) -> Iterator[dict[str, object]]:
    for access, copies in turn.forgetting.items():
        for epoch, copy in copies.items():
            for task in turn.tasks:
                found = change(turn.kind, copies[0].errors[task], copy.errors[task])
                yield {
                    **_head(turn),
                    "access": access,
                    "epoch": epoch,
                    "task": task,
                    "role": role(turn, task),
                    "value": found.after,
                    "damage": found.damage,
                    "distance": float(copy.distance.mean()),
                    "n": found.n,
                    "damage_error": found.error,
                    "learned": words(stats.above_zero(found.estimate)) if epoch and task == turn.hidden else "",
                }
