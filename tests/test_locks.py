"""One Snakemake per study; jobs that outlive a killed one are ended before anything starts again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_driver import COMPILER, needs_compiler
from headstrong import gpulocks, locks
from headstrong.errors import MachineError
from headstrong.provenance import ROOT

# Holds the lock of a study, or works for one, until it is killed; says when it does.
HOLD = """
import sys, time
from pathlib import Path
from headstrong import locks
held = locks.hold_study(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
WORK = """
import os, signal
from headstrong import locks
from headstrong.checkpoints import Termination
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)  # a signal that comes early is not missed
with Termination() as termination, locks.working():
    print("works", flush=True)
    os.read(reading, 1)
    print("checkpoint", flush=True)
"""


def start(code, *arguments, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
    )  # fmt: skip
    return process, process.stdout.readline().strip()


@pytest.fixture
def study(tmp_path, monkeypatch):
    for name in (locks.RUN_VARIABLE, locks.ALLOCATION_VARIABLE):
        monkeypatch.setenv(name, "")
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "work" / "quick.lock"


def test_the_second_is_told_who_runs_the_study_and_a_kill_frees_it(study):
    first, said = start(HOLD, study)
    assert said == "held"
    second, said = start(HOLD, study)
    assert said == ""
    error = second.communicate()[1]
    assert second.returncode == 1
    assert f"the study is being run by -c {study} (process {first.pid}, user " in error
    first.kill()
    first.communicate()
    third, said = start(HOLD, study)
    assert said == "held"
    third.communicate()


def test_a_job_that_outlived_its_snakemake_ends_before_the_study_goes_on(study):
    first = locks.hold_study(study)
    run = os.environ[locks.RUN_VARIABLE]
    job, said = start(WORK, **{locks.RUN_VARIABLE: run})
    assert said == "works"
    assert len(list(study.parent.glob("quick.lock.jobs/*.lock"))) == 1
    first.release()
    second = locks.hold_study(study)
    # It ended as a job is to end, by SIGTERM and after its checkpoint, before hold_study returned.
    assert job.poll() is not None or not list(study.parent.glob("quick.lock.jobs/*"))
    assert job.communicate()[0] == "checkpoint\n"
    assert job.returncode == -signal.SIGTERM
    assert not list(study.parent.glob("quick.lock.jobs/*"))
    second.release()


def test_a_job_that_starts_after_its_run_is_over_does_nothing(study):
    first = locks.hold_study(study)
    old = os.environ[locks.RUN_VARIABLE]
    first.release()
    second = locks.hold_study(study)
    job, said = start(WORK, **{locks.RUN_VARIABLE: old})
    assert said == ""
    assert "started anew since this job was" in job.communicate()[1]
    job, said = start(WORK)
    assert said == "works"
    job.kill()
    job.communicate()
    second.release()
    locks.hold_study(study).release()  # the traces of a killed job do not matter
    assert not list(study.parent.glob("quick.lock.jobs/*"))


def test_a_job_on_another_host_is_named(study, monkeypatch):
    first = locks.hold_study(study)
    job, _ = start(
        "import socket; socket.gethostname = lambda: 'elsewhere'\n" + WORK,
        **{locks.RUN_VARIABLE: os.environ[locks.RUN_VARIABLE]},
    )
    first.release()
    with pytest.raises(MachineError, match=rf"from an earlier start.*process {job.pid}, .*host elsewhere"):
        locks.hold_study(study)
    job.kill()
    job.communicate()


def test_a_program_run_by_hand_needs_no_lock(study, monkeypatch):
    for value in ("", "/nowhere/quick.lock:abc"):
        monkeypatch.setenv(locks.RUN_VARIABLE, value)
        with locks.working():
            assert not study.parent.exists()


# Dies in the middle of saying who it is: before what it wrote gets its name.
DIE_WHILE_TELLING = """
import os, signal, sys
from pathlib import Path
from headstrong import locks
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1:]:
    locks.hold_study(Path(sys.argv[1]))
with locks.working():
    pass
"""


def test_who_is_killed_while_it_says_who_it_is_leaves_nothing_for_ever(study):
    process, _ = start(DIE_WHILE_TELLING, study)
    assert process.wait() == -signal.SIGKILL
    first, said = start(HOLD, study)
    assert said == "held"
    job, _ = start(DIE_WHILE_TELLING, HEADSTRONG_RUN=f"{study}:{locks.holder(study)['run']}")
    assert job.wait() == -signal.SIGKILL
    first.communicate()
    assert first.returncode == 0
    assert sorted(path.name for path in study.parent.iterdir()) == ["quick.lock", "quick.lock.holder.json"]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A SLURM that cancels nothing: the file where its commands write down what they are asked."""
    asked = tmp_path / "asked"
    for name in ("scancel", "squeue"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\necho {name} $* >> {asked}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    return asked


@pytest.mark.parametrize("array", [{}, {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}])
def test_the_allocation_that_snakemake_runs_in_is_never_cancelled(study, monkeypatch, slurm, array):
    for name, value in {"SLURM_JOB_ID": "9", **array}.items():
        monkeypatch.setenv(name, value)
    first = locks.hold_study(study)
    job, said = start(WORK)  # in the same allocation, as its environment says
    assert said == "works"
    first.release()
    locks.hold_study(study).release()
    assert not slurm.exists()
    assert job.communicate()[0] == "checkpoint\n"
    assert job.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("ids", "cancelled"),
    [
        ({"SLURM_JOB_ID": "9"}, "9"),
        # The last task of an array has the id of the whole array as its own.
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3"),
    ],
)
def test_a_job_that_slurm_was_given_is_cancelled_by_its_own_id(study, monkeypatch, slurm, ids, cancelled):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # where Snakemake runs
    first = locks.hold_study(study)
    job, _ = start(WORK, **ids)
    first.release()
    with pytest.raises(MachineError, match=f"still running, .*, job {cancelled}, .*; end it$"):
        locks.hold_study(study)
    assert slurm.read_text().splitlines()[0] == f"scancel {cancelled}"
    job.kill()
    job.communicate()


# Holds the lock of a job in another process than the one that its file names, as a child does that outlives its parent.
IMPOSTOR = """
import json, os
from headstrong import locks
me = locks._myself
locks._myself = lambda: {**me(), "process": int(os.environ["OTHER"])}
with locks.working():
    print("works", flush=True)
    input()
"""


def test_another_process_that_has_the_number_by_now_is_left_alone(study):
    other = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    first, _ = start(HOLD, study)  # so that the next does not start at the same hundredth of a second
    job, said = start(IMPOSTOR, OTHER=str(other.pid), HEADSTRONG_RUN=f"{study}:{locks.holder(study)['run']}")
    assert said == "works"
    first.communicate()
    with pytest.raises(MachineError, match=f"process {other.pid}, .*; end it$"):
        locks.hold_study(study)
    job.kill()
    job.communicate()
    other.stdin.close()
    assert other.wait() == 0


@pytest.fixture(scope="module")
def no_flock(tmp_path_factory):
    """Variables of a process whose file systems all have no locks."""
    library = tmp_path_factory.mktemp("no_flock") / "no_flock.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("no_flock.c")], check=True)
    return {"LD_PRELOAD": str(library)}


@needs_compiler
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EIO], ids=errno.errorcode.get)
def test_without_locks_of_the_system_files_stand_in_for_them(study, no_flock, number):
    environment = {**no_flock, "NO_FLOCK": str(number)}
    first, said = start(HOLD, study, **environment)
    assert said == "held"
    job, said = start(WORK, HEADSTRONG_RUN=f"{study}:{locks.holder(study)['run']}", **environment)
    assert said == "works"
    for variables in (environment, {"LD_PRELOAD": ""}):  # also for who can lock after all
        second, _ = start(HOLD, study, **variables)
        error = second.communicate()[1].splitlines()[-1]
        assert f"process {first.pid}, " in error
        assert error.endswith(f"if that has ended, delete {study}, as this disk has no locks of its own")
    first.kill()
    first.communicate()
    third, said = start(HOLD, study, **environment)
    assert said == "held"
    assert job.communicate()[0] == "checkpoint\n"
    assert third.communicate()[1] == ""


@needs_compiler
def test_gpus_without_locks_name_the_variable_to_set(tmp_path, no_flock):
    code = "from headstrong import gpulocks\nwith gpulocks.one_of(['a']): pass"
    held = gpulocks.one_of(["a"], folder=tmp_path)
    with held:
        for look in (code, "from headstrong import gpulocks\ngpulocks.holders_of('a')"):
            process, _ = start(look, **no_flock, HEADSTRONG_GPU_LOCKS=str(tmp_path))
            line = process.communicate()[1].splitlines()[-1]
            assert "MachineError: " in line
            assert line.endswith("No locks available; set HEADSTRONG_GPU_LOCKS to a folder of this machine")
