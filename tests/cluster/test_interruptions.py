"""What runs the study dies, or is started twice, while its jobs are on a real SLURM."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess

import pytest

import checkout
import cluster_runs
from cluster_runs import EPOCHS, WEIGHTS, Study

pytestmark = pytest.mark.slow


@pytest.fixture
def study(slurm, undisturbed, tmp_path):
    with Study(slurm, cluster_runs.prepared(tmp_path / "checkout", undisturbed), WEIGHTS) as running:
        yield running


def check(study, undisturbed):
    found = cluster_runs.results_of(study.folder, "training")
    assert cluster_runs.differences(cluster_runs.results_of(undisturbed, "training"), found) == []
    assert cluster_runs.left_over(study.folder) == []


def test_a_killed_snakemake_is_started_again_and_its_jobs_do_not_run_twice(study, undisturbed):
    before = study.until_epoch(3, EPOCHS // 2, seed="snakemake")
    (job,) = study.running()
    study.process.send_signal(signal.SIGKILL)
    study.process.wait()
    assert study.running() == [job]  # nobody told SLURM
    study.start()
    study.until(lambda: study.states()[1:], "a second job")
    assert study.states()[0] == "CANCELLED"  # before the second one was submitted
    study.finish()
    assert study.states() == ["CANCELLED", "COMPLETED"]
    assert study.resumed_after() >= before
    check(study, undisturbed)


# In an allocation: start Snakemake, kill it in the middle of the training, start it again.
SESSION = """#!/bin/sh
{command} &
while kill -0 $! && ! grep -qs "epoch 5 of" {log}; do sleep 0.1; done
kill -KILL $!
{command}
"""


@pytest.mark.parametrize("submits", [False, True])
def test_a_snakemake_that_is_started_again_in_its_allocation_leaves_it_alone(slurm, undisturbed, tmp_path, submits):
    """Nor does it, or a node, need a home."""
    folder = cluster_runs.prepared(tmp_path / "checkout", undisturbed)
    local = [*checkout.command(study="training"), "--", WEIGHTS]
    command = shlex.join(cluster_runs.command(WEIGHTS, study="training") if submits else local)
    (folder / "session.sh").write_text(SESSION.format(command=command, log=cluster_runs.LOG))
    study = Study(slurm, folder, WEIGHTS)
    environment = {**checkout.environment(), **slurm.environment, "HOME": "/proc/nowhere"}
    subprocess.run(
        ["sbatch", "--wait", "--mem=4000", f"--chdir={folder}", f"--output={study.said}", "session.sh"], cwd=folder,
        env=environment, capture_output=True, timeout=cluster_runs.PATIENCE,
    )  # fmt: skip
    assert study.states() == ["COMPLETED", *(["CANCELLED", "COMPLETED"] if submits else [])], study.words()
    assert study.resumed_after() >= 4
    check(study, undisturbed)


def test_a_job_still_queued_when_its_snakemake_is_killed_does_nothing_later(slurm, undisturbed, tmp_path):
    blocker = slurm.call("sbatch", "--parsable", "--exclusive", "--mem=1000", "--output=/dev/null", "--wrap=sleep 600")
    with Study(slurm, cluster_runs.prepared(tmp_path / "checkout", undisturbed), WEIGHTS) as study:
        study.until(study.states, "a queued job")
        study.process.send_signal(signal.SIGKILL)
        study.process.wait()
        study.start()
        study.until(lambda: len(study.states()) == 2, "a second queued job")
        slurm.call("scancel", blocker.strip())
        study.finish()
        assert study.states() == ["FAILED", "COMPLETED"]
        said = list(study.folder.glob(".snakemake/slurm_logs/*/*/*.log"))
        assert "goes on after" not in study.log()
        assert len(said) == 1  # the log of the first, which ended at once
        assert study.epochs() == list(range(1, EPOCHS + 1))
    check(study, undisturbed)


def test_an_interrupted_snakemake_cancels_its_jobs_which_keep_what_they_have(study, undisturbed):
    before = study.until_epoch(3, EPOCHS // 2, seed="interrupted")
    study.process.send_signal(signal.SIGINT)
    study.process.wait(timeout=120)
    assert study.process.returncode != 0
    study.start()
    study.finish()
    assert study.states() == ["CANCELLED", "COMPLETED"]
    assert study.resumed_after() >= before
    check(study, undisturbed)


def test_the_second_of_two_workflows_on_one_folder_says_who_runs_the_first(study, undisturbed):
    study.until(study.running, "a running job")
    command = [*checkout.command(study="training"), "--", WEIGHTS]
    for line in (command, [*command[:3], "--profile", "profiles/slurm", *command[5:]]):
        second = subprocess.run(
            line, cwd=study.folder, env={**checkout.environment(), **study.variables}, capture_output=True, text=True
        )
        assert second.returncode == 7
        process = study.process.pid
        assert re.search(
            rf"\nerror: .*training\.lock: .* being run by .*process {process}, user .*, host ", second.stderr
        )
        assert "Traceback" not in second.stderr
    study.finish()
    assert study.states() == ["COMPLETED"]
    check(study, undisturbed)


@pytest.mark.parametrize("kill", [False, True])
def test_the_controller_restarts_while_jobs_run(slurm, study, undisturbed, kill):
    study.until_epoch(3, EPOCHS // 3, seed=f"controller {kill}")
    slurm.end("slurmctld", kill=kill)
    epochs = len(study.epochs())
    study.until(lambda: len(study.epochs()) > epochs + 5, "epochs without a controller")  # jobs need none
    slurm.start_controller()
    study.finish()
    assert study.states() == ["COMPLETED"]
    check(study, undisturbed)


def test_the_controller_is_down_when_a_job_is_to_be_submitted(slurm, undisturbed, tmp_path):
    folder = cluster_runs.prepared(tmp_path / "checkout", undisturbed)
    slurm.end("slurmctld", kill=True)
    try:
        with Study(slurm, folder, WEIGHTS) as study:
            study.until(lambda: "Unable to contact slurm controller" in study.said.read_text(), "a failed submission")
            slurm.start_controller()
            study.finish()
            assert study.states() == ["COMPLETED"]
        check(study, undisturbed)
    finally:
        if not slurm.answers("scontrol", "ping"):
            slurm.start_controller()
