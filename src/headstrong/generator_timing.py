"""What generators cost: their parameters, and the time to make the perturbations of all tasks for one image.

Published in Table 7 of Guo et al. (2020), arXiv 2011.09824: the encoder that MTA shares runs once for all tasks where
they see the same image, and GAP runs a whole network for each. Methods are timed in turns, so that whatever else the
machine does befalls them alike. Times are measurements of one machine at one moment: unlike every other number of this
project, they do not come out the same twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstrong import published
from headstrong.attacks.generators import scale
from headstrong.errors import ConfigError
from headstrong.generator_training import build_generators, raw_perturbations
from headstrong.jobs import GeneratorJob
from headstrong.models.generators import Generators, count_parameters
from headstrong.runtime import reproducible

METHODS = ("gap", "mta")
COLUMNS = (
    "family",
    "mode",
    "method",
    "size",
    "filters",
    "blocks",
    "parameters",
    "median_ms",
    "low_ms",
    "high_ms",
    "rounds",
    "published_parameters_millions",
    "published_ms",
)
PUBLISHED_TASKS = 3
PUBLISHED_BLOCKS = {"universal": 4, "instance": 10}  # on NYUv2
_PRINTED = {"universal": "universal", "instance": "per-instance", "gap": "GAP", "mta": "MTA"}
# What decides the cost, beside the method.
_ARCHITECTURE = ("family", "mode", "tasks", "filters", "blocks", "normalization", "activation", "shared_input")


def measure(
    jobs: Sequence[GeneratorJob], size: tuple[int, int], *, rounds: int = 21, warmup: int = 3, device: str, threads: int
) -> list[dict[str, Any]]:
    """Rows of generator_cost.csv, keys COLUMNS, for images (H, W) = `size`.

    Two rows, GAP and MTA, for each family, mode and architecture that both methods of `jobs` have: jobs that differ in
    goal or radius cost the same. Milliseconds: median and quartiles of `rounds` runs in turns, after `warmup` runs that
    do not count. Parameters are those of all tasks together, without buffers. The published columns are as printed,
    for three tasks, else None. Raises ConfigError for a size or a number of rounds that cannot be.
    """
    if rounds < 1 or warmup < 0:
        raise ConfigError(f"rounds {rounds}, warmup {warmup}: at least 1 round and 0 warmups are needed")
    if min(size) < 4 or any(side % 4 for side in size):
        raise ConfigError(f"size {size[0]}x{size[1]}: both sides must be multiples of 4, for generators halve it twice")
    with reproducible(device, threads):
        return [row for pair in comparable(jobs) for row in _rows(pair, size, rounds, warmup, device)]


def comparable(jobs: Sequence[GeneratorJob]) -> list[dict[str, GeneratorJob]]:
    """The first job of each method, for each architecture that both have, in the order of `jobs`."""
    found: dict[tuple[Any, ...], dict[str, GeneratorJob]] = {}
    for job in jobs:
        key = tuple(getattr(job, name) for name in _ARCHITECTURE)
        found.setdefault(key, {}).setdefault(job.method, job)
    return [{method: pair[method] for method in METHODS} for pair in found.values() if set(pair) >= set(METHODS)]


def published_jobs() -> list[GeneratorJob]:
    """The four networks of Table 7: 64 filters, 4 blocks universal and 10 per instance, three tasks of one image.

    The paper does not state the filters: with 64, all four counts of parameters are ten times the printed ones.
    """
    return [_published_job(method, mode, blocks) for mode, blocks in PUBLISHED_BLOCKS.items() for method in METHODS]


def _published_job(method: str, mode: str, blocks: int) -> GeneratorJob:
    return GeneratorJob(
        id=f"table_7-{method}-{mode}",
        family="table_7",
        kind="dense",
        method=method,
        mode=mode,
        goal="untargeted",
        norm="linf",
        epsilon=5 / 255,
        tasks=("s", "d", "n"),
        label="",
        targets=(),
        filters=64,
        blocks=blocks,
        normalization="batch",
        activation="relu",
        dropout=0.0,
        scaling="whole",
        log_mean="outside",
        untargeted_loss="truth",
        weights="uniform",
        epochs=1,
        batch_size=5,
        learning_rate=2e-4,
        decay=0.5,
        precision="float32",
        samples=None,
        shared_input=True,
        seed=0,
    )


def build(job: GeneratorJob, device: str) -> Generators:
    """The networks of a job as they start, in evaluation mode: what they cost does not depend on training."""
    return build_generators(job).to(device).eval()


@torch.no_grad()
def all_perturbations(networks: Generators, job: GeneratorJob, image: Tensor) -> dict[str, Tensor]:
    """The perturbations (1, 3, H, W) of all tasks for one image, or one pattern, (1, 3, H, W)."""
    made = raw_perturbations(networks, job, dict.fromkeys(job.tasks, image))
    return {task: scale(raw, job.norm, job.epsilon, job.scaling) for task, raw in made.items()}


def _rows(
    pair: Mapping[str, GeneratorJob], size: tuple[int, int], rounds: int, warmup: int, device: str
) -> list[dict[str, Any]]:
    networks = {method: build(job, device) for method, job in pair.items()}
    image = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0)).to(device)
    runs = {method: _run(networks[method], job, image) for method, job in pair.items()}
    seconds = interleaved(runs, rounds, warmup, lambda: _finish(device))
    return [
        {
            "family": job.family,
            "mode": job.mode,
            "method": method,
            "size": f"{size[0]}x{size[1]}",
            "filters": job.filters,
            "blocks": job.blocks,
            "parameters": count_parameters(networks[method]),
            **_milliseconds(seconds[method]),
            "rounds": rounds,
            **_as_printed(job),
        }
        for method, job in pair.items()
    ]


def _run(networks: Generators, job: GeneratorJob, image: Tensor) -> Callable[[], object]:
    return lambda: all_perturbations(networks, job, image)


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, warmup: int, finish: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each run, in turns A, B, A, B; `finish` waits until the device has nothing left to do."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + rounds):
        for name, run in runs.items():
            finish()
            start = time.perf_counter()
            run()
            finish()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _finish(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    low, median, high = 1000 * np.quantile(seconds, [0.25, 0.5, 0.75])
    return {"median_ms": float(median), "low_ms": float(low), "high_ms": float(high)}


def _as_printed(job: GeneratorJob) -> dict[str, float | None]:
    if len(job.tasks) != PUBLISHED_TASKS:
        return {"published_parameters_millions": None, "published_ms": None}
    table = published.load("mta_table_7_cost").set_index(["mode", "method"])
    row = table.loc[(_PRINTED[job.mode], _PRINTED[job.method])]
    return {
        "published_parameters_millions": float(row["parameters_printed"]),
        "published_ms": float(row["inference_ms"]),
    }
