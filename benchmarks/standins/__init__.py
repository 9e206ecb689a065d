"""Stand-ins for two libraries that a bare GPU machine may lack: as much of them as the benchmarks there need.

safetensors holds weights and checkpoints; scipy.ndimage filters the pictures that labels of rooms are made of.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = str(Path(__file__).parent)


def install() -> None:
    """Let the stand-ins be found where the libraries are not: last on the path, also of processes started from here."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
