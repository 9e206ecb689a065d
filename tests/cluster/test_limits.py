"""Time and memory limits of a real SLURM: a training goes on in its next attempt, which has more of both."""

from __future__ import annotations

import re

import pytest

import cluster_runs
from cluster_runs import WEIGHTS, Study
from local_slurm import LocalSlurm

LONG = 300  # epochs: more than a minute on any machine, more attempts on a slow or busy one
RULE = "train_model_with_checkpoints"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed_long(tmp_path_factory):
    return cluster_runs.undisturbed(tmp_path_factory.mktemp("undisturbed") / "checkout", epochs=LONG)


def check(study, undisturbed):
    assert (study.folder / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    assert cluster_runs.left_over(study.folder) == []


def test_a_training_longer_than_its_time_limit_ends_after_some_attempts(slurm, undisturbed_long, tmp_path):
    folder = cluster_runs.prepared(tmp_path / "checkout", undisturbed_long)
    seen = []  # epochs after which an attempt went on
    limits = ["--retries", "40", "--set-resources", f"{RULE}:runtime=1", f"{RULE}:mem_mb=4000"]
    with Study(slurm, folder, WEIGHTS, *limits) as study:

        def watch():
            if study.resumed_after() not in (-1, *seen):
                seen.append(study.resumed_after())
            return (folder / WEIGHTS).exists()

        study.until(watch, "the end of the training", patience=3600)
        study.finish()
        states = study.states()
        assert set(states[:-1]) == {"TIMEOUT"}
        assert states[-1] == "COMPLETED"
        assert len(seen) == len(states) - 1 >= 1
        assert seen == sorted(set(seen))  # every attempt went further than the one before
        assert study.epochs() == list(range(seen[-1] + 1, LONG + 1))
    check(study, undisturbed_long)


def test_a_cluster_without_accounting_that_knows_only_gres(undisturbed, tmp_path):
    folder = cluster_runs.prepared(tmp_path / "checkout", undisturbed)
    changed = ["--slurm-no-account", "--set-resources", f"{RULE}:gres=gpu:1", f"{RULE}:gpu=0"]
    with LocalSlurm(tmp_path / "slurm", accounting=False) as slurm, Study(slurm, folder, WEIGHTS, *changed) as study:
        assert not slurm.answers("sacct")
        study.until_epoch(3, 20, seed="no accounting")
        job = slurm.call("scontrol", "show", "job", "-d", *study.running())
        assert "GRES=gpu:1(IDX:0)" in job
        slurm.call("scancel", *study.running())
        study.finish()
        assert study.resumed_after() >= 3
    check(study, undisturbed)


def test_a_job_that_takes_too_much_memory_gets_more(slurm, undisturbed, tmp_path):
    folder = cluster_runs.prepared(tmp_path / "checkout", undisturbed)
    with Study(slurm, folder, WEIGHTS, "--set-resources", f"{RULE}:mem_mb=300 * 13 ** (attempt - 1)") as study:
        study.finish()
        assert len(study.states()) == 2  # without cgroups SLURM calls the first FAILED, and says why in its log
        (said,) = folder.glob(".snakemake/slurm_logs/*/*/*.log")
        assert "Exceeded job memory limit" in said.read_text()
        asked = slurm.call("sacct", "-X", "-n", "-P", "-o", "workdir,reqtres").splitlines()
        own = " ".join(line for line in asked if line.startswith(f"{folder}|"))
        assert re.findall(r"mem=(\d+)M", own) == ["300", "3900"]
    check(study, undisturbed)
