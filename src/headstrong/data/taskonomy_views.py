"""Which views a Taskonomy folder has, in which layout, with which labels, and to which split each belongs."""

from __future__ import annotations

import contextlib
import csv
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from headstrong.data.duplicates import FILES, in_two_splits, same_picture
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError

# letter -> (the domain's folder, its name in file names), either spelling in both places
DOMAINS: dict[str, tuple[str, ...]] = {
    "rgb": ("rgb",),
    "s": ("segment_semantic", "segmentsemantic", "semantic"),
    "d": ("depth_zbuffer",),
    "D": ("depth_euclidean",),
    "n": ("normal",),
    "k": ("keypoints2d",),
    "K": ("keypoints3d",),
    "e": ("edge_texture",),
    "E": ("edge_occlusion",),
    "p": ("principal_curvature",),
    "r": ("reshading",),
}
LABELS = "".join(letter for letter in DOMAINS if letter != "rgb")
# The last one is as the public downloader (omnitools) writes it; its component has the name of the data set.
COMPONENT = "taskonomy"
LAYOUTS = ("{building}/{domain}", "{domain}/{building}", "{domain}", f"{{domain}}/{COMPONENT}/{{building}}")
LISTS = ("tiny", "medium", "fullplus", "full")
RULES = ("point", "buildings")
MISSING = ("mask", "drop", "fail")
ABSENT = ("fail", "skip")
COLUMNS = {"train": "train", "validation": "val", "test": "test"}  # split -> column of the official lists
LAST_TRAINING_POINT = 1199
_LIST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME = re.compile(r"point_(\d+)_view_(\d+)_domain_(\w+)\.png")
log = logging.getLogger(__name__)


class View(NamedTuple):
    """One camera view with a colour image. building: "" where the folder holds one. layout: number in LAYOUTS.
    letters: of the labels that are there."""

    building: str
    point: int
    view: int
    layout: int
    letters: str

    @property
    def name(self) -> str:
        """Unique in the data set."""
        return f"{self.building}/point_{self.point}_view_{self.view}".lstrip("/")

    def candidates(self, root: Path, letter: str) -> list[Path]:
        """Where the image of a domain may lie."""
        names = DOMAINS[letter]
        folders = [root / LAYOUTS[self.layout].format(building=self.building, domain=name) for name in names]
        files = [f"point_{self.point}_view_{self.view}_domain_{name}.png" for name in names]
        return [folder / file for folder in folders for file in files]

    def path(self, root: Path, letter: str) -> Path:
        """The image of a domain; of those that there may be, the first that is there, else the first."""
        places = self.candidates(root, letter)
        return next((place for place in places if place.is_file()), places[0]) if len(places) > 1 else places[0]


Buildings = str | Mapping[str, Sequence[str]]  # the name of a list, or buildings by split


def choose(
    root: Path,
    split: str,
    buildings: Buildings | None = None,
    rule: str = "buildings",
    missing: str = "mask",
    absent: str = "fail",
) -> list[View]:
    """The views of a split ("train", "validation", "test"), by building, point and view.

    buildings: the name of a list that lies beside the data, official (LISTS) or of one's own, or the buildings
    themselves by split; None: none. rule: "point", or "buildings", by that list, else every fifth for testing; where
    there is only one building, by point. missing: what becomes of views that lack a label: "mask" keeps them, "drop"
    leaves them out, "fail" raises MissingDataError. absent: what becomes of listed buildings without images: "skip"
    leaves them out and logs which, "fail" raises MissingDataError.
    Raises MissingDataError for what is not there, BrokenFileError for a list or a file name that is not as it should
    be, ConfigError for settings that do not go together.
    """
    for key, value, known in (
        ("split_rule", rule, RULES),
        ("missing_labels", missing, MISSING),
        ("absent_buildings", absent, ABSENT),
    ):
        if value not in known:
            raise ConfigError(f"taskonomy: {key} '{value}' is unknown; choose from {', '.join(map(str, known))}")
    if isinstance(buildings, str) and not _LIST_NAME.fullmatch(buildings):
        raise ConfigError(f"taskonomy: buildings '{buildings}' is not the name of a list, such as {', '.join(LISTS)}")
    if split not in COLUMNS:
        raise ConfigError(f"taskonomy: split '{split}' is unknown; choose from {', '.join(COLUMNS)}")
    every = find(root)
    views = _split(root, every, split, buildings, rule, absent)
    if not views:
        raise MissingDataError(
            f"{root}: no view is for split '{split}'; place more of the data (docs/data.md, taskonomy)"
        )
    splits = {split: views}
    for name in ("train", "test"):
        with contextlib.suppress(MissingDataError):  # raised where that split is asked for
            splits.setdefault(name, _split(root, every, name, buildings, rule, absent))
    for one, other in same_pictures(root, splits):
        raise BrokenFileError(f"{other}: {same_picture(one)}; remove one of the two")
    return _whole(root, views, split, missing)


def same_pictures(root: Path, splits: Mapping[str, Sequence[View]]) -> list[tuple[Path, Path]]:
    """Pairs of files with the same colour image, for two splits."""
    return in_two_splits({split: [view.path(root, "rgb") for view in views] for split, views in splits.items()}, FILES)


def find(root: Path) -> list[View]:
    """Every view with a colour image, sorted; MissingDataError where there is none.

    Raises BrokenFileError for a view that lies there twice, and for an image of another name than it should have.
    """
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; place Taskonomy there (docs/data.md lists the layouts)")
    found = sorted(view for group in groups(root) for view in views(root, *group))
    if not found:
        raise MissingDataError(f"{root}: no point_P_view_V_domain_rgb.png below it; docs/data.md lists the layouts")
    for one, other in pairwise(found):
        if one[:3] == other[:3]:
            places = [view.path(root, "rgb") for view in (one, other)]
            raise BrokenFileError(f"{places[1]}: the same view as {places[0]}; remove one of the two")
    return found


def _split(
    root: Path, views: list[View], split: str, buildings: Buildings | None, rule: str, absent: str
) -> list[View]:
    there = sorted({view.building for view in views})
    if buildings is not None:
        if rule == "point":
            raise ConfigError(
                f"data.buildings {buildings!r} is a split by buildings; set protocol.taskonomy_split to buildings, or "
                "data.buildings to null"
            )
        wanted = _listed(root, buildings, split, there, absent)
        return [view for view in views if view.building in wanted]
    if split == "validation":
        raise ConfigError("taskonomy has validation views by list only: set data.buildings")
    if rule == "point" or len(there) == 1:
        return [view for view in views if (view.point > LAST_TRAINING_POINT) == (split == "test")]
    testing = set(there[4::5] or there[-1:])
    return [view for view in views if (view.building in testing) == (split == "test")]


def _whole(root: Path, views: list[View], split: str, missing: str) -> list[View]:
    lacking = Counter(letter for view in views for letter in LABELS if letter not in view.letters)
    if not lacking:
        return views
    told = ", ".join(f"{DOMAINS[letter][0]} {lacking[letter]}" for letter in LABELS if lacking[letter])
    if missing == "fail":
        view = next(view for view in views if view.letters != LABELS)
        letter = next(letter for letter in LABELS if letter not in view.letters)
        raise MissingDataError(
            f"{view.path(root, letter)}: no such image (of {len(views)} views, absent: {told}); get it, or set "
            "data.missing_labels to mask or drop"
        )
    if missing == "mask":
        log.info("taskonomy %s: labels absent and masked, of %d views: %s", split, len(views), told)
        return views
    whole = [view for view in views if view.letters == LABELS]
    log.info(
        "taskonomy %s: dropped %d of %d views, which lack labels: %s", split, len(views) - len(whole), len(views), told
    )
    if not whole:
        raise MissingDataError(
            f"{root}: no view for split '{split}' has every label (absent: {told}); get them, or set "
            "data.missing_labels to mask"
        )
    return whole


# --- lists of buildings --------------------------------------------------------------------------------------------


def _listed(root: Path, buildings: Buildings, split: str, there: Sequence[str], absent: str) -> set[str]:
    """The buildings of a split, by a list or as they are given; those without images as `choose` has it."""
    wanted, where = _wanted(root, buildings, split)
    if there == [""]:
        raise MissingDataError(
            f"{root}: no folders of buildings, which data.buildings needs: place <building>/<domain>/... there, or set "
            "data.buildings to null"
        )
    lacking = [building for building in wanted if building not in there]
    if len(lacking) == len(wanted) or (lacking and absent == "fail"):
        skip = "" if len(lacking) == len(wanted) else "set data.absent_buildings to skip to go on without them, "
        raise MissingDataError(
            f"{root}: no images of {len(lacking)} of {len(wanted)} buildings that {where} has for split '{split}': "
            f"{', '.join(lacking)}; get them, {skip}or name the buildings that are there under data.buildings"
        )
    if lacking:
        named = len(lacking), len(wanted), where, ", ".join(lacking)
        log.warning("taskonomy %s: left out %d of %d buildings of %s, which have no images: %s", split, *named)
    log.info("taskonomy %s: %d buildings by %s", split, len(wanted) - len(lacking), where)
    return set(wanted)


def _wanted(root: Path, buildings: Buildings, split: str) -> tuple[Sequence[str], str]:
    """The buildings that are asked for, and where they are listed."""
    if not isinstance(buildings, str):
        wanted, where = buildings.get(split, ()), "data.buildings"
        if not wanted:
            raise ConfigError(f"data.buildings: no buildings for split '{split}'; list them, or name a list")
        return wanted, where
    path = _list_path(root, buildings)
    wanted = read_list(path)[split]
    if not wanted:
        raise BrokenFileError(f"{path}: no building has a 1 in column {COLUMNS[split]}; get the list again")
    return wanted, path.name


def list_names(root: Path) -> list[str]:
    """The names of the lists that lie beside the data: the official ones first, then others by name."""
    pattern = re.compile(rf"train_val_test_({_LIST_NAME.pattern})\.csv")
    places = [place for folder in (root / "splits", root) if folder.is_dir() for place in folder.iterdir()]
    found = {match[1] for match in (pattern.fullmatch(place.name) for place in places) if match}
    return [*(name for name in LISTS if name in found), *sorted(found.difference(LISTS))]


def list_files(root: Path, name: str) -> list[Path]:
    """The list of this name, where there is one; the first is read."""
    file = f"train_val_test_{name}.csv"
    return [place for place in (root / "splits" / file, root / file) if place.is_file()]


def _list_path(root: Path, name: str) -> Path:
    found = list_files(root, name)
    if found:
        return found[0]
    file = f"train_val_test_{name}.csv"
    get = (
        "get it from data/ of https://github.com/StanfordVL/taskonomy and place it there"
        if name in LISTS
        else f"write one there with the columns id, {', '.join(COLUMNS.values())} (0 or 1)"
    )
    others = ", ".join(list_names(root)) or "none"
    raise MissingDataError(
        f"{root / 'splits' / file}: no such list of buildings (there: {others}); {get}, name the buildings of each "
        "split under data.buildings, or set it to null"
    )


def read_list(path: Path) -> dict[str, list[str]]:
    """Buildings by split of an official list: columns id, train, val, test, the last three 0 or 1.

    Raises BrokenFileError, naming the line, where it is none.
    """
    found: dict[str, list[str]] = {split: [] for split in COLUMNS}
    seen: set[str] = set()
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BrokenFileError(f"{path}: cannot be read as a table ({error}); get it again") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    if not {"id", *COLUMNS.values()} <= set(header):
        raise BrokenFileError(f"{path}, line 1: columns {header}, expected id, train, val, test; get the list again")
    for number, line in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in line):
            continue
        row = dict(zip(header, (cell.strip() for cell in line), strict=False))
        flags = [row.get(column) for column in COLUMNS.values()]
        if not row.get("id") or not {*flags} <= {"0", "1"} or flags.count("1") > 1 or row["id"] in seen:
            raise BrokenFileError(
                f"{path}, line {number}: {line}; expected a building, named once, and 0 or 1 for train, val and test, "
                "at most one of them 1; get the list again"
            )
        seen.add(row["id"])
        for split, flag in zip(COLUMNS, flags, strict=True):
            if flag == "1":
                found[split].append(row["id"])
    return found


# --- folders -------------------------------------------------------------------------------------------------------


def groups(root: Path) -> Iterator[tuple[str, int]]:
    """(building, layout) of every folder of colour images, or of labels without them."""
    domains = {name for names in DOMAINS.values() for name in names}
    found: set[tuple[str, int]] = set()
    for folder in _folders(root):
        inner = _folders(root / folder)
        if folder in domains:
            own = _folders(root / folder / COMPONENT) if COMPONENT in inner else []
            found |= {("", 2), *((building, 1) for building in inner), *((building, 3) for building in own)}
        elif domains & set(inner):
            found.add((folder, 0))
    yield from sorted(found)


def _refuse(error: BrokenFileError) -> None:
    raise error


def views(root: Path, building: str, layout: int, odd: Callable[[BrokenFileError], None] = _refuse) -> Iterator[View]:
    """The views of one building that have a colour image. odd: what to do about a file of another name, else raised."""
    ids = {
        letter: {
            found
            for domain in names
            for found in _ids(root / LAYOUTS[layout].format(building=building, domain=domain), letter, odd)
        }
        for letter, names in DOMAINS.items()
    }
    alone = set().union(*ids.values()) - ids["rgb"]
    if alone:
        point, view = min(alone)
        name = View(building, point, view, layout, "").name
        log.info("taskonomy: %s and %d more views left out: labels without a colour image", name, len(alone) - 1)
    for point, view in ids["rgb"]:
        # One text for all views that have the same labels.
        letters = sys.intern("".join(letter for letter in LABELS if (point, view) in ids[letter]))
        yield View(building, point, view, layout, letters)


def _ids(folder: Path, letter: str, odd: Callable[[BrokenFileError], None]) -> Iterator[tuple[int, int]]:
    """(point, view) of the images of one domain in a folder."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.endswith(".png"):
                continue
            match = _NAME.fullmatch(entry.name)
            if match is None or match[3] not in DOMAINS[letter]:
                expected = f"point_P_view_V_domain_{DOMAINS[letter][0]}.png"
                odd(BrokenFileError(f"{folder / entry.name}: expected a name {expected}; rename or remove it"))
                continue
            yield int(match[1]), int(match[2])


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
