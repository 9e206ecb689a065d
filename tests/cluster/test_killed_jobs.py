"""Trainings on a real SLURM that are killed in every way a cluster has: they go on, and end with the same bits.

When they are killed is drawn from HEADSTRONG_FAULT_SEED.
"""

from __future__ import annotations

import os
import signal

import pytest

import cluster_runs
from cluster_runs import EPOCHS, WEIGHTS, Study

FIRST, LAST = 3, EPOCHS * 2 // 3  # epochs between which things are killed


def scancel(study):
    study.slurm.call("scancel", *study.running())


def requeue(study):
    study.slurm.call("scontrol", "requeue", ",".join(study.running()))


def kill_program(study):
    for process in study.programs("train_model.py"):
        os.kill(process, signal.SIGKILL)


def kill_job(study):
    study.slurm.call("scancel", "--full", "--signal=KILL", *study.running())


def preempt(study):
    everything = ["--partition=urgent", "--exclusive", "--gres=gpu:2", "--mem=1000"]
    study.slurm.call("sbatch", *everything, "--output=/dev/null", "--wrap=true")


@pytest.fixture
def study(slurm, undisturbed, tmp_path, request):
    folder = cluster_runs.prepared(tmp_path / "checkout", undisturbed)
    variables = getattr(request, "param", {})
    with Study(slurm, folder, WEIGHTS, **variables) as running:
        yield running


def check(study, undisturbed):
    assert (study.folder / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    found = cluster_runs.results_of(study.folder, "training")
    assert cluster_runs.differences(cluster_runs.results_of(undisturbed, "training"), found) == []
    assert cluster_runs.left_over(study.folder) == []
    # The epochs of the last attempt are those after the checkpoint, each once.
    assert study.epochs() == list(range(study.resumed_after() + 1, EPOCHS + 1))


@pytest.mark.parametrize("end", [scancel, *(pytest.param(end, marks=pytest.mark.slow) for end in (requeue, preempt))])
def test_a_job_that_is_asked_to_end_loses_nothing(study, undisturbed, end):
    before = study.until_epoch(FIRST, LAST, seed=end.__name__)
    end(study)
    study.finish()
    assert study.resumed_after() >= before  # its checkpoint was written on SIGTERM: the checkpoint interval is minutes
    states = study.states()
    assert states[-1] == "COMPLETED"
    assert len(states) == 2
    assert states[0] in {scancel: "CANCELLED", requeue: "REQUEUED", preempt: "PREEMPTED"}[end]
    check(study, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("study", [{"HEADSTRONG_CHECKPOINT_MINUTES": "0"}], indirect=True)
@pytest.mark.parametrize("end", [kill_program, kill_job])
def test_a_job_that_is_killed_goes_on_from_its_last_checkpoint(study, undisturbed, end):
    before = study.until_epoch(FIRST, LAST, seed=end.__name__)
    end(study)
    study.finish()
    assert study.resumed_after() >= before - 1  # its epoch may have been logged before the step was saved
    assert study.states()[-1] == "COMPLETED"
    assert len(study.states()) == 2
    check(study, undisturbed)
