"""Evaluations of hidden tasks are read as they are, or named with what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import hidden_files as made
from headstrong.analysis import hidden, hidden_summary
from headstrong.analysis.hidden_records import read_turn
from headstrong.errors import BrokenFileError, MissingDataError
from hidden_files import DENSE_RIGHT, DENSE_WRONG, NAN, RIGHT, WRONG, Attack, oracle
from synthetic import one


def change_file(path: Path, where: str, change: object) -> None:
    """Set an attribute ("attribute", "group:attribute") or a data set; None deletes, a function is applied."""
    place, _, attribute = where.partition(":")
    with h5py.File(path, "r+") as file:
        if attribute or place in file.attrs:
            holder, name = (file[place] if attribute else file).attrs, attribute or place
        else:
            holder, name = file, place
        value = holder.get(name)
        if isinstance(value, h5py.Dataset):
            value = value[:]
        if value is not None or name in holder:
            del holder[name]
        if change is not None:
            holder[name] = change(value) if callable(change) else change


CF, SINGLE = "attacks/cf-heads-s0-linf8-10", "attacks/single-heads-b-s0-linf8-10"
ORACLE, NOISE = "attacks/oracle-a-s0-linf8-10", "attacks/noise-s0-linf8-1"
BREAKS: dict[str, tuple[str, object, str]] = {
    "another format": ("format", "headstrong-importance-1", "not an evaluation of a hidden task"),
    "no format": ("format", None, "not an evaluation of a hidden task"),
    "not written to its end": ("complete", 0, "incomplete"),
    "nothing said of its end": ("complete", None, "incomplete"),
    "no family": ("family", None, "incomplete"),
    "no job": ("job", None, "incomplete"),
    "no JSON": ("job", "{", "truncated or foreign"),
    "another kind": ("kind", "words", "the file has the kind 'words', known are classes, dense"),
    "a string of tasks": ("tasks", '"ab"', "tasks is not a list of different names"),
    "a task twice": ("tasks", '["a", "b", "a"]', "tasks is not a list of different names"),
    "numbers for tasks": ("tasks", '["a", 2]', "tasks is not a list of different names"),
    "a hidden task there is none of": ("hidden", "c", "task c cannot be hidden among the tasks a, b"),
    "no visible task": ("tasks", '["a"]', "task a cannot be hidden among the tasks a"),
    "a task without clean errors": ("tasks", '["a", "b", "c"]', "clean errors of a, b, its tasks are a, b, c"),
    "no index": ("index", None, "incomplete"),
    "an index of numbers": ("index", lambda _: np.arange(4), "truncated or foreign"),
    "an image less": ("index", lambda values: values[1:], r"clean/a/error has shape \(4,\), \(3,\) is expected"),
    "no clean errors": ("clean/b/error", None, "incomplete"),
    "no losses": ("clean/b/loss", None, "incomplete"),
    "errors beyond 1": (f"{CF}/a/error", lambda values: values + 0.5, "no share within 0 to 1"),
    "errors below 0": ("clean/a/error", lambda values: values - 0.5, "no share within 0 to 1"),
    "errors that are no numbers": ("clean/b/error", lambda values: values * NAN, "no share within 0 to 1"),
    "errors of another shape": (f"{CF}/b/error", lambda values: values[:, None], r"has shape \(4, 1\)"),
    "losses that are no numbers": (f"{NOISE}/a/loss", lambda values: values * NAN, "not a finite number"),
    "infinite losses": ("clean/a/loss", lambda values: values + math.inf, "not a finite number"),
    "errors of fewer images": (f"{ORACLE}/b/error", lambda values: values[:3], r"shape \(3,\), \(4,\) is expected"),
    "an objective there is none of": (f"{CF}:objective", "hinge", "attack cf-.* the objective 'hinge', known are cf,"),
    "an access there is none of": (f"{CF}:access", "labels", "has the access 'labels', known are '', heads, backbone"),
    "a norm there is none of": (f"{CF}:norm", "l1", "has the norm 'l1'"),
    "no stepper": (f"{CF}:stepper", None, "incomplete"),
    "a radius below 0": (f"{CF}:epsilon", -0.1, "the epsilon -0.1"),
    "a radius that is no number": (f"{CF}:epsilon", NAN, "the epsilon nan"),
    "an infinite radius": (f"{CF}:epsilon", math.inf, "the epsilon inf"),
    "a stealth below 0": (f"{CF}:stealth", -1.0, "the stealth -1"),
    "steps below 0": (f"{CF}:steps", -1, "the number of steps -1"),
    "noise that keeps predictions": (f"{NOISE}:stealth", 1.0, r"\(noise\) cannot have a stealth of 1"),
    "a task attacked for itself that keeps predictions": (f"{SINGLE}:stealth", 0.5, "cannot have a stealth of 0.5"),
    "noise with heads": (f"{NOISE}:access", "heads", "cannot have the access 'heads'"),
    "a copy from nowhere": (f"{CF}:access", "", "cannot have the access ''"),
    "the hidden task attacked as visible": (f"{SINGLE}:attacked", '["a"]', "cannot attack a where a is hidden"),
    "single on none": (f"{SINGLE}:attacked", "[]", "cannot attack no task where a is hidden"),
    "an oracle of a visible task": (f"{ORACLE}:attacked", '["b"]', "cannot attack b where a is hidden"),
    "noise that attacks a task": (f"{NOISE}:attacked", '["b"]', "cannot attack b where a is hidden"),
    "an attacked letter": (f"{ORACLE}:attacked", '"a"', "is not a list of different names"),
    "no sizes": (f"{CF}/linf", None, "incomplete"),
    "sizes below 0": (f"{CF}/l2", lambda values: -values, "l2 holds a negative number"),
    "no attacks": ("attacks", None, "incomplete"),
    "no attack": ("attacks", lambda _: None, "incomplete"),
    "no forgetting": ("forgetting", None, "incomplete"),
    "attacks without their copy": ("forgetting/heads", None, "no copy of access heads"),
    "a copy of no access": ("forgetting/labels/0/distance", np.zeros(4), "copy of access 'labels'"),
    "no epoch 0": ("forgetting/heads/0", None, "forgetting/heads has no epoch 0"),
    "an epoch that is no number": ("forgetting/heads/last/distance", np.zeros(4), "has last, which is no epoch"),
    "an epoch written twice": ("forgetting/heads/00/distance", np.zeros(4), "has 00, which is no epoch"),
    "no distances": ("forgetting/heads/1/distance", None, "incomplete"),
    "a distance below 0": ("forgetting/heads/1/distance", lambda values: values - 3, "distance holds a negative"),
    "a distance that is no number": ("forgetting/heads/1/distance", lambda values: values * NAN, "not a finite number"),
    "a copy without a task": ("forgetting/heads/1/b", None, "incomplete"),
}  # fmt: skip


def small(path: Path, kind: str = "classes") -> Path:
    """Tasks a and b, a hidden; an attack on its own copy, one on a visible task, an oracle and noise; two epochs."""
    clean, after = (RIGHT, WRONG) if kind == "classes" else (DENSE_RIGHT, DENSE_WRONG)
    attacks = [
        Attack("cf", after, "heads"),
        Attack("single", after, "heads", attacked=("b",)),
        oracle(after),
        Attack("noise", clean, steps=1, stepper="noise"),
    ]
    copies = {"heads": {0: (clean, np.zeros(4)), 1: (after, np.full(4, 0.5))}}
    return made.write_file(path, clean, attacks, hidden="a", kind=kind, forgetting=copies)


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    where, change, words = BREAKS[name]
    path = small(tmp_path / "small.h5")
    assert len(hidden.build_table([path])) == 8
    if name == "no attack":
        with h5py.File(path, "r+") as file:
            for attack in list(file["attacks"]):
                del file["attacks"][attack]
    else:
        change_file(path, where, change)
    said = rf"^[^\n]*small\.h5: [^\n]*{words}[^\n]*; delete it and evaluate this family [^\n]*$"
    for build in (hidden.build_table, hidden.build_forgetting, hidden_summary.build_table):
        with pytest.raises(BrokenFileError, match=said):
            build([path])


DENSE_BREAKS = {
    "errors below 0": ("clean/a/error", lambda values: values - 2, "negative or infinite"),
    "infinite errors": (f"{CF}/b/error", lambda values: values + math.inf, "negative or infinite"),
    "an error that an attack takes away": (f"{CF}/b/error", lambda values: [NAN, *values[1:]], "on other images than"),
    "an error that an attack brings": (f"{CF}/a/error", lambda values: np.ones(4), "on other images than"),
    "an error that a copy takes away": ("forgetting/heads/1/b/error", lambda values: values * NAN, "on other images"),
    "losses that are no numbers": (f"{CF}/a/loss", lambda values: [NAN, *values[1:]], "not a finite number"),
}


@pytest.mark.parametrize("name", list(DENSE_BREAKS))
def test_a_broken_file_of_dense_tasks_is_named(tmp_path: Path, name: str) -> None:
    where, change, words = DENSE_BREAKS[name]
    path = small(tmp_path / "small.h5", "dense")
    assert one(hidden.build_table([path]), objective="cf", task="a")["n"] == 3  # holes and errors above 1 are fine
    change_file(path, where, change)
    with pytest.raises(BrokenFileError, match=rf"^[^\n]*small\.h5: [^\n]*{words}[^\n]*; delete it[^\n]*$"):
        read_turn(path)


def test_a_file_that_is_absent_truncated_or_foreign_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.h5: no such evaluation; evaluate this family"):
        hidden.build_table([tmp_path / "none.h5"])
    (tmp_path / "text.h5").write_text("not HDF5")
    whole = small(tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "half"):
        with pytest.raises(BrokenFileError, match=rf"^[^\n]*{name}\.h5: truncated or foreign[^\n]*$"):
            hidden_summary.build_table([tmp_path / f"{name}.h5"])


def test_a_file_without_images_is_named(tmp_path: Path) -> None:
    nothing = {"a": np.zeros(0), "b": np.zeros(0)}
    path = made.write_file(tmp_path / "empty.h5", nothing, [oracle(nothing)], hidden="a")
    with pytest.raises(BrokenFileError, match=r"empty\.h5: holds no image; delete it"):
        read_turn(path)


def test_single_attacks_attack_one_task(tmp_path: Path) -> None:
    clean = {task: np.zeros(3) for task in "abc"}
    for objective, attacked, fine in (("single", "bc", False), ("dgba", "bc", True), ("total", "ba", False)):
        attack = Attack(objective, clean, "heads", attacked=tuple(attacked))
        path = made.write_file(tmp_path / f"{objective}.h5", clean, [attack], hidden="a")
        if fine:
            assert read_turn(path).attacks[0].attacked == ("b", "c")
        else:
            with pytest.raises(BrokenFileError, match=f"cannot attack {', '.join(attacked)} where a is hidden"):
                read_turn(path)


def test_an_attack_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = small(tmp_path / "small.h5")
    with h5py.File(path, "r+") as file:
        file.copy(CF, "attacks/copy")
        file["attacks/copy"].attrs["stepper"] = "mim"  # the tables do not tell steppers apart
    with pytest.raises(BrokenFileError, match=r"small\.h5: cf-heads-s0-linf8-10 and copy differ in stepper"):
        hidden.build_table([path])
    change_file(path, "attacks/copy:steps", 20)
    assert len(hidden.build_table([path])) == 10


DISAGREEMENTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "data set": (lambda path: change_file(path, "dataset", "photographs"), "has other data set than"),
    "tasks": (lambda path: change_file(path, "tasks", '["b", "a"]'), "has other tasks than"),
    "kind": (lambda path: change_file(path, "kind", "dense"), "has other kind than"),
    "images": (lambda path: change_file(path, "index", lambda names: [b"other", *names[1:]]), "has other images than"),
    "epsilon": (lambda path: change_file(path, f"{NOISE}:epsilon", 0.5), "has other attacks than"),
    "stepper": (lambda path: change_file(path, f"{CF}:stepper", "mim"), "has other attacks than"),
    "an attack less": (lambda path: change_file(path, NOISE, None), "has other attacks than"),
    "the same task": (lambda path: change_file(path, "hidden", "b"), "with task b hidden stands in .*second"),
}


@pytest.mark.parametrize("name", list(DISAGREEMENTS))
def test_files_of_a_family_agree(tmp_path: Path, name: str) -> None:
    change, words = DISAGREEMENTS[name]
    first, second = small(tmp_path / "first.h5"), small(tmp_path / "second.h5")
    with h5py.File(second, "r+") as file:
        file.attrs["hidden"] = "b"
        file[ORACLE].attrs["attacked"] = '["b"]'
        file[SINGLE].attrs["attacked"] = '["a"]'
    assert list(dict.fromkeys(hidden.build_table([second, first])["hidden"])) == ["a", "b"]
    change(first)
    if name == "the same task":
        with h5py.File(first, "r+") as file:
            file[ORACLE].attrs["attacked"], file[SINGLE].attrs["attacked"] = '["b"]', '["a"]'
    with pytest.raises(BrokenFileError, match=rf"^[^\n]*first\.h5: [^\n]*{words}[^\n]*$"):
        hidden.build_table([second, first])
    with h5py.File(first, "r+") as file:
        file.attrs["family"] = "another"
    assert list(dict.fromkeys(hidden.build_table([second, first])["family"])) == ["family", "another"]


def test_records_hold_what_the_file_says(tmp_path: Path) -> None:
    path = made.write_family(tmp_path, "dense", images=8)[1]
    turn = read_turn(path)
    assert (turn.family, turn.kind, turn.hidden, turn.dataset) == ("rooms", "dense", "d", "rooms")
    assert (turn.tasks, turn.visible, turn.job["hidden"]) == (("s", "d", "n"), ("s", "n"), "d")
    assert turn.index[:2] == ("image-0", "image-1")
    assert list(turn.forgetting) == ["heads", "backbone"]
    assert list(turn.forgetting["heads"]) == list(made.EPOCHS)
    single = [attack.attacked for attack in turn.attacks if attack.objective == "single"]
    assert single[:2] == [("s",), ("n",)]
    with h5py.File(path) as file:
        for attack in turn.attacks:
            group = file[f"attacks/{attack.name}"]
            assert np.array_equal(attack.linf, group["linf"][:])
            assert np.array_equal(attack.l2, group["l2"][:])
            assert attack.stepper == group.attrs["stepper"]
            for task, record in attack.tasks.items():
                assert np.array_equal(record.error, group[f"{task}/error"][:], equal_nan=True)
                assert np.array_equal(record.loss, group[f"{task}/loss"][:], equal_nan=True)
