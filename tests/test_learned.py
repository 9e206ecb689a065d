"""One flag for what was not learned: an accuracy that is not clearly above that of the majority class."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import hidden_files as made
from headstrong.analysis import generated, hidden, hidden_summary, importance
from headstrong.analysis.generated_records import Family, Leaf, Situation
from headstrong.learned import learned
from headstrong.report import generated_blocks
from hidden_files import Attack
from synthetic import one


def test_what_is_clearly_above_the_majority_class_is_learned() -> None:
    majority = np.repeat([1.0, 0.0], [60, 40])
    assert learned(np.repeat([1.0, 0.0], [90, 10]), majority)
    assert not learned(majority, majority)
    assert not learned(np.repeat([1.0, 0.0], [62, 38]), majority)  # two pictures of a hundred: chance
    assert not learned([1.0], [0.0])


def test_tasks_that_were_not_learned_are_named_and_score_nowhere(tmp_path: Path) -> None:
    """Of three tasks c has the accuracy of the majority class: it is neither hidden nor visible and undamaged."""
    right = np.zeros(100)
    clean = {"a": right, "b": right, "c": np.repeat([0.0, 1.0], [60, 40])}
    paths = []
    for task in "abc":
        errors = {other: values + 0.2 * (other == "b") for other, values in clean.items()}
        errors["c"] = clean["c"]
        cf = Attack("cf", errors, access="heads")
        path = made.write_file(tmp_path / f"{task}.h5", clean, [cf], hidden=task)
        with h5py.File(path, "r+") as file:
            for other in "abc":
                file[f"majority/{other}/error"] = np.repeat([0.0, 1.0], [60, 40]).astype(np.float32)
        paths.append(path)
    table = hidden.build_table(paths)
    assert {task: one(table, hidden="a", task=task)["learned"] for task in "abc"} == {"a": "yes", "b": "yes", "c": "no"}
    assert one(table, hidden="a", task="c")["majority"] == 60
    (row,) = hidden_summary.build_table(paths).to_dict("records")
    assert (row["turns"], row["not_learned"]) == (2, "c")
    # a hidden: b loses 20 points; b hidden: a loses none. With c in the mean it would be 10 and 0.
    assert row["visible_damage"] == pytest.approx(10)
    older = [made.write_file(tmp_path / "older" / f"{task}.h5", clean, [cf], hidden=task) for task in "abc"]
    assert hidden.build_table(older)["learned"].eq("").all()
    assert hidden_summary.build_table(older)["turns"].eq(3).all()


def test_a_classifier_of_the_majority_class_is_flagged_where_its_accuracy_stands() -> None:
    truth = np.repeat([0, 1], [60, 40])
    important = np.array([True, False])
    for predicted, flag in ((np.zeros(100, int), "no"), (truth, "yes")):
        found = importance.measures(truth, predicted, np.zeros(100), important)
        assert (found["majority"], found["learned"]) == (60, flag)


def test_a_generator_that_is_no_stronger_than_noise_is_flagged() -> None:
    truth = np.repeat([0, 1], [60, 40])
    said = np.where(np.arange(100) < 90, truth, 1 - truth)

    def situation(method: str, loss: float, generator: str = "", prediction: np.ndarray = said) -> Situation:
        leaf = Leaf(loss + np.linspace(0, 1, 100), prediction, size=None if method == "clean" else np.full(100, 8.0))
        ball = {"norm": "linf", "epsilon": 8.0} if method != "clean" else {}
        goal = {"mode": "universal", "goal": "untargeted", "generator": generator} if generator else {}
        return Situation(method, "own", {"a": leaf}, **ball, **goal)

    situations = [situation("clean", 1), situation("noise", 1.1), situation("gap", 1.1, "weak")]
    situations += [situation("mta", 3, "strong"), situation("clean", 1, prediction=np.zeros(100, int))]
    family = Family(
        "f",
        "classes",
        ("a",),
        "own",
        "objects",
        {},
        "",
        {"a": ("x", "y")},
        {"a": ("",) * 100},
        {"a": truth},
        tuple(situations),
    )
    rows = [row for row in generated.rows(family, draws=2) if row["metric"] == "accuracy"]
    assert [row["learned"] for row in rows] == ["yes", "", "no", "yes", "no"]
    assert {row["majority"] for row in rows} == {60}
    said_on_page = generated_blocks.not_learned(pd.DataFrame(rows))
    assert "a of own" in said_on_page
    assert "weak on a" in said_on_page
    assert "strong on a" not in said_on_page
