"""The audit of Ghamizi et al. (2022), supplement Tables 1 to 6: numbers of models, sizes, cells, encoders."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.audit_finding import (
    GHAMIZI,
    OPEN,
    Cells,
    Finding,
    Load,
    alone,
    cell_name,
    cells,
    judged,
    listed,
    of,
    pairs,
    percent,
    said,
)
from headstrong.analysis.audit_sizes import two_task_parameters

QUANTITIES = ("clean_error", "single", "multi")
OUTLIER = 5  # times the largest clean error of the same pair in the other tables
MAGNIFIED = ("n", "E")  # rows printed in hundreds, but in Table 4
SIGNIFICANT = 0.05


def findings(load: Load) -> Iterator[Finding]:
    """All findings on the supplement's tables."""
    yield from _counts(load)
    yield _sizes(load)
    frame = load("ghamizi_supplement_tables_2_to_6")
    by = {
        (str(encoder), quantity): cells(frame, encoder=str(encoder), quantity=quantity)
        for encoder in frame["encoder"].unique()
        for quantity in QUANTITIES
    }
    encoders = [str(name) for name in frame["encoder"].unique()]
    yield from _more_vulnerable(load, by, encoders)
    yield _multi_diagonal(by, encoders)
    yield _duplicates(by, encoders)
    yield _outliers(by, encoders)
    yield _scale(by)
    yield _similar(by, encoders)
    yield _best(by, encoders)


def _counts(load: Load) -> Iterator[Finding]:
    table = load("ghamizi_supplement_table_1")
    claimed, tasks = int(said(load, "ghamizi", "multi_task_models")), int(said(load, "ghamizi", "tasks"))
    total = int(table["models"].sum())
    yield Finding(
        "supplement-1-models",
        GHAMIZI,
        "supplement Table 1",
        "The evaluation has 935 multi-task models.",
        f"{total} models in eight settings; {_trained(table)} without those that are earlier epochs of others",
        str(claimed),
        judged(total == claimed),
        "sum of #Models, single tasks and both orders of each pair included; of settings that differ in epochs only "
        "one is a training of its own",
    )
    large, small = int(table["models"].max()), int(table["models"].min())
    sums = [(a, b) for a in range(claimed // large + 1) for b in range(claimed // small + 1)]
    found = [(a, b) for a, b in sums if a * large + b * small == claimed]
    yield Finding(
        "supplement-1-935",
        GHAMIZI,
        "supplement Table 1",
        "The number of models is a sum of settings of the sizes that the supplement lists.",
        listed((f"{a} x {large} + {b} x {small}" for a, b in found), f"no sum of {large}s and {small}s is {claimed}"),
        str(claimed),
        judged(bool(found)),
        f"whole numbers a, b of 0 or more with {large} a + {small} b = {claimed}, all tried",
    )
    yield Finding(
        "text-all-combinations",
        GHAMIZI,
        "experimental setup",
        "The models are all combinations of the eleven tasks.",
        f"{2**tasks - 1} sets of tasks, {2**tasks - 1 - tasks} of them of two or more",
        str(claimed),
        judged(claimed in (2**tasks - 1, 2**tasks - 1 - tasks)),
        "2^11 - 1 sets that are not empty, less 11 single tasks",
    )


def _trained(table: pd.DataFrame) -> int:
    """Models that are trainings of their own: the same setting at fewer epochs is a checkpoint of the longer one."""
    return int(table.groupby(["encoder", "weights", "tasks"])["models"].max().sum())


def _sizes(load: Load) -> Finding:
    table = load("ghamizi_supplement_table_1").drop_duplicates("encoder").set_index("encoder")["parameters_millions"]
    ours = {name: two_task_parameters(str(name)) / 1e6 for name in table.index if name != "xception"}
    return Finding(
        "supplement-1-sizes",
        GHAMIZI,
        "supplement Table 1",
        "Sizes are those of models of two tasks (z-depth and normals), in millions of weights.",
        listed(f"{name} {value:.2f}" for name, value in ours.items()),
        listed(f"{name} {table[name]:.2f}" for name in ours),
        judged(all(abs(value - table[name]) < 0.0051 for name, value in ours.items())),
        "weights of encoder and two decoders, counted layer by layer (convolutions, batch normalisation); the "
        "Xception of the paper is not described well enough to count",
    )


def _more_vulnerable(load: Load, by: dict[tuple[str, str], Cells], encoders: list[str]) -> Iterator[Finding]:
    claimed = said(load, "ghamizi", "percent_more_vulnerable")
    hits: dict[str, list[bool]] = {}
    for number, encoder in enumerate(encoders, start=2):
        counted = []
        for quantity in ("single", "multi"):
            found = by[encoder, quantity]
            own = alone(by[encoder, "single"])
            counted.append([value > own[key[0]] for key, value in pairs(found).items()])
        hits[encoder] = counted[0]
        named = encoder in ("resnet50", "resnet152")
        yield Finding(
            f"supplement-{number}-more-vulnerable",
            GHAMIZI,
            f"supplement Table {number}",
            f"Pairs on {encoder} are more vulnerable than the single task."
            if named
            else f"Pairs on {encoder} are not reliably less vulnerable than the single task.",
            f"{of(counted[0])} ({percent(counted[0]):.0f} %) when the main task is attacked, {of(counted[1])} "
            f"when both are",
            f"{claimed:g} % when one task is attacked" if named else "not reliably less vulnerable",
            OPEN,
            "pairs with v(main|auxiliary) > v(main|main)"
            + ("; the sentence is about both large ResNets, the row below" if named else "; 'reliably' has no number"),
        )
    both = hits["resnet50"] + hits["resnet152"]
    yield Finding(
        "supplement-more-vulnerable-large",
        GHAMIZI,
        "supplement Tables 3 and 6",
        "Of the pairs on ResNet50 and ResNet152 together four fifths are more vulnerable when one task is attacked.",
        f"{of(both)} ({percent(both):.1f} %)",
        f"{claimed:g} %",
        judged(round(percent(both)) == claimed),
        "pairs of both tables with v(main|auxiliary) > v(main|main), single-task block; agrees to the nearest percent",
    )


def _multi_diagonal(by: dict[tuple[str, str], Cells], encoders: list[str]) -> Finding:
    hits = [
        by[e, "single"][key] == by[e, "multi"][key] for e in encoders for key in by[e, "single"] if len({*key}) == 1
    ]
    over = [
        by[e, "multi"][key] > value for e in encoders for key, value in pairs(by[e, "single"]).items()
    ]  # for the note: an attack on both tasks that hurts the main task more
    return Finding(
        "supplement-diagonal",
        GHAMIZI,
        "supplement Tables 2 to 6",
        "For single-task models single- and multi-task attacks are the same attack.",
        f"{of(hits)} are equal",
        "both blocks",
        judged(all(hits)),
        f"v(t|t) single against multi; off the diagonal v(multi) > v(single) in {of(over)} pairs",
    )


def _step(encoder: str, key: tuple[str, str], quantity: str) -> float:
    """What the last printed digit of a cell is worth."""
    return 1.0 if quantity == "clean_error" and key[0] in MAGNIFIED and encoder != "xception" else 0.01


def _duplicates(by: dict[tuple[str, str], Cells], encoders: list[str]) -> Finding:
    shared: dict[tuple[str, str], list[str]] = {}
    compared = 0
    for a, b in itertools.combinations(encoders, 2):
        for key in by[a, "single"]:
            compared += 1
            if all(
                abs(by[a, q][key] - by[b, q][key]) < 0.51 * max(_step(a, key, q), _step(b, key, q)) for q in QUANTITIES
            ):
                shared.setdefault((a, b), []).append(cell_name(key))
    text = "; ".join(f"{a} and {b}: {listed(keys)}" for (a, b), keys in shared.items())
    return Finding(
        "supplement-duplicates",
        GHAMIZI,
        "supplement Tables 2 to 6",
        "Networks with different encoders have numbers of their own.",
        f"{sum(map(len, shared.values()))} of {compared} comparisons share all three numbers: {text or 'none'}",
        "five encoders",
        judged(not shared),
        "same pair in two tables, with clean error and both vulnerabilities equal to the last printed digit",
    )


def _outliers(by: dict[tuple[str, str], Cells], encoders: list[str]) -> Finding:
    found = []
    for encoder in encoders:
        for key, value in by[encoder, "clean_error"].items():
            others = max(by[other, "clean_error"][key] for other in encoders if other != encoder)
            if value > OUTLIER * others:
                found.append(
                    f"{cell_name(key)} of {encoder}: {value:.0f}, {value / others:.0f} times the largest other, "
                    f"v = {by[encoder, 'single'][key]:g}"
                )
    return Finding(
        "supplement-outliers",
        GHAMIZI,
        "supplement Tables 2 to 6",
        "Clean errors of one pair are of one size whatever the encoder.",
        "; ".join(found) or "no cell stands out",
        "one scale for a row",
        judged(not found),
        f"clean error more than {OUTLIER} times the largest of the other four encoders; a decoder of another task "
        "would look like this: a huge clean error that an attack can hardly raise",
    )


def _scale(by: dict[tuple[str, str], Cells]) -> Finding:
    cell = ("n", "n")
    others = float(np.median([value[cell] for (e, q), value in by.items() if q == "clean_error" and e != "xception"]))
    plain = by["xception", "clean_error"][cell] / others
    return Finding(
        "supplement-4-scale",
        GHAMIZI,
        "supplement Table 4",
        "The rows n and E of the Xception table are in hundreds, as in the other four.",
        f"n|n is {plain:.2f} times the other encoders' median as it stands, {100 * plain:.0f} times in hundreds",
        "in hundreds",
        judged(abs(np.log(100 * plain)) < abs(np.log(plain))),
        "clean error of n|n over the median of the other four encoders; the reading nearer to 1 holds",
    )


def _similar(by: dict[tuple[str, str], Cells], encoders: list[str]) -> Finding:
    within = []
    for a, b in itertools.combinations(encoders, 2):
        x, y = by[a, "single"], by[b, "single"]
        groups = [key[0] for key in x]
        u, v = stats.log_centred(list(x.values()), groups), stats.log_centred([y[key] for key in x], groups)
        within.append(stats.pearson(u, v, covariates=len(set(groups)) - 1))
    good = [r.value > 0 and r.p_value < SIGNIFICANT for r in within]
    return Finding(
        "supplement-similar",
        GHAMIZI,
        "supplement Tables 2 to 6",
        "The combinations that are robust are alike from one encoder to another.",
        f"mean correlation within a main task {np.mean([r.value for r in within]):.2f}, from "
        f"{min(r.value for r in within):.2f} to {max(r.value for r in within):.2f}; {of(good)} pairs of encoders "
        f"positive with p < {SIGNIFICANT:g}",
        "similar",
        judged(sum(good) > len(good) / 2),
        "Pearson of log v centred in each main task, 25 cells, 19 degrees of freedom, single-task attack; agrees when "
        "more than half are positive and significant",
    )


def _best(by: dict[tuple[str, str], Cells], encoders: list[str]) -> Finding:
    most: dict[str, dict[str, int]] = {}
    for encoder in encoders:
        found = by[encoder, "single"]
        for task in alone(found):
            row = {key[1]: value for key, value in pairs(found).items() if key[0] == task}
            best = min(row, key=lambda auxiliary: row[auxiliary])
            most.setdefault(task, {}).setdefault(best, 0)
            most[task][best] += 1
    text = "; ".join(f"{task}: " + listed(f"{a} {n}" for a, n in row.items()) for task, row in most.items())
    same = [task for task, row in most.items() if len(row) == 1]
    return Finding(
        "supplement-best-auxiliary",
        GHAMIZI,
        "supplement Tables 2 to 6",
        "A main task has one auxiliary task that makes it most robust, whichever the encoder.",
        f"the same one for {listed(same)} only ({text})" if len(same) < len(most) else f"the same one for all ({text})",
        "similar",
        judged(len(same) == len(most)),
        "auxiliary task with the least v under single-task attack, and for how many of the five encoders",
    )
