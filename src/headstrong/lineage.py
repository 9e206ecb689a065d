"""Run records of a results folder, read and followed: which one vouches for a file, and what that was made from.

Nothing here asks Snakemake: a folder that was copied elsewhere tells the same. Records of before the format
headstrong-record-1 name no files but the one whose digest they carry.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.provenance import RECORD_FORMAT, file_digest

ASIDE = ("logs", "benchmarks")  # folders of a study that hold no results
_NEAR = 4  # folders above a file in which its study may lie: models/<run>/..., and one to spare
_OLD = {"command", "git", "lock", "start", "end"}  # what every record had before it named its format


@dataclass(frozen=True)
class Record:
    """What one job said of itself. study: its study's folder. inputs, outputs: SHA-256 by path, all below `study` or
    relative to it. content: the record as it is written."""

    path: Path
    study: Path
    rule: str
    inputs: Mapping[Path, str]
    outputs: Mapping[Path, str]
    content: Mapping[str, Any]

    @property
    def job(self) -> Mapping[str, Any]:
        """Its job or settings; empty where it has none."""
        found = self.content.get("job") or self.content.get("settings")
        return found if isinstance(found, Mapping) else {}

    @property
    def old(self) -> bool:
        """Whether it is of before records named what they were made from."""
        return self.content.get("format") != RECORD_FORMAT


@dataclass
class Lineage:
    """All records of a study's folder `study`, absolute, by the files they vouch for. broken: why a JSON file cannot be
    read, by its path."""

    study: Path
    records: list[Record] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)
    _digests: dict[Path, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in _json_files(self.study):
            try:
                record = read_record(path)
            except BrokenFileError as error:
                self.broken[path] = str(error)
                continue
            if record is not None:
                self.records.append(record)
        self._makers: dict[Path, list[Record]] = {}
        for record in self.records:
            for output in record.outputs:
                self._makers.setdefault(output, []).append(record)

    def makers(self, path: Path) -> list[Record]:
        """The records that name a file as their output, the last one first."""
        found = self._makers.get(absolute(path), [])
        return sorted(found, key=lambda record: str(record.content.get("end")), reverse=True)

    def digest(self, path: Path) -> str | None:
        """SHA-256 of a file as it is now, None where it is gone; read once."""
        if path not in self._digests:
            self._digests[path] = file_digest(path) if path.is_file() else None
        return self._digests[path]

    def relative(self, path: Path) -> str:
        """A path as seen from the study's folder."""
        return Path(os.path.relpath(path, self.study)).as_posix()


def lineage_of(path: Path) -> Lineage:
    """The records of the study that a file or folder belongs to.

    Raises MissingDataError where there is no such file, or no record in the folders above it; BrokenFileError where
    what lies there is a damaged record.
    """
    if not path.exists():
        raise MissingDataError(f"{path}: no such file; run the study that makes it, or see to the name")
    for folder in _folders_above(path):
        found = _records_near(folder)
        roots = {one.study for one in found if _below(path, one.study) and _sure(one, path)}
        if roots:
            return Lineage(min(roots, key=lambda root: len(root.parts)))
    for beside in sorted(_folders_above(path)[0].glob("*.json")):
        read_record(beside)  # says which is damaged
    raise MissingDataError(f"{path}: no run record beside it or above; it is no result of headstrong, or came alone")


def read_record(path: Path) -> Record | None:
    """The record in a JSON file; None when the file is JSON of another kind. BrokenFileError when it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BrokenFileError(f"{path}: damaged, no JSON ({error}); run the step again that makes it") from None
    if not isinstance(content, dict):
        return None
    if content.get("format") == RECORD_FORMAT:
        return _record(path, content)
    if "format" not in content and content.keys() >= _OLD:
        return _old_record(path, content)
    return None


def _record(path: Path, content: Mapping[str, Any]) -> Record:
    try:
        study = absolute(path.parent / content["root"])
        inputs, outputs = (_named(study, content[key]) for key in ("inputs", "outputs"))
        return Record(path, study, content["rule"], inputs, outputs, content)
    except (KeyError, TypeError, AttributeError) as error:
        raise BrokenFileError(
            f"{path}: damaged, a record without a whole {error.args[0] if error.args else 'content'}; "
            "run the step again that makes it"
        ) from None


def _named(study: Path, digests: Mapping[str, str]) -> dict[Path, str]:
    return {absolute(study / name): str(digest) for name, digest in digests.items()}


def _old_record(path: Path, content: Mapping[str, Any]) -> Record:
    weights = path.name == "run.json"
    result = path.with_name("weights.safetensors") if weights else path.with_suffix(".h5")
    outputs = {absolute(result): str(content["sha256"])} if "sha256" in content and result.exists() else {}
    study = path.parent.parent.parent if weights else path.parent.parent
    rule = Path(str((content["command"] or [""])[0])).stem
    return Record(path, absolute(study), rule, {}, outputs, content)


def _json_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.json")):
        parts = path.relative_to(folder).parts
        if parts[0] not in ASIDE and not path.name.startswith(".") and not path.name.endswith(".manifest.json"):
            yield path


def _records_near(folder: Path) -> list[Record]:
    """Whole records in a folder, or where there are none, one folder down."""
    for pattern in ("*.json", "*/*.json"):
        found = []
        for path in sorted(folder.glob(pattern)):
            with contextlib.suppress(BrokenFileError):
                record = None if path.name.endswith(".manifest.json") else read_record(path)
                found += [] if record is None else [record]
        if found:
            return found
    return []


def _sure(record: Record, path: Path) -> bool:
    """Whether a record knows its study. One of before only shows where it lies: beside the file, or in records/. A
    program run by hand has none: its folder may be anything, a home with all that lies in it."""
    if record.old:
        return record.path.parent in (absolute(path).parent, record.study / "records")
    return record.content.get("config") is not None or absolute(path) in (record.study, *record.outputs)


def _folders_above(path: Path) -> list[Path]:
    whole = path.absolute()
    return [*([whole] if whole.is_dir() else []), *list(whole.parents)[:_NEAR]]


def _below(path: Path, folder: Path) -> bool:
    return absolute(path).is_relative_to(folder)


def absolute(path: Path) -> Path:
    """Absolute, without "..", links left as they are: a folder may be one."""
    return Path(os.path.abspath(path))
