"""How torch runs: with what precision, and always with the same bits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from headstrong.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16")


def computes_in_bfloat16(precision: str, device: torch.device | str) -> bool:
    """Whether a network's inner numbers are bfloat16. "auto": on a GPU that has it; on a CPU it is float32."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def autocast(precision: str, device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
    """The context of a forward pass in this precision."""
    enabled = computes_in_bfloat16(precision, device)
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def reproducible(device: str, threads: int) -> Iterator[None]:
    """Within it, the same work gives the same bits: fixed threads, deterministic kernels, float32 not cut to TF32.

    On CUDA an operation without a deterministic kernel is named in a warning rather than refused. Raises ConfigError
    when the device is not there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for; read when it starts
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}': torch finds no CUDA device here; use device cpu or auto")
    settings: Any = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        settings.fill_uninitialized_memory,
        torch.get_float32_matmul_precision(),
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=on_gpu)
    settings.fill_uninitialized_memory = False  # a debugging aid that costs up to a tenth of the time
    torch.set_float32_matmul_precision("highest")
    try:
        # `enabled` is False where it is not given, and then no GPU uses cuDNN.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        settings.fill_uninitialized_memory = before[3]
        torch.set_float32_matmul_precision(before[4])


@contextlib.contextmanager
def seeded_layers(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, layers that draw from torch's global state, as dropout of torchvision's networks, draw from `seed`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
