"""The programs a user types: every rule has one, each explains itself, and mistakes end in one line and a code."""

import subprocess
import sys
from pathlib import Path

import pytest

import checkout
from headstrong import program
from headstrong.provenance import ROOT
from headstrong.study import COLUMNS
from job_files import job_file

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


NYUV2 = '{"source": "nyuv2", "split": "test", "size": [32, 32], "count": 2, "classes": 13}'
NO_FILE = "no such file or directory; expected the path of a text file"


@pytest.mark.parametrize(
    ("settings", "code", "expected"),
    [
        (None, 3, "nyuv2"),
        ("absent.json", 2, f"--settings absent.json: {NO_FILE}"),
        (NYUV2, 2, f"--settings {NYUV2[:57]}...: {NO_FILE}"),
    ],
)
def test_a_users_mistake_is_one_line_and_a_code(tmp_path, settings, code, expected):
    settings = settings or job_file(NYUV2)
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
        ("{'id'", "expected JSON: "),
        ("", "expected JSON: "),  # as a lost write leaves it
        ('{"id": "x"}', "not a job of this program (KeyError: 'attacks')"),
        ('{"attacks": [], "colour": "red"}', "colour"),
        ("[]", "not a job of this program"),
        ('{"job": []}', "not a job of this program"),
    ],
)
def test_a_mistake_in_a_job_file_is_one_line_with_its_name(tmp_path, job, expected):
    given = ["--weights", "w", "--data", "d", "--output", str(tmp_path / "out.h5"), "--device", "cpu"]
    file = job_file(job)
    result = run("scripts/evaluate_model.py", "--job", file, *given)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: --job {file}: ")
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
        (
            ["--vulnerability", "v.csv", "--plan", "p.csv", "--surrogates", "s.csv"],
            "--settings FILE: attack: expected epsilon, family, norm, steps; found nothing",
        ),
        (["--vulnerability", "vulnerability.csv"], "--vulnerability, --plan, --surrogates: give all three"),
    ],
)
def test_figures_of_unknown_tables_are_one_line(tmp_path, arguments, expected):
    file = job_file({"attack": {}, "chains": [], "look": {}})
    result = run("scripts/draw_figures.py", *arguments, "--settings", file, "--output", str(tmp_path / "figures"))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {expected.replace('FILE', file)}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["x", "3", "three=a.safetensors", "3="])
def test_a_snapshot_that_is_none_is_refused(tmp_path, given):
    paths = ["--data", "d", "--weights", str(tmp_path / "w"), "--history", str(tmp_path / "h"), "--work", str(tmp_path)]
    result = run("scripts/train_model.py", "--job", job_file("{}"), *paths, "--snapshot", given)
    assert result.returncode == 2
    assert f"{given!r}: expected EPOCH=PATH" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def said(tmp_path, *command: str) -> str:
    """What a program ends with that refuses its arguments: one line, code 2, and nothing was written."""
    result = run(*command)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert not list(tmp_path.iterdir())
    return line


@pytest.mark.parametrize(
    ("script", "option", "form"),
    [
        ("evaluate_generators", "--generator", "ID=PATH"),
        ("evaluate_generators", "--victim", "VICTIMS/TASK=PATH"),
        ("evaluate_generators", "--data", "TASK=PATH"),
        ("evaluate_generators", "--train", "TASK=PATH"),
        ("evaluate_hidden", "--copy", "ACCESS=FILE"),
        ("evaluate_importance", "--data", "validation=FILE or test=FILE"),
        ("train_generator", "--victim", "TASK=PATH"),
        ("train_generator", "--data", "TASK=PATH"),
    ],
)
def test_named_paths_are_refused_alike(tmp_path, script, option, form):
    out = str(tmp_path / "out")
    training = ["--victim", "room=v", "--data", "room=d", "--weights", out, "--history", out, "--work", out]
    others = {
        "evaluate_generators": ["--output", out, "--perturbations", out],
        "evaluate_hidden": ["--victim", "v", "--test", "t", "--output", out],
        "evaluate_importance": ["--classes", "c", "--weights", "w", "--output", out],
        "train_generator": training,
    }[script]
    command = [f"scripts/{script}.py", "--job", job_file("{}"), *others, "--device", "cpu", option]
    for mistake in ("studio", "studio=", "=a.h5"):
        assert said(tmp_path, *command, mistake).startswith(f"error: {option} {mistake}: expected {form}")
    name = {"--victim": "own/studio", "--data": "test"}.get(option, "studio")
    twice = said(tmp_path, *command, f"{name}=a.h5", option, f"{name}=b.h5")
    assert twice == f"error: {option} {name}: given twice; give it once"


def test_a_split_that_is_none_is_refused(tmp_path):
    paths = ["--classes", "c", "--weights", "w", "--output", str(tmp_path / "out")]
    line = said(tmp_path, "scripts/evaluate_importance.py", "--job", job_file("{}"), *paths, "--data", "train=a.h5")
    assert line == "error: --data train=a.h5: expected validation=FILE or test=FILE"


@pytest.mark.parametrize("again", ["3", "03"])
def test_a_snapshot_of_one_epoch_given_twice_is_refused(tmp_path, again):
    paths = ["--data", "d", "--weights", str(tmp_path / "w"), "--history", str(tmp_path / "h"), "--work", str(tmp_path)]
    given = ["--snapshot", "3=a.safetensors", "--snapshot", f"{again}=b.safetensors"]
    line = said(tmp_path, "scripts/train_model.py", "--job", job_file("{}"), *paths, *given)
    assert line == "error: --snapshot 3: given twice; give it once"


def test_arguments_in_a_file_stand_where_the_file_is_named(tmp_path):
    file = job_file("--data\nstudio=my pictures (1).h5\n--data\nroom=b.h5\n")
    for given in (["--arguments", file], [f"--arguments={file}"]):
        line = said(
            tmp_path, "scripts/train_generator.py", "--job", "none", "--weights", "w", "--history", "h", "--work", "k",
            "--victim", "room=v", *given, "--data", "studio=again.h5",
        )  # fmt: skip
        assert line == "error: --data studio: given twice; give it once"
    for given, expected in (
        (["--arguments"], "error: --arguments: expected the path of a text file, with one argument per line"),
        (["--arguments", "none.txt"], f"error: --arguments none.txt: {NO_FILE}"),
    ):
        assert said(tmp_path, "scripts/train_generator.py", *given) == expected


def test_named_paths_keep_their_order_and_what_follows_the_first_sign():
    found = program.named_paths("--data", ["b=x/y=1.h5", "a=z"], "TASK=PATH")
    assert list(found.items()) == [("b", Path("x/y=1.h5")), ("a", Path("z"))]


@pytest.mark.parametrize(
    "settings",
    [
        "study: [unfinished",
        "study: {a: }}",
        "\t- x",
        "when: 2024-13-45",
        "{? [a] : b}: c",
        "a: !!python/none x",
        "- a",
        "",
    ],
)
def test_a_configuration_that_is_no_yaml_is_one_line(tmp_path, settings):
    file = job_file(settings)
    line = said(tmp_path, "scripts/write_config.py", "--output", str(tmp_path / "config.yaml"), "--settings", file)
    assert line.startswith(f"error: --settings {file}: expected ")


def test_the_line_of_a_slip_in_a_configuration_file_is_named(tmp_path):
    file = tmp_path / "settings.yaml"
    for content, expected in ((b"study:\n  name: [x\n", "line 3"), (b"a: \xff\n", "utf-8")):
        file.write_bytes(content)
        result = run("scripts/write_config.py", "--output", str(tmp_path / "c.yaml"), "--settings", str(file))
        (line,) = result.stderr.splitlines()
        assert result.returncode == 2
        assert line.startswith(f"error: --settings {file}: ")
        assert expected in line


ATTACK = '"family": "pgd", "norm": "linf", "epsilon": 0.03, "steps": 25, "bootstrap": 9'
OBJECTS = '"source": "objects", "domain": "room", "split": "test", "count": 1, "seed": 0'
ROOMS = '"source": "rooms", "split": "test", "size": [8, 8], "count": 1'
PLAN = '"tasks": "sd", "epochs": 1, "sections": {}, "lambdas": {}'


@pytest.mark.parametrize(
    ("script", "settings", "expected"),
    [
        ("build_pictures", OBJECTS, "size is missing"),
        ("build_pictures", '"source": "objects", "seed": 0', "domain, split, size, count are missing"),
        ("build_pictures", f'{OBJECTS}, "size": 64', "size is 64, expected a list"),
        ("build_data", ROOMS, "seed, antialias are missing"),
        ("build_data", ROOMS.replace("rooms", "room"), "source 'room' is unknown"),
        ("build_data", ROOMS.replace("rooms", "nyuv2"), "classes is missing"),
        ("make_tables", ATTACK, "seed is missing"),
        ("make_tables", '"seed": 0', "family, norm, epsilon, steps, bootstrap are missing"),
        ("make_tables", f'{ATTACK}, "seed": null', "seed is null, expected a whole number"),
        ("make_tables", ATTACK.replace("0.03", "null") + ', "seed": 0', "epsilon is null, expected a number or text"),
        ("judge_claims", '"seed": 0, "bootstrap": 9', "protocol is missing"),
        ("judge_claims", '"seed": 0, "bootstrap": 9, "protocol": "mine"', 'protocol is "mine", expected an object'),
        ("write_plan", PLAN, "seed is missing"),
        ("choose_classes", "", "family, label, important, ranking are missing"),
    ],
)
def test_settings_that_lack_something_are_one_line(tmp_path, script, settings, expected):
    paths = {
        "make_tables": ["--vulnerability", "v.csv", "--plan", "p.csv"],
        "judge_claims": ["--tables", "t.csv"],
        "choose_classes": ["--pictures", "p.h5", "--recall", str(tmp_path / "recall.csv")],
    }.get(script, [])
    file = job_file(f"{{{settings}}}")
    line = said(tmp_path, f"scripts/{script}.py", *paths, "--output", str(tmp_path / "out"), "--settings", file)
    assert line.startswith(f"error: --settings {file}: {expected}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("[]", "expected an object with source, domain, split, size, count, seed, found []"),
        ("[" * 99999, "expected JSON: "),
    ],
)
def test_settings_that_are_none_are_one_line(tmp_path, settings, expected):
    file = job_file(settings)
    line = said(tmp_path, "scripts/build_pictures.py", "--output", str(tmp_path / "out"), "--settings", file)
    assert line.startswith(f"error: --settings {file}: {expected}")


def test_evaluations_without_a_plan_are_one_line(tmp_path):
    given = ["--tables", "t.csv", "--evaluations", "e", "--output", str(tmp_path / "claims.csv")]
    settings = job_file({"seed": 0, "bootstrap": 9, "protocol": {}})
    line = said(tmp_path, "scripts/judge_claims.py", *given, "--settings", settings)
    assert line == "error: --evaluations: --plan is missing; give the plan.csv of the models in that folder"


def test_a_weights_file_that_is_none_is_refused(tmp_path):
    fake = tmp_path / "weights.safetensors"
    fake.write_bytes(b"\x80\x04pickle")
    job = (
        '{"id": "x", "tasks": "s", "attacks": [], "samples": null, "batch_size": 4, "error_pixels": "valid", '
        '"miou": "labelled", "loss_pixels": "valid", "class_weights": "uniform", "precision": "float32", "seed": 0}'
    )
    result = run(
        "scripts/evaluate_model.py", "--job", job_file(job), "--weights", str(fake), "--data", str(tmp_path / "no.h5"),
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
