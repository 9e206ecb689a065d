"""One attack on one batch: balancer, stepper and threat put together."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headstrong.attacks.balancers import BALANCERS
from headstrong.attacks.program_steppers import PROGRAMS
from headstrong.attacks.steppers import STEPPERS as GRADIENT_STEPPERS
from headstrong.attacks.steppers import Notes, Problem, Stepper
from headstrong.attacks.threat import BALLS, Ball
from headstrong.errors import ConfigError, DivergedError
from headstrong.jobs import AttackJob
from headstrong.seeds import derive_seed

Losses = Callable[[Tensor], Tensor]

STEPPERS: dict[str, Stepper] = {**GRADIENT_STEPPERS, **PROGRAMS}
STARTS = ("clean", "uniform", "corner")
FROM_CLEAN = ("fgsm", "ifgsm", "mim", *PROGRAMS)  # steppers whose definition includes the start
L2_STEPS = ("direction", "released")
RELEASED_STEPPERS = ("pgd", "ifgsm")  # those with a step that the released code has an L2 variant of


def perturb(
    losses: Losses,
    images: Tensor,
    attack: AttackJob,
    tasks: str,
    sample_ids: Tensor,
    seed: int,
    *,
    clean_losses: Tensor | None = None,
    labelled: Tensor | None = None,
    notes: Notes | None = None,
) -> Tensor:
    """Adversarial images float32 (B, C, H, W), in [0, 1] and in the ball of the attack.

    `losses` maps images (B, C, H, W) in [0, 1] to one loss per image and task (B, T), in the order of the letters
    `tasks`, which include the attacked ones; the loss of an image must not depend on the others of the batch, and
    parameters behind it should not require gradients. `sample_ids` (B,) are numbers that stay with an image whatever
    batch it is in: random draws come from `seed`, the attack's name and these. `clean_losses` (B, T) saves a forward
    pass when the caller has them. `labelled` bool (B, T) says which tasks an image has a label for, None: all. A
    task is not attacked where it is absent, and an image that lacks all attacked tasks comes back as it was.
    `notes`, if given, is filled.

    Raises ConfigError for an attack that cannot be, ValueError for images outside [0, 1], DivergedError when a gradient
    or an objective is not a number.
    """
    check(attack, tasks)
    columns = [tasks.index(letter) for letter in attack.attacked]

    def attacked_losses(points: Tensor) -> Tensor:
        return losses(points)[:, columns]

    def of_attacked(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:, columns]

    known: Any = {"clean_losses": of_attacked(clean_losses), "labelled": of_attacked(labelled)}
    return climb(attacked_losses, images, attack, sample_ids, seed, notes=notes, **known)


def climb(
    losses: Losses,
    images: Tensor,
    attack: AttackJob,
    sample_ids: Tensor,
    seed: int,
    *,
    clean_losses: Tensor | None = None,
    labelled: Tensor | None = None,
    notes: Notes | None = None,
) -> Tensor:
    """As `perturb`, but every column of the losses (B, T) is attacked, whatever it measures; `attacked` is not read.

    The attack must have passed `check_method`. Raises ValueError and DivergedError as `perturb` does, ConfigError where
    a program's solver is missing, RuntimeError for a result outside the ball, which would be a mistake in a stepper.
    """
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images to attack must be numbers in [0, 1]")
    problem = Problem(
        losses=losses,
        balancer=BALANCERS[attack.balancer],
        ball=BALLS[attack.norm](attack.epsilon),
        clean=images,
        known_clean_losses=clean_losses,
        sample_ids=tuple(sample_ids.tolist()),
    )
    if labelled is not None and not bool(labelled.all()):
        problem = problem.of_labelled(labelled)
    worst = _worst_of_restarts(problem, attack, seed, notes)
    if problem.labelled is not None:
        worst = torch.where(problem.labelled.any(dim=1).view(-1, 1, 1, 1), worst, images)
    _check_result(problem.ball, worst, images, attack, sample_ids)
    return worst


def _worst_of_restarts(problem: Problem, attack: AttackJob, seed: int, notes: Notes | None) -> Tensor:
    stepper = STEPPERS[attack.stepper]
    start = _start(problem, attack, seed, restart=0)
    points = stepper(replace(problem, notes=notes), start, attack)
    if notes is not None:
        notes.start = problem.clean if attack.stepper == "noise" else start
        notes.curve = [losses.cpu() for losses in notes.curve]  # now, not step by step: that would stall a GPU
    if attack.restarts == 1:
        return points
    value = problem.objective(points)
    for restart in range(1, attack.restarts):
        other = stepper(problem, _start(problem, attack, seed, restart), attack)
        other_value = problem.objective(other)
        better = other_value > value
        points = torch.where(better.view(-1, 1, 1, 1), other, points)
        value = torch.maximum(value, other_value)  # NaN if either is: it must surface, not lose
    return torch.where(value.isnan().view(-1, 1, 1, 1), torch.nan, points)


def _start(problem: Problem, attack: AttackJob, seed: int, restart: int) -> Tensor:
    if attack.stepper == "noise" or attack.start == "uniform":
        generators = [
            torch.Generator().manual_seed(derive_seed(seed, attack.name, sample_id, restart))
            for sample_id in problem.sample_ids
        ]
        draw = problem.ball.extreme if attack.stepper == "noise" else problem.ball.uniform
        return draw(problem.clean, generators)
    return problem.ball.corner(problem.clean) if attack.start == "corner" else problem.clean


def check(attack: AttackJob, tasks: str) -> None:
    """Raise ConfigError, in one line, for an attack that cannot be made on a model of these tasks."""
    check_method(attack)
    absent = [letter for letter in attack.attacked if letter not in tasks]
    _require(not absent, attack, f"attacks task {absent and absent[0]!r}, which is not one of {tasks!r}")
    _require(0 < len(attack.attacked) == len(set(attack.attacked)), attack, "attacked must name tasks, each once")
    one_task = BALANCERS[attack.balancer].one_task
    _require(not one_task or len(attack.attacked) == 1, attack, f"balancer {attack.balancer!r} attacks one task")


def check_method(attack: AttackJob) -> None:
    """Raise ConfigError, in one line, for an attack that cannot be made, whatever it attacks."""
    for kind, name, known in (
        ("balancer", attack.balancer, BALANCERS),
        ("stepper", attack.stepper, STEPPERS),
        ("norm", attack.norm, BALLS),
        ("start", attack.start, STARTS),
        ("l2_step", attack.l2_step, L2_STEPS),
    ):
        _require(name in known, attack, f"{kind} {name!r} is unknown; choose one of {_listed(known)}")
    _require(0 <= attack.epsilon < float("inf"), attack, f"epsilon is {attack.epsilon}; it must be a number >= 0")
    _require(attack.norm != "linf" or attack.epsilon <= 1, attack, f"epsilon is {attack.epsilon}; pixels end at 1")
    _require(0 <= attack.step_size < float("inf"), attack, f"step_size is {attack.step_size}; it must be >= 0")
    _require(attack.steps >= 1, attack, f"steps is {attack.steps}; at least 1 is needed")
    _require(attack.restarts >= 1, attack, f"restarts is {attack.restarts}; at least 1 is needed")
    fixed = attack.stepper in FROM_CLEAN and attack.start != "clean"
    _require(
        not fixed, attack, f"stepper {attack.stepper!r} starts at the clean image; set start to 'clean' or use 'pgd'"
    )
    drawn = attack.stepper == "noise" or attack.start == "uniform"
    _require(drawn or attack.restarts == 1, attack, "restarts need start 'uniform': from here all would be the same")
    _check_l2_step(attack)
    _check_program(attack)


def _check_l2_step(attack: AttackJob) -> None:
    if attack.l2_step == "direction":
        return
    fits = attack.norm == "l2" and attack.stepper in RELEASED_STEPPERS
    _require(fits, attack, f"l2_step 'released' works with norm 'l2' and stepper {_listed(RELEASED_STEPPERS)} only")
    apart = BALANCERS[attack.balancer].apart
    _require(not apart, attack, f"l2_step 'released' needs a gradient's length; balancer {attack.balancer!r} has none")


def _check_program(attack: AttackJob) -> None:
    program = attack.stepper in PROGRAMS
    sparse = attack.stepper == "ilp_sparse"
    _require(sparse or attack.pixels is None, attack, "pixels is for stepper 'ilp_sparse'; remove it")
    counted = attack.pixels is not None and attack.pixels >= 1
    _require(not sparse or counted, attack, f"pixels is {attack.pixels}; stepper 'ilp_sparse' needs a number >= 1")
    _require(program or attack.time_limit is None, attack, "time_limit is for steppers 'ilp_*'; remove it")
    limited = attack.time_limit is None or attack.time_limit > 0
    _require(limited, attack, f"time_limit is {attack.time_limit}; it must be seconds > 0")
    _require(not program or attack.norm == "linf", attack, f"stepper {attack.stepper!r} works with norm 'linf' only")
    weighs = not BALANCERS[attack.balancer].apart
    _require(
        not program or weighs,
        attack,
        f"stepper {attack.stepper!r} needs weights; balancer {attack.balancer!r} has none",
    )


def _require(holds: bool, attack: AttackJob, message: str) -> None:
    if not holds:
        raise ConfigError(f"attack {attack.name!r}: {message}")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def _check_result(ball: Ball, points: Tensor, images: Tensor, attack: AttackJob, sample_ids: Tensor) -> None:
    inside = ball.contains(points, images)
    if bool(inside.all()):
        return
    first = int((~inside).nonzero()[0])
    sample = int(sample_ids[first])
    if not bool(points[first].isfinite().all()):
        raise DivergedError(
            f"attack {attack.name!r}: the gradient is not a number on sample {sample}; look at the model's weights"
        )
    size = float(ball.size(points, images)[first])
    raise RuntimeError(f"attack {attack.name!r} left the ball on sample {sample}: {size} > {attack.epsilon}")
