"""What someone sees of a multi-task network and its images: some of the tasks, and of the other tasks nothing.

A view of the visible tasks is all that an attacker of a hidden task owns. It is opened with the names of those tasks;
heads of others are not read from the file, and neither labels nor names of others are kept, so they are in no object
that a view leads to. Nor is the data file itself, or a picture's name, which in some data sets tells its class.

What is measured on a view is in `headstrong.hidden_measures`, so that an edit there makes no copy forget again.

A task of a classifier is a group of its labels, a task of a dense model one letter. `Outputs` maps each task to what
the network gives for it, e.g. {"hair": ("Black_Hair", "Blond_Hair")} or {"d": ("d",)}.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from headstrong.data.batches import Batch, Batches
from headstrong.data.picture_batches import PictureBatch, PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.learned import majority_right
from headstrong.losses import per_sample_losses
from headstrong.models.partial import Network, load_partial

KINDS = ("classes", "dense")
IN_MEMORY = 64 << 30  # a file that stays open could be asked for other labels: all of a view is in memory
Outputs = Mapping[str, tuple[str, ...]]
Rows = Tensor | Sequence[int]


class View(ABC):
    """Some tasks of one network, and images with the labels of these tasks.

    tasks: their names, in order, which is that of every T below. count: images of size (H, W). file_rows: of these in
    the data file, long (N,). network: as trained, in evaluation mode, its weights without gradients. Losses of an image
    do not depend on others of its batch.
    """

    def __init__(self, network: Network, outputs: Outputs) -> None:
        self.network: Any = network.requires_grad_(False)
        self.outputs_of = {task: tuple(names) for task, names in outputs.items()}
        self.tasks = tuple(self.outputs_of)
        self.count = 0
        self.size = (0, 0)
        self.file_rows = torch.arange(0)

    @abstractmethod
    def batch(self, rows: Rows) -> PictureBatch | Batch:
        """The images and labels of these rows."""

    def rows(self, size: int) -> Iterator[Tensor]:
        """The rows of all images in order, long (B,), in batches of `size` but for the last."""
        yield from torch.arange(self.count).split(size)

    def with_labels(self) -> Tensor:
        """The rows that have a label for at least one task, long (n,), in order."""
        return torch.arange(self.count)

    @abstractmethod
    def losses(self, outputs: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Losses (B, T) against the labels of a batch, differentiable; NaN where an image has no label."""

    @abstractmethod
    def labelled(self, batch: Any) -> Tensor:
        """Bool (B, T): the tasks that each image of a batch has a label for."""

    def features(self, images: Tensor) -> Tensor:
        """What the heads see, float32 (B, ...), of images (B, 3, H, W) in [0, 1]."""
        found: Tensor = self.network.features(images)
        return found.float()

    def outputs(self, features: Tensor) -> dict[str, Tensor]:
        """What the heads say of what `features` gives: logits (B, C) by label, or outputs (B, C, H, W) by letter."""
        found: dict[str, Tensor] = self.network.outputs(features)
        return found


class ClassView(View):
    """Labels of a classifier of pictures, in groups."""

    def __init__(
        self, network: Network, classes: Mapping[str, Sequence[str]], outputs: Outputs, data: Path, limit: int | None
    ) -> None:
        super().__init__(network, outputs)
        labels = [label for names in self.outputs_of.values() for label in names]
        device = next(network.parameters()).device
        self._pictures = PictureBatches(data, labels, device, limit, memory_bytes=IN_MEMORY)
        for label in labels:
            if list(classes[label]) != list(self._pictures.classes[label]):
                raise BrokenFileError(f"{data}: other classes of '{label}' than the classifier knows; make both again")
        self._pictures.release()
        self.count, self.size = self._pictures.count, self._pictures.size
        self.file_rows = torch.arange(self.count)

    def batch(self, rows: Rows) -> PictureBatch:
        return self._pictures.get(rows)

    def losses(self, outputs: Mapping[str, Tensor], batch: PictureBatch) -> Tensor:
        def loss(label: str) -> Tensor:
            return F.cross_entropy(outputs[label].float(), batch.labels[label], reduction="none")

        return self.by_task({label: loss(label) for label in outputs})

    def labelled(self, batch: PictureBatch) -> Tensor:
        # Readers leave out pictures without a class.
        return torch.ones(len(batch.index), len(self.tasks), dtype=torch.bool, device=batch.index.device)

    def majority_errors(self) -> dict[str, NDArray[np.float32]]:
        """By task the errors (N,) of telling every picture the class of each label that most pictures have."""
        wrong = {}
        for label in self._pictures.classes:
            truth = self._pictures.truth(label)
            wrong[label] = ~majority_right(truth)
        return {
            task: np.mean([wrong[name] for name in names], axis=0).astype(np.float32)
            for task, names in self.outputs_of.items()
        }

    def by_task(self, by_label: Mapping[str, Tensor]) -> Tensor:
        """(B, T): means over the labels of each task, of numbers (B,) by label."""
        columns = [torch.stack([by_label[label] for label in names]).mean(dim=0) for names in self.outputs_of.values()]
        return torch.stack(columns, dim=1)


class DenseView(View):
    """Letters of a dense model; losses as in its training."""

    def __init__(
        self,
        network: Network,
        description: Mapping[str, Any],
        outputs: Outputs,
        data: Path,
        limit: int | None,
    ) -> None:
        super().__init__(network, outputs)
        self.letters = "".join(letter for names in self.outputs_of.values() for letter in names)
        if len(self.letters) != len(self.tasks):
            raise ConfigError(f"tasks {dict(outputs)}: a task of a dense model is one letter")
        job = description["job"]
        device = next(network.parameters()).device
        how = {key: job[key] for key in ("curvature", "depth") if key in job}
        self._batches = Batches(data, self.letters, device, limit, memory_bytes=IN_MEMORY, **how)
        if "s" in self.letters and description["classes"] != len(self._batches.classes):
            raise BrokenFileError(
                f"{data}: has {len(self._batches.classes)} classes, the model knows {description['classes']}; train it "
                "on the same data"
            )
        self.file_rows = torch.from_numpy(self._batches.rows)
        self._batches.release()
        kept = json.loads(description.get("class_weights") or "null")
        weights = None if kept is None else torch.tensor(kept, device=device)
        pixels = "all" if job["loss_pixels"] == "all" else "valid"
        self._loss: Any = {"pixels": pixels, "class_weights": weights, "normals": job.get("normals", "l1")}
        self.count, self.size = self._batches.count, self._batches.size

    def batch(self, rows: Rows) -> Batch:
        return self._batches.get(rows)

    def with_labels(self) -> Tensor:
        return self._batches.with_labels()

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return per_sample_losses(dict(outputs), batch, self.letters, **self._loss)

    def labelled(self, batch: Batch) -> Tensor:
        return batch.labelled(self.letters)


def open_view(
    kind: str,
    outputs: Outputs,
    weights: Path,
    data: Path,
    device: torch.device | str,
    *,
    limit: int | None = None,
    heads: bool = True,
    seed: int = 0,
) -> View:
    """The view of these tasks: the network of `weights` and the images of `data`, at most `limit` of them.

    kind: "classes" or "dense". heads: False leaves the real heads out too; the view's start from `seed`. Raises
    MissingDataError or BrokenFileError for files that are not what they should be, ConfigError for tasks that are not.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind '{kind}' is unknown; choose {' or '.join(KINDS)}")
    names = [name for group in outputs.values() for name in group]
    if len(set(names)) < len(names) or not all(outputs.values()):
        raise ConfigError(f"tasks {dict(outputs)}: each needs an output, and no two the same")
    network, description = load_partial(weights, names, heads=heads, seed=seed, device=device)
    found: View
    if kind == "classes":
        found = ClassView(network, description["classes"], outputs, data, limit)
    else:
        found = DenseView(network, description, outputs, data, limit)
    if found.count == 0:
        raise MissingDataError(f"{data}: no images; make it again with at least one")
    return found
