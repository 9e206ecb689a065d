"""What a results folder says about itself: headline counts, run records, times of the stages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong.analysis.plan import encoders, letters
from headstrong.analysis.records import CLEAN
from headstrong.errors import BrokenFileError

RECORDS = {
    "data": "data/*.json",
    "training": "models/*/run.json",
    "evaluation": "evaluations/*.json",
    "pictures under attack": "pictured/*.json",
    "pictures": "pictures/*/*/*.json",
    "classifiers": "classifiers/*/run.json",
    "generators": "generators/*/run.json",
    "evaluation of generators": "generated/*.json",
    "evaluation of important classes": "importance/*.json",
    "forgetting": "forgetting/*/run.json",
    "evaluation of hidden tasks": "hidden/*.json",
}

# What a record says of where its job ran, on which the rounding of sums may depend.
_WHERE = ("device", "processor", "platform")

# Folders that records of other rules lie in as well.
RULES = {"evaluation of generators": "evaluate_generators"}


def headline(plan: pd.DataFrame, vulnerability: pd.DataFrame) -> dict[str, Any]:
    """Counts: models, multi-task and single-task ones, encoders, tasks, attacks run, samples, perturbed images, and how
    far the largest perturbation of any attack goes as a share of its radius (1 is the ball's surface)."""
    attacked = vulnerability.loc[vulnerability["attack"].ne(CLEAN)]
    size = attacked.loc[attacked["metric"].eq("largest_perturbation")]
    runs = attacked.drop_duplicates(["model", "attack"])
    samples = vulnerability.loc[vulnerability["metric"].eq("clean_loss"), "n"]
    reach = (size["mean"] / size["epsilon"]).max() if len(size) else float("nan")
    return {
        "models": len(plan),
        "multi": int(plan["auxiliary"].ne("").sum()),
        "single": int(plan["auxiliary"].eq("").sum()),
        "encoders": encoders(plan),
        "tasks": letters(plan),
        "attacks": len(runs),
        "samples": int(samples.max()) if len(samples) else 0,
        "images": int(size["n"].sum()) if len(size) else 0,
        "reach": float(reach),
    }


def stage_times(folder: Path) -> list[dict[str, Any]]:
    """Seconds of each stage from Snakemake's benchmark files `<rule>/*.tsv`: rule, sum, median, max, n.

    An empty list when there are none. Raises BrokenFileError for a file without the column s.
    """
    seconds: dict[str, list[float]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        try:
            column = pd.read_csv(path, sep="\t", usecols=["s"])["s"].astype(float)
        except (ValueError, OSError) as error:
            raise BrokenFileError(f"{path}: not a Snakemake benchmark (no column s); delete it") from error
        seconds.setdefault(rule, []).extend(column.dropna())
    rows = []
    for rule, values in sorted(seconds.items()):
        column = pd.Series(values, dtype=float)
        if len(column):
            statistics = {"sum": column.sum(), "median": column.median(), "max": column.max()}
            rows.append({"rule": rule, "n": len(column), **{key: float(value) for key, value in statistics.items()}})
    return rows


def run_records(results: Path) -> dict[str, Any]:
    """What the run records beside the results say: code digests per stage, where, commits and versions.

    Each is a Counter of distinct values over the records of its kind; empty when there are no records.
    Raises BrokenFileError for a record that is no JSON object.
    """
    code: dict[str, Counter[str]] = {}
    found: dict[str, Counter[str]] = {key: Counter() for key in (*_WHERE, "commit", "versions")}
    for stage, pattern in RECORDS.items():
        for path in sorted(results.glob(pattern)):
            record = _record(path)
            if stage in RULES and record.get("rule", RULES[stage]) != RULES[stage]:
                continue  # of another job that leaves its results in the same folder
            code.setdefault(stage, Counter())[str(record.get("code", "not recorded"))] += 1
            for key in _WHERE:
                if key in record:
                    found[key][str(record[key])] += 1
            git = record.get("git") or {}
            if "commit" in git:
                found["commit"][f"{git['commit']}{' with changes' if git.get('dirty') else ''}"] += 1
            versions = record.get("versions") or {}
            if versions:
                found["versions"][", ".join(f"{name} {number}" for name, number in versions.items())] += 1
    return {"code": code, **found}


def _record(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BrokenFileError(
            f"{path}: not a run record (JSON); delete it and its result, and run the step again"
        ) from error
    if not isinstance(record, dict):
        raise BrokenFileError(
            f"{path}: not a run record (a JSON object); delete it and its result, and run the step again"
        )
    return record


def duration(seconds: float) -> str:
    """Seconds for people: "0.42 s", "38 s", "12 min 5 s", "3 h 20 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
