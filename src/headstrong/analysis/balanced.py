"""balanced.csv: DGBA's comparison, what each way of balancing the tasks does to all of them at once.

"Attacking all tasks at once" (arXiv 2305.12066) measures every attack by its average relative performance
(`headstrong.analysis.performance`): SINGLE on each task, and attacks on all tasks under one balancer or another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong.analysis.performance import Change, Reference, estimate
from headstrong.analysis.plan import Row, read_plan, rows_of_models
from headstrong.analysis.records import AttackRecord, Evaluation
from headstrong.analysis.stats import BOOTSTRAP_DRAWS
from headstrong.tasks import in_order

COLUMNS = (
    "model",
    "encoder",
    "layout",
    "adversarial",
    "tasks",
    "attack",
    "stepper",
    "norm",
    "epsilon",
    "steps",
    "balancer",
    "attacked",
    "task",
    "relative_performance",
    "standard_error",
    "relative_loss_change",
    "gain",
    "gain_standard_error",
    "n",
)
_OF_PLAN = ("encoder", "layout", "adversarial")


def build_table(
    evaluations: Path, plan: Path, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS, processes: int = 1
) -> pd.DataFrame:
    """balanced.csv: the rows of `rows` for every model of the plan, columns COLUMNS, in the plan's order.

    evaluations: folder with one `<model id>.h5` per row of the plan CSV. encoder, layout ("" or a number) and
    adversarial ("" for clean training) are the plan's; tasks are all of the model's, in the study's order. The same
    seed, the same table, whatever `processes` is.
    Raises MissingDataError or BrokenFileError, naming the file, as reading an evaluation does.
    """
    found = rows_of_models(evaluations, plan, partial(rows, seed=seed, draws=draws), processes)
    return with_plan(found, plan, COLUMNS)


def with_plan(found: list[Row], plan: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows of models as a frame of these columns, with encoder, layout and adversarial from the plan."""
    said = {str(row["id"]): {key: str(row[key]) for key in _OF_PLAN} for row in read_plan(plan).to_dict("records")}
    frame = pd.DataFrame([{**row, **said[row["model"]]} for row in found], columns=list(columns))
    return frame.astype({"steps": "Int64", "n": "Int64"})


def rows(evaluation: Evaluation, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> list[Row]:
    """One row per attack and task, and one with task "" for the average over all tasks of the model.

    Attacks: those on all tasks, and those of balancer single on each. A model of one task has nothing to balance and no
    rows. relative_performance is r_t, or ARP with task "": 0 without harm, the lower the stronger the attack.
    gain is this number minus that of TOTAL under the same threat (stepper, norm, radius, steps, step size, start,
    restarts): negative where the attack is stronger than TOTAL, NaN where TOTAL was not run so. Standard errors are
    those of a bootstrap over samples; that of the gain is paired.
    """
    tasks = in_order(evaluation.tasks)
    if len(tasks) < 2:
        return []
    reference = Reference.of(evaluation, seed=seed, draws=draws)
    chosen = [attack for attack in evaluation.attacks.values() if _belongs(attack, tasks)]
    changes = {attack.name: reference.change(attack) for attack in chosen}
    totals = [attack for attack in chosen if attack.balancer == "total"]
    return [
        row
        for attack in chosen
        for row in _rows(attack, evaluation.id, tasks, changes[attack.name], _total_of(attack, totals, changes))
    ]


def _belongs(attack: AttackRecord, tasks: str) -> bool:
    return attack.balancer == "single" or in_order(attack.attacked) == tasks


def _total_of(attack: AttackRecord, totals: list[AttackRecord], changes: dict[str, Change]) -> Change | None:
    """TOTAL under the same threat. The family is only a name in the configuration, but its own TOTAL comes first."""
    same = [total for total in totals if total.threat[1:] == attack.threat[1:]]
    same.sort(key=lambda total: total.family != attack.family)
    return changes[same[0].name] if same else None


def _rows(attack: AttackRecord, model: str, tasks: str, change: Change, total: Change | None) -> Iterator[Row]:
    head: dict[str, Any] = {
        "model": model,
        "tasks": tasks,
        "attack": attack.name,
        "stepper": attack.stepper,
        "norm": attack.norm,
        "epsilon": attack.epsilon,
        "steps": attack.steps,
        "balancer": attack.balancer,
        "attacked": in_order(attack.attacked),
    }
    for task in ("", *tasks):
        here, count = change.performance_of(task), change.count_of(task)
        value = estimate(here, count)
        gain = None if total is None else estimate(here - total.performance_of(task), count)
        yield {
            **head,
            "task": task,
            "relative_performance": value.value,
            "standard_error": value.error,
            "relative_loss_change": float(change.loss_of(task)[0]),
            "gain": math.nan if gain is None else gain.value,
            "gain_standard_error": math.nan if gain is None else gain.error,
            "n": value.n,
        }
