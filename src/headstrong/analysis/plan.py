"""Reading plan.csv for the tables: which model serves which cell (main task, auxiliary tasks)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.study import COLUMNS
from headstrong.tasks import TASKS, in_order

ENCODERS_BY_SIZE = (
    "xception",
    "resnet18",
    "resnet50",
    "resnet152",
    "wide_resnet50_2",
)  # parameters, supplement Table 1


def read_plan(path: Path) -> pd.DataFrame:
    """plan.csv as a frame with the plan's columns (epochs an integer, the others text; no auxiliary task: "").

    Raises MissingDataError when it is absent, BrokenFileError when columns are missing or an id comes twice.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no plan; write it with the workflow's plan step")
    plan = pd.read_csv(path, dtype=str, keep_default_na=False)
    lacking = [column for column in COLUMNS if column not in plan.columns]
    if lacking:
        raise BrokenFileError(f"{path}: columns {', '.join(lacking)} are missing; write the plan again")
    if plan["id"].duplicated().any():
        twice = plan.loc[plan["id"].duplicated(), "id"].iloc[0]
        raise BrokenFileError(f"{path}: id {twice} comes twice; write the plan again")
    return plan.assign(epochs=plan["epochs"].astype(int))


def letters(plan: pd.DataFrame) -> str:
    """All task letters of a plan, in the study's order."""
    return in_order("".join(plan["main"]) + "".join(plan["auxiliary"]))


def encoders(plan: pd.DataFrame) -> list[str]:
    """Encoders of a plan, small to large."""
    present = set(plan["encoder"])
    known = [encoder for encoder in ENCODERS_BY_SIZE if encoder in present]
    return known + sorted(present - set(known))


def cells(plan: pd.DataFrame) -> pd.DataFrame:
    """Every (main task, auxiliary set) a model of the plan stands for.

    A uniformly weighted model has no main task, so the model of {s, d} serves both (s | d) and (d | s). Where the plan
    holds both orders as models of their own, each serves its own cell. A weighted model serves only its own main task.

    Columns: model, encoder, weighting ("uniform" or "weighted"), epochs, full_epochs (the most epochs of the same
    encoder and weighting: fewer than that is an early model), main, auxiliary (in the study's order), size (tasks).
    """
    rows = [row for spec in plan.to_dict("records") for row in _cells_of(spec)]
    frame = pd.DataFrame(rows)
    key = ["encoder", "weighting", "epochs", "main", "auxiliary"]
    frame = frame.sort_values([*key, "own", "model"], ascending=[True] * len(key) + [False, True])
    frame = frame.drop_duplicates(key).drop(columns="own")
    frame["full_epochs"] = frame.groupby(["encoder", "weighting"])["epochs"].transform("max")
    return sort_cells(frame, ["encoder", "weighting", "epochs"])


def sort_cells(frame: pd.DataFrame, first: list[str]) -> pd.DataFrame:
    """Sort by the columns `first`, then main task, size and auxiliary tasks in the study's order."""
    order = {letter: number for number, letter in enumerate(TASKS)}
    keys = frame.assign(
        _main=frame["main"].map(order), _auxiliary=[tuple(order[letter] for letter in a) for a in frame["auxiliary"]]
    )
    keys = keys.sort_values([*first, "_main", "size", "_auxiliary"])
    return keys.drop(columns=["_main", "_auxiliary"]).reset_index(drop=True)


def _cells_of(spec: dict[str, object]) -> list[dict[str, object]]:
    main, auxiliary = str(spec["main"]), str(spec["auxiliary"])
    weighting = "uniform" if len(set(str(spec["weights"]).split(";"))) == 1 else "weighted"
    mains = main + auxiliary if weighting == "uniform" else main
    return [
        {
            "model": spec["id"],
            "encoder": spec["encoder"],
            "weighting": weighting,
            "epochs": spec["epochs"],
            "main": letter,
            "auxiliary": in_order((main + auxiliary).replace(letter, "")),
            "size": len(main + auxiliary),
            "own": letter == main,
        }
        for letter in mains
    ]
