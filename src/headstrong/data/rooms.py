"""The embedded data set `rooms`: furnished rooms, ray-cast with exact geometry, any size and number from a seed.

A room is decided by its seed alone, whatever the size of the picture: shell with windows and doors, furniture along
the walls and on the floor, pictures, lights, and a camera chosen so that it sees something.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from headstrong.data import furniture, labels, textures
from headstrong.data.cameras import Camera
from headstrong.data.ordered import in_order
from headstrong.data.pieces import ANY_HUE as ANY
from headstrong.data.pieces import CLASS, CLASSES, Draw, Part, Piece
from headstrong.data.primitives import Floats, Solids, box, cylinder, sphere
from headstrong.data.scenes import Hits, Lights, Opening, Scene, Shell, exposure, picture, radiance, trace
from headstrong.data.textures import Material, Materials
from headstrong.seeds import derive_seed

__all__ = ["CLASSES", "render", "room", "samples"]

GAP = 0.02  # metres between furniture and a wall: nothing touches, so nothing flickers
PROBE = (12, 12)  # rays of the glance that judges a camera
CAMERA_TRIES = 12
PLACING_TRIES = 12


def samples(
    seed: int, split: str, count: int, size: tuple[int, int], antialias: int = 1, processes: int = 1, first: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """`count` raw samples of a split ("train", "test") as (name, raw sample), in order; every image has a seed of its
    own, derived from `seed`, so the bits do not depend on `count` or `processes`. first: the image to begin with."""
    return in_order(partial(_sample, seed, split, (size[0], size[1]), antialias), range(first, count), processes)


def _sample(seed: int, split: str, size: tuple[int, int], antialias: int, number: int) -> tuple[str, dict[str, Any]]:
    return f"{split}-{number:06d}", render(derive_seed(seed, "rooms", split, number), size, antialias)


def render(seed: int, size: tuple[int, int] = (64, 64), antialias: int = 1) -> dict[str, Any]:
    """One raw sample at `size` (H, W): rgb, s, d, D, n, p exact; r, E, K from exact depth and normals; e, k from the
    picture; and `intrinsics`. `antialias` a averages a x a rays of colour per pixel; labels never blur."""
    view = room(seed)
    raw = picture(view.scene, view.camera, size, antialias, view.brightness)
    return labels.derive(raw, raw["intrinsics"], noise=0.0)


class View(NamedTuple):
    """A room as it is seen: the scene, the camera, and the factor from radiance to exposure."""

    scene: Scene
    camera: Camera
    brightness: float


def room(seed: int) -> View:
    """The room of a seed."""
    draw = Draw(seed)
    plan = _Plan(draw)
    plan.build()
    parts, looks = plan.parts, plan.shell_materials()
    shell_classes = [CLASS["wall"]] * 4 + [CLASS["floor"], CLASS["ceiling"]] + [c for c in plan.opened for _ in (0, 1)]
    scene = Scene(
        Shell(plan.size, tuple(plan.openings)),
        Solids.stack([part.solid for part in parts]),
        Materials.stack([part.material for part in parts] + looks),
        np.array([part.label for part in parts] + shell_classes, dtype=np.uint8),
        plan.lights(),
    )
    camera, glance = _choose_camera(draw, plan, scene)
    brightness = exposure(radiance(scene, glance, camera.position), draw.uniform(0.35, 0.65))
    return View(scene, camera, brightness)


@dataclass
class _Plan:
    """A room being furnished: its size, what is in it, and the floor rectangles that are taken."""

    draw: Draw
    parts: list[Part] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)  # class of each opening
    taken: list[tuple[float, float, float, float, float]] = field(default_factory=list)  # x, y, half x, half y, height
    busy: list[tuple[int, float, float]] = field(default_factory=list)  # wall, from, to: no picture there
    sources: list[Floats] = field(default_factory=list)  # places fit for a light
    paper: Material | None = None

    def build(self) -> None:
        """Shell, openings, furniture, pictures, lamps."""
        draw = self.draw
        self.size = np.array([draw.uniform(3.2, 6.5), draw.uniform(3.2, 6.5), draw.uniform(2.4, 3.1)])
        walls = [0, 1, 2, 3]
        for _ in range(draw.whole(1, 2)):
            self._window(walls.pop(draw.whole(0, len(walls) - 1)))
        if draw.chance(0.8):
            self._door(walls.pop(draw.whole(0, len(walls) - 1)))
        if draw.chance(0.25):
            self._column()
        for make in self._wish_list():
            self._along_wall(make(draw))
        self._dining()
        for make in (furniture.ball, furniture.ring, furniture.plant, furniture.chair, furniture.ball):
            if draw.chance(0.4):
                self._anywhere(make(draw))
        for wall in range(4):
            self._picture(wall)
        if draw.chance(0.75):
            self._rug()
        self._pendant()

    def _wish_list(self) -> list[Any]:
        """Makers of the pieces that stand along the walls: large ones first."""
        draw = self.draw
        large = [furniture.bed, furniture.sofa]
        first = large.pop(draw.whole(0, 1))
        wishes = [first] + (large if draw.chance(0.5) else [])
        others = [furniture.cabinet, furniture.shelf, furniture.floor_lamp, furniture.plant, furniture.sofa]
        wishes += [other for other in others if draw.chance(0.65)]
        return [*wishes, furniture.cabinet, furniture.floor_lamp]

    # --- openings --------------------------------------------------------------------------------------------------

    def _window(self, wall: int) -> None:
        draw, length, height = self.draw, self._length(wall), float(self.size[2])
        half = draw.uniform(0.4, min(1.0, 0.35 * length))
        middle = draw.uniform(half + 0.3, length - half - 0.3)
        low, high = draw.uniform(0.7, 1.1), draw.uniform(1.9, height - 0.2)
        depth = draw.uniform(0.1, 0.25)
        self._open(wall, (middle - half, low), (middle + half, high), depth, "window")
        frame = draw.paint((0.05, 0.15), (0.0, 0.3), (0.75, 0.98))
        bars = draw.whole(1, 2)
        for i in range(bars):
            across = middle + (2 * (i + 1) / (bars + 1) - 1) * half
            self._in_wall(
                wall, across, (low + high) / 2, depth - 0.03, (0.025, 0.02, (high - low) / 2), "window", frame
            )
        self._in_wall(wall, middle, low + 0.6 * (high - low), depth - 0.03, (half, 0.015, 0.025), "window", frame)
        inward = self._on_wall(wall, middle, 0.35)
        self.sources.append(np.array([*inward, high - 0.25]))

    def _door(self, wall: int) -> None:
        draw, length = self.draw, self._length(wall)
        half, high = draw.uniform(0.4, 0.5), draw.uniform(1.95, 2.15)
        middle = draw.uniform(half + 0.2, length - half - 0.2)
        depth = draw.uniform(0.05, 0.12)
        self._open(wall, (middle - half, 0.0), (middle + half, high), depth, "door")
        panel = self.door_material = draw.choice((draw.wood((0.35, 0.7)), draw.paint(ANY, (0.0, 0.4), (0.6, 0.95))))
        for z, tall in ((0.5, 0.32), (1.4, 0.42)):
            self._in_wall(wall, middle, z, depth - 0.01, (0.7 * half, 0.012, tall), "door", panel)
        metal = draw.paint(ANY, (0.0, 0.3), (0.6, 0.9), gloss=0.9)
        x, y = self._on_wall(wall, middle + 0.8 * half, 0.045 - depth)
        self.parts.append(Part(sphere((x, y, 1.0), 0.032), CLASS["door"], metal))
        x, y = self._on_wall(wall, middle, 0.4)
        self.taken.append((x, y, 0.5, 0.5, 0.0))  # room to walk in

    def _open(self, wall: int, low: tuple[float, float], high: tuple[float, float], depth: float, kind: str) -> None:
        self.openings.append(Opening(wall // 2, wall % 2, low, high, depth))
        self.opened.append(CLASS[kind])
        self.busy.append((wall, low[0], high[0]))

    def _in_wall(
        self,
        wall: int,
        across: float,
        z: float,
        depth: float,
        half: tuple[float, float, float],
        kind: str,
        look: Material,
    ) -> None:
        """A box inside an opening, `depth` behind the wall; half extents along, through, up."""
        x, y = self._on_wall(wall, across, -depth)
        solid = box((x, y, z), half, yaw=math.pi / 2 if wall < 2 else 0.0)
        self.parts.append(Part(solid, CLASS[kind], look))

    def _length(self, wall: int) -> float:
        return float(self.size[1 if wall < 2 else 0])

    def _on_wall(self, wall: int, along: float, inwards: float) -> tuple[float, float]:
        """Floor coordinates of a place `along` a wall and `inwards` from it."""
        away = float(self.size[wall // 2]) - inwards if wall % 2 else inwards
        return (away, along) if wall < 2 else (along, away)

    # --- furniture -------------------------------------------------------------------------------------------------

    def _is_free(
        self, x: float, y: float, half: tuple[float, float], gap: float = 0.05, besides: object = None
    ) -> bool:
        """Whether a rectangle of the floor is inside the room and clear of all others but the one at `besides`."""
        inside = half[0] < x < self.size[0] - half[0] and half[1] < y < self.size[1] - half[1]
        others = [(ox, oy, hx, hy) for ox, oy, hx, hy, _ in self.taken if (ox, oy) != besides]
        return inside and all(
            abs(x - ox) > half[0] + hx + gap or abs(y - oy) > half[1] + hy + gap for ox, oy, hx, hy in others
        )

    def _put(self, piece: Piece, x: float, y: float, yaw: float, half: tuple[float, float]) -> None:
        self.parts.extend(piece.placed(x, y, 0.0, yaw))
        self.taken.append((x, y, *half, piece.height))
        if any(part.label == CLASS["lamp"] and part.material.glow for part in piece.parts):
            top = piece.height + 0.08
            self.sources.append(np.array([x, y, min(top, float(self.size[2]) - 0.1)]))

    def _along_wall(self, piece: Piece) -> None:
        """Stand a piece with its back to a wall, where one has room."""
        for _ in range(PLACING_TRIES):
            wall = self.draw.whole(0, 3)
            reach = self._length(wall) - 2 * piece.half[0] - 2 * GAP
            along = GAP + piece.half[0] + max(reach, 0.0) * self.draw.uniform(0, 1)
            x, y = self._on_wall(wall, along, piece.half[1] + GAP)
            half = (piece.half[1], piece.half[0]) if wall < 2 else piece.half
            covers = any(w == wall and a < along + piece.half[0] and b > along - piece.half[0] for w, a, b in self.busy)
            if reach > 0 and self._is_free(x, y, half) and not (covers and piece.height > 1.2):
                self._put(piece, x, y, (-math.pi / 2, math.pi / 2, 0.0, math.pi)[wall], half)
                if piece.height > 0.9:
                    self.busy.append((wall, along - piece.half[0], along + piece.half[0]))
                return

    def _anywhere(self, piece: Piece, yaw: float | None = None) -> tuple[float, float, float] | None:
        """Stand a piece at a free place; return it as (x, y, yaw), None where there is no room."""
        for _ in range(PLACING_TRIES):
            turned = self.draw.uniform(0, 2 * math.pi) if yaw is None else yaw
            c, s = abs(math.cos(turned)), abs(math.sin(turned))
            half = (c * piece.half[0] + s * piece.half[1], s * piece.half[0] + c * piece.half[1])
            x, y = (self.draw.uniform(0, float(side)) for side in self.size[:2])
            if self._is_free(x, y, half):
                self._put(piece, x, y, turned, half)
                return x, y, turned
        return None

    def _dining(self) -> None:
        """A table with chairs around it."""
        draw = self.draw
        board = furniture.table(draw)
        found = self._anywhere(board, None if draw.chance(0.5) else 0.0)
        if found is None:
            return
        x, y, yaw = found
        model = draw.whole(0, 1 << 30)
        for side in range(4):
            if draw.chance(0.6):
                seat = furniture.chair(Draw(model))
                away = board.half[side % 2 == 0] + seat.half[1] + draw.uniform(0.06, 0.25)
                angle = yaw + side * math.pi / 2
                place = (x + away * math.sin(angle), y - away * math.cos(angle))
                facing = angle + draw.uniform(-0.3, 0.3)
                c, s = abs(math.cos(facing)), abs(math.sin(facing))
                half = (c * seat.half[0] + s * seat.half[1], s * seat.half[0] + c * seat.half[1])
                at_table = (x, y)
                free = self._is_free(*place, half, 0.0, besides=at_table)
                if free:
                    self._put(seat, *place, facing, half)

    def _rug(self) -> None:
        """A rug under everything else: it takes no room, for nothing stands lower than its centimetre."""
        draw, piece = self.draw, furniture.rug(self.draw)
        margins = [float(side) / 2 - half - GAP for side, half in zip(self.size[:2], piece.half, strict=True)]
        if min(margins) > 0:
            x, y = (float(s) / 2 + draw.uniform(-0.8, 0.8) * m for s, m in zip(self.size[:2], margins, strict=True))
            self.parts.extend(piece.placed(x, y, 0.0, 0.0))

    def _column(self) -> None:
        draw, height = self.draw, float(self.size[2])
        x, y = (draw.uniform(0.3, float(side) - 0.3) for side in self.size[:2])
        radius = draw.uniform(0.12, 0.22)
        if self._is_free(x, y, (radius, radius)):
            self.taken.append((x, y, radius, radius, height))
            solid = cylinder((x, y, height / 2), radius, height + 0.02)
            self.parts.append(Part(solid, CLASS["wall"], self._wall_look()))

    def _picture(self, wall: int) -> None:
        for _ in range(self.draw.whole(0, 2)):
            piece = furniture.painting(self.draw)
            a = piece.half[0] + 0.1
            along = self.draw.uniform(a, self._length(wall) - a)
            z = self.draw.uniform(1.35, 1.75)
            if all(w != wall or high < along - a or low > along + a for w, low, high in self.busy):
                x, y = self._on_wall(wall, along, 0.0)
                self.parts.extend(piece.placed(x, y, z, (-math.pi / 2, math.pi / 2, 0.0, math.pi)[wall]))
                self.busy.append((wall, along - a, along + a))

    def _pendant(self) -> None:
        draw, height = self.draw, float(self.size[2])
        x, y = (float(side) * draw.uniform(0.35, 0.65) for side in self.size[:2])
        if draw.chance(0.6):
            piece = furniture.pendant(draw)
            self.parts.extend(piece.placed(x, y, height - 0.002, 0.0))
            self.taken.append((x, y, *piece.half, height))
            # Beside the lamp, not in it: a light inside a solid would light nothing.
            self.sources.append(np.array([x + piece.half[0] + 0.12, y, height - 0.25]))
        else:
            self.sources.append(np.array([x, y, height - 0.12]))

    # --- looks -----------------------------------------------------------------------------------------------------

    def _wall_look(self) -> Material:
        """The paper or paint of the walls, chosen once."""
        if self.paper is None:
            kinds = (textures.PLAIN, textures.PLAIN, textures.CLOUDS, textures.STRIPES, textures.BRICKS, textures.DOTS)
            self.paper = self.draw.material(kinds, ANY, (0.04, 0.3), (0.7, 0.95), (0.25, 0.6), contrast=0.25)
        return self.paper

    def shell_materials(self) -> list[Material]:
        """Materials of the shell's parts in the order of `scenes.Shell`."""
        draw, wall = self.draw, self._wall_look()
        walls = [wall] * 4
        if draw.chance(0.35):
            accent = draw.material((textures.PLAIN, textures.BRICKS, textures.STRIPES), ANY, (0.2, 0.5), (0.5, 0.9))
            walls[draw.whole(0, 3)] = accent
        if draw.chance(0.6):
            planks = (textures.PLANKS, textures.PLANKS, textures.WOOD)
            floor = draw.material(planks, (0.05, 0.11), (0.3, 0.65), (0.4, 0.75), (0.3, 0.5), gloss=0.15)
        else:
            tiles = (textures.TILES, textures.CHECKS, textures.CLOUDS)
            floor = draw.material(tiles, (0.02, 0.18), (0.05, 0.3), (0.45, 0.85), (0.3, 0.8), gloss=0.25)
        materials = [*walls, floor, draw.paint((0.08, 0.16), (0.0, 0.08), (0.85, 1.0), gloss=0.0)]
        for kind in self.opened:
            reveal = draw.paint((0.05, 0.15), (0.0, 0.2), (0.8, 0.98), gloss=0.1)
            if kind == CLASS["window"]:
                sky = draw.material((textures.CLOUDS,), (0.52, 0.6), (0.15, 0.45), (0.9, 1.0), (1.0, 2.0), contrast=0.3)
                materials += [sky._replace(glow=draw.uniform(0.8, 1.6)), reveal]
            else:
                materials += [self.door_material, reveal]
        return materials

    def lights(self) -> Lights:
        """One to three coloured lights at places fit for them, the first the one on the ceiling."""
        draw = self.draw
        places = [self.sources.pop()]
        while self.sources and len(places) < 3 and draw.chance(0.65):
            places.append(self.sources.pop(draw.whole(0, len(self.sources) - 1)))
        tints = [draw.colour((0.05, 0.16) if draw.chance(0.7) else (0.5, 0.65), (0.0, 0.35), (1, 1)) for _ in places]
        power = [draw.uniform(1.5, 2.5), *(draw.uniform(0.5, 1.6) for _ in places[1:])]
        ambient = np.array(draw.colour(ANY, (0.0, 0.12), (1.0, 1.0))) * draw.uniform(0.25, 0.5)
        return Lights(np.array(places), np.array(tints) * np.array(power)[:, None], ambient)


def _choose_camera(draw: Draw, plan: _Plan, scene: Scene) -> tuple[Camera, Hits]:
    """The first of a few random cameras that sees far enough and enough different things, else the best of them."""
    best: tuple[float, Camera, Hits] | None = None
    for _ in range(CAMERA_TRIES):
        camera = _random_camera(draw, plan)
        if camera is None:
            continue
        glance = trace(scene, camera.position, camera.ways(PROBE))
        kinds = len(np.unique(scene.classes[glance.surface]))
        near = float((glance.t < 0.8).mean())
        score = min(kinds, 7) - 20 * max(near - 0.1, 0.0) - 3 * float(glance.t.min() < 0.35)
        if best is None or score > best[0]:
            best = (score, camera, glance)
        if score >= 6:
            break
    if best is None:  # every try stood in furniture: look down from under the ceiling
        camera = Camera.aimed(plan.size * (0.03, 0.03, 0.93), math.pi / 4, -0.45, 0.0, 70.0)
        best = (0.0, camera, trace(scene, camera.position, camera.ways(PROBE)))
    return best[1], best[2]


def _random_camera(draw: Draw, plan: _Plan) -> Camera | None:
    """A camera near a wall that looks across the room; None where it would stand in or right at furniture."""
    position = np.array([*(draw.uniform(0.25, float(side) - 0.25) for side in plan.size[:2]), draw.uniform(1.0, 1.9)])
    to_middle = plan.size[:2] * (draw.uniform(0.25, 0.75), draw.uniform(0.25, 0.75)) - position[:2]
    yaw = math.atan2(to_middle[1], to_middle[0]) + draw.uniform(-0.45, 0.45)
    pitch = -0.16 * float(position[2]) + draw.uniform(-0.2, 0.22)
    roll, view = draw.uniform(-0.06, 0.06), draw.uniform(50, 75)
    for x, y, half_x, half_y, height in plan.taken:
        beside = max(abs(position[0] - x) - half_x, abs(position[1] - y) - half_y)
        if beside < 0.25 and position[2] < height + 0.3:
            return None
    if math.hypot(*to_middle) < 1.2:
        return None
    return Camera.aimed(position, yaw, pitch, roll, view)
