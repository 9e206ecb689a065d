"""One file, and all files of a folder: whether they are there, whole, readable, and read by anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from headstrong.data import image_checks
from headstrong.data.image_checks import NOWHERE, SUFFIXES
from headstrong.data.listings import load_image
from headstrong.data.verify_findings import Finding, Inventory
from headstrong.errors import UserError

DATA_SUFFIXES = (*SUFFIXES, ".npy")


def file_fault(root: Path, name: str) -> Finding | None:
    """What is wrong with a file that is to be read, before it is opened (`image_checks.file_fault`)."""
    fault = image_checks.file_fault(root / name)
    return Finding(fault[0], name, fault[1]) if fault else None


def look_at_picture(root: Path, name: str) -> list[Finding]:
    """The findings of one image file, by the checks of the reader: it is decoded to its end."""
    fault = file_fault(root, name)
    if fault is None:
        try:
            load_image(root / name)
        except UserError as error:
            said = str(error).removeprefix(f"{root / name}: ")
            fault = Finding("broken", name, said.replace(f"{root}{os.sep}", ""))
    return [fault] if fault else []


# --- files that nobody reads ---------------------------------------------------------------------------------------


def extras(inventory: Inventory) -> list[Finding]:
    """The files below the data set that its reader does not read. An image beside those that are read is a fault."""
    found, among = [], set(inventory.image_folders)
    for name, entry in _files(inventory.root):
        if name in inventory.used:
            continue
        if not entry.exists():
            found.append(Finding("broken", name, NOWHERE))
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
