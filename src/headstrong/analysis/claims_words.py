"""Claims and verdicts in words: the page docs/claims.md, and what `python -m headstrong claims` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong.analysis.claims import CLAIMS, of_folder
from headstrong.analysis.claims_rules import SYSTEMS

Row = Mapping[Any, Any]


def of_study(folder: Path | None, form: str) -> str:
    """Verdicts of a study's folder, or the claims where that is None, as "text", "md" or "csv".

    Raises MissingDataError or BrokenFileError as reading the study does.
    """
    table = declared() if folder is None else of_folder(folder)
    if form == "csv":
        return table.to_csv(index=False, lineterminator="\n")
    if folder is None:
        return page() if form == "md" else "".join(f"{_declared_line(row)}\n" for row in table.to_dict("records"))
    return verdicts_page(table) if form == "md" else verdicts_text(table)


def declared() -> pd.DataFrame:
    """Every claim with its rule, a row each; columns id, system, statement, published, tables, measure, rule, least."""
    return pd.DataFrame(
        [
            {
                "id": claim.id,
                "system": claim.system,
                "statement": claim.statement,
                "published": claim.published,
                "tables": "; ".join(f"{table}: {', '.join(names)}" for table, names in claim.columns.items()),
                "measure": claim.measure,
                "rule": claim.rule,
                "least": f"{claim.fewest} {claim.of}",
            }
            for claim in CLAIMS
        ]
    )


def page() -> str:
    """docs/claims.md: what is claimed, what is measured, and when a verdict is given."""
    table = declared()
    parts = [_INTRODUCTION]
    for system, words in SYSTEMS.items():
        own = table.loc[table["system"].eq(system)]
        parts.append(f"## {system}: {words}\n")
        parts += [_paragraph(row) for row in own.to_dict("records")]
    return "\n".join(parts)


def verdicts_text(table: pd.DataFrame) -> str:
    """Two lines per claim: id, verdict and statement; effect with interval, and reason. Then how many of each verdict.

    table: columns `claims.COLUMNS`.
    """
    rows = table.to_dict("records")
    lines = [f"{row['id']:4}{row['verdict']:15}{row['statement']}\n    {_numbers(row)}" for row in rows]
    counts = ", ".join(f"{count} {name}" for name, count in table["verdict"].value_counts().items())
    return "\n".join([*lines, f"{len(rows)} claims: {counts}" if rows else "no table that a claim is about", ""])


def verdicts_page(table: pd.DataFrame) -> str:
    """A Markdown table: id, statement, verdict, effect with interval, reason. table: columns `claims.COLUMNS`."""
    lines = [
        "| claim | | verdict | effect and 95 % interval: why |",
        "|---|---|---|---|",
        *(
            f"| {row['id']} | {row['statement']} | {row['verdict']} | {_numbers(row)} |"
            for row in table.to_dict("records")
        ),
    ]
    return "\n".join([*lines, ""])


def _numbers(row: Row) -> str:
    if pd.isna(row["effect"]):
        return str(row["reason"])
    interval = "" if pd.isna(row["low"]) else f" ({row['low']:.3g} to {row['high']:.3g})"
    unit = "" if row["unit"] == "r" else f" {row['unit']}"
    return f"{row['effect']:.3g}{interval}{unit}: {row['reason']}"


def _declared_line(row: Row) -> str:
    return f"{row['id']:4}{row['statement']}\n    {row['measure']}: {row['rule']}, with at least {row['least']}"


def _paragraph(row: Row) -> str:
    return (
        f"**{row['id']}. {row['statement']}**\n\n"
        f"- published: {row['published']}\n"
        f"- measure: {row['measure']}\n"
        f"- from: {row['tables']}\n"
        f"- reproduced: {row['rule']}, with at least {row['least']}\n"
    )


_INTRODUCTION = f"""# Claims

`python -m headstrong claims --format md` writes this page from `src/headstrong/analysis/claims_of_*.py`, where they are
declared; do not edit it by hand. `python -m headstrong claims results/quick` prints the verdicts of a study.

The workflow judges {len(CLAIMS)} claims of the five papers by each study's own tables, into `tables/claims.csv` (rule
`judge_claims`). A study has a row for every claim of the systems of which it has tables. One that it has no evidence
on is "not decidable", and its row says what is lacking.

Each claim names, for all studies alike, what is measured, on which side of which number the effect lies if it
holds, and how much data it takes. From these the verdict follows:

- **reproduced**: the whole 95 % interval lies on the side that the claim names;
- **contradicted**: the whole interval lies on the other side;
- **not decidable**: the interval reaches across, or there are fewer data than the claim asks for.

A verdict is on what this study measured: its data, scale and protocol stand beside it. One on embedded data says
nothing of the paper's own. The rules were written with the tables of `results/reference/` at hand: on those they
are no blind test, as they are on studies run later.

Intervals come from a seeded bootstrap over what was drawn as one: models, main tasks, hidden tasks, trials. The error
over test images is added: from resamples of the images where two numbers of dense models are compared and the study's
evaluations are there; elsewhere from the tables' standard errors, as if these went together in all rows, which is the
widest that they can be. Shares count at their lower end what is clearly on that side, by its own 95 % interval, and at
their upper end what is not clearly on the other, with Wilson's interval where that is wider. The trials of a loss are
compared on the same pictures, whose error is not added. Other intervals: R8 and R9 correct for how many sets there are
to choose from and resample nothing; R6, R12 and R19 to R24 leave out the error over images, and R19 to R24 resample
cells or take Fisher's transformation of r; G3 and G4 say theirs.

What makes an interval of R1, R2, R7 to R9 or R14 to R18 narrow is that the same images are behind both numbers. The
folders of `results/reference/` hold no numbers per image: judged by their tables alone, some of these verdicts turn
into "not decidable".

"Reliably" (R1, R2, R4, R5) is: in nine of ten cells. R3 asks for less, a mean, since "more robust" is all that is said
of L2. So R1 and R3 can both hold of the same numbers.

Where two models are compared by relative task vulnerability v, the number is the ratio of 1 + v: by how much the attack
multiplies the error. Models with protocol switches of their own do not count.
"""
