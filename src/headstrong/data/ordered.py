"""Work on many names side by side, results in the order of the names."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def in_order(work: Callable[[str], Result], names: list[str], processes: int) -> Iterator[Result]:
    """work(name) for each name, in order, several at a time; never more than a few results wait."""
    if processes <= 1:
        yield from map(work, names)
        return
    waiting: deque[Future[Result]] = deque()
    # Fresh processes: a fork would copy the threads' locks of whatever the caller has loaded.
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        ahead = iter(names)
        waiting.extend(executor.submit(work, name) for name in itertools.islice(ahead, 4 * processes))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(executor.submit(work, name) for name in itertools.islice(ahead, 1))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
