"""CelebA (Liu et al., ICCV 2015): 202,599 photographs of faces with 40 binary attributes, each a label.

`<root>/img_align_celeba/*.jpg`, `<root>/list_attr_celeba.txt` and `<root>/list_eval_partition.txt`; also as they are
handed out, below `Img/`, `Anno/` and `Eval/`. Lists may also be tables with commas, `.csv`, whose first line names the
columns. The partition (0 train, 1 validation, 2 test) is the official one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstrong.data.image_folders import first_folder
from headstrong.data.listings import BINARY, SPLITS, Listing, Part, check_number, permuted
from headstrong.data.text_lists import Line, check_files, check_same, once, read_lines, split_columns, whole, wrong
from headstrong.errors import MissingDataError
from headstrong.picturelabels import CELEBA_LABELS

LABELS = CELEBA_LABELS
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
PICTURES = {"train": 162770, "validation": 19867, "test": 19962}


def listing(root: Path, part: Part) -> Listing:
    """The pictures of one split in an order that the seed decides, so that the first ones are a fair draw.

    Raises MissingDataError and BrokenFileError, naming file and line, and ConfigError for a validation share.
    """
    part.check_partitioned()
    folder, (attributes, partition) = image_folder(root), lists(root)
    lines, values = _attributes(attributes)
    split_of = _partition(partition, attributes, lines)
    row = {name: position for position, name in enumerate(lines)}
    chosen = [name for name in lines if split_of[name] == part.split]
    check_number(root, len(chosen), f"pictures listed for {part.split}", PICTURES[part.split])
    names = permuted(chosen, part.seed, "order", part.split)
    rows = np.array([row[name] for name in names], dtype=np.int64)
    labels = {label: values[rows, column] for column, label in enumerate(LABELS)}
    listed = f"{len(lines)} of {sum(PICTURES.values())} pictures listed, {len(names)} of them for {part.split}"
    note = f"CelebA in {root}: {listed}"
    return Listing(root, folder, part.split, names, labels, {label: list(BINARY) for label in LABELS}, note)


def check_there(root: Path, domains: Sequence[str] = (), labels: Sequence[str] = ()) -> None:
    """MissingDataError unless the folder of the images and both lists are there."""
    image_folder(root)
    check_files(*lists(root))


def image_folder(root: Path) -> Path:
    """The folder of the images, which may lie in one of the same name; MissingDataError if it is missing."""
    folder = first_folder(root / "img_align_celeba", root / "Img" / "img_align_celeba")
    if folder is None:
        raise MissingDataError(f"{root / 'img_align_celeba'}: no such folder; unpack img_align_celeba.zip there")
    return first_folder(folder / folder.name) or folder


def lists(root: Path) -> tuple[Path, Path]:
    """The files of the attributes and of the partition."""
    return _found(root, "Anno", ATTRIBUTES), _found(root, "Eval", PARTITION)


def partition(root: Path) -> dict[str, str]:
    """Name of a picture -> its split; MissingDataError or BrokenFileError, naming the line, as `listing`."""
    attributes, parts = lists(root)
    return _partition(parts, attributes, _attributes(attributes)[0])


def _found(root: Path, folder: str, name: str) -> Path:
    """A list, where it may lie and under both of its names; where it is not, its official place."""
    names = (name, Path(name).with_suffix(".csv").name)
    places = [place / one for one in names for place in (root / folder, root)]
    return next((place for place in places if place.is_file()), root / name)


def _attributes(path: Path) -> tuple[dict[str, int], NDArray[np.int16]]:
    """Name -> number of its line, and whether each picture has each attribute, 0 or 1 (N, 40)."""
    rows = _rows_of_table(path, LABELS) if path.suffix == ".csv" else _rows_of_list(path)
    values = np.zeros((len(rows), len(LABELS)), dtype=np.int16)
    named = []
    for position, line in enumerate(rows):
        name, *found = _columns(path, line, 1 + len(LABELS))
        strange = next((value for value in found if value not in ("1", "-1")), None)
        if strange is not None:
            raise wrong(path, line[0], f"{LABELS[found.index(strange)]} is '{strange}'", "1 or -1")
        values[position] = [value == "1" for value in found]
        named.append((line[0], name))
    return once(path, named), values


def _rows_of_list(path: Path) -> list[Line]:
    """The rows below the number of pictures and the names of the attributes."""
    lines = read_lines(path)
    if len(lines) < 2 or tuple(lines[1][1].split()) != LABELS:
        raise wrong(path, 2, "other names", f"the {len(LABELS)} attributes, {LABELS[0]} to {LABELS[-1]}")
    rows = lines[2:]
    many = whole(path, lines[0][0], lines[0][1], range(10**9), "number of pictures")
    if many != len(rows):
        raise wrong(path, lines[0][0], f"{many} pictures said, {len(rows)} follow", "as many as said")
    return rows


def _rows_of_table(path: Path, names: Sequence[str]) -> list[Line]:
    """The rows below the names of the columns: that of the picture, then these."""
    lines = read_lines(path)
    if not lines or [field.strip() for field in lines[0][1].split(",")][1:] != [*names]:
        raise wrong(path, 1, "other names", f"image_id,{names[0]}{',...' if len(names) > 1 else ''}")
    return lines[1:]


def _columns(path: Path, line: Line, many: int) -> list[str]:
    if path.suffix != ".csv":
        return split_columns(path, line, many)
    return [field.strip() for field in split_columns(path, line, many, ",")]


def _partition(path: Path, attributes: Path, lines: dict[str, int]) -> dict[str, str]:
    """Name -> split."""
    found, named = {}, []
    for line in _rows_of_table(path, ("partition",)) if path.suffix == ".csv" else read_lines(path):
        name, number = _columns(path, line, 2)
        found[name] = SPLITS[whole(path, line[0], number, range(len(SPLITS)), "part")]
        named.append((line[0], name))
    check_same(attributes, lines, path, once(path, named))
    return found
