"""How an image moves: from a start, along the gradient, never out of the ball.

A stepper is a function `(problem, start, attack) -> points`; points and start are float32 (B, C, H, W) inside the ball.
It treats each image by itself: nothing one image does depends on the others of its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headstrong.attacks.balancers import Balancer
from headstrong.attacks.threat import Ball
from headstrong.jobs import AttackJob


@dataclass(frozen=True)
class Problem:
    """What an attack on one batch maximises, and where it may look.

    `losses` maps images (B, C, H, W) to the attacked tasks' losses (B, T), differentiably.
    """

    losses: Callable[[Tensor], Tensor]
    balancer: Balancer
    ball: Ball
    clean: Tensor
    clean_losses: Tensor

    def slope(self, points: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Gradient (B, C, H, W) of the weighted loss at these points, and the objective (B,) there."""
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            now = self.losses(points)
            weights = self.balancer.weights(now.detach(), self.clean_losses, step)
            (gradient,) = torch.autograd.grad((weights * now).sum(), points)
        return gradient, self.balancer.objective(now.detach(), self.clean_losses)

    def objective(self, points: Tensor) -> Tensor:
        """The objective (B,) at these points; larger is a stronger attack."""
        with torch.no_grad():
            return self.balancer.objective(self.losses(points), self.clean_losses)

    def project(self, points: Tensor) -> Tensor:
        """The nearest points of the ball and of [0, 1]."""
        return self.ball.project(points, self.clean)


Stepper = Callable[[Problem, Tensor, AttackJob], Tensor]


def fgsm(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """One step as long as epsilon (Goodfellow et al. 2015); `steps` and `step_size` of the attack do not count."""
    return _ascend(problem, start, steps=1, step_size=problem.ball.epsilon)


def pgd(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """Projected steps of a fixed size; the last point is the result, as published (Madry et al. 2018).

    Started at the clean image it is the iterated FGSM (Kurakin et al. 2017).
    """
    return _ascend(problem, start, steps=attack.steps, step_size=attack.step_size)


def noise(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """The start itself, drawn at the ball's surface: what a perturbation of this size does without any gradient."""
    return start


def _ascend(problem: Problem, start: Tensor, steps: int, step_size: float) -> Tensor:
    points = start
    for step in range(steps):
        gradient, _ = problem.slope(points, step)
        points = problem.project(points + step_size * problem.ball.direction(gradient))
    return points


STEPPERS: dict[str, Stepper] = {"fgsm": fgsm, "ifgsm": pgd, "pgd": pgd, "noise": noise}
