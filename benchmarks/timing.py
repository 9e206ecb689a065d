"""Time of several ways of doing the same work, which take turns: A B A B, so that a busy moment falls on all alike."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def interleaved(ways: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.process_time) -> Times:
    """Seconds of each way, round by round, after one round that does not count.

    clock: processor time by default; with one thread it is the wall-clock time of a machine with nothing else to do.
    """
    found: Times = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            start = clock()
            work()
            if number:
                found[name].append(clock() - start)
    return found


Times = dict[str, list[float]]


def children_seconds() -> float:
    """Processor seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fastest(times: Times, names: list[str]) -> str:
    """Of these ways, the one of the least median."""
    return min(names, key=lambda name: sorted(times[name])[len(times[name]) // 2])
