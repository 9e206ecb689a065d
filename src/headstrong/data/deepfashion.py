"""DeepFashion, Category and Attribute Prediction Benchmark (Liu et al., CVPR 2016): photographs of clothes.

The fine annotation, `<root>/Anno_fine/`, has 50 categories and 26 attributes in six groups; each is a label, and each
group as well: the one attribute of it that is present, else "none or several". Without the lists of categories,
pictures have the other labels only. Where the fine annotation is absent, the coarse one is read, `<root>/Anno_coarse/`
(once `Anno/`) with `<root>/Eval/list_eval_partition.txt`: of it the category only, because its thousand attributes were
gathered from captions. The partition is the official one. Images lie in `<root>/img/` or `<root>/Img/img/`; boxes and
landmarks are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstrong.data.duplicates import listed_twice
from headstrong.data.image_checks import SUFFIXES
from headstrong.data.image_folders import first_folder
from headstrong.data.listings import BINARY, Listing, Part, check_number, permuted
from headstrong.data.text_lists import (
    Line,
    body,
    check_files,
    check_same,
    once,
    read_lines,
    split_columns,
    whole,
    wrong,
)
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.picturelabels import DEEPFASHION_ATTRIBUTES, DEEPFASHION_GROUPS, DEEPFASHION_LABELS

GROUPS = DEEPFASHION_GROUPS
ATTRIBUTES = DEEPFASHION_ATTRIBUTES
LABELS = DEEPFASHION_LABELS
CATEGORY = "category"
CATEGORIES = 50
NONE = "none or several"  # the last class of a group
PICTURES = {
    "fine": {"train": 14000, "validation": 2000, "test": 4000},
    "coarse": {"train": 209222, "validation": 40000, "test": 40000},
}
OFFICIAL_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}

Labels = dict[str, NDArray[np.int16]]


def listing(root: Path, part: Part) -> Listing:
    """The pictures of one split in an order that the seed decides, so that the first ones are a fair draw.

    Raises MissingDataError and BrokenFileError, naming file and line, and ConfigError for a validation share.
    """
    part.check_partitioned()
    folder, annotation = image_folder(root), annotated(root)
    names, labels, classes = annotation.read(part.split)
    check_number(root, len(names), f"pictures listed for {part.split}", PICTURES[annotation.kind][part.split])
    for name, one, other in listed_twice({split: annotation.names(split) for split in OFFICIAL_SPLITS}):
        raise BrokenFileError(f"{folder / name}: listed twice, for {one} and {other}; get the lists again")
    row = {name: position for position, name in enumerate(names)}
    order = permuted(names, part.seed, "order", part.split)
    rows = np.array([row[name] for name in order], dtype=np.int64)
    without = "" if CATEGORY in labels else ", without categories, whose lists are not there"
    note = (
        f"DeepFashion in {root}: {len(names)} pictures listed for {part.split} ({annotation.kind} annotation{without})"
    )
    chosen = {label: numbers[rows] for label, numbers in labels.items()}
    return Listing(root, folder, part.split, order, chosen, classes, note)


def check_there(root: Path, domains: Sequence[str] = (), labels: Sequence[str] = ()) -> None:
    """MissingDataError unless the folder of the images and the lists are there.

    labels: those that are used; none: any.
    """
    image_folder(root)
    annotation = annotated(root)
    check_files(*annotation.files())
    if CATEGORY in labels and annotation.kind == "fine":
        check_files(*annotation.categories(), why=", which the label category needs")
    other = next((label for label in labels if label != CATEGORY), None)
    if other is not None and annotation.kind == "coarse":
        raise MissingDataError(f"{root / 'Anno_fine'}: no such folder, which the label {other} needs; place it there")


def image_folder(root: Path) -> Path:
    """The folder that the names of the images are relative to; MissingDataError where there is none."""
    folder = next((place for place in (root, root / "Img") if (place / "img").is_dir()), None)
    if folder is None:
        raise MissingDataError(f"{root / 'img'}: no such folder; unpack img.zip there")
    return folder


@dataclass(frozen=True)
class Annotation:
    """The annotation of the pictures: "fine" or "coarse", its folder, and the partition of the coarse one."""

    kind: str
    folder: Path
    partition: Path

    def read(self, split: str) -> tuple[list[str], Labels, dict[str, list[str]]]:
        """Names, labels and names of the classes of a split; BrokenFileError or MissingDataError, naming the file."""
        official = OFFICIAL_SPLITS[split]
        return _fine(self.folder, official) if self.kind == "fine" else _coarse(self.folder, self.partition, official)

    def names(self, split: str) -> list[str]:
        """The pictures that the lists of a split name; none where there is no list. BrokenFileError as `read`."""
        official = OFFICIAL_SPLITS[split]
        if self.kind == "fine":
            pictures = _lists(self.folder, official)[0]
            return _named(pictures) if pictures.is_file() else []
        return []  # one list has all splits, and each picture once

    def files(self) -> list[Path]:
        """The files that are read."""
        if self.kind == "coarse":
            return [self.folder / "list_category_cloth.txt", self.folder / "list_category_img.txt", self.partition]
        each = [_lists(self.folder, split) for split in OFFICIAL_SPLITS.values()]
        needed = [self.folder / "list_attr_cloth.txt", *(path for lists in each for path in lists[:2])]
        return [*needed, *(self.categories() if has_categories(self.folder) else [])]

    def categories(self) -> list[Path]:
        """The lists of categories of the fine annotation, there or not."""
        return _category_lists(self.folder)


def annotated(root: Path) -> Annotation:
    """The annotation that is there, the fine one where both are; MissingDataError where there is none."""
    fine, coarse = root / "Anno_fine", first_folder(root / "Anno_coarse", root / "Anno")
    if not fine.is_dir() and coarse is None:
        raise MissingDataError(f"{fine}: no such folder; place the fine annotation there, or Anno_coarse/ and Eval/")
    folder = fine if coarse is None or fine.is_dir() else coarse
    return Annotation("fine" if folder == fine else "coarse", folder, root / "Eval" / "list_eval_partition.txt")


# --- the fine annotation -------------------------------------------------------------------------------------------


def _fine(folder: Path, split: str) -> tuple[list[str], Labels, dict[str, list[str]]]:
    pictures, attributes, numbers = _lists(folder, split)
    names = _named(pictures)
    order = _attribute_names(folder / "list_attr_cloth.txt")
    values = _attribute_values(attributes, len(names), pictures)
    labels: Labels = {}
    classes: dict[str, list[str]] = {}
    if has_categories(folder):
        classes[CATEGORY] = _categories(folder)
        labels[CATEGORY] = _category_numbers(numbers, len(names), pictures)
    labels |= {name: values[:, order.index(name)] for name in ATTRIBUTES}
    classes |= {name: list(BINARY) for name in ATTRIBUTES}
    for group, members in GROUPS.items():
        labels[group] = _only_one(labels, members)
        classes[group] = [*members, NONE]
    return names, labels, classes


def _named(path: Path) -> list[str]:
    """The pictures that a list of a split names."""
    named = body(path, read_lines(path), lambda text: "/" not in text)
    return list(once(path, [(number, _image(path, (number, text))) for number, text in named]))


def has_categories(folder: Path) -> bool:
    """Whether any list of categories is there: without one, pictures of the fine annotation have no category."""
    return any(path.is_file() for path in _category_lists(folder))


def _category_lists(folder: Path) -> list[Path]:
    return [folder / "list_category_cloth.txt", *(_lists(folder, split)[2] for split in OFFICIAL_SPLITS.values())]


def _lists(folder: Path, split: str) -> list[Path]:
    """The lists of a split: pictures, attributes, categories."""
    places = (folder / "split", folder, folder / split)
    place = next((one for one in places if (one / f"{split}.txt").is_file()), places[0])
    return [place / f"{split}{kind}.txt" for kind in ("", "_attr", "_cate")]


def _only_one(labels: Mapping[str, NDArray[np.int16]], members: tuple[str, ...]) -> NDArray[np.int16]:
    """Number (N,) of the one attribute of a group that is present; that of "none or several" where not just one is."""
    present = np.stack([labels[name] for name in members], axis=1)
    return np.where(present.sum(axis=1) == 1, present.argmax(axis=1), len(members)).astype(np.int16)


def _attribute_names(path: Path) -> list[str]:
    """The attributes in the order of the columns; some distributions write spaces in their names."""
    lines = body(path, read_lines(path), lambda text: "_name" in text.split()[0])
    types = {group: number for number, group in enumerate(GROUPS, 1)}
    named = []
    for number, text in lines:
        *words, kind = text.split()
        name = "_".join(words)
        if name not in _GROUP_OF:
            raise wrong(path, number, f"unknown attribute '{name}'", f"one of {len(ATTRIBUTES)}")
        if kind != str(types[_GROUP_OF[name]]):
            raise wrong(path, number, f"{name} is of type '{kind}'", f"{types[_GROUP_OF[name]]} ({_GROUP_OF[name]})")
        named.append((number, name))
    found = list(once(path, named))
    if len(found) != len(ATTRIBUTES):
        raise BrokenFileError(f"{path}: {len(found)} attributes, expected {len(ATTRIBUTES)}; get the file again")
    return found


def _attribute_values(path: Path, count: int, pictures: Path) -> NDArray[np.int16]:
    """0 or 1 (N, 26), in the order of the list of attributes."""
    lines = body(path, read_lines(path), lambda text: not _numeric(text))
    values = np.zeros((len(lines), len(ATTRIBUTES)), dtype=np.int16)
    for position, line in enumerate(lines):
        found = split_columns(path, line, len(ATTRIBUTES))
        strange = next((value for value in found if value not in ("0", "1")), None)
        if strange is not None:
            raise wrong(path, line[0], f"'{strange}' in column {found.index(strange) + 1}", "0 or 1")
        values[position] = [value == "1" for value in found]
    _check_rows(path, len(lines), count, pictures)
    return values


def _category_numbers(path: Path, count: int, pictures: Path) -> NDArray[np.int16]:
    """Category (N,) from 0; the file counts from 1."""
    lines = read_lines(path)
    # A count looks like a row: it is one more than there are pictures, and says how many there are.
    counted = len(lines) == count + 1 and lines[0][1] == str(count)
    named = any(not _numeric(text) for _, text in lines[:2])
    rows = body(path, lines, lambda text: not _numeric(text)) if counted or named else lines
    numbers = [
        whole(path, line[0], split_columns(path, line, 1)[0], range(1, CATEGORIES + 1), "category") - 1 for line in rows
    ]
    _check_rows(path, len(numbers), count, pictures)
    return np.array(numbers, dtype=np.int16)


def _check_rows(path: Path, found: int, count: int, pictures: Path) -> None:
    if found != count:
        raise BrokenFileError(f"{path}: {found} rows, expected {count}, one for each picture of {pictures.name}")


def _numeric(text: str) -> bool:
    """Whether a line begins with a number, and so has values, not the names of columns."""
    return text.split()[0].removeprefix("-")[:1].isdigit()


# --- the coarse annotation, and what both have ---------------------------------------------------------------------


def _coarse(folder: Path, partition: Path, split: str) -> tuple[list[str], Labels, dict[str, list[str]]]:
    categories = _categories(folder)
    path = folder / "list_category_img.txt"
    number_of, lines = {}, []
    for line in body(path, read_lines(path), lambda text: "/" not in text):
        name, number = split_columns(path, line, 2)
        number_of[_image(path, (line[0], name))] = (
            whole(path, line[0], number, range(1, CATEGORIES + 1), "category") - 1
        )
        lines.append((line[0], name))
    chosen, listed = [], []
    for line in body(partition, read_lines(partition), lambda text: "/" not in text):
        name, status = split_columns(partition, line, 2)
        if status not in OFFICIAL_SPLITS.values():
            raise wrong(partition, line[0], f"'{status}'", "train, val or test")
        listed.append((line[0], name))
        if status == split:
            chosen.append(name)
    check_same(path, once(path, lines), partition, once(partition, listed))
    numbers = np.array([number_of[name] for name in chosen], dtype=np.int16)
    return chosen, {CATEGORY: numbers}, {CATEGORY: categories}


def _categories(folder: Path) -> list[str]:
    path = folder / "list_category_cloth.txt"
    named = []
    for line in body(path, read_lines(path), lambda text: "_name" in text.split()[0]):
        name, kind = split_columns(path, line, 2)
        whole(path, line[0], kind, range(1, 4), "type")
        named.append((line[0], name))
    found = list(once(path, named))
    if len(found) != CATEGORIES:
        raise BrokenFileError(f"{path}: {len(found)} categories, expected {CATEGORIES}; get the file again")
    return found


def _image(path: Path, line: Line) -> str:
    """The name of an image in a line; it may not lead out of the folder of images."""
    name = line[1]
    if not (name.startswith("img/") and name.lower().endswith(SUFFIXES)) or ".." in name.split("/"):
        raise wrong(path, line[0], f"'{name}'", "the path of an image, img/...")
    return name
