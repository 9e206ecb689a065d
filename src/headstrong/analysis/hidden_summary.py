"""hidden_summary.csv: what a setting of attacks does to hidden and visible tasks, averaged over which task is hidden.

Every turn, that is every task that is hidden, weighs the same, and within a turn every visible task, and every attack
of objective "single", of which there is one per visible task.

The images of all turns are the same, so the damages of turns, tasks and attacks depend on each other. The standard
error of their mean is over images: the influence of an image on the mean is the weighted mean of its influences on the
single damages (`hidden.Change`), and the standard error is that of the mean influence. An image that does not count for
one of them has influence 0 on it; the images that do then weigh N / n, of the N that count for any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.hidden import FAMILY, SETTING, Change, change
from headstrong.analysis.hidden_records import Setting, Turn, in_order, read_families
from headstrong.analysis.stats import Estimate

COLUMNS = (
    *FAMILY,
    *SETTING,
    "turns",
    "hidden_damage",
    "hidden_damage_error",
    "visible_damage",
    "visible_damage_error",
    "visible_worst",
    "noise_damage",
    "over_noise",
    "visible_share",
    "oracle_damage",
    "oracle_share",
    "n",
    "not_learned",
)
WHOLE = ("steps", "turns", "n")
Harm = Mapping[str, Change]  # what one attack did, by task


def build_table(paths: Sequence[Path]) -> pd.DataFrame:
    """hidden_summary.csv of these evaluations: a row per family and setting of attacks, columns COLUMNS.

    Ordered as hidden.csv. Damages are points of accuracy (kind classes) or percent of the clean error (dense).
    turns: how many tasks were hidden, one after another. hidden_damage: of the hidden task; visible_damage: of the
    visible tasks that were learned; visible_worst: the largest damage of a visible task, all means over turns.
    not_learned: the tasks that were not, with spaces between; those take no turn, unless none was learned. A damage
    that is not known in a turn is not known at all (NaN). n: images that count for the hidden damage of any turn.
    noise_damage, oracle_damage: hidden damage of noise of this norm and epsilon, of the oracle of this norm, epsilon
    and stealth, NaN where there is none; where there are several, that of as many steps, else of the most steps.
    over_noise, visible_share, oracle_share: hidden by noise damage, visible by hidden damage, hidden by oracle damage,
    NaN unless what they are divided by is clearly above zero (`stats.above_zero`).
    Raises MissingDataError or BrokenFileError, naming the file, as `hidden_records.read_families` does.
    """
    rows = [row for turns in read_families(paths) for row in _rows(turns)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(WHOLE, "Int64"))


def _rows(turns: Sequence[Turn]) -> Iterator[dict[str, object]]:
    """The rows of one family."""
    unlearned = [task for task in turns[0].tasks if turns[0].learned(task) == "no"]
    turns = [turn for turn in turns if turn.hidden not in unlearned] or turns
    harms = [_harms(turn) for turn in turns]
    settings = sorted(harms[0], key=in_order)  # the same in every turn, `read_families` sees to it
    hidden = {}
    for setting in settings:
        hidden[setting] = mean_damage(
            [[harm[turn.hidden] for harm in own[setting]] for turn, own in zip(turns, harms, strict=True)]
        )
    for setting in settings:
        attacks = [own[setting] for own in harms]
        visible = mean_damage(
            [[harm[task] for harm in own for task in _scored(turn)] for turn, own in zip(turns, attacks, strict=True)]
        )
        worst = [_worst(turn, own) for turn, own in zip(turns, attacks, strict=True)]
        noise = _counterpart(hidden, setting, "noise", 0.0)
        oracle = _counterpart(hidden, setting, "oracle", setting[2])
        found = hidden[setting]
        yield {
            **{name: getattr(turns[0], name) for name in FAMILY},
            **dict(zip(SETTING, setting, strict=True)),
            "turns": len(turns),
            "hidden_damage": found.value,
            "hidden_damage_error": found.error,
            "visible_damage": visible.value,
            "visible_damage_error": visible.error,
            "visible_worst": float(np.mean(worst)),
            "noise_damage": noise.value,
            "over_noise": stats.ratio(found.value, noise),
            "visible_share": stats.ratio(visible.value, found),
            "oracle_damage": oracle.value,
            "oracle_share": stats.ratio(found.value, oracle),
            "n": found.n,
            "not_learned": " ".join(unlearned),
        }


def _harms(turn: Turn) -> dict[Setting, list[Harm]]:
    """What the attacks of each setting did to every task."""
    found: dict[Setting, list[Harm]] = {}
    for attack in turn.attacks:
        pairs = {task: (turn.clean[task].error, attack.tasks[task].error) for task in turn.tasks}
        harm = {task: change(turn.kind, *pair) for task, pair in pairs.items()}
        found.setdefault(attack.setting, []).append(harm)
    return found


def mean_damage(turns: Sequence[Sequence[Change]]) -> Estimate:
    """Mean over turns of the mean damage within each, with its standard error over the N images that they share.

    NaN where one of the damages is, or a turn has none. n of the result: images that count for any of them. See the
    head of this module.
    """
    if not all(turns):
        return Estimate(math.nan, math.nan, 0)
    weighed = [(one, 1 / (len(turns) * len(turn))) for turn in turns for one in turn]
    value = math.fsum(weight * one.damage for one, weight in weighed)
    counted = np.logical_or.reduce([~np.isnan(one.influence) for one, _ in weighed])
    many = int(counted.sum())
    if math.isnan(value):
        return Estimate(math.nan, math.nan, many)
    moves = sum(weight * many / one.n * np.nan_to_num(one.influence[counted]) for one, weight in weighed)
    return Estimate(value, stats.mean(np.asarray(moves)).error, many)


def _scored(turn: Turn) -> list[str]:
    """The visible tasks that were learned: what was not cannot be damaged, and would dilute the damage of others."""
    return [task for task in turn.visible if turn.learned(task) != "no"]


def _worst(turn: Turn, harms: Sequence[Harm]) -> float:
    """The largest damage of a visible task, each the mean over the attacks; NaN where one is not known."""
    return max((float(np.mean([harm[task].damage for harm in harms])) for task in _scored(turn)), default=math.nan)


def _counterpart(hidden: Mapping[Setting, Estimate], setting: Setting, objective: str, stealth: float) -> Estimate:
    """Hidden damage of another objective to compare a setting with, see `build_table`; NaN without one."""
    *_, norm, epsilon, steps = setting
    others = {
        other[-1]: found
        for other, found in hidden.items()
        if (other[0], *other[2:5]) == (objective, stealth, norm, epsilon)
    }
    return others.get(steps, others[max(others)]) if others else Estimate(math.nan, math.nan, 0)
