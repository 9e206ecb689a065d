"""Layouts: which tasks share which part of a branched network, numbered as TreeMTL numbers them.

A branched network has `LEVELS` coarse points, one after the other. A layout says for each of them which tasks share
one copy: a partition of the tasks into blocks. Tasks that have parted stay apart, so each partition refines the one
before it. The first level may be split already: then some tasks share nothing.

The order is that of TreeMTL's enumerator (zhanglijun95/TreeMTL), so that its published numbers (45, 0, 50, 37 and 49 on
NYUv2, for instance) mean the same layouts here, if the tasks are listed in its order: s n d on NYUv2, s n d k e on
Taskonomy. `renumbered` gives the number for another order. In words:

- layout 0 shares everything;
- every other layout comes from an earlier one by one cut: at some level, and from there on, one block becomes two.
  The level is not above that of the earlier layout's own last cut;
- the walk goes to a layout's cuts in turn, depth first, and passes over a layout that it has met. Cuts are taken by
  level, then by block, then by the tasks that leave the block's first task: first all others, then ever fewer, as a
  binary counter with the second task as its highest digit. The two new blocks go to the end, the leaving one first.

So the number says nothing about the amount of sharing; `sharing` does. `separate(tasks)` is the layout that shares
nothing; it is not the last. Source: TreeMTL (Zhang, Liu, Guan 2022), its released code; for three tasks the order was
compared with the list that its notebook CoarseVersion prints.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

from headstrong.errors import ConfigError

LEVELS = 5
BRANCHED = ("resnet34", "mobilenet_v2")  # the encoders that have layouts

Block = tuple[int, ...]  # positions of tasks, ascending
Partition = tuple[Block, ...]
Layout = tuple[Partition, ...]


@functools.cache
def count(tasks: int) -> int:
    """How many layouts there are for so many tasks: 1, 6, 51, 561, 7556 for 1 to 5 tasks."""
    return _chains(tasks, LEVELS)


def layout(index: int, tasks: int) -> Layout:
    """The partitions of one layout, `LEVELS` of them, from the image to the heads.

    Tasks are positions 0..tasks-1. Blocks are ascending, and stand in the order of their first task. Raises ConfigError
    for a number that is not in 0..count(tasks)-1.
    """
    if tasks < 1 or not 0 <= index < count(tasks):
        raise ConfigError(
            f"layout {index}: expected a number from 0 to {count(tasks) - 1} for {tasks} tasks; choose one of those"
        )
    return _enumeration(tasks).get(index)


def separate(tasks: int) -> int:
    """The number of the layout in which every task has a network of its own: each cut of the walk's first branch."""
    return tasks - 1


def renumbered(index: int, before: str, after: str) -> int:
    """The number that layout `index` of the tasks `before` has when the same tasks are listed in the order `after`.

    So TreeMTL's 45 for s n d is `renumbered(45, "snd", "sdn")` for s d n. Makes all layouts of so many tasks: a tenth
    of a second for five. Raises ConfigError where the letters differ or there is no such layout.
    """
    if sorted(before) != sorted(after):
        raise ConfigError(f"layout {index}: tasks '{before}' and '{after}' are not the same; list the same letters")
    place = [after.index(letter) for letter in before]
    moved = tuple(
        _sorted(tuple(tuple(sorted(place[task] for task in block)) for block in partition))
        for partition in layout(index, len(before))
    )
    return next(number for number in range(count(len(after))) if layout(number, len(after)) == moved)


def shared_levels(layout: Layout, i: int, j: int) -> int:
    """In how many levels, 0..`LEVELS`, the tasks at positions i and j share a block."""
    return sum(any(i in block and j in block for block in partition) for partition in layout)


def sharing(layout: Layout) -> float:
    """The share of levels and pairs of tasks that are shared, in [0, 1]; 1 for a single task, which has no pairs."""
    tasks = sum(len(block) for block in layout[0])
    if tasks == 1:
        return 1.0
    shared = sum(math.comb(len(block), 2) for partition in layout for block in partition)
    return shared / (len(layout) * math.comb(tasks, 2))


@functools.cache
def _chains(tasks: int, levels: int) -> int:
    """Number of chains of refining partitions: by the size of the first task's block, then the rest on its own."""
    if tasks == 0 or levels == 0:
        return 1
    return sum(
        math.comb(tasks - 1, size - 1) * _chains(size, levels - 1) * _chains(tasks - size, levels)
        for size in range(1, tasks + 1)
    )


class _Enumeration:
    """The layouts of so many tasks, made as far as somebody has asked for them."""

    def __init__(self, tasks: int) -> None:
        first: Partition = (tuple(range(tasks)),)
        self._walk = _walk((), first, set())
        self._made: list[Layout] = []

    def get(self, index: int) -> Layout:
        self._made.extend(itertools.islice(self._walk, max(0, index + 1 - len(self._made))))
        return self._made[index]


_enumeration = functools.cache(_Enumeration)


def _walk(above: Layout, current: Partition, met: set[Layout]) -> Iterator[Layout]:
    """A layout and what comes from it by cuts. `above` are its levels before the last cut, `current` all the others.

    The blocks of `current` stand in the order in which the cuts made them: the order of the cuts to come.
    """
    here = (*above, *[_sorted(current)] * (LEVELS - len(above)))
    met.add(here)
    yield here
    for level in range(len(above), LEVELS):
        for block in current:
            for leaving, staying in _halves(block):
                kept = tuple(other for other in current if other != block)
                below = (*kept, leaving, staying)
                child = (*here[:level], *[_sorted(below)] * (LEVELS - level))
                if child not in met:
                    yield from _walk(here[:level], below, met)


def _halves(block: Block) -> Iterator[tuple[Block, Block]]:
    """All ways to part some tasks from the first one."""
    for leaves in itertools.product((True, False), repeat=len(block) - 1):
        leaving = tuple(itertools.compress(block[1:], leaves))
        if leaving:
            yield leaving, tuple(task for task in block if task not in leaving)


def _sorted(partition: Partition) -> Partition:
    return tuple(sorted(partition))
