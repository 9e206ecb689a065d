"""NaN and infinity, wherever they come in: one line that names file or task and row, code 4 or 5, and no result."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import classifier_runs
import evaluation_runs
import forgetting_runs
import generated_runs
import hidden_files
import hidden_runs
import importance_files
import importance_runs
import training_runs
import victim_runs
from headstrong import class_choice, importance
from headstrong.analysis.generated_records import read_family
from headstrong.analysis.hidden_records import read_turn
from headstrong.analysis.importance_records import read_study
from headstrong.analysis.vulnerability import build_table
from headstrong.errors import UserError
from headstrong.models.store import read_tensors, write_tensors

HUGE = 3e38  # a number, and infinite as soon as two of them are added


@contextlib.contextmanager
def one_line(code: int, said: str, output: Path):
    """The block ends in one line that says this, with this exit code, and leaves no result."""
    with pytest.raises(UserError, match=said) as caught:
        yield
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert not output.exists()
    assert not list(output.parent.glob(".*part*"))


def overflowing(weights: Path, to: Path) -> Path:
    """The same network with a first layer of numbers so large that what it makes of an image is none."""
    tensors, description = read_tensors(weights)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name] = torch.full_like(tensors[name], HUGE)
    write_tensors(to, tensors, description)
    return to


def test_a_model_that_overflows_is_named_with_task_and_sample(tmp_path):
    good = training_runs.run(tmp_path / "run", training_runs.job_with(), training_runs.write_data(tmp_path / "a.h5", 8))
    job = evaluation_runs.make_job(id="pair", tasks="sd", attacks=())
    with one_line(
        5, r"model 'pair', clean images: the loss of task '[sd]' is (nan|inf) on sample 0", tmp_path / "e.h5"
    ):
        evaluation_runs.run(job, overflowing(good, tmp_path / "w.safetensors"), tmp_path / "a.h5", tmp_path / "e.h5")


def test_a_victim_that_overflows_ends_the_training_of_its_generators(tmp_path):
    weights, data = victim_runs.class_victims(tmp_path)
    task = next(iter(weights))
    spoilt = {**weights, task: overflowing(weights[task], tmp_path / "spoilt.safetensors")}
    with one_line(5, rf"the loss of task {task} became (nan|-?inf) in epoch 1, step 1;", tmp_path / "out/history.csv"):
        victim_runs.run(tmp_path / "out", victim_runs.job_with(), (spoilt, data))


@pytest.mark.parametrize("kind", ["generator", "victim"])
def test_generators_and_victims_that_overflow_are_named_with_task_and_image(tmp_path, kind):
    made = generated_runs.classes_family(tmp_path)
    files = made.generators if kind == "generator" else made.victims
    name = next(key for key in files if "instance" in key) if kind == "generator" else next(iter(files))
    spoilt = {**files, name: overflowing(files[name], tmp_path / "spoilt.safetensors")}
    made = dataclasses.replace(made, **{f"{kind}s": spoilt})
    with one_line(5, r"the loss of task '\w+' of 'own' is (nan|inf) on image 0", tmp_path / "out" / "family.h5"):
        made.evaluate(tmp_path / "out")


def test_a_network_that_overflows_cannot_forget(tmp_path):
    setting = forgetting_runs.class_setting(tmp_path)
    spoilt = setting._replace(victim=overflowing(setting.victim, tmp_path / "spoilt.safetensors"))
    with one_line(5, r"the loss of task \w+ became (nan|inf) in epoch 1, step 1;", tmp_path / "out" / "features.h5"):
        forgetting_runs.run(tmp_path / "out", spoilt)


@pytest.mark.parametrize("name", ["original", "forgetful/1", "forgetful/2", "mean_direction"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_named_with_their_row(tmp_path, name, value):
    made = hidden_runs.families()["classes"]
    weights, features = made.forgettings["heads"]
    spoilt = tmp_path / "features.h5"
    shutil.copy(features, spoilt)
    with h5py.File(spoilt, "r+") as file:
        place = (3, *([0] * (file[name].ndim - 1))) if name != "mean_direction" else (0,) * file[name].ndim
        file[name][place] = value
    made = dataclasses.replace(made, forgettings={"heads": (weights, spoilt)})
    job = hidden_runs.hidden_job(made, [hidden_runs.attack("cf")])
    where = name if name == "mean_direction" else f"{name}, row 3"
    with one_line(4, rf"features\.h5: {where} holds numbers that are not finite", tmp_path / "out" / "turn.h5"):
        hidden_runs.evaluate(made, job, tmp_path / "out" / "turn.h5")


def test_a_network_that_overflows_is_named_where_a_task_is_hidden(tmp_path):
    made = dataclasses.replace(hidden_runs.families()["dense"], forgettings={})
    made = dataclasses.replace(made, victim=overflowing(made.victim, tmp_path / "spoilt.safetensors"))
    job = hidden_runs.hidden_job(made, [])
    with one_line(5, r"clean images: the loss of task '\w' is (nan|inf) on image 0", tmp_path / "out" / "turn.h5"):
        hidden_runs.evaluate(made, job, tmp_path / "out" / "turn.h5")


@pytest.fixture(scope="module")
def favouring(tmp_path_factory):
    folder = tmp_path_factory.mktemp("favouring")
    data = importance_runs.pictures(folder)
    weights = importance_runs.train(folder, importance_runs.job("ce"), data["train"])
    return folder, data, weights


def test_a_classifier_that_overflows_ranks_no_classes(favouring, tmp_path):
    _, data, weights = favouring
    spoilt = overflowing(weights, tmp_path / "spoilt.safetensors")
    output = tmp_path / "out" / "classes.json"
    with one_line(5, r"spoilt\.safetensors: what it says of picture 0 of .*validation\.h5 is not finite", output):
        class_choice.choose(
            importance_runs.choice_settings(), [spoilt], data["validation"], output, tmp_path / "out" / "recall.csv",
            device="cpu", batch_size=4,
        )  # fmt: skip
    assert not (tmp_path / "out" / "recall.csv").exists()


def test_a_trial_that_overflows_is_named_with_split_and_picture(favouring, tmp_path):
    _, data, weights = favouring
    choice = tmp_path / "classes.json"
    class_choice.choose(
        importance_runs.choice_settings(), [weights], data["validation"], choice, tmp_path / "recall.csv",
        device="cpu", batch_size=4,
    )  # fmt: skip
    trial = weights.parent.name
    (tmp_path / trial).mkdir()
    overflowing(weights, tmp_path / trial / "weights.safetensors")
    job = importance.ImportanceJob(
        "squares", "colour", (("worst1", ()), ("named", ("blue",))), "validation", (trial,), 0.5, 4
    )
    output = tmp_path / "out" / "family.h5"
    with one_line(5, rf"{trial}, test: the angle of picture 0 is not a number", output):
        importance.evaluate(job, tmp_path, {"test": data["test"]}, choice, output, device="cpu", threads=1, code="c")


# --- tables: a number that cannot be is named, never averaged ---------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["clean/s/loss", "attacks/{}/d/loss", "attacks/{}/d/error", "attacks/{}/linf"])
def test_tables_of_models_refuse_losses_that_are_no_numbers(results, tmp_path, place, value):
    folder = tmp_path / "evaluations"
    shutil.copytree(results / "evaluations", folder)
    path = next(path for path in sorted(folder.glob("*.h5")) if {"s", "d"} <= set(h5py.File(path).attrs["tasks"]))
    with h5py.File(path, "r+") as file:
        file[place.format(next(iter(file["attacks"])))][0] = value
    with one_line(4, rf"{path.name}: .*(not a finite number|not a number)", tmp_path / "none"):
        build_table(folder, results / "plan.csv")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tables_of_generators_refuse_losses_that_are_no_numbers(tmp_path, value):
    path = generated_runs.classes_family(tmp_path).evaluate(tmp_path)
    read_family(path)
    with h5py.File(path, "r+") as file:
        file["clean/own/studio/loss"][1] = value
    with one_line(
        4, r"family\.h5: /clean/own/studio/loss holds a value that is not a finite number", tmp_path / "none"
    ):
        read_family(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["clean/a/loss", "clean/a/error"])
def test_tables_of_hidden_tasks_refuse_numbers_that_are_none(tmp_path, place, value):
    path = hidden_files.write_file(
        tmp_path / "turn.h5", hidden_files.RIGHT, [hidden_files.Attack("noise", hidden_files.WRONG)], hidden="a"
    )
    read_turn(path)
    with h5py.File(path, "r+") as file:
        file[place][1] = value
    with one_line(4, rf"turn\.h5: /{place} holds", tmp_path / "none"):
        read_turn(path)


def test_tables_of_important_classes_refuse_angles_that_are_no_numbers(tmp_path):
    path = importance_files.write_evaluation(tmp_path / "family.h5")
    with h5py.File(path, "r+") as file:
        trial = next(iter(file["trials"]))
        file[f"trials/{trial}/test/angle"][2] = np.nan
    with one_line(4, r"family\.h5: .*test/angle holds an angle", tmp_path / "none"):
        read_study(path)


def test_pictures_of_a_class_that_is_none_are_refused(tmp_path):
    data = classifier_runs.write_squares(tmp_path / "squares.h5", 8)
    with h5py.File(data, "r+") as file:
        label = next(iter(file["labels"]))
        file[f"labels/{label}"][2] = 99
    with one_line(4, rf"squares\.h5: {label} has classes 0\.\.99", tmp_path / "out" / "weights.safetensors"):
        classifier_runs.run(tmp_path / "out", classifier_runs.job_with(), data)
