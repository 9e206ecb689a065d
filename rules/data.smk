# Images and labels: one HDF5 cache per split.


rule build_data:
    output:
        cache=f"{RESULTS}/data/{{split}}.h5",
        record=f"{RESULTS}/data/{{split}}.json",
    log:
        f"{RESULTS}/logs/build_data/{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/build_data/{{split}}.tsv"
    params:
        settings=data_settings,
        code=code_digest(*code_modules(STUDY.data.source)),
    threads: 16
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
    conda:
        "../envs/networks.yaml"
    shell:
        "python scripts/build_data.py --settings {params.settings:q} --output {output.cache}"
        " --processes {threads} --code {params.code} > {log} 2>&1"


rule measure_baselines:
    input:
        train=f"{RESULTS}/data/train.h5",
        test=f"{RESULTS}/data/test.h5",
    output:
        f"{RESULTS}/tables/baselines.csv",
    log:
        f"{RESULTS}/logs/measure_baselines.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_baselines/all.tsv"
    params:
        pixels=SWITCHES["error_pixels"],
        miou=SWITCHES["miou"],
        samples=STUDY.evaluation.samples or 0,
        code=code_digest("headstrong.analysis.baselines"),
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(30),
    conda:
        "../envs/tables.yaml"
    shell:
        "python scripts/measure_baselines.py --train {input.train} --test {input.test} --output {output}"
        " --pixels {params.pixels} --miou {params.miou} --samples {params.samples} > {log} 2>&1"
