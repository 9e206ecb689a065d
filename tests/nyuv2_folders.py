"""Small NYUv2 folders in the three layouts that the adapter knows, all of the same synthetic frames.

The frames are a room of three planes seen by NYUv2's own camera, so depth and normals are known exactly.
"""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from PIL import Image

from headstrong.data import nyuv2_layouts
from headstrong.data.cameras import rays

SPLITS = {1: "test", 2: "train", 3: "test", 4: "train"}
CROP = np.s_[44:471, 40:601]
STORED_AXES = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # what the .npy copy is given: x right, y forward, z up
FLOOR, WALL, BOOK = 11, 21, 1  # three of the 894 official classes


def small(frame: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    """Every n-th pixel of a frame, in each row and column."""
    return {kind: array[..., ::step, ::step] for kind, array in frame.items()}


def room(number: int) -> dict[str, np.ndarray]:
    """A floor, a wall ahead and one on the left: rgb, depth in whole millimetres, official labels, normals, 480x640."""
    ray = rays(nyuv2_layouts.FULL_SIZE, nyuv2_layouts.CAMERA)
    with np.errstate(divide="ignore"):
        far = np.full(ray.shape[1:], 3.0 + 0.2 * number)
        floor = np.where(ray[1] > 1e-6, 1.1 / ray[1], np.inf)
        left = np.where(ray[0] < -1e-6, -1.4 / ray[0], np.inf)
    distances = np.stack([far, floor, left])
    which = distances.argmin(axis=0)
    depth = np.round(distances.min(axis=0), 3).astype(np.float32)
    normals = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], dtype=np.float32)[which].transpose(2, 0, 1)
    y, x = np.mgrid[0:1:480j, 0:1:640j]
    shade = np.array([200, 120, 160])[which]
    rgb = np.stack([shade, shade * (0.5 + 0.5 * x), 40 * number + 80 * y]).round().astype(np.uint8)
    labels = np.array([WALL, FLOOR, BOOK])[which].astype(np.uint16)
    labels[300:340, 100:200] = 0
    return {"rgb": rgb, "depth": depth, "labels": labels, "normals": normals}


def write_mat(root: Path, step: int = 1) -> Path:
    root.mkdir(parents=True)
    frames = [small(room(number), step) for number in SPLITS]
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        # MATLAB writes its axes the other way round.
        file["images"] = np.stack([frame["rgb"].transpose(0, 2, 1) for frame in frames])
        file["depths"] = np.stack([frame["depth"].T for frame in frames])
        file["labels"] = np.stack([frame["labels"].T for frame in frames])
        # A cell array of texts: references to arrays of 16-bit characters.
        with Path(nyuv2_layouts.__file__).with_name("nyuv2_classes.csv").open() as table:
            names = [row["name894"] for row in csv.DictReader(table)]
        cells = [
            file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in n], np.uint16))
            for i, n in enumerate(names)
        ]
        file.create_dataset("names", data=np.array([[cell.ref for cell in cells]], dtype=h5py.ref_dtype))
    chosen = {f"{split}Ndxs": [[n] for n, s in SPLITS.items() if s == split] for split in ("train", "test")}
    scipy.io.savemat(root / "splits.mat", chosen)
    return root


def write_arrays(root: Path, step: int = 1) -> Path:
    to_13 = class_table(13)
    for split, folder in (("train", "train"), ("test", "val")):
        for kind in ("image", "label", "depth", "normal"):
            (root / folder / kind).mkdir(parents=True)
        for i, number in enumerate(n for n, s in SPLITS.items() if s == split):
            frame = small({kind: array[..., *CROP] for kind, array in room(number).items()}, step)
            stored = np.einsum("ij,jhw->hwi", STORED_AXES, frame["normals"])
            stored[: 10 // step, : 10 // step] = 0
            np.save(root / folder / "image" / f"{i}.npy", frame["rgb"].transpose(1, 2, 0) / 255)
            np.save(root / folder / "label" / f"{i}.npy", to_13[frame["labels"]].astype(float) - 1)
            np.save(root / folder / "depth" / f"{i}.npy", frame["depth"][..., None])
            np.save(root / folder / "normal" / f"{i}.npy", stored)
    return root


def write_folders(root: Path, step: int = 1) -> Path:
    for kind in ("rgb", "depth", "label13", "label40"):
        (root / kind).mkdir(parents=True)
    for number in SPLITS:
        frame, name = small(room(number), step), f"{number:04d}"
        Image.fromarray(frame["rgb"].transpose(1, 2, 0)).save(root / f"rgb/{name}.jpg", quality=95)
        millimetres = np.rint(frame["depth"].astype(np.float64) * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(root / f"depth/{name}.png")
        for classes in (13, 40):
            labels = class_table(classes)[frame["labels"]]
            Image.fromarray(labels.astype(np.uint8)).save(root / f"label{classes}/{name}.png")
    rows = "".join(f"{number:04d},{split}\n" for number, split in SPLITS.items())
    (root / "splits.csv").write_text("index,split\n" + rows)
    return root


def class_table(classes: int) -> np.ndarray:
    """Official number 0..894 -> class, read from the CSV independently of the adapter."""
    path = Path(nyuv2_layouts.__file__).with_name("nyuv2_classes.csv")
    with path.open() as file:
        rows = [(int(row["label894"]), int(row[f"label{classes}"])) for row in csv.DictReader(file)]
    table = np.zeros(895, dtype=int)
    for official, label in rows:
        table[official] = label
    return table
