"""Furniture assembled from solids. Every piece stands on the floor at its own origin, its back towards -y."""

from __future__ import annotations

import math

from headstrong.data import textures
from headstrong.data.pieces import ANY_HUE, Draw, Piece
from headstrong.data.primitives import box, cylinder, ellipsoid, frustum, sphere, torus
from headstrong.data.textures import Material


def _legs(piece: Piece, draw: Draw, label: str, material: Material, reach: tuple[float, float], top: float) -> None:
    thickness, round_legs = draw.uniform(0.02, 0.035), draw.chance(0.5)
    for x in (-reach[0], reach[0]):
        for y in (-reach[1], reach[1]):
            if round_legs:
                leg = frustum((x, y, top / 2), 0.75 * thickness, thickness, top)
            else:
                leg = box((x, y, top / 2), (thickness, thickness, top / 2))
            piece.add(leg, label, material)


def table(draw: Draw) -> Piece:
    """Square or round table with things on it."""
    a, b, top = draw.uniform(0.45, 0.85), draw.uniform(0.35, 0.5), draw.uniform(0.42, 0.78)
    material = draw.wood((0.3, 0.6)) if draw.chance(0.7) else draw.paint(ANY_HUE, (0.0, 0.2), (0.7, 0.95))
    slab = draw.uniform(0.02, 0.04)
    if draw.chance(0.4):
        b = a = draw.uniform(0.4, 0.65)
        piece = Piece((a, a), top)
        piece.add(cylinder((0, 0, top - slab), a, 2 * slab), "table", material)
        piece.add(frustum((0, 0, top / 2 - slab), 0.07, 0.05, top - 2 * slab), "table", material)
        piece.add(frustum((0, 0, 0.03), 0.5 * a, 0.06, 0.06), "table", material)
        a, b = 0.7 * a, 0.7 * b
    else:
        piece = Piece((a, b), top)
        piece.add(box((0, 0, top - slab), (a, b, slab)), "table", material)
        _legs(piece, draw, "table", material, (a - 0.05, b - 0.05), top - 2 * slab)
    for x in (-0.55 * a, 0.0, 0.55 * a):
        if draw.chance(0.5):
            piece.put_on(draw.choice((vase, books, ball, books))(draw), x, draw.uniform(-0.4, 0.4) * b, top)
    return piece


def chair(draw: Draw) -> Piece:
    """Chair with a back, or a round stool."""
    material = draw.choice((draw.wood((0.6, 0.85)), draw.paint((0.02, 0.16), (0.6, 0.95), (0.55, 0.95))))
    seat = draw.uniform(0.42, 0.48)
    if draw.chance(0.25):
        radius = draw.uniform(0.17, 0.22)
        piece = Piece((radius, radius), seat)
        piece.add(cylinder((0, 0, seat - 0.03), radius, 0.06), "chair", material)
        _legs(piece, draw, "chair", material, (0.55 * radius, 0.55 * radius), seat - 0.06)
        return piece
    a, height = draw.uniform(0.2, 0.25), draw.uniform(0.8, 1.0)
    piece = Piece((a, a + 0.03), height)
    piece.add(box((0, 0, seat - 0.025), (a, a, 0.025)), "chair", material)
    piece.add(box((0, -a + 0.02, (seat + height) / 2 + 0.04), (a, 0.02, (height - seat) / 2 - 0.04)), "chair", material)
    for x in (-a + 0.03, a - 0.03):
        piece.add(box((x, -a + 0.02, seat + 0.02), (0.015, 0.012, 0.06)), "chair", material)
    _legs(piece, draw, "chair", material, (a - 0.035, a - 0.035), seat - 0.05)
    return piece


def bed(draw: Draw) -> Piece:
    """Bed with headboard, mattress, blanket and pillows; its head at the back."""
    a, b, low = draw.uniform(0.5, 0.9), draw.uniform(0.98, 1.08), draw.uniform(0.22, 0.34)
    frame = draw.wood()
    sheet = draw.fabric((0.5, 0.72), (0.05, 0.25), (0.8, 0.98))
    blanket = draw.fabric((0.48, 0.75), (0.35, 0.8), (0.5, 0.9))
    head = draw.uniform(0.8, 1.15)
    piece = Piece((a + 0.04, b + 0.05), head)
    piece.add(box((0, 0, low / 2 + 0.03), (a + 0.03, b, low / 2 - 0.03)), "bed", frame)
    piece.add(box((0, -b - 0.02, head / 2), (a + 0.04, 0.03, head / 2)), "bed", frame)
    piece.add(box((0, 0.01, low + 0.1), (a, b - 0.02, 0.1)), "bed", sheet)
    covered = draw.uniform(0.5, 0.7) * b
    piece.add(box((0, b - covered, low + 0.12), (a + 0.025, covered, 0.105)), "bed", blanket)
    count = 2 if a > 0.65 else 1
    for i in range(count):
        x = (i - (count - 1) / 2) * a
        piece.add(ellipsoid((x, -b + 0.3, low + 0.25), (0.4 * a + 0.1 * (count == 1), 0.2, 0.09)), "bed", sheet)
    return piece


def sofa(draw: Draw) -> Piece:
    """Sofa or armchair with arms of boxes or bolsters, and cushions."""
    seats = draw.whole(1, 3)
    a, b, seat = 0.32 * seats + 0.15, draw.uniform(0.4, 0.48), draw.uniform(0.36, 0.44)
    cloth = draw.fabric((0.85, 1.45), (0.45, 0.85), (0.3, 0.7))
    cushion = draw.fabric(ANY_HUE, (0.4, 0.9), (0.6, 0.95))
    back, arm = draw.uniform(0.75, 0.92), draw.uniform(0.55, 0.64)
    piece = Piece((a, b), back)
    piece.add(box((0, 0, seat / 2 + 0.02), (a - 0.02, b, seat / 2 - 0.02)), "sofa", cloth)
    piece.add(box((0, -b + 0.1, back / 2), (a - 0.01, 0.1, back / 2)), "sofa", cloth)
    rolled = draw.chance(0.5)
    for x in (-a + 0.08, a - 0.08):
        piece.add(box((x, 0.01, arm / 2), (0.08 - 0.01 * rolled, b - 0.01, arm / 2)), "sofa", cloth)
        if rolled:
            piece.add(cylinder((x, 0.02, arm), 0.1, 2 * b - 0.02, tilt=math.pi / 2), "sofa", cloth)
    for i in range(seats):
        x = (i - (seats - 1) / 2) * 0.64
        piece.add(box((x, 0.12, seat + 0.05), (0.28, b - 0.14, 0.05)), "sofa", cloth)
        if draw.chance(0.6):
            axes = (0.2, 0.07, 0.19)
            piece.add(ellipsoid((x, -b + 0.29, seat + 0.28), axes, tilt=draw.uniform(0.1, 0.35)), "sofa", cushion)
    return piece


def cabinet(draw: Draw) -> Piece:
    """Closed cabinet: doors with round handles."""
    a, b = draw.uniform(0.35, 0.75), draw.uniform(0.2, 0.3)
    height = draw.choice((draw.uniform(0.6, 0.95), draw.uniform(1.6, 2.1)))
    body = draw.wood((0.5, 0.85)) if draw.chance(0.6) else draw.paint((0.5, 0.62), (0.0, 0.25), (0.55, 0.95))
    front = body._replace(seed=body.seed + 2)
    metal = draw.paint(ANY_HUE, (0.0, 0.2), (0.6, 0.9), gloss=0.8)
    piece = Piece((a, b + 0.04), height)
    piece.add(box((0, 0, height / 2), (a, b, height / 2)), "cabinet", body)
    doors = 2 if a < 0.55 else 3
    half = a / doors
    for i in range(doors):
        x = (2 * i - doors + 1) * half
        piece.add(box((x, b + 0.008, height / 2), (half - 0.015, 0.01, height / 2 - 0.05)), "cabinet", front)
        knob = sphere((x + 0.6 * half * (1 if i % 2 == 0 else -1), b + 0.035, 0.55 * height), 0.022)
        piece.add(knob, "cabinet", metal)
    if height < 1.2 and draw.chance(0.7):
        thing = draw.choice((vase, table_lamp, table_lamp, ball, books))(draw)
        piece.put_on(thing, draw.uniform(-0.5, 0.5) * a, 0.0, height)
    return piece


def shelf(draw: Draw) -> Piece:
    """Open shelf with books and decoration."""
    a, b, levels = draw.uniform(0.35, 0.6), draw.uniform(0.14, 0.18), draw.whole(2, 4)
    step = draw.uniform(0.34, 0.42)
    height = levels * step + 0.04
    body = draw.wood((0.5, 0.85)) if draw.chance(0.7) else draw.paint((0.5, 0.62), (0.0, 0.2), (0.7, 0.95))
    piece = Piece((a, b), height)
    for x in (-a + 0.02, a - 0.02):
        piece.add(box((x, 0, height / 2), (0.02, b, height / 2)), "cabinet", body)
    piece.add(box((0, -b + 0.01, height / 2), (a - 0.02, 0.01, height / 2 - 0.005)), "cabinet", body)
    for i in range(levels + 1):
        z = i * step + 0.02
        piece.add(box((0, 0.005, z), (a - 0.03, b - 0.01, 0.018)), "cabinet", body)
        if i < levels and draw.chance(0.75):
            piece.put_on(draw.choice((books, books, vase))(draw, 0.75), draw.uniform(-0.4, 0.4) * a, 0.03, z + 0.018)
    return piece


def _shade(draw: Draw) -> Material:
    return draw.paint((0.08, 0.16), (0.15, 0.5), (0.9, 1.0), gloss=0.0)._replace(glow=draw.uniform(0.5, 1.0))


def floor_lamp(draw: Draw) -> Piece:
    """Floor lamp with a shade that glows."""
    height, radius = draw.uniform(1.3, 1.75), draw.uniform(0.17, 0.24)
    metal, shade = draw.paint(ANY_HUE, (0.0, 0.3), (0.2, 0.8), gloss=0.6), draw.uniform(0.24, 0.36)
    piece = Piece((radius, radius), height)
    piece.add(frustum((0, 0, 0.02), 0.15, 0.12, 0.04), "lamp", metal)
    piece.add(cylinder((0, 0, (height - shade) / 2 + 0.02), 0.018, height - shade), "lamp", metal)
    piece.add(frustum((0, 0, height - shade / 2), radius, 0.5 * radius, shade), "lamp", _shade(draw))
    return piece


def table_lamp(draw: Draw, scale: float = 1.0) -> Piece:
    """Table lamp: a round body below a shade."""
    radius, height = draw.uniform(0.1, 0.15) * scale, draw.uniform(0.35, 0.5) * scale
    piece = Piece((radius, radius), height)
    body = draw.paint(ANY_HUE, (0.3, 0.8), (0.4, 0.9), gloss=0.6)
    piece.add(ellipsoid((0, 0, 0.22 * height), (0.5 * radius, 0.5 * radius, 0.22 * height)), "lamp", body)
    piece.add(cylinder((0, 0, 0.5 * height), 0.01, 0.2 * height), "lamp", body)
    piece.add(frustum((0, 0, 0.78 * height), radius, 0.6 * radius, 0.44 * height), "lamp", _shade(draw))
    return piece


def plant(draw: Draw) -> Piece:
    """Plant in a conical pot: a stem and leaves of ellipsoids."""
    radius, pot = draw.uniform(0.12, 0.2), draw.uniform(0.22, 0.38)
    height = pot + draw.uniform(0.5, 1.0)
    leaves = draw.material((textures.CLOUDS, textures.PLAIN), (0.24, 0.4), (0.5, 0.85), (0.3, 0.65), (0.06, 0.15))
    piece = Piece((radius + 0.1, radius + 0.1), height)
    piece.add(
        frustum((0, 0, pot / 2), 0.7 * radius, radius, pot), "plant", draw.fabric((0, 0.1), (0.4, 0.7), (0.5, 0.8))
    )
    stem = draw.paint((0.08, 0.12), (0.4, 0.6), (0.3, 0.5), gloss=0.0)
    piece.add(cylinder((0, 0, (pot + height) / 2 - 0.1), 0.02, height - pot), "plant", stem)
    for _ in range(draw.whole(3, 6)):
        angle, lean = draw.uniform(0, 2 * math.pi), draw.uniform(0.0, 0.14)
        size = draw.uniform(0.1, 0.2)
        place = (lean * math.cos(angle), lean * math.sin(angle), draw.uniform(pot + 0.25, height))
        axes = (0.7 * size, size, draw.uniform(0.5, 1.1) * size)
        piece.add(ellipsoid(place, axes, angle, draw.uniform(-0.6, 0.6)), "plant", leaves)
    return piece


def ball(draw: Draw, scale: float = 1.0) -> Piece:
    """Ball."""
    radius = draw.uniform(0.07, 0.13) * scale
    piece = Piece((radius, radius), 2 * radius)
    patterns = (textures.PLAIN, textures.CHECKS, textures.STRIPES)
    skin = draw.material(patterns, ANY_HUE, (0.6, 1.0), (0.6, 1.0), (0.08, 0.2), gloss=0.6, contrast=0.6)
    piece.add(sphere((0, 0, radius), radius), "decoration", skin)
    return piece


def vase(draw: Draw, scale: float = 1.0) -> Piece:
    """Vase: an ellipsoid with a foot, a neck, and a torus for its rim."""
    radius, height = draw.uniform(0.06, 0.1) * scale, draw.uniform(0.18, 0.3) * scale
    glaze = draw.paint(ANY_HUE, (0.4, 0.95), (0.4, 0.95), gloss=0.9)
    piece = Piece((radius, radius), height)
    piece.add(ellipsoid((0, 0, 0.42 * height), (radius, radius, 0.42 * height)), "decoration", glaze)
    piece.add(frustum((0, 0, 0.03 * height), 0.6 * radius, 0.5 * radius, 0.06 * height), "decoration", glaze)
    piece.add(frustum((0, 0, 0.87 * height), 0.45 * radius, 0.55 * radius, 0.22 * height), "decoration", glaze)
    piece.add(torus((0, 0, 0.97 * height), 0.55 * radius, 0.13 * radius), "decoration", glaze)
    return piece


def ring(draw: Draw) -> Piece:
    """Ring-shaped floor cushion: a torus with a ball of cloth in its middle."""
    big, small = draw.uniform(0.22, 0.34), draw.uniform(0.09, 0.14)
    piece = Piece((big + small, big + small), 2 * small)
    cloth = draw.fabric(ANY_HUE, (0.5, 0.95), (0.5, 0.95))
    piece.add(torus((0, 0, small), big, small), "decoration", cloth)
    piece.add(ellipsoid((0, 0, 0.7 * small), (big - 0.3 * small, big - 0.3 * small, 0.7 * small)), "decoration", cloth)
    return piece


def books(draw: Draw, scale: float = 1.0) -> Piece:
    """Books standing side by side: clutter without a class."""
    piece = Piece((0.12, 0.09), 0.28 * scale)
    x = -0.11
    while x < 0.08:
        width, height = draw.uniform(0.015, 0.03), draw.uniform(0.2, 0.28) * scale
        cover = draw.paint(ANY_HUE, (0.3, 0.9), (0.3, 0.9), gloss=0.1)
        piece.add(box((x + width, 0, height / 2), (width - 0.001, 0.08, height / 2)), "unlabelled", cover)
        x += 2 * width
    return piece


def rug(draw: Draw) -> Piece:
    """Rug, one centimetre thick, square or round."""
    a, b = draw.uniform(0.6, 1.2), draw.uniform(0.5, 0.9)
    kinds = (textures.STRIPES, textures.CHECKS, textures.DOTS, textures.CLOUDS, textures.TILES)
    pile = draw.material(kinds, (0.9, 1.2), (0.4, 0.85), (0.45, 0.9), (0.2, 0.6), contrast=0.7)
    if draw.chance(0.35):
        piece = Piece((a, a), 0.012)
        piece.add(cylinder((0, 0, 0.006), a, 0.012), "rug", pile)
    else:
        piece = Piece((a, b), 0.012)
        piece.add(box((0, 0, 0.006), (a, b, 0.006)), "rug", pile)
    return piece


def painting(draw: Draw) -> Piece:
    """Framed picture; its back, at y = 0, against the wall, its middle at the origin."""
    a, b = draw.uniform(0.2, 0.55), draw.uniform(0.2, 0.4)
    piece = Piece((a, 0.02), 2 * b)
    frame = draw.paint((0.05, 0.15), (0.0, 0.6), (0.1, 0.9), gloss=0.4)
    canvas = Material(
        textures.PAINTING,
        draw.colour(ANY_HUE, (0.5, 1.0), (0.7, 1.0)),
        draw.colour(ANY_HUE, (0.5, 1.0), (0.3, 0.9)),
        draw.uniform(0.5, 1.2),
        draw.whole(0, 1 << 20),
    )
    piece.add(box((0, 0.015, 0), (a, 0.015, b)), "picture", frame)
    piece.add(box((0, 0.02, 0), (a - 0.035, 0.016, b - 0.035)), "picture", canvas)
    return piece


def pendant(draw: Draw) -> Piece:
    """Lamp that hangs from its origin: a cord and a glowing ball or cone."""
    drop, radius = draw.uniform(0.35, 0.6), draw.uniform(0.1, 0.2)
    piece = Piece((radius, radius), drop)
    piece.add(cylinder((0, 0, -drop / 2), 0.008, drop), "lamp", draw.paint(ANY_HUE, (0, 0.1), (0.1, 0.3)))
    if draw.chance(0.5):
        piece.add(sphere((0, 0, -drop), radius), "lamp", _shade(draw))
    else:
        piece.add(frustum((0, 0, -drop), 1.2 * radius, 0.3 * radius, radius), "lamp", _shade(draw))
    return piece
