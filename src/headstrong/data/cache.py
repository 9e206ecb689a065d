"""The cache: one HDF5 file per split with everything a network reads, encoded once and kept in compact integers.

    /rgb              uint8  (N, 3, H, W)   images
    /targets/<letter> uint16 (N, C, H, W)   encoded = low + (high - low) * code / 65535, with attributes low and high
    /targets/s        uint8  (N, H, W)      class numbers, 0 = unlabelled
    /valid            uint8  (N, H, W)      1 where the depth is measured
    /index            str    (N,)           name of each frame

The task A (autoencoding) is the image itself and is not stored. File attributes: format, dataset, split, classes
(JSON), settings (JSON), code (digest of the code that made it), complete. Equal content gives equal bytes.
The reasons for chunks and compression, with measurements, are in docs/cache.md.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong import tasks
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.provenance import atomic_path, settings_json

FORMAT = "headstrong-cache-1"
STORED = tuple(letter for letter in tasks.TASKS if letter != "A")
LEVELS = 65535  # steps of the 16-bit fixed point
# Built-in filters only, so that any HDF5 program reads the file without a plugin; measured in docs/cache.md.
COMPRESSION: Mapping[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
# The structures of HDF5 1.10 (2016) carry checksums. In older ones a damaged index loses samples, which then read as 0.
FILE_FORMAT = ("v110", "v110")
_BLOCK_BYTES = 32 << 20  # what a pass over a whole data set holds in memory

RawSample = Mapping[str, NDArray[Any]]
Indices = Sequence[int] | NDArray[np.integer[Any]]


def write_split(
    path: Path,
    samples: Iterator[tuple[str, RawSample]],
    *,
    count: int,
    size: tuple[int, int],
    dataset: str,
    split: str,
    classes: list[str],
    settings: dict[str, Any],
    code: str,
) -> None:
    """Write one split, a sample at a time: memory does not grow with `count`.

    samples: `count` pairs of a name and a raw sample (data contract: rgb, s, d, D, n, p, k, K, e, E, r at `size`).
    classes: names of the classes, classes[0] = "unlabelled". settings: what decided the content; code: its digest.
    The file appears under `path` only when whole. Raises ValueError, naming the sample, when one is not as promised
    (a defect of the data source, not of the user).
    """
    # No lock: nobody else knows the partial file, and locks fail on some network file systems.
    with atomic_path(path) as partial, h5py.File(partial, "w", libver=FILE_FORMAT, locking=False) as file:
        store = _create(file, count, size)
        written = 0
        for name, raw in _progress(samples, count, f"{dataset} {split}"):
            if written == count:
                raise ValueError(f"{path}: {dataset} gives more than the {count} samples it promised")
            _write_sample(store, written, name, raw, size, len(classes))
            written += 1
        if written != count:
            raise ValueError(f"{path}: {dataset} gave {written} samples, not the {count} it promised")
        file.attrs["dataset"] = dataset
        file.attrs["split"] = split
        file.attrs["classes"] = json.dumps(classes, ensure_ascii=False)
        file.attrs["settings"] = settings_json(settings)
        file.attrs["code"] = code
        file.attrs["format"] = FORMAT
        file.attrs["complete"] = 1


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


def _create(file: h5py.File, count: int, size: tuple[int, int]) -> dict[str, h5py.Dataset]:
    store = {}
    for name, (shape, kind) in _layout(count, size).items():
        # A chunk is one sample: what a shuffled batch reads.
        chunks = (1, *shape[1:]) if count else None
        filters = COMPRESSION if count else {}
        store[name] = file.create_dataset(name, shape, kind, chunks=chunks, track_times=False, **filters)
        if kind is np.uint16:
            task = tasks.TASKS[name[-1]]
            store[name].attrs["low"] = task.low
            store[name].attrs["high"] = task.high
    store["index"] = file.create_dataset("index", (count,), h5py.string_dtype(), track_times=False)
    return store


def _write_sample(
    store: Mapping[str, h5py.Dataset], row: int, name: str, raw: RawSample, size: tuple[int, int], classes: int
) -> None:
    _check_sample(name, raw, size, classes)
    store["index"][row] = name
    store["rgb"][row] = raw["rgb"]
    store["valid"][row] = tasks.depth_is_valid(raw["d"])
    for letter in STORED:
        target = store[f"targets/{letter}"]
        if letter == "s":
            target[row] = raw["s"]
            continue
        encoded = tasks.encode(letter, raw[letter])
        if not np.isfinite(encoded).all():
            raise ValueError(f"sample {name}: {letter} holds numbers that are not finite")
        target[row] = to_codes(encoded, tasks.TASKS[letter].low, tasks.TASKS[letter].high)


def _check_sample(name: str, raw: RawSample, size: tuple[int, int], classes: int) -> None:
    for key in ("rgb", *STORED):
        channels = 3 if key == "rgb" else tasks.TASKS[key].channels or 1
        shape = (channels, *size) if channels > 1 else size
        if key not in raw or raw[key].shape != shape or (key in ("rgb", "s") and raw[key].dtype != np.uint8):
            found = f"{raw[key].dtype} {raw[key].shape}" if key in raw else "missing"
            raise ValueError(f"sample {name}: {key} is {found}, expected shape {shape} (rgb and s as uint8)")
    if raw["s"].size and int(raw["s"].max()) >= classes:
        raise ValueError(f"sample {name}: class number {raw['s'].max()}, but there are {classes} classes")


def to_codes(encoded: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.uint16]:
    """16-bit codes of encoded targets in [low, high]: off by at most half a step, (high - low) / 131070."""
    return np.rint((encoded.astype(np.float64) - low) / (high - low) * LEVELS).astype(np.uint16)


def from_codes(codes: NDArray[np.uint16], low: float, high: float) -> NDArray[np.float32]:
    """Encoded targets float32 from 16-bit codes: the inverse of `to_codes`, exact at both ends."""
    # In this order 65535 gives `high` itself, not its neighbour.
    return codes.astype(np.float32) / np.float32(LEVELS) * np.float32(high - low) + np.float32(low)


class SplitFile:
    """One split, opened read-only and checked first: `with SplitFile(path) as split: split.read_images([3, 1, 3])`.

    Raises MissingDataError where there is no file, BrokenFileError where it is truncated, incomplete or foreign; both
    name the file and say what to do. Indices may come in any order and more than once.

    count: samples N. size: (H, W). classes: names, [0] = "unlabelled". names: of the frames.
    dataset, split, code: as written. settings: what decided the content.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingDataError(f"{self.path}: no such file; run the command that makes the data cache first")
        with _broken_file(self.path):
            # No lock: files are renamed into place when whole, and locks fail on some network file systems.
            self._file = h5py.File(self.path, "r", locking=False)
        try:
            with _broken_file(self.path):
                self._load_header()
        except BaseException:
            self._file.close()
            raise

    def _load_header(self) -> None:
        attributes = dict(self._file.attrs)
        if attributes.get("format") != FORMAT:
            raise BrokenFileError(f"{self.path}: not a data cache of headstrong ({FORMAT}); {_REMEDY}")
        if attributes.get("complete") != 1:
            raise BrokenFileError(f"{self.path}: not written to the end; {_REMEDY}")
        count, _, *size = self._file["rgb"].shape
        self.count: int = int(count)
        self.size: tuple[int, int] = (int(size[0]), int(size[1]))
        for name, (shape, kind) in _layout(self.count, self.size).items():
            if self._file[name].shape != shape or self._file[name].dtype != kind:
                raise BrokenFileError(f"{self.path}: {name} is not {kind.__name__} of shape {shape}; {_REMEDY}")
        self.dataset: str = attributes["dataset"]
        self.split: str = attributes["split"]
        self.code: str = attributes["code"]
        self.classes: list[str] = json.loads(attributes["classes"])
        self.settings: dict[str, Any] = json.loads(attributes["settings"])
        self.names: list[str] = [name.decode() for name in self._file["index"][:]]
        if len(self.names) != self.count:
            raise BrokenFileError(f"{self.path}: {len(self.names)} names for {self.count} samples; {_REMEDY}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> SplitFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def bounds(self, letter: str) -> tuple[float, float]:
        """(low, high) of a target's fixed point; not for s and A."""
        attributes = self._file[f"targets/{letter}"].attrs
        return float(attributes["low"]), float(attributes["high"])

    def read_images(self, indices: Indices) -> NDArray[np.uint8]:
        """Images uint8 (B, 3, H, W)."""
        return self._read("rgb", indices)

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

    def blocks(self) -> Iterator[range]:
        """The indices 0..N-1 in consecutive ranges small enough to read each at once."""
        per_sample = 8 * max(1, self.size[0] * self.size[1])
        step = max(1, _BLOCK_BYTES // per_sample)
        return (range(start, min(start + step, self.count)) for start in range(0, self.count, step))

    def _read(self, name: str, indices: Indices) -> NDArray[Any]:
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.count):
            raise IndexError(f"{self.path}: index {rows.min()}..{rows.max()} asked for, but there are {self.count}")
        data = self._file[name]
        wanted, position = np.unique(rows, return_inverse=True)
        found = np.empty((len(wanted), *data.shape[1:]), data.dtype)
        with _broken_file(self.path):
            # h5py's own reading by index list is slow; neighbours are read together, the rest one by one.
            for first, last in _runs(wanted):
                low = int(wanted[first])
                data.read_direct(found, np.s_[low : low + last - first], np.s_[first:last])
        return found if np.array_equal(position, np.arange(len(wanted))) else found[position]


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of positions in which increasing `rows` go up by one."""
    if len(rows):
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True)


_REMEDY = "delete it and run the command that made it again"


@contextlib.contextmanager
def _broken_file(path: Path) -> Iterator[None]:
    """Turn what h5py raises on damaged files into one line a person can act on."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenFileError(f"{path}: truncated or not a data cache of headstrong ({reason}); {_REMEDY}") from error


def class_frequencies(path: Path) -> NDArray[np.float64]:
    """Share (C,) of each class among the labelled pixels of a split; [0] (unlabelled) is 0, the sum is 1 or 0."""
    with SplitFile(path) as split:
        counts = np.zeros(len(split.classes), dtype=np.int64)
        for block in split.blocks():
            labels = split.read_codes("s", np.asarray(block))
            counts += np.bincount(labels.ravel(), minlength=len(counts))
    counts[0] = 0
    return counts / max(1, counts.sum())


def _progress(samples: Iterator[tuple[str, RawSample]], count: int, title: str) -> Iterator[tuple[str, RawSample]]:
    """Pass samples on, telling how far it is: a bar on a terminal, else one plain line for every tenth."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(samples, total=count, desc=title, unit="frame")
        return
    start = time.monotonic()
    for done, sample in enumerate(samples, 1):
        yield sample
        if done * 10 // max(1, count) > (done - 1) * 10 // max(1, count):
            print(f"{title}: {done} of {count} frames, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
