"""Speed on an NVIDIA GPU, ours beside plain ways, and how long the full study takes there, in one file.

    python -m benchmarks.bench_gpu --output results/bench_gpu.json [--minutes 9] [--only training-64 study]
    python -m benchmarks.bench_gpu --output results/bench_gpu.json --table       prints its table, measures nothing

Needs torch, torchvision, numpy, h5py, pandas and this checkout (PYTHONPATH=src), nothing else. Ends within --minutes:
it starts no piece that it does not expect to end, and stops the last one. Call it again, and it goes on: what was
measured on the same device with the same torch and code is kept. Data and weights go to --scratch, which may be
deleted. Ends with exit code 7 where there is no GPU; with 0 whatever the numbers are, and where pieces are left.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import gpu_ledger, standins
from benchmarks.gpu_ledger import CUT, DONE, FAILED, Ledger
from benchmarks.gpu_scale import SCALES, Scale
from benchmarks.rows import Row, absent, table
from headstrong import program
from headstrong.errors import ConfigError, MachineError
from headstrong.provenance import ROOT, RunRecord, code_digest

STOPPING = 8.0  # seconds before the limit at which the last piece is stopped
STUDY_TAIL = 6.0  # seconds that the study leaves itself to tell what it knows
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A piece, the seconds it is expected to take on a large GPU, and the function of `gpu_pieces` that measures it."""

    name: str
    seconds: float
    function: str
    side: int | None = None


def pieces(scale: Scale) -> list[Piece]:
    """All pieces in the order in which they are measured."""
    first, *others = scale.sides
    found = [
        Piece("device", 15, "device_rows"),
        Piece(f"training-{first}", 75, "training_rows", first),
        Piece(f"attack-{first}", 60, "attack_rows", first),
        Piece("variants", 60, "layout_rows"),
        Piece("side-by-side", 60, "sides_rows"),
        Piece("equality", 40, "equality_rows"),
        *(Piece(f"training-{side}", 90, "training_rows", side) for side in others),
        *(Piece(f"attack-{side}", 90, "attack_rows", side) for side in others),
        Piece("graph-training", 25, "graph_training_rows"),
        Piece("graph-attack", 25, "graph_attack_rows"),
        Piece("rooms", 120, "rooms_rows"),
        Piece("compile", 90, "compile_rows"),
        Piece("study", 120, "study_piece"),
    ]
    return [replace(piece, seconds=piece.seconds * scale.haste) for piece in found]


class Child:
    """A process that measures pieces: what goes wrong on a GPU may leave a process that cannot use it any more."""

    def __init__(self, device: str, scale: Scale, scratch: Path, seconds: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._end, theirs = spawn.Pipe()
        log_file = scratch / "pieces.log"
        self._process = spawn.Process(target=_measure_pieces, args=(theirs, device, scale, str(log_file)))
        self._process.start()
        theirs.close()
        try:
            self.facts: dict[str, Any] = self._first_answer(seconds)
        except BaseException:
            self.end()
            raise

    def _first_answer(self, seconds: float) -> dict[str, Any]:
        if not self._end.poll(max(0.0, seconds)):
            raise MachineError("the GPU's process did not answer in time: the GPU is taken (docs/gpus.md), or too slow")
        try:
            kind, content = self._end.recv()
        except (EOFError, ConnectionError):
            raise MachineError("the GPU's process ended as it started; run `python -m headstrong doctor`") from None
        if kind == "none":
            raise MachineError(
                f"no GPU can be used: {content}; bench-gpu needs one with CUDA (--device cpu tries it out)"
            )
        return dict(content)

    @property
    def process_id(self) -> int:
        """Of the process, and of the group that it leads."""
        return self._process.pid or 0

    def measure(self, piece: Piece, ledger: Ledger, folder: Path, left: float) -> tuple[str, list[Row]]:
        """How a piece ended within so many seconds, and its rows. What it tells goes into the ledger at once."""
        rows: list[Row] = []
        limit = time.monotonic() + left
        noted = {"noted": ledger.facts, "runs": ledger.runs}
        self._end.send((piece, str(folder), left - STUDY_TAIL, noted))
        while True:
            if not self._end.poll(max(0.0, limit - time.monotonic())):
                return CUT, []
            try:
                kind, *content = self._end.recv()
            except (EOFError, ConnectionError):
                self._process.join(5)
                return FAILED, [absent(piece.name, "-", f"its process ended by itself ({self._process.exitcode})")]
            if kind == "row":
                rows.append(Row(*content))
                log.info("%s: ours %s, peer %s, ratio %s", rows[-1].name, rows[-1].ours, rows[-1].peer, rows[-1].ratio)
            elif kind == "fact":
                ledger.facts[content[0]] = content[1]
            elif kind == "run":
                ledger.add_run(content[0])
                log.info("study: %s, %.1f s to train", content[0]["id"], content[0]["train"])
            elif kind == "failed":
                return FAILED, [*rows, absent(piece.name, "-", content[0])]
            else:
                return kind, rows

    def end(self, patience: float = 0.0) -> None:
        """End the process and all that it started; one that waits for a piece has some seconds to end by itself."""
        self._end.close()
        self._process.join(patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process_id, signal.SIGKILL)  # also what a process that ended by itself has left
        self._process.kill()
        self._process.join(10)


def _measure_pieces(end: Connection, device: str, scale: Scale, log_file: str) -> None:
    """The child: one piece after the other, as the parent asks, on a GPU of its own."""
    with contextlib.suppress(OSError):
        os.setsid()  # so that all that it starts can be ended with it
    # No terminal: then no bars, which need a library.
    sys.stderr = open(log_file, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
    standins.install()
    with contextlib.ExitStack() as held:
        from benchmarks.device import device_facts, one_line

        try:
            held.enter_context(_device(device))
            facts = device_facts(device)
        except Exception as error:
            end.send(("none", one_line(error)))
            return
        end.send(("facts", facts))
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                piece, folder, seconds, known = end.recv()
                _measure(end, piece, device, scale, Path(folder), time.monotonic() + seconds, known)


@contextlib.contextmanager
def _device(name: str) -> Any:
    """Within it, the GPU is this process's alone. Raises RuntimeError where torch has none."""
    import torch

    from headstrong.devices import take_device

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(take_device(name, alone=True))
        except (ConfigError, MachineError) as error:
            if not torch.cuda.is_available():
                raise RuntimeError("torch finds no CUDA device here") from error
            print(f"measuring without a lock on the GPU: {error}", file=sys.stderr)
        yield


def _measure(
    end: Connection, piece: Piece, device: str, scale: Scale, folder: Path, deadline: float, known: dict[str, Any]
) -> None:
    import gc
    import traceback
    import warnings

    import torch

    from benchmarks import gpu_pieces
    from benchmarks.device import one_line

    warnings.simplefilter("ignore")
    bench = gpu_pieces.Bench(device, scale, folder, deadline, known["noted"], known["runs"], partial(_tell, end))
    function: Callable[..., Iterable[Row]] = getattr(gpu_pieces, piece.function)
    asked = (bench,) if piece.side is None else (bench, piece.side)
    try:
        for row in function(*asked):
            end.send(("row", *(getattr(row, name) for name in Row.__annotations__)))
    except gpu_pieces.StillGoing:
        end.send((CUT,))
    except Exception as error:  # whatever it is, the reason belongs in the table
        traceback.print_exc()
        end.send(("failed", one_line(error)))
    else:
        end.send((DONE,))
    gc.collect()
    if device != "cpu":
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def _tell(end: Connection, kind: str, *content: Any) -> None:
    from benchmarks.gpu_study import MeasuredRun, as_record

    end.send((kind, *(as_record(one) if isinstance(one, MeasuredRun) else one for one in content)))


def key_of(facts: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """What numbers belong to: device, torch, and the code that is measured and that measures."""
    ours = [str(path) for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    code = code_digest("headstrong.training", "headstrong.evaluation", *ours)
    return {"device": facts["name"], "torch": facts["torch"], "cuda": facts["cuda"], "code": code, "scale": scale.name}


def main(arguments: argparse.Namespace) -> None:
    if arguments.table:
        print(table(gpu_ledger.rows_of(arguments.output)), end="")
        return
    scale, limit = SCALES[arguments.scale], time.monotonic() + 60 * arguments.minutes - STOPPING
    wanted = _wanted(arguments.only, scale)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    child = Child(arguments.device, scale, arguments.scratch, limit - time.monotonic())
    record, how = arguments.output.with_name(f"{arguments.output.stem}.run.json"), DONE
    try:
        key = key_of(child.facts, scale)
        ledger = Ledger.opened(arguments.output, key)
        ledger.facts.update(child.facts)
        ledger.write()
        folder = arguments.scratch / f"{key['code']}-{scale.name}-{arguments.device}"
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"minutes": arguments.minutes, "device": arguments.device, "key": key}
        with RunRecord(record, rule="bench_gpu", outputs=[arguments.output], **facts):
            for piece in (one for one in wanted if ledger.waits(one.name)):
                left = limit - time.monotonic()
                if ledger.expected(piece.name, piece.seconds, 0.8 * 60 * arguments.minutes) > left:
                    log.info("%s is left for another call: %.0f s are not enough", piece.name, max(0.0, left))
                    continue
                start = time.monotonic()
                how, rows = child.measure(piece, ledger, folder, left)
                ledger.ended(piece.name, how, time.monotonic() - start, rows)
                log.info("%s: %s after %.1f s", piece.name, how, time.monotonic() - start)
                if how == FAILED or (how == CUT and piece is not wanted[-1]):
                    child.end()  # whatever it left on the GPU goes with it
                    if limit - time.monotonic() < STOPPING:
                        break
                    child = Child(arguments.device, scale, arguments.scratch, limit - time.monotonic())
    finally:
        child.end(0.0 if sys.exc_info()[0] or how == CUT else 5.0)
    print(table(ledger.rows()), end="")
    left_over = [piece.name for piece in wanted if ledger.waits(piece.name)]
    if left_over:
        log.info("left for another call: %s", ", ".join(left_over))


def _wanted(only: list[str] | None, scale: Scale) -> list[Piece]:
    found = pieces(scale)
    unknown = sorted(set(only or ()) - {piece.name for piece in found})
    if unknown:
        raise ConfigError(f"--only: no piece {unknown[0]!r}; choose from {', '.join(piece.name for piece in found)}")
    return [piece for piece in found if not only or piece.name in only]


def parser() -> argparse.ArgumentParser:
    found = program.argument_parser(__doc__)
    found.add_argument(
        "--output", type=Path, default=Path("results/bench_gpu.json"), help="JSON that each call adds to"
    )
    found.add_argument("--minutes", type=float, default=9.0, help="after which the call has ended")
    found.add_argument("--only", nargs="+", metavar="PIECE", help="pieces to measure; all when not given")
    found.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the command out")
    found.add_argument("--scale", choices=list(SCALES), default="published", help="tiny: to try the command out")
    found.add_argument("--scratch", type=Path, default=Path("work/bench_gpu"), help="folder for data and weights")
    found.add_argument("--table", action="store_true", help="print the table of --output, without measuring")
    return found


if __name__ == "__main__":
    sys.exit(program.run(main, parser()))
