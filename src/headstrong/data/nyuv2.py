"""NYU Depth v2 (Silberman et al. 2012): 1449 labelled photographs with depth, as raw samples of all tasks.

Where the photographs come from is the matter of `nyuv2_layouts`; here they are brought to size and labelled.

Labels that come from the surface (n, p, K) are derived on a working image of about 224x170 or finer and brought to the
size asked for afterwards: each pixel takes them, and its depth, from one pixel of the working image, that of the median
depth, so nothing is mixed across an edge. Segmentation is the majority. Colour is resampled with an antialiasing
filter; D, r, k, e and E are derived at the size asked for, because they belong to the pixels that the network sees.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import median_filter

from headstrong.data import labels
from headstrong.data.cameras import Intrinsics, rays
from headstrong.data.duplicates import in_two_splits, listed_twice, same_picture, twice
from headstrong.data.nyuv2_layouts import SPLITS, ArrayFolders, Frame, Layout, class_names, cut, detect
from headstrong.data.ordered import in_order
from headstrong.data.renderings import by_magnitude
from headstrong.data.subsets import drawn
from headstrong.data.value_rules import agreement_fault, refuse
from headstrong.errors import BrokenFileError, MissingDataError

__all__ = ["check", "class_names", "count", "frames", "read", "samples"]

Raw = dict[str, NDArray[Any]]
Axes = NDArray[np.float32]

WORKING_SIZE = (168, 220)  # a frame is shrunk by the largest whole number that leaves this and the size asked for
SPECKS = 5  # pixels of the working image: side of the median filter
_AGREEMENT = 0.5  # mean cosine under which stored normals cannot be what the depth says
_FRAMES_FOR_AXES = 3


def samples(
    root: Path,
    split: str,
    size: tuple[int, int],
    classes: int = 13,
    limit: int | None = None,
    processes: int = 1,
    seed: int = 0,
) -> Iterator[tuple[str, Raw]]:
    """The frames of a split as (name, raw sample) at `size` (H, W); limit and seed as in `frames`, the others and what
    it raises as in `read`."""
    return read(root, frames(root, split, limit, seed), size, classes, processes)


def frames(root: Path, split: str, limit: int | None = None, seed: int = 0) -> list[str]:
    """The names of the frames of a split, in the official order; with a limit, that many of them.

    These are drawn from the seed and spread over types of scenes, where the data say them, else over the official
    order, which goes from scene to scene. More of them begin with fewer of them.
    Raises MissingDataError or BrokenFileError, naming the file, also for a frame or a picture that is there twice.
    """
    layout = detect(Path(root))
    check_splits(layout)
    names = layout.names(split)
    scenes = layout.scenes() if limit is not None else {}
    groups = [scenes.get(name, "") for name in names]
    return drawn(names, limit, groups, seed, "subset", "nyuv2", split)


def read(
    root: Path, names: Sequence[str], size: tuple[int, int], classes: int = 13, processes: int = 1
) -> Iterator[tuple[str, Raw]]:
    """These frames as (name, raw sample) at `size` (H, W), in order.

    classes: 13 or 40. processes: side by side; the bits do not depend on it.
    Raises MissingDataError or BrokenFileError, naming the file, and ConfigError for classes the layout has not got.
    """
    class_names(classes)
    layout = detect(Path(root))
    axes = axes_of_normals(layout) if isinstance(layout, ArrayFolders) else None
    return in_order(partial(_sample, layout, size=size, classes=classes, axes=axes), names, processes)


def count(root: Path, split: str) -> int:
    """How many frames a split has: officially 795 for "train" and 654 for "test". Raises as `samples`."""
    return len(detect(Path(root)).names(split))


def check(root: Path) -> str:
    """Look whether everything is there and of the right shape; a line about it, or the error that `samples` raises."""
    layout = detect(Path(root))
    layout.check()
    check_splits(layout)
    if isinstance(layout, ArrayFolders):
        axes_of_normals(layout)
    sizes = [f"{len(layout.names(split))} {split}" for split in SPLITS]
    return f"NYUv2 as {layout.title} in {root}: {' and '.join(sizes)} frames"


def check_splits(layout: Layout) -> None:
    """BrokenFileError for a frame that is listed twice, and for one picture in both splits."""
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        with contextlib.suppress(MissingDataError):  # raised where the split is asked for
            splits[split] = layout.names(split)
    for name, one, other in listed_twice(splits):
        raise BrokenFileError(f"{layout.root}: {twice(name, one, other)}; remove one of the two")
    for one, other in in_two_splits(splits, layout.looks()):
        raise BrokenFileError(f"{layout.place(other)}: {same_picture(layout.place(one))}; remove one of the two")


class Stored(NamedTuple):
    """Stored normals: the axes that they are in, as `axes_of_normals` gives them, and the file of a frame's."""

    axes: Axes
    path: Path


def _sample(layout: Layout, name: str, size: tuple[int, int], classes: int, axes: Axes | None) -> tuple[str, Raw]:
    stored = None
    if axes is not None and isinstance(layout, ArrayFolders):
        stored = Stored(axes, layout.path(name, "normal"))
    return name, _label(layout.read(name, classes), size, stored)


def _label(frame: Frame, size: tuple[int, int], stored: Stored | None) -> Raw:
    """The raw sample of one frame at `size`."""
    window = Window.covering(frame.depth.shape, size)
    whole = _shrinks(frame, window.step)
    working = _shrunk(frame, whole)
    surface = _surface(working, stored)
    pick = _Pick(working.depth, Window(window.top / whole, window.left / whole, window.step / whole), size)
    target = {
        "rgb": _colour(frame.rgb, window, size),
        "s": pick.majority(working.labels),
        "d": pick.median(working.depth),
    }
    for letter in "npK":
        target[letter] = pick.median(surface[letter])
    # What is left, D, r, e, k and E, belongs to the pixels as they are now.
    return labels.derive(target, cut(frame.camera, window.top, window.left).scaled(1 / window.step))


def check_normals(frame: Frame, stored: Stored) -> None:
    """BrokenFileError, naming the file, where the stored normals of a frame are not those of its depth."""
    _normals(_shrunk(frame, _shrinks(frame, math.inf)), stored)


def _shrinks(frame: Frame, step: float) -> int:
    """By which whole number a frame becomes its working image. step: pixels of the frame to one that is asked for."""
    return max(1, int(min(min(frame.depth.shape[a] / WORKING_SIZE[a] for a in (0, 1)), step)))


def _surface(frame: Frame, stored: Stored | None) -> Raw:
    """n, p and K at the frame's own size; normals as stored, where there are some."""
    raw: Raw = {"rgb": frame.rgb.transpose(2, 0, 1), "d": frame.depth, "n": _normals(frame, stored)}
    surface = _derived(raw, frame.camera, "npK")
    # The median of each curvature, not of whichever was the larger at a pixel.
    return {**surface, "p": by_magnitude(_without_specks(np.sort(surface["p"], axis=0))).astype(np.float32)}


def _normals(frame: Frame, stored: Stored | None) -> NDArray[np.float32]:
    """Normals (3, H, W): as stored, where there are some, else those of the depth. BrokenFileError, naming the file,
    where the two do not agree."""
    raw: Raw = {"rgb": frame.rgb.transpose(2, 0, 1), "d": frame.depth}
    derived = _facing(_without_specks(_derived(raw, frame.camera, "n")["n"]), frame.camera)
    if frame.normals is None or stored is None:
        return derived
    found = np.einsum("ij,jhw->ihw", stored.axes, frame.normals.transpose(2, 0, 1))
    there = (found**2).sum(axis=0) > 1e-6
    both = there & (frame.depth > 0)
    if both.any():
        refuse(stored.path, agreement_fault(float((found * derived).sum(axis=0)[both].mean())))
    return np.where(there, _facing(found, frame.camera), derived)


def _derived(raw: Raw, camera: Intrinsics, letters: str) -> Raw:
    """Some of the labels that `labels.derive` makes; it leaves alone, and does not spend time on, what is there."""
    others = {letter: raw["d"] for letter in "DnpkKeEr" if letter not in letters}
    made = labels.derive({**others, **raw}, camera)
    return {letter: made[letter] for letter in letters}


def _without_specks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each channel of (C, H, W) through a median filter, for the specks that quantised depth leaves.

    Measured on ray-cast rooms whose depth was quantised to NYUv2's 39 mm: normals within 11.25 degrees 86 % -> 87 %,
    error of the encoded curvatures 0.068 -> 0.062.
    """
    return np.stack([median_filter(channel, SPECKS, mode="nearest") for channel in image])


def _facing(normals: NDArray[np.float32], camera: Intrinsics) -> NDArray[np.float32]:
    """Normals (3, H, W) at unit length; those that face away, by noise at a grazing view, just no longer do."""
    ray = rays((normals.shape[1], normals.shape[2]), camera)
    ray /= np.linalg.norm(ray, axis=0)
    normals = normals - ray * np.maximum(0, (normals * ray).sum(axis=0))
    length = np.linalg.norm(normals, axis=0)
    # What points straight away leaves nothing: it looks at the camera then.
    return np.where(length > 1e-6, normals / np.maximum(length, 1e-6), -ray).astype(np.float32)


def axes_of_normals(layout: ArrayFolders) -> Axes:
    """The rotation or reflection (3, 3) that takes stored normals to camera axes: one axis each, up to sign.

    Of the 48 there are, the one that agrees best with normals derived from the depth of the first training frames.
    BrokenFileError when none agrees.
    """
    frames: list[NDArray[np.float64]] = []
    for name in layout.names("train")[:_FRAMES_FOR_AXES]:
        frame = layout.read(name, 13)
        stored = frame.normals.reshape(-1, 3).T.astype(np.float64) if frame.normals is not None else np.zeros((3, 0))
        derived = _normals(frame, None).reshape(3, -1).astype(np.float64)
        known = (np.linalg.norm(stored, axis=0) > 0.5) & (frame.depth.ravel() > 0)
        if known.any():
            frames.append(derived[:, known] @ stored[:, known].T / int(known.sum()))
    every = [
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    best = max(every, key=lambda axes: float(sum((axes * frame).sum() for frame in frames)))
    # One frame alone that disagrees is named where it is read.
    agreement = float(np.median([(best * frame).sum() for frame in frames])) if frames else 1.0
    if agreement < _AGREEMENT:
        raise BrokenFileError(
            f"{layout.root}: the stored normals are not those of the depth in any axes (mean cosine {agreement:.2f}, "
            f"expected {_AGREEMENT} or more); get the data again"
        )
    return best.astype(np.float32)


# --- size ----------------------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """The part of an image that is resized: its corner and `step`, image pixels per new pixel."""

    top: float
    left: float
    step: float

    @classmethod
    def covering(cls, old: tuple[int, ...], new: tuple[int, int]) -> Window:
        """The largest part of `old` (H, W) with the shape of `new`, in the middle."""
        step = min(old[0] / new[0], old[1] / new[1])
        return cls((old[0] - new[0] * step) / 2, (old[1] - new[1] * step) / 2, step)


def _colour(rgb: NDArray[np.uint8], window: Window, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Colour (3, H, W) of the window, antialiased."""
    height, width = rgb.shape[:2]
    bottom = min(height, window.top + size[0] * window.step)
    right = min(width, window.left + size[1] * window.step)
    box = (max(0, window.left), max(0, window.top), right, bottom)
    image = Image.fromarray(np.ascontiguousarray(rgb)).resize(size[::-1], Image.Resampling.HAMMING, box=box)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


class _Pick:
    """Which pixels of an image lie under each new pixel, and which one of them stands for all: the median in depth."""

    def __init__(self, depth: NDArray[np.float32], window: Window, size: tuple[int, int]) -> None:
        parts = max(1, math.ceil(window.step - 1e-9))
        offsets = (np.arange(parts) + 0.5) / parts
        rows, columns = (
            np.clip(start + (np.arange(length)[:, None] + offsets) * window.step, 0, limit - 1).astype(int)
            for start, length, limit in zip(window[:2], size, depth.shape, strict=True)
        )
        width = depth.shape[1]
        under = rows[:, None, :, None] * width + columns[None, :, None, :]
        self._under = under.reshape(*size, parts * parts)
        metres = depth.ravel()[self._under]
        by_depth = np.argsort(np.where(metres > 0, metres, np.inf), axis=-1, kind="stable")
        # The lower median is a pixel that exists; holes sort last and are taken only where there is nothing else.
        middle = np.maximum((metres > 0).sum(axis=-1) - 1, 0) // 2
        chosen = np.take_along_axis(by_depth, middle[..., None], axis=-1)
        self._chosen = np.take_along_axis(self._under, chosen, axis=-1)[..., 0]

    def median(self, image: NDArray[Any]) -> NDArray[Any]:
        """(..., H, W) at the pixel of the median depth."""
        return image.reshape(*image.shape[:-2], -1)[..., self._chosen]

    def majority(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) class with most pixels under each; on a tie a labelled one, then the first."""
        classes = image.ravel()[self._under]
        votes = 2 * (classes[..., :, None] == classes[..., None, :]).sum(axis=-1) + (classes > 0)
        return np.take_along_axis(classes, votes.argmax(axis=-1)[..., None], axis=-1)[..., 0]


def _shrunk(frame: Frame, factor: int) -> Frame:
    """The frame at a whole fraction of its size; the last rows and columns that do not fill a pixel are left out."""
    if factor == 1:
        return frame
    size = (frame.depth.shape[0] // factor, frame.depth.shape[1] // factor)
    window = Window(0, 0, factor)
    pick = _Pick(frame.depth, window, size)
    normals = None if frame.normals is None else pick.median(frame.normals.transpose(2, 0, 1)).transpose(1, 2, 0)
    return Frame(
        _colour(frame.rgb, window, size).transpose(1, 2, 0),
        pick.median(frame.depth),
        pick.majority(frame.labels),
        normals,
        frame.camera.scaled(1 / factor),
    )


def check_there(root: Path, domains: Sequence[str] = (), labels: Sequence[str] = ()) -> None:
    """MissingDataError unless one of the layouts is there; files are not looked at."""
    detect(root)
