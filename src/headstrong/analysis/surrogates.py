"""Table 3 of Ghamizi et al. (2022): can the robustness of a combination of tasks be told from something cheaper?

The published correlations pool main tasks whose vulnerabilities differ by an order of magnitude, and that difference
alone gives them: replacing each cell of the proxy by the mean of its row predicts the target as well. So every pooled
number comes with the same question asked within a main task, where choosing an auxiliary task takes place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from headstrong import published
from headstrong.analysis import stats
from headstrong.analysis.plan import ENCODERS_BY_SIZE
from headstrong.analysis.stats import Correlation
from headstrong.seeds import derive_seed
from headstrong.tasks import TASKS

COLUMNS = (
    "surrogate",
    "proxy",
    "target",
    "attack",
    "scope",
    "statistic",
    "value",
    "low",
    "high",
    "p_value",
    "n",
    "note",
)
POOLED, WITHIN = "pooled", "within"
KEY = ["main", "auxiliary"]


def correlate(
    proxy: pd.DataFrame, target: pd.DataFrame, *, seed: int = 0, draws: int = stats.BOOTSTRAP_DRAWS
) -> pd.DataFrame:
    """Every statistic of one proxy against one target: frames with columns main, auxiliary, value; cells in both count.

    Rows (scope, statistic, value, low, high, p_value, n, note); an empty value has a note that says why.
    pooled: pearson (Fisher interval), pearson_bootstrap (percentile interval over cells), spearman,
    pearson_of_row_means (each proxy cell replaced by the mean of its main task),
    share_between_proxy and share_between_target (share of the variance that lies between main tasks).
    within: pearson of logarithms centred in each main task, a degree of freedom paid for every further main task.
    <letter>: spearman over the cells of one main task.
    Raises pandas' MergeError for a cell that comes twice.
    """
    cells = proxy[[*KEY, "value"]].merge(
        target[[*KEY, "value"]], on=KEY, suffixes=("_proxy", "_target"), validate="1:1"
    )
    x, y = cells["value_proxy"].to_numpy(float), cells["value_target"].to_numpy(float)
    groups = cells["main"].to_numpy(str)
    row_means = stats.group_means(x, groups)
    found = [
        (POOLED, "pearson", stats.pearson(x, y)),
        (POOLED, "pearson_bootstrap", stats.pearson_bootstrap(x, y, seed, draws)),
        (POOLED, "spearman", stats.spearman(x, y)),
        (POOLED, "pearson_of_row_means", stats.pearson(row_means, y)),
        (POOLED, "share_between_proxy", _share(x, groups)),
        (POOLED, "share_between_target", _share(y, groups)),
        (WITHIN, "pearson", _within(x, y, groups)),
    ]
    present = set(groups)
    for letter in (letter for letter in TASKS if letter in present):
        row = groups == letter
        found.append((letter, "spearman", stats.spearman(x[row], y[row])))
    return pd.DataFrame([{"scope": scope, "statistic": name, **c._asdict()} for scope, name, c in found])


def _share(values: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]) -> Correlation:
    share = stats.share_between(values, groups)
    note = "the values do not vary" if math.isnan(share) else ""
    return Correlation(share, math.nan, math.nan, math.nan, values.size, note)


def _within(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]) -> Correlation:
    """Correlation of logarithms after taking out the mean of each main task."""
    count = np.unique(groups).size
    empty = (math.nan, math.nan, math.nan, math.nan, x.size)
    if x.size and not (x.min() > 0 and y.min() > 0):
        return Correlation(*empty, "a cell is not positive: it has no logarithm")
    a, b = stats.log_centred(x, groups), stats.log_centred(y, groups)
    for side, values, centred in (("proxy", x, a), ("target", y, b)):
        # what is left after centring a constant row is rounding, not variation
        if x.size and np.ptp(centred) <= 1e-12 * max(1.0, float(np.abs(np.log(values)).max())):
            return Correlation(*empty, f"the {side} does not vary within a main task")
    return stats.pearson(a, b, covariates=max(0, count - 1))


def build_table(cells: pd.DataFrame, *, seed: int = 0, draws: int = stats.BOOTSTRAP_DRAWS) -> pd.DataFrame:
    """surrogates.csv: all surrogates of a study, columns COLUMNS, from the cells of `tables.cells`.

    Uniformly weighted cells of one or two tasks. surrogate: "early epochs" (same encoder, fewer epochs against all),
    "smaller encoder" (every ordered pair of encoders by size), "clean performance" (clean error against the relative
    task vulnerability, and against the absolute adversarial error, of the same models). attack: single or multi.
    A surrogate the study has no models for has no rows.
    """
    parts = []
    for comparison in comparisons(cells):
        names = (comparison.surrogate, comparison.proxy, comparison.target)
        own_seed = derive_seed(seed, *names, comparison.attack)
        table = correlate(comparison.proxy_cells, comparison.target_cells, seed=own_seed, draws=draws)
        parts.append(table.assign(**dict(zip(COLUMNS, (*names, comparison.attack), strict=False))))
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


@dataclass(frozen=True)
class Comparison:
    """One proxy against one target under one attack ("single" or "multi"); cells have main, auxiliary, value."""

    surrogate: str
    proxy: str
    target: str
    attack: str
    proxy_cells: pd.DataFrame
    target_cells: pd.DataFrame


def comparisons(cells: pd.DataFrame) -> list[Comparison]:
    """All comparisons the cells of `tables.cells` allow, in a fixed order; see `build_table`."""
    cells = cells.loc[cells["weighting"].eq("uniform") & cells["size"].le(2)]
    present = [encoder for encoder in ENCODERS_BY_SIZE if encoder in set(cells["encoder"])]
    full = cells.loc[cells["epochs"].eq(cells["full_epochs"])]
    return [
        comparison
        for attack in ("single", "multi")
        for kind in (
            _early_epochs(cells, present, attack),
            _smaller(full, present, attack),
            _clean(full, present, attack),
        )
        for comparison in kind
        if not (comparison.proxy_cells.empty or comparison.target_cells.empty)
    ]


def _early_epochs(cells: pd.DataFrame, present: list[str], attack: str) -> Iterator[Comparison]:
    for encoder in present:
        ours = cells.loc[cells["encoder"].eq(encoder)]
        most = int(ours["full_epochs"].max())
        for epochs in sorted(set(ours["epochs"]) - {most}):
            proxy, target = _pick(ours, attack, epochs), _pick(ours, attack, most)
            yield Comparison(
                "early epochs", f"{encoder} {epochs} epochs", f"{encoder} {most} epochs", attack, proxy, target
            )


def _smaller(full: pd.DataFrame, present: list[str], attack: str) -> Iterator[Comparison]:
    for small, large in itertools.combinations(present, 2):
        proxy, target = _encoder(full, small, attack), _encoder(full, large, attack)
        yield Comparison("smaller encoder", small, large, attack, proxy, target)


def _clean(full: pd.DataFrame, present: list[str], attack: str) -> Iterator[Comparison]:
    for encoder in present:
        clean = _encoder(full, encoder, "clean_error")
        for quantity, words in ((attack, "relative vulnerability"), (f"{attack}_error", "adversarial error")):
            target = _encoder(full, encoder, quantity)
            names = (f"{encoder} clean error", f"{encoder} {words}")
            yield Comparison("clean performance", *names, attack, clean, target)


def _pick(cells: pd.DataFrame, quantity: str, epochs: int) -> pd.DataFrame:
    return cells.loc[cells["quantity"].eq(quantity) & cells["epochs"].eq(epochs)]


def _encoder(cells: pd.DataFrame, encoder: str, quantity: str) -> pd.DataFrame:
    return cells.loc[cells["encoder"].eq(encoder) & cells["quantity"].eq(quantity)]


def table_3(surrogates: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 3 beside ours: columns surrogate, proxy, target, attack, ours, low, high, p_value, n, within,
    within_p_value, of_row_means (r when each proxy cell is replaced by the mean of its main task), published,
    published_p_value.

    A published number stands beside every comparison of its kind; its own encoders are resnet18 and resnet50.
    """
    key = ["surrogate", "proxy", "target", "attack"]
    pearson = surrogates.loc[surrogates["statistic"].eq("pearson")]
    pooled = pearson.loc[pearson["scope"].eq(POOLED)].rename(columns={"value": "ours"})
    within = pearson.loc[pearson["scope"].eq(WITHIN)].rename(columns={"value": WITHIN, "p_value": "within_p_value"})
    means = surrogates.loc[surrogates["statistic"].eq("pearson_of_row_means")].rename(columns={"value": "of_row_means"})
    table = pooled[[*key, "ours", "low", "high", "p_value", "n"]]
    table = table.merge(within[[*key, WITHIN, "within_p_value"]], on=key).merge(means[[*key, "of_row_means"]], on=key)
    said = published.load("ghamizi_table_3")
    values = [_said(said, row) for row in table.to_dict("records")]
    return table.assign(published=[v[0] for v in values], published_p_value=[v[1] for v in values]).reset_index(
        drop=True
    )


def _said(said: pd.DataFrame, row: dict[Any, Any]) -> tuple[float, float]:
    if row["surrogate"] == "early epochs" and str(row["proxy"]).startswith("resnet18 "):
        proxy = "50 epochs"
    elif row["surrogate"] == "smaller encoder" and (row["proxy"], row["target"]) == ("resnet18", "resnet50"):
        proxy = "resnet18"
    elif row["surrogate"] == "clean performance" and str(row["proxy"]).startswith("resnet18 "):
        proxy = "clean performance"
    else:
        return math.nan, math.nan
    match = said.loc[said["proxy"].eq(proxy)].iloc[0]
    return float(match["pearson"]), float(match["p_value"])
