# The plan of the study, its targets, and the functions that tell a rule what its job needs.
# Parsed again by every cluster job: nothing here may import torch or take time.

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(workflow.basedir, "src"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [os.path.join(workflow.basedir, "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
)

from headstrong.config import parse_for_snakemake
from headstrong.data.build import code_modules
from headstrong.jobs import to_dict
from headstrong.provenance import code_digest, settings_json
from headstrong.study import Plan, plan_settings

STUDY = parse_for_snakemake(config, ["config.yaml", *workflow.overwrite_configfiles])
PLAN = Plan(STUDY)
RESULTS = f"results/{STUDY.study_id}"
WORK = f"work/{STUDY.study_id}"
EVALUATIONS = [f"{RESULTS}/evaluations/{model.id}.h5" for model in PLAN.models]
SWITCHES = STUDY.protocol.resolved()


wildcard_constraints:
    split="train|test",
    run=r"[a-zA-Z0-9_-]+",
    model=r"[a-zA-Z0-9_-]+",


def weights_of(model_id):
    """Path of a model's weights: the end of its run, or the checkpoint it is."""
    model = PLAN[model_id]
    name = f"epoch-{model.epochs}" if model.early else "weights"
    return f"{RESULTS}/models/{model.run}/{name}.safetensors"


def model_weights(wildcards):
    return weights_of(wildcards.model)


def data_settings(wildcards):
    return settings_json(PLAN.data_settings(wildcards.split))


def training_job(wildcards):
    return settings_json(to_dict(PLAN.training_job(wildcards.run)))


def evaluation_job(wildcards):
    return settings_json(to_dict(PLAN.evaluation_job(wildcards.model)))


def runtime_minutes(minutes):
    """Minutes for a job, more with every attempt: retries belong to the profile."""

    def grow(wildcards, attempt):
        return minutes * attempt

    return grow


def memory_mb(megabytes):
    """Memory for a job, more with every attempt."""

    def grow(wildcards, attempt):
        return megabytes * attempt

    return grow
