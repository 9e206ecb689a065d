"""Figures of attacks on hidden tasks: they show the numbers of their tables, and say why when there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import hidden_frames as made
from drawn_figures import assert_tidy, words_of
from headstrong.analysis.hidden_records import OBJECTIVES
from headstrong.errors import MissingDataError
from headstrong.figures import (
    forgetting,
    gallery,
    hidden_budget,
    hidden_gallery,
    hidden_looks,
    hidden_tradeoff,
    hidden_turns,
    style,
)
from hidden_frames import Family

SMALL = {"dpi": 40, "formats": ("png",)}
FEW = ("shape", "size", "colour of the background")
OBJECTS = Family(tasks=FEW)
ONE = Family("plain", tasks=FEW[:2], accesses=("heads",), epsilons=(8,), stealths=(0.0,), epochs=(0, 1))
KINDS = ("hidden-tradeoff", "hidden-budget", "hidden-turns", "forgetting")


class Tables:
    """The tables of some families."""

    def __init__(self, *families: Family) -> None:
        self.hidden = made.hidden(*families)
        self.summary = made.summary(self.hidden)
        self.forgetting = made.forgetting(*families)

    @property
    def given(self) -> dict[str, pd.DataFrame]:
        return {"hidden": self.hidden, "hidden_summary": self.summary, "forgetting": self.forgetting}


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables(OBJECTS, made.DENSE)


def curves(panel: Any, label: str) -> list[Any]:
    """Lines of this label, and those of error bars of this label."""
    bars = [bars.lines[0] for bars in panel.containers if bars.get_label() == label]
    return bars + [line for line in panel.lines if line.get_label() == label]


def points(panel: Any, label: str) -> set[tuple[float, float]]:
    return {pair for line in curves(panel, label) for pair in pairs(*line.get_data())}


def pairs(x: Any, y: Any) -> set[tuple[float, float]]:
    return {(round(float(a), 6), round(float(b), 6)) for a, b in zip(np.ravel(x), np.ravel(y), strict=True)}


def text_of(figure: Figure) -> str:
    return "\n".join(words_of(figure))


def test_objectives_are_all_named_in_order_and_told_apart() -> None:
    assert tuple(hidden_looks.NAMES) == tuple(hidden_looks.LOOKS) == OBJECTIVES == made.OBJECTIVES
    for what in ("color", "marker"):
        assert len({look[what] for look in hidden_looks.LOOKS.values()}) == len(OBJECTIVES)
    faces = [hidden_looks.point("cf", access)["markerfacecolor"] for access in ("heads", "backbone", "")]
    assert len(set(faces)) == 3


def test_the_tradeoff_shows_every_setting_of_the_largest_radius(tables: Tables) -> None:
    figure = hidden_tradeoff.draw(tables.summary, "objects", SMALL)
    (panel,) = figure.axes
    rows = tables.summary.loc[tables.summary["family"].eq("objects") & tables.summary["epsilon"].eq(8 / 255)]
    for objective, these in rows.groupby("objective"):
        assert points(panel, str(objective)) == pairs(these["visible_damage"], these["hidden_damage"]), objective
    faces = {line.get_markerfacecolor() for line in curves(panel, "cf")}
    assert faces == {hidden_looks.LOOKS["cf"]["color"], "white"}
    assert "radius 8/255, 20 steps" in text_of(figure)
    assert panel.get_xlabel() == "Visible tasks: accuracy lost (points)"
    (third,) = [line for line in panel.lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 100]
    assert third.get_ydata() == pytest.approx(3 * third.get_xdata())


def test_a_line_joins_the_weights_in_their_order_and_starts_where_no_head_is_needed(tables: Tables) -> None:
    shuffled = tables.summary.sample(frac=1, random_state=1)
    figure = hidden_tradeoff.draw(shuffled, "objects", SMALL)
    joined = [np.column_stack(line.get_data()) for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    rows = tables.summary.query("family == 'objects' and objective == 'disruption'")
    rows = rows.loc[rows["epsilon"].eq(8 / 255)]
    for access in ("heads", "backbone"):
        own = rows.loc[rows["access"].eq(access) | rows["stealth"].eq(0)].sort_values("stealth")
        assert list(own["stealth"]) == [0, 0.1, 1, 10]
        wanted = own[["visible_damage", "hidden_damage"]].to_numpy()
        assert any(np.allclose(line, wanted) for line in joined)


def test_numbers_beside_points_are_their_weights(tables: Tables) -> None:
    figure = hidden_tradeoff.draw(tables.summary, "objects", {**SMALL, "dpi": 150})
    rows = tables.summary.loc[tables.summary["family"].eq("objects")]
    weights = {
        pair: f"{w:g}" for w, of in rows.groupby("stealth") for pair in pairs(of["visible_damage"], of["hidden_damage"])
    }
    written = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(written) > 20
    assert all(weights[next(iter(pairs(*text.xy)))] == text.get_text() for text in written)
    boxes = [text.get_window_extent() for text in written]
    assert not any(box.count_overlaps(boxes[:number]) for number, box in enumerate(boxes))
    assert not hidden_tradeoff.draw(made.summary(made.hidden(ONE)), "plain", SMALL).axes[0].texts


def test_errors_of_the_tradeoff_reach_as_far_as_the_table_says(tables: Tables) -> None:
    figure = hidden_tradeoff.draw(tables.summary, "objects", SMALL)
    rows = tables.summary.loc[tables.summary["family"].eq("objects") & tables.summary["epsilon"].eq(8 / 255)]
    segments = [s for bars in figure.axes[0].containers for lines in bars.lines[2] for s in lines.get_segments()]
    for axis, name in ((0, "visible_damage"), (1, "hidden_damage")):
        drawn = {tuple(np.round(np.sort(segment[:, axis]), 6)) for segment in segments}
        value, error = rows[name], rows[f"{name}_error"]
        assert set(zip((value - error).round(6), (value + error).round(6), strict=True)) <= drawn


def test_the_longest_attack_of_the_main_norm_is_shown_and_what_is_absent_is_said(tables: Tables) -> None:
    rows = tables.summary.loc[tables.summary["family"].eq("objects") & tables.summary["epsilon"].eq(8 / 255)]
    longer = rows.loc[rows["objective"].eq("cf")].assign(steps=40, hidden_damage=lambda f: f["hidden_damage"] + 5)
    other = rows.assign(norm="l2", epsilon=3.0)
    weaker = rows.loc[rows["objective"].ne("total")]
    total = rows.loc[rows["objective"].eq("total")].assign(epsilon=4 / 255)
    figure = hidden_tradeoff.draw(pd.concat([other, weaker, longer, total]), "objects", SMALL)
    assert points(figure.axes[0], "cf") == pairs(longer["visible_damage"], longer["hidden_damage"])
    assert not points(figure.axes[0], "total")
    words = text_of(figure).replace("\n", " ")
    assert "radius 8/255, 20 to 40 steps; not run there: total on visible tasks" in words
    alone = hidden_tradeoff.draw(other, "objects", SMALL)
    assert "$L_2$, radius 3, 20 steps" in text_of(alone)


def test_the_budget_shows_stealth_zero_and_the_largest_weight(tables: Tables) -> None:
    figure = hidden_budget.draw(tables.summary, "objects", SMALL)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == [
        f"{access}, stealth {weight}" for access in ("with the visible heads", "backbone only") for weight in (0, 10)
    ]
    rows = tables.summary.loc[tables.summary["family"].eq("objects")]
    for panel, (access, weight) in zip(
        figure.axes, [(a, w) for a in ("heads", "backbone") for w in (0.0, 10.0)], strict=True
    ):
        for objective in OBJECTIVES:
            these = rows.loc[rows["objective"].eq(objective) & rows["access"].isin([access, ""])]
            these = these.loc[these["stealth"].eq(0 if objective == "noise" else weight)]
            for role, style_ in (("hidden", "-"), ("visible", "--")):
                drawn = points(panel, f"{objective} {role}")
                assert drawn == pairs(255 * these["epsilon"], these[f"{role}_damage"]), (objective, access, weight)
                assert all(line.get_linestyle() == style_ for line in curves(panel, f"{objective} {role}"))
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["2", "4", "8"]


def test_the_budget_needs_two_radii_of_one_norm(tables: Tables) -> None:
    one = tables.summary.loc[tables.summary["epsilon"].eq(8 / 255)]
    with pytest.raises(MissingDataError, match=r"objects was attacked with one epsilon only; set several"):
        hidden_budget.draw(pd.concat([one, one.assign(norm="l2", epsilon=1.0)]), "objects", SMALL)
    both = pd.concat([one, one.assign(norm="l2", epsilon=1.0), one.assign(norm="l2", epsilon=2.0)])
    figure = hidden_budget.draw(both, "objects", SMALL)
    assert {x for x, _ in points(figure.axes[0], "cf hidden")} == {1.0, 2.0}
    assert figure.axes[-1].get_xlabel() == "Radius, $L_2$"


def test_turns_show_each_hidden_task_and_the_mean_of_the_others(tables: Tables) -> None:
    figure = hidden_turns.draw(tables.hidden, "objects", SMALL)
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels] == list(FEW)
    rows = tables.hidden.loc[tables.hidden["family"].eq("objects") & tables.hidden["epsilon"].eq(8 / 255)]
    rows = rows.loc[rows["stealth"].isin([0.0, 10.0])]
    keys = ["objective", "access", "stealth"]
    for panel, task in zip(panels, FEW, strict=True):
        of_turn = rows.loc[rows["hidden"].eq(task)]
        own, others = of_turn.loc[of_turn["role"].eq("hidden")], of_turn.loc[of_turn["role"].eq("visible")]
        for objective, these in own.groupby("objective"):
            drawn = {x for x, _ in points(panel, str(objective))}
            assert drawn == set(these.groupby(keys)["damage"].mean().round(6)), objective
        assert {x for x, _ in points(panel, "visible")} == set(others.groupby(keys)["damage"].mean().round(6))
    lines = [label.get_text() for label in panels[0].get_yticklabels()]
    assert lines[:2] == ["CF", "CF, stealth 10"]
    assert lines[-1] == "noise"
    assert "stealth 0 and 10" in text_of(figure)


def test_the_error_of_several_attacks_in_a_turn_is_no_less_than_it_may_be(tables: Tables) -> None:
    rows = tables.hidden.loc[tables.hidden["family"].eq("objects") & tables.hidden["epsilon"].eq(8 / 255)]
    found = hidden_turns.values(rows)
    single = rows.query("objective == 'single' and role == 'hidden' and hidden == 'size' and access == 'heads'")
    assert len(single) == 2
    (one,) = found.query("objective == 'single' and hidden == 'size' and access == 'heads'").to_dict("records")
    assert one["damage"] == pytest.approx(single["damage"].mean())
    assert one["error"] == pytest.approx(single["damage_error"].mean())


def test_turns_show_the_weight_that_all_share() -> None:
    family = Family(tasks=FEW[:2], weights={"cf": (0.0, 1.0, 10.0), "oracle": (0.0, 0.1, 1.0), "disruption": (0.0,)})
    table = made.hidden(family)
    assert hidden_looks.shared_stealth(table) == 1
    assert "stealth 0 and 1" in text_of(hidden_turns.draw(table, "objects", SMALL))
    none = made.hidden(Family(tasks=FEW[:2], weights={"cf": (0.0, 10.0), "oracle": (0.0, 1.0)}))
    assert hidden_looks.shared_stealth(none) == 0
    assert hidden_turns.draw(none, "objects", SMALL)._suptitle.get_text().endswith("stealth 0")


def test_forgetting_shows_the_hidden_task_by_epoch(tables: Tables) -> None:
    for family, column in (("objects", "value"), ("rooms", "damage")):
        figure = forgetting.draw(tables.forgetting, family, SMALL)
        rows = tables.forgetting.loc[tables.forgetting["family"].eq(family)]
        tasks = list(dict.fromkeys(rows["hidden"]))
        panels = [panel for panel in figure.axes if panel.get_visible()]
        for panel, task in zip(panels, tasks, strict=True):
            own = rows.loc[rows["hidden"].eq(task)]
            for access in ("heads", "backbone"):
                line = own.loc[own["access"].eq(access) & own["role"].eq("hidden")]
                assert points(panel, f"hidden, {access}") == pairs(line["epoch"], line[column])
            for other in set(tasks) - {task}:
                line = own.loc[own["task"].eq(other)]
                assert points(panel, other) == pairs(line["epoch"], line[column])
                assert {drawn.get_color() for drawn in curves(panel, other)} == {forgetting.GREY}


def test_dense_errors_are_percent_and_stand_on_logarithmic_axes_where_they_grow_far(tables: Tables) -> None:
    figure = hidden_tradeoff.draw(tables.summary, "rooms", SMALL)
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "symlog"
    assert figure.axes[0].get_ylabel() == "Hidden task: error grows by (%)"
    turns = hidden_turns.draw(tables.hidden, "rooms", SMALL)
    assert turns.axes[0].get_title(loc="left") == "Semantic segmentation"
    assert turns.axes[0].get_xscale() == "symlog"
    budget = hidden_budget.draw(tables.summary, "rooms", SMALL)
    for one in (figure, turns, budget):
        assert "logarithmic beyond ±10" in text_of(one).replace("\n", " ")
    small = tables.summary.assign(
        hidden_damage=tables.summary["hidden_damage"] / 10, visible_damage=tables.summary["visible_damage"] / 10
    )
    assert hidden_tradeoff.draw(small, "rooms", SMALL).axes[0].get_xscale() == "linear"
    assert hidden_tradeoff.draw(tables.summary, "objects", SMALL).axes[0].get_yscale() == "linear"


def test_tables_as_files_hold_them_give_the_same(tables: Tables, tmp_path: Path) -> None:
    """Empty access is nothing, counts are nullable."""
    summary = tables.summary.assign(access=tables.summary["access"].replace("", np.nan))
    summary = summary.astype({"steps": "Int64", "n": "Int64"})
    epochs = tables.forgetting.astype({"epoch": "Int64"})
    for number, (one, other) in enumerate(
        [
            (hidden_tradeoff.draw(summary, "objects", SMALL), hidden_tradeoff.draw(tables.summary, "objects", SMALL)),
            (hidden_budget.draw(summary, "objects", SMALL), hidden_budget.draw(tables.summary, "objects", SMALL)),
            (forgetting.draw(epochs, "rooms", SMALL), forgetting.draw(tables.forgetting, "rooms", SMALL)),
        ]
    ):
        files = [
            style.save(f, tmp_path / f"{number}{name}", ("png",), SMALL)[0] for name, f in (("a", one), ("b", other))
        ]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_nothing_overlaps_or_leaves_the_figure(tables: Tables) -> None:
    seven = Tables(Family("many", epsilons=(1, 2, 4, 8, 16)), ONE)
    backbone = Tables(Family(tasks=FEW[:1] + FEW[2:], accesses=("backbone",), objectives=("cf", "oracle", "noise")))
    for each in (tables, seven, backbone):
        for fields, draw in hidden_gallery.figures(each.hidden, each.summary, each.forgetting, SMALL):
            if fields[0] != "hidden-budget-plain":
                assert_tidy(draw(), SMALL)


def test_the_gallery_draws_a_set_for_each_family_the_same_twice(tmp_path: Path) -> None:
    given = Tables(ONE, Family("b", tasks=FEW[:2], epsilons=(4, 8))).given
    look = {**SMALL, "formats": ("svg",)}
    for name in "ab":
        entries = gallery.draw_without_models(tmp_path / name, settings=look, **given)
    assert [entry.stem for entry in entries] == [f"{kind}-{family}" for family in ("plain", "b") for kind in KINDS]
    reasons = {entry.stem: entry.reason for entry in entries if entry.reason}
    assert list(reasons) == ["hidden-budget-plain"]
    for entry in entries:
        assert entry.caption
        assert entry.title.endswith(entry.stem.split("-")[-1])
        assert entry.module.startswith("headstrong.figures.")
        if not entry.reason:
            first, second = (tmp_path / name / f"{entry.stem}.svg" for name in "ab")
            assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a" / gallery.INDEX).read_bytes() == (tmp_path / "b" / gallery.INDEX).read_bytes()


def test_what_is_absent_has_a_reason(tables: Tables, tmp_path: Path) -> None:
    assert list(hidden_gallery.figures(None, None, None)) == []
    assert gallery.draw_without_models(tmp_path, hidden=tables.hidden.iloc[:0]) == []
    copies = tables.forgetting.loc[tables.forgetting["epoch"].eq(0)]
    entries = gallery.draw_without_models(tmp_path, settings=SMALL, forgetting=copies)
    reasons = {entry.stem: entry.reason for entry in entries}
    assert reasons["hidden-tradeoff-rooms"] == "hidden_summary.csv: this study has no such table"
    assert reasons["hidden-turns-rooms"] == "hidden.csv: this study has no such table"
    assert reasons["forgetting-rooms"] == "forgetting.csv: no copy of rooms was trained for an epoch or more"
    with pytest.raises(MissingDataError, match=r"^hidden_summary\.csv: no family elsewhere$"):
        hidden_tradeoff.draw(tables.summary, "elsewhere", SMALL)
    with pytest.raises(MissingDataError, match=r"^hidden\.csv: no attack but noise$"):
        hidden_turns.draw(tables.hidden.loc[tables.hidden["objective"].eq("noise")], "objects", SMALL)
    with pytest.raises(MissingDataError, match=r"^hidden_summary\.csv: columns epsilon are missing"):
        hidden_budget.draw(tables.summary.drop(columns="epsilon"), "objects", SMALL)
    with pytest.raises(MissingDataError, match="the objective 'other' is not known"):
        hidden_tradeoff.draw(tables.summary.assign(objective="other"), "objects", SMALL)
