"""marginal.csv: what one attacked task more adds, measured, to first order, and as Theorem 4 bounds it.

Definition 3, Theorem 4 and supplement Lemma 5 of Ghamizi et al. (2022). The attacks here sum the losses of the attacked
tasks, so that every weight w_i is 1. The paper's other form is for a joint loss divided by the number of its tasks;
the same attacks serve it, as a factor changes neither the sign nor the direction of a gradient.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from headstrong.analysis import stats, vulnerability
from headstrong.analysis.plan import Row, rows_of_models
from headstrong.analysis.records import AttackRecord, Evaluation, Gradients
from headstrong.analysis.stats import Array
from headstrong.tasks import in_order

THREAT = ("family", "stepper", "norm", "epsilon", "steps")
COLUMNS = (
    "model",
    "attack",
    *THREAT,
    "attacked",
    "added",
    "measured",
    "standard_error",
    "first_order",
    "bound",
    "holds",
    "bound_ratio",
    "measured_mean",
    "standard_error_mean",
    "bound_mean",
    "holds_mean",
    "n",
)
SUMMARY_COLUMNS = (*THREAT, "cases", "holds", "holds_mean", "bound_ratio", "largest_bound_ratio", "first_order_error")
# Definition 3 leaves no choice, whatever the study's protocol takes for adversarial vulnerability.
_DEFINITION = vulnerability.Protocol(adversarial_vulnerability="definition")


def build_table(evaluations: Path, plan: Path, *, processes: int = 1) -> pd.DataFrame:
    """marginal.csv: the rows of `rows` for every model of the plan, columns COLUMNS.

    evaluations: folder with one `<model id>.h5` per row of the plan CSV. Raises MissingDataError or BrokenFileError,
    naming the file, as reading an evaluation does.
    """
    found = rows_of_models(evaluations, plan, rows, processes)
    frame = pd.DataFrame(found, columns=list(COLUMNS))
    return frame.astype({"holds": bool, "holds_mean": bool, "steps": "Int64"})


def rows(evaluation: Evaluation) -> list[Row]:
    """One row for every two attacks whose sets differ in one task, with equal threats and summed losses.

    None without gradients. Noise is left out: it does not look for the maximum in Definition 1. Losses are those of
    training, epsilon is in pixel units. Columns beside those of the attack on the larger set, `attacked`:

    - added: the letter of task N+1; n: the number of images, those that have all tasks of the larger set.
    - measured, standard_error: Definition 3 on the images, paired.
    - first_order: epsilon (E||sum of the gradients of T_{N+1}||_q - E||the same of T_N||_q), Lemma 5; q is the dual
      norm. NaN where the evaluation has no norm of one of these sums.
    - bound: Theorem 4, epsilon ((N+1) E||r_{N+1}||_q + N max_i E||r_i||_q). The theorem bounds first_order and not
      measured. The triangle inequality alone already gives first_order <= epsilon E||r_{N+1}||_q.
    - holds: measured <= bound; bound_ratio: measured / bound, NaN where all gradients are 0.
    - measured_mean, standard_error_mean, bound_mean, holds_mean: the same for the mean instead of the sum of losses,
      bounded by epsilon (E||r_{N+1}||_q + max_i E||r_i||_q) as printed below Theorem 4.
    """
    gradients = evaluation.gradients
    if gradients is None:
        return []
    return [
        _row(evaluation, attack, smaller, added, _mean_norms(gradients, attack))
        for attack in evaluation.attacks.values()
        if attack.balancer == "total" and attack.stepper != "noise"
        for smaller, added in vulnerability.one_task_fewer(evaluation, attack)
    ]


def _mean_norms(gradients: Gradients, attack: AttackRecord) -> dict[str, float]:
    """Mean over the images with all attacked tasks of the dual norm of the summed gradients, by the set of tasks in the
    study's order."""
    values: Array = gradients.l1 if attack.norm == "linf" else gradients.l2
    means = values[gradients.with_tasks(attack.attacked)].mean(axis=0)
    return {in_order(subset): float(mean) for subset, mean in zip(gradients.subsets, means, strict=True)}


def _row(
    evaluation: Evaluation, attack: AttackRecord, smaller: AttackRecord, added: str, norms: dict[str, float]
) -> Row:
    larger_set, smaller_set = in_order(attack.attacked), in_order(smaller.attacked)
    count = len(smaller_set)
    new, worst = norms[added], max(norms[letter] for letter in smaller_set)
    bound = attack.epsilon * ((count + 1) * new + count * worst)
    bound_mean = attack.epsilon * (new + worst)
    before, after = _vulnerabilities(evaluation, smaller), _vulnerabilities(evaluation, attack)
    measured = stats.mean(stats.known(after - before))
    of_mean = stats.mean(stats.known(after / (count + 1) - before / count))
    return {
        "model": evaluation.id,
        "attack": attack.name,
        **{column: getattr(attack, column) for column in THREAT},
        "attacked": larger_set,
        "added": added,
        "measured": measured.value,
        "standard_error": measured.error,
        "first_order": attack.epsilon * (norms.get(larger_set, np.nan) - norms.get(smaller_set, np.nan)),
        "bound": bound,
        "holds": measured.value <= bound,
        "bound_ratio": measured.value / bound if bound > 0 else np.nan,
        "measured_mean": of_mean.value,
        "standard_error_mean": of_mean.error,
        "bound_mean": bound_mean,
        "holds_mean": of_mean.value <= bound_mean,
        "n": measured.n,
    }


def _vulnerabilities(evaluation: Evaluation, attack: AttackRecord) -> Array:
    """|Change of the summed losses of the attacked tasks| (N,): Definition 1 before its mean is taken."""
    return np.abs(vulnerability.joint_change(evaluation, attack, _DEFINITION))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """How often Theorem 4 holds, one row per threat: SUMMARY_COLUMNS, from the rows of `build_table`.

    cases: number of rows; holds, holds_mean: share of them, 0 to 1; bound_ratio, largest_bound_ratio: median and
    largest measured / bound; first_order_error: median of |measured - first_order| / |measured|.
    """
    if table.empty:
        return pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    error = (table["measured"] - table["first_order"]).abs() / table["measured"].abs()
    groups = table.assign(first_order_error=error).groupby(list(THREAT), as_index=False, dropna=False)
    return groups.agg(
        cases=("holds", "size"),
        holds=("holds", "mean"),
        holds_mean=("holds_mean", "mean"),
        bound_ratio=("bound_ratio", "median"),
        largest_bound_ratio=("bound_ratio", "max"),
        first_order_error=("first_order_error", "median"),
    )
