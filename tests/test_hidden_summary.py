"""Damage averaged over which task is hidden: known files give known means and errors."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

import hidden_files as made
from headstrong.analysis import hidden, hidden_summary
from headstrong.report import hidden_blocks
from hidden_files import NAN, Attack, deviation, only, oracle, stored
from synthetic import one


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_the_summary_averages_the_rows_of_hidden(tmp_path: Path, kind: str) -> None:
    paths = made.write_family(tmp_path, kind, images=25, seed=4)
    rows, summary = hidden.build_table(paths), hidden_summary.build_table(paths)
    assert list(summary.columns) == list(hidden_summary.COLUMNS)
    assert summary["turns"].eq(len(paths)).all()
    for _, row in summary.iterrows():
        mine = rows.loc[np.logical_and.reduce([rows[name].eq(row[name]) for name in hidden.SETTING])]
        damages, visible, worst = [], [], []
        for path in paths:
            turn = mine.loc[mine["hidden"].eq(path.stem)]
            attacks = list(dict.fromkeys(turn["attack"]))
            assert len(attacks) == (len(paths) - 1 if row["objective"] == "single" else 1)
            own = {
                task: statistics.fmean(one(turn, attack=attack, task=task)["damage"] for attack in attacks)
                for task in dict.fromkeys(turn["task"])
            }
            damages.append(own.pop(path.stem))
            visible.append(statistics.fmean(own.values()))
            worst.append(max(own.values()))
        expected = [statistics.fmean(values) for values in (damages, visible, worst)]
        assert [row["hidden_damage"], row["visible_damage"], row["visible_worst"]] == pytest.approx(expected, abs=1e-9)
        threat = {"norm": row["norm"], "epsilon": row["epsilon"]}
        quiet = one(summary, objective="noise", **threat)
        noise = quiet["hidden_damage"]
        best = one(summary, objective="oracle", stealth=row["stealth"], **threat)["hidden_damage"]
        assert (row["noise_damage"], row["oracle_damage"]) == (noise, best)
        assert row["oracle_share"] == pytest.approx(row["hidden_damage"] / best)
        # A ratio only to what is clearly above zero.
        ratios = {"over_noise": (row["hidden_damage"], quiet), "visible_share": (row["visible_damage"], row)}
        for name, (damage, other) in ratios.items():
            clear = other["hidden_damage"] > 1.96 * other["hidden_damage_error"]
            assert row[name] == pytest.approx(damage / other["hidden_damage"] if clear else NAN, nan_ok=True)


def resampled(paths: Sequence[Path], kind: str, names: Sequence[Callable[[str], str]], role: str, draws: int) -> float:
    """Deviation over bootstrap resamples of the images, the same in all files, of the mean damage.

    names: of the attacks that are averaged, by the hidden task.
    """
    found = [(path.stem, stored(path)) for path in paths]
    count = len(next(iter(found[0][1]["clean"].values())))
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        chosen = rng.integers(count, size=count)
        turns = []
        for task, situations in found:
            clean = situations["clean"]
            tasks = [task] if role == "hidden" else [other for other in clean if other != task]
            damages = []
            for name, other in itertools.product(names, tasks):
                x = np.array(clean[other])[chosen]
                y = np.array(situations[name(task)][other])[chosen]
                x = np.where(np.isnan(y), NAN, x)  # the attack was not made
                before, after = np.nanmean(x), np.nanmean(y)
                damages.append(100 * (after - before) / (1 if kind == "classes" else before))
            turns.append(np.mean(damages))
        means.append(np.mean(turns))
    return float(np.std(means))


def holed(path: Path, task: str, images: Sequence[int]) -> None:
    """Let these images have no valid pixel of a task; where it is attacked, they have no numbers at all."""
    with h5py.File(path, "r+") as file:
        groups = [file["clean"], *file["attacks"].values()]
        groups += [epoch for access in file["forgetting"].values() for epoch in access.values()]
        for group in groups:
            attacked = json.loads(group.attrs.get("attacked", "[]")) == [task]
            for other in json.loads(file.attrs["tasks"]) if attacked else [task]:
                values = group[f"{other}/error"][:]
                values[list(images)] = NAN
                group[f"{other}/error"][:] = values


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_standard_errors_are_those_of_a_bootstrap_over_images(tmp_path: Path, kind: str) -> None:
    budgets = [("linf", 8 / 255)]
    paths = made.write_family(tmp_path, kind, objectives=("oracle",), stealths=(0.0,), budgets=budgets, images=150)
    if kind == "dense":
        # A third of the images counts for one task only: means over different images, in turn and across turns.
        for path in paths:
            holed(path, "d", range(40, 90))
    row = only(hidden_summary.build_table(paths))
    name = f"oracle-{{}}-s0-linf{8:g}-10"
    for role in ("hidden", "visible"):
        drawn = resampled(paths, kind, [name.format], role, draws=1500)
        assert row[f"{role}_damage_error"] == pytest.approx(drawn, rel=0.08)  # 1500 draws: 1.8 % of deviation
    rows = hidden.build_table(paths)
    own = rows.loc[rows["role"].eq("hidden"), "damage_error"]
    # The images serve every turn, so their damages are not independent draws; nor is one turn like another.
    assert row["hidden_damage_error"] < own.mean()
    assert row["n"] == 150


def test_turns_are_paired_by_their_images(tmp_path: Path) -> None:
    """Images that harm every turn alike leave the error as it is; those that harm one and spare the other, none."""
    clean = {"a": np.full(4, 0.5), "b": np.full(4, 0.5)}
    moved = np.array([0.5, 0.0, 0.25, 0.5])
    same = {"a": 0.5 + moved, "b": 0.5 + moved}
    against = {"a": 0.5 + moved, "b": 1 - moved}
    for name, errors, expected in (("same", same, deviation(list(100 * moved))), ("against", against, 0.0)):
        paths = [
            made.write_file(tmp_path / name / f"{task}.h5", clean, [oracle(errors, task)], hidden=task)
            for task in ("a", "b")
        ]
        row = only(hidden_summary.build_table(paths))
        assert row["hidden_damage_error"] == pytest.approx(expected, abs=1e-12)
        assert row["hidden_damage"] == pytest.approx(
            (31.25 + one(hidden.build_table(paths[1:]), task="b")["damage"]) / 2
        )


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_one_turn_is_summed_up_as_it_is(tmp_path: Path, kind: str) -> None:
    tasks = made.TASKS[kind]
    paths = made.write_family(tmp_path, kind, tasks=tasks[-2:], hidden=tasks[-1:], images=30)
    summary, rows = hidden_summary.build_table(paths), hidden.build_table(paths)
    assert len(summary) * 2 == len(rows)  # one visible task, so "single" has one attack
    assert summary["turns"].eq(1).all()
    for role in ("hidden", "visible"):
        own = rows.loc[rows["role"].eq(role)]
        assert np.allclose(summary[f"{role}_damage"], own["damage"], rtol=1e-12)
        assert np.allclose(summary[f"{role}_damage_error"], own["damage_error"], rtol=1e-12)
    assert summary["visible_worst"].equals(summary["visible_damage"])
    assert list(summary["n"]) == list(rows.loc[rows["role"].eq("hidden"), "n"])


def test_single_attacks_are_averaged_before_the_worst_task_is_taken(tmp_path: Path) -> None:
    clean = {task: np.zeros(4) for task in "abc"}
    hit = np.array([1.0, 1, 1, 0])
    attacks = [
        Attack("single", {"a": hit * 0.4, "b": hit, "c": hit * 0}, access="heads", attacked=("b",)),
        Attack("single", {"a": hit * 0, "b": hit * 0.2, "c": hit}, access="heads", attacked=("c",)),
    ]
    row = only(hidden_summary.build_table([made.write_file(tmp_path / "a.h5", clean, attacks, hidden="a")]))
    assert row["hidden_damage"] == pytest.approx(75 * 0.2)
    assert row["visible_damage"] == pytest.approx(75 * (1 + 0.2 + 0 + 1) / 4)
    assert row["visible_worst"] == pytest.approx(75 * 0.6)  # of b; the worst of each attack would be 75
    assert row["visible_share"] == pytest.approx(0.55 / 0.2)
    assert row["hidden_damage_error"] == pytest.approx(deviation(list(20 * hit)))
    assert row[["noise_damage", "over_noise", "oracle_damage", "oracle_share"]].isna().all()


def test_turns_weigh_the_same_however_many_attacks_they_have() -> None:
    def damaged(share: float) -> hidden.Change:
        return hidden.change("classes", np.zeros(3), share * np.array([1.0, 1, 0]))

    found = hidden_summary.mean_damage([[damaged(1.0)], [damaged(0.5), damaged(0.25)]])
    assert found.value == pytest.approx(200 / 3 * (1 + 0.375) / 2)
    assert found.error == pytest.approx(deviation([100, 100, 0]) * (1 + 0.375) / 2)
    assert found.n == 3


def harm(share: float) -> dict[str, np.ndarray]:
    return {"a": np.full(2, 0.5 + share), "b": np.full(2, 0.5)}


def test_noise_and_oracle_are_those_of_the_same_threat(tmp_path: Path) -> None:
    clean = harm(0)
    attacks = [
        Attack("cf", harm(0.25), "heads", stealth, norm, epsilon)
        for stealth, norm, epsilon in (
            (0, "linf", 0.1),
            (1, "linf", 0.1),
            (2, "linf", 0.1),
            (0, "l2", 0.1),
            (0, "l2", 1),
        )
    ]
    attacks += [
        Attack("dgba", harm(0.125), "heads", attacked=("b",), epsilon=0.1),
        Attack("noise", harm(0.125), epsilon=0.1, steps=1),
        Attack("noise", harm(-0.125), norm="l2", epsilon=0.1, steps=1),
        oracle(harm(0.5), epsilon=0.1, steps=10),
        oracle(harm(0.375), epsilon=0.1, steps=5),
        oracle(harm(0.4375), epsilon=0.1, stealth=1, steps=40),
        oracle(harm(0.3125), epsilon=0.1, stealth=1, steps=20),
        oracle(harm(0), norm="l2", epsilon=1),
    ]
    table = hidden_summary.build_table([made.write_file(tmp_path / "a.h5", clean, attacks, hidden="a")])

    def compared(**where: object) -> list[float]:
        return list(one(table, **where)[["noise_damage", "over_noise", "oracle_damage", "oracle_share"]])

    linf = {"objective": "cf", "norm": "linf"}
    assert compared(**linf, stealth=0) == [12.5, 2, 50, 0.5]  # the oracle of as many steps
    assert compared(**linf, stealth=1) == [12.5, 2, 43.75, pytest.approx(25 / 43.75)]  # else of the most
    assert compared(**linf, stealth=2)[:2] == [12.5, 2]
    assert np.isnan(compared(**linf, stealth=2)[2:]).all()  # no oracle of this stealth
    assert compared(objective="dgba") == [12.5, 1, 50, 0.25]  # without stealth: the oracle of stealth 0
    few = compared(objective="cf", norm="l2", epsilon=0.1)
    assert few[0] == -12.5
    assert np.isnan(few[1:]).all()  # noise that does no harm is no measure
    none = compared(objective="cf", norm="l2", epsilon=1)
    assert none[2] == 0
    assert np.isnan([none[0], none[1], none[3]]).all()  # noise of another radius does not count
    assert compared(objective="noise", norm="linf")[1] == 1
    assert np.isnan(one(table, objective="oracle", norm="l2")["visible_share"])  # no hidden damage
    assert one(table, objective="cf", norm="l2", epsilon=1)["visible_share"] == 0


def test_a_damage_that_is_not_known_leaves_the_mean_unknown(tmp_path: Path) -> None:
    clean = {"a": np.array([1.0, 2, 3]), "b": np.full(3, NAN), "c": np.array([2.0, 2, 4])}
    after = {"a": np.array([2.0, 2, 4]), "b": np.full(3, NAN), "c": np.array([2.0, 4, 4])}
    paths = [
        made.write_file(tmp_path / f"{task}.h5", clean, [oracle(after, task)], hidden=task, kind="dense")
        for task in ("a", "c", "b")
    ]
    row = only(hidden_summary.build_table(paths))
    unknown = ["hidden_damage", "hidden_damage_error", "visible_damage", "visible_damage_error", "visible_worst"]
    assert row[unknown].isna().all()
    assert (row["turns"], row["n"]) == (3, 3)
    alone = only(hidden_summary.build_table(paths[:1]))
    assert alone["hidden_damage"] == pytest.approx(100 / 3)
    assert math.isnan(alone["visible_damage"])


def test_no_ratio_to_noise_that_is_nothing(tmp_path: Path) -> None:
    """Noise damages of -1.0, -0.5 and +1.5 points average to 5.6e-17 points, and so they did on a real data set."""
    clean = {task: np.full(200, 0.5) for task in "abc"}
    paths = []
    for task, damage in zip("abc", (-0.01, -0.005, 0.015), strict=True):
        noise = Attack("noise", {other: clean[other] + damage * (other == task) for other in "abc"}, steps=1)
        cf = Attack("cf", {other: clean[other] + 0.1 * (other == task) for other in "abc"}, access="heads")
        paths.append(made.write_file(tmp_path / f"{task}.h5", clean, [noise, cf], hidden=task))
    table = hidden_summary.build_table(paths)
    assert np.isnan(one(table, objective="cf")["over_noise"])
    assert np.isnan(one(table, objective="noise")["visible_share"])
    (family,) = hidden_blocks.context({"hidden_summary": table, "hidden": hidden.build_table(paths)})["hidden"]
    assert [line["over_noise"] for line in family["parts"][0]["lines"]] == ["not above noise"] * 2
    assert "not above noise" in family["parts"][0]["says"][1]
    assert "times what noise" not in family["parts"][0]["says"][1]
