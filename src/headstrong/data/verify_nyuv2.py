"""What should be there of NYU Depth v2, frame by frame, as its reader understands it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from headstrong.data import nyuv2
from headstrong.data.duplicates import in_two_splits, listed_twice, same_picture, twice
from headstrong.data.image_errors import UNREADABLE, reason
from headstrong.data.nyuv2_layouts import ArrayFolders, FrameFolders, LabelledMat, Layout, cropped, detect
from headstrong.data.value_rules import size_faults
from headstrong.data.verify_files import file_fault
from headstrong.data.verify_findings import Count, Finding, Inventory, told
from headstrong.errors import MissingDataError, UserError

NYUV2 = {"train": 795, "test": 654}


def look_at_nyuv2(root: Path) -> Inventory:
    """NYU Depth v2 in any of its layouts; MissingDataError where there is none."""
    layout = detect(root)
    inventory = Inventory(root, layout.title, partial(_nyuv2_frame, layout, root, None), "frames")
    splits: dict[str, list[str]] = {}
    for split, official in NYUV2.items():
        try:
            splits[split] = layout.names(split)
        except UserError as error:
            inventory.said(error)
            continue
        inventory.counts.append(Count(f"{split} frames", len(splits[split]), official))
    for name, one, other in listed_twice(splits):
        inventory.found("broken", root, twice(name, one, other))
    inventory.items = list(dict.fromkeys(name for names in splits.values() for name in names))
    _nyuv2_files(inventory, layout)
    if inventory.items:
        _same_pictures(inventory, layout, splits)
    inventory.findings = list(dict.fromkeys(inventory.findings))  # a broken list is complained of for each split
    return inventory


def _nyuv2_files(inventory: Inventory, layout: Layout) -> None:
    """Note the files that the reader reads, and what it complains of before it comes to single frames."""
    root = inventory.root
    if isinstance(layout, LabelledMat):
        inventory.used |= {layout.path.name, "splits.mat" if (root / "splits.mat").is_file() else "splits.csv"}
        try:
            if inventory.items:
                layout.check()
        except UserError as error:
            inventory.said(error)
            inventory.items = []
    elif isinstance(layout, ArrayFolders | FrameFolders):
        inventory.used |= {"splits.csv"} if isinstance(layout, FrameFolders) else set()
        paths = [layout.path(name, kind) for name in inventory.items for kind in layout.kinds]
        inventory.used.update(map(inventory.relative, paths))
        inventory.image_folders = sorted({inventory.relative(path.parent) for path in paths})
        if isinstance(layout, ArrayFolders) and inventory.items:
            try:
                axes = nyuv2.axes_of_normals(layout)
            except MissingDataError:
                pass  # told of its frame
            except UserError as error:
                inventory.said(error)
            else:
                inventory.look = partial(_nyuv2_frame, layout, root, axes)


def _same_pictures(inventory: Inventory, layout: Layout, splits: Mapping[str, Sequence[str]]) -> None:
    for one, other in in_two_splits(splits, layout.looks()):
        if one != other:  # else it is listed twice, which is reported already
            place = layout.place(one).replace(f"{inventory.root}{os.sep}", "")
            inventory.found("broken", Path(layout.place(other)), same_picture(place))


def _nyuv2_frame(layout: Layout, root: Path, axes: nyuv2.Axes | None, name: str) -> list[Finding]:
    if isinstance(layout, FrameFolders):
        return _images_of_frame(layout, root, name)
    if isinstance(layout, ArrayFolders):
        return _arrays_of_frame(layout, root, axes, name)
    try:
        layout.read(name, 13)
    except UserError as error:
        return [told(error, root)]
    return []


def _images_of_frame(layout: FrameFolders, root: Path, name: str) -> list[Finding]:
    paths = {kind: layout.path(name, kind).relative_to(root).as_posix() for kind in layout.kinds}
    pixels, found = _each(root, paths, lambda kind: layout.image(name, kind))
    found += [Finding("broken", paths[kind], fault) for kind, fault in size_faults(pixels, "rgb").items()]
    if not found:
        try:
            cropped(pixels["rgb"], pixels["depth"], pixels["label13"], str(layout.path(name, "rgb")))
        except UserError as error:
            found.append(told(error, root))
    return found


def _arrays_of_frame(layout: ArrayFolders, root: Path, axes: nyuv2.Axes | None, name: str) -> list[Finding]:
    paths = {kind: layout.path(name, kind).relative_to(root).as_posix() for kind in layout.kinds}
    arrays, found = _each(root, paths, lambda kind: layout.array(name, kind))
    if not found and axes is not None:
        try:
            nyuv2.check_normals(layout.frame(arrays), nyuv2.Stored(axes, layout.path(name, "normal")))
        except UserError as error:
            found.append(told(error, root))
    return found


def _each(
    root: Path, paths: Mapping[str, str], read: Callable[[str], NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], list[Finding]]:
    """The files of a frame that can be read, by kind, and what is wrong with the others."""
    arrays, found = {}, []
    for kind, path in paths.items():
        fault = file_fault(root, path)
        if fault is not None:
            found.append(fault)
            continue
        try:
            arrays[kind] = read(kind)
        except UserError as error:
            found.append(told(error, root))
        except UNREADABLE as error:
            found.append(Finding("broken", path, f"truncated or not what its name says ({reason(error)})"))
    return arrays, list(dict.fromkeys(found))  # an array complains of its broken image, and so do its brothers
