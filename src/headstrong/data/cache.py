"""The cache: one HDF5 file per split with everything a network reads, encoded once and kept in compact integers.

    /rgb              uint8  (N, 3, H, W)   images
    /targets/<letter> uint16 (N, C, H, W)   encoded = low + (high - low) * code / 65535, with attributes low and high
    /targets/s        uint8  (N, H, W)      class numbers, 0 = unlabelled
    /valid            uint8  (N, H, W)      1 where the depth is measured
    /present/<letter> uint8  (N,)           1 where a frame has this label; absent where all frames have it
    /index            str    (N,)           name of each frame

The task A (autoencoding) is the image itself and is not stored. File attributes: format, dataset, split, classes
(JSON), settings (JSON), code (digest of the code that made it), complete, digest (of the names and of the other
attributes). Equal content gives equal bytes.
The reasons for chunks and compression, with measurements, are in docs/cache.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong import tasks
from headstrong.data.hdf5_files import REMEDY, Indices, RowFile, create_numbers
from headstrong.data.row_parts import Inputs, Parts, Row, RowPlan, Samples, new_file
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.provenance import settings_json

FORMAT = "headstrong-cache-1"
STORED = tuple(letter for letter in tasks.TASKS if letter != "A")
LEVELS = 65535  # steps of the 16-bit fixed point
RawSample = Mapping[str, Any]  # arrays, or None


def write_split(
    path: Path,
    samples: Samples[tuple[str, RawSample]],
    *,
    count: int,
    size: tuple[int, int],
    dataset: str,
    split: str,
    classes: list[str],
    settings: dict[str, Any],
    code: str,
    inputs: Inputs | None = None,
) -> dict[str, int]:
    """Write one split, a sample at a time: memory does not grow with `count`.

    samples: `count` pairs of a name and a raw sample (data contract: rgb, s, d, D, n, p, k, K, e, E, r at `size`; None
    for a label that the data set lacks for this image). It may also be a function that gives the samples from a row on:
    then a killed build goes on where it was; inputs: a digest of the files read for a range of rows (`row_parts`).
    Returns for how many samples a label is absent, by letter.
    classes: names of the classes, classes[0] = "unlabelled". settings: what decided the content; code: its digest.
    The file appears under `path` only when whole. Raises ValueError, naming the sample, when one is not as promised
    (a defect of the data source, not of the user), and ConfigError for a task that nothing gives a label.
    """
    attributes = {
        "dataset": dataset,
        "split": split,
        "classes": json.dumps(classes, ensure_ascii=False),
        "settings": settings_json(settings),
        "code": code,
        "format": FORMAT,
    }
    plan = RowPlan(
        title=f"{dataset} {split}",
        unit="frame",
        count=count,
        arrays={name: (shape[1:], kind) for name, (shape, kind) in _layout(count, size).items()},
        numbers={f"present/{letter}": np.uint8 for letter in STORED},
        facts={**attributes, "size": list(size), "count": count},
    )
    with Parts(path, plan, samples, inputs) as parts:
        parts.fill(lambda sample: _row(*sample, size, len(classes)))
        present = parts.numbers()
        with new_file(path) as file:
            parts.move_into(file, attributes)
            _add_bounds(file)
            for name, numbers in present.items():
                if not numbers.all():
                    create_numbers(file, name, numbers)
    return {name[-1]: int((numbers == 0).sum()) for name, numbers in present.items() if not numbers.all()}


def _layout(count: int, size: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Shape and type of every array of a file."""
    layout: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "rgb": ((count, 3, *size), np.uint8),
        "valid": ((count, *size), np.uint8),
    }
    for letter in STORED:
        channels = tasks.TASKS[letter].channels
        layout[f"targets/{letter}"] = (
            ((count, *size), np.uint8) if channels is None else ((count, channels, *size), np.uint16)
        )
    return layout


def _add_bounds(file: h5py.File) -> None:
    for letter in STORED:
        if letter != "s":
            file[f"targets/{letter}"].attrs["low"] = tasks.TASKS[letter].low
            file[f"targets/{letter}"].attrs["high"] = tasks.TASKS[letter].high


def _row(name: str, raw: RawSample, size: tuple[int, int], classes: int) -> Row:
    _check_sample(name, raw, size, classes)
    layout = _layout(1, size)
    arrays: dict[str, NDArray[Any]] = {"rgb": raw["rgb"], "valid": measured(raw, size)}
    for letter in STORED:
        target = f"targets/{letter}"
        if raw[letter] is None:
            arrays[target] = np.zeros(layout[target][0][1:], layout[target][1])
        elif letter == "s":
            arrays[target] = raw["s"]
        else:
            encoded = tasks.encode(letter, raw[letter])
            if not np.isfinite(encoded).all():
                raise ValueError(f"sample {name}: {letter} holds numbers that are not finite")
            arrays[target] = to_codes(encoded, tasks.TASKS[letter].low, tasks.TASKS[letter].high)
    return Row(name, arrays, {f"present/{letter}": int(raw[letter] is not None) for letter in STORED})


def measured(raw: RawSample, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bool (H, W): where the depth is measured, by z-buffer depth if it is there, else by Euclidean depth.

    Without either no hole is known, and every pixel counts.
    """
    depth = raw["D"] if raw["d"] is None else raw["d"]
    return np.ones(size, dtype=bool) if depth is None else tasks.depth_is_valid(depth)


def _check_sample(name: str, raw: RawSample, size: tuple[int, int], classes: int) -> None:
    for key in ("rgb", *STORED):
        if key in STORED and key in raw and raw[key] is None:
            continue
        if key not in raw:
            raise ConfigError(
                f"sample {name}: no label of task {key!r}: the reader gives none, and there is no recipe for it in "
                "src/headstrong/data/labels.py; add one of them (docs/howto/task.md)"
            )
        channels = 3 if key == "rgb" else tasks.TASKS[key].channels or 1
        shape = (channels, *size) if channels > 1 else size
        if raw[key].shape != shape or (key in ("rgb", "s") and raw[key].dtype != np.uint8):
            found = f"{raw[key].dtype} {raw[key].shape}"
            raise ValueError(f"sample {name}: {key} is {found}, expected shape {shape} (rgb and s as uint8)")
    if raw["s"] is not None and raw["s"].size and int(raw["s"].max()) >= classes:
        raise ValueError(f"sample {name}: class number {raw['s'].max()}, but there are {classes} classes")


def to_codes(encoded: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.uint16]:
    """16-bit codes of encoded targets in [low, high]: off by at most half a step, (high - low) / 131070."""
    return np.rint((encoded.astype(np.float64) - low) / (high - low) * LEVELS).astype(np.uint16)


def from_codes(codes: NDArray[np.uint16], low: float, high: float) -> NDArray[np.float32]:
    """Encoded targets float32 from 16-bit codes: the inverse of `to_codes`, exact at both ends."""
    # In this order 65535 gives `high` itself, not its neighbour.
    return codes.astype(np.float32) / np.float32(LEVELS) * np.float32(high - low) + np.float32(low)


class SplitFile(RowFile):
    """One split, opened read-only and checked first: `with SplitFile(path) as split: split.read_images([3, 1, 3])`.

    Raises MissingDataError where there is no file, BrokenFileError where it is truncated, incomplete or foreign; both
    name the file and say what to do. Indices may come in any order and more than once; IndexError outside 0..N-1.

    count: samples N. size: (H, W). classes: names, [0] = "unlabelled". names: of the frames.
    dataset, split, code: as written. settings: what decided the content.
    """

    FORMAT = FORMAT
    TITLE = "data cache"

    def _load_header(self, attributes: dict[str, Any]) -> None:
        super()._load_header(attributes)
        self._check_layout(_layout(self.count, self.size))
        for letter in STORED:
            # No digest covers them, and labels on another scale would look like labels.
            if letter != "s" and self.bounds(letter) != (tasks.TASKS[letter].low, tasks.TASKS[letter].high):
                raise BrokenFileError(f"{self.path}: targets/{letter}: low and high are not the task's; {REMEDY}")
        self.classes: list[str] = json.loads(attributes["classes"])
        absent = list(self._file["present"]) if "present" in self._file else []
        self._check_layout({f"present/{letter}": ((self.count,), np.uint8) for letter in absent})
        self._present = {letter: self._file[f"present/{letter}"][:].astype(np.bool_) for letter in absent}

    @property
    def incomplete(self) -> str:
        """Letters of the tasks whose label some frame lacks."""
        return "".join(letter for letter in STORED if letter in self._present)

    def read_present(self, letter: str, indices: Indices) -> NDArray[np.bool_]:
        """Bool (B,): True where a frame has this label; all True for a task that no frame lacks."""
        rows = self._rows(indices)
        return self._present[letter][rows] if letter in self._present else np.ones(len(rows), dtype=np.bool_)

    def bounds(self, letter: str) -> tuple[float, float]:
        """(low, high) of a target's fixed point; KeyError for s and A, which have none."""
        attributes = self._file[f"targets/{letter}"].attrs
        return float(attributes["low"]), float(attributes["high"])

    def read_valid(self, indices: Indices) -> NDArray[np.bool_]:
        """Bool (B, H, W): True where the depth is measured."""
        return self._read("valid", indices).astype(np.bool_)

    def read_codes(self, letter: str, indices: Indices) -> NDArray[Any]:
        """What is stored for one task: 16-bit codes (B, C, H, W), or class numbers uint8 (B, H, W) for s."""
        return self._read(f"targets/{letter}", indices)

    def read_target(self, letter: str, indices: Indices) -> NDArray[Any]:
        """Encoded target float32 (B, C, H, W); for s, class numbers uint8 (B, H, W)."""
        if letter == "A":
            return tasks.encode("A", self.read_images(indices))
        codes = self.read_codes(letter, indices)
        return codes if letter == "s" else from_codes(codes, *self.bounds(letter))


def class_frequencies(path: Path) -> NDArray[np.float64]:
    """Share (C,) of each class among the labelled pixels of a split; [0] (unlabelled) is 0, the sum is 1 or 0.

    Raises what `SplitFile` raises.
    """
    with SplitFile(path) as split:
        counts = np.zeros(len(split.classes), dtype=np.int64)
        for block in split.blocks():
            labels = split.read_codes("s", np.asarray(block))
            counts += np.bincount(labels.ravel(), minlength=len(counts))
    counts[0] = 0
    return counts / max(1, counts.sum())
