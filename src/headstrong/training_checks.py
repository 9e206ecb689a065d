"""What is checked before, during and after a training: a job that can be, losses and weights that are numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from headstrong.adversarial import check_adversarial
from headstrong.data.curvature import CURVATURES
from headstrong.data.depth import DEPTHS
from headstrong.errors import ConfigError, DivergedError
from headstrong.jobs import TrainingJob
from headstrong.losses import NORMALS
from headstrong.models import MultiTaskModel


def check_job(job: TrainingJob, snapshots: Iterable[int]) -> None:
    """ConfigError, in one line, for a job that cannot be; `snapshots`: the epochs after which weights are kept."""
    expected = {
        "optimizer": ("adam", "sgd"),
        "precision": ("auto", "float32", "bfloat16"),
        "loss_pixels": ("all", "valid"),
        "class_weights": ("uniform", "prior", "published"),
        "curvature": CURVATURES,
        "depth": DEPTHS,
        "normals": NORMALS,
    }
    for key, choices in expected.items():
        if getattr(job, key) not in choices:
            raise ConfigError(f"model {job.id}: {key} '{getattr(job, key)}' is unknown; choose {' or '.join(choices)}")
    if len(job.weights) != len(job.tasks):
        raise ConfigError(f"model {job.id}: {len(job.weights)} loss weights for tasks '{job.tasks}'; give one per task")
    if job.batch_size < 1:
        raise ConfigError(f"model {job.id}: batch_size {job.batch_size}; expected at least 1")
    if not all(1 <= epoch <= job.epochs for epoch in snapshots):
        raise ConfigError(
            f"model {job.id}: snapshots after {sorted(snapshots)} epochs; it trains for {job.epochs} only"
        )
    check_adversarial(job)
    if job.adversarial is None and not job.clean_steps:
        raise ConfigError(f"model {job.id}: clean_steps is off and it has no attack to train on; set one of them")


def check_batch_norm(job: TrainingJob, model: MultiTaskModel, size: tuple[int, int], count: int) -> None:
    """ConfigError where the encoder's last maps hold one number per channel and batch.

    size: (H, W) of the images; count: how many there are to train on.
    """
    height, width = (side // model.stride for side in size)
    if min(job.batch_size, count) * height * width == 1:
        raise ConfigError(
            f"model {job.id}: one image of {size[0]}x{size[1]} per batch leaves batch norm nothing to "
            f"average; raise batch_size, or use larger images"
        )


def check_weights(job: TrainingJob, model: MultiTaskModel, epoch: int) -> None:
    """DivergedError that names the part of the model whose weights are not finite after so many epochs."""
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            part = name.split(".")
            whose = f"task {part[1]}" if part[0] == "decoders" else f"all tasks ({job.tasks})"
            raise DivergedError(
                f"model {job.id}: weights of {whose} are not finite after the last step of epoch {epoch}; "
                f"lower its learning rate ({job.learning_rate:g})"
            )
