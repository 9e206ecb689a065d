# What the rules of hidden tasks need: the network attacked, its data, and the forgetful copies of its backbone.


def hidden_victim(family):
    """Weights of the network whose tasks are hidden in turn."""
    classifier = HIDDEN.classifier(family)
    if classifier is None:
        return weights_of(HIDDEN.model(family))
    return f"{RESULTS}/classifiers/{classifier}/weights.safetensors"


def hidden_data(family, split):
    if HIDDEN.classifier(family) is None:
        return f"{RESULTS}/data/{split}.h5"
    pictures, domain = HIDDEN.pictures(family)
    return f"{RESULTS}/pictures/{pictures}/{domain}/{split}.h5"


def family_of_forgetting(wildcards):
    return HIDDEN.family_of_forgetting(wildcards.forgetting)


def forgetting_victim(wildcards):
    return hidden_victim(family_of_forgetting(wildcards))


def forgetting_data(split):
    def find(wildcards):
        return hidden_data(family_of_forgetting(wildcards), split)

    return find


def forgetting_job(wildcards):
    job = HIDDEN.forgetting_job(wildcards.forgetting)
    return job_file("forget_task", wildcards.forgetting, job)


def turn_victim(wildcards):
    return hidden_victim(HIDDEN.turn(wildcards.turn).family)


def turn_data(wildcards):
    return hidden_data(HIDDEN.turn(wildcards.turn).family, "test")


def turn_copies(file):
    """One of the files that every forgetful copy of a turn has."""

    def find(wildcards):
        turn = HIDDEN.turn(wildcards.turn)
        ids = [
            HIDDEN.forgetting_id(turn, access)
            for access in HIDDEN.accesses(turn.family)
        ]
        return [f"{RESULTS}/forgetting/{one}/{file}" for one in ids]

    return find


def option_of_copies(wildcards, input):
    """`--copy` of every access."""
    accesses = HIDDEN.accesses(HIDDEN.turn(wildcards.turn).family)
    return " ".join(
        f"--copy {access}={copy}" for access, copy in zip(accesses, input.copies)
    )


def hidden_job(wildcards):
    job = HIDDEN.hidden_job(wildcards.turn)
    return job_file("evaluate_hidden", wildcards.turn, job)


def files_of_turns(wildcards, input):
    """File with `--evaluations` of all hidden tasks."""
    found = ["--evaluations", *input.evaluations]
    return JOB_FILES.arguments("collect_hidden", WHOLE_STUDY, found)
