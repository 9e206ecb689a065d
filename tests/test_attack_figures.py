"""Figures of attacks: they show the numbers of their tables, and say why they are absent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from attack_frames import CHOICE, LEVELS, SHADES, TASKS, Tables, make_balanced, make_tables
from headstrong.analysis import surrogates
from headstrong.analysis import tables as cells_of
from headstrong.analysis.plan import plain as plain_models
from headstrong.analysis.tables import AttackChoice
from headstrong.errors import MissingDataError
from headstrong.figures import balanced, budget, curves, frames, gallery, style, switches, theory, transfer

SMALL = {"dpi": 40, "formats": ("png", "svg")}


@pytest.fixture(scope="module")
def made() -> Tables:
    return make_tables()


def box_of(figure: Figure, panel: int, number: int) -> tuple[float, float]:
    """Lower and upper edge of a box, the first quartile and the third."""
    boxes = [patch for patch in figure.axes[panel].patches if isinstance(patch, PathPatch)]
    heights = boxes[number].get_path().vertices[:, 1]
    return float(heights.min()), float(heights.max())


def drawn(panel: object) -> set[float]:
    """Every y that a line of the panel passes."""
    return {round(float(y), 9) for line in panel.lines for y in np.ravel(line.get_ydata())}


def vulnerable(made: Tables, main: str, multi: bool, **setting: object) -> pd.Series:
    """Straight from the table: relative task vulnerability of a main task, by model, in the fully trained pairs."""
    pairs = [
        str(name) for name in made.plan["id"] if str(name).startswith("combinations-resnet18") and main in name[21:]
    ]
    rows = made.vulnerability
    keep = rows["metric"].eq("relative_task_vulnerability") & rows["task"].eq(main) & rows["model"].isin(pairs)
    keep &= rows["attacked"].str.len().eq(2 if multi else 1)
    for name, value in setting.items():
        keep &= (rows[name] - value).abs().lt(1e-9) if isinstance(value, float) else rows[name].eq(value)
    return rows.loc[keep].set_index("model")["mean"]


def test_boxes_are_the_quartiles_of_the_pairs(made: Tables) -> None:
    figure = budget.draw(made.vulnerability, made.plan, CHOICE, "epsilon", "resnet18", SMALL)
    panel = figure.axes[1]
    assert panel.get_title(loc="left").endswith("(d)")
    assert [label.get_text() for label in panel.get_xticklabels()] == ["2/255", "4/255", "8/255", "16/255"]
    for multi, shade in itertools.product((False, True), range(4)):
        values = vulnerable(made, "d", multi, norm="linf", steps=25, epsilon=SHADES[shade] / 255)
        assert len(values) == 4
        quartiles = np.percentile(values, [25, 75])
        assert box_of(figure, 1, shade + 4 * multi) == pytest.approx(tuple(quartiles))
        assert {round(value, 9) for value in values} <= drawn(panel), "four models: each is also a point"


def test_steps_come_from_another_family_of_the_same_stepper(made: Tables) -> None:
    table = budget.values(made.vulnerability, made.plan, CHOICE, "steps", "resnet18")
    assert list(table["label"].unique()) == ["5", "15", "25"]
    part = table.loc[table["place"].eq(0) & table["main"].eq("E") & table["attack"].eq("multi")]
    expected = vulnerable(made, "E", True, steps=5, norm="linf")
    assert part.set_index("model")["value"].to_dict() == pytest.approx(expected.to_dict())


def test_norms_are_compared_at_the_radii_of_the_other_norm(made: Tables) -> None:
    found = budget.settings_of(made.vulnerability, CHOICE, "norm")
    assert [(one.norm, round(one.epsilon * 255, 6)) for one in found] == [
        ("linf", 4.0),
        ("linf", 8.0),
        ("l2", 4.0),
        ("l2", 255.0),
    ]
    assert {one.steps for one in found} == {25}


def test_early_switched_and_branched_models_are_no_pairs(made: Tables) -> None:
    table = budget.values(made.vulnerability, made.plan, CHOICE, "epsilon", "resnet18")
    assert set(table["model"].str.split("-").str[0]) == {"combinations"}
    kinds = frames.fully_trained(made.plan)
    assert not set(kinds["model"]) & {"early-resnet18-sd", "switched-resnet18-sd"}
    assert "layouts0adv-resnet34-sdn" in set(kinds["model"])


def test_one_pair_is_a_bar_and_a_point(made: Tables) -> None:
    plan = made.plan.loc[made.plan["id"].eq("combinations-resnet18-sd")]
    figure = budget.draw(made.vulnerability, plan, CHOICE, "epsilon", "resnet18", SMALL)
    values = vulnerable(made, "s", False, norm="linf", steps=25).loc[["combinations-resnet18-sd"]]
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() == 5]
    assert len(bars) == 2 * len(SHADES)
    assert {float(line.get_ydata()[0]) for line in bars} >= set(values)
    assert not [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


def test_boxes_hold_the_same_models_and_larger_sets_stand_in_for_pairs(made: Tables) -> None:
    rows = made.vulnerability
    fewer = rows.loc[rows["model"].ne("combinations-resnet18-sn") | rows["epsilon"].ne(2 / 255)]
    table = budget.values(fewer, made.plan, CHOICE, "epsilon", "resnet18")
    assert set(table["model"]) == {f"combinations-resnet18-{a}{b}" for a, b in itertools.combinations(TASKS, 2)} - {
        "combinations-resnet18-sn"
    }
    five = rows["model"].eq("five-resnet18-sdDnE") | rows["epsilon"].isna() | rows["epsilon"].ne(2 / 255)
    table = budget.values(rows.loc[five], made.plan, CHOICE, "epsilon", "resnet18")
    assert set(table["model"]) == {"five-resnet18-sdDnE"}
    assert set(table.loc[table["main"].eq("s"), "auxiliary"]) == {"dDnE"}
    figure = budget.draw(rows.loc[five], made.plan, CHOICE, "epsilon", "resnet18", SMALL)
    assert figure.get_suptitle().startswith("The model of sdDnE, resnet18")


def test_one_budget_is_no_figure(made: Tables) -> None:
    only = made.vulnerability.loc[made.vulnerability["epsilon"].isna() | made.vulnerability["epsilon"].eq(8 / 255)]
    for varied, rows in (("epsilon", only), ("norm", only), ("steps", only.loc[only["family"].ne("steps")])):
        with pytest.raises(MissingDataError, match=f"one value of {varied} only"):
            budget.draw(rows, made.plan, CHOICE, varied, "resnet18")
    with pytest.raises(MissingDataError, match="family mim was not run"):
        budget.draw(made.vulnerability, made.plan, AttackChoice("mim"), "steps", "resnet18")


def test_curves_are_those_of_the_table(made: Tables) -> None:
    table = made.extra["curves"]
    figure = curves.draw(table, made.vulnerability, made.plan, CHOICE, "resnet18", SMALL)
    assert [axis.get_title(loc="left")[-2] for axis in figure.axes if axis.get_visible()] == list(TASKS)
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in figure.axes[0].lines]
    assert len(lines) == 1 + 2 * 4
    for name, attacked in (("single-resnet18-s", "s"), ("combinations-resnet18-sn", "sn")):
        rows = table.loc[table["model"].eq(name) & table["attacked"].eq(attacked) & table["task"].eq("s")]
        wanted = rows.sort_values("step")["relative"].to_numpy(dtype=float)
        assert sum(np.array_equal(line, wanted) for line in lines) == 1
    far = AttackChoice("pgd", epsilon=1 / 255)
    with pytest.raises(MissingDataError, match="no curve of a single-task model or pair of resnet18"):
        curves.draw(table, made.vulnerability, made.plan, far, "resnet18")


def test_balancers_show_percent_and_single_its_range(made: Tables) -> None:
    table = made.extra["balanced"]
    figure = balanced.draw(table, made.plan, balanced.Family("resnet34", "sdn", "3"), SMALL)
    assert len(figure.axes) == 8
    assert [axis.get_title(loc="left").split(",")[0] for axis in figure.axes[:4]] == ["FGSM", "PGD", "MIM", "APGD"]
    for row, name in ((0, "layouts3-resnet34-sdn"), (1, "layouts3adv-resnet34-sdn")):
        rows = table.loc[table["model"].eq(name) & table["task"].eq("") & table["stepper"].eq("pgd")]
        panel = figure.axes[4 * row + 1]
        dgba = 100 * rows.loc[rows["balancer"].eq("dgba"), "relative_performance"]
        assert {round(value, 9) for value in dgba} <= drawn(panel)
        single = rows.loc[rows["balancer"].eq("single")].groupby("epsilon")["relative_performance"]
        assert {round(100 * value, 9) for value in single.mean()} <= drawn(panel)
        band = panel.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() == pytest.approx(100 * single.min().min())
        assert band.max() == pytest.approx(100 * single.max().max())


def test_empty_cells_read_as_not_available_change_nothing(made: Tables, tmp_path: Path) -> None:
    path = tmp_path / "balanced.csv"
    made.extra["balanced"].to_csv(path, index=False)
    careless = pd.read_csv(path)
    assert careless["task"].isna().any()
    plan = made.plan.assign(layout=pd.to_numeric(made.plan["layout"]))
    family = balanced.Family("resnet34", "sdn", "17")
    pictures = [
        style.save(balanced.draw(table, models, family, SMALL), tmp_path / name, ("svg",), SMALL)[0].read_bytes()
        for name, table, models in (("a", made.extra["balanced"], made.plan), ("b", careless, plan))
    ]
    assert pictures[0] == pictures[1]


def test_families_worth_a_figure(made: Tables) -> None:
    clean = made.plan.loc[made.plan["adversarial"].eq("")]
    table = balanced.comparable(made.extra["balanced"], clean)
    assert [f.layout for f in balanced.families(table)] == ["0", "3", ""], "sharing most and least, and the five tasks"
    assert len(balanced.families(balanced.comparable(made.extra["balanced"], made.plan))) == 5
    with pytest.raises(MissingDataError, match="no attack on resnet50, tasks sd"):
        balanced.draw(made.extra["balanced"], made.plan, balanced.Family("resnet50", "sd", ""))


def test_one_radius_sets_the_balancers_apart(made: Tables) -> None:
    table = make_balanced(made.plan, (8,))
    figure = balanced.draw(table, made.plan, balanced.Family("resnet18", TASKS, ""), SMALL)
    points = [line for line in figure.axes[0].lines if line.get_marker() in "xs^vD" and len(line.get_xdata()) == 1]
    assert len({float(line.get_xdata()[0]) for line in points}) == 5


def test_transfer_shows_means_over_pairs(made: Tables) -> None:
    table = made.extra["transfer"]
    figure = transfer.draw(table, made.plan, "resnet34", 8 / 255, SMALL)
    rows = table.loc[table["attacked"].ne(table["measured"]) & (table["epsilon"] - 8 / 255).abs().lt(1e-9)]
    clean = rows.loc[~rows["model"].str.contains("adv")]
    levels = clean.groupby("shared_levels")["ratio"].mean()
    assert {round(100 * value, 9) for value in levels} <= drawn(figure.axes[0])
    assert {round(100 * value, 9) for value in clean["ratio"]} <= drawn(figure.axes[0])
    layouts = clean.groupby("model")["ratio"].mean()
    assert {round(100 * value, 9) for value in layouts} <= drawn(figure.axes[1])
    assert {text.get_text() for text in figure.axes[1].texts} == set(LEVELS)


def test_transfer_takes_the_nearest_radius_and_needs_two_layouts(made: Tables) -> None:
    found = transfer.chosen(transfer.comparable(made.extra["transfer"], made.plan), "resnet34", 3 / 255)
    assert (found["epsilon"] * 255).round(6).unique().tolist() == [4.0]
    one = made.plan.loc[made.plan["layout"].eq("0")]
    with pytest.raises(MissingDataError, match="share alike"):
        transfer.draw(made.extra["transfer"], one, "resnet34")
    with pytest.raises(MissingDataError, match="was measured on another"):
        transfer.draw(made.extra["transfer"], made.plan.loc[made.plan["encoder"].eq("resnet18")], "resnet18")


def test_theory_compares_measurement_and_formula(made: Tables) -> None:
    table = made.extra["theory"]
    figure = theory.draw_gradients(table, made.plan, SMALL)
    five = table.loc[table["model"].eq("five-resnet18-sdDnE")]
    for quantity in ("mean_gradient", "theorem_2", "independent"):
        means = five.loc[five["quantity"].eq(quantity)].groupby("size")["value"].mean().tolist()
        assert any(np.allclose(line.get_ydata(), means) for line in figure.axes[0].lines if len(line.get_ydata()) == 5)
    grid = table.loc[table["model"].isin(frames.fully_trained(made.plan)["model"]) & table["size"].eq(2)]
    grid = grid.pivot(index=["model", "tasks"], columns="quantity", values="value")
    quotients = grid["mean_gradient"] / grid["theorem_2"]
    assert box_of(figure, 1, 0) == pytest.approx(tuple(np.percentile(quotients, [25, 75])))
    singles = made.plan.loc[made.plan["section"].eq("single")]
    with pytest.raises(MissingDataError, match="no set of two or more tasks"):
        theory.draw_gradients(table, singles)


def test_marginal_counts_what_breaks_the_bound(made: Tables) -> None:
    table = made.extra["marginal"]
    figure = theory.draw_marginal(table, made.plan, CHOICE, SMALL)
    above = int((~table["holds"]).sum())
    assert above >= 1
    assert figure.axes[0].get_title(loc="left") == f"{above} of {len(table)} above the bound"
    low, high = figure.axes[0].get_ylim()
    for panel, column in zip(figure.axes, ("bound", "first_order"), strict=True):
        points = {(float(x), float(y)) for line in panel.lines[1:] for x, y in zip(*line.get_data(), strict=True)}
        wanted = table["measured"].where(table["measured"] > 0, low)
        assert points == set(zip(table[column], wanted, strict=True)), "zero and less are shown at the edge"
        assert np.array_equal(panel.lines[0].get_xdata(), panel.lines[0].get_ydata())
        assert list(panel.lines[0].get_xdata()) == [low, high]
    with pytest.raises(MissingDataError, match="no task was added under mim"):
        theory.draw_marginal(table, made.plan, AttackChoice("mim"))


def test_switches_show_every_difference_and_the_median(made: Tables) -> None:
    table = made.extra["switches"]
    figure = switches.draw(table, made.vulnerability, CHOICE, SMALL)
    assert len(figure.axes) == 4
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:3] == ["curvature = grey", "error_pixels = all", "optimizer = sgd"]
    assert figure.axes[2].get_xscale() == "symlog"
    assert figure.axes[0].get_xscale() == "linear"
    for panel, metric in zip(figure.axes, switches.METRICS, strict=True):
        rows = table.loc[table["metric"].eq(metric)]
        shown = {round(float(x), 9) for line in panel.lines for x in np.ravel(line.get_xdata())}
        assert {round(100 * value, 9) for value in rows["relative_difference"]} <= shown
        medians = rows.groupby("switch")["relative_difference"].median()
        assert {round(100 * value, 9) for value in medians} <= shown
    with pytest.raises(MissingDataError, match="no model differs from its base"):
        switches.draw(table.loc[table["metric"].ne("clean_error")], made.vulnerability, AttackChoice("mim"))


ABSENT: dict[str, Callable[[Tables], Figure]] = {
    "balanced": lambda made: balanced.draw(None, made.plan, balanced.Family("resnet34", "sdn", "0")),
    "transfer": lambda made: transfer.draw(None, made.plan, "resnet34"),
    "theory": lambda made: theory.draw_gradients(None, made.plan),
    "marginal": lambda made: theory.draw_marginal(None, made.plan, CHOICE),
    "switches": lambda made: switches.draw(None, made.vulnerability, CHOICE),
    "curves": lambda made: curves.draw(None, made.vulnerability, made.plan, CHOICE, "resnet18"),
}


@pytest.mark.parametrize("name", list(ABSENT))
def test_an_absent_table_is_named(made: Tables, name: str) -> None:
    with pytest.raises(MissingDataError, match=rf"^{name}\.csv: this study has no such table$"):
        ABSENT[name](made)
    with pytest.raises(MissingDataError, match=rf"^{name}\.csv: columns .* missing; write the table again$"):
        frames.need(made.extra[name][["model"]], name, ["model", "value of another table"])
    with pytest.raises(MissingDataError, match=rf"^{name}\.csv: the table is empty"):
        frames.need(made.extra[name].iloc[:0], name, ["model"])


def gallery_of(made: Tables, folder: Path, **extra: pd.DataFrame | None) -> list[gallery.Entry]:
    keep = made.plan["id"].isin(["single-resnet18-s", "single-resnet18-d", "combinations-resnet18-sd"]) | made.plan[
        "layout"
    ].isin(["0", "50"])
    plan = made.plan.loc[keep]
    plain = plain_models(plan)
    rows = made.vulnerability.loc[made.vulnerability["model"].isin(plain["id"])]
    correlations = surrogates.build_table(cells_of.cells(rows, plain, CHOICE), draws=10)
    return gallery.draw_all(
        rows, plan, correlations, folder, choice=CHOICE, chains=[], settings={"dpi": 30, "formats": ["png"]}, **extra
    )


def test_gallery_draws_the_new_figures_the_same_twice(made: Tables, tmp_path: Path) -> None:
    extra = {**made.extra, "balanced": made.extra["balanced"].loc[made.extra["balanced"]["stepper"].eq("fgsm")]}
    for name in ("a", "b"):
        entries = gallery_of(made, tmp_path / name, **extra)
    there = {entry.stem for entry in entries if not entry.reason}
    assert there >= {"loss-by-step", "budget-steps", "budget-epsilon", "budget-norm", "transfer-resnet34", "switches"}
    assert there >= {"theorem-2", "theorem-4", "balanced-resnet34-sdn-layout-0", "balanced-resnet34-sdn-layout-50"}
    assert all(entry.caption and entry.title for entry in entries)
    assert {path.stem for path in (tmp_path / "a").glob("*.png")} == there
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_gallery_gives_the_reason_for_every_absent_table(made: Tables, tmp_path: Path) -> None:
    entries = {entry.stem: entry for entry in gallery_of(made, tmp_path)}
    for stem, table in (
        ("balanced", "balanced"),
        ("transfer", "transfer"),
        ("theorem-2", "theory"),
        ("theorem-4", "marginal"),
        ("switches", "switches"),
        ("loss-by-step", "curves"),
    ):
        assert entries[stem].reason == f"{table}.csv: this study has no such table"
        assert not (tmp_path / f"{stem}.png").exists()
    written = {entry["stem"]: entry["reason"] for entry in json.loads((tmp_path / gallery.INDEX).read_text())}
    assert written["transfer"] == "transfer.csv: this study has no such table"
    assert written["budget-epsilon"] == ""
