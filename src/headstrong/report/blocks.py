"""Tables of the report as plain rows for the template: what to show of large tables, ours beside the published."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from headstrong.analysis import baselines
from headstrong.analysis.plan import ENCODERS_BY_SIZE
from headstrong.analysis.tables import wide
from headstrong.tasks import TASKS

BLOCK_WORDS = {
    "clean": "Clean error",
    "single": "Relative task vulnerability, main task attacked",
    "multi": "Relative task vulnerability, all tasks attacked",
}


def number(value: Any, digits: int = 3) -> str:
    """A number in so many significant digits for people, with a true minus sign; an en dash where there is none."""
    if value is None or pd.isna(value):
        return "–"
    value = float(value)
    if value != 0 and (abs(value) < 1e-4 or abs(value) >= 1e5):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}·10{str(int(exponent)).translate(_RAISED)}".replace("-", "−")
    if abs(float(f"{value:.{digits}g}")) >= 10**digits:  # 999.6 is a thousand in three digits
        return f"{value:.0f}".replace("-", "−")
    return f"{value:#.{digits}g}".rstrip(".").replace("-", "−")


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def grid(table: pd.DataFrame, block: str) -> dict[str, Any]:
    """One block of a long table of pairs (as `tables.pairs_table`) for the template: title, columns, rows of cells."""
    values = {key: wide(table, block, key) for key in ("ours", "standard_error", "published")}
    ours = values["ours"]
    rows = []
    for main in ours.index:
        cells = [
            {
                "ours": number(ours.at[main, auxiliary]),
                "error": number(values["standard_error"].at[main, auxiliary], 2),
                "published": number(values["published"].at[main, auxiliary]),
                "has_published": not pd.isna(values["published"].at[main, auxiliary]),
                "diagonal": main == auxiliary,
            }
            for auxiliary in ours.columns
        ]
        rows.append({"main": main, "unit": "%" if main == "s" else "MSE", "cells": cells})
    return {"title": BLOCK_WORDS[block], "block": block, "columns": list(ours.columns), "rows": rows}


def table_1(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The blocks of Table 1 (table_1.csv): part A, uniform weights, then part B, weighted, each with both attacks."""
    found = []
    for weighting, letter in (("uniform", "A, uniform weights"), ("weighted", "B, weighted")):
        part = table.loc[table["weighting"].eq(weighting)]
        for block in ("single", "multi"):
            if part["block"].eq(block).any():
                shown = grid(part, block)
                found.append({**shown, "title": f"{letter}: {shown['title'].lower()}"})
    return found


def encoder_tables(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Supplement Tables 2 to 6 (pairs.csv): for each encoder, small to large, its name and its three blocks."""
    present = set(pairs["encoder"])
    order = [name for name in ENCODERS_BY_SIZE if name in present] + sorted(present - set(ENCODERS_BY_SIZE))
    found = []
    for encoder in order:
        part = pairs.loc[pairs["encoder"].eq(encoder)]
        blocks = [grid(part, block) for block in BLOCK_WORDS if part["block"].eq(block).any()]
        found.append({"encoder": encoder, "blocks": blocks, "compared": bool(part["published"].notna().any())})
    return found


def more_vulnerable(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """How many pairs are more vulnerable on their main task than the single-task model: ours, those by more than two
    standard errors of the difference in either direction, and the published count of the same pairs. pairs: pairs.csv.
    """
    rows = []
    chosen = pairs.loc[pairs["block"].isin(("single", "multi"))]
    for (encoder, block), part in chosen.groupby(["encoder", "block"], sort=False):
        alone = part.loc[part["main"].eq(part["auxiliary"])].set_index("main")
        both = part.loc[part["main"].ne(part["auxiliary"]) & part["main"].isin(alone.index)]
        base = alone.loc[both["main"]]
        gain = both["ours"].to_numpy(float) - base["ours"].to_numpy(float)
        doubt = np.hypot(both["standard_error"].to_numpy(float), base["standard_error"].to_numpy(float))
        said = both["published"].to_numpy(float) - base["published"].to_numpy(float)
        known = ~np.isnan(said)
        rows.append(
            {
                "encoder": encoder,
                "attack": "main task" if block == "single" else "all tasks",
                "pairs": len(both),
                "more": int((gain > 0).sum()),
                "clearly_more": int((gain > 2 * doubt).sum()),
                "clearly_less": int((gain < -2 * doubt).sum()),
                "published": f"{int((said[known] > 0).sum())} of {int(known.sum())}" if known.any() else "–",
            }
        )
    return rows


def clean_against_constant(vulnerability: pd.DataFrame, constant: pd.DataFrame, miou: str) -> list[dict[str, Any]]:
    """Clean error of each task over all models, early ones included, beside the constant predictor's: best, median,
    worst model, the constant's error and how far the median lies below it (for s also the ratio of mIoUs)."""
    clean = vulnerability.loc[vulnerability["metric"].eq("clean_error")]
    rows = []
    for letter in (letter for letter in TASKS if letter in set(clean["task"])):
        errors = clean.loc[clean["task"].eq(letter), "mean"]
        name = baselines.majority(miou) if letter == "s" else baselines.MEAN
        match = constant.loc[constant["task"].eq(letter) & constant["predictor"].eq(name), "error"]
        base = float(match.iloc[0]) if len(match) else math.nan
        middle = float(errors.median())
        if letter == "s":
            gain = f"mIoU × {number((100 - middle) / (100 - base), 2)}" if base < 100 else "–"
        else:
            gain = f"−{100 * (1 - middle / base):.0f} %".replace("−-", "+") if base > 0 else "–"
        rows.append(
            {
                "task": letter,
                "title": TASKS[letter].title,
                "measure": TASKS[letter].error,
                "models": len(errors),
                "best": number(errors.min()),
                "median": number(middle),
                "worst": number(errors.max()),
                "constant": number(base),
                "gain": gain if not math.isnan(base) else "–",
            }
        )
    return rows


def best_sets(combinations: pd.DataFrame) -> list[dict[str, Any]]:
    """Per encoder and main task, fully trained and uniformly weighted: the single-task model, the least and the most
    vulnerable set of auxiliary tasks when the main task is attacked, and the number of sets. From combinations.csv."""
    chosen = combinations.loc[combinations["weighting"].eq("uniform") & combinations["single"].notna()]
    most = chosen.groupby("encoder")["epochs"].transform("max")
    chosen = chosen.loc[chosen["epochs"].eq(most)]
    rows = []
    for (encoder, main), part in chosen.groupby(["encoder", "main"], sort=False):
        alone = part.loc[part["size"].eq(1), "single"]
        sets = part.loc[part["size"].gt(1)]
        if sets.empty:
            continue
        least, worst = sets.loc[sets["single"].idxmin()], sets.loc[sets["single"].idxmax()]
        rows.append(
            {
                "encoder": encoder,
                "main": main,
                "alone": number(alone.iloc[0] if len(alone) else None),
                "least": f"{least['auxiliary']} ({number(least['single'])})",
                "most": f"{worst['auxiliary']} ({number(worst['single'])})",
                "sets": len(sets),
            }
        )
    return rows


def marginal(vulnerability: pd.DataFrame) -> list[dict[str, Any]]:
    """Marginal vulnerability of each task in the models with the most tasks, over all sets it was added to: least,
    median, most. vulnerability: vulnerability.csv."""
    rows = vulnerability.loc[vulnerability["metric"].eq("marginal_vulnerability")]
    clean = vulnerability.loc[vulnerability["metric"].eq("clean_error")]
    sizes = clean.groupby("model")["task"].nunique()
    rows = rows.loc[rows["model"].map(sizes).eq(sizes.max())] if len(rows) else rows
    found = []
    for letter in (letter for letter in TASKS if letter in set(rows["task"])):
        values = rows.loc[rows["task"].eq(letter), "mean"]
        found.append(
            {
                "task": letter,
                "sets": len(values),
                "least": number(values.min()),
                "median": number(values.median()),
                "most": number(values.max()),
            }
        )
    return found


def surrogate_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Table 3 (table_3.csv) for the template: numbers as text, published beside ours."""
    return [
        {
            **{key: row[key] for key in ("surrogate", "proxy", "target", "attack")},
            "n": int(row["n"]),
            "ours": number(row["ours"], 2),
            "interval": "–" if pd.isna(row["low"]) else f"{number(row['low'], 2)} to {number(row['high'], 2)}",
            "p_value": number(row["p_value"], 2),
            "within": number(row["within"], 2),
            "within_p_value": number(row["within_p_value"], 2),
            "row_means": number(row["of_row_means"], 2),
            "published": number(row["published"], 2),
        }
        for row in table.to_dict("records")
    ]
