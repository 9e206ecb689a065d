"""Signs that an attack did not do its work, in the manner of the checks of Croce and Hein's AutoAttack.

A weak attack makes a network look robust. What is told from the numbers of one evaluation alone:

| flag | what it may mean |
|---|---|
| single step beats iterative | the steps are too long, too few, or gradients mislead |
| weaker than noise | the attack gains nothing from its gradients |
| vanishing gradient | the attack has nothing to follow |
| falling curve | the steps are too long, or the balance of tasks works against the objective |
| weaker with more steps | the same |
| zero loss | changes relative to the clean loss are not defined |

Stronger and weaker are meant in the attack's own objective, per sample: the sum of the attacked tasks' losses for
single, total and sign_sum; their mean change relative to the clean losses for wgd and dgba (of ilp_max_min, too,
although it raises the least change). Two attacks are compared sample by sample, and flagged only where the mean of the
differences exceeds two of its standard errors: by chance that happens to one in forty pairs of equally strong attacks.
With a single sample there is no standard error, and no flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.jobs import AttackJob

Array = NDArray[Any]
Flag = dict[str, Any]

SINGLE_STEP, WEAKER_THAN_NOISE, VANISHING = "single step beats iterative", "weaker than noise", "vanishing gradient"
FALLING, WEAKER_WITH_STEPS, ZERO_LOSS = "falling curve", "weaker with more steps", "zero loss"
FLAGS = (SINGLE_STEP, WEAKER_THAN_NOISE, VANISHING, FALLING, WEAKER_WITH_STEPS, ZERO_LOSS)

ITERATIVE = ("pgd", "ifgsm", "mim", "apgd")
STANDARD_ERRORS = 2.0
ROUNDING = 1e-5  # of losses, relative: those of equal images differ by less in float32
LEAST_LOSS = 1e-6  # below, a loss counts as 0
LEAST_GRADIENT = 1e-12  # L2
CLEAR_FALL = 0.1  # of the rise of a curve


@dataclass(frozen=True)
class Outcome:
    """One attack and what it did to N samples.

    losses: (N, T), of all tasks of the model, on the adversarial images; NaN where a sample lacks the task or all
    that was attacked. linf: (N,), size of the perturbations.
    curve: (evaluations, attacked tasks), mean losses on the way; None where there is none.
    """

    attack: AttackJob
    losses: Array
    linf: Array
    curve: Array | None = None


def flags(
    tasks: str, clean_losses: Array, outcomes: Sequence[Outcome], gradient_norms: Array | None = None
) -> list[Flag]:
    """All flags of one evaluation, sorted; equal numbers give equal flags.

    clean_losses: (N, T), columns in the order of `tasks`; NaN where a sample lacks a task. gradient_norms: (N, T),
    L2 norms of the gradients of the losses at the clean images; None where they were not measured.
    A flag has the keys attack (name or ""), task (letter or ""), flag (one of FLAGS), message (one sentence), samples
    (how many it was seen on) and of (how many were looked at).
    """
    found = [
        *_zero_losses(tasks, clean_losses),
        *_vanishing_gradients(tasks, clean_losses, gradient_norms),
        *_still_images(tasks, clean_losses, outcomes),
        *_single_steps(tasks, clean_losses, outcomes),
        *_noises(tasks, clean_losses, outcomes),
        *_more_steps(tasks, clean_losses, outcomes),
        *_falling_curves(tasks, clean_losses, outcomes),
    ]
    return sorted(found, key=lambda flag: (flag["attack"], flag["task"], flag["flag"], flag["message"]))


def objective(attack: AttackJob, tasks: str, clean_losses: Array, losses: Array) -> Array:
    """What an attack's balancer maximises, per sample float64 (N,), of losses (N, T).

    A task that a sample lacks is left out, and so is, from the mean, one whose clean loss counts as 0, which has no
    relative change; NaN where none is left.
    """
    columns = [tasks.index(letter) for letter in attack.attacked]
    before, after = (np.asarray(values, dtype=np.float64)[:, columns] for values in (clean_losses, losses))
    return _combined(attack, before, after)


def _combined(attack: AttackJob, before: Array, after: Array) -> Array:
    if not _relative(attack):
        there = ~np.isnan(before)
        return np.asarray(np.where(there.any(axis=1), np.where(there, after, 0).sum(axis=1), np.nan))
    usable = before >= LEAST_LOSS
    change = np.where(usable, after / np.where(usable, before, 1) - 1, 0).sum(axis=1)
    count = usable.sum(axis=1)
    return np.where(count > 0, change / np.maximum(count, 1), np.nan)


def _relative(attack: AttackJob) -> bool:
    return attack.balancer == "dgba" or attack.balancer.startswith("wgd")


def _rounding(attack: AttackJob, value: float) -> float:
    """What float32 leaves uncertain of an objective of this size; a relative change is a ratio of losses, less 1."""
    return ROUNDING * (1 + value if _relative(attack) else value)


def _zero_losses(tasks: str, clean_losses: Array) -> Iterator[Flag]:
    for column, letter in enumerate(tasks):
        losses = clean_losses[:, column]
        low = losses[~np.isnan(losses)] < LEAST_LOSS
        if low.any():
            text = f"The clean loss of task {letter} is below {LEAST_LOSS:g}, so that relative changes are not defined."
            yield _flag("", letter, ZERO_LOSS, text, low)


def _vanishing_gradients(tasks: str, clean_losses: Array, norms: Array | None) -> Iterator[Flag]:
    for column, letter in enumerate(tasks if norms is not None else ""):
        assert norms is not None
        lossy = clean_losses[:, column] > LEAST_LOSS
        still = norms[lossy, column] < LEAST_GRADIENT
        if still.any():
            text = (
                f"The gradient of task {letter} is below {LEAST_GRADIENT:g} at the clean image, but its loss is not 0."
            )
            yield _flag("", letter, VANISHING, text, still)


def _still_images(tasks: str, clean_losses: Array, outcomes: Iterable[Outcome]) -> Iterator[Flag]:
    """FGSM moves every channel whose gradient is not 0: an image that stays as it was had no gradient at all.

    Votes of sign_sum can cancel instead, and are left out.
    """
    for outcome in outcomes:
        attack = outcome.attack
        if attack.stepper != "fgsm" or attack.epsilon == 0 or attack.balancer == "sign_sum":
            continue
        losses = clean_losses[:, [tasks.index(letter) for letter in attack.attacked]]
        lossy = (losses > LEAST_LOSS).any(axis=1)
        still = outcome.linf[lossy] == 0
        if still.any():
            text = "The attack left images as they were: their gradient is 0, though their loss is not."
            yield _flag(attack.name, _task(attack), VANISHING, text, still)


def _single_steps(tasks: str, clean_losses: Array, outcomes: Sequence[Outcome]) -> Iterator[Flag]:
    for single, iterative in permutations(outcomes, 2):
        a, b = single.attack, iterative.attack
        alike = (a.balancer, a.attacked, a.norm, a.epsilon) == (b.balancer, b.attacked, b.norm, b.epsilon)
        if alike and a.stepper == "fgsm" and b.stepper in ITERATIVE:
            yield from _weaker(SINGLE_STEP, "the single step of", tasks, clean_losses, iterative, single)


def _noises(tasks: str, clean_losses: Array, outcomes: Sequence[Outcome]) -> Iterator[Flag]:
    """Each attack against noise of its norm and epsilon: of its own attacked tasks where there is such noise."""
    for outcome in outcomes:
        attack = outcome.attack
        if attack.stepper == "noise" or attack.pixels is not None:  # few pixels cannot do what all pixels can
            continue
        noises = [
            other
            for other in outcomes
            if other.attack.stepper == "noise"
            and (other.attack.norm, other.attack.epsilon) == (attack.norm, attack.epsilon)
        ]
        same = [noise for noise in noises if noise.attack.attacked == attack.attacked]
        for noise in same or noises:
            yield from _weaker(WEAKER_THAN_NOISE, "the noise", tasks, clean_losses, outcome, noise)


def _more_steps(tasks: str, clean_losses: Array, outcomes: Sequence[Outcome]) -> Iterator[Flag]:
    """Attacks that differ in their steps alone; the steps may be shorter where there are more, but not reach less."""
    for few, many in permutations(outcomes, 2):
        a, b = few.attack, many.attack
        # APGD finds the size of its steps by itself.
        reaches = a.stepper == "apgd" or b.steps * b.step_size >= a.steps * a.step_size * (1 - ROUNDING)
        alike = replace(a, name=b.name, family=b.family, steps=b.steps, step_size=b.step_size) == b
        if alike and reaches and a.stepper in ITERATIVE and a.steps < b.steps:
            yield from _weaker(WEAKER_WITH_STEPS, "fewer steps of", tasks, clean_losses, many, few)


def _weaker(flag: str, rival: str, tasks: str, clean_losses: Array, outcome: Outcome, other: Outcome) -> Iterator[Flag]:
    """A flag on `outcome` where `other` is clearly stronger in the objective of `outcome`."""
    attack = outcome.attack
    ours, theirs = (objective(attack, tasks, clean_losses, o.losses) for o in (outcome, other))
    lead = (theirs - ours)[np.isfinite(ours) & ~np.isnan(theirs)]
    if len(lead) < 2:
        return
    mean, error = float(lead.mean()), float(lead.std(ddof=1) / np.sqrt(len(lead)))
    if mean > STANDARD_ERRORS * error and mean > _rounding(attack, float(np.nanmean(np.abs(theirs)))):
        what = "mean relative loss change" if _relative(attack) else "summed loss"
        text = (
            f"Weaker than {rival} {other.attack.name}: its {what} is lower by {mean:.3g} (standard error {error:.2g})."
        )
        yield _flag(attack.name, _task(attack), flag, text, lead > 0)


def _falling_curves(tasks: str, clean_losses: Array, outcomes: Iterable[Outcome]) -> Iterator[Flag]:
    """Curves are means over the samples, without a spread to measure a fall by: a tenth of the rise counts as clear."""
    for outcome in outcomes:
        if outcome.curve is None or len(outcome.curve) < 2:
            continue
        attack = outcome.attack
        columns = [tasks.index(letter) for letter in attack.attacked]
        before = np.nanmean(clean_losses[:, columns], axis=0, dtype=np.float64, keepdims=True)
        curve = _combined(attack, np.broadcast_to(before, outcome.curve.shape), outcome.curve)
        peak = int(np.argmax(curve))
        first, highest, last = float(curve[0]), float(curve[peak]), float(curve[-1])
        clear = max(CLEAR_FALL * (highest - first), _rounding(attack, abs(highest)))
        if highest - last > clear:
            text = (
                f"The objective falls from {highest:.4g} at gradient evaluation {peak + 1} to {last:.4g} at the last "
                f"of {len(curve)}."
            )
            attacked = (~np.isnan(clean_losses[:, columns])).any(axis=1)
            yield _flag(attack.name, _task(attack), FALLING, text, np.ones(int(np.sum(attacked)), dtype=bool))


def _task(attack: AttackJob) -> str:
    return attack.attacked if len(attack.attacked) == 1 else ""


def _flag(attack: str, task: str, flag: str, message: str, seen: Array) -> Flag:
    return {
        "attack": attack,
        "task": task,
        "flag": flag,
        "message": message,
        "samples": int(seen.sum()),
        "of": len(seen),
    }
