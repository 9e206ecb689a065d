"""Analysis against independent computation: raw HDF5, scipy, simulation, and the published tables."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

import synthetic
from headstrong import published
from headstrong.analysis import baselines, build, plan, records, segmentation, stats, surrogates, tables, vulnerability
from headstrong.analysis.files import read_table, write_table
from headstrong.confusion import miou_from_confusion
from headstrong.data.cache import write_split
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.tasks import TASKS

FIVE = "five-resnet18-sd_Dn_E"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "quick"
    synthetic.write_study(folder, synthetic.Study())
    return folder


@pytest.fixture(scope="module")
def table(results: Path) -> pd.DataFrame:
    return vulnerability.build_table(results / "evaluations", results / "plan.csv")


@pytest.fixture(scope="module")
def cells(results: Path, table: pd.DataFrame) -> pd.DataFrame:
    return tables.cells(table, plan.read_plan(results / "plan.csv"), tables.choose_attack(table))


def one(table: pd.DataFrame, **wanted: object) -> pd.Series:
    match = np.logical_and.reduce([table[key].eq(value).to_numpy() for key, value in wanted.items()])
    assert match.sum() == 1, wanted
    return table.loc[match].iloc[0]


def raw(results: Path, model: str, name: str, letter: str, what: str) -> np.ndarray:
    with h5py.File(results / "evaluations" / f"{model}.h5") as file:
        place = f"clean/{letter}/{what}" if name == "clean" else f"attacks/{name}/{letter}/{what}"
        return file[place][:].astype(np.float64)


# --- vulnerability.csv --------------------------------------------------------------------------------------------


def test_every_relative_vulnerability_follows_from_the_file(results: Path, table: pd.DataFrame) -> None:
    rows = table.loc[table["metric"].eq("relative_task_vulnerability")]
    assert len(rows) == len(table.loc[table["metric"].eq("adversarial_error")]) > 300
    for row in rows.itertuples():
        clean = raw(results, row.model, "clean", row.task, "error")
        attacked = raw(results, row.model, row.attack, row.task, "error")
        assert row.mean == pytest.approx(attacked.mean() / clean.mean() - 1, rel=1e-12)
        assert row.n == len(clean)


def test_mean_of_ratios_leaves_out_samples_without_error(results: Path, tmp_path: Path) -> None:
    model, attack = "single-resnet18-d", "pgd.single.d.linf.8.25"
    shutil.copytree(results, tmp_path / "r")
    with h5py.File(tmp_path / "r/evaluations" / f"{model}.h5", "a") as file:
        file["clean/d/error"][3] = 0
    table = vulnerability.build_table(tmp_path / "r/evaluations", results / "plan.csv", aggregation="mean_of_ratios")
    clean, attacked = (raw(tmp_path / "r", model, name, "d", "error") for name in ("clean", attack))
    ratios = (np.delete(attacked, 3) - np.delete(clean, 3)) / np.delete(clean, 3)
    row = one(table, model=model, attack=attack, task="d", metric="relative_task_vulnerability")
    assert row["n"] == len(clean) - 1
    assert row["mean"] == pytest.approx(ratios.mean(), rel=1e-12)
    assert row["standard_error"] == pytest.approx(scipy_stats.sem(ratios), rel=1e-12)


def test_adversarial_vulnerability_is_definition_1(results: Path, table: pd.DataFrame) -> None:
    name = "pgd.total.sd_Dn_E.linf.8.25"
    change = sum(raw(results, FIVE, name, x, "loss") - raw(results, FIVE, "clean", x, "loss") for x in "sdDnE")
    row = one(table, model=FIVE, attack=name, metric="adversarial_vulnerability")
    assert row["task"] == "sdDnE"
    assert row["mean"] == pytest.approx(np.abs(change).mean(), rel=1e-12)
    assert row["standard_error"] == pytest.approx(scipy_stats.sem(np.abs(change)), rel=1e-12)
    weighted = one(table, model=FIVE, attack=name, metric="adversarial_vulnerability_weighted")
    assert weighted["mean"] == pytest.approx(row["mean"] / 5, rel=1e-12)


def test_released_vulnerability_takes_all_tasks_and_the_mean_first(results: Path) -> None:
    table = vulnerability.build_table(
        results / "evaluations", results / "plan.csv", adversarial_vulnerability="released"
    )
    model, name = "combinations-resnet18-sd", "pgd.single.d.linf.8.25"
    change = sum(raw(results, model, name, x, "loss") - raw(results, model, "clean", x, "loss") for x in "sd")
    row = one(table, model=model, attack=name, metric="adversarial_vulnerability")
    assert row["task"] == "d"
    assert row["mean"] == pytest.approx(abs(change.mean()), rel=1e-12)
    weighted = one(table, model=model, attack=name, metric="adversarial_vulnerability_weighted")
    assert weighted["mean"] == pytest.approx(abs(change.mean()) / 2, rel=1e-12)


def test_marginal_vulnerabilities_of_a_chain_add_up(results: Path, table: pd.DataFrame) -> None:
    rows = table.loc[table["model"].eq(FIVE)]
    for chain in synthetic.CHAINS:
        total = one(rows, attacked=chain[0], metric="adversarial_vulnerability", balancer="single")["mean"]
        for length in range(2, 6):
            attacked = "".join(x for x in TASKS if x in chain[:length])
            step = one(
                rows,
                attacked=attacked,
                family="pgd",
                balancer="total",
                metric="marginal_vulnerability",
                task=chain[length - 1],
            )
            total += step["mean"]
        final = one(rows, attacked="sdDnE", family="pgd", balancer="total", metric="adversarial_vulnerability")
        assert total == pytest.approx(final["mean"], rel=1e-9)


def test_marginal_error_is_that_of_paired_samples(results: Path, table: pd.DataFrame) -> None:
    def joint(name: str, letters: str) -> np.ndarray:
        return np.abs(
            sum(raw(results, FIVE, name, x, "loss") - raw(results, FIVE, "clean", x, "loss") for x in letters)
        )

    difference = joint("pgd.total._D_E.linf.8.25", "DE") - joint("pgd.single._D.linf.8.25", "D")
    row = one(table, model=FIVE, attacked="DE", metric="marginal_vulnerability", task="E")
    assert row["mean"] == pytest.approx(difference.mean(), rel=1e-9)
    assert row["standard_error"] == pytest.approx(scipy_stats.sem(difference), rel=1e-9)


def test_confusion_vulnerability_follows_from_summed_matrices(results: Path, table: pd.DataFrame) -> None:
    model, name = "combinations-resnet18-sn", "pgd.total.sn.linf.8.25"
    miou = {
        n: miou_from_confusion(raw(results, model, n, "s", "confusion").sum(axis=0), "labelled")
        for n in ("clean", name)
    }
    assert one(table, model=model, attack="clean", metric="miou")["mean"] == pytest.approx(miou["clean"])
    row = one(table, model=model, attack=name, metric="relative_task_vulnerability_confusion")
    assert row["mean"] == pytest.approx((1 - miou[name]) / (1 - miou["clean"]) - 1, rel=1e-12)


def test_processes_and_repetition_change_nothing(results: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    again = vulnerability.build_table(results / "evaluations", results / "plan.csv", processes=2)
    pd.testing.assert_frame_equal(table, again)
    write_table(table, tmp_path / "a.csv")
    back = read_table(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(table, back, check_dtype=False, rtol=0, atol=0)
    write_table(back, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    keys = table[["model", "attack", "task", "metric"]]
    assert not keys.duplicated().any()
    assert list(table["model"]) == sorted(table["model"])


def test_clean_rows_and_counts(results: Path, table: pd.DataFrame) -> None:
    clean = table.loc[table["attack"].eq("clean")]
    assert set(clean["metric"]) == {"clean_error", "clean_loss", "miou"}
    assert clean["epsilon"].isna().all()
    assert clean["steps"].isna().all()
    assert set(table["metric"]) == set(vulnerability.METRICS)
    assert set(table["n"]) == {24}
    assert set(table["model"]) == set(plan.read_plan(results / "plan.csv")["id"])
    largest = table.loc[table["metric"].eq("largest_perturbation")]
    assert np.allclose(largest["mean"] / largest["epsilon"], 1, atol=1e-6)


def test_samples_without_a_label_do_not_count(results: Path, tmp_path: Path) -> None:
    source = results / "evaluations" / "single-resnet18-s.h5"
    target = tmp_path / source.name
    shutil.copy(source, target)
    with h5py.File(target, "a") as file:
        for group in (file["clean/s"], *(attack["s"] for attack in file["attacks"].values())):
            group["error"][5] = np.nan
            group["confusion"][5] = 0
    (tmp_path / "plan.csv").write_text(_plan_of(results, "single-resnet18-s"))
    table = vulnerability.build_table(tmp_path, tmp_path / "plan.csv")
    row = one(table, attack="clean", metric="clean_error")
    assert row["n"] == 23
    assert row["mean"] == pytest.approx(np.delete(raw(results, "single-resnet18-s", "clean", "s", "error"), 5).mean())


def _plan_of(results: Path, model: str) -> str:
    head, *lines = (results / "plan.csv").read_text().splitlines()
    return "\n".join([head, *(line for line in lines if line.startswith(f"{model},"))]) + "\n"


# --- broken files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "truncated"),
        (lambda path: path.write_bytes(b"not hdf5"), "truncated or foreign"),
        (lambda path: _edit(path, lambda file: file.attrs.modify("format", "other")), "not an evaluation"),
        (lambda path: _edit(path, lambda file: file.__delitem__("clean/d")), "incomplete"),
        (
            lambda path: _edit(path, lambda file: file.__delitem__("attacks/noise.total.d.linf.8.1")),
            "attacks are not those",
        ),
        (
            lambda path: _edit(path, lambda file: file["clean/d/loss"].write_direct(np.full(24, np.nan, np.float32))),
            "finite",
        ),
        (lambda path: _edit(path, lambda file: file.attrs.modify("id", "another")), "the plan says"),
    ],
)
def test_broken_evaluations_are_named_in_one_line(results: Path, tmp_path: Path, damage, words: str) -> None:
    path = tmp_path / "single-resnet18-d.h5"
    shutil.copy(results / "evaluations" / path.name, path)
    damage(path)
    (tmp_path / "plan.csv").write_text(_plan_of(results, path.stem))
    with pytest.raises(BrokenFileError, match=words) as caught:
        vulnerability.build_table(tmp_path, tmp_path / "plan.csv")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _edit(path: Path, change) -> None:
    with h5py.File(path, "a") as file:
        change(file)


def test_absent_files_and_wrong_switches(results: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such evaluation"):
        vulnerability.build_table(tmp_path, results / "plan.csv")
    with pytest.raises(MissingDataError, match="no plan"):
        plan.read_plan(tmp_path / "plan.csv")
    with pytest.raises(ConfigError, match="ratio_of_means"):
        vulnerability.build_table(results / "evaluations", results / "plan.csv", aggregation="median")
    (tmp_path / "plan.csv").write_text("id,section\na,b\n")
    with pytest.raises(BrokenFileError, match="encoder"):
        plan.read_plan(tmp_path / "plan.csv")
    with pytest.raises(MissingDataError, match="no such table"):
        read_table(tmp_path / "absent.csv")


def test_per_sample_frame_has_every_number_once(results: Path) -> None:
    evaluation = records.read_evaluation(results / "evaluations" / "combinations-resnet18-sd.h5")
    frame = records.to_frame(evaluation)
    assert len(frame) == (1 + len(evaluation.attacks)) * 2 * 24
    assert not frame.duplicated(["attack", "task", "sample"]).any()
    chosen = frame.loc[frame["attack"].eq("clean") & frame["task"].eq("d"), "error"]
    assert np.array_equal(chosen, raw(results, evaluation.id, "clean", "d", "error"))


# --- statistics ---------------------------------------------------------------------------------------------------


def test_standard_error_of_a_ratio_covers_as_often_as_it_should() -> None:
    rng = np.random.default_rng(3)
    before = rng.gamma(4, 1, size=(4000, 40))
    after = before * rng.gamma(9, 1, size=before.shape)
    found = [stats.relative_increase_of_means(b, a) for b, a in zip(before, after, strict=True)]
    spread = np.std([f.value for f in found])
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.06)


def test_standard_errors_of_miou_agree_with_resampling() -> None:
    rng = np.random.default_rng(0)
    error = rng.uniform(20, 60, 80)
    clean = synthetic._confusions(error, 80, rng).astype(np.int64)
    attacked = synthetic._confusions(error * 1.5, 80, rng).astype(np.int64)
    for convention in ("labelled", "all"):
        before, after = segmentation.miou(clean, convention), segmentation.miou(attacked, convention)
        draws = rng.integers(80, size=(600, 80))
        first = miou_from_confusion(np.array([clean[d].sum(axis=0) for d in draws]), convention)
        second = miou_from_confusion(np.array([attacked[d].sum(axis=0) for d in draws]), convention)
        assert before.estimate.error == pytest.approx(first.std(), rel=0.12)
        relative = segmentation.relative_increase(before, after)
        assert relative.error == pytest.approx(((1 - second) / (1 - first)).std(), rel=0.12)
        assert before.influence.sum() == pytest.approx(0, abs=1e-12)


def test_correlations_agree_with_scipy() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    reference = scipy_stats.pearsonr(x, y)
    ours = stats.pearson(x, y)
    assert ours.value == pytest.approx(reference.statistic)
    assert ours.p_value == pytest.approx(reference.pvalue)
    assert (ours.low, ours.high) == pytest.approx(tuple(reference.confidence_interval()))
    rank = scipy_stats.spearmanr(x, y)
    assert stats.spearman(x, y)[0] == pytest.approx(rank.statistic)
    boot = stats.pearson_bootstrap(x, y, seed=5)
    assert boot == stats.pearson_bootstrap(x, y, seed=5)
    assert boot.low < ours.value < boot.high


def test_exact_spearman_p_value() -> None:
    found = stats.spearman([1, 2, 3, 4, 5], [10, 20, 30, 40, 50])
    assert found.p_value == pytest.approx(2 / math.factorial(5))  # only the two monotone orders are as far


def test_partial_correlation_pays_for_its_covariates() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(["a", "b", "c"], 8)
    hits = 0
    for _ in range(800):
        x, y = rng.normal(size=24), rng.normal(size=24)
        hits += (
            stats.pearson(stats.centre_within(x, groups), stats.centre_within(y, groups), covariates=2).p_value < 0.1
        )
    assert hits / 800 == pytest.approx(0.1, abs=0.035)


@pytest.mark.parametrize(
    ("x", "y", "words"), [([1, 2, 3], [1, 2, 3], "too few"), ([1, 1, 1, 1], [1, 2, 3, 4], "proxy does not vary")]
)
def test_no_correlation_has_a_reason(x: list[float], y: list[float], words: str) -> None:
    for found in (stats.pearson(x, y), stats.spearman(x, y), stats.pearson_bootstrap(x, y, 0)):
        assert math.isnan(found.value)
        assert words in found.note


# --- surrogates against the published tables ----------------------------------------------------------------------


def published_r(proxy: tuple[str, str], target: tuple[str, str], scope: str, statistic: str = "pearson") -> float:
    found = surrogates.correlate(surrogates.published_cells(*proxy), surrogates.published_cells(*target))
    return float(one(found, scope=scope, statistic=statistic)["value"])


def test_published_surrogates_recomputed() -> None:
    r18, r50, r152 = (("resnet18", "single"), ("resnet50", "single"), ("resnet152", "single"))
    assert published_r(r18, r50, "pooled") == pytest.approx(0.914, abs=5e-4)
    assert published_r(("resnet18", "multi"), ("resnet50", "multi"), "pooled") == pytest.approx(0.939, abs=5e-4)
    assert published_r(r18, r50, "pooled", "pearson_of_row_means") == pytest.approx(0.915, abs=5e-4)
    assert published_r(r18, r50, "within") == pytest.approx(0.41, abs=5e-3)
    assert published_r(r18, r152, "within") == pytest.approx(-0.13, abs=5e-3)
    assert published_r(r50, r152, "within") == pytest.approx(0.02, abs=5e-3)
    for letter, value in zip("sdDnE", (0.46, 0.70, -0.40, 0.10, 0.50), strict=True):
        assert published_r(r18, r50, letter, "spearman") == pytest.approx(value, abs=5e-3)
    clean = ("resnet18", "clean_error")
    assert published_r(clean, r18, "pooled") == pytest.approx(0.20, abs=5e-3)
    assert published_r(clean, ("resnet18", "single_error"), "pooled") == pytest.approx(0.967, abs=5e-4)
    assert published_r(clean, r18, "within") == pytest.approx(-0.79, abs=5e-3)
    assert published_r(r18, r50, "pooled", "share_between_proxy") == pytest.approx(0.91, abs=5e-3)
    assert published_r(r18, r50, "pooled", "share_between_target") == pytest.approx(0.95, abs=6e-3)


def test_surrogates_of_a_study(cells: pd.DataFrame) -> None:
    found = surrogates.build_table(cells)
    assert list(found.columns) == list(surrogates.COLUMNS)
    names = set(zip(found["surrogate"], found["proxy"], found["target"], strict=True))
    assert ("early epochs", "resnet18 4 epochs", "resnet18 12 epochs") in names
    assert ("smaller encoder", "resnet18", "resnet50") in names
    assert ("clean performance", "resnet50 clean error", "resnet50 adversarial error") in names
    assert len(names) == 6
    assert set(found["attack"]) == {"single", "multi"}
    assert set(found["n"]) == {25, 5}
    pd.testing.assert_frame_equal(found, surrogates.build_table(cells))
    third = surrogates.table_3(found)
    assert one(third, surrogate="smaller encoder", attack="single")["published"] == 0.94
    assert not third.loc[third["proxy"].eq("resnet50 clean error"), "published"].notna().any()


def test_surrogates_say_why_there_is_no_number(cells: pd.DataFrame) -> None:
    few = cells.loc[cells["main"].eq("s") & cells["size"].eq(1)]
    found = surrogates.build_table(few)
    assert found["value"].isna().all()
    assert found["note"].ne("").all()
    negative = surrogates.published_cells("resnet18", "single").assign(value=lambda t: -t["value"])
    row = one(surrogates.correlate(negative, negative), scope="within", statistic="pearson")
    assert math.isnan(row["value"])
    assert "logarithm" in row["note"]
    flat = surrogates.published_cells("resnet18", "single")
    flat["value"] = flat.groupby("main")["value"].transform("mean")
    row = one(
        surrogates.correlate(flat, surrogates.published_cells("resnet50", "single")),
        scope="within",
        statistic="pearson",
    )
    assert "does not vary within" in row["note"]
    assert surrogates.build_table(cells.iloc[:0]).empty


# --- tables -------------------------------------------------------------------------------------------------------


def test_one_model_serves_both_cells_of_a_pair(table: pd.DataFrame, cells: pd.DataFrame) -> None:
    model = "combinations-resnet18-s_D"
    for main, auxiliary in ("sD", "Ds"):
        cell = one(cells, encoder="resnet18", epochs=12, main=main, auxiliary=auxiliary, quantity="multi")
        row = one(table, model=model, attacked="sD", family="pgd", task=main, metric="relative_task_vulnerability")
        assert (cell["model"], cell["value"]) == (model, row["mean"])
        single = one(cells, encoder="resnet18", epochs=12, main=main, auxiliary=auxiliary, quantity="single")
        row = one(table, model=model, attacked=main, family="pgd", task=main, metric="relative_task_vulnerability")
        assert single["value"] == row["mean"]


def test_ordered_models_serve_their_own_cells() -> None:
    rows = [synthetic.row("s1", "resnet18", letters, 9) for letters in ("s", "d", "sd", "ds")]
    rows += [synthetic.row("s4", "resnet18", "sd", 9, weights="1;0.01"), synthetic.row("s4b", "resnet18", "s", 9)]
    found = plan.cells(pd.DataFrame(rows))
    uniform = found.loc[found["weighting"].eq("uniform")].set_index(["main", "auxiliary"])["model"].to_dict()
    assert uniform == {
        ("s", ""): "s1-resnet18-s",
        ("d", ""): "s1-resnet18-d",
        ("s", "d"): "s1-resnet18-sd",
        ("d", "s"): "s1-resnet18-ds",
    }
    weighted = found.loc[found["weighting"].eq("weighted")]
    assert list(zip(weighted["main"], weighted["auxiliary"], strict=True)) == [("s", "d")]


def test_tables_have_the_papers_shape(cells: pd.DataFrame) -> None:
    pairs = tables.pairs_table(cells)
    assert set(pairs["encoder"]) == {"resnet18", "resnet50"}
    assert len(pairs) == 2 * 3 * 25
    assert pairs["published"].notna().all()
    for block in ("clean", "single", "multi"):
        grid = tables.wide(pairs.loc[pairs["encoder"].eq("resnet50")], block)
        assert list(grid.index) == list(grid.columns) == list("sdDnE")
    multi, single = (tables.wide(pairs.loc[pairs["encoder"].eq("resnet18")], b) for b in ("multi", "single"))
    assert np.array_equal(np.diag(multi), np.diag(single))
    first = tables.table_1(cells)
    assert np.isnan(np.diag(tables.wide(first, "multi"))).all()
    assert tables.wide(first, "multi", "published").loc["n", "d"] == 9.4
    assert tables.wide(first, "single", "published").loc["E", "E"] == 22.57


def test_published_clean_errors_are_put_in_our_units() -> None:
    said = tables._supplement()
    normals = one(said, encoder="resnet18", block="clean", main="n", auxiliary="n")
    assert normals["published"] == pytest.approx(5456 / (65536 * 3))
    assert one(said, encoder="resnet18", block="clean", main="d", auxiliary="d")["published"] == pytest.approx(
        97.5 / 65536
    )
    assert one(said, encoder="resnet18", block="clean", main="s", auxiliary="s")["published"] == 50.5
    assert one(said, encoder="resnet18", block="single", main="d", auxiliary="d")["published"] == 7.87


def test_combinations_of_any_size_are_ranked(tmp_path: Path) -> None:
    study = synthetic.Study(tasks="sdnE", encoders=("resnet18",), early=False, five=False, sizes=(1, 2, 3), samples=6)
    synthetic.write_study(tmp_path, study)
    table = vulnerability.build_table(tmp_path / "evaluations", tmp_path / "plan.csv")
    found = build.build_tables(table, plan.read_plan(tmp_path / "plan.csv"), tables.choose_attack(table), draws=50)
    assert set(found) == set(build.NAMES)
    sets = found["combinations"]
    assert len(sets) == 4 * (1 + 3 + 3)
    for _, part in sets.groupby("main"):
        assert sorted(part["rank_single"]) == list(range(1, 8))
        assert part.sort_values("rank_multi")["multi"].is_monotonic_increasing
    assert set(sets.loc[sets["size"].eq(3) & sets["main"].eq("n"), "auxiliary"]) == {"sd", "sE", "dE"}
    for name, frame in found.items():
        write_table(frame, tmp_path / f"{name}.csv")
        pd.testing.assert_frame_equal(frame, read_table(tmp_path / f"{name}.csv"), check_dtype=False, rtol=0, atol=0)


def test_attack_must_have_been_run(table: pd.DataFrame) -> None:
    choice = tables.choose_attack(table)
    assert (choice.family, choice.norm, choice.steps) == ("pgd", "linf", 25)
    with pytest.raises(ConfigError, match=r"no attack 'pgd l2.*pgd linf 0\.0313725 25"):
        tables.choose_attack(table, norm="l2")


def test_confusion_can_stand_in_for_segmentation(results: Path, table: pd.DataFrame) -> None:
    frame = plan.read_plan(results / "plan.csv")
    whole = tables.cells(table, frame, tables.choose_attack(table), segmentation="confusion")
    cell = one(whole, model="single-resnet18-s", quantity="clean_error")
    miou = one(table, model="single-resnet18-s", attack="clean", metric="miou")["mean"]
    assert cell["value"] == pytest.approx(100 * (1 - miou))
    plain = tables.cells(table, frame, tables.choose_attack(table))
    others = [t.loc[t["main"].ne("s")].reset_index(drop=True) for t in (whole, plain)]
    key = ["model", "main", "quantity"]
    pd.testing.assert_frame_equal(*(o.sort_values(key).reset_index(drop=True) for o in others))


# --- constant predictors ------------------------------------------------------------------------------------------


def test_constant_predictors_by_hand(tmp_path: Path) -> None:
    splits = {
        split: [_sample(seed) for seed in seeds] for split, seeds in {"train": range(5), "test": range(5, 8)}.items()
    }
    for split, samples in splits.items():
        named = ((f"{split}/{i}", sample) for i, sample in enumerate(samples))
        classes = ["unlabelled", "a", "b", "c"]
        facts = {"dataset": "made-up", "split": split, "classes": classes, "settings": {}, "code": "0"}
        write_split(tmp_path / f"{split}.h5", named, count=len(samples), size=(32, 32), **facts)
    found = baselines.build_table(tmp_path / "train.h5", tmp_path / "test.h5", "sdA")
    valid = {split: np.array([s["d"] > 0 for s in samples]) for split, samples in splits.items()}
    depth = {k: np.log1p(np.array([s["d"] for s in v]) * 512.0) / np.log(65536) for k, v in splits.items()}
    constant = depth["train"][valid["train"]].mean()
    errors = [((d[v] - constant) ** 2).mean() for d, v in zip(depth["test"], valid["test"], strict=True)]
    assert one(found, task="d")["error"] == pytest.approx(np.mean(errors), rel=1e-3)
    image = {k: np.array([s["rgb"] for s in v]) / 127.5 - 1 for k, v in splits.items()}
    mean = image["train"].mean(axis=(0, 2, 3))
    assert one(found, task="A")["error"] == pytest.approx(((image["test"] - mean[:, None, None]) ** 2).mean(), rel=1e-4)
    # class 2 is the most frequent labelled class; predicting it everywhere has IoU = its share of the labelled pixels
    labels = np.array([s["s"] for s in splits["test"]])
    share = [(x == 2).sum() / (x > 0).sum() / 3 for x in labels]
    assert one(found, predictor=baselines.majority("labelled"))["error"] == pytest.approx(100 * (1 - np.mean(share)))
    whole = (labels == 2).sum() / (labels > 0).sum() / 3
    assert one(found, predictor=baselines.majority("labelled", confusion=True))["error"] == pytest.approx(
        100 * (1 - whole)
    )
    assert (found["n"] == 3).all()
    assert (baselines.build_table(tmp_path / "train.h5", tmp_path / "test.h5", "d", samples=2)["n"] == 2).all()


def _sample(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    maps = {letter: rng.random((32, 32)).astype(np.float32) * 0.01 for letter in "kKeEr"}
    depth = (1 + rng.random((32, 32)) * 5).astype(np.float32)
    depth[:4, :8] = 0
    normals = np.zeros((3, 32, 32), np.float32)
    normals[2] = -1
    return {
        **maps,
        "rgb": rng.integers(0, 256, (3, 32, 32), dtype=np.uint8),
        "s": rng.choice(4, p=[0.4, 0.15, 0.3, 0.15], size=(32, 32)).astype(np.uint8),
        "d": depth,
        "D": depth * np.float32(1.1),
        "n": normals,
        "p": np.zeros((2, 32, 32), np.float32),
    }


def test_published_tables_load_whole() -> None:
    assert len(published.load("ghamizi_supplement_tables_2_to_6")) == 375
    assert {"ghamizi_table_1", "ghamizi_table_2", "ghamizi_table_3"} <= set(published.names())
    with pytest.raises(MissingDataError, match="ghamizi_table_1"):
        published.load("ghamizi_table_9")
