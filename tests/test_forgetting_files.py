"""Files that forgetting leaves: features before and after, the copy and the attacker's own heads; damage to them."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys

import h5py
import pytest
import torch

import forgetting_runs as runs
from damaged_files import check_cuts, count_noticed
from forgetting_runs import PROBING, ROOT, TEST, TRAIN, changed_tensors, is_head, outputs_of, run, tensors_of
from headstrong.configfiles import load, study_files
from headstrong.data.batches import Batches
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.feature_files import FeatureFile
from headstrong.jobs import to_dict
from headstrong.models.partial import load_partial
from headstrong.study import Plan
from job_files import job_file

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return runs.class_setting(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return runs.dense_setting(tmp_path_factory.mktemp("dense"))


@pytest.fixture
def setting(request, classes, dense):
    return {"classes": classes, "dense": dense}[request.param]


BOTH = pytest.mark.parametrize("setting", ["classes", "dense"], indirect=True)


@BOTH
def test_features_are_those_of_the_network_and_of_its_copies(tmp_path, setting):
    """The copy after one epoch is the last one of a run of one epoch."""
    long = setting.changed(epochs=2, curve=(1, 2), batch_size=4)
    paths = {2: run(tmp_path / "long", long), 1: run(tmp_path / "short", long.changed(epochs=1, curve=(1,)))}
    letters = [name for _, names in setting.job.visible for name in names]
    original = load_partial(setting.victim, letters)[0]
    test, train = (_images(setting, place) for place in (setting.test, setting.train))
    with FeatureFile(tmp_path / "long" / "features.h5") as file, torch.no_grad():
        rows = torch.arange(TEST)
        assert (file.epochs, file.count) == ((1, 2), TEST)
        torch.testing.assert_close(file.original(rows), original.features(test))
        copies = {}
        for epoch, path in paths.items():
            copies[epoch] = load_partial(setting.victim, letters)[0]
            copies[epoch].load_state_dict(tensors_of(path, "copy"))
            torch.testing.assert_close(file.forgetful(rows, epoch), copies[epoch].features(test))
        assert torch.equal(file.forgetful(rows), file.forgetful(rows, 2))
        assert torch.equal(file.forgetful(torch.tensor([1, 4])), file.forgetful(rows)[[1, 4]])
        assert not torch.allclose(file.forgetful(rows, 1), file.forgetful(rows, 2))
        direction = (copies[2].features(train) - original.features(train)).mean(dim=0)
        torch.testing.assert_close(file.mean_direction(), direction, rtol=1e-4, atol=1e-5)
        assert file.job == json.dumps(to_dict(long.job), sort_keys=True)
        assert file.weights_sha256 == hashlib.sha256(setting.victim.read_bytes()).hexdigest()


def _images(setting, path):
    if setting.job.kind == "classes":
        return PictureBatches(path, ["size"], "cpu").get(range(TEST if path == setting.test else TRAIN)).images
    return Batches(path, "s", "cpu").get(range(TEST if path == setting.test else TRAIN)).images


@BOTH
def test_own_heads_are_kept_as_they_were_on_the_original_backbone(tmp_path, setting):
    probing = setting.changed(**PROBING, train_heads=True)
    path, copy = run(tmp_path / "a", probing), runs.started(probing)
    for epoch in range(2):
        runs.take_epoch(copy, epoch)
    probed = {name: value for name, value in runs.state_of(copy.network).items() if is_head(name)}
    own, after = tensors_of(path, "own"), tensors_of(path, "copy")
    assert not changed_tensors(own, probed)
    assert changed_tensors(own, {name: after[name] for name in own}), "with train_heads they went on to learn"
    assert not tensors_of(run(tmp_path / "b", setting), "own")


# Damage


@pytest.fixture(scope="module")
def features(tmp_path_factory, classes):
    folder = tmp_path_factory.mktemp("features")
    run(folder, classes.changed(epochs=1, curve=(1,)))
    return folder / "features.h5"


def read_all(path):
    with FeatureFile(path) as file:
        rows = torch.arange(file.count)
        return [file.epochs, file.original(rows), file.forgetful(rows), file.mean_direction()]


def test_a_truncated_file_of_features_is_named(features, tmp_path):
    check_cuts(features, tmp_path, read_all, "forget this task again")


def test_damage_inside_features_is_noticed_or_harmless(features, tmp_path):
    """A byte turned over gives BrokenFileError or the same numbers; never other ones."""
    assert count_noticed(features, tmp_path, read_all, 200) > 20


def test_foreign_and_unfinished_features_are_refused(features, tmp_path):
    def changed(name, change):
        (tmp_path / name).write_bytes(features.read_bytes())
        with h5py.File(tmp_path / name, "a") as file:
            change(file)
        return tmp_path / name

    for broken in (
        changed("foreign.h5", lambda file: file.attrs.modify("format", "headstrong-cache-1")),
        changed("unfinished.h5", lambda file: file.attrs.pop("complete")),
        changed("remembering.h5", lambda file: file.pop("forgetful")),
        changed("undirected.h5", lambda file: file.pop("mean_direction")),
        changed("jobless.h5", lambda file: file.attrs.pop("job")),
    ):
        with pytest.raises(BrokenFileError, match=broken.name):
            read_all(broken)
    with pytest.raises(MissingDataError, match=r"absent\.h5: no such file"):
        FeatureFile(tmp_path / "absent.h5")
    with FeatureFile(features) as file, pytest.raises(BrokenFileError, match=r"features\.h5: forgetful/9"):
        file.forgetful(torch.arange(2), 9)


# The program


def test_the_program_writes_the_copy_its_features_and_a_record(tmp_path, classes, monkeypatch):
    job, victim, train, test = classes
    arguments = ["--job", job_file(to_dict(job)), "--victim", victim, "--train", train, "--test", test]
    arguments += ["--weights", tmp_path / "weights.safetensors", "--features", tmp_path / "features.h5"]
    arguments += ["--history", tmp_path / "history.csv", "--work", tmp_path / "work", "--device", "cpu"]
    program = ROOT / "scripts" / "forget_task.py"
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in (program, *arguments, "--code", "test")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    assert ended.value.code == 0
    run(tmp_path / "here", classes)
    assert outputs_of(tmp_path) == outputs_of(tmp_path / "here")
    record = json.loads((tmp_path / "run.json").read_text())
    for key, path in {"sha256": tmp_path / "weights.safetensors", "victim": victim, "data": train}.items():
        assert record[key] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["job"] == json.loads(json.dumps(to_dict(job)))


def test_a_copy_without_its_access_is_a_mistake_in_one_line(tmp_path, monkeypatch, capsys):
    job = Plan(load(study_files(["quick"]))).hidden.hidden_job("attributes-shape")
    arguments = [
        "--job",
        job_file(to_dict(job)),
        "--victim",
        "a",
        "--test",
        "b",
        "--copy",
        "weights.safetensors",
    ]
    program = ROOT / "scripts" / "evaluate_hidden.py"
    monkeypatch.setattr(sys, "argv", [str(program), *arguments, "--output", str(tmp_path / "hidden.h5")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["error: --copy weights.safetensors: expected ACCESS=FILE, e.g. heads=weights.safetensors"]
    assert not list(tmp_path.iterdir())
