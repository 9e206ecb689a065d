"""The attack core against problems whose answer is known: enumeration, closed forms, optimality conditions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from attack_problems import ids, linear_losses, make_attack, network_losses, random_images
from headstrong.attacks.balancers import BALANCERS
from headstrong.attacks.program_steppers import PROGRAMS
from headstrong.attacks.run import FROM_CLEAN, check, perturb
from headstrong.attacks.steppers import STEPPERS
from headstrong.attacks.threat import BALLS
from headstrong.errors import ConfigError, DivergedError

torch.set_num_threads(1)


# --- balls -----------------------------------------------------------------------------------------------------------


def test_l2_projection_is_the_nearest_point_found_by_an_optimiser() -> None:
    rng = np.random.default_rng(0)
    for trial in range(20):
        clean = rng.random(5) if trial % 2 else rng.integers(0, 2, 5).astype(float)
        point, epsilon = clean + rng.normal(0, 1, 5), rng.uniform(0.05, 1.2)
        found = minimize(
            lambda z, point=point: ((z - point) ** 2).sum(),
            clean,
            jac=lambda z, point=point: 2 * (z - point),
            bounds=[(0, 1)] * 5,
            constraints={
                "type": "ineq",
                "fun": lambda z, c=clean, e=epsilon: e**2 - ((z - c) ** 2).sum(),
                "jac": lambda z, c=clean: -2 * (z - c),
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        as_image = lambda vector: torch.tensor(vector, dtype=torch.float32).view(1, 5, 1, 1)  # noqa: E731
        projected = BALLS["l2"](epsilon).project(as_image(point), as_image(clean))
        np.testing.assert_allclose(projected.flatten().numpy(), found.x, atol=2e-5)


def test_l2_projection_beats_every_point_of_a_fine_grid() -> None:
    clean, point, epsilon = torch.tensor([0.95, 0.4]), torch.tensor([1.9, 1.3]), 0.3
    axis = torch.linspace(0, 1, 501)
    grid = torch.cartesian_prod(axis, axis)
    allowed = grid[(grid - clean).norm(dim=1) <= epsilon]
    best = float((allowed - point).norm(dim=1).min())
    projected = BALLS["l2"](epsilon).project(point.view(1, 2, 1, 1), clean.view(1, 2, 1, 1)).flatten()
    assert best - 0.005 < float((projected - point).norm()) <= best + 1e-6


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), epsilon=st.floats(0.01, 3.0), reach=st.floats(0.01, 5.0))
def test_l2_projection_satisfies_the_optimality_conditions(seed: int, epsilon: float, reach: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    clean = torch.rand(3, 2, 5, 5, generator=draw).mul(1.4).sub(0.2).clamp(0, 1)  # some channels at 0 or 1 exactly
    point = clean + reach * torch.randn(clean.shape, generator=draw)
    ball = BALLS["l2"](epsilon)
    projected = ball.project(point, clean)
    assert bool(ball.contains(projected, clean).all())
    # Variational inequality: the projection z of p on a convex set has <p - z, y - z> <= 0 for every y of the set.
    for _ in range(20):
        other = torch.rand(clean.shape, generator=draw)
        shrink = (epsilon / ball.size(other, clean)).clamp(max=1).view(-1, 1, 1, 1)
        inner = ((point - projected) * (clean + shrink * (other - clean) - projected)).flatten(1).sum(1)
        assert bool((inner <= 1e-4 * max(1.0, reach)).all())
    outside = ball.size(point.clamp(0, 1), clean) > epsilon
    assert torch.allclose(ball.size(projected, clean)[outside], torch.tensor(epsilon), rtol=1e-5)
    assert torch.equal(projected[~outside], point.clamp(0, 1)[~outside])
    assert torch.allclose(ball.project(projected, clean), projected, atol=1e-6)


def test_linf_projection_is_the_nearest_point() -> None:
    clean, points = random_images(4), random_images(4, seed=5) * 3 - 1
    projected = BALLS["linf"](0.1).project(points, clean)
    low, high = (clean - 0.1).clamp(min=0).numpy(), (clean + 0.1).clamp(max=1).numpy()
    expected = np.clip(points.numpy(), low, high)
    np.testing.assert_array_equal(projected.numpy(), expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_uniform_draws_fill_the_ball_evenly(norm: str) -> None:
    clean = torch.full((4000, 2, 1, 1), 0.5)
    ball = BALLS[norm](0.4)
    draws = ball.uniform(clean, [torch.Generator().manual_seed(seed) for seed in range(4000)])
    radii = ball.size(draws, clean) / 0.4
    # In two dimensions the share of a ball's area within radius r is r^2, in both norms.
    for radius in (0.25, 0.5, 0.75):
        assert abs(float((radii <= radius).float().mean()) - radius**2) < 0.03
    assert float((draws - clean).mean(0).abs().max()) < 0.02


# --- attacks on linear losses: the optimum is known ------------------------------------------------------------------


@pytest.mark.parametrize("stepper", sorted(STEPPERS.keys() - {"noise"}))
@pytest.mark.parametrize("attacked", ["s", "sd"])
def test_linf_attack_reaches_the_enumerated_optimum(stepper: str, attacked: str) -> None:
    shape = (2, 2, 2)
    losses, _ = linear_losses(shape, 2)
    images = random_images(6, shape).mul(1.3).sub(0.15).clamp(0, 1)
    attack = make_attack(stepper=stepper, attacked=attacked, epsilon=0.1, step_size=0.03, steps=5)
    found = perturb(losses, images, attack, "sd", ids(images), 0)
    corners = torch.tensor(list(itertools.product([-0.1, 0.1], repeat=8))).view(-1, *shape)
    columns = [0] if attacked == "s" else [0, 1]
    for image, point in zip(images, found, strict=True):
        best = losses((image + corners).clamp(0, 1))[:, columns].sum(1).max()
        torch.testing.assert_close(losses(point[None])[:, columns].sum(), best, rtol=1e-6, atol=1e-6)


def test_l2_pgd_reaches_the_closed_form_on_a_linear_loss() -> None:
    losses, slopes = linear_losses((3, 4, 4), 1)
    images = torch.full((2, 3, 4, 4), 0.5)
    attack = make_attack(attacked="s", norm="l2", epsilon=0.4, step_size=0.15, steps=5)
    found = perturb(losses, images, attack, "s", ids(images), 0)
    torch.testing.assert_close(found, images + 0.4 * slopes / slopes.norm(), atol=1e-6, rtol=0)


def test_l2_pgd_reaches_the_optimum_where_the_box_binds() -> None:
    losses, slopes = linear_losses((3, 4, 4), 1)
    images = random_images(3).mul(1.6).sub(0.3).clamp(0, 1)
    attack = make_attack(attacked="s", norm="l2", epsilon=0.8, step_size=0.2, steps=200)
    found = perturb(losses, images, attack, "s", ids(images), 0)
    # Best point of a linear loss: the projection of a point infinitely far along the slope.
    best = BALLS["l2"](0.8).project(images + 1e4 * slopes, images)
    torch.testing.assert_close(losses(found), losses(best), rtol=2e-4, atol=0)
    assert float((images == 0).float().mean()) > 0.1


# --- every attack: invariants ----------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    stepper=st.sampled_from(sorted(STEPPERS)),
    balancer=st.sampled_from(sorted(BALANCERS.keys() - {"single"})),
    norm=st.sampled_from(sorted(BALLS)),
    start=st.sampled_from(["clean", "uniform", "corner"]),
    epsilon=st.one_of(st.just(0.0), st.floats(1e-4, 1.0)),
    step=st.floats(1e-4, 2.0),
)
def test_no_attack_leaves_ball_or_box(
    seed: int, stepper: str, balancer: str, norm: str, start: str, epsilon: float, step: float
) -> None:
    start = "clean" if stepper in FROM_CLEAN else start
    images = random_images(3, seed=seed).mul(1.4).sub(0.2).clamp(0, 1)
    setting = make_attack(stepper=stepper, balancer=balancer, norm=norm, start=start)
    attack = replace(setting, epsilon=epsilon, step_size=step, steps=3)
    found = perturb(network_losses(2, seed), images, attack, "sd", ids(images), seed)
    change = (found.double() - images.double()).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert found.dtype == images.dtype
    assert float(size.max()) <= epsilon + 1e-5
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


@pytest.mark.parametrize("norm", sorted(BALLS))
@pytest.mark.parametrize("balancer", sorted(BALANCERS))
@pytest.mark.parametrize("stepper", sorted(STEPPERS))
def test_an_image_is_attacked_alike_whatever_its_batch(stepper: str, balancer: str, norm: str) -> None:
    losses, images = network_losses(2, seed=1, dtype=torch.float64), random_images(64)
    drawn = {} if stepper in FROM_CLEAN else {"start": "uniform", "restarts": 2}
    attacked = "d" if balancer == "single" else "sd"
    attack = make_attack(stepper=stepper, balancer=balancer, norm=norm, attacked=attacked, steps=6, **drawn)
    together = perturb(losses, images, attack, "sd", ids(images), 0)
    order = torch.tensor([3, 0, 63, 1, 40])
    alone = [perturb(losses, images[i : i + 1], attack, "sd", torch.tensor([i]), 0) for i in order.tolist()]
    torch.testing.assert_close(torch.cat(alone), together[order], atol=1e-6, rtol=0)
    shuffled = perturb(losses, images[order], attack, "sd", order, 0)
    torch.testing.assert_close(shuffled, together[order], atol=1e-6, rtol=0)


def test_equal_calls_give_equal_bits_and_another_seed_another_start() -> None:
    losses, images = network_losses(2, seed=1), random_images(4)
    attack = make_attack(start="uniform", steps=1, step_size=1e-3)
    first = perturb(losses, images, attack, "sd", ids(images), 0)
    torch.rand(3)  # torch's own random state plays no part
    assert torch.equal(first, perturb(losses, images, attack, "sd", ids(images), 0))
    for other in (
        perturb(losses, images, attack, "sd", ids(images), 1),
        perturb(losses, images, attack, "sd", ids(images) + 9, 0),
        perturb(losses, images, replace(attack, name="other"), "sd", ids(images), 0),
    ):
        assert float((other - first).abs().mean()) > 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_is_exactly_as_large_as_epsilon(norm: str) -> None:
    images = random_images(6).mul(1.2).sub(0.1).clamp(0, 1)
    attack = make_attack(stepper="noise", norm=norm, epsilon=0.07)
    found = perturb(lambda x: x.flatten(1)[:, :2], images, attack, "sd", ids(images), 0)
    torch.testing.assert_close(BALLS[norm](0.07).size(found, images), torch.full((6,), 0.07), atol=1e-6, rtol=0)
    if norm == "linf":
        inside = (images > 0.08) & (images < 0.92)
        torch.testing.assert_close((found - images).abs()[inside], torch.full_like(images[inside], 0.07))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_corner_start_brightens_every_channel_alike(norm: str) -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    attack = make_attack(norm=norm, start="corner", epsilon=0.2, steps=1, step_size=0.0)
    change = perturb(network_losses(2, 0), images, attack, "sd", ids(images), 0) - images
    expected = 0.2 if norm == "linf" else 0.2 / 48**0.5
    torch.testing.assert_close(change, torch.full_like(change, expected))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("stepper", sorted(STEPPERS.keys() - {"noise"}))
def test_no_gradient_no_move(norm: str, stepper: str) -> None:
    images = random_images(3)
    flat = perturb(
        lambda x: 0 * x.flatten(1)[:, :2], images, make_attack(norm=norm, stepper=stepper), "sd", ids(images), 0
    )
    assert torch.equal(flat, images)


@pytest.mark.parametrize("stepper", sorted(STEPPERS.keys() - {"noise"}))
def test_tiny_gradients_move_the_image_as_far_as_large_ones(stepper: str) -> None:
    images = random_images(3)
    losses, _ = linear_losses((3, 4, 4), 2)
    attack = make_attack(stepper=stepper, norm="l2", epsilon=0.3, step_size=0.1)
    found = [perturb(lambda x, c=c: c * losses(x), images, attack, "sd", ids(images), 0) for c in (1.0, 1e-30)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_pgd_is_at_least_as_strong_as_fgsm_on_a_convex_loss() -> None:
    matrix = torch.randn(12, 48, generator=torch.Generator().manual_seed(2))

    def losses(x: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix.T - 1).square().view(len(x), 2, 6).mean(2)

    images = random_images(20)
    value = {}
    for stepper in ("noise", "fgsm", "pgd", "apgd"):
        attack = make_attack(stepper=stepper, epsilon=0.1, step_size=0.02, steps=20)
        value[stepper] = losses(perturb(losses, images, attack, "sd", ids(images), 0)).sum(1)
    assert bool((value["pgd"] >= value["fgsm"] * (1 - 1e-5)).all())
    assert bool((value["apgd"] >= value["fgsm"] * (1 - 1e-5)).all())
    assert bool((value["fgsm"] > value["noise"]).all())


def test_restarts_keep_the_worst_of_their_runs_image_by_image() -> None:
    losses = network_losses(2, seed=4)
    images = random_images(8)
    attack = make_attack(start="uniform", steps=2, epsilon=0.2, step_size=0.01)
    attacks = [replace(attack, restarts=count) for count in (1, 2, 6)]
    values = [losses(perturb(losses, images, a, "sd", ids(images), 0)).sum(1) for a in attacks]
    assert bool((values[1] >= values[0]).all())
    assert bool((values[2] >= values[1]).all())
    assert bool((values[2] > values[0]).any())
    assert bool((values[2] == values[0]).any()) or bool((values[1] == values[0]).any())


def test_given_clean_losses_change_nothing() -> None:
    losses, images = network_losses(2, seed=4), random_images(3)
    asked = perturb(losses, images, make_attack(), "sd", ids(images), 0)
    given = perturb(losses, images, make_attack(), "sd", ids(images), 0, clean_losses=losses(images))
    assert torch.equal(asked, given)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"balancer": "wgd"},
            "balancer 'wgd' is unknown; choose one of dgba, sign_sum, single, total, wgd_cyclic, wgd_published",
        ),
        ({"stepper": "cw"}, "stepper 'cw' is unknown; choose one of apgd, fgsm, ifgsm, "),
        ({"norm": "l1"}, "norm 'l1' is unknown; choose one of l2, linf"),
        ({"start": "middle"}, "start 'middle' is unknown"),
        ({"attacked": "sK"}, "task 'K'"),
        ({"attacked": ""}, "attacked must name tasks"),
        ({"attacked": "ss"}, "attacked must name tasks"),
        ({"balancer": "single"}, "balancer 'single' attacks one task"),
        ({"epsilon": -0.1}, "epsilon is -0.1"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"epsilon": 8.0}, "pixels end at 1"),
        ({"step_size": -1.0}, "step_size is -1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"restarts": 3}, "restarts need start 'uniform'"),
        ({"stepper": "ifgsm", "start": "corner"}, "starts at the clean image"),
        ({"stepper": "mim", "start": "uniform"}, "starts at the clean image"),
        ({"stepper": "mim", "restarts": 2}, "restarts need start 'uniform'"),
        ({"stepper": "apgd", "steps": 0}, "steps is 0"),
        ({"l2_step": "raw"}, "l2_step 'raw' is unknown; choose one of direction, released"),
        ({"l2_step": "released"}, "l2_step 'released' works with norm 'l2' and stepper ifgsm, pgd only"),
        ({"l2_step": "released", "norm": "l2", "stepper": "apgd"}, "stepper ifgsm, pgd only"),
        ({"l2_step": "released", "norm": "l2", "balancer": "sign_sum"}, "balancer 'sign_sum' has none"),
        ({"pixels": 3}, "pixels is for stepper 'ilp_sparse'"),
        ({"time_limit": 3.0}, "time_limit is for steppers 'ilp_*'"),
    ],
)
def test_an_impossible_attack_is_refused_in_one_line(changes: dict, words: str) -> None:
    images = random_images(1)
    with pytest.raises(ConfigError, match="attack 'test'") as caught:
        perturb(network_losses(2, 0), images, make_attack(**changes), "sd", ids(images), 0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("ilp_sparse" not in PROGRAMS, reason="no program steppers here")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "pixels is None; stepper 'ilp_sparse' needs a number >= 1"),
        ({"pixels": 0}, "pixels is 0"),
        ({"pixels": 5, "norm": "l2"}, "works with norm 'linf' only"),
        ({"pixels": 5, "time_limit": 0.0}, "time_limit is 0.0"),
        ({"pixels": 5, "start": "corner"}, "starts at the clean image"),
        ({"pixels": 5, "balancer": "sign_sum"}, "balancer 'sign_sum' has none"),
    ],
)
def test_an_impossible_program_is_refused_in_one_line(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match="attack 'test'") as caught:
        check(make_attack(stepper="ilp_sparse", **changes), "sd")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stepper", sorted(STEPPERS.keys() - {"noise"}))
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_loss_that_is_no_number_is_an_error_not_a_result(norm: str, stepper: str) -> None:
    images = random_images(3)

    def losses(x: Tensor) -> Tensor:
        broken = torch.where(torch.arange(len(x)) == 1, float("nan"), 1.0)
        return (x.flatten(1).sum(1) * broken)[:, None]

    with pytest.raises(DivergedError, match="sample 41"):
        perturb(losses, images, make_attack(attacked="s", norm=norm, stepper=stepper), "s", ids(images) + 40, 0)


@pytest.mark.parametrize("value", [float("nan"), -0.01, 1.01])
def test_images_that_are_no_images_are_refused(value: float) -> None:
    images = random_images(2)
    images[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        perturb(network_losses(2, 0), images, make_attack(), "sd", ids(images), 0)
