# What the rules of pictures, classifiers and generators need: their settings, victims and data.


def picture_settings(wildcards):
    key = (wildcards.pictures, wildcards.domain, wildcards.split)
    return JOB_FILES.settings(
        "build_pictures", "-".join(key), GENERATED.picture_settings(*key)
    )


def pictures_there(wildcards):
    """No input: the pictures and their lists must be there, also for a dry run, unless the cache is."""
    if workflow.is_main_process:
        name, domain, split = wildcards.pictures, wildcards.domain, wildcards.split
        check_data(
            f"{RESULTS}/pictures/{name}/{domain}/{split}.h5",
            GENERATED.picture_settings(name, domain, split),
            STUDY.labels_told(name),
        )
    return []


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
    job = plan.classifier_job(wildcards.classifier)
    return job_file("train_classifier", wildcards.classifier, job)


def generator_job(wildcards):
    job = GENERATED.generator_job(wildcards.generator)
    return job_file("train_generator", wildcards.generator, job)


def family_job(wildcards):
    job = GENERATED.family_job(wildcards.family)
    return job_file("evaluate_generators", wildcards.family, job)


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
    """File with `--victim` and `--data` of every task of a generator."""
    family = family_of(wildcards)
    found = []
    for victim in GENERATED.victims(family):
        cache = cache_of_task(family, victim.task, "train")
        found += ["--victim", f"{victim.task}={weights_of_victim(victim)}"]
        found += ["--data", f"{victim.task}={cache}"]
    return JOB_FILES.arguments("train_generator", wildcards.generator, found)


def evaluation_arguments(wildcards):
    """File with `--generator`, `--victim`, `--data` and `--train` of a family."""
    family = wildcards.family
    job = GENERATED.family_job(family)
    found = []
    for one in job.generators:
        weights = f"{RESULTS}/generators/{one.id}/weights.safetensors"
        found += ["--generator", f"{one.id}={weights}"]
    for victim in GENERATED.victims(family, transfer=True):
        weights = weights_of_victim(victim)
        found += ["--victim", f"{victim.name}/{victim.task}={weights}"]
    for task in job.tasks:
        found += ["--data", f"{task}={cache_of_task(family, task, 'test')}"]
        if job.kind == "dense":
            found += ["--train", f"{task}={cache_of_task(family, task, 'train')}"]
    return JOB_FILES.arguments("evaluate_generators", family, found)


def files_of_families(wildcards, input):
    """File with `--evaluations` and `--cost` of all families."""
    found = ["--evaluations", *input.evaluations, "--cost", *input.costs]
    return JOB_FILES.arguments("collect_generated", WHOLE_STUDY, found)


def timing_jobs(wildcards):
    job = GENERATED.family_job(wildcards.family)
    jobs = [to_dict(one) for one in job.generators]
    return JOB_FILES.settings("time_generators", wildcards.family, jobs)


def timing_size(wildcards):
    """Height and width of a family's images."""
    pictures = GENERATED.pictures_of(wildcards.family)
    chosen = STUDY.data if pictures is None else STUDY.picture_sets[pictures]
    return " ".join(map(str, chosen.size))


def unique(paths):
    """Each path once, in order."""
    return list(dict.fromkeys(paths))
