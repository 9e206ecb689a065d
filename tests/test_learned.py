"""One flag for what was not learned: an accuracy that is not clearly above that of the majority class."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import hidden_files as made
from headstrong.analysis import hidden, hidden_summary
from headstrong.learned import learned
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
