"""Families of hidden tasks that cannot be: one line that names the key and what is allowed."""

from __future__ import annotations

import pytest

from headstrong.configfiles import merge, parse, read
from headstrong.errors import ConfigError
from headstrong.provenance import ROOT

DEFAULT = read(ROOT / "config.yaml")
FACES = {
    "pictures": {"faces": {"source": "celeba", "size": [32, 32]}},
    "classifiers": {"faces": {"pictures": "faces", "labels": ["Male", "Bald", "Young"], "backbone": "resnet18",
                              "training": {"epochs": 1, "batch_size": 8}}},
}  # fmt: skip


def with_family(name, family, overlay=None):
    return merge(DEFAULT, {**(overlay or {}), "hidden": {name: family}})


def message_for(content):
    with pytest.raises(ConfigError) as caught:
        parse(content, [(ROOT / "config.yaml", content)])
    message = str(caught.value)
    assert message.startswith("config.yaml: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ({"classifiers": None}, "hidden.attributes: give either classifiers or section"),
        ({"section": "three"}, "hidden.attributes: give either classifiers or section"),
        ({"classifiers": None, "section": "three", "tasks": {"a": ["s"], "b": ["d"]}}, "tasks, domain: of classifiers"),
        ({"classifiers": None, "section": "three", "domain": "room"}, "tasks, domain: of classifiers only"),
        ({"classifiers": "atributes"}, "hidden.attributes.classifiers: 'atributes' is not among classifiers: domain, "),
        ({"tasks": {"look": ["colour", "sheen"], "form": ["shape"]}},
         "hidden.attributes.tasks.look: 'sheen' is no label of classifiers.attributes: shape, colour, background"),
        ({"tasks": {"look": ["colour", "colour"], "form": ["shape"]}}, "a label can be in one task, and there once"),
        ({"tasks": {"look": ["colour"], "form": ["shape", "colour"]}}, "a label can be in one task, and there once"),
        ({"tasks": {"look": ["colour", "shape"]}}, "hidden.attributes: tasks: expected at least two"),
        ({"tasks": {"look": [], "form": ["shape"]}}, "hidden.attributes.tasks.look"),
        ({"tasks": {"a-b": ["colour"], "form": ["shape"]}}, "hidden.attributes.tasks.a-b"),
        ({"hide": []}, "hidden.attributes.hide"),
        ({"hide": ["shape", "shape"]}, "hidden.attributes: hide ['shape', 'shape']: each at most once"),
        ({"domain": "attic"}, "hidden.attributes.domain: 'attic': the pictures have studio"),
        ({"classifiers": "domain"}, "hidden.attributes.domain: the pictures have several; name one of studio, room"),
        ({"access": []}, "hidden.attributes.access"),
        ({"access": ["heads", "heads"]}, "hidden.attributes: access ['heads', 'heads']: each at most once"),
        ({"access": ["weights"]}, "hidden.attributes.access.0: 'weights' must be 'heads' or 'backbone'"),
        ({"samples": 0}, "hidden.attributes.samples"),
        ({"protocol": {"cf_delta": "sum"}}, "hidden.attributes.protocol.cf_delta: 'sum' must be 'product' or 'target'"),
        ({"protocol": {"cf_detla": "target"}}, "hidden.attributes.protocol.cf_detla: unknown key; allowed: "),
        ({"heads": True}, "hidden.attributes.heads: unknown key; allowed: classifiers, "),
        ({"forgetting": None}, "hidden.attributes.forgetting"),
        ({"attacks": None}, "hidden.attributes.attacks"),
    ],
)  # fmt: skip
def test_a_family_that_cannot_be_is_one_line(family, expected):
    assert expected in message_for(with_family("attributes", family))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 0}, "epochs"), ({"batch_size": 1}, "batch_size"), ({"learning_rate": 0.0}, "learning_rate"),
        ({"optimizer": "lion"}, "optimizer"), ({"momentum": 1.0}, "momentum"), ({"weight_decay": -1.0}, "weight_decay"),
        ({"milestones": [1.0]}, "milestones.0"), ({"precision": "float8"}, "precision"), ({"layers": 0}, "layers"),
        ({"train_heads": "yes"}, "train_heads"), ({"probe_epochs": 0}, "probe_epochs"),
        ({"probe_rate": 0.0}, "probe_rate"), ({"samples": 0}, "samples"), ({"curve": 0}, "curve"),
        ({"rate": 0.1}, "rate: unknown key; allowed: epochs, batch_size"),
    ],
)  # fmt: skip
def test_forgetting_that_cannot_be_is_one_line(settings, expected):
    assert f"hidden.attributes.forgetting.{expected}" in message_for(
        with_family("attributes", {"forgetting": settings})
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"objectives": []}, ".objectives"),
        ({"objectives": ["cf", "hide"]}, ".objectives.1: 'hide' must be 'cf', 'cf_delta', 'disruption', 'dgba'"),
        ({"objectives": ["cf", "cf"]}, ": objectives ['cf', 'cf']: each at most once"),
        ({"stealth": []}, ".stealth"),
        ({"stealth": [-0.1]}, ".stealth.0"),
        ({"stealth": [1, 1.0]}, ": stealth [1.0, 1.0]: each at most once"),
        ({"norm": ["l1"]}, ".norm.0"),
        ({"norm": ["l2", "l2"]}, ": norm ['l2', 'l2']: each at most once"),
        ({"epsilon": []}, ".epsilon"),
        (
            {"epsilon": [8]},
            ': epsilon 8: a radius or step in linf is "8/255" or a number in [0, 1]; write epsilon: ["8/255"]',
        ),
        ({"epsilon": [0.1, -0.1]}, ".epsilon.1"),
        ({"epsilon": ["eight"]}, ".epsilon.0: 'eight' is not a radius; expected \"8/255\" or a number in [0, 1]"),
        ({"epsilon": [0.1, 0.1]}, ": epsilon: 25.5/255 is there twice; each at most once"),
        ({"stepper": "noise"}, ".stepper"),
        ({"step_size": 0.0}, ".step_size"),
        ({"steps": 0}, ".steps"),
        ({"restarts": 0}, ".restarts"),
        ({"start": "middle"}, ".start"),
        ({"stepper": "mim"}, ".objectives: disruption has no slope at the clean image"),
        ({"start": "clean"}, ".objectives: disruption has no slope at the clean image"),
        ({"restarts": 2, "stepper": "mim"}, ".restarts: 2: only pgd and apgd from a uniform start can restart"),
        ({"restarts": 2, "start": "clean"}, ".restarts: 2: only pgd and apgd from a uniform start can restart"),
        ({"reach": 0.0}, ".reach"),
    ],
)
def test_attacks_that_cannot_be_are_one_line(settings, expected):
    assert f"hidden.attributes.attacks{expected}" in message_for(with_family("attributes", {"attacks": settings}))


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("rooms", "hidden.scenes.section: 'rooms' is no section of plan: combinations, "),
        ("sharing", "hidden.scenes.section: the tasks of plan.sharing do not all see the same features"),
        ("mtan", "hidden.scenes.section: the tasks of plan.mtan do not all see the same features"),
    ],
)
def test_a_section_whose_tasks_cannot_be_hidden_is_one_line(section, expected):
    plan = {"plan": {"mtan": {"encoders": ["mtan"], "tasks": "sdn", "sizes": [3], "reference": True}}}
    assert expected in message_for(with_family("scenes", {"section": section}, plan))


def test_pictures_that_are_switched_off_take_their_family_with_them_or_are_named():
    content = merge(DEFAULT, {"classifiers": {"attributes": None}})
    assert "hidden.attributes.classifiers: 'attributes' is not among classifiers: domain" in message_for(content)
    assert set(parse(merge(content, {"hidden": {"attributes": None}})).hidden_families) == {"scenes"}


def test_restarts_need_a_start_that_is_drawn_whoever_decides_it():
    again = {"attacks": {"restarts": 2}}
    drawn = parse(with_family("scenes", again)).hidden_families["scenes"]
    assert drawn.attacks.restarts == 2
    corner = {"protocol": {"start": "corner"}}
    for overlay in (corner, {"plan": {"three": corner}}):
        assert "hidden.scenes.attacks.restarts" in message_for(with_family("scenes", again, overlay))
        own = {**again, "protocol": {"start": "uniform"}}
        assert parse(with_family("scenes", own, overlay)).hidden_families["scenes"].attacks.restarts == 2
    assert "hidden.scenes.attacks.restarts" in message_for(with_family("scenes", {**again, **corner}))


def test_radii_of_l2_may_be_large():
    family = {"attacks": {"norm": ["l2"], "epsilon": [2.0]}}
    assert parse(with_family("attributes", family)).hidden_families["attributes"].attacks.epsilon == [2.0]


def test_groups_of_a_family_of_faces_are_possible():
    family = {"classifiers": "faces", "tasks": {"hair": ["Bald"], "who": ["Male", "Young"]}, "hide": ["who"]}
    found = parse(with_family("attributes", family, FACES)).hidden_families["attributes"]
    assert found.tasks == {"hair": ["Bald"], "who": ["Male", "Young"]}
