"""What a task is: letter, channels, target encoding, loss and error.

Letters, encodings and masks are those of Ghamizi et al. (2022), whose code takes them from Taskonomy.
Raw labels come in physical units from every data set alike; `encode` turns them into what a network is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstrong.errors import ConfigError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """One task.

    `channels` is the number of output channels (None: one logit per class of the data set).
    `mask` says which pixels count: those with a label, those with a valid depth, or all.
    `low` and `high` bound the encoded target as the cache stores it (16-bit fixed point).
    """

    letter: str
    domain: str  # Taskonomy's name for it
    title: str
    channels: int | None
    loss: Literal["cross_entropy", "l1"]
    mask: Literal["label", "depth", "none"]
    low: float = -1.0
    high: float = 1.0

    @property
    def error(self) -> str:
        """Name of the per-sample error: `100 - mIoU` in percent for segmentation, else the mean squared error."""
        return "100 - mIoU" if self.loss == "cross_entropy" else "MSE"


_ALL = [
    Task("s", "segment_semantic", "Semantic segmentation", None, "cross_entropy", "label"),
    Task("d", "depth_zbuffer", "Z-buffer depth", 1, "l1", "depth", low=0.0),
    Task("D", "depth_euclidean", "Euclidean depth", 1, "l1", "depth", low=0.0),
    Task("n", "normal", "Surface normals", 3, "l1", "depth"),
    Task("k", "keypoints2d", "2D keypoints", 1, "l1", "none"),
    Task("K", "keypoints3d", "3D keypoints", 1, "l1", "depth"),
    Task("e", "edge_texture", "Texture edges", 1, "l1", "none"),
    Task("E", "edge_occlusion", "Occlusion edges", 1, "l1", "depth", high=15.0),
    Task("p", "principal_curvature", "Principal curvature", 2, "l1", "depth", low=-6.0, high=7.0),
    Task("r", "reshading", "Reshading", 1, "l1", "depth"),
    Task("A", "autoencoder", "Autoencoding", 3, "l1", "none"),
]

TASKS: Mapping[str, Task] = {task.letter: task for task in _ALL}

DEPTH_UNITS_PER_METRE = 512.0  # Taskonomy's 16-bit depth images
DEPTH_INVALID_FROM = 64500  # raw values from here on are holes
CURVATURE_MEAN = (123.572, 120.1)
CURVATURE_STD = (31.922, 21.658)
CURVATURE_RADIUS = 0.03  # metres: the smallest radius that Taskonomy's renderer tells from others
CURVATURE_GREY = 127  # its byte for no curvature
EDGE_OCCLUSION_SCALE = 0.00625
EDGE_OCCLUSION_SIGMA = 4.0  # pixels, whatever the size of the image
EDGE_TEXTURE_SCALE = 0.08
KEYPOINTS_2D_SCALE = 0.005


def encode(letter: str, raw: NDArray[np.generic]) -> Array:
    """Encode one raw label image as a training target.

    raw by letter: d, D metres (H, W), holes 0 or not finite; n unit vectors (3, H, W); p principal curvatures in
    1/m (2, H, W), the larger magnitude first; k, K, e, E, r responses (H, W), non-negative; A an 8-bit image (3, H, W).
    Returns float32 (C, H, W), the published encoding (facts of the released loader), clipped to `low` and `high` of the
    task: d and D in [0, 1], E in [-1, 15], p in [-6, 7], the others in [-1, 1]. Segmentation has no encoding, since its
    labels are class numbers already; raises as `encoding`.
    """
    encoded = encoding(letter)(np.asarray(raw, dtype=np.float64))
    task = TASKS[letter]
    return np.clip(encoded, task.low, task.high).astype(np.float32)


def encoding(letter: str) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """What encodes the raw labels of a task; ConfigError where _ENCODERS does not have it."""
    if letter not in _ENCODERS:
        raise ConfigError(
            f"src/headstrong/tasks.py: task {letter!r} has no encoding; add {letter!r} to _ENCODERS "
            "(docs/howto/task.md)"
        )
    return _ENCODERS[letter]


def depth_is_valid(metres: NDArray[np.generic]) -> NDArray[np.bool_]:
    """True (H, W) where a depth in metres is measured and below the published limit of raw value 64500."""
    known = np.nan_to_num(np.asarray(metres, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray((known > 0) & (known * DEPTH_UNITS_PER_METRE < DEPTH_INVALID_FROM))


def decode_depth(encoded: NDArray[np.generic]) -> Array:
    """Metres, float32, from encoded depths in [0, 1], any shape: the inverse of `encode` for d and D."""
    raw = np.expm1(np.asarray(encoded, dtype=np.float64) * np.log(65536.0))
    return (raw / DEPTH_UNITS_PER_METRE).astype(np.float32)


def decode_curvature(byte: NDArray[np.generic]) -> Array:
    """Curvatures in 1/m, float32, from bytes of Taskonomy's curvature images, any shape; `encode` gives these bytes."""
    return ((np.asarray(byte, dtype=np.float64) / CURVATURE_GREY - 1) / CURVATURE_RADIUS).astype(np.float32)


def _depth(metres: NDArray[np.float64]) -> NDArray[np.float64]:
    raw = np.clip(np.nan_to_num(metres, posinf=1e9) * DEPTH_UNITS_PER_METRE, 0, 65535)
    return (np.log1p(raw) / np.log(65536.0))[None]


def _curvature(kappa: NDArray[np.float64]) -> NDArray[np.float64]:
    # As bytes of red and green: 0 to 254 for curvatures of -1 / radius to 1 / radius.
    byte = np.clip(CURVATURE_GREY * (1 + CURVATURE_RADIUS * kappa), 0, 255)
    mean = np.array(CURVATURE_MEAN)[:, None, None]
    std = np.array(CURVATURE_STD)[:, None, None]
    return (byte - mean) / std


def _edge_occlusion(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter  # late: the Snakefile reads this module at every job

    return gaussian_filter(_to_signed(strength / EDGE_OCCLUSION_SCALE), EDGE_OCCLUSION_SIGMA)[None]


def _to_signed(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * unit - 1


_ENCODERS = {
    "d": _depth,
    "D": _depth,
    "n": lambda raw: raw,
    "k": lambda raw: _to_signed(np.clip(raw / KEYPOINTS_2D_SCALE, 0, 1))[None],
    "K": lambda raw: _to_signed(raw)[None],
    "e": lambda raw: _to_signed(np.clip(raw / EDGE_TEXTURE_SCALE, 0, 1))[None],
    "E": _edge_occlusion,
    "p": _curvature,
    "r": lambda raw: _to_signed(raw)[None],
    "A": lambda raw: _to_signed(raw / 255),
}


def in_order(letters: str) -> str:
    """The letters in the fixed order of the study, e.g. 'Ds' -> 'sD'."""
    return "".join(letter for letter in TASKS if letter in letters)


def file_safe(letters: str) -> str:
    """Letters for a file name: a capital is written with an underscore before it ('sD' -> 's_D').

    Some file systems (macOS, Windows) do not tell `sd` from `sD`.
    """
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in letters)
