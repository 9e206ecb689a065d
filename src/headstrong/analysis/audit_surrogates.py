"""The audit of Ghamizi et al. (2022), Table 3: what its correlations are of, and what scales do to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.audit_finding import (
    GHAMIZI,
    OPEN,
    Cells,
    Finding,
    Load,
    cells,
    judged,
    listed,
    pairs,
    said,
)
from headstrong.analysis.stats import Correlation

DIGITS = 0.0051  # half of the last printed digit of a correlation
SIGNIFICANT = 0.05
MOST = 250  # cells tried: more than twice the 110 pairs of eleven tasks
DOMINANT = 0.95  # share of a correlation that, when row means reach it, leaves nothing for the auxiliary task


def findings(load: Load) -> Iterator[Finding]:
    """All findings on Table 3."""
    table = load("ghamizi_table_3").set_index("proxy")
    frame = load("ghamizi_supplement_tables_2_to_6")
    yield from _implied(table)
    yield _text(load, table)
    for attack in ("single", "multi"):
        proxy, target = (cells(frame, encoder=name, quantity=attack) for name in ("resnet18", "resnet50"))
        yield from _surrogate(attack, proxy, target, float(table.loc["resnet18", "pearson"]))
    yield _rows(frame)
    yield _shares(frame)
    yield _other_encoders(frame, float(table.loc["resnet18", "pearson"]))
    yield from _clean(frame, float(table.loc["clean performance", "pearson"]))


def implied_counts(r: float, p_value: float, digits: float = 0.005) -> list[int]:
    """Numbers of cells n up to MOST for which a correlation that is printed as r has this two-sided p-value."""

    def p(value: float, n: int) -> float:
        return float(2 * stats.stats.t.sf(abs(value) * np.sqrt((n - 2) / (1 - value * value)), n - 2))

    return [n for n in range(4, MOST) if p(r + digits, n) <= p_value <= p(r - digits, n)]


def _implied(table: pd.DataFrame) -> Iterator[Finding]:
    for number, (proxy, row) in enumerate(table.iterrows(), start=1):
        r, p_value = float(row["pearson"]), float(row["p_value"])
        counts = implied_counts(r, p_value)
        yield Finding(
            f"t3-n-{number}",
            GHAMIZI,
            "Table 3",
            f"The correlation of {proxy} with {row['target']} is over the pairs of a main and an auxiliary task.",
            f"the p-value needs n = {listed(map(str, counts))}: 25 are the 20 ordered pairs of five tasks and the 5 "
            "single tasks"
            if 25 in counts
            else f"the p-value needs n = {listed(map(str, counts))}",
            f"r = {r:g}, p = {p_value:.3g}; 20 pairs of five tasks or 110 of eleven",
            judged(20 in counts or 110 in counts),
            "n with the printed p between those of r + 0.005 and r - 0.005 (Student's t, n - 2 degrees of freedom)",
        )


def _text(load: Load, table: pd.DataFrame) -> Finding:
    text = {"resnet18": "pearson_surrogate_encoder", "clean performance": "pearson_clean_performance"}
    values = {name: (said(load, "ghamizi", key), float(table.loc[name, "pearson"])) for name, key in text.items()}
    return Finding(
        "t3-text",
        GHAMIZI,
        "Table 3, RQ4",
        "The text's correlations of the smaller encoder and of clean performance are those of the table.",
        "table: " + listed(f"{name} {b:g}" for name, (_, b) in values.items()),
        "text: " + listed(f"{name} {a:g}" for name, (a, _) in values.items()),
        judged(all(a == b for a, b in values.values())),
        "number in the text against number in the table",
    )


def _groups(found: Cells) -> list[str]:
    return [main for main, _ in found]


def _values(found: Cells, keys: Cells) -> list[float]:
    return [found[key] for key in keys]


def within(x: Cells, y: Cells) -> Correlation:
    """Correlation of logarithms centred in each main task; a degree of freedom paid for every further main task.

    x, y: positive numbers of the same cells. KeyError for a cell of x that y lacks.
    """
    groups = _groups(x)
    u, v = stats.log_centred(_values(x, x), groups), stats.log_centred(_values(y, x), groups)
    return stats.pearson(u, v, covariates=len(set(groups)) - 1)


def _p(found: Correlation) -> str:
    return f"r = {found.value:.2f} (p = {found.p_value:.2g})"


def _surrogate(attack: str, x: Cells, y: Cells, printed: float) -> Iterator[Finding]:
    pooled = stats.pearson(_values(x, x), _values(y, x)).value
    off = stats.pearson(_values(x, pairs(x)), _values(y, pairs(x))).value
    means = stats.pearson(stats.group_means(_values(x, x), _groups(x)), _values(y, x)).value
    inside = within(x, y)
    without = {key: value for key, value in x.items() if key[1] != "s" or key[0] == "s"}
    where, said_so = "supplement Tables 2 and 3, Table 3", f"r = {printed:g}"
    block = f"{attack}-task attack"
    yield Finding(
        f"t3-surrogate-{attack}",
        GHAMIZI,
        where,
        f"Vulnerabilities on ResNet18 predict those on ResNet50 ({block}).",
        f"r = {pooled:.3f} over 25 cells, {off:.3f} over the 20 pairs",
        said_so,
        judged(abs(pooled - printed) < DIGITS),
        f"Pearson of v, {block}; the table does not say which block it is of",
    )
    yield Finding(
        f"t3-row-means-{attack}",
        GHAMIZI,
        where,
        f"The correlation comes from combinations of tasks, not from the main tasks alone ({block}).",
        f"r = {means:.3f} with each ResNet18 cell replaced by the mean of its main task: "
        f"{100 * means / pooled:.0f} % of {pooled:.3f}",
        said_so,
        judged(means < DOMINANT * pooled),
        f"Pearson of row means with v on ResNet50; agrees when it is below {100 * DOMINANT:.0f} % of the pooled one",
    )
    yield Finding(
        f"t3-within-{attack}",
        GHAMIZI,
        where,
        f"Within a main task ResNet18 tells which auxiliary task is better on ResNet50 ({block}).",
        f"{_p(inside)}; without s as an auxiliary task {_p(within(without, y))}",
        said_so,
        judged(inside.value > 0 and inside.p_value < SIGNIFICANT),
        "Pearson of log v centred in each main task, 19 degrees of freedom; agrees when positive with "
        f"p < {SIGNIFICANT:g}",
    )


def _rows(frame: pd.DataFrame) -> Finding:
    x, y = (cells(frame, encoder=name, quantity="single") for name in ("resnet18", "resnet50"))
    rank = {}
    for task in dict.fromkeys(_groups(x)):
        row = {key: value for key, value in x.items() if key[0] == task}
        rank[task] = stats.spearman(_values(x, row), _values(y, row))
    return Finding(
        "t3-by-task",
        GHAMIZI,
        "supplement Tables 2 and 3, Table 3",
        "For each main task the smaller encoder ranks the auxiliary tasks as the larger one does.",
        listed(f"{task} {r.value:.2f}" for task, r in rank.items()),
        "r = 0.94 over all",
        judged(all(r.value > 0 for r in rank.values())),
        f"Spearman over the five cells of a row, single-task attack, exact p-values (least: "
        f"{min(r.p_value for r in rank.values()):.2g}); agrees when all are positive: of five cells only the same "
        f"order has p < {SIGNIFICANT:g}",
    )


def _shares(frame: pd.DataFrame) -> Finding:
    encoders: Sequence[str] = [str(name) for name in frame["encoder"].unique()]
    share = {}
    for name in encoders:
        found = cells(frame, encoder=name, quantity="single")
        share[name] = 100 * stats.share_between(_values(found, found), _groups(found))
    return Finding(
        "t3-between",
        GHAMIZI,
        "supplement Tables 2 to 6",
        "The relative task vulnerability does not depend on the task, so that tasks may be pooled.",
        "share of the variance between main tasks: " + listed(f"{name} {value:.0f} %" for name, value in share.items()),
        "independent of the task",
        judged(max(share.values()) < 50),
        "eta squared of v by main task, 25 cells, single-task attack; agrees when below 50 % for every encoder. The "
        "paper means the scale of losses; that the measure may be pooled over tasks, as Table 3 does, is our reading",
    )


def _other_encoders(frame: pd.DataFrame, printed: float) -> Finding:
    x = cells(frame, encoder="resnet18", quantity="single")
    text = {}
    for name in frame["encoder"].unique():
        if name in ("resnet18", "resnet50"):
            continue
        y = cells(frame, encoder=str(name), quantity="single")
        text[str(name)] = stats.pearson(_values(x, x), _values(y, x)).value
    return Finding(
        "t3-other-encoders",
        GHAMIZI,
        "supplement Tables 2 to 6, Table 3",
        "ResNet18 predicts other encoders as well as it predicts ResNet50.",
        listed(f"{name} {value:.2f}" for name, value in text.items()),
        f"r = {printed:g} (ResNet50 only)",
        OPEN,
        "not claimed, a question of ours; Pearson of v over 25 cells, single-task attack; the Xception table "
        "has foreign cells (supplement-duplicates)",
    )


def _clean(frame: pd.DataFrame, printed: float) -> Iterator[Finding]:
    clean = cells(frame, encoder="resnet18", quantity="clean_error")
    v = cells(frame, encoder="resnet18", quantity="single")
    adversarial = {key: clean[key] * (1 + v[key]) for key in clean}
    relative = stats.pearson(_values(clean, clean), _values(v, clean))
    absolute = stats.pearson(_values(clean, clean), _values(adversarial, clean))
    yield Finding(
        "t3-clean-relative",
        GHAMIZI,
        "supplement Table 2, Table 3",
        "Clean performance predicts the relative task vulnerability (ResNet18).",
        _p(relative),
        f"r = {printed:g}",
        judged(abs(relative.value - printed) < DIGITS),
        "Pearson of clean error with v, 25 cells, single-task attack",
    )
    yield Finding(
        "t3-clean-absolute",
        GHAMIZI,
        "supplement Table 2, Table 3",
        "Clean performance predicts the error under attack, not divided by it (ResNet18).",
        f"r = {absolute.value:.3f}",
        f"r = {printed:g}",
        OPEN,
        "Pearson of clean error with clean error x (1 + v): near the printed one, so that this may be what was "
        "correlated; tasks whose errors differ by two orders of magnitude are pooled",
    )
    yield Finding(
        "t3-clean-within",
        GHAMIZI,
        "supplement Table 2, Table 3",
        "Within a main task a lower clean error means a lower vulnerability (ResNet18).",
        _p(within(clean, v)),
        f"r = {printed:g}",
        judged(within(clean, v).value > 0),
        "Pearson of logarithms centred in each main task; v has the clean error as its denominator, which pulls "
        "the correlation down",
    )
