# What the rules of pictures, classifiers and generators need: their settings, victims and data.


def picture_settings(wildcards):
    return settings_json(
        GENERATED.picture_settings(
            wildcards.pictures, wildcards.domain, wildcards.split
        )
    )


def code_of_pictures(wildcards):
    source = STUDY.picture_sets[wildcards.pictures].source
    return code_digest(*picture_modules(source))


def classifier_pictures(wildcards):
    """The training pictures of a classifier."""
    if wildcards.classifier in IMPORTANCE:
        family = IMPORTANCE[wildcards.classifier].family
        return pictures_of_family(family, "train")
    spec = GENERATED.classifier(wildcards.classifier)
    return f"{RESULTS}/pictures/{spec.pictures}/{spec.domain}/train.h5"


def classifier_job(wildcards):
    plan = IMPORTANCE if wildcards.classifier in IMPORTANCE else GENERATED
    return settings_json(to_dict(plan.classifier_job(wildcards.classifier)))


def generator_job(wildcards):
    return settings_json(to_dict(GENERATED.generator_job(wildcards.generator)))


def family_job(wildcards):
    return settings_json(to_dict(GENERATED.family_job(wildcards.family)))


def family_of(wildcards):
    """The family of generators that a job is of."""
    if "family" in wildcards.keys():
        return wildcards.family
    return GENERATED.generator_job(wildcards.generator).family


def weights_of_victim(victim):
    if victim.model is not None:
        return weights_of(victim.model)
    return f"{RESULTS}/classifiers/{victim.classifier}/weights.safetensors"


def cache_of_task(family, task, split):
    """The images of one task: those of its domain, or the study's."""
    pictures = GENERATED.pictures_of(family)
    if pictures is None:
        return f"{RESULTS}/data/{split}.h5"
    return f"{RESULTS}/pictures/{pictures}/{task}/{split}.h5"


def victim_weights(wildcards):
    """Weights of what a family of generators is trained against."""
    victims = GENERATED.victims(family_of(wildcards))
    return unique(weights_of_victim(victim) for victim in victims)


def all_victim_weights(wildcards):
    """Those, and the weights of what its perturbations are tried on."""
    victims = GENERATED.victims(wildcards.family, transfer=True)
    return unique(weights_of_victim(victim) for victim in victims)


def caches_of_tasks(split):
    def find(wildcards):
        family = family_of(wildcards)
        victims = GENERATED.victims(family)
        return unique(cache_of_task(family, victim.task, split) for victim in victims)

    return find


def dense_training_data(wildcards):
    """What the constant predictor of a dense family is taken from."""
    if GENERATED.pictures_of(wildcards.family) is None:
        return f"{RESULTS}/data/train.h5"
    return []


def generators_of_family(wildcards):
    """Weights of all generators of a family."""
    job = GENERATED.family_job(wildcards.family)
    return [
        f"{RESULTS}/generators/{one.id}/weights.safetensors" for one in job.generators
    ]


def training_arguments(wildcards):
    """`--victim` and `--data` of every task of a generator."""
    family = family_of(wildcards)
    return " ".join(
        f"--victim {victim.task}={weights_of_victim(victim)}"
        f" --data {victim.task}={cache_of_task(family, victim.task, 'train')}"
        for victim in GENERATED.victims(family)
    )


def evaluation_arguments(wildcards):
    """`--generator`, `--victim`, `--data` and `--train` of a family."""
    family = wildcards.family
    job = GENERATED.family_job(family)
    found = [
        f"--generator {one.id}={RESULTS}/generators/{one.id}/weights.safetensors"
        for one in job.generators
    ]
    found += [
        f"--victim {victim.name}/{victim.task}={weights_of_victim(victim)}"
        for victim in GENERATED.victims(family, transfer=True)
    ]
    for task in job.tasks:
        found.append(f"--data {task}={cache_of_task(family, task, 'test')}")
        if job.kind == "dense":
            found.append(f"--train {task}={cache_of_task(family, task, 'train')}")
    return " ".join(found)


def timing_jobs(wildcards):
    job = GENERATED.family_job(wildcards.family)
    return settings_json([to_dict(one) for one in job.generators])


def timing_size(wildcards):
    """Height and width of a family's images."""
    pictures = GENERATED.pictures_of(wildcards.family)
    chosen = STUDY.data if pictures is None else STUDY.picture_sets[pictures]
    return " ".join(map(str, chosen.size))


def unique(paths):
    """Each path once, in order."""
    return list(dict.fromkeys(paths))
