"""What a scene is put together from: random choices, parts with a class and a material, pieces of furniture."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from headstrong.data import textures
from headstrong.data.primitives import Solid, turn
from headstrong.data.textures import Material

CLASSES = [
    "unlabelled",
    "wall",
    "floor",
    "ceiling",
    "window",
    "door",
    "table",
    "chair",
    "bed",
    "sofa",
    "cabinet",
    "lamp",
    "picture",
    "rug",
    "plant",
    "decoration",
]
CLASS = {name: number for number, name in enumerate(CLASSES)}

T = TypeVar("T")
Colour = tuple[float, float, float]
Range = tuple[float, float]
ANY_HUE = (0.0, 1.0)


class Draw:
    """Random choices from one seed (PCG64), by nothing of NumPy's generator but its stream of doubles."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, low: float, high: float) -> float:
        """A real number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def whole(self, low: int, high: int) -> int:
        """A whole number in low..high, both included."""
        return low + int((high - low + 1) * float(self._generator.random()))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return float(self._generator.random()) < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.whole(0, len(options) - 1)]

    def colour(self, hue: Range, saturation: Range, value: Range) -> Colour:
        """Linear RGB of a displayed colour drawn from ranges of hue, saturation and value."""
        display = colorsys.hsv_to_rgb(self.uniform(*hue) % 1.0, self.uniform(*saturation), self.uniform(*value))
        red, green, blue = (channel**2.2 for channel in display)
        return (red, green, blue)

    def material(
        self,
        patterns: Sequence[int],
        hue: Range,
        saturation: Range,
        value: Range,
        scale: Range = (0.15, 0.4),
        gloss: float = 0.0,
        contrast: float = 0.45,
        glow: float = 0.0,
    ) -> Material:
        """A material with a pattern out of `patterns`; its second colour is the first, darker by about `contrast`
        and a little off in hue."""
        first = self.colour(hue, saturation, value)
        factor = 1 - self.uniform(0.6, 1.2) * contrast
        tint = self.colour((0.0, 1.0), (0.0, 0.35), (1.0, 1.0))
        second = (first[0] * factor * tint[0], first[1] * factor * tint[1], first[2] * factor * tint[2])
        return Material(self.choice(patterns), first, second, self.uniform(*scale), self.whole(0, 1 << 20), gloss, glow)

    def wood(self, value: Range = (0.35, 0.75)) -> Material:
        """Wood with a grain."""
        return self.material((textures.WOOD, textures.PLANKS), (0.05, 0.1), (0.4, 0.7), value, (0.3, 0.6), 0.12)

    def paint(self, hue: Range, saturation: Range, value: Range, gloss: float = 0.2) -> Material:
        """One plain colour."""
        return self.material((textures.PLAIN,), hue, saturation, value, gloss=gloss)

    def fabric(self, hue: Range, saturation: Range, value: Range) -> Material:
        """Cloth: plain or with a pattern."""
        kinds = (textures.PLAIN, textures.CLOUDS, textures.CHECKS, textures.STRIPES, textures.DOTS)
        return self.material(kinds, hue, saturation, value, (0.12, 0.35), contrast=0.4)


@dataclass(frozen=True)
class Part:
    """One solid with its class number and material."""

    solid: Solid
    label: int
    material: Material


@dataclass
class Piece:
    """A piece of furniture: its parts, and the box it fills: half extents on the floor (x, y) and height, in metres."""

    half: tuple[float, float]
    height: float
    parts: list[Part] = field(default_factory=list)

    def add(self, solid: Solid, label: str, material: Material) -> None:
        """Add one solid in the piece's own frame."""
        self.parts.append(Part(solid, CLASS[label], material))

    def put_on(self, other: Piece, x: float, y: float, z: float) -> None:
        """Stand another piece on this one."""
        self.parts.extend(other.placed(x, y, z, 0.0))

    def placed(self, x: float, y: float, z: float, yaw: float) -> list[Part]:
        """The parts in the world, the piece's origin at (x, y, z), turned by `yaw`."""
        rotation = turn(yaw)
        offset = np.array([x, y, z])
        moved = []
        for part in self.parts:
            kind, centre, own, size = part.solid
            moved.append(Part(Solid(kind, rotation @ centre + offset, rotation @ own, size), part.label, part.material))
        return moved
