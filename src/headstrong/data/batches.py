"""Batches from a cache file: images, targets and masks as tensors on the device that computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstrong.data.cache import LEVELS, SplitFile
from headstrong.data.curvature import CURVATURES, read_as_grey
from headstrong.data.depth import LETTERS, check_depth
from headstrong.errors import ConfigError, MissingDataError
from headstrong.tasks import DEPTH_UNITS_PER_METRE, TASKS

RESIDENT_BYTES = 2 << 30


@dataclass
class Batch:
    """One batch of B samples.

    index: long (B,), rows of the cache file. images: float32 (B, 3, H, W) in [0, 1].
    targets by letter: s long (B, H, W); the others float32 (B, C, H, W), encoded, or d and D in metres.
    masks by letter: bool (B, 1, H, W), True where the pixel counts. absent by letter: bool (B,), True where an image
    has no label for the task; only of tasks whose label some image lacks.
    """

    index: Tensor
    images: Tensor
    targets: dict[str, Tensor]
    masks: dict[str, Tensor]
    absent: dict[str, Tensor] = field(default_factory=dict)

    def labelled(self, tasks: str) -> Tensor:
        """Bool (B, T), columns in the order of `tasks`: whether any pixel of the image counts for the task.

        Where none does, because the label is missing or all of it is masked, the task is absent from the image: it has
        no loss there and is not attacked.
        """
        return torch.stack([self.masks[letter].flatten(1).any(dim=1) for letter in tasks], dim=1)

    def counted(self, letter: str, pixels: str) -> Tensor:
        """Bool (B, H, W): the pixels over which a task is measured; of an image without a label, none.

        "valid": where its mask is True. "all": every one.
        """
        mask = self.masks[letter][:, 0]
        if pixels == "valid":
            return mask
        counted = torch.ones_like(mask)
        return counted & ~self.absent[letter][:, None, None] if letter in self.absent else counted

    def without(self, rows: Tensor) -> Batch:
        """The same images, rows bool (B,) of them without any label."""
        masks = {letter: mask & ~rows[:, None, None, None] for letter, mask in self.masks.items()}
        absent = {letter: rows | self.absent[letter] if letter in self.absent else rows for letter in self.masks}
        return replace(self, masks=masks, absent=absent)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.index.to(device),
            self.images.to(device),
            {letter: target.to(device) for letter, target in self.targets.items()},
            {letter: mask.to(device) for letter, mask in self.masks.items()},
            {letter: absent.to(device) for letter, absent in self.absent.items()},
        )


class Batches:
    """Serves batches of one split for some tasks, by index: `Batches(path, "sd", "cpu").get([0, 5, 2])`.

    The compact integers of the tasks asked for stay on `device` when they take at most `memory_bytes`; otherwise each
    batch is read from the file. Either way integers become floats on the device, and both give the same bits.
    `limit` keeps that many samples only, as `SplitFile` chooses them. `curvature` says what the targets of p are:
    "decoded", the encoded curvatures, or "grey", as the released loader reads them (`data.curvature`); `depth` says
    whether those of d and D are "encoded" or in "metres". Raises what `SplitFile` raises, and ConfigError for another
    `curvature` or `depth`.

    count: samples. rows: of these in the file. size: (H, W). classes: names, [0] = "unlabelled". resident: whether the
    data is on the device.
    """

    def __init__(
        self,
        path: Path,
        tasks: str,
        device: torch.device | str,
        limit: int | None = None,
        memory_bytes: int = RESIDENT_BYTES,
        curvature: str = "decoded",
        depth: str = "encoded",
    ) -> None:
        if curvature not in CURVATURES:
            raise ConfigError(f"curvature '{curvature}' is unknown; choose {' or '.join(CURVATURES)}")
        check_depth(depth)
        self.tasks, self.curvature, self.depth = tasks, curvature, depth
        self.device = torch.device(device)
        self._file = SplitFile(path, limit)
        self._path = path
        self.count, self.rows = self._file.count, self._file.rows
        self.size = self._file.size
        self.classes = self._file.classes
        self._arrays = _arrays_for(tasks)
        self._absent = self._absences()
        self._bounds = {letter: self._file.bounds(letter) for letter in tasks if letter not in "sA"}
        self.resident = self.count * self._bytes_per_sample() <= memory_bytes
        if self.resident:
            self._store = {name: self._load(name) for name in self._arrays}
            self._file.close()

    def close(self) -> None:
        """Close the file, where it is still open."""
        self._file.close()

    def release(self) -> None:
        """Keep nothing of the file but the images and the tasks asked for.

        Raises RuntimeError where the data is not in memory.
        """
        if not self.resident:
            raise RuntimeError(f"{self._path}: the data is read from the file, which cannot be let go")
        self.classes = self.classes if "s" in self.tasks else []
        del self._file

    def with_labels(self) -> Tensor:
        """The samples that have a label for at least one task, long (n,), in order."""
        none = torch.ones(self.count, dtype=torch.bool)
        for letter in self.tasks:
            none &= self._absent[letter].cpu() if letter in self._absent else False
        return torch.nonzero(~none).flatten()

    def get(self, indices: Tensor | Sequence[int]) -> Batch:
        """The batch of these samples, in this order; one may come more than once. IndexError outside 0..count-1."""
        rows = torch.as_tensor(indices, dtype=torch.long, device="cpu")
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= self.count):
            raise IndexError(f"{self._path}: index {rows.min()}..{rows.max()}, but there are {self.count} samples")
        places = rows.to(self.device)
        if self.resident:
            found = {name: store.index_select(0, places) for name, store in self._store.items()}
        else:
            found = {name: _compact(self._read(name, rows.numpy())).to(self.device) for name in self._arrays}
        return self._decode(torch.from_numpy(self.rows[rows.numpy()]).to(self.device), places, found)

    def _decode(self, index: Tensor, places: Tensor, found: dict[str, Tensor]) -> Batch:
        images = found["rgb"].float() / 255
        targets: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for letter in self.tasks:
            if letter == "s":
                targets[letter] = found[letter].long()
            elif letter == "A":
                targets[letter] = images * 2 - 1
            else:
                low, high = self._bounds[letter]
                # The 16 bits were kept as int16 (torch's uint16 knows few operations); here they are unsigned again.
                codes = found[letter].to(torch.int32).bitwise_and_(LEVELS)
                targets[letter] = codes.float().div_(LEVELS).mul_(high - low).add_(low)
                if letter == "p" and self.curvature == "grey":
                    targets[letter] = torch.stack(read_as_grey(*targets[letter].unbind(dim=1)), dim=1)
                elif letter in LETTERS and self.depth == "metres":
                    targets[letter] = metres(targets[letter])
            masks[letter] = self._mask(letter, found, targets)
        absent = {letter: absences.index_select(0, places) for letter, absences in self._absent.items()}
        for letter, absences in absent.items():
            masks[letter] = masks[letter] & ~absences[:, None, None, None]
        return Batch(index, images, targets, masks, absent)

    def _mask(self, letter: str, found: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        kind = TASKS[letter].mask
        if kind == "label":
            return (targets[letter] > 0).unsqueeze(1)
        if kind == "depth":
            return found["valid"].bool().unsqueeze(1)
        return torch.ones((len(found["rgb"]), 1, *self.size), dtype=torch.bool, device=self.device)

    def _absences(self) -> dict[str, Tensor]:
        """Bool (N,) by task, True where an image has no label for it, of tasks whose label some image lacks."""
        rows, found = np.arange(self.count), {}
        for letter in self.tasks:
            absent = ~self._file.read_present(letter, rows)
            if self.count and absent.all():
                self._file.close()
                raise MissingDataError(
                    f"{self._path}: none of {self.count} images has a label for task '{letter}'; place its labels "
                    "(docs/data.md) and build the data again, or leave the task out"
                )
            if absent.any():
                found[letter] = torch.from_numpy(absent).to(self.device)
        return found

    def _bytes_per_sample(self) -> int:
        channels = (TASKS[letter].channels or 1 for letter in self.tasks if letter not in "sA")
        one_byte = 3 + ("s" in self.tasks) + ("valid" in self._arrays)
        return (one_byte + 2 * sum(channels)) * self.size[0] * self.size[1]

    def _read(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        if name == "rgb":
            return self._file.read_images(rows)
        if name == "valid":
            return self._file.read_valid(rows)
        return self._file.read_codes(name, rows)

    def _load(self, name: str) -> Tensor:
        first = _compact(self._read(name, np.arange(min(1, self.count))))
        store = torch.empty((self.count, *first.shape[1:]), dtype=first.dtype, device=self.device)
        for block in self._file.blocks():
            rows = np.asarray(block)[: max(0, self.count - block.start)]
            if len(rows):
                store[rows[0] : rows[-1] + 1] = _compact(self._read(name, rows)).to(self.device)
        return store


def metres(encoded: Tensor) -> Tensor:
    """Metres from encoded depths in [0, 1], any shape: `tasks.decode_depth` in torch."""
    return torch.expm1(encoded * math.log(65536.0)) / DEPTH_UNITS_PER_METRE


def _arrays_for(tasks: str) -> list[str]:
    """What must be read for these tasks: rgb, the letters stored, and valid where a mask needs it."""
    stored = [letter for letter in tasks if letter != "A"]
    needs_depth = any(TASKS[letter].mask == "depth" for letter in tasks)
    return ["rgb", *stored, *(["valid"] if needs_depth else [])]


def _compact(array: NDArray[np.generic]) -> Tensor:
    """The integers as a tensor; 16-bit codes keep their bits and change their type's sign."""
    return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
