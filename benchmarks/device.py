"""What a device is and what it can: facts, its measured matrix rate, and times on it that wait for it to be done."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Times, Work, interleaved
from headstrong.machine import NoAnswerError, ask, processors
from headstrong.provenance import ROOT
from headstrong.runtime import reproducible

MOST_CALLS = 200  # of a way in one round
ENOUGH_BETTER = 1.03  # a larger batch that is no faster than this times the best is the last one tried


def device_facts(device: str) -> dict[str, Any]:
    """Name, memory, driver and versions of the device."""
    found = {"device": device, "name": "cpu", "torch": torch.__version__, "cores": processors()[1]}
    found |= {"cuda": torch.version.cuda, "load": os.getloadavg()[0]}
    if device != "cpu":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return found


def _driver() -> str | None:
    with contextlib.suppress(NoAnswerError):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return ask(command, 30).splitlines()[0].strip()
    return None


def clock_of(device: str) -> Callable[[], float]:
    """Wall-clock seconds, read when the device has done all that it was given."""

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


@contextlib.contextmanager
def as_torch_comes() -> Iterator[None]:
    """Within it, torch as published code meets it: cuDNN on, TF32 in convolutions, kernels of any order."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def with_cudnn(device: str, *, enabled: bool = True, benchmark: bool = False) -> Iterator[None]:
    """As `reproducible`, with cuDNN said to be on or off, and its choice of kernels by trying them."""
    with (
        reproducible(device, 1),
        torch.backends.cudnn.flags(enabled=enabled, deterministic=not benchmark, benchmark=benchmark, allow_tf32=False),
    ):
        yield


def within(context: Callable[[], contextlib.AbstractContextManager[None]], work: Work) -> Work:
    """The same work in a context of its own, such as `as_torch_comes`."""

    def inside() -> None:
        with context():
            work()

    return inside


def rates(
    ways: Mapping[str, tuple[Work, int]],
    device: str,
    rounds: int,
    seconds: float,
    contexts: Mapping[str, Any] | None = None,
) -> Times:
    """Images per second of each way, round by round, all ways in turn.

    ways: by name the work and how many images it takes. seconds: of each way in each round, about; a way is called as
    often as that takes. contexts: by name, what a way runs within; others run within `reproducible`.
    """
    clock, calls = clock_of(device), {}
    repeated: dict[str, Work] = {}
    for name, (work, _) in ways.items():
        context = (contexts or {}).get(name, lambda: reproducible(device, 1))
        within(context, work)()  # the first call makes what the others find
        calls[name] = max(1, min(MOST_CALLS, round(seconds / max(1e-6, _seconds(within(context, work), clock)))))
        repeated[name] = within(context, _times(work, calls[name]))
    times = interleaved(repeated, rounds, clock)
    return {name: [calls[name] * ways[name][1] / one for one in times[name]] for name in ways}


def _times(work: Work, calls: int) -> Work:
    def repeated() -> None:
        for _ in range(calls):
            work()

    return repeated


def _seconds(work: Work, clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def fastest_batch(
    make: Callable[[int], Work], batches: Sequence[int], device: str, seconds: float, context: Any = None
) -> int:
    """Of batch sizes in rising order the one of most images per second.

    Larger ones are not tried once one is not faster, has no room in memory, or took longer than `seconds` a call.
    """
    best, most = batches[0], 0.0
    clock = clock_of(device)
    for batch in batches:
        try:
            work = within(context or (lambda: reproducible(device, 1)), make(batch))
            first = _seconds(work, clock)
            took = statistics.median(_seconds(work, clock) for _ in range(3))
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            work = None  # type: ignore[assignment]
            if device != "cpu":
                torch.cuda.empty_cache()
        if batch / took > most * (ENOUGH_BETTER if most else 0):
            best, most = batch, batch / took
        else:
            break
        if max(first, took) > seconds:
            break
    return best


def matrix_rates(device: str, side: int, tries: int, seconds: float = 0.3) -> dict[str, float]:
    """FLOP/s of products of square matrices of random numbers, the best of several tries: bfloat16, and float32
    without TF32."""
    found = {}
    with reproducible(device, torch.get_num_threads()):
        for name, kind in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
            a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
            work, clock = (lambda a=a, b=b: torch.mm(a, b)), clock_of(device)
            work()
            took = _seconds(work, clock)
            calls = max(1, min(MOST_CALLS, round(seconds / max(took, 1e-6))))
            best = min(_seconds(_times(work, calls), clock) / calls for _ in range(tries))
            found[name] = 2 * side**3 / best
    return found


def flops_of(work: Work) -> float:
    """Floating-point operations of a piece of work, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def share_of_rate(images_per_second: float, flops_per_image: float, rate: float) -> float:
    """Share of a matrix rate, in FLOP/s, that so many images per second use."""
    return images_per_second * flops_per_image / rate


def one_line(error: BaseException) -> str:
    """An error in one line of reasonable length, with the place in our code that it came from."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ROOT)]
    place = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
