"""What should be there of Taskonomy, view by view, as its reader understands it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.data import taskonomy, taskonomy_views
from headstrong.data.duplicates import same_picture
from headstrong.data.taskonomy_views import DOMAINS, LABELS, LAYOUTS, View, groups, list_files, list_names, read_list
from headstrong.data.value_rules import refuse, size_faults
from headstrong.data.verify_files import file_fault
from headstrong.data.verify_findings import Count, Finding, Inventory, told
from headstrong.errors import BrokenFileError, MissingDataError, UserError

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
    _same_pictures(inventory, views)
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


def _same_pictures(inventory: Inventory, views: Sequence[View]) -> None:
    """Views that have one picture: which split each is for, the study decides, so no two may."""
    for one, other in taskonomy_views.same_pictures(inventory.root, {view.name: [view] for view in views}):
        inventory.found("broken", other, same_picture(inventory.relative(one)))


def _lists(inventory: Inventory, there: set[str]) -> None:
    """Count the buildings of the lists that lie beside the data."""
    for name in list_names(inventory.root):
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
        fault = file_fault(root, path)
        if fault is not None:
            found.append(fault)
            continue
        try:
            pixels[letter] = np.asarray(taskonomy.opened(root / path, letter))
            refuse(root / path, taskonomy.value_fault(letter, root / path, pixels[letter]))
        except UserError as error:
            found.append(told(error, root))
    return found + [Finding("broken", paths[kind], fault) for kind, fault in size_faults(pixels, "rgb").items()]
