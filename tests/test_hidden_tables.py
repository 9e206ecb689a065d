"""Tables of hidden tasks and of forgetting: known files give known numbers."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import hidden_files as made
from headstrong.analysis import hidden, hidden_summary
from headstrong.analysis.hidden_records import OBJECTIVES
from headstrong.errors import BrokenFileError
from hidden_files import DENSE_RIGHT, DENSE_WRONG, NAN, RIGHT, WRONG, Attack, deviation, oracle, stored
from synthetic import one


def numbers(kind: str, before: list[float], after: list[float]) -> dict[str, float]:
    """Clean, attacked, damage, damage_error and n of one task, by loops over images."""
    pairs = [(x, y) for x, y in zip(before, after, strict=True) if not math.isnan(x + y)]
    x, y = statistics.fmean(x for x, _ in pairs), statistics.fmean(y for _, y in pairs)
    if kind == "classes":
        error = deviation([100 * (after - before) for before, after in pairs])
        return {
            "clean": 100 - 100 * x,
            "under_attack": 100 - 100 * y,
            "damage": (100 - 100 * x) - (100 - 100 * y),
            "damage_error": error,
            "n": len(pairs),
        }
    error = deviation([100 * (after - y / x * before) / x for before, after in pairs])
    return {"clean": x, "under_attack": y, "damage": 100 * (y / x - 1), "damage_error": error, "n": len(pairs)}


def test_damage_to_classes_by_hand(tmp_path: Path) -> None:
    attack = oracle(WRONG, called="best", norm="l2", epsilon=0.5, steps=7, stealth=2)
    path = made.write_file(tmp_path / "a.h5", RIGHT, [attack], hidden="a", family="f", dataset="objects")
    table = hidden.build_table([path])
    assert list(table.columns) == list(hidden.COLUMNS)
    first, second = (row for _, row in table.iterrows())
    assert first.to_dict() == pytest.approx(
        {
            "family": "f",
            "dataset": "objects",
            "kind": "classes",
            "hidden": "a",
            "attack": "best",
            "objective": "oracle",
            "access": "",
            "stealth": 2.0,
            "norm": "l2",
            "epsilon": 0.5,
            "steps": 7,
            "task": "a",
            "role": "hidden",
            "clean": 75,
            "under_attack": 25,
            "damage": 50,  # images 1 and 4 of four: 100, 0, 0, 100 points, deviation 100 / sqrt 3
            "damage_error": 100 / math.sqrt(3) / 2,
            "n": 4,
            "majority": NAN,
            "learned": "",
        },
        nan_ok=True,
    )
    assert (second["task"], second["role"], second["clean"], second["under_attack"]) == ("b", "visible", 56.25, 68.75)
    assert (second["damage"], second["damage_error"]) == (-12.5, 12.5)  # one image of four gains 50 points


def test_damage_to_dense_tasks_by_hand(tmp_path: Path) -> None:
    path = made.write_file(tmp_path / "a.h5", DENSE_RIGHT, [oracle(DENSE_WRONG)], hidden="a", kind="dense")
    table = hidden.build_table([path])
    row = one(table, task="a")
    # Means 2 and 4: a ratio of 2. Influences 100 * (after - 2 * before) / 2: 0, -100, 100, deviation 100.
    assert (row["clean"], row["under_attack"], row["damage"], row["n"]) == (2, 4, 100, 3)
    assert row["damage_error"] == pytest.approx(100 / math.sqrt(3))
    # The image without a label of the attacked task is not attacked: it counts for no other task either.
    row = one(table, task="b")
    assert (row["clean"], row["under_attack"], row["damage"], row["n"]) == (2, 3, 50, 3)


def test_what_cannot_be_measured_is_not_a_number() -> None:
    few = np.array([NAN, 0.5, NAN])
    alone = hidden.change("dense", few, 2 * few)
    assert (alone.before, alone.after, alone.damage, alone.n) == (0.5, 1.0, 100.0, 1)
    assert math.isnan(alone.error)
    none = hidden.change("dense", np.full(3, NAN), np.full(3, NAN))
    assert none.n == 0
    assert all(math.isnan(value) for value in (none.before, none.after, none.damage, none.error))
    perfect = hidden.change("dense", np.zeros(3), np.ones(3))
    assert (perfect.before, perfect.after, perfect.n) == (0, 1, 3)
    assert math.isnan(perfect.damage)
    assert math.isnan(perfect.error)
    assert hidden.change("classes", np.zeros(3), np.ones(3)).damage == 100  # points need no clean error


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_hidden_agrees_with_loops_over_the_file(tmp_path: Path, kind: str) -> None:
    paths = made.write_family(tmp_path, kind, images=25, seed=3)
    table = hidden.build_table(paths)
    seen = 0
    for path in paths:
        found = stored(path)
        clean = found.pop("clean")
        for attack, tasks in found.items():
            for task, after in tasks.items():
                row = one(table, hidden=path.stem, attack=attack, task=task)
                expected = numbers(kind, clean[task], after)
                assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9)
                assert row["role"] == ("hidden" if task == path.stem else "visible")
                seen += 1
    assert seen == len(table) > 0
    assert table["damage"].max() > 20
    assert table["n"].nunique() == (2 if kind == "dense" else 1)  # the holes


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_influences_add_up_to_nothing_and_explain_the_error(kind: str) -> None:
    rng = np.random.default_rng(0)
    before, after = rng.uniform(0.1, 0.5, 30), rng.uniform(0.3, 1, 30)
    before[3] = after[3] = NAN
    found = hidden.change(kind, before, after)
    assert list(np.flatnonzero(np.isnan(found.influence))) == [3]
    known = [value for value in found.influence if not math.isnan(value)]
    assert sum(known) == pytest.approx(0, abs=1e-9)
    assert found.error == pytest.approx(deviation(known))
    # An influence says what becomes of the damage when an image weighs a little more.
    for image in (0, 17):
        weights = np.where(np.isnan(before), 0, 1.0)
        weights[image] += 1e-6
        x, y = (np.nansum(weights * values) / weights.sum() for values in (before, after))
        moved = 100 * (y - x) / (1 if kind == "classes" else x)
        assert (moved - found.damage) * 29 / 1e-6 == pytest.approx(found.influence[image], rel=1e-3)


def permuted(path: Path, order: np.ndarray) -> None:
    """Reorder the images of a file."""
    with h5py.File(path, "r+") as file:
        places: list[str] = []
        file.visititems(lambda name, item: places.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in places:
            file[name][:] = file[name][:][order]


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_the_order_of_images_and_files_changes_nothing(tmp_path: Path, kind: str) -> None:
    paths = made.write_family(tmp_path, kind, images=20)
    builders = (hidden.build_table, hidden.build_forgetting, hidden_summary.build_table)
    before = [build(paths) for build in builders]
    order = np.random.default_rng(0).permutation(20)
    permuted(paths[1], order)
    with pytest.raises(BrokenFileError, match=rf"{paths[1].name}: has other images than .*{paths[0].name}"):
        hidden.build_table(paths)
    for path in (paths[0], *paths[2:]):
        permuted(path, order)
    for frame, build in zip(before, builders, strict=True):
        pd.testing.assert_frame_equal(build(paths[::-1]), frame, rtol=1e-9, atol=1e-9)


def test_rows_are_in_the_order_of_paths_tasks_and_objectives(tmp_path: Path) -> None:
    families = [made.write_family(tmp_path, family=name, images=6, seed=seed) for seed, name in enumerate("zay")]
    mixed = [families[1][2], families[0][0], families[1][0], families[0][3], families[2][1]]
    table = hidden.build_table(mixed)
    turns = list(dict.fromkeys(zip(table["family"], table["hidden"], strict=True)))
    assert turns == [("a", "shape"), ("a", "size"), ("z", "shape"), ("z", "pose"), ("y", "colour")]
    summary = hidden_summary.build_table(mixed)
    assert summary.groupby("family", sort=False)["turns"].first().to_dict() == {"a": 2, "z": 2, "y": 1}
    pd.testing.assert_frame_equal(
        summary.loc[summary["family"].eq("z")].reset_index(drop=True),
        hidden_summary.build_table([families[0][3], families[0][0]]),
    )
    assert list(dict.fromkeys(hidden.build_forgetting(mixed)["family"])) == ["a", "z", "y"]


def test_attacks_are_in_order_whatever_they_are_called(tmp_path: Path) -> None:
    clean = {task: np.zeros(3) for task in "bca"}
    settings = [
        ("cf", "heads", 0, "linf", 0.1, 5, ()),
        ("cf", "heads", 0, "linf", 0.1, 10, ()),
        ("cf", "heads", 0, "linf", 0.2, 5, ()),
        ("cf", "heads", 0, "l2", 0.1, 5, ()),
        ("cf", "heads", 3, "linf", 0.1, 5, ()),
        ("cf", "backbone", 0, "linf", 0.1, 5, ()),
        ("cf_delta", "heads", 0, "linf", 0.1, 5, ()),
        ("disruption", "", 0, "linf", 0.1, 5, ()),
        ("disruption", "heads", 1, "linf", 0.1, 5, ()),
        ("dgba", "heads", 0, "linf", 0.1, 5, ("b", "a")),
        ("total", "backbone", 0, "linf", 0.1, 5, ("b", "a")),
        ("single", "heads", 0, "linf", 0.1, 5, ("b",)),
        ("single", "heads", 0, "linf", 0.1, 5, ("a",)),
        ("oracle", "", 0, "linf", 0.1, 5, ("c",)),
        ("noise", "", 0, "linf", 0.1, 1, ()),
    ]
    assert tuple(dict.fromkeys(setting[0] for setting in settings)) == OBJECTIVES
    names = [f"{chr(ord('z') - number)}" for number in range(len(settings))]
    attacks = [
        Attack(objective, clean, access, stealth, norm, epsilon, steps, attacked=attacked, called=name)
        for name, (objective, access, stealth, norm, epsilon, steps, attacked) in zip(names, settings, strict=True)
    ]
    path = made.write_file(tmp_path / "c.h5", clean, attacks, hidden="c")
    table = hidden.build_table([path])
    assert list(table["attack"]) == [name for name in names for _ in clean]
    assert list(table["task"]) == ["b", "c", "a"] * len(names)
    found = hidden_summary.build_table([path])[list(hidden.SETTING)]
    assert list(found.itertuples(index=False, name=None)) == list(dict.fromkeys(setting[:-1] for setting in settings))


def test_forgetting_by_hand(tmp_path: Path) -> None:
    start = {"a": np.array([1.0, 2, 3, NAN]), "b": np.array([2.0, 2, 2, 2])}
    grown = {"a": np.array([2.0, 2, 8, NAN]), "b": np.array([1.0, 1, 2, 2])}
    near, far = np.array([0.0, 0.25, 0.5, 0.25]), np.array([1.0, 2, 1, 4])
    copies = {
        "heads": {10: (grown, far), 0: (start, near * 0), 2: (start, near)},
        "backbone": {0: (grown, near * 0), 1: (start, near)},
    }
    clean = {"a": np.array([4.0, 4, 4, NAN]), "b": np.full(4, 4.0)}
    path = made.write_file(tmp_path / "a.h5", clean, [oracle(clean)], hidden="a", kind="dense", forgetting=copies)
    table = hidden.build_forgetting([path])
    assert list(table.columns) == list(hidden.FORGETTING_COLUMNS)
    named = ["hidden", "access", "epoch", "task", "role", "value", "distance", "n"]
    assert [tuple(row) for row in table[named].itertuples(index=False)] == [
        ("a", "heads", 0, "a", "hidden", 2, 0, 3),
        ("a", "heads", 0, "b", "visible", 2, 0, 4),
        ("a", "heads", 2, "a", "hidden", 2, 0.25, 3),
        ("a", "heads", 2, "b", "visible", 2, 0.25, 4),
        ("a", "heads", 10, "a", "hidden", 4, 2, 3),
        ("a", "heads", 10, "b", "visible", 1.5, 2, 4),
        ("a", "backbone", 0, "a", "hidden", 4, 0, 3),
        ("a", "backbone", 0, "b", "visible", 1.5, 0, 4),
        ("a", "backbone", 1, "a", "hidden", 2, 0.25, 3),
        ("a", "backbone", 1, "b", "visible", 2, 0.25, 4),
    ]
    # Since the copy's own epoch 0, not since the clean errors of the evaluation.
    assert list(table["damage"]) == pytest.approx([0, 0, 0, 0, 100, -25, 0, 0, -50, 100 / 3])


def test_forgetting_of_classes_is_points_of_accuracy(tmp_path: Path) -> None:
    copies = {"backbone": {0: (RIGHT, np.zeros(4)), 1: (WRONG, np.ones(4))}}
    path = made.write_file(tmp_path / "a.h5", RIGHT, [oracle(WRONG)], hidden="a", forgetting=copies)
    table = hidden.build_forgetting([path])
    assert list(table["value"]) == [75, 56.25, 25, 68.75]
    assert list(table["damage"]) == [0, 0, 50, -12.5]


def test_no_evaluation_gives_empty_tables(tmp_path: Path) -> None:
    for build, columns in (
        (hidden.build_table, hidden.COLUMNS),
        (hidden.build_forgetting, hidden.FORGETTING_COLUMNS),
        (hidden_summary.build_table, hidden_summary.COLUMNS),
    ):
        table = build([])
        assert (list(table.columns), len(table)) == (list(columns), 0)
    without_copy = made.write_file(tmp_path / "a.h5", RIGHT, [oracle(WRONG)], hidden="a")
    assert list(hidden.build_forgetting([without_copy]).columns) == list(hidden.FORGETTING_COLUMNS)
    assert hidden.build_forgetting([without_copy]).empty
    assert len(hidden.build_table([without_copy])) == 2


def test_frames_are_copies_with_all_that_a_study_has() -> None:
    frames = made.frames()
    frames.hidden["objective"] = ""
    again = made.frames()
    assert set(again.hidden["objective"]) == set(again.summary["objective"]) == set(OBJECTIVES)
    assert again.summary.groupby("family", sort=False)["kind"].first().to_dict() == {
        "objects": "classes",
        "rooms": "dense",
    }
    strong = again.summary.loc[again.summary["epsilon"].gt(7 / 255) & again.summary["stealth"].eq(0)]
    by_objective = strong.groupby(["family", "objective"])["hidden_damage"].mean()
    for family in ("objects", "rooms"):
        assert by_objective[family].idxmax() == "oracle"
        assert by_objective[family].idxmin() == "noise"
    forgot = again.forgetting.loc[again.forgetting["epoch"].eq(4)].groupby(["family", "role"])["damage"].mean()
    assert (forgot.xs("hidden", level="role") > 5 * forgot.xs("visible", level="role").abs()).all()
