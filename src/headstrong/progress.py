"""How far something is: a bar on a terminal, else plain lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class BatchProgress:
    """`with BatchProgress(title, total) as progress`: `total` batches, told apart by `finished` into named parts.

    The log has a line for each part.
    """

    def __init__(self, title: str, total: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit="batch")
        self._start = time.monotonic()

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """One batch is done."""
        if self._bar is not None:
            self._bar.update()

    def finished(self, name: str, words: Callable[[], str]) -> None:
        """The part `name` is done; `words` says what came of it, and is asked only for a log."""
        seconds, self._start = time.monotonic() - self._start, time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(name)
        else:
            log.info("%s: %s, %.1f s", name, words(), seconds)


class ItemProgress:
    """`with ItemProgress(title, total, units) as progress`: `total` files or the like; a line in the log for each
    tenth."""

    def __init__(self, title: str, total: int, units: str) -> None:
        self._title, self._total, self._units, self._done = title, total, units, 0
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit=f" {units}")
        self._start = time.monotonic()

    def __enter__(self) -> ItemProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, many: int) -> None:
        """So many more are done."""
        before, self._done = self._done, self._done + many
        if self._bar is not None:
            self._bar.update(many)
        elif before * 10 // self._total < self._done * 10 // self._total:
            rate = self._done / max(1e-9, time.monotonic() - self._start)
            log.info("%s: %d of %d %s, %.0f per second", self._title, self._done, self._total, self._units, rate)
