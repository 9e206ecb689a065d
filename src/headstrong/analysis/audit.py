"""The audit: what the papers' printed numbers say about themselves, and what their open choices change in our runs.

Everything is computed from the published tables (`headstrong.published`) when asked for; only the last findings read
tables of runs. `python -m headstrong audit` prints it, docs/audit.md is made of it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from headstrong import published
from headstrong.analysis import audit_camri, audit_mta, audit_pairs, audit_runs, audit_supplement, audit_surrogates
from headstrong.analysis.audit_finding import Finding, Load
from headstrong.provenance import ROOT

COLUMNS = Finding._fields
REFERENCE = ROOT / "results" / "reference"


def findings(load: Load = published.load, reference: Path = REFERENCE) -> pd.DataFrame:
    """All findings, one row each, columns COLUMNS, all text.

    id: a name that stays. paper, table: whose numbers, and where they stand. statement: what the paper says, or what
    its numbers would have to satisfy, in our words. recomputed: what the numbers give. printed: the number or the words
    of the paper. agrees: "yes", "no" or "not decidable", where the printed numbers, or our runs, cannot tell. how: the
    formula, and the rule by which it agrees.

    load: gives a published table by its name. reference: the folder of committed runs; where a table of theirs is not
    there, its finding says so and is not decidable.
    """
    parts = (audit_pairs, audit_supplement, audit_surrogates, audit_mta, audit_camri)
    rows = [finding for part in parts for finding in part.findings(load)]
    rows += audit_runs.findings(reference)
    return pd.DataFrame(rows, columns=list(COLUMNS))
