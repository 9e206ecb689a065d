"""One Snakemake per study; jobs that outlive a killed one are ended before anything starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from headstrong import locks
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
    monkeypatch.setenv(locks.RUN_VARIABLE, "")
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
