"""Labels derived from depth and colour, against analytic truth, rooms' exact labels and real photographs."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion

from benchmarks.label_accuracy import away_from_edges
from headstrong import tasks
from headstrong.data import labels, renderings, rooms
from headstrong.data.cameras import Intrinsics
from headstrong.data.primitives import Solids, cylinder, nearest_hit, sphere, surface, to_local, torus
from real_folders import real_folder

SIZE = (96, 128)
CAMERA = Intrinsics.from_view(SIZE, 60.0)


def plane_depth(normal, offset, size=SIZE, camera=CAMERA):
    """z depth of the plane normal . P = -offset: from normal . (z ray) = -offset."""
    ray = labels.rays(size, camera)
    return -offset / np.tensordot(np.asarray(normal), ray, axes=1)


def solid_depth(solid):
    """z depth of one solid seen from the origin along z, 0 beside it, and its exact principal curvatures."""
    solids = Solids.stack([solid])
    ray = labels.rays(SIZE, CAMERA).reshape(3, -1).T
    t, index = nearest_hit(solids, np.zeros(3), ray)
    hit = np.isfinite(t)
    exact = np.zeros((2, len(t)))
    local = to_local(solids, index[hit], t[hit, None] * ray[hit] - solids.centre[0])
    exact[:, hit] = surface(solids, index[hit], local).curvature
    return np.where(hit, t, 0).reshape(SIZE), exact.reshape(2, *SIZE)


def degrees(one, other):
    return np.degrees(np.arccos(np.clip((one * other).sum(axis=0), -1, 1)))


def test_pixel_centres_and_scaling():
    camera = Intrinsics(100.0, 90.0, 64.0, 48.0)
    assert labels.rays((96, 128), camera)[:, 48, 64] == pytest.approx([0.005, 0.5 / 90, 1.0])
    # A pixel of the half-size image looks through the common corner of the four pixels it replaces.
    fine, coarse = labels.rays((96, 128), camera), labels.rays((48, 64), camera.for_size((96, 128), (48, 64)))
    np.testing.assert_allclose(coarse, fine.reshape(3, 48, 2, 64, 2).mean(axis=(2, 4)), atol=1e-12)


def test_euclidean_is_the_length_of_the_point():
    depth = np.random.default_rng(0).uniform(0.5, 9, SIZE)
    np.testing.assert_allclose(labels.euclidean(depth, CAMERA), np.linalg.norm(labels.points(depth, CAMERA), axis=0))


@pytest.mark.parametrize("normal", [(0, 0, -1), (0, -1, -0.2), (0.8, 0.1, -0.6), (-0.3, 0.9, -0.5)])
def test_plane_gives_its_normal_no_curvature_no_edge(normal):
    normal = np.array(normal) / np.linalg.norm(normal)
    depth = plane_depth(normal, 1.5)
    depth = np.where((depth > 0) & (depth < 60), depth, 0)
    n = labels.normals(depth, CAMERA)
    seen = depth > 0
    assert seen.sum() > 2000
    assert degrees(n, normal[:, None, None])[seen].max() < 1e-3
    assert np.abs(labels.curvatures(depth, n, CAMERA)).max() < 1e-4
    assert labels.keypoints_3d(depth, CAMERA, n).max() < 1e-3
    far = labels.euclidean(depth, CAMERA)
    # The angle to the line of sight has the cosine 1.5 / far.
    lit = np.clip(1.6 * 1.5 / far[seen] * 8 / (8 + far[seen] ** 2), 0, 1)
    np.testing.assert_allclose(renderings.reshading(n, far, CAMERA)[seen], lit, atol=1e-5)
    assert (renderings.reshading(n, far, CAMERA)[~seen] == 0).all()


@pytest.mark.parametrize(
    "solid",
    [sphere((0, 0, 3), 1.0), cylinder((0.2, 0, 3), 0.7, 5.0, tilt=np.pi / 2), torus((0, 0, 3), 1.0, 0.4, tilt=0.6)],
    ids=["sphere", "cylinder", "torus"],
)
def test_curvature_of_solids(solid):
    depth, exact = solid_depth(solid)
    n = labels.normals(depth, CAMERA)
    k = labels.curvatures(depth, n, CAMERA)
    facing = -(n * labels.rays(SIZE, CAMERA)).sum(axis=0) / np.linalg.norm(labels.rays(SIZE, CAMERA), axis=0)
    middle = binary_erosion(depth > 0, iterations=4) & (facing > 0.4)
    assert middle.sum() > 500
    assert np.median(np.abs(k - renderings.by_magnitude(exact))[:, middle]) < 0.05
    assert (np.abs(k[0]) >= np.abs(k[1])).all()


def test_hollow_surface_has_negative_curvature():
    ray = labels.rays(SIZE, CAMERA)
    # Inside of a ball of radius 2 around the camera: every line of sight meets it at distance 2.
    depth = 2 / np.linalg.norm(ray, axis=0)
    k = labels.curvatures(depth, labels.normals(depth, CAMERA), CAMERA)
    np.testing.assert_allclose(k[:, 4:-4, 4:-4], -0.5, atol=0.02)


def test_curvatures_are_encoded_as_taskonomy_renders_them():
    # byte = (0.03 k + 1) / 2 * 254: a ball of 6 cm is half-way from grey 127 to 254, a hollow one half-way to 0.
    kappa = np.array([0.0, 1 / 0.06, -1 / 0.06, 1 / 0.03, -1 / 0.03])
    bytes_ = np.array([127, 190.5, 63.5, 254, 0])
    for channel, (mean, std) in enumerate(zip(tasks.CURVATURE_MEAN, tasks.CURVATURE_STD, strict=True)):
        found = tasks.encode("p", np.stack([kappa, kappa])[:, None])[channel, 0]
        np.testing.assert_allclose(found, (bytes_ - mean) / std, atol=1e-5)
    np.testing.assert_allclose(tasks.decode_curvature(bytes_), kappa, atol=1e-5)
    # Red has the larger magnitude, whatever its sign; nothing is rounder than a ball of 3 cm.
    ordered = renderings.by_magnitude(np.array([[2.0, 1.0, 0.0, 50.0], [-3.0, 0.5, -1.0, -40.0]]))
    np.testing.assert_allclose(ordered, [[-3, 1, -1, 1 / 0.03], [2, 0.5, 0, -1 / 0.03]])


def test_reshading_falls_off_with_the_distance_as_well():
    ahead = np.zeros((3, *SIZE))
    ahead[2] = -1
    centre = Intrinsics(CAMERA.fx, CAMERA.fy, 64.5, 48.5)  # the middle of pixel (48, 64) is straight ahead
    at = {far: renderings.reshading(ahead, np.full(SIZE, far), centre)[48, 64] for far in (1.0, 8**0.5, 4.0)}
    assert at == pytest.approx({1.0: 1.0, 8**0.5: 0.8, 4.0: 1.6 / 3})  # at one metre it is overexposed
    assert renderings.reshading(-ahead, np.ones(SIZE), centre).max() == 0  # seen from behind


def test_keypoints_are_where_three_walls_meet():
    depth = np.minimum(plane_depth((0.7, 0, -0.7), 2.0), plane_depth((-0.7, 0, -0.7), 2.0))
    assert labels.keypoints_3d(depth, CAMERA).max() < 0.02
    three = np.minimum(depth, np.where((floor := plane_depth((0, -1, -0.1), 0.9)) > 0, floor, np.inf))
    corner = labels.keypoints_3d(three, CAMERA)
    meeting = np.linalg.solve([(0.7, 0, -0.7), (-0.7, 0, -0.7), (0, -1, -0.1)], [-2.0, -2.0, -0.9])
    away = np.linalg.norm(labels.points(three, CAMERA) - meeting[:, None, None], axis=0)
    assert corner[away < 0.1].mean() > 0.2
    assert corner[away > 0.6].max() < 0.1


def test_an_occlusion_edge_is_the_step_of_the_square_root_of_depth():
    depth = np.full((512, 512), 3.0)
    depth[100:300, 200:400] = 2.0
    depth[400, 100] = 0  # a hole
    edges = renderings.occlusion_edges(depth)
    step = (np.sqrt(3 / 128) - np.sqrt(2 / 128)) / np.sqrt(2)
    np.testing.assert_allclose(edges[200, 198:203], [0, step, step, 0, 0], atol=1e-12)
    assert (edges[399:402, 99:102] == 0).all()  # nothing is known beside a hole
    assert edges[:, 0].max() == 0
    # A surface has the same gradient at any size; a step adds up to the same over its width.
    small = renderings.occlusion_edges(depth[::8, ::8])
    assert 8 * small[25].sum() == pytest.approx(edges[200].sum())
    ramp = np.linspace(2, 3, 513)[:512]
    assert (
        renderings.occlusion_edges(np.tile(ramp[::8], (64, 1)))[30, 30]
        == pytest.approx(renderings.occlusion_edges(np.tile(ramp, (512, 1)))[240, 240], rel=1e-3)
    )  # fmt: skip


def test_holes_stay_holes_and_do_not_disturb_the_rest():
    depth = plane_depth((0.3, -0.4, -0.8), 2.0)
    holes = np.random.default_rng(1).random(SIZE) < 0.2
    holes[20:40, 50:80] = True
    n = labels.normals(np.where(holes, 0, depth), CAMERA)
    truth = (np.array([0.3, -0.4, -0.8]) / np.linalg.norm([0.3, -0.4, -0.8]))[:, None, None]
    error = degrees(n, truth)[~holes]
    assert np.quantile(error, 0.999) < 1e-3
    assert (n[:, holes] == np.array([[0], [0], [-1]])).all()
    raw = labels.derive({"rgb": np.zeros((3, *SIZE), np.uint8), "d": np.where(holes, 0, depth)}, CAMERA)
    for letter in "dDpKrE":
        assert (raw[letter][..., holes] == 0).all(), letter


@pytest.mark.parametrize(("size", "allowed"), [(64, 0.5), (128, 0.5)])
def test_normals_of_rooms(size, allowed):
    errors = []
    for seed in range(4):
        raw = rooms.render(seed, (size, size))
        n = labels.normals(raw["d"], raw["intrinsics"])
        np.testing.assert_allclose(np.linalg.norm(n, axis=0), 1, atol=1e-9)
        assert (n * labels.rays((size, size), raw["intrinsics"])).sum(axis=0).max() <= 1e-9
        errors.append(degrees(n, raw["n"])[away_from_edges(raw)])
    assert np.median(np.concatenate(errors)) < allowed
    assert np.quantile(np.concatenate(errors), 0.95) < 3


def test_normals_of_rooms_with_the_depth_steps_of_a_kinect():
    errors = []
    for seed in range(3):
        raw = rooms.render(seed, (192, 256))
        stepped = np.round(raw["d"] / 0.039) * 0.039
        noise = labels.depth_noise(stepped, raw["intrinsics"])
        assert noise == pytest.approx(0.039 / np.sqrt(12), rel=0.02)
        n = labels.normals(stepped, raw["intrinsics"], noise)
        errors.append(degrees(n, raw["n"])[away_from_edges(raw)])
        assert labels.depth_noise(raw["d"], raw["intrinsics"]) == 0
    assert np.median(np.concatenate(errors)) < 3


def test_texture_edges_of_a_step():
    from scipy.stats import norm

    step = np.zeros((3, 512, 512), np.uint8)
    step[:, :, 256:] = 51  # a fifth of the range, blurred by three pixels; the edge is between two columns
    edges = renderings.texture_edges(step)
    peak = 0.2 * (norm.cdf(1.5 / 3) - norm.cdf(-0.5 / 3)) / np.sqrt(2)
    np.testing.assert_allclose(edges[100, 255:257], peak, rtol=0.01)
    assert edges[100, :240].max() < 1e-6


def test_2d_keypoints_of_known_pictures():
    far = np.arange(512) - 256
    for radius in (5, 40):  # a blob in the middle is found, whatever its size
        blob = np.exp(-(far**2) / 2 / radius**2)
        picture = np.broadcast_to(np.round(255 * np.outer(blob, blob)), (3, 512, 512)).astype(np.uint8)
        response = renderings.keypoints_2d(picture)
        assert np.abs(np.unravel_index(response.argmax(), response.shape) - np.array(256)).max() <= 2
        assert response.max() > 0.005  # full scale of the target
        assert response.min() >= 0
    # Boxes whose size is no multiple of 3 do not balance on white: those of 32 pixels leave most of it.
    white = renderings.keypoints_2d(np.full((3, 512, 512), 255, np.uint8))
    assert white[256, 256] == pytest.approx((2 * 19 / 32**2) ** 2)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 61)])
def test_a_picture_is_enlarged_as_pillow_does_it(size):
    rgb = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    grey = Image.fromarray(np.ascontiguousarray(np.moveaxis(rgb, 0, -1))).convert("L")
    np.testing.assert_array_equal(renderings.luminance(rgb), np.asarray(grey))
    light = renderings.luminance(rgb) / np.float32(255)
    theirs = np.asarray(Image.fromarray(light).resize((200, 300), Image.Resampling.BICUBIC))
    ours = renderings.enlarged(renderings.enlarged(light, 300).T, 200).T
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_labels_of_a_picture_are_those_of_a_larger_one():
    """The renderer works at 512 pixels: what it finds is what a smaller picture still shows."""
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(3).normal(size=(512, 512)), 12)
    large = np.round(128 + 500 * noise).clip(0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(large).resize((128, 128), Image.Resampling.BOX))
    middle = renderings.nearest(512, 128)
    for label in (renderings.texture_edges, renderings.keypoints_2d):
        one, other = (label(np.stack([grey] * 3)) for grey in (small, large))
        assert np.corrcoef(one.ravel(), other[middle[:, None], middle].ravel())[0, 1] > 0.995
        assert one.mean() == pytest.approx(other.mean(), rel=0.02)


def test_derive_keeps_what_is_there_and_changes_no_argument():
    raw = rooms.render(3, (48, 64))
    given = {"rgb": raw["rgb"], "d": raw["d"], "n": raw["n"]}
    made = labels.derive(given, raw["intrinsics"], noise=0.0)
    assert set(given) == {"rgb", "d", "n"}
    assert made["n"] is raw["n"]
    np.testing.assert_allclose(made["D"], raw["D"], rtol=1e-6)
    np.testing.assert_allclose(made["r"], raw["r"], atol=1e-5)
    for letter in "KEek":
        np.testing.assert_array_equal(made[letter], raw[letter])
        assert made[letter].dtype == np.float32


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["0150", "0900", "1300"])
def test_floors_of_real_rooms_look_up(name):
    from PIL import Image

    root = real_folder("nyuv2")
    depth = np.asarray(Image.open(root / "depth" / f"{name}.png")) / 1000
    classes = np.asarray(Image.open(root / "label40" / f"{name}.png"))
    camera = Intrinsics(518.86, 519.47, 325.08, 253.24).scaled(0.4)
    assert labels.quantum(depth) == pytest.approx(0.039, abs=1e-3)
    n = labels.normals(depth, camera, labels.depth_noise(depth, camera))
    np.testing.assert_allclose(np.linalg.norm(n, axis=0), 1, atol=1e-9)
    floor, wall = classes == 2, classes == 1
    up = np.median(n[:, floor], axis=1)
    up /= np.linalg.norm(up)
    assert up[1] < -0.9  # y points down
    assert np.median(degrees(n[:, floor], up[:, None])) < 15
    assert abs(np.median(up @ n[:, wall])) < 0.2  # walls stand on the floor
