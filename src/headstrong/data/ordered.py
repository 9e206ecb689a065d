"""Work on many names, or other items, side by side, results in their order."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Sequence[Item], processes: int) -> Iterator[Result]:
    """work(item) for each item, in order, several at a time; never more than a few results wait.

    `work` travels to a process with every item: it should be small.
    Raises what `work` raises, and BrokenProcessPool where a process was killed.
    """
    if processes <= 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    # Fresh processes: a fork would copy the threads' locks of whatever the caller has loaded.
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        ahead = iter(items)
        waiting.extend(executor.submit(work, item) for item in itertools.islice(ahead, 4 * processes))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(executor.submit(work, item) for item in itertools.islice(ahead, 1))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
