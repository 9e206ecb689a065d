"""The embedded data set `objects`: single objects with independent attributes, in three domains, any size and number.

It stands in for Office-31 (one class label, three domains), CelebA (many independent labels) and for data with classes
that are easily confused. `studio` is a product photograph on a pale seamless ground, `room` a sharp photograph in a
furnished corner with light and shadow, `webcam` a dim picture of such a corner under coloured light, of low resolution
and with the noise of a sensor.

An attribute decides the range of what it names; seed and domain decide the rest: which of its ranges' values, the
object's yaw and whether it lies on a side, where it is in the frame, gloss, the camera's lens and roll, walls, ground,
clutter, lamps. A picture's scene does not depend on its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstrong.data import furniture, textures
from headstrong.data.cameras import Camera
from headstrong.data.object_shapes import COLOURS, SHAPES, TEXTURES, Thing, dressed, extent, mixed, set_down
from headstrong.data.ordered import in_order
from headstrong.data.pieces import ANY_HUE, Draw, Part, Range
from headstrong.data.primitives import Floats, Solids, box
from headstrong.data.scenes import Lights, Scene, Shell, develop, exposure, radiance, trace
from headstrong.data.textures import Material, Materials, hash_unit
from headstrong.errors import ConfigError
from headstrong.seeds import derive_seed

__all__ = ["ATTRIBUTES", "DOMAINS", "describe", "render", "samples", "view"]

SIZES: dict[str, Range] = {"small": (0.4, 0.45), "medium": (0.5, 0.55), "large": (0.6, 0.66)}  # of the frame
POSES: dict[str, Range] = {"level": (9, 14), "raised": (20, 26), "above": (33, 40)}  # degrees of the camera's elevation
LIGHTS: dict[str, Range] = {"front": (0, 35), "side": (70, 105), "back": (140, 180)}  # degrees from camera to key light
TINTS: dict[str, tuple[Range, float]] = {  # hue of the surroundings, and how much of it
    "grey": (ANY_HUE, 0.05),
    "sand": ((0.07, 0.12), 1.0),
    "sage": ((0.26, 0.38), 0.8),
    "sky": ((0.54, 0.62), 1.0),
}

ATTRIBUTES: dict[str, list[str]] = {
    "shape": list(SHAPES),
    "colour": list(COLOURS),
    "texture": list(TEXTURES),
    "size": list(SIZES),
    "pose": list(POSES),
    "light": list(LIGHTS),
    "background": list(TINTS),
}


class _Domain(NamedTuple):
    """What a domain decides: ranges of the lens's angle over the frame's shorter side in degrees, the tint's
    saturation, the ground's value, the key light's elevation in degrees, distance in metres, power and saturation, the
    light from everywhere, and the mean luminance exposed for; whether the surroundings are a seamless sweep, and
    whether a webcam takes the picture."""

    view: Range
    saturation: Range
    value: Range
    elevation: Range
    distance: Range
    power: Range
    cast: Range
    ambient: Range
    exposed: Range
    seamless: bool = False
    webcam: bool = False


_DOMAINS = {
    "studio": _Domain(
        view=(24, 34),
        saturation=(0.08, 0.16),
        value=(0.93, 1.0),
        elevation=(50, 66),
        distance=(2.2, 3.0),
        power=(2.4, 3.4),
        cast=(0.0, 0.05),
        ambient=(0.4, 0.6),
        exposed=(1.1, 1.5),
        seamless=True,
    ),
    "room": _Domain(
        view=(30, 40),
        saturation=(0.14, 0.3),
        value=(0.6, 0.85),
        elevation=(42, 60),
        distance=(1.3, 1.9),
        power=(1.8, 2.8),
        cast=(0.05, 0.15),
        ambient=(0.4, 0.55),
        exposed=(0.45, 0.65),
    ),
    "webcam": _Domain(
        view=(42, 52),
        saturation=(0.18, 0.32),
        value=(0.55, 0.8),
        elevation=(42, 60),
        distance=(1.3, 1.9),
        power=(1.6, 2.6),
        cast=(0.2, 0.35),
        ambient=(0.4, 0.55),
        exposed=(0.11, 0.19),
        webcam=True,
    ),
}
DOMAINS = tuple(_DOMAINS)

PROBE = (12, 12)  # rays of the glance that sets the exposure
TOP, DEEP = 2.5, 2.6  # metres: the shell's height, and from the object to the wall behind the camera
STEP = 96  # levels (of 255) between neighbours beyond which a pixel is averaged over more rays
SENSOR = (3.0, 7.0)  # levels (of 255): range of the standard deviation of a webcam's noise
UP = np.array([0.0, 0.0, 1.0])


def samples(
    seed: int, domain: str, split: str, count: int, size: tuple[int, int], processes: int = 1, first: int = 0
) -> Iterator[tuple[str, NDArray[np.uint8], dict[str, int]]]:
    """`count` pictures of a domain and split ("train", "test") as (name, rgb uint8 (3, H, W), {attribute: class
    number}), in order; H and W are multiples of 4.

    Every picture has a seed of its own, derived from `seed`, so the bits do not depend on `count` or `processes`.
    first: the picture to begin with. Every ten pictures, counted from the first, have each shape once.
    Raises ConfigError for an unknown domain and a size that cannot be.
    """
    if domain not in _DOMAINS:
        raise ConfigError(f"objects has no domain '{domain}'; choose from {', '.join(DOMAINS)}")
    if any(side < 4 or side % 4 for side in size):
        raise ConfigError(f"size {list(size)}: objects makes pictures whose sides are multiples of 4; change it")
    work = partial(_sample, seed, domain, split, (size[0], size[1]))
    return in_order(work, [f"{split}-{i:06d}" for i in range(first, count)], processes)


def _sample(
    seed: int, domain: str, split: str, size: tuple[int, int], name: str
) -> tuple[str, NDArray[np.uint8], dict[str, int]]:
    number = int(name.rpartition("-")[2])
    attributes = describe(seed, domain, split, number)
    return name, render(derive_seed(seed, "objects", domain, split, number), domain, attributes, size), attributes


def describe(seed: int, domain: str, split: str, number: int) -> dict[str, int]:
    """The class numbers of picture `number` (from 0), by attribute: shapes take turns in an order of their own in each
    ten, all else is drawn uniformly and independently."""
    block, turn = divmod(number, len(SHAPES))
    order = Draw(derive_seed(seed, "objects", domain, split, "shapes", block))
    left = list(range(len(SHAPES)))
    for _ in range(turn):
        left.remove(order.choice(left))
    draw = Draw(derive_seed(seed, "objects", domain, split, "attributes", number))
    others = {name: draw.whole(0, len(classes) - 1) for name, classes in ATTRIBUTES.items() if name != "shape"}
    return {"shape": order.choice(left)} | others


def render(
    seed: int, domain: str, attributes: Mapping[str, int], size: tuple[int, int] = (64, 64)
) -> NDArray[np.uint8]:
    """The picture uint8 (3, H, W) of a seed, a domain of DOMAINS and a class number for each of ATTRIBUTES.

    size: (H, W), multiples of 4. Raises KeyError for an unknown domain or a missing attribute.
    """
    seen = view(seed, domain, attributes)
    if not _DOMAINS[domain].webcam:
        return np.ascontiguousarray(_sharp(seen, size).transpose(2, 0, 1))
    draw = Draw(derive_seed(seed, "sensor"))
    return np.ascontiguousarray(
        _webcam(draw, _bytes(_shown(seen, seen.ways(size))).reshape(*size, 3)).transpose(2, 0, 1)
    )


class View(NamedTuple):
    """An object as it is seen: the scene, whose first `parts` solids are the object; the camera, whose angle of view is
    that of the picture's shorter side; the factor from radiance to exposure; whether the shell is a seamless sweep."""

    scene: Scene
    parts: int
    camera: Camera
    brightness: float
    seamless: bool

    def ways(self, size: tuple[int, int], finer: int = 1) -> Floats:
        """Viewing rays (finer H finer W, 3) in the world, row by row, of a picture (H, W)."""
        ratio = size[1] / min(size)
        across = 2 * math.degrees(math.atan(ratio * math.tan(math.radians(self.camera.view) / 2)))
        camera = Camera(self.camera.position, self.camera.rotation, across)
        return camera.ways((finer * size[0], finer * size[1]))


def view(seed: int, domain: str, attributes: Mapping[str, int]) -> View:
    """The scene and camera of a picture; `attributes` as for `render`."""
    draw, rules = Draw(seed), _DOMAINS[domain]
    chosen = {name: classes[attributes[name]] for name, classes in ATTRIBUTES.items()}
    scale = draw.uniform(0.11, 0.15)
    tints = _Tints(draw, rules, chosen["background"])
    size = np.array([draw.uniform(3.0, 4.4), DEEP + draw.uniform(1.0, 2.0) + 0.8 * rules.seamless, TOP])
    base = _Base(draw, rules, tints, size)
    place = (float(size[0]) / 2, DEEP, base.height)
    aside = draw.uniform(-0.35, 0.35)
    thing = set_down(Draw(derive_seed(seed, "shape")), chosen["shape"], scale, place, aside)
    camera = _camera(draw, rules, thing, chosen, math.pi / 2 + aside)
    lights = _lights(draw, rules, chosen["light"], aside - math.pi / 2, np.array(place), size)
    parts = dressed(Draw(derive_seed(seed, "skin")), thing, chosen["colour"], chosen["texture"], scale) + base.parts
    scene = Scene(
        Shell(size),
        Solids.stack([part.solid for part in parts]),
        Materials.stack([part.material for part in parts] + base.shell),
        np.zeros(len(parts) + 6, dtype=np.uint8),
        lights,
    )
    seen = View(scene, len(thing.solids), camera, 1.0, rules.seamless)
    return seen._replace(brightness=_brightness(seen, draw.uniform(*rules.exposed)))


# --- the surroundings --------------------------------------------------------------------------------------------


class _Tints:
    """Draws the materials of the surroundings: of one background's hue, more or less of it."""

    def __init__(self, draw: Draw, rules: _Domain, background: str) -> None:
        self._draw, self._rules = draw, rules
        hue, share = TINTS[background]
        middle = draw.uniform(*hue)
        self._hue = (middle - 0.01, middle + 0.01)
        low, high = rules.saturation
        self._saturation = (share * low, share * high)

    def __call__(self, patterns: tuple[int, ...], scale: Range, contrast: float, gloss: float = 0.0) -> Material:
        return self._draw.material(
            patterns,
            self._hue,
            self._saturation,
            self._rules.value,
            scale,
            gloss,
            self._draw.uniform(0.5, 1) * contrast,
        )


class _Base:
    """What is around the object: `shell` the materials of the shell's parts, `parts` the solids, `height` of the ground
    under the object in metres."""

    def __init__(self, draw: Draw, rules: _Domain, tints: _Tints, size: Floats) -> None:
        self.parts: list[Part] = []
        self.height = 0.0
        if rules.seamless:
            self.shell = [tints((textures.PLAIN,), (0.3, 0.5), 0.0)] * 6
            return
        paper = (textures.PLAIN, textures.CLOUDS, textures.BRICKS, textures.TILES)
        floor = (textures.PLANKS, textures.TILES, textures.CHECKS, textures.WOOD, textures.CLOUDS)
        wall = tints(paper, (0.2, 0.5), 0.15)
        self.shell = [wall] * 4 + [tints(floor, (0.2, 0.5), 0.2, 0.1), tints((textures.PLAIN,), (0.3, 0.5), 0.0)]
        if draw.chance(0.3):
            self._bench(draw, tints(floor, (0.15, 0.4), 0.2, 0.1), size)
        self._clutter(draw, size)

    def _bench(self, draw: Draw, top: Material, size: Floats) -> None:
        self.height = draw.uniform(0.15, 0.5)
        half = (draw.uniform(0.4, 0.9), draw.uniform(0.35, 0.6), self.height / 2)
        solid = box((float(size[0]) / 2, DEEP, self.height / 2), half, yaw=draw.uniform(-0.4, 0.4))
        self.parts.append(Part(solid, 0, top))

    def _clutter(self, draw: Draw, size: Floats) -> None:
        """Furniture along the wall behind the object, and pictures on it."""
        for side in (-0.65, 0.65):
            x = float(size[0]) / 2 + side + draw.uniform(-0.3, 0.3)
            if draw.chance(0.2):
                piece = draw.choice((furniture.cabinet, furniture.shelf, furniture.books, furniture.chair))(draw)
                self.parts += piece.placed(x, float(size[1]) - piece.half[1] - 0.03, 0.0, math.pi)
            elif draw.chance(0.25):
                picture = furniture.painting(draw)
                self.parts += picture.placed(x, float(size[1]), draw.uniform(0.6, 1.2), math.pi)


def _camera(draw: Draw, rules: _Domain, thing: Thing, chosen: Mapping[str, str], yaw: float) -> Camera:
    """A camera that looks along `yaw` in radians and sees the object at its size, somewhere in the frame."""
    angle, share = draw.uniform(*rules.view), draw.uniform(*SIZES[chosen["size"]])
    elevation = math.radians(draw.uniform(*POSES[chosen["pose"]]))
    roll = draw.uniform(-0.07, 0.07)
    right, down, forward = Camera.aimed(np.zeros(3), yaw, -elevation, 0.0, angle).rotation.T
    spans = [(extent(thing.solids, axis), -extent(thing.solids, -axis)) for axis in (right, down, forward)]
    middle = sum((axis * sum(span) / 2 for axis, span in zip((right, down, forward), spans, strict=True)), np.zeros(3))
    wide, deep = max(high - low for high, low in spans[:2]), spans[2][0] - spans[2][1]
    tangent = math.tan(math.radians(angle) / 2)
    # The outline lies, for most shapes, a little before the middle.
    distance = wide / (2 * tangent * share) + 0.15 * deep
    room = 2 * tangent * 0.4 * (1 - share) / 2
    aim = forward + room * (draw.uniform(-1, 1) * right + draw.uniform(-1, 1) * down)
    aim = aim / math.sqrt(float((aim * aim).sum()))
    towards, pitch = math.atan2(float(aim[1]), float(aim[0])), math.asin(float(aim[2]))
    return Camera.aimed(middle - distance * forward, towards, pitch, roll, angle)


def _lights(draw: Draw, rules: _Domain, light: str, azimuth: float, place: Floats, size: Floats) -> Lights:
    """The key light at its angle from the camera, and a weak one near the camera that fills the shadows."""
    turned = azimuth + math.radians(draw.uniform(*LIGHTS[light])) * draw.choice((-1, 1))
    elevation, distance = math.radians(draw.uniform(*rules.elevation)), draw.uniform(*rules.distance)
    key = place + distance * _way(turned, elevation)
    fill = place + 1.8 * _way(azimuth + draw.uniform(-0.5, 0.5), 0.9)
    # Clear of the furniture behind.
    places = np.clip(np.array([key, fill]), 0.3, size - (0.3, 0.55, 0.05))
    power = np.array([[draw.uniform(*rules.power)], [draw.uniform(0.25, 0.5)]])
    tint = draw.colour(ANY_HUE, rules.cast, (1.0, 1.0))
    tints = np.array([tint, mixed(tint, 1.0, 0.6)])
    return Lights(places, tints * power, np.array(mixed(tint, 1.0, 0.5)) * draw.uniform(*rules.ambient))


def _way(azimuth: float, elevation: float) -> Floats:
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])


# --- the picture -------------------------------------------------------------------------------------------------


def _light(seen: View, ways: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Linear light (N, 3) and number of the surface (N,) along rays (N, 3)."""
    hits = trace(seen.scene, seen.camera.position, ways)
    if seen.seamless:
        hits.normal[hits.surface >= len(seen.scene.solids)] = UP  # a sweep of paper is lit without a seam
    return radiance(seen.scene, hits, seen.camera.position), hits.surface


def _brightness(seen: View, target: float) -> float:
    """Exposure for the surroundings only where they are a sweep: what is before it must not change how pale it is."""
    light, surface = _light(seen, seen.ways(PROBE))
    around = surface >= seen.parts
    return exposure(light[around] if seen.seamless and around.any() else light, target)


def _shown(seen: View, ways: Floats) -> Floats:
    return develop(_light(seen, ways)[0], seen.brightness)


def _bytes(display: Floats) -> NDArray[np.int64]:
    return np.floor(255 * display ** (1 / 2.2) + 0.5).astype(np.int64)


def _sharp(seen: View, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Picture (H, W, 3): one ray per pixel, and two more, on a diagonal, where neighbours differ."""
    light, surface = _light(seen, seen.ways(size))
    display = develop(light, seen.brightness)
    rows = np.flatnonzero(_edges(_bytes(display).reshape(*size, 3), surface.reshape(size)))
    quarters = seen.ways(size, 2).reshape(size[0], 2, size[1], 2, 3)
    a, b = (_shown(seen, quarters[:, k, :, k].reshape(-1, 3)[rows]) for k in (0, 1))
    display[rows] = (display[rows] + a + b) / 3
    return _bytes(display).astype(np.uint8).reshape(*size, 3)


def _edges(picture: NDArray[np.int64], surface: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True (H, W) where a neighbour is of another surface or of quite another colour."""
    edges = np.zeros(surface.shape, dtype=bool)
    for one, other in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differs = (surface[one] != surface[other]) | (np.abs(picture[one] - picture[other]).max(axis=-1) > STEP)
        edges[one] |= differs
        edges[other] |= differs
    return edges


def _webcam(draw: Draw, picture: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What a webcam makes of a picture (H, W, 3) of bytes: coarser cells, noise in each, and smoothing back to full
    size. Integers but for the noise, whose few products round alike on every machine."""
    height, width, _ = picture.shape
    factor = 2 if min(height, width) < 128 else 4
    cells = picture.reshape(height // factor, factor, width // factor, factor, 3).sum(axis=(1, 3))
    cells = (cells + factor * factor // 2) // (factor * factor)
    level, seed = draw.uniform(*SENSOR), draw.whole(0, 1 << 20)
    row, column, channel = np.indices(cells.shape)
    # Twelve uniform numbers would make a normal one of deviation 1; four make one of deviation 1 / sqrt(3).
    bell = sum((hash_unit(row, column, seed + 3 * k + channel) for k in range(4)), np.zeros(cells.shape)) - 2
    noisy = np.clip(cells + np.floor(1.7320508 * level * bell + 0.5).astype(np.int64), 0, 255)
    smooth = _stretched(_stretched(noisy, factor).transpose(1, 0, 2), factor).transpose(1, 0, 2)
    return ((smooth + 2 * factor * factor) // (4 * factor * factor)).astype(np.uint8)


def _stretched(cells: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """Cells (N, ...) at `factor` times as many places (bilinear), times 2 `factor`, so that they stay whole numbers."""
    place = 2 * np.arange(factor * len(cells)) + 1 - factor
    low, weight = place // (2 * factor), (place % (2 * factor))[:, None, None]
    last = len(cells) - 1
    return cells[np.clip(low, 0, last)] * (2 * factor - weight) + cells[np.clip(low + 1, 0, last)] * weight
