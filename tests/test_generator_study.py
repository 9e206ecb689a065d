"""Generated perturbations through the whole workflow, and what runs again after a change."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

import checkout

STUDY = checkout.only("""
study: {name: generated}
data: {size: [32, 32], train: 16, test: 4, antialias: 1}
tasks: sdn
plan:
  dmtl: {}
  mtan: {encoders: [mtan], tasks: sdn, sizes: [3], reference: true, protocol: {depth: metres, normals: cosine}}
chains: [sdn]
model: {width: 0.0625}
training: {epochs: 1, batch_size: 8}
pictures:
  domains: {domains: [studio, room], size: [32, 32], train: 20, test: 10}
classifiers:
  domain: {width: 0.0625, training: {epochs: 1, batch_size: 10}}
importance: null
hidden: null
generators:
  domains: &small
    methods: [mta]
    modes: [universal, instance]
    filters: 4
    blocks: {universal: 1, instance: 1}
    training: {epochs: 1}
  scenes: {<<: *small, methods: [gap, mta], modes: [instance], transfer: [mtan]}
attacks:
  pgd: {steps: [2]}
  noise: {}
analysis: {steps: 2, bootstrap: 20}
figures: {dpi: 50}
""")
TRAINING = {"train_model", "train_classifier", "train_generator"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = checkout.make(tmp_path_factory.mktemp("generated") / "headstrong", STUDY)
    checkout.run(folder, study="generated")
    return folder


@pytest.fixture
def study(finished, tmp_path) -> Path:
    return checkout.copy(finished, tmp_path / "headstrong")


def change(folder: Path, section: str, name: str, **values) -> dict[str, list[str]]:
    """What would run after a change in one entry of a section."""
    file = folder / "studies" / "generated.yaml"
    content = yaml.safe_load(file.read_text())
    content[section][name] = {**content[section][name], **values}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return checkout.dry_run(folder, study="generated")


def test_every_generator_is_measured_on_every_victim(finished):
    table = pd.read_csv(finished / "results" / "generated" / "tables" / "generated.csv", keep_default_na=False)
    made = table.loc[table["method"].isin(["gap", "mta"])]
    assert set(zip(made["family"], made["method"], made["mode"], made["victim"], strict=True)) == {
        ("domains", "mta", "universal", "domain"),
        ("domains", "mta", "instance", "domain"),
        ("scenes", "gap", "instance", "dmtl"),
        ("scenes", "gap", "instance", "mtan"),
        ("scenes", "mta", "instance", "dmtl"),
        ("scenes", "mta", "instance", "mtan"),
    }
    assert set(table["method"]) == {"clean", "noise", "trivial", "gap", "mta"}


def test_no_perturbation_leaves_its_ball(finished):
    seen = 0
    for file in (finished / "results" / "generated" / "generated").glob("*.h5"):
        with h5py.File(file) as content:
            for group in content["generated"].values():
                for victims in group.values():
                    for leaf in victims.values():
                        assert float(np.max(leaf["linf"][:])) <= group.attrs["epsilon"] * (1 + 1e-5)
                        seen += 1
    assert seen >= 6  # as many generators on as many victims, see above; each on every task


def test_universal_perturbations_can_be_taken_elsewhere(finished):
    folder = (
        finished / "results" / "generated" / "perturbations" / "domains" / "domains-mta-universal-untargeted-linf-10"
    )
    assert {path.name for path in folder.iterdir()} >= {"studio.npy", "studio.png", "room.npy", "room.png"}
    assert np.abs(np.load(folder / "room.npy")).max() == pytest.approx(10, rel=1e-5)
    assert json.loads((folder / "perturbation.json").read_text())["epsilon"] == "10/255"


def test_the_report_shows_them(finished):
    page = (finished / "results" / "generated" / "report.html").read_text()
    assert "MTA" in page
    assert "GAP" in page
    assert checkout.dry_run(finished, study="generated") == {}


def test_another_epsilon_trains_its_generators_and_nothing_else(study):
    jobs = change(study, "generators", "domains", epsilon=["10/255", "5/255"])
    assert sorted(jobs["train_generator"]) == [
        "generator=domains-mta-instance-untargeted-linf-5",
        "generator=domains-mta-universal-untargeted-linf-5",
    ]
    assert {"evaluate_generators", "collect_generated", "make_report"} <= set(jobs)
    assert jobs["evaluate_generators"] == ["family=domains"]
    assert not {"train_model", "train_classifier", "build_pictures", "build_data", "evaluate_model"} & set(jobs)


def test_other_training_of_the_classifiers_leaves_the_dense_family_alone(study):
    jobs = change(study, "classifiers", "domain", augment=False)
    assert len(jobs["train_classifier"]) == 2
    assert all(wildcards.startswith("generator=domains-") for wildcards in jobs["train_generator"])
    assert not {"train_model", "build_pictures", "evaluate_model"} & set(jobs)


def test_an_edit_of_the_evaluation_trains_nothing(study):
    with (study / "src" / "headstrong" / "generated.py").open("a") as file:
        file.write("\n_EDITED = True\n")
    jobs = checkout.dry_run(study, study="generated")
    assert sorted(jobs["evaluate_generators"]) == ["family=domains", "family=scenes"]
    assert not TRAINING & set(jobs)


def test_an_edit_of_the_generators_training_trains_no_victim(study):
    with (study / "src" / "headstrong" / "generator_training.py").open("a") as file:
        file.write("\n_EDITED = True\n")
    jobs = checkout.dry_run(study, study="generated")
    assert len(jobs["train_generator"]) == 4
    assert not {"train_model", "train_classifier", "build_pictures", "evaluate_model"} & set(jobs)
