"""What the report says about generated perturbations: the paper's Tables 1 to 7, ours beside the published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from headstrong.analysis.generated import REACH, harm
from headstrong.analysis.mta_tables import AVERAGE
from headstrong.report.blocks import number

TABLES = {
    "generated": "generated perturbations (GAP and MTA)",
    "mta_tables": "MTA's Tables 1 to 7",
}
TITLES = {
    "1": "Table 1: universal, non-targeted. Fooling ratio (accuracy), %",
    "2": "Table 2: universal, targeted. Share called the target, %",
    "3": "Table 3: per-instance, non-targeted. Fooling ratio (accuracy), %",
    "4": "Table 4: per-instance, targeted. Share called the target, %",
    "5": "Table 5: the dense model attacked",
    "6": "Table 6: transfer to another dense model",
    "7": "Table 7: cost of the perturbations of all tasks",
}
UNITS = {
    "Abs Err": "m",
    "Rel Err": "",
    "Mean": "°",
    "Median": "°",
    "P (M)": "",
    "T (ms)": "",
}
CLEARLY = 2.0  # standard errors
BESIDE = ("accuracy", "seg_miou_image")  # metrics of the same cell as another one: not counted again


def context(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Everything the template asks for, by name; an empty list for a table that is absent or has no rows."""
    generated, shaped = tables.get("generated"), tables.get("mta_tables")
    return {
        "mta": [] if shaped is None or shaped.empty else paper_tables(shaped),
        "universal": [] if generated is None or generated.empty else universal(generated),
        "not_learned": "" if generated is None else not_learned(generated),
        "reach": "" if generated is None or generated.empty else reach(generated),
    }


def not_learned(generated: pd.DataFrame) -> str:
    """Which victims and generators did not learn; "" where all did, or the table is older than the question."""
    if "learned" not in generated:
        return ""
    rows = generated.loc[generated["learned"].eq("no")]
    victims = rows.loc[rows["generator"].eq(""), ["victim", "task"]].drop_duplicates()
    generators = rows.loc[rows["generator"].ne(""), ["generator", "task"]].drop_duplicates()
    says = []
    if len(victims):
        names = ", ".join(f"{task} of {name}" for name, task in victims.to_numpy())
        says.append(
            f"Not learned: classifiers whose accuracy is not clearly above that of the majority class ({names})."
        )
    if len(generators):
        names = ", ".join(f"{name} on {task}" for name, task in generators.to_numpy())
        says.append(f"Not learned: generators that are not clearly stronger than noise of the same size ({names}).")
    return " ".join(says)


def paper_tables(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each table of each family (and of each victim in Table 6): title, data set, columns, lines, what it shows, and
    notes.

    table: mta_tables.csv.
    """
    found = []
    for (name, family, victim), part in table.groupby(["table", "family", _victim(table)], sort=False):
        said = _says(name, part, table.loc[table["family"].eq(family)])
        title = f"{TITLES[name]}: {victim}" if victim else TITLES[name]
        found.append(
            {
                "title": title,
                "family": family,
                "dataset": part["dataset"].iloc[0],
                "columns": [_heading(column) for column in dict.fromkeys(part["column"])],
                "lines": _lines(part),
                "says": said,
                "notes": _notes(part),
                "compared": bool(part["published"].notna().any()),
            }
        )
    return found


def _victim(table: pd.DataFrame) -> pd.Series:
    """The victims, where a family has several tables of one number."""
    return table["victim"].where(table["table"].eq("6"), "").rename("of")


def _heading(column: str) -> str:
    unit = UNITS.get(column, "%" if column[:1].isdigit() or column.startswith(("mIoU", "Pix")) else "")
    words = f"within {column}°" if column[:1].isdigit() else column
    return f"{words}, {unit}" if unit else words


def _lines(part: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines of a table in its order, each with the words of its block where a block begins, and its cells."""
    columns, lines, before = list(dict.fromkeys(part["column"])), [], None
    for (block, row), rows in part.groupby(["block", "row"], sort=False):
        cells = [_cell(rows.loc[rows["column"].eq(column)]) for column in columns]
        lines.append({"block": "" if block == before else block, "row": row, "cells": cells})
        before = block
    return lines


def _cell(rows: pd.DataFrame) -> dict[str, str]:
    """A cell: ours, its standard error and the published number; of two metrics the second stands in brackets."""
    if rows.empty:
        return {"ours": "–", "error": "", "second": "", "published": ""}
    first, second = rows.iloc[0], rows.iloc[1] if len(rows) > 1 else None
    # Without perturbation nothing is fooled: the accuracy stands alone, in brackets as below it.
    alone = second is None and first["metric"] == "accuracy"
    published = "" if pd.isna(first["published"]) else f"{first['published']:g}"
    if second is not None and published:
        published += f" ({second['published']:g})"
    return {
        "ours": f"({number(first['ours'])})" if alone else number(first["ours"]),
        "error": "" if pd.isna(first["standard_error"]) else number(first["standard_error"], 2),
        "second": "" if second is None else f"({number(second['ours'])})",
        "published": f"({published})" if alone and published else published,
    }


def _notes(part: pd.DataFrame) -> list[str]:
    """Every note of a table once; one that stands at a single cell says which."""
    noted = part.loc[part["note"].ne("")]
    found = []
    for note, rows in noted.groupby("note", sort=False):
        first = rows.iloc[0]
        where = f"{first['row']}, {first['block']}, {first['column']}: " if len(rows) == 1 else ""
        found.append(f"{where}{note}")
    return found


def _says(name: str, part: pd.DataFrame, whole: pd.DataFrame) -> str:
    """One or two sentences that a table's numbers make."""
    if name == "7":
        return _cheaper(part)
    sentences = [_stronger(part)]
    if name in "1234":
        sentences.append(_noise(part))
    if name == "6":
        sentences.append(_transferred(part, whole.loc[whole["table"].eq("5")]))
    return " ".join(sentence for sentence in sentences if sentence)


def _stronger(part: pd.DataFrame) -> str:
    """In how many cells MTA is at least as strong as GAP: ours, and the published."""
    cells = part.loc[~part["metric"].isin(BESIDE) & part["column"].ne(AVERAGE)]
    mta = cells.loc[cells["row"].eq("MTA") & cells["gain"].notna()]
    if mta.empty:
        return ""
    gain = mta["gain"].to_numpy(float) * mta["metric"].map(harm).to_numpy(float)
    doubt = CLEARLY * mta["gain_standard_error"].to_numpy(float)
    words = (
        f"MTA is at least as strong as GAP in {int((gain >= 0).sum())} of {len(gain)} cells; by more than two standard "
        f"errors of the difference on the same images it is stronger in {int((gain > doubt).sum())} and weaker in "
        f"{int((gain < -doubt).sum())}."
    )
    keys = ["block", "column", "metric"]
    said = mta.merge(cells.loc[cells["row"].eq("GAP"), [*keys, "published"]], on=keys, suffixes=("", "_gap"))
    difference = (said["published"] - said["published_gap"]) * said["metric"].map(harm)
    known = difference.dropna()
    return words + (
        f" Published: at least as strong in {int((known >= 0).sum())} of {len(known)}." if len(known) else ""
    )


def _noise(part: pd.DataFrame) -> str:
    """How much noise of the same size does at most, beside the least that a generator does."""
    main = part.loc[~part["metric"].isin(BESIDE) & part["column"].ne(AVERAGE)]
    noise, made = main.loc[main["row"].eq("Noise"), "ours"], main.loc[main["row"].isin(("GAP", "MTA")), "ours"]
    if noise.empty or made.empty:
        return ""
    return (
        f"Noise of the same size reaches at most {number(noise.max())} %, the weakest generator {number(made.min())} %."
    )


def _transferred(other: pd.DataFrame, own: pd.DataFrame) -> str:
    """The damage to another model as a share of that to the model trained against, MTA: the median over measures."""
    shares = {name: _shares(other, own, name) for name in ("ours", "published")}
    if not len(shares["ours"]):
        return ""
    words = (
        f"The damage of MTA to this model is {number(100 * np.median(shares['ours']))} % of that to the model it was "
        "trained against (median over measures, modes and radii)"
    )
    published = shares["published"]
    return words + (f"; published: {number(100 * np.median(published))} %." if len(published) else ".")


def _shares(other: pd.DataFrame, own: pd.DataFrame, numbers: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    there, here = (_damage(part, numbers) for part in (other, own))
    both = there.to_frame("there").join(here.to_frame("here"), how="inner").dropna()
    both = both.loc[both["here"] > 0]
    return (both["there"] / both["here"]).to_numpy(float)


def _damage(part: pd.DataFrame, numbers: str) -> pd.Series:
    """What MTA changes of each measure, positive where it is worse for the model, by block and column."""
    part = part.loc[~part["metric"].isin(BESIDE)]
    clean = part.loc[part["row"].eq("Clean")].set_index("column")[numbers]
    mta = part.loc[part["row"].eq("MTA")]
    change = (mta[numbers] - mta["column"].map(clean)) * mta["metric"].map(harm)
    return pd.Series(change.to_numpy(float), index=pd.MultiIndex.from_frame(mta[["block", "column"]]), dtype=float)


def _cheaper(part: pd.DataFrame) -> str:
    """How many times the parameters and the time of MTA those of GAP are."""
    sentences = []
    for block, rows in part.groupby("block", sort=False):
        wide = rows.pivot_table(index="row", columns="metric", values=["ours", "published"], aggfunc="first")
        if not {"GAP", "MTA"} <= set(wide.index):
            continue
        ratio = wide.loc["GAP"] / wide.loc["MTA"]
        ours, time = ratio.get(("ours", "parameters_millions")), ratio.get(("ours", "median_ms"))
        words = (
            f"{block}: GAP has {number(ours, 2)} times the parameters of MTA and takes {number(time, 2)} times as long"
        )
        said = [ratio.get(("published", name)) for name in ("parameters_millions", "median_ms")]
        known = all(value is not None and not pd.isna(value) for value in said)
        published = f" (published: {number(said[0], 2)} and {number(said[1], 2)})" if known else ""
        sentences.append(f"{words}{published}.")
    return " ".join(sentences)


def reach(generated: pd.DataFrame) -> str:
    """Whether every perturbation keeps to its ball, in words; generated: generated.csv."""
    largest = generated.loc[generated["metric"].eq(REACH), "value"].max()
    if pd.isna(largest):
        return ""
    if largest > 100.01:
        return f"A perturbation LEFT its ball: its norm is {number(largest, 6)} % of the radius."
    return f"No perturbation leaves its ball: the largest norm is {number(largest)} % of its radius."


def universal(generated: pd.DataFrame) -> list[str]:
    """The ids of the generators in generated.csv whose perturbations are one for all images, and so are exported."""
    chosen = generated["mode"].eq("universal") & generated["generator"].ne("")
    return list(dict.fromkeys(generated.loc[chosen, "generator"]))
