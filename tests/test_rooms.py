"""Rooms and the ray caster under them: exact geometry, checked by other means."""

import multiprocessing

import numpy as np
import pytest

from headstrong import tasks
from headstrong.data import rooms, scenes
from headstrong.data.cameras import rays
from headstrong.data.primitives import (
    BOX,
    FRUSTUM,
    TORUS,
    Solids,
    box,
    cylinder,
    ellipsoid,
    frustum,
    is_blocked,
    nearest_hit,
    residual,
    sphere,
    surface,
    to_local,
    to_world,
    torus,
)

SIZE = (32, 40)

ZOO = [
    box((0, 0, 0), (0.5, 0.3, 0.8), yaw=0.7),
    ellipsoid((1.4, 0.2, 0.1), (0.6, 0.3, 0.4), yaw=0.4, tilt=0.5),
    sphere((-1.2, 0.3, 0.2), 0.5),
    cylinder((0.3, 1.6, 0), 0.3, 1.2, yaw=0.3, tilt=1.1),
    frustum((0.1, -1.5, 0.1), 0.5, 0.1, 0.9, tilt=0.3),
    frustum((-1.3, -1.4, 0.1), 0.4, 0.0, 0.8),
    torus((1.3, -1.3, 0), 0.4, 0.15, yaw=0.3, tilt=0.9),
    torus((-1.3, 1.5, 0), 0.5, 0.02, tilt=0.2),
]


def random_rays(count=3000, seed=0):
    draw = np.random.default_rng(seed)
    origin = np.array([0.4, 0.3, 6.0])
    return origin, draw.uniform((-2, -2, -1), (2, 2, 1), (count, 3)) - origin


def local_points(solids, index, points):
    return to_local(solids, index, points - solids.centre[index])


def sampled_entry(solids, number, origin, directions, t, steps=400):
    """Does any of many points on the way to t lie inside solid `number`?"""
    inside = np.zeros(len(directions), dtype=bool)
    index = np.full(len(directions), number)
    for share in np.linspace(0.0, 1 - 1e-9, steps):
        points = origin + (share * t)[:, None] * directions
        inside |= residual(solids, index, local_points(solids, index, points)) < -1e-7
    return inside


@pytest.mark.parametrize("number", range(len(ZOO)))
def test_hits_are_on_the_surface_and_nothing_is_missed(number):
    solids = Solids.stack([ZOO[number]])
    origin, directions = random_rays(seed=number)
    # Aimed at the solid, so that most rays meet it and some graze it.
    directions = directions * 0.4 + (solids.centre[0] - origin) * 0.6
    t, index = nearest_hit(solids, origin, directions)
    hit = np.isfinite(t)
    assert 50 < hit.sum() < len(t)
    points = origin + t[hit, None] * directions[hit]
    assert np.abs(residual(solids, index[hit], local_points(solids, index[hit], points))).max() < 1e-9
    assert not sampled_entry(solids, 0, origin, directions, np.where(hit, t, 2.0)).any()
    np.testing.assert_array_equal(is_blocked(solids, origin, directions, np.inf), hit)


def test_the_nearest_of_several_solids_is_found():
    solids = Solids.stack(ZOO)
    origin, directions = random_rays()
    t, index = nearest_hit(solids, origin, directions)
    alone = np.stack([nearest_hit(Solids.stack([one]), origin, directions)[0] for one in ZOO])
    np.testing.assert_array_equal(t, alone.min(axis=0))
    hit = np.isfinite(t)
    np.testing.assert_array_equal(index[hit], alone.argmin(axis=0)[hit])
    assert len(np.unique(index[hit])) == len(ZOO)


def test_torus_agrees_with_the_roots_of_its_quartic():
    """Companion-matrix roots of the expanded quartic: another way to the same hits."""
    ring, tube = 0.9, 0.35
    solids = Solids.stack([torus((0, 0, 0), ring, tube)])
    draw = np.random.default_rng(5)
    origin = np.array([1.5, -1.0, 1.2])
    directions = draw.uniform(-1.2, 1.2, (400, 3)) * (1, 1, 0.4) - origin
    t, _ = nearest_hit(solids, origin, directions)
    for found, d in zip(t, directions, strict=True):
        square = np.array([d @ d, 2 * origin @ d, origin @ origin + ring**2 - tube**2])
        flat = np.array([d[:2] @ d[:2], 2 * origin[:2] @ d[:2], origin[:2] @ origin[:2]])
        roots = np.roots(np.polysub(np.polymul(square, square), 4 * ring**2 * flat))
        real = roots.real[(np.abs(roots.imag) < 1e-7) & (roots.real > 0)]
        assert found == pytest.approx(real.min() if len(real) else np.inf, abs=1e-6)


@pytest.mark.parametrize("number", range(len(ZOO)))
def test_normals_and_curvatures_are_derivatives_of_the_surface(number):
    """Normals by differences of the implicit equation; the sum of curvatures as the divergence of the normals."""
    solids = Solids.stack([ZOO[number]])
    origin, directions = random_rays(600, seed=number)
    directions = directions * 0.3 + (solids.centre[0] - origin) * 0.7
    t, index = nearest_hit(solids, origin, directions)
    hit = np.isfinite(t)
    index = index[hit]
    points = local_points(solids, index, origin + t[hit, None] * directions[hit])
    patch = surface(solids, index, points)
    np.testing.assert_allclose(np.linalg.norm(patch.normal, axis=1), 1, atol=1e-12)
    assert (patch.curvature[0] >= patch.curvature[1]).all()
    assert ((to_world(solids, index, patch.normal) * directions[hit]).sum(axis=1) < 1e-9).all()
    step = 1e-5
    shifts = step * np.eye(3)
    ahead = [residual(solids, index, points + shift) - residual(solids, index, points - shift) for shift in shifts]
    slope = np.stack(ahead, axis=1) / (2 * step)
    smooth = np.abs(np.linalg.norm(slope, axis=1) - 1) < 1e-3  # leaves out the rims
    assert smooth.mean() > 0.9
    np.testing.assert_allclose(
        (slope / np.linalg.norm(slope, axis=1)[:, None])[smooth], patch.normal[smooth], atol=1e-4
    )
    # The unit normal field of the implicit equation: its divergence on the surface is k1 + k2.
    fields = [
        (surface(solids, index, points + shift).normal - surface(solids, index, points - shift).normal)[:, axis]
        for axis, shift in enumerate(shifts)
    ]
    divergence = np.stack(fields, axis=1).sum(axis=1) / (2 * step)
    inner = smooth & (np.abs(divergence) < 1e3)
    np.testing.assert_allclose(divergence[inner], patch.curvature.sum(axis=0)[inner], rtol=1e-3, atol=1e-3)


def test_closed_forms_of_curvature():
    solids = Solids.stack([sphere((0, 0, 0), 0.25), cylinder((0, 0, 0), 0.5, 2.0), torus((0, 0, 0), 2.0, 0.5)])
    points = np.array([[0.15, 0.0, 0.2], [0.3, 0.4, 0.1], [1.5, 0.0, 0.0], [2.5, 0.0, 0.0]])
    curvature = surface(solids, np.array([0, 1, 2, 2]), points).curvature
    # Inner equator of the torus: a saddle, 1/r one way and -1/(R - r) the other.
    np.testing.assert_allclose(curvature.T, [[4, 4], [2, 0], [2, -1 / 1.5], [2, 1 / 2.5]], rtol=1e-12)


def test_shell_is_left_where_its_walls_and_openings_are():
    opening = scenes.Opening(0, 1, (1.0, 0.5), (2.0, 1.5), 0.3)
    shell = scenes.Shell(np.array([4.0, 3.0, 2.5]), (opening,))
    origin = np.array([2.0, 1.5, 1.0])
    directions = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1], [2.0, 0, 0.52], [2.0, 0.48, 0.0]])
    hit = scenes.shell_hit(shell, origin, directions)
    np.testing.assert_allclose(hit.t[:4], [2.3, 2.0, 1.5, 1.0])
    np.testing.assert_array_equal(hit.part, [6, 0, 5, 4, 1, 7])
    assert (origin + hit.t[5] * directions[5])[1] == pytest.approx(2.0)


@pytest.fixture(scope="module")
def raws():
    return [rooms.render(seed, SIZE) for seed in range(12)]


def test_raw_samples_hold_the_contract(raws):
    for raw in raws:
        ray = rays(SIZE, raw["intrinsics"])
        assert raw["rgb"].dtype == np.uint8
        assert raw["rgb"].shape == (3, *SIZE)
        assert raw["s"].dtype == np.uint8
        assert raw["s"].max() < len(rooms.CLASSES)
        assert tasks.depth_is_valid(raw["d"]).all()
        assert (raw["D"] >= raw["d"]).all()
        assert raw["d"].max() < 10
        np.testing.assert_allclose(np.linalg.norm(raw["n"], axis=0), 1, atol=1e-6)
        assert (raw["n"] * ray).sum(axis=0).max() <= 1e-6
        assert (np.abs(raw["p"][0]) >= np.abs(raw["p"][1])).all()
        for letter in "kKeEr":
            assert raw[letter].shape == SIZE
            assert raw[letter].dtype == np.float32
            assert raw[letter].min() >= 0
        assert max(raw["K"].max(), raw["r"].max()) <= 1
        for letter in "dDnkKeEprA":
            assert np.isfinite(tasks.encode(letter, raw["rgb"] if letter == "A" else raw[letter])).all()


def test_pictures_are_neither_black_nor_white_and_see_something(raws):
    for raw in raws:
        assert 40 < raw["rgb"].mean() < 225
        assert raw["rgb"].std() > 12
        assert np.median(raw["d"]) > 0.8
        assert len(np.unique(raw["s"])) >= 4


def test_every_class_appears():
    seen = set()
    for seed in range(60):
        seen |= set(np.unique(rooms.render(seed, (24, 24))["s"]).tolist())
    assert seen == set(range(len(rooms.CLASSES)))


def test_points_of_a_room_lie_on_what_the_room_is_made_of():
    for seed in range(3):
        view = rooms.room(seed)
        scene, camera = view.scene, view.camera
        raw = rooms.render(seed, SIZE)
        ways = camera.ways(SIZE)
        hits = scenes.trace(scene, camera.position, ways)
        np.testing.assert_array_equal(hits.t.reshape(SIZE).astype(np.float32), raw["d"])
        solid = hits.surface < len(scene.solids)
        assert solid.any()
        index = hits.surface[solid]
        gap = residual(scene.solids, index, local_points(scene.solids, index, hits.point[solid]))
        assert np.abs(gap).max() < 1e-9
        # Nothing lies nearer: sample the way to each hit against every solid.
        few = slice(seed, None, 23)
        for number in range(len(scene.solids)):
            before = hits.t[few] * (1 - 1e-9)
            assert not sampled_entry(scene.solids, number, camera.position, ways[few], before, steps=100).any()


def support(solids, number):
    """How far solid `number` reaches from its centre along each world axis (boxes, ellipsoids; others: no less)."""
    rotation, (a, b, c) = solids.rotation[number], solids.size[number]
    half = {FRUSTUM: (max(a, b), max(a, b), c), TORUS: (a + b, a + b, b)}.get(solids.kind[number], (a, b, c))
    if solids.kind[number] == BOX:
        return np.abs(rotation) @ half
    if solids.kind[number] == FRUSTUM:
        return half[0] * np.sqrt(np.clip(1 - rotation[:, 2] ** 2, 0, 1)) + half[2] * np.abs(rotation[:, 2])
    return np.sqrt(((rotation * half) ** 2).sum(axis=1))


def test_nothing_sticks_out_of_a_room():
    for seed in range(20):
        scene = rooms.room(seed).scene
        solids, size = scene.solids, scene.shell.size
        inside_wall = np.isin(
            scene.classes[: len(solids)], [rooms.CLASSES.index(c) for c in ("window", "door", "wall")]
        )
        low = (solids.centre - solids.radius[:, None])[~inside_wall]
        assert (solids.centre[~inside_wall] > -1e-9).all()
        assert (solids.centre[~inside_wall] < size).all()
        assert low.min() > -2.5
        for place in scene.lights.place:
            assert ((place > 0) & (place < size)).all()
            index = np.arange(len(solids))
            assert residual(solids, index, local_points(solids, index, np.tile(place, (len(solids), 1)))).min() > 0


def test_a_room_does_not_depend_on_the_size_of_its_picture():
    small, large = rooms.render(9, (16, 16)), rooms.render(9, (48, 48))
    # The middle one of nine rays is the ray of the small picture.
    np.testing.assert_allclose(large["d"][1::3, 1::3], small["d"], rtol=1e-6)
    np.testing.assert_array_equal(large["s"][1::3, 1::3], small["s"])
    np.testing.assert_array_equal(large["rgb"][:, 1::3, 1::3], small["rgb"])


def test_antialiasing_changes_colours_only():
    plain, smooth = rooms.render(4, SIZE), rooms.render(4, SIZE, antialias=2)
    for letter in "sdDnprKE":
        np.testing.assert_array_equal(plain[letter], smooth[letter])
    assert (plain["rgb"] != smooth["rgb"]).any()
    assert np.abs(plain["rgb"].astype(float) - smooth["rgb"]).mean() < 12
    assert smooth["e"].mean() < plain["e"].mean()


def test_shadows_are_cast():
    """A ball over the floor, a lamp over the ball: what the ball hides is darker by the lamp's share, exactly."""
    view = rooms.room(0)
    shell = scenes.Shell(np.array([4.0, 4.0, 3.0]))
    white = view.scene.materials.__class__.stack([scenes_white() for _ in range(7)])
    lights = scenes.Lights(np.array([[2.0, 2.0, 2.5]]), np.array([[1.0, 1.0, 1.0]]), np.array([0.2, 0.2, 0.2]))
    scene = scenes.Scene(shell, Solids.stack([sphere((2, 2, 1), 0.4)]), white, np.zeros(7, np.uint8), lights)
    origin = np.array([0.5, 0.5, 1.5])
    targets = np.array([[2.3, 2.3, 0.0], [3.6, 3.6, 0.0], [2.0, 3.5, 0.0]])
    hits = scenes.trace(scene, origin, targets - origin)
    light = scenes.radiance(scene, hits, origin)[:, 0]
    # The shadow's edge: the cone from the lamp that touches the ball opens with sin = 0.4 / 1.5.
    reach = 2.5 * np.tan(np.arcsin(0.4 / 1.5))
    away = np.hypot(*(hits.point[:, :2] - 2.0).T)
    np.testing.assert_array_equal(light < 0.2 + 1e-9, away < reach)
    assert (away < reach).any()
    assert (away > reach).any()


def scenes_white():
    from headstrong.data.textures import PLAIN, Material

    return Material(PLAIN, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


def test_same_bits_in_other_processes():
    here = list(rooms.samples(5, "train", 5, (16, 20)))
    two = list(rooms.samples(5, "train", 5, (16, 20), processes=2))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (other,) = pool.starmap(rooms.render, [(1234, (16, 20))])
    assert [name for name, _ in here] == [name for name, _ in two] == [f"train-{i:06d}" for i in range(5)]
    for (_, one), (_, same) in zip(here, two, strict=True):
        assert one.keys() == same.keys()
        for letter in one:
            np.testing.assert_array_equal(np.asarray(one[letter]), np.asarray(same[letter]))
    np.testing.assert_array_equal(other["rgb"], rooms.render(1234, (16, 20))["rgb"])
    assert (here[0][1]["rgb"] != here[1][1]["rgb"]).any()
    test = next(iter(rooms.samples(5, "test", 1, (16, 20))))[1]
    assert (test["rgb"] != here[0][1]["rgb"]).any()


def test_curvature_is_there_where_things_are_round():
    view = rooms.room(1)
    raw = rooms.render(1, (64, 64))
    ways = view.camera.ways((64, 64))
    hits = scenes.trace(view.scene, view.camera.position, ways)
    on_torus = np.zeros(64 * 64, dtype=bool)
    solid = hits.surface < len(view.scene.solids)
    on_torus[solid] = view.scene.solids.kind[hits.surface[solid]] == TORUS
    on_torus = on_torus.reshape(64, 64)
    assert on_torus.any()
    assert (raw["p"][0][on_torus] > 0).all()
    flat = np.isin(raw["s"], [rooms.CLASSES.index(name) for name in ("floor", "ceiling", "picture")])
    assert (raw["p"][:, flat] == 0).all()
