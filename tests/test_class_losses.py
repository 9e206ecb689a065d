"""Losses of classifiers: limits, gradients, other implementations, hand-computed cases, angles beyond pi."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from headstrong import class_losses

B, C, S, M = 64, 7, 16.0, 0.3
LIMITS = ["monotone", "unhandled"]


@pytest.fixture
def cosines():
    return torch.rand(B, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.9 - 0.95


@pytest.fixture
def truth():
    return torch.randint(C, (B,), generator=torch.Generator().manual_seed(2))


def margins(*important, margin=M, dtype=torch.float64):
    found = torch.zeros(C, dtype=dtype)
    found[list(important)] = margin
    return found


def with_gradient(loss, cosines, *arguments):
    """A loss, and its gradient with respect to the cosines."""
    leaf = cosines.clone().requires_grad_()
    values = loss(leaf, *arguments)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_margin_is_normalised_softmax_to_the_bit(cosines, truth, limit, dtype):
    given = cosines.to(dtype)
    none = torch.zeros(C, dtype=dtype)
    ours, ours_gradient = with_gradient(class_losses.camri, given, truth, none, S, limit)
    theirs, their_gradient = with_gradient(class_losses.normalised_softmax, given, truth, S)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours_gradient, their_gradient)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_vanishing_margin_goes_to_normalised_softmax(cosines, truth, limit):
    tiny = margins(*range(C), margin=1e-9)
    ours, ours_gradient = with_gradient(class_losses.camri, cosines, truth, tiny, S, limit)
    theirs, their_gradient = with_gradient(class_losses.normalised_softmax, cosines, truth, S)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours_gradient, their_gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("limit", LIMITS)
def test_equal_margins_are_arcface_to_the_bit(cosines, truth, limit):
    ours, ours_gradient = with_gradient(class_losses.camri, cosines, truth, margins(*range(C)), S, limit)
    theirs, their_gradient = with_gradient(class_losses.arcface, cosines, truth, M, S, limit)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours_gradient, their_gradient)


def test_arcface_against_the_formula_written_out(cosines, truth):
    """By addition theorem and loops in numpy: cos(t + m) = cos t cos m - sin t sin m."""
    found = class_losses.arcface(cosines, truth, M, S, "unhandled").numpy()
    for row, t, loss in zip(cosines.numpy(), truth.numpy(), found, strict=True):
        moved = row[t] * math.cos(M) - math.sqrt(1 - row[t] ** 2) * math.sin(M)
        others = sum(math.exp(S * row[k]) for k in range(C) if k != t)
        assert loss == pytest.approx(-math.log(math.exp(S * moved) / (math.exp(S * moved) + others)), rel=1e-10)


def test_only_pictures_of_important_classes_feel_the_margin(cosines, truth):
    ours = class_losses.camri(cosines, truth, margins(2, 5), S)
    plain = class_losses.normalised_softmax(cosines, truth, S)
    everywhere = class_losses.arcface(cosines, truth, M, S)
    important = (truth == 2) | (truth == 5)
    assert important.any()
    assert torch.equal(ours[~important], plain[~important])
    assert torch.equal(ours[important], everywhere[important])
    assert (ours[important] > plain[important]).all()  # a margin asks for more


@pytest.mark.parametrize("limit", LIMITS)
def test_gradients_are_those_of_finite_differences(cosines, truth, limit):
    few, classes = cosines[:8].clone().requires_grad_(), truth[:8]
    assert torch.autograd.gradcheck(
        lambda c: class_losses.camri(c, classes, margins(1, 3, 5, margin=0.8), S, limit), (few,)
    )
    assert torch.autograd.gradcheck(lambda c: class_losses.arcface(c, classes, 0.8, S, limit), (few,))
    assert torch.autograd.gradcheck(lambda c: class_losses.normalised_softmax(c, classes, S), (few,))
    assert torch.autograd.gradcheck(lambda c: class_losses.weighted_cross_entropy(c, classes, margins(1) + 1), (few,))
    costs = torch.rand(C, C, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda c: class_losses.real_world_weight_cross_entropy(c, classes, margins(1) + 1, costs), (few,)
    )


def falling(limit, margin):
    """The logit of the true class at angles from 0 to pi, over the scale, from the loss against one other class."""
    angles = torch.linspace(0.001, math.pi - 0.001, 2001, dtype=torch.float64)
    cosines = torch.stack([torch.cos(angles), torch.zeros_like(angles)], dim=1)
    truth = torch.zeros(len(angles), dtype=torch.long)
    loss = class_losses.camri(cosines, truth, torch.tensor([margin, 0.0], dtype=torch.float64), 1.0, limit)
    return angles, -torch.log(torch.expm1(loss))  # loss = log(1 + exp(0 - logit))


@pytest.mark.parametrize("margin", [0.2, 0.8, 2.0])
def test_beyond_pi_the_logit_goes_on_falling_without_a_jump(margin):
    angles, logit = falling("monotone", margin)
    steps = logit.diff()
    assert (steps <= 1e-12).all()
    assert steps.abs().max() < 1.01 * (angles[1] - angles[0])  # no slope above that of the cosine: no jump
    inside = angles + margin < math.pi
    torch.testing.assert_close(logit[inside], torch.cos(angles + margin)[inside])
    assert logit[~inside].max() <= -1 + 1e-9


def test_the_official_handling_rewards_pointing_away():
    """Why there is another: beyond pi the official logit rises with the angle."""
    angles, logit = falling("unhandled", 0.8)
    torch.testing.assert_close(logit, torch.cos(angles + 0.8))
    assert logit[-1] > logit.min() + 0.1


@pytest.mark.parametrize("cosine", [1.0, -1.0])
@pytest.mark.parametrize("limit", LIMITS)
def test_parallel_and_opposite_features_have_finite_gradients(cosine, limit):
    given = torch.full((1, C), cosine)
    loss, gradient = with_gradient(class_losses.arcface, given, torch.tensor([0]), M, S, limit)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


def test_weighted_cross_entropy_is_torchs_without_its_division(cosines, truth):
    weights = torch.linspace(0.5, 3.0, C, dtype=torch.float64)
    theirs = functional.cross_entropy(cosines, truth, weight=weights, reduction="none")
    torch.testing.assert_close(class_losses.weighted_cross_entropy(cosines, truth, weights), theirs)


def test_real_world_weights_against_the_formula_written_out(cosines, truth):
    rng = np.random.default_rng(0)
    missed, mistaken = rng.random(C) + 0.5, rng.random((C, C))
    found = class_losses.real_world_weight_cross_entropy(
        cosines, truth, torch.from_numpy(missed), torch.from_numpy(mistaken)
    )
    for row, t, loss in zip(cosines.numpy(), truth.numpy(), found.numpy(), strict=True):
        h = np.exp(row) / np.exp(row).sum()
        wanted = -missed[t] * math.log(h[t]) - sum(mistaken[t, k] * math.log(1 - h[k]) for k in range(C) if k != t)
        assert loss == pytest.approx(wanted, rel=1e-10)


def test_real_world_weights_of_nothing_are_cross_entropy(cosines, truth):
    ones, zeros = torch.ones(C, dtype=torch.float64), torch.zeros(C, C, dtype=torch.float64)
    found = class_losses.real_world_weight_cross_entropy(cosines, truth, ones, zeros)
    torch.testing.assert_close(found, class_losses.cross_entropy(cosines, truth))


def test_a_certain_mistake_costs_a_finite_amount():
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    loss = class_losses.real_world_weight_cross_entropy(logits, torch.tensor([0]), torch.ones(2), torch.ones(2, 2))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


def test_an_unknown_handling_is_refused(cosines, truth):
    with pytest.raises(ValueError, match="choose from monotone"):
        class_losses.arcface(cosines, truth, M, S, "easy")
