"""What a reader explores: the table of all models, a view of each, heat maps of pairs, scatter plots of surrogates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong.analysis.files import read_table
from headstrong.analysis.plan import by_own_protocol, encoders, letters
from headstrong.analysis.tables import AttackChoice, cells
from headstrong.figures.style import look_of
from headstrong.report import map_data, model_data, pictures
from headstrong.report.model_data import Row
from headstrong.report.program_text import as_json
from headstrong.tasks import TASKS

# Where the figures' colour of a task cannot be seen on a white or a dark page.
ON_ANY_PAGE = {"#000000": "var(--ink)", "#FFFFFF": "#9467BD", "#F0E442": "#B8A800"}


def context(
    results: Path,
    plan: pd.DataFrame,
    vulnerability: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    analysis: Mapping[str, Any],
) -> Row:
    """For the template: columns, rows and choices of the table of models, and data (JSON) for the programs.

    results: the study's folder, for training histories and pictures. vulnerability: of all models, switched ones too.
    analysis: the attack that tables and figures show. Raises BrokenFileError for a history, table or file of pictures
    that is none.
    """
    settings = model_data.settings_of(vulnerability, analysis)
    measured = model_data.results_of(vulnerability, settings)
    columns = model_data.columns_of(settings, len(plan))
    runs = model_data.runs_of(plan, results / "models")
    shown = settings[0] if settings else None
    own = by_own_protocol(vulnerability, plan)
    curves = results / "tables" / "curves.csv"
    data: Row = {
        "tasks": {letter: {"title": TASKS[letter].title, "colour": colour(letter)} for letter in letters(plan)},
        "settings": [{key: one[key] for key in ("words", "joint", "single")} for one in settings],
        "columns": columns,
        "models": model_data.model_facts(plan, measured, runs),
        "histories": model_data.histories(results / "models", set(runs.values())),
        "curves": model_data.attack_curves(read_table(curves) if curves.is_file() else None, shown),
        "maps": map_data.heat_maps(own, plan, settings),
        "scatters": _scatters(own, plan, shown, tables),
        "pictures": pictures.of_models(results / "pictured"),
    }
    return {
        "columns": columns,
        "rows": model_data.table_rows(plan, measured, columns),
        "sections": list(dict.fromkeys(plan["section"])),
        "encoders": encoders(plan),
        "tasks": {letter: TASKS[letter].title for letter in letters(plan)},
        "maps": bool(data["maps"]),
        "scatters": bool(data["scatters"]),
        "pictured": list(data["pictures"]["models"]),
        "data": as_json(data),
    }


def colour(letter: str) -> str:
    """The colour of a task, as in the figures where that can be seen on a light and on a dark page."""
    found = look_of(letter).colour
    return ON_ANY_PAGE.get(found, found)


def _scatters(
    vulnerability: pd.DataFrame, plan: pd.DataFrame, shown: Row | None, tables: Mapping[str, pd.DataFrame]
) -> list[Row]:
    if shown is None or shown["steps"] is None:
        return []
    choice = AttackChoice(shown["family"], shown["norm"], shown["epsilon"], shown["steps"], shown["joint"] or "total")
    surrogates = results_table(tables, "surrogates")
    return map_data.scatters(cells(vulnerability, plan, choice), surrogates)


def results_table(tables: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame | None:
    """A table by name; None where the study has none or it has no rows."""
    table = tables.get(name)
    return table if table is not None and len(table) else None
