"""Gradients of the tasks' losses with respect to the clean image: what theories of robustness are made of.

Theorem 2 of Mao et al. (2020), "Multitask Learning Strengthens Adversarial Robustness", and the marginal vulnerability
of Ghamizi et al. (2022) speak of inner products and norms of these gradients, image by image. Stored are these numbers,
not the gradients: a table can then take the mean over images, any normalisation, and any subset of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Losses = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]

ALL_SUBSETS_UP_TO = 5  # tasks; beyond, 2^T - 1 subsets are too many


@dataclass(frozen=True)
class Gradients:
    """Numbers of N images and T tasks, float64. r_t is the gradient of the loss of task t, images in [0, 1].

    gram (N, T, T): inner products of an image's r_t. mean_gram (T, T): inner products of the means of r_t over images.
    l1, l2 (N, S): norms of the sum of r_t over each of `subsets`, strings of letters.

    A task has no gradient on an image from which it is absent: what would take it is NaN there, and means are over the
    images that have the task.
    """

    tasks: str
    subsets: tuple[str, ...]
    gram: Array
    mean_gram: Array
    l1: Array
    l2: Array


def subsets_of(tasks: str) -> tuple[str, ...]:
    """All non-empty subsets, smaller ones first, for up to five tasks; else the single tasks and the whole set."""
    sizes = range(1, len(tasks) + 1) if len(tasks) <= ALL_SUBSETS_UP_TO else (1, len(tasks))
    return tuple("".join(letters) for size in sizes for letters in combinations(tasks, size))


def measure_gradients(parts: Iterable[tuple[Tensor, Losses, Tensor]], tasks: str) -> Gradients:
    """Gradients of all images of `parts`, each a batch of images (B, C, H, W), its loss function, and bool (B, T), the
    tasks that each image has.

    The function maps images to losses (B, T), columns in the order of `tasks`, differentiably; the loss of an image
    must not depend on the others of its batch. One forward and T backward passes per batch, float32; all sums and inner
    products in float64, image by image, so that the size of a batch plays no part in them. There must be an image.
    """
    subsets = subsets_of(tasks)
    rows: list[tuple[Array, ...]] = []
    total: Any = 0
    counts: Any = 0
    for images, losses, labelled in parts:
        # Contiguous: the layout in memory would otherwise decide the order of sums.
        for image, has in zip(loss_gradients(losses, images).contiguous(), labelled, strict=True):
            gradients = torch.where(has[:, None], image.flatten(1).double(), torch.nan)
            total = total + torch.where(has[:, None], gradients, 0)
            counts = counts + has[:, None].double()
            rows.append((_numpy(gradients @ gradients.T), *_norms(gradients, tasks, subsets)))
    mean = total / counts
    gram, l1, l2 = (np.stack(column) for column in zip(*rows, strict=True))
    return Gradients(tasks, subsets, gram, _numpy(mean @ mean.T), l1, l2)


def loss_gradients(losses: Losses, images: Tensor) -> Tensor:
    """Gradient (B, T, C, H, W) of each image's loss of each task with respect to that image; images (B, C, H, W)."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        sums = losses(images).sum(dim=0)
        last = len(sums) - 1
        found = [torch.autograd.grad(value, images, retain_graph=t < last)[0] for t, value in enumerate(sums)]
    return torch.stack(found, dim=1)


def _norms(gradients: Tensor, tasks: str, subsets: tuple[str, ...]) -> tuple[Array, Array]:
    """L1 and L2 norms (S,) of the sums of gradients (T, P) over each subset."""
    # Summed, not taken from the gram matrix: where gradients cancel, that would leave rounding only.
    columns = [[tasks.index(letter) for letter in subset] for subset in subsets]
    sums = torch.stack([gradients[chosen].sum(dim=0) for chosen in columns])
    return _numpy(sums.abs().sum(dim=1)), _numpy(sums.norm(dim=1))


def _numpy(values: Tensor) -> Array:
    return values.cpu().numpy()
