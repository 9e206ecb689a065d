# Images and labels: one HDF5 cache per split.


rule build_data:
    input:
        data_there,
    output:
        cache=f"{RESULTS}/data/{{split}}.h5",
        record=f"{RESULTS}/data/{{split}}.json",
        manifest=f"{RESULTS}/data/{{split}}.manifest.json",
    log:
        f"{RESULTS}/logs/build_data/{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/build_data/{{split}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 16
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
    params:
        settings=data_settings,
        code=code_digest(*code_modules(STUDY.data.source)),
    shell:
        "python scripts/build_data.py --settings {params.settings} --output {output.cache}"
        " --processes {threads} --code {params.code} > {log} 2>&1"


# Pictures with labels, for classifiers: one HDF5 cache per domain and split.
rule build_pictures:
    input:
        pictures_there,
    output:
        cache=f"{RESULTS}/pictures/{{pictures}}/{{domain}}/{{split}}.h5",
        record=f"{RESULTS}/pictures/{{pictures}}/{{domain}}/{{split}}.json",
        manifest=f"{RESULTS}/pictures/{{pictures}}/{{domain}}/{{split}}.manifest.json",
    log:
        f"{RESULTS}/logs/build_pictures/{{pictures}}/{{domain}}/{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/build_pictures/{{pictures}}-{{domain}}-{{split}}.tsv"
    conda:
        "../envs/networks.yaml"
    threads: 16
    resources:
        mem_mb=memory_mb(4000),
        runtime=runtime_minutes(240),
    params:
        settings=picture_settings,
        code=code_of_pictures,
    shell:
        "python scripts/build_pictures.py --settings {params.settings} --output {output.cache}"
        " --processes {threads} --code {params.code} > {log} 2>&1"
