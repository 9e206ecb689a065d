"""Steppers: against loops written out for one image, known optima, counts of passes, and what they note down."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attack_problems import Losses, ids, linear_losses, make_attack, network_losses, random_images
from headstrong.attacks.balancers import BALANCERS
from headstrong.attacks.run import FROM_CLEAN, perturb
from headstrong.attacks.steppers import STEPPERS, Notes, apgd_checkpoints
from headstrong.attacks.threat import BALLS
from headstrong.errors import DivergedError

torch.set_num_threads(1)

ITERATED = ["ifgsm", "pgd", "mim", "apgd"]


def slope_of(losses: Losses, point: Tensor) -> tuple[Tensor, float]:
    """Gradient and value of the sum of losses of one image."""
    point = point.detach().requires_grad_()
    value = losses(point).sum()
    (gradient,) = torch.autograd.grad(value, point)
    return gradient, float(value.detach())


# --- MIM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_mim_is_the_published_loop(norm: str) -> None:
    """Dong et al. 2018: g <- 1.0 g + grad / |grad|_1, then a step along the sign (Linf) or g / |g|_2 (L2)."""
    losses, images = network_losses(2, seed=3, dtype=torch.float64), random_images(4)
    epsilon, size = (0.1, 0.03) if norm == "linf" else (0.5, 0.15)
    attack = make_attack(stepper="mim", norm=norm, epsilon=epsilon, step_size=size, steps=7)
    found = perturb(losses, images, attack, "sd", ids(images), 0)
    plain = perturb(losses, images, make_attack(**{**vars(attack), "stepper": "ifgsm"}), "sd", ids(images), 0)
    for image, point in zip(images.split(1), found.split(1), strict=True):
        here, sum_of_gradients = image, torch.zeros_like(image)
        for _ in range(7):
            gradient, _ = slope_of(losses, here)
            sum_of_gradients = 1.0 * sum_of_gradients + gradient / gradient.abs().sum()
            g = sum_of_gradients
            step = g.sign() if norm == "linf" else g / g.square().sum().sqrt()
            here = BALLS[norm](epsilon).project(here + size * step, image)
        torch.testing.assert_close(point, here, atol=1e-5, rtol=0)
    assert float((found - plain).abs().max()) > 1e-3  # the momentum counts


# --- APGD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 25, 50, 100, 1000])
def test_checkpoints_of_apgd_are_the_published_sequence(steps: int) -> None:
    p, expected = [0.0, 0.22], set()
    while p[-1] <= 1 + 1e-9:
        expected.add(math.ceil(round(p[-1] * steps, 6)))
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    assert apgd_checkpoints(steps) == sorted(expected)


def test_checkpoints_of_a_hundred_steps() -> None:
    assert apgd_checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def apgd_of_one_image(losses: Losses, image: Tensor, start: Tensor, norm: str, epsilon: float, steps: int):
    """Croce & Hein's Algorithm 1 for one image, written with lists: the best point, and each step's size."""
    project = lambda z: BALLS[norm](epsilon).project(z, image)  # noqa: E731
    x, f, g, eta, checks = [start], [], [], [2 * epsilon], [0]
    gradient, value = slope_of(losses, start)
    f.append(value)
    g.append(gradient)
    best = 0
    left = []  # value of the point that step k left
    best_at_check, halved = f[0], False
    here, here_value, here_gradient, before = start, f[0], g[0], None
    for k in range(1, steps + 1):
        direction = here_gradient.sign() if norm == "linf" else here_gradient / here_gradient.norm()
        z = project(here + eta[-1] * direction)
        new = z if before is None else project(here + 0.75 * (z - here) + 0.25 * (here - before))
        left.append(here_value)
        x.append(new)
        gradient, value = slope_of(losses, new)
        f.append(value)
        g.append(gradient)
        best = k if f[k] > f[best] else best
        before, here, here_value, here_gradient = here, new, value, gradient
        eta.append(eta[-1])
        if k in apgd_checkpoints(steps):
            rises = sum(f[i + 1] > left[i] for i in range(checks[-1], k))
            condition_1 = rises < 0.75 * (k - checks[-1])
            condition_2 = not halved and f[best] == best_at_check
            halved = condition_1 or condition_2
            if halved:
                eta[-1] /= 2
                here, here_value, here_gradient = x[best], f[best], g[best]
            best_at_check = f[best]
            checks.append(k)
    return x[best], eta


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.2), ("l2", 1.0)])
def test_apgd_of_a_batch_is_the_published_loop_of_each_image(norm: str, epsilon: float) -> None:
    """Each image halves its own step: the loop knows one image only, and the images do not halve together."""
    network, images = network_losses(2, seed=9, dtype=torch.float64), random_images(8).double()
    losses = lambda x: 10 - network(10 * x)  # noqa: E731  hilly inside the ball
    attack = make_attack(stepper="apgd", norm=norm, epsilon=epsilon, steps=40, start="corner")
    notes = Notes()
    found = perturb(losses, images, attack, "sd", ids(images), 0, notes=notes)
    assert notes.start is not None
    sizes = set()
    for image, start, point in zip(images.split(1), notes.start.split(1), found.split(1), strict=True):
        best, step_sizes = apgd_of_one_image(losses, image, start, norm, epsilon, 40)
        torch.testing.assert_close(point, best, atol=1e-7, rtol=0)
        sizes.add(tuple(step_sizes))
    assert len(sizes) > 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", ["clean", "corner", "uniform"])
def test_apgd_reaches_the_maximum_of_a_concave_loss(norm: str, start: str) -> None:
    """Of -|x - target|^2 the maximum over ball and box is the target's projection."""
    images, targets = random_images(6), random_images(6, seed=8) * 1.6 - 0.3
    epsilon = 0.15 if norm == "linf" else 0.8
    losses = lambda x: 100 - (x.double() - targets).square().flatten(1).sum(1, keepdim=True)  # noqa: E731
    attack = make_attack(balancer="single", attacked="s", stepper="apgd", norm=norm, epsilon=epsilon, steps=100)
    found = perturb(losses, images, make_attack(**{**vars(attack), "start": start}), "s", ids(images), 0)
    best = BALLS[norm](epsilon).project(targets, images)
    gap = (losses(best) - losses(found)) / (losses(best) - losses(images))
    assert float(gap.max()) < 1e-3
    assert float(gap.min()) > -1e-5


@pytest.mark.parametrize("balancer", sorted(BALANCERS.keys() - {"single"}))
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_apgd_never_returns_a_point_worse_than_its_start(steps: int, balancer: str) -> None:
    images, objective = random_images(12), BALANCERS[balancer].objective
    for seed in range(5):
        network = network_losses(2, seed)
        losses = lambda x, network=network: network(20 * x)  # noqa: E731  steps of 2 epsilon overshoot
        notes = Notes()
        attack = make_attack(stepper="apgd", balancer=balancer, start="uniform", epsilon=0.3, steps=steps)
        found = perturb(losses, images, attack, "sd", ids(images), seed, notes=notes)
        assert notes.start is not None
        clean = losses(images)
        gained = objective(losses(found), clean) - objective(losses(notes.start), clean)
        assert bool((gained >= 0).all())
        assert steps == 1 or bool((gained > 0).any())


def test_apgd_keeps_the_worst_of_its_restarts() -> None:
    losses, images = network_losses(2, seed=4), random_images(8)
    attack = make_attack(stepper="apgd", start="uniform", steps=3, epsilon=0.2)
    values = [
        losses(perturb(losses, images, make_attack(**{**vars(attack), "restarts": n}), "sd", ids(images), 0)).sum(1)
        for n in (1, 4)
    ]
    assert bool((values[1] >= values[0]).all())
    assert bool((values[1] > values[0]).any())


# --- what a step costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("balancer", sorted(BALANCERS))
@pytest.mark.parametrize("stepper", sorted(STEPPERS))
def test_a_step_is_one_forward_and_one_backward_pass(stepper: str, balancer: str, norm: str) -> None:
    """Only `sign_sum` goes backward once per task; only APGD goes forward once more, for its last point."""
    network, images = network_losses(3, seed=1), random_images(2)
    passes = {"forward": 0, "backward": 0}

    def counted(gradient: Tensor) -> None:
        passes["backward"] += 1

    def losses(points: Tensor) -> Tensor:
        passes["forward"] += 1
        inner = points * 1.0
        if inner.requires_grad:
            inner.register_hook(counted)
        return network(inner)

    attacked = "d" if balancer == "single" else "sdn"
    attack = make_attack(stepper=stepper, balancer=balancer, norm=norm, attacked=attacked, steps=6)
    perturb(losses, images, attack, "sdn", ids(images), 0, clean_losses=network(images))
    evaluations = {"noise": 0, "fgsm": 1}.get(stepper, 6)
    assert passes["backward"] == evaluations * (3 if balancer == "sign_sum" else 1)
    assert passes["forward"] == evaluations + (stepper == "apgd")


# --- the released L2 step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", ["pgd", "ifgsm"])
@pytest.mark.parametrize("start", ["clean", "corner"])
def test_released_l2_step_is_the_released_loop_in_its_own_space(stepper: str, start: str) -> None:
    """facts on Ghamizi et al., section 5: images in [-1, 1], E = 2 epsilon, u + E g, then the batch scaled to E."""
    if stepper in FROM_CLEAN and start != "clean":
        return
    losses = network_losses(2, seed=2, dtype=torch.float64)
    images, epsilon = random_images(5) * 0.6 + 0.2, 0.3
    attack = make_attack(stepper=stepper, norm="l2", epsilon=epsilon, l2_step="released", start=start, steps=4)
    notes = Notes()
    found = perturb(losses, images, attack, "sd", ids(images), 0, notes=notes)
    assert notes.start is not None
    clean, here = 2 * images.double() - 1, 2 * notes.start.double() - 1
    for _ in range(4):
        gradient, _ = slope_of(lambda u: losses((u + 1) / 2).mean(0), here)
        change = here + 2 * epsilon * gradient - clean
        here = clean + change / change.norm() * 2 * epsilon
    torch.testing.assert_close(found.double(), (here + 1) / 2, atol=1e-6, rtol=0)
    assert float((found - images).norm()) == pytest.approx(epsilon, rel=1e-5)


def test_released_l2_step_depends_on_the_batch_and_stays_an_image() -> None:
    losses, images = network_losses(2, seed=2), random_images(6).mul(1.4).sub(0.2).clamp(0, 1)
    attack = make_attack(norm="l2", epsilon=1.0, l2_step="released")
    together = perturb(losses, images, attack, "sd", ids(images), 0)
    alone = perturb(losses, images[:1], attack, "sd", ids(images)[:1], 0)
    assert float((alone - images[:1]).norm()) > 1.5 * float((together[:1] - images[:1]).norm())
    assert float((together - images).norm()) <= 1 + 1e-5
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1


def test_released_l2_step_without_a_gradient_moves_nothing() -> None:
    images = random_images(3)
    attack = make_attack(norm="l2", l2_step="released")
    found = perturb(lambda x: 0 * x.flatten(1)[:, :2], images, attack, "sd", ids(images), 0)
    assert torch.equal(found, images)


# --- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", ["total", "sign_sum", "dgba"])
@pytest.mark.parametrize("stepper", sorted(STEPPERS))
def test_notes_hold_the_losses_at_each_gradient_evaluation(stepper: str, balancer: str) -> None:
    losses, images = network_losses(3, seed=5, dtype=torch.float64), random_images(6)
    drawn = {} if stepper in FROM_CLEAN else {"start": "uniform", "restarts": 3}
    attack = make_attack(stepper=stepper, balancer=balancer, attacked="ns", steps=5, **drawn)
    whole, parts = Notes(), [Notes(), Notes()]
    found = perturb(losses, images, attack, "sdn", ids(images), 0, notes=whole)
    assert torch.equal(found, perturb(losses, images, attack, "sdn", ids(images), 0))
    for rows, notes in zip(ids(images).split(4), parts, strict=True):
        perturb(losses, images[rows], attack, "sdn", rows, 0, notes=notes)
    assert len(whole.curve) == {"noise": 0, "fgsm": 1}.get(stepper, 5)
    for first, second, sums in zip(parts[0].curve, parts[1].curve, whole.curve, strict=True):
        assert sums.dtype == torch.float64
        torch.testing.assert_close(first + second, sums, rtol=1e-5, atol=0)
    assert whole.start is not None
    if whole.curve:
        torch.testing.assert_close(whole.curve[0], losses(whole.start)[:, [2, 0]].sum(0))
    if stepper in FROM_CLEAN or stepper == "noise":
        assert torch.equal(whole.start, images)
    else:
        assert bool(BALLS["linf"](attack.epsilon).contains(whole.start, images).all())
        assert float((whole.start - images).abs().max()) > attack.epsilon / 2
    assert whole.programs == []


def test_a_noted_curve_of_pgd_rises_to_the_loss_it_reaches() -> None:
    losses, _ = linear_losses((3, 4, 4), 2)
    images = torch.full((2, 3, 4, 4), 0.5)
    notes = Notes()
    found = perturb(losses, images, make_attack(epsilon=0.4, steps=8), "sd", ids(images), 0, notes=notes)
    sums = torch.stack([*notes.curve, losses(found).sum(0).double()]).sum(1)
    torch.testing.assert_close(sums.diff(), sums.diff()[:1].expand(8), rtol=1e-4, atol=1e-4)
    assert float(sums.diff().min()) > 0


# --- NaN surfaces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("stepper", ITERATED)
@pytest.mark.parametrize("balancer", ["total", "sign_sum", "dgba", "wgd_published"])
def test_a_loss_that_stops_being_a_number_on_the_way_is_an_error(balancer: str, stepper: str, norm: str) -> None:
    images = random_images(3) * 0.2 + 0.4
    edge = images[1].mean() + 1e-3

    def losses(points: Tensor) -> Tensor:
        """Rises towards brighter images, and is NaN beyond an edge that the second image alone is near."""
        mean = points.flatten(1).mean(1)
        broken = (torch.arange(len(points)) == 1) & (mean > edge)
        return torch.where(broken, float("nan"), 1.0)[:, None] * mean[:, None] * torch.tensor([1.0, 2.0])

    attack = make_attack(stepper=stepper, norm=norm, balancer=balancer, epsilon=0.2, step_size=0.05)
    with pytest.raises(DivergedError, match="sample 41"):
        perturb(losses, images, attack, "sd", ids(images) + 40, 0)


@pytest.mark.parametrize("stepper", ["pgd", "apgd"])
def test_restarts_do_not_hide_a_result_that_is_no_number(stepper: str) -> None:
    images = random_images(3)
    calls = []

    def losses(points: Tensor) -> Tensor:
        """NaN in the objective of one restart only, where no gradient is taken any more."""
        calls.append(points.requires_grad)
        value = points.flatten(1).mean(1, keepdim=True)
        first_comparison = not points.requires_grad and calls.count(False) == 1
        return value * (float("nan") if first_comparison else 1.0)

    attack = make_attack(attacked="s", balancer="single", stepper=stepper, start="uniform", restarts=3, steps=2)
    with pytest.raises(DivergedError):
        perturb(losses, images, attack, "s", ids(images), 0, clean_losses=torch.ones(3, 1))
