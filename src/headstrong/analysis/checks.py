"""flags.csv and programs.csv: what the evaluations say against their own attacks, and what integer programs gained."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from headstrong.analysis import stats
from headstrong.analysis.performance import UNDEFINED, Reference
from headstrong.analysis.plan import Row, rows_of_models
from headstrong.analysis.records import AttackRecord, Evaluation
from headstrong.analysis.stats import Array
from headstrong.tasks import in_order

FLAG_COLUMNS = ("model", "attack", "task", "flag", "message", "samples", "of")
PROGRAM_COLUMNS = (
    "model",
    "attack",
    "stepper",
    "pixels",
    "epsilon",
    "images",
    "optimal",
    "fell_back",
    "mean_gap",
    "least_closed_form",
    "least_program",
    "gain",
    "gain_standard_error",
)


def build_flags(evaluations: Path, plan: Path, *, processes: int = 1) -> pd.DataFrame:
    """flags.csv: the flags of every model of the plan, columns FLAG_COLUMNS, in the plan's order.

    evaluations: folder with one `<model id>.h5` per row of the plan CSV. Raises MissingDataError or BrokenFileError,
    naming the file, as reading an evaluation does.
    """
    frame = pd.DataFrame(rows_of_models(evaluations, plan, flag_rows, processes), columns=list(FLAG_COLUMNS))
    return frame.astype({"samples": "Int64", "of": "Int64"})


def flag_rows(evaluation: Evaluation) -> list[Row]:
    """The evaluation's own flags (`headstrong.sanity`), then one for each measure that relative performance leaves out.

    samples: on how many samples it was seen, of: how many were looked at.
    """
    count = len(evaluation.index)
    undefined = [
        {
            "attack": "",
            "task": letter,
            "flag": UNDEFINED,
            "message": f"The clean {name} of task {letter} is 0 or unknown, so its relative performance does without.",
            "samples": count,
            "of": count,
        }
        for letter, names in Reference.of(evaluation, draws=0).undefined().items()
        for name in names
    ]
    return [{"model": evaluation.id, **flag} for flag in (*evaluation.flags, *undefined)]


def build_programs(evaluations: Path, plan: Path, *, processes: int = 1) -> pd.DataFrame:
    """programs.csv: the rows of `program_rows` for every model of the plan, columns PROGRAM_COLUMNS.

    evaluations and errors as in `build_flags`.
    """
    frame = pd.DataFrame(rows_of_models(evaluations, plan, program_rows, processes), columns=list(PROGRAM_COLUMNS))
    return frame.astype(dict.fromkeys(("pixels", "images", "optimal", "fell_back"), "Int64"))


def program_rows(evaluation: Evaluation) -> list[Row]:
    """One row per attack by integer programs (steppers ilp_*).

    images: how many programs; optimal: how many were proved; fell_back: how many took the closed form instead.
    mean_gap: mean relative gap between value and bound, NaN where a bound is unknown.
    least_program: mean over images of the least relative loss change of the attacked tasks, measured on the images the
    program made. least_closed_form: the same under the closed form, which is fgsm with the same balancer (dgba), tasks,
    norm and radius, on all pixels; NaN where it was not run. gain is the difference, its standard error is paired.
    An image on which the clean loss of a task is 0 has no relative change of that task, which does not count then.
    """
    return [_program_row(evaluation, attack) for attack in evaluation.attacks.values() if attack.programs is not None]


def _program_row(evaluation: Evaluation, attack: AttackRecord) -> Row:
    assert attack.programs is not None
    programs = attack.programs
    gaps = programs.gap[attack.made]
    ours = least_changes(evaluation, attack)
    rivals = [other for other in evaluation.attacks.values() if _is_closed_form(other, attack)]
    theirs = least_changes(evaluation, rivals[0]) if rivals else np.full_like(ours, math.nan)
    known = ~np.isnan(ours)  # the rival attacks the same tasks: it has a number on the same images
    gain = stats.mean((ours - theirs)[known])
    return {
        "model": evaluation.id,
        "attack": attack.name,
        "stepper": attack.stepper,
        "pixels": attack.pixels,
        "epsilon": attack.epsilon,
        "images": int(attack.made.sum()),
        "optimal": programs.status.count("optimal"),
        "fell_back": sum(rule != "" for rule in programs.fallback),
        "mean_gap": stats.mean(np.where(np.isfinite(gaps), gaps, math.nan)).value,
        "least_closed_form": stats.mean(theirs[known]).value,
        "least_program": stats.mean(ours[known]).value,
        "gain": gain.value,
        "gain_standard_error": gain.error,
    }


def _is_closed_form(other: AttackRecord, attack: AttackRecord) -> bool:
    same = (other.balancer, other.norm, other.epsilon) == (attack.balancer, attack.norm, attack.epsilon)
    return other.stepper == "fgsm" and same and in_order(other.attacked) == in_order(attack.attacked)


def least_changes(evaluation: Evaluation, attack: AttackRecord) -> Array:
    """The least relative loss change (N,) over the attacked tasks; NaN where no task has one."""
    before, after = (
        np.stack([records[letter].loss for letter in attack.attacked]) for records in (evaluation.clean, attack.tasks)
    )
    usable = before > 0  # not of a task that is absent
    changes = np.divide(after - before, before, out=np.full(before.shape, math.inf), where=usable)
    return np.where(usable.any(axis=0), changes.min(axis=0), math.nan)
