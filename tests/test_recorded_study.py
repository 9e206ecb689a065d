"""After a whole run every result has one record that is true of it, and `why` and `export` tell what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from rocrate.rocrate import ROCrate

import checkout
import recorded_study
from headstrong.lineage import ASIDE, Lineage
from headstrong.provenance import ROOT, file_digest
from headstrong.stages import stage_code

BY_HAND = {"apply_perturbation"}
HEAVY = (".safetensors", "test.h5", "train.h5", "validation.h5", "features.h5")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return recorded_study.make(tmp_path_factory.mktemp("recorded") / "headstrong")


@pytest.fixture(scope="module")
def results(study) -> Path:
    return study / "results" / recorded_study.NAME


@pytest.fixture
def copy(results, tmp_path) -> Path:
    """The results folder alone, somewhere else, to be damaged."""
    return Path(shutil.copytree(results, tmp_path / "elsewhere" / recorded_study.NAME))


def files_of(results: Path, records: set[Path]) -> list[Path]:
    every = [path for path in sorted(results.rglob("*")) if path.is_file() and not path.name.startswith(".snakemake")]
    return [path for path in every if path.relative_to(results).parts[0] not in ASIDE and path not in records]


def why(study: Path, path: Path, *options: str) -> str:
    found = recorded_study.headstrong(study, "why", str(path), *options)
    assert found.returncode == 0, found.stderr
    return found.stdout


def refused(study: Path, code: int, *arguments: str) -> str:
    found = recorded_study.headstrong(study, *arguments)
    assert found.returncode == code, found.stdout + found.stderr
    assert len(found.stderr.splitlines()) == 1, found.stderr
    assert found.stderr.startswith("error: ")
    return found.stderr


def test_every_file_has_one_record_with_its_digest(results):
    lineage = Lineage(results)
    assert lineage.broken == {}
    files = files_of(results, {record.path for record in lineage.records})
    assert len(files) > 100
    for path in files:
        makers = lineage.makers(path)
        assert [record.outputs[path] for record in makers] == [file_digest(path)], path
    assert {output for record in lineage.records for output in record.outputs} == set(files)


def test_every_input_is_the_output_of_another_record(results):
    lineage = Lineage(results)
    assert any(record.inputs for record in lineage.records)
    for record in lineage.records:
        for path, digest in record.inputs.items():
            assert [made.outputs[path] for made in lineage.makers(path)] == [digest], (record.path, path)


def test_every_script_leaves_records_that_say_by_which_code(results):
    lineage = Lineage(results)
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")} - BY_HAND
    assert {record.rule for record in lineage.records} == scripts
    for record in lineage.records:
        assert record.content["code"] == stage_code(record.rule, record.job), record.path
        assert record.content["config"]["sha256"] == file_digest(results / "config.yaml")
        assert record.content["config"]["from"] == ["config.yaml", f"studies/{recorded_study.NAME}.yaml"]
        assert record.content["git"]["dirty"] is False
        assert record.content["device"]
        assert record.content["versions"]["python"]
        assert record.content["start"] <= record.content["end"]


def test_digests_of_records_are_those_that_the_rules_take(results):
    """The report's rule is handed the digests of the stages before it, as their own rules take them."""
    command = Lineage(results).makers(results / "report.html")[0].content["command"]
    digests = json.loads((results.parents[1] / command[command.index("--codes") + 1]).read_text())
    assert len(digests) > 5
    assert digests == {rule: stage_code(rule) for rule in digests}


def test_a_result_comes_out_again_from_its_record(results, tmp_path):
    """A program takes a record for a job file: results need no folder work/ to be made again by hand."""
    name = "combinations-resnet18-sd"
    line = [
        sys.executable, ROOT / "scripts/evaluate_model.py", "--job", results / "evaluations" / f"{name}.json",
        "--weights", results / "models" / name / "weights.safetensors", "--data", results / "data/test.h5",
        "--output", tmp_path / "again.h5", "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    assert file_digest(tmp_path / "again.h5") == file_digest(results / "evaluations" / f"{name}.h5")


def test_pictures_show_what_was_evaluated(results):
    with (
        h5py.File(results / "pictured" / "combinations-resnet18-sd.h5") as pictured,
        h5py.File(results / "evaluations" / "combinations-resnet18-sd.h5") as evaluation,
    ):
        attack = json.loads(pictured.attrs["job"])["attacks"][0]
        assert attack["attacked"] == "sd"
        for letter in "sd":
            errors = pictured[f"error/{letter}"][:]
            assert errors[:, 0] == pytest.approx(evaluation[f"clean/{letter}/error"][:2], rel=1e-3)
            assert errors[:, 1] == pytest.approx(evaluation[f"attacks/{attack['name']}/{letter}/error"][:2], rel=1e-2)
        change = np.abs(pictured["adversarial"][:] - pictured["image"][:])
        assert 0 < change.max() <= attack["epsilon"] * (1 + 1e-5)
    assert "data:image/png;base64," in (results / "report.html").read_text()


def test_new_records_make_nothing_run_again(study, results):
    for record in Lineage(results).records:
        record.path.touch()
    assert checkout.dry_run(study, study=recorded_study.NAME) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("models/combinations-resnet18-sd/weights.safetensors", ["rule train_model", "1 data cache: data/train.h5"]),
        ("models/combinations-resnet18-sd/epoch-1.safetensors", ["after epoch 1", "rule train_model"]),
        ("evaluations/early-resnet18-sd.h5", ["evaluation", "epoch-1.safetensors", "from rooms, rendered"]),
        ("tables/vulnerability.csv", ["rule collect_vulnerability", "2 evaluations:", "1 trained model:"]),
        ("tables/claims.csv", ["rule judge_claims", "2 evaluations:", "tables:"]),
        ("tables/camri_table_1.csv", ["2 trained classifiers:", "1 choice of important classes:"]),
        ("choices/flat.json", ["rule choose_classes", "validation.h5"]),
        ("figures/vulnerability-pairs-resnet18.svg", ["rule draw_figures", "look "]),
        ("generated/domains-cost.csv", ["rule time_generators", "nothing but its settings"]),
        ("perturbations", ["rule evaluate_generators", "1 trained generator:", "unchanged, 5 files"]),
        ("hidden/scenes-d.h5", ["1 copy that forgot a task:", "rule evaluate_hidden"]),
        ("data/train.manifest.json", ["manifest", "rule build_data"]),
        ("pictured/combinations-resnet18-sd.h5", ["rule picture_attacks", "1 trained model:"]),
        ("report.html", ["rule make_report", "by draw_figures", "tables:"]),
    ],
)
def test_why_says_what_a_file_is_and_where_it_comes_from(study, results, name, words):
    text = why(study, results / name)
    for word in [*words, "clean", "the same in this checkout", f"studies/{recorded_study.NAME}.yaml", "as config.yaml"]:
        assert word in text
    for word in ("CHANGED", "MISSING", "OTHER", "unknown", "no record"):
        assert word not in text
    assert str(study) not in text


def test_a_touched_file_is_said_to_be_changed_wherever_it_was_used(study, copy):
    table = copy / "tables" / "vulnerability.csv"
    table.write_text(table.read_text() + "\n")
    assert "CHANGED: the file is not what the record says" in why(study, table)
    told = why(study, copy / "tables" / "pairs.csv")
    assert "CHANGED since: tables/vulnerability.csv" in told
    assert "state         unchanged" in told
    (copy / "data" / "train.h5").unlink()
    assert "MISSING since: data/train.h5" in why(study, copy / "report.html")
    assert "1 of 5 files" not in why(study, copy / "perturbations")


def test_a_copied_folder_tells_the_same(study, results, copy):
    here, there = (json.loads(why(study, folder / "report.html", "--json")) for folder in (results, copy))
    assert here == there
    assert here["made_from"]


def test_another_checkout_is_said_to_be_another(study, results, tmp_path):
    other = checkout.make(tmp_path / "other")
    with (other / "src" / "headstrong" / "training.py").open("a") as file:
        file.write("\n_EDITED = True\n")
    (other / "envs" / "requirements.lock").write_text("# another\n")
    text = why(other, results / "models" / "combinations-resnet18-sd" / "weights.safetensors")
    assert "MADE BY OTHER CODE" in text
    assert "OTHER PACKAGES" in text
    assert "unknown in this checkout" in text  # its configuration: the overlay is not there
    assert "MADE BY OTHER CODE" in why(other, results / "tables" / "vulnerability.csv")


def test_a_changed_configuration_is_seen(study, results, copy):
    with (copy / "config.yaml").open("a") as file:
        file.write("# a note\n")
    assert "NOT as it is now in config.yaml" in why(study, copy / "plan.csv")


def test_what_cannot_be_told_is_one_line(study, copy):
    assert "no such file" in refused(study, 3, "why", str(copy / "absent.csv"))
    (copy / "tables" / "foreign.csv").write_text("a,b\n")
    assert "no run record names it" in refused(study, 3, "why", str(copy / "tables" / "foreign.csv"))
    record = copy / "plan.csv", copy / "write_plan.json"
    record[1].write_text(record[1].read_text()[:100])
    assert "write_plan.json: damaged" in refused(study, 4, "why", str(record[0]))
    record[1].write_text('{"format": "headstrong-record-1", "root": "."}')
    assert "write_plan.json: damaged" in refused(study, 4, "why", str(record[0]))
    alone = copy.parent.parent / "without-records" / "alone.csv"
    alone.parent.mkdir()
    alone.write_text("a\n")
    assert "no run record beside it or above" in refused(study, 3, "why", str(alone))
    by_hand = {**json.loads((copy / "tables" / "make_tables.json").read_text()), "root": ".", "config": None}
    (alone.parent.parent / "by-hand.json").write_text(json.dumps(by_hand))  # says nothing of folders below it
    assert "alone.csv" in refused(study, 3, "why", str(alone))
    assert "jobs; name one" in refused(study, 3, "why", str(copy / "tables"))


def test_records_of_before_tell_what_they_can():
    reference = ROOT / "results" / "reference" / "mta"
    assert "commit" in refused(ROOT, 3, "why", str(reference / "tables" / "generated.csv"))
    text = why(ROOT, reference / "records" / "evaluate-domains.json")
    assert "a record of an older version" in text
    assert "rule evaluate_generators" in text


def kinds(entity) -> list[str]:
    return entity.type if isinstance(entity.type, list) else [entity.type]


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_the_crate_holds_the_study_and_reads_back(study, results, tmp_path, name):
    output = tmp_path / "new" / name
    found = recorded_study.headstrong(study, "export", str(results), "--output", str(output))
    assert found.returncode == 0, found.stderr
    assert [path.name for path in output.parent.iterdir()] == [name]
    folder = output
    if name.endswith(".zip"):
        folder = tmp_path / "unpacked"
        zipfile.ZipFile(output).extractall(folder)
    crate = ROCrate(str(output))
    lineage = Lineage(results)
    files = [entity for entity in crate.data_entities if "File" in kinds(entity)]
    for entity in files:
        assert file_digest(folder / entity.id) == entity["sha256"], entity.id
    listed = {entity.id for entity in files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*listed, "ro-crate-metadata.json"}
    assert crate.mainEntity.id == "Snakefile"
    assert str(study) not in (folder / "ro-crate-metadata.json").read_text()
    heavy = {path for record in lineage.records for path in record.outputs if path.name.endswith(HEAVY)}
    for record in lineage.records:
        for path in record.outputs:
            id_ = f"results/{results.name}/{lineage.relative(path)}"
            entity = crate.get(f"#{id_}" if path in heavy else id_)
            assert entity["sha256"] == record.outputs[path]
            assert int(entity["contentSize"]) == path.stat().st_size
    check_actions(crate, lineage)


def check_actions(crate: ROCrate, lineage: Lineage) -> None:
    """One action per record, with its script, its inputs and its outputs; one for the whole study."""
    actions = {entity.id: entity for entity in crate.get_entities() if entity.type == "CreateAction"}
    assert set(actions) == {"#run", *(f"#run/{lineage.relative(record.path)}" for record in lineage.records)}
    for record in lineage.records:
        action = actions[f"#run/{lineage.relative(record.path)}"]
        assert action["instrument"].id == f"scripts/{record.rule}.py"
        assert names(action, "result") == {lineage.relative(path) for path in record.outputs}
        assert names(action, "object") == {lineage.relative(path) for path in record.inputs}
        assert action["startTime"] <= action["endTime"]
    assert names(actions["#run"], "result") >= {"report.html", "tables/vulnerability.csv"}


def names(action, key: str) -> set[str]:
    """Files of an action, by their paths in the study."""
    found = action.get(key, [])
    entities = found if isinstance(found, list) else [found]
    paths = [entity.id.removeprefix("#") for entity in entities if entity.type != "PropertyValue"]
    return {path.removeprefix(f"results/{recorded_study.NAME}/") for path in paths}


def test_with_weights_all_is_contained_and_the_metadata_are_the_same_each_time(study, results, tmp_path):
    for name in ("a", "b"):
        line = ["export", str(results), "--output", str(tmp_path / name), "--with-weights"]
        assert recorded_study.headstrong(study, *line).returncode == 0
    first, second = (tmp_path / name / "ro-crate-metadata.json" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    weights = "models/combinations-resnet18-sd/weights.safetensors"
    assert file_digest(tmp_path / "a" / "results" / results.name / weights) == file_digest(results / weights)


def test_a_study_that_is_not_finished_or_not_itself_is_not_exported(study, copy, tmp_path):
    output = tmp_path / "crate"
    line = ["export", str(copy), "--output", str(output)]
    assert "is there already" in refused(study, 2, "export", str(copy), "--output", str(tmp_path))
    assert "study's folder" in refused(study, 2, "export", str(copy), "--output", str(copy / "crate"))
    weights = copy / "models" / "combinations-resnet18-sd" / "weights.safetensors"
    held = weights.read_bytes()
    weights.write_bytes(held + b"x")
    assert "weights.safetensors" in refused(study, 4, *line)
    weights.unlink()
    assert "combinations-resnet18-sd/weights.safetensors (missing)" in refused(study, 3, *line)
    weights.write_bytes(held)
    (copy / "report.html").unlink()
    assert "report.html (missing)" in refused(study, 3, *line)
    assert "no such folder" in refused(study, 3, "export", str(copy / "absent"), "--output", str(output))
    assert not list(tmp_path.glob("crate*")) + list(tmp_path.glob(".crate*"))
