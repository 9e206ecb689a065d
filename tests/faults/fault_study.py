"""A study of a minute or two that has every rule of the workflow, made to be disturbed."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

import checkout
from headstrong.configfiles import merge, parse
from headstrong.provenance import ROOT
from headstrong.study import Plan

NAME = "faults"
SMALL = "results/faults/evaluations/combinations-resnet18-sd.h5"  # needs two caches and a training
TARGET = ("--", SMALL)  # on a command line
STUDY = checkout.only("""
study: {name: faults}
data: {size: [32, 32], train: 12, test: 3, antialias: 1}
tasks: sd
plan:
  combinations: {}
  early: {}
  adversarial:
    encoders: [resnet18]
    tasks: sd
    sizes: [2]
    reference: true
    adversarial: {stepper: fgsm, balancer: dgba, epsilon: "8/255"}
chains: [sd]
model: {width: 0.0625}
training: {epochs: 3, batch_size: 6}
pictures:
  domains: {domains: [studio], size: [32, 32], train: 20, validation: 20, test: 20}
classifiers:
  domain: {labels: [shape, colour], width: 0.0625, training: {epochs: 1, batch_size: 6}}
generators:
  domains:
    methods: [mta]
    modes: [universal]
    filters: 2
    blocks: {universal: 1, instance: 1}
    training: {epochs: 1}
    examples: 1
importance:
  shapes:
    pictures: domains
    width: 0.0625
    feature: 4
    losses: {wce: null, softmax: null, arcface: null, camri: {margin: [4], scale: [8]}}
    trials: 1
    training: {epochs: 1, batch_size: 6}
hidden:
  scenes:
    section: adversarial
    hide: [d]
    access: [heads]
    forgetting: {epochs: 2, batch_size: 6, curve: 1}
    attacks: {objectives: [cf, noise], stealth: [0], steps: 1, epsilon: ["8/255"]}
attacks:
  pgd: {steps: [1]}
  noise: {}
analysis: {steps: 1, bootstrap: 10}
figures: {dpi: 30, formats: [png]}
""")


# The plan of the micro study, whose jobs are handed to single programs.
MICRO_PLAN = Plan(parse(merge(yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load(checkout.MICRO))))


@dataclass(frozen=True)
class Job:
    """One finished job of the study: its rule, what it made, its log and the seconds it took."""

    rule: str
    outputs: tuple[Path, ...]
    log: Path
    seconds: float


def make(folder: Path, *targets: str) -> Path:
    """A checkout in which the study has run undisturbed, one job at a time; all of it, or these targets."""
    checkout.make(folder, STUDY)
    checkout.run(folder, "--cores", "1", *targets, study=NAME)
    return folder


def jobs(folder: Path, *targets: str) -> list[Job]:
    """The jobs of the finished study, or those for these targets, by what Snakemake says of its files.

    Paths are relative to the folder.
    """
    table = checkout.snakemake(folder, "--summary", *targets, study=NAME).stdout
    header, *lines = [line.split("\t") for line in table.splitlines() if line.count("\t") >= 5]
    made: dict[tuple[str, str], list[Path]] = {}
    for line in lines:
        row = dict(zip(header, line, strict=False))
        made.setdefault((row["rule"], row["log-file(s)"]), []).append(Path(row["output_file"]))
    made = {key: paths for key, paths in made.items() if all((folder / path).exists() for path in paths)}
    return [Job(rule, tuple(made[rule, log]), Path(log), _seconds(folder, log)) for rule, log in sorted(made)]


def _seconds(folder: Path, log: str) -> float:
    """How long the job of a log took, from its benchmark; a second for rules without one."""
    relative = Path(log).relative_to(f"results/{NAME}/logs")
    kept = folder / "results" / NAME / "benchmarks"
    name = relative.with_suffix(".tsv") if len(relative.parts) > 1 else Path(relative.stem, "all.tsv")
    if relative.parts[0] == "build_pictures":
        name = Path("build_pictures", "-".join(relative.with_suffix("").parts[1:]) + ".tsv")
    if not (kept / name).is_file():
        return 1.0
    return float((kept / name).read_text().splitlines()[1].split("\t")[0])


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one program of scripts/ by itself, as a person would, and return what it said."""
    line = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HEADSTRONG_RUN": ""}
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment)


def forget(folder: Path, job: Job) -> None:
    """Take away what a job made and all that was made of it, and its log, as if the study had come no further."""
    made_of = {path: set(kept["input"]) for path, kept in _metadata(folder).items()}
    gone = {str(path) for path in job.outputs}
    while more := {path for path, inputs in made_of.items() if inputs & gone} - gone:
        gone |= more
    for path in (*gone, job.log):
        remove(folder, Path(path))


def remove(folder: Path, path: Path) -> None:
    """Take away one result, a file or a folder; nothing outside the results."""
    assert Path(path).parts[:2] == ("results", NAME), path
    assert ".." not in path.parts, path
    subprocess.run(["rm", "-rf", str(folder / path)], check=True)


def _metadata(folder: Path) -> dict[str, dict[str, Any]]:
    """What Snakemake keeps of every output, by path."""
    files = [path for path in (folder / ".snakemake" / "metadata").rglob("*") if path.is_file()]
    return {base64.b64decode(path.name).decode(): json.loads(path.read_text()) for path in files}


def processes(folder: Path) -> dict[int, list[str]]:
    """Command lines of the living processes that work in this folder, by process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if line != [""] and (entry / "cwd").resolve() == folder.resolve():
                    found[int(entry.name)] = line
            except OSError:
                continue
    return found


def programs(folder: Path, script: str = "") -> list[int]:
    """The processes that run a program of scripts/, without the helpers that they started themselves."""
    running = {
        process: line
        for process, line in processes(folder).items()
        if len(line) > 1 and "python" in Path(line[0]).name and line[1].startswith(f"scripts/{script}")
    }
    return [process for process in running if _parent(process) not in running]


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def kill(process: int) -> bool:
    """SIGKILL; whether there was someone to get it."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


# What a clock or a host says differs from run to run: records, and times of generators with what is made of them.
TIMED = re.compile(r"(-cost\.csv|/generator_cost\.csv|/mta_tables\.csv|/report\.html)$")


def results(folder: Path) -> dict[str, bytes]:
    """Every result of the study but logs, benchmarks, records, and tables of times."""
    root = folder / "results" / NAME
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name.split("/")[0] not in ("logs", "benchmarks") and not TIMED.search(f"/{name}"):
            content = path.read_bytes()
            if not _is_record(path, content):
                found[name] = content
    return found


def _is_record(path: Path, content: bytes) -> bool:
    return path.suffix == ".json" and b'"seconds"' in content and {"host", "seconds"} <= set(json.loads(content))


def strays(folder: Path) -> list[str]:
    """Names of files that only a job that is under way may have: partial files, parts, checkpoints, locks of jobs."""
    mine = {f"{NAME}.lock", f"{NAME}.lock.holder.json", ".snakemake_timestamp"}  # the last is Snakemake's, of a folder
    found = {path for place in ("results", "work") for path in (folder / place).rglob("*") if path.name not in mine}
    partial = {path for path in found if path.name.startswith(".")}
    jobs = folder / "work" / NAME / "jobs"  # settings of programs: they stay, as the results do
    work = {path for path in found if path.is_relative_to(folder / "work") and not path.is_dir()}
    work = {path for path in work if not path.is_relative_to(jobs)}
    return sorted(str(path.relative_to(folder)) for path in partial | work)


def read_hdf5(folder: Path) -> int:
    """Read every number of every HDF5 file, checksums included; how many files there are."""
    files = sorted((folder / "results").rglob("*.h5"))
    for path in files:
        with h5py.File(path, "r") as file:
            file.visititems(lambda _, item: np.asarray(item[()]) if isinstance(item, h5py.Dataset) else None)
    return len(files)


def check_same(folder: Path, expected: dict[str, bytes]) -> None:
    """The study in this folder has the results expected, and nothing is left of what disturbed it."""
    found = results(folder)
    assert sorted(found) == sorted(expected), sorted(found.keys() ^ expected.keys())
    different = [name for name in expected if found[name] != expected[name]]
    assert different == [], different
    assert read_hdf5(folder) == len([name for name in expected if name.endswith(".h5")])
    left = strays(folder)
    assert left == [], left
