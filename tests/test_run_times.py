"""How long a study takes is estimated from what is recorded of it or its like, and nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

import checkout
from headstrong import run_times
from headstrong.configfiles import as_yaml, load, merge, parse, study_files
from headstrong.provenance import RECORD_FORMAT, ROOT
from headstrong.study import Plan

MICRO = merge(yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load(checkout.MICRO))
SECONDS = {"build_data": 4.0, "train_model": 30.0, "evaluate_model": 20.0, "picture_attacks": 1.0, "make_tables": 3.0}


def plan_of(**overlay) -> Plan:
    return Plan(parse(merge(MICRO, overlay)))


def record(folder: Path, rule: str, **content) -> None:
    name = f"{rule}-{len(list(folder.glob('*.json')))}.json"
    written = {"format": RECORD_FORMAT, "rule": rule, "root": ".", "inputs": {}, "outputs": {}, "device": "cpu"}
    (folder / name).write_text(json.dumps({**written, **content}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of the micro study: a record for every job, and others that say nothing of their time."""
    plan = plan_of()
    folder = tmp_path / "results" / "micro"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(as_yaml(plan.config))
    for split in ("train", "test"):
        record(folder, "build_data", job=plan.data_settings(split), seconds=SECONDS["build_data"])
    for run in plan.runs:
        record(folder, "train_model", job={"id": run.id}, seconds=SECONDS["train_model"])
    for model in plan.models:
        record(folder, "evaluate_model", job={"id": model.id}, seconds=SECONDS["evaluate_model"])
    record(folder, "make_tables", settings={}, seconds=SECONDS["make_tables"])
    record(folder, "train_model", job={"id": "foreign"}, seconds=1e6)
    record(folder, "train_model", job={"id": plan.runs[0].id}, seconds=None)
    (folder / "broken.json").write_text("{")
    (tmp_path / "results" / "foreign").mkdir()
    (tmp_path / "results" / "foreign" / "config.yaml").write_text("nothing: of this kind")
    return folder.parent


def found(results: Path, **overlay) -> run_times.Estimate:
    return run_times.estimate(plan_of(**overlay), results, results / "none")


def test_a_study_that_ran_takes_as_long_as_it_did(results):
    plan, estimate = plan_of(), found(results)
    counted = {"build_data": 2, "train_model": len(plan.runs), "evaluate_model": len(plan.models), "make_tables": 1}
    assert estimate.seconds == pytest.approx(sum(number * SECONDS[rule] for rule, number in counted.items()))
    assert estimate.unknown == {}
    (line,) = run_times.in_words(estimate, 2)
    assert "about 1.8 min on 2 cores (3.7 min of jobs)" in line
    assert f"from records of {estimate.jobs} jobs" in line
    assert line.endswith(f"in {results}/micro, on cpu")


def test_more_epochs_and_more_steps_take_longer_in_proportion(results):
    base = found(results).seconds
    twice = found(results, training={"epochs": 6}).seconds
    assert twice - base == pytest.approx(len(plan_of().runs) * SECONDS["train_model"])
    steps = {"attacks": {"pgd": {"steps": [20]}}, "analysis": {"steps": 20}}
    assert found(results, **steps).seconds > base + 5 * len(plan_of().models) * SECONDS["evaluate_model"] / 2


def test_a_study_of_another_name_takes_what_its_like_takes(results):
    estimate = found(results, study={"name": "other"}, plan={"single": None, "single-early": None})
    assert estimate.unknown == {}
    assert 0 < estimate.seconds < found(results).seconds


@pytest.mark.parametrize("other", [{"model": {"width": 0.125}}, {"data": {"size": [64, 64]}}])
def test_of_what_is_unlike_all_records_no_time_is_told(results, other):
    estimate = found(results, **other)
    assert estimate.unknown["train_model"] == len(plan_of().runs)
    assert run_times.in_words(estimate, 2)[-1].startswith("run time: not known, as no record is like these: ")


def test_references_tell_the_time_of_their_studies(tmp_path):
    plan = Plan(load(study_files(["full", "tiny"])))
    estimate = run_times.estimate(plan, tmp_path)
    with (ROOT / "results" / "reference" / "full-tiny" / "stages.csv").open(newline="") as file:
        whole = sum(float(row["seconds"]) for row in csv.DictReader(file))
    assert estimate.seconds == pytest.approx(whole, rel=0.01)
    assert estimate.folders == ("results/reference/full-tiny",)
