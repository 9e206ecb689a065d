"""Which trainings a family of important classes gives, how they are paired, and what cannot be."""

from __future__ import annotations

import json

import pytest

from headstrong.configfiles import load, merge, parse, read, study_files
from headstrong.errors import ConfigError
from headstrong.jobs import ClassLossJob, classifier_job_from_dict, importance_job_from_dict, to_dict
from headstrong.provenance import ROOT
from headstrong.study import Plan

DEFAULT = read(ROOT / "config.yaml")


def plan_of(*studies):
    return Plan(load(study_files(studies))).importance


def changed(**family):
    return Plan(parse(merge(DEFAULT, {"importance": {"shapes": family}}))).importance


def test_settings_are_every_combination_and_favouring_losses_have_one_per_class():
    """The published study by hand: ce 1; softmax 2; arcface 5 x 2; wce, crwwce 3 x 3 classes; camri 5 x 2 x 3; x 10."""
    plan = plan_of("camri_cifar10")
    by_loss = {}
    for trial in plan.trials:
        by_loss.setdefault(trial.loss.name if trial.loss else "ce", []).append(trial)
    counts = {name: len(found) for name, found in by_loss.items()}
    assert counts == {"ce": 10, "wce": 90, "crwwce": 90, "softmax": 20, "arcface": 100, "camri": 300}
    assert len({trial.id for trial in plan.trials}) == len(plan.trials)
    assert "photographs-camri-worst1-m4-s16-0" in plan
    assert plan["photographs-wce-median-w2-3"].loss == ClassLossJob("wce", weight=2.0, important="median")
    assert {trial.loss.important for trial in by_loss["arcface"]} == {None}


def test_trials_of_one_number_share_their_seed_and_differ_in_their_loss_alone():
    plan = changed()
    ce, camri = (to_dict(plan.classifier_job(f"shapes-{name}-1")) for name in ("ce", "camri-worst1-m4-s8"))
    assert {key for key in ce if ce[key] != camri[key]} == {"id", "loss"}
    seeds = [plan.classifier_job(f"shapes-ce-{number}").seed for number in range(3)]
    assert len(set(seeds)) == 3


def test_one_more_trial_or_margin_changes_no_other_job():
    before, more = changed(), changed(trials=4, losses={"camri": {"margin": [2, 4, 8], "scale": [8]}})
    assert len(more.trials) > len(before.trials)
    for trial in before.trials:
        assert more.classifier_job(trial.id) == before.classifier_job(trial.id)


def test_the_switch_of_large_angles_touches_losses_with_a_margin_only():
    official, ours = changed(protocol={"large_angles": "unhandled"}), changed()
    differing = {trial.loss.name for trial in ours.trials if official[trial.id].loss != trial.loss}
    assert differing == {"arcface", "camri"}
    assert changed(protocol={"preset": "released"}).ranking("shapes") == "test"


def test_named_classes_are_not_ranked_and_wait_for_no_model():
    plan = changed(important={"worst1": "recall", "balls": ["ball", "egg"]})
    assert [trial.id for trial in plan.baselines("shapes")] == ["shapes-ce-0", "shapes-ce-1", "shapes-ce-2"]
    named = parse(merge(DEFAULT, {"importance": {"shapes": None, "named": named_family()}}))
    assert Plan(named).importance.baselines("named") == ()


def named_family():
    return {
        "pictures": "shapes",
        "important": {"balls": ["ball", "egg"]},
        "losses": {"ce": {}, "camri": {"margin": [4], "scale": [8]}},
        "trials": 1,
        "training": {"epochs": 1, "batch_size": 8},
    }


def test_jobs_come_back_from_json():
    plan = changed()
    for trial in plan.trials:
        job = plan.classifier_job(trial.id)
        assert classifier_job_from_dict(json.loads(json.dumps(to_dict(job)))) == job
    family = plan.family_job("shapes")
    assert importance_job_from_dict(json.loads(json.dumps(to_dict(family)))) == family


@pytest.mark.parametrize(
    ("overlay", "reason"),
    [
        ({"pictures": "shape"}, "importance.shapes.pictures: 'shape' is not among pictures: domains, shapes"),
        ({"pictures": "domains"}, "importance.shapes.domain: the pictures have several"),
        ({"domain": "attic"}, "importance.shapes.domain: 'attic'"),
        ({"label": "mood"}, "importance.shapes.label: objects has no label 'mood'"),
        ({"important": {"worst9": "recall"}}, "only worst1, worst2, median are ranks"),
        ({"important": {"none": []}}, "expected names of classes"),
        ({"important": {"a-b": ["cube"]}}, "expected letters, digits and underscores"),
        ({"losses": {"ce": None}}, "losses: ce is missing"),
        ({"losses": {"camri": {"weight": [2]}}}, "losses.camri: needs margin and scale"),
        ({"losses": {"wce": {"weight": [2, 2]}}}, "each at most once"),
        ({"losses": {"arcface": {"margin": [64], "scale": [8]}}}, "64 is pi"),
        ({"losses": {"hinge": {}}}, "importance.shapes.losses"),
        ({"backbone": "camri", "stem": "unpooled"}, "importance.shapes.stem"),
        ({"backbone": "camri", "stem": "published", "pretrained": "x.pth"}, "no published weights of camri"),
        ({"trials": 0}, "importance.shapes.trials"),
    ],
)
def test_what_cannot_be_is_one_line(overlay, reason):
    with pytest.raises(ConfigError) as caught:
        changed(**overlay)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ranking_needs_pictures_to_rank_by():
    overlay = {"pictures": {"shapes": {"validation": None}}}
    with pytest.raises(ConfigError, match=r"ranked by validation pictures, which pictures\.shapes has not"):
        parse(merge(DEFAULT, overlay))
    on_test = merge(DEFAULT, {**overlay, "importance": {"shapes": {"protocol": {"ranking": "test"}}}})
    assert Plan(parse(on_test)).importance.splits("shapes") == ("test",)


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ({"source": "cifar10", "size": [32, 32], "domains": ["photos"]}, "cifar10 has no 'photos'"),
        ({"source": "celeba", "size": [32, 32], "validation_share": 0.1}, "celeba has official ones"),
        ({"source": "objects", "size": [32, 32], "domains": ["room"], "train": 8, "test": 8, "validation_share": 0.1},
         "objects makes as many"),
        ({"source": "gtsrb", "size": [32, 32], "validation": 9}, "no pictures are held out"),
        ({"source": "awa2", "size": [30, 30]}, "multiples of 4"),
        ({"source": "gtsrb", "size": [32, 32], "test_share": 0.1}, "gtsrb has official test pictures"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_are_one_line(pictures, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        parse(merge(DEFAULT, {"pictures": {"more": pictures}}))
    assert "\n" not in str(caught.value)


def test_a_data_set_of_one_domain_needs_not_name_it():
    config = parse(
        merge(DEFAULT, {"pictures": {"more": {"source": "gtsrb", "size": [32, 32], "validation_share": 0.1}}})
    )
    assert config.picture_sets["more"].domains == ["gtsrb"]
    settings = Plan(config).generated.picture_settings("more", "gtsrb", "train")
    assert settings["validation_share"] == 0.1
    assert "validation_share" not in Plan(config).generated.picture_settings("more", "gtsrb", "test")
