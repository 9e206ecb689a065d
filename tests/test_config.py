"""Every mistake in the configuration is one line that names the file, the key and what is allowed."""

import copy
import dataclasses
import json
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headstrong import tasks
from headstrong.config import schema
from headstrong.configfiles import as_yaml, load, load_plan, merge, parse, study_files
from headstrong.errors import ConfigError
from headstrong.protocol import PRESETS, ProtocolConfig
from headstrong.provenance import ROOT

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))


def message_for(tmp_path: Path, overlay: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(overlay)
    with pytest.raises(ConfigError) as caught:
        load([ROOT / "config.yaml", file])
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.code == 2
    return message


OVERLAYS = [["camri_cifar10", "camri_small"], ["camri_gtsrb", "camri_small"]]  # the last is of no study by itself
ALONE = [[name] for name in STUDIES if name != "camri_small"]


@pytest.mark.parametrize("names", [["quick"], *ALONE, *OVERLAYS, ["full", "tiny"], ["nyuv2", "tiny"]])
def test_every_committed_study_is_valid(names):
    assert load(study_files(names)).study_id


def test_the_committed_schema_is_the_models_schema():
    assert (ROOT / "config.schema.json").read_text() == schema(), "run `make schema`"


def test_every_key_of_the_default_study_is_commented():
    lines = (ROOT / "config.yaml").read_text().splitlines()
    sections = [line for line in lines if line and not line.startswith((" ", "#"))]
    for section in sections:
        at = lines.index(section)
        following = lines[at + 1 : at + 20]
        assert any("#" in line for line in [lines[at - 1], section, *following]), section


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("attacks: {pgd: {epsilon: [8/0]}}", ["mine.yaml", "attacks.pgd.epsilon.0: '8/0' is not a radius", '"8/255"']),
        ("attacks: {pgd: {epsilon: [8]}}", ["mine.yaml", "attacks.pgd", "[0, 1]", 'write epsilon: ["8/255"]']),
        ("attacks: {pgd: {step_size: 2}}", ["mine.yaml", "attacks.pgd", 'write step_size: "2/255"']),
        ("attacks: {l2: {epsilon: [500]}}", ["mine.yaml", "attacks.l2", "grey", 'write epsilon: ["500/255"]']),
        ("attacks: {pgd: {epsilon: [-0.1]}}", ["mine.yaml", "attacks.pgd.epsilon.0: -0.1 is not a radius", "[0, 1]"]),
        ("attacks: {pgd: {epsilon: [.nan]}}", ["mine.yaml", "attacks.pgd.epsilon"]),
        ("attacks: {pgd: {steps: [0]}}", ["mine.yaml", "attacks.pgd.steps", "greater than 0"]),
        ("attacks: {pgd: {stepper: pgdd}}", ["mine.yaml", "attacks.pgd.stepper", "'pgd'"]),
        ("attacks: {pgd: {restarts: 2, start: clean}}", ["mine.yaml", "attacks.pgd.restarts", "uniform"]),
        (
            "plan: {three: {protocol: {start: clean}}}\nattacks: {pgd: {restarts: 2}}",
            ["mine.yaml", "attacks.pgd.restarts", "uniform", "can restart (section three)"],
        ),
        ("attacks: {noise: {restarts: 2}}", ["mine.yaml", "attacks.noise.restarts", "pgd"]),
        ("attacks: {mim: {steps: [0]}}", ["mine.yaml", "attacks.mim.steps", "greater than 0"]),
        ("attacks: {apgd: {balancer: [dgbaa]}}", ["mine.yaml", "attacks.apgd.balancer", "'dgba'"]),
        ("attacks: {fgsm: {sections: [thre]}}", ["mine.yaml", "attacks.fgsm.sections", "'thre'", "three"]),
        ("attacks: {fgsm: {pixels: [64]}}", ["mine.yaml", "attacks.fgsm", "ilp_sparse"]),
        ("attacks: {program: {stepper: ilp_sparse}}", ["mine.yaml", "attacks.program", "pixels"]),
        ("attacks: {program: {norm: [l2]}}", ["mine.yaml", "attacks.program", "Linf"]),
        ("plan: {three: {layouts: [0]}}", ["mine.yaml", "plan.three.layouts", "resnet34 and mobilenet_v2"]),
        ("plan: {sharing: {layouts: [6]}}", ["mine.yaml", "plan.sharing.layouts", "0 to 5"]),
        (
            "plan: {three-adversarial: {adversarial: {epsilon: 8}}}",
            ["plan.three-adversarial", "[0, 1]", 'write epsilon: "8/255"'],
        ),
        ("plan: {three: {protocol: {start: middle}}}", ["mine.yaml", "plan.three.protocol.start", "'corner'"]),
        ("plan: {three: {protocol: {beginning: clean}}}", ["mine.yaml", "unknown key", "start"]),
        ("trainign: {epochs: 3}", ["mine.yaml", "trainign", "unknown key", "training"]),
        ("training: {epoch: 3}", ["mine.yaml", "training.epoch", "unknown key", "epochs"]),
        ("training: {epochs: 2.5}", ["mine.yaml", "training.epochs", "integer"]),
        ("training: {epochs: '12'}", ["mine.yaml", "training.epochs", "integer"]),
        (
            "plan: {early: {share_of_epochs: 1.5}}",
            ["mine.yaml", "plan.early.share_of_epochs", "less than or equal to 1"],
        ),
        ("plan: {combinations: {sizes: [6]}}", ["mine.yaml", "plan.combinations.sizes", "6 tasks"]),
        ("plan: {combinations: {encoders: [resnet19]}}", ["mine.yaml", "plan.combinations.encoders", "'resnet18'"]),
        ("tasks: sdx", ["mine.yaml", "tasks", "'x'", "s d D n k K e E p r A"]),
        ("tasks: sds", ["mine.yaml", "tasks", "at most once"]),
        ("data: {size: [64, 60]}", ["mine.yaml", "data", "multiples of 32"]),
        ("data: {train: null}", ["mine.yaml", "data", "train and test"]),
        ("data: 7", ["mine.yaml", "data"]),
        ("analysis: {epsilon: 0.5}", ["mine.yaml", "analysis.epsilon: 0.5 is not", ": 8/255"]),
        ("analysis: {family: pdg}", ["mine.yaml", "analysis.family", "pgd"]),
        ("protocol: {preset: best}", ["mine.yaml", "protocol.preset", "'corrected'"]),
        ("- a\n- b\n", ["mine.yaml", "top level"]),
        ("", ["mine.yaml", "empty", "keys and values"]),
        ("# nothing yet\n", ["mine.yaml", "empty", "keys and values"]),
        ("training: 3", ["mine.yaml: training: 3", "keys and values"]),
        ("training:\nanalysis: {steps: 2}", ["mine.yaml: training: null", "keys and values", "indent"]),
        ("attacks: [pgd]", ["mine.yaml: attacks", "keys and values"]),
        ("attacks: {pgd: {steps: 5}}", ["attacks.pgd.steps: 5", "a list, as in [5]"]),
        ("plan: {combinations: {encoders: resnet18}}", ["'resnet18'", "a list, as in [resnet18]"]),
        ("attacks: {pgd: {epsilon: 8/255}}", ["'8/255'", 'a list, as in ["8/255"]']),
        ("tasks: [s, d]", ["mine.yaml: tasks", "text, as in sd"]),
        ("tasks: no", ["mine.yaml: tasks", "YAML reads", "quotes"]),
        ("study: {name: a/b}", ["study.name: 'a/b'", "small letters, digits and hyphens, as in my-study"]),
        ("study: {variant: My Own}", ["study.variant: 'My Own'", "small letters, digits and hyphens"]),
        ("training:\n  epochs: 3\n batch_size: 4\n", ["mine.yaml", "line 3", "indentation"]),
        ("training:\n\tepochs: 3\n", ["mine.yaml", "line 2", "spaces"]),
        ("a: [1\n", ["mine.yaml", "not YAML", "line"]),
        ("plan: {Upper: {encoders: [resnet18], sizes: [2]}}", ["mine.yaml", "plan.Upper"]),
        ("report: {models: [three-resnet18-snd]}", ["mine.yaml", "report.models", "'three-resnet18-snd'", "-sdn"]),
        ("report: {models: [resnet18]}", ["mine.yaml", "report.models", "'resnet18'", "of plan", "such as"]),
        ("report: {models: ['']}", ["mine.yaml", "report.models", "''"]),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_what_is_allowed(tmp_path, overlay, expected):
    message = message_for(tmp_path, overlay)
    for part in expected:
        assert part in message


def test_the_mistake_is_blamed_on_the_file_that_made_it(tmp_path):
    broken = copy.deepcopy(DEFAULT)
    broken["training"]["epochs"] = 0
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(broken))
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("training: {batch_size: 8}")
    with pytest.raises(ConfigError, match=r"base\.yaml: training\.epochs"):
        load([base, overlay])


def test_a_missing_file_and_an_unknown_study_say_so(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load([tmp_path / "absent.yaml"])
    with pytest.raises(ConfigError, match=f"there are: {', '.join(sorted([*STUDIES, 'quick']))}"):
        study_files(["ful"])


@pytest.mark.parametrize("name", ["studies/full.yaml", "full.yaml", "studies/full"])
def test_a_study_is_named_not_its_file(name):
    with pytest.raises(ConfigError, match="give the name alone: full"):
        study_files([name])


def test_a_letter_that_two_tasks_have_is_refused(monkeypatch):
    twice = dataclasses.replace(tasks.TASKS["A"], letter="s", domain="snow")
    monkeypatch.setattr(tasks, "_ALL", [*tasks._ALL, twice])
    with pytest.raises(ConfigError, match=r"src/headstrong/tasks\.py.*'s'.*segment_semantic and snow.*another letter"):
        parse(DEFAULT)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({}, "task 'b' has no encoding; add 'b' to _ENCODERS"),
        ({"letter": "bb"}, "task 'bb' (brightness): expected one letter"),
        ({"mask": "labels"}, "task 'b' (brightness): mask 'labels'; expected label or depth or none"),
        ({"loss": "l2"}, "task 'b' (brightness): loss 'l2'; expected cross_entropy or l1"),
        ({"loss": "cross_entropy", "channels": None}, "only s has classes"),
        ({"low": 1.0}, "low 1, high 1; expected low below high"),
    ],
)
def test_a_task_of_ones_own_that_cannot_be_is_one_line(monkeypatch, task, expected):
    own = {"letter": "b", "domain": "brightness", "title": "Brightness", "channels": 1, "loss": "l1", "mask": "none"}
    monkeypatch.setattr(tasks, "_ALL", [*tasks._ALL, tasks.Task(**{**own, **task})])
    with pytest.raises(ConfigError) as caught:
        parse(DEFAULT)
    assert str(caught.value).startswith("src/headstrong/tasks.py: ")
    assert expected in str(caught.value)


def test_overlays_merge_key_by_key():
    merged = merge({"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"c": [9]}, "e": None})
    assert merged == {"a": {"b": 1, "c": [9]}, "d": 3, "e": None}


def test_merging_is_what_snakemake_does():
    from snakemake.utils import update_config

    overlay = yaml.safe_load((ROOT / "studies" / "supplement.yaml").read_text())
    theirs = copy.deepcopy(DEFAULT)
    update_config(theirs, overlay)
    assert merge(DEFAULT, overlay) == theirs


def test_null_removes_a_section_and_an_attack():
    config = parse(merge(DEFAULT, {"plan": {"five": None}, "attacks": {"noise": None}}))
    assert set(config.sections) == set(DEFAULT["plan"]) - {"five"}
    assert set(config.attack_families) == set(DEFAULT["attacks"]) - {"noise"}


@pytest.mark.parametrize(
    ("overlays", "expected"),
    [
        (
            ["attacks: {pgd: null}", "attacks: {pgd: {steps: [3]}}"],
            "1.yaml: attacks.pgd.stepper: missing, for 0.yaml removes attacks.pgd with null",
        ),
        (
            ["plan: {three: null}"],
            "0.yaml: plan.three: null removes it, but hidden.scenes.section in config.yaml needs it",
        ),
        (
            ["attacks: {pgd: null}", "figures: {dpi: 60}"],
            "0.yaml: attacks.pgd: null removes it, but analysis.family in config.yaml needs it",
        ),
        (
            ["pictures: null", "pictures: {other: null}"],
            "0.yaml: pictures: null removes it, but classifiers.domain.pictures in config.yaml needs it",
        ),
        (
            ["pictures: {shapes: {validation: null}}"],
            "0.yaml: pictures.shapes.validation: null removes it, but importance.shapes.important.worst1 in ",
        ),
        (
            ["importance: {shapes: {important: {worst2: null}}}"],
            "important.worst2: null removes it, but no earlier file has it; to rank it, write worst2: recall",
        ),
        (
            ["plan: {combinations: null}"],
            "config.yaml: plan.early: a checkpoint of resnet18 on 'sd' after 2 epochs needs a section that trains that "
            "model to the end; add one, or remove this set (0.yaml removes plan.combinations)",
        ),
        (["importance: {shapes: {important: {worst1: null}}}"], "0.yaml: importance.shapes.important: no classes are"),
        (["importance: {shapes: {important: {worst1: by}}}"], "important: worst1 'by': expected names of classes"),
    ],
)
def test_a_null_that_cannot_be_is_blamed_on_the_file_that_has_it(tmp_path, overlays, expected):
    files = [tmp_path / f"{number}.yaml" for number in range(len(overlays))]
    for file, overlay in zip(files, overlays, strict=True):
        file.write_text(overlay)
    with pytest.raises(ConfigError) as caught:
        load_plan([ROOT / "config.yaml", *files])
    assert expected in str(caught.value).replace(f"{tmp_path}/", "")


def test_null_removes_important_classes_and_in_a_base_still_ranks_them(tmp_path):
    for name, ranks in (("more", "worst2: recall, median: recall, balls: [egg, ball]"), ("less", "worst2: null")):
        (tmp_path / f"{name}.yaml").write_text(f"importance: {{shapes: {{important: {{{ranks}}}}}}}")
    config = load([ROOT / "config.yaml", tmp_path / "more.yaml", tmp_path / "less.yaml"])
    left = {"worst1": "recall", "median": "recall", "balls": ["ball", "egg"]}
    assert config.importance["shapes"].important == left
    (tmp_path / "whole.yaml").write_text(as_yaml(config).replace("worst1: recall", "worst1: null"))  # as once written
    assert load([tmp_path / "whole.yaml"]).importance["shapes"].important == left


def test_models_to_picture_may_be_lacking_where_a_later_file_changes_the_plan(tmp_path):
    for overlay in ("plan: {three-adversarial: null}", "plan: {three-adversarial: {encoders: [resnet50]}}"):
        (tmp_path / "mine.yaml").write_text(overlay)
        config = load([ROOT / "config.yaml", tmp_path / "mine.yaml"])
        assert config.report.models == DEFAULT["report"]["models"]
    (tmp_path / "later.yaml").write_text("report: {models: [three-resnet18-sdn, three-resnet50-sdn]}")
    with pytest.raises(ConfigError, match=r"later\.yaml: report\.models: 'three-resnet50-sdn' .* three-resnet18-sdn"):
        load([ROOT / "config.yaml", tmp_path / "mine.yaml", tmp_path / "later.yaml"])


@pytest.mark.parametrize("names", [["quick"], *ALONE, *OVERLAYS])
def test_the_whole_configuration_of_a_study_is_valid_by_itself(names, tmp_path):
    config = load(study_files(names))
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    assert load([tmp_path / "config.yaml"]) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_set_every_switch_and_a_switch_overrides_its_preset(preset):
    switches = set(ProtocolConfig.model_fields) - {"preset"}
    assert set(PRESETS[preset]) == switches
    resolved = ProtocolConfig(preset=preset, miou="all").resolved()
    assert resolved["miou"] == "all"
    assert resolved["start"] == PRESETS[preset]["start"]
    for name, value in PRESETS[preset].items():
        assert ProtocolConfig(**{name: value}).resolved()[name] == value


def _paths(node, path=()):
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _paths(value, (*path, key))


def mistake_in(content) -> str | None:
    try:
        parse(content, [(ROOT / "config.yaml", content)])
    except ConfigError as error:
        return str(error)
    return None


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(string.printable, max_size=8),
    st.lists(st.one_of(st.integers(-2, 40), st.floats(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(string.ascii_letters, max_size=4), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([path for path in _paths(DEFAULT) if path]), ANYTHING)
def test_a_config_with_anything_anywhere_is_valid_or_one_clear_line(path, value):
    broken = copy.deepcopy(DEFAULT)
    node = broken
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    said = mistake_in(broken)
    assert said is None or (said.startswith("config.yaml: ") and "\n" not in said)


def test_schema_accepts_the_default_study_and_refuses_unknown_keys():
    import jsonschema

    validator = jsonschema.Draft202012Validator(json.loads(schema()))
    assert not list(validator.iter_errors(DEFAULT))
    assert list(validator.iter_errors({**DEFAULT, "unknown": 1}))
