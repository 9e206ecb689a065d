"""Which pictures, classifiers and generators a configuration gives."""

import json

import pytest

from headstrong.configfiles import load, merge, parse, read, study_files
from headstrong.errors import ConfigError
from headstrong.jobs import (
    classifier_job_from_dict,
    generated_job_from_dict,
    generator_job_from_dict,
    to_dict,
)
from headstrong.provenance import ROOT
from headstrong.study import Plan

DEFAULT = read(ROOT / "config.yaml")


def generated(*studies):
    return Plan(load(study_files(studies))).generated


def changed(**overlay):
    return Plan(parse(merge(DEFAULT, overlay))).generated


def test_a_family_is_every_combination_of_its_lists():
    plan = generated("mta")
    ids = [job.id for job in plan.generators if job.family == "domains"]
    assert len(ids) == len(set(ids)) == 2 * 2 * 2 * 2
    assert "domains-mta-universal-targeted-linf-10" in ids
    assert {job.blocks for job in plan.generators if job.family == "scenes" and job.mode == "universal"} == {4}
    assert {job.blocks for job in plan.generators if job.family == "scenes" and job.mode == "instance"} == {10}


def test_methods_share_seeds_so_that_only_the_method_makes_a_difference():
    jobs = {job.id: job for job in generated("mta").generators}
    gap, mta = (to_dict(jobs[f"domains-{method}-universal-untargeted-linf-10"]) for method in ("gap", "mta"))
    assert {key for key in gap if gap[key] != mta[key]} == {"id", "method"}


def test_victims_are_a_classifier_per_domain_or_the_tasks_of_one_model():
    plan = generated("mta")
    classes = plan.victims("domains", transfer=True)
    assert [(victim.name, victim.task) for victim in classes] == [
        (name, task) for name in ("domain", "other") for task in ("studio", "room", "webcam")
    ]
    assert classes[0].classifier == "domain-resnet18-studio"
    assert classes[3].classifier == "other-resnet18-studio"
    dense = plan.victims("scenes", transfer=True)
    assert [(victim.model, victim.task) for victim in dense] == [
        (model, task) for model in ("dmtl-segnet-sdn", "mtan-mtan-sdn") for task in "sdn"
    ]
    assert plan.family_job("scenes").kind == "dense"
    assert all(job.shared_input for job in plan.family_job("scenes").generators)
    assert plan.pictures_of("domains") == "domains"
    assert plan.pictures_of("scenes") is None


def test_every_job_survives_json():
    plan = generated("mta")
    for spec in plan.classifiers:
        job = plan.classifier_job(spec.id)
        assert classifier_job_from_dict(json.loads(json.dumps(to_dict(job)))) == job
    for job in plan.generators:
        assert generator_job_from_dict(json.loads(json.dumps(to_dict(job)))) == job
    for family in plan.config.generator_families:
        whole = plan.family_job(family)
        assert generated_job_from_dict(json.loads(json.dumps(to_dict(whole)))) == whole


def test_switches_come_from_the_family_then_from_its_victim_then_from_the_study():
    jobs = {job.family: job for job in generated("mta").generators}
    assert (jobs["domains"].log_mean, jobs["domains"].untargeted_loss, jobs["domains"].scaling) == (
        "outside", "truth", "whole",
    )  # fmt: skip
    released = jobs["domains-released"]
    assert (released.log_mean, released.untargeted_loss, released.scaling) == ("inside", "least_likely", "channel")
    study_wide = changed(protocol={"log_mean": "inside"})
    assert {job.log_mean for job in study_wide.generators} == {"inside"}
    of_victim = changed(plan={"dmtl": {"protocol": {"log_mean": "inside"}}})
    assert {job.family: job.log_mean for job in of_victim.generators} == {"domains": "outside", "scenes": "inside"}


def test_one_more_epsilon_adds_generators_and_changes_none():
    before = {job.id: job for job in changed().generators}
    after = {job.id: job for job in changed(generators={"domains": {"epsilon": ["10/255", "5/255"]}}).generators}
    assert len(after) == len(before) + 2
    assert all(after[name] == job for name, job in before.items())


def test_pictures_of_objects_depend_on_nothing_but_their_own_settings():
    plan = generated()
    settings = plan.picture_settings("domains", "room", "train")
    assert settings == {
        "source": "objects", "domain": "room", "split": "train", "size": [64, 64], "count": 320,
        "seed": settings["seed"],
    }  # fmt: skip
    mine = {"source": "folder", "folder": "mine", "domains": ["a", "b"], "train": None, "test": None}
    folder = changed(pictures={"domains": mine}, classifiers={"domain": {"labels": ["class"]}})
    assert folder.picture_settings("domains", "a", "test")["folder"] == "mine"


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({"plan": {"dmtl": {"sizes": [2]}}}, "plan.dmtl: must give exactly one model"),
        (
            {
                "plan": {"dmtl2": {"encoders": ["segnet"], "tasks": "sd", "sizes": [2]}},
                "generators": {"scenes": {"transfer": ["dmtl2"]}},
            },
            "generators.scenes.transfer: dmtl2 has other tasks",
        ),
        ({"generators": {"domains": {"epsilon": ["5/255", 5 / 255]}}}, "epsilon: 5/255 is there twice"),
        ({"generators": {"domains": {"epsilon": [10, 5]}}}, 'write epsilon: ["5/255", "10/255"]'),
        ({"generators": {"domains": {"epsilon": [1]}}}, 'write "1/255"'),
        ({"generators": {"domains": {"norm": ["l2"], "epsilon": [500]}}}, 'write epsilon: ["500/255"]'),
        ({"generators": {"domains": {"classifiers": "domian"}}}, "'domian' is not among classifiers: domain"),
        ({"generators": {"scenes": {"section": "dmlt"}}}, "'dmlt' is no section of plan"),
        ({"generators": {"scenes": {"classifiers": "domain"}}}, "give one of them"),
        ({"generators": {"scenes": {"goals": ["targeted"]}}}, "no classes to aim at"),
        ({"generators": {"domains": {"goals": ["targeted"]}}}, "need a class to aim at"),
        ({"generators": {"domains": {"goals": ["targeted"], "target": ["ring"]}}}, "1 classes for 3 domains"),
        ({"generators": {"domains": {"label": "colour"}}}, "not all victims tell it"),
        ({"classifiers": {"domain": {"labels": ["form"]}}}, "no label 'form'; it has shape"),
        ({"classifiers": {"domain": {"pictures": "office"}}}, "'office' is not among pictures: domains"),
        ({"classifiers": {"domain": {"backbone": "vgg11", "stem": "published"}}}, "classifiers.domain.width"),
        ({"pictures": {"domains": {"domains": ["studio", "attic"]}}}, "no 'attic'; it has studio"),
        ({"pictures": {"domains": {"size": [64, 63]}}}, "multiples of 4"),
        ({"pictures": {"domains": {"train": None}}}, "must be numbers"),
        ({"pictures": {"domains": {"source": "folder"}}}, "folder"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(overlay, expected):
    with pytest.raises(ConfigError) as caught:
        changed(**overlay)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_may_have_no_generators_and_one_may_have_nothing_else():
    assert changed(generators=None).generators == ()
    office = Plan(load(study_files(["mta_office31"])))
    assert office.models == ()
    assert len(office.generated.generators) == 16
    assert office.generated.generators[0].tasks == ("amazon", "dslr", "webcam")
