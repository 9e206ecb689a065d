"""Pictures: one HDF5 file per domain and split with images and the classes that each has, one per label.

    /rgb              uint8 (N, 3, H, W)   images
    /labels/<name>    int16 (N,)           class numbers
    /index            str   (N,)           name of each picture

File attributes: format, dataset, domain, split, classes (JSON, {label: names of its classes}), settings (JSON), code
(digest of the code that made it), complete; and, where pictures were left out because they could not be read, skipped
(JSON, pairs of name and reason). Equal content gives equal bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong.data.hdf5_files import (
    COMPRESSION,
    FILE_FORMAT,
    REMEDY,
    Indices,
    RowFile,
    create_index,
    create_rows,
    promised,
)
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.provenance import atomic_path, settings_json

FORMAT = "headstrong-pictures-1"
log = logging.getLogger(__name__)

Picture = tuple[str, NDArray[np.uint8], Mapping[str, int]]
Classes = Mapping[str, list[str]]


class Skipped(NamedTuple):
    """A picture that could not be read; the reason, one line, names its file."""

    name: str
    reason: str


def write_pictures(
    path: Path,
    samples: Iterator[Picture | Skipped],
    *,
    count: int,
    size: tuple[int, int],
    dataset: str,
    domain: str,
    split: str,
    classes: Classes,
    settings: dict[str, Any],
    code: str,
    shrinks: bool = False,
) -> list[Skipped]:
    """Write the pictures of one domain and split, one at a time: memory grows by the labels only.

    samples: `count` triples of a name, an image uint8 (3, H, W) at `size`, and the class number of every label; where
    the file `shrinks`, there may be `Skipped` ones among them, which it then lacks. Returns those, and logs them.
    classes: the names of each label's classes. settings: what decided the content; code: its digest.
    The file appears under `path` only when whole. Raises ValueError, naming the picture, when one is not as promised
    (a defect of the data source, not of the user), and BrokenFileError where all are skipped.
    """
    source, rows, skipped = f"{dataset} {domain} {split}", 0, list[Skipped]()
    # No lock: nobody else knows the partial file, and locks fail on some network file systems.
    with atomic_path(path) as partial, h5py.File(partial, "w", libver=FILE_FORMAT, locking=False) as file:
        images = create_rows(file, "rgb", (count, 3, *size), np.uint8, shrinks)
        index = create_index(file, count, shrinks)
        labels = {label: np.zeros(count, dtype=np.int16) for label in classes}
        for _, sample in promised(samples, count, path, source, unit="picture"):
            if isinstance(sample, Skipped):
                log.warning("skipped %s: %s", sample.name, sample.reason)
                skipped.append(sample)
                continue
            name, image, numbers = sample
            _check_picture(name, image, numbers, size, classes)
            index[rows] = name
            images[rows] = image
            for label, number in numbers.items():
                labels[label][rows] = number
            rows += 1
        if skipped:
            _cut(file, rows, skipped, source)
        for label, found in labels.items():
            _write_label(file, label, found[:rows])
        file.attrs["dataset"] = dataset
        file.attrs["domain"] = domain
        file.attrs["split"] = split
        file.attrs["classes"] = json.dumps(dict(classes), ensure_ascii=False)
        file.attrs["settings"] = settings_json(settings)
        file.attrs["code"] = code
        file.attrs["format"] = FORMAT
        file.attrs["complete"] = 1
    if shrinks:
        log.info("skipped %d of %d pictures", len(skipped), count)
    return skipped


def _cut(file: h5py.File, rows: int, skipped: list[Skipped], source: str) -> None:
    """Cut the arrays to the pictures that could be read, and note the others."""
    if not rows:
        raise BrokenFileError(f"{source}: none of {len(skipped)} pictures can be read; the first: {skipped[0].reason}")
    for name in ("rgb", "index"):
        file[name].resize(rows, axis=0)
    file.attrs["skipped"] = json.dumps(skipped, ensure_ascii=False)


def _write_label(file: h5py.File, label: str, numbers: NDArray[np.int16]) -> None:
    # Compressed, because only compressed chunks carry a checksum: a class number that changed on disk is noticed.
    chunks, filters = (numbers.shape, COMPRESSION) if len(numbers) else (None, {})
    file.create_dataset(f"labels/{label}", data=numbers, chunks=chunks, track_times=False, **filters)


def _check_picture(
    name: str, image: NDArray[np.uint8], numbers: Mapping[str, int], size: tuple[int, int], classes: Classes
) -> None:
    if image.shape != (3, *size) or image.dtype != np.uint8:
        raise ValueError(f"picture {name}: {image.dtype} {image.shape}, expected uint8 {(3, *size)}")
    if set(numbers) != set(classes):
        raise ValueError(f"picture {name}: labels {sorted(numbers)}, expected {sorted(classes)}")
    for label, number in numbers.items():
        if not 0 <= number < len(classes[label]):
            raise ValueError(f"picture {name}: {label} is class {number}, expected 0..{len(classes[label]) - 1}")


class PictureFile(RowFile):
    """Pictures of one domain and split, opened read-only and checked first.

    `with PictureFile(path) as pictures: pictures.read_images([3, 1, 3])`

    Raises MissingDataError where there is no file, BrokenFileError where it is truncated, incomplete or foreign; both
    name the file and say what to do. Rows may come in any order and more than once.

    count: pictures N. size: (H, W). classes: label -> names of its classes. names: of the pictures.
    dataset, domain, split, code: as written. settings: what decided the content. skipped: pictures that were left out
    because they could not be read.
    """

    FORMAT = FORMAT
    TITLE = "file of pictures"

    def _load_header(self, attributes: dict[str, Any]) -> None:
        super()._load_header(attributes)
        self.domain: str = attributes["domain"]
        self.classes: dict[str, list[str]] = json.loads(attributes["classes"])
        self.skipped = [Skipped(*one) for one in json.loads(attributes.get("skipped", "[]"))]
        self._check_layout({"rgb": ((self.count, 3, *self.size), np.uint8)})
        self._check_layout({f"labels/{label}": ((self.count,), np.int16) for label in self.classes})
        self._labels: dict[str, NDArray[np.int16]] = {label: self._file[f"labels/{label}"][:] for label in self.classes}
        for label, numbers in self._labels.items():
            last = len(self.classes[label]) - 1
            if self.count and (numbers.min() < 0 or numbers.max() > last):
                raise BrokenFileError(
                    f"{self.path}: {label} has classes {numbers.min()}..{numbers.max()}, expected 0..{last}; {REMEDY}"
                )

    def read_labels(self, label: str, indices: Indices) -> NDArray[np.int16]:
        """Class numbers int16 (B,) of one label; ConfigError for a label that the pictures have not got."""
        if label not in self.classes:
            known = ", ".join(self.classes) or "none"
            raise ConfigError(f"{self.path}: the pictures have no label '{label}'; choose from {known}")
        return self._labels[label][self._rows(indices)]
