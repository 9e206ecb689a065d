"""Photographs in folders: domains, and in each a folder of images per class.

Two layouts, found by themselves: `<root>/<domain>/images/<class>/*.jpg`, that of Office-31 (Saenko et al., ECCV 2010),
and `<root>/<domain>/<class>/*` for any other folder of domains. A picture has one label, "class"; the classes are the
names of the class folders, sorted, and all domains of a study have the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstrong.data.image_folders import apart, class_names, class_root, images
from headstrong.data.listings import Listing, Part, of_classes, permuted
from headstrong.errors import BrokenFileError, ConfigError

__all__ = ["check_office31", "class_names", "listing"]

OFFICE31 = {"amazon": 2817, "dslr": 498, "webcam": 795}  # images of each domain
OFFICE31_CLASSES = 31


def listing(root: Path, part: Part) -> Listing:
    """The pictures of one domain and split, the classes taking turns.

    Each class is split by a permutation that seed, domain and class decide; `test_share` of it, rounded, and never none
    or all, is for tests, and `validation_share` of what is left for validation.
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
    return of_classes(root / part.domain, folder, part.split, columns, classes, note)


def check_office31(root: Path, domains: Sequence[str] = tuple(OFFICE31)) -> str:
    """A line about what is there; BrokenFileError, or what `listing` raises, unless these domains are whole.

    domains: of OFFICE31; ConfigError for another.
    """
    unknown = next((domain for domain in domains if domain not in OFFICE31), None)
    if unknown is not None:
        raise ConfigError(f"office31 has no domain '{unknown}'; choose from {', '.join(OFFICE31)}")
    classes = class_names(root, domains)
    if len(classes) != OFFICE31_CLASSES:
        raise BrokenFileError(f"{root}: {len(classes)} classes, Office-31 has {OFFICE31_CLASSES}; get it again")
    for domain in domains:
        found, expected = sum(map(len, images(class_root(root, domain)).values())), OFFICE31[domain]
        if found != expected:
            raise BrokenFileError(f"{root / domain}: {found} images, Office-31 has {expected}; get it again")
    sizes = ", ".join(f"{OFFICE31[domain]} of {domain}" for domain in domains)
    return f"Office-31 in {root}: {sizes} images in {len(classes)} classes"
