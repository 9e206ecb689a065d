"""Taskonomy's folders, with views of random numbers."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from headstrong.data import taskonomy

SIZE = (64, 64)
WRITTEN = {letter: names[0] for letter, names in taskonomy.DOMAINS.items()}


def coded_normals(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Unit normals of random directions as the colours of a PNG."""
    vectors = rng.standard_normal((*size, 3))
    return np.rint((vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) + 1) * 127.5).astype(np.uint8)


def random_images(seed: int) -> dict[str, np.ndarray]:
    """One view: what the PNG of each domain holds."""
    rng = np.random.default_rng(seed)
    found = {letter: rng.integers(0, 65536, SIZE, dtype=np.uint16) for letter in "kKeE"}
    depth = rng.integers(200, 5000, SIZE, dtype=np.uint16)
    depth[:4] = 65535  # a hole
    return found | {
        "rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "n": coded_normals(rng, SIZE),
        "p": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "r": rng.integers(0, 256, SIZE, dtype=np.uint8),
        "s": rng.integers(0, 17, SIZE, dtype=np.uint8),
        "d": depth,
        "D": depth,
    }


def place(
    root: Path,
    layout: str,
    building: str,
    point: int,
    seed: int,
    without: str = "",
    images: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Write one view; `without`: letters of the labels that it lacks; `images`: not random ones. Returns what was
    written."""
    # Another building has other pictures: the same ones in two splits are a fault.
    made = images or random_images(seed + zlib.crc32(building.encode()))
    view = {letter: array for letter, array in made.items() if letter not in without}
    for letter, array in view.items():
        domain = WRITTEN[letter]
        folder = root / layout.format(domain=domain, building=building)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"point_{point}_view_0_domain_{domain}.png")
    return view


def write_list(path: Path, rows: list[str], header: str = "id,train,val,test") -> None:
    """A list of buildings as the official ones are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
