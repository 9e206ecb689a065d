"""A study that is killed anywhere, in any manner, and simply run again ends with the bytes of an undisturbed one.

    HEADSTRONG_FAULT_SEED=7 HEADSTRONG_FAULT_KILLS=100 python -m pytest -m slow -s tests/faults/test_kills.py

draws other moments, and so many of them. Every rule is killed before one is killed again. HEADSTRONG_FAULT_STUDY
names a folder to keep the undisturbed study in, for the next time; HEADSTRONG_FAULT_DONE says how many kills of
this seed were done before, and are left out.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import fault_study
import pytest

import checkout
from headstrong.provenance import ROOT
from real_folders import real_folder

SEED = int(os.environ.get("HEADSTRONG_FAULT_SEED", "0"))
KILLS = int(os.environ.get("HEADSTRONG_FAULT_KILLS", "50"))
DONE = int(os.environ.get("HEADSTRONG_FAULT_DONE", "0"))
FORGOTTEN = 4  # in one of so many kills the study has come no further than to the job: all after it must be made
START = 4  # seconds that Snakemake takes, about, before its first job


@dataclass(frozen=True)
class Kill:
    """What is killed (all: Snakemake and its jobs; snakemake: it alone, jobs go on; job: its process alone) and when.

    since: whether the moment counts from the start of the job, or from that of Snakemake. moment: as a share of the
    usual seconds of the job. again: whether the job is made to run again in a finished study, else the study has come
    no further than to it.
    """

    job: fault_study.Job
    manner: str
    since: str
    moment: float
    again: bool

    def __str__(self) -> str:
        when = f"at {self.moment:.2f} since the start of {self.since}"
        return f"{self.job.rule}: {self.manner} {when}{', again' if self.again else ''}"


def drawn(jobs: list[fault_study.Job], number: int, seed: int) -> list[Kill]:
    """So many kills: one in each rule before any has a second one, manners in turn."""
    chance = random.Random(seed)
    by_rule: dict[str, list[fault_study.Job]] = collections.defaultdict(list)
    for job in jobs:
        by_rule[job.rule].append(job)
    rules: list[str] = []
    kills = []
    for count in range(number):
        if not rules:
            rules = chance.sample(sorted(by_rule), len(by_rule))
        manner = ("all", "snakemake", "job")[count % 3]
        since = "snakemake" if manner == "all" and chance.random() < 0.4 else "job"
        kills.append(Kill(chance.choice(by_rule[rules.pop()]), manner, since, chance.random(), count % FORGOTTEN != 0))
    return kills


def disturb(folder: Path, kill: Kill, *targets: str) -> bool:
    """Let the study make the outputs of a job, and kill; whether there was something left to kill."""
    if kill.again:
        fault_study.remove(folder, kill.job.log)
    else:
        fault_study.forget(folder, kill.job)
    options = ["--forcerun", str(kill.job.outputs[0])] if kill.again else []
    process = subprocess.Popen(
        checkout.command(*options, *targets, study=fault_study.NAME), cwd=folder, env=checkout.environment(),
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if kill.since == "job":
        while not (folder / kill.job.log).exists() and process.poll() is None:
            wait(process, 0.02)
        wait(process, kill.moment * kill.job.seconds)
    else:
        wait(process, kill.moment * (kill.job.seconds + START))
    if process.poll() is not None:
        return False
    if kill.manner == "job":
        script = kill.job.rule.removesuffix("_with_checkpoints")
        killed = [fault_study.kill(one) for one in fault_study.programs(folder, script)]
        process.wait()
        return any(killed)
    if kill.manner == "all":
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    return True


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for the end of a process, but no longer than so."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)


def check_survives(undisturbed: Path, folder: Path, kills: list[Kill], *targets: str) -> None:
    """Disturb a copy of the finished study, or of what these targets need, and run it again, for each of the kills."""
    expected = fault_study.results(undisturbed)
    begin, done, rules = time.monotonic(), collections.Counter[str](), collections.Counter[str]()
    for number, kill in enumerate(kills):
        copy = checkout.copy(undisturbed, folder / str(number))
        hit = disturb(copy, kill, *targets)
        again = checkout.snakemake(copy, *targets, study=fault_study.NAME)
        said = f"{kill} (seed {SEED}, number {number})\n{again.stdout[-2000:]}\n{again.stderr[-4000:]}"
        assert again.returncode == 0, said
        try:
            fault_study.check_same(copy, expected)
        except AssertionError as error:
            raise AssertionError(said) from error
        assert fault_study.processes(copy) == {}, said
        done[kill.manner if hit else "too late"] += 1
        rules[kill.job.rule] += 1
        print(f"{number + 1}: {kill}{'' if hit else ' (too late)'}", flush=True)
        subprocess.run(["rm", "-rf", str(copy)], check=True)
    print(f"seed {SEED}: {dict(done)}, {time.monotonic() - begin:.0f} s; {dict(rules)}", flush=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("HEADSTRONG_FAULT_STUDY")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("faults") / "undisturbed"
    return folder if folder.exists() else fault_study.make(folder)


@pytest.mark.slow
def test_a_study_killed_anywhere_and_run_again_ends_with_the_same_bytes(undisturbed, tmp_path):
    jobs = fault_study.jobs(undisturbed)
    assert {job.rule for job in jobs} == rules_with_jobs()
    assert len(fault_study.results(undisturbed)) > 60
    check_survives(undisturbed, tmp_path, drawn(jobs, KILLS, SEED)[DONE:])


def test_jobs_killed_in_the_middle_and_run_again_end_with_the_same_bytes(small, tmp_path):
    jobs = {job.rule: job for job in fault_study.jobs(small, *fault_study.TARGET)}
    assert set(jobs) == {"build_data", "train_model_with_checkpoints", "evaluate_model"}
    train = jobs["train_model_with_checkpoints"]
    kills = [
        Kill(train, "all", "job", 0.8, again=False),
        Kill(train, "snakemake", "job", 0.5, again=True),
        Kill(jobs["evaluate_model"], "job", "job", 0.7, again=True),
    ]
    check_survives(small, tmp_path, kills, *fault_study.TARGET)


def rules_with_jobs() -> set[str]:
    """The rules of the workflow's files that run a program, but for those that fetch data."""
    text = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    return {*checkout.rules_with_programs(), *re.findall(r"^use rule \w+ as (\w+)", text, re.MULTILINE)}


def asked_for(folder: Path, study: str) -> tuple[set[str], dict[str, set[str]]]:
    """The files that the target `all` asks for, and those that each job of a study makes, by a dry run."""
    result = checkout.snakemake(folder, "--dry-run", study=study)
    made: dict[str, set[str]] = {}
    inputs: set[str] = set()
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", result.stdout + result.stderr):
        name = re.match(r"(?:local)?rule (\w+):", block)
        files = {
            key: set(found.split(", ")) for key, found in re.findall(r"^ +(input|output): (.*)$", block, re.MULTILINE)
        }
        if name and name[1] == "all":
            inputs = files["input"]
        elif name:
            made[f"{name[1]} {min(files['output'])}"] = files["output"]
    return inputs, made


@pytest.mark.parametrize("study", ["faults", "mta", "camri_cifar10 camri_small", "hidden", "full tiny", "nyuv2"])
def test_no_result_is_missing_from_what_the_study_asks_for(tmp_path, study):
    """Snakemake takes away the outputs of a job that fails. If nothing asks for them, what was made of the old ones
    stays, and the next run takes it for good."""
    for dataset in ("cifar10", "nyuv2"):
        if dataset in study:
            real_folder(dataset)  # a dry run without the data ends at once
    folder = checkout.make(tmp_path / "checkout", fault_study.STUDY)
    inputs, made = asked_for(folder, study)
    assert len(made) > 20
    assert [job for job, outputs in made.items() if not outputs & inputs] == []
