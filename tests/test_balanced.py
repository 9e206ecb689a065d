"""balanced.csv against plain loops over the file: which attacks, how strong, and the gain over TOTAL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import synthetic
from headstrong.analysis import balanced
from headstrong.analysis.files import read_table, write_table
from headstrong.analysis.stats import resamples
from headstrong.errors import BrokenFileError
from headstrong.jobs import AttackJob
from headstrong.seeds import derive_seed
from synthetic import one as the
from test_performance import loss_change_by_hand, performance_by_hand

TASKS, SAMPLES, SEED, DRAWS = "nsd", 12, 6, 40
PLAIN, BRANCHED = "a-resnet18-nsd", "b-resnet34-nsd"
FGSM = {"stepper": "fgsm", "steps": 1, "start": "clean"}


def attacks() -> list[AttackJob]:
    jobs = [synthetic.attack("pgd", "single", letter) for letter in TASKS]
    jobs += [synthetic.attack("pgd", "total", "sdn"), synthetic.attack("pgd", "total", "sd")]
    # another name in the configuration, the same threat
    jobs += [synthetic.attack("balanced", name, "sdn") for name in ("sign_sum", "wgd_released", "dgba")]
    jobs += [synthetic.attack("other", "dgba", "nsd", step_size=1 / 255)]  # in the order of the model, not the study
    jobs += [synthetic.attack("fgsm", name, "sdn", **FGSM) for name in ("total", "dgba")]
    jobs += [synthetic.attack("mim", "dgba", "sdn", "mim", 10, start="clean")]
    return [*jobs, synthetic.attack("noise", "total", "sdn", "noise", 1)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of three tasks, one of them branched and trained against an attack, and one of a single task."""
    folder = tmp_path_factory.mktemp("balanced")
    specs = [synthetic.row("a", "resnet18", TASKS, 9), synthetic.row("b", "resnet34", TASKS, 9)]
    specs[1] |= {"layout": "3", "adversarial": "fgsm.dgba.linf.8.1"}
    specs.append(synthetic.row("a", "resnet18", "d", 9))
    wanted = synthetic.Study(encoders=(), sizes=(), five=False, early=False, specs=specs, samples=SAMPLES)
    synthetic.write_study(folder, wanted)
    for spec in specs[:2]:
        path = folder / "evaluations" / f"{spec['id']}.h5"
        path.unlink()
        synthetic.write_evaluation(path, str(spec["id"]), TASKS, attacks(), spec, wanted)
    return folder


@pytest.fixture(scope="module")
def table(study: Path) -> pd.DataFrame:
    return balanced.build_table(study / "evaluations", study / "plan.csv", seed=SEED, draws=DRAWS)


def average(study: Path, model: str, attack: str, rows: list[int] | None = None) -> float:
    path = study / "evaluations" / f"{model}.h5"
    return sum(performance_by_hand(path, attack, letter, rows) for letter in TASKS) / 3


def drawn(model: str) -> list[list[int]]:
    """The resamples of a model's samples, as lists of their numbers."""
    weights = resamples(SAMPLES, DRAWS, derive_seed(SEED, "performance", model))[1:]
    return [[row for row, times in enumerate(line) for _ in range(int(times))] for line in weights]


def test_attacks_on_all_tasks_and_single_ones_are_there(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(balanced.COLUMNS)
    assert set(table["model"]) == {PLAIN, BRANCHED}  # one task has nothing to balance
    assert len(table) == 2 * (len(attacks()) - 1) * 4  # all but that on s and d alone; three tasks and their average
    assert set(table.loc[table["balancer"].eq("single"), "attacked"]) == {"s", "d", "n"}
    assert set(table.loc[table["balancer"].ne("single"), "attacked"]) == {"sdn"}
    assert set(table["tasks"]) == {"sdn"}
    assert list(table["task"].unique()) == ["", "s", "d", "n"]
    assert set(table["n"]) == {SAMPLES}


def test_numbers_follow_from_the_file(study: Path, table: pd.DataFrame) -> None:
    averages, tasks = table["task"].eq(""), table["task"].ne("") & table["model"].eq(PLAIN)
    assert averages.any()
    assert tasks.any()
    for row in table.loc[averages].itertuples():
        assert row.relative_performance == pytest.approx(average(study, row.model, row.attack), rel=1e-10)
        assert row.relative_performance < 0 < row.relative_loss_change
        assert row.standard_error > 0
    path = study / "evaluations" / f"{PLAIN}.h5"
    for row in table.loc[tasks].itertuples():
        assert row.relative_performance == pytest.approx(performance_by_hand(path, row.attack, row.task), rel=1e-10)
        assert row.relative_loss_change == pytest.approx(loss_change_by_hand(path, row.attack, row.task), rel=1e-10)


def test_gain_is_over_total_of_the_same_threat(study: Path, table: pd.DataFrame) -> None:
    totals = {"pgd": "pgd.total.sdn.linf.8.25", "fgsm": "fgsm.total.sdn.linf.8.1", "noise": "noise.total.sdn.linf.8.1"}
    rows = table.loc[table["task"].eq("") & table["model"].eq(PLAIN) & ~table["attack"].str.startswith("other")]
    for row in rows.itertuples():
        if row.stepper == "mim":
            assert np.isnan(row.gain)  # TOTAL was not run under it
            assert np.isnan(row.gain_standard_error)
            continue
        by_hand = average(study, PLAIN, row.attack) - average(study, PLAIN, totals[row.stepper])
        assert row.gain == pytest.approx(by_hand, rel=1e-9, abs=1e-14)
        assert (row.gain_standard_error == 0) == (row.balancer == "total")
    # steps of another size are another threat
    assert table.loc[table["attack"].str.startswith("other"), "gain"].isna().all()


def test_standard_errors_are_those_of_the_same_resamples(study: Path, table: pd.DataFrame) -> None:
    row = the(table, model=PLAIN, attack="balanced.dgba.sdn.linf.8.25", task="")
    ours = np.array([average(study, PLAIN, row["attack"], rows) for rows in drawn(PLAIN)])
    total = np.array([average(study, PLAIN, "pgd.total.sdn.linf.8.25", rows) for rows in drawn(PLAIN)])
    assert row["standard_error"] == pytest.approx(ours.std(ddof=1), rel=1e-9)
    assert row["gain_standard_error"] == pytest.approx((ours - total).std(ddof=1), rel=1e-9)
    task = the(table, model=PLAIN, attack=row["attack"], task="n")
    path = study / "evaluations" / f"{PLAIN}.h5"
    ours, total = (
        np.array([performance_by_hand(path, name, "n", rows) for rows in drawn(PLAIN)])
        for name in (row["attack"], "pgd.total.sdn.linf.8.25")
    )
    assert task["gain_standard_error"] == pytest.approx((ours - total).std(ddof=1), rel=1e-9)


def test_the_plan_says_what_kind_of_model_it_is(table: pd.DataFrame) -> None:
    kinds = table.drop_duplicates("model").set_index("model")[["encoder", "layout", "adversarial"]]
    assert list(kinds.loc[PLAIN]) == ["resnet18", "", ""]
    assert list(kinds.loc[BRANCHED]) == ["resnet34", "3", "fgsm.dgba.linf.8.1"]


def test_processes_seeds_and_files(study: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    arguments = (study / "evaluations", study / "plan.csv")
    again = balanced.build_table(*arguments, seed=SEED, draws=DRAWS, processes=2)
    pd.testing.assert_frame_equal(table, again)
    other = balanced.build_table(*arguments, seed=SEED + 1, draws=DRAWS)
    assert table["relative_performance"].equals(other["relative_performance"])
    assert (table["standard_error"] != other["standard_error"]).all()
    write_table(table, tmp_path / "balanced.csv")
    back = read_table(tmp_path / "balanced.csv")
    pd.testing.assert_frame_equal(table, back, check_dtype=False, rtol=0, atol=0)
    assert set(back["layout"]) == {"", "3"}


def test_a_study_without_such_attacks_has_a_table_without_rows(study: Path, tmp_path: Path) -> None:
    lines = (study / "plan.csv").read_text().splitlines()
    (tmp_path / "plan.csv").write_text("\n".join([lines[0], lines[3]]) + "\n")
    table = balanced.build_table(study / "evaluations", tmp_path / "plan.csv")
    assert table.empty
    write_table(table, tmp_path / "balanced.csv")
    assert list(read_table(tmp_path / "balanced.csv").columns) == list(balanced.COLUMNS)


def test_a_file_of_another_model_is_named(study: Path, tmp_path: Path) -> None:
    (tmp_path / f"{PLAIN}.h5").write_bytes((study / "evaluations" / f"{BRANCHED}.h5").read_bytes())
    with pytest.raises(BrokenFileError, match=f"{PLAIN}.h5: holds model {BRANCHED}"):
        balanced.build_table(tmp_path, study / "plan.csv")
