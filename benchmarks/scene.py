"""What the benchmarks work on: a small data set of rooms, and a network trained on it for a moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from headstrong.data.batches import Batch, Batches
from headstrong.data.build import build_split
from headstrong.jobs import AttackJob, TrainingJob
from headstrong.models import MultiTaskModel, load_model
from headstrong.training import train

EPSILON, STEP = 8 / 255, 2 / 255


@dataclass(frozen=True)
class Scene:
    """A folder with data of rooms and a model of some tasks, made when they are first asked for.

    side: of the square images, in pixels. images: of the training set. batch: images attacked together. epochs: of the
    training. width: of resnet18. tasks: letters of the model; the first three are those that PGD attacks. device: where
    the model computes. precision: of its training. processes: that build the data.
    """

    folder: Path
    side: int = 64
    images: int = 192
    batch: int = 16
    epochs: int = 10
    width: float = 0.25
    tasks: str = "sdnDE"
    device: str = "cpu"
    precision: str = "float32"
    processes: int = 1

    @cached_property
    def train_file(self) -> Path:
        """A cache of rooms to train on."""
        return self._build("train", self.images)

    @cached_property
    def test_file(self) -> Path:
        """A cache of rooms that were not trained on, four batches of them."""
        return self._build("test", 4 * self.batch)

    def _build(self, split: str, count: int) -> Path:
        path = self.folder / f"{split}.h5"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            build_split(self.settings(split, count), path, code="benchmark", processes=self.processes)
        return path

    def settings(self, split: str, count: int) -> dict[str, Any]:
        """What a cache of so many rooms is built from."""
        size = [self.side, self.side]
        return {"source": "rooms", "split": split, "size": size, "count": count, "seed": 0, "antialias": 1}

    @property
    def job(self) -> TrainingJob:
        """How the model is trained: as the default study trains its models."""
        share = 1 / len(self.tasks)
        return TrainingJob(
            id="bench", encoder="resnet18", width=self.width, tasks=self.tasks, weights=(share,) * len(self.tasks),
            epochs=self.epochs, snapshots=(), batch_size=self.batch, shuffle=True, optimizer="adam",
            learning_rate=1e-3, momentum=0.0, weight_decay=0.0, milestones=(), decay=0.1, precision=self.precision,
            loss_pixels="valid", class_weights="uniform", output_start="mean", seed=0,
        )  # fmt: skip

    @cached_property
    def weights(self) -> Path:
        """Weights of the model after its training."""
        path = self.folder / "weights.safetensors"
        if path.is_file():
            return path
        train(
            self.job, self.train_file, path, snapshots={}, history=self.folder / "history.csv",
            work=self.folder / "work", device=self.device, threads=1, checkpoint_minutes=60, code="benchmark",
        )  # fmt: skip
        return path

    @property
    def model(self) -> MultiTaskModel:
        """The trained model as anyone would load it to attack it: evaluation mode, no gradients of its weights."""
        return load_model(self.weights, self.device).eval().requires_grad_(False)

    @cached_property
    def test(self) -> Batch:
        """The first batch of test images with all tasks."""
        return self.batches[0]

    @cached_property
    def batches(self) -> list[Batch]:
        """All test images, in batches."""
        served = Batches(self.test_file, self.tasks, self.device)
        return [served.get(range(first, first + self.batch)) for first in range(0, served.count, self.batch)]

    def many(self, count: int) -> Batch:
        """So many test images; where there are fewer, they come again."""
        served = Batches(self.test_file, self.tasks, self.device)
        return served.get(torch.arange(count) % served.count)


def attack(attacked: str, balancer: str = "total", steps: int = 25) -> AttackJob:
    """PGD in the Linf ball of 8/255 from the clean image, in steps of 2/255."""
    return AttackJob(
        name=f"pgd.{balancer}.{attacked}", family="pgd", balancer=balancer, attacked=attacked, stepper="pgd",
        norm="linf", epsilon=EPSILON, step_size=STEP, steps=steps, start="clean", restarts=1,
    )  # fmt: skip
