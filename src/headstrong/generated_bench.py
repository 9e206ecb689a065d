"""What the victims of a family of generators answer: to clean images, to noise, and to perturbations.

Tables of it are `headstrong.generated`'s. Images are in [0, 1], perturbations and their sizes in the same units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from headstrong.attacks.generators import perturbed
from headstrong.data.batches import Batch
from headstrong.data.constants import constant_outputs
from headstrong.data.picture_batches import PictureBatch
from headstrong.errors import BrokenFileError, DivergedError
from headstrong.generator_training import make_perturbations
from headstrong.jobs import GeneratedJob, GeneratorJob
from headstrong.measures import metres, per_sample_measures
from headstrong.metrics import batch_confusion
from headstrong.models.generators import Generators
from headstrong.radius import SHADES, in_name
from headstrong.seeds import derive_seed
from headstrong.victims import ClassVictim, DenseVictim, Victim

Images = dict[str, Tensor]  # (B, 3, H, W) by task
Rows = dict[str, Tensor]  # long (B,) by task
Leaf = dict[str, NDArray[Any]]  # arrays (N, ...) by their place in the file
Leaves = dict[tuple[str, str], Leaf]  # by name of the victims and task
Change = Callable[[Images, Rows], Images]  # clean images to those that the victims are given


@dataclass(frozen=True)
class Bench:
    """The victims of a family, by name of the victims and task, with the test images and the protocol."""

    job: GeneratedJob
    victims: Mapping[tuple[str, str], Victim]
    device: str

    def own(self, task: str) -> Victim:
        """The victim that a task's perturbations were trained against."""
        return self.victims[self.job.victims, task]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of all images."""
        return self.own(self.job.tasks[0]).size

    @property
    def rounds(self) -> int:
        """Batches of the task that has most images."""
        return -(-max(victim.count for victim in self.victims.values()) // self.job.batch_size)

    def measure(self, change: Change | None, where: str, advance: Callable[[], None]) -> Leaves:
        """All victims on the images that `change` makes; None: on the clean ones. `advance` is called every round.

        Raises DivergedError, which says `where`, for a loss that is not a number where there is a label.
        """
        found: dict[tuple[str, str], list[Leaf]] = defaultdict(list)
        for number in range(self.rounds):
            for place, leaf in self._round(change, self._rows(number)).items():
                found[place].append(leaf)
            advance()
        leaves = {place: _concatenated(found[place]) for place in self.victims}
        for (name, task), leaf in leaves.items():
            broken = np.flatnonzero(leaf.pop("labelled") & ~np.isfinite(leaf["loss"]))
            if len(broken):
                raise DivergedError(
                    f"family {self.job.family!r}, {where}: the loss of task {task!r} of {name!r} is "
                    f"{leaf['loss'][broken[0]]} on image {broken[0]}; train what made it again"
                )
        return leaves

    def _rows(self, number: int) -> Rows:
        """The rows of a round, of the tasks that still have images."""
        start = number * self.job.batch_size
        ends = {task: min(start + self.job.batch_size, self.own(task).count) for task in self.job.tasks}
        return {task: torch.arange(start, end) for task, end in ends.items() if start < end}

    def _batches(self, rows: Rows) -> dict[tuple[str, str], Batch | PictureBatch]:
        """By name of the victims and task; the tasks of a dense model share one."""
        found: dict[tuple[str, str], Batch | PictureBatch] = {}
        for (name, task), victim in self.victims.items():
            shared = found.get((name, self.job.tasks[0])) if self.job.kind == "dense" else None
            if task in rows:
                found[name, task] = shared or victim.batch(rows[task])  # type: ignore[attr-defined]
        return found

    @torch.no_grad()
    def _round(self, change: Change | None, rows: Rows) -> Leaves:
        batches = self._batches(rows)
        clean = {task: batches[self.job.victims, task].images for task in rows}
        given = clean if change is None else change(clean, rows)
        sizes = {task: {} if change is None else _sizes(given[task] - clean[task]) for task in rows}
        return {
            (name, task): self._leaf(self.victims[name, task], batch, given[task]) | sizes[task]
            for (name, task), batch in batches.items()
        }

    def _leaf(self, victim: Victim, batch: Any, images: Tensor) -> Leaf:
        if isinstance(victim, ClassVictim):
            logits = victim.logits(images).float()
            losses = F.cross_entropy(logits, batch.labels[victim.label], reduction="none")
            found: Leaf = {"prediction": logits.argmax(dim=1).cpu().numpy().astype(np.int16), "loss": _numpy(losses)}
            return {**found, "labelled": np.ones(len(images), dtype=bool)}
        labelled = {"labelled": batch.labelled(victim.task)[:, 0].cpu().numpy()}
        return self._dense_leaf(_dense(victim), batch, _dense(victim).outputs(images).float()) | labelled

    def _dense_leaf(self, victim: DenseVictim, batch: Batch, outputs: Tensor) -> Leaf:
        task, pixels = victim.task, self.job.error_pixels
        found = {"loss": _numpy(victim.losses_of(outputs, batch))}
        if task == "s":
            counts = batch_confusion(outputs, batch)
            found["confusion"] = counts.cpu().numpy().astype(np.uint32)
        depth = victim.job.get("depth", "encoded")
        measures = per_sample_measures({task: outputs}, batch, task, pixels=pixels, depth=depth)  # type: ignore[arg-type]
        return found | {f"measures/{name}": _numpy(values) for name, values in measures[task].items()}

    def noise(self, norm: str, epsilon: float) -> Change:
        """Noise in the ball, drawn for each image by itself, so that the size of a batch does not change it.

        linf: uniform. l2: a random direction, as long as the radius, before the image is clamped. In pixel units.
        """

        def draw(task: str, row: int) -> Tensor:
            seed = derive_seed(self.job.seed, "noise", norm, in_name(epsilon), task, row)
            generator = torch.Generator().manual_seed(seed)
            if norm == "linf":
                return 2 * torch.rand((3, *self.size), generator=generator) - 1
            direction = torch.randn((3, *self.size), generator=generator)
            return direction / direction.norm()

        def change(clean: Images, rows: Rows) -> Images:
            drawn = {task: torch.stack([draw(task, row) for row in rows[task].tolist()]) for task in clean}
            return {task: perturbed(images, epsilon * drawn[task].to(images.device)) for task, images in clean.items()}

        return change

    def generated(self, networks: Generators, job: GeneratorJob) -> Change:
        """Every task's own perturbation."""
        if job.mode == "universal":
            fixed = make_perturbations(networks, job, None, self.size, self.device)
            return lambda clean, _: {task: perturbed(images, fixed[task]) for task, images in clean.items()}
        # The networks of all tasks run together: one whose images have come to an end gets its first again.
        spare = {task: self.own(task).images([0]) for task in self.job.tasks}

        def change(clean: Images, _: Rows) -> Images:
            made = make_perturbations(networks, job, {**spare, **clean}, self.size, self.device)
            return {task: perturbed(images, made[task]) for task, images in clean.items()}

        return change

    @torch.no_grad()
    def trivial(self, task: str, train: Path) -> Leaf:
        """The constant predictor of the training images, on the loss of the victims trained against; dense tasks only.

        Raises BrokenFileError where the training images have other classes, TypeError for a classifier.
        """
        victim = _dense(self.own(task))
        switches = {key: victim.job[key] for key in ("depth", "curvature") if key in victim.job}
        pixel = torch.from_numpy(constant_outputs(train, [task], **switches)[task]).to(self.device)
        if task == "s" and len(pixel) != victim.outputs(victim.images([0])).shape[1]:
            raise BrokenFileError(f"{train}: has {len(pixel)} classes, not those of the victim; build the data again")
        leaves = []
        for rows in torch.arange(victim.count).split(self.job.batch_size):
            batch = victim.batch(rows)
            outputs = pixel[None, :, None, None].expand(len(rows), -1, *self.size)
            leaves.append(self._dense_leaf(victim, batch, outputs))
        return _concatenated(leaves)

    def _example_rows(self) -> Rows:
        return {task: torch.arange(min(self.job.examples, self.own(task).count)) for task in self.job.tasks}

    @torch.no_grad()
    def clean_examples(self) -> dict[str, Leaf]:
        """image uint8 (K, 3, H, W), truth and output of the first K images, by task; see `headstrong.generated`."""
        found = {}
        for task, rows in self._example_rows().items():
            victim = self.own(task)
            batch = victim.batch(rows)  # type: ignore[attr-defined]
            found[task] = {
                "image": (batch.images * SHADES).round().to(torch.uint8).cpu().numpy(),
                "truth": _shown_truth(victim, batch),
                "output": _shown_output(victim, batch.images),
            }
        return found

    @torch.no_grad()
    def examples(self, change: Change) -> dict[str, Leaf]:
        """perturbation float32 (K, 3, H, W), in pixel units, and output of the first K images, by task."""
        rows = self._example_rows()
        clean = {task: self.own(task).images(chosen) for task, chosen in rows.items()}
        given = change(clean, rows)
        return {
            task: {
                "perturbation": _numpy(given[task] - clean[task]),
                "output": _shown_output(self.own(task), given[task]),
            }
            for task in self.job.tasks
        }


def _dense(victim: Victim) -> DenseVictim:
    if not isinstance(victim, DenseVictim):
        raise TypeError(f"task {victim.task!r}: expected a dense victim")
    return victim


def _sizes(change: Tensor) -> Leaf:
    flat = change.flatten(1)
    return {"linf": _numpy(flat.abs().amax(dim=1)), "l2": _numpy(flat.norm(dim=1))}


def _concatenated(leaves: list[Leaf]) -> Leaf:
    return {place: np.concatenate([leaf[place] for leaf in leaves]) for place in leaves[0]}


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


def _shown_truth(victim: Victim, batch: Any) -> NDArray[Any]:
    if isinstance(victim, ClassVictim):
        return batch.labels[victim.label].cpu().numpy().astype(np.int16)
    target = batch.targets[victim.task]
    return _shown(_dense(victim), target)


def _shown_output(victim: Victim, images: Tensor) -> NDArray[Any]:
    if isinstance(victim, ClassVictim):
        return victim.predictions(images).cpu().numpy().astype(np.int16)
    output = _dense(victim).outputs(images).float()
    return _shown(_dense(victim), output.argmax(dim=1) if victim.task == "s" else output)


def _shown(victim: DenseVictim, maps: Tensor) -> NDArray[Any]:
    """Class numbers (K, H, W) or maps (K, C, H, W) in the units that people look at."""
    if victim.task == "s":
        return maps.cpu().numpy().astype(np.uint8)
    if victim.task in "dD":
        return _numpy((maps if victim.job.get("depth") == "metres" else metres(maps))[:, 0])
    if victim.task == "n":
        return _numpy(F.normalize(maps, dim=1))
    return _numpy(maps)
