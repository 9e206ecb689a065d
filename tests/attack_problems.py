"""Attacks to start from, and losses whose attacks are known or are at least cheap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from headstrong.jobs import AttackJob

Losses = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int]


def make_attack(**changes: object) -> AttackJob:
    base = AttackJob(
        name="test",
        family="test",
        balancer="total",
        attacked="sd",
        stepper="pgd",
        norm="linf",
        epsilon=8 / 255,
        step_size=2 / 255,
        steps=10,
        start="clean",
        restarts=1,
    )
    return replace(base, **changes)


def ids(images: Tensor) -> Tensor:
    return torch.arange(len(images))


def random_images(count: int, shape: Shape = (3, 4, 4), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def linear_losses(shape: Shape, count: int, seed: int = 1, offset: float = 5.0) -> tuple[Losses, Tensor]:
    """T losses that are linear in the image: `losses(x)[b, t] = offset + <slopes[t], x[b]>`."""
    slopes = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))

    def losses(points: Tensor) -> Tensor:
        return offset + points.flatten(1) @ slopes.flatten(1).T

    return losses, slopes


def network_losses(tasks: int, seed: int, shape: Shape = (3, 4, 4), dtype: torch.dtype = torch.float32) -> Losses:
    """A small random convolutional network with `tasks` squared-error losses: not linear, not convex.

    In float64 its gradients hardly depend on the order of sums, so signs do not either.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(shape[0], 6, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(6, tasks, 3, padding=1)
        )
    network = network.to(dtype).requires_grad_(False)
    return lambda points: (network(points.to(dtype)) - 0.3).square().mean(dim=(2, 3))
