# The plan of the study, its targets, and the functions that tell a rule what its job needs.
# Parsed again by every cluster job: nothing here may import torch or take time.

import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from headstrong.configfiles import CONFIG_FILE, as_yaml
from headstrong.data.acquire import DATASETS
from headstrong.data.build import code_modules, picture_modules
from headstrong.jobfiles import WHOLE_STUDY, JobFiles
from headstrong.jobs import to_dict
from headstrong.provenance import code_digest, file_digest, training_code
from headstrong.scale import in_words
from headstrong.study import plan_settings
from headstrong.workflow import (
    announce_study,
    check_current,
    check_data,
    hold_study,
    keep_warm,
    load_study,
    prepare_jobs,
    tell_why,
    watch_jobs,
)

if not workflow.is_main_process:
    check_current()
prepare_jobs()
CONFIG_FILES = [
    *([] if workflow.config_settings.replace_workflow_config else ["config.yaml"]),
    *workflow.overwrite_configfiles,
]
CONFIG_ENTRIES = workflow.config_settings.config_args or []
STUDY, PLAN = load_study(CONFIG_FILES, CONFIG_ENTRIES)
RESULTS = f"results/{STUDY.study_id}"
announce_study(RESULTS, STUDY, CONFIG_FILES, CONFIG_ENTRIES)
WORK = f"work/{STUDY.study_id}"
EVALUATIONS = [f"{RESULTS}/evaluations/{model.id}.h5" for model in PLAN.models]
SWITCHES = STUDY.protocol.resolved()
GENERATED = PLAN.generated
FAMILIES = list(STUDY.generator_families)
IMPORTANCE = PLAN.importance
FAVOURING = list(STUDY.importance_families)
HIDDEN = PLAN.hidden
RUNS = frozenset(run.id for run in PLAN.runs)


def jobs_are_run():
    """Whether this Snakemake runs jobs by now: it no longer plans, and this is not a dry run."""
    return workflow.scheduler is not None and not workflow.dryrun


JOB_FILES = JobFiles(f"{WORK}/jobs", jobs_are_run)


def one_of(ids):
    """A wildcard constraint that matches these ids and nothing else."""
    return "|".join(sorted(ids)) or "none"


# Snakemake goes through a constraint for every file of every job: one that named each of the plan's models would make
# its work grow with their square. Input functions refuse others.
wildcard_constraints:
    split="train|validation|test",
    run="[^/]+",
    model="[^/]+",
    pictures=one_of(STUDY.picture_sets),
    domain=one_of(
        domain for chosen in STUDY.picture_sets.values() for domain in chosen.domains
    ),
    classifier=one_of(one.id for one in (*GENERATED.classifiers, *IMPORTANCE.trials)),
    favouring=one_of(FAVOURING),
    generator=one_of(generator.id for generator in GENERATED.generators),
    family=one_of(FAMILIES),
    turn=one_of(turn.id for turn in HIDDEN.turns),
    forgetting=one_of(job.id for job in HIDDEN.forgettings),


def weights_of(model_id):
    """Path of a model's weights: the end of its run, or the checkpoint it is."""
    model = PLAN[model_id]
    name = f"epoch-{model.epochs}" if model.early else "weights"
    return f"{RESULTS}/models/{model.run}/{name}.safetensors"


def none_such(name):
    """In place of an input: what no rule makes, and says why there is none."""
    return f"(a model of the plan; {name} is none)"


def training_data(wildcards):
    return (
        f"{RESULTS}/data/train.h5"
        if wildcards.run in RUNS
        else none_such(wildcards.run)
    )


def model_weights(wildcards):
    return (
        weights_of(wildcards.model)
        if wildcards.model in PLAN
        else none_such(wildcards.model)
    )


def job_file(rule, name, job):
    """The file that tells a program its job."""
    return JOB_FILES.settings(rule, name, to_dict(job))


def settings_file(rule, settings, name=WHOLE_STUDY):
    """The file with the settings of a rule that has one job per study, as a function for its parameters."""

    def find(wildcards):
        return JOB_FILES.settings(rule, name, settings)

    return find


def whole_config(wildcards):
    return JOB_FILES.text("write_config", WHOLE_STUDY, as_yaml(STUDY), ".yaml")


def drawn_evaluations(wildcards, input):
    """File with `--generated` and `--importance`, whose evaluations are drawn themselves."""
    found = ["--generated", *input.generated, "--importance", *input.importance]
    return JOB_FILES.arguments("draw_figures", WHOLE_STUDY, found)


def data_settings(wildcards):
    return JOB_FILES.settings(
        "build_data", wildcards.split, PLAN.data_settings(wildcards.split)
    )


def data_there(wildcards):
    """No input: the data must be there, also for a dry run, unless the cache is."""
    if workflow.is_main_process:
        check_data(
            f"{RESULTS}/data/{wildcards.split}.h5",
            PLAN.data_settings(wildcards.split),
        )
    return []


def training_job(wildcards):
    return job_file("train_model", wildcards.run, PLAN.training_job(wildcards.run))


def code_of_training(wildcards):
    return training_code(bool(PLAN[wildcards.run].adversarial))


def evaluation_job(wildcards):
    job = PLAN.evaluation_job(wildcards.model)
    return job_file("evaluate_model", wildcards.model, job)


def picture_job(wildcards):
    job = PLAN.pictured[wildcards.model]
    return job_file("picture_attacks", wildcards.model, job)


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


def folder_of_output(wildcards, output):
    """The folder that a rule with many outputs writes to."""
    return str(Path(output[0]).parent)


def folder_of_evaluations(wildcards, input):
    """The folder of all evaluations: a thousand paths would not fit on a command line."""
    return str(Path(input.evaluations[0]).parent)
