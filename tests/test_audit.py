"""The audit: its numbers against other ways of computing them, and against what one reads by hand."""

from __future__ import annotations

import csv
import itertools
import re
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats

from headstrong import published
from headstrong.analysis import audit
from headstrong.analysis.audit_mta import fits
from headstrong.analysis.audit_sizes import RESNETS, decoder_parameters, encoder_parameters, generator_parameters
from headstrong.analysis.audit_surrogates import implied_counts
from headstrong.analysis.mta_tables import CLEAN_ACCURACY
from headstrong.models import build_model
from headstrong.models.generators import Generators, count_parameters

TASKS = "sdDnE"
ENCODERS = ("resnet18", "resnet50", "xception", "wide_resnet50_2", "resnet152")
KEYS = [(main, auxiliary) for main in TASKS for auxiliary in TASKS]
PAIRS = [key for key in KEYS if key[0] != key[1]]


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return audit.findings().set_index("id")


def read(name: str) -> list[dict[str, str]]:
    """A published table without pandas."""
    with (published.FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def supplement() -> dict[tuple[str, str, str, str], float]:
    rows = read("ghamizi_supplement_tables_2_to_6")
    return {(r["encoder"], r["quantity"], r["main"], r["auxiliary"]): float(r["value"]) for r in rows}


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def test_every_finding_says_everything(found):
    whole = audit.findings()
    assert tuple(whole.columns) == ("id", "paper", "table", "statement", "recomputed", "printed", "agrees", "how")
    assert whole["id"].is_unique
    assert whole.map(lambda text: isinstance(text, str) and bool(text.strip())).all().all()
    assert set(whole["agrees"]) == {"yes", "no", "not decidable"}
    assert whole.groupby("paper").size().min() >= 5
    assert len(whole) >= 20


# Read from the printed tables by hand. Finding, the answer, and what its text must hold.
COUNTS = {
    "t1-weights-single": ("yes", "20 of 20"),
    "t1-weights-multi": ("yes", "20 of 20"),
    "t1-single-task-safest": ("no", "11 of 20"),
    "t1-s-alone": ("yes", "4 of 4"),
    "t1-s-weighted": ("yes", "8 of 8"),
    "t1-baseline": ("not decidable", "14 of 20"),
    "t2-diagonal-apgd": ("no", "E: 81.77 and 68.06"),
    "t2-diagonal-wgd": ("yes", "E: 90.19 and 90.59"),
    "t2-wgd-is-pgd": ("no", "d 2.42, D 2.43, n 1.67, E 4.00"),
    "t2-at-least-one-apgd-uniform": ("no", "not for E"),
    "t2-at-least-one-apgd-weighted": ("no", "not for D, E"),
    "t2-at-least-one-wgd-uniform": ("no", "not for s"),
    "t2-at-least-one-wgd-weighted": ("no", "not for s"),
    "t2-at-least-one-anywhere": ("yes", "E: 2 of 4"),
    "t2-weights-apgd": ("not decidable", "8 of 20 pairs are more"),
    "t2-weights-wgd": ("not decidable", "13 of 20 pairs are more"),
    "t2-stronger-apgd": ("no", "3 of 45"),
    "t2-stronger-wgd": ("no", "3 of 45"),
    "supplement-1-models": ("no", "488 models in eight settings; 246"),
    "supplement-1-935": ("no", "no sum of 121s and 25s is 935"),
    "text-all-combinations": ("no", "2047"),
    "supplement-2-more-vulnerable": ("not decidable", "9 of 20 (45 %) when the main task is attacked, 4 of 20"),
    "supplement-3-more-vulnerable": ("not decidable", "15 of 20 (75 %) when the main task is attacked, 8 of 20"),
    "supplement-4-more-vulnerable": ("not decidable", "6 of 20 (30 %) when the main task is attacked, 3 of 20"),
    "supplement-5-more-vulnerable": ("not decidable", "5 of 20 (25 %) when the main task is attacked, 3 of 20"),
    "supplement-6-more-vulnerable": ("not decidable", "16 of 20 (80 %) when the main task is attacked, 10 of 20"),
    "supplement-more-vulnerable-large": ("no", "31 of 40"),
    "supplement-diagonal": ("yes", "25 of 25"),
    "supplement-duplicates": ("no", "5 of 250 comparisons"),
    "supplement-outliers": ("no", "E|d of xception: 140454"),
    "supplement-4-scale": ("no", "0.69 times"),
    "t3-text": ("no", "clean performance 0.98"),
    "mta-averages": ("no", "23 of 24 averages; not Table 1, MTA at 5: printed 88.80, mean 87.94"),
    "mta-lead": ("no", "7.22 points"),
    "mta-pictures": ("no", "The clean accuracies are of 235"),
    "mta-table-1-wins": ("yes", "6 of 6"),
    "mta-table-2-wins": ("yes", "1 of 6 lost: dslr"),
    "mta-table-3-dslr": ("yes", "14.90"),
    "mta-table-3-average": ("yes", "+0.62 points at 10, +2.13 points at 5"),
    "mta-table-4-average": ("yes", "+2.55 points at 10, +0.63 points at 5"),
    "mta-table-5-universal": ("yes", "7 of 9; not in normal_mean, normal_median"),
    "mta-table-5-per-instance": ("yes", "7 of 9; not in depth_abs_err, depth_rel_err"),
    "mta-table-5-instance-gap": ("no", "7 of 9 numbers; not in normal_mean, normal_median"),
    "mta-table-5-instance-mta": ("yes", "9 of 9"),
    "mta-table-7-weights": ("yes", "counted: universal 2.64, per-instance 2.83"),
    "mta-table-7-time": ("yes", "universal 2.80 times, per-instance 2.71 times"),
    "mta-table-7-blocks": ("no", "GAP: 0.89 times the time"),
    "camri-largest-gain": ("yes", "9.29 points (awa2 worst2)"),
    "camri-best": ("no", "8 of 9; beaten in cifar10 worst1 by WCE (0.8023 against 0.7919)"),
    "camri-accuracy": ("yes", "9 of 9"),
    "camri-printed-keep": ("yes", "32 of 32 cells keep it; 13"),
    "camri-ce-once": ("yes", "3 of 3"),
    "camri-ranks": ("yes", "3 of 3"),
    "camri-arcface-accuracy": ("no", "5 of 9"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_hand_derived_numbers(found, name):
    agrees, text = COUNTS[name]
    assert found.loc[name, "agrees"] == agrees
    assert text in found.loc[name, "recomputed"]


def test_pairs_counted_once_more(found, supplement):
    for number, encoder in enumerate(ENCODERS, start=2):
        more = [supplement[encoder, "single", m, a] > supplement[encoder, "single", m, m] for m, a in PAIRS]
        assert f"{sum(more)} of 20" in found.loc[f"supplement-{number}-more-vulnerable", "recomputed"]
    best = {}
    for main in TASKS:
        others = TASKS.replace(main, "")
        best[main] = {min(others, key=lambda a: supplement[e, "single", main, a]) for e in ENCODERS}
    assert [main for main in TASKS if len(best[main]) == 1] == ["n"]
    assert found.loc["supplement-best-auxiliary", "recomputed"].startswith("the same one for n only")
    table = {(r["weights"], r["attack"], r["main"], r["auxiliary"]): float(r["value"]) for r in read("ghamizi_table_2")}
    pgd = {
        (r["weights"], r["main"], r["auxiliary"]): float(r["value"])
        for r in read("ghamizi_table_1")
        if r["attacked"] == "single"
    }
    for attack, main in (("apgd", "E"), ("wgd", "n")):
        tops = [
            max(table[w, attack, main, a] / pgd[w, main, a] for a in TASKS if (w, main, a) in pgd)
            for w in ("uniform", "weighted")
        ]
        told = found.loc[f"t2-times-{attack}-{main}"]
        assert numbers(told["recomputed"]) == [round(top, 1) for top in tops]
        assert told["agrees"] == "no"


def test_cells_that_tables_share_are_five_and_the_same_to_the_print(found, supplement):
    def printed(encoder: str, main: str, auxiliary: str) -> tuple[str, ...]:
        clean = supplement[encoder, "clean_error", main, auxiliary]
        digits = f"{clean / 100:.2f}" if main in "nE" else f"{clean:.2f}"
        return (digits, *(str(supplement[encoder, q, main, auxiliary]) for q in ("single", "multi")))

    shared = [
        (a, b, "|".join(key))
        for a, b in itertools.combinations(ENCODERS, 2)
        for key in KEYS
        if printed(a, *key) == printed(b, *key)
    ]
    assert {(a, b) for a, b, _ in shared} == {("xception", "resnet152")}
    names = re.findall(r"\w\|\w", found.loc["supplement-duplicates", "recomputed"])
    assert names == [name for *_, name in shared] == ["d|s", "D|s", "D|n", "E|s", "E|n"]


def within_by_regression(x: list[float], y: list[float], groups: list[str]) -> tuple[float, float]:
    """Partial correlation of logarithms given the main task, by least squares on indicator columns."""
    design = np.array([[group == level for level in sorted(set(groups))] for group in groups], dtype=float)
    u, v = (np.log(z) - design @ np.linalg.lstsq(design, np.log(z), rcond=None)[0] for z in (x, y))
    r = float(u @ v / np.sqrt((u @ u) * (v @ v)))
    freedom = len(x) - 1 - design.shape[1]
    return r, float(2 * scipy_stats.t.sf(abs(r) * np.sqrt(freedom / (1 - r * r)), freedom))


@pytest.mark.parametrize("attack", ["single", "multi"])
def test_the_smaller_encoder_against_the_larger(found, supplement, attack):
    x, y = ([supplement[e, attack, *key] for key in KEYS] for e in ("resnet18", "resnet50"))
    groups = [main for main, _ in KEYS]
    means = [np.mean([v for v, g in zip(x, groups, strict=True) if g == main]) for main in groups]
    r, of_means = scipy_stats.pearsonr(x, y).statistic, scipy_stats.pearsonr(means, y).statistic
    assert f"r = {r:.3f} over 25 cells" in found.loc[f"t3-surrogate-{attack}", "recomputed"]
    assert found.loc[f"t3-row-means-{attack}", "recomputed"].startswith(f"r = {of_means:.3f}")
    within, p_value = within_by_regression(x, y, groups)
    told = found.loc[f"t3-within-{attack}"]
    assert told["recomputed"].startswith(f"r = {within:.2f} (p = {p_value:.2g})")
    assert told["agrees"] == ("yes" if within > 0 and p_value < 0.05 else "no")
    # as another reading of the tables found them
    expected = {"single": (0.914, 0.915, 0.41), "multi": (0.939, 0.907, 0.75)}[attack]
    assert (r, of_means, within) == pytest.approx(expected, abs=0.006)


def test_other_correlations_of_table_3(found, supplement):
    groups = np.array([main for main, _ in KEYS])
    v = np.array([supplement["resnet18", "single", *key] for key in KEYS])
    clean = np.array([supplement["resnet18", "clean_error", *key] for key in KEYS])
    relative = scipy_stats.pearsonr(clean, v)
    assert found.loc["t3-clean-relative", "recomputed"] == f"r = {relative[0]:.2f} (p = {relative[1]:.2g})"
    assert numbers(found.loc["t3-clean-absolute", "recomputed"])[0] == pytest.approx(
        scipy_stats.pearsonr(clean, clean * (1 + v)).statistic, abs=6e-4
    )
    inside = within_by_regression(list(clean), list(v), list(groups))[0]
    assert numbers(found.loc["t3-clean-within", "recomputed"])[0] == pytest.approx(inside, abs=0.006)
    shares = numbers(found.loc["t3-between", "recomputed"].replace("resnet", "").replace("wide_50_2", ""))
    one_way = scipy_stats.f_oneway(*(v[groups == main] for main in TASKS)).statistic  # F = share / (1 - share) * 20 / 4
    assert shares[1] == round(100 * one_way / (one_way + 5))
    ranks = [
        scipy_stats.spearmanr(v[groups == m], [supplement["resnet50", "single", m, a] for a in TASKS])[0] for m in TASKS
    ]
    assert numbers(found.loc["t3-by-task", "recomputed"]) == pytest.approx(ranks, abs=0.006)
    others = [
        scipy_stats.pearsonr(v, [supplement[e, "single", *key] for key in KEYS]).statistic
        for e in ("xception", "wide_resnet50_2", "resnet152")
    ]
    told = found.loc["t3-other-encoders", "recomputed"].replace("wide_resnet50_2", "").replace("resnet152", "")
    assert numbers(told) == pytest.approx(others, abs=0.006)
    table = [
        within_by_regression(*([supplement[e, "single", *key] for key in KEYS] for e in two), list(groups))
        for two in itertools.combinations(ENCODERS, 2)
    ]
    good = sum(r > 0 and p < 0.05 for r, p in table)
    assert f"{good} of 10 pairs" in found.loc["supplement-similar", "recomputed"]
    assert f"within a main task {np.mean([r for r, _ in table]):.2f}" in found.loc["supplement-similar", "recomputed"]


def test_the_number_of_cells_behind_a_p_value(found):
    for number, row in enumerate(read("ghamizi_table_3"), start=1):
        r, p_value = float(row["pearson"]), float(row["p_value"])
        # the exact null distribution of r is a beta distribution on [-1, 1]
        bounds = {
            n: [2 * scipy_stats.beta(n / 2 - 1, n / 2 - 1, loc=-1, scale=2).sf(r + side * 0.005) for side in (1, -1)]
            for n in range(5, 200)
        }
        counts = [n for n, (low, high) in bounds.items() if low <= p_value <= high]
        assert implied_counts(r, p_value) == counts
        assert 25 in counts
        assert not {20, 110, 121} & set(counts)
        assert found.loc[f"t3-n-{number}", "agrees"] == "no"


def test_sizes_against_networks_that_are_built(found):
    for name in RESNETS:
        count = count_parameters(build_model(name, "dn", 18))
        features = 512 * RESNETS[name][2]
        assert encoder_parameters(name) + decoder_parameters(features, 1) + decoder_parameters(features, 3) == count
    with pytest.raises(ValueError, match="known are resnet18"):
        encoder_parameters("xception")
    assert found.loc["supplement-1-sizes", "agrees"] == "yes"
    told = []
    for blocks in (4, 10):
        for shared in (False, True):
            ours = generator_parameters(blocks, 3, shared=shared)
            with torch.device("meta"):
                network = Generators("sdn", shared=shared, blocks=blocks)
            assert ours == count_parameters(network)
            told.append(round(ours / 1e6, 2))
    assert numbers(found.loc["mta-table-7-unit", "recomputed"]) == told == [16.44, 6.24, 37.69, 13.32]
    assert "4 of 4" in found.loc["mta-table-7-unit", "how"]


def test_percentages_of_a_number_of_pictures(found):
    rows = read("mta_tables_1_to_4_office31")
    whole = {n: {f"{float(Fraction(100 * k, n)):.2f}" for k in range(n + 1)} for n in (230, 235, 237)}
    counts = [sum(f"{float(r['percent']):.2f}" in whole[n] for r in rows) for n in (230, 235, 237)]
    assert numbers(found.loc["mta-pictures", "recomputed"])[1:6:2] == counts
    assert all(f"{value:.2f}" in whole[235] for value in CLEAN_ACCURACY.values())
    assert all(any(f"{float(r['percent']):.2f}" in found_in for found_in in whole.values()) for r in rows)
    assert fits(88.26, 230)
    assert not fits(88.26, 235)
    apart = 0
    for key in dict.fromkeys((r["table"], r["epsilon_255"], r["domain"]) for r in rows):
        cells = [r for r in rows if (r["table"], r["epsilon_255"], r["domain"]) == key]
        apart += not any(all(f"{float(r['percent']):.2f}" in found_in for r in cells) for found_in in whole.values())
    assert f"not in {apart} of 24 comparisons" in found.loc["mta-same-pictures", "recomputed"]


def test_differences_between_methods_and_kinds(found):
    frame = published.load("mta_tables_1_to_4_office31")
    wide = frame.loc[frame["metric"].ne("accuracy")].set_index(["table", "epsilon_255", "domain", "method"])["percent"]
    wide = wide.unstack() * 230 / 100
    z = []
    for gap, mta in wide[["GAP", "MTA"]].to_numpy():
        # without continuity correction the chi-square of a 2 x 2 table is the square of z
        table = np.array([[mta, 230 - mta], [gap, 230 - gap]])
        square = scipy_stats.chi2_contingency(table, correction=False)[0]
        z.append(np.sign(mta - gap) * np.sqrt(square))
    better, worse = sum(v > 1.96 for v in z), sum(v < -1.96 for v in z)
    assert f"better in {better}, worse in {worse}" in found.loc["mta-significance", "recomputed"]
    text = found.loc["mta-universal-over-instance", "recomputed"]
    assert numbers(text)[1::2] == pytest.approx([-1.64, -1.02, -1.26, -6.35], abs=0.006)
    # median angle on DMTL 28.91 to 71.57, on MTAN 26.19 to 45.84; within 11.25 degrees 17.77 to 3.66, 20.48 to 7.33
    told = found.loc["mta-table-6-transfer", "recomputed"]
    assert f"{100 * (45.84 - 26.19) / (71.57 - 28.91):.0f} % (normal_median)" in told
    assert f"{100 * (7.33 - 20.48) / (3.66 - 17.77):.0f} % (normal_within_11.25)" in told


def test_fooled_and_accurate_together():
    """Of n pictures, of which c are classed rightly, f change their class: how many can be right afterwards."""
    n = 6
    for clean, fooled in itertools.product(range(n + 1), repeat=2):
        possible = set()
        for right_fooled in range(max(0, fooled - (n - clean)), min(clean, fooled) + 1):
            stay, wrong_fooled = clean - right_fooled, fooled - right_fooled
            possible |= {stay + healed for healed in range(wrong_fooled + 1)}
        low, high = max(0, clean - fooled), n - fooled + min(fooled, n - clean)
        assert min(possible) == low
        assert max(possible) <= high


def test_camri_by_hand(found):
    # CIFAR-10: accuracy +0.0025, +0.0025, +0.0002; recall +0.0536, +0.0163, +0.0285; times 10, less, by nine
    told = numbers(found.loc["camri-other-classes", "recomputed"].replace("worst1", "").replace("worst2", ""))
    assert told == pytest.approx([(2.5 - 5.36) / 9, (2.5 - 1.63) / 9, (0.2 - 2.85) / 9], abs=0.006)
    text = found.loc["camri-arcface-share", "recomputed"]
    assert f"{100 * (0.1018 - 0.1185) / (0.1296 - 0.1185):.0f} % (awa2 worst1)" in text
    assert f"{100 * (0.9416 - 0.87) / (0.96 - 0.87):.0f} % (gtsrb worst2)" in text
