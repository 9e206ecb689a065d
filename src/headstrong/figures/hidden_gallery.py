"""The figures of attacks on hidden tasks, for the gallery: one set for each family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from headstrong.figures import forgetting as copies
from headstrong.figures import hidden_budget as budget
from headstrong.figures import hidden_looks as looks
from headstrong.figures import hidden_tradeoff as tradeoff
from headstrong.figures import hidden_turns as turns

CAPTIONS = {
    "tradeoff": (
        "What each attack does to the task that it cannot see (up) and to those that it sees (right), averaged over "
        "which task is hidden, at the largest radius that was run; up and left is what the attacker wants. A line "
        "joins the weights of the term that keeps visible predictions, numbers are the weights. "
        "On the dashed line visible tasks lose a third of what the hidden one loses. The oracle sees the hidden task. "
        "Bars are standard errors over images."
    ),
    "budget": (
        "Damage of the hidden task (solid) and of the visible tasks (dashed) against the radius, averaged over which "
        "task is hidden. Shown are stealth 0 and the largest weight that was run, where noise stays as the "
        "comparison and objectives without stealth are absent; an attack that needs no head stands in the panels of "
        "every access. Bars are standard errors over images."
    ),
    "turns": (
        "Each task in the turn in which it is hidden: how far it falls, by objective, and the mean of the visible "
        "tasks in the same turn, at the largest radius that was run. Stealth is 0 or the largest weight that all "
        "objectives share which vary it. Single visible tasks: the mean over the attacked tasks, with the mean of "
        "their errors, which is an upper bound. Bars are standard errors over images."
    ),
    "forgetting": (
        "The attacker trains a copy of the backbone on the visible tasks alone; how well each task is told from the "
        "copy's features by the true heads, by epoch. Epoch 0 is the backbone itself. Errors of dense tasks are in "
        "percent more than at epoch 0, as their units differ."
    ),
}
TITLES = {
    "tradeoff": "Hidden task against visible tasks",
    "budget": "Hidden tasks by radius",
    "turns": "Each task hidden in turn",
    "forgetting": "What the copy forgets",
}
Fields = tuple[str, str, str, str, str]  # stem, title, caption, module, reason why it is absent


def figures(
    hidden: pd.DataFrame | None,
    hidden_summary: pd.DataFrame | None,
    forgetting: pd.DataFrame | None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Fields, Callable[[], Figure]]]:
    """Each figure: its fields, and what draws it (MissingDataError where it cannot be drawn).

    The tables of these names, None where a study has none. A study without any has no figure, and none that is missed.
    """
    for family in looks.families(hidden_summary, hidden, forgetting):
        fields = _fields("tradeoff", f"hidden-tradeoff-{family}", family, tradeoff.__name__)
        yield fields, partial(tradeoff.draw, hidden_summary, family, settings)
        fields = _fields("budget", f"hidden-budget-{family}", family, budget.__name__)
        yield fields, partial(budget.draw, hidden_summary, family, settings)
        fields = _fields("turns", f"hidden-turns-{family}", family, turns.__name__)
        yield fields, partial(turns.draw, hidden, family, settings)
        fields = _fields("forgetting", f"forgetting-{family}", family, copies.__name__)
        yield fields, partial(copies.draw, forgetting, family, settings)


def _fields(kind: str, stem: str, family: str, module: str) -> Fields:
    return stem, f"{TITLES[kind]}: {family}", CAPTIONS[kind], module, ""
