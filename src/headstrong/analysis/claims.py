"""claims.csv: a verdict on every claim of the five papers that a study can speak to, from its tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from headstrong.analysis.claims_of_bghc import CLAIMS as _OF_OTHERS
from headstrong.analysis.claims_of_r import CLAIMS as _OF_R
from headstrong.analysis.claims_rules import NOT_DECIDABLE, SYSTEMS, Claim, Lacking, Tables, verdict

CLAIMS: tuple[Claim, ...] = (*_OF_R, *_OF_OTHERS)
COLUMNS = (
    "id",
    "system",
    "statement",
    "published",
    "measure",
    "effect",
    "unit",
    "low",
    "high",
    "models",
    "protocol",
    "verdict",
    "reason",
)
NAME = "claims"


def build_table(
    tables: Sequence[Path],
    plan: Path | None = None,
    *,
    protocol: Mapping[str, str] | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> pd.DataFrame:
    """claims.csv: a row per claim of every system that the study has a table of, columns COLUMNS, in the order of CLAIMS.

    tables: files of tables, by whose names they are known. plan: plan.csv, None without one. protocol: by the letter of
    a system, the switches, data and scale of the study in words. A claim that the study has no evidence on is not
    decidable, and its row says what is lacking. The same tables and seed, the same verdicts.
    Raises MissingDataError or BrokenFileError, naming the file, as reading a table does.
    """
    study = Tables({path.stem: path for path in tables}, plan, draws, seed)
    rows = [_row(claim, study, protocol or {}) for claim in CLAIMS if _speaks_to(study, claim.system)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"models": "Int64"})


def _speaks_to(study: Tables, system: str) -> bool:
    """Whether the study has any table that a claim of this system reads."""
    return any(set(claim.columns) & set(study.paths) for claim in CLAIMS if claim.system == system)


def _row(claim: Claim, study: Tables, protocol: Mapping[str, str]) -> dict[str, object]:
    said = protocol.get(claim.system, "")
    row = {
        **{name: getattr(claim, name) for name in ("id", "system", "statement", "published", "measure", "unit")},
        "protocol": said,
    }
    try:
        found = claim.evidence(study)
    except Lacking as lacking:
        return {**row, "verdict": NOT_DECIDABLE, "reason": str(lacking)}
    decided, reason = verdict(claim, found)
    return {
        **row,
        "effect": found.effect,
        "unit": found.unit or claim.unit,
        "low": found.low,
        "high": found.high,
        "models": found.models,
        "protocol": "; ".join(words for words in (said, found.data) if words),
        "verdict": decided,
        "reason": reason,
    }


def declared() -> pd.DataFrame:
    """Every claim with its rule: id, system, statement, published, tables, measure, rule, least, in the order of CLAIMS."""
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


def as_markdown() -> str:
    """docs/claims.md: what is claimed, what is measured, and when a verdict is given."""
    table = declared()
    parts = [_INTRODUCTION]
    for system, words in SYSTEMS.items():
        own = table.loc[table["system"].eq(system)]
        parts.append(f"## {system}: {words}\n")
        parts += [_paragraph(row) for row in own.to_dict("records")]
    return "\n".join(parts)


def _paragraph(row: Mapping[object, object]) -> str:
    return (
        f"**{row['id']}. {row['statement']}**\n\n"
        f"- published: {row['published']}\n"
        f"- measure: {row['measure']}\n"
        f"- from: {row['tables']}\n"
        f"- reproduced: {row['rule']}, with at least {row['least']}\n"
    )


_INTRODUCTION = f"""# Claims

`python -m headstrong claims --format md` writes this page from the declaration in `src/headstrong/analysis/claims_of_*.py`;
do not edit it by hand. `python -m headstrong claims results/quick` prints the verdicts of a study.

The workflow judges {len(CLAIMS)} claims of the five papers by every study's own tables, into `tables/claims.csv` (rule
`judge_claims`). A study has a row for every claim of the systems it has tables of. A claim that it has no evidence on is
"not decidable", and its row says what is lacking.

Each claim names, before any result is seen, what is measured, on which side of which number the effect lies if the claim
holds, and how much data it takes. From these the verdict follows:

- **reproduced**: the whole 95 % interval lies on the side that the claim names;
- **contradicted**: the whole interval lies on the other side;
- **not decidable**: the interval reaches across, or there are fewer data than the claim asks for.

A verdict is on what this study measured: its data, its scale and its protocol, which stand beside it. One on embedded data
says nothing of the paper's own data.

Intervals come from a seeded bootstrap over what was drawn as one, such as models, main tasks or trials. The errors over
test images are added as if they went together in all rows, which they may, as the images are the same: no interval is
narrower than the data allow. Shares count at their lower end what is clearly on that side, by 1.96 standard errors, and at
their upper end what is not clearly on the other, with Wilson's interval where that is wider. How the interval of another
number is made, its claim says.

Where two models are compared by relative task vulnerability v, the number is the ratio of 1 + v: by how much the attack
multiplies the error.
"""
