"""A stand-in for safetensors, which holds weights and checkpoints and which a bare GPU machine may lack."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = str(Path(__file__).parent)


def install() -> None:
    """Let it be found where the library is not: last on the path, also of processes started from here."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
