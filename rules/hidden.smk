# Attacks on hidden tasks (CF, CF-delta): a copy of the backbone forgets a task, then the task is attacked unseen.


rule forget_task:
    input:
        victim=forgetting_victim,
        train=forgetting_data("train"),
        test=forgetting_data("test"),
    output:
        weights=f"{RESULTS}/forgetting/{{forgetting}}/weights.safetensors",
        features=f"{RESULTS}/forgetting/{{forgetting}}/features.h5",
        history=f"{RESULTS}/forgetting/{{forgetting}}/history.csv",
        record=f"{RESULTS}/forgetting/{{forgetting}}/run.json",
    log:
        f"{RESULTS}/logs/forget_task/{{forgetting}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/forget_task/{{forgetting}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
        gpu=1,
    params:
        job=forgetting_job,
        code=code_digest("headstrong.forgetting"),
        work=f"{WORK}/forgetting/{{forgetting}}",
    shell:
        "python scripts/forget_task.py --job {params.job} --victim {input.victim} --train {input.train}"
        " --test {input.test} --weights {output.weights} --features {output.features} --history {output.history}"
        " --work {params.work} --threads {threads} --code {params.code} > {log} 2>&1"


rule evaluate_hidden:
    input:
        victim=turn_victim,
        test=turn_data,
        copies=turn_copies("weights.safetensors"),
        features=turn_copies("features.h5"),
    output:
        evaluation=f"{RESULTS}/hidden/{{turn}}.h5",
        record=f"{RESULTS}/hidden/{{turn}}.json",
    log:
        f"{RESULTS}/logs/evaluate_hidden/{{turn}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_hidden/{{turn}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
        gpu=1,
    params:
        job=hidden_job,
        copies=option_of_copies,
        code=code_digest("headstrong.hidden_evaluation"),
    shell:
        "python scripts/evaluate_hidden.py --job {params.job} --victim {input.victim} --test {input.test}"
        " {params.copies} --threads {threads} --code {params.code} --output {output.evaluation} > {log} 2>&1"


rule collect_hidden:
    input:
        evaluations=expand(
            f"{RESULTS}/hidden/{{turn}}.h5", turn=[turn.id for turn in HIDDEN.turns]
        ),
    output:
        tables=report(
            expand(f"{RESULTS}/tables/{{table}}.csv", table=HIDDEN_TABLES),
            category="Tables",
            caption="../docs/table.rst",
        ),
        record=f"{RESULTS}/tables/collect_hidden.json",
    log:
        f"{RESULTS}/logs/collect_hidden.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_hidden/all.tsv"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(60),
    params:
        files=files_of_turns,
        folder=folder_of_output,
        code=code_digest(*HIDDEN_TABLE_MODULES),
    shell:
        "python scripts/collect_hidden.py --arguments {params.files} --output {params.folder} > {log} 2>&1"
