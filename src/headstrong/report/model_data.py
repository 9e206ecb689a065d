"""The models of a study for the explorer: the table of all of them, and what the view of one model shows.

Numbers are shortened (4 digits for errors, 3 for the rest): the page is to look at; tables/*.csv keep all digits.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong import radius
from headstrong.analysis.records import CLEAN
from headstrong.errors import BrokenFileError
from headstrong.report.blocks import number
from headstrong.tasks import TASKS, in_order

SETTING = ["family", "stepper", "norm", "epsilon", "steps"]
AT_MOST = 8  # columns of vulnerabilities
LEAST_SHARE = 0.1  # of the models that an attack must reach to have a column
MOST_POINTS = 40  # of a training curve
METRICS = ("adversarial_error", "relative_task_vulnerability")
JOINT_FIRST = "total"
Row = dict[str, Any]
_PLACES = {letter: place for place, letter in enumerate(TASKS)}


def short(value: Any, digits: int = 3) -> float | None:
    """The number with so many significant digits; None where there is none."""
    if value is None or pd.isna(value) or math.isinf(value):
        return None
    return float(f"{float(value):.{digits}g}")


def radius_words(norm: str, epsilon: float) -> str:
    """A radius and its norm for people: "8/255", "0.5 in L2"."""
    return radius.text(epsilon, norm) + ("" if norm == "linf" else " in L2")


def settings_of(vulnerability: pd.DataFrame, analysis: Mapping[str, Any]) -> list[Row]:
    """The settings of attacks that were run: family, stepper, norm, epsilon, steps, words, joint (the balancer of
    attacks on all tasks at once that is shown) and single (whether single tasks were attacked). The one of `analysis`
    first, the others from the most to the fewest models; noise last."""
    attacked = vulnerability.loc[vulnerability["attack"].ne(CLEAN)]
    if attacked.empty:
        return []
    found = []
    for key, part in attacked.groupby(SETTING, sort=True, dropna=False):
        row = dict(zip(SETTING, key, strict=True))
        steps = None if pd.isna(row["steps"]) else int(row["steps"])
        others = [name for name in part["balancer"].unique() if name != "single"]
        family = row["family"] if row["family"] == row["stepper"] else f"{row['family']} ({row['stepper']})"
        words = f"{family}, {radius_words(row['norm'], row['epsilon'])}"
        found.append(
            {
                **row,
                "epsilon": float(row["epsilon"]),
                "steps": steps,
                "words": words + (f", {steps} steps" if steps and steps > 1 else ""),
                "joint": JOINT_FIRST if JOINT_FIRST in others else (min(others) if others else None),
                "single": bool(part["balancer"].eq("single").any()),
                "models": int(part["model"].nunique()),
                "shown": all(_same(row[key], analysis.get(key)) for key in ("family", "norm", "epsilon", "steps")),
            }
        )
    return sorted(found, key=lambda one: (not one["shown"], one["stepper"] == "noise", -one["models"]))


def _same(one: Any, other: Any) -> bool:
    if other is None or pd.isna(one):
        return False
    return math.isclose(one, other, rel_tol=1e-9) if isinstance(other, float) else bool(one == other)


def columns_of(settings: list[Row], models: int) -> list[Row]:
    """Columns of vulnerabilities: setting (its place in `settings`), balancer, words, head; for each setting that
    reaches a tenth of the models, the main task attacked alone, then all tasks at once; at most AT_MOST."""
    found = []
    for place, one in enumerate(settings):
        if one["models"] < LEAST_SHARE * models:
            continue
        if one["single"]:
            found.append({"setting": place, "balancer": "single", "words": one["words"], "head": "main task attacked"})
        if one["joint"]:
            head = "noise" if one["stepper"] == "noise" else f"all attacked, {one['joint'].replace('_', ' ')}"
            found.append({"setting": place, "balancer": one["joint"], "words": one["words"], "head": head})
    return found[:AT_MOST]


def results_of(vulnerability: pd.DataFrame, settings: list[Row]) -> dict[str, Row]:
    """What was measured of each model: clean {task: [error, its standard error]} and attacks, a list of
    [setting, balancer, attacked tasks, {task: [adversarial error, relative task vulnerability, its standard
    error]}]. From vulnerability.csv and `settings_of` it."""
    place = {_key(one): number for number, one in enumerate(settings)}
    found: dict[str, Row] = {}
    attacks: dict[tuple[str, str], list[Any]] = {}
    chosen = vulnerability.loc[vulnerability["metric"].isin(("clean_error", *METRICS)) & vulnerability["task"].ne("")]
    for row in chosen.to_dict("records"):
        one = found.setdefault(row["model"], {"clean": {}, "attacks": []})
        if row["metric"] == "clean_error":
            one["clean"][row["task"]] = [short(row["mean"], 4), short(row["standard_error"])]
            continue
        key = (row["model"], row["attack"])
        if key not in attacks:
            attacks[key] = [place[_key(row)], row["balancer"], row["attacked"], {}]
            one["attacks"].append(attacks[key])
        values = attacks[key][3].setdefault(row["task"], [None, None, None])
        if row["metric"] == "adversarial_error":
            values[0] = short(row["mean"], 4)
        else:
            values[1:] = [short(row["mean"]), short(row["standard_error"], 2)]
    for one in found.values():
        one["attacks"].sort(key=lambda attack: (attack[0], attack[1] != "single", attack[1], _order(attack[2])))
    return found


def _order(attacked: str) -> tuple[int, ...]:
    """Fewer tasks first, then the study's order of tasks."""
    return len(attacked), *(_PLACES[letter] for letter in attacked)


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    steps = row["steps"]
    return (*(row[name] for name in SETTING[:-1]), None if steps is None or pd.isna(steps) else int(steps))


def weights_in_words(spec: Mapping[str, Any]) -> str:
    """Loss weights: "uniform", or each task with its own, "d 1, n 0.01"."""
    given = str(spec["weights"]).split(";")
    if len(set(given)) == 1:
        return "uniform"
    return ", ".join(f"{letter} {weight}" for letter, weight in zip(_letters(spec), given, strict=False))


def _letters(spec: Mapping[str, Any]) -> str:
    return str(spec["main"]) + str(spec["auxiliary"])


def value_of(result: Row, task: str, tasks: str, column: Row) -> float | None:
    """Relative task vulnerability of a task under the attack of a column: on that task alone, or on all the model has.
    None where it was not measured. The attack on a single-task model's only task is both."""
    wanted = task if column["balancer"] == "single" else tasks
    alternatives = {column["balancer"], "single"} if len(tasks) == 1 else {column["balancer"]}
    for setting, balancer, attacked, values in result["attacks"]:
        if setting == column["setting"] and balancer in alternatives and attacked == wanted and task in values:
            return values[task][1]
    return None


def table_rows(plan: pd.DataFrame, results: Mapping[str, Row], columns: list[Row]) -> list[Row]:
    """The table of all models, a row each: what it is, the clean error of its main task, its vulnerabilities, as text.

    plan: plan.csv; results: `results_of`; columns: `columns_of`.
    """
    rows = []
    for spec in plan.to_dict("records"):
        tasks = in_order(_letters(spec))
        result = results.get(str(spec["id"]), {"clean": {}, "attacks": []})
        main = str(spec["main"])
        rows.append(
            {
                **{key: str(spec[key]) for key in ("id", "section", "encoder", "main")},
                "tasks": tasks,
                "weights": weights_in_words(spec),
                "epochs": int(spec["epochs"]),
                "clean": number(result["clean"].get(main, [None])[0]),
                "values": [number(value_of(result, main, tasks, column)) for column in columns],
            }
        )
    return rows


def model_facts(plan: pd.DataFrame, results: Mapping[str, Row], runs: Mapping[str, str]) -> dict[str, Row]:
    """Everything about each model for its view, by id: what the plan says, what was measured, and run, the training
    whose curve is its own (of an early model the longer run's)."""
    found = {}
    for spec in plan.to_dict("records"):
        model = str(spec["id"])
        apart = {key: str(spec[key]) for key in ("layout", "adversarial", "switches") if spec.get(key)}
        found[model] = {
            **{key: str(spec[key]) for key in ("section", "encoder", "main")},
            "tasks": in_order(_letters(spec)),
            "weights": weights_in_words(spec),
            "epochs": int(spec["epochs"]),
            **apart,
            **({"run": runs[model]} if model in runs else {}),
            **results.get(model, {"clean": {}, "attacks": []}),
        }
    return found


def runs_of(plan: pd.DataFrame, folder: Path) -> dict[str, str]:
    """The training run of every model that has a history in `folder`/<run>/history.csv.

    A model that is a checkpoint of another's run has that run's seed, so the history is found by it.
    """
    there = {str(model) for model in plan["id"] if (folder / str(model) / "history.csv").is_file()}
    same = ["encoder", "main", "auxiliary", "weights", "seed"]
    longest: dict[tuple[str, ...], str] = {}
    for spec in plan.sort_values("epochs").to_dict("records"):
        if spec["id"] in there:
            longest[tuple(str(spec[key]) for key in same)] = str(spec["id"])
    found = {}
    for spec in plan.to_dict("records"):
        run = spec["id"] if spec["id"] in there else longest.get(tuple(str(spec[key]) for key in same))
        if run is not None:
            found[str(spec["id"])] = str(run)
    return found


def histories(folder: Path, runs: set[str]) -> dict[str, Row]:
    """Training curves: epochs, and the mean training loss of each task, at most MOST_POINTS of them per run.

    Raises BrokenFileError for a history that is none.
    """
    return {run: _history(folder / run / "history.csv") for run in sorted(runs)}


def _history(path: Path) -> Row:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        kept = [rows[place] for place in _spread(len(rows))]
        letters = [letter for letter in TASKS if rows and f"loss_{letter}" in rows[0]]
        return {
            "epochs": [int(row["epoch"]) for row in kept],
            "loss": {letter: [short(float(row[f"loss_{letter}"])) for row in kept] for letter in letters},
        }
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BrokenFileError(f"{path}: not a training history; delete it and train the model again") from error


def _spread(count: int) -> list[int]:
    """At most MOST_POINTS places from 0 to count - 1, evenly spread, with both ends."""
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(k * (count - 1) / (MOST_POINTS - 1)) for k in range(MOST_POINTS)})


def attack_curves(curves: pd.DataFrame | None, setting: Row | None) -> dict[str, list[Any]]:
    """How the losses grow under the attacks of one setting, by model: [attacked tasks, task, [loss / clean - 1]].

    curves: curves.csv; setting: one of `settings_of`. Empty without either.
    """
    if curves is None or setting is None:
        return {}
    rows = curves.loc[
        curves["family"].eq(setting["family"])
        & curves["norm"].eq(setting["norm"])
        & (curves["epsilon"] - setting["epsilon"]).abs().lt(1e-9)
        & curves["steps"].eq(setting["steps"]).fillna(False)
    ]
    found: dict[str, dict[tuple[str, str], list[Any]]] = {}
    columns = ["model", "attack", "attacked", "task", "relative"]
    for model, attack, attacked, task, relative in rows.sort_values("step", kind="stable")[columns].to_numpy().tolist():
        lines = found.setdefault(model, {})
        lines.setdefault((attack, task), [attacked, task, []])[2].append(short(relative))
    return {model: list(lines.values()) for model, lines in found.items()}
