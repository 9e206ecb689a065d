# One training job per run. Its rolling checkpoint lives in work/, outside the declared outputs, which Snakemake deletes
# before every attempt: a killed job goes on where it was.


rule train_model:
    input:
        data=training_data,
    output:
        weights=f"{RESULTS}/models/{{run}}/weights.safetensors",
        history=f"{RESULTS}/models/{{run}}/history.csv",
        record=f"{RESULTS}/models/{{run}}/run.json",
    log:
        f"{RESULTS}/logs/train_model/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_model/{{run}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(480),
        gpu=1,
    params:
        job=training_job,
        code=code_of_training,
        snapshots="",
        work=f"{WORK}/{{run}}",
    shell:
        "python scripts/train_model.py --job {params.job} --data {input.data} --weights {output.weights}"
        " --history {output.history} {params.snapshots} --work {params.work} --threads {threads}"
        " --code {params.code} > {log} 2>&1"


# The same for runs of which the plan also wants checkpoints (the models of the `early` sections).
use rule train_model as train_model_with_checkpoints with:
    output:
        weights=f"{RESULTS}/models/{{run}}/weights.safetensors",
        history=f"{RESULTS}/models/{{run}}/history.csv",
        record=f"{RESULTS}/models/{{run}}/run.json",
        snapshots=[
            f"{RESULTS}/models/{{run}}/epoch-{epoch}.safetensors"
            for epoch in PLAN.snapshot_epochs
        ],
    wildcard_constraints:
        run=one_of(PLAN.runs_with_snapshots),
    params:
        job=training_job,
        code=code_of_training,
        snapshots=[
            f"--snapshot {epoch}={RESULTS}/models/{{run}}/epoch-{epoch}.safetensors"
            for epoch in PLAN.snapshot_epochs
        ],
        work=f"{WORK}/{{run}}",


ruleorder: train_model_with_checkpoints > train_model
