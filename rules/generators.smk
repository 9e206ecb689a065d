# Generated perturbations: classifiers, generators against them or against dense models of the plan, their evaluation.


rule train_classifier:
    input:
        pictures=classifier_pictures,
        classes=classifier_choice,
    output:
        weights=f"{RESULTS}/classifiers/{{classifier}}/weights.safetensors",
        history=f"{RESULTS}/classifiers/{{classifier}}/history.csv",
        record=f"{RESULTS}/classifiers/{{classifier}}/run.json",
    log:
        f"{RESULTS}/logs/train_classifier/{{classifier}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_classifier/{{classifier}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
        gpu=1,
    params:
        job=classifier_job,
        classes=option_of_choice,
        code=code_digest("headstrong.classifier_training"),
        work=f"{WORK}/classifiers/{{classifier}}",
    shell:
        "python scripts/train_classifier.py --job {params.job} --data {input.pictures} {params.classes} --weights {output.weights}"
        " --history {output.history} --work {params.work} --threads {threads} --code {params.code} > {log} 2>&1"


rule train_generator:
    input:
        victims=victim_weights,
        data=caches_of_tasks("train"),
    output:
        weights=f"{RESULTS}/generators/{{generator}}/weights.safetensors",
        history=f"{RESULTS}/generators/{{generator}}/history.csv",
        record=f"{RESULTS}/generators/{{generator}}/run.json",
    log:
        f"{RESULTS}/logs/train_generator/{{generator}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_generator/{{generator}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(480),
        gpu=1,
    params:
        job=generator_job,
        tasks=training_arguments,
        code=code_digest("headstrong.generator_training"),
        work=f"{WORK}/generators/{{generator}}",
    shell:
        "python scripts/train_generator.py --job {params.job} --arguments {params.tasks} --weights {output.weights}"
        " --history {output.history} --work {params.work} --threads {threads} --code {params.code} > {log} 2>&1"


rule evaluate_generators:
    input:
        generators=generators_of_family,
        victims=all_victim_weights,
        test=caches_of_tasks("test"),
        train=dense_training_data,
    output:
        evaluation=f"{RESULTS}/generated/{{family}}.h5",
        record=f"{RESULTS}/generated/{{family}}.json",
        perturbations=directory(f"{RESULTS}/perturbations/{{family}}"),
    log:
        f"{RESULTS}/logs/evaluate_generators/{{family}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_generators/{{family}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
        gpu=1,
    params:
        job=family_job,
        tasks=evaluation_arguments,
        code=code_digest("headstrong.generated"),
    shell:
        "python scripts/evaluate_generators.py --job {params.job} --arguments {params.tasks} --output {output.evaluation}"
        " --perturbations {output.perturbations} --threads {threads} --code {params.code} > {log} 2>&1"


# Measures time: on two cores it has both, so that no other job disturbs it.
rule time_generators:
    output:
        costs=f"{RESULTS}/generated/{{family}}-cost.csv",
        record=f"{RESULTS}/generated/{{family}}-cost.json",
    log:
        f"{RESULTS}/logs/time_generators/{{family}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/time_generators/{{family}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 2
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
        gpu=1,
    params:
        jobs=timing_jobs,
        size=timing_size,
        code=code_digest("headstrong.generator_timing"),
    shell:
        "python scripts/time_generators.py --jobs {params.jobs} --size {params.size} --threads 1"
        " --output {output.costs} > {log} 2>&1"


rule collect_generated:
    input:
        evaluations=expand(f"{RESULTS}/generated/{{family}}.h5", family=FAMILIES),
        costs=expand(f"{RESULTS}/generated/{{family}}-cost.csv", family=FAMILIES),
    output:
        tables=report(
            expand(f"{RESULTS}/tables/{{table}}.csv", table=GENERATED_TABLES),
            category="Tables",
            caption="../docs/table.rst",
        ),
        record=f"{RESULTS}/tables/collect_generated.json",
    log:
        f"{RESULTS}/logs/collect_generated.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_generated/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        files=files_of_families,
        folder=folder_of_output,
        seed=STUDY.study.seed,
        bootstrap=STUDY.analysis.bootstrap,
        code=code_digest(*GENERATED_TABLE_MODULES),
    shell:
        "python scripts/collect_generated.py --arguments {params.files} --seed {params.seed}"
        " --bootstrap {params.bootstrap} --output {params.folder} > {log} 2>&1"
