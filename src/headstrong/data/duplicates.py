"""The same picture in two splits of a data set: a model would be tested on what it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

_TAIL = 64  # bytes; the end of a PNG has a checksum of its pixels
_READERS = 16  # files looked at side by side: what takes time is to open them


def listed_twice(splits: Mapping[str, Sequence[str]]) -> list[tuple[str, str, str]]:
    """(name, split, split) of every name that comes again, in the same split or in another."""
    first: dict[str, str] = {}
    again = []
    for split, names in splits.items():
        for name in names:
            if name in first:
                again.append((name, first[name], split))
            first.setdefault(name, split)
    return again


def in_two_splits(
    splits: Mapping[str, Iterable[Item]], looks: Sequence[Callable[[Item], Hashable]]
) -> list[tuple[Item, Item]]:
    """Pairs of items of two splits that are the same by every look, each pair once, by the order of the later split.

    looks: what may tell one item from another, the cheapest first; a later one is asked only about items that the
    earlier ones cannot tell apart from one in another split.
    """
    groups = [[(split, item) for split, items in splits.items() for item in items]]
    with ThreadPoolExecutor(_READERS) as readers:
        for look in looks:
            parts: dict[Hashable, list[tuple[str, Item]]] = {}
            for number, group in enumerate(groups):
                for one, seen in zip(group, readers.map(look, [item for _, item in group]), strict=True):
                    parts.setdefault((number, seen), []).append(one)
            groups = [part for part in parts.values() if len({split for split, _ in part}) > 1]
    return [(group[0][1], item) for group in groups for split, item in group if split != group[0][0]]


def twice(name: str, one: str, other: str) -> str:
    """What is wrong with a frame that is listed for two splits, or twice for one."""
    return f"frame {name} is listed twice, for {one} and {other}"


def same_picture(place: object) -> str:
    """What is wrong with a picture that another split has as well. place: where that one has it."""
    return f"the same picture as {place}, expected in one split only"


def file_size(path: Path) -> int | str:
    """Bytes of a file; of one that is not there, something that no other file has."""
    return path.stat().st_size if path.is_file() else str(path)


def file_tail(path: Path) -> bytes:
    """The last bytes of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


def file_content(path: Path) -> str:
    """A digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


FILES: tuple[Callable[[Path], Hashable], ...] = (file_size, file_tail, file_content)
