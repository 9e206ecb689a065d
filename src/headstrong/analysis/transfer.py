"""transfer.csv: how much of an attack on one task reaches the others, and how much those tasks share.

The abstract of "Attacking all tasks at once" (arXiv 2305.12066) says that attacks on single tasks transfer more where
tasks share more. It names no measure of transfer; here it is the relative performance r of a task that was not attacked
(`headstrong.analysis.performance`), also as a share of that of the task that was.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from headstrong import layouts
from headstrong.analysis import stats
from headstrong.analysis.balanced import with_plan
from headstrong.analysis.performance import Reference, estimate
from headstrong.analysis.plan import Row, read_plan, rows_of_models
from headstrong.analysis.records import Evaluation
from headstrong.analysis.stats import BOOTSTRAP_DRAWS
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.tasks import in_order

COLUMNS = (
    "model",
    "encoder",
    "layout",
    "adversarial",
    "attack",
    "stepper",
    "norm",
    "epsilon",
    "steps",
    "attacked",
    "measured",
    "shared_levels",
    "shared_fraction",
    "relative_performance",
    "standard_error",
    "own",
    "ratio",
    "n",
)


def build_table(
    evaluations: Path, plan: Path, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS, processes: int = 1
) -> pd.DataFrame:
    """transfer.csv: the rows of `rows` for every model of the plan, columns COLUMNS, in the plan's order.

    evaluations: folder with one `<model id>.h5` per row of the plan CSV. encoder, layout and adversarial are the
    plan's. shared_levels (0 to 5) counts the coarse levels of the network that the attacked and the measured task
    share, shared_fraction (0 to 1) is the share of levels and pairs of tasks that the whole model shares: 5 and 1 for a
    model without layout, whose tasks have one encoder. The same seed, the same table, whatever `processes` is.
    Raises MissingDataError or BrokenFileError, naming the file, as reading an evaluation does, and BrokenFileError for
    a layout in the plan that does not exist.
    """
    sharing = {str(row["id"]): _Sharing.of(row, plan) for row in read_plan(plan).to_dict("records")}
    found = rows_of_models(evaluations, plan, partial(rows, seed=seed, draws=draws), processes)
    for row in found:
        row |= sharing[row["model"]].between(row["attacked"], row["measured"])
    return with_plan(found, plan, COLUMNS).astype({"shared_levels": "Int64"})


def rows(evaluation: Evaluation, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> list[Row]:
    """One row per attack on a single task and other task of the model; none for a model of one task, none for noise.

    relative_performance is r of the task measured, own is r of the task attacked, under the same attack: 0 without
    harm, negative with it. ratio is one over the other, NaN unless the attacked task is clearly harmed. standard_error
    is that of relative_performance, by a bootstrap over samples; n is the number of samples behind it.
    """
    tasks = in_order(evaluation.tasks)
    if len(tasks) < 2:
        return []
    reference = Reference.of(evaluation, seed=seed, draws=draws)
    found = []
    for attack in evaluation.attacks.values():
        if attack.balancer != "single" or attack.stepper == "noise":
            continue
        change = reference.change(attack)
        own = estimate(change.performance_of(attack.attacked), change.count_of(attack.attacked))
        harm = own._replace(value=-own.value)
        for measured in tasks.replace(attack.attacked, ""):
            value = estimate(change.performance_of(measured), change.count_of(measured))
            found.append(
                {
                    "model": evaluation.id,
                    "attack": attack.name,
                    "stepper": attack.stepper,
                    "norm": attack.norm,
                    "epsilon": attack.epsilon,
                    "steps": attack.steps,
                    "attacked": attack.attacked,
                    "measured": measured,
                    "relative_performance": value.value,
                    "standard_error": value.error,
                    "own": own.value,
                    "ratio": stats.ratio(-value.value, harm),
                    "n": value.n,
                }
            )
    return found


class _Sharing:
    """What the tasks of one model share; layouts know them by their place among main and auxiliary tasks."""

    def __init__(self, tasks: str, layout: layouts.Layout | None) -> None:
        self.tasks, self.layout = tasks, layout

    @staticmethod
    def of(row: dict[str, Any], plan: Path) -> _Sharing:
        tasks, text = str(row["main"]) + str(row["auxiliary"]), str(row["layout"])
        if not text:
            return _Sharing(tasks, None)
        try:
            return _Sharing(tasks, layouts.layout(int(text), len(tasks)))
        except (ValueError, ConfigError) as error:
            raise BrokenFileError(
                f"{plan}: model {row['id']} of {len(tasks)} tasks has layout {text!r}, expected a number of "
                "headstrong.layouts; write the plan again"
            ) from error

    def between(self, attacked: str, measured: str) -> dict[str, Any]:
        if self.layout is None:
            return {"shared_levels": layouts.LEVELS, "shared_fraction": 1.0}
        places = (self.tasks.index(attacked), self.tasks.index(measured))
        return {
            "shared_levels": layouts.shared_levels(self.layout, *places),
            "shared_fraction": layouts.sharing(self.layout),
        }
