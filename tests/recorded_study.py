"""A study on almost no data that has every kind of result: models, snapshots, generators, choices, hidden tasks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

import checkout
from headstrong.provenance import ROOT

NAME = "recorded"
STUDY = """
study: {name: recorded}
data: {train: 8}
plan: {single: null, single-early: null}
training: {epochs: 3}
pictures:
  domains: {domains: [studio, room], size: [32, 32], train: 10, test: 5}
  shapes: {size: [32, 32], train: 20, validation: 10, test: 10}
classifiers:
  domain: {width: 0.0625, training: {epochs: 1, batch_size: 10}}
generators:
  domains:
    methods: [mta]
    modes: [universal]
    filters: 4
    blocks: {universal: 1, instance: 1}
    training: {epochs: 1}
importance:
  flat:
    pictures: shapes
    width: 0.0625
    feature: 2
    important: {balls: [ball, egg]}
    losses: {ce: {}, camri: {margin: [4], scale: [8]}}
    trials: 1
    training: {epochs: 1, batch_size: 20}
hidden:
  scenes:
    section: combinations
    hide: [d]
    access: [heads]
    forgetting: {epochs: 1, batch_size: 8, learning_rate: 0.001, curve: 1}
    attacks: {objectives: [cf_delta, noise], stealth: [0], steps: 1, epsilon: ["8/255"]}
analysis: {bootstrap: 20}
report: {models: [combinations-resnet18-sd], images: 2}
"""


def overlay() -> str:
    """The micro study with this one laid on it, as YAML."""
    from headstrong.configfiles import merge

    micro = {key: value for key, value in yaml.safe_load(checkout.MICRO).items() if value is not None}
    return checkout.only(yaml.safe_dump(merge(micro, yaml.safe_load(STUDY))))


def make(folder: Path) -> Path:
    """A checkout with a commit of its own in which the study has run to the end."""
    checkout.make(folder, overlay())
    for name in ("CITATION.cff", "LICENSE", "README.md"):
        shutil.copy2(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("results/\nwork/\n.snakemake/\n__pycache__/\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    checkout.run(folder, study=NAME)
    return folder


def headstrong(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m headstrong` of a checkout there."""
    rest = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "src"), *rest])}
    line = [sys.executable, "-m", "headstrong", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
