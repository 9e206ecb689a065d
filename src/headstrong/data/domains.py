"""Photographs in folders: domains, and in each a folder of images per class.

Two layouts, found by themselves: `<root>/<domain>/images/<class>/*.jpg`, that of Office-31 (Saenko et al., ECCV 2010),
and `<root>/<domain>/<class>/*` for any other folder of domains. A picture has one label, "class"; the classes are the
names of the class folders, sorted, and all domains of a study have the same.

Hidden files, and files without an image's suffix, count for nothing. Images are squashed to the size asked for, their
shape is not kept; what they hold but colour (transparency, a note to turn them) is left out.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstrong.data.ordered import in_order
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.seeds import derive_seed

__all__ = ["check_office31", "class_names", "count", "samples"]

LABEL = "class"
SPLITS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
OFFICE31 = {"amazon": 2817, "dslr": 498, "webcam": 795}  # images of each domain
OFFICE31_CLASSES = 31
# What Pillow's decoders raise on damaged files, besides its own.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)


def samples(
    root: Path,
    domain: str,
    split: str,
    size: tuple[int, int],
    count: int | None,
    seed: int,
    test_share: float = 0.2,
    domains: Sequence[str] = (),
    processes: int = 1,
) -> Iterator[tuple[str, NDArray[np.uint8], dict[str, int]]]:
    """The pictures of one domain and split as (name, rgb uint8 (3, H, W), {"class": number}) at `size` (H, W).

    The classes take turns, so that the first `count` (None: all) have as many of each as there can be. Each class is
    split by a permutation that `seed`, domain and class decide; `test_share` of it, rounded, and never none or all, is
    for tests. domains: all of the study, whose classes must be the same. processes: side by side; the bits do not
    depend on it.
    Raises MissingDataError or BrokenFileError, naming folder or file, and ConfigError for a `count` or a share that
    cannot be.
    """
    root = Path(root)
    classes = class_names(root, [domain, *domains])
    names = _names(root, domain, split, seed, test_share)
    if count is not None and not 1 <= count <= len(names):
        raise ConfigError(f"{split}: {count} pictures asked for, but {root / domain} has {len(names)}; ask for no more")
    numbers = {name: number for number, name in enumerate(classes)}
    work = partial(_sample, _class_root(root, domain), numbers, size)
    return in_order(work, names[:count], processes)


def count(root: Path, domain: str, split: str, seed: int, test_share: float = 0.2) -> int:
    """How many pictures a split of a domain has; raises what `samples` raises."""
    return len(_names(Path(root), domain, split, seed, test_share))


def class_names(root: Path, domains: Sequence[str]) -> list[str]:
    """The classes that these domains share, sorted; BrokenFileError, naming domain and class, where they differ."""
    root, first = Path(root), domains[0]
    expected = _class_folders(root, first)
    for domain in domains[1:]:
        found = _class_folders(root, domain)
        differences = [
            f"{'lacks' if name in expected else 'has'} '{name}', which {first} {'has' if name in expected else 'lacks'}"
            for name in sorted({*found} ^ {*expected})
        ]
        if differences:
            more = f" ({len(differences)} differences)" if len(differences) > 1 else ""
            raise BrokenFileError(
                f"{root}: mixed class sets: {domain} {differences[0]}{more}; "
                "give all domains of a study the same class folders"
            )
    return expected


def check_office31(root: Path) -> str:
    """A line about what is there; BrokenFileError, or what `samples` raises, unless Office-31 is whole."""
    classes = class_names(root, list(OFFICE31))
    if len(classes) != OFFICE31_CLASSES:
        raise BrokenFileError(f"{root}: {len(classes)} classes, Office-31 has {OFFICE31_CLASSES}; get it again")
    for domain, expected in OFFICE31.items():
        found = sum(map(len, _images(Path(root), domain).values()))
        if found != expected:
            raise BrokenFileError(f"{Path(root) / domain}: {found} images, Office-31 has {expected}; get it again")
    sizes = ", ".join(f"{number} of {domain}" for domain, number in OFFICE31.items())
    return f"Office-31 in {root}: {sizes} images in {len(classes)} classes"


# --- folders -------------------------------------------------------------------------------------------------------


def _class_root(root: Path, domain: str) -> Path:
    """The folder that holds a domain's class folders."""
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; place the domains there (docs/data.md)")
    folder = root / domain
    if not folder.is_dir():
        there = ", ".join(_folders(root)) or "no folders"
        raise MissingDataError(f"{folder}: no such domain; {root} has {there} (docs/data.md says what to place)")
    images = folder / "images"
    # A class may be called images as well: then it has brothers, and no folders of its own.
    official = images.is_dir() and (_folders(folder) == ["images"] or bool(_folders(images)))
    return images if official else folder


def _class_folders(root: Path, domain: str) -> list[str]:
    folder = _class_root(root, domain)
    found = _folders(folder)
    if not found:
        raise MissingDataError(f"{folder}: no class folders; place a folder of images for each class there")
    return found


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(root: Path, domain: str) -> dict[str, list[str]]:
    """The image files of each class, sorted by name, classes as well."""
    folder = _class_root(root, domain)
    found = {}
    for name in _class_folders(root, domain):
        with os.scandir(folder / name) as entries:
            found[name] = sorted(entry.name for entry in entries if _is_image(entry))
        if not found[name]:
            raise MissingDataError(f"{folder / name}: no images ({' '.join(SUFFIXES)}); place some or remove the class")
    return found


def _is_image(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".")
    return not hidden and entry.name.lower().endswith(SUFFIXES) and entry.is_file()


def _names(root: Path, domain: str, split: str, seed: int, test_share: float) -> list[str]:
    """The images `<class>/<file>` of a split, the classes taking turns."""
    if split not in SPLITS:
        raise ConfigError(f"split '{split}' is unknown; choose {' or '.join(SPLITS)}")
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share {test_share:g}: expected a share between 0 and 1, both left out")
    columns = []
    for name, files in _images(root, domain).items():
        if len(files) < 2:
            raise BrokenFileError(
                f"{_class_root(root, domain) / name}: one image only; a class needs one to train and one to test"
            )
        tests = min(max(1, round(len(files) * test_share)), len(files) - 1)
        order = np.random.default_rng(derive_seed(seed, "split", domain, name)).permutation(len(files))
        chosen = order[:tests] if split == "test" else order[tests:]
        columns.append([f"{name}/{files[number]}" for number in chosen])
    turns = range(max(map(len, columns)))
    return [column[turn] for turn in turns for column in columns if turn < len(column)]


# --- images --------------------------------------------------------------------------------------------------------


def _sample(
    folder: Path, numbers: dict[str, int], size: tuple[int, int], name: str
) -> tuple[str, NDArray[np.uint8], dict[str, int]]:
    return name, read_image(folder / name, size), {LABEL: numbers[name.partition("/")[0]]}


def read_image(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image file as rgb uint8 (3, H, W), squashed to `size` (H, W); BrokenFileError where it cannot be read.

    Bilinear with antialiasing, as torchvision resizes Pillow's images.
    """
    try:
        with Image.open(path) as image:
            image.load()
            colour = _to_rgb(image)
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenFileError(f"{path}: truncated or not an image ({reason}); get it again or remove it") from error
    resized = colour.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would cut 16-bit grey off at 255.
        grey: NDArray[Any] = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.rint(grey.clip(0, 255)).astype(np.uint8))
    return image.convert("RGB")
