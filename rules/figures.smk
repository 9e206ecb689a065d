# Figures, from tables and nothing else.


DRAWN_TABLES = ["balanced", "transfer", "theory", "marginal", "switches", "curves"]
SPINE = {
    "vulnerability": f"{RESULTS}/tables/vulnerability.csv",
    "surrogates": f"{RESULTS}/tables/surrogates.csv",
    "plan": f"{RESULTS}/plan.csv",
}


rule draw_figures:
    input:
        spine=list(SPINE.values()) if PLAN.models else [],
        others=expand(
            f"{RESULTS}/tables/{{table}}.csv",
            table=[
                *(DRAWN_TABLES if PLAN.models else []),
                *(["generated", "mta_tables"] if FAMILIES else []),
                *(["importance_settings", "camri_table_1"] if FAVOURING else []),
                *(HIDDEN_TABLES if HIDDEN.turns else []),
            ],
        ),
        generated=expand(f"{RESULTS}/generated/{{family}}.h5", family=FAMILIES),
        importance=expand(f"{RESULTS}/importance/{{favouring}}.h5", favouring=FAVOURING),
    output:
        figures=report(
            directory(f"{RESULTS}/figures"),
            patterns=["{name}.png"],
            category="Figures",
            caption="../docs/figure.rst",
            labels={"figure": "{name}"},
        ),
        record=f"{RESULTS}/draw_figures.json",
    log:
        f"{RESULTS}/logs/draw_figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_figures/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        spine=(
            [f"--{name} {path}" for name, path in SPINE.items()] if PLAN.models else []
        ),
        files=drawn_evaluations,
        settings=settings_file(
            "draw_figures",
            {
                "attack": SHOWN_ATTACK,
                "chains": list(STUDY.chains),
                "look": STUDY.figures.model_dump(),
            },
        ),
        code=code_digest("headstrong.figures.gallery"),
    shell:
        "python scripts/draw_figures.py {params.spine} --tables {input.others} --arguments {params.files}"
        " --settings {params.settings} --output {output.figures} > {log} 2>&1"
