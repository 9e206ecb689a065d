"""Digests see what can change a number and nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headstrong import machine, provenance
from headstrong.provenance import (
    ROOT,
    RunRecord,
    atomic_path,
    code_digest,
    imported_files,
    settings_json,
    training_code,
)
from headstrong.seeds import derive_seed


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package that a test may edit."""
    copy = tmp_path / "headstrong"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    return copy


def digest(*modules: str) -> str:
    provenance._imports.cache_clear()
    provenance._meaningful_source.cache_clear()
    return code_digest(*modules)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


STAGES = {
    "evaluation": ("headstrong.evaluation",),
    "analysis": ("headstrong.analysis.vulnerability",),
    "figures": ("headstrong.figures.vulnerability_chain",),
}


def digests():
    found = {stage: digest(*modules) for stage, modules in STAGES.items()}
    return {**found, "training": training_code(False), "adversarial training": training_code(True)}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("training.py", {"training", "adversarial training"}),
        ("adversarial.py", {"adversarial training"}),
        ("evaluation.py", {"evaluation"}),
        ("attacks/steppers.py", {"adversarial training", "evaluation"}),
        ("losses.py", {"training", "adversarial training", "evaluation"}),
        ("analysis/vulnerability.py", {"analysis"}),
        ("figures/vulnerability_chain.py", {"figures"}),
        ("report/page.py", set()),
        ("provenance.py", set()),
        ("study.py", {"analysis", "figures"}),
        ("config.py", set()),
    ],
)
def test_an_edit_changes_the_digests_of_the_stages_that_import_it(package, file, changed):
    before = digests()
    with (package / file).open("a") as handle:
        handle.write("\nADDED = 1\n")
    after = digests()
    assert {stage for stage in before if before[stage] != after[stage]} == changed


def test_comments_docstrings_and_blank_lines_do_not_count(package):
    before = digests()
    file = package / "tasks.py"
    edit(file, '"""What a task is', '"""In other words, what a task is')
    edit(file, "_ALL = [", "# a comment\n\n\n_ALL = [  # another")
    assert digests() == before
    edit(file, "DEPTH_INVALID_FROM = 64500", "DEPTH_INVALID_FROM = 64501")
    after = digests()
    assert after["training"] != before["training"]


def test_relative_and_absolute_imports_are_followed(package):
    (package / "first.py").write_text("from headstrong import second\nfrom .third import x\n")
    (package / "second.py").write_text("def late():\n    import headstrong.fourth\n")
    (package / "third.py").write_text("x = 1\n")
    (package / "fourth.py").write_text("y = 1\n")
    provenance._imports.cache_clear()
    names = {path.name for path in imported_files("headstrong.first")}
    assert {"first.py", "second.py", "third.py", "fourth.py"} <= names


def test_seeds_depend_on_every_part_and_nothing_else():
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)
    assert len({derive_seed(0, "a", i) for i in range(1000)}) == 1000
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")
    assert all(0 <= derive_seed(i) < 2**63 for i in range(100))


def test_atomic_path_leaves_the_whole_file_or_none(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with pytest.raises(IsADirectoryError), atomic_path(target) as partial:
        partial.write_bytes(b"half") and target.parent.write_bytes(b"")
    assert list(target.parent.iterdir()) == []
    with atomic_path(target) as partial:
        partial.write_text("whole")
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_what_a_killed_writer_left_is_gone_after_the_next(tmp_path):
    code = (
        "import os, pathlib, sys; from headstrong.provenance import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as partial: partial.write_text('half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file.txt")], cwd=ROOT / "src")
    assert killed.returncode == -9
    assert not (tmp_path / "file.txt").exists()
    with atomic_path(tmp_path / "file.txt") as partial:
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_run_record_tells_where_a_result_comes_from(tmp_path):
    with RunRecord(tmp_path / "run.json", settings={"a": 1}) as record:
        record.add(device="cpu")
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["settings"] == {"a": 1}
    assert found["device"] == "cpu"
    assert found["processor"] == machine.processor()
    assert found["versions"]["python"]
    assert found["lock"] == provenance.lock_digest()
    assert found["start"] <= found["end"]
    if (ROOT / ".git").exists():
        assert len(found["git"]["commit"]) == 40


def test_a_failed_job_leaves_no_record(tmp_path):
    with pytest.raises(RuntimeError), RunRecord(tmp_path / "run.json"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_settings_json_does_not_depend_on_the_order_of_keys():
    assert settings_json({"b": 1, "a": [1.5]}) == settings_json({"a": [1.5], "b": 1})
