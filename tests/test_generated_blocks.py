"""What the report makes of the tables of generated perturbations."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pandas as pd
import pytest

import generated_frames as made
from headstrong.analysis import generated, mta_tables
from headstrong.report import generated_blocks, page
from test_report import Page


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("blocks")
    files = [made.write_classes(folder / "office.h5"), made.write_dense(folder / "nyu.h5")]
    table = generated.build_table(files, draws=100)
    return {"generated": table, "mta_tables": mta_tables.build_table(table, made.cost_table())}


@pytest.fixture(scope="module")
def found(tables: dict[str, pd.DataFrame]) -> dict[str, object]:
    return generated_blocks.context(tables)


def table_of(found: dict[str, object], title: str) -> dict[str, object]:
    (match,) = [table for table in found["mta"] if table["title"].startswith(title)]
    return match


def test_table_1_has_the_papers_shape(found: dict[str, object]) -> None:
    table = table_of(found, "Table 1")
    assert table["columns"] == ["studio", "room", "webcam", "average"]
    assert [(line["block"], line["row"]) for line in table["lines"]] == [
        ("clean", "Clean"), ("epsilon 10/255", "GAP"), ("", "MTA"), ("", "Noise"), ("epsilon 5/255", "GAP"),
        ("", "MTA"), ("", "Noise"),
    ]  # fmt: skip
    assert table["lines"][0]["cells"][0] == {"ours": "(90.0)", "error": "4.8", "second": "", "published": "(78.72)"}
    assert table["lines"][1]["cells"][0] == {
        "ours": "85.0", "error": "5.7", "second": "(5.00)", "published": "97.83 (2.61)"
    }  # fmt: skip
    assert table["lines"][3]["cells"][0]["published"] == ""


def test_sentences_count_cells_as_the_tables_have_them(found: dict[str, object]) -> None:
    # By 2 of 40 at radius 10, with doubt, and by 5 of 40 at radius 5, without much, in each of three domains.
    says = table_of(found, "Table 1")["says"]
    assert "at least as strong as GAP in 6 of 6 cells" in says
    assert "stronger in 3 and weaker in 0" in says
    # Printed: above or equal but for dslr at radius 10.
    assert "Published: at least as strong in 5 of 6." in says
    assert "Noise of the same size reaches at most 7.50 %, the weakest generator 50.0 %." in says
    assert "in 3 of 6 cells" in table_of(found, "Table 3")["says"]  # equal at radius 5, below at radius 10
    assert "stronger in 9 and weaker in 9" in table_of(found, "Table 5")["says"]
    assert "Published: at least as strong in 14 of 18." in table_of(found, "Table 5")["says"]


def test_transfer_is_a_share_of_the_damage(found: dict[str, object], tables: dict[str, pd.DataFrame]) -> None:
    table = table_of(found, "Table 6")
    assert table["title"].endswith("mtan")
    mta = {"GAP": 0, "MTA": 0}
    for line in table["lines"]:
        mta[line["row"]] = mta.get(line["row"], 0) + 1
    assert (mta["GAP"], mta["MTA"], mta["Clean"]) == (2, 2, 1)
    # Half of the quality lost is lost here, and errors grow with the inverse of quality.
    shaped = tables["mta_tables"]
    rows = shaped.loc[shaped["column"].eq("Pix Acc")].set_index(["table", "block", "row"])["ours"]
    share = (60 - rows["6", "epsilon 5/255, universal", "MTA"]) / (60 - rows["5", "epsilon 5/255, universal", "MTA"])
    assert share == pytest.approx(0.5)
    assert "% of that to the model it was trained against" in table["says"]
    assert "published: " in table["says"]


def test_cost_and_misprints_are_said(found: dict[str, object]) -> None:
    table = table_of(found, "Table 7")
    assert table["columns"] == ["P (M)", "T (ms)"]
    assert (
        "GAP has 2.6 times the parameters of MTA and takes 2.5 times as long (published: 2.6 and 2.8)" in table["says"]
    )
    assert any("ten times too small: 64 filters give 16.44 M" in note for note in table["notes"])
    notes = table_of(found, "Table 1")["notes"]
    assert "MTA, epsilon 5/255, average: misprint in the paper: the mean of its row is 87.94" in notes
    assert "studio stands for amazon" in notes
    assert "victim" not in " ".join(table_of(found, "Table 5")["notes"])


def test_universal_perturbations_are_listed_and_the_ball_is_checked(
    found: dict[str, object], tables: dict[str, pd.DataFrame]
) -> None:
    assert "nyu-mta-universal-untargeted-linf-5" in found["universal"]
    assert not [name for name in found["universal"] if "-instance-" in name]
    assert found["reach"] == "No perturbation leaves its ball: the largest norm is 100 % of its radius."
    table = tables["generated"]
    outside = table.assign(value=table["value"].mask(table["metric"].eq(generated.REACH), 120.0))
    assert "LEFT its ball" in generated_blocks.reach(outside)


def template(values: dict[str, object]) -> str:
    folder = Path(page.__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("generated.html").render(values)


def test_the_page_shows_it_all(found: dict[str, object]) -> None:
    shown = Page(template(found))
    assert "generated" in shown.ids
    for words in (
        "Table 1: universal",
        "Table 7: cost",
        "perturbations/<family>/<generator>/",
        "apply_perturbation.py",
        "GAP",
    ):
        assert words in shown.text, words


def test_a_study_without_generators_shows_nothing(tables: dict[str, pd.DataFrame]) -> None:
    for nothing in ({}, {name: table.iloc[:0] for name, table in tables.items()}):
        assert generated_blocks.context(nothing) == {"mta": [], "universal": [], "not_learned": "", "reach": ""}
        assert template(generated_blocks.context(nothing)).strip() == ""


def test_a_family_of_one_method_and_mode_is_shown(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["generated"]
    table = table.loc[~table["method"].eq("gap") & ~table["mode"].eq("instance")].assign(gain=float("nan"))
    found = generated_blocks.context({"generated": table, "mta_tables": mta_tables.build_table(table)})
    assert [shown["title"][:7] for shown in found["mta"]] == ["Table 1", "Table 2", "Table 5", "Table 6"]
    assert "cells" not in table_of(found, "Table 2")["says"]
    assert Page(template(found)).text


def test_a_folder_of_ones_own_is_called_by_its_name_and_has_no_published_numbers(
    tables: dict[str, pd.DataFrame],
) -> None:
    table = tables["generated"].assign(dataset="animals")
    found = generated_blocks.context({"generated": table, "mta_tables": mta_tables.build_table(table)})
    shown = template(found)
    assert "data set animals" in Page(shown).text
    assert "none of them belong to these data" in Page(shown).text
    assert 'class="said"' not in shown
    assert "stands for" not in shown
