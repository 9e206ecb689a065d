"""Pictures: one HDF5 file per domain and split with images and the classes that each has, one per label.

    /rgb              uint8 (N, 3, H, W)   images
    /labels/<name>    int16 (N,)           class numbers
    /index            str   (N,)           name of each picture

File attributes: format, dataset, domain, split, classes (JSON, {label: names of its classes}), settings (JSON), code
(digest of the code that made it), complete, digest (of the names and of the other attributes); and, where pictures
were left out because they could not be read, skipped (JSON, pairs of name and reason). Equal content gives equal bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstrong.data.hdf5_files import REMEDY, Indices, RowFile, create_numbers
from headstrong.data.row_parts import Inputs, Parts, Row, RowPlan, Samples, new_file
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.provenance import settings_json

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
    samples: Samples[Picture | Skipped],
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
    inputs: Inputs | None = None,
) -> list[Skipped]:
    """Write the pictures of one domain and split, one at a time: memory grows by the labels only.

    samples: `count` triples of a name, an image uint8 (3, H, W) at `size`, and the class number of every label; where
    the file `shrinks`, there may be `Skipped` ones among them, which it then lacks. Returns those, and logs them.
    samples may also be a function that gives those from a row on: then a killed build goes on where it was; inputs: a
    digest of the files read for a range of rows (`row_parts`).
    classes: the names of each label's classes. settings: what decided the content; code: its digest.
    The file appears under `path` only when whole. Raises ValueError, naming the picture, when one is not as promised
    (a defect of the data source, not of the user), and BrokenFileError where all are skipped.
    """
    source = f"{dataset} {domain} {split}"
    attributes = {
        "dataset": dataset,
        "domain": domain,
        "split": split,
        "classes": json.dumps(dict(classes), ensure_ascii=False),
        "settings": settings_json(settings),
        "code": code,
        "format": FORMAT,
    }
    plan = RowPlan(
        title=source,
        unit="picture",
        count=count,
        arrays={"rgb": ((3, *size), np.uint8)},
        numbers={f"labels/{label}": np.int16 for label in classes},
        facts={**attributes, "shrinks": shrinks, "size": list(size), "count": count},
    )

    def convert(sample: Picture | Skipped) -> Row | Skipped:
        if isinstance(sample, Skipped):
            log.warning("skipped %s: %s", sample.name, sample.reason)
            return sample
        name, image, numbers = sample
        _check_picture(name, image, numbers, size, classes)
        return Row(name, {"rgb": image}, {f"labels/{label}": int(number) for label, number in numbers.items()})

    with Parts(path, plan, samples, inputs) as parts:
        parts.fill(convert)
        skipped = [Skipped(*one) for one in parts.skipped()]
        if skipped and len(skipped) == count:
            parts.discard()
            raise BrokenFileError(f"{source}: none of {count} pictures can be read; the first: {skipped[0].reason}")
        if skipped:
            attributes["skipped"] = json.dumps(skipped, ensure_ascii=False)
        with new_file(path) as file:
            parts.move_into(file, attributes)
            for name, numbers in parts.numbers().items():
                create_numbers(file, name, numbers)
    if shrinks:
        log.info("skipped %d of %d pictures", len(skipped), count)
    return skipped


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
    name the file and say what to do. Rows may come in any order and more than once; IndexError outside 0..N-1.

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
