"""The plan: which models are trained, and what one training job and one evaluation job need to know.

Everything here is plain Python, so that the Snakefile can read it at every job. The two job types hold *only* what can
change the numbers of their stage: they are what Snakemake compares to decide what runs again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headstrong.provenance import derive_seed
from headstrong.tasks import file_safe, in_order

if TYPE_CHECKING:
    from headstrong.config import AttackConfig, Config, SectionConfig

COLUMNS = ("id", "section", "encoder", "main", "auxiliary", "weights", "epochs", "seed")


@dataclass(frozen=True)
class ModelSpec:
    """One row of the plan.

    `weights` are the loss weights of main and auxiliary tasks, in the order of `tasks`; `run` is the id of the training
    run whose checkpoint at `epochs` this model is (its own id, unless the section stops early).
    """

    id: str
    section: str
    encoder: str
    main: str
    auxiliary: str
    weights: tuple[float, ...]
    epochs: int
    seed: int
    run: str
    reference: bool

    @property
    def tasks(self) -> str:
        """Letters of all tasks, the main task first."""
        return self.main + self.auxiliary

    @property
    def early(self) -> bool:
        """True when the model is a checkpoint of a longer run."""
        return self.run != self.id


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
    seed: int


@dataclass(frozen=True)
class AttackJob:
    """One attack on one model: a balancer over the attacked tasks, a stepper and a threat."""

    name: str  # unique within the model, e.g. "pgd.single.s.linf.8.25"
    family: str  # the key in config.yaml
    balancer: str  # "single" | "total"
    attacked: str  # letters of the attacked tasks
    stepper: str  # "fgsm" | "ifgsm" | "pgd" | "noise"
    norm: str  # "linf" | "l2"
    epsilon: float  # radius in pixel units, images in [0, 1]
    step_size: float
    steps: int
    start: str  # "clean" | "uniform" | "corner"
    restarts: int


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


def to_dict(job: TrainingJob | EvaluationJob) -> dict[str, Any]:
    """The job as plain lists and dictionaries, ready for JSON."""
    return asdict(job)


def training_job_from_dict(fields: dict[str, Any]) -> TrainingJob:
    """The inverse of `to_dict` for a training job."""
    lists = {key: tuple(fields[key]) for key in ("weights", "snapshots", "milestones")}
    return TrainingJob(**{**fields, **lists})


def evaluation_job_from_dict(fields: dict[str, Any]) -> EvaluationJob:
    """The inverse of `to_dict` for an evaluation job."""
    return EvaluationJob(**{**fields, "attacks": tuple(AttackJob(**attack) for attack in fields["attacks"])})
