"""Files that were cut short or damaged on a disk: refused in one line that names them, or harmless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from headstrong.errors import BrokenFileError


def check_cuts(path: Path, folder: Path, read: Callable[[Path], object], said: str) -> None:
    """The file is refused, cut to any length, in a line with its name and what is said of it, a regular expression."""
    whole, cut = path.read_bytes(), folder / "cut.h5"
    for length in [0, 1, 7, 8, 100, *np.linspace(200, len(whole) - 1, 60, dtype=int)]:
        cut.write_bytes(whole[:length])
        with pytest.raises(BrokenFileError, match=rf"cut\.h5.*{said}") as caught:
            read(cut)
        assert "\n" not in str(caught.value)


def count_noticed(path: Path, folder: Path, read: Callable[[Path], Sequence[object]], turned: int) -> int:
    """Turn so many bytes over, one at a time: BrokenFileError, or the values of the whole file, never other ones.

    Returns how many were noticed.
    """
    whole, truth = bytearray(path.read_bytes()), read(path)
    damaged, noticed = folder / "damaged.h5", 0
    for position in np.linspace(0, len(whole) - 1, turned, dtype=int):
        changed = whole.copy()
        changed[position] ^= 0x55
        damaged.write_bytes(changed)
        try:
            found = read(damaged)
        except BrokenFileError:
            noticed += 1
        else:
            assert all(np.array_equal(one, other) for one, other in zip(found, truth, strict=True)), position
    return noticed
