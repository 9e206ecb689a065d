"""What a network of depth learns: the published encoding, or metres, as MTAN and DMTL do (Liu et al. 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstrong.errors import ConfigError
from headstrong.tasks import decode_depth

DEPTHS = ("encoded", "metres")
LETTERS = "dD"


def read_depth(encoded: NDArray[np.floating], depth: str) -> NDArray[np.floating]:
    """Targets of d or D, any shape, from encoded ones in [0, 1]; holes are 0 in both."""
    return decode_depth(encoded).astype(encoded.dtype) if depth == "metres" else encoded


def check_depth(depth: str) -> None:
    """ConfigError for a kind of target that there is not."""
    if depth not in DEPTHS:
        raise ConfigError(f"depth '{depth}' is unknown; choose {' or '.join(DEPTHS)}")
