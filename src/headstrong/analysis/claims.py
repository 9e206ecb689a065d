"""claims.csv: a verdict on every claim of the five papers that a study can speak to, from its tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from headstrong import scale
from headstrong.analysis.claims_of_bghc import CLAIMS as _OF_OTHERS
from headstrong.analysis.claims_of_r import CLAIMS as _OF_R
from headstrong.analysis.claims_rules import NOT_DECIDABLE, Claim, LackingError, Tables, verdict, within_bounds
from headstrong.analysis.files import read_table
from headstrong.configfiles import CONFIG_FILE, load
from headstrong.errors import ConfigError, MissingDataError

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
    evaluations: Path | None = None,
    *,
    protocol: Mapping[str, str] | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> pd.DataFrame:
    """claims.csv: a row per claim of every system that the study has a table of, columns COLUMNS, ordered as CLAIMS.

    tables: files of tables, by whose names they are known. plan: plan.csv, None without one. evaluations: the
    folder of per-sample numbers of dense models, None to judge by tables alone. protocol: by the letter of
    a system, the switches, data and scale of the study in words. A claim that the study has no evidence on is not
    decidable, and its row says what is lacking. The same tables and seed, the same verdicts.
    Raises MissingDataError or BrokenFileError, naming the file, as reading a table does.
    """
    study = Tables({path.stem: path for path in tables}, plan, draws, seed, evaluations)
    rows = [_row(claim, study, protocol or {}) for claim in CLAIMS if _speaks_to(study, claim.system)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"models": "Int64"})


def _speaks_to(study: Tables, system: str) -> bool:
    """Whether the study has any table that a claim of this system reads."""
    return any(set(claim.columns) & set(study.paths) for claim in CLAIMS if claim.system == system)


def _row(claim: Claim, study: Tables, protocol: Mapping[str, str]) -> dict[str, object]:
    row = {
        **{name: getattr(claim, name) for name in ("id", "system", "statement", "published", "measure", "unit")},
        "protocol": protocol.get(claim.system, ""),
    }
    try:
        found = within_bounds(claim, claim.evidence(study))
    except LackingError as lacking:
        return {**row, "verdict": NOT_DECIDABLE, "reason": str(lacking)}
    decided, reason = verdict(claim, found)
    return {
        **row,
        "effect": found.effect,
        "low": found.low,
        "high": found.high,
        "models": found.models,
        "verdict": decided,
        "reason": reason,
    }


def of_folder(folder: Path) -> pd.DataFrame:
    """The verdicts of a study's folder, columns COLUMNS: its tables/claims.csv, or judged now where it has none.

    Raises MissingDataError where there are no tables, BrokenFileError where one is broken.
    """
    saved = folder / "tables" / f"{NAME}.csv"
    if saved.is_file():
        return read_table(saved)
    tables = sorted((folder / "tables").glob("*.csv"))
    if not tables:
        raise MissingDataError(f"{folder}: no tables/*.csv to judge by; give the folder of a study, e.g. results/quick")
    plan, config, evaluations = folder / "plan.csv", folder / CONFIG_FILE, folder / "evaluations"
    protocol = _protocol(config) if config.is_file() else {}
    return build_table(
        tables, plan if plan.is_file() else None, evaluations if evaluations.is_dir() else None, protocol=protocol
    )


def _protocol(config: Path) -> Mapping[str, str]:
    """Of a saved configuration; nothing where it is of another version and does not say it any more."""
    try:
        return scale.in_words(load([config]))
    except ConfigError:
        return {}
