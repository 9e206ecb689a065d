"""Table 2 of Ghamizi et al. (2022): do adaptive attacks undo what other task weights gain?"""

from __future__ import annotations

import pandas as pd

from headstrong import published
from headstrong.analysis.records import CLEAN
from headstrong.analysis.tables import WEIGHTINGS, AttackChoice, cells, full_epochs
from headstrong.tasks import TASKS

COLUMNS = (
    "encoder",
    "weighting",
    "attack",
    "block",
    "main",
    "auxiliary",
    "model",
    "ours",
    "standard_error",
    "n",
    "published",
)
BLOCKS = {"apgd": "single", "wgd": "multi"}  # which tasks each attack of the table attacks here
_WGD = ("wgd_published", "wgd_released", "wgd_cyclic")  # the paper's definition first


def table_2(
    vulnerability: pd.DataFrame,
    plan: pd.DataFrame,
    choice: AttackChoice,
    *,
    encoder: str = "resnet18",
    segmentation: str = "per_sample",
) -> pd.DataFrame:
    """The paper's Table 2 in long form, columns COLUMNS; no rows where neither attack was run.

    weighting: uniform (part A), weighted (part B). attack: apgd, the main task alone attacked (block single), and wgd,
    all tasks of the pair attacked (block multi), both at the norm and radius of `choice`; `attacks` says which. ours is
    the main task's relative task vulnerability, published the printed one. auxiliary is the main task itself for a
    single-task model: it has no task weights, so the same model stands in both parts, where the printed numbers differ
    for APGD. Its WGD is PGD.

    The caption says that only the task of the row is attacked. With one attacked task WGD is PGD, bit for bit, so that
    reading would make its block a second Table 1; here WGD attacks both tasks, as its definition needs.
    """
    found = [
        _part(cells(vulnerability, plan, attack, segmentation=segmentation), name, weighting, encoder)
        for name, attack in attacks(vulnerability, choice).items()
        for weighting in WEIGHTINGS
    ]
    frame = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(COLUMNS[:-1]))
    said = published.load("ghamizi_table_2").rename(columns={"weights": "weighting", "value": "published"})
    key = ["encoder", "weighting", "attack", "main", "auxiliary"]
    joined = frame.merge(said[[*key, "published"]], how="left", on=key)
    ranks = {name: {value: rank for rank, value in enumerate(order)} for name, order in _ORDERS.items()}
    by = list(_ORDERS)
    joined = joined.sort_values(by, key=lambda column: column.map(ranks[str(column.name)]))
    return joined[list(COLUMNS)].reset_index(drop=True)


_ORDERS = {"weighting": WEIGHTINGS, "attack": tuple(BLOCKS), "main": tuple(TASKS), "auxiliary": tuple(TASKS)}


def attacks(vulnerability: pd.DataFrame, choice: AttackChoice) -> dict[str, AttackChoice]:
    """Which attacks stand for "apgd" and "wgd" at the norm and radius of `choice`; one that was not run is absent.

    apgd: single attacks of a family whose stepper is apgd. wgd: a balancer wgd_*. Of several, those with the steps of
    `choice` come first, then those with the most steps; WGD by the stepper pgd, which it extends, before others; the
    form of WGD in the order published, released, cyclic; then families by name.
    """
    there = vulnerability.loc[
        vulnerability["attack"].ne(CLEAN)
        & vulnerability["norm"].eq(choice.norm)
        & ((vulnerability["epsilon"] - choice.epsilon).abs() < 1e-9)
    ]
    there = there[["family", "stepper", "balancer", "steps"]].drop_duplicates()
    there = there.assign(
        other_steps=there["steps"].ne(choice.steps),
        fewer=-there["steps"],
        other_stepper=there["stepper"].ne("pgd"),
        form=there["balancer"].map({name: rank for rank, name in enumerate(_WGD)}),
    )
    kinds = {
        "apgd": there.loc[there["stepper"].eq("apgd") & there["balancer"].eq("single")],
        "wgd": there.loc[there["balancer"].isin(_WGD)],
    }
    found = {}
    for name, rows in kinds.items():
        for row in rows.sort_values(["other_steps", "fewer", "other_stepper", "form", "family"]).to_dict("records")[:1]:
            steps, balancer = int(row["steps"]), str(row["balancer"])
            found[name] = AttackChoice(str(row["family"]), choice.norm, choice.epsilon, steps, balancer)
    return found


def _part(frame: pd.DataFrame, attack: str, weighting: str, encoder: str) -> pd.DataFrame:
    """The rows of one attack and one weighting, without published numbers."""
    frame = frame.loc[frame["encoder"].eq(encoder) & frame["quantity"].eq(BLOCKS[attack])]
    pairs = full_epochs(frame, weighting)
    pairs = pairs.loc[pairs["size"].eq(2)]
    alone = full_epochs(frame)
    alone = alone.loc[alone["size"].eq(1)]
    if weighting != "uniform":
        alone = alone.loc[alone["main"].isin(pairs["main"])]  # part B is about weights: without them it is not there
    rows = pd.concat([pairs, alone.assign(auxiliary=alone["main"])], ignore_index=True)
    rows = rows.rename(columns={"value": "ours"}).assign(weighting=weighting, attack=attack, block=BLOCKS[attack])
    return rows[list(COLUMNS[:-1])]
