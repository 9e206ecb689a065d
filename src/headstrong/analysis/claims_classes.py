"""Evidence on the claims about attacks on hidden tasks (CF, CF-delta) and losses for important classes (CAMRI).

All effects are in points (of damage, recall, accuracy) unless said so. Every function raises LackingError, which says
what is not there, where the study has no rows for its claim.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from headstrong import radius
from headstrong.analysis import claims_stats
from headstrong.analysis.claims_rules import Evidence, LackingError, Tables
from headstrong.analysis.stats import NORMAL

STEALTH = 1.0  # weight of keeping visible predictions that is judged; else the nearest above 0, by ratio
RADIUS = 8 / 255  # the largest radius judged
SPARED = 3.0  # hidden damage over mean visible damage, at least, of an attack that spares the visible tasks
BASE = "ce"
_SETTING = ["family", "loss", "important", "margin", "scale", "weight"]


def hidden_falls(study: Tables, objective: str) -> Evidence:
    """Damage of the hidden task, mean over turns. objective: "cf" or "cf_delta", as in the next two.

    All three speak only of turns whose premise holds: the hidden task was learned, and the copy has forgotten it.
    """
    return _over_turns(_turns(study, objective), study)


def stronger_than_noise(study: Tables, objective: str) -> Evidence:
    """Damage of the hidden task minus that by noise of the same size."""
    turns = _turns(study, objective)
    rows = study("hidden")
    noise = rows.loc[rows["objective"].eq("noise") & rows["role"].eq("hidden")]
    both = turns.merge(
        noise[["family", "hidden", "norm", "epsilon", "damage", "damage_error"]],
        on=["family", "hidden", "norm", "epsilon"],
        suffixes=("", "_noise"),
    )
    if both.empty:
        raise LackingError("no noise of the same size")
    error = np.hypot(both["error"], both["damage_error_noise"])
    return _over_turns(both.assign(value=both["value"] - both["damage_noise"], error=error), study)


def visible_stay(study: Tables, objective: str) -> Evidence:
    """Damage of the hidden task minus SPARED times the mean damage of the visible ones."""
    turns = _turns(study, objective)
    visible = _chosen(study, objective)
    visible = visible.loc[visible["role"].eq("visible")]
    visible = visible.loc[_known_as_learned(visible)]  # what was not learned cannot be damaged
    mean = visible.groupby(["family", "hidden"])[["damage", "damage_error"]].mean().add_prefix("visible_").reset_index()
    both = turns.merge(mean, on=["family", "hidden"])
    if both.empty:
        raise LackingError("no visible task that was learned")
    error = np.hypot(both["error"], SPARED * both["visible_damage_error"])
    return _over_turns(both.assign(value=both["value"] - SPARED * both["visible_damage"], error=error), study)


def _turns(study: Tables, objective: str) -> pd.DataFrame:
    """The hidden task's row of every turn under the attack that is judged: value, its damage, and error."""
    rows = _chosen(study, objective)
    rows = rows.loc[rows["role"].eq("hidden")]
    rows = rows.loc[_known_as_learned(rows)]
    if rows.empty:
        raise LackingError("no hidden task that was learned")
    forgotten = _forgotten(study)
    kept = [place in forgotten for place in zip(rows["family"], rows["hidden"], rows["access"], strict=True)]
    if not any(kept):
        raise LackingError("the copy has forgotten no hidden task: a premise of the claim does not hold")
    rows = rows.loc[kept]
    return rows.assign(value=rows["damage"], error=rows["damage_error"])


def _known_as_learned(rows: pd.DataFrame) -> pd.Series:
    """True but where a table says that the task was not learned; older tables do not say."""
    return rows["learned"].ne("no") if "learned" in rows else pd.Series(True, index=rows.index)


def _forgotten(study: Tables) -> set[tuple[str, str, str]]:
    """(family, hidden task, access) of the copies that have clearly lost accuracy on the hidden task in the end.

    Older tables do not say it. Of these, accuracies before and after are compared as if they were of different images,
    which makes the standard error too large, not too small.
    """
    rows = study("forgetting")
    rows = rows.loc[rows["role"].eq("hidden") & rows["kind"].eq("classes")]
    last = rows.loc[rows["epoch"].eq(rows.groupby(["family", "hidden", "access"])["epoch"].transform("max"))]
    if "learned" in last:
        gone = last.loc[last["learned"].eq("yes")]
        return set(zip(gone["family"], gone["hidden"], gone["access"], strict=True))
    after, before = last["value"] / 100, (last["value"] + last["damage"]) / 100
    error = 100 * np.sqrt((after * (1 - after) + before * (1 - before)) / last["n"].astype(float))
    gone = last.loc[last["damage"].gt(NORMAL * error) & last["epoch"].gt(0)]
    return set(zip(gone["family"], gone["hidden"], gone["access"], strict=True))


def _chosen(study: Tables, objective: str) -> pd.DataFrame:
    """The attack judged in every family of classifiers; the paper says nothing of dense models.

    Of an attacker with the visible heads: the largest radius up to RADIUS, the stealth nearest to STEALTH above 0 (0
    where no other was run), the most steps. Nothing is chosen by its result.
    """
    rows = study("hidden")
    rows = rows.loc[
        rows["kind"].eq("classes")
        & rows["objective"].eq(objective)
        & rows["access"].eq("heads")
        & rows["epsilon"].le(RADIUS + 1e-9)
    ]
    if rows.empty:
        raise LackingError(f"no {objective} on classifiers, with the visible heads, up to radius {radius.text(RADIUS)}")
    far = np.abs(np.log(rows["stealth"].where(rows["stealth"] > 0) / STEALTH)).fillna(np.inf)
    rows = rows.assign(far=far, less=-rows["epsilon"], fewer=-rows["steps"])
    parts = []
    for _, part in rows.groupby("family", sort=False):
        best = part.sort_values(["less", "far", "fewer"], kind="stable").iloc[0]
        parts.append(part.loc[part["attack"].eq(best["attack"])])
    return pd.concat(parts)


def _over_turns(rows: pd.DataFrame, study: Tables) -> Evidence:
    """The mean over turns. The same task hidden in several families, which differ in a switch, is resampled, and
    counted, as one."""
    group = rows["dataset"] + " " + rows["hidden"]
    rows = rows.assign(group=group, model=rows["family"])
    return claims_stats.mean_of(rows, seed=study.seed, draws=study.draws, units=group.nunique())


def gain_over_base(study: Tables, column: str) -> Evidence:
    """Points of `column` ("recall" or "accuracy") that CAMRI gains on test pictures over the cross entropy, trial by
    trial, in the setting of `_setting`."""
    return _paired(study, "camri", BASE, lambda rows: rows[column])


def gain_over(study: Tables, other: str) -> Evidence:
    """Points of recall that CAMRI gains on test pictures over another loss, trial by trial."""
    return _paired(study, "camri", other, lambda rows: rows["recall"])


def tighter_angles(study: Tables) -> Evidence:
    """Logarithm of the important classes' variance of angles over that of the others, CAMRI minus the normalised
    softmax, its loss without a margin, in percent of the ratio."""
    found = _paired(
        study, "camri", "softmax", lambda rows: np.log(rows["angle_variance"] / rows["angle_variance_others"])
    )
    percent = {name: 100 * float(np.expm1(getattr(found, name))) for name in ("effect", "low", "high")}
    return Evidence(**{**vars(found), **percent})


def _paired(study: Tables, loss: str, other: str, number: Callable[[pd.DataFrame], pd.Series]) -> Evidence:
    """Mean over classes and trials of a number of one loss minus that of another; trials resampled."""
    parts = []
    for name in (loss, other):
        rows = _setting(study, name)
        parts.append(rows.assign(value=number(rows))[["family", "dataset", "important", "trial", "value", "pictures"]])
    key = ["family", "dataset", "important", "trial"]
    both = parts[0].merge(parts[1][[*key, "value"]], on=key, suffixes=("", "_other"))
    if both.empty:
        raise LackingError(f"no {loss} beside {other}")
    unit = both["family"] + " " + both["important"] + " " + both["trial"].astype(str)
    both = both.assign(value=both["value"] - both["value_other"], group=unit, model=unit)
    both = both.rename(columns={"pictures": "n"})
    return claims_stats.mean_of(both.replace([np.inf, -np.inf], np.nan), seed=study.seed, draws=study.draws)


def _setting(study: Tables, loss: str) -> pd.DataFrame:
    """Test rows of importance.csv of one loss, in one setting for each family and key of important classes.

    Chosen on validation pictures: the best mean recall of the settings that keep the accuracy of the cross entropy, or
    where none does the best mean accuracy. Without validation pictures there is no choice, and no row.
    """
    settings = study("importance_settings")
    settings = settings.loc[settings["loss"].eq(loss) & settings["split"].eq("validation")]
    if settings.empty:
        raise LackingError(f"no setting of {loss} measured on validation pictures")
    rows = study("importance")
    rows = rows.loc[rows["split"].eq("test")]
    parts = []
    for _, part in settings.groupby(["family", "important"], sort=False):
        keeping = part.loc[part["keeps_accuracy"]]
        ranked = keeping.sort_values("recall", ascending=False, kind="stable") if len(keeping) else None
        if ranked is None:
            ranked = part.sort_values("accuracy", ascending=False, kind="stable")
        chosen = ranked.iloc[0]
        same = pd.Series(True, index=rows.index)
        for name in _SETTING:
            same &= rows[name].eq(chosen[name]) | (rows[name].isna() & pd.isna(chosen[name]))
        parts.append(rows.loc[same])
    return pd.concat(parts)
