"""Steppers that solve a program per image (`headstrong.attacks.ilp`) instead of following a gradient.

Each makes one step from the clean image, inside the Linf ball and [0, 1]. The slopes are the attacked tasks' gradients
times the balancer's weights; under dgba, 1 / L_t, so slopes times change is the predicted relative change of each loss.

- `ilp_box`: the largest mean over the tasks. The result is fgsm's under the same balancer.
- `ilp_max_min`: the largest change of the task that changes least.
- `ilp_sparse`: at most `attack.pixels` positions change. One attacked task: the largest change; several: max-min.

Points and start are those of `headstrong.attacks.steppers`. All raise ConfigError for another ball, for a balancer
without weights, and where PuLP or CBC is missing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headstrong.attacks import ilp
from headstrong.attacks.balancers import Seen
from headstrong.attacks.steppers import Problem, Stepper
from headstrong.attacks.threat import LinfBall
from headstrong.errors import ConfigError
from headstrong.jobs import AttackJob


def ilp_box(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """The box program of "Attacking all tasks at once" (arXiv 2305.12066), solved as an integer program."""
    return _solve_each(problem, attack, "mean", None)


def ilp_max_min(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """No task is spared: the least weighted change is largest. It has no closed form."""
    return _solve_each(problem, attack, "least", None)


def ilp_sparse(problem: Problem, start: Tensor, attack: AttackJob) -> Tensor:
    """At most `attack.pixels` positions change: objective "mean" for one attacked task, "least" for several.

    Raises ConfigError where `pixels` is no number >= 1.
    """
    if attack.pixels is None or attack.pixels < 1:
        raise ConfigError(
            f"attack {attack.name!r}: pixels is {attack.pixels}; stepper 'ilp_sparse' needs a number >= 1"
        )
    return _solve_each(problem, attack, "mean" if len(attack.attacked) == 1 else "least", attack.pixels)


def _solve_each(problem: Problem, attack: AttackJob, objective: ilp.Objective, pixels: int | None) -> Tensor:
    """Points (B, C, H, W): each image's program by itself. NaN where a slope is not a number.

    The image moves along the signs of the solution's change, as fgsm's does: equal signs give equal bits.
    """
    if not isinstance(problem.ball, LinfBall):
        raise ConfigError(f"attack {attack.name!r}: stepper {attack.stepper!r} works with norm 'linf' only")
    if problem.balancer.apart:
        raise ConfigError(
            f"attack {attack.name!r}: balancer {attack.balancer!r} has no weights, which stepper {attack.stepper!r} "
            "needs; use 'dgba' or 'total'"
        )
    slopes = _slopes(problem)
    clean = problem.clean.detach().cpu().double().numpy()
    low, high = np.maximum(-problem.ball.epsilon, -clean), np.minimum(problem.ball.epsilon, 1 - clean)
    time_limit = ilp.TIME_LIMIT if attack.time_limit is None else attack.time_limit
    signs = np.full_like(clean, np.nan)
    labelled = _labelled(problem, slopes)
    for i in range(len(clean)):
        own = slopes[labelled[:, i], i]
        if not np.isfinite(own).all():
            continue
        if not len(own):
            solution = ilp.nothing(low[i])
        else:
            solution = ilp.solve(own, low[i], high[i], objective=objective, pixels=pixels, time_limit=time_limit)
        signs[i] = np.sign(solution.change)
        if problem.notes is not None:
            problem.notes.programs.append((problem.sample_ids[i], solution))
    direction = torch.from_numpy(signs).to(problem.clean)
    return problem.project(problem.clean + problem.ball.epsilon * direction)


def _labelled(problem: Problem, slopes: np.ndarray) -> np.ndarray:
    """Bool (T, B): the tasks that each image has; the others are in no program."""
    if problem.labelled is None:
        return np.ones(slopes.shape[:2], dtype=bool)
    return problem.labelled.T.cpu().numpy()


def _slopes(problem: Problem) -> np.ndarray:
    """Weighted gradients float64 (T, B, C, H, W) at the clean images."""
    gradients, now = problem.gradients(problem.clean)
    if problem.notes is not None:
        problem.notes.curve.append(now.double().sum(dim=0))
    weights = problem.balancer.of_labelled(Seen(now, problem.clean_losses, now, 0, problem.labelled)).double()
    weighted = [weights[:, t].view(-1, 1, 1, 1) * gradient.double() for t, gradient in enumerate(gradients)]
    return torch.stack(weighted).cpu().numpy()


PROGRAMS: dict[str, Stepper] = {"ilp_box": ilp_box, "ilp_max_min": ilp_max_min, "ilp_sparse": ilp_sparse}
