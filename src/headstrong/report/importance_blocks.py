"""What the report says about losses for important classes: Table 1 of the CAMRI poster, ours beside the published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.camri_table import NONE_KEEPS, RULES
from headstrong.analysis.importance_records import BASE, LOSSES
from headstrong.figures.importance_grid import NAMES, key_words, rule_of, same_setting, setting_words
from headstrong.report.blocks import number

TABLES = {
    "importance": "important classes, every trial",
    "importance_settings": "important classes, every setting",
    "camri_table_1": "CAMRI's Table 1",
}
TITLES = {
    "validation": "Chosen on validation pictures, told on test pictures",
    "published": "The paper's rule: chosen and told on test pictures",
}
OURS = "camri"  # the loss that the sentences are about
FULL_NAMES = {"softmax": "normalised softmax", BASE: "cross entropy"}  # whose variances CAMRI's are compared with
SHORT_NAMES = {**NAMES, "softmax": "Softmax"}  # tables are wide
NONE = "none keeps accuracy"
Row = Mapping[str, Any]


def context(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Everything the template asks for, by name; an empty list where the table is absent or has no rows."""
    table = tables.get("camri_table_1")
    if table is None or table.empty:
        return {"camri": []}
    trials = tables.get("importance")
    return {"camri": [_family(str(name), part, trials) for name, part in table.groupby("family", sort=False)]}


def _family(name: str, part: pd.DataFrame, trials: pd.DataFrame | None) -> dict[str, Any]:
    """One family: its tables by rule, the differences to the cross entropy, sentences and notes."""
    rule = rule_of(part, name)
    main = part.loc[part["rule"].eq(rule)]
    sentences = (
        _not_learned(name, trials), _raises(main), _best(main), _keeps(main), _margin_alone(name, trials),
        _narrows(main, trials),
    )  # fmt: skip
    return {
        "family": name,
        "dataset": str(part["dataset"].iloc[0]),
        "rules": [_table(part.loc[part["rule"].eq(one)], one) for one in RULES if part["rule"].eq(one).any()],
        "rule": TITLES[rule],
        "trials": _trials(main),
        "differences": _differences(main),
        "says": [words for words in sentences if words],
        "notes": _notes(part),
        "compared": bool(part["published_recall"].notna().any()),
    }


def _not_learned(name: str, trials: pd.DataFrame | None) -> str:
    """How many classifiers are not clearly better than the majority class; "" where all are, or nobody knows."""
    if trials is None or "learned" not in trials:
        return ""
    rows = trials.loc[trials["family"].eq(name) & trials["split"].eq("test")]
    rows = rows.drop_duplicates(["loss", "important", "margin", "scale", "weight", "trial"])
    failed = rows.loc[rows["learned"].eq("no")]
    if failed.empty:
        return ""
    return (
        f"Not learned: {len(failed)} of {len(rows)} classifiers, whose accuracy is not clearly above that of the "
        f"majority class ({rows['majority'].iloc[0]:.1f} %). Their numbers say nothing about a loss."
    )


def _table(part: pd.DataFrame, rule: str) -> dict[str, Any]:
    """Table 1 by one rule: a line per loss in the poster's order, a column per key, and which settings were chosen."""
    keys = part.drop_duplicates("important")
    lines = []
    for loss in LOSSES:
        rows = part.loc[part["loss"].eq(loss)].set_index("important")
        if len(rows):
            cells = [_cell(rows.loc[key].to_dict() if key in rows.index else None) for key in keys["important"]]
            lines.append({"loss": SHORT_NAMES[loss], "cells": cells})
    columns = [(key, names.replace("; ", ", ")) for key, names in zip(keys["important"], keys["classes"], strict=True)]
    return {"title": TITLES[rule], "columns": columns, "lines": lines, "chosen": _chosen(part)}


def _cell(row: Row | None) -> dict[str, Any]:
    """Recall, accuracy in brackets, the intervals of both, and the published numbers."""
    if row is None:
        return {"ours": "–", "intervals": [], "published": ""}
    known = not pd.isna(row["recall"])
    said = "" if pd.isna(row["published_recall"]) else f"{row['published_recall']:g} ({row['published_accuracy']:g})"
    spread = known and not pd.isna(row["recall_low"])
    return {
        "ours": f"{row['recall']:.1f} ({row['accuracy']:.1f})" if known else "–",
        "intervals": [_between(row, "recall"), f"({_between(row, 'accuracy')})"] if spread else [],
        "published": said,
    }


def _between(row: Row, name: str) -> str:
    return f"{row[f'{name}_low']:.1f} to {row[f'{name}_high']:.1f}".replace("-", "−")


def _chosen(part: pd.DataFrame) -> str:
    """Which setting stands in the table, by loss, with the keys it is for where they differ."""
    losses = []
    for loss in LOSSES:
        rows = part.loc[part["loss"].eq(loss)]
        settings: dict[str, list[str]] = {}
        for row in rows.to_dict("records"):
            words = NONE if pd.isna(row["recall"]) else _setting(row)
            settings.setdefault(words, []).append(row["important"])
        if len(settings) == 1 and "" not in settings:
            losses.append(f"{NAMES[loss]}: {next(iter(settings))}")
        elif len(settings) > 1:
            losses.append(f"{NAMES[loss]}: " + ", ".join(f"{key} ({'/'.join(of)})" for key, of in settings.items()))
    return "; ".join(losses)


def _setting(row: Row) -> str:
    return setting_words(row["margin"], row["scale"], row["weight"])


def _differences(part: pd.DataFrame) -> list[dict[str, Any]]:
    """Per key and loss, the cross entropy last: what the chosen setting gains over it, and its ratio of variances."""
    found: list[dict[str, Any]] = []
    for key, of_key in part.groupby("important", sort=False):
        for place, row in enumerate(of_key.to_dict("records")):
            of = f" (of {row['settings']})" if row["settings"] > 1 else ""
            found.append(
                {
                    "key": "" if place else key_words(str(key), row["classes"]),
                    "loss": SHORT_NAMES[row["loss"]],
                    "setting": f"{NONE if pd.isna(row['recall']) else _setting(row)}{of}",
                    "recall": _signed(row, "recall_gain"),
                    "accuracy": _signed(row, "accuracy_gain"),
                    "ratio": _ratio(row),
                }
            )
    return found


def _signed(row: Row, name: str) -> tuple[str, str]:
    """A difference, and its interval and p-value: ("+7.20", "+5.58 to +8.82, p < 0.001"); an en dash for none."""
    if pd.isna(row[name]):
        return "–", ""
    low, high, p_value = (row[f"{name}_{part}"] for part in ("low", "high", "p"))
    if pd.isna(low):
        return _plus(row[name]), ""
    chance = "" if pd.isna(p_value) else ", p < 0.001" if p_value < 0.001 else f", p = {number(p_value, 2)}"
    return _plus(row[name]), f"{_plus(low)} to {_plus(high)}{chance}"


def _plus(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _ratio(row: Row) -> tuple[str, str]:
    if pd.isna(row["angle_ratio"]):
        return "–", ""
    low, high = row["angle_ratio_low"], row["angle_ratio_high"]
    interval = "" if pd.isna(low) else f"{low:.2f} to {high:.2f}".replace("-", "−")
    return f"{row['angle_ratio']:.2f}", interval


def _trials(part: pd.DataFrame) -> str:
    """How many trials the numbers are of, in words."""
    least, most = part["trials"].min(), part["trials"].max()
    if pd.isna(most):
        return "no trials"
    return f"{least} to {most} trials" if least != most else "one trial" if most == 1 else f"{most} trials"


def _notes(part: pd.DataFrame) -> list[str]:
    """Every note once, with the rules, losses and keys it is of; that no setting keeps accuracy stands in the table."""
    noted = part.loc[part["note"].ne("") & part["note"].ne(NONE_KEEPS)]
    found = []
    for note, rows in noted.groupby("note", sort=False):
        places = (f"{NAMES[row['loss']]} {row['important']} ({row['rule']})" for row in rows.to_dict("records"))
        found.append(f"{', '.join(places)}: {note}.")
    return found


def _raises(part: pd.DataFrame) -> str:
    """For how many keys CAMRI raises recall over the cross entropy."""
    rows = part.loc[part["loss"].eq(OURS)]
    if rows.empty:
        return ""
    clear, worse = int(rows["recall_gain_low"].gt(0).sum()), int(rows["recall_gain_high"].lt(0).sum())
    return (
        f"Recall: CAMRI is above cross entropy for {clear} of {len(rows)} choices of the important class and below it "
        f"for {worse}, counting those whose 95 % interval of the difference excludes 0.{_without(rows)}"
    )


def _without(rows: pd.DataFrame) -> str:
    """For how many keys there is no setting, and for how many no interval."""
    nothing, single = rows["recall"].isna(), rows["recall"].notna() & rows["recall_gain_low"].isna()
    words = f" For {int(nothing.sum())} no setting keeps accuracy." if nothing.any() else ""
    return words + (f" For {int(single.sum())} there is no interval: too few trials." if single.any() else "")


def _best(part: pd.DataFrame) -> str:
    """For how many keys CAMRI has the highest mean recall of all losses: ours, and the published."""
    ours, of = _highest(part, "recall")
    said, of_said = _highest(part, "published_recall")
    if not of:
        return ""
    words = f"Its mean recall is the highest of all losses for {ours} of {of} (means alone, without a test"
    return words + (f"; published: {said} of {of_said})." if of_said else ").")


def _highest(part: pd.DataFrame, column: str) -> tuple[int, int]:
    """For how many keys the number of CAMRI is above that of every other loss, of how many keys that have others."""
    wide = part.pivot(index="important", columns="loss", values=column)
    if OURS not in wide:
        return 0, 0
    others = wide.drop(columns=OURS).max(axis=1).dropna()
    own = wide.loc[others.index, OURS]
    counted = others.index if column == "recall" else own.dropna().index
    return int(own.loc[counted].gt(others.loc[counted]).sum()), len(counted)


def _keeps(part: pd.DataFrame) -> str:
    """Whether the chosen settings of CAMRI keep accuracy on the test pictures, and how much they may lose."""
    rows = part.loc[part["loss"].eq(OURS) & part["accuracy_gain"].notna()]
    if rows.empty:
        return ""
    kept, lost = int(rows["accuracy_gain"].ge(0).sum()), int(rows["accuracy_gain_high"].lt(0).sum())
    words = (
        f"Accuracy: the mean of CAMRI is at least that of cross entropy for {kept} of {len(rows)}, and the interval of "
        f"the difference lies below 0 for {lost}."
    )
    least = rows["accuracy_gain_low"].min()
    if math.isnan(least):
        return words
    if least >= 0:
        return f"{words} No interval reaches below 0."
    return f"{words} The intervals do not rule out a loss of {-least:.2f} points."


def _margin_alone(family: str, trials: pd.DataFrame | None) -> str:
    """What a margin on the important class alone changes: every setting of CAMRI against normalised softmax of its
    scale, which differs from it in nothing else. Test pictures, paired trials."""
    if trials is None:
        return ""
    tests = trials.loc[trials["family"].eq(family) & trials["split"].eq("test")]
    gains = []
    for (key, scale, _), own in tests.loc[tests["loss"].eq(OURS)].groupby(["important", "scale", "margin"]):
        other = tests.loc[tests["loss"].eq("softmax") & tests["important"].eq(key) & tests["scale"].eq(scale)]
        if len(other):
            gains.append([_paired(other, own, name) for name in ("recall", "accuracy")])
    if not gains:
        return ""
    recall, accuracy = zip(*gains, strict=True)
    settings = "setting" if len(gains) == 1 else "settings"
    return (
        f"The margin alone: of {len(gains)} {settings} of CAMRI, against normalised softmax of the same scale, recall "
        f"is higher in {sum(gain.low > 0 for gain in recall)} and lower in {sum(gain.high < 0 for gain in recall)}, "
        f"accuracy higher in {sum(gain.low > 0 for gain in accuracy)} and lower in "
        f"{sum(gain.high < 0 for gain in accuracy)}, counting those whose 95 % interval of the paired difference "
        "excludes 0."
    )


def _paired(other: pd.DataFrame, own: pd.DataFrame, name: str) -> stats.Gain:
    """The gain of one setting over another in the trials that both have."""
    before, after = other.set_index("trial")[name], own.set_index("trial")[name]
    both = before.index.intersection(after.index)
    return stats.paired_gain(before.loc[both], after.loc[both])


def _narrows(part: pd.DataFrame, trials: pd.DataFrame | None) -> str:
    """Whether CAMRI lowers the variance of angles of the important class relative to the others', trial by trial."""
    if trials is None or trials.empty:
        return ""
    sentences = []
    for other in FULL_NAMES:
        gains = [gain for key in dict.fromkeys(part["important"]) if (gain := _narrower(part, trials, key, other))]
        if gains:
            lower, higher = sum(gain.high < 0 for gain in gains), sum(gain.low > 0 for gain in gains)
            sentences.append(f"against {FULL_NAMES[other]} it falls for {lower} of {len(gains)} and rises for {higher}")
    if not sentences:
        return ""
    return (
        "Variance of angles within the important class, divided by that within the others: with CAMRI "
        f"{'; '.join(sentences)}, counting those whose 95 % interval of the paired difference excludes 0."
    )


def _narrower(part: pd.DataFrame, trials: pd.DataFrame, key: str, other: str) -> stats.Gain | None:
    """The ratio of variances with CAMRI minus that with another loss, both at their chosen settings, over the trials
    that both have; None where one has no setting or no ratio."""
    ratios = []
    for loss in (other, OURS):
        chosen = part.loc[part["loss"].eq(loss) & part["important"].eq(key) & part["recall"].notna()]
        if chosen.empty:
            return None
        row = chosen.iloc[0]
        rows = trials.loc[
            trials["family"].eq(row["family"])
            & trials["loss"].eq(loss)
            & trials["important"].eq(key)
            & trials["split"].eq("test")
            & same_setting(trials, row)
        ].set_index("trial")
        others = rows["angle_variance_others"]
        ratios.append((rows["angle_variance"] / others.where(others > 0)).dropna().astype(float))
    both = ratios[0].index.intersection(ratios[1].index)
    return stats.paired_gain(ratios[0].loc[both], ratios[1].loc[both]) if len(both) else None
