"""Bring a real data set into its folder: download what may be, unpack it, say what only a person can do.

What is there is left alone: a data set that the readers find whole is not touched, and archives that a person has
placed are checked and unpacked as if they had been downloaded. Files of an archive that are missing, empty or, by their
checksum, damaged are taken from it again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstrong import locks
from headstrong.data.acquire import data_root
from headstrong.data.archives import unpack
from headstrong.data.download import download
from headstrong.data.registry import REGISTRY, Dataset, Item, Registry, load
from headstrong.data.transfer import Expected, Partial, check_room
from headstrong.errors import BrokenFileError, DownloadError, MachineError, MissingDataError, UserError
from headstrong.provenance import write_atomically

if TYPE_CHECKING:
    from headstrong.data.verify_findings import Count, Finding

log = logging.getLogger(__name__)

RECORD = ".fetched.json"  # in the folder of the data set: what came from where, with which SHA-256
_PARTS = ("files", "unpacked")
_UNPACKING = ".unpacking-"
_NOT_TAKEN = "__MACOSX"


def fetch(name: str, root: Path | None = None, registry: Path = REGISTRY) -> str:
    """Bring data set `name` into `<root>/<name>/`; returns a line about it. root: `acquire.data_root` where None.

    Raises MissingDataError where a person must get something, BrokenFileError for files that are not what they should
    be, DownloadError where network, disk or another fetch of the same data set stand in the way, ConfigError for an
    unknown data set or a registry with a mistake.
    """
    known = load(registry)
    dataset = known[name]
    base = root or data_root()
    if base.is_file():
        said = "a file; expected the folder that holds a folder for each data set; see --root, HEADSTRONG_REAL_DATA"
        raise DownloadError(f"{base}: {said}")
    folder = base / name
    if all(item.there(folder) for item in dataset.files) and not any(_kept(item, folder) for item in dataset.files):
        faults, differing = _survey(name, folder)
        if not faults:
            return _in_words(name, folder, differing)
    try:
        with _alone(folder):
            try:
                return _Fetch(dataset, folder, known).run()
            finally:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # an empty folder would look like a data set
    except OSError as error:
        place = error.filename or folder
        raise DownloadError(
            f"{place}: {error.strerror or error}; make room or give leave to write, run it again"
        ) from None


def _kept(item: Item, folder: Path) -> bool:
    """Whether this is a file that is used as it came, and so is compared each time."""
    return bool(item.name) and not item.unpack and (folder / str(item.name)).is_file()


@dataclass(frozen=True)
class _Fetch:
    """One run over the files of a data set."""

    dataset: Dataset
    folder: Path
    known: Registry

    def run(self) -> str:
        """Everything that can be done without a person, then either a line or what the person must do."""
        missing = [item for item in self.dataset.files if not item.there(self.folder)]
        waiting = [item for item in missing if item.url is None and not self._placed(item)]
        self._check_room([item for item in missing if item not in waiting])
        for item in self.dataset.files:
            if item in waiting:
                continue
            if item.there(self.folder):
                if _kept(item, self.folder):
                    self._check(item)
                continue
            self._obtain(item)
        if waiting:
            raise MissingDataError(self._for_a_person(waiting))
        faults, differing = _survey(self.dataset.name, self.folder)
        if faults and self._repair(faults):
            faults, differing = _survey(self.dataset.name, self.folder)
        if faults:
            raise self._not_whole(faults)
        return _in_words(self.dataset.name, self.folder, differing)

    def _repair(self, faults: Sequence[Finding]) -> bool:
        """Take faulty files from their archives again, which are downloaded where they are gone; whether any was."""
        wrong = {finding.path.partition(" line ")[0] for finding in faults}
        found = False
        for item in self.dataset.files:
            own = {path for path in wrong if any(path == one or path.startswith(f"{one}/") for one in item.provides)}
            if own and item.unpack and (item.url or self._placed(item)):
                log.info("%s: %d files are missing or damaged, the first: %s", item.name, len(own), min(own))
                self._check_room([item])
                self._obtain(item, own)
                found = True
        return found

    def _not_whole(self, faults: Sequence[Finding]) -> UserError:
        """What is wrong with data that are there, in one line."""
        name, first = self.dataset.name, faults[0]
        kind = MissingDataError if any(finding.kind == "missing" for finding in faults) else BrokenFileError
        return kind(
            f"{self.folder / first.path}: {first.reason} ({len(faults)} such faults in {name}; python -m headstrong "
            f"verify {name} names all); get it again from {self.dataset.home}"
        )

    def _obtain(self, item: Item, wrong: Collection[str] | None = None) -> None:
        """Download a file unless it was placed, compare it, unpack it; wrong: as `_unpack`."""
        placed, recorded = self._placed(item), item.name in self._record()["files"]
        if placed:
            self._check(item)
        else:
            self._download(item)
        try:
            if item.unpack:
                self._unpack(item, wrong)
        except BrokenFileError:
            if not recorded and not (item.md5 or item.sha256):
                # Nobody has said that this is the file; it must not be what others are compared with.
                self._note("files", item, None)
                if not placed:
                    (self.folder / str(item.name)).unlink()
            raise

    def _placed(self, item: Item) -> bool:
        return item.name is not None and (self.folder / item.name).is_file()

    def _for_a_person(self, waiting: list[Item]) -> str:
        """What to get, from where, and where to put it, in one line."""
        what = []
        for item in waiting:
            checksum = item.md5 or item.sha256
            kind = "MD5" if item.md5 else "SHA-256"
            note = f" ({kind} {checksum}, by {item.checksum_from})" if checksum else ""
            what.append(f"{item.name or ' and '.join(item.provides) or self.dataset.get}{note}")
        one = self.dataset
        return (
            f"{one.name}: a person must get {', '.join(what)} from {one.home} ({one.licence}; {one.steps}) and put it "
            f"into {self.folder}; then run python -m headstrong fetch {one.name} again"
        )

    def _check_room(self, missing: list[Item]) -> None:
        needed = 0
        for item in missing:
            if item.name and not self._placed(item):
                needed += max(0, item.size - Partial(self.folder / item.name).size)
            if item.unpack:
                needed += item.unpacked_bytes or item.size
        check_room(self.folder, needed, f"{self.dataset.name}, packed and unpacked,")

    def _expected(self, item: Item) -> Expected:
        if item.md5 or item.sha256:
            return Expected(item.bytes, item.md5, item.sha256, f"published by {item.checksum_from or 'its authors'}")
        recorded = self._record()["files"].get(item.name, {}).get("sha256")
        source = f"that of the first copy; if the file was changed by its distributor, remove {self.folder / RECORD}"
        return Expected(item.bytes, None, recorded, source)

    def _download(self, item: Item) -> None:
        target = self.folder / str(item.name)
        by_hand = f"get it from {self.dataset.home} by hand and put it into {self.folder}"
        log.info("%s: from %s", item.name, item.url)
        digest = download(str(item.url), target, self._expected(item), by_hand, self.known.patience)
        self._note("files", item, {"sha256": digest, "bytes": target.stat().st_size, "url": item.url})

    def _check(self, item: Item) -> None:
        """Compare a file that is in its place; nobody's file is removed."""
        path = self.folder / str(item.name)
        digest, wrong = self._expected(item).check(path)
        if wrong:
            raise BrokenFileError(f"{path}: {wrong}; remove it and get it again from {self.dataset.home}")
        if item.name not in self._record()["files"]:
            self._note("files", item, {"sha256": digest, "bytes": path.stat().st_size, "url": None})

    def _unpack(self, item: Item, wrong: Collection[str] | None) -> None:
        """Unpack an archive into its place; wrong: only these files, which are replaced where they are there."""
        archive = self.folder / str(item.name)
        beside = self.folder / f"{_UNPACKING}{archive.name}"
        log.info("%s: unpacking", archive.name)
        try:
            held = unpack(archive, beside, self.known.limits)
            source = _inner(beside, item, archive)
            if wrong is None:
                _move(source, self.folder, item)
            else:
                _replace(source, self.folder, wrong)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._note("unpacked", item, {"files": held.files, "bytes": held.bytes})

    def _record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        if not path.is_file():
            return {part: {} for part in _PARTS}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {part: {str(name): dict(value) for name, value in found[part].items()} for part in _PARTS}
        except (ValueError, TypeError, AttributeError, KeyError):
            raise BrokenFileError(f"{path}: not a record of downloads; remove it to record them anew") from None

    def _note(self, part: str, item: Item, facts: dict[str, Any] | None) -> None:
        """Write facts of a file into the record; None: forget it."""
        record = self._record()
        if facts is None:
            record[part].pop(str(item.name), None)
        else:
            when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            record[part][str(item.name)] = {**facts, "time": when}
        if any(record.values()):
            write_atomically(self.folder / RECORD, json.dumps(record, indent=1) + "\n")
        else:
            (self.folder / RECORD).unlink(missing_ok=True)


def _inner(unpacked: Path, item: Item, archive: Path) -> Path:
    """The folder in what was unpacked that holds all that is wanted: the top, or up to two folders down."""
    for pattern in ("", "*", "*/*"):
        for place in sorted(unpacked.glob(pattern)) if pattern else [unpacked]:
            if all((place / path).exists() for path in item.provides):
                return place
    wanted = ", ".join(item.provides)
    raise BrokenFileError(
        f"{archive}: no {wanted} in it; nothing was unpacked, get the file that {archive.name} should be"
    )


def _move(source: Path, folder: Path, item: Item) -> None:
    """Move what was unpacked into the data set's folder: what the readers look for last, each by one rename.

    What is there already stays: another archive brought it, or a person.
    """
    wanted = {source / path for path in item.provides}
    for path in sorted(source.rglob("*")):
        if path.is_file() and not wanted & {path, *path.parents} and _NOT_TAKEN not in path.parts:
            _rename(path, folder / path.relative_to(source))
    for path in sorted(wanted):
        _rename(path, folder / path.relative_to(source))


def _replace(source: Path, folder: Path, wrong: Collection[str]) -> None:
    """Move these files, and those below these folders, to their places, over what is there."""
    for name in sorted(wrong):
        place = source / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            target = folder / path.relative_to(source)
            if path.is_file() and (path == place or not target.exists()):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)


def _survey(name: str, folder: Path) -> tuple[list[Finding], list[Count]]:
    """`verification.survey`; nothing of a data set that is not looked at: of Taskonomy there are millions of files."""
    # By name: the readers need numpy, which a fetch that has to download does not.
    verification = importlib.import_module("headstrong.data.verification")
    if name == "taskonomy" or name not in verification.DATASETS:
        return [], []
    found: tuple[list[Finding], list[Count]] = verification.survey(name, folder)
    return found


def _in_words(name: str, folder: Path, differing: Sequence[Count]) -> str:
    if not differing:
        return f"{name}: all of it is in {folder}"
    numbers = ", ".join(f"{count.what} {count.found} of {count.official}" for count in differing)
    return f"{name}: part of it is in {folder}, and in order ({numbers}); move it away and run this again to get all"


def _rename(path: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a data set's folder; DownloadError says who has it. It ends with the process that holds it."""
    place, holder = (folder.parent / f".{folder.name}.fetch{end}" for end in (".lock", ".holder"))
    try:
        lock = locks.acquire(place)
    except MachineError as error:
        raise DownloadError(str(error)) from None
    if lock is None:
        who = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
        raise DownloadError(f"{folder}: {who} is fetching it already; wait for it to end{locks.way_out(place)}")
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
