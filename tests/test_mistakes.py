"""Mistakes at the command line and in config.yaml: one line, the documented exit code, nothing written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

import checkout
import recorded_study
from headstrong import cli, errors
from headstrong.provenance import ROOT

BROKEN = {
    "indented": (b"study:\n  name: quick\n dpi: 200\n", r"config\.yaml: not YAML at line 3: .*indentation"),
    "empty": (b"", r"config\.yaml: empty; expected keys and values"),
    "latin-1": (b'tasks: "s\xe9"\n', r"config\.yaml: cannot be read: .*utf-8"),
    "missing": (None, r"config\.yaml: no such configuration file"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout.make(tmp_path_factory.mktemp("mistakes") / "checkout")


@pytest.mark.parametrize("kind", BROKEN)
def test_snakemake_with_a_broken_config_file_says_which_line(folder, kind):
    content, expected = BROKEN[kind]
    (folder / "config.yaml").unlink(missing_ok=True)
    if content is not None:
        (folder / "config.yaml").write_bytes(content)
    result = checkout.snakemake(folder, "--dry-run", study="")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert re.match(f"error: {expected}", line), result.stderr
    assert result.returncode == errors.ConfigError.code
    assert "Traceback" not in result.stderr
    assert not (folder / "results").exists()


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout.make(tmp_path_factory.mktemp("micro") / "checkout")


def test_settings_of_the_command_line_are_read_as_those_of_a_file(micro):
    """Snakemake itself leaves numbers inside of braces, and nulls, as text."""
    entries = ["data={train: 8, test: 2}", "pictures=null", "classifiers=null", "analysis={bootstrap: 60}"]
    checkout.run(micro, "--config", *entries, "--", "results/micro/config.yaml")
    written = yaml.safe_load((micro / "results/micro/config.yaml").read_text())
    assert (written["data"]["train"], written["data"]["test"], written["analysis"]["bootstrap"]) == (8, 2, 60)
    assert written["pictures"] is None
    assert json.loads((micro / "results/micro/write_config.json").read_text())["config"]["command_line"] == entries
    why = recorded_study.headstrong(micro, "why", "results/micro/config.yaml").stdout
    assert "--config analysis={bootstrap: 60}, sha256" in why
    assert "the same in this checkout" in why.split("configuration ")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("data={train: none}", "data.train: 'none' must be a valid integer"),
        ("training={epochs: 0}", "training.epochs: 0 must be greater than 0"),
        ("attacks={pgd: {stepper: nosuch}}", "attacks.pgd.stepper: 'nosuch' must be"),
        ("trainign={epochs: 1}", "trainign: unknown key"),
        ("plan={early: {encoders: [resnet34]}}", "plan.early: a checkpoint of resnet34 on 'sd'"),
        ("tasks=sdx", "tasks: tasks 'sdx': 'x' is not a task"),
        ("data={train: 16", "data: not YAML: "),
        ("data={train: 16, train: 8}", "data: not YAML: 'train' is there twice"),
    ],
)
def test_a_mistake_on_the_command_line_is_not_blamed_on_a_file(micro, entry, expected):
    result = checkout.snakemake(micro, "--dry-run", "--config", entry)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: command line (--config): {expected}"), line
    assert result.returncode == errors.ConfigError.code
    assert "Traceback" not in result.stderr


def test_snakemake_lays_overlays_on_each_other_as_the_command_does(micro):
    (micro / "studies" / "without.yaml").write_text("attacks: {pgd: null}")
    (micro / "studies" / "with.yaml").write_text("attacks: {pgd: {steps: [2]}}")
    result = checkout.snakemake(micro, "--dry-run", study="micro without with")
    assert result.returncode == errors.ConfigError.code
    expected = "error: studies/with.yaml: attacks.pgd.stepper: missing, for studies/without.yaml removes attacks.pgd"
    assert expected in result.stderr
    planned = recorded_study.headstrong(micro, "plan", "--study", "micro", "without", "with")
    assert expected in planned.stderr


@pytest.mark.parametrize("words", [[], ["nosuch"], ["plan", "--study"], ["export", "results/quick"]])
def test_usage_names_the_command_as_it_is_typed(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    said = capsys.readouterr().err
    assert caught.value.code == errors.ConfigError.code
    assert said.startswith("usage: python -m headstrong ")
    assert "__main__" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["why", "absent/table.csv"], "absent/table.csv: no such file; run the study that makes it"),
        (["export", "absent", "--output", "x.zip"], "no such folder; give the folder of a finished study"),
        (["claims", "absent"], "absent: no such folder; give the folder of a study, e.g. results/quick"),
    ],
)
def test_what_is_not_there_is_named_with_what_to_do(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == errors.MissingDataError.code
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_folder_of_data_sets_is_named(tmp_path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert cli.main(["fetch", "awa2", "--root", str(file)]) == errors.DownloadError.code
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file}: a file; expected the folder that holds a folder for each data set" in line
    assert file.read_text() == "mine"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_page_lists_the_exit_codes_of_the_package():
    in_code = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", errors.__doc__, flags=re.MULTILINE))
    page = (ROOT / "docs" / "faults.md").read_text().split("## Exit codes")[1].split("\n## ")[0]
    on_page = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", page, flags=re.MULTILINE))
    assert on_page == in_code
    of_classes = {str(kind.code) for kind in vars(errors).values() if isinstance(kind, type)}
    assert of_classes | {"0", "1"} == set(in_code)
