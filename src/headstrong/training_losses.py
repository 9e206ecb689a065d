"""The losses of one batch as a training job takes them, clean or attacked."""

from __future__ import annotations

from torch import Tensor

from headstrong.data.batches import Batch
from headstrong.jobs import TrainingJob
from headstrong.losses import Pixels, per_sample_losses
from headstrong.models import MultiTaskModel
from headstrong.runtime import autocast


def training_losses(
    job: TrainingJob, model: MultiTaskModel, batch: Batch, class_weights: Tensor | None, tasks: str | None = None
) -> Tensor:
    """Losses float32 (B, T) of a batch as a job's training takes them, differentiable; `tasks`: of these only.

    NaN where a task is absent from an image, see `losses.per_sample_losses`.
    """
    wanted = job.tasks if tasks is None else tasks
    with autocast(job.precision, batch.images.device):
        outputs = model(batch.images, wanted)
    pixels: Pixels = "all" if job.loss_pixels == "all" else "valid"
    return per_sample_losses(outputs, batch, wanted, pixels=pixels, class_weights=class_weights, normals=job.normals)
