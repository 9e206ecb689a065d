"""Claims: verdicts on tables made up to be clear, on samples and on the reference results, and what is declared."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import synthetic
from headstrong import published, scale
from headstrong.analysis import (
    build,
    claims,
    claims_robustness,
    claims_samples,
    claims_stats,
    claims_words,
    vulnerability,
)
from headstrong.analysis.claims_rules import SYSTEMS, Claim, Tables
from headstrong.analysis.files import read_table, write_table, write_tables
from headstrong.analysis.plan import read_plan
from headstrong.config import Config
from headstrong.configfiles import load, study_files
from headstrong.provenance import ROOT
from synthetic import one as the

REFERENCE = sorted(path for path in (ROOT / "results" / "reference").iterdir() if (path / "tables").is_dir())


# --- verdicts on tables made up to be clear -----------------------------------------------------------------------


def judged(folder: Path, claim: str, **tables: pd.DataFrame) -> pd.Series:
    """The row of one claim. Keyword arguments are tables, but plan."""
    plan = folder / "plan.csv"
    for name, table in tables.items():
        write_table(table, plan if name == "plan" else folder / f"{name}.csv")
    paths = [folder / f"{name}.csv" for name in tables if name != "plan"]
    return the(claims.build_table(paths, plan if "plan" in tables else None, draws=300), id=claim)


def cells(factor: float, mains: str = "sdDnE", error: float = 0.01) -> pd.DataFrame:
    """Cells of every pair, of which v is `factor` times that of the main task alone."""
    common = {"encoder": "resnet18", "weighting": "uniform", "epochs": 9, "full_epochs": 9, "quantity": "single"}
    alone = [{"model": m, "main": m, "auxiliary": "", "size": 1, "value": 4.0} for m in mains]
    pairs = [
        {"model": "".join(sorted(m + a)), "main": m, "auxiliary": a, "size": 2, "value": 4.0 * factor}
        for m, a in itertools.permutations(mains, 2)
    ]
    return pd.DataFrame([{**common, **row, "standard_error": error, "n": 50} for row in [*alone, *pairs]])


@pytest.mark.parametrize(
    ("factor", "mains", "error", "wanted"),
    [
        (2.0, "sdDnE", 0.01, "reproduced"),
        (0.2, "sdDnEkKe", 0.01, "contradicted"),
        (2.0, "sdD", 0.01, "not decidable"),
        (1.1, "sdDnE", 3.0, "not decidable"),
    ],
)
def test_more_vulnerable_models(tmp_path: Path, factor: float, mains: str, error: float, wanted: str) -> None:
    found = judged(tmp_path, "R1", cells=cells(factor, mains, error))
    assert found["verdict"] == wanted
    assert found["effect"] == (100 if factor > 1 else 0)
    assert found["models"] == len(mains) * (len(mains) - 1) / 2


@pytest.mark.parametrize(("factor", "wanted"), [(0.5, "reproduced"), (2.0, "contradicted")])
def test_some_partner_for_every_main_task(tmp_path: Path, factor: float, wanted: str) -> None:
    assert judged(tmp_path, "R8", cells=cells(factor))["verdict"] == wanted


def plan_of(models: Sequence[str]) -> pd.DataFrame:
    common = synthetic.row("a", "resnet18", "sd", 9)
    return pd.DataFrame([{**common, "id": name} for name in models])


def balanced(models: Sequence[str], gain: float) -> pd.DataFrame:
    """ARP of DGBA and TOTAL; `gain` of the one over the other."""
    common = {"encoder": "resnet18", "layout": "", "adversarial": "", "attack": "", "stepper": "pgd", "norm": "linf"}
    common |= {"epsilon": 8 / 255, "steps": 10, "task": "", "standard_error": 0.05, "n": 50}
    return pd.DataFrame(
        [
            {
                **common,
                "model": model,
                "balancer": balancer,
                "relative_performance": value,
                "gain_standard_error": error,
            }
            for model in models
            for balancer, value, error in (("total", -0.5, 0.0), ("dgba", -0.5 + gain, 0.01))
        ]
    )


@pytest.mark.parametrize(
    ("models", "gain", "wanted"),
    [("abc", -0.1, "reproduced"), ("abc", 0.1, "contradicted"), ("ab", -0.1, "not decidable")],
)
def test_dgba_over_total(tmp_path: Path, models: str, gain: float, wanted: str) -> None:
    found = judged(tmp_path, "B1", balanced=balanced(models, gain), plan=plan_of(models))
    assert found["verdict"] == wanted
    assert found["effect"] == pytest.approx(-100 * gain)
    assert found["low"] == pytest.approx(-100 * gain - 1.96, abs=0.4)


def test_models_with_switches_of_their_own_do_not_count(tmp_path: Path) -> None:
    plan = plan_of("abc").assign(switches=["", "", "start=corner"])
    found = judged(tmp_path, "B1", balanced=balanced("abc", -0.1), plan=plan)
    assert found["reason"] == "2 of the 3 models needed"


def hidden(damage: float, visible: float, kind: str = "classes") -> pd.DataFrame:
    """Three tasks in turn hidden; noise costs two points; another stealth breaks everything."""
    common = {"family": "f", "dataset": "objects", "kind": kind, "access": "heads", "norm": "linf", "n": 100}
    common |= {"epsilon": 8 / 255, "steps": 10, "damage_error": 1.0}
    made = []
    for task, own in itertools.product("abc", "abc"):
        role = "hidden" if task == own else "visible"
        for name, objective, stealth, harm in (
            ("cf.1", "cf", 1.0, damage if role == "hidden" else visible),
            ("cf.0", "cf", 0.0, 90.0),
            ("noise", "noise", 0.0, 2.0),
        ):
            row = {
                "hidden": own,
                "attack": name,
                "objective": objective,
                "stealth": stealth,
                "task": task,
                "role": role,
            }
            made.append({**common, **row, "damage": harm})
    return pd.DataFrame(made)


def forgetting(lost: float) -> pd.DataFrame:
    """Copies that have lost `lost` of 90 points of accuracy on the hidden task."""
    common = {"family": "f", "dataset": "objects", "kind": "classes", "access": "heads", "role": "hidden", "n": 100}
    rows = [
        {**common, "hidden": own, "task": own, "epoch": epoch, "value": 90 - harm, "damage": harm, "distance": 0.5}
        for own in "abc"
        for epoch, harm in ((0, 0.0), (5, lost))
    ]
    return pd.DataFrame(rows)


def test_hidden_tasks(tmp_path: Path) -> None:
    table = hidden(40.0, 1.0)
    gone = forgetting(60.0)
    found = {name: judged(tmp_path, name, hidden=table, forgetting=gone) for name in ("H1", "H2", "H3")}
    assert {row["verdict"] for row in found.values()} == {"reproduced"}
    assert [row["effect"] for row in found.values()] == pytest.approx([40, 37, 38])
    loud = hidden(4.0, 4.0)
    for name in ("H1", "H2"):
        assert judged(tmp_path, name, hidden=loud, forgetting=gone)["verdict"] == "contradicted"
        # What the copy has not forgotten, or the network never learned, speaks neither for nor against.
        kept = judged(tmp_path, name, hidden=loud, forgetting=forgetting(5.0))
        assert (kept["verdict"], kept["reason"][:40]) == ("not decidable", "the copy has forgotten no hidden task: a")
        unlearned = judged(tmp_path, name, hidden=loud.assign(learned="no"), forgetting=gone)
        assert (unlearned["verdict"], unlearned["reason"]) == ("not decidable", "no hidden task that was learned")
    assert judged(tmp_path, "H1", hidden=hidden(40.0, 1.0, "dense"), forgetting=gone)["verdict"] == "not decidable"


def test_visible_tasks_that_were_not_learned_are_not_undamaged(tmp_path: Path) -> None:
    table = hidden(10.0, 4.0)
    nothing = table["task"].eq("c")
    table = table.assign(learned=np.where(nothing, "no", "yes"), damage=table["damage"].where(~nothing, 0.0))
    found = judged(tmp_path, "H2", hidden=table, forgetting=forgetting(60.0))
    assert found["effect"] == pytest.approx(10 - 3 * 4)  # not 10 - 3 * 2, of one visible task with 4 and one with 0


def importance(gain: float, accuracy: float) -> dict[str, pd.DataFrame]:
    """Three keys of classes, five trials; the setting with margin 8 has the better recall and loses accuracy."""
    common = {"family": "f", "dataset": "objects", "classes": "x", "pictures": 500, "weight": math.nan}
    settings = [("ce", math.nan, 0.0, 0.0), ("camri", 4.0, gain, accuracy), ("camri", 8.0, 50.0, -40.0)]
    trials, chosen = [], []
    for key, (loss, margin, more, cost), split in itertools.product("abc", settings, ("validation", "test")):
        row = {**common, "loss": loss, "important": key, "margin": margin, "scale": margin, "split": split}
        chosen.append({**row, "recall": 50 + more, "accuracy": 80 + cost, "keeps_accuracy": cost >= -1})
        for trial in range(5):
            wobble = 0.1 * trial * (margin == 4)
            measured = {"trial": trial, "recall": 50 + more + wobble, "accuracy": 80 + cost + wobble}
            trials.append({**row, **measured, "angle_variance": 1.0, "angle_variance_others": 1.0})
    return {"importance": pd.DataFrame(trials), "importance_settings": pd.DataFrame(chosen)}


def test_important_classes_in_the_setting_that_keeps_accuracy(tmp_path: Path) -> None:
    found = {name: judged(tmp_path, name, **importance(6.0, -0.5)) for name in ("C1", "C2")}
    assert [row["verdict"] for row in found.values()] == ["reproduced"] * 2
    assert [row["effect"] for row in found.values()] == pytest.approx([6.2, -0.3])
    assert judged(tmp_path, "C1", **importance(-6.0, -0.5))["verdict"] == "contradicted"
    assert "no setting of softmax" in judged(tmp_path, "C3", **importance(6.0, 0.0))["reason"]


def test_a_study_is_judged_on_the_systems_it_has_tables_of(tmp_path: Path) -> None:
    write_table(hidden(40.0, 1.0), tmp_path / "hidden.csv")
    table = claims.build_table([tmp_path / "hidden.csv"], protocol={"H": "corrected; objects"})
    assert set(table["system"]) == {"H"}
    assert set(table["protocol"]) == {"corrected; objects"}
    assert the(table, id="H4")["reason"].startswith("no cf_delta")


# --- per-sample numbers -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A made-up study with evaluations and the tables of make_tables."""
    folder = tmp_path_factory.mktemp("study")
    synthetic.write_study(folder, synthetic.Study(encoders=("resnet18",), early=False, five=False, samples=60))
    table = vulnerability.build_table(folder / "evaluations", folder / "plan.csv", draws=20)
    write_table(table, folder / "tables" / "vulnerability.csv")
    choice = build.tables.choose_attack(table, "pgd")
    write_tables(build.build_tables(table, read_plan(folder / "plan.csv"), choice, draws=20), folder / "tables")
    return folder


def test_resampled_images_move_a_comparison_as_the_delta_method_says(study: Path) -> None:
    paths = {path.stem: path for path in (study / "tables").glob("*.csv")}
    judge = Tables(paths, study / "plan.csv", 4000, 1, study / "evaluations")
    found = claims_robustness.against_alone(judge, judge("cells"), "single")
    row = found.iloc[0]
    influence = []
    for model in (row["model"], row["model_other"]):
        with h5py.File(study / "evaluations" / f"{model}.h5") as file:
            name = next(name for name in file["attacks"] if name.startswith(f"pgd.single.{row['main']}."))
            before = file[f"clean/{row['main']}/error"][:].astype(float)
            after = file[f"attacks/{name}/{row['main']}/error"][:].astype(float)
        influence.append(after / after.mean() - before / before.mean())
    error = (influence[0] - influence[1]).std(ddof=1) / math.sqrt(60)
    assert row["moves"].shape == (4000,)
    assert row["moves"].std() == pytest.approx(error, rel=0.08)
    same = found.assign(model_other=found["model"], v_other=found["v"])
    moves = claims_samples.moves(judge, same)
    assert moves is not None
    assert not np.any(moves)  # a model beside itself: the same images move both sides alike


def test_evaluations_change_intervals_and_not_effects(study: Path) -> None:
    with_samples = claims.of_folder(study).set_index("id")
    paths = sorted((study / "tables").glob("*.csv"))
    without = claims.build_table(paths, study / "plan.csv").set_index("id")
    pd.testing.assert_series_equal(with_samples["effect"], without["effect"])
    pd.testing.assert_series_equal(with_samples["models"], without["models"])


def test_intervals_of_samples_lie_within_those_of_tables(study: Path) -> None:
    """Tables do not tell that the images of these made-up models are drawn apart, and take the widest."""
    paths = {path.stem: path for path in (study / "tables").glob("*.csv")}
    found = []
    for evaluations in (study / "evaluations", None):
        judge = Tables(paths, study / "plan.csv", 2000, 1, evaluations)
        pairs = claims_robustness.against_alone(judge, judge("cells"), "single").assign(group="one")
        found.append(claims_stats.mean_of(pairs, seed=1, draws=2000))
    assert found[0].effect == found[1].effect
    assert found[1].low < found[0].low < found[0].high < found[1].high


# --- what is declared ---------------------------------------------------------------------------------------------


def test_claims_are_many_and_known_by_one_name_each() -> None:
    assert len({claim.id for claim in claims.CLAIMS}) == len(claims.CLAIMS) >= 20
    assert {claim.system for claim in claims.CLAIMS} == set(SYSTEMS)


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.id)
def test_every_declared_column_is_in_a_table_that_is_made(claim: Claim) -> None:
    for table, columns in claim.columns.items():
        made = [folder / "tables" / f"{table}.csv" for folder in REFERENCE]
        headers = [set(pd.read_csv(path, nrows=0).columns) for path in made if path.is_file()]
        assert headers
        assert all(set(columns) <= header for header in headers)


@pytest.mark.parametrize("folder", REFERENCE, ids=lambda path: path.name)
def test_reference_results_are_judged_twice_alike(folder: Path, tmp_path: Path) -> None:
    first, second = claims.of_folder(folder), claims.of_folder(folder)
    pd.testing.assert_frame_equal(first, second)
    assert tuple(first.columns) == claims.COLUMNS
    assert set(first["verdict"]) <= {"reproduced", "contradicted", "not decidable"}
    decided = first.loc[first["verdict"].ne("not decidable")]
    assert (decided["low"] <= decided["effect"]).all()
    assert (decided["effect"] <= decided["high"]).all()
    write_table(first, tmp_path / "claims.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "claims.csv"), first, check_dtype=False)


def counted(table: pd.DataFrame, alone: pd.DataFrame) -> int:
    pairs = table.loc[table["main"].ne(table["auxiliary"])]
    return int((pairs["value"] > pairs["main"].map(alone.set_index("main")["value"])).sum())


def test_printed_counts_are_those_of_the_printed_tables() -> None:
    said = {claim.id: claim.published for claim in claims.CLAIMS}
    table = published.load("ghamizi_supplement_tables_2_to_6")
    more = {}
    for encoder, quantity in itertools.product(("resnet18", "resnet50", "resnet152"), ("single", "multi")):
        own = table.loc[table["encoder"].eq(encoder)]
        single = own.loc[own["quantity"].eq("single")]
        alone = single.loc[single["main"].eq(single["auxiliary"])]
        more[encoder, quantity] = counted(own.loc[own["quantity"].eq(quantity)], alone)
    assert f"{more['resnet18', 'single']} of 20" in said["R1"]
    assert f"{more['resnet18', 'multi']} of 20" in said["R2"]
    assert f"{more['resnet50', 'single']} and {more['resnet152', 'single']} of 20" in said["R7"]
    key = ["main", "auxiliary"]
    first, second = published.load("ghamizi_table_1"), published.load("ghamizi_table_2")
    for claim, part in (("R15", "apgd"), ("R16", "wgd")):
        own = second.loc[second["attack"].eq(part) & second["main"].ne(second["auxiliary"])]
        grid = own.pivot(index=key, columns="weights", values="value")
        assert f"{(grid['weighted'] > grid['uniform']).sum()} of {len(grid)}" in said[claim]
        ratio = ((1 + grid["weighted"]) / (1 + grid["uniform"])).map(math.log).mean()
        assert f"{math.exp(ratio):.2f}" in said[claim]
    for claim, part, block in (("R17", "apgd", "single"), ("R18", "wgd", "multi")):
        both = second.loc[second["attack"].eq(part)].merge(
            first.loc[first["attacked"].eq(block)], on=[*key, "weights"], suffixes=("", "_pgd")
        )
        assert f"{(both['value'] > both['value_pgd']).sum()} of {len(both)}" in said[claim]


def test_the_page_of_claims_is_the_one_that_the_command_writes() -> None:
    assert (ROOT / "docs" / "claims.md").read_text() == claims_words.page()


def test_the_protocol_and_scale_of_the_default_study_in_words() -> None:
    found = scale.in_words(load(study_files(["quick"])))
    assert found["R"] == found["B"] == "corrected; rooms (embedded), 64x64, width 0.25, 6 epochs"
    assert found["G"].startswith("corrected; objects (embedded), 64x64, width 0.25, 16 epochs; rooms (embedded)")
    real = scale.in_words(load(study_files(["hidden_nyuv2"])))
    assert set(real) == {"R", "B", "H"}
    assert "nyuv2, " in real["H"]
    own = load(study_files(["mta_office31"])).model_dump()
    own["pictures"]["domains"] |= {"source": "folder", "folder": "animals", "domains": ["photo", "sketch"]}
    assert "animals (own folder), 224x224" in scale.in_words(Config.model_validate(own))["G"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headstrong", "claims", *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_the_command_prints_verdicts() -> None:
    found = command("results/reference/camri_cifar10")
    assert found.returncode == 0, found.stderr
    assert "C2  contradicted" in found.stdout
    assert found.stdout.endswith("4 claims: 2 reproduced, 2 contradicted\n")
    assert command("--format", "csv").stdout.startswith(
        "id,system,statement,published,tables,measure,rule,least\nR1,R,"
    )
    missing = command("results/nowhere")
    assert missing.returncode == 3
    assert len(missing.stderr.splitlines()) == 1
