"""The audit of MTA (Guo et al. 2020): Tables 1 to 4 on Office-31, 5 and 6 on NYUv2, 7 on cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from headstrong.analysis.audit_finding import MTA, OPEN, Finding, Load, judged, listed, of, said
from headstrong.analysis.audit_sizes import generator_parameters
from headstrong.analysis.mta_tables import CLEAN_ACCURACY

PICTURES = (230, 235, 237)  # every printed percentage is one of so many; no other number up to 300 fits as many
HALF = 0.0051  # half of the last printed digit, and rounding
TASKS = 3
BLOCKS = {"universal": 4, "per-instance": 10}
LESS_IS_STRONGER = ("seg_miou", "seg_pixel_accuracy")
STRONGER_DOWN = (*LESS_IS_STRONGER, "normal_within_11.25", "normal_within_22.5", "normal_within_30")
Key = tuple[int, int, str, str]  # table, radius in 1/255, domain, metric


def findings(load: Load) -> Iterator[Finding]:
    """All findings on MTA's tables."""
    frame = load("mta_tables_1_to_4_office31")
    yield from _averages(load, frame)
    yield from _pictures(frame)
    yield _possible(frame)
    yield from _against_gap(load, frame)
    yield from _modes(frame)
    yield from _dense(load("mta_tables_5_and_6_nyuv2"))
    yield from _cost(load("mta_table_7_cost"))


def _by_method(frame: pd.DataFrame, method: str) -> dict[Key, float]:
    return {
        (int(r.table), int(r.epsilon_255), str(r.domain), str(r.metric)): float(r.percent)
        for r in frame.loc[frame["method"].eq(method)].itertuples()
    }


def _averages(load: Load, frame: pd.DataFrame) -> Iterator[Finding]:
    key = ["table", "epsilon_255", "method", "metric"]
    mean = frame.groupby(key)["percent"].mean().rename("mean")
    both = load("mta_tables_1_to_4_averages").set_index(key).join(mean)
    # the mean of three rounded numbers may be off by half a digit, and the average is rounded once more
    wrong = both.loc[(both["percent"] - both["mean"]).abs() > 2 * HALF]
    names = [
        f"Table {table}, {method} at {eps}: printed {row['percent']:.2f}, mean {row['mean']:.2f}"
        for (table, eps, method, _), row in wrong.iterrows()
    ]
    yield Finding(
        "mta-averages",
        MTA,
        "Tables 1 to 4",
        "The column Avg holds the means of the three domains.",
        f"{len(both) - len(wrong)} of {len(both)} averages; not {listed(names)}",
        f"{len(both)} averages",
        judged(wrong.empty),
        "mean of A, D, W against the print; 0.01 may be rounding",
    )
    cell = (1, 5, "MTA", "fooling_ratio")
    gap = (1, 5, "GAP", "fooling_ratio")
    lead, own = (float(both.loc[cell, c]) - float(both.loc[gap, c]) for c in ("percent", "mean"))
    needed = 3 * (float(both.loc[cell, "percent"]) - float(both.loc[cell, "mean"]))
    yield Finding(
        "mta-lead",
        MTA,
        "Table 1, radius 5/255",
        "On average MTA's universal perturbations fool this much more often than GAP's.",
        f"{own:.2f} points; for the printed average one domain would need {needed:.2f} points more",
        f"{lead:.2f} points",
        judged(abs(own - lead) <= 2 * HALF),
        "difference of the means of A, D, W against difference of the printed averages",
    )


def fits(value: float, count: int) -> bool:
    """Whether a percentage with two decimals is a whole number of `count` pictures."""
    return any(
        abs(100 * k / count - value) < HALF for k in (math.floor(value * count / 100), math.ceil(value * count / 100))
    )


def _pictures(frame: pd.DataFrame) -> Iterator[Finding]:
    allowed = [{n for n in PICTURES if fits(float(value), n)} for value in frame["percent"]]
    clean = [{n for n in PICTURES if fits(value, n)} for value in CLEAN_ACCURACY.values()]
    counts = listed(f"{n}: {sum(n in found for found in allowed)}" for n in PICTURES)
    yield Finding(
        "mta-pictures",
        MTA,
        "Tables 1 to 4",
        "All attacks are measured on the same pictures as the clean accuracies.",
        f"cells that are a whole number of so many pictures: {counts}; of {len(allowed)}. The clean accuracies are of "
        + listed((str(n) for n in PICTURES if all(n in found for found in clean)), "no single number"),
        "one test set",
        judged(any(all(n in found for found in [*allowed, *clean]) for n in PICTURES)),
        f"k / n to two decimals for n = {listed(map(str, PICTURES))}; agrees when one n fits every cell",
    )
    fitting = dict(zip(frame.index, allowed, strict=True))
    apart, compared = [], 0
    for (table, eps, domain), part in frame.groupby(["table", "epsilon_255", "domain"], sort=False):
        sets = []
        for _, rows in part.groupby("method"):
            sets.append(set.intersection(*(fitting[index] for index in rows.index)))
        compared += 1
        if not set.intersection(*sets):
            apart.append(f"Table {table} at {eps}, {domain}")
    yield Finding(
        "mta-same-pictures",
        MTA,
        "Tables 1 to 4",
        "MTA and GAP are compared on the same number of pictures.",
        f"not in {len(apart)} of {compared} comparisons: {listed(apart)}",
        "one test set",
        judged(not apart),
        f"comparisons in which no n of {listed(map(str, PICTURES))} fits the cells of both methods",
    )


def _possible(frame: pd.DataFrame) -> Finding:
    wide = frame.loc[frame["metric"].isin(("fooling_ratio", "accuracy"))]
    wide = wide.pivot_table(index=["table", "epsilon_255", "method", "domain"], columns="metric", values="percent")
    slack = 100 * 5 / 230  # clean and attacked numbers are of up to five pictures more or less
    hits, tight = [], []
    for key, row in wide.iterrows():
        clean = CLEAN_ACCURACY[str(key[-1])]
        low = clean - row["fooling_ratio"]
        high = 100 - row["fooling_ratio"] + min(row["fooling_ratio"], 100 - clean)
        hits.append(low - slack <= row["accuracy"] <= high + slack)
        tight.append(low <= row["accuracy"] <= high)
    return Finding(
        "mta-possible",
        MTA,
        "Tables 1 and 3",
        "Fooling ratio, accuracy under attack and clean accuracy can be true together.",
        f"{of(hits)} cells ({of(tight)} without a margin)",
        "three numbers per domain",
        judged(all(hits)),
        "clean - fooled <= accuracy <= 100 - fooled + min(fooled, 100 - clean), with a margin of 5 of 230 pictures",
    )


def _wins(frame: pd.DataFrame, table: int, eps: int | None = None) -> dict[str, bool]:
    gap, mta = _by_method(frame, "GAP"), _by_method(frame, "MTA")
    return {
        f"{key[2]} {key[3]} at {key[1]}": (mta[key] < gap[key]) if key[3] == "accuracy" else (mta[key] > gap[key])
        for key in gap
        if key[0] == table and (eps is None or key[1] == eps)
    }


def _against_gap(load: Load, frame: pd.DataFrame) -> Iterator[Finding]:
    wins = _wins(frame, 1, 5)
    yield Finding(
        "mta-table-1-wins",
        MTA,
        "Table 1, radius 5/255",
        "MTA beats GAP in every domain, in fooling ratio and accuracy.",
        f"{of(wins.values())} numbers",
        "all tasks",
        judged(all(wins.values())),
        "fooling ratio higher, accuracy lower",
    )
    lost = [name for name, won in _wins(frame, 2).items() if not won]
    allowed = int(said(load, "mta", "exceptions_table_2"))
    yield Finding(
        "mta-table-2-wins",
        MTA,
        "Table 2",
        "MTA's targeted universal perturbations beat GAP's in all cases but one.",
        f"{len(lost)} of {len(_wins(frame, 2))} lost: {listed(lost)}",
        f"{allowed} exception",
        judged(len(lost) == allowed),
        "target accuracy higher",
    )
    gap, mta = _by_method(frame, "GAP"), _by_method(frame, "MTA")
    key: Key = (3, 5, "dslr", "fooling_ratio")
    lead, claimed = mta[key] - gap[key], said(load, "mta", "lead_in_dslr_table_3")
    yield Finding(
        "mta-table-3-dslr",
        MTA,
        "Table 3, radius 5/255",
        "MTA leads GAP in domain D by this much in fooling ratio.",
        f"{lead:.2f} points",
        f"{claimed:g} %",
        judged(round(lead) == claimed),
        "difference of fooling ratios, rounded",
    )
    for table, word in ((3, "non-targeted"), (4, "targeted")):
        wins = _wins(frame, table)
        means = {}
        for eps in (10, 5):
            metric = "fooling_ratio" if table == 3 else "target_accuracy"
            chosen = [k for k in gap if k[0] == table and k[1] == eps and k[3] == metric]
            means[eps] = float(np.mean([mta[k] - gap[k] for k in chosen]))
        yield Finding(
            f"mta-table-{table}-average",
            MTA,
            f"Table {table}",
            f"On average MTA's {word} per-instance perturbations beat GAP's at both radii.",
            listed(f"{value:+.2f} points at {eps}" for eps, value in means.items())
            + f"; {of(wins.values())} single numbers",
            "better on average",
            judged(all(value > 0 for value in means.values())),
            "mean over A, D, W of MTA minus GAP, in fooling ratio or target accuracy",
        )
    yield _significance(gap, mta)


def _significance(gap: Mapping[Key, float], mta: Mapping[Key, float]) -> Finding:
    """Of the comparisons of fooling ratio or target accuracy, which are more than chance between test pictures."""
    z = {}
    for key, value in gap.items():
        if key[3] == "accuracy":
            continue
        a, b = mta[key] / 100, value / 100
        pooled = (a + b) / 2
        error = math.sqrt(2 * pooled * (1 - pooled) / PICTURES[0])
        z[key] = (a - b) / error if error else 0.0
    better, worse = sum(v > 1.96 for v in z.values()), sum(v < -1.96 for v in z.values())
    return Finding(
        "mta-significance",
        MTA,
        "Tables 1 to 4",
        "MTA makes better attacks than GAP.",
        f"of {len(z)} comparisons MTA is better in {sum(v > 0 for v in z.values())}; beyond the noise of {PICTURES[0]} "
        f"pictures better in {better}, worse in {worse}",
        "improves the quality",
        OPEN,
        "z of two proportions, |z| > 1.96, the samples taken as independent; no repeated training is printed",
    )


def _modes(frame: pd.DataFrame) -> Iterator[Finding]:
    means = frame.loc[frame["metric"].eq("fooling_ratio")].groupby(["table", "epsilon_255", "method"])["percent"].mean()
    drops = {(e, m): float(means[3, e, m] - means[1, e, m]) for e in (10, 5) for m in ("GAP", "MTA")}
    overall = {eps: (drops[eps, "GAP"] + drops[eps, "MTA"]) / 2 for eps in (10, 5)}
    yield Finding(
        "mta-universal-over-instance",
        MTA,
        "Tables 1 and 3",
        "On Office-31 per-instance perturbations fool less than universal ones, above all at the small radius.",
        listed(f"{m} at {e} {value:+.2f} points" for (e, m), value in drops.items()),
        "not as good, above all for small radii",
        judged(overall[5] < overall[10] < 0),
        "mean fooling ratio of Table 3 minus that of Table 1; agrees by the mean of both methods: "
        + listed(f"{value:+.2f} at {eps}" for eps, value in overall.items()),
    )


def _metrics(frame: pd.DataFrame, victim: str, mode: str, method: str) -> dict[str, float]:
    chosen = frame.loc[frame["victim"].eq(victim) & frame["mode"].eq(mode) & frame["method"].eq(method)]
    return dict(zip(chosen["metric"], chosen["value"].astype(float), strict=True))


def _stronger(metric: str, value: float, other: float) -> bool:
    return value < other if metric in STRONGER_DOWN else value > other


def _dense(frame: pd.DataFrame) -> Iterator[Finding]:
    for mode in BLOCKS:
        gap, mta = (_metrics(frame, "dmtl", mode, method) for method in ("GAP", "MTA"))
        won = {name: _stronger(name, mta[name], value) for name, value in gap.items()}
        yield Finding(
            f"mta-table-5-{mode}",
            MTA,
            f"Table 5, {mode}",
            "MTA beats GAP on NYUv2 in most numbers.",
            f"{of(won.values())}; not in {listed(name for name, hit in won.items() if not hit)}",
            "most cases",
            judged(sum(won.values()) > len(won) / 2),
            "numbers in which MTA does more harm; more than half agrees",
        )
    for method in ("GAP", "MTA"):
        one, other = (_metrics(frame, "dmtl", mode, method) for mode in BLOCKS)
        won = {name: _stronger(name, other[name], value) for name, value in one.items()}
        lost = [name for name, hit in won.items() if not hit]
        yield Finding(
            f"mta-table-5-instance-{method.lower()}",
            MTA,
            f"Table 5, {method}",
            "On NYUv2 per-instance perturbations do more harm than universal ones in all tasks.",
            f"{of(won.values())} numbers" + (f"; not in {listed(lost)}" if lost else ""),
            "all tasks",
            judged(all(won.values())),
            "numbers in which per-instance does more harm; agrees when all are, a task having several",
        )
    kept = []
    for mode in BLOCKS:
        own, clean = _metrics(frame, "dmtl", mode, "MTA"), _metrics(frame, "dmtl", "clean", "-")
        far, far_clean = _metrics(frame, "mtan", mode, "MTA"), _metrics(frame, "mtan", "clean", "-")
        share = {name: 100 * (far[name] - far_clean[name]) / (own[name] - clean[name]) for name in own}
        low, high = min(share, key=lambda k: share[k]), max(share, key=lambda k: share[k])
        kept.append(f"{mode} {share[low]:.0f} % ({low}) to {share[high]:.0f} % ({high})")
    yield Finding(
        "mta-table-6-transfer",
        MTA,
        "Tables 5 and 6",
        "Perturbations made against DMTL also harm MTAN greatly.",
        f"share of the harm that arrives: {'; '.join(kept)}",
        "greatly",
        OPEN,
        "(attacked - clean) on MTAN / (attacked - clean) on DMTL, by number; 'greatly' has no number",
    )


def _cost(frame: pd.DataFrame) -> Iterator[Finding]:
    printed = {(str(r.mode), str(r.method)): float(r.parameters_printed) for r in frame.itertuples()}
    ms = {(str(r.mode), str(r.method)): float(r.inference_ms) for r in frame.itertuples()}
    count = {
        (mode, method): generator_parameters(blocks, TASKS, shared=method == "MTA") / 1e6
        for mode, blocks in BLOCKS.items()
        for method in ("GAP", "MTA")
    }
    yield Finding(
        "mta-table-7-unit",
        MTA,
        "Table 7",
        "Generators for three tasks have so many millions of weights.",
        listed(f"{mode} {method} {value:.2f}" for (mode, method), value in count.items()),
        listed(f"{mode} {method} {value:.2f}" for (mode, method), value in printed.items()),
        judged(all(abs(printed[key] - count[key]) < HALF for key in count)),
        "weights counted layer by layer (64 filters, batch normalisation, no biases but the last, 4 and 10 blocks); "
        f"printed x 10 fits in {of(abs(printed[key] - count[key] / 10) < HALF for key in count)} cells",
    )
    for name, values, word in (("weights", printed, "smaller"), ("time", ms, "faster")):
        ratio = {mode: values[mode, "GAP"] / values[mode, "MTA"] for mode in BLOCKS}
        own = {mode: count[mode, "GAP"] / count[mode, "MTA"] for mode in BLOCKS}
        note = "; counted: " + listed(f"{m} {v:.2f}" for m, v in own.items()) if name == "weights" else ""
        yield Finding(
            f"mta-table-7-{name}",
            MTA,
            "Table 7",
            f"Sharing the encoder makes MTA {word} than GAP.",
            listed(f"{mode} {value:.2f} times" for mode, value in ratio.items()) + note,
            word,
            judged(all(value > 1 for value in ratio.values())),
            "GAP / MTA of the printed numbers; with three tasks no more than 3",
        )
    more = {
        m: (ms["per-instance", m] / ms["universal", m], count["per-instance", m] / count["universal", m])
        for m in ("GAP", "MTA")
    }
    yield Finding(
        "mta-table-7-blocks",
        MTA,
        "Table 7",
        "Ten residual blocks take more time than four.",
        listed(
            f"{method}: {time:.2f} times the time, {size:.2f} times the weights"
            for method, (time, size) in more.items()
        ),
        "inference times",
        judged(all(time > 1 for time, _ in more.values())),
        "per-instance / universal of the printed milliseconds, and of the counted weights",
    )
