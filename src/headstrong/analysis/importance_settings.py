"""importance_settings.csv: what every setting of a loss gains over the cross entropy, over trials.

A setting is a loss, the key of its important classes, margin, scale and weight. The same trial number means the same
initial weights and the same order of pictures in every loss, so a setting and the cross entropy are compared trial by
trial: every gain is a mean of paired differences, with the interval and p-value of the paired t-test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.importance import KEYS
from headstrong.analysis.importance_records import BASE

GAINS = ("recall", "accuracy")  # what is compared with the cross entropy
COLUMNS = (
    *KEYS,
    "split",
    "trials",
    "recall",
    "recall_low",
    "recall_high",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "angle_variance",
    "angle_variance_others",
    "angle_ratio",
    "angle_ratio_low",
    "angle_ratio_high",
    "recall_gain",
    "recall_gain_low",
    "recall_gain_high",
    "recall_gain_p",
    "accuracy_gain",
    "accuracy_gain_low",
    "accuracy_gain_high",
    "accuracy_gain_p",
    "keeps_accuracy",
)
ROUNDING = 1e-9  # points of accuracy: sums of equal numbers in another order differ by less, pictures by much more


def build_table(importance: pd.DataFrame, tolerances: Mapping[str, float]) -> pd.DataFrame:
    """importance_settings.csv: a row per setting and split, columns COLUMNS; percent, points, squared degrees, ratios.

    By family, key of important classes and split, then in the order of importance.csv.

    importance: importance.csv. tolerances: by family, points of accuracy that a setting may lose and keep accuracy.
    Every number of a row is over its `trials`, those that the cross entropy has as well; a setting without any has
    `trials` 0, no numbers, and keeps no accuracy. Means come with 95 % intervals by Student's t, which end at the
    bounds of percentages and variances. angle_ratio: the mean over trials of the important classes' variance by that of
    the others. The gains of the cross entropy itself are NaN; it keeps accuracy. keeps_accuracy: its mean accuracy on
    this split is at most the tolerance below that of the cross entropy.
    Raises KeyError for a family without a tolerance.
    """
    return pd.DataFrame(list(_rows(importance, tolerances)), columns=list(COLUMNS)).astype(
        {"trials": "Int64", "keeps_accuracy": "bool"}
    )


def _rows(importance: pd.DataFrame, tolerances: Mapping[str, float]) -> Iterator[dict[str, object]]:
    for (family, key, split), part in importance.groupby(["family", "important", "split"], sort=False):
        base = part.loc[part["loss"].eq(BASE)].set_index("trial")
        for setting, rows in part.groupby(list(KEYS), sort=False, dropna=False):
            place = {**dict(zip(KEYS, setting, strict=True)), "family": family, "important": key, "split": split}
            yield {**place, **_numbers(rows.set_index("trial"), base, tolerances[str(family)])}


def _numbers(rows: pd.DataFrame, base: pd.DataFrame, tolerance: float) -> dict[str, object]:
    """The numbers of one setting on one split. rows, base: of the setting and the cross entropy, indexed by trial."""
    common = [trial for trial in rows.index if trial in base.index]
    rows, base = rows.loc[common], base.loc[common]
    found: dict[str, object] = {"trials": len(common)}
    for name in GAINS:
        found |= _interval(name, rows[name].to_numpy(), 100.0)
    for name in ("angle_variance", "angle_variance_others"):
        found[name] = stats.mean(rows[name]).value
    own, others = rows["angle_variance"].to_numpy(), rows["angle_variance_others"].to_numpy()
    found |= _interval("angle_ratio", np.divide(own, others, out=np.full_like(own, math.nan), where=others > 0))
    if rows["loss"].eq(BASE).any():
        return {**found, "keeps_accuracy": True}
    for name in GAINS:
        gain = stats.paired_gain(base[name], rows[name], 100.0)
        found |= {
            f"{name}_gain": gain.value,
            f"{name}_gain_low": gain.low,
            f"{name}_gain_high": gain.high,
            f"{name}_gain_p": gain.p_value,
        }
        if name == "accuracy":
            found["keeps_accuracy"] = gain.value >= -tolerance - ROUNDING  # False for NaN
    return found


def _interval(name: str, values: np.ndarray, most: float = math.inf) -> dict[str, float]:
    found = stats.mean_interval(values, 0.0, most)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
