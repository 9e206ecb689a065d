"""A result that another was copied over: refused in one line whatever its shapes, and nothing is made of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fault_study
import pytest

import checkout
from headstrong.errors import BrokenFileError
from headstrong.provenance import ROOT, STUDY_VARIABLE, RunRecord

RESULTS = Path("results/faults")
MODEL = RESULTS / "models/combinations-resnet18-sd"
# What is copied over what: weights of another model of the same shapes, a cache of another split and seed.
MISTAKES = {
    "weights": (MODEL / "epoch-1.safetensors", MODEL / "weights.safetensors"),
    "data": (RESULTS / "data/train.h5", RESULTS / "data/test.h5"),
}


@pytest.fixture
def copy(small, tmp_path):
    return checkout.copy(small, tmp_path / "copy")


@pytest.mark.parametrize("kind", MISTAKES)
def test_the_program_refuses_a_file_that_another_was_copied_over(copy, kind):
    source, target = MISTAKES[kind]
    shutil.copy(copy / source, copy / target)
    job = fault_study.SMALL.removesuffix(".h5") + ".json"  # a run record is as good as a job file
    line = [
        sys.executable, ROOT / "scripts/evaluate_model.py", "--job", job, "--weights", MODEL / "weights.safetensors",
        "--data", RESULTS / "data/test.h5", "--output", "out/e.h5", "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HEADSTRONG_RUN": ""}
    found = subprocess.run(line, cwd=copy, env=environment, capture_output=True, text=True)
    assert found.returncode == 4, found.stderr
    assert found.stderr.splitlines()[-1].startswith(f"error: {target}: not the file that its record ")
    assert found.stderr.count("error: ") == 1
    assert not (copy / "out").exists()


def test_the_workflow_refuses_it_and_makes_it_again_once_it_is_gone(copy, small):
    source, target = MISTAKES["data"]
    shutil.copy(copy / source, copy / target)
    found = checkout.snakemake(copy, *fault_study.TARGET, study="faults")
    assert found.returncode == 1
    log = (copy / RESULTS / "logs/evaluate_model/combinations-resnet18-sd.log").read_text()
    assert log.splitlines()[-1].startswith(
        f"error: {target}: not the file that its record {target.with_suffix('.json')}"
    )
    assert "Traceback" not in log
    assert not (copy / fault_study.SMALL).exists()
    for path in (target, target.with_suffix(".json")):
        (copy / path).unlink()
    checkout.run(copy, *fault_study.TARGET, study="faults")
    fault_study.check_same(copy, fault_study.results(small))


def made(folder: Path, name: str, content: str, record: str = "") -> Path:
    """A result with its record."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with RunRecord(folder / (record or Path(name).with_suffix(".json")), outputs=[path]):
        return path


def read(path: Path) -> None:
    with RunRecord(path.with_name("reader.json"), inputs=[path]):
        pass


NAMES = [
    ("evaluations/a.h5", ""),
    ("models/a/weights.safetensors", "models/a/run.json"),
    ("choices/a.json", "choices/a.run.json"),
]


@pytest.mark.parametrize(("name", "record"), NAMES)
def test_results_of_every_kind_are_known_by_their_records(tmp_path, name, record):
    path = made(tmp_path, name, "{}", record)
    read(path)
    path.write_text("[]")
    with pytest.raises(BrokenFileError, match=rf"{path.name}: not the file that its record .*delete both"):
        read(path)
    assert not path.with_name("reader.json.part").exists()


def test_a_folder_copied_over_another_is_known_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STUDY_VARIABLE, json.dumps({"folder": "results/x", "config": None}))
    folder = Path("results/x")
    made(folder, "models/a/weights.safetensors", "a", "models/a/run.json")
    moved = Path(shutil.copytree(folder / "models/a", folder / "models/b")) / "weights.safetensors"
    with pytest.raises(BrokenFileError, match=r"models/b/weights\.safetensors: its record .* says it is .*models/a/"):
        read(moved)
    monkeypatch.delenv(STUDY_VARIABLE)
    read(moved)  # by hand a copy may lie anywhere


def test_a_study_that_moved_as_a_whole_is_true_to_its_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STUDY_VARIABLE, json.dumps({"folder": "results/x", "config": None}))
    made(Path("results/x"), "models/a/weights.safetensors", "a", "models/a/run.json")
    Path("results/x").rename("results/y")
    read(Path("results/y/models/a/weights.safetensors"))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": "headstrong-record-1"}', '{"format": "other"}', "null"])
def test_what_is_no_record_vouches_for_nothing(tmp_path, content):
    (tmp_path / "a.h5").write_text("a")
    (tmp_path / "a.json").write_text(content)
    read(tmp_path / "a.h5")
