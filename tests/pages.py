"""What the pages of the documentation hold: code blocks, commands, links, headings, and edits of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from headstrong.provenance import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "results/reference/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SHELL = ("sh", "bash", "console")
FENCE = re.compile(r"^```(\w*)(?: title=\"(.*?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A line that begins so, or a span of code that does, is a command wherever it stands.
PROGRAM = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:\.venv(?:-\w+)?/bin/)?(?:make|python|snakemake|tar|git|pip) (?!=)")


class Block(NamedTuple):
    language: str
    title: str
    text: str


class Edit(NamedTuple):
    path: str
    hunks: list[tuple[str, str]]  # what a file says, and what it says afterwards


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*found.groups()) for found in FENCE.finditer(page.read_text())]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def commands(page: Path) -> Iterator[str]:
    """Every command of a page: lines of shell blocks; lines of other blocks, and code spans, that begin as one does."""
    for block in blocks(page):
        if block.language in SHELL or not block.language:
            yield from _lines(block.text, everything=block.language in SHELL)
    rest = prose(page)
    indented = "\n".join(line[4:] for line in rest.splitlines() if line.startswith("    "))
    yield from _lines(indented, everything=False)
    for span in re.findall(
        r"(?<!`)`([^`]+)`(?!`)", "\n".join(x for x in rest.splitlines() if not x.startswith("    "))
    ):
        if PROGRAM.match(span):
            yield " ".join(span.split())


def _lines(text: str, everything: bool) -> Iterator[str]:
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        line = re.split(r"\s+#\s|^#|\s{2,}", line.strip().removeprefix("$ "))[0].strip()
        if line and (everything or PROGRAM.match(line)):
            yield from line.split(" && ")


def edits(page: Path) -> list[Edit]:
    """The edits that a page's diff blocks tell, each of one file."""
    return [_edit(block.text) for block in blocks(page) if block.language == "diff"]


def _edit(text: str) -> Edit:
    first, *parts = re.split(r"^@@\n", text, flags=re.MULTILINE)
    hunks = []
    for part in parts:
        lines = part.splitlines()
        before = "".join(line[1:] + "\n" for line in lines if line[0] in " -")
        hunks.append((before, "".join(line[1:] + "\n" for line in lines if line[0] in " +")))
    return Edit(first.strip().removeprefix("--- "), hunks)


def apply(page: Path, folder: Path) -> None:
    """Make in a checkout the edits and files that a page tells."""
    for edit in edits(page):
        path = folder / edit.path
        for before, after in edit.hunks:
            text = path.read_text()
            assert text.count(before) == 1, f"{name(page)}: {edit.path} does not have, once:\n{before}"
            path.write_text(text.replace(before, after))
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text)


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)}


def links(page: Path) -> list[str]:
    """Targets of links and pictures that lead to no other site."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]
