# Figures, from tables and nothing else.


DRAWN_TABLES = ["balanced", "transfer", "theory", "marginal", "switches", "curves"]


rule draw_figures:
    input:
        vulnerability=f"{RESULTS}/tables/vulnerability.csv",
        surrogates=f"{RESULTS}/tables/surrogates.csv",
        plan=f"{RESULTS}/plan.csv",
        others=expand(f"{RESULTS}/tables/{{table}}.csv", table=DRAWN_TABLES),
    output:
        report(
            directory(f"{RESULTS}/figures"),
            patterns=["{name}.png"],
            category="Figures",
            caption="../docs/figure.rst",
            labels={"figure": "{name}"},
        ),
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
        attack=settings_json(SHOWN_ATTACK),
        chains=STUDY.chains,
        look=settings_json(STUDY.figures.model_dump()),
        code=code_digest("headstrong.figures.gallery"),
    shell:
        "python scripts/draw_figures.py --vulnerability {input.vulnerability} --plan {input.plan}"
        " --surrogates {input.surrogates} --tables {input.others} --attack {params.attack:q} --chains {params.chains}"
        " --look {params.look:q} --output {output} > {log} 2>&1"
