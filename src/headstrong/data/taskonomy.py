"""Taskonomy (Zamir et al. 2018): scanned buildings, every task as an image of its own.

Layouts, found by themselves: `<building>/<domain>/point_P_view_V_domain_<domain>.png` (official),
`<domain>/<building>/...`, and `<domain>/point_...png` (the sample of one building). Splits: `taskonomy_views.choose`.
Encodings as the released loader of Ghamizi et al. reads them: 16-bit depth in 1/512 m, 65535 where there is none; the
other 16-bit images are shares of 65535; normals and curvatures are colours. Segmentation is grey, or a colour image
called `semantic` (`in_colour`). A label that a view lacks is None in its raw sample; a view without a colour image is
left out.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstrong.data.ordered import in_order
from headstrong.data.renderings import nearest
from headstrong.data.taskonomy_views import DOMAINS, LABELS, View, choose
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.tasks import DEPTH_INVALID_FROM, DEPTH_UNITS_PER_METRE, decode_curvature

__all__ = ["DOMAINS", "check", "class_names", "count", "frames", "inputs", "read_frame", "samples"]

Raw = dict[str, NDArray[Any] | None]

SIXTEEN_BIT = "kKeE"
SPLITS = ("train", "test")
PNG_END = 64  # bytes among which the last chunk of a PNG begins
# Classes of COCO by coco_selected_classes.txt of the authors' repository; class 0 is background and uncertain together
_OBJECTS = (
    "bottle", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
)  # fmt: skip
_CLASSES = len(_OBJECTS)
# Images called `semantic`, as the public downloader has them: red is the number of one of 62 classes of COCO, green and
# blue that of the object. What is none of the objects above is background.
_NUMBERS = (21, *range(38, 45), *range(50, 58))  # of the objects above
_LAST_NUMBER, _UNLABELLED = 61, 255
# Colour types of the PNG files, by what is read from them: another type would be read as other numbers.
_TYPES = {"colour": ("RGB", "RGBA"), "grey": ("L", "LA", "RGB", "RGBA"), "labels": ("L", "P"), "16-bit grey": ("I",)}
# What Pillow's decoders raise on damaged files, besides its own.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)


def class_names(classes: int = _CLASSES) -> list[str]:
    """Names of the segmentation classes, [0] = "unlabelled".

    classes: not used, there is one set of them.
    """
    return ["unlabelled", *_OBJECTS]


def frames(root: Path, split: str, settings: Mapping[str, Any] | None = None) -> list[View]:
    """The views of a split, by building, point and view.

    settings: buildings, split_rule and missing_labels, as `taskonomy_views.choose` takes them; what is not given: no
    list, by buildings, masked. Raises as `choose`.
    """
    known = settings or {}
    rule, missing = known.get("split_rule", "buildings"), known.get("missing_labels", "mask")
    return choose(Path(root), split, known.get("buildings"), rule, missing)


def count(root: Path, split: str, settings: Mapping[str, Any] | None = None) -> int:
    """How many views a split has; `settings` and what it raises as in `frames`."""
    return len(frames(root, split, settings))


def check(root: Path) -> str:
    """A line about what is there, or the error that `samples` raises."""
    sizes = [f"{count(root, split)} {split}" for split in SPLITS]
    return f"Taskonomy in {root}: {' and '.join(sizes)} frames"


def samples(
    root: Path,
    split: str,
    size: tuple[int, int],
    classes: int = _CLASSES,
    limit: int | None = None,
    processes: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, Raw]]:
    """The views of a split as (name, raw sample) at `size` (H, W); `settings` as in `frames`, classes: not used.

    Raises MissingDataError where an image is absent that is needed, BrokenFileError where one is not what it should be,
    and ConfigError as `frames`.
    """
    return read(Path(root), frames(root, split, settings)[:limit], size, processes)


def read(root: Path, views: list[View], size: tuple[int, int], processes: int) -> Iterator[tuple[str, Raw]]:
    """These views as (name, raw sample), in order; the bits do not depend on `processes`. Raises as `read_frame`."""
    return in_order(partial(_named_sample, root, size), views, processes)


def inputs(root: Path, views: list[View]) -> Iterator[Path]:
    """The files that are read for these views."""
    return (view.path(root, letter) for view in views for letter in ("rgb", *view.letters))


def _named_sample(root: Path, size: tuple[int, int], view: View) -> tuple[str, Raw]:
    return view.name, read_frame(root, view, size)


def read_frame(root: Path, view: View, size: tuple[int, int]) -> Raw:
    """The raw sample of one view: colour and labels in the units of `headstrong.tasks.encode`, at `size` (H, W).

    Raises MissingDataError where an image of the view is gone, BrokenFileError where one is not what it should be.
    """
    found: Raw = dict.fromkeys(LABELS)
    found["rgb"] = _picture(view.path(root, "rgb"), size)
    for letter in view.letters:
        found[letter] = _label(letter, view.path(root, letter), size)
    # A hole in either depth is one in both, as both come from one scan; the masks of all tasks follow.
    z, euclidean = found["d"], found["D"]
    if z is not None and euclidean is not None:
        known = (z > 0) & (euclidean > 0)
        found["d"], found["D"] = np.where(known, z, 0), np.where(known, euclidean, 0)
    return found


def _label(letter: str, path: Path, size: tuple[int, int]) -> NDArray[Any]:
    if letter == "s":
        labels = _nearest(path, size, "colour" if in_colour(path) else "labels")
        fault = class_fault(path, labels)
        if fault is not None:
            raise BrokenFileError(f"{path}: {fault}; get it again")
        return _semantic(labels[..., 0]) if in_colour(path) else (np.maximum(labels, 1) - 1).astype(np.uint8)
    if letter in "dD":
        units = _nearest(path, size, "16-bit grey")
        return np.where(units < DEPTH_INVALID_FROM, units / DEPTH_UNITS_PER_METRE, 0).astype(np.float32)
    if letter in SIXTEEN_BIT:
        return (_nearest(path, size, "16-bit grey") / 65535).astype(np.float32)
    if letter == "r":
        return (_nearest(path, size, "grey") / 255).astype(np.float32)
    colour = _nearest(path, size, "colour").transpose(2, 0, 1)
    if letter == "n":
        return (colour / 127.5 - 1).astype(np.float32)
    return decode_curvature(colour[:2])


def in_colour(path: Path) -> bool:
    """Whether the segmentation in this file has three channels, as the public downloader's has."""
    return path.stem.endswith("_domain_semantic")


def class_fault(path: Path, pixels: NDArray[Any]) -> str | None:
    """What is wrong with the numbers of a segmentation, (H, W), or (H, W, 3) where it is `in_colour`."""
    if not in_colour(path):
        return f"label {pixels.max()}, expected 0..{_CLASSES + 1}" if pixels.max() > _CLASSES + 1 else None
    known = pixels[..., 0][pixels[..., 0] != _UNLABELLED]
    if known.size and known.max() > _LAST_NUMBER:
        return f"class {known.max()} in red, expected 0..{_LAST_NUMBER}, or {_UNLABELLED} where there is no label"
    return None


def _semantic(numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class numbers (H, W) of `class_names` from those of a `semantic` image."""
    classes = np.zeros(256, dtype=np.uint8)
    classes[list(_NUMBERS)] = np.arange(1, _CLASSES + 1)
    return classes[numbers]


def _picture(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    image = _opened(path, "colour")
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(image).transpose(2, 0, 1)


def _nearest(path: Path, size: tuple[int, int], kind: str) -> NDArray[Any]:
    """A label image (H, W) or (H, W, 3) at `size`, by the nearest pixel: nothing is mixed across an edge."""
    array = np.asarray(_opened(path, kind))
    if array.shape[:2] == size:
        return array
    return array[nearest(array.shape[0], size[0])][:, nearest(array.shape[1], size[1])]


def _opened(path: Path, kind: str) -> Image.Image:
    """A whole image of one of the kinds in _TYPES; 16 bits stay 16 bits, and class numbers class numbers."""
    try:
        whole = path.read_bytes()
        with Image.open(io.BytesIO(whole)) as image:
            image.load()
            if image.format == "PNG" and b"IEND" not in whole[-PNG_END:]:  # Pillow does without the end of a file
                raise EOFError("it has no end")
            mode = "I" if image.mode.startswith("I") else image.mode
            if mode not in _TYPES[kind]:
                raise BrokenFileError(f"{path}: a PNG of mode {image.mode}, expected {kind}; get it again")
            if kind == "colour":
                return image.convert("RGB")
            return image.convert("L") if kind == "grey" else image.copy()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: no such image; get it again") from error
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenFileError(
            f"{path}: truncated or not an image ({reason}); get it again, or remove it: absent labels are masked"
        ) from error
