"""How NYU Depth v2 lies on disk: three layouts, told apart by what is in the root folder, read frame by frame.

* `nyu_depth_v2_labeled.mat`, the official file, with the official `splits.mat` (or a splits.csv) beside it;
* `train/` and `val/` with image, label, depth and normal folders of .npy files: the 288x384 copy of MTAN and LibMTL;
* `rgb/*.jpg`, `depth/*.png`, `label13/*.png`, `label40/*.png` and `splits.csv`: one image file each per frame.

The rim of the official frames has no colour, or depth that was painted in. Only what the official evaluation keeps
(rows 45..471 and columns 41..601 of 480x640, counted from 1) is used. MTAN's copy is cropped already; its exact crop
is not published, so this one is taken for its camera.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstrong.data.cameras import Intrinsics
from headstrong.data.duplicates import FILES
from headstrong.data.image_errors import UNREADABLE, cut_short, reason
from headstrong.data.value_rules import class_fault, colour_fault, depth_fault, normal_fault, refuse, size_faults
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError, UserError

SPLITS = ("train", "test")
FULL_SIZE = (480, 640)
CROP = (44, 471, 40, 601)  # top, bottom, left, right of the full-size frame, counted from 0, ends left out
# The toolbox's colour camera. It counts pixels from 1, Intrinsics from the corner of the image: hence the half pixel.
CAMERA = Intrinsics(518.85790117450188, 519.46961112127485, 325.58244941119034 - 0.5, 253.73616633400465 - 0.5)


@dataclass(frozen=True)
class Frame:
    """One photograph: rgb uint8 (H, W, 3), depth float32 metres (H, W), 0 = hole, labels uint8 (H, W), 0 = unlabelled,
    normals float32 (H, W, 3) in the axes they are stored in, or None, and the camera that took it."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    labels: NDArray[np.uint8]
    normals: NDArray[np.float32] | None
    camera: Intrinsics


class Layout(Protocol):
    """What a layout can do. It is small and without open files: worker processes get a copy."""

    @property
    def title(self) -> str:
        """What the layout is called in messages."""

    @property
    def root(self) -> Path:
        """The folder it lies in."""

    def names(self, split: str) -> list[str]:
        """Names of the frames of a split ("train", "test"), in order.

        Raises MissingDataError where the list or folder is absent, BrokenFileError where the list is not one.
        """

    def read(self, name: str, classes: int) -> Frame:
        """One frame with 13 or 40 classes, labels 0 = unlabelled; its values keep the rules of `value_rules`.

        Raises MissingDataError or BrokenFileError, naming the file, and ConfigError for classes it has not got.
        """

    def scenes(self) -> Mapping[str, str]:
        """The scene of every frame, where the data say it; none where they do not: frames come scene by scene.

        Raises BrokenFileError for scenes that cannot be read.
        """

    def place(self, name: str) -> str:
        """Where the picture of a frame is, for messages."""

    def looks(self) -> Sequence[Callable[[str], Hashable]]:
        """What tells the picture of one frame from another, as `duplicates.in_two_splits` asks for it."""

    def check(self) -> None:
        """Raise what `names` and `read` raise unless everything is there; not every value is looked at."""


def class_names(classes: int) -> list[str]:
    """Names of the 13 or 40 classes after "unlabelled", which is [0]; ConfigError for any other number."""
    if classes not in (13, 40):
        raise ConfigError(f"nyuv2: classes is {classes}, expected 13 or 40")
    rows = _class_table()
    names = {int(row[f"label{classes}"]): row[f"name{classes}"] for row in rows}
    return ["unlabelled", *(names[number] for number in range(1, classes + 1))]


@lru_cache(maxsize=1)
def _class_table() -> list[dict[str, str]]:
    with Path(__file__).with_name("nyuv2_classes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _to_classes(classes: int) -> NDArray[np.uint8]:
    """Official class number 0..894 -> 0..13 or 0..40."""
    return np.array([0, *(int(row[f"label{classes}"]) for row in _class_table())], dtype=np.uint8)


def detect(root: Path) -> Layout:
    """The layout of the data in `root`; MissingDataError, saying what was looked for, where there is none."""
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; place NYUv2 there (docs/data.md lists the layouts)")
    if (root / "nyu_depth_v2_labeled.mat").is_file():
        return LabelledMat(root)
    if (root / "train" / "image").is_dir():
        return ArrayFolders(root)
    if (root / "rgb").is_dir():
        return FrameFolders(root)
    raise MissingDataError(
        f"{root}: no NYUv2 here; looked for nyu_depth_v2_labeled.mat, train/image/*.npy and rgb/*.jpg (docs/data.md)"
    )


@dataclass(frozen=True)
class LabelledMat:
    """The official MATLAB 7.3 file, an HDF5 file whose axes run backwards: images (N, 3, W, H), depths (N, W, H)."""

    root: Path
    title: str = "the official .mat"

    @property
    def path(self) -> Path:
        """The file."""
        return self.root / "nyu_depth_v2_labeled.mat"

    def names(self, split: str) -> list[str]:
        """As `Layout.names`: numbers from 1, by splits.mat, or where that is absent by splits.csv."""
        official = self.root / "splits.mat"
        if not official.is_file():
            return _split_names(self.root / "splits.csv", split)
        from scipy.io import matlab

        try:
            numbers = np.sort(matlab.loadmat(official)[f"{split}Ndxs"].ravel().astype(int))
        except (*UNREADABLE, KeyError, NotImplementedError, matlab.MatReadError) as error:
            raise BrokenFileError(f"{official}: no {split}Ndxs in it ({reason(error)}); get it again") from error
        return [f"{number:04d}" for number in numbers]

    def read(self, name: str, classes: int) -> Frame:
        """As `Layout.read`: cropped, without normals."""
        file = _open_mat(self.path)
        try:
            row = int(name) - 1
            rgb, depth, official = (file[key][row] for key in ("images", "depths", "labels"))
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise BrokenFileError(f"{self.path}: frame {name} cannot be read ({error}); get it again") from error
        if rgb.dtype != np.uint8:
            raise BrokenFileError(f"{self.path}: images of {rgb.dtype}, expected uint8; get it again")
        refuse(f"{self.path}: frame {name}", class_fault(official, 0, len(_class_table())))
        refuse(f"{self.path}: frame {name}", depth_fault(depth))
        labelled = _to_classes(classes)[official.T.astype(np.int64)]
        return cropped(rgb.transpose(2, 1, 0), depth.T, labelled, f"{self.path}: frame {name}")

    def scenes(self) -> Mapping[str, str]:
        """As `Layout.scenes`: the types of scenes in the file, such as kitchen."""
        types = _texts(self.path, "sceneTypes")
        names = [name for split in SPLITS for name in self.names(split)]
        return {name: types[int(name) - 1] for name in names if 0 < int(name) <= len(types)}

    def place(self, name: str) -> str:
        """As `Layout.place`."""
        return f"{self.path}: frame {name}"

    def looks(self) -> Sequence[Callable[[str], Hashable]]:
        """As `Layout.looks`: one line of pixels, then all of them."""
        return tuple(partial(_known, self._pixels, part=part) for part in (np.s_[0, 0], np.s_[:]))

    def _pixels(self, name: str, part: Any) -> bytes:
        try:
            found: bytes = _open_mat(self.path)["images"][int(name) - 1][part].tobytes()
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise BrokenFileError(f"{self.path}: frame {name} cannot be read ({error}); get it again") from error
        return found

    def check(self) -> None:
        """As `Layout.check`: arrays, their number of frames, and the names of the classes."""
        file = _open_mat(self.path)
        highest = max(int(name) for split in SPLITS for name in self.names(split))
        for key, axes in (("images", 4), ("depths", 3), ("labels", 3)):
            if key not in file or file[key].ndim != axes or len(file[key]) < highest:
                raise BrokenFileError(f"{self.path}: no {key} of {highest} frames in it; get it again")
        for row, found in zip(_class_table(), _texts(self.path, "names"), strict=False):
            if found != row["name894"]:
                raise BrokenFileError(f"{self.path}: class {row['label894']} is {found}, expected {row['name894']}")


@lru_cache(maxsize=2)
def _open_mat(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise BrokenFileError(f"{path}: truncated or not a MATLAB 7.3 file ({error}); get it again") from error


def _texts(path: Path, key: str) -> list[str]:
    """A cell array of texts of the official file; none where it is absent. BrokenFileError where it is damaged."""
    file = _open_mat(path)
    try:
        letters = [file[link][:].ravel() for link in file[key][:].ravel()] if key in file else []
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BrokenFileError(f"{path}: its {key} cannot be read ({reason(error)}); get it again") from error
    return ["".join(map(chr, text)) for text in letters]


@dataclass(frozen=True)
class ArrayFolders:
    """MTAN's .npy files: image [0, 1] and normal (H, W, 3), label (H, W) from -1, depth metres (H, W, 1).

    What the files mean by x, y and z is not published: the frames give normals in the axes they are stored in.
    """

    root: Path
    title: str = "folders of .npy files"
    kinds: ClassVar[tuple[str, ...]] = ("image", "label", "depth", "normal")

    def names(self, split: str) -> list[str]:
        """As `Layout.names`: <folder>-<number>, where "test" is the folder val."""
        folder = self.root / ("val" if split == "test" else split) / "image"
        if not folder.is_dir():
            raise MissingDataError(f"{folder}: no such folder; place NYUv2 there (docs/data.md lists the layouts)")
        numbers = sorted(int(path.stem) for path in folder.glob("*.npy") if path.stem.isdecimal())
        return [f"{folder.parent.name}-{number}" for number in numbers]

    def read(self, name: str, classes: int) -> Frame:
        """As `Layout.read`: 13 classes only, with normals in the axes they are stored in."""
        if classes != 13:
            raise ConfigError(f"nyuv2: classes is {classes}, but {self.title} in {self.root} know 13 only")
        return self.frame({key: self.array(name, key) for key in self.kinds})

    def frame(self, arrays: Mapping[str, NDArray[Any]]) -> Frame:
        """The frame of what `array` gives for each kind."""
        height, width = arrays["label"].shape
        whole = cut(CAMERA, CROP[0], CROP[2])
        return Frame(
            np.rint(np.clip(arrays["image"], 0, 1) * 255).astype(np.uint8),
            _metres(arrays["depth"][..., 0]),
            (arrays["label"] + 1).astype(np.uint8),
            arrays["normal"].astype(np.float32),
            whole.scaled(width / (CROP[3] - CROP[2]), height / (CROP[1] - CROP[0])),
        )

    def check(self) -> None:
        """As `Layout.check`: the shape of every array."""
        for split in SPLITS:
            for name in self.names(split):
                for key in self.kinds:
                    self.array(name, key, mode="r")

    def path(self, name: str, key: str) -> Path:
        """The file of one array of a frame."""
        folder, number = name.split("-")
        return self.root / folder / key / f"{number}.npy"

    def array(self, name: str, key: str, mode: Any = None) -> NDArray[Any]:
        """One array of a frame; BrokenFileError for another shape than its image's, or values that cannot be.

        Raises MissingDataError where there is no file.
        mode: as for np.load; values are looked at only where it is None.
        """
        path = self.path(name, key)
        array = _read(path, partial(np.load, mmap_mode=mode))
        size = _read(self.path(name, "image"), partial(np.load, mmap_mode="r")).shape[:2]
        shape = {"label": size, "depth": (*size, 1)}.get(key, (*size, 3))
        if array.shape != shape:
            raise BrokenFileError(f"{path}: array of shape {array.shape}, expected {shape}; get it again")
        if array.dtype.kind not in "fiu":
            raise BrokenFileError(f"{path}: array of {array.dtype}, expected numbers; get it again")
        if mode is None:
            refuse(path, _ARRAY_RULES[key](array))
        return array

    def scenes(self) -> Mapping[str, str]:
        """As `Layout.scenes`: the arrays say nothing of them."""
        return {}

    def place(self, name: str) -> str:
        """As `Layout.place`."""
        return str(self.path(name, "image"))

    def looks(self) -> Sequence[Callable[[str], Hashable]]:
        """As `Layout.looks`: colours here and there, then all of them; the type of the numbers makes no difference."""
        return tuple(partial(_known, self._pixels, part=part) for part in (np.s_[::61, ::67], np.s_[:]))

    def _pixels(self, name: str, part: Any) -> bytes:
        image = _read(self.path(name, "image"), partial(np.load, mmap_mode="r"))
        return hashlib.sha256(np.rint(image[part] * 255.0).astype(np.float32).tobytes()).digest()


_ARRAY_RULES: dict[str, Callable[[NDArray[Any]], str | None]] = {
    "image": colour_fault,
    "label": partial(class_fault, low=-1, high=12),
    "depth": depth_fault,
    "normal": normal_fault,
}


def _known(look: Callable[..., Hashable], name: str, part: Any) -> Hashable:
    """What a look sees of a frame; of one that cannot be read, its name: it is reported when its turn comes."""
    try:
        return look(name, part)
    except UserError:
        return name


@dataclass(frozen=True)
class FrameFolders:
    """One image file per frame and kind; depth is 16-bit millimetres."""

    root: Path
    title: str = "frame folders"
    kinds: ClassVar[tuple[str, ...]] = ("rgb", "depth", "label13", "label40")

    def names(self, split: str) -> list[str]:
        """As `Layout.names`: column index of splits.csv."""
        return _split_names(self.root / "splits.csv", split)

    def read(self, name: str, classes: int) -> Frame:
        """As `Layout.read`: cropped, without normals."""
        kinds = ("rgb", "depth", f"label{classes}")
        pixels = {kind: self.image(name, kind) for kind in kinds}
        for kind, fault in size_faults(pixels, "rgb").items():
            refuse(self.path(name, kind), fault)
        rgb, depth, labelled = pixels.values()
        return cropped(rgb, depth / np.float32(1000), labelled, str(self.path(name, "rgb")))

    def check(self) -> None:
        """As `Layout.check`: the size of every image."""
        for split in SPLITS:
            for name in self.names(split):
                sizes = {_read(self.path(name, kind), _size) for kind in self.kinds}
                if len(sizes) > 1:
                    raise BrokenFileError(f"{self.path(name, 'rgb')}: not of the size of its depth and labels")

    def image(self, name: str, kind: str) -> NDArray[Any]:
        """The pixels of one image of a frame, of any size; BrokenFileError for another type, or values that cannot be.

        Raises MissingDataError where there is no file.
        kind: rgb, uint8 (H, W, 3); depth, uint16 (H, W) millimetres; label13 or label40, uint8 (H, W) from 0.
        """
        path = self.path(name, kind)
        pixels = _read(path, _pixels)
        kinds, axes = {"rgb": (np.uint8, 3), "depth": (np.uint16, 2)}.get(kind, (np.uint8, 2))
        if (pixels.dtype, pixels.ndim) != (kinds, axes):
            raise BrokenFileError(
                f"{path}: {pixels.dtype} of shape {pixels.shape}, expected {kinds.__name__} with {axes} axes"
            )
        if kind == "depth":
            refuse(path, depth_fault(pixels / np.float32(1000)))
        elif kind != "rgb":
            refuse(path, class_fault(pixels, 0, int(kind.removeprefix("label"))))
        return pixels

    def scenes(self) -> Mapping[str, str]:
        """As `Layout.scenes`: column scene of splits.csv, where it has one."""
        rows = _split_rows(self.root / "splits.csv")
        return {row["index"]: row["scene"] for row in rows if row.get("scene")}

    def place(self, name: str) -> str:
        """As `Layout.place`."""
        return str(self.path(name, "rgb"))

    def looks(self) -> Sequence[Callable[[str], Hashable]]:
        """As `Layout.looks`: those of files."""
        return tuple(partial(self._file_look, look) for look in FILES)

    def _file_look(self, look: Callable[[Path], Hashable], name: str) -> Hashable:
        return look(self.path(name, "rgb"))

    def path(self, name: str, kind: str) -> Path:
        """The file of one image of a frame."""
        return self.root / kind / f"{name}.{'jpg' if kind == 'rgb' else 'png'}"


def _split_names(path: Path, split: str) -> list[str]:
    return [row["index"] for row in _split_rows(path) if row["split"] == split]


def _split_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; place the official split there (docs/data.md)")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BrokenFileError(f"{path}: not a table ({reason(error)}); get it again") from error
    if not rows or any(row.get("split") not in SPLITS or not (row.get("index") or "").isdecimal() for row in rows):
        raise BrokenFileError(f"{path}: expected the columns index (a number) and split (train or test); get it again")
    return rows


def _read(path: Path, load: Callable[[Path], Any]) -> Any:
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; NYUv2 is not whole, place it again (docs/data.md)")
    try:
        return load(path)
    except UNREADABLE as error:
        raise BrokenFileError(f"{path}: truncated or not what its name says ({reason(error)}); get it again") from error


def _pixels(path: Path) -> NDArray[Any]:
    whole = path.read_bytes()
    with Image.open(io.BytesIO(whole)) as image:
        pixels = np.asarray(image)
    refuse(path, cut_short(whole))
    # Pillow gives 16-bit images as int32 in some of its versions.
    return pixels.astype(np.uint16) if pixels.dtype == np.int32 and pixels.max() < 65536 else pixels


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def cropped(rgb: NDArray[Any], depth: NDArray[Any], labelled: NDArray[Any], where: str) -> Frame:
    """The part of a whole official frame, at any scale, that the official evaluation keeps; BrokenFileError for another
    shape than 4:3. where: what the message begins with."""
    height, width = depth.shape
    if height * FULL_SIZE[1] != width * FULL_SIZE[0]:
        raise BrokenFileError(f"{where}: {width}x{height} pixels, expected a whole frame of 4:3; get it again")
    scale = width / FULL_SIZE[1]
    # Whole pixels inside the crop; the small number keeps exact products on their side.
    top, left = (int(np.ceil(edge * scale - 1e-9)) for edge in (CROP[0], CROP[2]))
    bottom, right = (int(edge * scale + 1e-9) for edge in (CROP[1], CROP[3]))
    part = np.s_[top:bottom, left:right]
    return Frame(rgb[part], _metres(depth[part]), labelled[part], None, cut(CAMERA.scaled(scale), top, left))


def cut(camera: Intrinsics, top: float, left: float) -> Intrinsics:
    """The camera of the image without its first `top` rows and `left` columns."""
    return replace(camera, cx=camera.cx - left, cy=camera.cy - top)


def _metres(depth: NDArray[Any]) -> NDArray[np.float32]:
    return np.nan_to_num(depth, nan=0, posinf=0, neginf=0).astype(np.float32)
