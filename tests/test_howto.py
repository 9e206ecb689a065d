"""The how-to guides work: their edits, made in a copy of the checkout, train and attack a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import checkout
import pages
from headstrong.provenance import ROOT
from headstrong.tasks import file_safe

GUIDES = sorted((ROOT / "docs" / "howto").glob("*.md"))
EDITING = ("attack", "stepper", "data", "encoder", "task")
STUDY = """
data: {size: [32, 32]}
chains: [sb]
model: {width: 0.0625}
training: {epochs: 1, batch_size: 4}
analysis: {steps: 2}
attacks: {pgd: {steps: [2]}, firmest: {steps: [2], sections: [plain]}, heavy: {steps: [2], sections: [plain]}}
plan: {plain: {tasks: sb, sizes: [2]}}
generators: null
importance: null
hidden: null
"""
# The jobs that Snakemake starts for the one model of that study, by the programs that it calls.
JOBS = """
import json, runpy, sys
from pathlib import Path
from headstrong.configfiles import load, study_files
from headstrong.jobs import to_dict
from headstrong.study import Plan

plan = Plan(load(study_files(sys.argv[1:])))
(model,) = plan.models

def call(script, **options):
    words = [part for key, value in options.items() for part in (f"--{key}", value)]
    sys.argv = [script, *words]
    try:
        runpy.run_path(f"scripts/{script}.py", run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, script

def write(name, content):
    Path(name).write_text(json.dumps(content))
    return name

for split in ("train", "test"):
    call("build_data", settings=write(f"{split}-settings.json", plan.data_settings(split)), output=f"{split}.h5")
call("train_model", job=write("training-job.json", to_dict(plan.training_job(model.run))), data="train.h5",
     weights="weights.safetensors", history="history.csv", work="work", threads="1")
call("evaluate_model", job=write("evaluation-job.json", to_dict(plan.evaluation_job(model.id))),
     weights="weights.safetensors", data="test.h5", output="evaluation.h5", threads="1")
"""


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the edits of all guides, the studies they name, and a garden of six random images."""
    folder = checkout.make(tmp_path_factory.mktemp("howto") / "checkout")
    for guide in GUIDES:
        pages.apply(guide, folder)
    rng = np.random.default_rng(0)
    for split, number in (("train", 4), ("test", 2)):
        place = folder / "real" / "garden" / split
        place.mkdir(parents=True)
        for i in range(number):
            rgb = rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)
            classes = rng.integers(0, 4, (32, 32), dtype=np.uint8)
            np.savez(place / f"{i}.npz", rgb=rgb, s=classes, d=rng.uniform(1, 5, (32, 32)).astype(np.float32))
    for domain in ("drawings", "photographs"):
        for shade, kind in enumerate(("cat", "dog")):
            place = folder / "real" / "animals" / domain / kind
            place.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((8, 8, 3), 40 * i + 20 * shade, np.uint8)).save(place / f"{i}.png")
    (folder / "src" / "jobs.py").write_text(JOBS)
    (folder / "studies" / "smallest.yaml").write_text(checkout.only(STUDY, ["plan"]))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "HEADSTRONG_REAL_DATA": str(folder / "real")}
    line = [sys.executable, "-m", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("guide", EDITING)
def test_every_example_is_shorter_than_thirty_lines(guide):
    code = [b.text for b in pages.blocks(ROOT / f"docs/howto/{guide}.md") if b.language in ("diff", "python", "yaml")]
    changed = [x for text in code for x in text.splitlines() if x.strip() and not x.startswith((" ", "@@", "---"))]
    assert 0 < len(changed) < 30


@pytest.mark.parametrize("study", ["firmest", "heavy", "plain", "brightness", "garden", "pictures"])
def test_the_studies_that_guides_name_have_a_plan(edited, study):
    result = run(edited, "headstrong", "plan", "--study", study, "--count")
    assert result.returncode == 0, result.stderr
    assert "multi-task" in result.stdout


def test_own_data_task_encoder_and_attack_together(edited):
    overlays = ("firmest", "heavy", "plain", "garden", "brightness", "smallest")
    result = run(edited, "jobs", *overlays)  # one interpreter for all: starting takes longer than anything else here
    assert result.returncode == 0, result.stderr[-3000:]

    raw = np.load(edited / "real" / "garden" / "train" / "2.npz")["rgb"]
    luminance = (0.299 * raw[0] + 0.587 * raw[1] + 0.114 * raw[2]) / 255
    with h5py.File(edited / "train.h5") as file:
        assert json.loads(file.attrs["classes"]) == ["unlabelled", "lawn", "bed", "path"]
        stored = file["targets/b"][2, 0] / 65535 * 2 - 1
    np.testing.assert_allclose(stored, 2 * luminance - 1, atol=2 / 65535)

    with h5py.File(edited / "evaluation.h5") as file:
        for name in ("firmest.firmest.sb.linf.8.2", "heavy.total.sb.linf.8.2"):
            attack = file[f"attacks/{name}"]
            errors = [attack[f"{file_safe(letter)}/loss"][:] for letter in "sb"]
            moved = attack["linf"][:]
            assert np.isfinite(errors).all()
            assert (moved > 0).all()
            assert (moved <= 8 / 255 + 1e-6).all()


def test_code_and_configuration_know_the_same_names_after_the_edits(edited):
    shutil.copy(ROOT / "tests" / "test_names.py", edited)  # beside the edited package: in its place it tests this one
    result = run(edited, "pytest", "-q", "-c", os.devnull, "--rootdir", str(edited), "test_names.py")
    assert result.returncode == 0, result.stdout[-3000:]


def test_own_pictures_are_found(edited):
    result = run(edited, "headstrong", "verify", "folder", "animals")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "drawings" in result.stdout
