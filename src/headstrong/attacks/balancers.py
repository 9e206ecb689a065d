"""How the losses of several tasks become one direction: a weight per image and task, constant within a step.

An attack follows the gradient of `sum_t w_t L_t`, so one backward pass serves any number of tasks. Only `sign_sum`,
and the programs of `program_steppers` whatever the balancer, need the tasks' gradients apart, and pay one backward pass
for each. Losses are those of the attacked tasks only.

Weights and objectives divide by losses. No divisor is smaller than `FLOOR`, so none gives infinity or NaN. What follows
from it: a task whose loss is below FLOOR counts as if its loss were FLOOR. Its weight stays finite, but is far above
any other task's as soon as it has a gradient again, and its relative change is measured in units of FLOOR.

Sources: Ghamizi et al. (AAAI 2022), Definition 5, and their released code (wgd); Zhang et al. (arXiv 2305.12066) and
their released code (dgba, sign_sum, the objective).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 1e-8  # of losses; a trained network's are above 1e-4


@dataclass(frozen=True)
class Seen:
    """What a balancer sees at one step: losses (B, T) >= 0, detached, and the number of the step, from 0."""

    now: Tensor  # at the present point
    clean: Tensor | None  # at the clean image; None for a balancer that is not `from_clean`
    first: Tensor  # where the attack started, at step 0
    step: int
    labelled: Tensor | None = None  # bool (B, T): the tasks that an image has; the others' losses are 0. None: all


@dataclass(frozen=True)
class Balancer:
    """One way to weigh tasks.

    `weights(seen)` gives float64 (B, T), none negative; what it gives a task that an image lacks does not count, see
    `of_labelled`. `objective(now, clean)` gives float64 (B,), the value by which
    two points of one image are compared (restarts, APGD's best point); it does not depend on the step. `apart` tells
    `Problem.slope` to add up the directions of the tasks' gradients, each of norm 1, instead of the gradients; the
    weights do not count then. `from_clean`: the weights take the clean losses into account. `one_task`: it attacks one
    task at a time.
    """

    weights: Callable[[Seen], Tensor]
    objective: Callable[[Tensor, Tensor], Tensor]
    one_task: bool = False
    apart: bool = False
    from_clean: bool = False

    def of_labelled(self, seen: Seen) -> Tensor:
        """The weights float64 (B, T), 0 for tasks that an image lacks."""
        weights = self.weights(seen)
        return weights if seen.labelled is None else torch.where(seen.labelled, weights, 0)

    def relative_weights(self, seen: Seen) -> Tensor:
        """The weights (B, T) divided by the largest of each image, in the losses' type.

        No image's direction depends on the scale of its weights. This scale has three merits. One task alone has the
        weight 1, so a weighing balancer of one task is `single` to the bit. Equal weights are `total` to the bit. A
        weight of 1 / FLOOR cannot overflow a gradient. An image that lacks all tasks has weights of 0.
        """
        weights = self.of_labelled(seen)
        largest = weights.amax(dim=1, keepdim=True)
        return (weights / torch.where(largest == 0, 1, largest)).to(seen.now.dtype)


def relative_change(now: Tensor, clean: Tensor) -> Tensor:
    """Mean over tasks of (L_t - L_t(clean)) / L_t(clean), float64 (B,), of losses (B, T); Zhang et al. maximise it."""
    return ((now.double() - clean.double()) / _floored(clean)).mean(dim=1)


def _sum(now: Tensor, clean: Tensor) -> Tensor:
    return now.double().sum(dim=1)


def _ones(seen: Seen) -> Tensor:
    return torch.ones_like(seen.now, dtype=torch.float64)


def _wgd_published(seen: Seen) -> Tensor:
    """r_t = (L_t / L_t(0)) / mean_j (L_j / L_j(0)) per image; L(0) is the clean loss (Ghamizi et al., Definition 5)."""
    assert seen.clean is not None  # from_clean
    ratio = _floored(seen.now) / _floored(seen.clean)
    if seen.labelled is None:
        return ratio / ratio.mean(dim=1, keepdim=True)
    count = seen.labelled.sum(dim=1, keepdim=True).clamp(min=1)
    return ratio / (torch.where(seen.labelled, ratio, 0).sum(dim=1, keepdim=True) / count)


def _wgd_released(seen: Seen) -> Tensor:
    """Step 0 unweighted, then 1 / L_t at the start.

    The released code takes the batch mean of that loss. Here each image has its own, so that no image's attack depends
    on the others of its batch.
    """
    return _ones(seen) if seen.step == 0 else 1 / _floored(seen.first)


def _wgd_cyclic(seen: Seen) -> Tensor:
    """At step k only task k mod T of the T that an image has, divided by its loss at the start as in the released code.

    The division scales the whole gradient, so it changes no direction. It counts in the released L2 step only.
    """
    labelled = torch.ones_like(seen.now, dtype=torch.bool) if seen.labelled is None else seen.labelled
    place = labelled.cumsum(dim=1) - 1  # of each task among those of its image
    turn = seen.step % labelled.sum(dim=1, keepdim=True).clamp(min=1)
    only = (labelled & (place == turn)).to(torch.float64)
    return only / _floored(seen.first)


def _dgba(seen: Seen) -> Tensor:
    """1 / L_t at the present point: the gradient of `sum_t log L_t` (Zhang et al.; their code, too, per image)."""
    return 1 / _floored(seen.now)


def _floored(losses: Tensor) -> Tensor:
    return losses.double().clamp(min=FLOOR)  # keeps NaN


BALANCERS = {
    "single": Balancer(_ones, _sum, one_task=True),
    "total": Balancer(_ones, _sum),
    "sign_sum": Balancer(_ones, _sum, apart=True),
    "wgd_published": Balancer(_wgd_published, relative_change, from_clean=True),
    "wgd_released": Balancer(_wgd_released, relative_change),
    "wgd_cyclic": Balancer(_wgd_cyclic, relative_change),
    "dgba": Balancer(_dgba, relative_change),
}
