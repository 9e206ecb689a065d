# The files that a target asks for, stage by stage. A target asks for the files of every stage before it as well, although
# their rules would: Snakemake takes away the old outputs of a job that failed, and does not make a missing file again when
# what was made of it is still there. The next run would take what was made of the old ones for good.

DENSE_DATA = expand(f"{RESULTS}/data/{{split}}.h5", split=["train", "test"])
DENSE_WEIGHTS = unique(
    [
        *(f"{RESULTS}/models/{run.id}/weights.safetensors" for run in PLAN.runs),
        *(weights_of(model.id) for model in PLAN.models),
    ]
)
VICTIMS = unique(
    [
        *(
            victim.classifier
            for family in FAMILIES
            for victim in GENERATED.victims(family, transfer=True)
            if victim.classifier is not None
        ),
        *filter(None, (HIDDEN.classifier(turn.family) for turn in HIDDEN.turns)),
    ]
)
OTHER_WEIGHTS = [
    f"{RESULTS}/{folder}/{one}/weights.safetensors"
    for folder, ids in {
        "classifiers": [*VICTIMS, *(one.id for one in IMPORTANCE.trials)],
        "generators": [one.id for one in GENERATED.generators],
        "forgetting": [one.id for one in HIDDEN.forgettings],
    }.items()
    for one in ids
]
OTHER_DATA = unique(
    [
        *(
            f"{RESULTS}/pictures/{one.pictures}/{one.domain}/train.h5"
            for one in map(GENERATED.classifier, VICTIMS)
        ),
        *(
            cache_of_task(family, task, split)
            for family in FAMILIES
            for task in GENERATED.family_job(family).tasks
            for split in ["train", "test"]
        ),
        *(
            pictures_of_family(family, split)
            for family in FAVOURING
            for split in unique(["train", *IMPORTANCE.splits(family)])
        ),
        *(
            hidden_data(family, split)
            for family in unique(turn.family for turn in HIDDEN.turns)
            for split in ["train", "test"]
        ),
    ]
)
OTHER_EVALUATIONS = [
    *expand(f"{RESULTS}/generated/{{family}}.h5", family=FAMILIES),
    *expand(f"{RESULTS}/choices/{{favouring}}.json", favouring=FAVOURING),
    *expand(f"{RESULTS}/importance/{{favouring}}.h5", favouring=FAVOURING),
    *expand(f"{RESULTS}/hidden/{{turn}}.h5", turn=[turn.id for turn in HIDDEN.turns]),
]
MODELS = [*DENSE_DATA, *DENSE_WEIGHTS] if PLAN.models else []
EVALUATED = [*MODELS, *EVALUATIONS]
COSTS = expand(f"{RESULTS}/generated/{{family}}-cost.csv", family=FAMILIES)
PLAN_TABLE = [f"{RESULTS}/plan.csv"] if PLAN.models else []
TABULATED = unique(
    [
        f"{RESULTS}/{CONFIG_FILE}",
        *EVALUATED,
        *OTHER_DATA,
        *OTHER_WEIGHTS,
        *OTHER_EVALUATIONS,
        *COSTS,
        *PLAN_TABLE,
        *TABLES,
        *TABLE_RECORDS,
    ]
)
DRAWN = [f"{RESULTS}/figures", f"{RESULTS}/draw_figures.json"]
REPORTED = [*PICTURED, f"{RESULTS}/report.html", f"{RESULTS}/make_report.json"]

# Names of the jobs of the plan, by rule: the job files of others are removed.
PLANNED = {
    "build_data": ["train", "validation", "test"],
    "build_pictures": [
        f"{name}-{domain}-{split}"
        for name, chosen in STUDY.picture_sets.items()
        for domain in chosen.domains
        for split in ["train", "validation", "test"]
    ],
    "train_model": RUNS,
    "evaluate_model": [model.id for model in PLAN.models],
    "picture_attacks": PLAN.pictured,
    "train_classifier": [
        one.id for one in (*GENERATED.classifiers, *IMPORTANCE.trials)
    ],
    "train_generator": [one.id for one in GENERATED.generators],
    "evaluate_generators": FAMILIES,
    "time_generators": FAMILIES,
    "choose_classes": FAVOURING,
    "evaluate_importance": FAVOURING,
    "forget_task": [job.id for job in HIDDEN.forgettings],
    "evaluate_hidden": [turn.id for turn in HIDDEN.turns],
    "make_report": [WHOLE_STUDY, "codes"],
}


localrules:
    all,
    data,
    models,
    evaluations,
    tables,
    figures,


rule data:
    input:
        DENSE_DATA,


rule models:
    input:
        MODELS,


rule evaluations:
    input:
        EVALUATED,


rule tables:
    input:
        TABULATED,


rule figures:
    input:
        TABULATED,
        DRAWN,
