"""How large the pieces of `make bench-gpu` are: as published, or tiny, to try the command itself out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gpu_jobs import FullJobs, SampledRun
from headstrong.machine import processors


@dataclass(frozen=True)
class Scale:
    """Sizes of everything.

    sides: of images, in pixels. images, batch, epochs, width: of the scenes (`Scene`). steps: of PGD. rounds: in which
    ways take turns. seconds: of a way in a round. slowest: seconds a call above which no larger batch is tried.
    haste: factor on the seconds that pieces are expected to take.
    loaders: processes that decode PNG. matrix: side of the matrices. side_by_side: numbers of processes, the first
    being 1; side_seconds: of each. runs: of the study's sample; None: all. tiny: its jobs and data are made small.
    """

    name: str
    sides: tuple[int, ...]
    images: int
    batch: int
    epochs: int
    width: float
    training_batches: tuple[int, ...]
    attack_batches: tuple[int, ...]
    steps: int
    rounds: int
    seconds: float
    slowest: float
    haste: float
    loaders: int
    matrix: int
    side_by_side: tuple[int, ...]
    side_seconds: float
    runs: int | None
    tiny: bool

    @property
    def processes(self) -> int:
        """How many build the data of a scene."""
        return 1 if self.tiny else processors()[1]

    def data(self, jobs: FullJobs) -> dict[str, dict[str, Any]]:
        """By split, what the study's data are built from."""
        if not self.tiny:
            return jobs.data
        return {split: {**settings, "size": [32, 32], "count": 4} for split, settings in jobs.data.items()}

    def run(self, run: SampledRun) -> SampledRun:
        """A run of the study's sample."""
        if not self.tiny:
            return run
        training = replace(run.training, width=self.width, epochs=4, snapshots=(1,), batch_size=2, milestones=())
        evaluations = tuple(
            (
                name,
                replace(job, batch_size=2, attacks=tuple(replace(one, steps=1) for one in job.attacks)),
                training.epochs if epochs == run.training.epochs else 1,
            )
            for name, job, epochs in run.evaluations
        )
        return SampledRun(run.stratum, training, evaluations)


PUBLISHED = Scale(
    name="published", sides=(64, 128, 256), images=256, batch=32, epochs=8, width=1.0,
    training_batches=(32, 64, 128, 256, 512), attack_batches=(32, 64, 128, 256, 512, 1024), steps=25, rounds=5,
    seconds=0.8, slowest=4.0, haste=1.0, loaders=8, matrix=8192, side_by_side=(1, 2, 4, 8), side_seconds=4.0, runs=None,
    tiny=False,
)  # fmt: skip
TINY = Scale(
    name="tiny", sides=(32,), images=4, batch=2, epochs=1, width=0.125, training_batches=(2,),
    attack_batches=(2, 4), steps=2, rounds=1, seconds=0.0, slowest=4.0, haste=0.01, loaders=1, matrix=64,
    side_by_side=(1,), side_seconds=0.2, runs=1, tiny=True,
)  # fmt: skip
SCALES = {scale.name: scale for scale in (PUBLISHED, TINY)}
