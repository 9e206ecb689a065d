"""The numbers of the plan, and what its jobs hold."""

import json
import math
import random
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from headstrong.configfiles import load, merge, parse, study_files
from headstrong.errors import ConfigError
from headstrong.jobs import evaluation_job_from_dict, to_dict, training_job_from_dict
from headstrong.provenance import ROOT
from headstrong.study import COLUMNS, Plan
from headstrong.tasks import TASKS

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
THREE = {"encoders": ["resnet18"], "tasks": "sdn", "sizes": [3]}


def plan_of(*names: str) -> Plan:
    return Plan(load(study_files(names)))


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "headstrong", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_the_935():
    plan = plan_of("full")
    assert plan.count() == "935 multi-task, 67 reference, 936 runs"
    sections = pd.Series([model.section for model in plan.models]).value_counts().to_dict()
    assert sections == {
        "combinations": math.comb(11, 2) + math.comb(11, 3) + math.comb(11, 4),
        "encoders": 4 * 55,
        "weighted": 11 * 10,
        "early": 55,
        "single": 11,
        "single-encoders": 4 * 11,
        "single-early": 11,
        "five": 1,
    }


def test_the_commands_that_stay_stable():
    assert command("plan", "--study", "full", "--count").stdout == "935 multi-task, 67 reference, 936 runs\n"
    assert "488" in command("plan", "--study", "supplement", "--count").stdout
    table = command("plan", "--study", "full").stdout.splitlines()
    assert table[0] == ",".join(COLUMNS)
    assert len(table) == 1 + 1002
    unknown = command("plan", "--study", "fulll")
    assert unknown.returncode == 2
    assert len(unknown.stderr.splitlines()) == 1


def jobs_of(plan: Plan) -> dict[tuple[str, str], object]:
    """Everything that decides what runs again, but for the order of rows in tables."""
    made, hidden, importance = plan.generated, plan.hidden, plan.importance
    sets = plan.config.picture_sets
    jobs = {
        "data": {split: plan.data_settings(split) for split in ("train", "test")},
        "training": {run.id: to_dict(plan.training_job(run.id)) for run in plan.runs},
        "evaluation": {model.id: to_dict(plan.evaluation_job(model.id)) for model in plan.models},
        "pictures": {
            (name, domain): made.picture_settings(name, domain, "train")
            for name in sets
            for domain in sets[name].domains
        },
        "classifier": {one.id: to_dict(made.classifier_job(one.id)) for one in made.classifiers},
        "generator": {one.id: to_dict(one) for one in made.generators},
        "generated": {name: to_dict(made.family_job(name)) for name in plan.config.generator_families},
        "trial": {one.id: to_dict(importance.classifier_job(one.id)) for one in importance.trials},
        "choice": {name: importance.choice_settings(name) for name in plan.config.importance_families},
        "importance": {name: to_dict(importance.family_job(name)) for name in plan.config.importance_families},
        "forgetting": {one.id: to_dict(one) for one in hidden.forgettings},
        "hidden": {turn.id: to_dict(hidden.hidden_job(turn.id)) for turn in hidden.turns},
    }
    return {(kind, str(name)): job for kind, of_kind in jobs.items() for name, job in of_kind.items()}


# Lists whose order is what they say, and those that victims and the tables' columns follow.
ORDERED = {"size", "domains", "target", "models", "betas"}


def shuffled(node, draw: random.Random, key: str = ""):
    """The same settings in another order: of keys, of letters, and of lists whose order means nothing."""
    if isinstance(node, dict):
        keys = draw.sample(list(node), len(node))
        return {name: shuffled(node[name], draw, name) for name in keys}
    if isinstance(node, list) and key not in ORDERED:
        return draw.sample(node, len(node))
    return "".join(draw.sample(node, len(node))) if key == "tasks" and isinstance(node, str) else node


@pytest.mark.parametrize("study", ["quick", "attacks", "dgba", "mta", "camri", "hidden", "hidden_celeba", "switches"])
def test_another_order_in_a_file_changes_no_job(study):
    config = load(study_files([study]))
    expected = jobs_of(Plan(config))
    for seed in range(3):
        other = shuffled(config.model_dump(), random.Random(seed))
        found = jobs_of(Plan(parse(other)))
        assert found.keys() == expected.keys()
        assert [key for key, job in expected.items() if found[key] != job] == []


def test_the_supplements_488_models_and_246_runs():
    plan = plan_of("supplement")
    sections = pd.Series([model.section for model in plan.models]).value_counts()
    assert [sections[f"s{i}"] for i in range(1, 9)] == [121, 121, 121, 25, 25, 25, 25, 25]
    assert len(plan.models) == 488
    assert len(plan.runs) == 246
    assert plan.snapshot_epochs == (50, 100)


@pytest.mark.parametrize("names", [["quick"], ["full"], ["supplement"], ["full", "tiny"]])
def test_ids_are_unique_also_where_file_names_ignore_case(names):
    ids = [model.id for model in plan_of(*names).models]
    assert len({model_id.lower() for model_id in ids}) == len(ids)


def test_early_models_are_checkpoints_of_runs_of_the_same_model():
    plan = plan_of("full")
    early = [model for model in plan.models if model.early]
    assert len(early) == 66
    for model in early:
        run = plan[model.run]
        assert (run.encoder, run.tasks, run.weights, run.seed) == (
            model.encoder,
            model.tasks,
            model.weights,
            model.seed,
        )
        assert model.epochs == 50
        assert 50 in plan.training_job(run.id).snapshots


def test_a_checkpoint_without_its_run_is_refused():
    config = parse(merge(DEFAULT, {"plan": {"single": None}}))
    with pytest.raises(ConfigError, match=r"plan\.single-early"):
        Plan(config)


def test_weights_are_uniform_or_appendix_b_and_maos():
    plan = plan_of("full")
    assert plan["combinations-resnet18-sd_D"].weights == (1 / 3,) * 3
    weighted = {(m.main, m.auxiliary): m.weights for m in plan.models if m.section == "weighted"}
    assert len(weighted) == 110
    assert weighted["s", "d"] == (1.0, 0.01)  # Appendix B
    assert weighted["D", "s"] == (1.0, 0.1)
    assert weighted["D", "E"] == (1.0, 0.01)
    assert weighted["s", "r"] == (1.0, 0.1)  # Mao et al.
    assert weighted["K", "p"] == (1.0, 0.01)


def test_one_more_task_adds_models_and_changes_none():
    before = Plan(parse(DEFAULT))
    after = Plan(parse(merge(DEFAULT, {"tasks": "sdDnEk"})))
    assert len(after.models) > len(before.models)
    for model in before.models:
        assert after.training_job(model.run) == before.training_job(model.run)
        assert after.evaluation_job(model.id) == before.evaluation_job(model.id)
    assert after.data_settings("train") == before.data_settings("train")


def test_an_epsilon_changes_evaluations_and_no_training():
    other = {"attacks": {"pgd": {"epsilon": [0.01]}}, "analysis": {"epsilon": 0.01}}
    before, after = Plan(parse(DEFAULT)), Plan(parse(merge(DEFAULT, other)))
    for model in before.models:
        assert after.training_job(model.run) == before.training_job(model.run)
        assert after.evaluation_job(model.id) != before.evaluation_job(model.id)


def test_attacks_of_a_pair_a_single_and_the_five():
    plan = Plan(parse(DEFAULT))
    names = {model: [a.name for a in plan.evaluation_job(model).attacks] for model in (
        "single-resnet18-s", "combinations-resnet18-s_D", "five-resnet18-sd_Dn_E")}  # fmt: skip
    assert names["single-resnet18-s"] == [
        "apgd.single.s.linf.8.25", "noise.total.s.linf.8.1", "pgd.single.s.linf.8.25",
    ]  # fmt: skip
    assert names["combinations-resnet18-s_D"] == [
        "apgd.single.s.linf.8.25", "apgd.single.D.linf.8.25", "noise.total.sD.linf.8.1",
        "pgd.single.s.linf.8.25", "pgd.single.D.linf.8.25", "pgd.total.sD.linf.8.25", "wgd.wgd_released.sD.linf.8.25",
    ]  # fmt: skip
    attacked = {name.split(".")[2] for name in names["five-resnet18-sd_Dn_E"]}
    for chain in DEFAULT["chains"]:
        for length in range(1, 6):
            assert "".join(letter for letter in TASKS if letter in chain[:length]) in attacked
    assert len(set(names["five-resnet18-sd_Dn_E"])) == len(names["five-resnet18-sd_Dn_E"]) == 20 + 1


def test_protocol_switches_reach_the_jobs():
    released = Plan(parse(merge(DEFAULT, {"protocol": {"preset": "released"}})))
    training = released.training_job("combinations-resnet18-sd")
    assert (training.optimizer, training.shuffle, training.loss_pixels) == ("adam", False, "all")
    attack = released.evaluation_job("combinations-resnet18-sd").attacks[0]
    assert attack.start == "corner"
    published = Plan(parse(merge(DEFAULT, {"protocol": {"preset": "published"}, "training": {"epochs": 150}})))
    job = published.training_job("combinations-resnet18-sd")
    assert (job.optimizer, job.learning_rate, job.momentum, job.milestones) == ("sgd", 0.01, 0.99, (100, 120, 140))


def test_a_switch_of_a_section_changes_its_models_and_no_others():
    overlay = {"plan": {"odd": {**THREE, "protocol": {"optimizer": "sgd", "start": "corner", "miou": "labelled"}}}}
    plan, before = Plan(parse(merge(DEFAULT, overlay))), Plan(parse(DEFAULT))
    odd, three = plan["odd-resnet18-sdn"], plan["three-resnet18-sdn"]
    assert odd.switches == "optimizer=sgd;start=corner"  # a switch set to the study's own value is none
    assert odd.run == odd.id
    assert odd.seed == three.seed  # only the switch makes the difference
    assert plan.training_job(odd.id).optimizer == "sgd"
    assert {attack.start for attack in plan.evaluation_job(odd.id).attacks if attack.stepper == "pgd"} == {"corner"}
    for model in before.models:
        assert plan.training_job(model.run) == before.training_job(model.run)
        assert plan.evaluation_job(model.id) == before.evaluation_job(model.id)


def test_a_switch_that_trains_nothing_measures_the_same_weights():
    overlay = {"plan": {"odd": {**THREE, "protocol": {"start": "corner", "miou": "all"}}}}
    plan = Plan(parse(merge(DEFAULT, overlay)))
    odd = plan["odd-resnet18-sdn"]
    assert odd.run == "three-resnet18-sdn"
    assert not odd.early
    assert odd not in plan.runs
    assert len(plan.runs) == len(Plan(parse(DEFAULT)).runs)
    assert plan.evaluation_job(odd.id).miou == "all"


@pytest.mark.parametrize("name", ["quick", "switches", "attacks"])
def test_the_order_of_the_sections_decides_nothing(name):
    config = load(study_files([name]))
    plan = Plan(config)
    turned = Plan(config.model_copy(update={"plan": dict(reversed(config.plan.items()))}))
    for model in plan.models:
        assert turned[model.id] == model
        assert turned.training_job(model.run) == plan.training_job(model.run)
        assert turned.evaluation_job(model.id) == plan.evaluation_job(model.id)


def test_an_adversarially_trained_model_says_against_what():
    plan = Plan(parse(DEFAULT))
    model = plan["three-adversarial-resnet18-sdn"]
    assert model.adversarial == "fgsm.dgba.linf.8.1"
    attack = plan.training_job(model.id).adversarial
    assert (attack.stepper, attack.balancer, attack.attacked, attack.epsilon) == ("fgsm", "dgba", "sdn", 8 / 255)
    assert plan.training_job("three-resnet18-sdn").adversarial is None


@pytest.mark.parametrize(
    ("stepper", "own", "differs"),
    [
        ({"stepper": "pgd", "balancer": "wgd"}, {"protocol": {"wgd": "published"}}, True),
        ({"stepper": "pgd", "balancer": "total"}, {"protocol": {"start": "corner"}}, True),
        ({"stepper": "pgd", "balancer": "total", "norm": "l2"}, {"protocol": {"l2_step": "released"}}, True),
        ({"stepper": "pgd", "balancer": "total"}, {"step_size": 0.001, "protocol": {"miou": "all"}}, True),
        ({"stepper": "pgd", "balancer": "total", "start": "uniform"}, {"protocol": {"start": "corner"}}, False),
        ({"stepper": "pgd", "balancer": "total"}, {"protocol": {"wgd": "published", "l2_step": "released"}}, False),
        ({"stepper": "fgsm", "balancer": "total"}, {"step_size": 0.001, "protocol": {"start": "corner"}}, False),
        ({"stepper": "pgd", "balancer": "total"}, {"protocol": {"miou": "all"}}, False),
    ],
)
def test_models_trained_against_other_attacks_have_weights_of_their_own(stepper, own, differs):
    attack = {"steps": 3, "epsilon": 0.03, **stepper}
    other = attack | {key: value for key, value in own.items() if key != "protocol"}
    sections = {
        "base": THREE | {"adversarial": attack},
        "own": THREE | {"adversarial": other, "protocol": own["protocol"]},
    }
    plan = Plan(parse(merge(DEFAULT, {"plan": sections})))
    base, model = plan["base-resnet18-sdn"], plan["own-resnet18-sdn"]
    assert (model.run == model.id) is differs
    assert (model.run == base.id) is not differs
    assert (plan.training_job(model.run).adversarial != plan.training_job(base.id).adversarial) is differs
    if other == attack:  # nothing but the switch makes the difference
        assert model.seed == base.seed


def test_layouts_make_models_of_branched_networks():
    plan = Plan(parse(merge(DEFAULT, {"plan": {"sharing": {"tasks": "sdn", "sizes": [3], "layouts": [7, 50]}}})))
    layouts = {m.id: m.layout for m in plan.models if m.section == "sharing"}
    assert layouts == {"sharing-mobilenet_v2-sdn-7": 7, "sharing-mobilenet_v2-sdn-50": 50}
    assert plan.training_job("sharing-mobilenet_v2-sdn-7").layout == 7
    assert {m.layout for m in plan.models if m.section != "sharing"} == {None}


def test_wgd_takes_the_protocols_form():
    for form in ("published", "released", "cyclic"):
        plan = Plan(parse(merge(DEFAULT, {"protocol": {"wgd": form}})))
        balancers = {a.balancer for a in plan.evaluation_job("combinations-resnet18-sd").attacks if a.family == "wgd"}
        assert balancers == {f"wgd_{form}"}


def test_families_reach_the_sections_they_name_and_no_others():
    plan = Plan(parse(DEFAULT))
    for name, family in DEFAULT["attacks"].items():
        attacked = {m.section for m in plan.models if any(a.family == name for a in plan.evaluation_job(m.id).attacks)}
        assert attacked == set(family.get("sections") or DEFAULT["plan"])


def test_jobs_survive_json():
    plan = Plan(parse(DEFAULT))
    for run in ("combinations-resnet18-sd", "three-adversarial-resnet18-sdn", "sharing-mobilenet_v2-dn-1"):
        training = plan.training_job(run)
        assert training_job_from_dict(json.loads(json.dumps(to_dict(training)))) == training
    evaluation = plan.evaluation_job("five-resnet18-sd_Dn_E")
    assert evaluation_job_from_dict(json.loads(json.dumps(to_dict(evaluation)))) == evaluation


def test_what_the_snakefile_imports_is_light():
    code = (
        "import sys; import headstrong.configfiles, headstrong.study, headstrong.provenance, headstrong.data.build; "
        "heavy = {'torch', 'pandas', 'scipy', 'matplotlib', 'skimage', 'h5py'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
