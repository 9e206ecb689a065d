"""Gradients against torch's own on single images, finite differences, and what is known of sums of vectors."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstrong.gradients import Gradients, loss_gradients, measure_gradients, subsets_of

torch.set_num_threads(1)

COUNT, TASKS = 7, "sdn"


class Net(nn.Module):
    """Images (B, 3, 8, 8) to losses (B, T): smooth, so that finite differences are exact enough."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, tasks, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(3 * self.conv(images))).square().mean(dim=(2, 3))


def make_net(tasks: int = 3) -> Net:
    torch.manual_seed(0)
    return Net(tasks).requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def measure(net: nn.Module, images: Tensor, size: int = 3, tasks: str = TASKS) -> Gradients:
    there = torch.ones(size, len(tasks), dtype=torch.bool)
    return measure_gradients([(part, net, there[: len(part)]) for part in images.split(size)], tasks)


def one_by_one(net: nn.Module, images: Tensor) -> np.ndarray:
    """Gradients (N, T, P), one image and one task at a time, in float64."""
    net = net.double()
    found = []
    for image in images.double():
        point = image[None].requires_grad_()
        rows = [torch.autograd.grad(net(point)[0, t], point)[0].flatten() for t in range(net(point).shape[1])]
        found.append(torch.stack(rows))
    net.float()
    return torch.stack(found).numpy()


def test_numbers_are_those_of_single_images(images: Tensor) -> None:
    net = make_net()
    expected = one_by_one(net, images)
    found = measure(net, images)
    scale = np.abs(found.gram).max()
    np.testing.assert_allclose(found.gram, expected @ expected.transpose(0, 2, 1), rtol=1e-5, atol=1e-6 * scale)
    mean = expected.mean(0)
    np.testing.assert_allclose(found.mean_gram, mean @ mean.T, rtol=1e-5, atol=1e-6 * scale)
    assert (found.gram.dtype, found.mean_gram.dtype, found.l1.dtype) == (np.float64, np.float64, np.float64)


def test_gradients_are_finite_differences() -> None:
    net = make_net().double()
    point = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    direction = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    slope = (net(point + 1e-5 * direction) - net(point - 1e-5 * direction)) / 2e-5
    along = (loss_gradients(net, point) * direction[:, None]).sum(dim=(2, 3, 4))
    torch.testing.assert_close(along, slope, rtol=1e-7, atol=1e-10)


def test_norms_are_those_of_explicit_sums(images: Tensor) -> None:
    net = make_net()
    gradients = one_by_one(net, images)
    found = measure(net, images)
    assert found.subsets == ("s", "d", "n", "sd", "sn", "dn", "sdn")
    for column, subset in enumerate(found.subsets):
        total = sum(gradients[:, TASKS.index(letter)] for letter in subset)
        np.testing.assert_allclose(found.l1[:, column], np.abs(total).sum(1), rtol=1e-5)
        np.testing.assert_allclose(found.l2[:, column], np.sqrt((total**2).sum(1)), rtol=1e-5)
        chosen = np.array([letter in subset for letter in TASKS], dtype=float)
        np.testing.assert_allclose(found.l2[:, column] ** 2, chosen @ found.gram @ chosen, rtol=1e-10)


def test_norms_of_gradients_that_cancel_are_zero(images: Tensor) -> None:
    net = make_net(1)
    found = measure(lambda points: net(points) * torch.tensor([1.0, -1.0]), images, tasks="sd")
    assert found.subsets[2] == "sd"
    assert (found.l1[:, 2] == 0).all()
    assert (found.l2[:, 2] == 0).all()
    assert (found.l2[:, 0] > 0).all()


def test_batch_size_does_not_count(images: Tensor) -> None:
    net = make_net()
    some, other = measure(net, images, 1), measure(net, images, 5)
    for name in ("gram", "mean_gram", "l1", "l2"):
        a, b = getattr(some, name), getattr(other, name)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(a).max())


def test_equal_runs_give_equal_bits(images: Tensor) -> None:
    net = make_net()
    for a, b in zip(*(vars(measure(net, images)).values() for _ in range(2)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mean_gram_of_equal_images_is_their_gram(images: Tensor) -> None:
    found = measure(make_net(), images[:1].expand(4, -1, -1, -1))
    np.testing.assert_allclose(found.mean_gram, found.gram[0], rtol=1e-6)
    # Of other images it is smaller: |E r|^2 <= E |r|^2.
    found = measure(make_net(), images)
    assert (np.diagonal(found.mean_gram) < np.diagonal(found.gram.mean(0))).all()


def test_subsets_are_all_of_up_to_five_tasks() -> None:
    assert subsets_of("s") == ("s",)
    five = subsets_of("sdDnE")
    assert len(five) == len(set(five)) == 31
    assert set(five) == {"".join(c) for size in range(1, 6) for c in combinations("sdDnE", size)}
    assert subsets_of("sdDnkK") == ("s", "d", "D", "n", "k", "K", "sdDnkK")
