"""Small tables of attacks on hidden tasks for the report, from which its sentences can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd

import hidden_frames as made
from headstrong.report import hidden_blocks

NOTHING = float("nan")
# objective, access, stealth: hidden damage, its error, visible damage, worst visible damage
ATTACKS = {
    ("cf", "heads", 0.0): (30.0, 2.0, 15.0, 20.0),
    ("cf", "heads", 1.0): (18.0, 1.0, 6.0, 9.0),  # a third to the digit: spares
    ("cf_delta", "heads", 1.0): (16.0, 1.0, 4.0, 7.0),
    ("cf", "backbone", 1.0): (12.0, 0.5, 3.0, 5.0),
    ("cf_delta", "backbone", 0.0): (20.0, 1.0, 8.0, 9.0),
    ("disruption", "", 0.0): (28.0, 1.0, 27.0, 29.0),
    ("disruption", "heads", 1.0): (14.0, 1.0, 10.0, 12.0),
    ("disruption", "heads", 9.0): (6.0, 1.0, 1.0, 2.0),
    ("disruption", "backbone", 1.0): (13.0, 1.2, 11.0, 12.0),
    ("total", "heads", 0.0): (9.0, 1.0, 40.0, 60.0),
    ("oracle", "", 0.0): (60.0, 2.0, 20.0, 30.0),
    ("oracle", "", 1.0): (40.0, 2.0, 5.0, 8.0),
    ("noise", "", 0.0): (4.5, 0.5, 4.0, 5.0),
}
Numbers = tuple[float, float, float, float]


def summary(attacks: dict[tuple[str, str, float], Numbers] | None = None, **values: object) -> pd.DataFrame:
    """hidden_summary.csv of these attacks, its ratios as the contract of the table says."""
    given = ATTACKS if attacks is None else attacks
    rows = []
    for (objective, access, stealth), (own, error, others, worst) in given.items():
        noise = given.get(("noise", "", 0.0), (NOTHING,))[0]
        oracle = given.get(("oracle", "", stealth), (NOTHING,))[0]
        rows.append(
            {
                **{"family": "objects", "dataset": "embedded", "kind": "classes", "objective": objective},
                **{"access": access, "stealth": stealth, "norm": "linf", "epsilon": 8 / 255},
                **{"steps": 1 if objective == "noise" else 20, "turns": 3},
                **{"hidden_damage": own, "hidden_damage_error": error, "visible_damage": others},
                **{"visible_damage_error": 1.0, "visible_worst": worst, "noise_damage": noise},
                **{"over_noise": own / noise if noise > 0 else NOTHING, "oracle_damage": oracle},
                **{"visible_share": others / own if own > 0 else NOTHING, "n": 100},
                **{"oracle_share": own / oracle if oracle > 0 else NOTHING},
                **values,
            }
        )
    return pd.DataFrame(rows)


def hidden(harms: dict[tuple[str, str, float], list[tuple[float, list[float]]]], **values: object) -> pd.DataFrame:
    """hidden.csv: for each attack and turn (tasks a, b, c in order) the hidden damage and those of visible tasks."""
    rows = []
    for (objective, access, stealth), turns in harms.items():
        for task, (own, others) in zip("abc", turns, strict=False):
            visible = [name for name in "abc" if name != task]
            damages = {task: own, **dict(zip(visible, others, strict=True))}
            rows += [
                {
                    **{"family": "objects", "dataset": "embedded", "kind": "classes", "hidden": task},
                    **{"attack": f"{objective}-{access}-{stealth}", "objective": objective, "access": access},
                    **{"stealth": stealth, "norm": "linf", "epsilon": 8 / 255},
                    **{"steps": 1 if objective == "noise" else 20, "task": name},
                    **{"role": "hidden" if name == task else "visible", "clean": 90.0, "under_attack": 90.0 - damage},
                    **{"damage": damage, "damage_error": 1.0, "n": 100},
                    **values,
                }
                for name, damage in damages.items()
            ]
    return pd.DataFrame(rows)


TURNS = hidden(
    {
        ("cf", "heads", 1.0): [(30.0, [9.0, 11.0]), (14.0, [8.0, 6.0]), (10.0, [1.0, 1.0])],
        ("cf", "heads", 0.0): [(99.0, [99.0, 99.0])] * 3,
        ("disruption", "heads", 1.0): [(20.0, [9.0, 9.0]), (13.0, [9.0, 9.0]), (19.0, [9.0, 9.0])],
        ("disruption", "", 0.0): [(98.0, [98.0, 98.0])] * 3,
        ("noise", "", 0.0): [(10.0, [2.0, 4.0]), (5.0, [4.0, 4.0]), (-1.0, [4.0, 4.0])],
        ("oracle", "", 1.0): [(60.0, [5.0, 5.0]), (20.0, [5.0, 5.0]), (40.0, [5.0, 5.0])],
    }
)


def family(table: pd.DataFrame, turns: pd.DataFrame | None = None, forgot: pd.DataFrame | None = None) -> Any:
    given = {"hidden_summary": table, "hidden": turns, "forgetting": forgot}
    (found,) = hidden_blocks.context({name: frame for name, frame in given.items() if frame is not None})["hidden"]
    return found


def says(table: pd.DataFrame, turns: pd.DataFrame | None = None) -> list[str]:
    (part,) = family(table, turns)["parts"]
    return part["says"]


def without(*dropped: str) -> dict[tuple[str, str, float], Numbers]:
    return {key: numbers for key, numbers in ATTACKS.items() if key[0] not in dropped}


def forgetting(damages: dict[tuple[str, str, int], tuple[float, list[float]]], kind: str = "classes") -> pd.DataFrame:
    """forgetting.csv: by access, hidden task and epoch, what the copy has lost of it and of the others."""
    rows = []
    for (access, task, epoch), (own, others) in damages.items():
        visible = [name for name in "abc" if name != task]
        for name, damage in {task: own, **dict(zip(visible, others, strict=True))}.items():
            rows.append(
                {
                    **{"family": "objects", "dataset": "embedded", "kind": kind, "hidden": task, "access": access},
                    **{"epoch": epoch, "task": name, "role": "hidden" if name == task else "visible"},
                    **{"value": 80.0 - damage, "damage": damage, "distance": 0.1 * epoch, "n": 100},
                }
            )
    return pd.DataFrame(rows)


FORGOT = {
    **{("heads", task, 0): (0.0, [0.0, 0.0]) for task in "ab"},
    ("heads", "a", 4): (5.0, [50.0, 50.0]),
    ("heads", "a", 8): (40.0, [1.0, 3.0]),
    ("heads", "b", 4): (5.0, [50.0, 50.0]),
    ("heads", "b", 8): (10.0, [20.0, 0.0]),
}


def large() -> dict[str, pd.DataFrame]:
    """The tables of three families, one of them dense and one of two norms."""
    two = made.Family("pairs", norms=("linf", "l2"), epsilons=(8,), stealths=(0.0,), accesses=("heads",))
    families = (made.Family(), made.DENSE, two)
    table = made.hidden(*families)
    return {"hidden": table, "hidden_summary": made.summary(table), "forgetting": made.forgetting(*families)}
