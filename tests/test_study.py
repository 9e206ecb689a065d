"""The numbers of the plan, and what its jobs hold."""

import json
import math
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
    assert names["single-resnet18-s"] == ["pgd.single.s.linf.8.25", "noise.total.s.linf.8.1"]
    assert names["combinations-resnet18-s_D"] == [
        "pgd.single.s.linf.8.25", "pgd.single.D.linf.8.25", "pgd.total.sD.linf.8.25", "noise.total.sD.linf.8.1",
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


def test_jobs_survive_json():
    plan = Plan(parse(DEFAULT))
    training = plan.training_job("combinations-resnet18-sd")
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
