"""Animals with Attributes 2 (Xian et al., TPAMI 2019): 37,322 photographs of 50 animals.

`<root>/JPEGImages/<class>/*.jpg`. The official splits are of classes, for zero-shot learning; there are none of the
pictures of a class, so that a study holds its own shares out of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstrong.data.image_folders import apart, check_classes, folders, images
from headstrong.data.listings import Listing, Part, check_number, of_classes, permuted
from headstrong.errors import MissingDataError

CLASSES = (
    "antelope", "bat", "beaver", "blue+whale", "bobcat", "buffalo", "chihuahua", "chimpanzee", "collie", "cow",
    "dalmatian", "deer", "dolphin", "elephant", "fox", "german+shepherd", "giant+panda", "giraffe", "gorilla",
    "grizzly+bear", "hamster", "hippopotamus", "horse", "humpback+whale", "killer+whale", "leopard", "lion", "mole",
    "moose", "mouse", "otter", "ox", "persian+cat", "pig", "polar+bear", "rabbit", "raccoon", "rat", "rhinoceros",
    "seal", "sheep", "siamese+cat", "skunk", "spider+monkey", "squirrel", "tiger", "walrus", "weasel", "wolf", "zebra",
)  # fmt: skip
PICTURES = 37322


def listing(root: Path, part: Part) -> Listing:
    """The pictures of one split, the classes, sorted by name, taking turns; `test_share` of each class is for tests,
    `validation_share` of the rest for validation, by a permutation that seed and class decide.

    Raises MissingDataError and BrokenFileError, naming folder or file, and ConfigError for a share that cannot be.
    """
    check_there(root)
    folder = root / "JPEGImages"
    found = images(folder)
    columns = {}
    for name, files in found.items():
        order = permuted(files, part.seed, "split", part.domain, name)
        columns[name] = [f"{name}/{file}" for file in apart(order, part, folder / name)]
    many = sum(map(len, found.values()))
    check_number(folder, many, "pictures", PICTURES)
    note = f"AwA2 in {root}: found {many} of {PICTURES} images in {len(found)} classes"
    return of_classes(root, folder, part.split, columns, list(CLASSES), note)


def check_there(root: Path, domains: Sequence[str] = (), labels: Sequence[str] = ()) -> None:
    """MissingDataError or BrokenFileError unless there is a folder of every class and of no other."""
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: no such folder; unpack AwA2-data.zip and place its JPEGImages there")
    check_classes(folder, folders(folder), CLASSES)
