"""How an image moves: from a start, along the gradient, never out of the ball.

A stepper is a function `(problem, start, attack) -> points`; points and start are float32 (B, C, H, W) inside the ball.
NaN gradients propagate to the points; `run.climb` reports them.
It treats each image by itself: nothing one image does depends on the others of its batch. The released L2 step is the
one exception, by its definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstrong.attacks.balancers import Balancer, Seen
from headstrong.attacks.threat import Ball
from headstrong.jobs import AttackJob

if TYPE_CHECKING:
    from headstrong.attacks.ilp import Solution

MIM_DECAY = 1.0  # mu of Dong et al. 2018
APGD_FIRST_STEP = 2.0  # times epsilon; this and the next three: Croce & Hein 2020
APGD_MOMENTUM = 0.75  # share of the new step in a move; the rest repeats the last move
APGD_RHO = 0.75  # share of a period's steps that must raise the objective
APGD_FIRST_PERIOD, APGD_SHORTER, APGD_SHORTEST = 22, 3, 6  # percent of the steps


@dataclass
class Notes:
    """What an attack on one batch leaves beside its images. The caller makes an empty one, `perturb` fills it.

    `curve`: per gradient evaluation of the first restart, the attacked tasks' losses summed over the batch's images
    that have the task, float64 (T,) on the CPU. Empty for noise.
    `start`: where the first restart started, (B, C, H, W); for noise the clean images, which it is added to.
    `programs`: per image its id and the solution of its program; ilp_* only.
    """

    curve: list[Tensor] = field(default_factory=list)
    start: Tensor | None = None
    programs: list[tuple[int, Solution]] = field(default_factory=list)


@dataclass(frozen=True)
class Slope:
    """At some points of a problem: gradient (B, C, H, W) to follow, losses (B, T), objective float64 (B,)."""

    gradient: Tensor
    losses: Tensor
    problem: Problem

    @cached_property
    def objective(self) -> Tensor:
        """Float64 (B,). Taken when asked for: steps of a fixed size never ask."""
        return self.problem.balancer.objective(self.losses, self.problem.clean_losses)


@dataclass(frozen=True)
class Problem:
    """What an attack on one batch maximises, and where it may look.

    `losses` maps images (B, C, H, W) to the attacked tasks' losses (B, T), differentiably. `sample_ids`: a number
    per image. `known_clean_losses` (B, T): those of the clean images, where the caller has them. `labelled` bool
    (B, T): the tasks that an image has, None for all; the losses of those it lacks are 0.
    """

    losses: Callable[[Tensor], Tensor]
    balancer: Balancer
    ball: Ball
    clean: Tensor
    known_clean_losses: Tensor | None = None
    sample_ids: tuple[int, ...] = ()
    notes: Notes | None = None
    labelled: Tensor | None = None

    def of_labelled(self, labelled: Tensor) -> Problem:
        """The same problem where images lack tasks, labelled bool (B, T): their losses are 0, without a gradient."""

        def losses(points: Tensor) -> Tensor:
            return torch.where(labelled, self.losses(points), 0)

        known = self.known_clean_losses
        known = None if known is None else torch.where(labelled, known, 0)
        return replace(self, losses=losses, known_clean_losses=known, labelled=labelled)

    @cached_property
    def clean_losses(self) -> Tensor:
        """Losses (B, T) of the clean images: those known, else a forward pass the first time something asks."""
        if self.known_clean_losses is not None:
            return self.known_clean_losses
        with torch.no_grad():
            return self.losses(self.clean)

    def slope(self, points: Tensor, step: int = 0, first: Tensor | None = None, *, scaled: bool = True) -> Slope:
        """Gradient of the weighted loss, losses and objective at these points.

        `first` are the losses (B, T) where the attack started; None: these points are the start. `scaled` weights have
        the largest of each image at 1; only a step that depends on a gradient's length needs the others.
        One backward pass; T of them for a balancer that needs the gradients apart.
        """
        if self.balancer.apart:
            gradients, now = self.gradients(points)
            gradient = torch.stack([self.ball.direction(one) for one in gradients]).sum(dim=0)
            return Slope(gradient, now, self)
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.losses(points)
            now = losses.detach()
            clean = self.clean_losses if self.balancer.from_clean else None
            seen = Seen(now, clean, now if first is None else first, step, self.labelled)
            weights = self.balancer.relative_weights(seen) if scaled else self._weights_of_means(seen).to(now.dtype)
            (gradient,) = torch.autograd.grad((weights * losses).sum(), points)
        return Slope(gradient, now, self)

    def _weights_of_means(self, seen: Seen) -> Tensor:
        """The weights float64 (B, T) times B / n_t, n_t the images that have task t.

        So the weighted losses, summed over the batch and divided by B, are means over the images that have a task.
        """
        weights = self.balancer.of_labelled(seen)
        if self.labelled is None:
            return weights
        return weights * (len(weights) / self.labelled.sum(dim=0).clamp(min=1))

    def gradients(self, points: Tensor) -> tuple[list[Tensor], Tensor]:
        """Each attacked task's own gradient (B, C, H, W) at these points, and the losses (B, T).

        One forward pass and T backward passes.
        """
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.losses(points)
            sums = losses.sum(dim=0)
            last = len(sums) - 1
            gradients = [torch.autograd.grad(sums[t], points, retain_graph=t < last)[0] for t in range(len(sums))]
        return gradients, losses.detach()

    def objective(self, points: Tensor) -> Tensor:
        """The objective float64 (B,) at these points; larger is a stronger attack."""
        with torch.no_grad():
            return self.balancer.objective(self.losses(points), self.clean_losses)

    def project(self, points: Tensor) -> Tensor:
        """The nearest points (B, C, H, W) of the ball and of [0, 1]."""
        return self.ball.project(points, self.clean)


class Climb:
    """One run of one stepper: counts its gradient evaluations, remembers the losses at its start, fills the notes."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.step = 0
        self.first: Tensor | None = None

    def slope(self, points: Tensor, *, scaled: bool = True) -> Slope:
        """`Problem.slope` at the next point of this run; the first call is made at its start."""
        slope = self.problem.slope(points, self.step, self.first, scaled=scaled)
        if self.first is None:
            self.first = slope.losses
        if self.problem.notes is not None:
            self.problem.notes.curve.append(slope.losses.double().sum(dim=0))
        self.step += 1
        return slope


Stepper = Callable[[Problem, Tensor, AttackJob], Tensor]


def fgsm(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """One step as long as epsilon (Goodfellow et al. 2015); `steps` and `step_size` of the attack do not count."""
    return _ascend(problem, start, steps=1, step_size=problem.ball.epsilon)


def pgd(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """Projected steps of a fixed size; the last point is the result, as published (Madry et al. 2018).

    Started at the clean image it is the iterated FGSM (Kurakin et al. 2017). With `l2_step` "released" the steps are
    `_released_l2_ascend`'s.
    """
    if attack.l2_step == "released":
        return _released_l2_ascend(problem, start, attack.steps)
    return _ascend(problem, start, steps=attack.steps, step_size=attack.step_size)


def mim(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """Steps along a decaying sum of the gradients so far, each divided by its L1 norm (Dong et al. 2018).

    Under `sign_sum` the sum of the tasks' directions stands in for the gradient, also with one task.
    """
    climb = Climb(problem)
    points, momentum = start, torch.zeros_like(start)
    for _ in range(attack.steps):
        momentum = MIM_DECAY * momentum + _divided_by_l1(climb.slope(points).gradient)
        points = problem.project(points + attack.step_size * problem.ball.direction(momentum))
    return points


def noise(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """The start itself, drawn at the ball's surface: what a perturbation of this size does without any gradient."""
    return start


def apgd(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """Auto-PGD (Croce & Hein 2020, Algorithm 1): steps with momentum, whose size each image halves by itself.

    The result is the best point met, by the balancer's objective, so it is never worse than the start. `step_size` of
    the attack does not count. `steps` gradient evaluations, and one forward pass for the last point.

    At a checkpoint an image halves its step and goes back to its best point if fewer than RHO of the steps since the
    last one raised the objective, or if neither its step nor its best value has changed since then. A step's rise is
    measured from the point it left, also after going back. The best point's gradient is kept, not taken again; under
    `wgd_cyclic` it is therefore of the task whose turn it was there.

    An image whose gradient or objective was ever NaN or infinite comes back as NaN.
    """
    climb = Climb(problem)
    checkpoints = apgd_checkpoints(attack.steps)
    step_size = torch.full_like(start[:, :1, :1, :1], APGD_FIRST_STEP * problem.ball.epsilon)
    points = previous = start
    here = climb.slope(start)
    best, best_gradient, best_value = start, here.gradient, here.objective
    gradient, value, broken = here.gradient, here.objective, _not_finite(here)
    checked_value, rises = value, torch.zeros_like(value)
    halved = torch.zeros_like(broken)
    last_check = 0
    for step in range(1, attack.steps + 1):
        moved = problem.project(points + step_size * problem.ball.direction(gradient))
        if step > 1:
            momentum = (1 - APGD_MOMENTUM) * (points - previous)
            moved = problem.project(points + APGD_MOMENTUM * (moved - points) + momentum)
        previous, points, left_value = points, moved, value
        if step == attack.steps:
            break
        here = climb.slope(points)
        gradient, value, broken = here.gradient, here.objective, broken | _not_finite(here)
        better = value > best_value
        best, best_gradient, best_value = _where(better, (points, gradient, value), (best, best_gradient, best_value))
        rises += value > left_value
        if step in checkpoints:
            stuck = ~halved & (best_value == checked_value)
            halved = (rises < APGD_RHO * (step - last_check)) | stuck
            step_size = torch.where(_per_image(halved), step_size / 2, step_size)
            points, gradient, value = _where(halved, (best, best_gradient, best_value), (points, gradient, value))
            checked_value, rises, last_check = best_value, torch.zeros_like(rises), step
    last_value = problem.objective(points)
    best = torch.where(_per_image(last_value > best_value), points, best)
    return torch.where(_per_image(broken | ~last_value.isfinite()), torch.nan, best)


def apgd_checkpoints(steps: int) -> list[int]:
    """Numbers of the steps after which APGD looks at its progress: ceil(p_j steps), without 0 and duplicates.

    p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06) up to 1 (Croce & Hein 2020), in whole percents, as
    float sums would round some of them up by one step.
    """
    checkpoints, percent, period = set(), APGD_FIRST_PERIOD, APGD_FIRST_PERIOD
    while percent <= 100:
        checkpoints.add(-(-percent * steps // 100))
        period = max(period - APGD_SHORTER, APGD_SHORTEST)
        percent += period
    return sorted(checkpoints)


def _ascend(problem: Problem, start: Tensor, steps: int, step_size: float) -> Tensor:
    climb = Climb(problem)
    points = start
    for _ in range(steps):
        gradient = climb.slope(points).gradient
        points = problem.project(points + step_size * problem.ball.direction(gradient))
    return points


def _released_l2_ascend(problem: Problem, start: Tensor, steps: int) -> Tensor:
    """The L2 steps of the code released with Ghamizi et al. (2022). By its definition it depends on the batch.

    There a network sees u = 2x - 1 and the radius is E = 2 epsilon. A step is u + E dL/du, with the gradient of the
    batch-mean loss as it is: no division by its length, and no step size. As dL/du = (dL/dx) / 2, in pixel units it is
    x + (epsilon / 2) dL/dx. Then the perturbation of the whole batch, taken as one vector, is scaled to the length E,
    which is epsilon in pixel units. So one image of B gets about epsilon / sqrt(B).

    Unlike the released code, this clips to [0, 1].
    """
    climb = Climb(problem)
    points, epsilon = start, problem.ball.epsilon
    for _ in range(steps):
        gradient = climb.slope(points, scaled=False).gradient.double() / len(points)
        change = points.double() + epsilon / 2 * gradient - problem.clean.double()  # float32 would round it away
        length = change.norm()
        change = epsilon / torch.where(length == 0, 1, length) * change
        points = (problem.clean + change).clamp(0, 1).to(start.dtype)
    return points


def _divided_by_l1(gradient: Tensor) -> Tensor:
    """Each image's gradient over its L1 norm; 0 stays 0, NaN stays NaN."""
    length = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
    return gradient / torch.where(length == 0, 1, length)


def _not_finite(slope: Slope) -> Tensor:
    return ~(slope.objective.isfinite() & slope.gradient.flatten(1).isfinite().all(dim=1))


def _where(chosen: Tensor, yes: tuple[Tensor, Tensor, Tensor], no: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """Image by image (B,), the points, gradients and values of one or the other."""
    return [torch.where(_per_image(chosen) if a.ndim == 4 else chosen, a, b) for a, b in zip(yes, no, strict=True)]


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


STEPPERS: dict[str, Stepper] = {"fgsm": fgsm, "ifgsm": pgd, "pgd": pgd, "mim": mim, "apgd": apgd, "noise": noise}
