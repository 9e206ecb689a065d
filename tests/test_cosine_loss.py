"""The cosine loss of normals against torch's, plain loops and calculus, and where a vector has no direction."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from headstrong.data.batches import Batch
from headstrong.losses import cosine, per_sample_losses

torch.set_num_threads(1)


def made_up_normals(samples=3, size=(5, 6)):
    """Predictions (B, 3, H, W) of any length, and a batch of unit vectors, some of them masked."""
    g = torch.Generator().manual_seed(0)
    predicted = 3 * torch.randn(samples, 3, *size, generator=g)
    true = F.normalize(torch.randn(samples, 3, *size, generator=g), dim=1)
    mask = torch.rand(samples, 1, *size, generator=g) < 0.6
    return predicted, Batch(torch.arange(samples), torch.zeros(samples, 3, *size), {"n": true}, {"n": mask})


def normal_losses(predicted, batch, pixels="valid"):
    return per_sample_losses({"n": predicted}, batch, "n", pixels=pixels, class_weights=None, normals="cosine")[:, 0]


def test_cosines_are_torchs_whatever_the_lengths():
    first, second = (torch.randn(2, 3, 5, 6, dtype=torch.float64) for _ in range(2))
    expected = F.cosine_similarity(first, second, dim=1)
    for length in (1e-3, 1, 1e6):
        torch.testing.assert_close(cosine(length * first, second), expected)
        torch.testing.assert_close(cosine(length * first.float(), second.float()), expected.float())


@pytest.mark.parametrize("degrees", [0, 11.25, 60, 90, 135, 180])
def test_the_loss_of_a_known_angle(degrees):
    true = torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1)
    across, turn = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), math.radians(degrees)
    batch = Batch(torch.arange(1), torch.zeros(1, 3, 1, 1), {"n": true}, {"n": torch.ones(1, 1, 1, 1, dtype=bool)})
    found = normal_losses(5 * (math.cos(turn) * true + math.sin(turn) * across), batch)
    assert float(found) == pytest.approx(1 - math.cos(turn), abs=2e-7)


@pytest.mark.parametrize("pixels", ["valid", "all"])
def test_the_loss_is_that_of_a_loop_over_pixels(pixels):
    predicted, batch = made_up_normals()
    found = normal_losses(predicted, batch, pixels)
    p, g = predicted.double().numpy(), batch.targets["n"].double().numpy()
    for i, mask in enumerate(batch.masks["n"][:, 0].numpy()):
        pairs = [(p[i, :, y, x], g[i, :, y, x]) for y, x in np.argwhere(mask)]
        total = sum(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs)
        assert float(found[i]) == pytest.approx(total / (len(pairs) if pixels == "valid" else mask.size), rel=1e-5)


def test_gradients_are_exact():
    predicted, batch = made_up_normals(samples=1, size=(2, 2))
    batch.targets["n"] = batch.targets["n"].double()
    true = batch.targets["n"]
    assert torch.autograd.gradcheck(lambda vectors: cosine(vectors, true), predicted.double().requires_grad_())
    # by hand: the gradient of 1 - cos with respect to p is -(g - cos p / |p|) / |p|
    leaf = predicted.double().requires_grad_()
    (1 - cosine(leaf, true)).sum().backward()
    length = predicted.double().norm(dim=1, keepdim=True)
    along = predicted.double() / length
    across = true - (along * true).sum(dim=1, keepdim=True) * along
    torch.testing.assert_close(leaf.grad, -across / length)


def test_a_step_against_the_gradient_of_the_loss_lowers_it_by_what_it_says():
    predicted, batch = made_up_normals()
    leaf = predicted.clone().requires_grad_()
    normal_losses(leaf, batch).sum().backward()
    assert leaf.grad[~batch.masks["n"].expand_as(leaf)].eq(0).all()
    step = 0.01 * F.normalize(leaf.grad.flatten(), dim=0).view_as(leaf)
    rise = (normal_losses(predicted + step, batch) - normal_losses(predicted - step, batch)).sum()
    assert float(rise) == pytest.approx(2 * float((step * leaf.grad).sum()), rel=1e-2)


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-20])
def test_a_prediction_without_a_direction_costs_1_and_pulls_nowhere(length):
    true = F.normalize(torch.randn(1, 3, 2, 2), dim=1)
    zero = torch.full((1, 3, 2, 2), length, requires_grad=True)
    found = cosine(zero, true)
    assert torch.equal(found, torch.zeros_like(found))
    found.sum().backward()
    assert torch.equal(zero.grad, torch.zeros_like(zero))


@pytest.mark.parametrize("length", [1e-10, 1e-6, 1e6, 1e15])
def test_short_and_long_predictions_have_a_finite_gradient(length):
    true = F.normalize(torch.randn(1, 3, 2, 2), dim=1)
    vectors = (length * F.normalize(torch.randn(1, 3, 2, 2), dim=1)).requires_grad_()
    found = cosine(vectors, true)
    expected = F.cosine_similarity(vectors.detach().double() / length, true.double())  # torch's stops at 1e-8
    torch.testing.assert_close(found, expected.float())
    found.sum().backward()
    assert vectors.grad.isfinite().all()
    assert (vectors.grad * length).abs().max() <= 1.01


def test_the_loss_is_never_below_0_and_what_is_no_number_is_not_hidden():
    _, batch = made_up_normals(samples=50)
    for length in (0.3, 1.0, 7.0):
        found = normal_losses(length * batch.targets["n"], batch)
        assert (found >= 0).all()
        assert (found < 1e-6).all()
    for garbage in (math.nan, math.inf):
        predicted = batch.targets["n"].clone()
        predicted[1] = garbage
        assert normal_losses(predicted, batch).isnan().nonzero().tolist() == [[1]]
        hidden = torch.where(batch.masks["n"], batch.targets["n"], garbage)
        assert normal_losses(hidden, batch).isfinite().all()
