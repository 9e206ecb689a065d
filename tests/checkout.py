"""A copy of the repository that a test may run, edit and kill, with a study that takes a minute."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.planning import copy_checkout
from headstrong.provenance import ROOT

# The parts of a configuration that name several things of a kind, each of which an overlay can take out.
SECTIONS = ("plan", "attacks", "pictures", "classifiers", "generators", "importance", "hidden")


def only(study: str, sections: Sequence[str] = SECTIONS) -> str:
    """An overlay in YAML that has of these sections what it names and nothing of the default study beside it.

    A section that it does not have stays as it is.
    """
    default, settings = yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load(study)
    for name in sections:
        if settings.get(name):
            settings[name] = dict.fromkeys(default[name]) | settings[name]
    return yaml.safe_dump(settings, sort_keys=False)


# Two tasks, three runs, six models: every stage of the pipeline on almost no data.
MICRO = only("""
study: {name: micro}
data: {size: [32, 32], train: 16, test: 4, antialias: 1}
tasks: sd
plan: {combinations: {}, early: {}, single: {}, single-early: {}}
generators: null
importance: null
hidden: null
chains: [sd]
model: {width: 0.0625}
training: {epochs: 3, batch_size: 8}
attacks: {pgd: {steps: [2]}, noise: {}}
analysis: {steps: 2, bootstrap: 50}
figures: {dpi: 50}
""")


def rules_with_programs() -> set[str]:
    """The rules of the workflow's files that run a program of scripts/, by what they say."""
    text = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    blocks = re.split(r"^(?=rule \w+:)", text, flags=re.MULTILINE)
    return {found[1] for block in blocks if "\n    shell:" in block and (found := re.match(r"rule (\w+):", block))}


def make(folder: Path, study: str = MICRO) -> Path:
    """Copy what a clone holds into `folder`, with an overlay that is called what its study is; returns it."""
    copy_checkout(folder)
    (folder / "studies" / f"{yaml.safe_load(study)['study']['name']}.yaml").write_text(study)
    return folder


def copy(folder: Path, to: Path) -> Path:
    """A copy of a checkout with all times of files and all of Snakemake's records."""
    subprocess.run(["cp", "-a", str(folder), str(to)], check=True)
    return to


def command(*arguments: str, study: str = "micro") -> list[str]:
    """The command line of a Snakemake run of a study; "" is the default one."""
    return [sys.executable, "-m", "snakemake", "--cores", "2", *overlays(study), *arguments]


def overlays(study: str) -> list[str]:
    """The options that lay a study's overlays on config.yaml."""
    files = [f"studies/{name}.yaml" for name in study.split()]
    return ["--configfile", *files] if files else []


def environment() -> dict[str, str]:
    """The environment of a user who has activated nothing."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def snakemake(folder: Path, *arguments: str, study: str = "micro") -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a checkout and return what it said."""
    line = command(*arguments, study=study)
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment(), stdin=subprocess.DEVNULL)


def run(folder: Path, *arguments: str, study: str = "micro") -> None:
    """Run Snakemake to the end; on failure show the logs of the failed jobs."""
    result = snakemake(folder, *arguments, study=study)
    if result.returncode:
        logs = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in folder.glob("results/*/logs/**/*.log"))
        raise AssertionError(f"{result.stdout[-3000:]}\n{result.stderr[-6000:]}\n{logs}")


def dry_run(folder: Path, *arguments: str, study: str = "micro") -> dict[str, list[str]]:
    """What Snakemake would run: wildcards of every job, by rule. Empty when there is nothing to do."""
    result = snakemake(folder, "--dry-run", *arguments, study=study)
    text = result.stdout + result.stderr
    assert result.returncode == 0, text[-3000:]
    jobs: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=(?:local)?rule \w+:|checkpoint \w+:)", text):
        found = re.match(r"(?:local)?rule (\w+):", block)
        if found:
            wildcards = re.search(r"^\s+wildcards: (.*)$", block, flags=re.MULTILINE)
            jobs.setdefault(found[1], []).append(wildcards[1] if wildcards else "")
    return jobs


def dry_run_changed(folder: Path, study: str, edit: Callable[[dict[str, Any]], None]) -> dict[str, list[str]]:
    """What would run with other settings: `edit` changes the loaded overlay `study` in place."""
    settings = yaml.safe_load(study)
    edit(settings)
    (folder / "studies" / "changed.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return dry_run(folder, study="changed")


def dry_run_edited(folder: Path, file: str, study: str) -> dict[str, list[str]]:
    """What would run with other code: a module of the package, `file`, has one more line for as long as it takes."""
    path = folder / "src" / "headstrong" / file
    text = path.read_text()
    path.write_text(text + "\nUNUSED = 1\n")
    try:
        return dry_run(folder, study=study)
    finally:
        path.write_text(text)
