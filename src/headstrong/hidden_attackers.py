"""Who attacks a hidden task, and with what: the attacker, who does not see it, and the oracle, who does.

An attacker owns a `View` of the visible tasks and what it has made of it itself: features of a forgetful copy of the
backbone, and heads of its own where it has no real ones. Nothing of the hidden task can be reached from it.

Source: Zhe et al. (arXiv 2405.15244); the reconstruction is described in `attacks.hidden` and docs/hidden.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstrong.attacks.hidden import DIRECTIONS, OBJECTIVES, Pull
from headstrong.attacks.run import check_method, climb
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.feature_files import FeatureFile
from headstrong.hidden_measures import changes, folded, units
from headstrong.hidden_views import Outputs, View, open_view
from headstrong.jobs import HiddenAttackJob
from headstrong.models.partial import head_state
from headstrong.models.store import read_tensors
from headstrong.provenance import file_digest

ON_TASKS = ("dgba", "total", "single")
CONTROLS = ("oracle", "noise")
Losses = Callable[[Tensor], Tensor]  # images (B, 3, H, W) -> what is maximised (B, K)


@dataclass(frozen=True)
class Attacker:
    """Someone who sees the tasks of `view`, and no others. forgetful: features before and after forgetting, or None."""

    view: View
    forgetful: FeatureFile | None = None

    def perturb(self, attack: HiddenAttackJob, rows: Tensor, seed: int) -> Tensor:
        """Adversarial images float32 (B, 3, H, W) of these rows, in [0, 1] and in the attack's ball.

        A task is not attacked on an image that has no label for it; objectives of features need no label. Raises
        ConfigError for an attack that needs what the attacker has not, DivergedError when a gradient is not a number.
        """
        images = self.view.batch(rows).images.contiguous(memory_format=torch.channels_last)
        file_rows, labelled = self.view.file_rows[rows], self.labelled(attack, rows)
        return climb(self.losses(attack, rows), images, attack.method, file_rows, seed, labelled=labelled)

    def labelled(self, attack: HiddenAttackJob, rows: Tensor) -> Tensor | None:
        """Bool (B, K): the attacked tasks that each image of these rows has; None for attacks that need no label."""
        if attack.objective in OBJECTIVES or attack.objective == "noise":
            return None
        return self.view.labelled(self.view.batch(rows))[:, self._columns(attack)]

    def losses(self, attack: HiddenAttackJob, rows: Tensor) -> Losses:
        """What the attack maximises on the images of these rows: (B, K) of images (B, 3, H, W), differentiable.

        K is 1 for objectives of features, else the number of attacked tasks. Raises ConfigError for an attack that
        needs what the attacker has not.
        """
        if attack.objective in OBJECTIVES:
            return self._pulled(attack, rows)
        batch, columns = self.view.batch(rows), self._columns(attack)
        kept = [number for number in range(len(self.view.tasks)) if number not in columns]
        reference = self._reference(rows) if attack.stealth else {}
        unit = units(self.view, reference, batch)[:, columns] if attack.stealth else 1

        def value(points: Tensor) -> Tensor:
            outputs = self.view.outputs(self.view.features(points))
            losses = self.view.losses(outputs, batch)[:, columns] / unit
            if not attack.stealth:
                return losses
            return losses - attack.stealth * changes(self.view, outputs, reference)[:, kept].mean(dim=1, keepdim=True)

        return value

    def _pulled(self, attack: HiddenAttackJob, rows: Tensor) -> Losses:
        """Features, pulled or pushed; with stealth, the visible predictions kept."""
        pull = Pull(attack.objective, attack.distance, attack.delta, attack.reach)
        with torch.no_grad():
            original = self.view.features(self.view.batch(rows).images)
        direction = None if attack.objective == "disruption" else self._direction(attack, rows).to(original.device)
        reference = self._reference(rows) if attack.stealth else {}

        def value(points: Tensor) -> Tensor:
            features = self.view.features(points)
            found = pull.values(features, original, direction)
            if attack.stealth:
                moved = changes(self.view, self.view.outputs(features), reference)
                found = found - attack.stealth * moved.mean(dim=1)
            return found[:, None]

        return value

    def _direction(self, attack: HiddenAttackJob, rows: Tensor) -> Tensor:
        if self.forgetful is None:
            raise ConfigError(f"attack {attack.method.name}: needs a forgetful copy of the backbone; forget first")
        if attack.direction == "mean":
            return self.forgetful.mean_direction().expand(len(rows), *([-1] * self.forgetful.mean_direction().ndim))
        return self.forgetful.forgetful(rows) - self.forgetful.original(rows)

    @torch.no_grad()
    def _reference(self, rows: Tensor) -> Mapping[str, Tensor]:
        """What the heads say of the clean images."""
        return self.view.outputs(self.view.features(self.view.batch(rows).images))

    def _columns(self, attack: HiddenAttackJob) -> list[int]:
        if attack.objective == "noise":  # whose stepper asks for no loss
            return [0]
        unseen = [task for task in attack.attacked if task not in self.view.tasks]
        if unseen or not attack.attacked:
            raise ConfigError(
                f"attack {attack.method.name}: sees no task {', '.join(unseen)}; it sees {self.view.tasks}"
            )
        return [self.view.tasks.index(task) for task in attack.attacked]


def open_attacker(
    kind: str,
    visible: Outputs,
    access: str,
    victim: Path,
    test: Path,
    copies: Path,
    features: Path,
    device: str,
    limit: int | None,
) -> Attacker:
    """The attacker of an access, after forgetting: `copies` and `features` are what `headstrong.forgetting` wrote.

    limit: number of images. Raises BrokenFileError where the features are of other images, or the copies of
    another forgetting or with other heads, and what `FeatureFile` and `open_view` raise. Whether both are of this
    network is not asked here.
    """
    view = open_view(kind, visible, victim, test, device, limit=limit, heads=access == "heads")
    own = _load_own_heads(view, copies) if access == "backbone" else None
    forgetful = FeatureFile(features)
    if forgetful.count < view.count:
        raise BrokenFileError(
            f"{features}: {forgetful.count} images, expected {view.count}; delete it and forget again"
        )
    if forgetful.test_sha256 != file_digest(test):
        raise BrokenFileError(f"{features}: of other images than {test} has; delete it and forget again")
    made = {"job": json.loads(forgetful.job), "weights_sha256": forgetful.weights_sha256}
    forgetful.choose(view.file_rows)
    if own is not None and {key: own.get(key) for key in made} != made:
        raise BrokenFileError(f"{copies}: of another forgetting than {features}; delete both and forget again")
    return Attacker(folded(view), forgetful)


def _load_own_heads(view: View, copies: Path) -> dict[str, Any]:
    """Put the attacker's own heads into the view's network; what the file of copies says of itself."""
    tensors, description = read_tensors(copies, lambda name: name.startswith("own."))
    own = {name.removeprefix("own."): tensor for name, tensor in tensors.items()}
    expected = {name: tensor.shape for name, tensor in head_state(view.network).items()}
    if {name: tensor.shape for name, tensor in own.items()} != expected:
        raise BrokenFileError(f"{copies}: not heads for this network; delete it and forget again")
    view.network.load_state_dict(own, strict=False)
    return description


def check_attack(attack: HiddenAttackJob) -> None:
    """Raise ConfigError, in one line, for an attack that cannot be."""
    check_method(attack.method)
    known = (*OBJECTIVES, *ON_TASKS, *CONTROLS)
    if attack.objective not in known:
        raise ConfigError(f"objective '{attack.objective}' is unknown; choose one of {', '.join(known)}")
    if attack.objective in OBJECTIVES:
        Pull(attack.objective, attack.distance, attack.delta, attack.reach)
    if attack.direction not in DIRECTIONS:
        raise ConfigError(f"direction '{attack.direction}' is unknown; choose one of {', '.join(DIRECTIONS)}")
    if not attack.stealth >= 0 or (attack.stealth and attack.objective not in (*OBJECTIVES, "oracle")):
        stealthy = ", ".join((*OBJECTIVES, "oracle"))
        raise ConfigError(
            f"attack {attack.method.name}: stealth {attack.stealth:g}; expected 0, or more of {stealthy} only"
        )
    if (attack.objective == "noise") != (attack.method.stepper == "noise"):
        raise ConfigError(f"attack {attack.method.name}: objective and stepper must both be noise, or none")
