"""Vulnerabilities, broken files and statistics against raw HDF5, scipy and simulation."""

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
from headstrong.analysis import plan, records, segmentation, stats, vulnerability
from headstrong.analysis.files import read_table, write_table
from headstrong.confusion import miou_from_confusion
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.tasks import TASKS
from synthetic import one as the

FIVE = "five-resnet18-sd_Dn_E"


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
    row = the(table, model=model, attack=attack, task="d", metric="relative_task_vulnerability")
    assert row["n"] == len(clean) - 1
    assert row["mean"] == pytest.approx(ratios.mean(), rel=1e-12)
    assert row["standard_error"] == pytest.approx(scipy_stats.sem(ratios), rel=1e-12)


def test_adversarial_vulnerability_is_definition_1(results: Path, table: pd.DataFrame) -> None:
    name = "pgd.total.sd_Dn_E.linf.8.25"
    change = sum(raw(results, FIVE, name, x, "loss") - raw(results, FIVE, "clean", x, "loss") for x in "sdDnE")
    row = the(table, model=FIVE, attack=name, metric="adversarial_vulnerability")
    assert row["task"] == "sdDnE"
    assert row["mean"] == pytest.approx(np.abs(change).mean(), rel=1e-12)
    assert row["standard_error"] == pytest.approx(scipy_stats.sem(np.abs(change)), rel=1e-12)
    weighted = the(table, model=FIVE, attack=name, metric="adversarial_vulnerability_weighted")
    assert weighted["mean"] == pytest.approx(row["mean"] / 5, rel=1e-12)


def test_released_vulnerability_takes_all_tasks_and_the_mean_first(results: Path) -> None:
    table = vulnerability.build_table(
        results / "evaluations", results / "plan.csv", adversarial_vulnerability="released"
    )
    model, name = "combinations-resnet18-sd", "pgd.single.d.linf.8.25"
    change = sum(raw(results, model, name, x, "loss") - raw(results, model, "clean", x, "loss") for x in "sd")
    row = the(table, model=model, attack=name, metric="adversarial_vulnerability")
    assert row["task"] == "d"
    assert row["mean"] == pytest.approx(abs(change.mean()), rel=1e-12)
    weighted = the(table, model=model, attack=name, metric="adversarial_vulnerability_weighted")
    assert weighted["mean"] == pytest.approx(abs(change.mean()) / 2, rel=1e-12)


def test_marginal_vulnerabilities_of_a_chain_add_up(results: Path, table: pd.DataFrame) -> None:
    rows = table.loc[table["model"].eq(FIVE)]
    for chain in synthetic.CHAINS:
        total = the(rows, attacked=chain[0], metric="adversarial_vulnerability", balancer="single")["mean"]
        for length in range(2, 6):
            attacked = "".join(x for x in TASKS if x in chain[:length])
            step = the(
                rows,
                attacked=attacked,
                family="pgd",
                balancer="total",
                metric="marginal_vulnerability",
                task=chain[length - 1],
            )
            total += step["mean"]
        final = the(rows, attacked="sdDnE", family="pgd", balancer="total", metric="adversarial_vulnerability")
        assert total == pytest.approx(final["mean"], rel=1e-9)


def test_marginal_error_is_that_of_paired_samples(results: Path, table: pd.DataFrame) -> None:
    def joint(name: str, letters: str) -> np.ndarray:
        return np.abs(
            sum(raw(results, FIVE, name, x, "loss") - raw(results, FIVE, "clean", x, "loss") for x in letters)
        )

    difference = joint("pgd.total._D_E.linf.8.25", "DE") - joint("pgd.single._D.linf.8.25", "D")
    row = the(table, model=FIVE, attacked="DE", metric="marginal_vulnerability", task="E")
    assert row["mean"] == pytest.approx(difference.mean(), rel=1e-9)
    assert row["standard_error"] == pytest.approx(scipy_stats.sem(difference), rel=1e-9)


def test_confusion_vulnerability_follows_from_summed_matrices(results: Path, table: pd.DataFrame) -> None:
    model, name = "combinations-resnet18-sn", "pgd.total.sn.linf.8.25"
    miou = {
        n: miou_from_confusion(raw(results, model, n, "s", "confusion").sum(axis=0), "labelled")
        for n in ("clean", name)
    }
    assert the(table, model=model, attack="clean", metric="miou")["mean"] == pytest.approx(miou["clean"])
    row = the(table, model=model, attack=name, metric="relative_task_vulnerability_confusion")
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
    row = the(table, attack="clean", metric="clean_error")
    assert row["n"] == 23
    assert row["mean"] == pytest.approx(np.delete(raw(results, "single-resnet18-s", "clean", "s", "error"), 5).mean())


def _plan_of(results: Path, model: str) -> str:
    head, *lines = (results / "plan.csv").read_text().splitlines()
    return "\n".join([head, *(line for line in lines if line.startswith(f"{model},"))]) + "\n"


def test_released_baseline_is_the_start_of_the_attack(tmp_path: Path) -> None:
    jobs = [synthetic.attack("pgd", "total", "nsd"), synthetic.attack("noise", "total", "nsd", "noise", 1)]
    path, plan_file = synthetic.study_of_one(tmp_path / "start", jobs, baseline="start")
    table = vulnerability.build_table(path.parent, plan_file)
    same, same_plan = synthetic.study_of_one(tmp_path / "clean", jobs)
    usual = vulnerability.build_table(same.parent, same_plan)
    relative = table["metric"].str.startswith("relative_task_vulnerability")
    pd.testing.assert_frame_equal(table.loc[~relative], usual.loc[~relative])
    assert (table.loc[relative, "mean"] != usual.loc[relative, "mean"]).all()
    with h5py.File(path) as file:
        for job in jobs:
            for letter in "nsd":
                start = file[f"attacks/{job.name}/start/{letter}/error"][:].astype(float)
                after = file[f"attacks/{job.name}/{letter}/error"][:].astype(float)
                row = the(table, attack=job.name, task=letter, metric="relative_task_vulnerability")
                assert row["mean"] == pytest.approx(after.mean() / start.mean() - 1, rel=1e-12)
            before, after = (
                1 - float(miou_from_confusion(file[place][:].sum(axis=0), "labelled"))
                for place in (f"attacks/{job.name}/start/s/confusion", f"attacks/{job.name}/s/confusion")
            )
            row = the(table, attack=job.name, metric="relative_task_vulnerability_confusion")
            assert row["mean"] == pytest.approx(after / before - 1, rel=1e-12)


def test_switches_of_a_model_overrule_the_study(tmp_path: Path) -> None:
    jobs = [synthetic.attack("pgd", "single", letter) for letter in "nsd"]
    own = "adversarial_vulnerability=released;aggregation=mean_of_ratios;start=corner"
    path, plan_file = synthetic.study_of_one(tmp_path / "own", jobs, switches=own)
    table = vulnerability.build_table(path.parent, plan_file)
    same, same_plan = synthetic.study_of_one(tmp_path / "study", jobs)
    everywhere = {"aggregation": "mean_of_ratios", "adversarial_vulnerability": "released"}
    pd.testing.assert_frame_equal(table, vulnerability.build_table(same.parent, same_plan, **everywhere))
    usual = vulnerability.build_table(same.parent, same_plan)
    changed = table.loc[table["mean"].ne(usual["mean"]), "metric"]
    assert set(changed) >= {"relative_task_vulnerability", "adversarial_vulnerability"}
    assert not changed.isin(["relative_performance", "adversarial_error", "clean_error"]).any()


def test_an_unknown_switch_of_the_plan_is_one_line(tmp_path: Path) -> None:
    path, plan_file = synthetic.study_of_one(
        tmp_path, [synthetic.attack("pgd", "single", "n")], switches="aggregation=median"
    )
    with pytest.raises(BrokenFileError, match="a-resnet18-nsd, switches: ") as caught:
        vulnerability.build_table(path.parent, plan_file)
    assert str(caught.value).startswith(str(plan_file))
    assert str(caught.value).endswith("write the plan again")
    assert "'median' is not known" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- tables on disk --------------------------------------------------------------------------------------------------


def test_tables_say_in_text_numbers_and_truth_what_they_hold(tmp_path: Path) -> None:
    rows = [
        {"added": "n", "measured": 0.5, "holds": True, "switch": "a=b;c=d", "base": "x-n", "tasks": "sd"},
        {"added": "E", "measured": -1.0, "holds": False, "switch": "", "base": "", "tasks": "n"},
    ]
    frame = pd.DataFrame(rows)
    write_table(frame, tmp_path / "marginal.csv")
    pd.testing.assert_frame_equal(frame, read_table(tmp_path / "marginal.csv"), check_dtype=False)
    assert read_table(tmp_path / "marginal.csv")["holds"].dtype == bool
    (tmp_path / "marginal.csv").write_text("holds\nperhaps\n")
    with pytest.raises(BrokenFileError, match="not a table"):
        read_table(tmp_path / "marginal.csv")


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
