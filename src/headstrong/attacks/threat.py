"""Where an adversarial image may go: the Linf or L2 ball round the clean image, intersected with [0, 1].

Every function works on each image of a batch by itself. Shapes: images, points and gradients float32 (B, C, H, W).
Random draws come from one CPU generator per image, so that batch size, order and device do not change them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-5  # an image may leave the ball by this, relative to 1 or to epsilon, whichever is larger


@dataclass(frozen=True)
class Ball(ABC):
    """All points within `epsilon` (>= 0, in pixel units) of the clean image; pixels run from 0 to 1."""

    epsilon: float

    @abstractmethod
    def size(self, points: Tensor, clean: Tensor) -> Tensor:
        """Norm (B,) of the perturbation."""

    @abstractmethod
    def project(self, points: Tensor, clean: Tensor) -> Tensor:
        """The nearest (Euclidean) points (B, C, H, W) of ball and box together; NaN stays NaN."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The step (B, C, H, W) of norm 1, an image's each, along which a linear loss grows most.

        0 where the gradient is 0, NaN where it is not a number.
        """

    @abstractmethod
    def uniform(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Points (B, C, H, W) drawn uniformly from the ball, then projected to the box. One generator per image."""

    @abstractmethod
    def extreme(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The largest noise of the ball, (B, C, H, W): drawn on its surface, not from its inside."""

    @abstractmethod
    def corner(self, clean: Tensor) -> Tensor:
        """The point (B, C, H, W) reached by brightening every channel alike.

        The released code of Ghamizi et al. (2022) starts there: it clamps uniform noise with the bounds interchanged.
        """

    def contains(self, points: Tensor, clean: Tensor) -> Tensor:
        """True (B,) for points inside ball and box up to float rounding; False for NaN."""
        inside = self.size(points, clean) <= self.epsilon + ROUNDING * max(1.0, self.epsilon)
        return inside & ((points >= 0) & (points <= 1)).flatten(1).all(dim=1)


class LinfBall(Ball):
    """Every channel of every pixel moves by at most epsilon."""

    def size(self, points: Tensor, clean: Tensor) -> Tensor:
        return (points - clean).abs().flatten(1).amax(dim=1)

    def project(self, points: Tensor, clean: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(points, clean - self.epsilon), clean + self.epsilon).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign().where(gradient.isfinite(), torch.nan)  # torch gives NaN the sign 0

    def uniform(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return self.project(clean + self.epsilon * (2 * _uniform(clean, generators) - 1), clean)

    def extreme(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        signs = torch.where(_uniform(clean, generators) < 0.5, -1.0, 1.0)
        return self.project(clean + self.epsilon * signs, clean)

    def corner(self, clean: Tensor) -> Tensor:
        return self.project(clean + self.epsilon, clean)


class L2Ball(Ball):
    """The Euclidean length of the perturbation, over all channels and pixels, is at most epsilon."""

    def size(self, points: Tensor, clean: Tensor) -> Tensor:
        return (points - clean).flatten(1).norm(dim=1)

    def project(self, points: Tensor, clean: Tensor) -> Tensor:
        """The exact projection: `clip(clean + t * (points - clean), 0, 1)` for the largest t <= 1 inside the ball.

        This form is what the optimality conditions demand: with multiplier m of the ball's constraint each channel
        minimises (z - point)^2 + m (z - clean)^2 over [0, 1] by itself, and t = 1 / (1 + m).
        """
        return self._along(points.double() - clean.double(), clean, limit=1.0)

    def direction(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        largest = flat.abs().amax(dim=1, keepdim=True)
        scaled = flat / torch.where(largest > 0, largest, 1)  # tiny gradients would underflow when squared
        length = scaled.norm(dim=1, keepdim=True)
        return (scaled / torch.where(length > 0, length, 1)).view_as(gradient)

    def uniform(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        on_sphere = self.direction(_normal(clean, generators))
        shares = torch.stack([torch.rand((), generator=generator) for generator in generators]).to(clean.device)
        radius = self.epsilon * shares ** (1 / clean[0].numel())
        return self.project(clean + radius.view(-1, 1, 1, 1) * on_sphere, clean)

    def extreme(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A random direction, as far as length epsilon; where the box clips channels, the others go farther."""
        return self._along(_normal(clean, generators).double(), clean, limit=float("inf"))

    def corner(self, clean: Tensor) -> Tensor:
        return self._along(torch.ones_like(clean, dtype=torch.float64), clean, limit=float("inf"))

    def _along(self, direction: Tensor, clean: Tensor, limit: float) -> Tensor:
        stretch = _longest_stretch(direction, clean, self.epsilon, limit)
        return (clean.double() + stretch.view(-1, 1, 1, 1) * direction).clamp(0, 1).to(clean.dtype)


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball}


def _longest_stretch(direction: Tensor, clean: Tensor, epsilon: float, limit: float) -> Tensor:
    """The largest t <= limit (B,) for which `clip(clean + t * direction, 0, 1)` is within epsilon of clean (L2).

    The squared length, sum of min(t |direction|, room)^2, grows with t. From the t that ignores the box, channels found
    to hit it are held there and the rest is stretched to fill epsilon, until no further channel hits: each round stays
    inside the ball and holds more channels than the last, so this ends, and ends at the exact t (in practice after a
    few rounds). Where the box leaves no room to fill epsilon, t is one that has every channel at the box.
    """
    reach = direction.abs().flatten(1)
    room = torch.where(direction > 0, 1 - clean.double(), clean.double()).flatten(1)
    length = reach.norm(dim=1)
    stretch = torch.where(length > 0, epsilon / length, 0).clamp(max=limit)
    for _ in range(reach.shape[1]):
        held = stretch[:, None] * reach >= room
        spent = torch.where(held, room, 0).square().sum(dim=1)
        free = torch.where(held, 0, reach).square().sum(dim=1)
        filled = ((epsilon**2 - spent).clamp(min=0) / free).sqrt().clamp(max=limit)
        longer = torch.where(free > 0, torch.maximum(filled, stretch), stretch)
        if not bool((longer > stretch).any()):
            break
        stretch = longer
    return stretch


def _uniform(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.rand(like.shape[1:], generator=generator) for generator in generators]).to(like.device)


def _normal(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in generators]).to(like.device)
