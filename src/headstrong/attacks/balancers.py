"""How the losses of several tasks become one direction: a weight per image and task, constant within a step.

An attack follows the gradient of `sum_t w_t L_t`, so one backward pass serves any number of tasks. The losses a
balancer sees are those of the attacked tasks only, float32 (B, T), detached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Balancer:
    """One way to weigh tasks.

    `weights(now, clean, step)` gives (B, T) from the losses at the present point and at the clean image and the number
    of the step, from 0. `objective(now, clean)` gives (B,), the value by which two points of one image are compared
    (restarts); it does not depend on the step.
    """

    weights: Callable[[Tensor, Tensor, int], Tensor]
    objective: Callable[[Tensor, Tensor], Tensor]
    one_task: bool = False


def _ones(now: Tensor, clean: Tensor, step: int) -> Tensor:
    return torch.ones_like(now)


def _sum(now: Tensor, clean: Tensor) -> Tensor:
    return now.sum(dim=1)


BALANCERS = {
    "single": Balancer(_ones, _sum, one_task=True),
    "total": Balancer(_ones, _sum),
}
