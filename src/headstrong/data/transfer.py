"""What a download knows and says while bytes arrive: what to expect, what an earlier try left, how far it is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstrong.errors import DownloadError
from headstrong.provenance import write_atomically

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_SPARE = 16 << 20  # bytes left free beside what is counted: records, folders


@dataclass(frozen=True)
class Expected:
    """What a file must be, as far as it is known; `source` says who says so."""

    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    source: str = "the registry"

    @property
    def checksum(self) -> bool:
        """Whether the bytes themselves can be checked."""
        return bool(self.md5 or self.sha256)

    def check(self, path: Path) -> tuple[str, str | None]:
        """SHA-256 of a file, and what is wrong with it, None where it is as expected."""
        size = path.stat().st_size
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with path.open("rb") as handle:
            while block := handle.read(_BLOCK):
                sha256.update(block)
                md5.update(block)
        digest = sha256.hexdigest()
        if self.bytes is not None and size != self.bytes:
            return digest, f"{size} bytes, expected {self.bytes}"
        for name, found, wanted in (("MD5", md5.hexdigest(), self.md5), ("SHA-256", digest, self.sha256)):
            if wanted is not None and found != wanted:
                return digest, f"{name} {found}, expected {wanted} ({self.source})"
        return digest, None


class Partial:
    """The part of a file that has arrived, beside its place, and what the server said of the whole.

    A killed download leaves both; the next goes on from there if the server still has the same file.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._notes = target.with_name(f".{target.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def notes(self) -> dict[str, Any]:
        """url, etag, modified and total as they were at the start; empty where there are none that can be read."""
        try:
            found = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def start(self, notes: dict[str, Any]) -> None:
        """Throw away what there is, and note what the whole will be."""
        self.remove()
        write_atomically(self._notes, json.dumps(notes) + "\n")

    def remove(self) -> None:
        """Leave nothing."""
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def rename(self, target: Path) -> None:
        """Put the whole file into its place."""
        os.replace(self.path, target)
        self._notes.unlink(missing_ok=True)


class ByteProgress:
    """How far a download is: a bar on a terminal, else a line in the log for every tenth, or for every 100 MB."""

    def __init__(self, title: str, done: int, total: int | None) -> None:
        self._title, self._done, self._total = title, done, total
        self._step = max(total // 10, 10_000_000) if total else 100_000_000
        self._said = done // self._step
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=title, unit="B", unit_scale=True)

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._done // self._step > self._said:
            self._said = self._done // self._step
            of = f" of {amount(self._total)}" if self._total else ""
            log.info("%s: %s%s", self._title, amount(self._done), of)


def amount(count: int) -> str:
    """Bytes in words: 170.5 MB."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def check_room(folder: Path, needed: int, what: str) -> None:
    """DownloadError unless the disk of a folder, or of the nearest folder above it, has `needed` bytes free."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > 0 and needed + _SPARE > free:
        raise DownloadError(
            f"{folder}: {what} needs {amount(needed)}, {amount(free)} are free on that disk; make room, or use --root"
        )
