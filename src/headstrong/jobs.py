"""What each kind of job needs to know.

A job holds *only* what can change the numbers of its stage: it is what Snakemake compares to decide what runs again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the optimiser of any training moves, and when its learning rate falls.

    A step is one batch. Each milestone that is passed, and each whole `decay_every`, multiplies the rate by `decay`.
    """

    optimizer: str = "adam"  # "adam" | "sgd"
    learning_rate: float
    momentum: float = 0.0  # sgd
    betas: tuple[float, float] = (0.9, 0.999)  # adam
    weight_decay: float = 0.0  # L2 penalty
    milestones: tuple[int, ...] = ()  # epochs
    step_milestones: tuple[int, ...] = ()  # steps
    decay_every: int | None = None  # steps
    decay: float


@dataclass(frozen=True)
class TrainingJob(Schedule):
    """Everything that can change the weights of one model, beside the data and the code."""

    id: str
    encoder: str
    width: float  # factor on every channel count; 1 is the published network
    tasks: str  # letters, in the order of the model's outputs
    weights: tuple[float, ...]  # loss weight per task
    epochs: int
    snapshots: tuple[int, ...]  # epochs after which the weights are kept as well
    batch_size: int
    shuffle: bool
    precision: str  # "float32" | "bfloat16" | "auto"
    loss_pixels: str  # denominator of the masked mean: "all" | "valid"
    class_weights: str  # "uniform" | "prior" | "published"
    output_start: str  # "random": the published initialisation | "mean": the network starts as the constant predictor
    seed: int
    curvature: str = "decoded"  # targets of p: "decoded" | "grey", as the released loader reads them
    depth: str = "encoded"  # targets of d and D: "encoded" | "metres"
    normals: str = "l1"  # loss of n: "l1" | "cosine"
    layout: int | None = None  # how a branched network shares its blocks; None: one shared encoder
    adversarial: AttackJob | None = None  # made anew in every step, on the network as it is then; None: clean training
    clean_steps: bool = True  # adversarial training: a step on the clean batch before the one on the adversarial batch


@dataclass(frozen=True)
class AttackJob:
    """One attack on one model: a balancer over the attacked tasks, a stepper and a threat."""

    name: str  # unique within the model, e.g. "pgd.single.s.linf.8.25"
    family: str  # the key in config.yaml
    balancer: str  # a key of `attacks.balancers.BALANCERS`
    attacked: str  # letters of the attacked tasks
    stepper: str  # a key of `attacks.run.STEPPERS`
    norm: str  # "linf" | "l2"
    epsilon: float  # radius in pixel units, images in [0, 1]
    step_size: float
    steps: int
    start: str  # "clean" | "uniform" | "corner"
    restarts: int
    l2_step: str = "direction"  # L2: "direction", steps of `step_size` | "released", the released whole-batch step
    pixels: int | None = None  # ilp_sparse: at most so many pixels change
    time_limit: float | None = None  # ilp_*: seconds for the program of one image


@dataclass(frozen=True)
class EvaluationJob:
    """Everything that can change the evaluation of one model, beside its weights, the data and the code."""

    id: str
    tasks: str
    attacks: tuple[AttackJob, ...]
    samples: int | None  # number of test images; None: all
    batch_size: int
    error_pixels: str  # "valid": masked pixels do not count in the error; "all": they do
    miou: str  # "labelled": unlabelled pixels do not count; "all": they are class 0, as released
    loss_pixels: str
    class_weights: str
    precision: str
    seed: int
    curvature: str = "decoded"
    depth: str = "encoded"
    normals: str = "l1"
    baseline: str = "clean"  # what an attack's errors are compared with: the "clean" image | the attack's "start"
    gradients: bool = False  # also store the inner products of the tasks' gradients on clean images


@dataclass(frozen=True)
class ClassLossJob:
    """The loss that a classifier of one label is trained with, where it is not the cross entropy."""

    name: str  # "wce" | "crwwce" | "softmax" | "arcface" | "camri"
    margin: float | None = None  # arcface, camri: added to the angle, in sixty-fourths of pi
    scale: float | None = None  # softmax, arcface, camri: factor on the cosines
    weight: float | None = None  # wce: of the important classes; crwwce: cost of taking one of them for another class
    important: str | None = None  # wce, crwwce, camri: which classes, a key of the family's choice of classes
    large_angles: str = "monotone"  # beyond pi: "monotone" | "unhandled"


@dataclass(frozen=True)
class ClassifierJob(Schedule):
    """Everything that can change the weights of one classifier, beside its pictures and the code."""

    id: str
    backbone: str
    width: float
    labels: tuple[str, ...]  # one head each
    pretrained: str | None  # file of weights to start from, in weights/ beside the real data
    epochs: int
    batch_size: int
    augment: bool  # random flips and shifts
    precision: str
    seed: int
    stem: str = "published"  # of a ResNet: "published" | "unpooled"
    feature: int | None = None  # length of the feature that a layer of its own makes; None: the backbone's
    loss: ClassLossJob | None = None  # None: cross entropy


@dataclass(frozen=True)
class ImportanceJob:
    """Everything that can change the evaluation of one family of important classes, beside weights, data and code."""

    family: str  # the key in config.yaml
    label: str
    important: tuple[tuple[str, tuple[str, ...]], ...]  # (key, names of its classes; none: by rank)
    ranking: str  # split by which classes are ranked: "validation" | "test"
    trials: tuple[str, ...]  # ids of the classifiers, whose files say how they were trained; the last part is a number
    tolerance: float  # points of accuracy that a setting may lose and still keep it
    batch_size: int


@dataclass(frozen=True)
class GeneratorJob(Schedule):
    """Everything that can change the weights of one set of generators, beside victims, data and code.

    A task is what one perturbation attacks: a domain's classifier, or one output of a dense model, named by its letter.
    """

    id: str
    family: str  # the key in config.yaml
    kind: str  # "classes" | "dense"
    method: str  # "gap": a generator per task | "mta": one encoder for all, a decoder per task
    mode: str  # "universal" | "instance"
    goal: str  # "untargeted" | "targeted"
    norm: str
    epsilon: float  # radius in pixel units, images in [0, 1]
    tasks: tuple[str, ...]
    label: str  # classes: the label attacked; dense: ""
    targets: tuple[str, ...]  # targeted: a class per task
    filters: int
    blocks: int
    normalization: str  # "batch" | "instance"
    activation: str  # "relu" | "selu"
    dropout: float
    scaling: str  # "whole": by the norm of a perturbation | "channel": by that of each channel
    log_mean: str  # mean over a batch "outside" | "inside" the logarithm
    untargeted_loss: str  # "truth" | "least_likely"
    weights: str  # of the tasks: "uniform" | "learned"
    epochs: int
    batch_size: int  # per task
    precision: str
    samples: int | None  # number of training images; None: all
    shared_input: bool  # all tasks see the same images
    seed: int


@dataclass(frozen=True)
class GeneratedJob:
    """Everything that can change the evaluation of one family of generators, beside weights, data and code."""

    family: str
    kind: str
    tasks: tuple[str, ...]
    label: str
    victims: str  # name of the victims trained against
    transfer: tuple[str, ...]  # names of other victims that the perturbations are tried on
    generators: tuple[GeneratorJob, ...]
    samples: int | None
    batch_size: int
    examples: int  # pictures kept for the figures
    error_pixels: str
    miou: str
    seed: int


Tasks = tuple[tuple[str, tuple[str, ...]], ...]  # (name, labels or letters) of each task


@dataclass(frozen=True)
class ForgettingJob(Schedule):
    """Everything that can change a copy of a backbone that forgets a task, beside the network, data and the code."""

    id: str
    kind: str  # "classes" | "dense"
    hidden: str  # the task, whose labels and head the job does not know
    visible: Tasks
    access: str  # "heads": the real visible heads | "backbone": heads of one's own
    layers: int | None  # so many of the backbone's last parts learn; None: all
    train_heads: bool  # the copy's heads learn too
    probe_epochs: int  # access "backbone": for the own heads, on the backbone as it is
    probe_rate: float
    epochs: int
    curve: tuple[int, ...]  # epochs after which the copy is measured; the last is the last
    batch_size: int
    precision: str
    samples: int | None  # number of training images; None: all
    seed: int


@dataclass(frozen=True)
class HiddenAttackJob:
    """One attack by someone who does not see a task."""

    objective: str  # "cf" | "cf_delta" | "disruption" | "dgba" | "total" | "single" | "oracle" | "noise"
    access: str  # "heads" | "backbone"; "": needs neither heads nor a forgetful copy
    stealth: float  # weight of the term that keeps visible predictions
    attacked: tuple[str, ...]  # dgba, total, single, oracle: the tasks whose losses are raised
    method: AttackJob  # its `attacked` is ""
    distance: str = "squared"  # of features: "squared" | "cosine"
    delta: str = "product"  # cf_delta: "product" | "target"
    reach: float = 1.0  # cf_delta "target": times the direction of forgetting
    direction: str = "image"  # of forgetting: each "image"'s own | the "mean" over the attacker's


@dataclass(frozen=True)
class HiddenJob:
    """Everything that can change the evaluation of one hidden task, beside weights, forgetful copies, data and code."""

    family: str  # the key in config.yaml
    kind: str
    hidden: str
    tasks: Tasks  # all of them
    accesses: tuple[str, ...]
    attacks: tuple[HiddenAttackJob, ...]
    samples: int | None  # number of test images; None: all
    batch_size: int
    error_pixels: str
    miou: str
    seed: int


Job = (
    TrainingJob
    | EvaluationJob
    | ClassifierJob
    | GeneratorJob
    | GeneratedJob
    | ImportanceJob
    | ForgettingJob
    | HiddenJob
)


def to_dict(job: Job) -> dict[str, Any]:
    """The job as plain lists and dictionaries, ready for JSON."""
    return asdict(job)


def training_job_from_dict(fields: dict[str, Any]) -> TrainingJob:
    """The inverse of `to_dict` for a training job."""
    attack = fields.get("adversarial")
    lists = _tuples(fields, "weights", "snapshots")
    return TrainingJob(**{**fields, **lists, "adversarial": None if attack is None else AttackJob(**attack)})


def evaluation_job_from_dict(fields: dict[str, Any]) -> EvaluationJob:
    """The inverse of `to_dict` for an evaluation job."""
    return EvaluationJob(**{**fields, "attacks": tuple(AttackJob(**attack) for attack in fields["attacks"])})


def classifier_job_from_dict(fields: dict[str, Any]) -> ClassifierJob:
    """The inverse of `to_dict` for the training of a classifier."""
    lists = _tuples(fields, "labels")
    loss = fields.get("loss")
    return ClassifierJob(**{**fields, **lists, "loss": None if loss is None else ClassLossJob(**loss)})


def importance_job_from_dict(fields: dict[str, Any]) -> ImportanceJob:
    """The inverse of `to_dict` for the evaluation of a family of important classes."""
    important = tuple((key, tuple(names)) for key, names in fields["important"])
    return ImportanceJob(**{**fields, "important": important, "trials": tuple(fields["trials"])})


def generator_job_from_dict(fields: dict[str, Any]) -> GeneratorJob:
    """The inverse of `to_dict` for the training of generators."""
    return GeneratorJob(**{**fields, **_tuples(fields, "tasks", "targets")})


def generated_job_from_dict(fields: dict[str, Any]) -> GeneratedJob:
    """The inverse of `to_dict` for the evaluation of a family of generators."""
    lists = {key: tuple(fields[key]) for key in ("tasks", "transfer")}
    generators = tuple(generator_job_from_dict(job) for job in fields["generators"])
    return GeneratedJob(**{**fields, **lists, "generators": generators})


def forgetting_job_from_dict(fields: dict[str, Any]) -> ForgettingJob:
    """The inverse of `to_dict` for a job that forgets a task."""
    lists = _tuples(fields, "curve")
    return ForgettingJob(**{**fields, **lists, "visible": _tasks(fields["visible"])})


def hidden_job_from_dict(fields: dict[str, Any]) -> HiddenJob:
    """The inverse of `to_dict` for the evaluation of a hidden task."""
    attacks = tuple(
        HiddenAttackJob(**{**attack, "attacked": tuple(attack["attacked"]), "method": AttackJob(**attack["method"])})
        for attack in fields["attacks"]
    )
    accesses = tuple(fields["accesses"])
    return HiddenJob(**{**fields, "tasks": _tasks(fields["tasks"]), "accesses": accesses, "attacks": attacks})


def _tuples(fields: dict[str, Any], *names: str) -> dict[str, tuple[Any, ...]]:
    """The lists of these names, and those of a schedule, as tuples."""
    of_schedule = [name for name in ("betas", "milestones", "step_milestones") if name in fields]
    return {name: tuple(fields[name]) for name in (*names, *of_schedule)}


def _tasks(listed: list[Any]) -> Tasks:
    return tuple((name, tuple(outputs)) for name, outputs in listed)
