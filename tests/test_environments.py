"""The lock files and the conda files ask for the same versions, on every platform."""

import re
from pathlib import Path

import pytest
import snakemake.report
import yaml

from headstrong.provenance import ROOT

ENVS = ROOT / "envs"
CONDA_NAMES = {"pytorch": "torch"}


def locked(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (ENVS / name).read_text().splitlines():
        match = re.match(r"^([a-z0-9-]+)==([^ ;]+)", line)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    return found


@pytest.mark.parametrize("file", sorted(path.name for path in ENVS.glob("*.yaml")))
def test_conda_files_equal_the_lock_file(file):
    versions = locked("requirements.lock")
    for entry in yaml.safe_load((ENVS / file).read_text())["dependencies"]:
        name, _, version = entry.partition(" =")
        if name != "python":
            assert versions[CONDA_NAMES.get(name, name)] == {version}, entry


def test_both_locks_agree():
    development = locked("requirements-dev.lock")
    for name, versions in locked("requirements.lock").items():
        assert versions <= development[name], name


def test_peers_run_on_the_same_versions():
    bench = locked("requirements-bench.lock")
    for name, versions in locked("requirements.lock").items():
        assert versions <= bench[name], name
    peers = {"torchattacks", "foolbox", "adversarial-robustness-toolbox", "adv-lib", "libmtl"}
    assert peers <= set(bench)
    assert not peers & set(locked("requirements.lock"))


@pytest.mark.parametrize("name", sorted(path.name for path in ENVS.glob("*.lock")))
def test_every_requirement_has_hashes_and_no_index(name):
    text = (ENVS / name).read_text()
    requirements = re.findall(r"^[a-z0-9-]+==.*?(?=^[a-z0-9-]+==|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert len(requirements) > (25 if name == "requirements-docs.lock" else 50)
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "http" not in text


def test_reports_of_snakemake_need_nothing_but_the_lock_file():
    """Snakemake asks for a package at the end of `--report` that it does not depend on itself."""
    source = (Path(snakemake.report.__file__).parent / "__init__.py").read_text()
    asked = set(re.findall(r"Python package (\w+) must be installed", source))
    assert asked
    assert asked <= set(locked("requirements.lock"))
