"""Damage that `verify` knows never reaches a cache: for each dense reader and each kind of it, ten damaged files.

The data are built as a study builds them; what cannot be read ends in one line with the name of the file, exit code 4
(3 where a file is gone), and leaves nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from headstrong.data import verification
from headstrong.data.build import build_split
from headstrong.errors import UserError
from nyuv2_folders import write_arrays, write_folders, write_mat
from taskonomy_folders import WRITTEN, place

TIMES = 10
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
Damage = Callable[[Path, np.random.Generator], Path]


def an_image(kind: str, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Damage:
    """A damage of the pixels of one image of a training frame. kind: its folder."""

    def damage(root: Path, rng: np.random.Generator) -> Path:
        path = rng.choice(sorted((root / kind).glob("*000[24].*")) or sorted((root / kind).glob("*point_[01]_*")))
        Image.fromarray(change(np.asarray(Image.open(path)), rng)).save(path)
        return path

    return damage


def an_array(kind: str, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Damage:
    """A damage of one array of a training frame."""

    def damage(root: Path, rng: np.random.Generator) -> Path:
        path = root / "train" / kind / f"{rng.integers(2)}.npy"
        np.save(path, change(np.load(path), rng))
        return path

    return damage


def of_mat(key: str, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Damage:
    """A damage of one training frame of the official file."""

    def damage(root: Path, rng: np.random.Generator) -> Path:
        path = root / "nyu_depth_v2_labeled.mat"
        with h5py.File(path, "r+") as file:
            frame = int(rng.choice([1, 3]))
            values = file[key][:]
            values = values.astype(change(values[frame], rng).dtype)
            values[frame] = change(values[frame], rng)
            del file[key]
            file[key] = values
        return path

    return damage


def a_file(pattern: str, change: Callable[[bytes, np.random.Generator], bytes]) -> Damage:
    """A damage of the bytes of a file."""

    def damage(root: Path, rng: np.random.Generator) -> Path:
        path = rng.choice(sorted(root.glob(pattern)))
        path.write_bytes(change(path.read_bytes(), rng))
        return path

    return damage


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(1, len(data))]


def empty(data: bytes, rng: np.random.Generator) -> bytes:
    return b""


def one_byte(data: bytes, rng: np.random.Generator) -> bytes:
    """A PNG with one byte of its pixels changed."""
    changed, at = bytearray(data), rng.integers(data.index(b"IDAT") + 4, len(data) - 16)
    changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def gone(pattern: str) -> Damage:
    def damage(root: Path, rng: np.random.Generator) -> Path:
        path = rng.choice(sorted(root.glob(pattern)))
        path.unlink()
        return path

    return damage


def copied(source: str, to: str) -> Damage:
    """A picture of training that is one of testing as well."""

    def damage(root: Path, rng: np.random.Generator) -> Path:
        one, other = rng.choice(sorted(root.glob(source))), rng.choice(sorted(root.glob(to)))
        shutil.copy(one, other)
        return other

    return damage


def listed_twice(root: Path, rng: np.random.Generator) -> Path:
    lines = (root / "splits.csv").read_text().splitlines()
    (root / "splits.csv").write_text("\n".join([*lines, f"000{rng.integers(1, 5)},{rng.choice(['train', 'test'])}\n"]))
    return root


def a_copied_frame(root: Path, rng: np.random.Generator) -> Path:
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "r+") as file:
        file["images"][rng.choice([0, 2])] = file["images"][rng.choice([1, 3])]
    return path


def turned(old: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return -old


def outside(highest: int, kind: type = np.uint8) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    def change(old: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        new = old.astype(kind)
        new[rng.integers(old.shape[0] // 4, old.shape[0] // 2), rng.integers(old.shape[1])] = rng.integers(
            highest + 1, 256
        )
        return new

    return change


FRAMES: dict[str, Damage] = {
    "centimetres": an_image("depth", lambda old, rng: (old // 10).astype(np.uint16)),
    "metres": an_image("depth", lambda old, rng: (old // 1000).astype(np.uint16)),
    "tenths of a millimetre": an_image("depth", lambda old, rng: (old * 10).astype(np.uint16)),
    "no depth": an_image("depth", lambda old, rng: np.zeros_like(old)),
    "8-bit depth": an_image("depth", lambda old, rng: (old // rng.integers(40, 256)).astype(np.uint8)),
    "smaller depth": an_image("depth", lambda old, rng: old[:: rng.integers(2, 5)]),
    "class outside": an_image("label13", outside(13)),
    "16-bit labels": an_image("label13", lambda old, rng: old.astype(np.uint16)),
    "grey picture": an_image("rgb", lambda old, rng: old[..., rng.integers(3)]),
    "cut": a_file("[rdl]*[b3h]/000[24].*", cut),
    "empty": a_file("[rdl]*[b3h]/000[24].*", empty),
    "one byte": a_file("[dl]*[3h]/000[24].png", one_byte),
    "gone": gone("[rdl]*[b3h]/000[24].*"),
    "listed twice": listed_twice,
    "in two splits": copied("rgb/000[24].jpg", "rgb/000[13].jpg"),
}
ARRAYS: dict[str, Damage] = {
    "colours to 255": an_array("image", lambda old, rng: old * 255),
    "colours of bytes": an_array("image", lambda old, rng: np.rint(old * 255).astype(np.uint8)),
    "normalised colours": an_array("image", lambda old, rng: (old - MEAN) / DEVIATION),
    "colours divided by 255 twice": an_array("image", lambda old, rng: old / 255),
    "colours that are not numbers": an_array("image", lambda old, rng: np.where(old > old.mean(), np.nan, old)),
    "millimetres": an_array("depth", lambda old, rng: old * 1000),
    "centimetres": an_array("depth", lambda old, rng: old * 100),
    "depth in 0..1": an_array("depth", lambda old, rng: old / (old.max() * rng.uniform(1, 2))),
    "depth below 0": an_array("depth", turned),
    "no depth": an_array("depth", lambda old, rng: old * np.nan),
    "(n + 1) / 2": an_array("normal", lambda old, rng: (old + 1) / 2),
    "normals of bytes": an_array("normal", lambda old, rng: np.rint((old + 1) * 127.5).astype(np.uint8)),
    "long normals": an_array("normal", lambda old, rng: old * rng.uniform(1.2, 3)),
    "normals turned round": an_array("normal", turned),
    "class outside": an_array("label", outside(12, np.float64)),
    "classes in between": an_array("label", lambda old, rng: old + rng.uniform(0.1, 0.9) * (old < old.max())),
    "classes that are not numbers": an_array("label", lambda old, rng: np.where(old == old.max(), np.nan, old)),
    "another shape": an_array(
        "label", lambda old, rng: old[: rng.integers(1, len(old))] if rng.random() < 0.5 else old[..., None]
    ),
    "a pickle": an_array("depth", lambda old, rng: old.astype(object)),
    "texts": an_array("label", lambda old, rng: old.astype(str)),
    "cut": a_file("train/*/[01].npy", cut),
    "empty": a_file("train/*/[01].npy", empty),
    "gone": gone("train/[ldn]*/[01].npy"),
    "in two splits": copied("train/image/*.npy", "val/image/*.npy"),
}
MAT: dict[str, Damage] = {
    "millimetres": of_mat("depths", lambda old, rng: old * 1000),
    "centimetres": of_mat("depths", lambda old, rng: old * 100),
    "no depth": of_mat("depths", lambda old, rng: old * 0),
    "class outside": of_mat("labels", lambda old, rng: np.where(old == old.max(), rng.integers(895, 5000), old)),
    "colours of real numbers": of_mat("images", lambda old, rng: old / 255.0),
    "cut": a_file("nyu*.mat", lambda data, rng: data[: int(len(data) * rng.uniform(0, 0.99))]),
    "cut list": a_file("splits.mat", cut),
    "in two splits": a_copied_frame,
}
VIEWS: dict[str, Damage] = {
    "8-bit depth": an_image("depth_zbuffer", lambda old, rng: (old // rng.integers(256, 300)).astype(np.uint8)),
    "depth in metres": an_image(
        "depth_euclidean", lambda old, rng: np.where(old < 64500, old // 512, old).astype(np.uint16)
    ),
    "no depth": an_image("depth_zbuffer", lambda old, rng: np.zeros_like(old)),
    "class outside": an_image("segment_semantic", outside(17)),
    "16-bit labels": an_image("segment_semantic", lambda old, rng: old.astype(np.uint16)),
    "long normals": an_image("normal", lambda old, rng: rng.integers(0, 256, old.shape, dtype=np.uint8)),
    "grey normals": an_image("normal", lambda old, rng: old[..., rng.integers(3)]),
    "smaller label": an_image("keypoints3d", lambda old, rng: old[:: rng.integers(2, 5)]),
    "colour for 16 bits": an_image("edge_texture", lambda old, rng: np.stack([old.astype(np.uint8)] * 3, axis=-1)),
    "cut": a_file("*/point_[01]_*.png", cut),
    "empty": a_file("*/point_[01]_*.png", empty),
    "one byte": a_file("*/point_[01]_*.png", one_byte),
    "in two splits": copied("rgb/point_[01]_*.png", "rgb/point_130[01]_*.png"),
}


def write_views(root: Path, step: int) -> Path:
    for point in (0, 1, 1300, 1301):
        place(root, "{domain}", "", point, seed=point)
    return root


LAYOUTS: dict[str, tuple[str, Callable[[Path, int], Path], dict[str, Damage]]] = {
    "frames": ("nyuv2", write_folders, FRAMES),
    "arrays": ("nyuv2", write_arrays, ARRAYS),
    "mat": ("nyuv2", write_mat, MAT),
    "views": ("taskonomy", write_views, VIEWS),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The undamaged data of a layout, small."""
    places: dict[str, Path] = {}

    def get(layout: str) -> Path:
        if layout not in places:
            places[layout] = LAYOUTS[layout][1](tmp_path_factory.mktemp(layout) / "data", 8)
        return places[layout]

    return get


def settings_of(dataset: str) -> dict[str, Any]:
    return {"source": dataset, "split": "train", "size": [32, 32], "count": None, "classes": 13}


@pytest.mark.parametrize(("layout", "damage"), [(name, kind) for name, (*_, all_) in LAYOUTS.items() for kind in all_])
def test_no_damaged_file_reaches_a_cache(whole, layout, damage, tmp_path, monkeypatch):
    dataset, _, damages = LAYOUTS[layout]
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path))
    output = tmp_path / "train.h5"
    for seed in range(TIMES):
        root = Path(shutil.copytree(whole(layout), tmp_path / dataset))
        path = damages[damage](root, np.random.default_rng(seed))
        with pytest.raises(UserError) as caught:
            build_split(settings_of(dataset), output, code="abc")
        assert caught.value.code == (3 if damage == "gone" else 4)
        # Of two frames that contradict each other, either may be wrong.
        assert str(root if damage == "normals turned round" else path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not output.exists()
        if seed == 0:  # the same rules: what the build refuses, verify finds
            assert verification.verify(dataset, root).faults
        shutil.rmtree(root)


@pytest.mark.parametrize("layout", [*LAYOUTS])
def test_undamaged_data_are_built(whole, layout, tmp_path, monkeypatch):
    dataset = LAYOUTS[layout][0]
    (tmp_path / dataset).symlink_to(whole(layout))
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path))
    build_split(settings_of(dataset), tmp_path / "train.h5", code="abc")
    assert verification.verify(dataset, whole(layout)).faults == []
    assert len(WRITTEN) == 11
