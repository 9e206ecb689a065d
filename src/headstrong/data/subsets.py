"""Subsets of a data set: drawn from a seed and spread over all of it, so that a few frames are like the whole.

Frames of real data come in the order of the scenes that they were taken in; the first of them are a few scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headstrong.seeds import derive_seed

Item = TypeVar("Item")


def spread(available: int, count: int, seed: int) -> NDArray[np.int64]:
    """The first `count` of the positions 0..available-1, int64 (count,), in an order that the seed decides.

    However many are taken, they are spread: of any 2**k equal parts of the whole, the first 2**k positions have one in
    each (where there are far more positions than parts). Each is random (Owen's scrambling of van der Corput's
    sequence, 1995), and more of them contain fewer of them.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    points = generator.random(1)
    while True:
        positions, first = np.unique((points * available).astype(np.int64), return_index=True)
        if len(positions) >= min(count, available):
            return positions[np.argsort(first)][:count]
        # Every point gets a partner in the other half of its cell of 0..1.
        cells = 2 * len(points)
        halves = np.floor(points * cells).astype(np.int64) ^ 1
        points = np.concatenate([points, (halves + generator.random(len(points))) / cells])


def drawn(items: Sequence[Item], count: int | None, groups: Sequence[str] | None, *parts: object) -> list[Item]:
    """`count` of the items, in the order in which they are drawn: more of them begin with fewer of them.

    count: None: all, as they are. groups: of each item, such as its scene; None: neighbours belong together. The draw
    is spread over groups, and within one over its items. parts: a seed, and the names of what is drawn.
    """
    if count is None:
        return list(items)
    order = sorted(range(len(items)), key=lambda place: groups[place]) if groups else range(len(items))
    return [items[order[place]] for place in spread(len(items), count, derive_seed(*parts))]
