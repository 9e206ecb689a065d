"""Scaling and losses of generated perturbations, against hand numbers, invariants and other formulas."""

import math

import pytest
import torch

from headstrong.attacks.generators import FLOOR, IMAGENET_MEAN, TaskWeights, fooling_loss, pattern, perturbed, scale
from headstrong.errors import ConfigError

SHAPES = [(1, 3, 4, 4), (5, 3, 16, 8), (2, 3, 32, 32)]


def raw(shape, seed=0):
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("epsilon", [1, 5, 10, 300])
def test_linf_perturbations_reach_the_radius_and_no_further(shape, epsilon):
    made = scale(raw(shape), "linf", epsilon / 255)
    largest = made.abs().flatten(1).amax(dim=1) * 255
    assert bool((largest <= epsilon * (1 + 1e-6)).all())
    if epsilon < 200:
        torch.testing.assert_close(largest, torch.full_like(largest, epsilon))
    else:  # nothing to scale down
        assert torch.equal(made, raw(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_l2_perturbations_have_the_length(shape):
    made = scale(raw(shape), "l2", 100 / 255)
    length = made.flatten(1).norm(dim=1) * 255
    torch.testing.assert_close(length, torch.full_like(length, 100.0))
    short = 1e-3 * raw(shape)
    assert torch.equal(scale(short, "l2", 1000 / 255), short)


def test_scaling_keeps_the_direction_and_nothing_stays_nothing():
    made = scale(raw((1, 3, 4, 4)), "linf", 5 / 255)
    ratio = made / raw((1, 3, 4, 4))
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))
    for norm in ("linf", "l2"):
        zero = torch.zeros(1, 3, 4, 4, requires_grad=True)
        scale(zero, norm, 5 / 255).sum().backward()
        assert torch.isfinite(zero.grad).all()
        assert torch.equal(scale(zero, norm, 5 / 255), torch.zeros(1, 3, 4, 4))


def test_channels_of_gaps_code_reach_the_radius_each_by_itself():
    made = scale(raw((2, 3, 8, 8)), "linf", 10 / 255, "channel")
    torch.testing.assert_close(made.abs().amax(dim=(2, 3)) * 255, torch.full((2, 3), 10.0))
    # as its code computes it: normalised with ImageNet's deviation, scaled, and back to pixels
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, (0.229, 0.224, 0.225)))
    normalised = ((raw((2, 3, 8, 8)) + 1) / 2 - mean) / std
    factor = (10 / (255 * std)) / normalised.abs().amax(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(made, normalised * factor.clamp(max=1) * std)


def test_the_largest_of_a_channel_carries_no_gradient():
    image = raw((1, 3, 4, 4)).requires_grad_()
    scale(image, "linf", 10 / 255, "channel").sum().backward()
    per_channel = image.grad[0].flatten(1)
    torch.testing.assert_close(per_channel, per_channel[:, :1].expand_as(per_channel))


def test_unknown_scalings_and_channels_in_l2_are_refused():
    with pytest.raises(ConfigError, match="linf only"):
        scale(raw((1, 3, 4, 4)), "l2", 10 / 255, "channel")
    with pytest.raises(ConfigError, match="whole or channel"):
        scale(raw((1, 3, 4, 4)), "linf", 10 / 255, "row")
    with pytest.raises(ConfigError, match="linf or l2"):
        scale(raw((1, 3, 4, 4)), "l1", 10 / 255)


def test_perturbed_images_stay_in_the_box_and_no_further_away():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    made = perturbed(images, scale(raw((4, 3, 8, 8)), "linf", 40 / 255))
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert perturbed(images, scale(raw((1, 3, 8, 8)), "linf", 40 / 255)).shape == images.shape


@pytest.mark.parametrize("shape", [*SHAPES, (1, 3, 288, 384)])
@pytest.mark.parametrize(
    ("norm", "scaling", "radii"),
    [
        ("linf", "whole", (0.01, 0.1, 1, 5, 200)),
        ("linf", "channel", (0.01, 1, 10)),
        ("l2", "whole", (0.1, 1, 100, 3000)),
    ],
)
def test_perturbed_images_are_in_the_ball_to_a_millionth(shape, norm, scaling, radii):
    """Of pixels as they are stored; without going back where a sum was rounded away, 3e-5 too much at epsilon 0.1."""
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).float() / 255
    for epsilon in radii:
        made = perturbed(images, scale(raw(shape), norm, epsilon / 255, scaling))
        moved = 255 * (made.double() - images.double()).flatten(1)
        length = moved.abs().amax(dim=1) if norm == "linf" else moved.norm(dim=1)
        assert bool((length <= epsilon * (1 + 1e-6)).all()), epsilon
        assert bool((length >= 0.7 * epsilon).all()) or epsilon > 100, "and near its border"


def test_the_gradient_of_a_perturbed_image_is_that_of_a_clamped_sum():
    images = torch.tensor([[0.0, 0.3, 0.7, 0.99999997, 0.5]]).reshape(1, 1, 1, 5)
    change = torch.tensor([[-0.1, 1e-3, 0.1, 0.2, 1e-9]]).reshape(1, 1, 1, 5).requires_grad_()
    made = perturbed(images, change)
    made.sum().backward()
    assert change.grad.flatten().tolist() == [0, 1, 1, 0, 1]
    torch.testing.assert_close(made.detach(), (images + change.detach()).clamp(0, 1), rtol=0, atol=1e-7)


def test_losses_by_hand():
    losses = torch.tensor([math.e, math.e**3])
    assert float(fooling_loss(losses, "untargeted", "outside")) == pytest.approx(-2)
    assert float(fooling_loss(losses, "targeted", "outside")) == pytest.approx(2)
    inside = math.log((math.e + math.e**3) / 2)
    assert float(fooling_loss(losses, "untargeted", "inside")) == pytest.approx(-inside)
    assert float(fooling_loss(losses, "targeted", "inside")) == pytest.approx(inside)
    assert float(fooling_loss(torch.zeros(1), "targeted", "outside")) == pytest.approx(math.log(FLOOR))


def test_the_logarithm_weighs_as_dgba_does():
    """The gradient of -log H is that of -H, divided by H: the scale of a task does not count."""
    x = torch.tensor([0.3, 2.0], requires_grad=True)
    fooling_loss(x * x, "untargeted", "outside").backward()
    torch.testing.assert_close(x.grad, -(2 * x.detach()) / (x.detach() ** 2) / 2, rtol=1e-5, atol=0)
    y = torch.tensor([0.3, 2.0], requires_grad=True)
    fooling_loss(1000 * y * y, "untargeted", "outside").backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=0)


def test_an_image_that_the_victim_is_sure_of_still_has_a_gradient():
    """H + FLOOR, where a clamp at FLOOR would have none: cross-entropies below FLOOR, of logits 17 and more apart."""
    gap = torch.tensor([17.0, 25.0, 40.0], dtype=torch.float64, requires_grad=True)
    losses = torch.nn.functional.softplus(-gap)
    assert float(losses.detach()[1]) < FLOOR
    fooling_loss(losses, "untargeted", "outside").backward()
    assert bool((gap.grad > 0).all())
    assert float(fooling_loss(torch.zeros(4), "untargeted", "inside")) == pytest.approx(-math.log(FLOOR))


def test_the_norm_of_the_whole_carries_a_gradient():
    """Beyond the radius the scaled perturbation does not depend on the length of the raw one: no gradient along it."""
    for norm in ("linf", "l2"):
        image = raw((1, 3, 4, 4)).double().requires_grad_()
        made = scale(image, norm, 5 / 255)
        weights = raw((1, 3, 4, 4), seed=5).double()
        (gradient,) = torch.autograd.grad((made * weights).sum(), image)
        assert abs(float((gradient * image.detach()).sum())) < 1e-9 * float(gradient.norm() * image.detach().norm())
        assert float(gradient.norm()) > 0


def test_uniform_weights_are_the_mean():
    losses = torch.tensor([1.0, 2.0, 6.0])
    weights = TaskWeights(3, "uniform")
    assert float(weights(losses)) == 3
    torch.testing.assert_close(weights.shares(losses), torch.full((3,), 1 / 3))
    assert list(weights.parameters()) == []


def test_learned_weights_at_their_best_are_the_logarithms_of_the_paper():
    losses = torch.tensor([-3.0, 0.5, 4.0])
    weights = TaskWeights(3, "learned")
    weights.start_from(losses)
    assert weights(losses).item() == pytest.approx(float(losses.mean()) + 1)
    weights(losses).backward()
    torch.testing.assert_close(weights.offsets.grad, torch.zeros(3), atol=1e-7, rtol=0)  # the best, then
    tasks = losses.clone().requires_grad_()
    weights(tasks).backward()
    torch.testing.assert_close(tasks.grad, torch.full((3,), 1 / 3))
    torch.testing.assert_close(weights.shares(losses), torch.full((3,), 1 / 3))


def test_learned_weights_find_their_best():
    losses = torch.tensor([-1.0, 2.0])
    weights = TaskWeights(2, "learned")
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        weights(losses).backward()
        optimizer.step()
    torch.testing.assert_close(weights.offsets.detach(), losses, atol=1e-2, rtol=0)


def test_patterns_are_fixed_uniform_and_each_tasks_own():
    first, again, other = pattern(3, "a", (32, 16)), pattern(3, "a", (32, 16)), pattern(3, "b", (32, 16))
    assert first.shape == (1, 3, 32, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= float(first.min()) < 0.01 < 0.99 < float(first.max()) < 1
