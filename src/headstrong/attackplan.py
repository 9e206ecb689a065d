"""Which attacks a model is evaluated with, and which it is trained against: from the families of the configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstrong import radius
from headstrong.jobs import AttackJob
from headstrong.tasks import in_order

if TYPE_CHECKING:
    from headstrong.attackconfig import AdversarialConfig, AttackConfig
    from headstrong.config import Config

ONE_STEP = ("fgsm", "noise", "ilp_box", "ilp_max_min", "ilp_sparse")
FROM_START = ("pgd", "apgd")  # the others begin at the clean image, by definition
RELEASED = ("pgd", "ifgsm")  # have the released form of a step in L2
IN_EQUAL_STEPS = ("ifgsm", "mim")  # as published: all steps together are as long as epsilon


def attacks_of(config: Config, section: str, tasks: str, protocol: Mapping[str, Any]) -> Iterator[AttackJob]:
    """Every attack on a model of these tasks in this section of the plan, in an order that files do not decide."""
    for family, attack in sorted(config.attack_families.items()):
        if attack.sections is not None and section not in attack.sections:
            continue
        sets = list(_attacked_sets(attack, tasks, config.chains, protocol["wgd"]))
        pixel_counts: Sequence[int | None] = attack.pixels or [None]
        for (balancer, attacked), norm, epsilon, steps, pixels in itertools.product(
            sets, attack.norm, attack.epsilon, _distinct_steps(attack), pixel_counts
        ):
            yield _attack(family, attack, protocol, balancer, attacked, norm, epsilon, steps, pixels)


def adversarial_attack(attack: AdversarialConfig, tasks: str, protocol: Mapping[str, Any]) -> AttackJob:
    """The attack that a model of these tasks is trained against: on all of them at once."""
    steps = 1 if attack.stepper in ONE_STEP else attack.steps
    return AttackJob(
        name=adversarial_text(attack.model_dump()),
        family="adversarial",
        balancer=_balancer(attack.balancer, protocol["wgd"]),
        attacked=in_order(tasks),
        stepper=attack.stepper,
        norm=attack.norm,
        epsilon=float(attack.epsilon),
        step_size=_step_size(attack, attack.epsilon, steps),
        steps=steps,
        start=(attack.start or protocol["start"]) if attack.stepper in FROM_START else "clean",
        restarts=1,
        l2_step=_l2_step(attack.stepper, attack.balancer, attack.norm, protocol),
    )


def attack_decided_by(attack: Mapping[str, Any]) -> frozenset[str]:
    """The switches of the protocol that can change the attack of an adversarial training."""
    decide = {
        "start": attack["stepper"] in FROM_START and attack["start"] is None,
        "wgd": attack["balancer"] == "wgd",
        "l2_step": _has_released_step(attack["stepper"], attack["balancer"], attack["norm"]),
    }
    return frozenset(switch for switch, does in decide.items() if does)


def attack_read(attack: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What an adversarial training reads of its section: a single step has neither size nor number; None without."""
    unread = ("step_size", "steps", "start") if attack and attack["stepper"] in ONE_STEP else ()
    return None if attack is None else {key: value for key, value in attack.items() if key not in unread}


def adversarial_text(attack: Mapping[str, Any] | None) -> str:
    """The attack of an adversarial training as plan.csv names it, e.g. "fgsm.dgba.linf.8.1"; "" for clean training."""
    if attack is None:
        return ""
    steps = 1 if attack["stepper"] in ONE_STEP else attack["steps"]
    alone = "" if attack["clean_steps"] else ".alone"
    size = radius.in_name(attack["epsilon"])
    return f"{attack['stepper']}.{attack['balancer']}.{attack['norm']}.{size}.{steps}{alone}"


def _attack(
    family: str,
    attack: AttackConfig,
    protocol: Mapping[str, Any],
    balancer: str,
    attacked: str,
    norm: str,
    epsilon: float,
    steps: int,
    pixels: int | None,
) -> AttackJob:
    name = f"{family}.{balancer}.{attacked}.{norm}.{radius.in_name(epsilon)}.{steps}"
    return AttackJob(
        name=name if pixels is None else f"{name}.{pixels}",
        family=family,
        balancer=balancer,
        attacked=attacked,
        stepper=attack.stepper,
        norm=norm,
        epsilon=float(epsilon),
        step_size=_step_size(attack, epsilon, steps),
        steps=steps,
        start=(attack.start or protocol["start"]) if attack.stepper in FROM_START else "clean",
        restarts=attack.restarts,
        l2_step=_l2_step(attack.stepper, balancer, norm, protocol),
        pixels=pixels,
        time_limit=attack.time_limit,
    )


def _distinct_steps(attack: AttackConfig) -> Sequence[int]:
    return [1] if attack.stepper in ONE_STEP else attack.steps


def _step_size(attack: AttackConfig | AdversarialConfig, epsilon: float, steps: int) -> float:
    own = None if attack.stepper in ONE_STEP else attack.step_size  # a single step is as long as the radius
    return float(own or step_size(attack.stepper, epsilon, steps))


def step_size(stepper: str, epsilon: float, steps: int) -> float:
    """The size of a step, in the units of epsilon, where the configuration gives none.

    One-step attacks: epsilon. ifgsm and mim: epsilon / steps, as published. The others: epsilon / 4, which of 8/255 is
    the 2/255 of Ghamizi et al. (2022).
    """
    if stepper in ONE_STEP:
        return epsilon
    return epsilon / steps if stepper in IN_EQUAL_STEPS else epsilon / 4


def _l2_step(stepper: str, balancer: str, norm: str, protocol: Mapping[str, Any]) -> str:
    return str(protocol["l2_step"]) if _has_released_step(stepper, balancer, norm) else "direction"


def _has_released_step(stepper: str, balancer: str, norm: str) -> bool:
    """The released step is a rule of plain gradient steps in L2; there is no other form of it."""
    return norm == "l2" and stepper in RELEASED and balancer != "sign_sum"


def _balancer(name: str, wgd: str) -> str:
    return f"wgd_{wgd}" if name == "wgd" else name


def _attacked_sets(attack: AttackConfig, tasks: str, chains: Sequence[str], wgd: str) -> Iterator[tuple[str, str]]:
    """(balancer, letters) of every attack of a family; a set of one task is a single attack, and comes once."""
    seen: set[tuple[str, str]] = set()

    def fresh(balancer: str, letters: str) -> Iterator[tuple[str, str]]:
        key = ("single" if len(letters) == 1 and "single" in attack.balancer else balancer, letters)
        if key not in seen:
            seen.add(key)
            yield key

    for name in attack.balancer:
        balancer = _balancer(name, wgd)
        for letters in tasks if balancer == "single" else [in_order(tasks)]:
            yield from fresh(balancer, letters)
    if attack.chains and "total" in attack.balancer:
        for chain in sorted(chains):
            if set(chain) <= set(tasks):
                for length in range(1, len(chain) + 1):
                    yield from fresh("total", in_order(chain[:length]))
