"""Studies on a local SLURM: start them, watch their jobs, compare what they leave."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

import checkout
from headstrong.configfiles import merge
from local_slurm import LocalSlurm

SEED = int(os.environ.get("HEADSTRONG_FAULT_SEED", "0"))  # of the moments at which things are killed
# It dies with the tests, and can be interrupted even where they were started in the background.
OWN_PROCESS = ("env", "--default-signal=INT", "setpriv", "--pdeathsig", "KILL")
PATIENCE = 420.0  # seconds until something that must happen has happened

RUN = "combinations-resnet18-sd"
WEIGHTS = f"results/training/models/{RUN}/weights.safetensors"
LOG = f"results/training/logs/train_model/{RUN}.log"
EPOCHS = 60

RESULTS = {".h5", ".safetensors", ".csv", ".png", ".svg"}
TIMED = ("-cost.csv", "generator_cost.csv")  # measured seconds: different in every run


def undisturbed(folder: Path, epochs: int = EPOCHS) -> Path:
    """A checkout whose study `training` ran locally, without SLURM and in one piece."""
    # A training of some seconds per epoch and nothing after it: what is killed and comes back.
    slow = {"study": {"name": "training"}, "data": {"train": 192}, "training": {"epochs": epochs}}
    checkout.make(folder, yaml.safe_dump(merge(yaml.safe_load(checkout.MICRO), slow)))
    checkout.run(folder, "--", WEIGHTS, study="training")
    return folder


def prepared(folder: Path, undisturbed: Path) -> Path:
    """A checkout with the caches of an undisturbed one, its training still to be done."""
    shutil.copytree(undisturbed, folder)
    for part in ("models", "logs", "benchmarks"):
        shutil.rmtree(folder / "results" / "training" / part)
    return folder


def command(*options: str, study: str) -> list[str]:
    """Snakemake with the profile that the repository ships, asking SLURM more often than on a cluster."""
    return [
        sys.executable, "-m", "snakemake", *options, "--profile", "profiles/slurm", "--max-threads", "2",
        "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10", *checkout.overlays(study),
    ]  # fmt: skip


class Study:
    """A Snakemake on a local SLURM, in a session of its own: `with Study(...) as study:` kills what is left of it."""

    def __init__(self, slurm: LocalSlurm, folder: Path, *options: str, study: str = "training", **variables: str):
        self.slurm, self.folder, self.options, self.study = slurm, folder, options, study
        self.variables = {**slurm.environment, **variables}
        self.said = folder / "said.log"

    def __enter__(self) -> Study:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def start(self) -> None:
        """Start Snakemake."""
        with self.said.open("w") as output:
            self.process = subprocess.Popen(
                [*OWN_PROCESS, *command(*self.options, study=self.study)], cwd=self.folder, stdin=subprocess.DEVNULL,
                env={**checkout.environment(), **self.variables}, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition while Snakemake runs."""
        end = time.monotonic() + patience
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"Snakemake ended with {self.process.returncode} before {what}\n{self.words()}")
            if time.monotonic() > end:
                raise AssertionError(f"{patience:.0f} s were not enough for {what}\n{self.words()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.05)

    def until_epoch(self, first: int, last: int, *, seed: str) -> int:
        """Wait until a random epoch between these two is logged; returns the last one that is."""
        chosen = random.Random(f"{SEED} {seed}").randint(first, last)
        self.until(lambda: self.epochs()[-1:] >= [chosen], f"epoch {chosen}")
        return self.epochs()[-1]

    def finish(self) -> None:
        """Wait for success."""
        try:
            code = self.process.wait(timeout=3 * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running\n{self.words()}\n{self.slurm.call('squeue', '-l')}") from None
        assert code == 0, self.words()

    def log(self) -> str:
        """What the training's last attempt has logged; each begins its log anew."""
        path = self.folder / LOG
        return path.read_text() if path.is_file() else ""

    def epochs(self) -> list[int]:
        """The epochs that the last attempt has logged."""
        return [int(epoch) for epoch in re.findall(r": epoch (\d+) of", self.log())]

    def resumed_after(self) -> int:
        """After how many epochs the last attempt went on; -1 when it began at the beginning."""
        found = re.search(r"goes on after (\d+) epochs", self.log())
        return int(found[1]) if found else -1

    def words(self) -> str:
        """The end of what Snakemake said and of the training's log."""
        return f"{self.said.read_text()[-4000:]}\n== {LOG}\n{self.log()[-1500:]}"

    def running(self) -> list[str]:
        """The ids of this Snakemake's jobs that run now."""
        found = self.slurm.call("squeue", "-h", "-t", "RUNNING", "-o", "%i %Z").splitlines()
        return [line.split()[0] for line in found if line.split()[1:] == [str(self.folder)]]

    def states(self) -> list[str]:
        """How the jobs submitted from this folder ended, in order, as accounting knows it."""
        since = ["-S", "now-1day"]  # without it, jobs that ended before midnight are not listed
        found = self.slurm.call("sacct", *since, "-X", "-n", "-D", "-P", "-o", "jobid,state,workdir").splitlines()
        return [line.split("|")[1].split()[0] for line in found if line.endswith(f"|{self.folder}")]

    def programs(self, name: str) -> Iterator[int]:
        """Process ids of this study's programs of that name."""
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = status.read_bytes().split(b"\0")
                program = b"".join(words[1:2]).decode(errors="replace")
                if program.endswith(name) and os.readlink(status.with_name("cwd")) == str(self.folder):
                    yield int(status.parent.name)


def results_of(folder: Path, study: str) -> dict[str, bytes]:
    """Content of everything in a results folder that two equal runs have in common."""
    results = folder / "results" / study
    found = {
        str(path.relative_to(results)): path.read_bytes()
        for path in results.rglob("*")
        if path.suffix in RESULTS and "benchmarks" not in path.parts and not path.name.endswith(TIMED)
    }
    mta = found.get("tables/mta_tables.csv", b"").splitlines()
    return found | {"tables/mta_tables.csv": b"\n".join(line for line in mta if not line.startswith(b"7,"))}


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Names of the results that are not the same, or in one of the two only."""
    return sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))


def left_over(folder: Path) -> list[str]:
    """What only killed processes leave: half-written files, checkpoints, signs of running jobs."""
    places = [path for part in ("results", "work") for path in (folder / part).rglob("*")]
    marks = (".part", ".ckpt", ".jobs")
    return [str(path.relative_to(folder)) for path in places if any(mark in path.name for mark in marks)]
