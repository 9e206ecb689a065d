"""Flags: each provoked by numbers made for it, and absent from numbers of a sound evaluation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from headstrong.jobs import AttackJob
from headstrong.sanity import FLAGS, Outcome, flags, objective

COUNT, TASKS = 40, "sdn"
RNG = np.random.default_rng(0)
CLEAN = RNG.uniform([1.0, 0.05, 0.2], [3.0, 0.15, 0.6], (COUNT, 3)).astype(np.float32)
NORMS = RNG.uniform(0.5, 2, (COUNT, 3))


def attack(stepper: str, name: str = "", attacked: str = "sdn", **changes: object) -> AttackJob:
    fields = {"balancer": "total", "norm": "linf", "epsilon": 0.03, "step_size": 0.01, "steps": 10}
    fields |= {"start": "clean", "restarts": 1, **changes}
    return AttackJob(name=name or stepper, family=stepper, stepper=stepper, attacked=attacked, **fields)


def outcome(job: AttackJob, gain: float | list[float], spread: float = 0.05, **changes: object) -> Outcome:
    """Losses that are higher than clean by about the share `gain`, sample by sample another one."""
    rng = np.random.default_rng(len(job.name))
    noise = rng.normal(0, spread, CLEAN.shape)
    losses = (CLEAN * (1 + np.asarray(gain) + noise)).astype(np.float32)
    return Outcome(job, losses, **{"linf": np.full(COUNT, job.epsilon), **changes})


def sound() -> list[Outcome]:
    rising = np.linspace(CLEAN.mean(0), 3 * CLEAN.mean(0), 10)
    return [
        outcome(attack("noise", steps=1), 0),
        outcome(attack("fgsm", steps=1), 1),
        outcome(attack("pgd"), 2, curve=rising),
        outcome(attack("pgd", "pgd.50", steps=50), 2.2, curve=rising),
        outcome(attack("pgd", "pgd.dgba", balancer="dgba"), 2, curve=rising),
    ]


def found(outcomes: list[Outcome], clean: np.ndarray = CLEAN, norms: np.ndarray | None = NORMS) -> list[tuple]:
    return [(flag["attack"], flag["task"], flag["flag"]) for flag in flags(TASKS, clean, outcomes, norms)]


def test_a_sound_evaluation_has_no_flag() -> None:
    assert flags(TASKS, CLEAN, sound(), NORMS) == []
    assert flags(TASKS, CLEAN, [], None) == []


# --- comparisons -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", ["pgd", "ifgsm", "mim", "apgd"])
def test_a_single_step_that_beats_iteration_is_flagged(stepper: str) -> None:
    single, weak = outcome(attack("fgsm", steps=1), 1), outcome(attack(stepper), 0.9)
    assert found([single, weak]) == [(stepper, "", "single step beats iterative")]
    (flag,) = flags(TASKS, CLEAN, [single, weak])
    lead = single.losses.sum(1, dtype=float) - weak.losses.sum(1, dtype=float)
    assert (flag["samples"], flag["of"]) == ((lead > 0).sum(), COUNT)
    assert f"{lead.mean():.3g}" in flag["message"]
    assert "fgsm" in flag["message"]
    for change in ({"balancer": "dgba"}, {"attacked": "sd"}, {"norm": "l2"}, {"epsilon": 0.01}):
        assert found([single, outcome(attack(stepper, **change), 0.9)]) == []


def test_an_attack_weaker_than_noise_is_flagged() -> None:
    noise, weak = outcome(attack("noise", steps=1), 0.3), outcome(attack("pgd"), 0.1)
    assert found([noise, weak]) == [("pgd", "", "weaker than noise")]
    for change in ({"norm": "l2"}, {"epsilon": 0.01}):
        assert found([noise, outcome(attack("pgd", **change), 0.1)]) == []
    # Few pixels are not expected to do what all can do.
    assert found([noise, outcome(attack("ilp_sparse", pixels=5), 0.1)]) == []


def test_noise_of_the_same_tasks_comes_first() -> None:
    own = outcome(attack("noise", "noise.s", "s", steps=1), 0)
    other = outcome(attack("noise", "noise.d", "d", steps=1), 0.5)
    job = attack("pgd", "pgd.s", "s", balancer="single")
    assert found([own, other, outcome(job, 0.2)]) == []
    assert found([other, outcome(job, 0.2)]) == [("pgd.s", "s", "weaker than noise")]


def test_an_attack_weaker_with_more_steps_is_flagged() -> None:
    few, many = outcome(attack("pgd", steps=5), 2), outcome(attack("pgd", "pgd.many", steps=50), 1.8)
    assert found([few, many]) == [("pgd.many", "", "weaker with more steps")]
    same_family = replace(many.attack, family="other")
    assert found([few, replace(many, attack=same_family)]) == [("pgd.many", "", "weaker with more steps")]
    for change in ({"start": "uniform"}, {"restarts": 2}, {"balancer": "dgba"}, {"step_size": 0.0001}):
        assert found([few, replace(many, attack=replace(many.attack, **change))]) == []


def test_stronger_is_meant_in_the_objective_of_the_attack() -> None:
    # More loss in all, by the task of the largest loss; but less relative to the clean losses.
    single, iterative = [1.0, 0.1, 0.1], [0.7, 0.6, 0.6]
    for balancer, expected in (("total", True), ("sign_sum", True), ("dgba", False), ("wgd_released", False)):
        pair = [
            outcome(attack("fgsm", steps=1, balancer=balancer), single),
            outcome(attack("pgd", balancer=balancer), iterative),
        ]
        assert (found(pair) == [("pgd", "", "single step beats iterative")]) is expected
        assert bool(found(pair)) is expected
    jobs = attack("pgd", attacked="sn"), attack("pgd", attacked="sn", balancer="dgba")
    losses = 2 * CLEAN
    np.testing.assert_allclose(objective(jobs[0], TASKS, CLEAN, losses), losses[:, [0, 2]].sum(1), rtol=1e-6)
    np.testing.assert_allclose(objective(jobs[1], TASKS, CLEAN, losses), 1, rtol=1e-6)


def test_relative_change_leaves_out_losses_that_are_zero() -> None:
    clean, losses = np.array([[0.5, 0.0], [0.0, 0.0]]), np.array([[1.5, 7.0], [1.0, 1.0]])
    values = objective(attack("pgd", attacked="sd", balancer="dgba"), "sd", clean, losses)
    assert values[0] == 2
    assert np.isnan(values[1])


def test_chance_is_rarely_flagged() -> None:
    """Equally strong attacks: about one pair in forty is flagged, and never all of them."""
    rng, flagged = np.random.default_rng(5), 0
    for _ in range(400):
        first, second = (CLEAN * (1 + rng.normal(0, 0.2, CLEAN.shape)) for _ in range(2))
        jobs = attack("fgsm", steps=1), attack("pgd")
        flagged += len(
            flags(TASKS, CLEAN, [Outcome(j, v, np.ones(COUNT)) for j, v in zip(jobs, (first, second), strict=True)])
        )
    assert 1 <= flagged <= 25


def test_one_sample_proves_nothing() -> None:
    pair = [outcome(attack("fgsm", steps=1), 1), outcome(attack("pgd"), 0.5)]
    assert flags(TASKS, CLEAN[:1], [Outcome(o.attack, o.losses[:1], o.linf[:1]) for o in pair]) == []
    assert (
        len(
            flags(
                TASKS,
                CLEAN[:2],
                [Outcome(o.attack, 0 * o.losses[:2] + i, o.linf[:2]) for i, o in zip((2, 1), pair, strict=True)],
            )
        )
        == 1
    )


# --- single attacks --------------------------------------------------------------------------------------------------


def test_a_vanishing_gradient_is_flagged() -> None:
    norms, clean = NORMS.copy(), CLEAN.copy()
    norms[:3, 1], norms[3, 1] = 0, 1e-13
    clean[0, 1] = 0  # no loss, no gradient: nothing odd about the gradient
    found_flags = flags(TASKS, clean, [], norms)
    assert [(f["task"], f["flag"], f["samples"], f["of"]) for f in found_flags] == [
        ("d", "vanishing gradient", 3, COUNT - 1),
        ("d", "zero loss", 1, COUNT),
    ]
    assert found([], norms=np.full_like(NORMS, 1e-11)) == []


def test_an_image_that_fgsm_leaves_alone_had_no_gradient() -> None:
    still = np.where(np.arange(COUNT) < 4, 0.0, 0.03)
    assert found([outcome(attack("fgsm", "fgsm.s", "s", steps=1), 1, linf=still)]) == [
        ("fgsm.s", "s", "vanishing gradient")
    ]
    assert found([outcome(attack("fgsm", steps=1, epsilon=0.0), 0, linf=0 * still)]) == []
    assert found([outcome(attack("fgsm", steps=1, balancer="sign_sum"), 1, linf=still)]) == []
    assert found([outcome(attack("pgd"), 1, linf=still)]) == []


def test_a_falling_curve_is_flagged() -> None:
    up = np.linspace(1, 2, 10)[:, None] * CLEAN.mean(0)
    falls, wobbles = up.copy(), up.copy()
    falls[-1], wobbles[-1] = 1.7 * CLEAN.mean(0), 1.95 * CLEAN.mean(0)
    for balancer in ("total", "dgba"):
        job = attack("pgd", balancer=balancer)
        assert found([outcome(job, 1, curve=falls)]) == [("pgd", "", "falling curve")]
        for curve in (up, wobbles, up[:1], None):
            assert found([outcome(job, 1, curve=curve)]) == []
        assert found([outcome(job, 1, curve=up[::-1])]) == [("pgd", "", "falling curve")]
    (flag,) = flags(TASKS, CLEAN, [outcome(attack("pgd"), 1, curve=falls)])
    assert "evaluation 9" in flag["message"]
    assert (flag["samples"], flag["of"]) == (COUNT, COUNT)


def test_a_falling_curve_is_one_of_the_objective() -> None:
    # The large loss falls, the small ones rise: less in sum, more in relative change.
    curve = np.linspace([1.5, 1, 1], [1.0, 2, 2], 10) * CLEAN.mean(0)
    assert found([outcome(attack("pgd"), 1, curve=curve)]) == [("pgd", "", "falling curve")]
    assert found([outcome(attack("pgd", balancer="wgd_published"), 1, curve=curve)]) == []


def test_a_fall_within_rounding_is_no_flag() -> None:
    curve = np.linspace(1 + 3e-6, 1, 10)[:, None] * CLEAN.mean(0)
    for balancer in ("total", "dgba"):
        assert found([outcome(attack("pgd", balancer=balancer), 1, curve=curve)]) == []


def test_a_clean_loss_of_zero_is_flagged() -> None:
    clean = CLEAN.copy()
    clean[:5, 2] = 5e-7
    (flag,) = flags(TASKS, clean, [])
    assert (flag["attack"], flag["task"], flag["flag"]) == ("", "n", "zero loss")
    assert (flag["samples"], flag["of"]) == (5, COUNT)


# --- the list --------------------------------------------------------------------------------------------------------


def test_flags_are_sorted_plain_and_always_the_same() -> None:
    clean, norms = CLEAN.copy(), 0 * NORMS
    clean[:5, 2] = 0
    outcomes = [outcome(attack("noise", steps=1), 3), *sound()[1:], outcome(attack("pgd", "weak", steps=70), 0.1)]
    lists = [flags(TASKS, clean, some, norms) for some in (outcomes, outcomes[::-1])]
    assert lists[0] == lists[1]
    assert len(lists[0]) >= 6
    assert json.loads(json.dumps(lists[0])) == lists[0]
    for flag in lists[0]:
        assert list(flag) == ["attack", "task", "flag", "message", "samples", "of"]
        assert flag["flag"] in FLAGS
        assert flag["message"].endswith(".")
        assert "\n" not in flag["message"]
        assert 0 < flag["samples"] <= flag["of"]
