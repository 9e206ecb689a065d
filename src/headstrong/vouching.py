"""Whether a file is the one that a job left there: its digest against that in the run record beside it.

A result that was copied over another has the right format, and may have the right shapes, tasks and classes as well.
What would be made of it would look like a result of the study.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstrong.errors import BrokenFileError


def check_vouched(path: Path, digest: str, form: str, *, in_study: bool) -> None:
    """BrokenFileError where a record beside `path` vouches for another file of that name.

    digest: SHA-256 of the file as it is. form: the format of records; others are not asked. in_study: every file is
    where its job left it, so one whose record knows it under another name was put there with its record. A file without
    a record is taken as it is: a person may have put it there.
    """
    for record in records_beside(path):
        named = _named(record, form)
        own = Path(os.path.abspath(path))
        if own in named and named[own] != digest:
            raise BrokenFileError(
                f"{path}: not the file that its record {record} vouches for, another was put in its place; delete both "
                "and run the command that made them again"
            )
        if in_study and own not in named and digest in named.values():
            known = next(name for name, found in named.items() if found == digest)
            raise BrokenFileError(
                f"{path}: its record {record} says it is {os.path.relpath(known)}; delete both and run the command "
                "that made them again"
            )


def records_beside(path: Path) -> Iterator[Path]:
    """Where the record of a result may be: of its name, or one for its folder."""
    names = (path.with_suffix(".json"), path.with_suffix(".run.json"), path.with_name("run.json"))
    return (name for name in names if name != path and name.is_file())


def _named(record: Path, form: str) -> dict[Path, str]:
    """Digests of the files that a record vouches for, by path; empty where it is none."""
    try:
        content: Any = json.loads(record.read_text(encoding="utf-8"))
        if content["format"] != form:
            return {}
        root = record.absolute().parent / content["root"]
        return {Path(os.path.abspath(root / name)): str(digest) for name, digest in content["outputs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # JSON of another kind; a record that is damaged vouches for nothing, and `why` says so
