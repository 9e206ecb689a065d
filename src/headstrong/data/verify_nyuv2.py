"""What should be there of NYU Depth v2, frame by frame, as its reader understands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.data import nyuv2
from headstrong.data.image_errors import UNREADABLE, reason
from headstrong.data.nyuv2_layouts import ArrayFolders, FrameFolders, LabelledMat, Layout, cropped, detect
from headstrong.data.verify_files import cut_short, file_fault
from headstrong.data.verify_findings import Count, Finding, Inventory, told
from headstrong.data.verify_values import depth_fault, normal_fault, share_fault, sizes
from headstrong.errors import MissingDataError, UserError

NYUV2 = {"train": 795, "test": 654}


def look_at_nyuv2(root: Path) -> Inventory:
    """NYU Depth v2 in any of its layouts; MissingDataError where there is none."""
    layout = detect(root)
    inventory = Inventory(root, layout.title, partial(_nyuv2_frame, layout, root), "frames")
    split_of: dict[str, str] = {}
    for split, official in NYUV2.items():
        try:
            names = layout.names(split)
        except UserError as error:
            inventory.said(error)
            continue
        for name in names:
            if name in split_of:
                again = f"frame {name} is listed twice, for {split_of[name]} and {split}"
                inventory.found("broken", root, again)
            split_of.setdefault(name, split)
        inventory.counts.append(Count(f"{split} frames", len(names), official))
    inventory.items = list(split_of)
    _nyuv2_files(inventory, layout)
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
                nyuv2.check_normals(layout)
            except MissingDataError:
                pass  # told of its frame
            except UserError as error:
                inventory.said(error)


def _nyuv2_frame(layout: Layout, root: Path, name: str) -> list[Finding]:
    if isinstance(layout, FrameFolders):
        return _images_of_frame(layout, root, name)
    if isinstance(layout, ArrayFolders):
        return _arrays_of_frame(layout, root, name)
    try:
        frame = layout.read(name, 13)
    except UserError as error:
        return [told(error, root)]
    fault = depth_fault(frame.depth)
    return [Finding("broken", f"nyu_depth_v2_labeled.mat: frame {name}", fault)] if fault else []


def _images_of_frame(layout: FrameFolders, root: Path, name: str) -> list[Finding]:
    paths = {kind: layout.path(name, kind).relative_to(root).as_posix() for kind in layout.kinds}
    pixels, found = _each(root, paths, lambda kind: layout.image(name, kind))
    found += [
        Finding("broken", paths[kind], cut) for kind in pixels if (cut := cut_short(root / paths[kind])) is not None
    ]
    if "depth" in pixels and (fault := depth_fault(pixels["depth"] / np.float32(1000))):
        found.append(Finding("broken", paths["depth"], fault))
    found += sizes(paths, pixels, "rgb")
    if not found:
        try:
            cropped(pixels["rgb"], pixels["depth"], pixels["label13"], str(layout.path(name, "rgb")))
        except UserError as error:
            found.append(told(error, root))
    return found


def _arrays_of_frame(layout: ArrayFolders, root: Path, name: str) -> list[Finding]:
    paths = {kind: layout.path(name, kind).relative_to(root).as_posix() for kind in layout.kinds}
    arrays, found = _each(root, paths, lambda kind: layout.array(name, kind))
    looks: dict[str, Callable[[NDArray[Any]], str | None]] = {
        "image": share_fault,
        "depth": depth_fault,
        "normal": normal_fault,
    }
    for kind, look in looks.items():
        if kind in arrays and (fault := look(arrays[kind])) is not None:
            found.append(Finding("broken", paths[kind], fault))
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
