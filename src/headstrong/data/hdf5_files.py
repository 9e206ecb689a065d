"""What the project's data files in HDF5 have in common: written once and whole, checked before they are read.

A file has samples as rows. /rgb uint8 (N, 3, H, W) and /index str (N,) are in each; what else there is, the module of
its format knows. File attributes in each: format, dataset, split, classes (JSON), settings (JSON), code, complete,
digest (SHA-256 of the other attributes and of the names; all else has checksums of HDF5).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong.data.subsets import spread
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.seeds import derive_seed

# Built-in filters only, so that any HDF5 program reads the file without a plugin; measured in docs/cache.md.
COMPRESSION: Mapping[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
# The structures of HDF5 1.10 (2016) carry checksums. In older ones a damaged index loses samples, which then read as 0.
FILE_FORMAT = ("v110", "v110")
REMEDY = "delete it and run the command that made it again"
DIGEST = "digest"  # the attribute with a digest of all other attributes and of the names
_BLOCK_BYTES = 32 << 20  # what a pass over a whole data set holds in memory

Indices = Sequence[int] | NDArray[np.integer[Any]]
Layout = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
Sample = TypeVar("Sample")


def create_rows(file: h5py.File, name: str, shape: tuple[int, ...], kind: type[np.generic]) -> h5py.Dataset:
    """An empty array of samples (N, ...), compressed; a chunk is one sample: what a shuffled batch reads."""
    chunks, filters = ((1, *shape[1:]), COMPRESSION) if shape[0] else (None, {})
    return file.create_dataset(name, shape, kind, chunks=chunks, track_times=False, **filters)


def create_numbers(file: h5py.File, name: str, numbers: NDArray[Any]) -> None:
    """An array of one number for each sample."""
    # Compressed, because only compressed chunks carry a checksum: a number that changed on disk is noticed.
    chunks, filters = (numbers.shape, COMPRESSION) if len(numbers) else (None, {})
    file.create_dataset(name, data=numbers, chunks=chunks, track_times=False, **filters)


def create_index(file: h5py.File, count: int) -> h5py.Dataset:
    """The empty /index of `count` names."""
    return file.create_dataset("index", (count,), h5py.string_dtype(), track_times=False)


class NameDigest:
    """A digest of the names of all samples, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, names: Sequence[str]) -> None:
        """The names that come next."""
        self._digest.update("".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"))

    def of(self, attributes: Mapping[str, Any]) -> str:
        """The digest of the names and of the attributes of their file, but for the digest itself."""
        told = {key: value if isinstance(value, str) else int(value) for key, value in attributes.items()}
        told.pop(DIGEST, None)
        text = json.dumps(told, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(f"{self._digest.hexdigest()}\n{text}".encode("utf-8", "surrogateescape")).hexdigest()


def seal(file: h5py.File, attributes: Mapping[str, Any], names: NameDigest) -> None:
    """Write the attributes of a file that is whole, and a digest of them and of the names.

    HDF5 keeps texts in a heap that has no checksum.
    """
    told = {**attributes, "complete": 1}
    for key, value in told.items():
        file.attrs[key] = value
    file.attrs[DIGEST] = names.of(told)


def promised(
    samples: Iterator[Sample], count: int, path: Path, source: str, unit: str = "frame", first: int = 0
) -> Generator[tuple[int, Sample], None, None]:
    """(row, sample) of exactly `count` samples; ValueError, naming `path` and `source`, when there are more or fewer.

    Tells how far it is: a bar on a terminal, else one plain line for every tenth. unit: what a sample is called there.
    first: the row of the first of `samples`; those before it are there already.
    """
    found = first
    for sample in _progress(samples, count, source, unit, first):
        if found == count:
            raise ValueError(f"{path}: {source} gives more than the {count} samples it promised")
        yield found, sample
        found += 1
    if found != count:
        raise ValueError(f"{path}: {source} gave {found} samples, not the {count} it promised")


def _progress(samples: Iterator[Sample], count: int, title: str, unit: str, first: int) -> Iterator[Sample]:
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(samples, total=count, initial=first, desc=title, unit=unit)
        return
    start = time.monotonic()
    for done, sample in enumerate(samples, first + 1):
        yield sample
        if done * 10 // max(1, count) > (done - 1) * 10 // max(1, count):
            seconds = time.monotonic() - start
            print(f"{title}: {done} of {count} {unit}s, {seconds:.0f} s", file=sys.stderr, flush=True)


class RowFile:
    """A data file, opened read-only and checked first; a context manager. A format is a subclass.

    Raises MissingDataError where there is no file, BrokenFileError where it is truncated, incomplete or foreign; both
    name the file and say what to do.

    count: samples N. size: (H, W). names: of the samples. dataset, split, code: as written. settings: what decided the
    content. rows: of the samples in the file, int64 (N,).

    limit: the file as if it had no more samples than that: `subset_rows` of it.
    """

    FORMAT: ClassVar[str]
    TITLE: ClassVar[str]  # what the format is called in messages

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingDataError(f"{self.path}: no such file; run the command that makes the {self.TITLE} first")
        with self._broken():
            # No lock: files are renamed into place when whole, and locks fail on some network file systems.
            self._file = h5py.File(self.path, "r", locking=False)
        try:
            with self._broken():
                attributes = dict(self._file.attrs)
                self._load_header(attributes)
                self._check_digest(attributes)
                self._keep(limit)
        except BaseException:
            self._file.close()
            raise

    def _load_header(self, attributes: dict[str, Any]) -> None:
        """Check the file and take what its attributes say; subclasses take more."""
        if attributes.get("format") != self.FORMAT:
            raise BrokenFileError(f"{self.path}: not a {self.TITLE} of headstrong ({self.FORMAT}); {REMEDY}")
        if attributes.get("complete") != 1:
            raise BrokenFileError(f"{self.path}: not written to the end; {REMEDY}")
        count, _, *size = self._file["rgb"].shape
        self.count: int = int(count)
        self.size: tuple[int, int] = (int(size[0]), int(size[1]))
        self.dataset: str = attributes["dataset"]
        self.split: str = attributes["split"]
        self.code: str = attributes["code"]
        self.settings: dict[str, Any] = json.loads(attributes["settings"])
        self.names: list[str] = [name.decode() for name in self._file["index"][:]]
        if len(self.names) != self.count:
            raise BrokenFileError(f"{self.path}: {len(self.names)} names for {self.count} samples; {REMEDY}")

    def _check_digest(self, attributes: dict[str, Any]) -> None:
        names = NameDigest()
        names.add(self.names)
        if attributes.get(DIGEST) != names.of(attributes):
            raise BrokenFileError(f"{self.path}: its names or attributes were altered; {REMEDY}")

    def _keep(self, limit: int | None) -> None:
        self.rows = subset_rows(self, self.count if limit is None else limit)
        self.names = [self.names[row] for row in self.rows]
        self.count = len(self.names)

    def _check_layout(self, layout: Layout) -> None:
        """BrokenFileError where an array is absent, or not of the shape and type it should have."""
        for name, (shape, kind) in layout.items():
            if name not in self._file or self._file[name].shape != shape or self._file[name].dtype != kind:
                raise BrokenFileError(f"{self.path}: {name} is not {kind.__name__} of shape {shape}; {REMEDY}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read_images(self, indices: Indices) -> NDArray[np.uint8]:
        """Images uint8 (B, 3, H, W) of these rows; they may come in any order and more than once.

        Raises IndexError outside 0..N-1, BrokenFileError where the file is damaged.
        """
        return self._read("rgb", indices)

    def blocks(self) -> Iterator[range]:
        """The indices 0..N-1 in consecutive ranges small enough to read each at once."""
        per_sample = 8 * max(1, self.size[0] * self.size[1])
        step = max(1, _BLOCK_BYTES // per_sample)
        return (range(start, min(start + step, self.count)) for start in range(0, self.count, step))

    def _rows(self, indices: Indices) -> NDArray[np.int64]:
        """The rows of these samples in the file; IndexError for one that is not among the samples."""
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.count):
            raise IndexError(f"{self.path}: index {rows.min()}..{rows.max()} asked for, but there are {self.count}")
        return self.rows[rows]

    def _read(self, name: str, indices: Indices) -> NDArray[Any]:
        data = self._file[name]
        wanted, position = np.unique(self._rows(indices), return_inverse=True)
        found = np.empty((len(wanted), *data.shape[1:]), data.dtype)
        with self._broken():
            # h5py's own reading by index list is slow; neighbours are read together, the rest one by one.
            for first, last in _runs(wanted):
                low = int(wanted[first])
                data.read_direct(found, np.s_[low : low + last - first], np.s_[first:last])
        return found if np.array_equal(position, np.arange(len(wanted))) else found[position]

    @contextlib.contextmanager
    def _broken(self) -> Iterator[None]:
        """Turn what h5py raises on damaged files into one line a person can act on."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BrokenFileError(
                f"{self.path}: truncated or not a {self.TITLE} of headstrong ({reason}); {REMEDY}"
            ) from error


def subset_rows(file: RowFile, limit: int) -> NDArray[np.int64]:
    """The rows, ascending, that stand for a file of which only `limit` samples are wanted; all of a smaller one.

    Samples that were made or drawn from a seed come in an order of chance: the first ones. The whole of a real data set
    comes in its own order, scene by scene: samples spread over it, the same in every study of these data.
    """
    if limit >= file.count or "seed" in file.settings:
        return np.arange(min(limit, file.count))
    return np.sort(spread(file.count, limit, derive_seed("subset", file.dataset, file.split)))


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of positions in which increasing `rows` go up by one."""
    if len(rows):
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True)
