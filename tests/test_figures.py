"""Figures: they show the numbers of their tables, and equal tables give equal bytes."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import synthetic
from headstrong.analysis import plan, surrogates, tables, vulnerability
from headstrong.analysis.tables import AttackChoice
from headstrong.errors import ConfigError, MissingDataError
from headstrong.figures import adversarial_errors, attack_check, gallery, heat_map, style, vulnerability_chain
from headstrong.figures import surrogates as scatter
from headstrong.tasks import TASKS

PLACES = [
    ("single", "s"),
    ("single", "d"),
    ("single", "_D"),
    ("combinations", "sd"),
    ("combinations", "s_D"),
    ("combinations", "d_D"),
]
ATTACK_FIGURES = {
    "loss-by-step",
    "budget-steps",
    "budget-epsilon",
    "budget-norm",
    "balanced",
    "transfer",
    "theorem-2",
    "theorem-4",
    "switches",
}
SMALL = {"dpi": 40, "formats": ("png", "svg")}


class Tables:
    """Tables of a made-up study, computed once."""

    def __init__(self, folder: Path) -> None:
        synthetic.write_study(folder, synthetic.Study(samples=8))
        self.vulnerability = vulnerability.build_table(folder / "evaluations", folder / "plan.csv")
        self.plan = plan.read_plan(folder / "plan.csv")
        self.choice: AttackChoice = tables.choose_attack(self.vulnerability)
        self.cells = tables.cells(self.vulnerability, self.plan, self.choice)
        self.pairs = tables.pairs_table(self.cells)
        self.surrogates = surrogates.build_table(self.cells, draws=50)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables(tmp_path_factory.mktemp("figures"))


def test_chain_shows_the_table(made: Tables) -> None:
    figure = vulnerability_chain.draw(made.vulnerability, made.plan, ["DEnds", "nsDdE"], made.choice, SMALL)
    panel = figure.axes[0]
    assert panel.get_yscale() == "log"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["D", "DE", "DnE", "dDnE", "sdDnE"]
    rows = made.vulnerability
    wanted = rows.loc[
        rows["model"].eq("five-resnet18-sd_Dn_E")
        & rows["attacked"].eq("DnE")
        & rows["family"].eq("pgd")
        & rows["metric"].eq("adversarial_vulnerability"),
        "mean",
    ]
    assert panel.lines[0].get_ydata()[2] == wanted.iloc[0]


def test_chain_needs_its_model_and_attacks(made: Tables) -> None:
    with pytest.raises(MissingDataError, match="no uniformly weighted model"):
        vulnerability_chain.draw(made.vulnerability, made.plan, ["sdn"], made.choice)
    fewer = made.vulnerability.loc[made.vulnerability["attacked"].ne("dnE")]
    with pytest.raises(MissingDataError, match=r"was not attacked on dnE; set attacks\.pgd\.chains"):
        vulnerability_chain.draw(fewer, made.plan, ["EndDs"], made.choice)


def test_no_chain_is_said_and_not_a_crash(made: Tables) -> None:
    with pytest.raises(MissingDataError, match="names none"):
        vulnerability_chain.draw(made.vulnerability, made.plan, [], made.choice)


def test_bars_are_labelled_as_published_and_show_the_table(made: Tables) -> None:
    table = adversarial_errors.bars(made.cells, "resnet18", "s")
    assert list(table["label"]) == ["s s", "sd s", "sd sd", "sD s", "sD sD", "sn s", "sn sn", "sE s", "sE sE"]
    figure = adversarial_errors.draw(made.cells, "resnet18", "s", SMALL)
    panel = figure.axes[0]
    heights = sorted(patch.get_height() for patch in panel.patches)
    assert np.allclose(heights, sorted(table["value"]))
    cells = made.cells.loc[made.cells["quantity"].eq("single_error") & made.cells["model"].eq("single-resnet18-s")]
    assert table["value"].iloc[0] == cells["value"].iloc[0]
    assert any(
        np.allclose(line.get_ydata(), cells["value"].iloc[0]) for line in panel.lines if len(line.get_ydata()) == 2
    )


def test_no_baseline_no_bars(made: Tables) -> None:
    pairs_only = made.cells.loc[made.cells["size"].gt(1)]
    with pytest.raises(MissingDataError, match="single-task model of resnet18"):
        adversarial_errors.draw(pairs_only, "resnet18", "s")


def test_heat_map_compares_with_the_single_task_model(made: Tables) -> None:
    grid = pd.DataFrame([[2.0, 4.0], [1.0, 4.0]], index=list("sd"), columns=list("sd"))
    assert heat_map.ratios(grid).to_numpy().tolist() == [[0, 1], [-2, 0]]
    negative = pd.DataFrame([[2.0, -4.0], [1.0, -4.0]], index=list("sd"), columns=list("sd"))
    assert np.isnan(heat_map.ratios(negative).to_numpy()).tolist() == [[False, True], [True, True]]
    figure = heat_map.draw(made.pairs, "resnet50", SMALL)
    shown = {text.get_text().split("\n")[0] for text in figure.axes[0].texts}
    single = tables.wide(made.pairs.loc[made.pairs["encoder"].eq("resnet50")], "single")
    assert shown == {f"{value:.3g}" for value in single.to_numpy().ravel()}


def test_attack_check_divides_by_the_clean_error(made: Tables) -> None:
    found = attack_check.multiples(made.vulnerability, made.choice)
    assert set(found["kind"]) == {"noise", "single", "multi"}
    row = found.loc[found["kind"].eq("single") & found["model"].eq("combinations-resnet18-sn") & found["task"].eq("n")]
    cells = made.cells.loc[made.cells["model"].eq("combinations-resnet18-sn") & made.cells["main"].eq("n")]
    value = cells.set_index("quantity")["value"]
    assert row["multiple"].tolist() == [pytest.approx(value["single_error"] / value["clean_error"])]
    # a chain attack is on some of the tasks: it is not "all tasks attacked"
    assert len(found.loc[found["kind"].eq("multi") & found["model"].eq("five-resnet18-sd_Dn_E")]) == 5
    assert attack_check.draw(made.vulnerability, made.choice, SMALL).axes


def test_scatter_titles_carry_both_correlations(made: Tables) -> None:
    chosen = [c for c in surrogates.comparisons(made.cells) if (c.proxy, c.target) == ("resnet18", "resnet50")]
    figure = scatter.draw(chosen, made.surrogates, SMALL)
    found = made.surrogates.loc[made.surrogates["proxy"].eq("resnet18") & made.surrogates["attack"].eq("single")]
    for axis, scope in ((0, "pooled"), (2, "within")):
        value = found.loc[found["scope"].eq(scope) & found["statistic"].eq("pearson"), "value"].iloc[0]
        assert f"r = {value:.2f}".replace("-", "−") in figure.axes[axis].get_title(loc="left")
    centred = [float(np.ravel(line.get_xdata())[0]) for line in figure.axes[2].lines if line.get_marker() == "o"]
    assert len(centred) == 5
    assert np.prod(centred) == pytest.approx(1)


def test_gallery_writes_what_it_says_and_the_same_twice(made: Tables, tmp_path: Path) -> None:
    models = made.plan.loc[made.plan["id"].isin([f"{kind}-resnet18-{x}" for kind, x in PLACES])]
    rows = made.vulnerability.loc[made.vulnerability["model"].isin(models["id"])]
    correlations = surrogates.build_table(tables.cells(rows, models, made.choice), draws=20)
    arguments = (rows, models, correlations)
    chains = ["ds"]
    for name in ("a", "b"):
        entries = gallery.draw_all(*arguments, tmp_path / name, choice=made.choice, chains=chains, settings=SMALL)
    absent = {entry.stem for entry in entries if entry.reason}
    assert absent == ATTACK_FIGURES, "one attack, and none of the tables that compare attacks"
    stems = [entry.stem for entry in entries if not entry.reason]
    assert len(stems) == len({stem.lower() for stem in stems}), "names must differ on file systems that fold case"
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted([gallery.INDEX, *(f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg"))])
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a" / f"{stems[0]}.svg").read_bytes()
    for stem in stems:
        modules = {e["stem"]: e["module"] for e in json.loads((tmp_path / "a" / gallery.INDEX).read_text())}
        assert modules[stem].startswith("headstrong.figures.")


def test_gallery_says_why_a_figure_is_absent(made: Tables, tmp_path: Path) -> None:
    singles = made.plan.loc[made.plan["id"].isin(["single-resnet18-d", "single-resnet18-_D"])]
    rows = made.vulnerability.loc[made.vulnerability["model"].isin(singles["id"])]
    correlations = surrogates.build_table(tables.cells(rows, singles, made.choice), draws=20)
    entries = gallery.draw_all(
        rows,
        singles,
        correlations,
        tmp_path,
        choice=made.choice,
        chains=["DEnds"],
        settings={"dpi": 40, "formats": ["png"]},
    )
    chain = next(entry for entry in entries if entry.stem == "vulnerability-chain")
    assert "no uniformly weighted model" in chain.reason
    assert not (tmp_path / "vulnerability-chain.png").exists()
    assert (tmp_path / "adversarial-error-resnet18-_D.png").exists()


def test_settings_are_checked_and_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: formats, dpi, width"):
        style.complete({"colour": "red"})
    with pytest.raises(ConfigError, match="png, svg, pdf"):
        style.complete({"formats": ["gif"]})
    with style.context({"dpi": 30}) as whole:
        figure = style.new_figure(whole["width"], 2)
        figure.subplots().plot([1, 2])
    (path,) = style.save(figure, tmp_path / "x.y", ("png",), {"dpi": 30})
    assert path.name == "x.y.png"
    header = path.read_bytes()
    assert int.from_bytes(header[16:20], "big") == 7 * 30


def test_users_own_matplotlib_settings_do_not_show(made: Tables, tmp_path: Path) -> None:
    def picture(name: str) -> bytes:
        figure: Figure = heat_map.draw(made.pairs, "resnet18", SMALL)
        return style.save(figure, tmp_path / name, ("svg",), SMALL)[0].read_bytes()

    plain = picture("a")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        assert picture("b") == plain
        assert mpl.rcParams["font.size"] == 20


def test_every_task_can_be_told_apart_without_colour() -> None:
    assert set(style.TASK_LOOKS) == set(TASKS)
    assert len({look.marker for look in style.TASK_LOOKS.values()}) == len(TASKS)
    assert len({look.colour for look in style.TASK_LOOKS.values()}) == len(TASKS)


def test_a_task_without_a_look_is_drawn_as_its_letter(tmp_path: Path) -> None:
    assert "w" not in style.TASK_LOOKS
    figure = style.new_figure(1, 1)
    figure.subplots().plot([0, 1], [0, 1], **style.marker("w"))
    blank = style.new_figure(1, 1)
    blank.subplots().plot([0, 1], [0, 1], **{**style.marker("w"), "marker": ""})
    drawn, empty = (style.save(one, tmp_path / name, ("png",), SMALL)[0] for one, name in ((figure, "w"), (blank, "-")))
    assert drawn.read_bytes() != empty.read_bytes()


def test_a_chain_is_of_a_model_of_the_study_s_own_protocol() -> None:
    same = {"weights": "0.5;0.5", "main": "s", "auxiliary": "d", "epochs": 12, "layout": "", "adversarial": ""}
    rows = [{**same, "id": "three-sd", "switches": ""}, {**same, "id": "three-wgd-sd", "switches": "wgd=published"}]
    plan = pd.DataFrame(rows)
    assert vulnerability_chain.model_of(plan, "ds") == "three-sd"
    assert vulnerability_chain.model_of(plan.iloc[1:], "sd") == "three-wgd-sd"
    assert vulnerability_chain.model_of(plan, "sn") is None
