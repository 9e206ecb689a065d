"""A data file in the making: parts of a few rows beside it, each whole, so that a killed build goes on where it was.

A part is a small HDF5 file, `.<name>.parts/<first row>-<digest of its bytes>.h5`, which appears only when whole. The
samples that come are compressed into parts; when all are there, their compressed rows are moved into one file, one
after the other, so that its bytes do not tell whether the build was ever interrupted. Only one part is open at a time:
memory does not grow with the number of samples, but for their numbers (classes, a byte or two each).

A part is taken up again only where nothing that decides its rows has changed: settings, code, and the files that were
read for these rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong.data.hdf5_files import FILE_FORMAT, NameDigest, create_index, create_rows, promised, seal
from headstrong.provenance import atomic_path, file_digest, settings_json

ROWS = 64  # rows in a part: what a killed build loses at most
log = logging.getLogger(__name__)

Sample = TypeVar("Sample")
Samples = Iterator[Sample] | Callable[[int], Iterator[Sample]]
Inputs = Callable[[range], str]


class Row(NamedTuple):
    """One sample as it is stored: arrays, compressed one by one, and numbers, kept as one array of all samples."""

    name: str
    arrays: Mapping[str, NDArray[Any]]
    numbers: Mapping[str, int]


@dataclass(frozen=True)
class RowPlan:
    """What a file is to hold. title and unit: for messages. count: samples that were promised. arrays: name -> shape
    and type of one row; numbers: names. facts: all that decides the content, as plain data."""

    title: str
    unit: str
    count: int
    arrays: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
    numbers: Mapping[str, type[np.generic]]
    facts: Mapping[str, Any]


class Parts(Generic[Sample]):
    """The parts of one file; `with Parts(path, plan, samples) as parts: parts.fill(convert); parts.move_into(file)`.

    samples: the samples in order, or a function that gives those from a row on. Only with a function can a build be
    taken up again; with an iterator, nothing is left behind when it fails. inputs: a digest of the files that are read
    for a range of rows.
    """

    def __init__(self, path: Path, plan: RowPlan, samples: Samples[Sample], inputs: Inputs | None = None) -> None:
        self.folder = path.with_name(f".{path.stem}.parts")
        self._path, self._plan, self._samples, self._inputs = path, plan, samples, inputs
        self._resumes = callable(samples)

    def __enter__(self) -> Parts[Sample]:
        if not self._resumes:
            self._remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._found = self._usable()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None or not self._resumes or not self._found:
            self._remove()

    def fill(self, convert: Callable[[Sample], Row | tuple[str, str]]) -> None:
        """Take every sample that no part holds yet; `convert` gives its row, or (name, reason) to leave it out.

        Raises ValueError where the samples are more or fewer than the plan promised, and what `convert` raises.
        """
        plan, first = self._plan, ROWS * len(self._found)
        if first:
            first = min(first, plan.count)
            log.info("%s: goes on at %s %d of %d", plan.title, plan.unit, first, plan.count)
        samples = self._samples(first) if callable(self._samples) else self._samples
        rows = promised(samples, plan.count, self._path, plan.title, plan.unit, first)
        with contextlib.closing(rows):
            for start in range(first, plan.count, ROWS):
                self._found.append(self._write(range(start, min(start + ROWS, plan.count)), rows, convert))
            for _ in rows:  # there is none, or the source gives more than it promised
                pass

    def discard(self) -> None:
        """Forget all parts: there is nothing to go on with."""
        self._found = []

    def skipped(self) -> list[tuple[str, str]]:
        """The samples that were left out, as (name, reason)."""
        found: list[tuple[str, str]] = []
        for part in self._opened():
            found += [(name, reason) for name, reason in json.loads(part.attrs["skipped"])]
        return found

    def numbers(self) -> dict[str, NDArray[Any]]:
        """The numbers (N,) of the rows, by name."""
        columns = {name: [np.zeros(0, dtype=kind)] for name, kind in self._plan.numbers.items()}
        for part in self._opened():
            for name, column in columns.items():
                column.append(part[f"numbers/{name}"][:])
        return {name: np.concatenate(column) for name, column in columns.items()}

    def move_into(self, file: h5py.File, attributes: Mapping[str, Any]) -> None:
        """Write the compressed rows of all parts, their names and the attributes to an empty file."""
        count = sum(len(part["index"]) for part in self._opened())
        store = {
            name: create_rows(file, name, (count, *shape), kind) for name, (shape, kind) in self._plan.arrays.items()
        }
        index, digest, first = create_index(file, count), NameDigest(), 0
        for part in self._opened():
            names = [name.decode() for name in part["index"][:]]
            for row in range(len(names)):
                for name, data in store.items():
                    rest = (0,) * (data.ndim - 1)
                    mask, chunk = part[name].id.read_direct_chunk((row, *rest))
                    data.id.write_direct_chunk((first + row, *rest), chunk, mask)
            if names:
                index[first : first + len(names)] = names
            digest.add(names)
            first += len(names)
        seal(file, attributes, digest)

    def _opened(self) -> Iterator[h5py.File]:
        for path in self._found:
            with h5py.File(path, "r", locking=False) as part:
                yield part

    def _write(
        self,
        wanted: range,
        samples: Iterator[tuple[int, Sample]],
        convert: Callable[[Sample], Row | tuple[str, str]],
    ) -> Path:
        numbers: dict[str, list[int]] = {name: [] for name in self._plan.numbers}
        names: list[str] = []
        skipped: list[tuple[str, str]] = []
        draft = self.folder / "draft.h5"
        with h5py.File(draft, "w", libver=FILE_FORMAT, locking=False) as file:
            store = {
                name: create_rows(file, name, (len(wanted), *shape), kind)
                for name, (shape, kind) in self._plan.arrays.items()
            }
            for _ in wanted:
                _, sample = next(samples)
                row = convert(sample)
                if not isinstance(row, Row):
                    skipped.append((row[0], row[1]))
                    continue
                for name, array in row.arrays.items():
                    store[name][len(names)] = array
                for name, number in row.numbers.items():
                    numbers[name].append(number)
                names.append(row.name)
            index = create_index(file, len(names))
            if names:
                index[:] = names
            for name, found in numbers.items():
                file.create_dataset(
                    f"numbers/{name}", data=np.array(found, dtype=self._plan.numbers[name]), track_times=False
                )
            file.attrs["skipped"] = json.dumps(skipped, ensure_ascii=False)
            file.attrs["made_of"] = self._made_of(wanted)
        return draft.rename(self.folder / f"{wanted.start:09d}-{file_digest(draft)[:32]}.h5")

    def _usable(self) -> list[Path]:
        """The parts at the beginning that are whole and of what would be built now; the others are removed."""
        found: list[Path] = []
        for path in sorted(self.folder.iterdir()):
            start = ROWS * len(found)
            wanted = range(start, min(start + ROWS, self._plan.count))
            if wanted and self._is_part(path, wanted):
                found.append(path)
            else:
                path.unlink()
        return found

    def _is_part(self, path: Path, wanted: range) -> bool:
        start, _, digest = path.stem.partition("-")
        # The digest first: what it covers is safe to open.
        if start != f"{wanted.start:09d}" or file_digest(path)[:32] != digest:
            return False
        with h5py.File(path, "r", locking=False) as part:
            return bool(part.attrs["made_of"] == self._made_of(wanted))

    def _made_of(self, wanted: range) -> str:
        facts = settings_json(dict(self._plan.facts))
        read = self._inputs(wanted) if self._inputs else ""
        return hashlib.sha256(f"{wanted}\n{facts}\n{read}".encode()).hexdigest()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to write to, which appears under `path` only when whole."""
    # No lock: nobody else knows the partial file, and locks fail on some network file systems.
    with atomic_path(path) as partial, h5py.File(partial, "w", libver=FILE_FORMAT, locking=False) as file:
        yield file
