"""What the report makes of the tables about attacks."""

import pandas as pd
import pytest

from headstrong.report import attack_blocks, page


def test_balancers_are_compared_where_dgba_was_run():
    common = {"model": "m", "adversarial": "", "stepper": "pgd", "norm": "linf", "epsilon": 8 / 255, "steps": 10}
    rows = [
        {**common, "balancer": balancer, "task": task, "relative_performance": value, "gain": value + 0.2,
         "gain_standard_error": 0.01}
        for balancer, task, value in (
            ("single", "", -0.1), ("single", "", -0.2), ("total", "", -0.2), ("dgba", "", -0.3), ("dgba", "s", -0.9),
        )
    ]  # fmt: skip
    rows += [{**rows[2], "model": "other"}]
    found = attack_blocks.balancers(pd.DataFrame(rows))
    assert found["balancers"] == ["single", "total", "dgba"]
    assert [row["model"] for row in found["rows"]] == ["m"]
    row = found["rows"][0]
    assert row["values"] == ["−15.0", "−20.0", "−30.0"]  # single: the mean over what it attacks
    assert (row["gain"], row["error"], row["radius"]) == ("−10.0", "1.0", "8/255")


def test_a_switch_shows_its_largest_change_and_not_that_of_noise():
    table = pd.DataFrame(
        {
            "switch": ["start=corner"] * 4,
            "attack": ["clean", "pgd.single.d", "pgd.total.sd", "noise.total.sd"],
            "attacked": ["", "d", "sd", "sd"],
            "task": ["d", "d", "", "d"],
            "metric": ["clean_error", "adversarial_error", "adversarial_vulnerability", "adversarial_error"],
            "relative_difference": [0.0, 0.1, -0.5, 30.0],
        }
    )
    (row,) = attack_blocks.switches(table)
    assert (row["numbers"], row["moved"], row["largest"]) == (3, 2, "−50.0")
    assert row["where"] == "adversarial vulnerability of sd under pgd.total.sd"


def test_theorem_2_is_given_by_the_number_of_tasks_also_without_pairs():
    quantities = {"mean_gradient": 0.5, "theorem_2": 1.0, "independent": 0.75, "zero_mean": 0.01}
    rows = [
        {"model": "m", "tasks": tasks, "size": len(tasks), "quantity": name, "value": value}
        for tasks in ("s", "sd")
        for name, value in {
            **quantities,
            **({"equal_variance": 4.0, "mean_cosine": 0.2} if tasks == "sd" else {}),
        }.items()
    ]
    both = attack_blocks.theorem_2(pd.DataFrame(rows))
    assert [(row["size"], row["formula"], row["equal_variance"]) for row in both] == [
        (1, "2.00", "–"),
        (2, "2.00", "4.0"),
    ]
    alone = attack_blocks.theorem_2(pd.DataFrame(rows[:4]))
    assert [row["cosine"] for row in alone] == ["–"]


def test_theorem_4_counts_the_cases_in_which_it_holds():
    case = {
        "stepper": "pgd",
        "norm": "linf",
        "epsilon": 8 / 255,
        "added": "s",
        "measured": 1,
        "first_order": 2,
        "bound": 3,
    }
    (row,) = attack_blocks.theorem_4(pd.DataFrame([{**case, "holds": True}, {**case, "holds": False}]))
    assert (row["cases"], row["holds"], row["attack"]) == (2, 1, "pgd, linf, 8/255")


def test_a_table_that_is_absent_or_empty_leaves_an_empty_list():
    found = attack_blocks.context({"flags": pd.DataFrame(columns=["model", "flag", "message"])})
    assert found["flags"] == []
    assert found["balanced"] == []


def section(**tables):
    """The page's section about attacks, made of these tables."""
    return page._environment().get_template("attacks.html").render(attack_blocks.context(tables))


def test_warnings_that_were_not_recorded_are_not_none_at_all():
    none, unknown = "No attack of this study gave a warning", "Not recorded: the results folder has no"
    clear = section(flags=pd.DataFrame(columns=["model", "flag", "message"]))
    assert none in clear
    assert unknown not in clear
    silent = section()
    assert none not in silent
    assert unknown in silent
    warned = section(flags=pd.DataFrame([{"model": "m", "flag": "noise", "message": "weaker than noise"}]))
    assert "m: weaker than noise" in warned
    assert none not in warned
    assert unknown not in warned


def transfers(layouts):
    """A table of one row per model, of these layouts."""
    same = {"encoder": "e", "adversarial": "", "stepper": "pgd", "norm": "linf", "epsilon": 8 / 255, "steps": 10}
    values = {"shared_fraction": 1.0, "own": -0.5, "relative_performance": -0.1, "ratio": 0.2}
    return pd.DataFrame(
        [{**same, **values, "model": f"m{place}", "layout": layout} for place, layout in enumerate(layouts)]
    )


@pytest.mark.parametrize(
    ("layouts", "rows", "caption"),
    [
        ([""] * 20, 20, ""),
        ([""] * 21, 20, "The first 20 of 21 models and attacks"),
        (["", "late", "early"], 2, "Branched models only: 2 of 3 models and attacks"),
        (["late"] * 25, 25, ""),
    ],
)
def test_transfer_says_where_it_shows_some_of_its_rows(layouts, rows, caption):
    text = section(transfer=transfers(layouts))
    assert text.count('<tr><th scope="row">') == rows
    assert caption in text
    assert ("<caption>" in text) == ("tables/transfer.csv" in text) == bool(caption)
