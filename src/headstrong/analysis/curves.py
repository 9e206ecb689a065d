"""curves.csv: how the losses of the attacked tasks grow from one step of an attack to the next."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.plan import Row, rows_of_models
from headstrong.analysis.records import AttackRecord, Evaluation
from headstrong.tasks import in_order

ATTACK = ("family", "stepper", "norm", "epsilon", "steps")
COLUMNS = ("model", "attack", *ATTACK, "attacked", "task", "step", "loss", "relative")


def build_table(evaluations: Path, plan: Path, *, processes: int = 1) -> pd.DataFrame:
    """curves.csv: the rows of `rows` for every model of the plan, columns COLUMNS, in the plan's order.

    evaluations: folder with one `<model id>.h5` per row of the plan CSV. Raises MissingDataError or BrokenFileError,
    naming the file, as reading an evaluation does.
    """
    frame = pd.DataFrame(rows_of_models(evaluations, plan, rows, processes), columns=list(COLUMNS))
    return frame.astype({"steps": "Int64", "step": "Int64"})


def rows(evaluation: Evaluation) -> list[Row]:
    """One row per attack, attacked task and gradient evaluation of the first restart; none for noise.

    step counts gradient evaluations from 0, which is at the attack's start: PGD of 25 steps has 0 to 24, and the images
    it ends with come after the last. loss is the mean training loss over the samples that have the task, relative is
    loss over the clean mean loss, less 1 (NaN where that is 0).
    """
    return [row for attack in evaluation.attacks.values() for row in _rows(evaluation, attack)]


def _rows(evaluation: Evaluation, attack: AttackRecord) -> list[Row]:
    if attack.curve is None:
        return []
    head = {
        "model": evaluation.id,
        "attack": attack.name,
        **{column: getattr(attack, column) for column in ATTACK},
        "attacked": in_order(attack.attacked),
    }
    found = []
    for task in in_order(attack.attacked):
        clean = stats.mean(stats.known(evaluation.clean[task].loss)).value
        for step, loss in enumerate(attack.curve[:, attack.attacked.index(task)]):
            relative = float(loss) / clean - 1 if clean else float("nan")
            found.append({**head, "task": task, "step": step, "loss": float(loss), "relative": relative})
    return found
