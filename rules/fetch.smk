# Real data, as far as their terms allow: `snakemake --cores 1 fetch_cifar10`, and so on for every data set. Nothing
# asks for these; data lie outside results/, so a job has no output and looks each time whether all is there.

for _dataset in DATASETS:

    rule:
        name:
            f"fetch_{_dataset}"
        log:
            f"results/fetch/{_dataset}.log",
        # The command tries again by itself, where that can help; a job that failed would only fail again.
        retries: 0
        localrule: True
        conda:
            "../envs/fetch.yaml"
        params:
            dataset=_dataset,
        shell:
            "python -m headstrong fetch {params.dataset} 2>&1 | tee {log}"
