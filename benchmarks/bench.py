"""Every benchmark, side by side with peers, into one table.

    python -m benchmarks.bench --output results/bench.json [--only attacks planning] [--rounds 5]
    python -m benchmarks.bench --docs docs/benchmarks.md --output results/reference/bench.json

The second line measures nothing: it puts the table of a result into a page. Absolute times are those of this machine;
ratios count. A target that is missed is told in the table and does not fail the run; results that should be equal and
are not do.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from benchmarks import attacking, closing, memory, planning, starting, stepping
from benchmarks.peers import MAKERS, titled
from benchmarks.rows import Row, read_rows, table, write_rows
from benchmarks.scene import Scene
from headstrong import program
from headstrong.provenance import RunRecord, write_atomically

START, END = "<!-- table: python -m benchmarks.bench --docs -->\n", "<!-- end of table -->\n"
TOPICS: dict[str, Callable[[Scene, int], Iterable[Row]]] = {
    "attacks": attacking.pgd_rows,
    "balanced": lambda scene, rounds: attacking.balanced_rows(scene, 2 * rounds),
    "training": lambda scene, rounds: stepping.training_rows(scene, 3 * rounds),
    "closed-form": lambda _, rounds: closing.closed_form_rows(rounds),
    "planning": lambda scene, rounds: planning.planning_rows(scene.folder, min(rounds, 3)),
    "starting": starting.starting_rows,
    "memory": lambda scene, _: memory.memory_rows(scene, 1),
}


def main(arguments: argparse.Namespace) -> None:
    if arguments.docs is not None:
        write_atomically(arguments.docs, with_table(arguments.docs.read_text(encoding="utf-8"), arguments.output))
        return
    warnings.simplefilter("ignore")  # peers' own
    torch.set_num_threads(1)
    facts = {
        "rounds": arguments.rounds,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "peers": [titled(name) for name in (*MAKERS, "LibMTL")],
    }
    record = arguments.output.with_name(f"{arguments.output.stem}.run.json")
    with (
        RunRecord(record, rule="bench", outputs=[arguments.output], facts=facts),
        tempfile.TemporaryDirectory() as scratch,
    ):
        scene = Scene(Path(scratch))
        rows: list[Row] = []
        for topic in arguments.only or TOPICS:
            for row in TOPICS[topic](scene, arguments.rounds):
                logging.info("%s: ours %s, peer %s, ratio %s", row.name, row.ours, row.peer, row.ratio)
                rows.append(row)
            write_rows(arguments.output, rows)  # what is measured is kept, whatever comes later
    print(table(rows), end="")


def with_table(page: str, path: Path) -> str:
    """A page with the table of a result in its place. Raises ValueError where the page has no place for it."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError("the page has no place for the table")
    return f"{before}{start}{table(read_rows(path))}{end}{after}"


def parser() -> argparse.ArgumentParser:
    found = program.argument_parser(__doc__)
    found.add_argument("--output", type=Path, default=Path("results/bench.json"), help="JSON of the rows")
    found.add_argument("--only", nargs="+", choices=list(TOPICS), help="topics; all when not given")
    found.add_argument("--rounds", type=int, default=5, help="rounds in which all ways take turns")
    found.add_argument("--docs", type=Path, help="a page to put the table of --output into, without measuring")
    return found


if __name__ == "__main__":
    sys.exit(program.run(main, parser()))
