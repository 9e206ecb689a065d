"""Which model is whose base, which attack stands beside which, and the differences, by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import synthetic
from headstrong.analysis import switches
from synthetic import one as the

NAME = {"family": "pgd", "balancer": "single", "attacked": "s", "norm": "linf", "epsilon": 8 / 255, "steps": 25}


def spec(section: str, letters: str, **other: object) -> dict[str, object]:
    return {**synthetic.row(section, "resnet18", letters, 12), **other}


def measured(model: str, value: float, metric: str = "adversarial_error", task: str = "s", **attack: object):
    """One row of vulnerability.csv. The name is made of the attack's fields, as the plan makes it."""
    fields = {**NAME, **attack}
    name = ".".join(str(fields[key]) for key in ("family", "balancer", "attacked", "norm", "steps"))
    numbers = {"task": task, "metric": metric, "mean": value, "standard_error": 0.3 * abs(value), "n": 9}
    return {"model": model, "attack": name, "stepper": "pgd", **fields, **numbers}


def clean(model: str, value: float, task: str = "s") -> dict[str, object]:
    empty = dict.fromkeys(("family", "balancer", "attacked", "stepper", "norm"), "")
    head = {"model": model, "attack": "clean", **empty, "epsilon": math.nan, "steps": None}
    return {**head, "task": task, "metric": "clean_error", "mean": value, "standard_error": 0.1, "n": 9}


def compare(rows: list[dict[str, object]], plan: list[dict[str, object]]) -> pd.DataFrame:
    return switches.build_table(pd.DataFrame(rows).astype({"steps": "Int64"}), pd.DataFrame(plan))


def test_bases_are_the_same_but_for_the_switches() -> None:
    apart = {"layout": "3", "adversarial": "fgsm.dgba.linf.8.1"}
    plan = [
        spec("pairs", "sd"),
        spec("again", "sd"),
        spec("weighted", "sd", weights="1;0.1"),
        spec("hardened", "sd", **apart),
        spec("short", "sd", epochs=4),
        spec("sgd", "sd", switches="optimizer=sgd"),
        spec("sgd", "ds", switches="optimizer=sgd"),
        spec("sgd-weighted", "sd", weights="1;0.1", switches="optimizer=sgd"),
        spec("sgd-other-main", "ds", weights="1;0.1", switches="optimizer=sgd"),
        spec("sgd-same-weights", "ds", weights="0.1;1", switches="optimizer=sgd"),
        spec("sgd-hardened", "sd", **apart, switches="optimizer=sgd"),
        spec("sgd-layout", "sd", layout="3", switches="optimizer=sgd"),
        spec("sgd-short", "sd", epochs=4, switches="optimizer=sgd"),
        spec("sgd-alone", "sn", switches="optimizer=sgd"),
    ]
    assert switches.bases(pd.DataFrame(plan)) == {
        "sgd-resnet18-sd": "pairs-resnet18-sd",
        "sgd-resnet18-ds": "pairs-resnet18-sd",
        "sgd-weighted-resnet18-sd": "weighted-resnet18-sd",
        "sgd-same-weights-resnet18-ds": "weighted-resnet18-sd",
        "sgd-hardened-resnet18-sd": "hardened-resnet18-sd",
        "sgd-short-resnet18-sd": "short-resnet18-sd",
    }


PLAN = [spec("pairs", "s"), spec("sgd", "s", switches="optimizer=sgd;start=corner")]
BASE, OURS = "pairs-resnet18-s", "sgd-resnet18-s"


def test_differences_by_hand() -> None:
    rows = [clean(BASE, 40.0), clean(OURS, 50.0), measured(BASE, 80.0), measured(OURS, 60.0)]
    rows += [measured(m, v, "relative_task_vulnerability") for m, v in ((BASE, -0.5), (OURS, 0.25))]
    rows += [measured(m, v, "adversarial_vulnerability") for m, v in ((BASE, 0.0), (OURS, 2.0))]
    rows += [measured(m, 1.0, "adversarial_loss") for m in (BASE, OURS)]
    found = compare(rows, PLAN)
    assert list(found.columns) == list(switches.COLUMNS)
    assert set(found["metric"]) == set(switches.METRICS)
    assert len(found) == 4
    assert set(found["switch"]) == {"optimizer=sgd;start=corner"}
    assert set(found["base"]) == {BASE}
    row = the(found, metric="clean_error")
    assert (row["attack"], row["attacked"]) == ("clean", "")
    assert (row["base_value"], row["value"], row["difference"], row["relative_difference"]) == (40, 50, 10, 0.25)
    assert row["standard_error"] == pytest.approx(math.hypot(0.1, 0.1))
    row = the(found, metric="adversarial_error")
    assert (row["difference"], row["relative_difference"]) == (-20, -0.25)
    assert row["standard_error"] == pytest.approx(math.hypot(24, 18))
    assert the(found, metric="relative_task_vulnerability")["relative_difference"] == 1.5  # against |-0.5|
    row = the(found, metric="adversarial_vulnerability")
    assert (row["difference"], row["attacked"], row["task"]) == (2, "s", "")
    assert math.isnan(row["relative_difference"])


def test_attacks_keep_to_their_namesakes() -> None:
    rows = []
    kinds = [{"steps": 25}, {"steps": 50}, {"balancer": "total"}, {"balancer": "dgba"}, {"norm": "l2"}]
    for number, kind in enumerate(kinds):
        rows += [measured(BASE, 10.0 * (number + 1), **kind), measured(OURS, 10.0 * (number + 1) + number, **kind)]
    found = compare([*rows, measured(OURS, 7.0, family="apgd"), measured(BASE, 7.0, family="mim")], PLAN)
    assert sorted(found["difference"]) == [0, 1, 2, 3, 4]  # what only one of the two models has is left out


def test_an_attack_whose_name_the_switch_changes() -> None:
    forms = {BASE: "wgd_released", OURS: "wgd_published"}
    rows = [measured(model, 5.0, balancer="total") for model in forms]
    rows += [measured(BASE, 2.0, balancer=forms[BASE]), measured(OURS, 3.0, balancer=forms[OURS])]
    rows += [measured(BASE, 9.0, balancer=forms[BASE], steps=50)]
    found = compare(rows, PLAN)
    row = the(found, attack="pgd.wgd_published.s.linf.25")
    assert (row["base_value"], row["value"]) == (2, 3)
    assert len(found) == 2


def test_two_candidates_are_none() -> None:
    rows = [measured(BASE, 2.0, balancer="wgd_released"), measured(BASE, 2.0, balancer="wgd_cyclic")]
    rows += [measured(OURS, 3.0, balancer="wgd_published"), measured(OURS, 3.0), measured(BASE, 4.0)]
    found = compare(rows, PLAN)
    assert list(found["attack"]) == ["pgd.single.s.linf.25"]
    single = [measured(BASE, 2.0), measured(OURS, 3.0, balancer="wgd_published")]
    assert compare(single, PLAN).empty  # one task by itself is not the joint attack


def test_nothing_to_compare() -> None:
    rows = [clean(BASE, 40.0), clean(OURS, 50.0)]
    assert compare(rows, PLAN[:1]).empty
    assert compare(rows, PLAN[1:]).empty
    assert compare(rows[:1], PLAN).empty
    assert list(compare(rows[:1], PLAN).columns) == list(switches.COLUMNS)


def test_every_model_is_compared_with_its_own_base() -> None:
    rng = np.random.default_rng(0)
    plan = [spec("pairs", letters) for letters in ("s", "d", "sd")]
    plan += [spec(name, x, switches=f"start={name}") for name in ("corner", "clean") for x in ("s", "d", "sd")]
    rows = [
        clean(str(row["id"]), float(rng.uniform(1, 2)), task) for row in plan for task in row["main"] + row["auxiliary"]
    ]
    found = compare(rows, plan)
    assert len(found) == 2 * 4
    values = {(row["model"], row["task"]): row["mean"] for row in rows}
    for row in found.to_dict("records"):
        assert row["base"] == "pairs-" + row["model"].split("-", 1)[1]
        assert row["switch"] == "start=" + row["model"].split("-")[0]
        expected = values[row["model"], row["task"]] - values[row["base"], row["task"]]
        assert row["difference"] == pytest.approx(expected)
