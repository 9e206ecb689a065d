"""What makes a file of pictures unusable: one description for the readers, which refuse such a file, and `verify`.

A file that is absent, empty, a link to nowhere or not a file; an image that is cut short or damaged after the pixels
that Pillow decodes; a file with the bytes of another one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")  # the images that are read
# Names that mean an image as well: where the readers look for images, one of these is refused, not passed over.
UNREAD = (".tif", ".tiff", ".gif", ".jfif", ".jpe", ".jp2", ".avif", ".heic", ".heif", ".pgm", ".pbm", ".pnm", ".tga")
NOWHERE = "a link to nowhere"
Fault = tuple[str, str]  # kind as in `verify_findings.KINDS`, reason


def file_fault(path: Path) -> Fault | None:
    """What is wrong with a file before it is opened: absent, a link to nowhere, empty, or not a file; None: nothing."""
    try:
        found = path.stat()
    except OSError as error:
        if path.is_symlink():
            return "broken", NOWHERE
        return "missing" if isinstance(error, FileNotFoundError) else "broken", f"no such file ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):
        return "broken", "not a file"  # reading a pipe would wait forever
    return None if found.st_size else ("broken", "an empty file")


# --- the end of a file ---------------------------------------------------------------------------------------------


def cut_short(path: Path) -> str | None:
    """What is wrong with the end of an image file, as `cut_end`."""
    return cut_end(path.read_bytes())


def cut_end(data: bytes) -> str | None:
    """What is wrong with the end of an image whose pixels can be decoded: Pillow stops reading at the last one,
    and what comes after it may be cut off. None: nothing, or another format than PNG, JPEG, WebP and BMP."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_fault(data)
    # Within the pixels 0xff is followed by 0, so that both are what they look like.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        return "truncated: the end-of-image marker is not there"
    sized = {b"RIFF": (4, 8), b"BM": (2, 0)}
    for magic, (start, before) in sized.items():
        said = int.from_bytes(data[start : start + 4], "little") + before
        if data.startswith(magic) and len(data) < said:
            return f"truncated: {len(data)} bytes, its header says {said}"
    return None


def _png_fault(data: bytes) -> str | None:
    """The first chunk that is cut off or whose checksum is not that of its bytes."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"damaged: wrong checksum in chunk {name.decode('latin-1')}"
        if name == b"IEND":
            return None
        at = end
    return "truncated: the last chunk, IEND, is not there"


# --- the same picture twice ----------------------------------------------------------------------------------------


def twins(files: Sequence[Path], others: Sequence[Path] | None = None) -> dict[Path, Path]:
    """File -> the file with the same bytes that comes first among `others`, or, where `others` is None, before it.

    Only files whose size occurs again are read. Files that are empty or cannot be read have no twin; `file_fault` finds
    those.
    """
    theirs = files if others is None else others
    sizes = {path: _size(path) for path in (*files, *theirs)}
    if others is None:
        shared = {size for size, many in Counter(sizes.values()).items() if many > 1}
    else:
        shared = {sizes[path] for path in files} & {sizes[path] for path in others}
    first: dict[str, Path] = {}
    found: dict[Path, Path] = {}
    for path in theirs:
        if sizes[path] in shared and (digest := _digest(path)):
            original = first.setdefault(digest, path)
            if others is None and original != path:
                found[path] = original
    for path in () if others is None else files:
        if sizes[path] in shared and (digest := _digest(path)) in first:
            found[path] = first[digest]
    return found


def _size(path: Path) -> int:
    try:
        known = os.stat(path)
    except OSError:
        return 0
    return known.st_size if stat.S_ISREG(known.st_mode) else 0


def _digest(path: Path) -> str:
    """The SHA-256 of a file; "" for one that is empty or cannot be read."""
    try:
        if not path.stat().st_size:
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
