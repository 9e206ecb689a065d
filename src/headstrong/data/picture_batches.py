"""Batches from a file of pictures: images and classes as tensors on the device that computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstrong.data.batches import RESIDENT_BYTES
from headstrong.data.pictures import PictureFile


@dataclass
class PictureBatch:
    """One batch of B pictures.

    index: long (B,), rows of the file. images: float32 (B, 3, H, W) in [0, 1]. labels by name: class numbers, long
    (B,).
    """

    index: Tensor
    images: Tensor
    labels: dict[str, Tensor]

    def to(self, device: torch.device | str) -> PictureBatch:
        """The same batch on another device."""
        labels = {label: numbers.to(device) for label, numbers in self.labels.items()}
        return PictureBatch(self.index.to(device), self.images.to(device), labels)


class PictureBatches:
    """Serves batches of pictures for some labels, by row: `PictureBatches(path, ["shape"], "cpu").get([0, 5, 2])`.

    The bytes of the images stay on `device` when they take at most `memory_bytes`; otherwise each batch is read from
    the file. Either way bytes become floats on the device, and both give the same bits. `limit` keeps the first
    pictures only. Raises what `PictureFile` raises, ConfigError for a label that the pictures have not got among them.

    dataset: its name. count: pictures. size: (H, W). classes: label -> names of its classes, of all labels in the file.
    resident: whether the images are on the device.
    """

    def __init__(
        self,
        path: Path,
        labels: Sequence[str],
        device: torch.device | str,
        limit: int | None = None,
        memory_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.device = torch.device(device)
        self._file = PictureFile(path)
        self._path = path
        self.count: int = self._file.count if limit is None else min(limit, self._file.count)
        self.size, self.dataset = self._file.size, self._file.dataset
        self.classes = self._file.classes
        self.resident = self.count * 3 * self.size[0] * self.size[1] <= memory_bytes
        try:
            rows = np.arange(self.count)
            self._labels = {
                label: torch.from_numpy(self._file.read_labels(label, rows)).long().to(self.device) for label in labels
            }
            self._images = self._load() if self.resident else None
        except BaseException:
            self._file.close()
            raise
        if self.resident:
            self._file.close()

    def close(self) -> None:
        """Close the file, where it is still open."""
        self._file.close()

    def release(self) -> None:
        """Keep nothing of the file but the pictures and the labels asked for: no name, no class of another label.

        Raises RuntimeError where the pictures are not in memory.
        """
        if not self.resident:
            raise RuntimeError(f"{self._path}: the pictures are read from the file, which cannot be let go")
        self.classes = {label: self.classes[label] for label in self._labels}
        del self._file

    def truth(self, label: str) -> NDArray[np.int64]:
        """Class numbers (N,) of one of the labels, of all pictures in order; KeyError for a label not asked for."""
        found: NDArray[np.int64] = self._labels[label].cpu().numpy()
        return found

    def get(self, rows: Tensor | Sequence[int]) -> PictureBatch:
        """The batch of these rows, in this order; a row may come more than once. IndexError outside 0..count-1."""
        wanted = torch.as_tensor(rows, dtype=torch.long, device="cpu")
        if len(wanted) and (int(wanted.min()) < 0 or int(wanted.max()) >= self.count):
            raise IndexError(f"{self._path}: row {wanted.min()}..{wanted.max()}, but there are {self.count} pictures")
        index = wanted.to(self.device)
        if self._images is None:
            found = torch.from_numpy(self._file.read_images(wanted.numpy())).to(self.device)
        else:
            found = self._images.index_select(0, index)
        labels = {label: numbers.index_select(0, index) for label, numbers in self._labels.items()}
        return PictureBatch(index, found.float() / 255, labels)

    def in_order(self, size: int) -> Iterator[PictureBatch]:
        """All pictures once, in order, in batches of `size` but for the last."""
        for first in range(0, self.count, size):
            yield self.get(range(first, min(first + size, self.count)))

    def _load(self) -> Tensor:
        store = torch.empty((self.count, 3, *self.size), dtype=torch.uint8, device=self.device)
        for block in self._file.blocks():
            rows = np.asarray(block)[: max(0, self.count - block.start)]
            if len(rows):
                store[rows[0] : rows[-1] + 1] = torch.from_numpy(self._file.read_images(rows)).to(self.device)
        return store
