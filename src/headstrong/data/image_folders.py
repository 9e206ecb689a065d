"""Folders of images, a folder per class, and how the pictures of a class are split.

`<root>/<domain>/<class>/*`, or with `images/` between domain and class. Hidden files, and files without an image's
suffix, do not count. Files that mean an image but cannot be read (a broken link, a `.tif`) are listed, so that the
reader refuses them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstrong.data.duplicates import same_picture
from headstrong.data.image_checks import SUFFIXES, UNREAD, twins
from headstrong.data.listings import Listing, Part, check_number, of_classes, permuted
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError

TOLERATED = 1 / 1000  # share of the training pictures that may have the bytes of a test picture
log = logging.getLogger(__name__)
OFFICIAL = ("train", "test")  # folders of a data set whose test pictures are official

# --- folders -------------------------------------------------------------------------------------------------------


def class_root(root: Path, domain: str) -> Path:
    """The folder that holds a domain's class folders; MissingDataError where there is no such domain."""
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; place the domains there (docs/data.md)")
    folder = root / domain
    if not folder.is_dir():
        there = ", ".join(folders(root)) or "no folders"
        raise MissingDataError(f"{folder}: no such domain; {root} has {there} (docs/data.md says what to place)")
    images = folder / "images"
    # A class may be called images as well: then it has brothers, and no folders of its own.
    official = images.is_dir() and (folders(folder) == ["images"] or bool(folders(images)))
    return images if official else folder


def class_folders(folder: Path) -> list[str]:
    """The names of the class folders, sorted; MissingDataError where there are none."""
    found = folders(folder)
    if not found:
        raise MissingDataError(f"{folder}: no class folders; place a folder of images for each class there")
    return found


def class_names(root: Path, domains: Sequence[str]) -> list[str]:
    """The classes that these domains share, sorted; BrokenFileError, naming domain and class, where they differ.

    Raises MissingDataError for a domain that is not there, or has no class folders.
    """
    first = domains[0]
    expected = class_folders(class_root(root, first))
    for domain in domains[1:]:
        found = class_folders(class_root(root, domain))
        differences = [
            f"{'lacks' if name in expected else 'has'} '{name}', which {first} {'has' if name in expected else 'lacks'}"
            for name in sorted({*found} ^ {*expected})
        ]
        if differences:
            more = f" ({len(differences)} differences)" if len(differences) > 1 else ""
            raise BrokenFileError(
                f"{root}: mixed class sets: {domain} {differences[0]}{more}; give all of them the same class folders"
            )
    return expected


def images(folder: Path) -> dict[str, list[str]]:
    """The image files of each class folder, sorted by name, classes as well; MissingDataError for an empty class."""
    found = {}
    for name in class_folders(folder):
        found[name] = image_files(folder / name)
        if not found[name]:
            raise MissingDataError(f"{folder / name}: no images ({' '.join(SUFFIXES)}); place some or remove the class")
    return found


def image_files(folder: Path) -> list[str]:
    """The names of the image files in a folder, sorted, without hidden ones; OSError where there is no such folder.

    Those that the reader refuses (UNREAD, broken links) are among them.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_image(entry))


def folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def first_folder(*places: Path) -> Path | None:
    """The first of these folders that is there."""
    return next((place for place in places if place.is_dir()), None)


def _is_image(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".")
    return not hidden and entry.name.lower().endswith((*SUFFIXES, *UNREAD)) and not entry.is_dir()


def check_classes(folder: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    """BrokenFileError for an unknown class folder, MissingDataError for one that is not there."""
    unknown, lacking = sorted({*found} - {*expected}), sorted({*expected} - {*found})
    if unknown:
        raise BrokenFileError(
            f"{folder / unknown[0]}: unknown class; expected {len(expected)} classes, {expected[0]} to {expected[-1]}"
        )
    if lacking:
        raise MissingDataError(
            f"{folder / lacking[0]}: no such class folder; expected {len(expected)} classes, {len(lacking)} not there"
        )


# --- splits --------------------------------------------------------------------------------------------------------


def apart(files: list[str], part: Part, place: Path) -> list[str]:
    """Of a class's files, permuted already, those of the part's split: `test_share` of them, rounded, never none or
    all, is for tests, and `validation_share` of the rest for validation. place: the class's folder.

    Raises ConfigError without a test_share, BrokenFileError for a class of one image, and what `held_out` raises.
    """
    if part.test_share is None:
        raise ConfigError(f"{part.domain} has no official test pictures: give a test_share")
    if len(files) < 2:
        raise BrokenFileError(f"{place}: one image only; a class needs one to train and one to test")
    tests = _rounded(len(files), part.test_share)
    return files[:tests] if part.split == "test" else held_out(files[tests:], part, place)


def held_out(files: list[str], part: Part, place: Path, group: Callable[[str], str] = str) -> list[str]:
    """Of a class's files that are not for tests, permuted already, those to train or to validate with, as the part's
    split says. `validation_share` of the groups, rounded, never none or all, is for validation; none: nothing is.

    group: what may not be torn apart (a file: itself). place: the class's folder.
    Raises ConfigError for a validation split without a share, BrokenFileError for a class with one group only.
    """
    if part.validation_share is None:
        if part.split == "validation":
            raise ConfigError(f"{part.domain} has no validation pictures: give a validation_share to hold some out")
        return files
    groups = list(dict.fromkeys(map(group, files)))
    if len(groups) < 2:
        raise BrokenFileError(f"{place}: too few images; a class needs some to train with and some to validate with")
    held = set(groups[: _rounded(len(groups), part.validation_share)])
    return [file for file in files if (group(file) in held) == (part.split == "validation")]


def _rounded(number: int, share: float) -> int:
    return min(max(1, round(number * share)), number - 1)


def check_folders(root: Path, classes: Sequence[str], absent: str) -> None:
    """MissingDataError or BrokenFileError unless train/ and test/ are there, with a folder for each of these classes.

    classes: none: any, but the same in both. absent: what to say where neither is there.
    """
    if first_folder(*(root / name for name in OFFICIAL)) is None:
        raise MissingDataError(f"{root}: {absent}")
    names = class_names(root, OFFICIAL)
    if classes:
        check_classes(class_root(root, "train"), names, classes)


@dataclass(frozen=True)
class Publication:
    """A data set with official test pictures, as it was published.

    title: what it is called. train, test: official numbers of pictures. variant: which publication, where a data set
    has several.
    """

    title: str
    train: int
    test: int
    variant: str = ""

    def note(self, root: Path, train: Mapping[str, Sequence[str]], test: Mapping[str, Sequence[str]]) -> str:
        """A line about what is there, by class the files; BrokenFileError where there is more than was published."""
        many = [sum(map(len, files.values())) for files in (train, test)]
        for found, what, official in zip(many, ("training", "test"), (self.train, self.test), strict=True):
            check_number(root, found, f"{what} pictures", official)
        name = f"{self.title}, {self.variant}" if self.variant else self.title
        return (
            f"{name} ({self.train} and {self.test} when whole) in {root}: found {many[0]} to train with and "
            f"{many[1]} to test with, in {len(train)} classes"
        )


def official_listing(
    root: Path,
    part: Part,
    published: Callable[[int], Publication],
    group: Callable[[str], str] = str,
) -> Listing:
    """The part of a data set that is placed as <root>/train/<class>/* and <root>/test/<class>/*.

    published: of a number of training pictures, what was
    published. group: of a file, what may not be torn apart.
    Raises MissingDataError and BrokenFileError, naming folder or file, and ConfigError as `held_out`.
    """
    names = class_names(root, OFFICIAL)
    places = {name: class_root(root, name) for name in OFFICIAL}
    there = {name: images(place) for name, place in places.items()}
    wanted = "test" if part.split == "test" else "train"
    columns = {}
    for name, files in there[wanted].items():
        order = permuted(files, part.seed, "split", part.domain, wanted, name)
        chosen = order if wanted == "test" else held_out(order, part, places[wanted] / name, group)
        columns[name] = [f"{name}/{file}" for file in chosen]
    publication = published(sum(map(len, there["train"].values())))
    note = publication.note(root, there["train"], there["test"])
    repeated = {} if wanted == "test" else tested(*(_paths(places[name], there[name]) for name in OFFICIAL))
    unusable = {path.relative_to(places["train"]).as_posix(): reason for path, reason in repeated.items()}
    return of_classes(
        root, places[wanted], part.split, columns, names, note, unusable=unusable, variant=publication.variant
    )


def _paths(folder: Path, found: Mapping[str, Sequence[str]]) -> list[Path]:
    """The files in `folder`, given by class folder."""
    return [folder / name / file for name, files in found.items() for file in files]


def tested(train: Sequence[Path], tests: Sequence[Path]) -> dict[Path, str]:
    """Why training pictures must not be used: those with the bytes of a test picture.

    Published data sets have such pictures (GTSRB one in some thousands): so few are reported in the log and used.
    """
    found = {path: same_picture(twin) for path, twin in twins(train, tests).items()}
    if not tolerable(len(found), len(train)):
        return found
    for path, reason in found.items():
        log.warning("%s: %s (used: published data sets have a few such pictures)", path, reason)
    return {}


def tolerable(found: int, train: int) -> bool:
    """Whether training pictures that are in the tests as well are as few as published data sets have."""
    return found <= TOLERATED * train
