"""Files that are not what their names say: refused in one line that names them, and nothing in them is run."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path

import h5py
import pytest
import torch
from fault_study import MICRO_PLAN, script
from safetensors.torch import save

from headstrong.errors import BrokenFileError
from headstrong.jobs import to_dict
from headstrong.models import load_model
from headstrong.models.classifier import load_classifier
from headstrong.models.store import read_tensors, write_tensors
from headstrong.provenance import ROOT
from job_files import job_file
from training_runs import job_with, run, write_data

MODEL = "combinations-resnet18-sd"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.sprung}",)


def foreign(kind: str, path: Path, good: Path, trap: Path) -> None:
    """Put something else where a good file is."""
    path.unlink(missing_ok=True)
    if kind == "torch pickle":
        torch.save({"weights": Trap(trap)}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(trap)))
    elif kind == "truncated":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "tail lost":
        path.write_bytes(good.read_bytes()[:-1])
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data.pkl", "x")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "hdf5":
        h5py.File(path, "w").close()
    elif kind == "safetensors":
        path.write_bytes(save({"a": torch.zeros(2)}))


KINDS = ["torch pickle", "pickle", "truncated", "tail lost", "zip", "empty", "folder", "hdf5", "safetensors"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small training: data, weights, history."""
    folder = tmp_path_factory.mktemp("good")
    data = write_data(folder / "data.h5", 8)
    run(folder, job_with(), data)
    return folder


def refuse(made: subprocess.CompletedProcess[str], path: Path, output: Path) -> None:
    assert made.returncode in (3, 4), made.stderr  # 3: there is no file, but a folder
    assert "Traceback" not in made.stderr
    errors = [line for line in made.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {path}: ")
    assert not list(output.parent.glob(f"*{output.stem}*"))


@pytest.mark.parametrize("kind", ["torch pickle", "truncated"])
def test_the_program_ends_in_one_line_at_foreign_weights(good, tmp_path, kind):
    weights, output = tmp_path / "weights.safetensors", tmp_path / "out" / "e.h5"
    foreign(kind, weights, good / "weights.safetensors", tmp_path / "sprung")
    job = job_file(to_dict(MICRO_PLAN.evaluation_job(MODEL)))
    result = script(
        "evaluate_model", "--job", job, "--weights", weights, "--data", good / "data.h5", "--output", output
    )
    assert result.returncode == 4
    refuse(result, weights, output)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("load", [load_model, load_classifier, read_tensors])
def test_foreign_weights_are_refused_and_never_run(good, tmp_path, kind, load):
    weights = tmp_path / "weights.safetensors"
    foreign(kind, weights, good / "weights.safetensors", tmp_path / "sprung")
    with pytest.raises(Exception, match=r"weights\.safetensors: ") as caught:
        load(weights)
    assert getattr(caught.value, "code", None) in (3, 4), caught.value
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_data_are_refused(good, tmp_path, kind):
    data = tmp_path / "data.h5"
    foreign(kind, data, good / "data.h5", tmp_path / "sprung")
    with pytest.raises(Exception, match=r"data\.h5: ") as caught:
        run(tmp_path / "out", job_with(), data)
    assert getattr(caught.value, "code", None) in (3, 4), caught.value
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "out" / "weights.safetensors").exists()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
def test_a_foreign_checkpoint_is_named_and_the_training_starts_anew(good, tmp_path, kind, caplog):
    checkpoint = tmp_path / "work" / "last.ckpt"
    checkpoint.parent.mkdir()
    foreign(kind, checkpoint, good / "weights.safetensors", tmp_path / "sprung")
    weights = run(tmp_path, job_with(), good / "data.h5")
    assert f"starting from scratch: checkpoint {checkpoint}" in caplog.text
    assert weights.read_bytes() == (good / "weights.safetensors").read_bytes()
    assert not (tmp_path / "sprung").exists()
    assert not checkpoint.parent.exists()


def test_a_checkpoint_of_another_configuration_is_named_and_not_used(good, tmp_path, monkeypatch, caplog):
    from training_runs import interrupted

    interrupted(tmp_path, good / "data.h5", job_with(seed=8), monkeypatch)
    weights = run(tmp_path, job_with(), good / "data.h5")
    assert "last.ckpt is of another configuration, data, code or device" in caplog.text
    assert weights.read_bytes() == (good / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(good, tmp_path, value):
    tensors, description = read_tensors(good / "weights.safetensors")
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name].view(-1)[3] = value
    write_tensors(tmp_path / "weights.safetensors", tensors, description)
    with pytest.raises(BrokenFileError, match=f"weights.safetensors: {name} holds numbers that are not finite"):
        load_model(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(("letter", "value"), [("d", float("nan")), ("d", float("inf")), ("n", float("-inf"))])
def test_labels_scaled_to_no_numbers_end_the_training_in_one_line(good, tmp_path, letter, value):
    """The labels themselves are whole numbers; what can be changed is their scale."""
    data = tmp_path / "data.h5"
    shutil.copy(good / "data.h5", data)
    with h5py.File(data, "r+") as file:
        file[f"targets/{letter}"].attrs["high"] = value
    with pytest.raises(Exception, match=rf"data\.h5: .*targets/{letter}") as caught:
        run(tmp_path / "out", job_with(tasks="dn"), data)
    assert getattr(caught.value, "code", None) == 4
    assert not (tmp_path / "out" / "weights.safetensors").exists()


PROGRAMS = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_nothing_that_reads_files_can_run_what_is_in_them(path):
    """No pickle; torch.load of tensors alone; np.load of arrays alone; no eval; YAML of plain values."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names} | {
                str(getattr(node, "module", "")).split(".")[0]
            }
            assert not names & {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            # The warm interpreter runs what is a program of its own by itself: the script that asks it to.
            assert called not in ("eval", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle")
            assert called != "exec" or path.name == "warm_server.py"
            assert called != "torch.load" or given.get("weights_only") == "True"
            assert given.get("allow_pickle", "False") == "False"
            assert called != "yaml.load" or "Loader" in ast.unparse(node)
