"""Tables on disk: CSV that reads back as it was written."""

from __future__ import annotations

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
    ]
)
WHOLE = frozenset(("steps", "n", "epochs", "full_epochs", "size", "rank_single", "rank_multi"))


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all; numbers keep all their digits, equal tables give equal bytes."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote: text columns as text, counts as nullable integers, the rest as float64.

    Raises MissingDataError when it is absent, BrokenFileError when it is no such table.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such table; run the workflow's step that writes it")
    try:
        columns = list(pd.read_csv(path, nrows=0).columns)
        return pd.read_csv(
            path,
            dtype={name: "Int64" if name in WHOLE else str if name in TEXT else "float64" for name in columns},
            keep_default_na=False,
            na_values={name: [""] for name in columns if name not in TEXT},
        )
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenFileError(
            f"{path}: not a table of headstrong ({reason}); delete it and run its step again"
        ) from error
