"""Theorem 2 on gradients that meet its assumptions, on gradients that do not, and on evaluation files."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

import synthetic
from headstrong.analysis import stats, theory
from headstrong.analysis.records import Evaluation, Gradients, read_evaluation
from headstrong.errors import MissingDataError
from synthetic import one as the

SUBSETS = ("s", "d", "n", "sd", "sn", "dn", "sdn")


def gradients_of(r: np.ndarray, tasks: str = "sdn") -> Gradients:
    """What an evaluation keeps of the gradients (N, T, P) of all tasks on all images."""
    count, size, _ = r.shape
    subsets = ["".join(c) for k in range(1, size + 1) for c in combinations(tasks, k)]
    sums = np.stack([r[:, [tasks.index(x) for x in subset]].sum(axis=1) for subset in subsets], axis=1)
    gram = np.array([[[r[k, i] @ r[k, j] for j in range(size)] for i in range(size)] for k in range(count)])
    mean = r.mean(axis=0)
    l1, l2 = np.abs(sums).sum(axis=-1), np.sqrt((sums**2).sum(axis=-1))
    return Gradients(tasks=tasks, subsets=tuple(subsets), gram=gram, mean_gram=mean @ mean.T, l1=l1, l2=l2)


def values(r: np.ndarray, subset: str, tasks: str = "sdn", draws: int = 3, seed: int = 0) -> dict[str, theory.Estimate]:
    return theory.quantities(gradients_of(r, tasks), subset, stats.resamples(len(r), draws, seed))


def correlated(rng: np.random.Generator, count: int, tasks: int = 3, pixels: int = 20) -> np.ndarray:
    """Gradients (count, tasks, pixels) with zero expectation and a correlation of 0.36 between tasks."""
    return rng.normal(size=(count, tasks, pixels)) * 0.8 + 0.6 * rng.normal(size=(count, 1, pixels))


def test_formula_is_the_mean_square_where_its_assumptions_hold() -> None:
    r = correlated(np.random.default_rng(0), 30)
    r /= np.sqrt((r**2).sum(axis=2).mean(axis=0))[None, :, None]  # E ||r_i||^2 = 1 for every task
    for subset in SUBSETS:
        chosen = r[:, ["sdn".index(x) for x in subset]]
        joint = np.array([np.linalg.norm(image.mean(axis=0)) for image in chosen])
        found = values(r, subset)
        assert found["theorem_2"].value == pytest.approx(math.sqrt((joint**2).mean()), rel=1e-12)
        assert found["root_mean_square"].value == pytest.approx(found["theorem_2"].value, rel=1e-12)
        assert found["mean_gradient"].value == pytest.approx(joint.mean(), rel=1e-12)
        assert found["mean_gradient"].value <= found["theorem_2"].value
        assert found["independent"].value == pytest.approx(1 / math.sqrt(len(subset)), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_orthogonal_gradients_of_one_length_fall_as_the_root_of_their_number(size: int) -> None:
    rng = np.random.default_rng(size)
    r = np.stack([7 * np.linalg.qr(rng.normal(size=(8, 8)))[0][:size] for _ in range(6)])
    found = values(r, "sdDnE"[:size], "sdDnE"[:size])
    for quantity in ("mean_gradient", "root_mean_square", "theorem_2", "independent"):
        assert found[quantity].value == pytest.approx(7 / math.sqrt(size), rel=1e-12)
        assert found[quantity].error == pytest.approx(0, abs=1e-12)
    if size == 1:
        assert not {"equal_variance", "mean_cosine"} & set(found)
    else:
        assert found["equal_variance"].value == pytest.approx(1)
        assert found["mean_cosine"].value == pytest.approx(0, abs=1e-12)


def test_equal_gradients_gain_nothing_from_more_tasks() -> None:
    r = np.repeat(np.random.default_rng(1).normal(size=(9, 1, 12)), 3, axis=1)
    alone, together = values(r, "s"), values(r, "sdn")
    assert together["theorem_2"].value == pytest.approx(alone["theorem_2"].value)
    assert together["mean_gradient"].value == pytest.approx(alone["mean_gradient"].value)
    assert together["mean_cosine"].value == pytest.approx(1)
    assert together["independent"].value == pytest.approx(alone["theorem_2"].value / math.sqrt(3))


def test_every_quantity_by_plain_loops_where_the_assumptions_fail() -> None:
    rng = np.random.default_rng(2)
    r = correlated(rng, 11) * np.array([5.0, 1.0, 0.3])[None, :, None] + rng.normal(size=(1, 3, 20))
    for subset in SUBSETS:
        chosen = ["sdn".index(x) for x in subset]
        size = len(chosen)
        variance = [np.mean([r[k, i] @ r[k, i] for k in range(11)]) for i in chosen]
        total = 0.0
        for a, i in enumerate(chosen):
            for j in chosen[:a]:
                total += np.mean([r[k, i] @ r[k, j] for k in range(11)]) / variance[a]
        found = values(r, subset)
        sigma = math.sqrt(sum(variance) / size)
        assert found["theorem_2"].value == pytest.approx(sigma * math.sqrt((1 + 2 / size * total) / size), rel=1e-12)
        if size == 1:
            continue
        assert found["equal_variance"].value == pytest.approx(max(variance) / min(variance), rel=1e-12)
        cosines = [
            r[k, i] @ r[k, j] / np.linalg.norm(r[k, i]) / np.linalg.norm(r[k, j])
            for k in range(11)
            for i, j in combinations(chosen, 2)
        ]
        assert found["mean_cosine"].value == pytest.approx(np.mean(cosines), rel=1e-12)


def test_the_formula_can_have_no_value() -> None:
    """Opposite gradients of very unequal length: dividing by the smaller variance makes the root's content negative."""
    r = np.random.default_rng(3).normal(size=(5, 1, 10)) * np.array([1.0, -0.01])[None, :, None]
    found = values(r, "sd", "sd")
    assert math.isnan(found["theorem_2"].value)
    assert math.isnan(found["theorem_2"].error)
    assert found["mean_gradient"].value == pytest.approx(0.495 * values(r, "s", "sd")["mean_gradient"].value)


def test_zero_gradients_have_no_cosine_and_no_variance_to_compare() -> None:
    r = correlated(np.random.default_rng(4), 6)
    r[2, 0] = 0
    cosines = [r[k, 0] @ r[k, 1] / np.linalg.norm(r[k, 0]) / np.linalg.norm(r[k, 1]) for k in range(6) if r[k, 0].any()]
    assert values(r, "sd")["mean_cosine"].value == pytest.approx(np.mean(cosines), rel=1e-12)
    r[:, 0] = 0
    found = values(r, "sd")
    for quantity in ("equal_variance", "mean_cosine", "zero_mean"):
        assert math.isnan(found[quantity].value)


def test_zero_mean_has_no_bias() -> None:
    rng = np.random.default_rng(5)
    same = np.repeat(rng.normal(size=(1, 1, 30)), 7, axis=0)
    assert theory.zero_mean(gradients_of(same, "s"), "s") == pytest.approx(1)
    for shift, truth in ((0.0, 0.0), (0.5, 0.2)):  # 0.25 / (0.25 + 1)
        repeated = [theory.zero_mean(gradients_of(shift + rng.normal(size=(5, 1, 40)), "s"), "s") for _ in range(400)]
        # a ratio of two unbiased estimates keeps a bias of second order
        assert np.mean(repeated) == pytest.approx(truth, abs=4 * scipy_stats.sem(repeated) + 0.01 * shift)
    two = gradients_of(np.concatenate([same, rng.normal(size=(7, 1, 30))], axis=1), "sd")
    assert theory.zero_mean(two, "sd") == theory.zero_mean(two, "s")  # the largest of the tasks


def test_standard_errors_are_those_of_repetition() -> None:
    rng = np.random.default_rng(6)
    count = 40
    samples = [correlated(rng, count) * np.exp(0.5 * rng.normal(size=(count, 1, 1))) for _ in range(300)]
    found = [values(r, "sdn", draws=200, seed=k) for k, r in enumerate(samples)]
    for quantity in ("mean_gradient", "root_mean_square", "theorem_2", "independent", "mean_cosine"):
        spread = np.std([f[quantity].value for f in found], ddof=1)
        assert np.mean([f[quantity].error for f in found]) == pytest.approx(spread, rel=0.2), quantity
    norms = np.linalg.norm(samples[0].mean(axis=1), axis=1)
    many = values(samples[0], "sdn", draws=4000)["mean_gradient"]
    assert many.error == pytest.approx(scipy_stats.sem(norms), rel=0.05)
    assert many.n == count


# --- evaluations --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one single-task model without gradients and one model of three tasks with them."""
    folder = tmp_path_factory.mktemp("theory")
    specs = [synthetic.row("a", "resnet18", "s", 9), synthetic.row("a", "resnet18", "snd", 9)]
    synthetic.write_study(
        folder, synthetic.Study(encoders=(), five=False, early=False, specs=specs, samples=12, sizes=())
    )
    store(folder / "evaluations" / "a-resnet18-snd.h5", gradients_of(drawn(), "snd"))
    return folder


def drawn() -> np.ndarray:
    return correlated(np.random.default_rng(8), 12)


def store(path: Path, gradients: Gradients) -> None:
    with h5py.File(path, "a") as file:
        if "gradients" in file:
            del file["gradients"]
        group = file.create_group("gradients")
        group.attrs.update(tasks=gradients.tasks, subsets=json.dumps(gradients.subsets))
        for name in ("gram", "mean_gram", "l1", "l2"):
            group[name] = getattr(gradients, name)


def test_table_has_every_subset_of_models_with_gradients(study: Path) -> None:
    table = theory.build_table(study / "evaluations", study / "plan.csv", seed=3, draws=20)
    assert list(table.columns) == list(theory.COLUMNS)
    assert set(table["model"]) == {"a-resnet18-snd"}
    assert set(table["tasks"]) == set(SUBSETS)  # letters in the study's order, whatever the model's
    assert len(table) == 3 * 5 + 4 * 7
    assert table.loc[table["size"].eq(1), "quantity"].isin(("equal_variance", "mean_cosine")).sum() == 0
    assert set(table["n"]) == {12}
    r = drawn()
    row = the(table, tasks="dn", quantity="mean_gradient")
    assert row["value"] == pytest.approx(np.linalg.norm((r[:, 1] + r[:, 2]) / 2, axis=1).mean(), rel=1e-12)
    assert row["standard_error"] > 0
    again = theory.build_table(study / "evaluations", study / "plan.csv", seed=3, draws=20, processes=2)
    pd.testing.assert_frame_equal(table, again)
    other = theory.build_table(study / "evaluations", study / "plan.csv", seed=4, draws=20)
    assert np.array_equal(table["value"], other["value"])
    assert not np.array_equal(table["standard_error"].dropna(), other["standard_error"].dropna())


def test_norms_of_the_file_agree_with_its_inner_products(study: Path) -> None:
    evaluation = read_evaluation(study / "evaluations" / "a-resnet18-snd.h5")
    gradients = evaluation.gradients
    assert gradients is not None
    found = {row["tasks"]: row for row in theory.rows(evaluation, draws=5) if row["quantity"] == "mean_gradient"}
    for number, subset in enumerate(gradients.subsets):
        tasks = "".join(x for x in "sdn" if x in subset)
        assert found[tasks]["value"] == pytest.approx(gradients.l2[:, number].mean() / len(subset), rel=1e-12)


def test_one_image_has_values_and_no_errors(study: Path) -> None:
    evaluation: Evaluation = read_evaluation(study / "evaluations" / "a-resnet18-snd.h5")
    alone = dataclasses.replace(evaluation, gradients=gradients_of(drawn()[:1], "snd"))
    rows = pd.DataFrame(theory.rows(alone, draws=10))
    assert rows["standard_error"].isna().all()
    assert rows.loc[rows["quantity"].eq("zero_mean"), "value"].isna().all()
    assert rows.loc[rows["quantity"].ne("zero_mean"), "value"].notna().all()


def test_absent_evaluations_are_named(study: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"a-resnet18-s\.h5: no such evaluation"):
        theory.build_table(tmp_path, study / "plan.csv")
