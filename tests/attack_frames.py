"""Made-up tables of attacks with known numbers, in the columns that the analysis writes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from headstrong.analysis.tables import AttackChoice
from headstrong.figures import switches
from headstrong.tasks import in_order

CHOICE = AttackChoice("pgd")
TASKS = "sdDnE"
SCALE = {"s": 0.9, "d": 8.0, "D": 8.5, "n": 12.0, "E": 25.0}
SHADES = (2, 4, 8, 16)
ADVERSARIAL = "fgsm.dgba.linf.8.1"


def model(section: str, encoder: str, letters: str, **other: object) -> dict[str, object]:
    """One row of plan.csv."""
    usual = {"layout": "", "adversarial": "", "switches": "", "epochs": 12, "seed": 1, "section": section}
    weights = ";".join([str(1 / len(letters))] * len(letters))
    row = {"id": f"{section}-{encoder}-{letters}", "encoder": encoder, "main": letters[0], "auxiliary": letters[1:]}
    return {**row, "weights": weights, **usual, **other}


def make_plan() -> pd.DataFrame:
    """Single tasks, pairs, an early pair, a five-task model, and branched models of three tasks, some robust."""
    rows = [model("single", "resnet18", letter) for letter in TASKS]
    rows += [model("combinations", "resnet18", "".join(pair)) for pair in itertools.combinations(TASKS, 2)]
    rows.append(model("early", "resnet18", "sd", epochs=4))
    rows.append(model("switched", "resnet18", "sd", switches="optimizer=sgd"))
    rows.append(model("five", "resnet18", TASKS))
    for layout, kind in itertools.product((0, 3, 17, 50), ("", ADVERSARIAL)):
        name = f"layouts{layout}" + ("adv" if kind else "")
        rows.append(model(name, "resnet34", "sdn", layout=str(layout), adversarial=kind))
    return pd.DataFrame(rows)


def attack_row(setting: AttackChoice, balancer: str, attacked: str) -> dict[str, object]:
    """The columns that name an attack."""
    name = f"{setting.family}.{balancer}.{attacked}.{setting.norm}.{setting.epsilon * 255:g}.{setting.steps}"
    return {
        "attack": name,
        "family": setting.family,
        "balancer": balancer,
        "attacked": attacked,
        "stepper": "pgd",
        "norm": setting.norm,
        "epsilon": setting.epsilon,
        "steps": setting.steps,
    }


def all_settings() -> list[AttackChoice]:
    """PGD by radius, by steps and in both norms; the shorter ones come from a family of their own."""
    found = [AttackChoice("pgd", "linf", shade / 255, 25) for shade in SHADES]
    found += [AttackChoice("steps", "linf", 8 / 255, steps) for steps in (5, 15)]
    return [*found, AttackChoice("l2", "l2", 4 / 255, 25), AttackChoice("l2", "l2", 1.0, 25)]


def make_vulnerability(plan: pd.DataFrame) -> pd.DataFrame:
    """Relative task vulnerability that grows with radius and steps, plus errors; one row per model and attack."""
    rng = np.random.default_rng(0)
    rows = []
    for spec in plan.loc[plan["encoder"].eq("resnet18")].to_dict("records"):
        letters = in_order(spec["main"] + spec["auxiliary"])
        for letter in letters:
            none = {"attack": "clean", "family": "", "balancer": "", "attacked": "", "stepper": "", "norm": ""}
            clean = {**none, "epsilon": np.nan, "steps": pd.NA, "task": letter, "metric": "clean_error", "mean": 0.1}
            rows.append({"model": spec["id"], **clean})
        for setting in all_settings():
            size = (setting.epsilon * 255 / 8) ** 1.2 * (setting.steps / 25) ** 0.5
            size *= 0.02 if setting.norm == "l2" and setting.epsilon < 0.1 else 1.0
            targets = [("single", letter) for letter in letters]
            targets += [("total", letters)] if len(letters) > 1 else []
            for balancer, attacked in targets:
                for letter in attacked:
                    spread = np.exp(0.3 * rng.normal()) * (1 if balancer == "single" else 0.7)
                    value = SCALE[letter] * size * spread
                    common = {"model": spec["id"], **attack_row(setting, balancer, attacked), "task": letter}
                    rows.append({**common, "metric": "relative_task_vulnerability", "mean": value})
                    rows.append({**common, "metric": "adversarial_error", "mean": 0.1 * (1 + value)})
    frame = pd.DataFrame(rows).assign(standard_error=0.01, n=48)
    return frame.astype({"steps": "Int64"})


def make_curves(plan: pd.DataFrame) -> pd.DataFrame:
    """Losses that level off, 25 steps."""
    rng = np.random.default_rng(1)
    rows = []
    for spec in plan.loc[plan["encoder"].eq("resnet18") & plan["epochs"].eq(12)].to_dict("records"):
        letters = in_order(spec["main"] + spec["auxiliary"])
        targets = [("single", letter) for letter in letters] + ([("total", letters)] if len(letters) > 1 else [])
        for balancer, attacked in targets:
            fields = {"model": spec["id"], **attack_row(AttackChoice("pgd"), balancer, attacked)}
            for letter in attacked:
                end, speed = SCALE[letter] * np.exp(0.3 * rng.normal()), rng.uniform(2, 9)
                for step in range(25):
                    relative = end * (1 - np.exp(-(step + 0.3) / speed))
                    rows.append({**fields, "task": letter, "step": step, "loss": 1 + relative, "relative": relative})
    return pd.DataFrame(rows).drop(columns="balancer")


def make_balanced(plan: pd.DataFrame, shades: tuple[int, ...] = (1, 2, 4, 8, 16)) -> pd.DataFrame:
    """Average and task rows of every balancer and stepper on the models of three tasks and more."""
    rng = np.random.default_rng(2)
    strength = {"total": 0.7, "sign_sum": 0.85, "wgd_published": 0.8, "dgba": 1.0}
    rows = []
    for spec in plan.loc[(plan["main"] + plan["auxiliary"]).str.len().ge(3)].to_dict("records"):
        letters = in_order(spec["main"] + spec["auxiliary"])
        hard = 0.3 if spec["adversarial"] else 1.0
        for (stepper, steps), shade in itertools.product((("fgsm", 1), ("pgd", 20), ("mim", 20), ("apgd", 20)), shades):
            fields = {"model": spec["id"], "encoder": spec["encoder"], "layout": spec["layout"], "norm": "linf"}
            fields |= {"adversarial": spec["adversarial"], "tasks": letters, "stepper": stepper, "steps": steps}
            fields |= {"epsilon": shade / 255}
            attacks = [("single", letter, 0.2 + 0.15 * place) for place, letter in enumerate(letters)]
            attacks += [(name, letters, factor) for name, factor in strength.items()]
            for balancer, attacked, factor in attacks:
                value = -hard * factor * (1 - np.exp(-shade / (6 if stepper == "fgsm" else 3)))
                value += 0.01 * rng.normal()
                fields |= {"balancer": balancer, "attacked": attacked, "relative_performance": value, "gain": 0.0}
                rows += [{**fields, "task": task, "standard_error": 0.02} for task in ["", *letters]]
    return pd.DataFrame(rows)


LEVELS = {"0": (5, 1.0), "3": (4, 0.85), "17": (2, 0.55), "50": (0, 0.0)}


def make_transfer(plan: pd.DataFrame) -> pd.DataFrame:
    """More sharing, more transfer."""
    rng = np.random.default_rng(3)
    rows = []
    for spec in plan.loc[plan["encoder"].eq("resnet34")].to_dict("records"):
        levels, fraction = LEVELS[spec["layout"]]
        letters = in_order(spec["main"] + spec["auxiliary"])
        for attacked, measured, shade in itertools.product(letters, letters, (4, 8)):
            apart = min(5, max(0, levels + (1 if attacked + measured in ("sd", "ds") and 0 < levels < 5 else 0)))
            ratio = 1.0 if attacked == measured else 0.1 + 0.12 * apart + 0.06 * rng.normal()
            rows.append(
                {"model": spec["id"], "stepper": "pgd", "norm": "linf", "epsilon": shade / 255, "steps": 20}
                | {"attacked": attacked, "measured": measured, "shared_levels": apart, "shared_fraction": fraction}
                | {"relative_performance": -ratio, "standard_error": 0.02, "own": -1.0, "ratio": ratio}
            )
    return pd.DataFrame(rows)


def make_theory(plan: pd.DataFrame) -> pd.DataFrame:
    """Numbers for all sets of tasks of every plain model."""
    rng = np.random.default_rng(4)
    rows = []
    sizes = {letter: 0.2 / SCALE[letter] for letter in TASKS}
    for spec in plan.loc[plan["encoder"].eq("resnet18")].to_dict("records"):
        letters = in_order(spec["main"] + spec["auxiliary"])
        for size in range(1, len(letters) + 1):
            for tasks in itertools.combinations(letters, size):
                sigma = float(np.sqrt(np.mean([sizes[letter] ** 2 for letter in tasks])))
                said = {"independent": sigma / size**0.5, "theorem_2": sigma * ((1 + 0.5 * (size - 1)) / size) ** 0.5}
                said["mean_gradient"] = said["theorem_2"] * float(np.exp(0.2 * rng.normal() - 0.2))
                said["mean_cosine"] = 0.1
                for quantity, value in said.items():
                    rows.append(
                        {"model": spec["id"], "tasks": "".join(tasks), "size": size, "quantity": quantity}
                        | {"value": value, "standard_error": 0.01, "n": 48}
                    )
    return pd.DataFrame(rows)


def make_marginal() -> pd.DataFrame:
    """Chains of the five-task model and pairs; some measured values are zero or less, one is above the bound."""
    rng = np.random.default_rng(5)
    rows = []
    fields = attack_row(CHOICE, "total", "")
    for name, letters in (("five-resnet18-sdDnE", TASKS), ("combinations-resnet18-sd", "sd")):
        for base in range(1, len(letters)):
            for attacked in itertools.combinations(letters, base + 1):
                for added in attacked:
                    bound = 10.0 / SCALE[added] * float(np.exp(0.3 * rng.normal()))
                    measured = bound * float(np.exp(rng.normal() - 2.5))
                    rows.append(
                        {**fields, "model": name, "attacked": "".join(attacked), "added": added, "measured": measured}
                        | {"standard_error": 0.1, "first_order": measured * float(np.exp(0.8 * rng.normal())) * 0.8}
                        | {"bound": bound}
                    )
    frame = pd.DataFrame(rows).drop(columns="balancer")
    frame.loc[[3, 9, 20], "measured"] = [-0.2, 0.0, -0.01]
    frame.loc[5, "measured"] = 2 * frame.loc[5, "bound"]
    return frame.assign(holds=frame["measured"] <= frame["bound"], bound_ratio=frame["measured"] / frame["bound"])


def make_switches() -> pd.DataFrame:
    """Every switch against its base, on three models."""
    rng = np.random.default_rng(6)
    rows = []
    names = ("optimizer=sgd", "start=corner", "error_pixels=all", "wgd=released", "curvature=grey", "shuffle=false")
    attack = str(attack_row(CHOICE, "total", "sd")["attack"])
    for number, switch in enumerate((*names, "optimizer=sgd;start=corner")):
        for name, metric in itertools.product(("a", "b", "c"), list(switches.METRICS)):
            for task in [""] if metric == "adversarial_vulnerability" else list("sdn"):
                relative = 0.1 * rng.normal() + (8.0 if number == 0 and metric.startswith("relative") else 0.05)
                rows.append(
                    {"model": name, "base": "base", "switch": switch, "attacked": "sd", "task": task, "metric": metric}
                    | {"attack": "clean" if metric == "clean_error" else attack, "base_value": 2.0}
                    | {"value": 2 * (1 + relative), "difference": 2 * relative, "relative_difference": relative}
                )
    return pd.DataFrame(rows)


@dataclass
class Tables:
    """All tables of a made-up study."""

    plan: pd.DataFrame
    vulnerability: pd.DataFrame
    extra: dict[str, pd.DataFrame]


def make_tables() -> Tables:
    plan = make_plan()
    extra = {
        "balanced": make_balanced(plan),
        "transfer": make_transfer(plan),
        "theory": make_theory(plan),
        "marginal": make_marginal(),
        "switches": make_switches(),
        "curves": make_curves(plan),
    }
    return Tables(plan, make_vulnerability(plan), extra)
