"""Adversarial training: the batch that an attack makes of a clean one, on the network as it is at that moment.

Source: the released training code of DGBA (arXiv 2305.12066). Each iteration makes an optimizer step on the clean batch
and then one on the adversarial batch; the attack sees the network in evaluation mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from headstrong.attacks.run import check, perturb
from headstrong.data.batches import Batch
from headstrong.errors import ConfigError, DivergedError
from headstrong.jobs import AttackJob, TrainingJob
from headstrong.models import MultiTaskModel
from headstrong.seeds import derive_seed
from headstrong.training_losses import training_losses


def check_adversarial(job: TrainingJob) -> None:
    """Raise ConfigError, in one line, for an adversarial training whose attack cannot be."""
    if job.adversarial is not None:
        try:
            check(job.adversarial, job.tasks)
        except ConfigError as error:
            raise ConfigError(f"model {job.id}: adversarial training: {error}") from None


def adversarial_batch(
    job: TrainingJob, attack: AttackJob, model: MultiTaskModel, batch: Batch, class_weights: Tensor | None, epoch: int
) -> Batch:
    """The batch with images (B, 3, H, W), in [0, 1] and in the attack's ball, that the attack makes of its own.

    Targets and masks stay. An image without a label of any attacked task is not attacked; the batch has no label of it.
    The attack climbs the losses of the training (`loss_pixels`, class weights), without the tasks' loss weights: these
    belong to the training's objective, the balancer has its own. Random draws come from the job's seed, the epoch and
    the rows of the data, so every epoch draws anew and a resumed run draws the same. The model's mode and gradients are
    left as found. Raises ConfigError for an attack that cannot be, DivergedError where the gradient is not a number.
    """

    def losses(points: Tensor) -> Tensor:
        return training_losses(job, model, replace(batch, images=points), class_weights, attack.attacked)

    seed = derive_seed(job.seed, "adversarial", epoch)
    labelled = batch.labelled(attack.attacked)
    try:
        with _looked_at(model):
            images = perturb(losses, batch.images, attack, attack.attacked, batch.index, seed, labelled=labelled)
    except DivergedError as error:
        raise DivergedError(f"model {job.id}: epoch {epoch + 1}: {error}; lower its learning rate") from error
    return replace(batch, images=images).without(~labelled.any(dim=1))


@contextlib.contextmanager
def _looked_at(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, with parameters that no gradient is computed for; afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
