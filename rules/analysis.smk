# From per-sample numbers to tables.

SHAPED_TABLES = [
    "cells",
    "pairs",
    "table_1",
    "table_2",
    "combinations",
    "surrogates",
    "table_3",
    "switches",
]
ATTACK_TABLES = [
    "balanced",
    "transfer",
    "theory",
    "marginal",
    "curves",
    "flags",
    "programs",
]
ATTACK_TABLE_MODULES = [
    f"headstrong.analysis.{name}"
    for name in ["balanced", "transfer", "theory", "marginal", "curves", "checks"]
]
# Of studies that have generators.
GENERATED_TABLES = ["generated", "generator_cost", "mta_tables"]
GENERATED_TABLE_MODULES = [
    f"headstrong.analysis.{name}" for name in ["generated", "mta_tables"]
]
# Of studies that have losses for important classes.
IMPORTANCE_TABLES = ["importance", "importance_settings", "camri_table_1"]
IMPORTANCE_TABLE_MODULES = [
    f"headstrong.analysis.{name}"
    for name in ["importance", "importance_settings", "camri_table"]
]
# Of studies that hide tasks.
HIDDEN_TABLES = ["hidden", "hidden_summary", "forgetting"]
HIDDEN_TABLE_MODULES = [f"headstrong.analysis.{name}" for name in HIDDEN_TABLES[:2]]
SPINE_TABLES = ["baselines", "vulnerability", *SHAPED_TABLES, *ATTACK_TABLES]
MEASURED = expand(
    f"{RESULTS}/tables/{{table}}.csv",
    table=[
        *(SPINE_TABLES if PLAN.models else []),
        *(GENERATED_TABLES if FAMILIES else []),
        *(IMPORTANCE_TABLES if FAVOURING else []),
        *(HIDDEN_TABLES if HIDDEN.turns else []),
    ],
)
# Verdicts on the papers' claims, from all other tables.
CLAIMS = [f"{RESULTS}/tables/claims.csv"] if MEASURED else []
TABLES = [*MEASURED, *CLAIMS]
# Run records of rules that had none once. They are asked for by name: Snakemake does not look for changes of a job one of
# whose outputs it has never made, and results of before would stay whatever is changed.
_TABLE_RULES = [
    *(
        [
            "measure_baselines",
            "collect_vulnerability",
            "collect_attacks",
            "make_tables",
        ]
        if PLAN.models
        else []
    ),
    *(["collect_generated"] if FAMILIES else []),
    *(["collect_importance"] if FAVOURING else []),
    *(["collect_hidden"] if HIDDEN.turns else []),
    *(["judge_claims"] if CLAIMS else []),
]
TABLE_RECORDS = [
    *expand(f"{RESULTS}/tables/{{rule}}.json", rule=_TABLE_RULES),
    *expand(f"{RESULTS}/choices/{{favouring}}.run.json", favouring=FAVOURING),
    *expand(f"{RESULTS}/generated/{{family}}-cost.json", family=FAMILIES),
    *([f"{RESULTS}/write_plan.json"] if PLAN.models else []),
]
SHOWN_ATTACK = {
    key: getattr(STUDY.analysis, key) for key in ("family", "norm", "epsilon", "steps")
}


# For people, and for run records, which carry its digest. Nothing is made from it.
rule write_config:
    output:
        config=f"{RESULTS}/{CONFIG_FILE}",
        record=f"{RESULTS}/write_config.json",
    log:
        f"{RESULTS}/logs/write_config.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        settings=whole_config,
    shell:
        "python scripts/write_config.py --settings {params.settings} --output {output.config} > {log} 2>&1"


rule write_plan:
    output:
        plan=f"{RESULTS}/plan.csv",
        record=f"{RESULTS}/write_plan.json",
    log:
        f"{RESULTS}/logs/write_plan.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        settings=settings_file("write_plan", plan_settings(STUDY)),
        code=code_digest("headstrong.study"),
    shell:
        "python scripts/write_plan.py --settings {params.settings} --output {output.plan} > {log} 2>&1"


rule measure_baselines:
    input:
        train=f"{RESULTS}/data/train.h5",
        test=f"{RESULTS}/data/test.h5",
    output:
        table=f"{RESULTS}/tables/baselines.csv",
        record=f"{RESULTS}/tables/measure_baselines.json",
    log:
        f"{RESULTS}/logs/measure_baselines.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_baselines/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        tasks=STUDY.tasks,
        pixels=SWITCHES["error_pixels"],
        curvature=SWITCHES["curvature"],
        depth=SWITCHES["depth"],
        samples=STUDY.evaluation.samples or 0,
        code=code_digest("headstrong.analysis.baselines"),
    shell:
        "python scripts/measure_baselines.py --train {input.train} --test {input.test} --tasks {params.tasks}"
        " --pixels {params.pixels} --curvature {params.curvature} --depth {params.depth}"
        " --samples {params.samples} --output {output.table} > {log} 2>&1"


rule collect_vulnerability:
    input:
        plan=f"{RESULTS}/plan.csv",
        evaluations=EVALUATIONS,
    output:
        table=f"{RESULTS}/tables/vulnerability.csv",
        record=f"{RESULTS}/tables/collect_vulnerability.json",
    log:
        f"{RESULTS}/logs/collect_vulnerability.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_vulnerability/all.tsv"
    conda:
        "../envs/tables.yaml"
    threads: 8
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        folder=folder_of_evaluations,
        aggregation=SWITCHES["aggregation"],
        adversarial_vulnerability=SWITCHES["adversarial_vulnerability"],
        seed=STUDY.study.seed,
        code=code_digest("headstrong.analysis.vulnerability"),
    shell:
        "python scripts/collect_vulnerability.py --plan {input.plan} --evaluations {params.folder}"
        " --aggregation {params.aggregation} --adversarial-vulnerability {params.adversarial_vulnerability}"
        " --seed {params.seed} --processes {threads} --output {output.table} > {log} 2>&1"


rule collect_attacks:
    input:
        plan=f"{RESULTS}/plan.csv",
        evaluations=EVALUATIONS,
    output:
        tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=ATTACK_TABLES),
        record=f"{RESULTS}/tables/collect_attacks.json",
    log:
        f"{RESULTS}/logs/collect_attacks.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_attacks/all.tsv"
    conda:
        "../envs/tables.yaml"
    threads: 8
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        folder=folder_of_evaluations,
        output=folder_of_output,
        seed=STUDY.study.seed,
        bootstrap=STUDY.analysis.bootstrap,
        code=code_digest(*ATTACK_TABLE_MODULES),
    shell:
        "python scripts/collect_attacks.py --plan {input.plan} --evaluations {params.folder} --seed {params.seed}"
        " --bootstrap {params.bootstrap} --processes {threads} --output {params.output} > {log} 2>&1"


rule make_tables:
    input:
        vulnerability=f"{RESULTS}/tables/vulnerability.csv",
        plan=f"{RESULTS}/plan.csv",
    output:
        tables=report(
            expand(f"{RESULTS}/tables/{{table}}.csv", table=SHAPED_TABLES),
            category="Tables",
            caption="../docs/table.rst",
        ),
        record=f"{RESULTS}/tables/make_tables.json",
    log:
        f"{RESULTS}/logs/make_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_tables/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        settings=settings_file(
            "make_tables",
            {
                **SHOWN_ATTACK,
                "bootstrap": STUDY.analysis.bootstrap,
                "seed": STUDY.study.seed,
            },
        ),
        folder=folder_of_output,
        code=code_digest("headstrong.analysis.build"),
    shell:
        "python scripts/make_tables.py --vulnerability {input.vulnerability} --plan {input.plan}"
        " --settings {params.settings} --output {params.folder} > {log} 2>&1"


rule judge_claims:
    input:
        tables=MEASURED,
        plan=f"{RESULTS}/plan.csv" if PLAN.models else [],
        evaluations=EVALUATIONS,
    output:
        table=f"{RESULTS}/tables/claims.csv",
        record=f"{RESULTS}/tables/judge_claims.json",
    log:
        f"{RESULTS}/logs/judge_claims.log",
    benchmark:
        f"{RESULTS}/benchmarks/judge_claims/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(30),
    params:
        models=(
            f"--plan {RESULTS}/plan.csv --evaluations {RESULTS}/evaluations"
            if PLAN.models
            else ""
        ),
        settings=settings_file(
            "judge_claims",
            {
                "bootstrap": STUDY.analysis.bootstrap,
                "seed": STUDY.study.seed,
                "protocol": in_words(STUDY),
            },
        ),
        code=code_digest("headstrong.analysis.claims"),
    shell:
        "python scripts/judge_claims.py --tables {input.tables} {params.models} --settings {params.settings}"
        " --output {output.table} > {log} 2>&1"
