"""What the report makes of the tables of important classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pytest

import importance_files as made
from headstrong.analysis import camri_table, importance, importance_settings
from headstrong.analysis.files import write_table
from headstrong.provenance import ROOT
from headstrong.report import importance_blocks, page
from job_files import job_file
from test_report import Page

NAMES = ("importance", "importance_settings", "camri_table_1")
ONLY_THIS = {
    "plan": {"combinations": None},
    "generators": {"domains": None},
    "importance": {"objects": {"trials": 5}},
    "data": {"source": "rooms"},
}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return dict(zip(NAMES, made.frames(), strict=True))


@pytest.fixture(scope="module")
def found(tables: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    return importance_blocks.context(tables)["camri"]


def sentences(table: pd.DataFrame, trials: pd.DataFrame | None = None) -> str:
    given = {"camri_table_1": table} | ({} if trials is None else {"importance": trials})
    (family,) = importance_blocks.context(given)["camri"]
    return " ".join(family["says"])


def changed(table: pd.DataFrame, key: str, loss: str = "camri", **values: float) -> pd.DataFrame:
    """The table of the family "objects" with other numbers in the rows of a loss and key."""
    table = table.loc[table["family"].eq("objects")].copy()
    table.loc[table["loss"].eq(loss) & table["important"].eq(key), list(values)] = list(values.values())
    return table


def test_table_1_has_the_posters_shape(found: list[dict[str, Any]], tables: dict[str, pd.DataFrame]) -> None:
    assert [family["family"] for family in found] == ["objects", "photographs"]
    objects, photographs = found
    assert [table["title"] for table in objects["rules"]] == list(importance_blocks.TITLES.values())
    shown = photographs["rules"][0]
    assert shown["columns"] == [("worst1", "cat"), ("worst2", "dog"), ("median", "airplane")]
    losses = ["CAMRI", "ArcFace", "Softmax", "CRWWCE", "WCE", "CE"]
    assert [line["loss"] for line in shown["lines"]] == losses
    table = tables["camri_table_1"].set_index(["family", "rule", "loss", "important"])
    row = table.loc[("photographs", "validation", "camri", "worst1")]
    assert shown["lines"][0]["cells"][0] == {
        "ours": f"{row['recall']:.1f} ({row['accuracy']:.1f})",
        "intervals": [
            f"{row['recall_low']:.1f} to {row['recall_high']:.1f}",
            f"({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})",
        ],
        "published": "79.19 (88.21)",
    }
    assert shown["lines"][3]["cells"][0] == {"ours": "–", "intervals": [], "published": ""}
    assert photographs["compared"]
    assert not objects["compared"]
    assert not any(cell["published"] for line in objects["rules"][0]["lines"] for cell in line["cells"])


def test_chosen_settings_are_said_once_where_they_are_the_same(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["camri_table_1"]
    (family,) = importance_blocks.context({"camri_table_1": changed(table, "worst2", margin=4.0)})["camri"]
    assert family["rules"][0]["chosen"] == (
        "CAMRI: margin 8π/64, scale 8 (worst1/median), margin 4π/64, scale 8 (worst2); ArcFace: margin 8π/64, scale 8; "
        "Normalised softmax: scale 8; CRWWCE: none keeps accuracy; WCE: weight 8"
    )


def test_differences_are_those_of_the_validation_rule(found: list[dict[str, Any]]) -> None:
    lines = found[0]["differences"]
    assert len(lines) == 3 * 6
    assert [line["key"] for line in lines[:7]] == ["worst1: bucket", "", "", "", "", "", "worst2: egg"]
    camri, crwwce, ce = lines[0], lines[3], lines[5]
    assert camri["setting"] == "margin 8π/64, scale 8 (of 4)"
    assert camri["recall"] == ("+7.20", "+5.58 to +8.82, p < 0.001")
    assert camri["ratio"][0] == "0.23"
    assert (crwwce["setting"], crwwce["recall"], crwwce["ratio"]) == (
        "none keeps accuracy (of 2)",
        ("–", ""),
        ("–", ""),
    )
    assert (ce["setting"], ce["recall"], ce["ratio"][0]) == ("", ("–", ""), "0.94")
    assert lines[2]["recall"] == ("+1.20", "−0.42 to +2.82, p = 0.11")
    assert found[0]["trials"] == "5 trials"


def test_recall_counts_only_intervals_that_exclude_0(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["camri_table_1"]
    assert "above cross entropy for 3 of 3 choices of the important class and below it for 0" in sentences(
        changed(table, "worst1")
    )
    unsure = changed(table, "worst1", recall_gain_low=-0.1)
    assert "above cross entropy for 2 of 3 choices of the important class and below it for 0" in sentences(unsure)
    below = changed(unsure, "worst1", recall_gain=-3.0, recall_gain_low=-5.0, recall_gain_high=-1.0)
    assert "above cross entropy for 2 of 3 choices of the important class and below it for 1" in sentences(below)


def test_a_class_without_a_setting_or_an_interval_is_counted_as_such(tables: dict[str, pd.DataFrame]) -> None:
    table, nothing = tables["camri_table_1"], float("nan")
    numbers = [name for name in table.columns if name.startswith(("recall", "accuracy", "angle"))]
    lost = changed(table, "worst1", **dict.fromkeys(numbers, nothing))
    said = sentences(lost)
    assert "above cross entropy for 2 of 3" in said
    assert "For 1 no setting keeps accuracy." in said
    assert "at least that of cross entropy for 2 of 2" in said
    low = [name for name in numbers if name.endswith(("_low", "_high", "_p"))]
    said = sentences(changed(table, "median", **dict.fromkeys(low, nothing)))
    assert "above cross entropy for 2 of 3" in said
    assert "For 1 there is no interval: too few trials." in said


def test_accuracy_says_what_the_intervals_leave_open(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["camri_table_1"]
    said = sentences(changed(table, "worst1"))
    assert "at least that of cross entropy for 3 of 3, and the interval of the difference lies below 0 for 0." in said
    assert "No interval reaches below 0." in said
    lower = changed(table, "worst1", accuracy_gain=-0.4, accuracy_gain_low=-1.25, accuracy_gain_high=0.45)
    assert "for 2 of 3, and the interval of the difference lies below 0 for 0." in sentences(lower)
    assert "The intervals do not rule out a loss of 1.25 points." in sentences(lower)
    lost = changed(lower, "worst1", accuracy_gain_high=-0.1)
    assert "for 2 of 3, and the interval of the difference lies below 0 for 1." in sentences(lost)


def test_the_highest_recall_is_counted_beside_the_published(tables: dict[str, pd.DataFrame]) -> None:
    assert "the highest of all losses for 0 of 3 (means alone, without a test)." in sentences(
        changed(tables["camri_table_1"], "worst1")
    )
    best = changed(tables["camri_table_1"], "worst1", recall=99.0)
    assert "the highest of all losses for 1 of 3" in sentences(best)
    photographs = tables["camri_table_1"].loc[tables["camri_table_1"]["family"].eq("photographs")]
    assert "published: 2 of 3)." in sentences(photographs)  # WCE has the higher recall of cats


def test_variances_are_compared_trial_by_trial(tables: dict[str, pd.DataFrame]) -> None:
    table, trials = changed(tables["camri_table_1"], "worst1"), tables["importance"]
    assert "Variance" not in sentences(table)
    said = sentences(table, trials)
    assert "with CAMRI against normalised softmax it falls for 3 of 3 and rises for 0; against cross entropy" in said
    # As wide as the softmax in each trial of one key, but for a difference that changes its sign.
    own = trials["family"].eq("objects") & trials["important"].eq("worst1") & trials["split"].eq("test")
    softmax = trials.loc[own & trials["loss"].eq("softmax") & trials["scale"].eq(8)].set_index("trial")
    camri = own & trials["loss"].eq("camri") & trials["margin"].eq(8) & trials["scale"].eq(8)
    same = trials.copy()
    for place in trials.index[camri]:
        number = int(trials.at[place, "trial"])
        for name in ("angle_variance", "angle_variance_others"):
            same.at[place, name] = softmax.at[number, name]
        same.at[place, "angle_variance"] += (number - 2) * 5.0
    assert "against normalised softmax it falls for 2 of 3 and rises for 0" in sentences(table, same)
    wider = same.assign(angle_variance=same["angle_variance"].where(~camri, 900.0))
    assert "against normalised softmax it falls for 2 of 3 and rises for 1" in sentences(table, wider)


def template(values: dict[str, object]) -> str:
    folder = Path(page.__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("importance.html").render(values)


def test_a_study_without_this_part_shows_nothing(tables: dict[str, pd.DataFrame]) -> None:
    for nothing in ({}, {name: table.iloc[:0] for name, table in tables.items()}):
        assert importance_blocks.context(nothing) == {"camri": []}
        assert template(importance_blocks.context(nothing)).strip() == ""


def test_one_loss_and_no_validation_pictures_are_shown(tmp_path: Path) -> None:
    path = made.write_evaluation(tmp_path / "f.h5", trials=[made.Trial("ce", 0)], splits=["test"], pictures=5)
    trials = importance.build_table([path])
    table = camri_table.build_table(importance_settings.build_table(trials, importance.tolerances([path])))
    found = importance_blocks.context({"camri_table_1": table, "importance": trials})
    (family,) = found["camri"]
    assert [shown["title"] for shown in family["rules"]] == [importance_blocks.TITLES["published"]]
    assert (family["says"], family["trials"]) == ([], "one trial")
    assert "The paper's rule" in Page(template(found)).text


@pytest.fixture(scope="module")
def results(tables: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of this part alone, its figures drawn by the program."""
    folder = tmp_path_factory.mktemp("only") / "important"
    for name, table in tables.items():
        write_table(table, folder / "tables" / f"{name}.csv")
    path = made.write_evaluation(folder / "importance" / "objects.h5", seed=1)
    drawn = [str(folder / "tables" / f"{name}.csv") for name in NAMES[1:]]
    command = [sys.executable, "scripts/draw_figures.py", "--tables", *drawn, "--generated", "--importance", str(path)]
    settings = {"attack": {}, "chains": [], "look": {"dpi": 40, "formats": ["png"]}}
    options = ["--settings", job_file(settings), "--output", str(folder / "figures")]
    subprocess.run([*command, *options], cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT / "src")})
    return folder


def test_a_study_of_this_part_alone_has_a_page(results: Path) -> None:
    page.render(results, results / "report.html", settings=ONLY_THIS)
    shown = Page((results / "report.html").read_text())
    assert "importance" in shown.ids
    assert {source[1:] for source in shown.sources if source.startswith("#")} <= set(shown.ids)
    assert len(shown.ids) == len(set(shown.ids))
    for words in (
        "Can a loss favour one class and keep accuracy? Study “important”",
        "They are of the authors' networks and the full data (cifar10)",
        "79.19 (88.21)",
        "Differences to CE in points of percent, over 5 trials.",
        "figures/importance-angles-objects.png",
        "angles: no evaluation of the family photographs",
    ):
        assert words in shown.text, words
    for words in ("GAP", "tables/generated.csv", "tables/table_1.csv", "Do more tasks"):
        assert words not in shown.text, words


def test_tables_are_missed_by_studies_that_have_the_section(results: Path, tmp_path: Path) -> None:
    def text(**sections: object) -> str:
        page.render(tmp_path, tmp_path / "report.html", settings={**ONLY_THIS, **sections})
        return Page((tmp_path / "report.html").read_text()).text

    shown = text()
    assert "CAMRI's Table 1 (tables/camri_table_1.csv)" in shown
    assert "tables/generated.csv" not in shown
    shown = text(generators={"domains": {"epsilon": [10]}}, importance={"objects": None})
    assert "tables/generated.csv" in shown
    assert "tables/camri_table_1.csv" not in shown
    assert "Can one generator break several networks?" in shown
    shown = text(generators={"domains": {"epsilon": [10]}})
    assert "tables/generated.csv" in shown
    assert "tables/camri_table_1.csv" in shown
    assert "tables/baselines.csv" not in shown


def test_the_margin_alone_is_measured_against_softmax_of_its_scale(tables: dict[str, pd.DataFrame]) -> None:
    """Another computation: scipy's paired test, setting by setting."""
    from scipy.stats import ttest_rel

    trials = tables["importance"].query("family == 'objects' and split == 'test'")
    higher = settings = 0
    softmax = trials.loc[trials["loss"].eq("softmax")].sort_values("trial")
    for (key, scale, _), own in trials.query("loss == 'camri'").groupby(["important", "scale", "margin"]):
        other = softmax.loc[softmax["important"].eq(key) & softmax["scale"].eq(scale)]
        tested = ttest_rel(own.sort_values("trial")["recall"].astype(float), other["recall"].astype(float))
        higher += tested.pvalue < 0.05 and tested.statistic > 0
        settings += 1
    said = sentences(tables["camri_table_1"].query("family == 'objects'"), tables["importance"])
    words = (
        f"of {settings} settings of CAMRI, against normalised softmax of the same scale, recall is higher in {higher} "
    )
    assert settings == 12
    assert words in said


def test_without_softmax_nothing_is_said_of_the_margin_alone(tables: dict[str, pd.DataFrame]) -> None:
    table, trials = (
        tables["camri_table_1"].query("family == 'objects'"),
        tables["importance"].query("loss != 'softmax'"),
    )
    assert "The margin alone" not in sentences(table, trials)
