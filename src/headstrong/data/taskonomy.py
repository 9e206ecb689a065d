"""Taskonomy (Zamir et al. 2018): scanned buildings, every task as an image of its own.

Layouts, found by themselves: `<building>/<domain>/point_P_view_V_domain_<domain>.png` (official),
`<domain>/<building>/...`, `<domain>/taskonomy/<building>/...` (as the public downloader writes it), and
`<domain>/point_...png` (the sample of one building). Splits: `taskonomy_views.choose`.
Encodings as the released loader of Ghamizi et al. reads them: 16-bit depth in 1/512 m, 65535 where there is none; the
other 16-bit images are shares of 65535; normals and curvatures are colours. Segmentation is grey, or a colour image
called `semantic` (`in_colour`). A label that a view lacks is None in its raw sample; a view without a colour image is
left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstrong.data.image_errors import UNREADABLE, cut_short, reason
from headstrong.data.ordered import in_order
from headstrong.data.renderings import nearest
from headstrong.data.subsets import drawn
from headstrong.data.taskonomy_views import DOMAINS, LABELS, View, choose
from headstrong.data.value_rules import (
    TASKONOMY_FARTHEST,
    class_fault,
    depth_fault,
    normal_fault,
    refuse,
    size_faults,
)
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.tasks import DEPTH_INVALID_FROM, DEPTH_UNITS_PER_METRE, decode_curvature

__all__ = ["DOMAINS", "check", "class_names", "count", "frames", "inputs", "read_frame", "samples"]

Raw = dict[str, NDArray[Any] | None]

SIXTEEN_BIT = "kKeE"
SPLITS = ("train", "test")
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
_TYPES = {
    "8-bit colour": ("RGB", "RGBA"),
    "8-bit grey or colour": ("L", "LA", "RGB", "RGBA"),
    "8-bit grey": ("L", "P"),
    "16-bit grey": ("I",),
}
_TYPE_OF = {
    "rgb": "8-bit colour",
    "n": "8-bit colour",
    "p": "8-bit colour",
    "r": "8-bit grey or colour",
    "s": "8-bit grey",
}


def class_names(classes: int = _CLASSES) -> list[str]:
    """Names of the segmentation classes, [0] = "unlabelled".

    classes: not used, there is one set of them.
    """
    return ["unlabelled", *_OBJECTS]


def frames(
    root: Path, split: str, settings: Mapping[str, Any] | None = None, limit: int | None = None, seed: int = 0
) -> list[View]:
    """The views of a split, by building, point and view; with a limit, that many of them.

    These are drawn from the seed and spread over buildings, and within one over its points. More of them begin with
    fewer of them.
    settings: buildings, split_rule, missing_labels and absent_buildings, as `taskonomy_views.choose` takes them; what
    is not given: no list, by buildings, masked, an error. Raises as `choose`.
    """
    known = settings or {}
    rule, missing = known.get("split_rule", "buildings"), known.get("missing_labels", "mask")
    views = choose(Path(root), split, known.get("buildings"), rule, missing, known.get("absent_buildings", "fail"))
    return drawn(views, limit, None, seed, "subset", "taskonomy", split)


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
    seed: int = 0,
) -> Iterator[tuple[str, Raw]]:
    """The views of a split as (name, raw sample) at `size` (H, W); settings, limit and seed as in `frames`, classes:
    not used.

    Raises MissingDataError where an image is absent that is needed, BrokenFileError where one is not what it should be,
    and ConfigError as `frames`.
    """
    return read(Path(root), frames(root, split, settings, limit, seed), size, processes)


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
    image = opened(view.path(root, "rgb"), "rgb")
    found["rgb"], colour = _resized(image, size), np.asarray(image)
    for letter in view.letters:
        path = view.path(root, letter)
        pixels = np.asarray(opened(path, letter))
        refuse(path, size_faults({"rgb": colour, letter: pixels}, "rgb").get(letter))
        refuse(path, value_fault(letter, path, pixels))
        found[letter] = _label(letter, _nearest(pixels, size))
    # A hole in either depth is one in both, as both come from one scan; the masks of all tasks follow.
    z, euclidean = found["d"], found["D"]
    if z is not None and euclidean is not None:
        known = (z > 0) & (euclidean > 0)
        found["d"], found["D"] = np.where(known, z, 0), np.where(known, euclidean, 0)
    return found


def value_fault(letter: str, path: Path, pixels: NDArray[Any]) -> str | None:
    """What is wrong with the pixels (H, W) or (H, W, 3) of one domain, by the rules of `value_rules`."""
    if letter == "s":
        return _class_fault(path, pixels)
    if letter in "dD":
        # A view that sees nothing but holes has codes of holes; 0 is nearer than any camera sees.
        return None if pixels.min() >= DEPTH_INVALID_FROM else depth_fault(_metres(pixels), TASKONOMY_FARTHEST)
    if letter == "n":
        vectors = pixels / 127.5 - 1
        vectors[~pixels.any(axis=-1)] = 0  # black: none
        return normal_fault(vectors)
    return None


def _metres(units: NDArray[Any]) -> NDArray[np.float32]:
    return np.where(units < DEPTH_INVALID_FROM, units / DEPTH_UNITS_PER_METRE, 0).astype(np.float32)


def _label(letter: str, pixels: NDArray[Any]) -> NDArray[Any]:
    """The raw label of one domain from its pixels (H, W) or (H, W, 3)."""
    if letter == "s" and pixels.ndim == 3:  # `in_colour`
        return _semantic(pixels[..., 0])
    if letter == "s":
        return (np.maximum(pixels.astype(np.int64), 1) - 1).astype(np.uint8)
    if letter in "dD":
        return _metres(pixels)
    if letter in SIXTEEN_BIT:
        return (pixels / 65535).astype(np.float32)
    if letter == "r":
        return (pixels / 255).astype(np.float32)
    colour = pixels.transpose(2, 0, 1)
    if letter == "n":
        return (colour / 127.5 - 1).astype(np.float32)
    return decode_curvature(colour[:2])


def in_colour(path: Path) -> bool:
    """Whether the segmentation in this file has three channels, as the public downloader's has."""
    return path.stem.endswith("_domain_semantic")


def _class_fault(path: Path, pixels: NDArray[Any]) -> str | None:
    """What is wrong with the numbers of a segmentation, (H, W), or (H, W, 3) where it is `in_colour`."""
    if not in_colour(path):
        return class_fault(pixels, 0, _CLASSES + 1)
    fault = class_fault(pixels[..., 0][pixels[..., 0] != _UNLABELLED], 0, _LAST_NUMBER)
    return fault and f"{fault} in red, or {_UNLABELLED} where there is no label"


def _semantic(numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class numbers (H, W) of `class_names` from those of a `semantic` image."""
    classes = np.zeros(256, dtype=np.uint8)
    classes[list(_NUMBERS)] = np.arange(1, _CLASSES + 1)
    return classes[numbers]


def _resized(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(image).transpose(2, 0, 1)


def _nearest(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A label image (H, W) or (H, W, 3) at `size`, by the nearest pixel: nothing is mixed across an edge."""
    if array.shape[:2] == size:
        return array
    return array[nearest(array.shape[0], size[0])][:, nearest(array.shape[1], size[1])]


def opened(path: Path, letter: str) -> Image.Image:
    """The whole image of a domain: colour without transparency, grey, or 16-bit grey and class numbers as they are.

    Raises MissingDataError if the image is missing, BrokenFileError if it is damaged or of another type.
    """
    kind = "8-bit colour" if letter == "s" and in_colour(path) else _TYPE_OF.get(letter, "16-bit grey")
    try:
        whole = path.read_bytes()
        with Image.open(io.BytesIO(whole)) as image:
            image.load()
            refuse(path, cut_short(whole))
            mode = "I" if image.mode.startswith("I") else image.mode
            if mode not in _TYPES[kind]:
                raise BrokenFileError(f"{path}: a PNG of mode {image.mode}, expected {kind}; get it again")
            if kind == "8-bit colour":
                return image.convert("RGB")
            return image.convert("L") if kind == "8-bit grey or colour" else image.copy()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: no such image; get it again") from error
    except UNREADABLE as error:
        left = "a view without colour is left out" if letter == "rgb" else "absent labels are masked"
        raise BrokenFileError(
            f"{path}: truncated or not an image ({reason(error)}); get it again, or remove it: {left}"
        ) from error
