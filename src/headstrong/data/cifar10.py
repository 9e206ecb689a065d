"""CIFAR-10 (Krizhevsky 2009): 32x32 pictures of ten classes, 5,000 of each to train with and 1,000 to test with.

Two layouts, found by themselves: the official `<root>/cifar-10-batches-py/`, which torchvision reads and checks, and
folders of images, `<root>/train/<class>/*` and `<root>/test/<class>/*`, of which some may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstrong.data.image_folders import Publication, check_folders, held_out, official_listing
from headstrong.data.listings import Listing, Part, of_classes, permuted
from headstrong.errors import BrokenFileError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = "cifar-10-batches-py"
PUBLISHED = Publication("CIFAR-10", train=50000, test=10000)


def listing(root: Path, part: Part) -> Listing:
    """The pictures of one split, the classes taking turns; the test pictures are the official ones.

    `validation_share` of each class's training pictures is for validation, by a permutation that seed and class decide.
    Raises MissingDataError and BrokenFileError, naming folder or file, and ConfigError for a share that cannot be.
    """
    if (root / BATCHES).is_dir():
        return _of_batches(root, part)
    check_there(root)
    return official_listing(root, part, lambda found: PUBLISHED)


def check_there(root: Path, domains: Sequence[str] = (), labels: Sequence[str] = ()) -> None:
    """MissingDataError or BrokenFileError unless the folder of batches is there, or those of the classes."""
    if not (root / BATCHES).is_dir():
        check_folders(root, CLASSES, f"neither {BATCHES}/ nor train/ and test/ is there; place one of the two")


def batches(root: Path) -> dict[Path, str]:
    """The files of the official layout, each with its MD5, as torchvision knows them."""
    from torchvision.datasets import CIFAR10  # late: only this layout needs torch

    named = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    return {root / CIFAR10.base_folder / name: digest for name, digest in named}


def _of_batches(root: Path, part: Part) -> Listing:
    there = {split: read_batches(root, split) for split in ("train", "test")}
    wanted = "test" if part.split == "test" else "train"
    pixels, by_class = there[wanted]
    columns = {}
    for name in CLASSES:
        order = permuted(by_class[name], part.seed, "split", part.domain, wanted, name)
        columns[name] = order if wanted == "test" else held_out(order, part, root / BATCHES)
    note = PUBLISHED.note(root, *(files for _, files in there.values()))
    return of_classes(root, root / BATCHES, part.split, columns, list(CLASSES), note, pixels)


def read_batches(root: Path, split: str) -> tuple[dict[str, NDArray[np.uint8]], dict[str, list[str]]]:
    """Of "train" or "test", name -> image uint8 (32, 32, 3), and class -> names, in official order; BrokenFileError
    where a file is not the official one."""
    from torchvision.datasets import CIFAR10  # late: only this layout needs torch

    try:
        official = CIFAR10(str(root), train=split == "train")
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise BrokenFileError(
            f"{root / BATCHES}: a file is missing, or by its MD5 not the official one ({reason}); "
            "unpack cifar-10-python.tar.gz again"
        ) from error
    pixels: dict[str, NDArray[np.uint8]] = {}
    by_class: dict[str, list[str]] = {name: [] for name in CLASSES}
    for row, (image, target) in enumerate(zip(official.data, official.targets, strict=True)):
        name = f"{CLASSES[target]}/{split}_{row:05d}"
        pixels[name] = image
        by_class[CLASSES[target]].append(name)
    return pixels, by_class
