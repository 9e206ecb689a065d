"""The overview of the page, and the audit: every claim with its verdict, the papers' numbers checked by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from headstrong.analysis.audit_finding import NO, OPEN, YES
from headstrong.errors import BrokenFileError
from headstrong.report.blocks import number

CLAIMS = "claims.csv"
VERDICTS = ("reproduced", "contradicted", "not decidable")
SIGNS = {"reproduced": "✓", "contradicted": "✗", "not decidable": "?"}
CLAIM_COLUMNS = (
    "id", "system", "statement", "published", "measure", "effect", "unit", "low", "high", "models", "protocol",
    "verdict", "reason",
)  # fmt: skip
AUDIT_COLUMNS = ("id", "paper", "table", "statement", "recomputed", "printed", "agrees", "how")
# answer of the audit -> the verdict that it looks like, and its words for one finding and for several
ANSWERS = {
    YES: ("reproduced", "agrees", "agree"),
    NO: ("contradicted", "differs", "differ"),
    OPEN: ("not decidable", OPEN, OPEN),
}
Row = dict[str, Any]


def read_claims(results: Path) -> pd.DataFrame | None:
    """tables/claims.csv as text, columns CLAIM_COLUMNS; None where there is none.

    Raises BrokenFileError for a table without these columns or with a verdict that is none.
    """
    path = results / "tables" / CLAIMS
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise BrokenFileError(f"{path}: not a table; delete it and run its step again") from error
    lacking = [column for column in CLAIM_COLUMNS if column not in table.columns]
    if lacking:
        raise BrokenFileError(f"{path}: columns {', '.join(lacking)} are missing; delete it and run its step again")
    unknown = sorted(set(table["verdict"]) - set(VERDICTS))
    if unknown:
        raise BrokenFileError(f"{path}: verdict {unknown[0]!r} is none of {', '.join(VERDICTS)}")
    return table


def verdicts(claims: pd.DataFrame | None) -> Row:
    """counts, [(verdict, sign, number)], and rows, a claim each with its effect, interval and verdict in words; empty
    without claims. claims: from `read_claims`."""
    if claims is None:
        return {}
    counts = [(verdict, SIGNS[verdict], int(claims["verdict"].eq(verdict).sum())) for verdict in VERDICTS]
    rows = [
        {
            **{key: row[key] for key in CLAIM_COLUMNS if key not in ("effect", "low", "high")},
            "published": shown(row["published"]),
            "effect": shown(row["effect"]),
            "interval": f"{shown(row['low'])} to {shown(row['high'])}" if row["low"] and row["high"] else "",
            "sign": SIGNS[row["verdict"]],
            "kind": _kind(row["verdict"]),
        }
        for row in claims.to_dict("records")
    ]
    return {"counts": counts, "rows": rows}


def audit_rows(findings: pd.DataFrame | None) -> Row:
    """The audit of the papers' printed numbers: counts, one per answer (answer, sign, kind, number, words), and rows,
    one per finding with its answer (YES, NO or OPEN), sign, kind and words; empty without findings.

    findings: columns AUDIT_COLUMNS. Raises BrokenFileError where one is missing, or for an answer that is none.
    """
    if findings is None:
        return {}
    lacking = [column for column in AUDIT_COLUMNS if column not in findings.columns]
    if lacking:
        raise BrokenFileError(f"audit: columns {', '.join(lacking)} are missing")
    unknown = sorted(set(findings["agrees"].astype(str)) - set(ANSWERS))
    if unknown:
        raise BrokenFileError(f"audit: answer {unknown[0]!r} is none of {', '.join(ANSWERS)}")
    rows = [
        {
            **{key: str(row[key]) for key in ("id", "paper", "table", "statement", "how")},
            "recomputed": shown(row["recomputed"]),
            "printed": shown(row["printed"]),
            **_answer(row["agrees"], 1),
        }
        for row in findings.to_dict("records")
    ]
    numbers = {answer: int(findings["agrees"].eq(answer).sum()) for answer in ANSWERS}
    counts = [{**_answer(answer, number), "number": number} for answer, number in numbers.items()]
    return {"counts": counts, "rows": rows}


def _answer(answer: str, findings: int) -> Row:
    """An answer of the audit, its sign, its kind and its words for so many findings."""
    verdict, one, several = ANSWERS[answer]
    words = one if findings == 1 else several
    return {"answer": answer, "sign": SIGNS[verdict], "kind": _kind(verdict), "words": words}


def _kind(verdict: str) -> str:
    """The class of a verdict in the page's style sheet."""
    return verdict.replace(" ", "-")


def shown(value: Any) -> str:
    """A number in three digits, a whole number whole, words as they are; an en dash for nothing."""
    text = "" if value is None or (isinstance(value, float) and pd.isna(value)) else str(value).strip()
    if not text:
        return "–"
    try:
        found = float(text)
    except ValueError:
        return text
    return f"{int(found)}".replace("-", "−") if found.is_integer() and abs(found) < 1e5 else number(found)
