# The page people look at.


rule make_report:
    input:
        plan=f"{RESULTS}/plan.csv" if PLAN.models else [],
        tables=TABLES,
        figures=f"{RESULTS}/figures",
    output:
        page=report(
            f"{RESULTS}/report.html", category="Report", caption="../docs/report.rst"
        ),
        record=f"{RESULTS}/make_report.json",
    log:
        f"{RESULTS}/logs/make_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_report/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(30),
    params:
        folder=folder_of_output,
        settings=settings_json({**STUDY.model_dump(), "protocol": SWITCHES}),
        codes=settings_json(
            {
                "collect_vulnerability": code_digest(
                    "headstrong.analysis.vulnerability"
                ),
                "collect_attacks": code_digest(*ATTACK_TABLE_MODULES),
                "make_tables": code_digest("headstrong.analysis.build"),
                "collect_generated": code_digest(*GENERATED_TABLE_MODULES),
                "collect_importance": code_digest(*IMPORTANCE_TABLE_MODULES),
                "collect_hidden": code_digest(*HIDDEN_TABLE_MODULES),
                "draw_figures": code_digest("headstrong.figures.gallery"),
            }
        ),
        code=code_digest("headstrong.report.page"),
    shell:
        "python scripts/make_report.py --results {params.folder} --settings {params.settings:q}"
        " --codes {params.codes:q} --output {output.page} > {log} 2>&1"
