"""How far a measurement is: a bar on a terminal, else one line in the log for everything measured."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class BatchProgress:
    """`with BatchProgress(title, total) as progress`: `total` batches, told apart by `finished` into named parts."""

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
