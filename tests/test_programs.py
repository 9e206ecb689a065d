"""The programs a user types: every rule has one, each explains itself, and mistakes end in one line and a code."""

import subprocess
import sys

import pytest

import checkout
from headstrong.provenance import ROOT
from headstrong.study import COLUMNS

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
RULES = checkout.rules_with_programs()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=env)


BY_HAND = {"apply_perturbation"}  # for pictures of other people, which no workflow knows


def test_every_rule_has_a_script_of_its_name_and_every_script_a_rule():
    assert sorted(RULES) == sorted(set(SCRIPTS) - BY_HAND)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_a_script_does(script):
    result = run(f"scripts/{script}.py", "--help")
    assert result.returncode == 0, result.stderr
    docstring = (ROOT / "scripts" / f"{script}.py").read_text().split('"""')[1].splitlines()[0]
    assert docstring in result.stdout


@pytest.mark.parametrize(
    ("settings", "code", "expected"),
    [
        ('{"source": "nyuv2", "split": "test", "size": [32, 32], "count": 2, "classes": 13}', 3, "nyuv2"),
        ("@absent.json", 2, "absent.json"),
    ],
)
def test_a_users_mistake_is_one_line_and_a_code(tmp_path, settings, code, expected):
    output = tmp_path / "out.h5"
    result = run(
        "scripts/build_data.py", "--output", str(output), "--settings", settings, HEADSTRONG_REAL_DATA=str(tmp_path)
    )
    assert result.returncode == code
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("{'id'", "--job: expected JSON, or @FILE"),
        ('{"id": "x"}', "--job: not a job of this program (KeyError: 'attacks')"),
        ('{"attacks": [], "colour": "red"}', "colour"),
        ("[]", "--job: not a job of this program"),
    ],
)
def test_a_job_that_is_none_is_one_line(tmp_path, job, expected):
    given = ["--weights", "w", "--data", "d", "--output", str(tmp_path / "out.h5"), "--device", "cpu"]
    result = run("scripts/evaluate_model.py", "--job", job, *given)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: --job: ")
    assert expected in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--tables", "colours.csv"],
            "--tables: colours.csv: nothing is drawn from a table of this name here; generated",
        ),
        (["--tables", "settings.csv"], "--tables: settings.csv"),
        (["--vulnerability", "vulnerability.csv"], "--vulnerability, --plan, --surrogates: give all three"),
    ],
)
def test_figures_of_unknown_tables_are_one_line(tmp_path, arguments, expected):
    result = run("scripts/draw_figures.py", *arguments, "--attack", "{}", "--output", str(tmp_path / "figures"))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {expected}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["x", "3", "three=a.safetensors", "3="])
def test_a_snapshot_that_is_none_is_refused(tmp_path, given):
    paths = ["--data", "d", "--weights", str(tmp_path / "w"), "--history", str(tmp_path / "h"), "--work", str(tmp_path)]
    result = run("scripts/train_model.py", "--job", "{}", *paths, "--snapshot", given)
    assert result.returncode == 2
    assert f"{given!r}: expected EPOCH=PATH" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_weights_file_that_is_none_is_refused(tmp_path):
    fake = tmp_path / "weights.safetensors"
    fake.write_bytes(b"\x80\x04pickle")
    job = (
        '{"id": "x", "tasks": "s", "attacks": [], "samples": null, "batch_size": 4, "error_pixels": "valid", '
        '"miou": "labelled", "loss_pixels": "valid", "class_weights": "uniform", "precision": "float32", "seed": 0}'
    )
    result = run(
        "scripts/evaluate_model.py", "--job", job, "--weights", str(fake), "--data", str(tmp_path / "no.h5"),
        "--output", str(tmp_path / "out.h5"), "--device", "cpu",
    )  # fmt: skip
    assert result.returncode == 4
    assert str(fake) in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out.h5").exists()


def test_plan_pipes_into_head_without_a_complaint():
    command = f"{sys.executable} -m headstrong plan --study full | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stdout == ",".join(COLUMNS) + "\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    "command",
    [["-m", "headstrong", "plan", "--study", "full", "--count"], ["scripts/collect_vulnerability.py", "--help"]],
)
def test_commands_of_the_readme_need_no_path_to_the_package(command):
    env = {"PATH": "/usr/bin:/bin"}
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_make_study_of_an_unknown_study_is_one_line():
    result = subprocess.run(["make", "study", "STUDY=typo"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "studies/typo.yaml" in errors[0]


SUMS = """
import sys
from headstrong import program
import numpy as np
vectors = np.random.default_rng(0).normal(size=(40, 2, 12288))  # long enough for two threads to share one
print([float(first @ second).hex() for first, second in vectors])
"""


def test_sums_are_rounded_alike_however_many_threads_the_environment_gives():
    said = {run("-c", SUMS, OPENBLAS_NUM_THREADS=number, MKL_NUM_THREADS=number).stdout for number in ("1", "2", "4")}
    assert len(said) == 1
    assert "0x" in said.pop()
