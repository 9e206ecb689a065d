"""Real photographs, where a person has placed them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstrong.data import acquire


def real_folder(dataset: str) -> Path:
    """The folder of a data set below the one that HEADSTRONG_REAL_DATA names; skips the test where there is none."""
    folder = os.environ.get(acquire.VARIABLE)
    if not folder:
        pytest.skip(f"{acquire.VARIABLE} is not set")
    if not (Path(folder) / dataset).is_dir():
        pytest.skip(f"no {dataset} in {folder}")
    return Path(folder) / dataset
