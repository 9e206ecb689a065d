# headstrong: from data to figures and a report.
#
#   snakemake --cores 2                                      the default study (config.yaml)
#   snakemake --cores 2 --configfile studies/nyuv2.yaml      an overlay on it
#
# The plan and the input functions are in rules/common*.smk; one file per stage follows, and the files of the
# targets in rules/targets.smk.

from snakemake.utils import min_version

min_version("9.19")


include: "rules/config_file.smk"


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
include: "rules/targets.smk"


report: "docs/workflow.rst"


onstart:
    hold_study(WORK, RESULTS)
    JOB_FILES.tidy(PLANNED)
    keep_warm(workflow.local_exec)
    watch_jobs()


onerror:
    tell_why()


# Here, and not beside the other targets: Snakemake takes no default target from an included file.
rule all:
    default_target: True
    input:
        TABULATED,
        DRAWN,
        REPORTED,
