"""Heat maps of pairs of tasks and scatter plots of surrogates, as numbers for the explorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from headstrong.analysis.surrogates import KEY, Comparison, comparisons
from headstrong.analysis.tables import AttackChoice, cells
from headstrong.report.model_data import Row, short

GROUP = ["encoder", "weighting", "epochs"]


def heat_maps(vulnerability: pd.DataFrame, plan: pd.DataFrame, settings: list[Row]) -> list[Row]:
    """Every map of main against auxiliary task that the study has: group (encoder, weighting, epochs in words),
    quantity ("clean_error", "single" or "multi"), setting (its place; None for clean errors) and cells, a list of
    [main, auxiliary ("" the single-task model), value, standard error, model]. vulnerability, plan: the tables of these
    names; settings: `model_data.settings_of`."""
    count = plan["encoder"].value_counts().to_dict()  # the encoder most of the study is about comes first
    found: list[Row] = []
    for place, setting in enumerate(settings):
        if setting["steps"] is None:
            continue
        choice = AttackChoice(
            setting["family"], setting["norm"], setting["epsilon"], setting["steps"], setting["joint"] or "total"
        )
        table = cells(vulnerability, plan, choice)
        table = table.loc[table["size"].le(2)]
        wanted = ("clean_error", "single", "multi") if place == 0 else ("single", "multi")
        for quantity in wanted:
            found += _maps_of(table.loc[table["quantity"].eq(quantity)], quantity, place, count)
    return sorted(found, key=lambda one: one.pop("order"))  # Python's sort keeps the order of equals


def _maps_of(table: pd.DataFrame, quantity: str, place: int, count: Mapping[str, int]) -> list[Row]:
    found = []
    for (encoder, weighting, epochs), part in table.groupby(GROUP, sort=False):
        if part["size"].max() < 2:
            continue
        early = int(part["full_epochs"].max()) > int(epochs)
        words = f"{encoder}{', weighted' if weighting == 'weighted' else ''}{f', {epochs} epochs' if early else ''}"
        found.append(
            {
                "order": (early, weighting != "uniform", -count[encoder]),
                "group": words,
                "quantity": quantity,
                "setting": None if quantity == "clean_error" else place,
                "cells": [
                    [row["main"], row["auxiliary"], short(row["value"]), short(row["standard_error"], 2), row["model"]]
                    for row in part.to_dict("records")
                ],
            }
        )
    return found


def scatters(table: pd.DataFrame, statistics: pd.DataFrame | None) -> list[Row]:
    """The points of every surrogate: surrogate, proxy, target, attack, pooled and within (correlations or None) and
    points, a list of [main, auxiliary, x, its error, y, its error, model].

    table: from `tables.cells`; statistics: surrogates.csv.
    """
    found = []
    for comparison in comparisons(table):
        points = _joined(comparison)
        if points.empty:
            continue
        found.append(
            {
                **{key: getattr(comparison, key) for key in ("surrogate", "proxy", "target", "attack")},
                "pooled": _correlation(comparison, statistics, "pooled"),
                "within": _correlation(comparison, statistics, "within"),
                "points": [
                    [
                        row["main"],
                        row["auxiliary"],
                        short(row["value_x"]),
                        short(row["standard_error_x"], 2),
                        short(row["value_y"]),
                        short(row["standard_error_y"], 2),
                        row["model"],
                    ]
                    for row in points.to_dict("records")
                ],
            }
        )
    return found


def _joined(comparison: Comparison) -> pd.DataFrame:
    numbers = [*KEY, "value", "standard_error"]
    target = comparison.target_cells[[*numbers, "model"]]
    return comparison.proxy_cells[numbers].merge(target, on=KEY, suffixes=("_x", "_y"))


def _correlation(comparison: Comparison, statistics: pd.DataFrame | None, scope: str) -> float | None:
    if statistics is None:
        return None
    wanted: Mapping[str, Any] = {
        **{key: getattr(comparison, key) for key in ("surrogate", "proxy", "target", "attack")},
        "statistic": "pearson",
        "scope": scope,
    }
    match = pd.Series(True, index=statistics.index)
    for column, value in wanted.items():
        match &= statistics[column].eq(value)
    rows = statistics.loc[match, "value"]
    return short(rows.iloc[0]) if len(rows) else None
