"""A training step beside a plain loop as in the published code, and what it reads: the cache beside PNG files.

The plain loop is what facts about the released code say of it: a `DataLoader` that decodes one PNG per task and image,
one loss per task as a batch mean over all pixels after the mask, one sum, one backward pass, Adam. Without a GPU its
worker processes are left out, as everything has one core there: decoding costs the same wherever it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks import peers
from benchmarks.rows import Row, absent, make_row
from benchmarks.scene import Scene
from benchmarks.timing import interleaved
from headstrong.data.batches import Batches
from headstrong.data.cache import LEVELS, SplitFile
from headstrong.models import build_model, use_channels_last
from headstrong.runtime import reproducible
from headstrong.training import train_step


def write_pictures(cache: Path, folder: Path, tasks: str) -> int:
    """What a cache holds of these tasks as PNG files: rgb, a mask and each channel of a target; returns how many."""
    from PIL import Image  # late: a bare machine may lack it

    with SplitFile(cache) as split:
        for row in range(split.count):
            Image.fromarray(split.read_images([row])[0].transpose(1, 2, 0)).save(_path(folder, row, "rgb"))
            Image.fromarray(split.read_valid([row])[0].astype(np.uint8)).save(_path(folder, row, "valid"))
            for letter in tasks:
                codes = split.read_codes(letter, [row])[0]
                for channel, values in enumerate(codes.reshape(-1, *codes.shape[-2:])):
                    Image.fromarray(values).save(_path(folder, row, f"{letter}{channel}"))
        return split.count


def _path(folder: Path, row: int, name: str) -> Path:
    parent = folder / name
    parent.mkdir(parents=True, exist_ok=True)
    return parent / f"point_{row}.png"


class Pictures(Dataset):
    """Images float32 (3, H, W) in [0, 1], and by letter a target and a mask, decoded from PNG each time."""

    def __init__(self, folder: Path, count: int, tasks: str, bounds: dict[str, tuple[float, float]]) -> None:
        self.folder, self.count, self.tasks, self.bounds = folder, count, tasks, bounds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        image = torch.from_numpy(self._read(row, "rgb").transpose(2, 0, 1).astype(np.float32) / 255)
        valid = torch.from_numpy(self._read(row, "valid") > 0)
        return image, {letter: self._target(row, letter) for letter in self.tasks}, valid

    def _target(self, row: int, letter: str) -> Tensor:
        if letter == "s":
            return torch.from_numpy(self._read(row, "s0").astype(np.int64))
        names = [f"{letter}{channel}" for channel in range(3)]
        planes = [self._read(row, name) for name in names if (self.folder / name).is_dir()]
        low, high = self.bounds[letter]
        return torch.from_numpy(np.stack(planes).astype(np.float32) / LEVELS * (high - low) + low)

    def _read(self, row: int, name: str) -> np.ndarray:
        from PIL import Image

        with Image.open(self.folder / name / f"point_{row}.png") as picture:
            return np.asarray(picture)


def pictures_of(scene: Scene) -> Pictures:
    """The training images of a scene as PNG files."""
    folder = scene.folder / "png"
    count = write_pictures(scene.train_file, folder, scene.tasks)
    with SplitFile(scene.train_file) as split:
        bounds = {letter: split.bounds(letter) for letter in scene.tasks if letter != "s"}
    return Pictures(folder, count, scene.tasks, bounds)


def plain_loop(scene: Scene, pictures: Pictures, batch: int | None = None, workers: int = 0) -> Callable[[], object]:
    """One step of the plain loop, with the next batch; workers: processes that decode PNG."""
    size, on_gpu = batch or scene.batch, scene.device != "cpu"
    # Many passes over few pictures in one go: as over a large data set, the workers never start anew.
    sampler = RandomSampler(pictures, num_samples=max(len(pictures), 256 * size if workers else size))
    loader = DataLoader(
        pictures, size, sampler=sampler, drop_last=True, num_workers=workers, persistent_workers=workers > 0,
        pin_memory=on_gpu,
    )  # fmt: skip
    batches = (batch for _ in cycle([0]) for batch in loader)
    step = _plain_step(scene)

    def next_step() -> None:
        images, targets, valid = next(batches)
        targets = {letter: target.to(scene.device, non_blocking=True) for letter, target in targets.items()}
        step(images.to(scene.device, non_blocking=True), targets, valid.to(scene.device, non_blocking=True))

    return next_step


def plain_loop_from_memory(scene: Scene, batch: int | None = None, held: int = 4) -> Callable[[], object]:
    """One step of the plain loop with the next of a few batches that are on the device already, as floats."""
    served = Batches(scene.train_file, scene.tasks, scene.device)
    size = batch or scene.batch
    found = [served.get(torch.randint(served.count, (size,))) for _ in range(held)]
    batches, step, last = cycle(found), _plain_step(scene), scene.tasks[-1]

    def next_step() -> None:
        one = next(batches)
        step(one.images, one.targets, one.masks[last][:, 0])

    return next_step


def _plain_step(scene: Scene) -> Callable[[Tensor, dict[str, Tensor], Tensor], None]:
    model = _network(scene)
    optimizer = torch.optim.Adam(model.parameters(), lr=scene.job.learning_rate)

    def step(images: Tensor, targets: dict[str, Tensor], valid: Tensor) -> None:
        outputs = model(images)
        losses = [_plain_loss(letter, outputs[letter], targets[letter], valid) for letter in scene.tasks]
        total = torch.stack(losses).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return step


def _plain_loss(letter: str, output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    if letter == "s":
        return (F.cross_entropy(output, target, reduction="none") * (target > 0)).mean()
    return ((output - target).abs() * valid[:, None]).mean()


def our_loop(scene: Scene, batch: int | None = None, *, channels_last: bool = True) -> Callable[[], object]:
    """One step as `headstrong.training` makes it, with the next batch of the cache."""
    job, model, size = scene.job, _network(scene), batch or scene.batch
    model = use_channels_last(model) if channels_last else model
    optimizer = torch.optim.Adam(model.parameters(), lr=job.learning_rate, fused=True)
    batches = Batches(scene.train_file, scene.tasks, scene.device)
    order = torch.cat([torch.randperm(batches.count) for _ in range(-(-size // batches.count))])
    parts = cycle(order.split(size)[: len(order) // size])
    return lambda: train_step(job, model, optimizer, batches.get(next(parts)), None)


def _network(scene: Scene) -> Any:
    with SplitFile(scene.train_file) as split:
        model = build_model("resnet18", scene.tasks, len(split.classes), scene.width)
    return model.to(scene.device).train()


def training_rows(scene: Scene, rounds: int) -> Iterator[Row]:
    """A training step, and the images per second of what feeds it."""
    pictures = pictures_of(scene)
    with reproducible("cpu", 1):
        times = interleaved({"ours": our_loop(scene), "plain": plain_loop(scene, pictures)}, rounds)
    title = f"training step, resnet18, {len(scene.tasks)} tasks, {scene.batch} images {scene.side} x {scene.side}"
    plain = {"peer_name": "a plain loop that decodes PNG, as published", "target": "ratio >= 1.5"}
    yield make_row(title, "s a step", times["ours"], times["plain"], **plain)
    reason = peers.missing("LibMTL")
    yield absent(title, "s a step", reason or f"{peers.titled('LibMTL')}: its trainer asks for a GPU, cuda:0")
    yield from reading_rows(scene, pictures, rounds)


def reading_rows(scene: Scene, pictures: Pictures, rounds: int) -> Iterator[Row]:
    """Images per second with all targets as float tensors: from the cache in memory and on disk, and from PNG."""
    rows = torch.randperm(pictures.count)
    check_reading(scene, pictures)
    ways: dict[str, Batches] = {
        "kept in memory": Batches(scene.train_file, scene.tasks, "cpu"),
        "read from the file each time": Batches(scene.train_file, scene.tasks, "cpu", memory_bytes=0),
    }

    def read(batches: Batches) -> None:
        for part in rows.split(scene.batch):
            batches.get(part)

    def decode() -> None:
        for _ in DataLoader(pictures, scene.batch, sampler=rows.tolist()):
            pass

    with reproducible("cpu", 1):
        work = {name: (lambda batches=batches: read(batches)) for name, batches in ways.items()}
        times = interleaved({**work, "png": decode}, rounds)
    speeds = {name: [len(rows) / seconds for seconds in found] for name, found in times.items()}
    for name in ways:
        target = "ratio >= 20" if name == "kept in memory" else "stated"
        yield make_row(
            f"reading the cache, {name}, {len(scene.tasks)} tasks, {scene.side} x {scene.side}", "images/s",
            speeds[name], speeds["png"], peer_name="decoding PNG", target=target, more_is_better=True,
        )  # fmt: skip


def check_reading(scene: Scene, pictures: Pictures) -> None:
    """Raise RuntimeError where PNG files and cache do not hold the same numbers."""
    batch = Batches(scene.train_file, scene.tasks, "cpu").get([0])
    image, targets, _ = pictures[0]
    same = torch.equal(batch.images[0], image)
    same &= all(torch.allclose(batch.targets[letter][0], targets[letter]) for letter in scene.tasks)
    if not same:
        raise RuntimeError("PNG files and cache hold different numbers: their reading cannot be compared")
