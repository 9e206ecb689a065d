"""A part of the study of faults, run undisturbed once; leave it as it is, and disturb a copy."""

from __future__ import annotations

from pathlib import Path

import fault_study
import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fault_study.make(tmp_path_factory.mktemp("small") / "undisturbed", *fault_study.TARGET)
