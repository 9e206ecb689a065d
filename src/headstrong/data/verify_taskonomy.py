"""What should be there of Taskonomy, view by view, as its reader understands it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstrong.data import taskonomy, taskonomy_views
from headstrong.data.image_errors import UNREADABLE, reason
from headstrong.data.taskonomy_views import DOMAINS, LABELS, LAYOUTS, LISTS, View, groups, list_files, read_list
from headstrong.data.verify_files import cut_short, file_fault
from headstrong.data.verify_findings import Count, Finding, Inventory
from headstrong.data.verify_values import normal_fault, sizes
from headstrong.errors import BrokenFileError, MissingDataError, UserError

_COLOUR, _GREY, _DEEP = ("RGB", "RGBA"), ("L", "P"), ("I;16", "I;16B", "I")
_MODES = {"rgb": _COLOUR, "n": _COLOUR, "p": _COLOUR, "r": (*_COLOUR, "L", "LA"), "s": _GREY}
_SAID = {_COLOUR: "8-bit colour", _GREY: "8-bit grey", _DEEP: "16-bit grey", _MODES["r"]: "8-bit grey or colour"}

Images = tuple[str, dict[str, str]]  # name of a view, and letter -> path of the image that is there


def look_at_taskonomy(root: Path) -> Inventory:
    """Taskonomy in any of its layouts: every view should have every label. MissingDataError where there is no view."""
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; place Taskonomy there (docs/data.md lists the layouts)")
    inventory = Inventory(root, "", partial(_look_at_view, root), "views")
    views, places = _views(inventory), dict[str, str]()
    for view in views:
        paths = {letter: inventory.relative(view.path(root, letter)) for letter in ("rgb", *view.letters)}
        if view.name in places:
            inventory.found("broken", root / paths["rgb"], f"the same view as {places[view.name]}")
        places.setdefault(view.name, paths["rgb"])
        inventory.items.append((paths["rgb"], paths))
        inventory.used.update(paths.values())
    if not views:
        raise MissingDataError(f"{root}: no point_P_view_V_domain_rgb.png below it; docs/data.md lists the layouts")
    layouts = sorted({LAYOUTS[view.layout] for view in views})
    inventory.layout = " and ".join(layout.replace("{", "<").replace("}", ">") for layout in layouts)
    inventory.image_folders = sorted({name.rpartition("/")[0] for name in inventory.used})
    _absent_labels(inventory, views)
    buildings = {view.building for view in views}
    inventory.counts = [Count("buildings", len(buildings)), Count("views", len(views))]
    _lists(inventory, buildings)
    return inventory


def _views(inventory: Inventory) -> list[View]:
    def odd(error: BrokenFileError) -> None:
        inventory.said(error)
        inventory.used.add(inventory.findings[-1].path)  # told of already

    root = inventory.root
    return sorted(view for group in groups(root) for view in taskonomy_views.views(root, *group, odd))


def _absent_labels(inventory: Inventory, views: Sequence[View]) -> None:
    """One finding for a label that no view has, else one for each view without it."""
    for letter in LABELS:
        lacking = [view for view in views if letter not in view.letters]
        if lacking and len(lacking) == len(views):
            many = f"no image of this label (task {letter}) in any of {len(lacking)} views"
            inventory.findings.append(Finding("missing", DOMAINS[letter][0], many))
            continue
        for view in lacking:
            inventory.found("missing", view.candidates(inventory.root, letter)[0], "no such file")


def _lists(inventory: Inventory, there: set[str]) -> None:
    """Count the buildings of the official lists that lie beside the data."""
    for name in LISTS:
        for path in list_files(inventory.root, name)[:1]:
            inventory.used.add(inventory.relative(path))
            try:
                listed = {building for found in read_list(path).values() for building in found}
            except UserError as error:
                inventory.said(error)
                continue
            inventory.counts.append(Count(f"buildings of {name}", len(listed & there), len(listed)))


def _look_at_view(root: Path, view: Images) -> list[Finding]:
    paths = view[1]
    pixels: dict[str, NDArray[Any]] = {}
    found = []
    for letter, path in paths.items():
        try:
            fault, array = _look_at_image(root / path, letter)
        except UNREADABLE as error:
            empty = file_fault(root, path)
            found.append(empty or Finding("broken", path, f"truncated or not an image ({reason(error)})"))
            continue
        pixels[letter] = array
        if fault is not None:
            found.append(Finding("broken", path, fault))
    return found + sizes(paths, pixels, "rgb")


def _look_at_image(path: Path, letter: str) -> tuple[str | None, NDArray[Any]]:
    """What is wrong with one image, and its pixels."""
    with Image.open(path) as image:
        image.load()
        mode, pixels = image.mode, np.asarray(image)
    cut = cut_short(path)
    if cut is not None:
        return cut, pixels
    wanted = _COLOUR if letter == "s" and taskonomy.in_colour(path) else _MODES.get(letter, _DEEP)
    if mode not in wanted:
        return f"an image of mode {mode}, expected {_SAID[wanted]}", pixels
    if letter == "s":
        return taskonomy.class_fault(path, pixels), pixels
    if letter in "dD" and not pixels.any():
        return "depth is 0 everywhere", pixels
    if letter == "n":
        vectors = pixels[..., :3] / 127.5 - 1
        vectors[~pixels[..., :3].any(axis=-1)] = 0  # black: none
        return normal_fault(vectors), pixels
    return None, pixels
