"""The audit as text: for a terminal, as CSV (RFC 4180), as a table of GitHub's Markdown, and docs/audit.md."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pandas as pd

NARROWEST = 40  # columns a terminal is taken to have at least
LABELS = {"statement": "", "recomputed": "recomputed", "printed": "printed", "how": "how"}
_LABEL_WIDTH = 12
COMMAND = "python -m headstrong audit --page > docs/audit.md"


def as_csv(findings: pd.DataFrame) -> str:
    """Findings (`audit.findings`) by RFC 4180: a header, lines that end in CR LF, quotes where a field needs them."""
    return str(findings.to_csv(index=False, lineterminator="\r\n"))


def as_markdown(findings: pd.DataFrame) -> str:
    """One table, a row per finding; the columns that `findings` has, all text."""
    lines = ["| " + " | ".join(findings.columns) + " |", "|" + "---|" * len(findings.columns)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in findings.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that stands in a cell as it is: a bar and marks of Markdown and HTML lose their meaning."""
    for mark in "\\|*_<`":
        text = text.replace(mark, "&lt;" if mark == "<" else f"\\{mark}")
    return text


def as_table(findings: pd.DataFrame, width: int) -> str:
    """A block of lines per finding, none wider than `width` columns (or NARROWEST), and a line that counts."""
    width = max(width, NARROWEST)
    blocks = ["\n".join(_block(row, width)) for row in findings.to_dict("records")]
    return "\n\n".join([*blocks, "\n".join(textwrap.wrap(counted(findings), width))]) + "\n"


def _block(row: dict[str, str], width: int) -> Iterator[str]:
    yield from textwrap.wrap(f"{row['id']} [{row['agrees']}] {row['paper']}, {row['table']}", width)
    for column, label in LABELS.items():
        first = f"  {label:{_LABEL_WIDTH}}" if label else "  "
        yield from textwrap.wrap(row[column], width, initial_indent=first, subsequent_indent=" " * len(first))


def counted(findings: pd.DataFrame) -> str:
    """How many findings there are, and how many have each answer in column agrees."""
    counts = findings["agrees"].value_counts()
    return f"{len(findings)} findings: " + ", ".join(
        f"{int(counts.get(answer, 0))} {answer}" for answer in ("yes", "no", "not decidable")
    )


def page(findings: pd.DataFrame) -> str:
    """docs/audit.md: a section per paper, a table in each. findings: those of `audit.findings`, all columns."""
    parts = [_HEAD.format(command=COMMAND, counted=counted(findings))]
    shown = ["id", "table", "statement", "recomputed", "printed", "agrees", "how"]
    for paper, rows in findings.groupby("paper", sort=False):
        parts.append(f"## {paper}\n\n{counted(rows)}.\n\n{as_markdown(rows[shown])}")
    return "\n".join(parts)


_HEAD = """# Audit of the published numbers

<!-- Made by `{command}`; do not edit. -->

What the papers' printed numbers say about themselves: recomputed from the tables in `src/headstrong/published`, in
seconds, without a run. `python -m headstrong audit` prints it (`--format table`, `csv` or `md`). Only the findings on
"our runs" read tables of runs, those in `results/reference`. This page is made by

    {command}

Each finding is a statement in our words: what a paper says, or what its numbers would have to satisfy. It agrees (yes),
does not (no), or cannot be decided from what is printed; "how" gives the formula and the rule. A disagreement is one of
printed numbers with printed words or with each other; it does not say who made which mistake. d|s is main task d with
auxiliary task s; letters are those of [tasks.md](tasks.md), v is the relative task vulnerability. What the released
code does is told in [protocols.md](protocols.md).

{counted}.
"""
