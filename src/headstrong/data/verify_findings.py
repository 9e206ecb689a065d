"""What a look at a data set finds: files that are missing, broken or extra, and numbers of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstrong.errors import MissingDataError, UserError

KINDS = ("missing", "broken", "extra")


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    kind: missing (it should be there), broken (it is not what it should be) or extra (no reader uses it). path: of the
    file, relative to the data set, sometimes with a line or frame. reason: what was found and expected. fault: whether
    the data set is not whole because of it. Texts are printable, whatever the names of the files.
    """

    kind: str
    path: str
    reason: str
    fault: bool = True

    def __post_init__(self) -> None:
        for name in ("path", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    def order(self) -> tuple[int, bool, str, str]:
        """What findings are sorted by: faults first in each kind, then by name."""
        return KINDS.index(self.kind), not self.fault, self.path, self.reason


@dataclass(frozen=True)
class Count:
    """How many there are of something, and how many the official data set has; None: that is not known."""

    what: str
    found: int
    official: int | None = None

    @property
    def differs(self) -> bool:
        """Whether the official number is another one."""
        return self.official is not None and self.found != self.official

    @property
    def exceeds(self) -> bool:
        """Whether there are more than officially."""
        return self.official is not None and self.found > self.official


@dataclass
class Inventory:
    """What the reader of a data set finds in a folder, before any image is decoded.

    layout: which one was recognised. look: the findings of one item, run in several processes. items: what to look at,
    `units` of them. used: the files that the reader reads, there or not, relative to root. image_folders: relative to
    root; every image below them is to be used.
    """

    root: Path
    layout: str
    look: Callable[[Any], list[Finding]]
    units: str = "images"
    items: list[Any] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    image_folders: Sequence[str] = ()

    def relative(self, path: Path) -> str:
        """A path below the data set as the findings name it; "" for the data set itself."""
        return "" if path == self.root else path.relative_to(self.root).as_posix()

    def found(self, kind: str, path: Path, reason: str) -> None:
        """Note a fault."""
        self.findings.append(Finding(kind, self.relative(path) or ".", reason))

    def said(self, error: UserError) -> None:
        """Note what the reader complains of."""
        self.findings.append(told(error, self.root))


def told(error: UserError, root: Path) -> Finding:
    """What a reader complains of, as a finding: its messages are "<path>: <reason>"."""
    path, _, reason = str(error).replace(f"{root}{os.sep}", "").partition(": ")
    return Finding("missing" if isinstance(error, MissingDataError) else "broken", path, reason)


def printable(text: str) -> str:
    """The text with everything that is no character to print, such as a line's end or half a character, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
