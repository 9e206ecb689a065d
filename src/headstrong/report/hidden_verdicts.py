"""What the report says in sentences about attacks on hidden tasks: the best variant of an attacker who does not see the
task, and how it stands against noise, feature disruption and an attacker who does see it. A "part" is the rows of
hidden_summary.csv of one family, norm and radius."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from headstrong.analysis.hidden_records import STEALTHY
from headstrong.analysis.stats import NORMAL, Estimate, above_zero
from headstrong.figures.hidden_looks import NAMES
from headstrong.report.blocks import number

ACCESS = {"": "", "heads": "with the visible heads", "backbone": "with the backbone only"}
CF = ("cf", "cf_delta")  # the objectives that the sentences are about
WHICH = ("objective", "access", "stealth", "norm", "epsilon", "steps")  # tell one attack from every other
LIMIT = 3.0  # hidden damage over mean visible damage, at least, of an attack that spares the visible tasks
TIMES_NOISE = 3.0
INTERVAL = NORMAL  # standard errors on either side: 95 %
# In place of a ratio whose divisor is not clearly above zero: its interval reaches down to it.
NOT_ABOVE = "not above noise"  # divided by the damage of noise
NOT_DIVIDED = "no clear damage to divide by"
CLEARLY = 2.0  # standard errors of a difference
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Harm:
    """What an attack does in one turn: damage of the hidden task with its standard error, mean of the visible tasks."""

    hidden: float
    error: float
    visible: float


@dataclass(frozen=True)
class Turn:
    """One task hidden: its clean accuracy in percent or clean error, and the harm of attacks by objective; "cf" stands
    for the chosen variant, whichever it is."""

    task: str
    clean: float
    harms: Mapping[str, Harm]


def plain(value: float) -> str:
    """One digit behind the point, a true minus sign and no minus zero; an en dash where there is no number."""
    return "–" if pd.isna(value) else f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def percent(share: float) -> str:
    """A share in percent; an en dash where there is none."""
    return "–" if pd.isna(share) else f"{plain(100 * share)} %"


def share(
    value: float, part: float, divisor: float, words: Callable[[float], str] = percent, *, instead: str = NOT_DIVIDED
) -> str:
    """The ratio of `part` to `divisor` in words; `instead` if it is missing because the divisor is not clearly above
    zero, an en dash if one of the two is missing."""
    return instead if pd.isna(value) and not (pd.isna(part) or pd.isna(divisor)) else words(value)


def between(value: float, error: float, kind: str = "classes") -> str:
    """The 95 % interval of a damage: "10.1 to 14.5"; "" where there is none.

    It ends at -100 and, of points of accuracy (kind classes), at 100: no damage lies beyond.
    """
    if pd.isna(value) or pd.isna(error):
        return ""
    low, high = value - INTERVAL * error, value + INTERVAL * error
    return f"{plain(max(low, -100.0))} to {plain(min(high, 100.0) if kind == 'classes' else high)}"


def words_of(row: Row) -> str:
    """An attack in words: "CF-delta with the visible heads, stealth 1"."""
    access = ACCESS[row["access"]]
    stealth = f", stealth {row['stealth']:g}" if row["objective"] in STEALTHY else ""
    return f"{NAMES[row['objective']]}{' ' if access else ''}{access}{stealth}"


def spares(hidden: float, visible: float) -> bool:
    """Whether the visible tasks lose at most a third of what the hidden one does."""
    return hidden > 0 and LIMIT * visible <= hidden


def beats_noise(hidden: float, noise: float) -> bool:
    """Whether an attack costs at least three times what noise does; noise that costs nothing is beaten by any cost."""
    return hidden > 0 and hidden >= TIMES_NOISE * noise


def variants(part: pd.DataFrame, access: str | None = None) -> pd.DataFrame:
    """The CF variants that have a number, of one access or of all."""
    rows = part.loc[part["objective"].isin(CF) & part["hidden_damage"].notna()]
    return rows if access is None else rows.loc[rows["access"].eq(access)]


def strongest(rows: pd.DataFrame) -> tuple[Row | None, bool]:
    """The attack that costs the hidden task most of those that spare the visible ones, or of all where none does, and
    whether it spares them; None where there are no rows."""
    records: list[Row] = rows.to_dict("records")
    sparing = [row for row in records if _row_spares(row)]
    best = max(sparing or records, key=lambda row: float(row["hidden_damage"]), default=None)
    return best, bool(sparing)


def same_attack(one: Row, other: Row) -> bool:
    """Whether two rows of the summary are of one attack."""
    return all(one[name] == other[name] for name in WHICH)


def _row_spares(row: Row) -> bool:
    return spares(row["hidden_damage"], row["visible_damage"])


def beside(part: pd.DataFrame, like: Row, objective: str) -> Row | None:
    """The attack of another objective that an attacker of the same access has at the same stealth; None if there is
    none. An objective without stealth has stealth 0, one that needs nothing no access."""
    stealth = like["stealth"] if objective in STEALTHY else 0.0
    rows = part.loc[part["objective"].eq(objective) & np.isclose(part["stealth"], stealth)]
    for access in (like["access"], ""):
        found: list[Row] = rows.loc[rows["access"].eq(access)].to_dict("records")
        if found:
            return next((row for row in found if row["steps"] == like["steps"]), found[0])
    return None


def verdicts(part: pd.DataFrame, turns: Sequence[Turn], unit: str) -> list[str]:
    """Every sentence about one part. turns: of the variant that `strongest` chooses. unit: of damages."""
    rows = variants(part)
    chosen, _ = strongest(rows)
    if chosen is None:
        tried = part["objective"].isin(CF).any()
        return [f"No CF variant {'has a number' if tried else 'was run'} at this radius: there is nothing to judge."]
    says = [_choice(rows, chosen, unit), _noise(part, chosen, unit), _oracle(chosen, unit)]
    says += [_disruption(part, chosen["access"], chosen, unit), _turn_by_turn(turns)]
    says += [_disruption(part, access, chosen, unit) for access in ACCESS if access != chosen["access"]]
    return [words for words in says if words]


def _amount(value: float, unit: str) -> str:
    return plain(value) if pd.isna(value) else f"{plain(value)} {unit}"


def _choice(rows: pd.DataFrame, chosen: Row, unit: str) -> str:
    """Which variant the sentences are about, why, and its damage."""
    value, error = chosen["hidden_damage"], chosen["hidden_damage_error"]
    unsure = ", which does not exclude 0" if abs(value) <= INTERVAL * error else ""
    ends = between(value, error, chosen["kind"])
    interval = f" (95 % interval {ends}{unsure})" if ends else ""
    numbers = (
        f"{words_of(chosen)}: hidden damage {_amount(value, unit)}{interval}, mean visible damage "
        f"{_amount(chosen['visible_damage'], unit)}, worst visible task {_amount(chosen['visible_worst'], unit)}."
    )
    if len(rows) == 1:
        return (
            f"The one CF variant {'spares' if _row_spares(chosen) else 'does not spare'} the visible tasks: {numbers}"
        )
    sparing = sum(_row_spares(row) for row in rows.to_dict("records"))
    if sparing:
        verb = "spares the visible tasks: " if sparing == 1 else "spare the visible tasks; the strongest of them is "
        return f"{sparing} of {len(rows)} CF variants {verb}{numbers}{_without_limit(rows, chosen, unit)}"
    return (
        f"None of {len(rows)} CF variants spares the visible tasks.{_nearest(rows, chosen)} The strongest is {numbers}"
    )


def _without_limit(rows: pd.DataFrame, chosen: Row, unit: str) -> str:
    """The strongest of all variants, where it is another one."""
    row = max(rows.to_dict("records"), key=lambda row: float(row["hidden_damage"]))
    if row["hidden_damage"] <= chosen["hidden_damage"]:
        return ""
    return (
        f" The strongest of all, {words_of(row)}, has hidden damage {_amount(row['hidden_damage'], unit)} and mean "
        f"visible damage {_amount(row['visible_damage'], unit)}."
    )


def _nearest(rows: pd.DataFrame, chosen: Row) -> str:
    """The variant whose visible damage is the least share of the hidden one, where it is not the strongest."""
    records: list[Row] = rows.loc[rows["visible_share"].notna()].to_dict("records")
    row = min(records, key=lambda row: float(row["visible_share"]), default=chosen)
    if same_attack(row, chosen):
        return ""
    return f" The nearest to it is {words_of(row)}: visible damage is {percent(row['visible_share'])} of the hidden."


def _noise(part: pd.DataFrame, chosen: Row, unit: str) -> str:
    if pd.isna(chosen["noise_damage"]):
        return "There is no noise of the same size to compare it with."
    noise = beside(part, chosen, "noise")
    words = "" if noise is None else between(noise["hidden_damage"], noise["hidden_damage_error"], noise["kind"])
    costs = f"{_amount(chosen['noise_damage'], unit)}{f', 95 % interval {words}' if words else ''}"
    if pd.isna(chosen["over_noise"]):
        return (
            f"Noise of the same size costs the hidden task nothing that is clearly above zero ({costs}): {NOT_ABOVE}, "
            "so there is no ratio to it."
        )
    beaten = beats_noise(chosen["hidden_damage"], chosen["noise_damage"])
    return (
        f"It costs the hidden task {number(chosen['over_noise'])} times what noise of the same size does ({costs}): "
        f"{'at least' if beaten else 'less than'} three times."
    )


def _oracle(chosen: Row, unit: str) -> str:
    oracle = chosen["oracle_damage"]
    if pd.isna(oracle):
        return "There is no oracle at the same stealth to compare it with."
    if pd.isna(chosen["oracle_share"]):
        return (
            "The oracle at the same stealth costs the hidden task nothing that is clearly above zero either "
            f"({_amount(oracle, unit)})."
        )
    return (
        f"It reaches {percent(chosen['oracle_share'])} of the damage of the oracle, which sees the hidden task, at the "
        f"same stealth ({_amount(oracle, unit)})."
    )


def _disruption(part: pd.DataFrame, access: str, chosen: Row, unit: str) -> str:
    """Whether an attacker of this access does as well without forgetting: at the stealth of its best variant, and at
    the stealth that is best for disruption."""
    own, spared = strongest(variants(part, access))
    if own is None:
        return ""
    start = "Feature disruption"
    if own["access"] != chosen["access"]:
        start = (
            f"{_first(ACCESS[access])}the strongest variant{' that spares the visible tasks' if spared else ''} is "
            f"{words_of({**own, 'access': ''})}: hidden damage {_amount(own['hidden_damage'], unit)}, mean visible "
            f"damage {_amount(own['visible_damage'], unit)}. {start}"
        )
    others = part.loc[part["objective"].eq("disruption") & part["access"].isin([access, ""])]
    others = others.loc[others["hidden_damage"].notna()]
    if others.empty:
        return f"{start} was not run to compare it with."
    equal = beside(others, own, "disruption")
    words = f"{start} was not run at the same stealth."
    if equal is not None:
        spared_too = "spares" if _row_spares(equal) else "does not spare"
        words = f"{start} at the same stealth costs {_costs(own, equal, unit)}: it {spared_too} the visible tasks."
    best, some = strongest(others)
    if best is None or others["stealth"].nunique() == 1 or (equal and some and same_attack(best, equal)):
        return words
    if not some:
        return f"{words} At no stealth does it spare them."
    return f"{words} The strongest that spares them, at stealth {best['stealth']:g}, costs {_costs(own, best, unit)}."


def _costs(own: Row, other: Row, unit: str) -> str:
    """What another attack costs, and whether less than one's own, in standard errors of independent means."""
    errors = _in_errors(
        own["hidden_damage"] - other["hidden_damage"], own["hidden_damage_error"], other["hidden_damage_error"]
    )
    size = number(abs(errors), 2)
    if math.isnan(errors):
        verdict = ""
    elif abs(errors) <= CLEARLY:
        verdict = f" (not clearly different: {size} standard errors)"
    else:
        verdict = f" (clearly {'less' if errors > 0 else 'more'}, by {size} standard errors)"
    return (
        f"the hidden task {_amount(other['hidden_damage'], unit)}{verdict} and the visible ones "
        f"{_amount(other['visible_damage'], unit)}"
    )


def _first(words: str) -> str:
    """Words that begin a sentence, before a comma: "With the visible heads, "; nothing for no words."""
    return f"{words[:1].upper()}{words[1:]}, " if words else ""


def _in_errors(gap: float, one: float, other: float) -> float:
    """A difference over its standard error; NaN where an error is missing or both are 0."""
    error = math.hypot(one, other)
    return gap / error if error > 0 else math.nan


def _turn_by_turn(turns: Sequence[Turn]) -> str:
    """For how many hidden tasks each criterion holds, for the chosen variant."""
    known = [turn for turn in turns if "cf" in turn.harms and not math.isnan(turn.harms["cf"].hidden)]
    if not known:
        return ""
    spared = [spares(turn.harms["cf"].hidden, turn.harms["cf"].visible) for turn in known]
    words = [f"the visible tasks are spared for {sum(spared)} of {len(known)}"]
    noisy = [turn for turn in known if "noise" in turn.harms and not math.isnan(turn.harms["noise"].hidden)]
    if noisy:
        beaten = [beats_noise(turn.harms["cf"].hidden, turn.harms["noise"].hidden) for turn in noisy]
        words.append(f"the damage is at least three times that of noise for {sum(beaten)} of {len(noisy)}")
        both = sum(
            b and spares(t.harms["cf"].hidden, t.harms["cf"].visible) for t, b in zip(noisy, beaten, strict=True)
        )
        words.append(f"both hold for {both}")
    shares = [
        turn.harms["cf"].hidden / turn.harms["oracle"].hidden
        for turn in known
        if "oracle" in turn.harms and above_zero(Estimate(turn.harms["oracle"].hidden, turn.harms["oracle"].error, 1))
    ]
    if shares:
        spread = percent(shares[0]) if len(shares) == 1 else f"{percent(min(shares))} to {percent(max(shares))}"
        words.append(f"the share of the oracle's damage is {spread}")
    gaps = [_turn_gap(turn) for turn in known if "disruption" in turn.harms]
    gaps = [gap for gap in gaps if not math.isnan(gap)]
    if gaps:
        above, below = sum(gap > CLEARLY for gap in gaps), sum(gap < -CLEARLY for gap in gaps)
        words.append(
            f"at equal stealth it is clearly stronger than disruption for {above} of {len(gaps)} and weaker for {below}"
        )
    return f"Task by task, each hidden once: {'; '.join(words)}."


def _turn_gap(turn: Turn) -> float:
    own, other = turn.harms["cf"], turn.harms["disruption"]
    return _in_errors(own.hidden - other.hidden, own.error, other.error)
