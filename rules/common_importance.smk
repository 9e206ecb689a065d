# What the rules of losses that favour important classes need: their classes, pictures and classifiers.


def pictures_of_family(family, split):
    pictures, domain = IMPORTANCE.pictures(family)
    return f"{RESULTS}/pictures/{pictures}/{domain}/{split}.h5"


def choice_of_family(family):
    return f"{RESULTS}/choices/{family}.json"


def classifier_choice(wildcards):
    """The important classes, where the loss of a classifier favours some."""
    if wildcards.classifier not in IMPORTANCE:
        return []
    trial = IMPORTANCE[wildcards.classifier]
    return choice_of_family(trial.family) if trial.favours else []


def option_of_choice(wildcards, input):
    return f"--classes {input.classes}" if input.classes else ""


def ranking_pictures(wildcards):
    """The pictures by which the classes of a family are ranked."""
    split = IMPORTANCE.ranking(wildcards.favouring)
    if split not in IMPORTANCE.splits(wildcards.favouring):
        split = "test"  # nothing is ranked, but the names of the classes are checked
    return pictures_of_family(wildcards.favouring, split)


def ranking_weights(wildcards):
    """The classifiers by whose recall the classes of a family are ranked."""
    return [
        f"{RESULTS}/classifiers/{trial.id}/weights.safetensors"
        for trial in IMPORTANCE.baselines(wildcards.favouring)
    ]


def ranking_arguments(wildcards, input):
    """File with `--weights` of the classifiers by which classes are ranked."""
    found = ["--weights", *input.weights]
    return JOB_FILES.arguments("choose_classes", wildcards.favouring, found)


def choice_settings(wildcards):
    return JOB_FILES.settings(
        "choose_classes",
        wildcards.favouring,
        IMPORTANCE.choice_settings(wildcards.favouring),
    )


def trial_weights(wildcards):
    """The classifiers of all trials of a family."""
    return [
        f"{RESULTS}/classifiers/{trial.id}/weights.safetensors"
        for trial in IMPORTANCE.of_family(wildcards.favouring)
    ]


def evaluated_pictures(wildcards):
    return [
        pictures_of_family(wildcards.favouring, split)
        for split in IMPORTANCE.splits(wildcards.favouring)
    ]


def option_of_pictures(wildcards, input):
    splits = IMPORTANCE.splits(wildcards.favouring)
    return " ".join(
        f"--data {split}={path}" for split, path in zip(splits, input.pictures)
    )


def importance_job(wildcards):
    job = IMPORTANCE.family_job(wildcards.favouring)
    return job_file("evaluate_importance", wildcards.favouring, job)


def files_of_importance(wildcards, input):
    """File with `--evaluations` of all families."""
    found = ["--evaluations", *input.evaluations]
    return JOB_FILES.arguments("collect_importance", WHOLE_STUDY, found)
