# Losses that favour important classes (CAMRI): which classes, and what every trial makes of them. The classifiers
# themselves are trained by train_classifier.


rule choose_classes:
    input:
        pictures=ranking_pictures,
        weights=ranking_weights,
    output:
        choice=f"{RESULTS}/choices/{{favouring}}.json",
        recall=f"{RESULTS}/choices/{{favouring}}.csv",
        record=f"{RESULTS}/choices/{{favouring}}.run.json",
    log:
        f"{RESULTS}/logs/choose_classes/{{favouring}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/choose_classes/{{favouring}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
        gpu=1,
    params:
        settings=choice_settings,
        weights=ranking_arguments,
        code=code_digest("headstrong.class_choice"),
    shell:
        "python scripts/choose_classes.py --settings {params.settings} --pictures {input.pictures}"
        " --arguments {params.weights} --threads {threads} --output {output.choice} --recall {output.recall} > {log} 2>&1"


rule evaluate_importance:
    input:
        classes=f"{RESULTS}/choices/{{favouring}}.json",
        pictures=evaluated_pictures,
        weights=trial_weights,
    output:
        evaluation=f"{RESULTS}/importance/{{favouring}}.h5",
        record=f"{RESULTS}/importance/{{favouring}}.json",
    log:
        f"{RESULTS}/logs/evaluate_importance/{{favouring}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_importance/{{favouring}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
        gpu=1,
    params:
        job=importance_job,
        pictures=option_of_pictures,
        weights=f"{RESULTS}/classifiers",
        code=code_digest("headstrong.importance"),
    shell:
        "python scripts/evaluate_importance.py --job {params.job} --classes {input.classes} {params.pictures}"
        " --weights {params.weights} --threads {threads} --code {params.code} --output {output.evaluation}"
        " > {log} 2>&1"


rule collect_importance:
    input:
        evaluations=expand(
            f"{RESULTS}/importance/{{favouring}}.h5", favouring=FAVOURING
        ),
    output:
        tables=report(
            expand(f"{RESULTS}/tables/{{table}}.csv", table=IMPORTANCE_TABLES),
            category="Tables",
            caption="../docs/table.rst",
        ),
        record=f"{RESULTS}/tables/collect_importance.json",
    log:
        f"{RESULTS}/logs/collect_importance.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_importance/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        files=files_of_importance,
        folder=folder_of_output,
        code=code_digest(*IMPORTANCE_TABLE_MODULES),
    shell:
        "python scripts/collect_importance.py --arguments {params.files} --output {params.folder} > {log} 2>&1"
