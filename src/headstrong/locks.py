"""Locks that tell who holds them, and that the system gives back when their holder dies, however it dies.

Two kinds use them. A Snakemake holds the lock of its study. Each of its jobs holds one of its own in a folder next to
it, so that the next Snakemake finds the jobs that outlived a killed one: two processes never write one result.

Where the file system has no locks (flock fails, whatever its errno), a file that exists is the lock instead. It names
its holder, so that one which died on this host is taken over; one which died on another host must be deleted by hand.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import getpass
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstrong.errors import MachineError
from headstrong.refusals import refusal

if TYPE_CHECKING:
    from filelock import BaseFileLock

RUN_VARIABLE = "HEADSTRONG_RUN"  # "LOCK:ID" of the Snakemake that a job works for
ALLOCATION_VARIABLE = "HEADSTRONG_ALLOCATION"  # SLURM's id of the job that this Snakemake runs in; empty: in none
PATIENCE = 120.0  # seconds that a job which outlived its Snakemake is given to write its checkpoint and end


def take(path: Path, **told: Any) -> BaseFileLock | None:
    """Take the lock at `path` until the process ends or releases it; None when someone else holds it.

    Who holds it is written next to it, with what is `told`, for `holder` and `description`. Raises MachineError where
    the folder cannot be written or the lock can be neither had nor refused.
    """
    lock = acquire(path)
    if lock is not None:
        _tell(path, {**_myself(), **told})
    return lock


def acquire(path: Path, patience: float = 0) -> BaseFileLock | None:
    """Take the lock at `path`, waiting up to `patience` seconds for it; None when someone else holds it.

    Raises MachineError where the folder cannot be written or the lock can be neither had nor refused.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = (FileLock if _system_locks(path) else SoftFileLock)(path, timeout=patience)
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        known = refusal(error)
        raise known or MachineError(
            f"{path}: cannot be locked ({error.strerror or error}); work in a folder on another disk, and run it again"
        ) from None
    return lock


def _system_locks(path: Path) -> bool:
    """Whether the lock at `path` is the system's: flock works in its folder, and no file that is a lock is there."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size:  # a system's lock is empty; this one is from where, or when, there were none
            return False
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def way_out(path: Path) -> str:
    """What to do about a lock that a dead process may hold; "" where the system gives it back by itself."""
    return "" if _system_locks(path) else f"; if that has ended, delete {path}, as this disk has no locks of its own"


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

    They are asked with SIGTERM, or scancel where SLURM runs a job that was submitted for them: trainings write a
    checkpoint first and go on from it. Jobs that are still queued end by themselves when they start (`working`). Raises
    MachineError when another Snakemake runs the study, or when a job of an earlier one cannot be ended from here.
    """
    run = uuid.uuid4().hex
    lock = take(path, run=run)
    if lock is None:
        who = f"{description(path)}; wait for it, or end that process{way_out(path)}"
        raise MachineError(f"{path}: the study is being run by {who}")
    os.environ[RUN_VARIABLE] = f"{path.resolve()}:{run}"
    os.environ[ALLOCATION_VARIABLE] = _slurm_job()
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
    lock = take(own, job=_submitted_job())
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


def _slurm_job() -> str:
    """The SLURM job that this process runs in, as scancel takes it: of an array the one task. Empty: none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _submitted_job() -> str | None:
    """The SLURM job that Snakemake submitted for this process; None where it runs in the allocation of Snakemake.

    Within salloc or sbatch, local jobs see the allocation's id as well: to cancel that would end the user's session.
    """
    job = _slurm_job()
    return job if job and job != os.environ.get(ALLOCATION_VARIABLE, job) else None


def _tidy(study: Path) -> None:
    """Take away what killed jobs left."""
    for path in _jobs_of(study).glob("*.lock"):
        with contextlib.suppress(MachineError):
            lock = acquire(path)
            if lock is not None:
                _remove(path)
                lock.release()
    with contextlib.suppress(OSError):  # absent, or jobs are still in it
        _jobs_of(study).rmdir()


def _end(path: Path) -> None:
    """End the job that holds the lock at `path`, if one does, and take its traces away."""
    lock = acquire(path)
    if lock is None:
        who = holder(path)
        job = who.get("job")
        asked = _terminate(who) if job is None else _cancel(str(job))
        if asked and job is not None and not _system_locks(path):
            path.unlink(missing_ok=True)  # SLURM has ended it, maybe on another host, which cannot be asked
        lock = acquire(path, PATIENCE if asked else 0)
    if lock is None:
        left = f"{description(path)}; end it{way_out(path)}"
        raise MachineError(f"{path}: still running, from an earlier start of the study: {left}")
    _remove(path)
    lock.release()


def _terminate(who: dict[str, Any]) -> bool:
    """Send SIGTERM to the process that told who it is; False where it is of another host or another by now."""
    process = who.get("process")
    if who.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    started = _start_of(process)
    if started is None or started != who.get("started"):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, signal.SIGTERM)
    return True


def _start_of(process: int) -> str | None:
    """When a process started, as the system tells it: no two of the same number are equal. None: there is no such."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        status = Path(f"/proc/{process}/stat").read_text(errors="replace")
        return f"{status.rpartition(')')[2].split()[19]} {boot}"
    with contextlib.suppress(OSError):  # not Linux
        said = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True).stdout
        return said.strip() or None
    return None


def _cancel(job: str) -> bool:
    """Cancel a SLURM job and wait until SLURM has forgotten it: what ran it may still tidy up after its program.

    Returns whether it has.
    """
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["scancel", job], timeout=60, capture_output=True)
        while time.monotonic() < end:
            command = ["squeue", "--noheader", "--jobs", job]
            asked = subprocess.run(command, timeout=60, capture_output=True, text=True)
            if not asked.stdout.strip() and (asked.returncode == 0 or "Invalid job id" in asked.stderr):
                return True
            time.sleep(0.5)
    return False


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
        "started": _start_of(os.getpid()),
        "user": user,
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
