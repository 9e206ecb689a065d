"""Pinhole cameras: intrinsics, viewing rays, points in space, and a camera's place in the world.

Pixel convention: pixel (row i, column j) covers [j, j+1] x [i, i+1], so its centre is (j + 0.5, i + 0.5), and scaling
an image by f scales all four intrinsics by f. Camera axes: x right, y down, z forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Intrinsics:
    """Focal lengths and principal point in pixels. A source whose pixel centres are whole numbers (0-based) gives
    its principal point plus 0.5; a 1-based one (MATLAB), minus 0.5."""

    fx: float
    fy: float
    cx: float
    cy: float

    @staticmethod
    def from_view(size: tuple[int, int], degrees: float) -> Intrinsics:
        """Square pixels, the principal point in the middle of (H, W), a horizontal field of view in degrees."""
        height, width = size
        focal = width / 2 / math.tan(math.radians(degrees) / 2)
        return Intrinsics(focal, focal, width / 2, height / 2)

    def scaled(self, across: float, down: float | None = None) -> Intrinsics:
        """The same camera after resizing its image by `across` horizontally and `down` (the same) vertically."""
        down = across if down is None else down
        return Intrinsics(self.fx * across, self.fy * down, self.cx * across, self.cy * down)

    def for_size(self, old: tuple[int, int], new: tuple[int, int]) -> Intrinsics:
        """The same camera after resizing an image of `old` (H, W) to `new` (H, W)."""
        return self.scaled(new[1] / old[1], new[0] / old[0])


def rays(size: tuple[int, int], intrinsics: Intrinsics) -> Floats:
    """Viewing rays (3, H, W) through the pixel centres, with z = 1: a point is its z depth times its ray."""
    height, width = size
    x = (np.arange(width) + 0.5 - intrinsics.cx) / intrinsics.fx
    y = (np.arange(height) + 0.5 - intrinsics.cy) / intrinsics.fy
    return np.stack([np.broadcast_to(x, size), np.broadcast_to(y[:, None], size), np.ones(size)])


def points(depth_z: NDArray[np.floating], intrinsics: Intrinsics) -> Floats:
    """Points (3, H, W) in camera coordinates, metres, from z depth (H, W); holes (0) give the origin."""
    return rays(_size(depth_z), intrinsics) * np.asarray(depth_z, dtype=np.float64)


def euclidean(depth_z: NDArray[np.floating], intrinsics: Intrinsics) -> Floats:
    """Distance (H, W) to the camera centre in metres from z depth (H, W); holes stay 0."""
    ray = rays(_size(depth_z), intrinsics)
    return np.asarray(depth_z, dtype=np.float64) * np.sqrt((ray * ray).sum(axis=0))


def _size(image: NDArray[np.floating]) -> tuple[int, int]:
    return (image.shape[0], image.shape[1])


@dataclass(frozen=True)
class Camera:
    """Where a camera stands and what it sees: position (3,) in the world, rotation (3, 3) whose columns are its axes
    right, down and forward in the world, horizontal field of view in degrees."""

    position: Floats
    rotation: Floats
    view: float

    def to_world(self, vectors: Floats) -> Floats:
        """Vectors (N, 3) in camera axes, in the world; written out, so that no BLAS starts threads for it."""
        right, down, forward = self.rotation.T
        return vectors[:, 0:1] * right + vectors[:, 1:2] * down + vectors[:, 2:3] * forward

    def from_world(self, vectors: Floats) -> Floats:
        """World vectors (N, 3) in camera axes."""
        x, y, z = self.rotation
        return vectors[:, 0:1] * x + vectors[:, 1:2] * y + vectors[:, 2:3] * z

    def ways(self, size: tuple[int, int]) -> Floats:
        """Viewing rays (H W, 3) in the world through the pixel centres, row by row, with camera z = 1."""
        return self.to_world(rays(size, Intrinsics.from_view(size, self.view)).reshape(3, -1).T)

    @staticmethod
    def aimed(position: Floats, yaw: float, pitch: float, roll: float, view: float) -> Camera:
        """Camera looking along `yaw` (about the vertical, from x), `pitch` (up) and turned by `roll`, in radians."""
        forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
        level = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        down = np.cross(forward, level)
        right = math.cos(roll) * level + math.sin(roll) * down
        return Camera(position, np.stack([right, np.cross(forward, right), forward], axis=1), view)
