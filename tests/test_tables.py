"""Surrogates, tables and constant predictors against the published tables and computation by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import synthetic
from headstrong import published
from headstrong.analysis import baselines, build, plan, surrogates, table_2, tables, vulnerability
from headstrong.analysis.files import read_table, write_table
from headstrong.data.cache import write_split
from headstrong.errors import ConfigError, MissingDataError
from headstrong.tasks import file_safe
from synthetic import one as the

FIVE = "five-resnet18-sd_Dn_E"


# --- surrogates against the published tables ----------------------------------------------------------------------


def published_cells(encoder: str, quantity: str) -> pd.DataFrame:
    """The 25 published cells of one encoder: main, auxiliary, value; single_error: clean * (1 + vulnerability)."""
    table = published.load("ghamizi_supplement_tables_2_to_6")
    table = table.loc[table["encoder"].eq(encoder)].pivot(index=surrogates.KEY, columns="quantity", values="value")
    table["single_error"] = table["clean_error"] * (1 + table["single"])
    return table[quantity].rename("value").reset_index()


def published_r(proxy: tuple[str, str], target: tuple[str, str], scope: str, statistic: str = "pearson") -> float:
    found = surrogates.correlate(published_cells(*proxy), published_cells(*target))
    return float(the(found, scope=scope, statistic=statistic)["value"])


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
    assert the(third, surrogate="smaller encoder", attack="single")["published"] == 0.94
    assert not third.loc[third["proxy"].eq("resnet50 clean error"), "published"].notna().any()


def test_surrogates_say_why_there_is_no_number(cells: pd.DataFrame) -> None:
    few = cells.loc[cells["main"].eq("s") & cells["size"].eq(1)]
    found = surrogates.build_table(few)
    assert found["value"].isna().all()
    assert found["note"].ne("").all()
    negative = published_cells("resnet18", "single").assign(value=lambda t: -t["value"])
    row = the(surrogates.correlate(negative, negative), scope="within", statistic="pearson")
    assert math.isnan(row["value"])
    assert "logarithm" in row["note"]
    flat = published_cells("resnet18", "single")
    flat["value"] = flat.groupby("main")["value"].transform("mean")
    row = the(
        surrogates.correlate(flat, published_cells("resnet50", "single")),
        scope="within",
        statistic="pearson",
    )
    assert "does not vary within" in row["note"]
    assert surrogates.build_table(cells.iloc[:0]).empty


# --- tables -------------------------------------------------------------------------------------------------------


def test_one_model_serves_both_cells_of_a_pair(table: pd.DataFrame, cells: pd.DataFrame) -> None:
    model = "combinations-resnet18-s_D"
    for main, auxiliary in ("sD", "Ds"):
        cell = the(cells, encoder="resnet18", epochs=12, main=main, auxiliary=auxiliary, quantity="multi")
        row = the(table, model=model, attacked="sD", family="pgd", task=main, metric="relative_task_vulnerability")
        assert (cell["model"], cell["value"]) == (model, row["mean"])
        single = the(cells, encoder="resnet18", epochs=12, main=main, auxiliary=auxiliary, quantity="single")
        row = the(table, model=model, attacked=main, family="pgd", task=main, metric="relative_task_vulnerability")
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
    normals = the(said, encoder="resnet18", block="clean", main="n", auxiliary="n")
    assert normals["published"] == pytest.approx(5456 / (65536 * 3))
    assert the(said, encoder="resnet18", block="clean", main="d", auxiliary="d")["published"] == pytest.approx(
        97.5 / 65536
    )
    assert the(said, encoder="resnet18", block="clean", main="s", auxiliary="s")["published"] == 50.5
    assert the(said, encoder="resnet18", block="single", main="d", auxiliary="d")["published"] == 7.87


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
    with pytest.raises(ConfigError, match=r"no attack 'pgd l2.*pgd linf 8/255 25"):
        tables.choose_attack(table, norm="l2")


def test_confusion_can_stand_in_for_segmentation(results: Path, table: pd.DataFrame) -> None:
    frame = plan.read_plan(results / "plan.csv")
    whole = tables.cells(table, frame, tables.choose_attack(table), segmentation="confusion")
    cell = the(whole, model="single-resnet18-s", quantity="clean_error")
    miou = the(table, model="single-resnet18-s", attack="clean", metric="miou")["mean"]
    assert cell["value"] == pytest.approx(100 * (1 - miou))
    plain = tables.cells(table, frame, tables.choose_attack(table))
    others = [t.loc[t["main"].ne("s")].reset_index(drop=True) for t in (whole, plain)]
    key = ["model", "main", "quantity"]
    pd.testing.assert_frame_equal(*(o.sort_values(key).reset_index(drop=True) for o in others))


def test_models_set_apart_serve_no_cell() -> None:
    rows = [synthetic.row("plain", "resnet18", letters, 9) for letters in ("s", "sd")]
    for column, text in (("layout", "0"), ("adversarial", "fgsm.dgba.linf.8.1"), ("switches", "optimizer=sgd")):
        rows.append({**synthetic.row(column, "resnet18", "sn", 9), column: text})
    frame = pd.DataFrame(rows)
    assert set(plan.cells(frame)["model"]) == {"plain-resnet18-s", "plain-resnet18-sd"}
    assert set(plan.plain(frame)["section"]) == {"plain"}
    assert plan.cells(frame.iloc[2:]).empty


def test_encoders_are_sorted_by_their_published_size() -> None:
    said = published.load("ghamizi_supplement_table_1").drop_duplicates("encoder").sort_values("parameters_millions")
    frame = pd.DataFrame([synthetic.row("a", encoder, "s", 9) for encoder in sorted(said["encoder"])])
    assert plan.encoders(frame) == list(said["encoder"])


def weighted_rows(tasks: str) -> list[dict[str, object]]:
    """Single models, uniform pairs and both orders of weighted pairs."""
    rows = [synthetic.row("single", "resnet18", letter, 9) for letter in tasks]
    rows += [synthetic.row("pairs", "resnet18", a + b, 9) for a, b in itertools.combinations(tasks, 2)]
    rows += [synthetic.row("weighted", "resnet18", a + b, 9, "1;0.1") for a, b in itertools.permutations(tasks, 2)]
    return rows


def test_table_1_has_both_parts(tmp_path: Path) -> None:
    study = synthetic.Study(encoders=(), sizes=(), five=False, early=False, specs=weighted_rows("sdn"), samples=6)
    synthetic.write_study(tmp_path, study)
    table = vulnerability.build_table(tmp_path / "evaluations", tmp_path / "plan.csv")
    frame = plan.read_plan(tmp_path / "plan.csv")
    found = tables.table_1(tables.cells(table, frame, tables.choose_attack(table)))
    parts = {weighting: part for weighting, part in found.groupby("weighting")}
    assert {k: len(v) for k, v in parts.items()} == {"uniform": 9 + 6, "weighted": 6 + 6}
    said = published.load("ghamizi_table_1").set_index(["weights", "attacked", "main", "auxiliary"])["value"]
    for row in found.to_dict("records"):
        assert row["published"] == said[row["weighting"], row["block"], row["main"], row["auxiliary"]]
        attacked = row["main"] if row["block"] == "single" else "".join(x for x in "sdn" if x in row["model"][-2:])
        metric = {"task": row["main"], "family": "pgd", "metric": "relative_task_vulnerability"}
        assert row["ours"] == the(table, model=row["model"], attacked=attacked, **metric)["mean"]
        if row["weighting"] == "weighted":
            assert row["model"] == f"weighted-resnet18-{row['main']}{row['auxiliary']}"
    grid = tables.wide(parts["weighted"], "single", "published")
    assert grid.loc["d", "s"] == 1.25
    assert math.isnan(grid.loc["d", "d"])


def measured(model: str, main: str, value: float, **attack: object) -> dict[str, object]:
    """One row of vulnerability.csv: the relative task vulnerability of one task under one attack."""
    head = {"attack": "-".join(str(v) for v in attack.values()), "norm": "linf", "epsilon": synthetic.EPSILON}
    numbers = {"mean": value, "standard_error": value / 10, "n": 8, "metric": "relative_task_vulnerability"}
    return {"model": model, "task": main, **head, **attack, **numbers}


APGD = {"family": "auto", "balancer": "single", "stepper": "apgd", "steps": 25}
WGD = {"family": "adaptive", "balancer": "wgd_released", "stepper": "pgd", "steps": 25}
PGD = {"family": "pgd", "balancer": "single", "stepper": "pgd", "steps": 25}


def attacked_models(rows: list[dict[str, object]], *attacks: dict[str, object]) -> pd.DataFrame:
    """A made-up vulnerability.csv in which every value is another."""
    found = []
    for row in rows:
        letters = str(row["main"]) + str(row["auxiliary"])
        together = "".join(x for x in "sdDnE" if x in letters)
        for attack in attacks:
            for attacked in letters if attack["balancer"] == "single" else [together]:
                for task in letters:
                    fields = {**attack, "attacked": attacked}
                    found.append(measured(str(row["id"]), task, len(found) + 1.0, **fields))
    return pd.DataFrame(found).astype({"steps": "Int64"})


def test_table_2_takes_the_main_task_of_each_attack() -> None:
    rows = weighted_rows("sdE")
    rows += [synthetic.row("pairs", "resnet50", "sd", 9)]  # the published table has one encoder
    table = attacked_models(rows, PGD, APGD, {**APGD, "steps": 100}, WGD, {**WGD, "balancer": "total"})
    found = table_2.table_2(table, pd.DataFrame(rows), tables.AttackChoice("pgd"))
    assert list(found.columns) == list(table_2.COLUMNS)
    assert len(found) == 2 * 2 * 9
    said = published.load("ghamizi_table_2").set_index(["weights", "attack", "main", "auxiliary"])["value"]
    for row in found.to_dict("records"):
        main, auxiliary = row["main"], row["auxiliary"]
        assert row["published"] == said[row["weighting"], row["attack"], main, auxiliary]
        tasks = main if main == auxiliary else "".join(x for x in "sdE" if x in main + auxiliary)
        attack = {**APGD, "attacked": main} if row["attack"] == "apgd" else {**WGD, "attacked": tasks}
        if main == auxiliary:
            model = f"single-resnet18-{file_safe(main)}"
        elif row["weighting"] == "weighted":
            model = f"weighted-resnet18-{file_safe(main + auxiliary)}"
        else:
            model = f"pairs-resnet18-{file_safe(tasks)}"
        assert row["model"] == model
        assert row["ours"] == the(table, model=model, task=main, **attack)["mean"]
        assert row["block"] == {"apgd": "single", "wgd": "multi"}[row["attack"]]


def test_table_2_without_its_attacks_or_weights() -> None:
    rows = weighted_rows("sd")
    assert table_2.table_2(attacked_models(rows, PGD), pd.DataFrame(rows), tables.AttackChoice("pgd")).empty
    elsewhere = attacked_models(rows, PGD, {**APGD, "norm": "l2"}, {**WGD, "epsilon": 0.5})
    assert table_2.table_2(elsewhere, pd.DataFrame(rows), tables.AttackChoice("pgd")).empty
    uniform = rows[:3]
    found = table_2.table_2(attacked_models(uniform, WGD), pd.DataFrame(uniform), tables.AttackChoice("pgd"))
    assert set(found["weighting"]) == {"uniform"}
    assert set(found["attack"]) == {"wgd"}
    assert len(found) == 4


def test_wgd_on_one_task_may_be_called_single() -> None:
    """A family that lists single and wgd attacks a single-task model once, under the name single."""
    rows = weighted_rows("sd")[:3]
    parts = [attacked_models(rows[:2], {**WGD, "balancer": "single"}), attacked_models(rows[2:], WGD)]
    table = pd.concat(parts, ignore_index=True)
    found = table_2.table_2(table, pd.DataFrame(rows), tables.AttackChoice("pgd"))
    assert the(found, main="s", auxiliary="s")["ours"] == the(table, model="single-resnet18-s")["mean"]


def test_table_2_prefers_the_steps_of_the_analysis() -> None:
    rows = weighted_rows("sd")
    several = attacked_models(
        rows, {**APGD, "steps": 50}, {**APGD, "steps": 100}, {**WGD, "balancer": "wgd_cyclic"}, {**WGD, "steps": 3}
    )
    chosen = table_2.attacks(several, tables.AttackChoice("pgd"))
    assert chosen["apgd"].steps == 100
    assert (chosen["wgd"].steps, chosen["wgd"].multi) == (25, "wgd_cyclic")
    chosen = table_2.attacks(several, tables.AttackChoice("pgd", steps=50))
    assert chosen["apgd"].steps == 50


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
    assert the(found, task="d")["error"] == pytest.approx(np.mean(errors), rel=1e-3)
    image = {k: np.array([s["rgb"] for s in v]) / 127.5 - 1 for k, v in splits.items()}
    mean = image["train"].mean(axis=(0, 2, 3))
    assert the(found, task="A")["error"] == pytest.approx(((image["test"] - mean[:, None, None]) ** 2).mean(), rel=1e-4)
    # class 2 is the most frequent labelled class; predicting it everywhere has IoU = its share of the labelled pixels
    labels = np.array([s["s"] for s in splits["test"]])
    share = [(x == 2).sum() / (x > 0).sum() / 3 for x in labels]
    assert the(found, predictor=baselines.majority("labelled"))["error"] == pytest.approx(100 * (1 - np.mean(share)))
    whole = (labels == 2).sum() / (labels > 0).sum() / 3
    assert the(found, predictor=baselines.majority("labelled", confusion=True))["error"] == pytest.approx(
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
