"""Taskonomy (Zamir et al. 2018): scanned buildings, every task as an image of its own.

Layouts, found by themselves: `<building>/<domain>/point_P_view_V_domain_<domain>.png` (official),
`<domain>/<building>/...`, and `<domain>/point_...png` (the sample of one building).
Encodings as the released loader of Ghamizi et al. reads them: 16-bit depth in 1/512 m, 65535 where there is none; the
other 16-bit images are shares of 65535; normals are colours.

Split: one building as released, camera points below 1200 for training, the others for testing; several buildings by
whole buildings, every fifth in alphabetical order for testing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from headstrong.data.ordered import in_order
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.tasks import CURVATURE_HALF, DEPTH_INVALID_FROM, DEPTH_UNITS_PER_METRE

__all__ = ["check", "class_names", "count", "samples"]

Raw = dict[str, NDArray[Any]]

# letter -> (the domain's folder, its name in file names); the first folder that is there is taken
DOMAINS: dict[str, tuple[str, ...]] = {
    "rgb": ("rgb",),
    "s": ("segment_semantic", "segmentsemantic"),
    "d": ("depth_zbuffer",),
    "D": ("depth_euclidean",),
    "n": ("normal",),
    "k": ("keypoints2d",),
    "K": ("keypoints3d",),
    "e": ("edge_texture",),
    "E": ("edge_occlusion",),
    "p": ("principal_curvature",),
    "r": ("reshading",),
}
SIXTEEN_BIT = "kKeE"
LAST_TRAINING_POINT = 1199
SPLITS = ("train", "test")
_FRAME = re.compile(r"point_(\d+)_view_(\d+)_domain_rgb\.png")
_CLASSES = 16  # as COCO's objects found in the scans; class 0 is background and uncertain together


class Frame(NamedTuple):
    """One camera view: its building ("" in the sample of one building), and the path of each domain's image."""

    building: str
    point: int
    view: int
    paths: dict[str, Path]

    @property
    def name(self) -> str:
        """Unique in the data set."""
        return f"{self.building}/point_{self.point}_view_{self.view}".lstrip("/")


def class_names(classes: int = _CLASSES) -> list[str]:
    """Names of the segmentation classes, [0] = "unlabelled"; Taskonomy publishes numbers."""
    return ["unlabelled", *(f"object {number}" for number in range(1, _CLASSES + 1))]


def count(root: Path, split: str) -> int:
    """How many frames a split has."""
    return len(_frames(Path(root), split))


def check(root: Path) -> str:
    """A line about what is there, or the error that `samples` raises."""
    sizes = [f"{count(root, split)} {split}" for split in SPLITS]
    return f"Taskonomy in {root}: {' and '.join(sizes)} frames"


def samples(
    root: Path, split: str, size: tuple[int, int], classes: int = _CLASSES, limit: int | None = None, processes: int = 1
) -> Iterator[tuple[str, Raw]]:
    """The frames of a split as (name, raw sample) at `size` (H, W), by building, point and view.

    Raises MissingDataError where an image is absent, BrokenFileError where one is not what it should be.
    """
    frames = {frame.name: frame for frame in _frames(Path(root), split)}
    return in_order(partial(_named_sample, frames, size=size), list(frames)[:limit], processes)


def _named_sample(frames: dict[str, Frame], name: str, size: tuple[int, int]) -> tuple[str, Raw]:
    return name, read_frame(frames[name], size)


def read_frame(frame: Frame, size: tuple[int, int]) -> Raw:
    """The raw sample of one view: colour and labels in the units of `headstrong.tasks.encode`, at `size` (H, W)."""
    found: Raw = {"rgb": _image(frame.paths["rgb"], size, "RGB", Image.Resampling.BOX).transpose(2, 0, 1)}
    # Labels take the nearest pixel: nothing is mixed across an edge.
    nearest = partial(_image, size=size, resampling=Image.Resampling.NEAREST)
    labels = nearest(frame.paths["s"], mode="L").astype(np.int64)
    found["s"] = (np.maximum(labels, 1) - 1).astype(np.uint8)
    if found["s"].max() > _CLASSES:
        raise BrokenFileError(f"{frame.paths['s']}: label {labels.max()}, expected 0..{_CLASSES + 1}; get it again")
    for letter in "dD":
        units = nearest(frame.paths[letter], mode="I")
        found[letter] = np.where(units < DEPTH_INVALID_FROM, units / DEPTH_UNITS_PER_METRE, 0).astype(np.float32)
    for letter in SIXTEEN_BIT:
        found[letter] = (nearest(frame.paths[letter], mode="I") / 65535).astype(np.float32)
    found["n"] = (nearest(frame.paths["n"], mode="RGB").transpose(2, 0, 1) / 127.5 - 1).astype(np.float32)
    found["r"] = (nearest(frame.paths["r"], mode="L") / 255).astype(np.float32)
    curvature = nearest(frame.paths["p"], mode="RGB").transpose(2, 0, 1)[:2].astype(np.float64)
    # The inverse of the encoding's arc tangent: encoded again, these bytes come back.
    found["p"] = (CURVATURE_HALF * np.tan((curvature / 127.5 - 1) * np.pi / 2)).astype(np.float32)
    return found


def _image(path: Path, size: tuple[int, int], mode: str, resampling: Image.Resampling) -> NDArray[Any]:
    """An image as (H, W) or (H, W, 3), resized; mode "I" keeps 16 bits."""
    try:
        with Image.open(path) as image:
            image.load()
            kept = image if mode == "I" and image.mode.startswith("I") else image.convert(mode)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BrokenFileError(f"{path}: cannot be read as an image ({error}); get it again") from error
    array = np.asarray(kept)
    if array.shape[:2] == size:
        return array
    if resampling == Image.Resampling.NEAREST:
        rows = (np.arange(size[0]) * array.shape[0] + array.shape[0] // 2) // size[0]
        columns = (np.arange(size[1]) * array.shape[1] + array.shape[1] // 2) // size[1]
        return array[np.minimum(rows, len(array) - 1)][:, np.minimum(columns, array.shape[1] - 1)]
    return np.asarray(kept.resize((size[1], size[0]), resampling))


def _frames(root: Path, split: str) -> list[Frame]:
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; place Taskonomy there (docs/data.md lists the layouts)")
    found = sorted((_frame(root, path) for path in sorted(_pictures(root))), key=lambda frame: frame[:3])
    if not found:
        raise MissingDataError(f"{root}: no point_P_view_V_domain_rgb.png below it; docs/data.md lists the layouts")
    buildings = sorted({frame.building for frame in found})
    if len(buildings) == 1:
        chosen = [frame for frame in found if (frame.point > LAST_TRAINING_POINT) == (split == "test")]
    else:
        testing = set(buildings[4::5] or buildings[-1:])
        chosen = [frame for frame in found if (frame.building in testing) == (split == "test")]
    return chosen


def _pictures(root: Path) -> Iterator[Path]:
    for pattern in ("rgb/*_domain_rgb.png", "rgb/*/*_domain_rgb.png", "*/rgb/*_domain_rgb.png"):
        yield from root.glob(pattern)


def _frame(root: Path, picture: Path) -> Frame:
    match = _FRAME.fullmatch(picture.name)
    if match is None:
        raise BrokenFileError(f"{picture}: expected a name point_P_view_V_domain_rgb.png; rename or remove it")
    parts = picture.relative_to(root).parts[:-1]
    building = next((part for part in parts if part != "rgb"), "")
    paths = {letter: _path(root, picture, parts, names) for letter, names in DOMAINS.items()}
    return Frame(building, int(match[1]), int(match[2]), paths)


def _path(root: Path, picture: Path, parts: tuple[str, ...], names: tuple[str, ...]) -> Path:
    """The image of one domain beside the picture, whatever the layout; MissingDataError when there is none."""
    candidates = []
    for name in names:
        folder = root.joinpath(*(name if part == "rgb" else part for part in parts))
        candidates += [folder / picture.name.replace("domain_rgb", f"domain_{written}") for written in names]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise MissingDataError(f"{candidates[0]}: no such image; get it, or remove {picture.name} and its other domains")
