"""Whole studies through a real SLURM give the bits of a local run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import checkout
import cluster_runs
from cluster_runs import Study


def compare(study, local, name):
    expected, found = cluster_runs.results_of(local, name), cluster_runs.results_of(study.folder, name)
    assert len(expected) > 20
    assert cluster_runs.differences(expected, found) == []
    assert cluster_runs.left_over(study.folder) == []
    assert set(study.states()) == {"COMPLETED"}


@pytest.mark.slow
def test_a_study_through_slurm_equals_the_local_run(slurm, tmp_path):
    local = checkout.make(tmp_path / "local")
    checkout.run(local)
    side_by_side = set()
    settings = "data={train: 16}"  # what the overlay says as well; jobs read it too
    with Study(slurm, checkout.make(tmp_path / "cluster"), "--config", settings, study="micro") as study:

        def watch():
            jobs = [slurm.call("scontrol", "show", "job", "-d", job) for job in study.running()]
            devices = [re.findall(r"GRES=gpu:1\(IDX:(\d)\)", job) for job in jobs]
            side_by_side.add(tuple(sorted(device for found in devices for device in found)))
            return (study.folder / "results" / "micro" / "report.html").exists()

        study.until(watch, "the report", patience=1200)
        study.finish()
    compare(study, local, "micro")
    # Two jobs with a GPU each had the two, and no job had more than one; evaluations came in groups, one GPU for each.
    assert ("0", "1") in side_by_side
    assert side_by_side <= {(), ("0",), ("1",), ("0", "1")}
    jobs = slurm.call("sacct", "-X", "-n", "-P", "-o", "workdir,reqtres").splitlines()
    asked = [line for line in jobs if line.startswith(f"{study.folder}|") and "gpu" in line]
    assert len(asked) == 5  # three trainings, six evaluations in two groups
    assert all("gres/gpu=1" in line for line in asked)


@pytest.mark.slow
def test_the_default_study_through_slurm_equals_the_local_run(slurm, tmp_path):
    """An hour and more on two cores; half of it with HEADSTRONG_LOCAL_STUDY, a checkout where the local run is done."""
    with Study(slurm, checkout.make(tmp_path / "cluster"), study="") as study:
        report = study.folder / "results" / "quick" / "report.html"
        study.until(report.exists, "the report", patience=3 * 3600)
        study.finish()
    local = Path(os.environ.get("HEADSTRONG_LOCAL_STUDY", tmp_path / "local"))
    if not local.exists():
        checkout.run(checkout.make(local), study="")
    compare(study, local, "quick")
