"""What an attack on a hidden task maximises: features, per image, against those of a backbone that forgot the task.

f(x) are the features of a (perturbed) image, f0 those of the clean image, f1 those that the forgetful copy of the
backbone gives the clean image; D = f1 - f0 is the direction of forgetting, or its mean over the attacker's images.

Source: Zhe et al., "Adversarial Attacks on Hidden Tasks in Multi-Task Learning" (arXiv 2405.15244), names CF and
CF-delta. The paper's equations are not public; these are this project's reconstruction, and every choice in it a
switch. Each value is divided by a constant of the image, which changes no direction and gives the stealth term one
meaning for all images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from headstrong.errors import ConfigError

OBJECTIVES = ("cf", "cf_delta", "disruption")
DISTANCES = ("squared", "cosine")
DELTAS = ("product", "target")
DIRECTIONS = ("image", "mean")
TINY = 1e-12  # a direction of length 0 gives 0, not a NaN


@dataclass(frozen=True)
class Pull:
    """Which way features are to go. `objective`: one of OBJECTIVES.

    distance: "squared" Euclidean, or "cosine", blind to lengths. delta, for cf_delta: "product" with the direction of
    forgetting, or "target", the distance to a point `reach` times as far along it as the forgetful features. Raises
    ConfigError for any other word.
    """

    objective: str
    distance: str = "squared"
    delta: str = "product"
    reach: float = 1.0

    def __post_init__(self) -> None:
        for key, known in (("objective", OBJECTIVES), ("distance", DISTANCES), ("delta", DELTAS)):
            if getattr(self, key) not in known:
                raise ConfigError(f"{key} '{getattr(self, key)}' is unknown; choose one of {', '.join(known)}")

    def values(self, features: Tensor, original: Tensor, direction: Tensor | None = None) -> Tensor:
        """What is maximised, (B,), of features (B, ...); original f0 and direction D of the same shape.

        cf: minus the distance to f0 + D, in units of that of f0. cf_delta: how far the features have gone along D, in
        units of D ("product"), or as cf, to f0 + reach D ("target"). disruption: the distance to f0 in units of f0's
        squared length; no direction. These are of squared distances. A cosine distance has no unit: it is one minus the
        cosine between the two, and "product" is the cosine between the move and D.
        Raises ConfigError where the objective needs a direction and there is none.
        """
        now, start = features.flatten(1), original.flatten(1)
        if self.objective == "disruption":
            return self._apart(now, start) / (1 if self.distance == "cosine" else _scale(start))
        if direction is None:
            raise ConfigError(f"objective {self.objective}: needs a direction of forgetting")
        way = direction.flatten(1)
        if self.objective == "cf_delta" and self.delta == "product":
            moved = now - start
            if self.distance == "cosine":
                return F.cosine_similarity(moved, way, dim=1, eps=TINY)
            return (moved * way).sum(dim=1) / _scale(way)
        length = self.reach if self.objective == "cf_delta" else 1.0
        aim = start + length * way
        unit = 1 if self.distance == "cosine" else _scale(length * way)
        return -self._apart(now, aim) / unit

    def _apart(self, a: Tensor, b: Tensor) -> Tensor:
        if self.distance == "cosine":
            return 1 - F.cosine_similarity(a, b, dim=1, eps=TINY)
        return (a - b).square().sum(dim=1)


def _scale(vectors: Tensor) -> Tensor:
    """Squared lengths (B,), constant and never 0."""
    return vectors.detach().square().sum(dim=1).clamp(min=TINY)


def kept_classes(logits: Tensor, reference: Tensor) -> Tensor:
    """Cross entropy (B,) to the classes that reference logits name; (B, C), or (B, C, H, W) averaged over pixels."""
    chosen = reference.argmax(dim=1)
    pixels = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    losses = F.cross_entropy(pixels, chosen.flatten(), reduction="none")
    return losses.view(len(logits), -1).mean(dim=1)


def kept_values(outputs: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute change (B,) of outputs (B, C, H, W), in units of the mean absolute deviation within the reference
    of each image."""
    flat, before = outputs.flatten(1), reference.flatten(1)
    spread = (before - before.mean(dim=1, keepdim=True)).abs().mean(dim=1).detach()
    return (flat - before).abs().mean(dim=1) / torch.where(spread > TINY, spread, 1)
