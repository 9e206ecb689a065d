"""One schedule for every training: the same keys, and what the jobs are told."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from headstrong.configfiles import load, merge, parse, study_files
from headstrong.errors import ConfigError
from headstrong.jobs import Schedule
from headstrong.loop import rate_at
from headstrong.provenance import ROOT
from headstrong.study import Plan

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
PLACES = (
    ("training",),
    ("classifiers", "domain", "training"),
    ("generators", "domains", "training"),
    ("importance", "shapes", "training"),
    ("hidden", "attributes", "forgetting"),
)


def with_training(settings: dict[str, object], *places: tuple[str, ...]) -> dict[str, object]:
    """The default configuration with these keys in trainings."""
    merged = DEFAULT
    for place in places:
        overlay: dict[str, object] = settings
        for key in reversed(place):
            overlay = {key: overlay}
        merged = merge(merged, overlay)
    return merged


def schedules(settings: dict[str, object]) -> list[Schedule]:
    """Those of a job of each kind, in the order of PLACES."""
    plan = Plan(parse(with_training(settings, *PLACES)))
    return [
        plan.training_job("three-resnet18-sdn"),
        plan.generated.classifier_job("domain-resnet18-room"),
        next(job for job in plan.generated.generators if job.family == "domains"),
        plan.importance.classifier_job("shapes-ce-0"),
        next(job for job in plan.hidden.forgettings if job.id == "attributes-shape-heads"),
    ]


def test_every_training_has_the_same_keys():
    rhythm = {"milestones": [], "decay_every": 4000, "decay": 0.5}
    for job in schedules({"epochs": 8, "weight_decay": 0.0001, "betas": [0.5, 0.999], "learning_rate": 0.01, **rhythm}):
        fields = {field.name: getattr(job, field.name) for field in dataclasses.fields(Schedule)}
        assert fields == {
            "optimizer": "adam", "learning_rate": 0.01, "momentum": fields["momentum"], "betas": (0.5, 0.999),
            "weight_decay": 0.0001, "milestones": (), "step_milestones": (), "decay_every": 4000, "decay": 0.5,
        }  # fmt: skip
        assert [rate_at(job, 0, done) for done in (0, 3999, 4000, 8000)] == [0.01, 0.01, 0.005, 0.0025]


def test_milestones_are_shares_of_the_epochs_or_steps():
    for job in schedules({"epochs": 8, "milestones": [0.5, 300, 0.75]}):
        assert (job.milestones, job.step_milestones) == ((4, 6), (300,))


def test_defaults_are_those_of_ever():
    assert [(job.betas, job.weight_decay, job.decay_every, job.decay) for job in schedules({})] == [
        ((0.9, 0.999), 0.0, None, decay) for decay in (0.1, 0.1, 0.5, 0.1, 0.1)
    ]


def test_a_rhythm_in_steps_takes_the_place_of_the_protocols_milestones():
    job = Plan(parse(merge(DEFAULT, {"training": {"decay_every": 100}}))).training_job("three-resnet18-sdn")
    assert (job.milestones, job.decay_every) == ((), 100)


def test_mtans_rate_is_halved_once():
    job = Plan(load(study_files(["mta_nyuv2"]))).training_job("mtan-mtan-sdn")
    assert [rate_at(job, epoch, 0) for epoch in (0, 99, 100, 199)] == [1e-4, 1e-4, 0.5e-4, 0.5e-4]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"milestones": [1.5]}, "milestones.0: 1.5: expected a share of the epochs between 0 and 1, or a whole number"),
        ({"milestones": [True]}, "milestones.0: True: expected"),
        ({"milestones": [0.5], "decay_every": 10}, "give one of them; with decay_every write milestones: []"),
        ({"decay": 0}, "decay: 0 must be greater than 0"),
        ({"betas": [0.9]}, "betas: "),
        ({"betas": [0.9, 1.0]}, "betas.1: 1.0 must be less than 1"),
        ({"decay_every": 0}, "decay_every: 0 must be greater than 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(place, settings, expected):
    with pytest.raises(ConfigError) as caught:
        parse(with_training(settings, place))
    assert f"{'.'.join(place)}" in str(caught.value)
    assert expected in str(caught.value)


def test_the_old_key_of_generators_is_refused_with_the_line_to_write():
    with pytest.raises(ConfigError, match=r"generators.domains.training: .*write betas: \[0.5, 0.999\]"):
        parse(with_training({"beta1": 0.5}, ("generators", "domains", "training")))
