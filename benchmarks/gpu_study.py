"""A sample of the full study's trainings and evaluations, real ones, several side by side; and all of it from that."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.extrapolation import Total, extrapolate
from benchmarks.gpu_jobs import FullJobs, SampledRun
from benchmarks.rows import Row, make_row
from benchmarks.side_by_side import Message, Workers

LONGER = 1.3  # times what the same stratum took: a run is not started where that is more than what is left
MOST_FAILURES = 3
FEWEST_EPOCHS = 3  # of an interrupted training, the first of them left out, that tell how long all take


@dataclass
class MeasuredRun:
    """Seconds of one run of the sample. train: of the whole training, or from its epochs where it was interrupted
    (`whole` False). evaluations: (stratum, seconds) of those that ended. failed: why it could not be measured."""

    id: str
    stratum: str
    train: float
    whole: bool
    evaluations: list[tuple[str, float]] = field(default_factory=list)
    done: bool = False
    failed: str = ""


@dataclass
class _Going:
    run: SampledRun
    epochs: list[float] = field(default_factory=list)  # seconds from the start to the end of each
    found: MeasuredRun | None = None

    def result(self) -> MeasuredRun | None:
        """What is known of it now; None: nothing that tells how long it takes."""
        if self.found is not None:
            return self.found
        if len(self.epochs) < FEWEST_EPOCHS:
            return None
        steps = [after - before for before, after in zip(self.epochs, self.epochs[1:], strict=False)]
        left = self.run.training.epochs - len(self.epochs)
        seconds = self.epochs[-1] + left * statistics.median(steps)
        return MeasuredRun(self.run.training.id, self.run.stratum, seconds, False)


def measure(
    workers: Workers,
    count: int,
    sample: Sequence[SampledRun],
    known: Iterable[MeasuredRun],
    *,
    data: Path,
    folder: Path,
    deadline: float,
    tell: Callable[[MeasuredRun], None],
) -> bool:
    """Run what is not known of a sample, in its order, on `count` processes, until `deadline` (time.monotonic).

    tell: called with each run that ends, and at the deadline with those that were interrupted and tell something.
    Returns whether all of the sample is measured. A run that fails is told as such; RuntimeError where more than a few
    do, or where a process ends by itself.
    """
    before = {one.id: one for one in known}
    waiting = [run for run in sample if run.training.id not in before or not before[run.training.id].done]
    found, going = list(before.values()), dict[int, _Going]()
    while time.monotonic() < deadline:
        for number in set(range(count)) - set(going):
            run = _next(waiting, found, deadline - time.monotonic())
            if run is not None:
                waiting.remove(run)
                own = folder / run.training.id
                shutil.rmtree(own, ignore_errors=True)  # of an earlier call: times are of whole runs
                going[number] = _Going(run)
                workers.send(number, "run", run, data, own)
        if not going:
            return not waiting
        for number, message in workers.messages(max(0.0, deadline - time.monotonic())):
            if _take(going[number], message):
                measured = going.pop(number).found
                assert measured is not None
                shutil.rmtree(folder / measured.id, ignore_errors=True)
                found.append(measured)
                tell(measured)
                failures = [one.failed for one in found if one.failed]
                if len(failures) > MOST_FAILURES:
                    raise RuntimeError(f"{len(failures)} runs failed, the last of them: {failures[-1]}")
    for one in going.values():
        interrupted = one.result()
        if interrupted is not None:
            tell(interrupted)
    return False


def _next(waiting: Sequence[SampledRun], found: Sequence[MeasuredRun], left: float) -> SampledRun | None:
    """The first run that is expected to end in the time left; one of a stratum never seen is taken at any time."""
    for run in waiting:
        alike = [one for one in found if one.stratum == run.stratum and not one.failed]
        same = [one.train + sum(seconds for _, seconds in one.evaluations) for one in alike]
        if not same or LONGER * max(same) <= left:
            return run
    return None


def _take(going: _Going, message: Message) -> bool:
    """Note what a process says; True: the run is done."""
    kind, run = message[0], going.run
    if kind == "epoch":
        going.epochs.append(message[2])
    elif kind == "trained":
        going.found = MeasuredRun(run.training.id, run.stratum, message[1], True)
    elif kind == "evaluated" and going.found is not None:
        going.found.evaluations.append((message[1], message[2]))
    elif kind == "done" and going.found is not None:
        going.found.done = True
        return True
    else:
        going.found = MeasuredRun(run.training.id, run.stratum, 0.0, False, done=True, failed=str(message[-1]))
        return True
    return False


def study_rows(jobs: FullJobs, runs: Sequence[MeasuredRun], count: int) -> Iterator[Row]:
    """Seconds by stratum and stage, and the hours of the whole study with `count` jobs side by side."""
    runs = [one for one in runs if not one.failed]
    trained = _by_stratum((one.stratum, one.train) for one in runs)
    evaluated = _by_stratum(pair for one in runs for pair in one.evaluations)
    if not trained or not evaluated:
        return
    for stage, sizes, found in (("training", jobs.runs, trained), ("evaluation", jobs.evaluations, evaluated)):
        for name in sizes:
            if name in found:
                title = f"{stage}, {name} tasks, {count} side by side, {len(found[name])} of {sizes[name]} measured"
                yield make_row(title, "s", found[name])
    whole = extrapolate(jobs.runs, trained) + extrapolate(jobs.evaluations, evaluated)
    partial = sum(not one.whole for one in runs)
    yield from _hours_rows(whole, count, partial)


def _hours_rows(whole: Total, count: int, partial: int) -> Iterator[Row]:
    title = (
        f"the full study, rooms 64 x 64: {whole.jobs} trainings and evaluations, {count} side by side, from "
        f"{whole.measured} ({partial} of them from part of their epochs)"
    )
    if whole.guessed:
        title += f"; {whole.guessed} of strata not measured yet"
    hours = 3600 * count
    yield make_row(title, "hours", [whole.seconds / hours], target="ours < 1")
    for name, value in (("low", whole.low), ("high", whole.high)):
        if value is not None:
            yield make_row(f"{title}: {name}, by 2 standard errors within strata", "hours", [value / hours])


def start_rows(jobs: FullJobs, started: Sequence[float], count: int) -> Iterator[Row]:
    """What starting a program for each job would add: the local runs of the workflow keep a warm one instead."""
    number = sum(jobs.runs.values()) + sum(jobs.evaluations.values())
    yield make_row(f"start of a program, {len(started)} at once", "s", started)
    added = statistics.median(started) * number / (3600 * count)
    yield make_row(f"starts of {number} programs, {count} side by side, in addition", "hours", [added])


def _by_stratum(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, seconds in pairs:
        found.setdefault(name, []).append(seconds)
    return found


def as_record(run: MeasuredRun) -> dict[str, Any]:
    """A measured run as JSON has it."""
    return asdict(run)


def from_record(record: dict[str, Any]) -> MeasuredRun:
    """The inverse of `as_record`."""
    pairs = [(name, seconds) for name, seconds in record["evaluations"]]
    return MeasuredRun(**{**record, "evaluations": pairs})
