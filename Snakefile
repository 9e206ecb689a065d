# headstrong: from data to figures and a report.
#
#   snakemake --cores 2                                      the default study (config.yaml)
#   snakemake --cores 2 --configfile studies/nyuv2.yaml      an overlay on it
#
# The plan, the targets and the input functions are in rules/common.smk; one file per stage follows.

from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/common_generators.smk"
include: "rules/common_importance.smk"
include: "rules/common_hidden.smk"
include: "rules/data.smk"
include: "rules/fetch.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/analysis.smk"
include: "rules/generators.smk"
include: "rules/importance.smk"
include: "rules/hidden.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


report: "docs/workflow.rst"


onstart:
    hold_study(WORK)


localrules:
    all,
    data,
    models,
    evaluations,
    tables,
    figures,


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/{CONFIG_FILE}",
        TABLE_RECORDS,
        f"{RESULTS}/draw_figures.json",
        f"{RESULTS}/make_report.json",


rule data:
    input:
        expand(f"{RESULTS}/data/{{split}}.h5", split=["train", "test"]),


rule models:
    input:
        [weights_of(model.id) for model in PLAN.models],


rule evaluations:
    input:
        EVALUATIONS,


rule tables:
    input:
        TABLES,
        TABLE_RECORDS,


rule figures:
    input:
        f"{RESULTS}/figures",
        f"{RESULTS}/draw_figures.json",
