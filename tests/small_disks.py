"""A disk of a few megabytes of its own, where this machine lets us have one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, megabytes: int = 8) -> Iterator[Path]:
    """Mount one at a new folder for as long as it takes; skips the test where that is not allowed."""
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    try:
        made = subprocess.run(line, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("no leave to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
