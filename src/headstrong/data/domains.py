"""Photographs in folders: domains, and in each a folder of images per class.

Two layouts, found by themselves: `<root>/<domain>/images/<class>/*.jpg`, that of Office-31 (Saenko et al., ECCV 2010),
and `<root>/<domain>/<class>/*` for any other folder of domains. A picture has one label, "class"; the classes are the
names of the class folders, sorted, and all domains of a study have the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from headstrong.data.image_checks import twins
from headstrong.data.image_folders import apart, check_classes, class_names, class_root, images
from headstrong.data.listings import Listing, Part, check_number, of_classes, permuted
from headstrong.errors import BrokenFileError, ConfigError

__all__ = ["check_office31", "class_names", "listing"]

OFFICE31 = {"amazon": 2817, "dslr": 498, "webcam": 795}  # images of each domain
OFFICE31_CLASSES = (
    "back_pack", "bike", "bike_helmet", "bookcase", "bottle", "calculator", "desk_chair", "desk_lamp",
    "desktop_computer", "file_cabinet", "headphones", "keyboard", "laptop_computer", "letter_tray", "mobile_phone",
    "monitor", "mouse", "mug", "paper_notebook", "pen", "phone", "printer", "projector", "punchers", "ring_binder",
    "ruler", "scissors", "speaker", "stapler", "tape_dispenser", "trash_can",
)  # fmt: skip


def listing(root: Path, part: Part) -> Listing:
    """The pictures of one domain and split, the classes taking turns.

    Each class is split by a permutation that seed, domain and class decide; `test_share` of it, rounded, and never none
    or all, is for tests, and `validation_share` of what is left for validation. Unless the files are a published data
    set's, none may have the bytes of another.
    Raises MissingDataError or BrokenFileError, naming folder or file, and ConfigError for a share that cannot be.
    """
    classes = class_names(root, [part.domain, *part.domains])
    folder = class_root(root, part.domain)
    found = images(folder)
    columns = {}
    for name, files in found.items():
        order = permuted(files, part.seed, "split", part.domain, name)
        columns[name] = [f"{name}/{file}" for file in apart(order, part, folder / name)]
    note = f"{root / part.domain}: found {sum(map(len, found.values()))} images in {len(found)} classes"
    unusable = {} if part.official else repeated(folder, found)
    return of_classes(root / part.domain, folder, part.split, columns, classes, note, unusable=unusable)


def check_there(root: Path, domains: Sequence[str], labels: Sequence[str]) -> None:
    """MissingDataError or BrokenFileError unless the domains are there, all with the same class folders."""
    class_names(root, domains)


def repeated(folder: Path, found: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Why pictures must not be used: those with the bytes of one before them, by name.

    Whichever split they fall to, one of the two would be in training and the other in the tests, or a picture would
    count twice. found: class -> its files, in `folder`.
    """
    names = {folder / name / file: f"{name}/{file}" for name, files in found.items() for file in files}
    return {names[path]: repeated_picture(twin) for path, twin in twins([*names]).items()}


def repeated_picture(place: object) -> str:
    """What is wrong with a picture that its domain has twice. place: where it is as well."""
    return f"the same picture as {place}, expected once"


def check_office31(root: Path, domains: Sequence[str] = tuple(OFFICE31), *, whole: bool = True) -> str:
    """A line about what is there; BrokenFileError or MissingDataError, naming folder or domain, unless these domains
    have the classes of Office-31 and as many images.

    domains: of OFFICE31; ConfigError for another. whole: False: fewer images will do.
    """
    unknown = next((domain for domain in domains if domain not in OFFICE31), None)
    if unknown is not None:
        raise ConfigError(f"office31 has no domain '{unknown}'; choose from {', '.join(OFFICE31)}")
    classes = class_names(root, domains)
    check_classes(class_root(root, domains[0]), classes, OFFICE31_CLASSES)
    sizes = []
    for domain in domains:
        found, expected = sum(map(len, images(class_root(root, domain)).values())), OFFICE31[domain]
        check_number(root / domain, found, "images", expected)
        if whole and found < expected:
            raise BrokenFileError(f"{root / domain}: {found} images, Office-31 has {expected}; get it again")
        sizes.append(f"{found} of {expected} of {domain}")
    return f"Office-31 in {root}: {', '.join(sizes)} images in {len(classes)} classes"
