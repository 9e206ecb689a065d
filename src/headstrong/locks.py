"""Locks that tell who holds them, and that the system gives back when their holder dies, however it dies.

Two kinds use them. A Snakemake holds the lock of its study. Each of its jobs holds one of its own in a folder beside
it, so that the next Snakemake finds the jobs that outlived a killed one: two processes never write one result.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstrong.errors import MachineError

if TYPE_CHECKING:
    from filelock import BaseFileLock

RUN_VARIABLE = "HEADSTRONG_RUN"  # "LOCK:ID" of the Snakemake that a job works for
PATIENCE = 120.0  # seconds that a job which outlived its Snakemake is given to write its checkpoint and end


def take(path: Path, **told: Any) -> BaseFileLock | None:
    """Take the lock at `path` until the process ends or releases it; None when someone else holds it.

    The lock is the system's (flock): a killed holder leaves none. Who holds it is written beside it, with what is
    `told`, for `holder` and `description`. Raises OSError where the folder cannot be written.
    """
    lock = _acquired(path, 0)
    if lock is not None:
        _tell(path, {**_myself(), **told})
    return lock


def holder(path: Path) -> dict[str, Any]:
    """What the last holder of the lock at `path` told of itself; empty when it said nothing that can be read."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(_told(path).read_text(encoding="utf-8"))
        return told if isinstance(told, dict) else {}
    return {}


def description(path: Path) -> str:
    """Who holds the lock at `path`, in words: command, process, user, host, since when."""
    who = {"command": "a process that has not said which", **holder(path)}
    details = [f"{name} {who[name]}" for name in ("process", "user", "host", "job", "since") if who.get(name)]
    return f"{who['command']} ({', '.join(details)})" if details else who["command"]


def hold_study(path: Path) -> BaseFileLock:
    """Take the lock of a study for this Snakemake, and end the jobs that a killed one left running.

    They are asked with SIGTERM, or scancel where they run under SLURM: trainings write a checkpoint first and go on
    from it. Jobs that are still queued end by themselves when they start (`working`). Raises MachineError when another
    Snakemake runs the study, or when a job of an earlier one cannot be ended from here.
    """
    run = uuid.uuid4().hex
    lock = take(path, run=run)
    if lock is None:
        who = description(path)
        raise MachineError(f"{path}: the study is being run by {who}; wait for it, or end that process")
    os.environ[RUN_VARIABLE] = f"{path.resolve()}:{run}"
    for left in sorted(_jobs_of(path).glob("*.lock")):
        _end(left)
    atexit.register(_tidy, path)
    return lock


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Within it, a job of a study is seen to be running. Does nothing for a program that is run by hand.

    Raises MachineError when the study has been started anew since: then the job is another's to do.
    """
    study = os.environ.get(RUN_VARIABLE, "").rpartition(":")[0]
    if not study or not Path(study).parent.is_dir():
        yield
        return
    own = _jobs_of(Path(study)) / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.lock"
    lock = take(own, slurm=os.environ.get("SLURM_JOB_ID"))
    try:
        check_current()  # only now: whoever starts the study anew either finds this lock or is found here
        yield
    finally:
        _remove(own)
        if lock is not None:
            lock.release()


def check_current() -> None:
    """MachineError for a job whose study has been started anew since it was submitted: it must not touch anything."""
    study, _, run = os.environ.get(RUN_VARIABLE, "").rpartition(":")
    if study and Path(study).parent.is_dir() and holder(Path(study)).get("run") != run:
        raise MachineError(
            f"{study}: the study has been started anew since this job was submitted; it is another's to do"
        )


def _tidy(study: Path) -> None:
    """Take away what killed jobs left."""
    for path in _jobs_of(study).glob("*.lock"):
        lock = _acquired(path, 0)
        if lock is not None:
            _remove(path)
            lock.release()
    with contextlib.suppress(OSError):  # absent, or jobs are still in it
        _jobs_of(study).rmdir()


def _end(path: Path) -> None:
    """End the job that holds the lock at `path`, if one does, and take its traces away."""
    lock = _acquired(path, 0)
    if lock is None:
        who = holder(path)
        here = who.get("host") == socket.gethostname()
        if who.get("slurm"):
            _cancel(str(who["slurm"]))
        elif here and isinstance(who.get("process"), int):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(who["process"], signal.SIGTERM)
        lock = _acquired(path, PATIENCE if here or who.get("slurm") else 0)
    if lock is None:
        raise MachineError(f"{path}: still running, from an earlier start of the study: {description(path)}; end it")
    _remove(path)
    lock.release()


def _cancel(job: str) -> None:
    """Cancel a SLURM job and wait until SLURM has forgotten it: what ran it may still tidy up after its program."""
    end = time.monotonic() + PATIENCE
    command = ["scancel", job]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        while subprocess.run(command, timeout=60, capture_output=True).stdout.strip() or command[0] == "scancel":
            if time.monotonic() > end:
                return
            command = ["squeue", "--noheader", "--jobs", job]
            time.sleep(0.5)


def _acquired(path: Path, patience: float) -> BaseFileLock | None:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _remove(path: Path) -> None:
    for file in (_partial(path), _told(path), path):
        file.unlink(missing_ok=True)


def _jobs_of(study: Path) -> Path:
    return study.with_name(f"{study.name}.jobs")


def _told(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder.json")


def _partial(path: Path) -> Path:
    """What is being told: one name, as only the holder of a lock tells, so that the next one finds what a kill left."""
    return path.with_name(f".{path.name}.partial")


def _tell(path: Path, told: dict[str, Any]) -> None:
    partial = _partial(path)
    partial.write_text(json.dumps(told), encoding="utf-8")
    os.replace(partial, _told(path))


def _myself() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        user = str(os.getuid())
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return {
        "command": shlex.join([name, *sys.argv[1:]])[:200],
        "process": os.getpid(),
        "user": user,
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
