"""Whose turn it is to be hidden, which copies forget, which attacks are made, and what each of them depends on."""

from __future__ import annotations

import collections
import dataclasses
import json

import pytest

from headstrong.configfiles import load, merge, parse, read, study_files
from headstrong.errors import ConfigError
from headstrong.jobs import forgetting_job_from_dict, hidden_job_from_dict, to_dict
from headstrong.provenance import ROOT
from headstrong.study import Plan

DEFAULT = read(ROOT / "config.yaml")
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("hidden*.yaml") if path.stem != "hidden_small")
FACES = {
    "pictures": {"faces": {"source": "celeba", "size": [32, 32]}},
    "classifiers": {"faces": {"pictures": "faces", "labels": ["Male", "Black_Hair", "Bald", "Young"],
                              "backbone": "resnet18", "training": {"epochs": 1, "batch_size": 8}}},
}  # fmt: skip


def plan_of(*studies):
    return Plan(load(study_files(studies))).hidden


def changed(overlay=None, **family):
    """The default study with other settings of the family `attributes`, and of other sections."""
    return Plan(parse(merge(DEFAULT, {**(overlay or {}), "hidden": {"attributes": family}}))).hidden


def dense(overlay=None, **family):
    return Plan(parse(merge(DEFAULT, {**(overlay or {}), "hidden": {"scenes": family}}))).hidden


def attacks_of(plan, turn):
    return {attack.method.name: attack for attack in plan.hidden_job(turn).attacks}


def counts(plan, turn):
    return collections.Counter(attack.objective for attack in plan.hidden_job(turn).attacks)


def jobs_of(plan):
    """Everything that a change could make run again."""
    forgettings = {job.id: job for job in plan.forgettings}
    return forgettings, {turn.id: plan.hidden_job(turn.id) for turn in plan.turns}


def differing(before, after):
    """Ids of the copies and of the turns whose jobs differ."""
    pairs = zip(jobs_of(before), jobs_of(after), strict=True)
    return tuple({name for name in old | new if old.get(name) != new.get(name)} for old, new in pairs)


def differing_attacks(before, after, turn):
    """Objectives of the attacks that differ."""
    old, new = attacks_of(before, turn), attacks_of(after, turn)
    assert old.keys() == new.keys()
    return {old[name].objective for name in old if old[name] != new[name]}


# Turns


def test_every_task_takes_its_turn_with_every_access():
    plan = plan_of("hidden")
    labels = ["shape", "colour", "texture", "size", "pose", "light", "background"]
    assert [turn.hidden for turn in plan.of_family("attributes")] == labels
    assert [turn.hidden for turn in plan.of_family("scenes")] == list("sdDnE")
    accesses = {name: plan.accesses(name) for name in ("attributes", "scenes")}
    assert accesses == {"attributes": ("heads", "backbone"), "scenes": ("heads", "backbone")}
    made = {job.id for job in plan.forgettings}
    assert made == {plan.forgetting_id(turn, access) for turn in plan.turns for access in plan.accesses(turn.family)}
    assert plan.forgetting_job("scenes-_D-backbone").hidden == "D"
    assert plan.family_of_forgetting("scenes-_D-backbone") == "scenes"
    assert plan.turn("scenes-_D").hidden == "D"


@pytest.mark.parametrize("study", STUDIES)
def test_ids_and_names_of_attacks_are_unique_where_file_systems_ignore_case(study):
    plan = plan_of(study)
    assert plan.turns
    for ids in ([turn.id for turn in plan.turns], [job.id for job in plan.forgettings]):
        assert len({name.casefold() for name in ids}) == len(ids)
    for turn in plan.turns:
        job = plan.hidden_job(turn.id)
        names = [attack.method.name for attack in job.attacks]
        assert len(set(names)) == len(names) > 0
        assert turn.hidden in dict(job.tasks)
        assert all(turn.hidden not in attack.attacked for attack in job.attacks if attack.objective != "oracle")


@pytest.mark.parametrize("study", STUDIES)
def test_studies_make_as_many_turns_copies_and_attacks_as_their_lists_say(study):
    plan = plan_of(study)
    for name, family in plan.config.hidden_families.items():
        attacks, accesses, tasks = family.attacks, len(family.access), plan.tasks(name)
        turns = plan.of_family(name)
        assert len(turns) == len(family.hide or tasks)
        stealths = len(attacks.stealth)
        each = dict.fromkeys(("cf", "cf_delta", "disruption"), accesses * stealths)
        each |= {"dgba": accesses, "total": accesses, "single": accesses * (len(tasks) - 1)}
        each |= {"oracle": stealths, "noise": 1}
        balls = len(attacks.norm) * len(attacks.epsilon)
        for turn in turns:
            assert counts(plan, turn.id) == {objective: balls * each[objective] for objective in attacks.objectives}
    copies = collections.Counter(plan.family_of_forgetting(job.id) for job in plan.forgettings)
    assert copies == {
        name: len(plan.of_family(name)) * len(family.access) for name, family in plan.config.hidden_families.items()
    }


def test_the_study_of_photographs_hides_five_tasks():
    turns = [turn.id for turn in plan_of("hidden_nyuv2").turns]
    assert turns == ["scenes-s", "scenes-d", "scenes-_D", "scenes-n", "scenes-_E"]


def test_chosen_tasks_alone_are_hidden_and_the_others_are_visible():
    plan = changed(hide=["background", "shape"])
    assert [turn.id for turn in plan.of_family("attributes")] == ["attributes-background", "attributes-shape"]
    job = plan.forgetting_job("attributes-shape-heads")
    assert job.visible == (("colour", ("colour",)), ("background", ("background",)))


def test_groups_of_labels_are_tasks_and_labels_of_no_group_take_no_part():
    plan = changed(FACES, classifiers="faces", tasks={"hair": ["Bald", "Black_Hair"], "sex": ["Male"]})
    assert plan.tasks("attributes") == (("hair", ("Bald", "Black_Hair")), ("sex", ("Male",)))
    assert [turn.id for turn in plan.of_family("attributes")] == ["attributes-hair", "attributes-sex"]
    assert plan.forgetting_job("attributes-sex-heads").visible == (("hair", ("Bald", "Black_Hair")),)
    assert plan.classifier("attributes") == "faces-resnet18-celeba"
    assert plan.pictures("attributes") == ("faces", "celeba")


def test_a_family_is_of_one_classifier_or_of_one_model():
    plan = plan_of()
    assert plan.classifier("attributes") == "attributes-resnet18-studio"
    assert plan.pictures("attributes") == ("attributes", "studio")
    assert plan.classifier("scenes") is None
    assert plan.model("scenes") == "three-resnet18-sdn"
    assert plan.tasks("scenes") == (("s", ("s",)), ("d", ("d",)), ("n", ("n",)))
    many = changed({"classifiers": {"domain": {"labels": ["shape", "colour"]}}}, classifiers="domain", domain="room")
    assert many.classifier("attributes") == "domain-resnet18-room"


# Forgetting


def test_both_accesses_see_the_same_batches_and_differ_in_their_heads_alone():
    plan = plan_of("hidden")
    heads, backbone = (to_dict(plan.forgetting_job(f"attributes-pose-{access}")) for access in ("heads", "backbone"))
    assert {key for key in heads if heads[key] != backbone[key]} == {"id", "access", "probe_epochs", "probe_rate"}
    assert (heads["probe_epochs"], heads["probe_rate"]) == (0, 0.0)
    seeds = {(job.hidden, plan.family_of_forgetting(job.id)): job.seed for job in plan.forgettings}
    assert len(set(seeds.values())) == len(seeds)


@pytest.mark.parametrize(
    ("epochs", "points", "expected"),
    [(4, 4, (1, 2, 3, 4)), (5, 2, (3, 5)), (2, 7, (1, 2)), (9, 1, (9,)), (10, 4, (3, 5, 8, 10))],
)
def test_the_curve_has_its_points_evenly_and_ends_with_the_last_epoch(epochs, points, expected):
    job = changed(forgetting={"epochs": epochs, "curve": points}).forgetting_job("attributes-shape-heads")
    assert job.curve == expected


def test_settings_of_forgetting_arrive_in_its_job():
    settings = {"layers": 2, "train_heads": True, "samples": 9, "milestones": [0.5], "optimizer": "sgd", "epochs": 4}
    job = changed(forgetting=settings).forgetting_job("attributes-shape-heads")
    found = {key: getattr(job, key) for key in settings}
    assert found == {**settings, "milestones": (2,)}


# Attacks


def test_attacks_are_every_combination_of_what_counts_for_an_objective():
    plan = changed(attacks={
        "objectives": ["cf", "cf_delta", "disruption", "dgba", "total", "single", "oracle", "noise"],
        "stealth": [0, 0.5, 2], "epsilon": [0.01, 0.02], "norm": ["linf", "l2"],
    })  # fmt: skip
    balls, accesses, stealths, visible = 4, 2, 3, 2
    expected = dict.fromkeys(("cf", "cf_delta", "disruption"), balls * accesses * stealths)
    expected |= dict.fromkeys(("dgba", "total"), balls * accesses)
    expected |= {"single": balls * accesses * visible, "oracle": balls * stealths, "noise": balls}
    assert counts(plan, "attributes-shape") == expected
    found = attacks_of(plan, "attributes-shape")
    assert len(found) == sum(expected.values())
    for attack in found.values():
        assert (attack.access == "") == (attack.objective in ("oracle", "noise"))
        assert (attack.method.stepper == "noise") == (attack.objective == "noise")
        assert attack.stealth == 0 or attack.objective in ("cf", "cf_delta", "disruption", "oracle")
    attacked = collections.defaultdict(set)
    for attack in found.values():
        attacked[attack.objective].add(attack.attacked)
    both = ("colour", "background")
    assert attacked["single"] == {("colour",), ("background",)}
    assert attacked["oracle"] == {("shape",)}
    assert attacked["dgba"] == attacked["total"] == {both}
    assert {attacked[name] == {()} for name in ("cf", "cf_delta", "disruption", "noise")} == {True}


def test_steps_and_starts_are_those_of_the_stepper():
    methods = {attack.objective: attack.method for attack in plan_of().hidden_job("attributes-shape").attacks}
    assert (methods["cf"].steps, methods["noise"].steps) == (10, 1)
    assert (methods["cf"].start, methods["dgba"].balancer, methods["cf"].balancer) == ("uniform", "dgba", "single")
    assert methods["cf"].step_size == pytest.approx(8 / 255 / 4)
    fgsm = changed(attacks={"stepper": "fgsm", "objectives": ["cf"]}).hidden_job("attributes-shape").attacks[0].method
    assert (fgsm.steps, fgsm.start, fgsm.step_size) == (1, "clean", pytest.approx(8 / 255))
    momentum = (
        changed(attacks={"stepper": "mim", "objectives": ["cf"]}).hidden_job("attributes-shape").attacks[0].method
    )
    assert momentum.step_size == pytest.approx(8 / 255 / 10)
    assert changed({"protocol": {"start": "corner"}}).hidden_job("attributes-shape").attacks[0].method.start == "corner"
    again = {
        attack.objective: attack.method
        for attack in changed(attacks={"restarts": 3}).hidden_job("attributes-shape").attacks
    }
    assert (again["cf"].restarts, again["dgba"].restarts, again["noise"].restarts) == (3, 3, 1)
    clean = {"start": "clean", "objectives": ["cf", "noise"]}
    own = changed({"protocol": {"start": "corner"}}, attacks=clean).hidden_job("attributes-shape")
    assert own.attacks[0].method.start == "clean"


# What changes which job


@pytest.mark.parametrize(
    ("switch", "objectives"),
    [
        ({"cf_delta": "target"}, {"cf_delta"}),
        ({"forgetting_direction": "mean"}, {"cf", "cf_delta"}),
        ({"feature_distance": "cosine"}, {"cf", "cf_delta", "disruption"}),
    ],
)
def test_a_switch_touches_the_attacks_it_can_change_and_no_forgetting(switch, objectives):
    before, after = plan_of(), changed(protocol=switch)
    forgotten, attacked = differing(before, after)
    assert not forgotten
    assert attacked == {turn.id for turn in before.of_family("attributes")}
    assert differing_attacks(before, after, "attributes-shape") == objectives
    everywhere = changed({"protocol": switch})
    assert differing(after, everywhere) == (set(), {turn.id for turn in before.of_family("scenes")})


@pytest.mark.parametrize("switch", [{"loss_pixels": "all"}, {"wgd": "published"}, {"ranking": "test"}])
def test_switches_of_other_studies_touch_nothing(switch):
    assert differing(plan_of(), changed({"protocol": switch})) == (set(), set())


@pytest.mark.parametrize("switch", [{"error_pixels": "all"}, {"miou": "all"}])
def test_switches_of_dense_errors_touch_dense_families_alone(switch):
    plan = plan_of()
    dense_turns = {turn.id for turn in plan.of_family("scenes")}
    assert differing(plan, changed({"protocol": switch})) == (set(), dense_turns)


def test_reach_counts_where_there_is_a_target():
    assert differing(plan_of(), changed(attacks={"reach": 5.0})) == (set(), set())
    target = {"protocol": {"cf_delta": "target"}}
    assert differing_attacks(changed(**target), changed(**target, attacks={"reach": 5.0}), "attributes-shape") == {
        "cf_delta"
    }


@pytest.mark.parametrize("attacks", [{"stealth": [0, 2]}, {"epsilon": [0.01]}, {"objectives": ["cf"]}, {"steps": 3}])
def test_other_attacks_forget_nothing_again(attacks):
    plan = plan_of()
    turns = {turn.id for turn in plan.of_family("attributes")}
    assert differing(plan, changed(attacks=attacks)) == (set(), turns)


def test_another_forgetting_changes_the_copies_of_its_family_and_no_attack():
    plan = plan_of()
    copies = {job.id for job in plan.forgettings if plan.family_of_forgetting(job.id) == "attributes"}
    assert differing(plan, changed(forgetting={"learning_rate": 0.1})) == (copies, set())
    own = {name for name in copies if name.endswith("-backbone")}
    assert differing(plan, changed(forgetting={"probe_epochs": 9, "probe_rate": 0.5})) == (own, set())


def test_one_more_hidden_task_or_family_changes_no_other_job():
    few, all_of_them = changed(hide=["shape"]), changed()
    forgotten, attacked = differing(few, all_of_them)
    assert attacked == {"attributes-colour", "attributes-background"}
    assert forgotten == {f"{turn}-{access}" for turn in attacked for access in ("heads", "backbone")}
    more = Plan(parse(merge(DEFAULT, {"hidden": {"again": DEFAULT["hidden"]["attributes"]}}))).hidden
    assert all(name.startswith("again-") for found in differing(plan_of(), more) for name in found)


def test_samples_of_the_test_images_are_of_the_evaluation_alone():
    plan = changed(samples=5)
    assert plan.hidden_job("attributes-shape").samples == 5
    assert differing(plan_of(), plan)[0] == set()


def test_switches_come_from_the_family_then_from_its_section_then_from_the_study():
    section = {"plan": {"three": {"protocol": {"error_pixels": "all"}}}}
    assert plan_of().hidden_job("scenes-s").error_pixels == "valid"
    assert dense(section).hidden_job("scenes-s").error_pixels == "all"
    assert dense(section, protocol={"error_pixels": "valid"}).hidden_job("scenes-s").error_pixels == "valid"
    assert dense({"protocol": {"feature_distance": "cosine"}}).hidden_job("scenes-s").attacks[0].distance == "cosine"


@pytest.mark.parametrize("study", STUDIES)
def test_jobs_come_back_from_json(study):
    plan = plan_of(study)
    for job in plan.forgettings:
        assert forgetting_job_from_dict(json.loads(json.dumps(to_dict(job)))) == job
    for turn in plan.turns:
        job = plan.hidden_job(turn.id)
        assert hidden_job_from_dict(json.loads(json.dumps(to_dict(job)))) == job


def test_a_forgetting_job_knows_of_the_hidden_task_its_name_alone():
    plan = changed(FACES, classifiers="faces", tasks={"hair": ["Bald", "Black_Hair"], "sex": ["Male"]})
    job = dataclasses.asdict(plan.forgetting_job("attributes-hair-heads"))
    text = json.dumps({key: value for key, value in job.items() if key not in ("id", "hidden")})
    assert "Bald" not in text
    assert "hair" not in text


def test_a_study_may_hide_nothing():
    plan = Plan(parse(merge(DEFAULT, {"hidden": None}))).hidden
    assert (plan.turns, plan.forgettings) == ((), ())


# What cannot be


@pytest.mark.parametrize(
    ("overlay", "family", "reason"),
    [
        ({}, {"hide": ["mood"]}, "hidden.attributes.hide: no task 'mood'; there are shape, colour, background"),
        ({"classifiers": {"attributes": {"labels": ["shape"]}}}, {},
         "hidden.attributes: tasks shape; one hidden and one visible are needed"),
        (FACES, {"classifiers": "faces", "tasks": {"a": ["Male"], "A": ["Bald"]}}, "two would both be 'attributes-a'"),
        ({}, {"attacks": {"epsilon": [0.03137254901960784, 0.03137254901960785]}}, "epsilon"),
        ({}, {"attacks": {"stealth": [1, 1.0000001]}}, "stealth"),
    ],
)  # fmt: skip
def test_turns_that_cannot_be_are_one_line(overlay, family, reason):
    with pytest.raises(ConfigError) as caught:
        changed(overlay, **family)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overlay", "family", "reason"),
    [
        ({"plan": {"three": {"sizes": [2]}}}, {}, "plan.three: must give exactly one model, for hidden.scenes"),
        ({"plan": {"three": {"sizes": [1], "tasks": "d"}}}, {}, "hidden.scenes: tasks d; one hidden and one visible"),
        ({}, {"hide": ["E"]}, "hidden.scenes.hide: no task 'E'; there are s, d, n"),
    ],
)
def test_turns_of_dense_models_that_cannot_be_are_one_line(overlay, family, reason):
    with pytest.raises(ConfigError) as caught:
        dense(overlay, **family)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
