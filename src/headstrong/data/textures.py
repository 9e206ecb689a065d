"""Procedural textures: surface coordinates in metres to colour, with noise from an integer hash.

The hash is exact integer arithmetic, so that a texture is the same on every machine and in every version of NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PLAIN, CHECKS, STRIPES, BRICKS, TILES, PLANKS, WOOD, CLOUDS, DOTS, PAINTING = range(10)


class Material(NamedTuple):
    """Look of one surface. Colours are linear RGB in [0, 1]; `scale` is the period of the pattern in metres;
    `gloss` weighs the highlight; `glow` is light of its own, in units of the colour."""

    pattern: int
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    scale: float = 0.3
    seed: int = 0
    gloss: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Materials:
    """M materials as arrays of length M."""

    pattern: Ints
    first: Floats
    second: Floats
    scale: Floats
    seed: Ints
    gloss: Floats
    glow: Floats

    @staticmethod
    def stack(materials: Sequence[Material]) -> Materials:
        """The arrays of a sequence of materials, in its order."""
        pattern, first, second, scale, seed, gloss, glow = zip(*materials, strict=True)
        return Materials(
            np.array(pattern, dtype=np.int64),
            np.array(first, dtype=np.float64),
            np.array(second, dtype=np.float64),
            np.array(scale, dtype=np.float64),
            np.array(seed, dtype=np.int64),
            np.array(gloss, dtype=np.float64),
            np.array(glow, dtype=np.float64),
        )


def colours(materials: Materials, index: Ints, coordinates: Floats) -> Floats:
    """Linear RGB (N, 3) of materials `index` (N,) at surface coordinates (N, 2) in metres."""
    pattern, seed = materials.pattern[index], materials.seed[index]
    u, v = (coordinates / materials.scale[index][:, None]).T
    mix = np.zeros(len(index))
    for one, evaluate in _PATTERNS.items():
        chosen = np.flatnonzero(pattern == one)
        if len(chosen):
            mix[chosen] = evaluate(u[chosen], v[chosen], seed[chosen])
    first, second = materials.first[index], materials.second[index]
    rgb = first + mix[:, None] * (second - first)
    painted = np.flatnonzero(pattern == PAINTING)
    if len(painted):
        rgb[painted] = _painting(u[painted], v[painted], seed[painted], first[painted], second[painted])
    return rgb


def hash_unit(i: Ints, j: Ints, seed: Ints) -> Floats:
    """Pseudo-random numbers in [0, 1) from integers: two rounds of multiply and xor-shift on 32 bits."""
    with np.errstate(over="ignore"):
        x = i.astype(np.uint32) * np.uint32(0x8DA6B343) + j.astype(np.uint32) * np.uint32(0xD8163841)
        x += seed.astype(np.uint32) * np.uint32(0xCB1AB31F)
        for factor in (0x7FEB352D, 0x846CA68B):
            x = (x ^ (x >> np.uint32(16))) * np.uint32(factor)
        x = x ^ (x >> np.uint32(15))
    return x.astype(np.float64) / 4294967296.0


def value_noise(u: Floats, v: Floats, seed: Ints) -> Floats:
    """Smooth noise in [0, 1] with one lattice cell per unit."""
    i, j = _floor(u), _floor(v)
    s, t = _smooth(u - i), _smooth(v - j)
    low = hash_unit(i, j, seed) * (1 - s) + hash_unit(i + 1, j, seed) * s
    high = hash_unit(i, j + 1, seed) * (1 - s) + hash_unit(i + 1, j + 1, seed) * s
    return low * (1 - t) + high * t


def _floor(x: Floats) -> Ints:
    return np.floor(x).astype(np.int64)


def _smooth(t: Floats) -> Floats:
    return t * t * (3 - 2 * t)


def _checks(u: Floats, v: Floats, seed: Ints) -> Floats:
    return ((_floor(2 * u) + _floor(2 * v)) % 2).astype(np.float64)


def _stripes(u: Floats, v: Floats, seed: Ints) -> Floats:
    along = np.where(seed % 2 == 0, u, v)
    return (along - np.floor(along) < 0.35 + 0.3 * (seed % 3) / 2).astype(np.float64)


def _bricks(u: Floats, v: Floats, seed: Ints) -> Floats:
    row = _floor(3 * v)
    x, y = u + 0.5 * (row % 2), 3 * v - row
    column = _floor(x)
    mortar = (x - column < 0.05) | (y < 0.14)
    return np.where(mortar, 1.0, 0.35 * hash_unit(column, row, seed))


def _tiles(u: Floats, v: Floats, seed: Ints) -> Floats:
    i, j = _floor(u), _floor(v)
    grout = (u - i < 0.05) | (v - j < 0.05)
    return np.where(grout, 1.0, 0.25 * hash_unit(i, j, seed))


def _planks(u: Floats, v: Floats, seed: Ints) -> Floats:
    row = _floor(2 * v)
    x = 0.3 * u + 0.618 * (row % 7)
    plank = hash_unit(_floor(x), row, seed)
    grain = value_noise(1.5 * u + 9 * plank, 14 * v, seed)
    gap = (2 * v - row < 0.06) | (x - np.floor(x) < 0.012)
    return np.where(gap, 1.0, 0.5 * plank + 0.3 * grain)


def _wood(u: Floats, v: Floats, seed: Ints) -> Floats:
    flip = seed % 2 == 0
    along, across = np.where(flip, u, v), np.where(flip, v, u)
    wave = 4 * across + 1.2 * value_noise(0.7 * along, 2 * across, seed)
    return 0.5 + 0.5 * np.sin(2 * np.pi * wave) * value_noise(along, 9 * across, seed + 1)


def _clouds(u: Floats, v: Floats, seed: Ints) -> Floats:
    return 0.6 * value_noise(u, v, seed) + 0.4 * value_noise(2.7 * u, 2.7 * v, seed + 1)


def _dots(u: Floats, v: Floats, seed: Ints) -> Floats:
    row = _floor(v)
    x, y = u + 0.5 * (row % 2), v - row - 0.5
    return (np.hypot(x - np.floor(x) - 0.5, y) < 0.3).astype(np.float64)


def _painting(u: Floats, v: Floats, seed: Ints, first: Floats, second: Floats) -> Floats:
    """Fields of colour with soft borders: three noises, of which the first also chooses between the two colours."""
    mix = value_noise(3 * u, 3 * v, seed)
    sharp = np.clip(4 * mix - 1.5, 0, 1)[:, None]
    tint = np.stack([value_noise(5 * u, 5 * v, seed + shift) for shift in (1, 2, 3)], axis=1)
    return np.clip((first + sharp * (second - first)) * (0.4 + 1.2 * tint), 0, 1)


_PATTERNS = {
    CHECKS: _checks,
    STRIPES: _stripes,
    BRICKS: _bricks,
    TILES: _tiles,
    PLANKS: _planks,
    WOOD: _wood,
    CLOUDS: _clouds,
    DOTS: _dots,
}
