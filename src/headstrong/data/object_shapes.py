"""The things of the data set `objects`: shapes put together from solids, set down on the ground, coloured.

Three pairs grow into each other: a brick that is nearly a cube, an egg that is nearly a ball, a bucket that hardly
widens; from some sides a mug hides its handle. So a classifier has something to confuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstrong.data import textures
from headstrong.data.pieces import ANY_HUE, Colour, Draw, Part, Range
from headstrong.data.primitives import BOX, ELLIPSOID, FRUSTUM, Solid, box, cylinder, ellipsoid, frustum, torus, turn
from headstrong.data.textures import Material

Floats = NDArray[np.float64]

# Hue (a turn is 1), saturation and value of what is displayed under white light.
COLOURS: dict[str, tuple[Range, Range, Range]] = {
    "red": ((0.975, 1.012), (0.75, 0.95), (0.6, 0.9)),
    "orange": ((0.055, 0.08), (0.8, 1.0), (0.85, 1.0)),
    "yellow": ((0.14, 0.17), (0.75, 0.95), (0.85, 1.0)),
    "green": ((0.29, 0.4), (0.55, 0.9), (0.4, 0.75)),
    "blue": ((0.57, 0.65), (0.65, 0.95), (0.5, 0.9)),
    "purple": ((0.75, 0.83), (0.5, 0.8), (0.45, 0.8)),
    "white": (ANY_HUE, (0.0, 0.06), (0.9, 1.0)),
    "black": (ANY_HUE, (0.0, 0.3), (0.1, 0.2)),
}
TEXTURES = {
    "plain": textures.PLAIN,
    "stripes": textures.STRIPES,
    "checks": textures.CHECKS,
    "dots": textures.DOTS,
    "marble": textures.CLOUDS,
}
LYING = 0.1  # share of the objects that lie on a side
WOBBLE = 0.04  # radians: no ground is quite even
INSIDE = 0.004  # metres by which the dark inside of a mug, a disc, stands above its rim


class Form(NamedTuple):
    """A shape in its own frame, about 2 units wide: its solids, those that show a dark inside, and the tilt about x
    in radians at which it lies flat on its side."""

    solids: list[Solid]
    dark: list[Solid]
    side: float


def _cube(draw: Draw) -> Form:
    return Form([box((0, 0, 0), [draw.uniform(0.95, 1.05) for _ in range(3)])], [], math.pi / 2)


def _brick(draw: Draw) -> Form:
    half = (1.15, draw.uniform(0.55, 0.85), draw.uniform(0.45, 0.7))
    return Form([box((0, 0, 0), half)], [], math.pi / 2)


def _ball(draw: Draw) -> Form:
    return Form([ellipsoid((0, 0, 0), (1, 1, 1))], [], draw.uniform(0, math.pi))


def _egg(draw: Draw) -> Form:
    return Form([ellipsoid((0, 0, 0), (0.85, 0.85, 0.85 * draw.uniform(1.2, 1.6)))], [], math.pi / 2)


def _cylinder(draw: Draw) -> Form:
    return Form([cylinder((0, 0, 0), draw.uniform(0.6, 0.9), draw.uniform(1.5, 2.1))], [], math.pi / 2)


def _bucket(draw: Draw) -> Form:
    top, height = draw.uniform(0.75, 1.0), draw.uniform(1.4, 1.9)
    return _frustum(draw.uniform(0.5, 0.8) * top, top, height)


def _cone(draw: Draw) -> Form:
    return _frustum(draw.uniform(0.7, 1.0), draw.uniform(0.0, 0.08), draw.uniform(1.6, 2.2))


def _frustum(bottom: float, top: float, height: float) -> Form:
    return Form([frustum((0, 0, 0), bottom, top, height)], [], math.pi / 2 + math.atan((bottom - top) / height))


def _ring(draw: Draw) -> Form:
    tube = draw.uniform(0.2, 0.36)
    return Form([torus((0, 0, 0), 1.1 - tube, tube)], [], math.pi / 2)


def _mug(draw: Draw) -> Form:
    radius, half, tube = draw.uniform(0.6, 0.8), draw.uniform(0.75, 0.95), draw.uniform(0.12, 0.18)
    # The handle's plane holds the mug's axis; the wall hides the inner half of it.
    handle = torus((radius + 0.15, 0, 0), draw.uniform(0.55, 0.65) * half, tube, tilt=math.pi / 2)
    inside = cylinder((0, 0, half), 0.85 * radius, 2 * INSIDE)
    return Form([cylinder((0, 0, 0), radius, 2 * half), handle], [inside], math.pi / 2)


def _stool(draw: Draw) -> Form:
    seat, half, thick = draw.uniform(0.75, 0.95), draw.uniform(0.8, 1.0), draw.uniform(0.12, 0.2)
    count, reach, foot = draw.whole(3, 4), draw.uniform(0.65, 0.78) * seat, draw.uniform(0.09, 0.14)
    solids = [cylinder((0, 0, half - thick), seat, 2 * thick)]
    for i in range(count):
        x, y = (reach * part(2 * math.pi * i / count) for part in (math.cos, math.sin))
        solids.append(frustum((x, y, -thick), 0.8 * foot, foot, 2 * (half - thick)))
    return Form(solids, [], math.pi / 2 + math.atan((reach + foot - seat) / (2 * half)))


SHAPES: dict[str, Callable[[Draw], Form]] = {
    "cube": _cube,
    "brick": _brick,
    "ball": _ball,
    "egg": _egg,
    "cylinder": _cylinder,
    "bucket": _bucket,
    "cone": _cone,
    "ring": _ring,
    "mug": _mug,
    "stool": _stool,
}


class Thing(NamedTuple):
    """An object set down: its solids, and at their end those of the dark inside, whose number is `dark`."""

    solids: list[Solid]
    dark: int


def set_down(draw: Draw, shape: str, scale: float, ground: tuple[float, float, float], towards: float) -> Thing:
    """A `shape` of SHAPES, `scale` metres to a unit, standing or lying, its lowest point on `ground`; turned any way,
    but a lying one not with its axis `towards` a viewer at this angle from -y, in radians."""
    form = SHAPES[shape](draw)
    yaw, tilt = draw.uniform(0, 2 * math.pi), 0.0
    if draw.chance(LYING):
        # Turned so that `towards` the viewer there is not only an end of it, a disc for half of the shapes.
        yaw = towards + draw.choice((-1, 1)) * draw.uniform(0.6, math.pi - 0.6)
        tilt = form.side + draw.uniform(-WOBBLE, WOBBLE)
    rotation = turn(yaw, tilt)
    solids = [
        Solid(one.kind, scale * (rotation @ one.centre), rotation @ one.rotation, scale * one.size)
        for one in (*form.solids, *form.dark)
    ]
    up = np.array([0.0, 0.0, 1.0])
    move = np.array(ground) + extent(solids, -up) * up
    return Thing([one._replace(centre=one.centre + move) for one in solids], len(form.dark))


def extent(solids: Sequence[Solid], direction: Floats) -> float:
    """How far solids reach along a unit vector (3,) from the origin of the world, in metres; exact."""
    return max(float((one.centre * direction).sum()) + _reach(one, direction) for one in solids)


def _reach(solid: Solid, direction: Floats) -> float:
    """How far one solid reaches from its centre: its support function."""
    local = (solid.rotation * direction[:, None]).sum(axis=0)
    a, b, c = (float(value) for value in solid.size)
    along, across = float(local[2]), math.sqrt(max(1 - float(local[2]) ** 2, 0.0))
    if solid.kind == BOX:
        return float((np.abs(local) * solid.size).sum())
    if solid.kind == ELLIPSOID:
        return math.sqrt(float(((local * solid.size) ** 2).sum()))
    if solid.kind == FRUSTUM:
        return max(a * across - c * along, b * across + c * along)
    return a * across + b


def dressed(draw: Draw, thing: Thing, colour: str, texture: str, scale: float) -> list[Part]:
    """The object's solids with their material: its colour, and a lighter or a darker one in the pattern's gaps."""
    first = draw.colour(*COLOURS[colour])
    light = colour == "black" or (colour != "white" and draw.chance(0.5))
    strength = draw.uniform(0.3, 0.5)
    second = mixed(first, 1.0, strength) if light else mixed(first, 0.0, 0.4 + 0.8 * strength)
    period = draw.uniform(0.5, 0.9) * scale
    gloss = draw.choice((0.0, draw.uniform(0.1, 0.8)))
    skin = Material(TEXTURES[texture], first, second, period, draw.whole(0, 1 << 20), gloss)
    shade = Material(textures.PLAIN, mixed(first, 0.0, 0.75), first)
    bright = len(thing.solids) - thing.dark
    return [Part(solid, 0, skin if i < bright else shade) for i, solid in enumerate(thing.solids)]


def mixed(colour: Colour, other: float, share: float) -> Colour:
    """A colour with a `share` of the grey `other`."""
    red, green, blue = (channel + share * (other - channel) for channel in colour)
    return (red, green, blue)
