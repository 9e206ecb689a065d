"""Victims of generated perturbations: the network that one task's perturbation is to fool, and the images it sees.

A task is a domain with a classifier of its own, or one output of a dense model. Networks are in evaluation mode, their
batch norms folded where they can be; their weights have no gradient.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from headstrong.data.batches import Batch, Batches
from headstrong.data.picture_batches import PictureBatch, PictureBatches
from headstrong.errors import ConfigError
from headstrong.folding import frozen
from headstrong.losses import Pixels, per_sample_losses
from headstrong.models import MultiTaskModel, load_metadata, load_model
from headstrong.models.classifier import load_classifier, load_classifier_metadata

Rows = Tensor | Sequence[int]
Kind = TypeVar("Kind")


class Victim(ABC):
    """One task under attack: `count` images of size (H, W); the names of its label's `classes`, () of a dense task."""

    task: str
    count: int
    size: tuple[int, int]
    classes: tuple[str, ...] = ()

    @abstractmethod
    def images(self, rows: Rows) -> Tensor:
        """Images float32 (B, 3, H, W) in [0, 1]."""

    @abstractmethod
    def losses(self, images: Tensor, rows: Rows) -> Tensor:
        """Losses (B,) of (perturbed) images against the truth of their rows, differentiable in the images.

        NaN where an image has no label.
        """

    @abstractmethod
    def labelled(self, rows: Rows) -> Tensor:
        """Bool (B,): the images of these rows that have a label."""

    def target_losses(self, images: Tensor, target: int) -> Tensor:
        """Cross-entropy (B,) to one class, differentiable in the images; ConfigError for a dense task."""
        raise ConfigError(f"task {self.task}: a dense task has no classes to aim at; give goal untargeted")

    def least_likely_losses(self, images: Tensor, rows: Rows) -> Tensor | None:
        """Cross-entropy (B,) to the class least likely on the unperturbed images; None for a dense task."""
        return None


class _Latest(Generic[Kind]):
    """Reads batches and keeps the last: all tasks and losses of a step ask for the same rows."""

    def __init__(self, read: Callable[[Rows], Kind]) -> None:
        self._read = read
        self._kept: tuple[list[int], Kind] | None = None

    def get(self, rows: Rows) -> Kind:
        wanted = torch.as_tensor(rows).tolist()
        if self._kept is None or self._kept[0] != wanted:
            self._kept = None  # not two of them at a time
            self._kept = wanted, self._read(rows)
        return self._kept[1]


class ClassVictim(Victim):
    """The classifier of one domain's pictures. Raises ConfigError for a label or classes that are not the pictures'."""

    def __init__(self, task: str, label: str, weights: Path, data: Path, device: str, limit: int | None) -> None:
        self.task, self.label = task, label
        known = load_classifier_metadata(weights)["classes"]
        if label not in known:
            raise ConfigError(f"{weights}: has no label '{label}'; it has {', '.join(known)}")
        pictures = PictureBatches(data, [label], device, limit)
        if known[label] != list(pictures.classes[label]):
            raise ConfigError(
                f"{weights}: was trained for other classes of '{label}' than {data} has; train it on the same pictures"
            )
        self._batches: _Latest[PictureBatch] = _Latest(pictures.get)
        self.count, self.size = pictures.count, pictures.size
        self.classes = tuple(known[label])
        self._network = _frozen(load_classifier(weights, device), self.size, device)

    def batch(self, rows: Rows) -> PictureBatch:
        """The pictures and labels of these rows."""
        return self._batches.get(rows)

    def images(self, rows: Rows) -> Tensor:
        return self.batch(rows).images

    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 (B, C) of the label, of images (B, 3, H, W) in [0, 1]."""
        found: Tensor = self._network(images)[self.label]
        return found.float()  # cross-entropies near 0 would not survive bfloat16

    def losses(self, images: Tensor, rows: Rows) -> Tensor:
        return F.cross_entropy(self.logits(images), self.batch(rows).labels[self.label], reduction="none")

    def labelled(self, rows: Rows) -> Tensor:
        return torch.ones_like(self.batch(rows).index, dtype=torch.bool)  # readers leave out pictures without a class

    def target_losses(self, images: Tensor, target: int) -> Tensor:
        wanted = torch.full((len(images),), target, dtype=torch.long, device=images.device)
        return F.cross_entropy(self.logits(images), wanted, reduction="none")

    def least_likely_losses(self, images: Tensor, rows: Rows) -> Tensor:
        with torch.no_grad():
            least = self.logits(self.images(rows)).argmin(dim=1)
        return F.cross_entropy(self.logits(images), least, reduction="none")

    def predictions(self, images: Tensor) -> Tensor:
        """Classes long (B,)."""
        return self.logits(images).argmax(dim=1)


class DenseVictim(Victim):
    """One task of a dense model."""

    def __init__(
        self,
        task: str,
        model: MultiTaskModel,
        batches: Batches,
        latest: _Latest[Batch],
        job: Mapping[str, Any],
        class_weights: Tensor | None,
    ) -> None:
        self.task, self._model, self._batches, self.job = task, model, latest, job
        self._class_weights = class_weights
        self.count, self.size = batches.count, batches.size

    def batch(self, rows: Rows) -> Batch:
        """The images, targets and masks of these rows, of all tasks of the family."""
        return self._batches.get(rows)

    def images(self, rows: Rows) -> Tensor:
        return self.batch(rows).images

    def outputs(self, images: Tensor) -> Tensor:
        """The task's output (B, C, H, W) of images (B, 3, H, W) in [0, 1]."""
        found: Tensor = self._model(images, self.task)[self.task]
        return found

    def losses(self, images: Tensor, rows: Rows) -> Tensor:
        return self.losses_of(self.outputs(images), self.batch(rows))

    def labelled(self, rows: Rows) -> Tensor:
        return self.batch(rows).labelled(self.task)[:, 0]

    def losses_of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Losses (B,) of outputs (B, C, H, W), taken as in the model's training; NaN where the task is absent."""
        pixels: Pixels = "all" if self.job["loss_pixels"] == "all" else "valid"
        found = per_sample_losses(
            {self.task: outputs},
            batch,
            self.task,
            pixels=pixels,
            class_weights=self._class_weights,
            normals=self.job.get("normals", "l1"),
        )
        return found[:, 0]


def open_victims(
    kind: str,
    label: str,
    weights: Mapping[str, Path],
    data: Mapping[str, Path],
    device: str,
    limit: int | None = None,
) -> dict[str, Victim]:
    """The victims of a family by task: weights and data (cache files) by task. limit: number of images.

    kind: "classes", a classifier of `label` per task, or "dense", one model of whose tasks these are. Raises
    MissingDataError or BrokenFileError for files that are not what they should be, ConfigError where they do not fit.
    """
    if kind == "classes":
        return {task: ClassVictim(task, label, path, data[task], device, limit) for task, path in weights.items()}
    paths, caches = set(weights.values()), set(data.values())
    if len(paths) != 1 or len(caches) != 1:
        raise ConfigError("tasks of a dense family: expected one model and one data file for all of them")
    return _dense_victims("".join(weights), paths.pop(), caches.pop(), device, limit)


def _dense_victims(tasks: str, weights: Path, data: Path, device: str, limit: int | None) -> dict[str, Victim]:
    description = load_metadata(weights)
    job = description["job"]
    missing = [task for task in tasks if task not in set(job["tasks"])]
    if missing:
        raise ConfigError(f"{weights}: has no task {missing[0]}; it has {job['tasks']}")
    batches = Batches(
        data, tasks, device, limit, curvature=job.get("curvature", "decoded"), depth=job.get("depth", "encoded")
    )
    model = load_model(weights, device)
    if "s" in tasks and model.classes != len(batches.classes):
        raise ConfigError(
            f"{weights}: knows {model.classes} classes, {data} has {len(batches.classes)}; train it on these"
        )
    kept = description.get("class_weights", "null")
    values = None if kept == "null" else torch.tensor(json.loads(kept), device=device)
    frozen = _frozen(model, batches.size, device)
    latest = _Latest(batches.get)
    return {task: DenseVictim(task, frozen, batches, latest, job, values) for task in tasks}


def _frozen(network: Any, size: tuple[int, int], device: str) -> Any:
    """The network with its batch norms folded, in evaluation mode, its weights without gradients."""
    example = torch.full((1, 3, *size), 0.5, device=device)
    return frozen(network, example)
