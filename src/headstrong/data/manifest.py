"""What a data file was made of: a manifest beside it, `<name>.manifest.json`.

output, bytes, sha256: of the data file. settings, code: what decided its content. counts: rows, and for how many each
label is absent; skipped: what was left out and why. inputs: how many files were read, their bytes, and a digest of
files, the list of (path below the data set's folder, bytes, time of the last change in ns), a line each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.provenance import atomic_path, file_digest

FORMAT = "headstrong-manifest-1"


@dataclass(frozen=True)
class Inputs:
    """The files that a data file is made of. root: the data set's folder. of_rows: those read for a range of rows.
    of_all: those read for every row, such as lists of labels. facts: what else is known of rows before they are
    read."""

    root: Path
    of_rows: Callable[[range], Iterable[Path]]
    of_all: tuple[Path, ...] = ()
    facts: Callable[[range], str] = lambda rows: ""

    def lines(self, rows: range) -> Iterator[tuple[str, int, int]]:
        """(path below the root, bytes, time of the last change in ns) of every file for these rows.

        Raises MissingDataError for one that cannot be read.
        """
        for path in (*self.of_all, *self.of_rows(rows)):
            try:
                found = path.stat()
            except OSError as error:
                raise MissingDataError(f"{path}: cannot be read ({error.strerror}); get it again") from error
            yield os.path.relpath(path, self.root), found.st_size, found.st_mtime_ns

    def digest(self, rows: range) -> str:
        """A digest of what `lines` gives and of the facts: it changes when a file does. Raises as `lines`."""
        digest = hashlib.sha256(self.facts(rows).encode("utf-8", "surrogateescape"))
        for line in self.lines(rows):
            digest.update(json.dumps(line).encode())
        return digest.hexdigest()


def path_of(output: Path) -> Path:
    """The manifest of a data file."""
    return output.with_name(f"{output.stem}.manifest.json")


def write(output: Path, facts: dict[str, Any], inputs: Inputs | None, rows: int) -> None:
    """Write the manifest of a data file that is whole; facts: what is known of it, as plain data.

    inputs: None where it was made of no files, as rendered data. rows: how many it has. Raises as `Inputs.lines`.
    """
    files, size, digest = 0, 0, hashlib.sha256()
    with atomic_path(path_of(output)) as partial, partial.open("w", encoding="utf-8") as handle:
        head = {"format": FORMAT, "output": output.name, "bytes": output.stat().st_size, "sha256": file_digest(output)}
        text = json.dumps({**head, **facts}, indent=1, ensure_ascii=False, sort_keys=True)
        # The list of files may be long: it is written as it comes, a line each.
        handle.write(f'{text[:-2]},\n "files": [')
        for line in inputs.lines(range(rows)) if inputs else ():
            written = json.dumps(line)
            handle.write(f"{',' if files else ''}\n  {written}")
            digest.update(f"{written}\n".encode())
            files, size = files + 1, size + line[1]
        total = json.dumps({"files": files, "bytes": size, "sha256": digest.hexdigest()}, sort_keys=True)
        handle.write(f'\n ],\n "inputs": {total}\n}}\n')


def check(output: Path) -> dict[str, Any]:
    """The manifest of a data file, which must be the file that it was written for.

    Raises MissingDataError where there is none, BrokenFileError where the file has changed since.
    """
    path = path_of(output)
    if not path.is_file() or not output.is_file():
        absent = path if output.is_file() else output
        raise MissingDataError(f"{absent}: no such file; run the command that makes {output.name}")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        expected = found["bytes"], found["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenFileError(
            f"{path}: not a manifest ({error}); delete it and {output.name} and make both again"
        ) from error
    if (output.stat().st_size, file_digest(output)) != expected:
        raise BrokenFileError(f"{output}: not the file that {path.name} tells of; delete both and make them again")
    return found
