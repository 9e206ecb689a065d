"""What one training job and one evaluation job need to know.

A job holds *only* what can change the numbers of its stage: it is what Snakemake compares to decide what runs again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingJob:
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
    optimizer: str  # "adam" | "sgd"
    learning_rate: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]  # epochs after which the learning rate is multiplied by `decay`
    decay: float
    precision: str  # "float32" | "bfloat16" | "auto"
    loss_pixels: str  # denominator of the masked mean: "all" | "valid"
    class_weights: str  # "uniform" | "prior"
    output_start: str  # "random": the published initialisation | "mean": the network starts as the constant predictor
    seed: int
    curvature: str = "decoded"  # targets of p: "decoded" | "grey", as the released loader reads them
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
    samples: int | None  # the first so many test images; None: all
    batch_size: int
    error_pixels: str  # "valid": masked pixels do not count in the error; "all": they do
    miou: str  # "labelled": unlabelled pixels do not count; "all": they are class 0, as released
    loss_pixels: str
    class_weights: str
    precision: str
    seed: int
    curvature: str = "decoded"
    baseline: str = "clean"  # what an attack's errors are compared with: the "clean" image | the attack's "start"
    gradients: bool = False  # also store the inner products of the tasks' gradients on clean images


def to_dict(job: TrainingJob | EvaluationJob) -> dict[str, Any]:
    """The job as plain lists and dictionaries, ready for JSON."""
    return asdict(job)


def training_job_from_dict(fields: dict[str, Any]) -> TrainingJob:
    """The inverse of `to_dict` for a training job."""
    lists = {key: tuple(fields[key]) for key in ("weights", "snapshots", "milestones")}
    attack = fields.get("adversarial")
    return TrainingJob(**{**fields, **lists, "adversarial": None if attack is None else AttackJob(**attack)})


def evaluation_job_from_dict(fields: dict[str, Any]) -> EvaluationJob:
    """The inverse of `to_dict` for an evaluation job."""
    return EvaluationJob(**{**fields, "attacks": tuple(AttackJob(**attack) for attack in fields["attacks"])})
