"""Processes that compute on one device side by side: so many training steps a second, or jobs of a study one by one."""

from __future__ import annotations

import logging
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks import standins
from benchmarks.gpu_jobs import SampledRun
from headstrong.jobs import to_dict

Message = tuple[Any, ...]
Send = Callable[[Message], None]
_EPOCH = re.compile(r"epoch (\d+) of \d+")
STARTING = 180.0  # seconds that all processes have to be ready


class Workers:
    """So many processes, each with torch loaded and the device at hand; they end with `close` or with this one.

    started: seconds from the start of each to its first answer.
    """

    def __init__(self, count: int, device: str, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        since = time.time()
        for number in range(count):
            ours, theirs = spawn.Pipe()
            log = folder / f"worker-{number}.log"
            # Not daemons, which could not start processes; they end when their pipe does.
            process = spawn.Process(target=_work, args=(theirs, device, str(log)))
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)
        self.started: list[float] = []
        limit = time.monotonic() + STARTING
        while len(self.started) < count:
            for _, message in self.messages(max(0.0, limit - time.monotonic())):
                self.started.append(message[1] - since)
            if time.monotonic() > limit:
                self.close()
                raise RuntimeError(f"{count - len(self.started)} of {count} processes did not start in {STARTING:g} s")

    def send(self, number: int, *task: Any) -> None:
        """Give one process something to do: ("steps", scene), then when it is to end, or ("run", run, data, folder)."""
        self._ends[number].send(task)

    def messages(self, seconds: float) -> Iterator[tuple[int, Message]]:
        """(process, message) of what came within so many seconds. Raises RuntimeError where one ended by itself."""
        for end in wait(self._ends, seconds):
            number = self._ends.index(end)  # type: ignore[arg-type]
            try:
                yield number, self._ends[number].recv()
            except (EOFError, ConnectionError):
                code = self._processes[number].exitcode
                raise RuntimeError(f"a process that computed side by side ended by itself (code {code})") from None

    def close(self) -> None:
        """End them all, whatever they do."""
        for end, process in zip(self._ends, self._processes, strict=True):
            end.close()
            process.kill()  # a training would hold a SIGTERM back until its next checkpoint
        for process in self._processes:
            process.join()


def _work(end: Connection, device: str, log: str) -> None:
    standins.install()
    sys.stderr = open(log, "a", encoding="utf-8")  # noqa: SIM115  (no terminal: then no bars, which need a library)
    import torch

    import headstrong.evaluation
    import headstrong.training  # noqa: F401

    if device != "cpu":
        torch.zeros(1, device=device)
        torch.cuda.synchronize()
    end.send(("ready", time.time()))
    while True:
        try:
            kind, *task = end.recv()
        except (EOFError, ConnectionError):
            return
        try:
            {"steps": _steps, "run": _run}[kind](end, device, *task)
        except Exception as error:
            from benchmarks.device import one_line

            end.send(("failed", one_line(error)))


def _steps(end: Connection, device: str, scene: Any) -> None:
    """Images a second that training steps go through, from when all processes are warm to a moment of `time.time`."""
    from benchmarks.device import clock_of
    from benchmarks.stepping import our_loop
    from headstrong.runtime import reproducible

    with reproducible(device, 1):
        step, clock, done = our_loop(scene), clock_of(device), 0
        for _ in range(5):
            step()
        clock()
        end.send(("warm",))
        (last,) = end.recv()
        start = time.time()
        while time.time() < last:
            step()
            clock()
            done += 1
        end.send(("steps", done * scene.batch / (time.time() - start)))


def _run(end: Connection, device: str, run: SampledRun, data: Path, folder: Path) -> None:
    """Train and evaluate as the workflow's programs do, and tell the seconds of each stage and epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    end.send(("trained", _trained(end.send, device, run, data / "train.h5", folder)))
    for name, job, epochs in run.evaluations:
        weights = _weights(folder, run, epochs)
        end.send(("evaluated", name, _evaluated(device, job, weights, data / "test.h5", folder / f"{job.id}.h5")))
    end.send(("done",))


def _weights(folder: Path, run: SampledRun, epochs: int) -> Path:
    name = "weights" if epochs == run.training.epochs else f"epoch-{epochs}"
    return folder / f"{name}.safetensors"


class _Epochs(logging.Handler):
    """Tells of each epoch that ends, by what the training logs."""

    def __init__(self, send: Send) -> None:
        super().__init__(logging.INFO)
        self._send, self._since = send, time.perf_counter()

    def emit(self, record: logging.LogRecord) -> None:
        if found := _EPOCH.search(record.getMessage()):
            self._send(("epoch", int(found[1]), time.perf_counter() - self._since))


def _trained(send: Send, device: str, run: SampledRun, data: Path, folder: Path) -> float:
    from headstrong.provenance import RunRecord, training_code
    from headstrong.training import train

    start, job = time.perf_counter(), run.training
    log, handler = logging.getLogger("headstrong.loop"), _Epochs(send)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    snapshots = {epoch: folder / f"epoch-{epoch}.safetensors" for epoch in job.snapshots}
    weights, history, code = folder / "weights.safetensors", folder / "history.csv", training_code(False)
    outputs = [weights, history, *snapshots.values()]
    record = folder / "run.json"
    try:
        with RunRecord(record, inputs=[data], outputs=outputs, rule="bench_gpu", job=to_dict(job), device=device):
            train(
                job, data, weights, snapshots=snapshots, history=history, work=folder / "work", device=device,
                threads=1, checkpoint_minutes=5, code=code,
            )  # fmt: skip
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    return time.perf_counter() - start


def _evaluated(device: str, job: Any, weights: Path, data: Path, output: Path) -> float:
    from headstrong.evaluation import evaluate
    from headstrong.provenance import RunRecord, code_digest

    start = time.perf_counter()
    record, facts = output.with_suffix(".json"), {"job": to_dict(job), "device": device}
    with RunRecord(record, inputs=[weights, data], outputs=[output], rule="bench_gpu", **facts):
        code = code_digest("headstrong.evaluation")
        evaluate(job, weights, data, output, device=device, threads=1, code=code)
    return time.perf_counter() - start


def side_by_side(workers: Workers, count: int, scene: Any, seconds: float) -> float:
    """Images per second that `count` trainings on one device go through together."""
    for number in range(count):
        workers.send(number, "steps", scene)
    _answers(workers, count, "warm")
    last = time.time() + seconds
    for number in range(count):
        workers.send(number, last)
    return sum(message[1] for message in _answers(workers, count, "steps"))


def _answers(workers: Workers, count: int, kind: str) -> list[Message]:
    found: list[Message] = []
    limit = time.monotonic() + STARTING
    while len(found) < count:
        for _, message in workers.messages(max(0.0, limit - time.monotonic())):
            if message[0] != kind:
                raise RuntimeError(str(message[-1]))
            found.append(message)
        if time.monotonic() > limit:
            raise RuntimeError(f"{count - len(found)} of {count} processes did not answer in {STARTING:g} s")
    return found
