"""What `python -m headstrong verify` says: a short text for the screen, all of it as JSON or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstrong.data.verify_findings import KINDS, Count, Finding, printable
from headstrong.errors import ConfigError
from headstrong.provenance import atomic_path

if TYPE_CHECKING:
    from headstrong.data.verification import Verdict

SUFFIXES = (".json", ".csv")
FIRST = 5  # findings of each kind that are shown
_COLUMNS = ("kind", "fault", "path", "reason")


def check_name(path: Path) -> None:
    """ConfigError for a report of another kind than JSON or CSV, told before hours of reading."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a report is a .json or a .csv file; give one of these names")


def text(verdict: Verdict) -> str:
    """A few lines: layout, counts, the first findings of each kind, and whether the data set is whole."""
    lines = [f"{verdict.dataset} in {printable(str(verdict.root))}", f"layout: {verdict.layout}"]
    lines += [_count(one) for one in verdict.counts]
    lines.append(f"examined: {verdict.examined} {verdict.units}")
    for kind in KINDS:
        lines += _kind(kind, [one for one in verdict.findings if one.kind == kind and one.fault])
    lines += _kind("no fault", [one for one in verdict.findings if not one.fault])
    return "\n".join([*lines, _conclusion(verdict)])


def _count(count: Count) -> str:
    if count.official is None:
        return f"{count.what}: {count.found}"
    note = "" if not count.differs else ", a subset" if count.found < count.official else ", more than official"
    return f"{count.what}: {count.found} of {count.official}{note}"


def _kind(title: str, found: Sequence[Finding]) -> list[str]:
    if not found:
        return []
    shown = [f"  {one.path}: {one.reason}" for one in found[:FIRST]]
    more = [f"  ... and {len(found) - FIRST} more"] if len(found) > FIRST else []
    return [f"{title}: {len(found)}", *shown, *more]


def _conclusion(verdict: Verdict) -> str:
    if verdict.faults:
        many = len(verdict.faults)
        return f"{verdict.dataset} is not whole: {many} fault{'s' if many > 1 else ''}"
    differing = [count for count in verdict.counts if count.differs]
    if differing:
        named = ", ".join(f"{count.what} {count.found} of {count.official}" for count in differing)
        return f"what is there of {verdict.dataset} is in order, but it is not the official number ({named})"
    return f"{verdict.dataset} is whole"


def write(verdict: Verdict, path: Path) -> None:
    """All findings, whole or not at all: as JSON with the counts, or as CSV, a row for each.

    Columns, and keys of a finding: kind, fault, path, reason. Raises ConfigError where `path` cannot be written.
    """
    rows = [{"kind": one.kind, "fault": one.fault, "path": one.path, "reason": one.reason} for one in verdict.findings]
    try:
        with atomic_path(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            if path.suffix.lower() == ".csv":
                writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            else:
                json.dump(_document(verdict) | {"findings": rows}, file, indent=1, ensure_ascii=False)
                file.write("\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another place") from error


def _document(verdict: Verdict) -> dict[str, object]:
    counts = [{"what": one.what, "found": one.found, "official": one.official} for one in verdict.counts]
    return {
        "dataset": verdict.dataset,
        "root": printable(str(verdict.root)),
        "layout": verdict.layout,
        "whole": not verdict.faults and not any(one.differs for one in verdict.counts),
        "faults": len(verdict.faults),
        "examined": verdict.examined,
        "units": verdict.units,
        "counts": counts,
    }
