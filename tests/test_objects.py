"""Objects: independent attributes that can all be seen, three domains that differ, the same bits anywhere."""

import colorsys
import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from headstrong.data import object_shapes, objects
from headstrong.data.pieces import Draw
from headstrong.data.primitives import Solids, nearest_hit
from headstrong.data.scenes import trace
from headstrong.errors import ConfigError

SIZE = (32, 32)
NAMES = {name: {one: number for number, one in enumerate(classes)} for name, classes in objects.ATTRIBUTES.items()}
BASE = {"shape": "ball", "colour": "red", "texture": "plain", "size": "large", "pose": "raised", "light": "front"}


def numbers(**chosen):
    return {name: NAMES[name][one] for name, one in ({"background": "grey"} | BASE | chosen).items()}


def surfaces(view, size=SIZE):
    return trace(view.scene, view.camera.position, view.ways(size)).surface.reshape(size)


def on_object(seed, domain, attributes, size=SIZE):
    view = objects.view(seed, domain, attributes)
    return surfaces(view, size) < view.parts


def mean_hsv(pixels):
    """Hue, saturation, value of the mean linear colour of bytes (3, N)."""
    return colorsys.rgb_to_hsv(*((pixels / 255) ** 2.2).mean(axis=1) ** (1 / 2.2))


def test_samples_hold_the_contract():
    for domain in objects.DOMAINS:
        made = list(objects.samples(7, domain, "test", 3, (16, 24)))
        assert [name for name, _, _ in made] == ["test-000000", "test-000001", "test-000002"]
        for _, rgb, attributes in made:
            assert (rgb.dtype, rgb.shape) == (np.uint8, (3, 16, 24))
            assert rgb.flags.c_contiguous
            assert rgb.std() > 4
            assert list(attributes) == list(objects.ATTRIBUTES)
            assert all(0 <= number < len(objects.ATTRIBUTES[name]) for name, number in attributes.items())


def test_bits_depend_on_neither_count_nor_processes():
    def same(one, other):
        assert [(name, labels) for name, _, labels in one] == [(name, labels) for name, _, labels in other]
        return all((a == b).all() for (_, a, _), (_, b, _) in zip(one, other, strict=True))

    for domain in ("room", "webcam"):
        here = list(objects.samples(5, domain, "train", 5, (16, 20)))
        assert same(here[:2], list(objects.samples(5, domain, "train", 2, (16, 20))))
        if domain == "webcam":
            assert same(here, list(objects.samples(5, domain, "train", 5, (16, 20), processes=2)))
    pictures = [
        next(iter(objects.samples(seed, domain, split, 1, (16, 20))))[1].tobytes()
        for seed, domain, split in itertools.product((5, 6), objects.DOMAINS, ("train", "test"))
    ]
    assert len(set(pictures)) == len(pictures)


def test_every_ten_pictures_have_each_shape_once():
    shapes = [objects.describe(3, "room", "train", i)["shape"] for i in range(400)]
    tens = [tuple(shapes[i : i + 10]) for i in range(0, 400, 10)]
    assert all(sorted(ten) == list(range(10)) for ten in tens)
    assert len(set(tens)) > 38
    places = [Counter(column) for column in zip(*tens, strict=True)]
    assert max(max(place.values()) for place in places) < 14  # of 40: no shape has a place of its own


def test_attributes_are_uniform_and_independent():
    drawn = [objects.describe(11, "studio", "train", i) for i in range(2400)]
    for name, classes in objects.ATTRIBUTES.items():
        counts = np.bincount([one[name] for one in drawn], minlength=len(classes))
        assert stats.chisquare(counts).pvalue > 1e-3, name
    for one, other in itertools.combinations(objects.ATTRIBUTES, 2):
        table = np.zeros((len(objects.ATTRIBUTES[one]), len(objects.ATTRIBUTES[other])))
        np.add.at(table, ([d[one] for d in drawn], [d[other] for d in drawn]), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3, (one, other)


@pytest.mark.parametrize("shape", objects.ATTRIBUTES["shape"])
def test_extent_is_that_of_the_surface_and_things_stand_on_the_ground(shape):
    """Rays from far along a direction first meet the point that reaches farthest that way."""
    for seed in range(4):
        thing = object_shapes.set_down(Draw(seed), shape, 0.12, (1.5, 2.6, 0.3), 0.2)
        assert object_shapes.extent(thing.solids, np.array([0.0, 0.0, -1.0])) == pytest.approx(-0.3, abs=1e-12)
        for way in ((0, 0, -1), (0.36, 0.48, 0.8), (-0.6, 0.8, 0)):
            direction = np.array(way, dtype=float)
            origin = np.array([1.5, 2.6, 0.45]) + 1000 * direction
            side = np.cross(direction, (0.0, 1.0, 0.1))
            side /= np.linalg.norm(side)
            across = np.linspace(-0.35, 0.35, 120)
            grid = (across[:, None, None] * side + across[:, None] * np.cross(direction, side)).reshape(-1, 3)
            targets = np.array([1.5, 2.6, 0.45]) + grid
            t, _ = nearest_hit(Solids.stack(thing.solids), origin, targets - origin)
            hit = np.isfinite(t)
            reached = ((origin + t[hit, None] * (targets - origin)[hit]) * direction).sum(axis=1).max()
            exact = object_shapes.extent(thing.solids, direction)
            assert exact - 0.008 < reached < exact + 1e-4


def test_shapes_differ_and_the_confusable_ones_come_close():
    def sizes(shape):
        return np.array([object_shapes.SHAPES[shape](Draw(seed)).solids[0].size for seed in range(60)])

    cube, brick = (np.ptp(sizes(shape), axis=1) / sizes(shape).max(axis=1) for shape in ("cube", "brick"))
    assert cube.max() < brick.min() < 0.45
    ball, egg = (sizes(shape)[:, 2] / sizes(shape)[:, 0] for shape in ("ball", "egg"))
    assert (ball == 1).all()
    assert 1.1 < egg.min() < 1.25
    cylinder, bucket, cone = (sizes(shape)[:, 1] / sizes(shape)[:, 0] for shape in ("cylinder", "bucket", "cone"))
    assert (cylinder == 1).all()
    assert 1.1 < bucket.min() < 1.3
    assert cone.max() < 0.15


@pytest.mark.parametrize("domain", objects.DOMAINS)
def test_the_object_has_its_size_and_is_in_the_frame(domain):
    for size, (low, high) in objects.SIZES.items():
        for seed in range(5):
            shape = objects.ATTRIBUTES["shape"][(7 * seed) % 10]
            mask = on_object(seed, domain, numbers(size=size, shape=shape, pose="level"), (40, 40))
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            share = max(np.ptp(rows), np.ptp(columns)) / 40
            assert low - 0.06 < share < high + 0.06
            assert not mask[[0, -1]].any()
            assert not mask[:, [0, -1]].any()


@pytest.mark.parametrize("domain", objects.DOMAINS)
def test_the_camera_looks_from_where_the_pose_says(domain):
    for pose, (low, high) in objects.POSES.items():
        for seed in range(6):
            attributes = numbers(pose=pose)
            view = objects.view(seed, domain, attributes)
            along, across, up = view.camera.position - view.scene.solids.centre[0]
            assert low - 1e-6 <= np.degrees(np.arctan2(up, np.hypot(along, across))) <= high + 1e-6
            # ... and it stands in the room, clear of everything.
            assert ((view.camera.position > 0.05) & (view.camera.position < view.scene.shell.size - 0.05)).all()
            assert trace(view.scene, view.camera.position, view.ways(SIZE)).t.min() > 0.2


@pytest.mark.parametrize("domain", ["studio", "room"])
def test_the_colour_of_the_object_is_the_one_named(domain):
    for colour, (hue, _, _) in object_shapes.COLOURS.items():
        pixels = []
        for seed in range(4):
            attributes = numbers(colour=colour)
            pixels.append(
                objects.render(seed, domain, attributes, (16, 16))[:, on_object(seed, domain, attributes, (16, 16))]
            )
        seen = mean_hsv(np.concatenate(pixels, axis=1))
        if colour in ("white", "black"):
            assert seen[1] < 0.3
            assert seen[2] > 0.6 if colour == "white" else seen[2] < 0.45
        else:
            assert abs((seen[0] - sum(hue) / 2 + 0.5) % 1 - 0.5) < 0.05
            assert seen[1] > 0.35


@pytest.mark.parametrize("domain", objects.DOMAINS)
def test_the_background_has_its_tint(domain):
    seen = {}
    for tint in objects.TINTS:
        pixels = []
        for seed in range(8):
            attributes = numbers(background=tint, size="small")
            rgb = objects.render(seed, domain, attributes, (16, 16))
            pixels.append(rgb[:, ~on_object(seed, domain, attributes, (16, 16))])
        red, green, blue = ((np.concatenate(pixels, axis=1) / 255) ** 2.2).mean(axis=1)
        seen[tint] = (red / blue, green / np.sqrt(red * blue))
    assert seen["sand"][0] > 1.1 * seen["grey"][0] > 1.2 * seen["sky"][0]
    assert seen["sage"][1] > 1.04 * max(seen[tint][1] for tint in ("grey", "sand", "sky"))


@pytest.mark.parametrize("domain", objects.DOMAINS)
def test_the_light_falls_from_where_it_says(domain):
    """How much of what the camera sees of a ball is turned to the key light: nearly all, about half, little."""
    lit = {}
    for light in objects.LIGHTS:
        shares = []
        for seed in range(8):
            view = objects.view(seed, domain, numbers(light=light))
            hits = trace(view.scene, view.camera.position, view.ways((16, 16)))
            mine = hits.surface < view.parts
            towards = view.scene.lights.place[0] - hits.point[mine]
            shares.append(((towards * hits.normal[mine]).sum(axis=1) > 0).mean())
            assert ((view.scene.lights.place > 0) & (view.scene.lights.place < view.scene.shell.size)).all()
        lit[light] = np.mean(shares)
    assert lit["front"] > 0.85 > lit["side"] + 0.1
    assert lit["side"] > lit["back"] + 0.1


def test_textures_can_be_told_from_plain_paint():
    """Of the same ball in the same place, only what is painted on it changes."""
    rough = {}
    for texture in objects.ATTRIBUTES["texture"]:
        steps = []
        for seed in range(4):
            attributes = numbers(texture=texture)
            mask = on_object(seed, "room", attributes, (48, 48))
            rgb = objects.render(seed, "room", attributes, (48, 48)).astype(float)
            steps.append(np.abs(np.diff(rgb, axis=2))[:, mask[:, 1:] & mask[:, :-1]].mean())
        rough[texture] = np.mean(steps)
    assert all(rough[texture] > 1.3 * rough["plain"] for texture in rough if texture != "plain"), rough


@pytest.mark.parametrize("domain", objects.DOMAINS)
def test_every_class_of_every_attribute_makes_another_picture(domain):
    for name, classes in objects.ATTRIBUTES.items():
        pictures = [
            objects.render(2, domain, numbers() | {name: one}, (16, 16)).astype(int) for one in range(len(classes))
        ]
        for one, other in itertools.combinations(pictures, 2):
            assert (np.abs(one - other).max(axis=0) > 4).mean() > 0.02, name


def test_domains_look_different():
    def pictures(domain):
        return np.stack([rgb for _, rgb, _ in objects.samples(1, domain, "train", 8, (64, 64))]) / 255

    def fine(images):
        """Share of the variance above half of the finest frequency that the picture could hold."""
        power = np.abs(np.fft.fft2(images - images.mean(axis=(2, 3), keepdims=True))) ** 2
        high = np.abs(np.fft.fftfreq(64)) > 0.25
        return power[:, :, high[:, None] | high].sum() / power.sum()

    studio, room, webcam = (pictures(domain) for domain in objects.DOMAINS)
    around = {"studio": studio, "room": room, "webcam": webcam}
    border = {name: np.median(one[:, :, :4]) for name, one in around.items()}
    assert border["studio"] > 0.85 > border["room"] > 1.2 * border["webcam"]
    # A pale ground without a pattern; walls and floors with one.
    assert np.abs(np.diff(studio[:, :, :6])).mean() < 0.25 * np.abs(np.diff(room[:, :, :6])).mean()
    assert fine(room) > 3 * fine(webcam)
    assert studio[:, :, :4].std(axis=1).mean() < 0.5 * webcam[:, :, :4].std(axis=1).mean()  # grey against coloured


def test_shadows_fall_on_the_ground():
    for domain in objects.DOMAINS:
        attributes = numbers(light="back", pose="above")
        view = objects.view(4, domain, attributes)
        hits = trace(view.scene, view.camera.position, view.ways((64, 64)))
        ground = hits.surface >= view.parts
        bare = view._replace(scene=view.scene.__class__(**(vars(view.scene) | {"solids": Solids.stack([])})))
        with_object = objects.radiance(view.scene, hits, view.camera.position)[ground]
        without = objects.radiance(bare.scene, hits, view.camera.position)[ground]
        assert (with_object <= without + 1e-12).all()
        assert (with_object < 0.8 * without).all(axis=1).mean() > 0.02


def test_a_scene_does_not_depend_on_the_size_of_its_picture():
    view = objects.view(9, "room", numbers(shape="mug"))
    small = surfaces(view, (16, 16))
    np.testing.assert_array_equal(surfaces(view, (48, 48))[1::3, 1::3], small)
    np.testing.assert_array_equal(surfaces(view, (16, 32))[:, 8:24], small)
    np.testing.assert_array_equal(surfaces(view, (32, 16))[8:24], small)


def test_a_webcam_makes_the_same_of_a_picture_on_any_machine():
    row, column, channel = np.indices((16, 20, 3))
    picture = (3 * row * row + 7 * column + 50 * channel) % 256
    seen = objects._webcam(Draw(1), picture)
    assert hashlib.sha256(seen.tobytes()).hexdigest()[:16] == "a441894dc97e9dc9"


@pytest.mark.parametrize(("side", "factor"), [(64, 2), (128, 4)])
def test_a_webcam_is_coarse_and_noisy_but_true(side, factor):
    seen = objects._webcam(Draw(3), np.full((side, side, 3), 90)).astype(float)
    assert abs(seen.mean() - 90) < 0.5
    level = Draw(3).uniform(*objects.SENSOR)
    # Right and below a middle of a cell by 1 / (2 factor): a known mean of four cells, whose deviation follows.
    share = 1 - 1 / (2 * factor)
    kept = share**2 + (1 - share) ** 2
    inner = seen[factor // 2 : -factor // 2, factor // 2 : -factor // 2][::factor, ::factor]
    assert inner.std() == pytest.approx(level * kept, rel=0.08)
    assert len(np.unique(seen[0, : factor // 2, 0])) == 1  # beyond the last cell's middle nothing changes


def test_stretching_is_bilinear():
    ramp = np.arange(8)[:, None, None] * np.ones((8, 4, 3), dtype=int)
    np.testing.assert_array_equal(objects._stretched(ramp, 2)[1:-1, 0, 0] / 4, np.arange(0.25, 7, 0.5))


@pytest.mark.parametrize(
    ("domain", "size", "said"),
    [
        ("dslr", (16, 16), "objects has no domain 'dslr'; choose from studio, room, webcam"),
        ("room", (16, 18), r"size \[16, 18\]: .* multiples of 4"),
        ("room", (0, 16), r"size \[0, 16\]: .* multiples of 4"),
    ],
)
def test_what_cannot_be_is_one_line(domain, size, said):
    with pytest.raises(ConfigError, match=said) as caught:
        objects.samples(0, domain, "train", 1, size)
    assert "\n" not in str(caught.value)
