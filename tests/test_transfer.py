"""transfer.csv against plain loops: harm to tasks that were not attacked, and what the tasks share."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import synthetic
from headstrong import layouts
from headstrong.analysis import transfer
from headstrong.analysis.files import read_table, write_table
from headstrong.errors import BrokenFileError
from headstrong.jobs import AttackJob
from synthetic import one as the
from test_performance import performance_by_hand

TASKS, SAMPLES, SEED, DRAWS = "nsd", 10, 2, 30
ONE_ENCODER = "a-resnet18-nsd"


def attacks(tasks: str) -> list[AttackJob]:
    jobs = [synthetic.attack("pgd", "single", letter) for letter in tasks]
    jobs += [synthetic.attack("fgsm", "single", letter, "fgsm", 1, start="clean") for letter in tasks[:1]]
    jobs += [synthetic.attack("noise", "single", letter, "noise", 1) for letter in tasks]
    return [*jobs, synthetic.attack("pgd", "total", tasks)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one encoder, a model of one task, and three branched models."""
    folder = tmp_path_factory.mktemp("transfer")
    specs = [synthetic.row("a", "resnet18", TASKS, 9), synthetic.row("a", "resnet18", "d", 9)]
    for index in (0, layouts.separate(3), 17):
        spec = synthetic.row(f"b{index}", "resnet34", TASKS, 9)
        specs.append({**spec, "layout": str(index), "adversarial": "fgsm.dgba.linf.8.1" if index == 17 else ""})
    wanted = synthetic.Study(encoders=(), sizes=(), five=False, early=False, specs=specs, samples=SAMPLES)
    synthetic.write_study(folder, wanted)
    for spec in specs:
        tasks = str(spec["main"]) + str(spec["auxiliary"])
        path = folder / "evaluations" / f"{spec['id']}.h5"
        path.unlink()
        synthetic.write_evaluation(path, str(spec["id"]), tasks, attacks(tasks), spec, wanted)
    return folder


@pytest.fixture(scope="module")
def table(study: Path) -> pd.DataFrame:
    return transfer.build_table(study / "evaluations", study / "plan.csv", seed=SEED, draws=DRAWS)


def test_every_other_task_of_every_single_attack_is_there(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(transfer.COLUMNS)
    assert set(table["model"]) == {ONE_ENCODER, "b0-resnet34-nsd", "b2-resnet34-nsd", "b17-resnet34-nsd"}
    assert len(table) == 4 * (3 + 1) * 2  # not noise, which attacks nothing
    assert not table.duplicated(["model", "attack", "measured"]).any()
    assert table["attacked"].ne(table["measured"]).all()


def test_numbers_follow_from_the_file(study: Path, table: pd.DataFrame) -> None:
    for row in table.itertuples():
        path = study / "evaluations" / f"{row.model}.h5"
        own = performance_by_hand(path, row.attack, row.attacked)
        other = performance_by_hand(path, row.attack, row.measured)
        assert row.own == pytest.approx(own, rel=1e-10)
        assert row.relative_performance == pytest.approx(other, rel=1e-10)
        assert row.ratio == pytest.approx(other / own, rel=1e-10)
        assert row.standard_error > 0
        assert row.n == SAMPLES


def test_shared_levels_are_those_of_the_layout(table: pd.DataFrame) -> None:
    for index in (0, 2, 17):
        rows = table.loc[table["model"].eq(f"b{index}-resnet34-nsd")]
        levels = layouts.layout(index, 3)
        blocks = [{task: number for number, block in enumerate(level) for task in block} for level in levels]
        total = 0
        for row in rows.loc[rows["stepper"].eq("pgd")].itertuples():
            # tasks are known by their place in the model's order, which is not the study's
            i, j = TASKS.index(row.attacked), TASKS.index(row.measured)
            assert row.shared_levels == sum(level[i] == level[j] for level in blocks)
            total += row.shared_levels
        assert rows["shared_fraction"].unique() == pytest.approx([total / (2 * 3 * 5)])
    by_model = table.groupby("model")["shared_fraction"].first()
    assert by_model["b0-resnet34-nsd"] == 1
    assert by_model["b2-resnet34-nsd"] == 0
    assert 0 < by_model["b17-resnet34-nsd"] < 1
    assert table.loc[table["model"].eq("b17-resnet34-nsd"), "shared_levels"].nunique() > 1


def test_one_encoder_shares_everything(table: pd.DataFrame) -> None:
    rows = table.loc[table["model"].eq(ONE_ENCODER)]
    assert set(rows["shared_levels"]) == {5}
    assert set(rows["shared_fraction"]) == {1.0}
    assert set(rows["layout"]) == {""}
    assert set(table.loc[table["layout"].eq("17"), "adversarial"]) == {"fgsm.dgba.linf.8.1"}


def test_processes_and_files(study: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    arguments = (study / "evaluations", study / "plan.csv")
    again = transfer.build_table(*arguments, seed=SEED, draws=DRAWS, processes=2)
    pd.testing.assert_frame_equal(table, again)
    write_table(table, tmp_path / "transfer.csv")
    back = read_table(tmp_path / "transfer.csv")
    pd.testing.assert_frame_equal(table, back, check_dtype=False, rtol=0, atol=0)
    row = the(back, model=ONE_ENCODER, attack="pgd.single.n.linf.8.25", measured="d")
    assert (row["attacked"], row["layout"], row["shared_levels"]) == ("n", "", 5)


@pytest.mark.parametrize("layout", ["51", "-1", "wide"])
def test_a_layout_that_does_not_exist_is_one_line(study: Path, tmp_path: Path, layout: str) -> None:
    plan = pd.read_csv(study / "plan.csv", dtype=str, keep_default_na=False)
    plan.loc[plan["layout"].eq("17"), "layout"] = layout
    plan.to_csv(tmp_path / "plan.csv", index=False)
    with pytest.raises(BrokenFileError, match=f"b17-resnet34-nsd of 3 tasks has layout '{layout}'") as caught:
        transfer.build_table(study / "evaluations", tmp_path / "plan.csv")
    assert str(caught.value).startswith(str(tmp_path / "plan.csv"))
    assert "\n" not in str(caught.value)


def test_an_attack_without_effect_on_its_own_task_has_no_ratio(study: Path, tmp_path: Path) -> None:
    name, attack = f"{ONE_ENCODER}.h5", "pgd.single.d.linf.8.25"
    (tmp_path / name).write_bytes((study / "evaluations" / name).read_bytes())
    with h5py.File(tmp_path / name, "a") as file:
        for measure, values in file["clean/d/measures"].items():
            file[f"attacks/{attack}/d/measures/{measure}"][:] = values[:]
    lines = (study / "plan.csv").read_text().splitlines()
    (tmp_path / "plan.csv").write_text("\n".join(lines[:2]) + "\n")
    table = transfer.build_table(tmp_path, tmp_path / "plan.csv")
    row = the(table, attack=attack, measured="s")
    assert row["own"] == 0
    assert np.isnan(row["ratio"])
    assert row["relative_performance"] < 0
