"""Tables in the shape of the paper's: Table 1, supplement Tables 2 to 6, and what they leave out (larger sets).

All of them are drawn from one long frame of cells: a main task, its auxiliary tasks, and the numbers of the model that
serves them. Published numbers stand beside ours where encoder and tasks are the same; the data are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from headstrong import published, radius
from headstrong.analysis.plan import ENCODERS_BY_SIZE, sort_cells
from headstrong.analysis.plan import cells as plan_cells
from headstrong.analysis.records import CLEAN
from headstrong.errors import ConfigError
from headstrong.tasks import TASKS, in_order

WEIGHTINGS = ("uniform", "weighted")  # parts A and B of the paper's Tables 1 and 2
PUBLISHED_PIXELS = 256 * 256  # the published mean squared error is a sum over the pixels and channels of an image
_RELATIVE = {"per_sample": "relative_task_vulnerability", "confusion": "relative_task_vulnerability_confusion"}


@dataclass(frozen=True)
class AttackChoice:
    """Which attack a table shows: family (key in config.yaml), norm, radius in pixel units, steps, and the balancer
    that attacks all tasks at once ("multi"; the single attack is always the one on the main task alone)."""

    family: str
    norm: str = "linf"
    epsilon: float = 8 / 255
    steps: int = 25
    multi: str = "total"


def choose_attack(
    vulnerability: pd.DataFrame,
    family: str | None = None,
    norm: str = "linf",
    epsilon: float | str = 8 / 255,
    steps: int | None = None,
    multi: str = "total",
) -> AttackChoice:
    """The attack asked for, if it is in the table; family None: the first with a gradient; steps None: the most.

    epsilon: as `radius.parse` reads it. Raises ConfigError where it is not a radius and, with what there is, when the
    attack is not in the table.
    """
    try:
        epsilon = float(radius.parse(epsilon))
    except ValueError as error:
        raise ConfigError(f"analysis: epsilon: {error}") from None
    attacks = vulnerability.loc[vulnerability["attack"] != CLEAN]
    columns = ["family", "stepper", "norm", "epsilon", "steps"]
    there = attacks[columns].drop_duplicates().sort_values(columns)
    if family is None:
        following = there.loc[there["stepper"] != "noise", "family"]
        family = str(following.iloc[0]) if len(following) else "(none)"
    match = there["family"].eq(family) & there["norm"].eq(norm) & ((there["epsilon"] - epsilon).abs() < 1e-9)
    if steps is not None:
        match &= there["steps"].eq(steps)
    if not match.any():
        run = [f"{r.family} {r.norm} {radius.text(r.epsilon, r.norm)} {r.steps}" for r in there.itertuples()]
        known = "; ".join(run) or "none"
        asked = f"{family} {norm} {radius.text(epsilon, norm)} {'' if steps is None else steps}".strip()
        raise ConfigError(f"analysis: no attack '{asked}' was run; there are (family norm epsilon steps): {known}")
    chosen = there.loc[match].iloc[-1]
    return AttackChoice(family, norm, float(chosen["epsilon"]), int(chosen["steps"]), multi)


def select(vulnerability: pd.DataFrame, choice: AttackChoice) -> pd.DataFrame:
    """Rows of vulnerability.csv of the attacks of this choice, whatever tasks they attack."""
    return vulnerability.loc[
        vulnerability["family"].eq(choice.family)
        & vulnerability["norm"].eq(choice.norm)
        & ((vulnerability["epsilon"] - choice.epsilon).abs() < 1e-9)
        & vulnerability["steps"].eq(choice.steps).fillna(False)
    ]


def cells(
    vulnerability: pd.DataFrame, plan: pd.DataFrame, choice: AttackChoice, *, segmentation: str = "per_sample"
) -> pd.DataFrame:
    """Every cell with its numbers: the columns of `plan.cells`, and quantity, value, standard_error, n.

    quantity: clean_error; single and multi, the main task's relative task vulnerability when it
    alone, or all tasks of the model, are attacked; single_error and multi_error, its error then. A single-task model
    has one attack, which serves both. segmentation: "per_sample", or "confusion" to take the clean error and the
    vulnerability of s from the summed confusion matrices. Quantities that were not measured are absent.
    vulnerability: vulnerability.csv; plan: `plan.read_plan`. Raises ConfigError for another `segmentation`.
    """
    if segmentation not in _RELATIVE:
        raise ConfigError(f"segmentation: {segmentation!r} is not known; allowed: {', '.join(_RELATIVE)}")
    served = plan_cells(plan)
    served["tasks"] = (served["main"] + served["auxiliary"]).map(in_order)
    clean = vulnerability.loc[vulnerability["attack"].eq(CLEAN)]
    attacked = select(vulnerability, choice)
    single = attacked.loc[attacked["balancer"].eq("single")]
    multi = attacked.loc[attacked["balancer"].eq(choice.multi)]
    parts = [
        _attach(served, _error_rows(clean, "clean_error", segmentation), "clean_error", attacked=None),
        _attach(served, _relative_rows(single, segmentation), "single", attacked="main"),
        _attach(served, _relative_rows(multi, segmentation), "multi", attacked="tasks"),
        _attach(served, _error_rows(single, "adversarial_error", segmentation), "single_error", attacked="main"),
        _attach(served, _error_rows(multi, "adversarial_error", segmentation), "multi_error", attacked="tasks"),
    ]
    alone = [
        part.loc[part["size"].eq(1)].assign(quantity=other)
        for part, other in ((parts[1], "multi"), (parts[3], "multi_error"))
    ]
    # a "multi" attack that was run on one task comes first and is kept
    frame = pd.concat([*parts, *alone], ignore_index=True).drop(columns="tasks")
    key = ["encoder", "weighting", "epochs", "main", "auxiliary", "quantity"]
    return frame.drop_duplicates(key).reset_index(drop=True)


def _error_rows(rows: pd.DataFrame, metric: str, segmentation: str) -> pd.DataFrame:
    found = rows.loc[rows["metric"].eq(metric)]
    if segmentation == "per_sample":
        return found
    whole = rows.loc[rows["metric"].eq("miou")]
    whole = whole.assign(mean=100 * (1 - whole["mean"]), standard_error=100 * whole["standard_error"])
    return pd.concat([found.loc[~found["task"].isin(whole["task"].unique())], whole])


def _relative_rows(rows: pd.DataFrame, segmentation: str) -> pd.DataFrame:
    plain = rows.loc[rows["metric"].eq(_RELATIVE["per_sample"])]
    if segmentation == "per_sample":
        return plain
    whole = rows.loc[rows["metric"].eq(_RELATIVE["confusion"])]
    return pd.concat([plain.loc[~plain["task"].isin(whole["task"].unique())], whole])


def _attach(served: pd.DataFrame, rows: pd.DataFrame, quantity: str, attacked: str | None) -> pd.DataFrame:
    """The cells that have a row: same model, the cell's main task, and the attacked tasks as wanted."""
    numbers = rows[["model", "task", "attacked", "mean", "standard_error", "n"]]
    left = served.assign(attacked="" if attacked is None else served[attacked])
    joined = left.merge(numbers, left_on=["model", "main", "attacked"], right_on=["model", "task", "attacked"])
    joined = joined.drop(columns=["task", "attacked"]).rename(columns={"mean": "value"})
    return joined.assign(quantity=quantity)


def full_epochs(frame: pd.DataFrame, weighting: str = "uniform") -> pd.DataFrame:
    """Cells (columns of `cells`) of fully trained models of one weighting."""
    return frame.loc[frame["epochs"].eq(frame["full_epochs"]) & frame["weighting"].eq(weighting)]


def pairs_table(frame: pd.DataFrame, weighting: str = "uniform") -> pd.DataFrame:
    """Supplement Tables 2 to 6 in long form, one block after the other, for every encoder of the cells.

    Columns: encoder, weighting, block (clean, single, multi), main, auxiliary (the main task itself for a single-task
    model, as printed), model, ours, standard_error, n, published, published_printed.
    `published` is in our units (a squared error per pixel and channel), `published_printed` in the paper's (the sum
    over an image); both are empty where the paper has no number.
    """
    frame = full_epochs(frame, weighting)
    frame = frame.loc[frame["size"].le(2) & frame["quantity"].isin(("clean_error", "single", "multi"))]
    frame = frame.assign(
        auxiliary=frame["auxiliary"].where(frame["size"].eq(2), frame["main"]),
        block=frame["quantity"].replace("clean_error", "clean"),
    )
    frame = frame.rename(columns={"value": "ours"})
    columns = ["encoder", "weighting", "block", "main", "auxiliary", "model", "ours", "standard_error", "n"]
    beside = _supplement().assign(weighting="uniform")
    joined = frame[columns].merge(beside, how="left", on=["encoder", "weighting", "block", "main", "auxiliary"])
    return _sorted(joined, ("clean", "single", "multi"))


def table_1(frame: pd.DataFrame, encoder: str = "resnet18") -> pd.DataFrame:
    """The paper's Table 1 in long form: parts A (weighting uniform) and B (weighted), blocks single and multi.

    Columns as `pairs_table`; multi has no diagonal, and neither has part B. `published` is Table 1's own number, which
    differs from supplement Table 2's although the setting is nominally the same.
    """
    table = pd.concat([pairs_table(frame, weighting) for weighting in WEIGHTINGS], ignore_index=True)
    table = table.loc[table["encoder"].eq(encoder) & table["block"].ne("clean")]
    table = table.loc[table["block"].ne("multi") | table["main"].ne(table["auxiliary"])]
    said = published.load("ghamizi_table_1")
    said = said.rename(columns={"weights": "weighting", "attacked": "block", "value": "published"})
    key = ["encoder", "weighting", "block", "main", "auxiliary"]
    said = said[[*key, "published"]].assign(published_printed=said["published"])
    ours = table.drop(columns=["published", "published_printed"])
    return ours.merge(said, how="left", on=key)


def _supplement() -> pd.DataFrame:
    """Published clean errors and vulnerabilities, clean errors also in our units (mean over pixels and channels)."""
    said = published.load("ghamizi_supplement_tables_2_to_6")
    said = said.rename(columns={"quantity": "block", "value": "published_printed"})
    said["block"] = said["block"].replace("clean_error", "clean")
    channels = said["main"].map(lambda letter: TASKS[letter].channels or 1)
    squared = said["published_printed"] / (PUBLISHED_PIXELS * channels)
    is_squared = said["block"].eq("clean") & said["main"].ne("s")
    said["published"] = said["published_printed"].where(~is_squared, squared)
    return said[["encoder", "block", "main", "auxiliary", "published", "published_printed"]]


def _sorted(frame: pd.DataFrame, blocks: tuple[str, ...]) -> pd.DataFrame:
    ranks = {
        "encoder": {name: number for number, name in enumerate(ENCODERS_BY_SIZE)},
        "block": {name: number for number, name in enumerate(blocks)},
        "main": {letter: number for number, letter in enumerate(TASKS)},
        "auxiliary": {letter: number for number, letter in enumerate(TASKS)},
    }
    by = ["encoder", "block", "main", "auxiliary"]
    return frame.sort_values(by, key=lambda column: column.map(ranks[column.name])).reset_index(drop=True)


def wide(table: pd.DataFrame, block: str, value: str = "ours") -> pd.DataFrame:
    """One block of a long table as the paper prints it: rows main task, columns auxiliary task, NaN where empty.

    Of a table with several weightings or attacks, give the rows of one: ValueError for a cell that comes twice.
    """
    part = table.loc[table["block"].eq(block)]
    used = in_order("".join(part["main"]) + "".join(part["auxiliary"]))
    grid = part.pivot(index="main", columns="auxiliary", values=value)
    return grid.reindex(index=list(used), columns=list(used))


def combinations(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell of `cells`, of every size, in one row: how robust each main task is with each set of auxiliary tasks.

    Columns: encoder, weighting, epochs, main, auxiliary, size, model, clean_error, single, multi, each with
    _standard_error, and rank_single, rank_multi: 1 is the least vulnerable set for this main task, encoder and epochs
    (ties share the better rank; the single-task model is ranked among them).
    """
    index = ["encoder", "weighting", "epochs", "main", "auxiliary", "size", "model"]
    shown = frame.loc[frame["quantity"].isin(("clean_error", "single", "multi"))]
    grid = shown.pivot(index=index, columns="quantity", values=["value", "standard_error"])
    result = pd.DataFrame(index=grid.index)
    for quantity in ("clean_error", "single", "multi"):
        for column, name in (("value", quantity), ("standard_error", f"{quantity}_standard_error")):
            result[name] = grid[(column, quantity)] if (column, quantity) in grid else float("nan")
    result = result.reset_index()
    peers = result.groupby(["encoder", "weighting", "epochs", "main"])
    for quantity in ("single", "multi"):
        result[f"rank_{quantity}"] = peers[quantity].rank(method="min").astype("Int64")
    return sort_cells(result, ["encoder", "weighting", "epochs"])
