"""Whether a data set is whole: every file that its reader reads is there, can be read to its end, and fits its labels.

Each data set's inventory (`verify_pictures`, `verify_nyuv2`, `verify_taskonomy`) asks the reader what should be there;
this module looks at each item in parallel and gathers what is missing, broken or extra. One bad file never stops it.
The findings do not depend on the number of processes.

A subset is not a fault: fewer pictures than were published are a count that differs, and a fault only where the whole
is asked for. More pictures than were published are always a fault, and so is a listed picture that is absent.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headstrong.data.acquire import locate
from headstrong.data.ordered import in_order
from headstrong.data.verify_files import extras, file_fault
from headstrong.data.verify_findings import Count, Finding, Inventory
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.progress import ItemProgress

log = logging.getLogger(__name__)

# data set -> the module that knows what should be there, in its function look_at_<data set>
_PICTURES = "headstrong.data.verify_pictures"
DATASETS = {
    "taskonomy": "headstrong.data.verify_taskonomy",
    "nyuv2": "headstrong.data.verify_nyuv2",
    "office31": _PICTURES,
    "celeba": _PICTURES,
    "deepfashion": _PICTURES,
    "cifar10": _PICTURES,
    "gtsrb": _PICTURES,
    "awa2": _PICTURES,
    "folder": _PICTURES,
}
_TOGETHER = 32  # items that a process takes at a time: handing over a small image costs more than to read it
_KILLED = "the process that read it was killed, twice; is it too large for the memory?"

Look = Callable[[Any], list[Finding]]


@dataclass(frozen=True)
class Verdict:
    """What a look at a data set came to. findings: in order, each once. examined: items looked at, called `units`."""

    dataset: str
    root: Path
    layout: str
    counts: Sequence[Count]
    findings: Sequence[Finding]
    examined: int
    units: str

    @property
    def faults(self) -> list[Finding]:
        """The findings because of which the data set is not whole."""
        return [finding for finding in self.findings if finding.fault]


def place(dataset: str, root: Path | None = None, folder: str | None = None) -> Path:
    """The folder of a data set: `locate`'s, or below `root` where that has a folder of its name, else `root` itself.

    folder: name of a folder of pictures of the user's own. MissingDataError where there is none, ConfigError for an
    unknown data set, or a `folder` where none belongs, or none where one does.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"data set '{dataset}' is unknown; choose from {', '.join(DATASETS)}")
    if (dataset == "folder") != (folder is not None):
        raise ConfigError("folder needs the name of the folder, as in `verify folder NAME`; no other data set has one")
    if root is None:
        return locate(dataset, folder)
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; give the folder that holds {folder or dataset}")
    # Not is_dir alone: where capitals do not count, GTSRB/ within gtsrb/ would be taken for it.
    return root / (folder or dataset) if (folder or dataset) in os.listdir(root) else root


def verify(dataset: str, root: Path, *, processes: int = 1, whole: bool = False, name: str | None = None) -> Verdict:
    """Look at everything a reader of `dataset` would read in `root`, its folder.

    processes: side by side. whole: fewer pictures than were published are a fault. name: what the data set is
    called, where it is a folder of the user's own. Raises MissingDataError where no layout is recognised, and
    BrokenFileError for a folder that may not be read.
    """
    try:
        inventory: Inventory = getattr(importlib.import_module(DATASETS[dataset]), f"look_at_{dataset}")(root)
        findings = [*inventory.findings, *extras(inventory)]
    except OSError as error:
        raise BrokenFileError(
            f"{error.filename or root}: cannot be read ({error.strerror}); see to its rights"
        ) from error
    with ItemProgress(f"verify {name or dataset}", len(inventory.items), inventory.units) as progress:
        for found, many in _looked_at(inventory.look, inventory.items, processes):
            findings += found
            progress.advance(many)
    # More than was published is another data set; less is a part of it, which may be meant.
    findings += [_difference(count) for count in inventory.counts if count.differs and (whole or count.exceeds)]
    ordered = sorted(dict.fromkeys(findings), key=Finding.order)
    return Verdict(
        name or dataset, root, inventory.layout, inventory.counts, ordered, len(inventory.items), inventory.units
    )


def survey(dataset: str, root: Path) -> tuple[list[Finding], list[Count]]:
    """The faults of a data set that show without decoding an image, and the numbers that are not the official ones.

    Every file that the reader would read is looked for, and must not be empty; lists and checksums are compared. Raises
    MissingDataError where no layout is recognised.
    """
    inventory: Inventory = getattr(importlib.import_module(DATASETS[dataset]), f"look_at_{dataset}")(root)
    faults = [finding for finding in inventory.findings if finding.fault]
    faults += [fault for name in sorted(inventory.used) if (fault := file_fault(root, name)) is not None]
    faults += [_difference(count) for count in inventory.counts if count.exceeds]
    return sorted(dict.fromkeys(faults), key=Finding.order), [count for count in inventory.counts if count.differs]


def _difference(count: Count) -> Finding:
    kind = "extra" if count.exceeds else "missing"
    return Finding(kind, ".", f"{count.found} {count.what}, the official data set has {count.official}")


# --- many items ----------------------------------------------------------------------------------------------------


def _looked_at(look: Look, items: Sequence[Any], processes: int) -> Iterator[tuple[list[Finding], int]]:
    """(findings, number of items) of so many items at a time, in order; a process that is killed stops nothing."""
    size = max(1, min(_TOGETHER, len(items) // (4 * processes)))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    done = 0
    while done < len(chunks):
        try:
            for found in in_order(partial(_look_at_all, look), chunks[done:], processes):
                yield found, len(chunks[done])
                done += 1
        except BrokenProcessPool:
            log.warning("a process was killed while it read; its files are read again, one by one")
            yield _one_by_one(look, chunks[done]), len(chunks[done])
            done += 1


def _one_by_one(look: Look, items: Sequence[Any]) -> list[Finding]:
    """The findings of items of which one may kill the process that reads it; it is tried twice, and is a finding."""
    found: list[Finding] = []
    tries = {position: 2 for position in range(len(items))}
    position = 0
    while position < len(items):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            try:
                while position < len(items):
                    found += executor.submit(_look_at_all, look, [items[position]]).result()
                    position += 1
            except BrokenProcessPool:
                tries[position] -= 1
                if not tries[position]:
                    found.append(Finding("broken", _name(items[position]), _KILLED))
                    position += 1
    return found


def _look_at_all(look: Look, items: Sequence[Any]) -> list[Finding]:
    found: list[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow only warns of, the readers read
        for item in items:
            try:
                found += look(item)
            except Exception as error:  # one bad file never stops the others
                said = " ".join(f"{type(error).__name__}: {error}".split())
                found.append(Finding("broken", _name(item), f"cannot be examined ({said})"))
    return found


def _name(item: Any) -> str:
    return item if isinstance(item, str) else str(item[0])
