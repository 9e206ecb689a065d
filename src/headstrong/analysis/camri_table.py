"""camri_table_1.csv: Table 1 of the CAMRI poster, the best recall of each loss that keeps accuracy, beside the printed.

The paper tells the best mean recall "among settings maintaining accuracy", chosen and told on the same test pictures,
which favours a loss with more settings. Here are both rules:

* "validation": chosen by recall on the validation pictures among the settings that keep accuracy there, told on the
  test pictures.
* "published": chosen and told on the test pictures among the settings whose mean accuracy there is at least that of
  the cross entropy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pandas as pd

from headstrong import published
from headstrong.analysis.importance_records import BASE, LOSSES
from headstrong.analysis.importance_settings import ROUNDING

RULES = ("validation", "published")
CHOSEN = ("margin", "scale", "weight")
_PRINTED = (
    *("recall", "recall_low", "recall_high", "accuracy", "accuracy_low", "accuracy_high"),
    *("recall_gain", "recall_gain_low", "recall_gain_high", "recall_gain_p"),
    *("accuracy_gain", "accuracy_gain_low", "accuracy_gain_high", "accuracy_gain_p"),
    *("angle_variance", "angle_variance_others", "angle_ratio", "angle_ratio_low", "angle_ratio_high"),
)
COLUMNS = (
    *("family", "dataset", "rule", "loss", "important", "classes"),
    *CHOSEN,
    *("settings", "trials"),
    *_PRINTED,
    *("published_recall", "published_accuracy", "note"),
)
NAMES = {"camri": "CAMRI", "arcface": "ArcFace", "crwwce": "CRWWCE", "wce": "WCE", "ce": "CE"}  # as printed
NONE_KEEPS = "no setting keeps accuracy"
NO_PICTURE = "no picture of the important classes in {}"


def build_table(settings: pd.DataFrame) -> pd.DataFrame:
    """camri_table_1.csv: a row per family, rule, loss and key of important classes, columns COLUMNS.

    settings: importance_settings.csv. Losses in the order of the poster, those without a setting have no row. A family
    without validation pictures has no row of the rule "validation".

    All numbers are of the test split and of the chosen setting, which margin, scale and weight name (NaN where the loss
    has none); `settings` counts those to choose from. Of settings with equal recall the one with the smaller margin is
    taken, then with the smaller scale, then weight; `note` says so. Where no setting keeps accuracy, the poster's "-",
    there are no numbers and the note is NONE_KEEPS. published_recall and published_accuracy: percent, where the poster
    has the cell.
    """
    rows = [row for place, part in _parts(settings) for rule in RULES if (row := _row(place, rule, part)) is not None]
    order = {name: number for number, name in enumerate(dict.fromkeys(settings["family"]))}
    rows.sort(key=lambda row: (order[row["family"]], RULES.index(row["rule"]), LOSSES.index(row["loss"])))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"settings": "Int64", "trials": "Int64"})


def _parts(settings: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    keys = ["family", "dataset", "loss", "important", "classes"]
    for values, part in settings.groupby(keys, sort=False):
        yield dict(zip(keys, values, strict=True)), part


def _row(place: Mapping[str, Any], rule: str, part: pd.DataFrame) -> dict[str, Any] | None:
    """One cell of the table; None where the family has no pictures for the rule."""
    split = "validation" if rule == "validation" else "test"
    tried = part.loc[part["split"].eq(split)]
    if tried.empty:
        return None
    recall, accuracy = _published(place["dataset"], place["important"], place["loss"])
    row = {
        **place,
        "rule": rule,
        "settings": len(tried),
        "trials": pd.NA,
        "published_recall": recall,
        "published_accuracy": accuracy,
    }
    keeping = tried.loc[tried["keeps_accuracy"] if rule == "validation" else _as_accurate(tried)]
    if keeping.empty:
        return {**row, "note": NONE_KEEPS}
    best = keeping.loc[keeping["recall"].ge(keeping["recall"].max() - ROUNDING)]
    if best.empty:
        return {**row, "note": NO_PICTURE.format(split)}
    best = best.sort_values(list(CHOSEN), kind="stable")
    chosen = _on_test(part, best.iloc[0])
    notes = [f"{len(best)} settings tie: the smallest margin, scale, weight is taken"] if len(best) > 1 else []
    if math.isnan(chosen["recall"]):
        notes.append(NO_PICTURE.format("test"))
    return {**row, **{name: chosen[name] for name in (*CHOSEN, "trials", *_PRINTED)}, "note": "; ".join(notes)}


def _as_accurate(tried: pd.DataFrame) -> pd.Series:
    """Which settings are at least as accurate as the cross entropy, in the mean of the trials that both have."""
    return tried["accuracy_gain"].ge(-ROUNDING) | tried["loss"].eq(BASE)


def _on_test(part: pd.DataFrame, setting: pd.Series) -> pd.Series:
    """The same setting on the test pictures."""
    same = part["split"].eq("test")
    for name in CHOSEN:
        same &= part[name].eq(setting[name]) | (part[name].isna() & pd.isna(setting[name]))
    return part.loc[same].iloc[0]


def _published(dataset: str, important: str, loss: str) -> tuple[float, float]:
    """The printed recall and accuracy in percent; NaN where the poster has no such cell."""
    return _poster().get((NAMES.get(loss, ""), dataset, important), (math.nan, math.nan))


@cache
def _poster() -> dict[tuple[str, str, str], tuple[float, float]]:
    table = published.load("camri_table_1")
    return {
        # printed with four digits: rounded, so that 100 * 0.7919 is 79.19
        (row["loss"], row["dataset"], row["important_class"]): (
            round(100 * row["recall"], 2),
            round(100 * row["accuracy"], 2),
        )
        for row in table.to_dict("records")
    }
