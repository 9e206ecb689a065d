"""Relative performance against plain loops over the file, and its standard errors against theory and repetition."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import synthetic
from headstrong.analysis import checks, performance, stats, vulnerability
from headstrong.analysis.performance import Reference
from headstrong.analysis.records import Evaluation, TaskRecord, read_evaluation
from headstrong.confusion import miou_from_confusion
from headstrong.jobs import AttackJob
from synthetic import one as the

TASKS = "nsdE"
TOTAL, SINGLE = "pgd.total.nsd_E.linf.8.25", "pgd.single._E.linf.8.25"
HIGHER = {"within_11.25", "within_22.5", "within_30", "within_1.25", "within_1.25^2", "within_1.25^3"}


def attacks() -> list[AttackJob]:
    return [synthetic.attack("pgd", "total", TASKS), synthetic.attack("pgd", "single", "E")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("performance")
    specs = [synthetic.row("a", "resnet18", TASKS, 9)]
    wanted = synthetic.Study(encoders=(), sizes=(), five=False, early=False, specs=specs, samples=15)
    synthetic.write_study(folder, wanted)
    path = folder / "evaluations" / f"{specs[0]['id']}.h5"
    path.unlink()
    synthetic.write_evaluation(path, str(specs[0]["id"]), TASKS, attacks(), specs[0], wanted)
    return folder


@pytest.fixture(scope="module")
def path(study: Path) -> Path:
    return next((study / "evaluations").iterdir())


@pytest.fixture(scope="module")
def evaluation(path: Path) -> Evaluation:
    return read_evaluation(path)


def performance_by_hand(path: Path, attack: str, letter: str, rows: list[int] | None = None) -> float:
    """r_t with plain loops over the file; rows: the samples, some of them perhaps twice."""
    with h5py.File(path) as file:
        before, after = file["clean"][letter], file["attacks"][attack][letter]
        count = len(file["index"])
        rows = list(range(count)) if rows is None else rows
        if letter == "s":
            pairs = list(zip(of_segmentation(before, rows), of_segmentation(after, rows), strict=True))
            changes = [(v - b) / b for b, v in pairs]
        else:
            changes = []
            for name in before["measures"]:
                b = sum(float(before[f"measures/{name}"][row]) for row in rows) / len(rows)
                v = sum(float(after[f"measures/{name}"][row]) for row in rows) / len(rows)
                changes.append((v - b) / b * (1 if name in HIGHER else -1))
        return sum(changes) / len(changes)


def of_segmentation(group: h5py.Group, rows: list[int]) -> tuple[float, float]:
    """mIoU and pixel accuracy over labelled pixels, class by class."""
    table = np.sum([group["confusion"][row].astype(int) for row in rows], axis=0)
    shares = []
    right = counted = 0
    for true in range(1, len(table)):
        hit, wrong = table[true, true], sum(table[other, true] for other in range(1, len(table)) if other != true)
        union = sum(table[true]) + wrong
        right, counted = right + hit, counted + sum(table[true])
        if union:
            shares.append(hit / union)
    return sum(shares) / len(shares), right / counted


def loss_change_by_hand(path: Path, attack: str, letter: str, rows: list[int] | None = None) -> float:
    with h5py.File(path) as file:
        before, after = file[f"clean/{letter}/loss"][:], file[f"attacks/{attack}/{letter}/loss"][:]
    rows = list(range(len(before))) if rows is None else rows
    b, v = (sum(float(values[row]) for row in rows) / len(rows) for values in (before, after))
    return (v - b) / b


# --- the metric ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [TOTAL, SINGLE])
def test_relative_performance_follows_from_the_file(path: Path, evaluation: Evaluation, attack: str) -> None:
    change = Reference.of(evaluation, draws=0).change(evaluation.attacks[attack])
    expected = {letter: performance_by_hand(path, attack, letter) for letter in TASKS}
    for letter in TASKS:
        assert change.performance_of(letter)[0] == pytest.approx(expected[letter], rel=1e-10)
        assert change.loss_of(letter)[0] == pytest.approx(loss_change_by_hand(path, attack, letter), rel=1e-10)
        assert change.performance_of(letter)[0] < 0 < change.loss_of(letter)[0]
    assert change.performance_of("")[0] == pytest.approx(sum(expected.values()) / 4, rel=1e-10)
    losses = [loss_change_by_hand(path, attack, letter) for letter in TASKS]
    assert change.loss_of("")[0] == pytest.approx(sum(losses) / 4, rel=1e-10)


def test_resamples_are_samples_taken_again(path: Path, evaluation: Evaluation) -> None:
    reference = Reference.of(evaluation, seed=4, draws=5)
    change = reference.change(evaluation.attacks[TOTAL])
    assert reference.weights.shape == (6, 15)
    for number, weights in enumerate(reference.weights):
        rows = [row for row, times in enumerate(weights) for _ in range(int(times))]
        assert len(rows) == 15
        found = []
        for letter in TASKS:
            found.append(performance_by_hand(path, TOTAL, letter, rows))
            assert change.performance_of(letter)[number] == pytest.approx(found[-1], rel=1e-10)
            by_hand = loss_change_by_hand(path, TOTAL, letter, rows)
            assert change.loss_of(letter)[number] == pytest.approx(by_hand, rel=1e-10)
        assert change.performance_of("")[number] == pytest.approx(sum(found) / 4, rel=1e-10)


def test_no_change_is_zero_and_the_sign_says_better_or_worse(evaluation: Evaluation) -> None:
    reference = Reference.of(evaluation, draws=0)
    attack = evaluation.attacks[TOTAL]
    same = reference.change(dataclasses.replace(attack, tasks=evaluation.clean))
    assert same.performance_of("")[0] == same.loss_of("")[0] == 0
    for name, values in evaluation.clean["d"].measures.items():
        doubled = dataclasses.replace(
            evaluation.clean["d"], measures={**evaluation.clean["d"].measures, name: 2 * values}
        )
        change = reference.change(dataclasses.replace(attack, tasks={**evaluation.clean, "d": doubled}))
        assert change.performance_of("d")[0] == pytest.approx((1 if name in HIGHER else -1) / 5, rel=1e-12)


@pytest.mark.parametrize("convention", ["labelled", "all"])
def test_segmentation_measures_are_those_of_the_summed_matrix(convention: str) -> None:
    rng = np.random.default_rng(5)
    confusion = rng.integers(0, 40, size=(9, 6, 6))
    confusion[:, :, 4] = confusion[:, 4, :] = 0  # a class that does not occur
    weights = stats.resamples(9, 7, 2)
    found = performance.segmentation_measures(confusion, weights, convention)
    for row, counts in enumerate(weights):
        summed = np.einsum("n,nij->ij", counts.astype(int), confusion)
        assert found["miou"][row] == pytest.approx(float(miou_from_confusion(summed, convention)), rel=1e-12)
        kept = summed[1:] if convention == "labelled" else summed
        right = np.trace(summed) - (summed[0, 0] if convention == "labelled" else 0)
        assert found["pixel_accuracy"][row] == pytest.approx(right / kept.sum(), rel=1e-12)


def test_a_class_that_is_always_missed_counts() -> None:
    # the published code drops it, and would say 1
    confusion = np.array([[[0, 0, 0], [0, 50, 0], [0, 50, 0]]])
    found = performance.segmentation_measures(confusion, np.ones((1, 1)), "labelled")
    assert found["miou"][0] == pytest.approx((0.5 + 0) / 2)
    assert found["pixel_accuracy"][0] == 0.5


def test_nothing_labelled_has_no_measure() -> None:
    confusion = np.zeros((2, 3, 3), dtype=np.int64)
    confusion[:, 0, :] = 7
    found = performance.segmentation_measures(confusion, np.ones((1, 2)), "labelled")
    assert np.isnan(found["miou"][0])
    assert np.isnan(found["pixel_accuracy"][0])


# --- what is left out ---------------------------------------------------------------------------------------------


def with_clean(evaluation: Evaluation, letter: str, **changes: object) -> Evaluation:
    record = dataclasses.replace(evaluation.clean[letter], **changes)
    return dataclasses.replace(evaluation, clean={**evaluation.clean, letter: record})


def test_samples_without_a_value_do_not_count(evaluation: Evaluation) -> None:
    holes = [2, 7]

    def punched(record: TaskRecord) -> TaskRecord:
        values = record.measures["absolute"].copy()
        values[holes] = np.nan
        error = record.error.copy()
        error[holes] = np.nan
        return dataclasses.replace(record, error=error, measures={"absolute": values})

    attack = evaluation.attacks[TOTAL]
    after = punched(attack.tasks["E"])
    less = with_clean(evaluation, "E", **vars(punched(evaluation.clean["E"])))
    change = Reference.of(less, draws=0).change(dataclasses.replace(attack, tasks={**attack.tasks, "E": after}))
    values = (record.measures["absolute"] for record in (evaluation.clean["E"], attack.tasks["E"]))
    b, v = (np.delete(value, holes).mean() for value in values)
    assert change.performance_of("E")[0] == pytest.approx(-(v - b) / b, rel=1e-12)
    assert change.count_of("E") == 13
    assert change.count_of("") == change.count_of("n") == 15


def test_a_measure_that_is_zero_on_clean_images_is_left_out_and_reported(evaluation: Evaluation) -> None:
    measures = {**evaluation.clean["n"].measures, "within_11.25": np.zeros(15)}
    less = with_clean(evaluation, "n", measures=measures)
    reference = Reference.of(less, draws=0)
    assert reference.undefined() == {"n": ("within_11.25",), "s": (), "d": (), "E": ()}
    found = reference.change(less.attacks[TOTAL]).performance_of("n")[0]
    before, after = less.clean["n"].measures, less.attacks[TOTAL].tasks["n"].measures
    changes = []
    for name in ("angle_mean", "angle_median", "within_22.5", "within_30"):
        b, v = before[name].mean(), after[name].mean()
        changes.append((v - b) / b * (1 if name in HIGHER else -1))
    assert found == pytest.approx(np.mean(changes), rel=1e-12)
    (flag,) = checks.flag_rows(less)
    assert (flag["task"], flag["flag"], flag["samples"]) == ("n", performance.UNDEFINED, 15)
    assert "within_11.25" in flag["message"]


def test_a_task_without_any_measure_has_no_number_nor_has_the_average(evaluation: Evaluation) -> None:
    less = with_clean(evaluation, "E", measures={"absolute": np.zeros(15)})
    change = Reference.of(less, draws=3).change(less.attacks[TOTAL])
    assert np.isnan(change.performance_of("E")).all()
    assert np.isnan(change.performance_of("")).all()
    assert np.isfinite(change.performance_of("d")).all()


# --- standard errors ----------------------------------------------------------------------------------------------


def test_standard_error_is_that_of_the_delta_method_for_one_measure() -> None:
    rng = np.random.default_rng(0)
    before = rng.gamma(9, 1, 300)
    after = before * rng.gamma(16, 1 / 8, 300)
    weights = stats.resamples(300, 3000, 1)
    clean, attacked = ({"absolute": performance.means(weights, values[:, None])[:, 0]} for values in (before, after))
    found = performance.estimate(performance.relative_performance(clean, attacked), 300)
    expected = stats.relative_increase_of_means(before, after)
    assert found.value == pytest.approx(-expected.value, rel=1e-12)
    assert found.error == pytest.approx(expected.error, rel=0.06)


def test_one_sample_or_one_resample_has_no_standard_error() -> None:
    assert math.isnan(performance.estimate(np.array([1.0, 2.0]), 5).error)
    assert math.isnan(performance.estimate(np.array([1.0, 2.0, 3.0]), 1).error)
    assert performance.estimate(np.array([1.0, 2.0, 4.0]), 2) == (1.0, math.sqrt(2), 2)


def test_attacks_on_one_model_share_their_resamples(evaluation: Evaluation) -> None:
    one, two = (Reference.of(evaluation, seed=3, draws=4) for _ in range(2))
    assert np.array_equal(one.weights, two.weights)
    other = Reference.of(dataclasses.replace(evaluation, id="other"), seed=3, draws=4)
    assert not np.array_equal(one.weights, other.weights)
    assert not np.array_equal(one.weights, Reference.of(evaluation, seed=4, draws=4).weights)


# --- its rows in vulnerability.csv --------------------------------------------------------------------------------


def test_rows_of_the_table(study: Path, path: Path) -> None:
    table = vulnerability.build_table(study / "evaluations", study / "plan.csv", draws=60, seed=2)
    for attack in (TOTAL, SINGLE):
        for letter in TASKS:
            row = the(table, attack=attack, metric="relative_performance", task=letter)
            assert row["mean"] == pytest.approx(performance_by_hand(path, attack, letter), rel=1e-10)
            assert row["standard_error"] > 0
            assert row["n"] == 15
            row = the(table, attack=attack, metric="relative_loss_change", task=letter)
            assert row["mean"] == pytest.approx(loss_change_by_hand(path, attack, letter), rel=1e-10)
        shown = table.loc[table["attack"].eq(attack)]
        for metric in ("relative_performance", "relative_loss_change"):
            mean = shown.loc[shown["metric"].eq(metric), "mean"].mean()
            assert the(shown, metric=f"average_{metric}", task="")["mean"] == pytest.approx(mean, rel=1e-12)
    again = vulnerability.build_table(study / "evaluations", study / "plan.csv", draws=60, seed=2)
    pd.testing.assert_frame_equal(table, again)
    other = vulnerability.build_table(study / "evaluations", study / "plan.csv", draws=60, seed=3)
    assert np.array_equal(table["mean"], other["mean"])
    drawn = table["metric"].str.contains("relative_performance|relative_loss_change")
    assert (table.loc[drawn, "standard_error"] != other.loc[drawn, "standard_error"]).all()
    assert table.loc[~drawn, "standard_error"].equals(other.loc[~drawn, "standard_error"])
