"""Reading plan.csv for the tables: which model serves which cell (main task, auxiliary tasks)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong.analysis.records import Evaluation, read_evaluation
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.study import COLUMNS
from headstrong.tasks import TASKS, in_order

# By parameters at full width: supplement Table 1; mobilenet_v2 2.2 and resnet34 21 million without their heads.
ENCODERS_BY_SIZE = (
    "mobilenet_v2",
    "xception",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet152",
    "wide_resnet50_2",
)
# What sets a model apart from a plain one: shared blocks, adversarial training, another protocol.
APART = ("layout", "adversarial", "switches")
_CELL_COLUMNS = ("model", "encoder", "weighting", "epochs", "main", "auxiliary", "size", "own")
# What every row says; where a row is cut short, it does not.
_FORMS = {"main": f"[{''.join(TASKS)}]", "auxiliary": f"[{''.join(TASKS)}]*", "epochs": "[0-9]+", "seed": "[0-9]+"}
Row = dict[str, Any]


def read_plan(path: Path) -> pd.DataFrame:
    """plan.csv as a frame with the plan's columns (epochs an integer, the others text; nothing to say: "").

    Raises MissingDataError when it is absent, BrokenFileError when it is empty or damaged, when columns are missing and
    when an id comes twice.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no plan; write it with the workflow's plan step")
    try:
        plan = pd.read_csv(path, dtype=str, keep_default_na=False)
        if not isinstance(plan.index, pd.RangeIndex):  # pandas takes what is too much for names of the rows
            raise ValueError("rows have more fields than the first line")
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise BrokenFileError(f"{path}: not a plan ({reason}); delete it and write the plan again") from None
    lacking = [column for column in COLUMNS if column not in plan.columns]
    if lacking:
        raise BrokenFileError(f"{path}: columns {', '.join(lacking)} are missing; write the plan again")
    if plan["id"].duplicated().any():
        twice = plan.loc[plan["id"].duplicated(), "id"].iloc[0]
        raise BrokenFileError(f"{path}: id {twice} comes twice; write the plan again")
    for column, form in _FORMS.items():
        wrong = plan.loc[plan[column].str.fullmatch(form).eq(False)]
        if len(wrong):
            model, value = wrong[["id", column]].iloc[0]
            raise BrokenFileError(f"{path}: {column} of {model!r} is {value!r}; delete it and write the plan again")
    return plan.assign(epochs=plan["epochs"].astype(int))


def evaluations_of(folder: Path, plan: Path) -> list[Path]:
    """The evaluation of every model of the plan CSV, there or not, in its order. Raises as `read_plan`."""
    return [folder / f"{model}.h5" for model in read_plan(plan)["id"]]


def rows_of_models(
    evaluations: Path, plan: Path, rows: Callable[[Evaluation], list[Row]], processes: int = 1
) -> list[Row]:
    """The rows that `rows` makes of every evaluation of the plan, in the plan's order whatever `processes` is.

    evaluations: folder with one `<model id>.h5` per row of the plan CSV. With more than one process, `rows` must be
    picklable. Raises MissingDataError or BrokenFileError, naming the file, when one is absent, broken or another's.
    """
    specs = [(str(row["id"]), in_order(row["main"] + row["auxiliary"])) for row in read_plan(plan).to_dict("records")]
    work = partial(_rows_of_file, evaluations, rows)
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            return [row for part in _counted(pool.map(work, specs, chunksize=4), len(specs)) for row in part]
    return [row for part in _counted(map(work, specs), len(specs)) for row in part]


def _counted(parts: Iterable[list[Row]], count: int) -> Iterator[list[Row]]:
    """Pass the parts on, with a counter on the terminal (none in a log)."""
    shown = sys.stderr.isatty()
    for number, part in enumerate(parts, start=1):
        if shown:
            print(f"\r{number} of {count} evaluations", end="\n" if number == count else "", file=sys.stderr)
        yield part


def _rows_of_file(folder: Path, rows: Callable[[Evaluation], list[Row]], spec: tuple[str, str]) -> list[Row]:
    model, tasks = spec
    path = folder / f"{model}.h5"
    evaluation = read_evaluation(path)
    if evaluation.id != model or in_order(evaluation.tasks) != tasks:
        raise BrokenFileError(
            f"{path}: holds model {evaluation.id} with tasks {evaluation.tasks}, the plan says {model} with {tasks}; "
            "delete it and run the evaluation again"
        )
    return rows(evaluation)


def by_own_protocol(table: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table, by its column `model`, that are not about models of which the plan switches the protocol."""
    switched = plan.loc[plan["switches"].ne(""), "id"]
    return table.loc[~table["model"].isin(switched)]


def plain(plan: pd.DataFrame) -> pd.DataFrame:
    """The rows of a plan whose models have no layout, no adversarial training and the study's own protocol (APART)."""
    # A plan made before these columns existed has nothing to set a model apart; `study.COLUMNS` says which it is.
    columns = [column for column in APART if column in plan.columns or column in COLUMNS]
    return plan.loc[plan[columns].eq("").all(axis=1)] if columns else plan


def letters(plan: pd.DataFrame) -> str:
    """All task letters of a plan (columns main, auxiliary), in the study's order."""
    return in_order("".join(plan["main"]) + "".join(plan["auxiliary"]))


def encoders(plan: pd.DataFrame) -> list[str]:
    """Encoders of a plan (column encoder), small to large by ENCODERS_BY_SIZE, then others by name."""
    present = set(plan["encoder"])
    known = [encoder for encoder in ENCODERS_BY_SIZE if encoder in present]
    return known + sorted(present - set(known))


def cells(plan: pd.DataFrame) -> pd.DataFrame:
    """Every (main task, auxiliary set) a model of the plan stands for.

    A uniformly weighted model has no main task, so the model of {s, d} serves both (s | d) and (d | s). Where the plan
    holds both orders as models of their own, each serves its own cell. A weighted model serves only its own main task.
    Only plain models serve (see `plain`).

    Columns: model, encoder, weighting ("uniform" or "weighted"), epochs, full_epochs (the most epochs of the same
    encoder and weighting: fewer than that is an early model), main, auxiliary (in the study's order), size (tasks).
    """
    rows = [row for spec in plain(plan).to_dict("records") for row in _cells_of(spec)]
    frame = pd.DataFrame(rows, columns=list(_CELL_COLUMNS))
    key = ["encoder", "weighting", "epochs", "main", "auxiliary"]
    frame = frame.sort_values([*key, "own", "model"], ascending=[True] * len(key) + [False, True])
    frame = frame.drop_duplicates(key).drop(columns="own")
    frame["full_epochs"] = frame.groupby(["encoder", "weighting"])["epochs"].transform("max")
    return sort_cells(frame, ["encoder", "weighting", "epochs"])


def sort_cells(frame: pd.DataFrame, first: list[str]) -> pd.DataFrame:
    """Sort by the columns `first`, then main, size and auxiliary, tasks in the study's order. Rows are renumbered."""
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
