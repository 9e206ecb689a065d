"""A study of important classes through Snakemake: from pictures to the report, and what a change runs again."""

from __future__ import annotations

import json

import pytest

import checkout
from headstrong.analysis.files import read_table

STUDY = checkout.only("""
study: {name: importance}
plan: null
generators: null
hidden: null
classifiers: null
pictures:
  shapes: {size: [32, 32], train: 40, validation: 20, test: 20}
importance:
  shapes:
    width: 0.0625
    feature: 8
    important: {worst1: recall, balls: [ball, egg]}
    losses:
      wce: null
      softmax: null
      arcface: null
      camri: {margin: [4], scale: [8]}
    trials: 2
    training: {epochs: 1, batch_size: 20}
  flat:
    pictures: shapes
    width: 0.0625
    feature: 2
    important: {balls: [ball, egg]}
    losses: {ce: {}, camri: {margin: [4], scale: [8]}}
    trials: 1
    training: {epochs: 1, batch_size: 20}
figures: {dpi: 50}
""")
TRAINED = {
    *(f"shapes-ce-{n}" for n in range(2)),
    *(f"shapes-camri-{key}-m4-s8-{n}" for key in ("worst1", "balls") for n in range(2)),
    "flat-ce-0",
    "flat-camri-balls-m4-s8-0",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = checkout.make(tmp_path_factory.mktemp("importance") / "checkout", STUDY)
    checkout.run(folder, study="importance")
    return folder


def change(folder, edit):
    return checkout.dry_run_changed(folder, STUDY, edit)


def test_the_study_goes_from_pictures_to_a_report(study):
    results = study / "results" / "importance"
    assert {path.parent.name for path in results.glob("classifiers/*/weights.safetensors")} == TRAINED
    table = read_table(results / "tables" / "camri_table_1.csv")
    assert set(table["rule"]) == {"validation", "published"}
    assert set(zip(table["family"], table["important"], strict=True)) == {
        ("shapes", "worst1"), ("shapes", "balls"), ("flat", "balls"),
    }  # fmt: skip
    page = (results / "report.html").read_text()
    assert "CAMRI" in page
    drawn = json.loads((results / "figures" / "index.json").read_text())
    assert drawn
    assert all(entry["reason"] == "" for entry in drawn)


def test_numbers_of_the_table_are_those_of_the_pictures(study):
    """Recall of the important classes from the file of one trial, by hand."""
    import h5py
    import numpy as np

    results = study / "results" / "importance"
    table = read_table(results / "tables" / "importance.csv")
    with h5py.File(results / "importance" / "shapes.h5") as file:
        truth, told = file["truth/test"][:], file["trials/shapes-camri-balls-m4-s8-1/test/predicted"][:]
        numbers = [json.loads(file.attrs["classes"]).index(name) for name in ("ball", "egg")]
    chosen = np.isin(truth, numbers)
    row = table.query(
        "family == 'shapes' and loss == 'camri' and important == 'balls' and trial == 1 and split == 'test'"
    )
    assert len(row) == 1
    assert row["recall"].item() == pytest.approx(100 * np.mean(told[chosen] == truth[chosen]))
    assert row["accuracy"].item() == pytest.approx(100 * np.mean(told == truth))


def test_nothing_runs_a_second_time(study):
    assert checkout.dry_run(study, study="importance") == {}


def test_one_more_margin_trains_its_trials_alone(study):
    def edit(settings):
        settings["importance"]["shapes"]["losses"]["camri"]["margin"] = [4, 8]

    jobs = change(study, edit)
    assert sorted(jobs["train_classifier"]) == sorted(
        f"classifier=shapes-camri-{key}-m8-s8-{n}" for key in ("worst1", "balls") for n in range(2)
    )
    assert jobs["evaluate_importance"] == ["favouring=shapes"]
    assert "choose_classes" not in jobs


def test_another_tolerance_trains_nothing(study):
    def edit(settings):
        settings["importance"]["shapes"]["tolerance"] = 5.0

    jobs = change(study, edit)
    assert "train_classifier" not in jobs
    assert {"collect_importance", "make_report"} <= set(jobs)


def test_the_handling_of_large_angles_trains_losses_with_margins_alone(study):
    def edit(settings):
        settings["protocol"] = {"large_angles": "unhandled"}

    jobs = change(study, edit)
    assert sorted(jobs["train_classifier"]) == sorted(f"classifier={name}" for name in TRAINED if "camri" in name)


def test_an_edited_analysis_trains_and_evaluates_nothing(study):
    jobs = checkout.dry_run_edited(study, "analysis/camri_table.py", study="importance")
    assert {"collect_importance", "make_report"} <= set(jobs)
    assert not {"train_classifier", "evaluate_importance", "choose_classes", "build_pictures"} & set(jobs)


def test_one_more_trial_trains_again_only_if_it_chooses_other_classes(study):
    """Another trial of the cross entropy may change the ranking; once it is known not to, other trials stay.

    The last test here: it goes on with the finished study itself.
    """

    def edit(settings):
        settings["importance"]["shapes"]["trials"] = 3

    choice = study / "results" / "importance" / "choices" / "shapes.json"
    before = choice.read_bytes()
    change(study, edit)
    checkout.run(study, "--until", "choose_classes", study="changed")
    jobs = checkout.dry_run(study, study="changed")
    trained = set(jobs["train_classifier"])
    new = {f"classifier=shapes-camri-{key}-m4-s8-2" for key in ("worst1", "balls")}
    if choice.read_bytes() == before:
        assert trained == new
    else:
        assert new < trained
