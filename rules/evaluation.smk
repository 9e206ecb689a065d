# One evaluation job per model: the model is loaded once for all its attacks.


rule evaluate_model:
    input:
        weights=model_weights,
        data=f"{RESULTS}/data/test.h5",
    output:
        evaluation=f"{RESULTS}/evaluations/{{model}}.h5",
        record=f"{RESULTS}/evaluations/{{model}}.json",
    log:
        f"{RESULTS}/logs/evaluate_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_model/{{model}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
        gpu=1,
    params:
        job=evaluation_job,
        code=code_digest("headstrong.evaluation"),
    shell:
        "python scripts/evaluate_model.py --job {params.job} --weights {input.weights} --data {input.data}"
        " --output {output.evaluation} --threads {threads} --code {params.code} > {log} 2>&1"
