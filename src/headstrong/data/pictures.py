"""Pictures: one HDF5 file per domain and split with images and the classes that each has, one per label.

    /rgb              uint8 (N, 3, H, W)   images
    /labels/<name>    int16 (N,)           class numbers
    /index            str   (N,)           name of each picture

File attributes: format, dataset, domain, split, classes (JSON, {label: names of its classes}), settings (JSON), code
(digest of the code that made it), complete. Equal content gives equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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

Picture = tuple[str, NDArray[np.uint8], Mapping[str, int]]
Classes = Mapping[str, list[str]]


def write_pictures(
    path: Path,
    samples: Iterator[Picture],
    *,
    count: int,
    size: tuple[int, int],
    dataset: str,
    domain: str,
    split: str,
    classes: Classes,
    settings: dict[str, Any],
    code: str,
) -> None:
    """Write the pictures of one domain and split, one at a time: memory grows by the labels only.

    samples: `count` triples of a name, an image uint8 (3, H, W) at `size`, and the class number of every label.
    classes: the names of each label's classes. settings: what decided the content; code: its digest.
    The file appears under `path` only when whole. Raises ValueError, naming the picture, when one is not as promised
    (a defect of the data source, not of the user).
    """
    # No lock: nobody else knows the partial file, and locks fail on some network file systems.
    with atomic_path(path) as partial, h5py.File(partial, "w", libver=FILE_FORMAT, locking=False) as file:
        images = create_rows(file, "rgb", (count, 3, *size), np.uint8)
        index = create_index(file, count)
        labels = {label: np.zeros(count, dtype=np.int16) for label in classes}
        numbered = promised(samples, count, path, f"{dataset} {domain} {split}", unit="picture")
        for row, (name, image, numbers) in numbered:
            _check_picture(name, image, numbers, size, classes)
            index[row] = name
            images[row] = image
            for label, number in numbers.items():
                labels[label][row] = number
        for label, found in labels.items():
            _write_label(file, label, found)
        file.attrs["dataset"] = dataset
        file.attrs["domain"] = domain
        file.attrs["split"] = split
        file.attrs["classes"] = json.dumps(dict(classes), ensure_ascii=False)
        file.attrs["settings"] = settings_json(settings)
        file.attrs["code"] = code
        file.attrs["format"] = FORMAT
        file.attrs["complete"] = 1


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
    dataset, domain, split, code: as written. settings: what decided the content.
    """

    FORMAT = FORMAT
    TITLE = "file of pictures"

    def _load_header(self, attributes: dict[str, Any]) -> None:
        super()._load_header(attributes)
        self.domain: str = attributes["domain"]
        self.classes: dict[str, list[str]] = json.loads(attributes["classes"])
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
