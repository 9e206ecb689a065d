"""The audit's last part: what the papers' unclear or broken choices change in our own runs (results/reference).

A protocol switch is one such choice (docs/protocols.md). The numbers are read from the tables of committed runs; where
these are not there, as in a package without its checkout, the findings say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from headstrong.analysis.audit_finding import GHAMIZI, MTA, NO, OPEN, YES, Finding, judged, listed
from headstrong.analysis.files import read_table

SWITCHES = Path("switches", "tables", "switches.csv")
SURROGATES = Path("quick", "tables", "table_3.csv")
COST = Path("mta", "tables", "generator_cost_published.csv")
ERRORS = 2.0  # a difference beyond so many standard errors counts as one
PGD, L2, WGD = "pgd.total.", "l2.total.", "wgd."
VULNERABILITY, CLEAN, JOINT = "relative_task_vulnerability", "clean_error", "adversarial_vulnerability"


RULE = (
    f"yes: nothing changes; no: a change of more than {ERRORS:g} standard errors for any task; else these runs cannot "
    "tell. The errors are those of separate images: too large where both sides are one model, and without the spread "
    "between trainings where the switch trains another"
)


class Choice(NamedTuple):
    """A switch, the question it decides, what the paper prints of it, and the number that it should move."""

    switch: str
    question: str
    printed: str
    attack: str
    metric: str


CHOICES = (
    Choice(
        "start=clean",
        "whether attacks start at a random point of the ball, as PGD does, or at the image",
        "PGD",
        PGD,
        VULNERABILITY,
    ),
    Choice(
        "baseline=start",
        "whether errors are divided by the clean error or, as in the code, by that at the attack's start",
        "clean inputs",
        PGD,
        VULNERABILITY,
    ),
    Choice(
        "baseline=start;l2_step=released;start=corner",
        "whether attacks start at random or, as in the code, at the ball's upper corner, and divide by the error there",
        "PGD, clean inputs",
        PGD,
        VULNERABILITY,
    ),
    Choice(
        "aggregation=mean_of_ratios",
        "whether the relative task vulnerability is a mean over images of ratios or, as in the code, a ratio of means",
        "mean of ratios",
        PGD,
        VULNERABILITY,
    ),
    Choice(
        "adversarial_vulnerability=released",
        "whether the adversarial vulnerability is of the attacked tasks or, as in the code, of all tasks of the model",
        "attacked tasks",
        "pgd.single.d.",
        JOINT,
    ),
    Choice(
        "l2_step=released",
        "whether an L2 attack moves each image by the radius or, as in the code, a whole batch",
        "radius per image",
        L2,
        VULNERABILITY,
    ),
    Choice(
        "wgd=published",
        "whether WGD multiplies gradients by the rise of their loss or, as in the code, divides by that at the start",
        "Definition 5",
        WGD,
        VULNERABILITY,
    ),
    Choice(
        "wgd=cyclic",
        "whether WGD weighs all tasks in each step or, as in the code's other form, attacks one task at a time",
        "Definition 5",
        WGD,
        VULNERABILITY,
    ),
    Choice(
        "optimizer=sgd",
        "whether models are trained by SGD, as printed, or by Adam, as in the code",
        "SGD",
        "clean",
        CLEAN,
    ),
    Choice(
        "shuffle=false",
        "whether training images are shuffled or, as in the code, read in one order",
        "not said",
        "clean",
        CLEAN,
    ),
    Choice(
        "loss_pixels=all",
        "whether losses are divided by the pixels with a label or, as in the code, by all",
        "not said",
        "clean",
        CLEAN,
    ),
    Choice(
        "error_pixels=all",
        "whether errors are of the pixels with a label or, as in the code, of all",
        "not said",
        "clean",
        CLEAN,
    ),
    Choice(
        "miou=all",
        "whether mIoU is of labelled pixels or, as in the code, counts the unlabelled as a class",
        "mIoU",
        "clean",
        CLEAN,
    ),
    Choice(
        "class_weights=prior",
        "whether segmentation is trained with plain cross entropy or, as in the code, with weighted classes",
        "cross entropy",
        PGD,
        VULNERABILITY,
    ),
    Choice(
        "output_start=random",
        "whether networks start as the mean of their targets or, as in the code, at random, some far outside",
        "not said",
        "clean",
        CLEAN,
    ),
    Choice(
        "curvature=grey",
        "whether curvatures are decoded or, as in the code, their picture is read as grey",
        "principal curvature",
        "clean",
        CLEAN,
    ),
)
LEAST = 3  # switches: a row with more is a whole preset
PRESETS = {"published": "wgd=published", "released": "curvature=grey"}  # a part that only this preset has


def findings(reference: Path) -> Iterator[Finding]:
    """Findings on the choices, from the tables below `reference` (results/reference)."""
    table = _read(reference / SWITCHES)
    for choice in CHOICES:
        yield _switch(choice, table)
    for name, mark in PRESETS.items():
        yield _preset(name, mark, table)
    yield _surrogates(_read(reference / SURROGATES))
    yield _cost(_read(reference / COST))


def _read(path: Path) -> pd.DataFrame | None:
    return read_table(path, path.stem.removesuffix("_published")) if path.is_file() else None


def _missing(path: Path) -> str:
    return f"results/reference/{path.as_posix()} is not there"


def _rows(table: pd.DataFrame, switch: str, attack: str, metric: str) -> pd.DataFrame:
    """The rows of one switch, attack and metric; of a metric of tasks under an attack, those of attacked tasks."""
    chosen = table.loc[table["switch"].eq(switch) & table["attack"].str.startswith(attack) & table["metric"].eq(metric)]
    if attack == "clean" or metric == JOINT:
        return chosen
    return chosen.loc[[task in attacked for task, attacked in zip(chosen["task"], chosen["attacked"], strict=True)]]


def _switch(choice: Choice, table: pd.DataFrame | None) -> Finding:
    text, agrees = _missing(SWITCHES), OPEN
    if table is not None:
        rows = _rows(table, choice.switch, choice.attack, choice.metric)
        text, agrees = _told(rows)
    what = choice.metric.replace("_", " ")
    under = "" if choice.attack == "clean" else f" under {choice.attack.rstrip('.')}"
    return Finding(
        f"switch-{choice.switch.replace('=', '-').replace(';', '-')}",
        GHAMIZI,
        f"our runs, switch {choice.switch.replace(';', ', ')}",
        f"It makes no difference {choice.question}.",
        text,
        choice.printed,
        agrees,
        f"{what}{under} with the switch beside the same model without it, embedded data (results/reference/switches); "
        f"{RULE}",
    )


def _told(rows: pd.DataFrame) -> tuple[str, str]:
    if rows.empty:
        return "not run", OPEN
    text = listed(
        f"{row.task or 'all tasks'} {row.base_value:.3g} to {row.value:.3g} ({_size(row.base_value, row.value)})"
        for row in rows.itertuples()
    )
    if rows["difference"].eq(0).all():
        return text, YES
    return text, NO if (rows["difference"].abs() > ERRORS * rows["standard_error"]).any() else OPEN


def _size(base: float, value: float) -> str:
    if base <= 0 or value <= 0:
        return f"{value - base:+.2g}"
    return f"{100 * (value / base - 1):+.1f} %" if value < 10 * base else f"x {value / base:.0f}"


def _preset(name: str, mark: str, table: pd.DataFrame | None) -> Finding:
    text, agrees = _missing(SWITCHES), OPEN
    if table is not None:
        whole = [s for s in table["switch"].unique() if mark in s.split(";") and len(s.split(";")) > LEAST]
        text, agrees = _told(_rows(table, whole[0], PGD, VULNERABILITY)) if whole else ("not run", OPEN)
    what = {"published": "the paper is followed as it is written", "released": "its code is followed"}[name]
    return Finding(
        f"switch-preset-{name}",
        GHAMIZI,
        f"our runs, preset {name}",
        f"It makes no difference whether {what} or the corrected protocol.",
        text,
        "one protocol",
        agrees,
        f"relative task vulnerability under pgd.total, all switches of the preset at once, beside the default one; "
        f"{RULE}",
    )


def _surrogates(table: pd.DataFrame | None) -> Finding:
    text, agrees = _missing(SURROGATES), OPEN
    if table is not None:
        rows = table.loc[table["surrogate"].eq("early epochs")]
        numbers = rows[["ours", "of_row_means", "within"]]
        text = "; ".join(
            f"{row.attack}: r = {n.ours:.2f}, row means {n.of_row_means:.2f}, within {n.within:.2f}"
            for row, n in zip(rows.itertuples(), numbers.itertuples(), strict=True)
        )
        agrees = judged(bool((numbers["of_row_means"] < 0.95 * numbers["ours"]).all())) if len(rows) else OPEN
    return Finding(
        "runs-surrogates",
        GHAMIZI,
        "our runs, Table 3",
        "In our own runs too, fewer epochs predict more than the main task's scale does.",
        text or "not run",
        "r = 0.55",
        agrees,
        "quick study on embedded data (results/reference/quick/tables/table_3.csv), early epochs against all: pooled "
        "Pearson, with row means in place of cells, and within main tasks; yes when row means give less than 95 %",
    )


def _cost(table: pd.DataFrame | None) -> Finding:
    text, agrees = _missing(COST), OPEN
    if table is not None:
        ms = {(str(r.mode), str(r.method)): float(r.median_ms) for r in table.itertuples()}
        more = {m: ms["instance", m] / ms["universal", m] for m in ("gap", "mta")}
        sharing = {mode: ms[mode, "gap"] / ms[mode, "mta"] for mode in ("universal", "instance")}
        text = ("ten blocks over four: " + listed(f"{m.upper()} {v:.2f} times" for m, v in more.items())) + (
            "; GAP over MTA: " + listed(f"{mode} {v:.2f} times" for mode, v in sharing.items())
        )
        agrees = judged(all(v < 1 for v in more.values()))
    return Finding(
        "runs-generator-time",
        MTA,
        "our runs, Table 7",
        "Ten residual blocks take no more time than four.",
        text,
        "342 and 384 ms (GAP), 126 and 137 ms (MTA)",
        agrees,
        "the published networks on 288 x 384 images, median of interleaved rounds on one thread "
        "(results/reference/mta/tables/generator_cost_published.csv)",
    )
