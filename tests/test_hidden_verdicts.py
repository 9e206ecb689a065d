"""What the report says of attacks on hidden tasks, against tables worked out by hand."""

from __future__ import annotations

import math

import numpy as np

from headstrong.report import hidden_blocks
from hidden_summaries import ATTACKS, FORGOT, NOTHING, TURNS, family, forgetting, large, says, summary, without


def test_the_strongest_that_spares_the_visible_tasks_is_chosen() -> None:
    first = says(summary())[0]
    assert first == (
        "3 of 5 CF variants spare the visible tasks; the strongest of them is CF with the visible heads, stealth 1: "
        "hidden damage 18.0 points (95 % interval 16.0 to 20.0), mean visible damage 6.0 points, worst visible task "
        "9.0 points. The strongest of all, CF with the visible heads, stealth 0, has hidden damage 30.0 points and "
        "mean visible damage 15.0 points."
    )
    (part,) = family(summary())["parts"]
    assert part["chosen"] == "CF with the visible heads, stealth 1"
    assert [line["hidden"][0] for line in part["lines"] if line["chosen"]] == ["18.0"]


def test_a_little_over_a_third_does_not_spare() -> None:
    table = summary(ATTACKS | {("cf", "heads", 1.0): (18.0, 1.0, 6.01, 9.0)})
    assert "2 of 5 CF variants spare the visible tasks; the strongest of them is CF-delta with" in says(table)[0]


def test_a_gain_of_the_visible_tasks_spares_them_but_a_gain_of_the_hidden_one_never() -> None:
    one = {("cf", "heads", 0.0): (5.0, 3.0, -1.0, 0.0), ("cf_delta", "heads", 0.0): (-2.0, 1.0, -9.0, 0.0)}
    first = says(summary(one))[0]
    assert first.startswith("1 of 2 CF variants spares the visible tasks: CF with the visible heads, stealth 0: ")
    assert "5.0 points (95 % interval −0.9 to 10.9, which does not exclude 0), mean visible damage −1.0" in first


def test_none_that_spares_is_said_and_the_strongest_stands_in() -> None:
    some = {("cf", "heads", 0.0): (30.0, 2.0, 15.0, 20.0), ("cf", "backbone", 1.0): (10.0, 2.0, 4.0, 5.0)}
    assert says(summary(some))[0].startswith(
        "None of 2 CF variants spares the visible tasks. The nearest to it is CF with the backbone only, stealth 1: "
        "visible damage is 40.0 % of the hidden. The strongest is CF with the visible heads, stealth 0: hidden damage"
    )
    same = some | {("cf", "backbone", 1.0): (10.0, 2.0, 9.0, 9.0)}
    assert "spares the visible tasks. The strongest is CF with the visible heads, stealth 0" in says(summary(same))[0]
    alone = {("cf", "heads", 0.0): (-1.0, 0.2, 2.0, 2.0)}
    assert says(summary(alone))[0] == (
        "The one CF variant does not spare the visible tasks: CF with the visible heads, stealth 0: hidden damage "
        "−1.0 points (95 % interval −1.4 to −0.6), mean visible damage 2.0 points, worst visible task 2.0 points."
    )


def test_noise_and_the_oracle_are_those_of_the_variant() -> None:
    _, noise, oracle, *_ = says(summary())
    assert noise == (
        "It costs the hidden task 4.00 times what noise of the same size does (4.5 points, 95 % interval 3.5 to 5.5): "
        "at least three times."
    )
    assert oracle == (
        "It reaches 45.0 % of the damage of the oracle, which sees the hidden task, at the same stealth (40.0 points)."
    )
    louder = says(summary(ATTACKS | {("noise", "", 0.0): (7.5, 0.5, 4.0, 5.0)}))[1]
    assert "2.40 times" in louder
    assert louder.endswith("less than three times.")
    exactly = says(summary(ATTACKS | {("noise", "", 0.0): (6.0, 0.5, 4.0, 5.0)}))[1]
    assert exactly.endswith("3.00 times what noise of the same size does (6.0 points, 95 % interval 5.0 to 7.0): "
                            "at least three times.")  # fmt: skip


def test_without_noise_or_oracle_there_is_no_ratio() -> None:
    _, noise, oracle, *_ = says(summary(without("noise", "oracle")))
    assert noise == "There is no noise of the same size to compare it with."
    assert oracle == "There is no oracle at the same stealth to compare it with."
    harmless = ATTACKS | {("noise", "", 0.0): (-0.2, 0.5, 0.0, 0.0), ("oracle", "", 1.0): (-1.0, 1.0, 0.0, 0.0)}
    _, noise, oracle, *_ = says(summary(harmless))
    assert noise == (
        "Noise of the same size costs the hidden task nothing that is clearly above zero (−0.2 points, 95 % interval "
        "−1.2 to 0.8): not above noise, so there is no ratio to it."
    )
    assert oracle == (
        "The oracle at the same stealth costs the hidden task nothing that is clearly above zero either (−1.0 points)."
    )
    (part,) = family(summary(without("noise", "oracle")))["parts"]
    assert {line["over_noise"] for line in part["lines"]} == {line["oracle_share"] for line in part["lines"]} == {"–"}


def test_disruption_is_compared_by_access_and_in_standard_errors() -> None:
    found = says(summary())
    errors = (18.0 - 14.0) / math.hypot(1.0, 1.0)
    assert found[3] == (
        f"Feature disruption at the same stealth costs the hidden task 14.0 points (clearly less, by {errors:.1f} "
        "standard errors) and the visible ones 10.0 points: it does not spare the visible tasks. The strongest that "
        f"spares them, at stealth 9, costs the hidden task 6.0 points (clearly less, by {12 / math.sqrt(2):.1f} "
        "standard errors) and the visible ones 1.0 points."
    )
    assert found[4] == (
        "With the backbone only, the strongest variant that spares the visible tasks is CF, stealth 1: hidden damage "
        "12.0 points, mean visible damage 3.0 points. Feature disruption at the same stealth costs the hidden task "
        "13.0 points (not clearly different: 0.77 standard errors) and the visible ones 11.0 points: it does not spare "
        "the visible tasks. At no stealth does it spare them."
    )
    assert len(found) == 5


def test_disruption_that_does_better_is_said_to_cost_more() -> None:
    better = ATTACKS | {("disruption", "heads", 1.0): (22.0, 1.0, 3.0, 4.0)}
    assert says(summary(better))[3] == (
        f"Feature disruption at the same stealth costs the hidden task 22.0 points (clearly more, by "
        f"{4 / math.sqrt(2):.1f} standard errors) and the visible ones 3.0 points: it spares the visible tasks."
    )
    assert says(summary(without("disruption")))[3] == "Feature disruption was not run to compare it with."
    other = {key: numbers for key, numbers in ATTACKS.items() if key != ("disruption", "heads", 1.0)}
    assert says(summary(other))[3].startswith(
        "Feature disruption was not run at the same stealth. The strongest that spares them, at stealth 9, costs the "
    )


def test_turns_are_counted_by_every_criterion() -> None:
    # Spared: 10 of 30, not 7 of 14, 1 of 10. Three times noise: 30 of 10, not 14 of 5, 10 of less than nothing.
    # Oracle: 50, 70, 25 %. Disruption, in errors of sqrt(2): 7.1, 0.7, -6.4.
    assert says(summary(), TURNS)[4] == (
        "Task by task, each hidden once: the visible tasks are spared for 2 of 3; the damage is at least three times "
        "that of noise for 2 of 3; both hold for 2; the share of the oracle's damage is 25.0 % to 70.0 %; at equal "
        "stealth it is clearly stronger than disruption for 1 of 3 and weaker for 1."
    )
    only = says(summary(), TURNS.loc[TURNS["objective"].eq("cf")])[4]
    assert only == "Task by task, each hidden once: the visible tasks are spared for 2 of 3."


def test_a_turn_without_damage_does_not_beat_noise_that_helps() -> None:
    helped = TURNS["hidden"].eq("c") & TURNS["role"].eq("hidden") & TURNS["objective"].isin(["cf", "noise"])
    table = TURNS.assign(damage=TURNS["damage"].mask(helped, -1.0))
    assert "three times that of noise for 1 of 3; both hold for 1" in says(summary(), table)[4]


def test_disruption_of_the_same_access_comes_first() -> None:
    some = {
        ("cf", "heads", 0.0): (30.0, 1.0, 5.0, 6.0),
        ("disruption", "", 0.0): (28.0, 1.0, 27.0, 29.0),
        ("disruption", "heads", 0.0): (25.0, 1.0, 20.0, 22.0),
    }
    assert "costs the hidden task 25.0 points" in says(summary(some))[3]
    del some["disruption", "heads", 0.0]
    assert "costs the hidden task 28.0 points" in says(summary(some))[3]


def test_a_study_without_cf_says_that_there_is_nothing_to_judge() -> None:
    (part,) = family(summary(without("cf", "cf_delta")), TURNS)["parts"]
    assert part["says"] == ["No CF variant was run at this radius: there is nothing to judge."]
    assert (part["chosen"], part["turns"]["lines"], part["radii"]) == ("", [], [])
    assert len(part["lines"]) == 8
    unknown = {key: (NOTHING,) * 4 if key[0].startswith("cf") else numbers for key, numbers in ATTACKS.items()}
    assert says(summary(unknown)) == ["No CF variant has a number at this radius: there is nothing to judge."]


def test_forgetting_is_told_after_the_last_epoch() -> None:
    found = family(summary(), forgot=forgetting(FORGOT))["forgetting"]
    assert found["accesses"] == ["with the visible heads"]
    assert found["says"] == [
        "With the visible heads, after 8 epochs: the hidden task has lost 25.0 points of accuracy, the visible tasks "
        "6.0 (means over 2 hidden tasks). The copy has lost more of the hidden task than of the visible ones for 1 "
        "of 2."
    ]
    assert found["lines"] == [
        {"task": "a", "clean": "80.0", "cells": [{"hidden": "40.0", "visible": "2.0", "distance": "80.0 %"}]},
        {"task": "b", "clean": "80.0", "cells": [{"hidden": "10.0", "visible": "10.0", "distance": "80.0 %"}]},
    ]


def test_forgetting_of_two_accesses_with_a_gap() -> None:
    more = FORGOT | {("backbone", "a", 0): (0.0, [0.0, 0.0]), ("backbone", "a", 1): (7.0, [1.0, 1.0])}
    found = family(summary(), forgot=forgetting(more))["forgetting"]
    assert found["accesses"] == ["with the visible heads", "with the backbone only"]
    assert found["lines"][1]["cells"][1] == {"hidden": "–", "visible": "–", "distance": "–"}
    assert "after 1 epoch: the hidden task has lost 7.0 points of accuracy, the visible tasks 1.0 (" in found["says"][1]
    assert "means over 1 hidden task)." in found["says"][1]


def test_forgetting_of_dense_tasks_is_a_rise_of_the_error() -> None:
    dense = forgetting(FORGOT, kind="dense")
    (words,) = family(summary(kind="dense"), forgot=dense)["forgetting"]["says"]
    assert (
        "the error of the hidden task has risen by 25.0 % of what it was, that of the visible tasks by 6.0 %" in words
    )


def test_sentences_keep_to_the_table() -> None:
    """Another computation, with pandas: the choice and the counts of every family and norm."""
    tables = large()
    for found in hidden_blocks.context(tables)["hidden"]:
        table = tables["hidden_summary"].loc[tables["hidden_summary"]["family"].eq(found["family"])]
        for part, norm in zip(found["parts"], ["linf", "l2"], strict=False):
            rows = table.loc[table["norm"].eq(norm) & table["objective"].isin(["cf", "cf_delta"])]
            rows = rows.loc[np.isclose(rows["epsilon"], 8 / 255)]
            sparing = rows.query("hidden_damage > 0 and 3 * visible_damage <= hidden_damage")
            best = (sparing if len(sparing) else rows).nlargest(1, "hidden_damage").iloc[0]
            counted = f"{len(sparing)} of {len(rows)} CF variants" if len(sparing) else f"None of {len(rows)} CF"
            assert part["says"][0].startswith(counted)
            assert f"hidden damage {best['hidden_damage']:.1f} " in part["says"][0]
            assert [line["hidden"][0] for line in part["lines"] if line["chosen"]] == [f"{best['hidden_damage']:.1f}"]
            keys = ["family", "norm", "objective", "access", "stealth", "epsilon"]
            own = tables["hidden"].merge(best[keys].to_frame().T.astype({"stealth": float, "epsilon": float}), on=keys)
            means = own.groupby(["hidden", "role"])["damage"].mean().unstack()
            spared = int((means["hidden"].ge(3 * means["visible"]) & means["hidden"].gt(0)).sum())
            assert any(f"the visible tasks are spared for {spared} of {len(means)};" in words for words in part["says"])
