"""Annotations in text files: read by line, so that what is wrong is said with file, line and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from headstrong.errors import BrokenFileError, MissingDataError

Line = tuple[int, str]  # number from 1, text without white space around it


def wrong(path: Path, number: int, found: str, expected: str) -> BrokenFileError:
    """The error of a line that is not what it should be."""
    return BrokenFileError(f"{path} line {number}: {found}, expected {expected}; get the file again")


def read_lines(path: Path) -> list[Line]:
    """The lines that are not blank; MissingDataError where there is no file, BrokenFileError where it is not text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _absent(path) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise BrokenFileError(f"{path}: not a text file ({reason}); get it again") from error
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in lines if line]


def check_files(*paths: Path, why: str = "") -> None:
    """MissingDataError for a list that is not there. why: what needs it, for the message."""
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise _absent(absent, why)


def _absent(path: Path, why: str = "") -> MissingDataError:
    return MissingDataError(f"{path}: no such file{why}; place it there (docs/data.md)")


def split_columns(path: Path, line: Line, columns: int, separator: str | None = None) -> list[str]:
    """The columns of a line, so many, else BrokenFileError; separator: None is white space."""
    fields = line[1].split(separator)
    if len(fields) != columns:
        raise wrong(path, line[0], f"{len(fields)} columns", str(columns))
    return fields


def whole(path: Path, number: int, text: str, allowed: range, what: str) -> int:
    """A whole number in a range; BrokenFileError for another text. what: what the number is, for the message."""
    expected = f"a {what} of {allowed[0]} to {allowed[-1]}"
    # Not int() alone: it takes "1_0" and other digits than ASCII's as well.
    if not (text.isascii() and text.removeprefix("-").isdigit()) or int(text) not in allowed:
        raise wrong(path, number, f"'{text}'", expected)
    return int(text)


def body(path: Path, lines: Sequence[Line], is_header: Callable[[str], bool]) -> list[Line]:
    """The rows of a list that may begin with their number, then with the columns' names, or with one of the two.

    is_header: whether a line has names of columns. BrokenFileError where the number is not that of the rows.
    """
    rows = list(lines)
    count = int(rows[0][1]) if rows and rows[0][1].isascii() and rows[0][1].isdigit() else None
    if count is not None:
        rows = rows[1:]
    if rows and is_header(rows[0][1]):
        rows = rows[1:]
    if count is not None and count != len(rows):
        raise wrong(path, lines[0][0], f"{count} rows said, {len(rows)} follow", "as many as said")
    return rows


def once(path: Path, names: Iterable[tuple[int, str]]) -> dict[str, int]:
    """Name -> number of its line; BrokenFileError for a name that comes twice."""
    found: dict[str, int] = {}
    for number, name in names:
        if name in found:
            raise wrong(path, number, f"'{name}' again, as in line {found[name]}", "each name once")
        found[name] = number
    return found


def check_same(path: Path, names: dict[str, int], other: Path, others: dict[str, int]) -> None:
    """BrokenFileError where two lists do not have the same names; each is name -> number of its line."""
    for one, found, two, rest in ((path, names, other, others), (other, others, path, names)):
        lacking = next((name for name in found if name not in rest), None)
        if lacking is not None:
            raise wrong(one, found[lacking], f"'{lacking}', which {two} has not got", "the same names in both")
