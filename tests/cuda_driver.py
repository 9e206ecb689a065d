"""A CUDA driver of three pretended GPUs, compiled for a test, and an environment whose processes find it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
IDS = [f"GPU-{pair * 4}-{pair * 2}-{pair * 2}-{pair * 2}-{pair * 6}" for pair in ("00", "11", "22")]


def build(folder: Path) -> dict[str, str]:
    """Compile it; the environment variables of a process that shall have it."""
    assert COMPILER is not None
    source = Path(__file__).with_name("fake_cuda.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return {"LD_LIBRARY_PATH": str(folder), "HEADSTRONG_GPU_LOCKS": str(folder / "locks")}
