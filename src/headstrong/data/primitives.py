"""Exact ray casting of solids: where a ray first meets a box, an ellipsoid, a frustum or a torus, and what is there.

Plain float64 NumPy, without BLAS: its threads would fight over the cores, and its sums differ between machines.
Four kinds cover the rest: a sphere is an ellipsoid of equal axes, cylinder and cone are frustums.
All rays of one call start at one point (a camera, or a light looking for shadows), so that a bounding-sphere test over
all (solid, ray) pairs is cheap; only the pairs that pass are intersected, all of one kind at a time.

World coordinates: metres, z up. A solid has its own frame: local = rotation^T (world - centre).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BOX, ELLIPSOID, FRUSTUM, TORUS = range(4)
NEAREST = 1e-9  # metres along a unit ray: closer hits are the origin itself


class Solid(NamedTuple):
    """One solid. `size` by kind: box half extents; ellipsoid semi-axes; frustum (radius at the bottom, radius at the
    top, half height); torus (radius of the ring, radius of the tube, 0). Frustum and torus turn about the local z."""

    kind: int
    centre: Floats
    rotation: Floats  # (3, 3), columns are the local axes in the world
    size: Floats


def turn(yaw: float = 0.0, tilt: float = 0.0) -> Floats:
    """Rotation (3, 3): first `tilt` about x, then `yaw` about the vertical, in radians."""
    cy, sy, ct, st = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
    return np.array([[cy, -sy * ct, sy * st], [sy, cy * ct, -cy * st], [0.0, st, ct]])


def _solid(kind: int, centre: Sequence[float], size: Sequence[float], yaw: float, tilt: float) -> Solid:
    return Solid(kind, np.array(centre, dtype=np.float64), turn(yaw, tilt), np.array(size, dtype=np.float64))


def box(centre: Sequence[float], half: Sequence[float], yaw: float = 0.0, tilt: float = 0.0) -> Solid:
    """Box with half extents in metres."""
    return _solid(BOX, centre, half, yaw, tilt)


def ellipsoid(centre: Sequence[float], axes: Sequence[float], yaw: float = 0.0, tilt: float = 0.0) -> Solid:
    """Ellipsoid with semi-axes in metres."""
    return _solid(ELLIPSOID, centre, axes, yaw, tilt)


def sphere(centre: Sequence[float], radius: float) -> Solid:
    """Sphere: an ellipsoid of equal axes."""
    return _solid(ELLIPSOID, centre, (radius, radius, radius), 0.0, 0.0)


def frustum(
    centre: Sequence[float], bottom: float, top: float, height: float, yaw: float = 0.0, tilt: float = 0.0
) -> Solid:
    """Capped frustum about its local z: radius `bottom` below, `top` above; `centre` is at half its height."""
    return _solid(FRUSTUM, centre, (bottom, top, height / 2), yaw, tilt)


def cylinder(centre: Sequence[float], radius: float, height: float, yaw: float = 0.0, tilt: float = 0.0) -> Solid:
    """Capped cylinder about its local z."""
    return frustum(centre, radius, radius, height, yaw, tilt)


def torus(centre: Sequence[float], ring: float, tube: float, yaw: float = 0.0, tilt: float = 0.0) -> Solid:
    """Torus about its local z; `ring` > `tube` > 0."""
    return _solid(TORUS, centre, (ring, tube, 0.0), yaw, tilt)


@dataclass(frozen=True)
class Solids:
    """M solids as arrays: kind (M,), centre (M, 3), rotation (M, 3, 3), size (M, 3), bounding radius (M,)."""

    kind: Ints
    centre: Floats
    rotation: Floats
    size: Floats
    radius: Floats

    @staticmethod
    def stack(solids: Sequence[Solid]) -> Solids:
        """The arrays of a sequence of solids, in its order; an empty sequence gives arrays of length 0."""
        kind = np.array([solid.kind for solid in solids], dtype=np.int64)
        centre = np.array([solid.centre for solid in solids], dtype=np.float64).reshape(-1, 3)
        rotation = np.array([solid.rotation for solid in solids], dtype=np.float64).reshape(-1, 3, 3)
        size = np.array([solid.size for solid in solids], dtype=np.float64).reshape(-1, 3)
        a, b, c = size.T
        radius = np.select(
            [kind == BOX, kind == ELLIPSOID, kind == FRUSTUM],
            [np.sqrt(a * a + b * b + c * c), np.maximum(np.maximum(a, b), c), np.sqrt(np.maximum(a, b) ** 2 + c * c)],
            a + b,
        )
        return Solids(kind, centre, rotation, size, radius)

    def __len__(self) -> int:
        return len(self.kind)


def to_local(solids: Solids, index: Ints, vectors: Floats) -> Floats:
    """World vectors (N, 3) in the frames of solids `index` (N,), without the shift of the centre."""
    rotation = solids.rotation[index]
    return (
        rotation[:, 0, :] * vectors[:, 0:1] + rotation[:, 1, :] * vectors[:, 1:2] + rotation[:, 2, :] * vectors[:, 2:3]
    )


def to_world(solids: Solids, index: Ints, vectors: Floats) -> Floats:
    """Local vectors (N, 3) of solids `index` (N,) in the world, without the shift of the centre."""
    rotation = solids.rotation[index]
    return (
        rotation[:, :, 0] * vectors[:, 0:1] + rotation[:, :, 1] * vectors[:, 1:2] + rotation[:, :, 2] * vectors[:, 2:3]
    )


def nearest_hit(solids: Solids, origin: Floats, directions: Floats) -> tuple[Floats, Ints]:
    """First solid met by rays origin + t * direction: t (N,), infinite where none is met, and its index (N,)."""
    count = len(directions)
    if not len(solids):
        return np.full(count, np.inf), np.zeros(count, dtype=np.int64)
    which, ray = _candidates(solids, origin, directions, np.inf)
    table = np.full((len(solids), count), np.inf)
    table[which, ray] = _intersect(solids, which, origin, directions[ray])
    index = np.argmin(table, axis=0)
    return table[index, np.arange(count)], index


def is_blocked(solids: Solids, origin: Floats, directions: Floats, limit: float) -> NDArray[np.bool_]:
    """True (N,) where a ray meets any solid at t < limit."""
    blocked = np.zeros(len(directions), dtype=bool)
    if len(solids):
        which, ray = _candidates(solids, origin, directions, limit)
        blocked[ray[_intersect(solids, which, origin, directions[ray]) < limit]] = True
    return blocked


def _candidates(solids: Solids, origin: Floats, directions: Floats, limit: float) -> tuple[Ints, Ints]:
    """Pairs (solid, ray) whose ray meets the solid's bounding sphere before `limit`: some too many, none too few."""
    offset = solids.centre - origin
    radius = solids.radius * (1 + 1e-6) + 1e-6
    length = np.sqrt((directions * directions).sum(axis=1))
    x, y, z = (directions / length[:, None]).T
    along = offset[:, 0:1] * x + offset[:, 1:2] * y + offset[:, 2:3] * z
    gap = (offset * offset).sum(axis=1) - radius * radius  # > 0: the origin is outside the bounding sphere
    # Meets the sphere: the squared half chord, along^2 - gap, is not negative.
    meets = (along * along >= gap[:, None]) & ((along > 0) | (gap < 0)[:, None])
    if np.isfinite(limit):
        meets &= along - radius[:, None] < limit * length
    which, ray = np.nonzero(meets)
    return which, ray


def _intersect(solids: Solids, which: Ints, origin: Floats, directions: Floats) -> Floats:
    """t (P,) at which each ray enters its solid; infinite where it misses. The origin is outside the solid."""
    starts = to_local(solids, np.arange(len(solids)), origin - solids.centre)[which]
    local = to_local(solids, which, directions)
    squared = (local * local).sum(axis=1)
    # From the point closest to the centre the coefficients stay small, and roots keep all their digits.
    shift = -(starts * local).sum(axis=1) / squared
    starts = starts + shift[:, None] * local
    size, kind = solids.size[which], solids.kind[which]
    t = np.full(len(which), np.inf)
    for one, solve in ((BOX, _box), (ELLIPSOID, _ellipsoid), (FRUSTUM, _frustum), (TORUS, _torus)):
        chosen = np.flatnonzero(kind == one)
        if len(chosen):
            smallest = NEAREST - shift[chosen]
            with np.errstate(divide="ignore", invalid="ignore"):
                root = solve(starts[chosen], local[chosen], size[chosen], smallest)
            t[chosen] = shift[chosen] + root
    return t


def _box(o: Floats, d: Floats, half: Floats, smallest: Floats) -> Floats:
    inverse = 1 / np.where(d == 0, 1e-300, d)
    middle, reach = -o * inverse, half * np.abs(inverse)
    enter, leave = (middle - reach).max(axis=1), (middle + reach).min(axis=1)
    return np.where((enter <= leave) & (enter > smallest), enter, np.inf)


def _ellipsoid(o: Floats, d: Floats, axes: Floats, smallest: Floats) -> Floats:
    o, d = o / axes, d / axes
    a, b = (d * d).sum(axis=1), (o * d).sum(axis=1)
    closest = o - (b / a)[:, None] * d
    inside = 1 - (closest * closest).sum(axis=1)
    t = -b / a - np.sqrt(np.maximum(inside, 0) / a)
    return np.where((inside >= 0) & (t > smallest), t, np.inf)


def _frustum(o: Floats, d: Floats, size: Floats, smallest: Floats) -> Floats:
    bottom, top, half = size.T
    slope = (top - bottom) / (2 * half)
    radius = (top + bottom) / 2 + slope * o[:, 2]  # of the cone at the height of o
    a = d[:, 0] ** 2 + d[:, 1] ** 2 - (slope * d[:, 2]) ** 2
    b = o[:, 0] * d[:, 0] + o[:, 1] * d[:, 1] - radius * slope * d[:, 2]
    c = o[:, 0] ** 2 + o[:, 1] ** 2 - radius**2
    under_root = b * b - a * c
    q = -(b + np.copysign(np.sqrt(np.maximum(under_root, 0)), b))  # no cancellation, also for a near 0
    best = np.full(len(o), np.inf)
    for t in (q / a, c / q):
        z = o[:, 2] + t * d[:, 2]
        good = (under_root >= 0) & (np.abs(z) <= half) & (t > smallest)
        best = np.where(good & (t < best), t, best)
    for height, cap in ((-half, bottom), (half, top)):
        t = (height - o[:, 2]) / d[:, 2]
        x, y = o[:, 0] + t * d[:, 0], o[:, 1] + t * d[:, 1]
        best = np.where((x * x + y * y <= cap * cap) & (t > smallest) & (t < best), t, best)
    return best


def _torus(o: Floats, d: Floats, size: Floats, smallest: Floats) -> Floats:
    """First root of t^4 + p t^2 + q t + e between two extrema, so that no root is lost to cancellation."""
    ring, tube, _ = size.T
    length = np.sqrt((d * d).sum(axis=1))
    u = d / length[:, None]
    centre_gap = (o * o).sum(axis=1)
    k = centre_gap + ring**2 - tube**2
    p = 2 * k - 4 * ring**2 * (u[:, 0] ** 2 + u[:, 1] ** 2)
    q = -8 * ring**2 * (o[:, 0] * u[:, 0] + o[:, 1] * u[:, 1])
    e = k * k - 4 * ring**2 * (o[:, 0] ** 2 + o[:, 1] ** 2)
    end = np.sqrt(np.maximum((ring + tube) ** 2 * (1 + 1e-9) - centre_gap, 0))

    def value(t: Floats) -> Floats:
        return ((t * t + p) * t + q) * t + e

    def slope(t: Floats) -> Floats:
        return (4 * t * t + 2 * p) * t + q

    bend = np.minimum(np.sqrt(np.maximum(-p / 6, 0)), end)
    extrema = _bisect(slope, np.stack([-end, -bend, bend]), np.stack([-bend, bend, end]))
    marks = np.sort(np.concatenate([-end[None], extrema, end[None]]), axis=0)
    values = value(marks)
    enters = (values[:-1] > 0) & (values[1:] <= 0) & (marks[1:] > smallest * length)
    found = enters.any(axis=0)
    first, columns = np.argmax(enters, axis=0), np.arange(len(o))
    low, high = marks[first, columns], marks[first + 1, columns]
    t = _bisect(value, low, high)
    for _ in range(2):
        step = value(t) / slope(t)
        t = np.where(np.isfinite(step) & (np.abs(step) < 1e-6), t - step, t)
    t = t / length
    return np.where(found & (t > smallest), t, np.inf)


def _bisect(function, low: Floats, high: Floats) -> Floats:  # type: ignore[no-untyped-def]
    """Root between `low` and `high` of a function monotone there; an end of it where the sign does not change."""
    rising = function(high) > function(low)
    for _ in range(48):
        middle = (low + high) / 2
        above = (function(middle) > 0) == rising
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


class Surface(NamedTuple):
    """What a solid is like at surface points: local outward normal (N, 3), principal curvatures k1 >= k2 in 1/m
    (2, N), positive where convex, and surface coordinates (N, 2) in metres for textures."""

    normal: Floats
    curvature: Floats
    coordinates: Floats


def surface(solids: Solids, index: Ints, points: Floats) -> Surface:
    """Exact differential geometry at local points (N, 3) on the surfaces of solids `index` (N,)."""
    normal, curvature, coordinates = np.zeros((len(index), 3)), np.zeros((2, len(index))), np.zeros((len(index), 2))
    kind = solids.kind[index]
    parts = ((BOX, _box_surface), (ELLIPSOID, _ellipsoid_surface), (FRUSTUM, _frustum_surface), (TORUS, _torus_surface))
    for one, describe in parts:
        chosen = np.flatnonzero(kind == one)
        if len(chosen):
            part = describe(points[chosen], solids.size[index[chosen]])
            normal[chosen], coordinates[chosen], curvature[:, chosen] = part.normal, part.coordinates, part.curvature
    return Surface(normal, curvature, coordinates)


def face_coordinates(points: Floats, axis: Ints) -> Floats:
    """Texture coordinates (N, 2) of points (N, 3) on faces across `axis` (N,): the two other axes, vertical last."""
    x, y, z = points.T
    return np.stack([np.where(axis == 0, y, x), np.where(axis == 2, y, z)], axis=1)


def _box_surface(p: Floats, half: Floats) -> Surface:
    axis = np.argmax(np.abs(p) / half, axis=1)
    rows = np.arange(len(p))
    normal = np.zeros_like(p)
    normal[rows, axis] = np.sign(p[rows, axis])
    return Surface(normal, np.zeros((2, len(p))), face_coordinates(p, axis))


def _ellipsoid_surface(p: Floats, axes: Floats) -> Surface:
    squares = axes * axes
    gradient = p / squares
    steepness = (gradient * gradient).sum(axis=1)
    product = squares.prod(axis=1)
    gauss = 1 / (product * steepness**2)
    mean = (squares.sum(axis=1) - (p * p).sum(axis=1)) / (2 * product * steepness**1.5)
    spread = np.sqrt(np.maximum(mean**2 - gauss, 0))
    coordinates = np.stack([np.arctan2(p[:, 1], p[:, 0]) * axes[:, 0], p[:, 2]], axis=1)
    return Surface(gradient / np.sqrt(steepness)[:, None], np.stack([mean + spread, mean - spread]), coordinates)


def _frustum_surface(p: Floats, size: Floats) -> Surface:
    bottom, top, half = size.T
    slope = (top - bottom) / (2 * half)
    across = np.hypot(p[:, 0], p[:, 1])
    cosine = 1 / np.sqrt(1 + slope * slope)  # of the angle between the wall and the axis
    radius = (top + bottom) / 2 + slope * p[:, 2]
    on_cap = half - np.abs(p[:, 2]) < np.abs(radius - across) * cosine
    safe = np.maximum(across, 1e-12)
    wall = np.stack([p[:, 0] / safe * cosine, p[:, 1] / safe * cosine, -slope * cosine], axis=1)
    cap = np.stack([np.zeros(len(p)), np.zeros(len(p)), np.sign(p[:, 2])], axis=1)
    first = np.where(on_cap, 0, cosine / safe)
    around = np.stack([np.arctan2(p[:, 1], p[:, 0]) * np.maximum(bottom, top), p[:, 2]], axis=1)
    flat = on_cap[:, None]
    return Surface(np.where(flat, cap, wall), np.stack([first, np.zeros(len(p))]), np.where(flat, p[:, :2], around))


def _torus_surface(p: Floats, size: Floats) -> Surface:
    ring, tube, _ = size.T
    across = np.hypot(p[:, 0], p[:, 1])
    centre = np.concatenate([p[:, :2] * (ring / across)[:, None], np.zeros((len(p), 1))], axis=1)
    normal = p - centre
    normal = normal / np.sqrt((normal * normal).sum(axis=1))[:, None]
    around = (across - ring) / tube / across  # cos(angle about the tube) / distance from the axis
    angle = np.arctan2(p[:, 2], across - ring)
    coordinates = np.stack([np.arctan2(p[:, 1], p[:, 0]) * ring, angle * tube], axis=1)
    return Surface(normal, np.stack([1 / tube, around]), coordinates)


def residual(solids: Solids, index: Ints, points: Floats) -> Floats:
    """Implicit equation (N,) of solids `index` at local points (N, 3): negative inside, 0 on the surface, in metres
    to first order near it (boxes and frustums: everywhere)."""
    kind, size = solids.kind[index], solids.size[index]
    a, b, c = size.T
    flat = np.hypot(points[:, 0], points[:, 1])
    slope = np.where(kind == FRUSTUM, (b - a) / np.where(c == 0, 1, 2 * c), 0)
    wall = (flat - (a + b) / 2 - slope * points[:, 2]) / np.sqrt(1 + slope * slope)
    unit = points / np.where(size == 0, 1, size)
    gradient = np.sqrt(((unit / np.where(size == 0, 1, size)) ** 2).sum(axis=1))
    return np.select(
        [kind == BOX, kind == ELLIPSOID, kind == FRUSTUM],
        [
            (np.abs(points) - size).max(axis=1),
            ((unit * unit).sum(axis=1) - 1) / np.maximum(2 * gradient, 1e-12),
            np.maximum(wall, np.abs(points[:, 2]) - c),
        ],
        np.hypot(flat - a, points[:, 2]) - b,
    )
