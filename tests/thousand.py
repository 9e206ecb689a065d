"""The 1,002 models of studies/full.yaml with made-up numbers: the tables that the page is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from headstrong import configfiles
from headstrong.analysis import surrogates, tables
from headstrong.analysis.files import write_table
from headstrong.analysis.plan import read_plan
from headstrong.configfiles import as_yaml
from headstrong.study import Plan, rows
from synthetic import CLEAN_ERROR, VULNERABILITY

STEPS = 25


def write(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Write plan.csv, histories and the tables under `folder`; return the study's settings as plain values."""
    study = configfiles.load(configfiles.study_files(["full"]))
    plan = Plan(study)
    (folder / "tables").mkdir(parents=True)
    frame = pd.DataFrame(rows(plan.models))
    frame.to_csv(folder / "plan.csv", index=False)
    rng = np.random.default_rng(seed)
    measured, curves = [], []
    for model in plan.models:
        job = plan.evaluation_job(model.id)
        quality = float(np.exp(0.1 * rng.normal()))
        measured += [_row(model.id, None, x, "clean_error", CLEAN_ERROR[x] * quality) for x in job.tasks]
        for attack in job.attacks:
            for letter in job.tasks:
                share = 0.05 if attack.stepper == "noise" else 1.0 if letter in attack.attacked else 0.25
                grown = VULNERABILITY[letter] * share * float(np.exp(0.3 * rng.normal())) / len(attack.attacked)
                error = CLEAN_ERROR[letter] * quality * (1 + grown)
                measured.append(_row(model.id, attack, letter, "adversarial_error", error))
                measured.append(_row(model.id, attack, letter, "relative_task_vulnerability", grown))
            size = _row(model.id, attack, "", "largest_perturbation", attack.epsilon)
            measured.append(size)
            if attack.stepper != "noise":
                curves += [
                    _curve(model.id, attack, letter, step) for letter in attack.attacked for step in range(STEPS)
                ]
    vulnerability = pd.DataFrame(measured)
    vulnerability["steps"] = vulnerability["steps"].astype("Int64")
    write_table(vulnerability, folder / "tables" / "vulnerability.csv")
    write_table(pd.DataFrame(curves), folder / "tables" / "curves.csv")
    choice = tables.choose_attack(vulnerability, "pgd")
    cells = tables.cells(vulnerability, read_plan(folder / "plan.csv"), choice)
    write_table(surrogates.build_table(cells, draws=20), folder / "tables" / "surrogates.csv")
    for run in plan.runs:
        epochs = np.arange(1, run.epochs + 1)
        history = pd.DataFrame({"epoch": epochs, "learning_rate": 0.001})
        for letter in run.tasks:
            history[f"loss_{letter}"] = CLEAN_ERROR[letter] * (0.2 + np.exp(-epochs / 20))
        path = folder / "models" / run.id / "history.csv"
        path.parent.mkdir(parents=True)
        history.to_csv(path, index=False)
    settings = yaml.safe_load(as_yaml(study))
    return {**settings, "protocol": study.protocol.resolved()}


def _row(model: str, attack: Any, letter: str, metric: str, value: float) -> dict[str, Any]:
    fields = ("name", "family", "balancer", "attacked", "stepper", "norm", "epsilon", "steps")
    what = {("attack" if key == "name" else key): getattr(attack, key, "") for key in fields}
    if attack is None:
        what |= {"attack": "clean", "epsilon": 0.0, "steps": None}
    return {
        "model": model,
        **what,
        "task": letter,
        "metric": metric,
        "mean": value,
        "standard_error": value / 20,
        "n": 64,
    }


def _curve(model: str, attack: Any, letter: str, step: int) -> dict[str, Any]:
    what = {key: getattr(attack, key) for key in ("family", "stepper", "norm", "epsilon", "steps", "attacked")}
    relative = 3 * (1 - float(np.exp(-step / 8)))
    return {
        "model": model,
        "attack": attack.name,
        **what,
        "task": letter,
        "step": step,
        "loss": 1.0,
        "relative": relative,
    }
