"""The papers' printed numbers, as tidy CSV files: copied figures, never changed, never used to compute ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstrong.errors import MissingDataError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names that `load` accepts, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def load(name: str) -> pd.DataFrame:
    """One published table in long form, e.g. `load("ghamizi_table_1")`: columns as in the CSV.

    Numbers are as printed, except that a column printed in hundreds or hundredths ("e-2") is multiplied out.

    Raises MissingDataError when there is no such table.
    """
    import pandas as pd  # late: naming the tables needs no pandas

    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise MissingDataError(f"published table '{name}': there is none of that name; known are {', '.join(names())}")
    return pd.read_csv(path)
