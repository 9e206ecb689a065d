"""Perturbations from a generator's raw output, and the losses that generators are trained with.

Sources: Guo et al. (2020), "Multi-Task Adversarial Attack" (MTA), equations 2 to 5 and the scaling map of section 3.1;
Poursaeed et al. (2018), "Generative Adversarial Perturbations" (GAP), and its released code. Images live in [0, 1],
and radii are in the same units; both papers have pixels from 0 to 255, and radii of either norm 255 times as large.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headstrong.errors import ConfigError
from headstrong.losses import batch_means
from headstrong.seeds import derive_seed

NORMS = ("linf", "l2")
SCALINGS = ("whole", "channel")
FLOOR = 1e-8  # a loss can be 0 in float32, and its logarithm must be a number
TINY = 1e-12  # a raw perturbation of norm 0 stays 0
IMAGENET_MEAN = (0.485, 0.456, 0.406)


def scale(raw: Tensor, norm: str, epsilon: float, scaling: str = "whole") -> Tensor:
    """Perturbations (B, 3, H, W) in pixel units from raw ones in [-1, 1], inside the ball of radius epsilon.

    "whole": MTA's map, each multiplied by min(1, epsilon / norm). "channel", Linf only: GAP's released code in pixel
    space. It takes (raw + 1) / 2 for an image, normalises it with ImageNet's mean and deviation, and multiplies each
    channel by min(1, epsilon / (deviation * largest)), with no gradient through the largest; the deviation cancels.
    Raises ConfigError for another norm or scaling, and for "channel" in L2.
    """
    if norm not in NORMS:
        raise ConfigError(f"norm '{norm}' is unknown; choose {' or '.join(NORMS)}")
    if scaling == "channel":
        if norm != "linf":
            raise ConfigError(f"perturbation_scale channel: GAP's code has it for linf only, not {norm}; use whole")
        mean = torch.tensor(IMAGENET_MEAN, dtype=raw.dtype, device=raw.device).reshape(3, 1, 1)
        image = (raw + 1) / 2 - mean
        largest = image.detach().abs().amax(dim=(2, 3), keepdim=True)
        return image * (epsilon / largest.clamp(min=TINY)).clamp(max=1)
    if scaling != "whole":
        raise ConfigError(f"perturbation_scale '{scaling}' is unknown; choose {' or '.join(SCALINGS)}")
    flat = raw.flatten(1)
    length = flat.abs().amax(dim=1) if norm == "linf" else (flat * flat).sum(dim=1).clamp(min=TINY**2).sqrt()
    return raw * (epsilon / length.clamp(min=TINY)).clamp(max=1)[:, None, None, None]


def perturbed(images: Tensor, perturbation: Tensor) -> Tensor:
    """Images (B, 3, H, W) with perturbations (B or 1, 3, H, W) added, clamped to [0, 1].

    No channel moves further than its perturbation says, so the images are in its ball, of whichever norm. Adding rounds
    by up to 3e-8, which of a small radius is more than a millionth: such a sum goes back to the float before it. GAP's
    released code clamps to each channel's range within the batch instead; MTA's paper does not say.
    """
    moved = images + perturbation
    with torch.no_grad():
        beyond = (moved - images).abs() > perturbation.abs()
        back = torch.where(beyond, torch.nextafter(moved, images) - moved, 0)
    return (moved + back).clamp(0, 1)


def fooling_loss(losses: Tensor, goal: str, log_mean: str, labelled: Tensor | None = None) -> Tensor:
    """What a generator lowers for one task (a number), from the victim's losses H (B,) on its perturbed images.

    "untargeted": -log H, H to the truth (MTA, equation 2). "targeted": log H, H to the target (equation 4). log_mean:
    "outside", the mean over the batch of the logarithms, as the equations; "inside", the logarithm of the mean, as
    GAP's code. FLOOR is added to H: a clamp would leave an image that the victim is sure of without a gradient.
    labelled: bool (B,), the images that have the task, None for all; others count in no mean. Where none has it, the
    result is constant.
    """
    if labelled is None:
        labelled = torch.ones_like(losses, dtype=torch.bool)
    losses = torch.where(labelled, losses, 0)
    if log_mean == "outside":
        logs = batch_means((losses + FLOOR).log(), labelled)
    else:
        logs = (batch_means(losses, labelled) + FLOOR).log()
    return -logs if goal == "untargeted" else logs


class TaskWeights(nn.Module):
    """The weights of the tasks in the objective, equations 3 and 5.

    "uniform": 1/M. "learned": uncertainty weighting (Kendall et al. 2018), which MTA names as future work. It needs
    positive losses and so takes exp(l_t), that is 1/H or H: the mean over tasks of exp(l_t - s_t) + s_t, s_t learned.
    At its best s_t = l_t this is l_t + 1: the logarithm in MTA's losses is uncertainty weighting with its weights at
    their optimum, and the gradient of l_t then has weight 1/M as well.
    """

    def __init__(self, count: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.offsets = nn.Parameter(torch.zeros(count))

    def forward(self, losses: Tensor, known: Tensor | None = None) -> Tensor:
        """The objective, a number, from the fooling losses (M,).

        known: bool (M,), the tasks that an image of the batch has, None for all; the others add nothing.
        """
        terms = losses if self.kind == "uniform" else (losses - self.offsets).exp() + self.offsets
        return (terms if known is None else torch.where(known, terms, 0)).mean()

    def start_from(self, losses: Tensor) -> None:
        """Learned weights start where they would be best for these losses (M,), so that no exponential runs away."""
        if self.kind == "learned":
            with torch.no_grad():
                self.offsets.copy_(losses)

    def shares(self, losses: Tensor) -> Tensor:
        """Weights alpha (M,), of sum 1, that the tasks have at these losses."""
        if self.kind == "uniform":
            return torch.full_like(losses, 1 / len(losses))
        return (losses - self.offsets).softmax(dim=0)


def pattern(seed: int, task: str, size: tuple[int, int]) -> Tensor:
    """The fixed input (1, 3, H, W) of a universal generator: drawn once from U(0, 1), for each task its own."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "pattern", task))
    return torch.rand(1, 3, *size, generator=generator)
