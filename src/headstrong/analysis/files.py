"""Tables on disk: CSV that reads back as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.provenance import write_atomically

# Columns that hold text: an empty cell is "", never "not available", and a task called "n" or "E" stays a letter.
TEXT = frozenset(
    [
        "model",
        "attack",
        "family",
        "balancer",
        "attacked",
        "stepper",
        "norm",
        "task",
        "metric",
        "encoder",
        "weighting",
        "main",
        "auxiliary",
        "block",
        "table",
        "surrogate",
        "proxy",
        "target",
        "scope",
        "statistic",
        "note",
        "predictor",
        "quantity",
        "tasks",
        "layout",
        "adversarial",
        "added",
        "base",
        "switch",
        "flag",
        "message",
        "victim",
        "trained_on",
        "method",
        "mode",
        "goal",
        "generator",
        "row",
        "column",
    ]
)
# Columns whose name means a number elsewhere, by the table: the letter of the task measured, a size such as 288x384.
TEXT_OF = {
    "transfer": frozenset(["measured"]),
    "generator_cost": frozenset(["size"]),
    "generated": frozenset(["dataset", "learned"]),
    "mta_tables": frozenset(["dataset"]),
    "importance": frozenset(["dataset", "loss", "important", "classes", "split", "learned"]),
    "importance_settings": frozenset(["dataset", "loss", "important", "classes", "split"]),
    "camri_table_1": frozenset(["dataset", "rule", "loss", "important", "classes"]),
    "hidden": frozenset(["dataset", "kind", "hidden", "objective", "access", "role", "learned"]),
    "hidden_summary": frozenset(["dataset", "kind", "objective", "access", "not_learned"]),
    "forgetting": frozenset(["dataset", "kind", "hidden", "access", "role", "learned"]),
    "claims": frozenset(["id", "system", "statement", "published", "measure", "unit", "protocol", "verdict", "reason"]),
}
WHOLE = frozenset(
    [
        "steps",
        "n",
        "epochs",
        "full_epochs",
        "size",
        "rank_single",
        "rank_multi",
        "shared_levels",
        "step",
        "samples",
        "of",
        "pixels",
        "images",
        "optimal",
        "fell_back",
        "filters",
        "blocks",
        "parameters",
        "rounds",
        "trial",
        "trials",
        "settings",
        "pictures",
        "pictures_important",
        "turns",
        "epoch",
        "models",
    ]
)
TRUE_OR_FALSE = frozenset(["holds", "holds_mean", "keeps_accuracy"])


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all; numbers keep all their digits, equal tables give equal bytes."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write tables by name as `write_table` does, `<name>.csv` each; returns their paths."""
    for name, table in tables.items():
        write_table(table, folder / f"{name}.csv")
    return [folder / f"{name}.csv" for name in tables]


def read_table(path: Path, name: str | None = None) -> pd.DataFrame:
    """Read a table that `write_table` wrote: text columns as text, counts as nullable integers, the rest as float64.

    A column that says whether something holds is bool. name: the table's, None where the file is called so.
    Raises MissingDataError when it is absent, BrokenFileError when it is no such table.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such table; run the workflow's step that writes it")
    try:
        types = {column: _type(column, name or path.stem) for column in pd.read_csv(path, nrows=0).columns}
        return pd.read_csv(
            path,
            dtype=types,
            keep_default_na=False,
            na_values={column: [""] for column, kind in types.items() if kind is not str},
        )
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenFileError(
            f"{path}: not a table of headstrong ({reason}); delete it and run its step again"
        ) from error


def _type(column: str, table: str) -> str | type:
    if column in TEXT or column in TEXT_OF.get(table, ()):
        return str
    return "Int64" if column in WHOLE else "bool" if column in TRUE_OR_FALSE else "float64"
