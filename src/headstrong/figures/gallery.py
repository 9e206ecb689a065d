"""All figures of a study, and index.json: what each shows, which module drew it, what could not be drawn and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from headstrong.analysis import surrogates as proxies
from headstrong.analysis import tables
from headstrong.analysis.plan import by_own_protocol, encoders, letters, plain
from headstrong.analysis.tables import AttackChoice
from headstrong.errors import MissingDataError
from headstrong.figures import (
    adversarial_errors,
    attack_check,
    budget,
    heat_map,
    style,
    surrogates,
    vulnerability_chain,
)
from headstrong.figures import balanced as comparison
from headstrong.figures import curves as by_step
from headstrong.figures import generated_gallery as generators
from headstrong.figures import hidden_gallery as unseen
from headstrong.figures import importance_gallery as favouring
from headstrong.figures import switches as protocol
from headstrong.figures import theory as theorems
from headstrong.figures import transfer as sharing
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
    "budget": (
        "Relative task vulnerability of each main task in the models that have it, as the attack gets {more}; "
        "whiskers reach the least and the most. Where a box stands for fewer than five models, each is a point, "
        "whose marker names the other task of a pair."
    ),
    "curves": (
        "Growth of the loss of each main task against its clean loss, gradient by gradient of the longest attack, in "
        "the single-task model and the pairs that have it. A line that has levelled off says that more steps would "
        "change little."
    ),
    "balanced": (
        "Average over the tasks of their relative change of performance under attack, in percent: the lower a line, "
        "the stronger the attack. Bars are standard errors; SINGLE attacks one task at a time, and its band reaches "
        "from the weakest to the strongest of them. Shown are models trained against attacks, models with layouts "
        "(those that share the most and the least), and the models attacked by the most balancers."
    ),
    "transfer": (
        "An attack on one task, measured on another: how far the other task falls, in percent of the fall of the "
        "attacked task. Were sharing to help the attacker, the black means would rise from left to right; bars are "
        "standard errors over pairs of tasks, small numbers name the layouts."
    ),
    "gradients": (
        "Theorem 2 says how the mean gradient of several tasks shrinks with their number, from their covariances; "
        "for uncorrelated tasks it falls with one over the root of the number. On the right, a box at 1 would say "
        "that the formula holds."
    ),
    "marginal": (
        "What one more attacked task adds to the adversarial vulnerability, against Theorem 4's bound and against "
        "its first-order value. Points above the diagonal on the left break the bound; hollow points at the edge are "
        "zero or less."
    ),
    "switches": (
        "Each row is one protocol switch: relative difference of models that follow it against those that do not, "
        "under the attack shown elsewhere. Dots are models and tasks, bars their medians; a switch whose dots "
        "straddle zero decides nothing by itself."
    ),
}

BUDGETS = {
    "steps": ("Supplement Figure 15: more steps", "more steps"),
    "epsilon": ("Supplement Figure 16: stronger budgets", "a larger radius"),
    "norm": ("Supplement Figure 17: another norm", "another norm"),
}


@dataclass(frozen=True)
class Entry:
    """One figure: file stem, title, caption, the module that draws it; `reason` says why it is absent, else ""."""

    stem: str
    title: str
    caption: str
    module: str
    reason: str = ""


Job = tuple[Entry, Callable[[], Figure]]


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
    balanced: pd.DataFrame | None = None,
    transfer: pd.DataFrame | None = None,
    theory: pd.DataFrame | None = None,
    marginal: pd.DataFrame | None = None,
    switches: pd.DataFrame | None = None,
    curves: pd.DataFrame | None = None,
    generated: pd.DataFrame | None = None,
    mta_tables: pd.DataFrame | None = None,
    examples: Sequence[Path] = (),
    importance_settings: pd.DataFrame | None = None,
    camri_table_1: pd.DataFrame | None = None,
    importance: Sequence[Path] = (),
    hidden: pd.DataFrame | None = None,
    hidden_summary: pd.DataFrame | None = None,
    forgetting: pd.DataFrame | None = None,
) -> list[Entry]:
    """Draw every figure of the study into `folder` and write index.json there; return its entries.

    vulnerability, correlations: the tables vulnerability.csv and surrogates.csv; plan: `analysis.plan.read_plan`.
    choice: the attack shown; chains: orders of Figure 1; settings: formats, dpi, width in inches.
    balanced to forgetting: the tables of these names, None where a study has none. examples: evaluations of
    generators (HDF5) whose pictures are shown. importance: evaluations of important classes (HDF5) whose angles and
    features are shown.
    A figure the study has no numbers for has an entry with the reason, and no file.
    Raises ConfigError for settings there are none of, BrokenFileError for an evaluation that cannot be read.
    """
    whole = style.complete(settings)
    cells = tables.cells(vulnerability, plan, choice, segmentation=segmentation)
    jobs = chain(
        _jobs(vulnerability, plan, cells, correlations, choice, chains, whole),
        _budget_jobs(vulnerability, plan, curves, choice, whole, segmentation),
        _balanced_jobs(balanced, plan, choice, whole),
        _transfer_jobs(transfer, plan, choice, whole),
        _theory_jobs(theory, marginal, plan, choice, whole),
        _switch_jobs(switches, vulnerability, choice, whole),
        _from(generators.figures(generated, mta_tables, examples, whole)),
        _from(favouring.figures(importance_settings, camri_table_1, importance, whole)),
        _from(unseen.figures(hidden, hidden_summary, forgetting, whole)),
    )
    return _draw(jobs, folder, whole)


def draw_without_models(
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    generated: pd.DataFrame | None = None,
    mta_tables: pd.DataFrame | None = None,
    examples: Sequence[Path] = (),
    importance_settings: pd.DataFrame | None = None,
    camri_table_1: pd.DataFrame | None = None,
    importance: Sequence[Path] = (),
    hidden: pd.DataFrame | None = None,
    hidden_summary: pd.DataFrame | None = None,
    forgetting: pd.DataFrame | None = None,
) -> list[Entry]:
    """`draw_all` for a study without models of a plan: generators, important classes, or hidden tasks."""
    whole = style.complete(settings)
    jobs = chain(
        _from(generators.figures(generated, mta_tables, examples, whole)),
        _from(favouring.figures(importance_settings, camri_table_1, importance, whole)),
        _from(unseen.figures(hidden, hidden_summary, forgetting, whole)),
    )
    return _draw(jobs, folder, whole)


def _from(figures: Iterable[tuple[favouring.Fields, Callable[[], Figure]]]) -> Iterator[Job]:
    for fields, draw in figures:
        yield Entry(*fields), draw


def _draw(jobs: Iterable[Job], folder: Path, whole: Mapping[str, Any]) -> list[Entry]:
    entries = []
    for entry, draw in jobs:
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
) -> Iterator[Job]:
    yield (
        Entry(
            "attack-check",
            "Do the attacks bite?",
            CAPTIONS["attack_check"],
            attack_check.__name__,
        ),
        lambda: attack_check.draw(by_own_protocol(vulnerability, plan), choice, settings),
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
    for encoder in encoders(plain(plan)):
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
    main_encoder = _main_encoder(plan)
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


def _surrogate_jobs(cells: pd.DataFrame, correlations: pd.DataFrame, settings: Mapping[str, Any]) -> Iterator[Job]:
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


def _budget_jobs(
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    curves: pd.DataFrame | None,
    choice: AttackChoice,
    settings: Mapping[str, Any],
    segmentation: str,
) -> Iterator[Job]:
    encoder = _main_encoder(plan)
    title = "Supplement Figure 14: loss by step"
    yield (
        Entry("loss-by-step", title, CAPTIONS["curves"], by_step.__name__),
        _bind(by_step.draw, curves, vulnerability, plan, choice, encoder, settings),
    )
    for varied, (title, more) in BUDGETS.items():
        draw = partial(budget.draw, segmentation=segmentation)
        yield (
            Entry(f"budget-{varied}", title, CAPTIONS["budget"].format(more=more), budget.__name__),
            _bind(draw, vulnerability, plan, choice, varied, encoder, settings),
        )


def _balanced_jobs(
    balanced: pd.DataFrame | None, plan: pd.DataFrame, choice: AttackChoice, settings: Mapping[str, Any]
) -> Iterator[Job]:
    name, caption, title = comparison.__name__, CAPTIONS["balanced"], "Balanced attacks on all tasks (DGBA)"
    try:
        families = comparison.families(comparison.comparable(balanced, plan, choice.norm))
    except MissingDataError as error:
        yield Entry("balanced", title, caption, name), _absent(error)
        return
    for family in families:
        layout = f"-layout-{family.layout}" if family.layout else ""
        stem = f"balanced-{family.encoder}-{file_safe(family.tasks)}{layout}"
        draw = partial(comparison.draw, norm=choice.norm)
        yield Entry(stem, f"{title}: {family.words}", caption, name), _bind(draw, balanced, plan, family, settings)


def _transfer_jobs(
    transfer: pd.DataFrame | None, plan: pd.DataFrame, choice: AttackChoice, settings: Mapping[str, Any]
) -> Iterator[Job]:
    name, caption, title = sharing.__name__, CAPTIONS["transfer"], "Transfer between tasks against sharing"
    try:
        found = sharing.encoders(sharing.comparable(transfer, plan))
        if not found:
            raise MissingDataError(
                "transfer.csv: all models of an encoder share alike; set several layouts in the plan"
            )
    except MissingDataError as error:
        yield Entry("transfer", title, caption, name), _absent(error)
        return
    for encoder in found:
        yield (
            Entry(f"transfer-{encoder}", f"{title}, {encoder}", caption, name),
            _bind(sharing.draw, transfer, plan, encoder, choice.epsilon, settings),
        )


def _theory_jobs(
    theory: pd.DataFrame | None,
    marginal: pd.DataFrame | None,
    plan: pd.DataFrame,
    choice: AttackChoice,
    settings: Mapping[str, Any],
) -> Iterator[Job]:
    title = "Theorem 2: the mean gradient of several tasks"
    yield (
        Entry("theorem-2", title, CAPTIONS["gradients"], theorems.__name__),
        _bind(theorems.draw_gradients, theory, plan, settings),
    )
    title = "Theorem 4: one more attacked task"
    yield (
        Entry("theorem-4", title, CAPTIONS["marginal"], theorems.__name__),
        _bind(theorems.draw_marginal, marginal, plan, choice, settings),
    )


def _switch_jobs(
    switches: pd.DataFrame | None, vulnerability: pd.DataFrame, choice: AttackChoice, settings: Mapping[str, Any]
) -> Iterator[Job]:
    yield (
        Entry("switches", "What each protocol switch changes", CAPTIONS["switches"], protocol.__name__),
        _bind(protocol.draw, switches, vulnerability, choice, settings),
    )


def _main_encoder(plan: pd.DataFrame) -> str:
    """The encoder of the figures that show one: resnet18, or else the smallest of the plain models."""
    found = encoders(plain(plan)) or encoders(plan)
    return "resnet18" if "resnet18" in found else found[0]


def _absent(error: MissingDataError) -> Callable[[], Figure]:
    def draw() -> Figure:
        raise error

    return draw


def _bind(draw: Callable[..., Figure], *arguments: Any) -> Callable[[], Figure]:
    return lambda: draw(*arguments)
