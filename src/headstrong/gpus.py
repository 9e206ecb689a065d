"""The GPUs that CUDA shows this process, and how one of them is made the only one.

CUDA reads CUDA_VISIBLE_DEVICES once, when it starts in a process. So the driver is asked in a process of its own, which
sees what this one would see, whether the mask holds numbers, UUIDs or nothing, and this one stays free to choose.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass

MASK = "CUDA_VISIBLE_DEVICES"
SECONDS = 120.0  # a GPU that sleeps wakes up in less
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE: the driver is well, and there is nothing to drive


@dataclass(frozen=True)
class Gpu:
    """One GPU. `index` counts the visible ones, as in "cuda:1"; `id` is the physical device's, whatever the mask."""

    index: int
    id: str
    name: str
    memory: int  # bytes
    capability: tuple[int, int]

    @property
    def has_bfloat16(self) -> bool:
        """Whether its hardware computes in bfloat16 (since Ampere)."""
        return self.capability >= (8, 0)

    def __str__(self) -> str:
        return f"cuda:{self.index}, {self.name}"


class DriverError(Exception):
    """The driver is there and does not answer as it should; one line."""


def visible(seconds: float = SECONDS) -> list[Gpu]:
    """The GPUs that CUDA would show this process, in its order; empty without a driver. DriverError: it is not well."""
    command = [sys.executable, "-I", "-S", __file__]  # no package, no site: this file alone, in milliseconds
    try:
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise DriverError(f"the CUDA driver does not answer within {seconds:g} s") from None
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"the CUDA driver ended its process ({result.returncode})"]
        raise DriverError(lines[-1])
    return [Gpu(**{**fields, "capability": tuple(fields["capability"])}) for fields in json.loads(result.stdout)]


def mask_for(index: int, environment: Mapping[str, str]) -> str:
    """The value of CUDA_VISIBLE_DEVICES that leaves only the visible device of this index."""
    mask = environment.get(MASK)
    return str(index) if mask is None else mask.split(",")[index].strip()


def show_only(gpu: Gpu) -> None:
    """Make `gpu` the only one that CUDA will show this process and its children, before CUDA starts here."""
    os.environ[MASK] = mask_for(gpu.index, os.environ)


def _ask_driver() -> list[Gpu]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    if (code := cuda.cuInit(0)) != 0:
        if code == _NO_DEVICE:
            return []
        raise DriverError(f"the CUDA driver does not start (error {code})")
    return [_gpu(cuda, index) for index in range(_integer(cuda.cuDeviceGetCount))]


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device = _integer(cuda.cuDeviceGet, index)
    name, identity, memory = ctypes.create_string_buffer(256), ctypes.create_string_buffer(16), ctypes.c_size_t()
    # Version 2 tells the parts of a partitioned GPU (MIG) from one another.
    ask_identity = getattr(cuda, "cuDeviceGetUuid_v2", cuda.cuDeviceGetUuid)
    _check(cuda.cuDeviceGetName(name, len(name), device))
    _check(ask_identity(identity, device))
    _check(cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    major, minor = (_integer(cuda.cuDeviceGetAttribute, attribute, device) for attribute in (75, 76))
    text = name.value.decode(errors="replace")
    return Gpu(index, f"GPU-{uuid.UUID(bytes=identity.raw)}", text, memory.value, (major, minor))


def _integer(function: ctypes._NamedFuncPointer, *arguments: int) -> int:
    found = ctypes.c_int()
    _check(function(ctypes.byref(found), *arguments))
    return found.value


def _check(code: int) -> None:
    if code != 0:
        raise DriverError(f"the CUDA driver answers with error {code}")


if __name__ == "__main__":
    try:
        print(json.dumps([asdict(gpu) for gpu in _ask_driver()]))
    except DriverError as error:
        sys.exit(str(error))
