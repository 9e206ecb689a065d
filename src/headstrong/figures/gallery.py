"""All figures of a study, and index.json: what each shows, which module drew it, what could not be drawn and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from headstrong.analysis import surrogates as proxies
from headstrong.analysis import tables
from headstrong.analysis.plan import encoders, letters
from headstrong.analysis.tables import AttackChoice
from headstrong.errors import MissingDataError
from headstrong.figures import adversarial_errors, attack_check, heat_map, style, surrogates, vulnerability_chain
from headstrong.provenance import write_atomically
from headstrong.tasks import TASKS, file_safe

INDEX = "index.json"

CAPTIONS = {
    "attack_check": (
        "Error of each task under the attack, and under random noise of the same size, as a multiple of its "
        "error without attack; boxes over all models, whiskers from the least to the most. An attack no "
        "better than noise says nothing about robustness."
    ),
    "chain": (
        "Adversarial vulnerability (Definition 1) of one model trained on all tasks of the chain, as the "
        "attack takes in one task after the other; bars are standard errors, the dotted line divides by the "
        "number of attacked tasks. The scale of a task's loss decides how far it lifts the sum: cross-entropy "
        "(s) is larger than the absolute errors of the others."
    ),
    "pairs": (
        "Rows are main tasks, columns auxiliary tasks, framed cells single-task models. The number is the "
        "relative task vulnerability of the main task; second line and colour are its change against the "
        "single-task model (purple: less vulnerable, orange: more)."
    ),
    "errors": (
        "Error of task {letter} under attack in every single-task and pair model of {encoder} that has it "
        "(supplement Figures 1 to 11). Labels give the model's tasks, then the attacked ones; bars are "
        "standard errors over samples, diamonds the error without attack, the dashed line is the single-task "
        "model."
    ),
    "surrogate": (
        "Above: every cell (main and auxiliary task). Below: each cell divided by the geometric mean of its "
        "main task, which leaves what the choice of an auxiliary task changes; small letters name it. Bars "
        "are standard errors. Errors are in percent for s and mean squared for the others, which by itself "
        "sets the main tasks apart."
    ),
}


@dataclass(frozen=True)
class Entry:
    """One figure: file stem, title, caption, the module that draws it; `reason` says why it is absent, else ""."""

    stem: str
    title: str
    caption: str
    module: str
    reason: str = ""


def draw_all(
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    correlations: pd.DataFrame,
    folder: Path,
    *,
    choice: AttackChoice,
    chains: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    segmentation: str = "per_sample",
) -> list[Entry]:
    """Draw every figure of the study into `folder` and write index.json there; return its entries.

    vulnerability, correlations: the tables vulnerability.csv and surrogates.csv; plan: `analysis.plan.read_plan`.
    choice: the attack shown; chains: orders of Figure 1; settings: formats, dpi, width in inches.
    A figure the study has no numbers for has an entry with the reason, and no file.
    """
    whole = style.complete(settings)
    cells = tables.cells(vulnerability, plan, choice, segmentation=segmentation)
    entries = []
    for entry, draw in _jobs(vulnerability, plan, cells, correlations, choice, chains, whole):
        try:
            style.save(draw(), folder / entry.stem, whole["formats"], whole)
            entries.append(entry)
        except MissingDataError as error:
            entries.append(Entry(entry.stem, entry.title, entry.caption, entry.module, str(error)))
    write_atomically(
        folder / INDEX, json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False) + "\n"
    )
    return entries


def _jobs(
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    cells: pd.DataFrame,
    correlations: pd.DataFrame,
    choice: AttackChoice,
    chains: Sequence[str],
    settings: Mapping[str, Any],
) -> Iterator[tuple[Entry, Callable[[], Figure]]]:
    yield (
        Entry(
            "attack-check",
            "Do the attacks bite?",
            CAPTIONS["attack_check"],
            attack_check.__name__,
        ),
        lambda: attack_check.draw(vulnerability, choice, settings),
    )
    yield (
        Entry(
            "vulnerability-chain",
            "Figure 1: attacking one task more",
            CAPTIONS["chain"],
            vulnerability_chain.__name__,
        ),
        lambda: vulnerability_chain.draw(vulnerability, plan, chains, choice, settings),
    )
    pairs = tables.pairs_table(cells)
    for encoder in encoders(plan):
        yield (
            Entry(
                f"vulnerability-pairs-{encoder}",
                f"Relative task vulnerability of pairs, {encoder}",
                CAPTIONS["pairs"],
                heat_map.__name__,
            ),
            _bind(heat_map.draw, pairs, encoder, settings),
        )
    yield from _surrogate_jobs(cells, correlations, settings)
    main_encoder = "resnet18" if "resnet18" in encoders(plan) else encoders(plan)[0]
    for letter in letters(plan):
        yield (
            Entry(
                f"adversarial-error-{main_encoder}-{file_safe(letter)}",
                f"Adversarial error: {TASKS[letter].title} ({letter})",
                CAPTIONS["errors"].format(letter=letter, encoder=main_encoder),
                adversarial_errors.__name__,
            ),
            _bind(adversarial_errors.draw, cells, main_encoder, letter, settings),
        )


def _surrogate_jobs(
    cells: pd.DataFrame, correlations: pd.DataFrame, settings: Mapping[str, Any]
) -> Iterator[tuple[Entry, Callable[[], Figure]]]:
    def key(comparison: proxies.Comparison) -> tuple[str, str, str]:
        return comparison.surrogate, comparison.proxy, comparison.target

    for names, group in groupby(sorted(proxies.comparisons(cells), key=key), key):
        surrogate, proxy, target = names
        stem = "surrogate-" + "-".join(names[1:]).replace(" ", "-")
        yield (
            Entry(
                stem,
                f"Surrogate, {surrogate}: {proxy} against {target}",
                CAPTIONS["surrogate"],
                surrogates.__name__,
            ),
            _bind(surrogates.draw, list(group), correlations, settings),
        )


def _bind(draw: Callable[..., Figure], *arguments: Any) -> Callable[[], Figure]:
    return lambda: draw(*arguments)
