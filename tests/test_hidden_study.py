"""A study of hidden tasks through Snakemake: from pictures to the report, and what a change runs again."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import checkout
from headstrong.analysis.files import read_table

STUDY = checkout.only("""
study: {name: hidden}
data: {size: [32, 32], train: 8, test: 3, antialias: 1}
tasks: sd
plan:
  pair: {encoders: [resnet18], tasks: sd, sizes: [2], reference: true}
chains: [sd]
model: {width: 0.0625}
training: {epochs: 1, batch_size: 8}
generators: null
importance: null
pictures:
  attributes: {size: [32, 32], train: 8, test: 4}
classifiers:
  attributes: {labels: [shape, colour], width: 0.0625, training: {epochs: 1, batch_size: 8}}
hidden:
  attributes:
    hide: [colour]
    access: [heads, backbone]
    forgetting: {epochs: 1, batch_size: 8, probe_epochs: 1, curve: 1}
    attacks: {objectives: [cf, single, oracle, noise], stealth: [0], steps: 1, epsilon: ["8/255"]}
  scenes:
    section: pair
    hide: [d]
    access: [heads]
    forgetting: {epochs: 1, batch_size: 8, learning_rate: 0.001, curve: 1}
    attacks: {objectives: [cf_delta, oracle, noise], stealth: [0], steps: 1, epsilon: ["8/255"]}
attacks:
  pgd: {steps: [1], chains: false}
  noise: {}
evaluation: {gradients: false}
analysis: {steps: 1, bootstrap: 20}
figures: {dpi: 40, formats: [png]}
""")
COPIES = {"attributes-colour-heads", "attributes-colour-backbone", "scenes-d-heads"}
TURNS = {"attributes-colour", "scenes-d"}
MADE_ONCE = {"build_data", "build_pictures", "train_model", "train_classifier", "evaluate_model"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = checkout.make(tmp_path_factory.mktemp("hidden") / "checkout", STUDY)
    checkout.run(folder, study="hidden")
    return folder


def change(folder, edit):
    return checkout.dry_run_changed(folder, STUDY, edit)


def test_the_study_goes_from_pictures_to_a_report(study):
    results = study / "results" / "hidden"
    assert {path.parent.name for path in results.glob("forgetting/*/features.h5")} == COPIES
    assert {path.stem for path in results.glob("hidden/*.h5")} == TURNS
    summary = read_table(results / "tables" / "hidden_summary.csv")
    assert set(zip(summary["family"], summary["objective"], summary["access"].fillna(""), strict=True)) == {
        *(("attributes", objective, access) for objective in ("cf", "single") for access in ("heads", "backbone")),
        ("scenes", "cf_delta", "heads"),
        *((family, objective, "") for family in ("attributes", "scenes") for objective in ("oracle", "noise")),
    }
    assert set(summary["turns"]) == {1}
    assert "CF-delta" in (results / "report.html").read_text()
    assert not list((study / "work").rglob("*.ckpt"))


def test_numbers_of_the_tables_are_those_of_the_files(study):
    """Damage of one attack, and what is left after forgetting, from the files of each image, by hand."""
    results = study / "results" / "hidden"
    table, forgotten = (read_table(results / "tables" / f"{name}.csv") for name in ("hidden", "forgetting"))
    with h5py.File(results / "hidden" / "attributes-colour.h5") as file:
        clean, attacked = file["clean/colour/error"][:], file["attacks/cf.heads.stealth0.linf.8/colour/error"][:]
        kept = file["forgetting/backbone/1/colour/error"][:]
        assert json.loads(file.attrs["tasks"]) == ["shape", "colour"]
    row = table.query("family == 'attributes' and attack == 'cf.heads.stealth0.linf.8' and task == 'colour'")
    assert row["role"].item() == "hidden"
    assert row["damage"].item() == pytest.approx(100 * (np.mean(attacked) - np.mean(clean)))
    row = forgotten.query("family == 'attributes' and access == 'backbone' and epoch == 1 and task == 'colour'")
    assert row["value"].item() == pytest.approx(100 * (1 - np.mean(kept)))


def test_nothing_runs_a_second_time(study):
    assert checkout.dry_run(study, study="hidden") == {}


def test_another_radius_attacks_again_and_another_rate_forgets_again(study):
    """Of two families one changes its attacks, the other its forgetting: neither trains a network."""

    def edit(settings):
        settings["hidden"]["attributes"]["attacks"] |= {"epsilon": ["4/255"], "stealth": [1]}
        settings["hidden"]["scenes"]["forgetting"]["learning_rate"] = 0.01

    jobs = change(study, edit)
    assert jobs["forget_task"] == ["forgetting=scenes-d-heads"]
    assert sorted(jobs["evaluate_hidden"]) == ["turn=attributes-colour", "turn=scenes-d"]
    assert {"collect_hidden", "make_report"} <= set(jobs)
    assert not MADE_ONCE & set(jobs)


def test_one_more_hidden_task_adds_its_turn_and_a_switch_of_features_attacks_again(study):
    def edit(settings):
        settings["hidden"]["attributes"]["hide"] = ["shape", "colour"]
        settings["hidden"]["scenes"]["protocol"] = {"feature_distance": "cosine"}

    jobs = change(study, edit)
    assert sorted(jobs["forget_task"]) == [f"forgetting=attributes-shape-{access}" for access in ("backbone", "heads")]
    assert sorted(jobs["evaluate_hidden"]) == ["turn=attributes-shape", "turn=scenes-d"]
    assert not MADE_ONCE & set(jobs)


def test_an_edited_analysis_neither_forgets_nor_attacks(study):
    jobs = checkout.dry_run_edited(study, "analysis/hidden_summary.py", study="hidden")
    assert {"collect_hidden", "make_report"} <= set(jobs)
    assert not ({"forget_task", "evaluate_hidden"} | MADE_ONCE) & set(jobs)
