"""mta_tables.csv: Tables 1 to 7 of "Multi-Task Adversarial Attack" (arXiv 2011.09824) in long form, ours beside them.

Tables 1 to 4 are of classifiers, one per domain of Office-31 (universal and per-instance, non-targeted and targeted
perturbations), Tables 5 and 6 of dense models on NYUv2 (the model trained against, and another), Table 7 of the cost.
The paper prints GAP and MTA. Ours have rows more: the victim without perturbation, noise of the same size, and for
dense models a constant predictor. A published number stands next to ours at the same radius and norm, where our data
are those that it was printed for, or the embedded data that stand in for them (STANDS_FOR); other data have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong import published, radius
from headstrong.analysis.files import read_table
from headstrong.analysis.generated_records import CLEAN, METHODS, NOISE, TRIVIAL
from headstrong.errors import BrokenFileError
from headstrong.radius import SHADES

COLUMNS = (
    "table",
    "block",
    "row",
    "column",
    "metric",
    "ours",
    "standard_error",
    "published",
    "note",
    "family",
    "dataset",
    "victim",
    "norm",
    "epsilon",
    "gain",
    "gain_standard_error",
)
COST_COLUMNS = (
    "family",
    "mode",
    "method",
    "size",
    "filters",
    "blocks",
    "parameters",
    "median_ms",
    "low_ms",
    "high_ms",
    "rounds",
    "published_parameters_millions",
    "published_ms",
)
# Mode, goal and metrics of Tables 1 to 4.
CLASS_TABLES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "1": ("universal", "untargeted", ("fooling_ratio", "accuracy")),
    "2": ("universal", "targeted", ("target_accuracy",)),
    "3": ("instance", "untargeted", ("fooling_ratio", "accuracy")),
    "4": ("instance", "targeted", ("target_accuracy",)),
}
AVERAGE = "average"
ROWS = {CLEAN: "Clean", TRIVIAL: "Constant", "gap": "GAP", "mta": "MTA", NOISE: "Noise"}
MODES = {"universal": "universal", "instance": "per-instance"}
HEADINGS = {
    "seg_miou": "mIoU",
    "seg_miou_image": "mIoU per image",
    "seg_pixel_accuracy": "Pix Acc",
    "depth_abs_err": "Abs Err",
    "depth_rel_err": "Rel Err",
    "normal_mean": "Mean",
    "normal_median": "Median",
    "normal_within_11.25": "11.25",
    "normal_within_22.5": "22.5",
    "normal_within_30": "30",
    "abs_err": "Abs Err",
}
DOMAINS = ("amazon", "dslr", "webcam")  # in the order of the paper's columns
# By data set, which domain of Office-31 each of its domains stands for.
STANDS_FOR: Mapping[str, Mapping[str, str]] = {
    "office31": {name: name for name in DOMAINS},
    "objects": {"studio": "amazon", "room": "dslr", "webcam": "webcam"},
}
STANDS_FOR_NYUV2 = ("nyuv2", "rooms")
CLEAN_ACCURACY = {"amazon": 78.72, "dslr": 98.30, "webcam": 91.49}  # section 4.1
AVERAGE_ROUNDING = 0.0101  # points: a printed average is rounded, and is of three rounded numbers
# Millions of parameters of the generators for three tasks, counted: 64 filters, batch normalisation, 4 or 10 blocks.
RECOUNTED = {"universal GAP": 16.44, "per-instance GAP": 37.69, "universal MTA": 6.24, "per-instance MTA": 13.32}
WHICH_MIOU = "which mIoU was published is not said: this one, or the one per image"
Row = dict[str, Any]


def build_table(generated: pd.DataFrame, cost: pd.DataFrame | None = None) -> pd.DataFrame:
    """The tables, one after the other and each family by itself; columns COLUMNS.

    generated: generated.csv; cost: generator_cost.csv, None where it was not measured.
    block: a radius, with the mode in Tables 5 and 6; row: Clean, Constant, GAP, MTA or Noise; column: a domain or
    AVERAGE over the domains, or a heading of Table 5. Numbers are in percent but for depth (metres, and a ratio) and
    angles (degrees), Table 7 in millions and milliseconds; epsilon is in pixel units. gain: MTA minus GAP on the
    same images, as in generated.csv. Errors of averages and their gains take the domains, whose images differ, as
    independent.
    """
    found: list[Row] = []
    for _, part in generated.groupby("family", sort=False):
        found += [*_class_tables(part)] if part["metric"].eq("accuracy").any() else [*_dense_tables(part)]
    found += [] if cost is None else [*_cost_rows(cost)]
    return pd.DataFrame(sorted(found, key=lambda row: row["table"]), columns=list(COLUMNS))


def read_costs(paths: Sequence[Path]) -> pd.DataFrame:
    """generator_cost.csv: what was measured of each family, one CSV of COST_COLUMNS each; no file, no row.

    Raises MissingDataError or BrokenFileError, naming the file.
    """
    parts = [read_table(path, "generator_cost") for path in paths]
    for path, part in zip(paths, parts, strict=True):
        lacking = [name for name in COST_COLUMNS if name not in part.columns]
        if lacking:
            raise BrokenFileError(f"{path}: columns {', '.join(lacking)} are missing; delete it and time them again")
    filled = [part for part in parts if len(part)]
    whole = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(COST_COLUMNS))
    return whole[list(COST_COLUMNS)]


def _class_tables(part: pd.DataFrame) -> Iterator[Row]:
    own = part.loc[part["victim"].eq(_trained_on(part))]
    for table, (mode, goal, metrics) in CLASS_TABLES.items():
        chosen = own.loc[own["mode"].eq(mode) & own["goal"].eq(goal)]
        if chosen.empty:
            continue
        # Clean images and noise have a target accuracy for every class aimed at: theirs is the one of these generators.
        targets = set(zip(chosen["task"], chosen["target"], strict=True))
        fitting = [pair in targets for pair in zip(own["task"], own["target"], strict=True)]
        beside = own.loc[own["generator"].eq("") & pd.Series(fitting, index=own.index)]
        clean = beside.loc[beside["method"].eq(CLEAN)]
        for metric in [name for name in metrics if name != "fooling_ratio"]:
            yield from _domains(table, "clean", CLEAN, clean.loc[clean["metric"].eq(metric)])
        for norm, epsilon in _radii(chosen):
            for method in (*METHODS, NOISE):
                rows = beside if method == NOISE else chosen
                rows = rows.loc[rows["method"].eq(method) & rows["norm"].eq(norm) & rows["epsilon"].eq(epsilon)]
                for metric in metrics:
                    yield from _domains(table, _ball(norm, epsilon), method, rows.loc[rows["metric"].eq(metric)])


def _domains(table: str, block: str, method: str, rows: pd.DataFrame) -> Iterator[Row]:
    """One line of Tables 1 to 4: the domains and their average."""
    rows = rows.drop_duplicates("task")
    if rows.empty:
        return
    first = rows.iloc[0]
    stands_for = STANDS_FOR.get(first["dataset"], {})
    names = {task: stands_for[task] for task in rows["task"] if task in stands_for}
    metric, size = str(first["metric"]), _printed(first["epsilon"]) if first["norm"] in ("linf", "") else math.nan
    said = {name: _said(table, size, method, metric, domain) for name, domain in names.items()}
    for row in rows.to_dict("records"):
        domain = names.get(row["task"], "")
        note = f"{row['task']} stands for {domain}" if domain not in ("", row["task"]) else ""
        number = said.get(row["task"], math.nan)
        yield _cell(table, block, method, row, row["task"], number, note if not math.isnan(number) else "")
    if len(rows) > 1:
        whole = len(rows) == len(DOMAINS) == len(names)
        number, note = _average_said(table, size, method, metric, list(said.values())) if whole else (math.nan, "")
        yield _cell(table, block, method, _average(rows), AVERAGE, number, note)


def _average(rows: pd.DataFrame) -> Row:
    many = len(rows)
    errors = {key: math.sqrt(float(rows[key].pow(2).sum(skipna=False))) / many for key in _ERRORS}
    return {**rows.iloc[0].to_dict(), **{key: float(rows[key].mean(skipna=False)) for key in _MEANS}, **errors}


_MEANS, _ERRORS = ("value", "gain"), ("standard_error", "gain_standard_error")


def _said(table: str, epsilon: float, method: str, metric: str, domain: str) -> float:
    if method == CLEAN:
        return CLEAN_ACCURACY[domain] if metric == "accuracy" else math.nan
    return _published_classes().get((table, epsilon, ROWS[method], domain, metric), math.nan)


def _average_said(table: str, epsilon: float, method: str, metric: str, values: list[float]) -> tuple[float, str]:
    if method == CLEAN:
        return math.nan, ""
    mean = sum(values) / len(values)
    number = _published_averages().get((table, epsilon, ROWS[method], metric), math.nan)
    wrong = abs(number - mean) > AVERAGE_ROUNDING
    return number, f"misprint in the paper: the mean of its row is {mean:.2f}" if wrong else ""


def _dense_tables(part: pd.DataFrame) -> Iterator[Row]:
    trained_on = _trained_on(part)
    victims = [name for name in dict.fromkeys(part["victim"]) if name not in ("", trained_on)]
    compared = next((name for name in victims if "mtan" in name.lower()), victims[0] if victims else "")
    has_published = part["dataset"].isin(STANDS_FOR_NYUV2).all()
    # The constant predictor is no model's: it stands in Table 5 alone.
    own = part.loc[part["victim"].isin((trained_on, ""))]
    words = "" if trained_on.lower() == "dmtl" else "published: victim DMTL"
    yield from _dense_rows("5", own, words if has_published else None)
    for victim in victims:
        rows = part.loc[part["victim"].eq(victim)]
        words = "" if victim.lower() == "mtan" else "published: victim MTAN"
        yield from _dense_rows("6", rows, words if has_published and victim == compared else None)


def _dense_rows(table: str, rows: pd.DataFrame, note: str | None) -> Iterator[Row]:
    """Lines of Tables 5 and 6; note: what to say of published numbers, None where there are none."""
    for method in (CLEAN, TRIVIAL):
        yield from _measures(table, CLEAN, method, "clean", rows.loc[rows["method"].eq(method)], note)
    generators = rows.loc[rows["method"].isin(METHODS)]
    for norm, epsilon in _radii(generators):
        here = rows.loc[rows["norm"].eq(norm) & rows["epsilon"].eq(epsilon)]
        beside = note if norm == "linf" and _printed(epsilon) == 5 else None
        for mode in MODES:
            for method in METHODS:
                chosen = here.loc[here["mode"].eq(mode) & here["method"].eq(method)]
                yield from _measures(
                    table, f"{_ball(norm, epsilon)}, {MODES[mode]}", method, MODES[mode], chosen, beside
                )
        noise = here.loc[here["method"].eq(NOISE)]
        yield from _measures(table, f"{_ball(norm, epsilon)}, noise", NOISE, NOISE, noise, None)


def _measures(table: str, block: str, method: str, mode: str, rows: pd.DataFrame, note: str | None) -> Iterator[Row]:
    for row in rows.drop_duplicates(["task", "metric"]).to_dict("records"):
        if row["metric"] not in HEADINGS:
            continue
        said = math.nan
        if note is not None and row["task"] in "sdn":
            name = "-" if method == CLEAN else ROWS[method]
            said = _published_dense().get((table, mode, name, row["metric"]), math.nan)
        words = [note or "", WHICH_MIOU if row["metric"] == "seg_miou" else ""] if not math.isnan(said) else []
        heading = HEADINGS[row["metric"]]
        column = heading if row["task"] in "sdn" else f"{row['task']} {heading}"
        yield _cell(table, block, method, row, column, said, "; ".join(word for word in words if word))


def _cost_rows(cost: pd.DataFrame) -> Iterator[Row]:
    for line in cost.to_dict("records"):
        mode, method = MODES.get(line["mode"], line["mode"]), ROWS[line["method"]]
        block = f"{mode}, {line['size']}, {line['filters']} filters, {line['blocks']} blocks"
        head = {"family": line["family"], "epsilon": math.nan}
        said = float(line["published_parameters_millions"])
        counted = RECOUNTED.get(f"{mode} {method}")
        misprint = not math.isnan(said) and counted is not None and said < counted / 5
        note = f"misprint in the paper, ten times too small: 64 filters give {counted} M" if misprint else ""
        ours = {**head, "metric": "parameters_millions", "value": float(line["parameters"]) / 1e6}
        yield _cell("7", block, line["method"], ours, "P (M)", said, note)
        spread = f"quartiles {line['low_ms']:.4g} to {line['high_ms']:.4g} ms, {line['rounds']} rounds"
        ours = {**head, "metric": "median_ms", "value": float(line["median_ms"])}
        yield _cell("7", block, line["method"], ours, "T (ms)", float(line["published_ms"]), spread)


def _cell(table: str, block: str, method: str, row: Mapping[str, Any], column: str, said: float, note: str) -> Row:
    return {
        "table": table,
        "block": block,
        "row": ROWS[method],
        "column": column,
        "metric": row["metric"],
        "ours": row["value"],
        "standard_error": row.get("standard_error", math.nan),
        "published": said,
        "note": note,
        "family": row["family"],
        "dataset": row.get("dataset", ""),
        "victim": row.get("victim", ""),
        "norm": row.get("norm", ""),
        "epsilon": row["epsilon"],
        "gain": row.get("gain", math.nan),
        "gain_standard_error": row.get("gain_standard_error", math.nan),
    }


def _ball(norm: str, epsilon: float) -> str:
    """What a block is called: "epsilon 5/255", "epsilon 0.5 (L2)"."""
    return f"epsilon {radius.text(epsilon, norm)}" + (" (L2)" if norm == "l2" else "")


def _printed(epsilon: float) -> float:
    """A radius as the paper has it, with pixels from 0 to 255."""
    return round(SHADES * float(epsilon), 6)


def _radii(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Norms and radii, the maximum norm first and the largest radius first, as printed."""
    found = {(str(norm), float(size)) for norm, size in zip(rows["norm"], rows["epsilon"], strict=True)}
    return sorted(found, key=lambda pair: (pair[0] != "linf", -pair[1]))


def _trained_on(part: pd.DataFrame) -> str:
    """The victims that the generators of a family were trained against."""
    names = part.loc[part["trained_on"].ne(""), "trained_on"]
    return str(names.iloc[0]) if len(names) else ""


@cache
def _published_classes() -> dict[tuple[str, float, str, str, str], float]:
    table = published.load("mta_tables_1_to_4_office31")
    return {
        (str(row["table"]), float(row["epsilon_255"]), row["method"], row["domain"], row["metric"]): row["percent"]
        for row in table.to_dict("records")
    }


@cache
def _published_averages() -> dict[tuple[str, float, str, str], float]:
    table = published.load("mta_tables_1_to_4_averages")
    return {
        (str(row["table"]), float(row["epsilon_255"]), row["method"], row["metric"]): row["percent"]
        for row in table.to_dict("records")
    }


@cache
def _published_dense() -> dict[tuple[str, str, str, str], float]:
    table = published.load("mta_tables_5_and_6_nyuv2")
    return {
        (str(row["table"]), row["mode"], row["method"], row["metric"]): row["value"] for row in table.to_dict("records")
    }
