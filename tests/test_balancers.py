"""Balancers: their weights against the published formulas, their attacks against enumeration and against each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attack_problems import ids, linear_losses, make_attack, network_losses, random_images
from headstrong.attacks.balancers import BALANCERS, FLOOR, Seen
from headstrong.attacks.run import FROM_CLEAN, perturb
from headstrong.jobs import AttackJob

torch.set_num_threads(1)

MANY = sorted(BALANCERS.keys() - {"single"})
RELATIVE = ["wgd_published", "wgd_released", "wgd_cyclic", "dgba"]


def seen(step: int, count: int = 3, seed: int = 0) -> Seen:
    now, clean, first = torch.rand(3, 4, count, generator=torch.Generator().manual_seed(seed)) + 0.1
    return Seen(now, clean, first, step)


def attacked(losses: Callable[[Tensor], Tensor], images: Tensor, attack: AttackJob, tasks: str = "sd") -> Tensor:
    return perturb(losses, images, attack, tasks, ids(images), 0)


# --- weights and objectives ------------------------------------------------------------------------------------------


def by_hand(name: str, at: Seen) -> list[list[float]]:
    """The weights as the papers write them, one number at a time."""
    rows = []
    for image in range(len(at.now)):
        now, clean, first = (losses[image].tolist() for losses in (at.now, at.clean, at.first))
        tasks = range(len(now))
        if name == "wgd_published":
            mean = sum(now[t] / clean[t] for t in tasks) / len(now)
            rows.append([now[t] / clean[t] / mean for t in tasks])
        elif name == "wgd_released" and at.step > 0:
            rows.append([1 / first[t] for t in tasks])
        elif name == "wgd_cyclic":
            rows.append([1 / first[t] if t == at.step % len(now) else 0.0 for t in tasks])
        elif name == "dgba":
            rows.append([1 / now[t] for t in tasks])
        else:
            rows.append([1.0 for _ in tasks])
    return rows


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_weights_are_the_published_formulas(name: str, step: int) -> None:
    at = seen(step)
    expected = torch.tensor(by_hand(name, at), dtype=torch.float64)
    torch.testing.assert_close(BALANCERS[name].weights(at), expected, rtol=1e-12, atol=0)
    relative = BALANCERS[name].relative_weights(at)
    assert relative.dtype == at.now.dtype
    torch.testing.assert_close(relative, (expected / expected.amax(1, keepdim=True)).float(), rtol=1e-6, atol=0)
    assert torch.equal(relative.amax(1), torch.ones(4))


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_objective_is_the_sum_or_the_mean_relative_change(name: str) -> None:
    now, clean = torch.tensor([[3.0, 0.5], [1.0, 4.0]]), torch.tensor([[2.0, 0.25], [4.0, 2.0]])
    expected = [(0.5 + 1.0) / 2, (-0.75 + 1.0) / 2] if name in RELATIVE else [3.5, 5.0]
    assert BALANCERS[name].objective(now, clean).tolist() == expected


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_no_loss_is_too_small_or_too_large_to_weigh(name: str) -> None:
    extremes = torch.tensor([0.0, 1e-45, 1e-20, 1.0, 3e38])
    values = torch.cartesian_prod(extremes, extremes)
    for now, other in ((values, values.flip(1)), (values.flip(0), values), (values, values)):
        for step in (0, 1):
            weights = BALANCERS[name].relative_weights(Seen(now, other, other, step))
            assert bool(weights.isfinite().all())
            assert bool((weights >= 0).all())
            assert bool((weights.amax(1) == 1).all())
        assert bool(BALANCERS[name].objective(now, other).isfinite().all())


def test_a_loss_below_the_floor_counts_as_the_floor() -> None:
    tiny, floor = torch.tensor([[FLOOR / 100, 1.0]]), torch.tensor([[FLOOR, 1.0]])
    for name in RELATIVE:
        weigh = BALANCERS[name].weights
        torch.testing.assert_close(weigh(Seen(tiny, tiny, tiny, 2)), weigh(Seen(floor, floor, floor, 2)))
    assert float(BALANCERS["dgba"].weights(Seen(tiny, tiny, tiny, 0))[0, 0]) == pytest.approx(1 / FLOOR)


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_a_loss_that_is_no_number_stays_none(name: str) -> None:
    broken = torch.tensor([[float("nan"), 1.0]])
    assert bool(BALANCERS[name].objective(broken, torch.ones(1, 2)).isnan())
    if name == "dgba":
        assert bool(BALANCERS[name].relative_weights(Seen(broken, broken, broken, 0)).isnan().any())


@pytest.mark.parametrize("stepper", ["fgsm", "pgd", "mim", "apgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", MANY)
def test_losses_of_zero_never_give_nan(name: str, norm: str, stepper: str) -> None:
    def losses(points: Tensor) -> Tensor:
        growing = points.flatten(1).mean(1)
        return torch.stack([growing, 0 * growing, (growing - 0.5).clamp(min=0)], dim=1)

    images = torch.cat([torch.zeros(1, 3, 4, 4), random_images(3) * 0.5, torch.ones(1, 3, 4, 4)])
    attack = make_attack(balancer=name, attacked="sdn", norm=norm, stepper=stepper, epsilon=0.2, step_size=0.05)
    found = attacked(losses, images, attack, "sdn")
    assert bool(found.isfinite().all())
    assert bool((losses(found)[:4, 0] > losses(images)[:4, 0]).all())


# --- one task ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stepper"),
    [
        (name, stepper)
        for name in MANY
        for stepper in ("fgsm", "ifgsm", "pgd", "mim", "apgd")
        if (name, stepper) != ("sign_sum", "mim")  # MIM adds up gradients, and signs have lost their size
    ],
)
def test_each_balancer_of_one_task_is_single_to_the_bit(name: str, stepper: str) -> None:
    """For Linf. So WGD of one task is PGD (facts on Ghamizi et al., section 5), and DGBA of one task is (A6, ii)."""
    free = [{"start": "corner"}, {"start": "uniform"}, {"start": "uniform", "restarts": 3}]
    starts = [{}] if stepper in FROM_CLEAN else [{}, *free]
    for seed, start in itertools.product(range(2), starts):
        losses, images = network_losses(2, seed=seed), random_images(9, (3, 8, 8), seed=seed)
        attack = make_attack(balancer="single", attacked="d", stepper=stepper, **start)
        single = attacked(losses, images, attack)
        other = attacked(losses, images, make_attack(balancer=name, attacked="d", stepper=stepper, **start))
        assert torch.equal(single, other)


@pytest.mark.parametrize("start", ["clean", "uniform", "corner"])
@pytest.mark.parametrize("name", sorted(BALANCERS.keys() - {"single", "sign_sum"}))
def test_one_task_is_single_to_the_bit_in_l2_as_well(name: str, start: str) -> None:
    losses, images = network_losses(2, seed=3), random_images(5)
    found = [
        attacked(losses, images, make_attack(balancer=b, attacked="d", norm="l2", start=start))
        for b in ("single", name)
    ]
    assert torch.equal(*found)


def test_total_of_equal_tasks_is_single() -> None:
    one, images = network_losses(1, seed=3), random_images(5)
    total = attacked(lambda x: one(x).expand(-1, 2), images, make_attack())
    assert torch.equal(total, attacked(one, images, make_attack(balancer="single", attacked="s"), "s"))


def test_only_attacked_tasks_count() -> None:
    losses, slopes = linear_losses((3, 4, 4), 3)
    images = torch.full((1, 3, 4, 4), 0.5)
    found = attacked(losses, images, make_attack(attacked="ns", epsilon=0.1, steps=8), "sdn")
    torch.testing.assert_close(found, images + (2 / 255 * 8) * (slopes[0] + slopes[2]).sign()[None], atol=1e-6, rtol=0)


# --- DGBA's invariants (Zhang et al.; facts A6) ----------------------------------------------------------------------


@pytest.mark.parametrize("stepper", ["fgsm", "ifgsm", "pgd", "mim", "apgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_dgba_does_not_see_the_scale_of_a_loss_and_total_does(norm: str, stepper: str) -> None:
    losses, images = network_losses(3, seed=5, dtype=torch.float64), random_images(6)
    scales = torch.tensor([0.003, 1.0, 70.0], dtype=torch.float64)
    changes = {}
    for name in ("dgba", "wgd_published", "wgd_cyclic", "sign_sum", "total"):
        if stepper == "apgd" and name == "sign_sum":
            continue  # its directions are invariant, its objective is the plain sum
        attack = make_attack(balancer=name, attacked="sdn", norm=norm, stepper=stepper, epsilon=0.2)
        found = [attacked(lambda x, s=s: s * losses(x), images, attack, "sdn") for s in (1.0, scales)]
        changes[name] = float((found[1] - found[0]).abs().max())
    if norm == "linf":
        assert changes["dgba"] == 0
    invariant = ["dgba", "wgd_cyclic", "sign_sum"]
    assert all(changes[name] < 1e-6 for name in invariant if name in changes)
    assert changes["total"] > 1e-3
    assert changes["wgd_published"] > 1e-3  # r_t has no unit, but it multiplies a gradient that has


def test_dgba_step_is_the_best_corner_found_by_enumeration() -> None:
    """Linear losses: the mean relative change is linear, and FGSM of DGBA maximises it over ball and box together."""
    shape, epsilon = (2, 2, 2), 0.1
    losses, _ = linear_losses(shape, 3, offset=9.0)
    images = random_images(12, shape).mul(1.3).sub(0.15).clamp(0, 1)
    corners = torch.tensor(list(itertools.product([-epsilon, epsilon], repeat=8))).view(-1, *shape)
    found = attacked(losses, images, make_attack(balancer="dgba", attacked="sdn", stepper="fgsm", epsilon=0.1), "sdn")
    total = attacked(losses, images, make_attack(attacked="sdn", stepper="fgsm", epsilon=0.1), "sdn")
    beaten = 0
    for image, point, other in zip(images, found, total, strict=True):
        clean = losses(image[None])
        assert bool((clean > 1).all())
        change = lambda x, clean=clean: ((losses(x) - clean) / clean).mean(1)  # noqa: E731
        best = change((image + corners).clamp(0, 1)).max()
        torch.testing.assert_close(change(point[None])[0], best, rtol=1e-5, atol=1e-7)
        beaten += bool(change(other[None])[0] < best - 1e-4)
    assert beaten > 0  # the test tells DGBA from TOTAL


@pytest.mark.parametrize("stepper", ["fgsm", "pgd", "mim"])
def test_dgba_of_equal_losses_is_total(stepper: str) -> None:
    """Equal values, different gradients: at the clean image the losses are made equal by construction."""
    losses, _ = linear_losses((3, 4, 4), 3)
    images = random_images(4)
    offsets = losses(images).detach()
    level = lambda x: losses(x) - offsets + 2.0  # noqa: E731
    found = [
        attacked(level, images, make_attack(balancer=name, attacked="sdn", stepper="fgsm"), "sdn")
        for name in ("dgba", "total")
    ]
    assert torch.equal(*found)
    one = network_losses(1, seed=2)
    same = [
        attacked(
            lambda x: one(x).expand(-1, 3), images, make_attack(balancer=name, attacked="sdn", stepper=stepper), "sdn"
        )
        for name in ("dgba", "total")
    ]
    assert torch.equal(*same)


@pytest.mark.parametrize("stepper", ["fgsm", "ifgsm", "pgd", "mim"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_dgba_is_total_of_the_logarithms(norm: str, stepper: str) -> None:
    losses, images = network_losses(3, seed=6, dtype=torch.float64), random_images(6)
    attack = {"attacked": "sdn", "norm": norm, "stepper": stepper, "epsilon": 0.2}
    dgba = attacked(losses, images, make_attack(balancer="dgba", **attack), "sdn")
    total = attacked(lambda x: losses(x).log(), images, make_attack(balancer="total", **attack), "sdn")
    torch.testing.assert_close(dgba, total, atol=1e-6, rtol=0)
    plain = attacked(losses, images, make_attack(balancer="total", **attack), "sdn")
    assert float((plain - dgba).abs().max()) > 1e-3


# --- WGD and the sum of signs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wgd_published", "wgd_released"])
def test_the_first_step_of_wgd_from_the_clean_image_is_total(name: str) -> None:
    losses, images = network_losses(3, seed=7), random_images(6)
    found = [
        attacked(losses, images, make_attack(balancer=b, stepper="fgsm", attacked="sdn"), "sdn")
        for b in (name, "total")
    ]
    assert torch.equal(*found)


def test_released_wgd_is_one_total_step_and_then_total_of_losses_over_those_at_the_start() -> None:
    losses, images = network_losses(3, seed=8, dtype=torch.float64), random_images(6)
    attack = {"attacked": "sdn", "start": "corner", "epsilon": 0.1}
    found = attacked(losses, images, make_attack(balancer="wgd_released", steps=6, **attack), "sdn")
    points = start = attacked(losses, images, make_attack(steps=1, **{**attack, "step_size": 0.0}), "sdn")
    first = losses(start)
    for step in range(6):
        points = points.detach().requires_grad_()
        (losses(points) / (1 if step == 0 else first)).sum().backward()
        moved = points + 2 / 255 * points.grad.sign()
        points = torch.minimum(torch.maximum(moved, images - 0.1), images + 0.1).clamp(0, 1)
    torch.testing.assert_close(found, points.detach(), atol=1e-6, rtol=0)


def test_cyclic_wgd_attacks_one_task_after_the_other() -> None:
    losses, slopes = linear_losses((3, 4, 4), 3)
    images = torch.full((2, 3, 4, 4), 0.5)
    attack = make_attack(balancer="wgd_cyclic", attacked="sdn", epsilon=0.3, step_size=0.01, steps=5)
    found = attacked(losses, images, attack, "sdn")
    expected = images + 0.01 * (2 * slopes[0].sign() + 2 * slopes[1].sign() + slopes[2].sign())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_sign_sum_is_the_majority_of_the_signs_and_a_tie_moves_nothing() -> None:
    slopes = torch.tensor([[3.0, -1.0, 2.0, 0.0], [-1.0, -9.0, -5.0, 4.0]])
    losses = lambda x: 50 + x.flatten(1) @ slopes.T  # noqa: E731
    images = torch.full((1, 1, 2, 2), 0.5)
    found = attacked(losses, images, make_attack(balancer="sign_sum", stepper="fgsm", epsilon=0.1))
    torch.testing.assert_close((found - images).flatten(), torch.tensor([0, -0.1, 0, 0.1]), atol=1e-6, rtol=0)


def test_sign_sum_in_l2_adds_directions_of_length_one() -> None:
    losses, slopes = linear_losses((3, 4, 4), 2)
    images = torch.full((1, 3, 4, 4), 0.5)
    scaled = lambda x: losses(x) * torch.tensor([100.0, 1.0])  # noqa: E731
    found = attacked(scaled, images, make_attack(balancer="sign_sum", stepper="fgsm", norm="l2", epsilon=0.3))
    sum_of_directions = sum(slope / slope.norm() for slope in slopes)
    expected = images + 0.3 * sum_of_directions / sum_of_directions.norm()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
