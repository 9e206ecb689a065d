"""The output of `make bench-gpu`: what was measured on which device, with which torch and code, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_jobs import read_jobs
from benchmarks.gpu_study import from_record, study_rows
from benchmarks.rows import Row, absent, check_row
from headstrong.errors import BrokenFileError
from headstrong.provenance import write_atomically

FORMAT = "headstrong-bench-gpu-1"
TRIES = 2  # calls in which a piece that fails is tried
DONE, FAILED, CUT = "done", "failed", "interrupted"


@dataclass
class Ledger:
    """All that is known, written to `path` after every piece.

    key: device, torch and code that the numbers belong to. facts: of the device, and numbers that pieces leave for
    others. pieces: by name how it ended, its seconds, in how many calls it was tried, and its rows. runs: of the study.
    """

    path: Path
    key: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    pieces: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def opened(path: Path, key: dict[str, Any]) -> Ledger:
        """What earlier calls left at `path`. What was measured with another key is moved aside, not lost.

        Raises BrokenFileError where the file is something else.
        """
        ledger = Ledger(path, key)
        if not path.is_file():
            return ledger
        content = read(path)
        if content["key"] != key:
            path.replace(_free(path))
            return ledger
        return Ledger(path, key, content["facts"], content["pieces"], content["runs"])

    def waits(self, piece: str) -> bool:
        """Whether a piece is still to be measured."""
        found = self.pieces.get(piece)
        return found is None or found["how"] == CUT or (found["how"] == FAILED and found["tries"] < TRIES)

    def expected(self, piece: str, usual: float, most: float) -> float:
        """Seconds that a piece is expected to take: the usual, or more than it had when interrupted; at most `most`."""
        found = self.pieces.get(piece, {})
        return min(most, max(usual, 1.5 * found["seconds"])) if found.get("how") == CUT else usual

    def ended(self, piece: str, how: str, seconds: float, rows: Sequence[Row]) -> None:
        """Note how a piece ended, and write."""
        tries = self.pieces.get(piece, {}).get("tries", 0) + (how == FAILED)
        kept = [asdict(row) for row in rows]
        self.pieces[piece] = {"how": how, "seconds": round(seconds, 2), "tries": tries, "rows": kept}
        self.write()

    def add_run(self, record: dict[str, Any]) -> None:
        """Note a run of the study, in place of what was known of it, and write."""
        self.runs = [one for one in self.runs if one["id"] != record["id"]] + [record]
        self.write()

    def rows(self) -> list[Row]:
        """The rows of all pieces, and those that follow from the runs of the study."""
        found = [row for piece in self.pieces.values() for row in _rows(piece["rows"])]
        runs = [from_record(one) for one in self.runs]
        failed = [absent(f"{one.stratum} tasks: {one.id}", "s", one.failed) for one in runs if one.failed]
        return [*found, *study_rows(read_jobs(), runs, int(self.facts.get("side by side", 1))), *failed]

    def write(self) -> None:
        """Write all of it; the file appears only when whole."""
        content = {
            "format": FORMAT,
            "key": self.key,
            "facts": self.facts,
            "rows": [asdict(row) for row in self.rows()],
            "pieces": self.pieces,
            "runs": self.runs,
        }
        write_atomically(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """The content of an output. Raises BrokenFileError where it is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        rows = _rows(content["rows"])
        shapes = {"key": dict, "facts": dict, "pieces": dict, "runs": list}
        if not all(isinstance(content[name], kind) for name, kind in shapes.items()):
            raise ValueError("its parts are of other kinds")
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BrokenFileError(f"{path}: not an output of `make bench-gpu` ({reason}); delete it") from None
    for row in rows:
        check_row(row, path)
    return content


def rows_of(path: Path) -> list[Row]:
    """The rows of an output. Raises BrokenFileError where it is none."""
    return _rows(read(path)["rows"])


def _rows(found: Sequence[dict[str, Any]]) -> list[Row]:
    return [Row(**{**row, "spread": row["spread"] and tuple(row["spread"])}) for row in found]


def _free(path: Path) -> Path:
    number = 1
    while (other := path.with_name(f"{path.stem}.before-{number}{path.suffix}")).exists():
        number += 1
    return other
