"""Other libraries' PGD on our networks, each by its own public interface, and whether they are there.

They know classifiers. So each is given a classifier of two classes whose logits are (0, L + 32), L the loss that our
attack climbs, and the label 0: in float32 its cross entropy, log(1 + exp(L + 32)), has the very gradient of L. Without
the 32 it has that gradient times a number of each image, which rounds differently; 25 steps carry the signs that this
turns on.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

Attack = Callable[[Tensor], Tensor]  # images (B, 3, H, W) in [0, 1] -> adversarial images
Maker = Callable[[nn.Module, float, float, int], Attack]  # network, epsilon, step, steps -> attack from the clean image


SURE = 32.0  # 1 / (1 + exp(-32)) is 1 in float32


class LossAsClassifier(nn.Module):
    """Images (B, 3, H, W) -> logits (B, 2): 0 and the loss of each image, moved so far that 0 counts for nothing."""

    def __init__(self, model: nn.Module, losses: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2)."""
        loss = self.losses(images).sum(dim=1, keepdim=True)
        return torch.cat([torch.zeros_like(loss), loss + SURE], dim=1)


def _torchattacks(network: nn.Module, epsilon: float, step: float, steps: int) -> Attack:
    library: Any = importlib.import_module("torchattacks")
    attack = library.PGD(network, eps=epsilon, alpha=step, steps=steps, random_start=False)
    return lambda images: attack(images, _labels(images))


def _foolbox(network: nn.Module, epsilon: float, step: float, steps: int) -> Attack:
    library: Any = importlib.import_module("foolbox")
    model = library.PyTorchModel(network, bounds=(0, 1), device="cpu")
    kind = library.attacks.LinfProjectedGradientDescentAttack
    attack = kind(abs_stepsize=step, steps=steps, random_start=False)
    return lambda images: attack.run(model, images, _labels(images), epsilon=epsilon)


def _art(network: nn.Module, epsilon: float, step: float, steps: int) -> Attack:
    evasion: Any = importlib.import_module("art.attacks.evasion")
    estimators: Any = importlib.import_module("art.estimators.classification")

    def attack(images: Tensor) -> Tensor:
        classifier = estimators.PyTorchClassifier(
            network, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 2, clip_values=(0.0, 1.0), device_type="cpu"
        )
        pgd = evasion.ProjectedGradientDescentPyTorch(
            classifier, eps=epsilon, eps_step=step, max_iter=steps, batch_size=len(images), verbose=False
        )
        return torch.from_numpy(pgd.generate(images.numpy(), _labels(images).numpy()))

    return attack


def _adv_lib(network: nn.Module, epsilon: float, step: float, steps: int) -> Attack:
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # for its plots; see envs/overrides-bench.in
    library: Any = importlib.import_module("adv_lib.attacks")

    def attack(images: Tensor) -> Tensor:
        # Its result is the last point that it looked at, which is one step behind the others'.
        return library.pgd_linf(
            network, images, _labels(images), epsilon, steps=steps, random_init=False, absolute_step_size=step
        )

    return attack


def _labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.long, device=images.device)


MAKERS: dict[str, Maker] = {
    "torchattacks": _torchattacks,
    "foolbox": _foolbox,
    "adversarial-robustness-toolbox": _art,
    "adv-lib": _adv_lib,
}


def missing(name: str) -> str | None:
    """Why a peer cannot be used here, in a few words; None where it can."""
    module = {"adversarial-robustness-toolbox": "art.attacks.evasion", "adv-lib": "adv_lib", "LibMTL": "LibMTL.trainer"}
    try:
        importlib.import_module(module.get(name, name))
    except Exception as error:  # whatever it is, the reason belongs in the table
        return f"{titled(name)} cannot be imported: {' '.join(str(error).split())}"
    return None


def titled(name: str) -> str:
    """Name and version of a peer, or its name alone where it is not installed."""
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name
