"""Made-up tables of attacks on hidden tasks, with the columns that a study writes and numbers that tell rows apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

STEALTHY = ("cf", "cf_delta", "disruption", "oracle")
OBJECTIVES = ("cf", "cf_delta", "disruption", "dgba", "total", "single", "oracle", "noise")
ATTRIBUTES = ("shape", "colour", "size", "light", "pose", "texture", "colour of the background")
# Hidden damage, and visible damage as a share of it, without stealth at the largest radius.
STRENGTH = {
    "cf": (38.0, 0.55),
    "cf_delta": (44.0, 0.48),
    "disruption": (33.0, 0.9),
    "dgba": (20.0, 2.2),
    "total": (21.0, 2.3),
    "single": (13.0, 1.6),
    "oracle": (62.0, 0.3),
    "noise": (0.6, 1.1),
}
KEYS = ["family", "dataset", "kind", "objective", "access", "stealth", "norm", "epsilon", "steps"]


@dataclass(frozen=True)
class Family:
    """A family of attacks; epsilons in 1/255, which are pixels of the maximum norm."""

    name: str = "objects"
    kind: str = "classes"
    tasks: Sequence[str] = ATTRIBUTES
    accesses: Sequence[str] = ("heads", "backbone")
    objectives: Sequence[str] = OBJECTIVES
    epsilons: Sequence[float] = (2, 4, 8)
    stealths: Sequence[float] = (0.0, 0.1, 1.0, 10.0)
    norms: Sequence[str] = ("linf",)
    scale: float = 1.0
    epochs: Sequence[int] = (0, 1, 2, 4, 8, 12)
    seed: int = 0
    weights: dict[str, Sequence[float]] = field(default_factory=dict)  # of an objective, where it has its own


DENSE = Family("rooms", "dense", tuple("sdnE"), scale=9.0, seed=1)


def hidden(*families: Family) -> pd.DataFrame:
    """hidden.csv of these families."""
    return pd.DataFrame([row for family in families or (Family(),) for row in _rows(family)])


def _rows(family: Family) -> list[dict[str, object]]:
    random = np.random.default_rng(family.seed)
    rows = []
    top = max(family.epsilons)
    for task in family.tasks:
        turn = random.uniform(0.6, 1.3)
        others = [each for each in family.tasks if each != task]
        for objective, access, stealth, norm, epsilon in _attacks(family):
            victims = others if objective == "single" else [""]
            for victim in victims:
                name = "-".join(str(part) for part in (objective, access, stealth, norm, epsilon, victim))
                strength, share = STRENGTH[objective]
                weaker = 0.8 if access == "backbone" else 1.0
                kept = 1 / (1 + 0.4 * stealth)
                base = family.scale * turn * strength * weaker * (epsilon / top) ** 0.7 * (0.4 + 0.6 * kept)
                for measured in family.tasks:
                    role = "hidden" if measured == task else "visible"
                    damage = base if role == "hidden" else base * share * kept**1.5
                    damage = damage * random.uniform(0.85, 1.15) + random.normal(0, 0.2)
                    clean = 90.0 if family.kind == "classes" else 0.25
                    after = clean - damage if family.kind == "classes" else clean * (1 + damage / 100)
                    rows.append(
                        {
                            **dict(zip(KEYS[:3], (family.name, "embedded", family.kind), strict=True)),
                            **{"hidden": task, "attack": name, "objective": objective, "access": access},
                            **{"stealth": stealth, "norm": norm, "epsilon": epsilon / 255},
                            **{"steps": 1 if objective == "noise" else 20, "task": measured, "role": role},
                            **{"clean": clean, "under_attack": after, "damage": damage},
                            **{"damage_error": family.scale * random.uniform(0.4, 1.4), "n": 500},
                        }
                    )
    return rows


def _attacks(family: Family) -> list[tuple[str, str, float, str, float]]:
    found = []
    for objective in family.objectives:
        weights = family.weights.get(objective, family.stealths if objective in STEALTHY else (0.0,))
        for stealth in weights:
            free = objective in ("oracle", "noise") or (objective == "disruption" and stealth == 0)
            for access in [""] if free else family.accesses:
                found += [(objective, access, stealth, n, e) for n in family.norms for e in family.epsilons]
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """hidden_summary.csv of such a table: its means; errors are made up."""
    turns = table.groupby([*KEYS, "hidden", "role"], sort=False)["damage"].mean().unstack("role")
    worst = table.loc[table["role"].eq("visible")].groupby([*KEYS, "hidden"], sort=False)["damage"].max()
    groups = turns.assign(worst=worst).groupby(KEYS, sort=False)
    means = groups.mean().reset_index()
    frame = means[KEYS].assign(
        turns=groups.size().to_numpy(),
        hidden_damage=means["hidden"],
        hidden_damage_error=0.3 + 0.01 * means["hidden"].abs(),
        visible_damage=means["visible"],
        visible_damage_error=0.2 + 0.01 * means["visible"].abs(),
        visible_worst=means["worst"],
        visible_share=means["visible"] / means["hidden"],
        n=500,
    )
    for name in ("noise", "oracle"):
        own = frame.loc[frame["objective"].eq(name) & frame["stealth"].eq(0)]
        values = own.set_index(["family", "norm", "epsilon"])["hidden_damage"]
        places = pd.MultiIndex.from_frame(frame[["family", "norm", "epsilon"]])
        frame[f"{name}_damage"] = values.reindex(places).to_numpy()
        frame["over_noise" if name == "noise" else "oracle_share"] = frame["hidden_damage"] / frame[f"{name}_damage"]
    return frame


def forgetting(*families: Family) -> pd.DataFrame:
    """forgetting.csv of these families."""
    rows = []
    for family in families or (Family(),):
        random = np.random.default_rng(family.seed + 7)
        starts = {task: random.uniform(80, 98) for task in family.tasks}
        if family.kind == "dense":
            starts = {task: random.uniform(0.05, 20) for task in family.tasks}
        for task in family.tasks:
            for access in family.accesses:
                for measured in family.tasks:
                    role, start = "hidden" if measured == task else "visible", starts[measured]
                    rate = (3.0 if role == "hidden" else 0.15) * random.uniform(0.5, 1.4) * family.scale
                    for epoch in family.epochs:
                        damage = rate * 2.2 * epoch**0.8
                        value = start - damage if family.kind == "classes" else start * (1 + damage / 100)
                        rows.append(
                            {
                                **{"family": family.name, "dataset": "embedded", "kind": family.kind, "hidden": task},
                                **{"access": access, "epoch": epoch, "task": measured, "role": role},
                                **{"value": value, "damage": damage, "distance": 0.1 * epoch, "n": 500},
                            }
                        )
    return pd.DataFrame(rows)
