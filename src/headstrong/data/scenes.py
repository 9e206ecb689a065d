"""A lit scene and its picture: a room's shell with recessed openings, solids with materials, lights, a camera.

`picture` gives the colour image and the labels that are exact because the geometry is: depth, normals, principal
curvatures, classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstrong.data.cameras import Camera, Intrinsics, rays
from headstrong.data.primitives import (
    Floats,
    Ints,
    Solids,
    face_coordinates,
    is_blocked,
    nearest_hit,
    surface,
    to_local,
    to_world,
)
from headstrong.data.renderings import by_magnitude
from headstrong.data.textures import Materials, colours

RAYS_AT_ONCE = 8192  # keeps the tables of (solid, ray) pairs within the caches
SHADOW_LIMIT = 1 - 1e-6  # of the way from a light to a point: nearer is an obstacle, the rest is the point itself
FALLOFF = 2.5  # metres at which a light has lost half its strength
HIGHLIGHT = 40.0  # exponent of the highlight
WHITE = 3.0  # exposed radiance that is shown as white
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


class Opening(NamedTuple):
    """A recess in a wall: the wall across `axis` (0 or 1) at its low or high `side` (0 or 1); a rectangle from `low`
    to `high` in (horizontal coordinate, height); `depth` outwards, all in metres."""

    axis: int
    side: int
    low: tuple[float, float]
    high: tuple[float, float]
    depth: float


@dataclass(frozen=True)
class Shell:
    """The inside of a box from the origin to `size` (3,). Its parts are numbered: 0..3 the walls at low x, high x,
    low y, high y; 4 the floor; 5 the ceiling; 6 + 2 j the back of opening j; 7 + 2 j its four sides."""

    size: Floats
    openings: tuple[Opening, ...] = ()


class ShellHit(NamedTuple):
    """Where rays leave the shell: t (N,), part (N,), axis (N,) across which that part lies."""

    t: Floats
    part: Ints
    axis: Ints


def shell_hit(shell: Shell, origin: Floats, directions: Floats) -> ShellHit:
    """Where rays that start inside the shell meet it; exact, and seen through its openings."""
    ahead = (directions > 0).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ways = np.where(directions == 0, np.inf, (ahead * shell.size - origin) / directions)
        axis = np.argmin(ways, axis=1)
        rows = np.arange(len(directions))
        t, part = ways[rows, axis], 2 * axis + ahead[rows, axis]
        for number, opening in enumerate(shell.openings):
            _look_through(opening, number, shell, origin, directions, t, part, axis)
    return ShellHit(t, part, axis)


def _look_through(
    opening: Opening, number: int, shell: Shell, o: Floats, d: Floats, t: Floats, part: Ints, axis: Ints
) -> None:
    """Carry the hits that fall into an opening on to its back or sides, in place."""
    across, along = opening.axis, 1 - opening.axis
    rows = np.flatnonzero(part == 2 * across + opening.side)
    place = o[[along, 2]] + t[rows, None] * d[rows][:, [along, 2]]
    rows = rows[((place > opening.low) & (place < opening.high)).all(axis=1)]
    back = shell.size[across] + opening.depth if opening.side else -opening.depth
    ways = [(back - o[across]) / d[rows, across]]
    for k, low, high in zip((along, 2), opening.low, opening.high, strict=True):
        step = d[rows, k]
        ways.append(np.where(step == 0, np.inf, (np.where(step > 0, high, low) - o[k]) / step))
    first = np.argmin(ways, axis=0)
    t[rows] = np.min(ways, axis=0)
    part[rows] = 6 + 2 * number + (first > 0)
    axis[rows] = np.array([across, along, 2])[first]


@dataclass(frozen=True)
class Lights:
    """Point lights: place (L, 3) in metres, colour (L, 3) linear, and the light from everywhere, ambient (3,)."""

    place: Floats
    colour: Floats
    ambient: Floats


@dataclass(frozen=True)
class Scene:
    """Everything that is seen. Surfaces are numbered: M solids, then the parts of the shell; `materials` and `classes`
    (uint8) have one entry for each."""

    shell: Shell
    solids: Solids
    materials: Materials
    classes: NDArray[np.uint8]
    lights: Lights


class Hits(NamedTuple):
    """What N rays see: t, surface number, point (N, 3) and unit normal (N, 3) in the world, facing the ray's origin,
    principal curvatures (2, N), texture coordinates (N, 2)."""

    t: Floats
    surface: Ints
    point: Floats
    normal: Floats
    curvature: Floats
    coordinates: Floats


def trace(scene: Scene, origin: Floats, directions: Floats) -> Hits:
    """First surface seen along each ray (N, 3) from `origin`, which is inside the shell and outside all solids."""
    wall = shell_hit(scene.shell, origin, directions)
    t, index = nearest_hit(scene.solids, origin, directions)
    on_solid = np.flatnonzero(t < wall.t)
    t = np.minimum(t, wall.t)
    point = origin + t[:, None] * directions
    rows = np.arange(len(t))
    normal = np.zeros_like(point)
    normal[rows, wall.axis] = -np.sign(directions[rows, wall.axis])
    coordinates = face_coordinates(point, wall.axis)
    curvature = np.zeros((2, len(t)))
    number = len(scene.solids) + wall.part
    if len(on_solid):
        which = index[on_solid]
        local = to_local(scene.solids, which, point[on_solid] - scene.solids.centre[which])
        patch = surface(scene.solids, which, local)
        number[on_solid], normal[on_solid] = which, to_world(scene.solids, which, patch.normal)
        coordinates[on_solid], curvature[:, on_solid] = patch.coordinates, patch.curvature
    return Hits(t, number, point, normal, curvature, coordinates)


def radiance(scene: Scene, hits: Hits, origin: Floats) -> Floats:
    """Linear light (N, 3) sent back to `origin`: ambient, and per light Lambert and a highlight where it is not
    in shadow (Blinn 1977)."""
    paint = colours(scene.materials, hits.surface, hits.coordinates)
    gloss, glow = scene.materials.gloss[hits.surface], scene.materials.glow[hits.surface]
    sky = 0.75 + 0.25 * hits.normal[:, 2:3]  # surfaces that look up get more of the light from everywhere
    light = paint * scene.lights.ambient * sky + paint * glow[:, None]
    view = origin - hits.point
    view = view / np.sqrt((view * view).sum(axis=1))[:, None]
    for place, colour in zip(scene.lights.place, scene.lights.colour, strict=True):
        towards = place - hits.point
        distance = np.sqrt((towards * towards).sum(axis=1))
        towards = towards / distance[:, None]
        cosine = (hits.normal * towards).sum(axis=1)
        lit = np.flatnonzero(cosine > 0)
        lit = lit[~_in_shadow(scene, place, hits.point[lit])]
        half = view[lit] + towards[lit]
        half = half / np.sqrt((half * half).sum(axis=1))[:, None]
        shine = gloss[lit] * np.clip((half * hits.normal[lit]).sum(axis=1), 0, 1) ** HIGHLIGHT
        strength = 1 / (1 + (distance[lit] / FALLOFF) ** 2)
        light[lit] += strength[:, None] * colour * (paint[lit] * cosine[lit, None] + shine[:, None])
    return light


def _in_shadow(scene: Scene, place: Floats, targets: Floats) -> NDArray[np.bool_]:
    ways = targets - place
    dark = is_blocked(scene.solids, place, ways, SHADOW_LIMIT)
    # The shell is convex: it can only hide what lies inside an opening.
    outside = np.flatnonzero(((targets < 0) | (targets > scene.shell.size)).any(axis=1) & ~dark)
    if len(outside):
        dark[outside] = shell_hit(scene.shell, place, ways[outside]).t < SHADOW_LIMIT
    return dark


def exposure(light: Floats, target: float) -> float:
    """Factor that brings the mean luminance of `light` (N, 3) to `target`, rounded so that the order in which a
    machine adds up cannot matter."""
    mean = float((light * LUMINANCE).sum(axis=1).mean())
    return float(f"{target / max(mean, 1e-6):.3g}")


def develop(light: Floats, factor: float) -> Floats:
    """Linear light to displayed linear values in [0, 1] (Reinhard et al. 2002, extended operator)."""
    exposed = light * factor
    return np.clip(exposed * (1 + exposed / WHITE**2) / (1 + exposed) * (1 + 1 / WHITE), 0, 1)


def picture(scene: Scene, camera: Camera, size: tuple[int, int], antialias: int, brightness: float) -> dict[str, Any]:
    """Colour image and exact labels.

    `antialias` a > 1 averages a x a rays of colour per pixel; the labels always come from the ray through the pixel's
    centre. `brightness` is the factor from radiance to exposure.
    Returns the raw sample's rgb, s, d, D, n, p (DESIGN: cache) and `intrinsics`.
    """
    height, width = size
    intrinsics = Intrinsics.from_view(size, camera.view)
    ray = rays(size, intrinsics).reshape(3, -1).T
    centre = [trace(scene, camera.position, part) for part in _parts(camera.ways(size))]
    if antialias == 1:
        shown = [radiance(scene, hits, camera.position) for hits in centre]
        display = develop(np.concatenate(shown), brightness)
    else:
        display = _supersampled(scene, camera, size, antialias, brightness)
    t = np.concatenate([hits.t for hits in centre])
    number = np.concatenate([hits.surface for hits in centre])
    normal = camera.from_world(np.concatenate([hits.normal for hits in centre]))
    curvature = np.concatenate([hits.curvature for hits in centre], axis=1)
    length = np.sqrt((ray * ray).sum(axis=1))
    byte = np.floor(255 * display ** (1 / 2.2) + 0.5).astype(np.uint8)
    return {
        "rgb": np.ascontiguousarray(byte.reshape(height, width, 3).transpose(2, 0, 1)),
        "s": scene.classes[number].reshape(size),
        "d": t.reshape(size).astype(np.float32),
        "D": (t * length).reshape(size).astype(np.float32),
        "n": np.ascontiguousarray(normal.T.reshape(3, height, width)).astype(np.float32),
        "p": by_magnitude(curvature).reshape(2, height, width).astype(np.float32),
        "intrinsics": intrinsics,
    }


def _supersampled(scene: Scene, camera: Camera, size: tuple[int, int], a: int, brightness: float) -> Floats:
    fine = (a * size[0], a * size[1])
    parts = _parts(camera.ways(fine))
    shown = [radiance(scene, trace(scene, camera.position, part), camera.position) for part in parts]
    display = develop(np.concatenate(shown), brightness)
    return display.reshape(size[0], a, size[1], a, 3).mean(axis=(1, 3)).reshape(-1, 3)


def _parts(ways: Floats) -> list[Floats]:
    return [ways[start : start + RAYS_AT_ONCE] for start in range(0, len(ways), RAYS_AT_ONCE)]
