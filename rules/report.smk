# The page people look at, and the pictures in it.

PICTURED = expand(f"{RESULTS}/pictured/{{model}}.h5", model=PLAN.pictured)
# What the page is made of besides the programs in Python, which have a digest of their own.
PAGE_PARTS = sorted(
    path
    for path in Path(workflow.basedir, "src/headstrong/report").rglob("*")
    if path.suffix in [".html", ".css", ".js"]
)


rule picture_attacks:
    input:
        weights=model_weights,
        data=f"{RESULTS}/data/test.h5",
    output:
        pictures=f"{RESULTS}/pictured/{{model}}.h5",
        record=f"{RESULTS}/pictured/{{model}}.json",
    log:
        f"{RESULTS}/logs/picture_attacks/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/picture_attacks/{{model}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(30),
        gpu=1,
    params:
        job=picture_job,
        code=code_digest("headstrong.pictured"),
    shell:
        "python scripts/picture_attacks.py --job {params.job} --weights {input.weights} --data {input.data}"
        " --output {output.pictures} --threads {threads} --code {params.code} > {log} 2>&1"


rule make_report:
    input:
        plan=f"{RESULTS}/plan.csv" if PLAN.models else [],
        tables=TABLES,
        figures=f"{RESULTS}/figures",
        pictured=PICTURED,
        histories=expand(
            f"{RESULTS}/models/{{run}}/history.csv", run=[run.id for run in PLAN.runs]
        ),
    output:
        page=report(
            f"{RESULTS}/report.html",
            category="Report",
            caption="../docs/report.rst",
            labels={"page": "the whole study"},
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
        settings=settings_file(
            "make_report", {**STUDY.model_dump(), "protocol": SWITCHES}
        ),
        codes=settings_file(
            "make_report",
            {
                "collect_vulnerability": code_digest(
                    "headstrong.analysis.vulnerability"
                ),
                "collect_attacks": code_digest(*ATTACK_TABLE_MODULES),
                "make_tables": code_digest("headstrong.analysis.build"),
                "collect_generated": code_digest(*GENERATED_TABLE_MODULES),
                "collect_importance": code_digest(*IMPORTANCE_TABLE_MODULES),
                "collect_hidden": code_digest(*HIDDEN_TABLE_MODULES),
                "judge_claims": code_digest("headstrong.analysis.claims"),
                "draw_figures": code_digest("headstrong.figures.gallery"),
            },
            name="codes",
        ),
        code=code_digest("headstrong.report.page", "headstrong.analysis.audit"),
        parts={path.name: file_digest(path)[:16] for path in PAGE_PARTS},
    shell:
        "python scripts/make_report.py --results {params.folder} --settings {params.settings}"
        " --codes {params.codes} --output {output.page} > {log} 2>&1"
