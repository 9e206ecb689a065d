"""The audit of CAMRI (Nishiyama et al. 2022), Table 1: recall of one important class, and the accuracy it costs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from headstrong.analysis.audit_finding import CAMRI, OPEN, Finding, Load, judged, listed, of, said

CLASSES = 10  # of CIFAR-10, each with as many test pictures, so that accuracy is the mean recall
TABLE = "Table 1"
Case = tuple[str, str]  # data set, important class


def findings(load: Load) -> Iterator[Finding]:
    """All findings on CAMRI's table."""
    frame = load("camri_table_1")
    recall, accuracy = _by_loss(frame, "recall"), _by_loss(frame, "accuracy")
    yield from _gains(load, recall)
    yield from _accuracy(recall, accuracy)
    yield from _arcface(recall, accuracy)
    yield _other_classes(recall, accuracy)


def _by_loss(frame: pd.DataFrame, column: str) -> dict[str, dict[Case, float]]:
    found: dict[str, dict[Case, float]] = {}
    for loss, dataset, case, value in zip(
        frame["loss"], frame["dataset"], frame["important_class"], frame[column], strict=True
    ):
        found.setdefault(str(loss), {})[str(dataset), str(case)] = float(value)
    return found


def _name(case: Case) -> str:
    return f"{case[0]} {case[1]}"


def _gains(load: Load, recall: dict[str, dict[Case, float]]) -> Iterator[Finding]:
    gain = {case: 100 * (value - recall["CE"][case]) for case, value in recall["CAMRI"].items()}
    top, claimed = max(gain, key=lambda c: gain[c]), said(load, "camri", "percent_largest_gain")
    yield Finding(
        "camri-largest-gain",
        CAMRI,
        TABLE,
        "CAMRI raises recall over the cross entropy by up to nine points.",
        f"{gain[top]:.2f} points ({_name(top)}); mean over nine cases {np.mean(list(gain.values())):.2f}, least "
        f"{min(gain.values()):.2f}",
        f"{claimed:g} %",
        judged(round(gain[top]) == claimed),
        "largest recall(CAMRI) - recall(CE), rounded",
    )
    beaten = [
        f"{_name(case)} by {loss} ({rows[case]:.4f} against {value:.4f})"
        for case, value in recall["CAMRI"].items()
        for loss, rows in recall.items()
        if rows.get(case, 0.0) > value
    ]
    yield Finding(
        "camri-best",
        CAMRI,
        TABLE,
        "CAMRI has the highest recall of all losses in every case.",
        f"{len(recall['CAMRI']) - len(beaten)} of {len(recall['CAMRI'])}; beaten in {listed(beaten)}",
        "not said",
        judged(not beaten),
        "recall of every other loss that the table prints; one that did not keep the accuracy is not printed",
    )


def _accuracy(recall: dict[str, dict[Case, float]], accuracy: dict[str, dict[Case, float]]) -> Iterator[Finding]:
    base = accuracy["CE"]
    kept = {case: value >= base[case] for case, value in accuracy["CAMRI"].items()}
    yield Finding(
        "camri-accuracy",
        CAMRI,
        TABLE,
        "CAMRI's gains cost no accuracy.",
        f"{of(kept.values())} cases; least difference "
        f"{100 * min(value - base[case] for case, value in accuracy['CAMRI'].items()):+.2f} points",
        "without sacrificing accuracy",
        judged(all(kept.values())),
        "accuracy(CAMRI) >= accuracy(CE)",
    )
    printed = {f"{loss} {_name(c)}": v >= base[c] for loss, rows in accuracy.items() for c, v in rows.items()}
    missing = len(base) * len(accuracy) - len(printed)
    yield Finding(
        "camri-printed-keep",
        CAMRI,
        TABLE,
        "Only settings are printed that keep the accuracy of the cross entropy.",
        f"{of(printed.values())} cells keep it; {missing} are not printed",
        "mean over settings that keep accuracy",
        judged(all(printed.values())),
        "accuracy >= accuracy(CE) of the same data set; a setting chosen by the numbers it is then judged by",
    )
    same = {d: len({v for c, v in base.items() if c[0] == d}) == 1 for d in dict.fromkeys(c[0] for c in base)}
    yield Finding(
        "camri-ce-once",
        CAMRI,
        TABLE,
        "The cross entropy knows no important class: one accuracy for each data set.",
        f"{of(same.values())} data sets",
        "one row",
        judged(all(same.values())),
        "accuracies of CE that are equal within a data set",
    )
    order = [
        recall["CE"][d, "worst1"] <= recall["CE"][d, "worst2"] <= recall["CE"][d, "median"]
        for d in dict.fromkeys(c[0] for c in base)
    ]
    yield Finding(
        "camri-ranks",
        CAMRI,
        TABLE,
        "The important classes are those recalled worst, second worst and in the middle under cross entropy.",
        f"{of(order)} data sets in this order",
        "worst1, worst2, median",
        judged(all(order)),
        "recall(CE) of worst1 <= worst2 <= median",
    )


def _arcface(recall: dict[str, dict[Case, float]], accuracy: dict[str, dict[Case, float]]) -> Iterator[Finding]:
    share = {
        case: (recall["ArcFace"][case] - base) / (recall["CAMRI"][case] - base) for case, base in recall["CE"].items()
    }
    low, high = min(share, key=lambda c: share[c]), max(share, key=lambda c: share[c])
    middle = float(np.median(list(share.values())))
    yield Finding(
        "camri-arcface-share",
        CAMRI,
        TABLE,
        "The gain comes from giving the margin to the important class alone.",
        f"a margin for all classes (ArcFace) brings {100 * middle:.0f} % of CAMRI's gain in the middle, "
        f"from {100 * share[low]:.0f} % ({_name(low)}) to {100 * share[high]:.0f} % ({_name(high)})",
        "the margin of the important class",
        OPEN,
        "(ArcFace - CE) / (CAMRI - CE) in recall, median of nine cases; spreads over trials are not printed",
    )
    more = [_name(case) for case, value in accuracy["ArcFace"].items() if value > accuracy["CAMRI"][case]]
    yield Finding(
        "camri-arcface-accuracy",
        CAMRI,
        TABLE,
        "CAMRI is at least as accurate as ArcFace.",
        f"less accurate in {len(more)} of {len(accuracy['ArcFace'])} cases: {listed(more)}",
        "not said",
        judged(not more),
        "accuracy(ArcFace) > accuracy(CAMRI)",
    )


def _other_classes(recall: dict[str, dict[Case, float]], accuracy: dict[str, dict[Case, float]]) -> Finding:
    change = {}
    for case, value in recall["CAMRI"].items():
        if case[0] == "cifar10":
            total = CLASSES * (accuracy["CAMRI"][case] - accuracy["CE"][case])
            change[case[1]] = 100 * (total - (value - recall["CE"][case])) / (CLASSES - 1)
    return Finding(
        "camri-other-classes",
        CAMRI,
        f"{TABLE}, CIFAR-10",
        "The other classes hardly lose.",
        "mean recall of the other nine classes: " + listed(f"{c} {v:+.2f} points" for c, v in change.items()),
        "hardly",
        OPEN,
        "(10 x gain in accuracy - gain in recall) / 9: test classes are of one size; 'hardly' has no number",
    )
