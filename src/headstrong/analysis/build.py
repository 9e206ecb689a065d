"""All tables that follow from vulnerability.csv and the plan, in one call."""

from __future__ import annotations

import pandas as pd

from headstrong.analysis import surrogates, switches, tables
from headstrong.analysis.stats import BOOTSTRAP_DRAWS
from headstrong.analysis.table_2 import table_2
from headstrong.analysis.tables import AttackChoice

NAMES = ("cells", "pairs", "table_1", "table_2", "combinations", "surrogates", "table_3", "switches")


def build_tables(
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    choice: AttackChoice,
    *,
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
    segmentation: str = "per_sample",
) -> dict[str, pd.DataFrame]:
    """The tables by the name of their CSV (NAMES); a table the study has nothing for is there, with no rows.

    vulnerability: vulnerability.csv; plan: `plan.read_plan`; choice: the attack that the tables show. seed, draws: of
    the bootstrap. segmentation: as in `tables.cells`, which raises ConfigError for another. Columns: see each table's
    own function.
    """
    cells = tables.cells(vulnerability, plan, choice, segmentation=segmentation)
    correlations = surrogates.build_table(cells, seed=seed, draws=draws)
    return {
        "cells": cells,
        "pairs": tables.pairs_table(cells),
        "table_1": tables.table_1(cells),
        "table_2": table_2(vulnerability, plan, choice, segmentation=segmentation),
        "combinations": tables.combinations(cells),
        "surrogates": correlations,
        "table_3": surrogates.table_3(correlations),
        "switches": switches.build_table(vulnerability, plan),
    }
