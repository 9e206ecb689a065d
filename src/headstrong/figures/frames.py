"""What the figures of attacks share: reading tables safely, choosing the models to compare, ordering tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from headstrong.analysis.tables import AttackChoice
from headstrong.errors import MissingDataError
from headstrong.radius import SHADES
from headstrong.tasks import TASKS, in_order

NORMS = {"linf": "$L_\\infty$", "l2": "$L_2$"}


def need(frame: pd.DataFrame | None, table: str, columns: Sequence[str]) -> pd.DataFrame:
    """The table, when it is there with rows and these columns.

    Raises MissingDataError, naming the file, when it is not.
    """
    if frame is None:
        raise MissingDataError(f"{table}.csv: this study has no such table")
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        raise MissingDataError(f"{table}.csv: columns {', '.join(lacking)} are missing; write the table again")
    if frame.empty:
        raise MissingDataError(f"{table}.csv: the table is empty; the study ran no attack that it reports")
    return frame


def text(column: pd.Series) -> pd.Series:
    """A column as text: "" where empty, and whole numbers without a fraction, however the file was read."""
    return column.map(_word).astype(object)


def _word(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def fully_trained(plan: pd.DataFrame) -> pd.DataFrame:
    """Uniformly weighted models under the study's own protocol, the longest trained of each kind.

    A kind is an encoder, a set of tasks, a layout and a way of adversarial training. plan: plan.csv. Columns: model,
    encoder, tasks (in the study's order), layout, adversarial.
    """
    uniform = plan["weights"].map(lambda words: len(set(str(words).split(";"))) == 1)
    frame = pd.DataFrame(
        {
            "model": plan["id"],
            "encoder": plan["encoder"],
            "tasks": (text(plan["main"]) + text(plan["auxiliary"])).map(in_order),
            "epochs": plan["epochs"].astype(int),
            "switches": "",
        }
    )
    for name in ("layout", "adversarial", "switches"):
        frame[name] = text(plan[name]) if name in plan.columns else ""
    kept = frame.loc[uniform & frame["switches"].eq("")].sort_values(["epochs", "model"], ascending=[False, True])
    kept = kept.drop_duplicates(["encoder", "tasks", "layout", "adversarial"]).sort_index()
    return kept[["model", "encoder", "tasks", "layout", "adversarial"]].reset_index(drop=True)


def stepper_of(vulnerability: pd.DataFrame, choice: AttackChoice) -> str:
    """The stepper behind the chosen family in vulnerability.csv. Raises MissingDataError when it was not run."""
    found = vulnerability.loc[vulnerability["family"].eq(choice.family), "stepper"]
    if found.empty:
        raise MissingDataError(f"attack family {choice.family} was not run")
    return str(found.iloc[0])


def same(column: pd.Series, value: float) -> pd.Series:
    """Where a column of radii is this radius, but for rounding."""
    return (column.astype(float) - value).abs() < 1e-9


def task_order(letters: Iterable[str]) -> list[str]:
    """The letters that are there, each once, in the study's order."""
    there = set(letters)
    return [letter for letter in TASKS if letter in there]


def grid_of(count: int) -> tuple[int, int]:
    """Rows and columns of panels for a figure of page width."""
    columns = 1 if count == 1 else 2 if count in (2, 4) else 3
    return math.ceil(count / columns), columns


def radius_axis(norm: str) -> tuple[float, str]:
    """Factor on radii along an axis, and the words at it: 255ths in the maximum norm, else pixel units."""
    return (SHADES, f"Radius (1/{SHADES})") if norm == "linf" else (1.0, f"Radius, {norm_words(norm)}")


def norm_words(norm: str) -> str:
    """A norm as printed."""
    return NORMS.get(norm, norm)


def plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis in plain digits: powers of ten, and 2 and 5 times them where few fit."""
    least, most = axis.get_view_interval()
    few = math.log10(most / least) < 2.2
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def trained(adversarial: str) -> str:
    """How a model was trained, in words; adversarial: the column of plan.csv."""
    if not adversarial:
        return "Clean training"
    family, balancer, *_ = [*adversarial.split("."), ""]
    return f"Trained on {family.upper()}, {balancer.upper()}" if balancer else f"Trained on {family.upper()}"
