"""One file, and all files of a folder: whether they are there, whole, readable, and read by anybody."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from headstrong.data.image_errors import cut_short
from headstrong.data.image_folders import SUFFIXES
from headstrong.data.listings import load_image
from headstrong.data.verify_findings import Finding, Inventory
from headstrong.errors import UserError

DATA_SUFFIXES = (*SUFFIXES, ".npy")
_EMPTY, _NOWHERE = "an empty file", "a link to nowhere"


def file_fault(root: Path, name: str) -> Finding | None:
    """What is wrong with a file that is to be read, before it is opened: absent, a link to nowhere, empty, no file."""
    path = root / name
    try:
        found = path.stat()
    except OSError as error:
        if path.is_symlink():
            return Finding("broken", name, _NOWHERE)
        absent = isinstance(error, FileNotFoundError)
        return Finding("missing" if absent else "broken", name, f"no such file ({error.strerror})")
    if not stat.S_ISREG(found.st_mode):
        return Finding("broken", name, "not a file")  # a pipe would be waited for without end
    return None if found.st_size else Finding("broken", name, _EMPTY)


def look_at_picture(root: Path, name: str) -> list[Finding]:
    """The findings of one image file: it is decoded to its end, as the reader does it."""
    fault = file_fault(root, name)
    if fault is None:
        try:
            load_image(root / name)
        except UserError as error:
            said = str(error).removeprefix(f"{root / name}: ")
            return [Finding("broken", name, said.replace(f"{root}{os.sep}", ""))]
        cut = cut_short((root / name).read_bytes())
        fault = Finding("broken", name, cut) if cut else None
    return [fault] if fault else []


# --- files that nobody reads ---------------------------------------------------------------------------------------


def extras(inventory: Inventory) -> list[Finding]:
    """The files below the data set that its reader does not read. An image beside those that are read is a fault."""
    found, among = [], set(inventory.image_folders)
    for name, entry in _files(inventory.root):
        if name in inventory.used:
            continue
        if not entry.exists():
            found.append(Finding("broken", name, _NOWHERE))
            continue
        image = entry.name.lower().endswith(DATA_SUFFIXES) and not entry.name.startswith(".")
        fault = image and any(parent.as_posix() in among for parent in PurePosixPath(name).parents)
        reason = "an image that no list or folder of the data set has" if fault else "no reader uses it"
        empty = ", and it is empty" if entry.is_file() and not entry.stat().st_size else ""
        found.append(Finding("extra", name, reason + empty, fault))
    return found


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """(name relative to root, path) of all that is no folder; links to folders are followed, as the readers do it."""
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        here = os.path.realpath(place)
        if here in seen:
            folders.clear()  # a link to a folder above it
            continue
        seen.add(here)
        folders.sort()
        prefix = "" if place == str(root) else f"{Path(place).relative_to(root).as_posix()}/"
        for name in sorted(files):
            if not name.startswith("."):  # such as the record that `fetch` keeps; no reader looks at them either
                yield prefix + name, Path(place) / name
