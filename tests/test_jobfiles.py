"""Jobs are files: what their names say, when they are written and removed, and a job too long for a command line."""

import json
import re
import shutil
from pathlib import Path

import pytest

import checkout
from headstrong.jobfiles import JobFiles

# 702 attacks on one model: 13 radii, 6 numbers of steps, 5 balancers; one of these attacks each of the 5 tasks alone.
WIDE = checkout.only("""
study: {name: wide}
data: {size: [32, 32], train: 4, test: 1, antialias: 1}
tasks: sdDnE
plan: {five: {}}
generators: null
importance: null
hidden: null
chains: []
model: {width: 0.0625}
training: {epochs: 1, batch_size: 4}
attacks:
  pgd:
    balancer: [single, total, sign_sum, wgd, dgba]
    epsilon: [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01, 0.011, 0.012, 0.013]
    steps: [1, 2, 3, 4, 5, 6]
analysis: {steps: 1, epsilon: 0.001, bootstrap: 50}
""")
MODEL = "five-resnet18-sd_Dn_E"
LONGEST_ARGUMENT = 128 * 1024  # of Linux


@pytest.fixture
def files(tmp_path):
    return JobFiles(tmp_path / "jobs", lambda: True)


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_the_name_changes_exactly_when_the_content_does(files):
    first = files.settings("train", "m", {"epochs": 3, "seed": 0})
    assert first == files.settings("train", "m", {"seed": 0, "epochs": 3})
    assert first != files.settings("train", "m", {"seed": 0, "epochs": 4})
    assert re.fullmatch(r"m-[0-9a-f]{16}\.json", Path(first).name)


def test_a_plan_writes_nothing(tmp_path):
    files = JobFiles(tmp_path / "jobs", lambda: False)
    files.settings("train", "m", {"epochs": 3})
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_written_again_and_a_whole_one_left_alone(files):
    path = Path(files.arguments("draw", "all", ["--generated", "a b.h5"]))
    assert path.read_text() == "--generated\na b.h5\n"
    before = path.stat().st_ino
    files.arguments("draw", "all", ["--generated", "a b.h5"])
    assert path.stat().st_ino == before
    path.write_text("")
    files.arguments("draw", "all", ["--generated", "a b.h5"])
    assert path.read_text() == "--generated\na b.h5\n"


def test_files_of_jobs_that_are_gone_are_removed(files, tmp_path):
    long = "ü" * 120  # its name in bytes would not fit into a file name
    kept = [files.settings("train", name, {}) for name in ("a", long)] + [files.text("config", "all", "x", ".yaml")]
    files.settings("train", "removed-from-the-plan", {})
    (Path(kept[0]).parent / ".a-0123.part.json").write_text("{")  # of a killed writer
    later = JobFiles(tmp_path / "jobs", lambda: True)
    later.tidy({"train": ["a", long]})
    assert listed(tmp_path) == {Path(path).name for path in kept}
    # Another job of that name replaces the file, but only when it runs.
    replaced = later.settings("train", "a", {"epochs": 4})
    assert listed(tmp_path) == {Path(path).name for path in (replaced, *kept[1:])}


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "jobs").write_text("")
    path = JobFiles(tmp_path / "jobs", lambda: True).settings("train", "m", {})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert path.startswith(f"{tmp_path}/jobs/train/m-")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    folder = checkout.make(tmp_path_factory.mktemp("wide") / "headstrong", WIDE)
    checkout.run(folder, "--", f"results/wide/evaluations/{MODEL}.h5", study="wide")
    return folder


def job_of(folder: Path) -> Path:
    (found,) = (folder / "work" / "wide" / "jobs" / "evaluate_model").iterdir()
    return found


def test_a_job_may_be_longer_than_an_argument(wide):
    assert job_of(wide).stat().st_size > LONGEST_ARGUMENT
    record = json.loads((wide / f"results/wide/evaluations/{MODEL}.json").read_text())
    assert record["job"] == json.loads(job_of(wide).read_text())
    assert len(record["job"]["attacks"]) == 702
    assert Path(record["command"][record["command"].index("--job") + 1]) == job_of(wide).relative_to(wide)
    log = (wide / f"results/wide/logs/evaluate_model/{MODEL}.log").read_text().splitlines()
    assert log[0].endswith(f" job {job_of(wide).relative_to(wide)}")


def test_every_command_of_a_study_is_short(wide):
    said = checkout.snakemake(wide, "--dry-run", "--forceall", "--printshellcmds", study="wide")
    assert said.returncode == 0, said.stderr
    commands = [line for line in (said.stdout + said.stderr).splitlines() if "python scripts/" in line]
    assert len(commands) > 10
    assert max(map(len, commands)) < 2000


def test_a_failed_job_says_little(wide, tmp_path):
    folder = checkout.copy(wide, tmp_path / "headstrong")
    (folder / "results/wide/models/five-resnet18-sd_Dn_E/weights.safetensors").write_bytes(b"foreign")
    shutil.rmtree(folder / "work")  # as after `rm -r work`: files are written again for the jobs that run
    target = f"results/wide/evaluations/{MODEL}.h5"
    said = checkout.snakemake(folder, "--forcerun", "evaluate_model", "--", target, study="wide")
    assert said.returncode == 1
    assert len(said.stdout + said.stderr) < 6000
    assert job_of(folder).relative_to(folder).as_posix() in said.stdout + said.stderr
    log = (folder / f"results/wide/logs/evaluate_model/{MODEL}.log").read_text().splitlines()
    assert log[-1].startswith("error: ")
    assert listed(folder / "work/wide/jobs") == {job_of(folder).name}


def test_nothing_to_do_needs_no_job_files(wide, tmp_path):
    folder = checkout.copy(wide, tmp_path / "headstrong")
    shutil.rmtree(folder / "work")
    assert checkout.dry_run(folder, "--", f"results/wide/evaluations/{MODEL}.h5", study="wide") == {}
    assert not (folder / "work").exists()
