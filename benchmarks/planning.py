"""Snakemake's own work: the dry run of a large study, the same when all is made, growth, interpreter starts per model.

All of it happens in a copy of the checkout, so that nothing here meets the results or the locks of a study. A finished
study is faked: every output an empty file, then `snakemake --touch`, which writes Snakemake's records of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.rows import Row, make_row
from benchmarks.timing import children_seconds
from headstrong.provenance import ROOT

PARTS = (
    *("Snakefile", "config.yaml", "config.schema.json"),
    *("rules", "scripts", "src", "studies", "profiles", "envs", "docs"),
)
LARGE = Path("studies/full.yaml")
# Nine times the models of `full`: every set of two to seven of the eleven tasks, on five encoders.
TENFOLD = {
    "study": {"name": "tenfold"},
    "plan": {
        **dict.fromkeys(("encoders", "weighted", "early", "single-encoders")),
        "combinations": {
            "encoders": ["resnet18", "resnet50", "resnet152", "wide_resnet50_2", "xception"],
            "tasks": None,
            "sizes": [2, 3, 4, 5, 6, 7],
        },
    },
    "chains": [],
}
COUNT = re.compile(r"^((?:train|evaluate)_model\w*)\s+(\d+)$", re.MULTILINE)
# `--touch` sleeps a tenth of a second for each of two thousand jobs.
AWAKE = "import snakemake.executors.touch as t; t.Executor.SLEEPING_TIME = 0; from snakemake.cli import main; main()"


def copy_checkout(folder: Path) -> Path:
    """What a clone holds and a study reads, copied to a new folder; returns it."""
    folder.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder / name)
    return folder


def snakemake(folder: Path, *arguments: str, overlays: Sequence[Path] = (LARGE,)) -> tuple[float, str]:
    """Processor seconds and output of Snakemake in a copy of the checkout. Raises RuntimeError where it fails."""
    command = [sys.executable, "-c", AWAKE, "--cores", "2", "--configfile", *map(str, overlays), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    start = children_seconds()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"snakemake {' '.join(arguments)}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return children_seconds() - start, done.stdout + done.stderr


def planning_rows(
    folder: Path, rounds: int, large: Path = LARGE, tenfold: Mapping[str, Any] = TENFOLD
) -> Iterator[Row]:
    """Rows of the dry run, of growth, of interpreter starts and of nothing to do."""
    checkout = copy_checkout(folder / "checkout")
    larger = checkout / "tenfold.yaml"
    larger.write_text(yaml.safe_dump(dict(tenfold)))
    few: list[float] = []
    many: list[float] = []
    for _ in range(rounds):
        for found, overlays in ((few, [large]), (many, [large, larger])):
            found.append(snakemake(checkout, "--dry-run", "--quiet", "rules", overlays=overlays)[0])
    yield make_row(f"plan and dry run of {large.stem}", "s", few, target="ours < 10")
    jobs, models = jobs_and_models(snakemake(checkout, "--dry-run", "--quiet", "rules", overlays=[large])[1])
    _, more = jobs_and_models(snakemake(checkout, "--dry-run", "--quiet", "rules", overlays=[large, larger])[1])
    yield make_row(
        f"dry run of {more} models against {models}: growth", "s", few, many,
        peer_name=f"ours, {more / models:.1f} times as many models", target=f"ratio <= {more / models:.1f}",
    )  # fmt: skip
    yield make_row(
        f"interpreter starts per model of {large.stem}, {models} models: training and evaluation", "starts",
        [jobs / models], target="ours <= 2",
    )  # fmt: skip
    fake_finished(checkout, large)
    idle = []
    for _ in range(rounds):
        seconds, text = snakemake(checkout, "--dry-run", overlays=[large])
        if "Nothing to be done" not in text:
            raise RuntimeError("snakemake finds something to do in a finished study")
        idle.append(seconds)
    yield make_row(f"{large.stem} when there is nothing to do", "s", idle, target="ours < 10")


def jobs_and_models(text: str) -> tuple[int, int]:
    """From what a dry run prints: jobs that train or evaluate a model, one interpreter each, and models evaluated."""
    counts = {name: int(count) for name, count in COUNT.findall(text)}  # the table is printed twice
    if "evaluate_model" not in counts:
        raise RuntimeError("the dry run tells of no evaluation")
    return sum(counts.values()), counts["evaluate_model"]


def fake_finished(checkout: Path, large: Path) -> None:
    """Empty files in place of all results, with Snakemake's records of them."""
    text = snakemake(checkout, "--summary", overlays=[large])[1]
    names = [line.split("\t")[0] for line in text.splitlines() if line.startswith("results/")]
    for name in names:
        path = checkout / name
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    snakemake(checkout, "--touch", "--quiet", "all", overlays=[large])
