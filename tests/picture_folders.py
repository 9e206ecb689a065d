"""Small folders of photographs for tests: noise, one image file per picture, in the layouts that are recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"bike": 7, "calculator": 4, "mug": 10}


def noise(name: str, height: int = 20, width: int = 30) -> np.ndarray:
    """An image uint8 (H, W, 3) that its name decides, smooth enough for JPEG."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_domain(
    folder: Path, classes: Mapping[str, int] = CLASSES, *, official: bool = False, suffix: str = ".png"
) -> Path:
    """A domain with so many images of each class; official: below images/, as in Office-31."""
    for name, number in classes.items():
        place = folder / "images" / name if official else folder / name
        place.mkdir(parents=True)
        for i in range(number):
            Image.fromarray(noise(f"{folder.name}/{name}/{i}")).save(place / f"frame_{i:04d}{suffix}")
    return folder
