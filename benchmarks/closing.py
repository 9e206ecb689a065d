"""The closed form of the balanced step beside the integer program that it solves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.rows import Row, make_row
from benchmarks.timing import interleaved
from headstrong.attacks import ilp

EPSILON = 8 / 255


def closed_form_rows(rounds: int, side: int = 64, tasks: int = 5) -> Iterator[Row]:
    """Seconds an image, by closed form and by solver. The solver runs as a process of its own: wall-clock times."""
    rng = np.random.default_rng(0)
    slopes, image = rng.standard_normal((tasks, 3, side, side)), rng.uniform(0, 1, (3, side, side))
    low, high = np.maximum(-EPSILON, -image), np.minimum(EPSILON, 1 - image)
    solution = ilp.solve(slopes, low, high, objective="mean")
    value = ilp.value_of(ilp.closed_form(slopes, low, high), slopes, "mean")
    if not math.isclose(value, solution.value, rel_tol=1e-9):
        raise RuntimeError(f"closed form {value}, solver {solution.value}: not the same program")
    ways = {
        "closed": lambda: ilp.closed_form(slopes, low, high),
        "solver": lambda: ilp.solve(slopes, low, high, objective="mean"),
    }
    times = interleaved(ways, rounds, clock=time.perf_counter)
    yield make_row(
        f"DGBA's step in the box, {tasks} tasks, {side} x {side}", "s an image", times["closed"], times["solver"],
        peer_name="CBC on the same program, by PuLP",
    )  # fmt: skip
