"""Which device a job computes on: its own GPU while it runs, or the processor.

On a machine with several GPUs each job takes one that no other job has, and waits while all are taken. It then sees
that one only, under the name "cuda": a job stopped on one GPU goes on with the same bits on another of its kind.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

import torch

from headstrong import gpulocks, gpus
from headstrong.errors import ConfigError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def take_device(name: str, *, alone: bool = False) -> Iterator[str]:
    """Within it, the device to compute on is this process's own: "cuda" or "cpu".

    name: "auto": a GPU that is free, the CPU where torch finds none; "cpu"; "cuda": a GPU that is free; "cuda:1": the
    second of those visible. alone: shared with no other job, whatever HEADSTRONG_JOBS_PER_GPU says. To be used once in
    a process, before CUDA starts in it. Raises ConfigError for another name and for a GPU that is not
    there, MachineError where the folder of locks cannot be used.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise ConfigError(f"device '{name}': expected auto, cpu, cuda or cuda:NUMBER")
    seen = [] if name == "cpu" else _seen()
    found = seen if match[1] is None else [gpu for gpu in seen if gpu.index == int(match[1])]
    if not found:
        yield _without_lock(name, len(seen))
        return
    sharing = 1 if alone else gpulocks.jobs_per_gpu()
    with gpulocks.one_of([gpu.id for gpu in found], sharing) as taken:
        gpu = next(gpu for gpu in found if gpu.id == taken)
        if len(seen) > 1:
            gpus.show_only(gpu)
        if torch.cuda.is_available():
            log.info("device %s, %s", gpu, gpu.id)
            try:
                yield "cuda"
            finally:
                # Whoever takes the GPU next may need the memory before this process has ended.
                with contextlib.suppress(RuntimeError):
                    torch.cuda.empty_cache()
            return
    log.warning("torch cannot use %s: its driver is too old for this torch, or broken", gpu)
    yield _without_lock(name, 0)


def _seen() -> list[gpus.Gpu]:
    if not torch.backends.cuda.is_built():
        return []
    try:
        return gpus.visible()
    except gpus.DriverError as error:
        log.warning("no GPU can be used: %s", error)
        return []


def _without_lock(name: str, seen: int) -> str:
    """The device where no GPU of CUDA's driver can be taken."""
    if name in ("auto", "cpu"):
        # A torch for other makers' GPUs calls them "cuda" as well; they have no names to lock them by.
        return "cuda" if name == "auto" and torch.version.hip and torch.cuda.is_available() else "cpu"
    there = f"only {seen} here, from cuda:0 on" if seen else "torch finds no CUDA device here"
    raise ConfigError(f"device '{name}': {there}; use device cpu or auto")
