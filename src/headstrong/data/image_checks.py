"""What makes a file of pictures unusable: one description for the readers, which refuse such a file, and `verify`.

A file that is absent, empty, a link to nowhere or not a file; an image of a kind that is not read; a file with the
bytes of another one. `image_errors` says what is wrong with the bytes of an image.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from headstrong.data.duplicates import FILES, in_two_splits

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


def twins(files: Sequence[Path], others: Sequence[Path] | None = None) -> dict[Path, Path]:
    """File -> the file with the same bytes that comes first among `others`, or, where `others` is None, before it.

    Files that cannot be read have no twin; `file_fault` finds those.
    """
    mine, theirs = ([path for path in one or () if file_fault(path) is None] for one in (files, others))
    if others is None:
        groups = {path.as_posix(): [path] for path in mine}
    else:
        groups = {"others": theirs, "files": mine}
    return {path: twin for twin, path in in_two_splits(groups, FILES)}
