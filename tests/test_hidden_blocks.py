"""What the report makes of the tables of hidden tasks."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pandas as pd

import hidden_frames as made
from headstrong.analysis.files import write_table
from headstrong.report import hidden_blocks, page
from hidden_summaries import ATTACKS, FORGOT, TURNS, family, forgetting, large, summary
from test_report import Page

ONLY_THIS = {
    "plan": {"combinations": None},
    "hidden": {"objects": {"epsilon": [8]}},
    "data": {"source": "objects"},
}


def test_turns_stand_beside_others_of_equal_stealth() -> None:
    (part,) = family(summary(), TURNS)["parts"]
    assert part["turns"]["attacks"] == ["this variant", "feature disruption", "noise", "oracle"]
    first, second, third = part["turns"]["lines"]
    assert (first["task"], first["clean"]) == ("a", "90.0")
    assert first["cells"][0] == {"hidden": ("30.0", "28.0 to 32.0"), "visible": "10.0"}
    assert [cell["hidden"][0] for cell in second["cells"]] == ["14.0", "13.0", "5.0", "20.0"]
    assert [cell["visible"] for cell in third["cells"]] == ["1.0", "9.0", "4.0", "5.0"]
    gap = TURNS.loc[~(TURNS["objective"].eq("noise") & TURNS["hidden"].eq("b"))]
    (part,) = family(summary(), gap)["parts"]
    assert part["turns"]["lines"][1]["cells"][2] == {"hidden": ("–", ""), "visible": "–"}
    assert "three times that of noise for 2 of 2; both hold for 2" in part["says"][4]
    few = TURNS.loc[~TURNS["objective"].isin(["noise", "oracle"])]
    (part,) = family(summary(), few)["parts"]
    assert part["turns"]["attacks"] == ["this variant", "feature disruption"]


def test_lines_are_in_order_and_name_an_objective_once() -> None:
    (part,) = family(summary().sample(frac=1, random_state=0))["parts"]
    shown = [(line["attack"], line["access"], line["stealth"]) for line in part["lines"]]
    assert shown == [
        ("CF", "heads", "0"),
        ("", "heads", "1"),
        ("", "backbone", "1"),
        ("CF-delta", "heads", "1"),
        ("", "backbone", "0"),
        ("feature disruption", "–", "0"),
        ("", "heads", "1"),
        ("", "heads", "9"),
        ("", "backbone", "1"),
        ("total on visible tasks", "heads", "–"),
        ("oracle", "–", "0"),
        ("", "–", "1"),
        ("noise", "–", "–"),
    ]
    assert (part["title"], part["steps"], part["radii"]) == ("L∞, radius 8/255", "20 steps", [])
    chosen = part["lines"][1]
    assert (chosen["visible_share"], chosen["over_noise"], chosen["oracle_share"]) == ("33.3 %", "4.00", "45.0 %")


def test_the_largest_radius_is_shown_and_the_variant_at_all() -> None:
    small = {key: (own / 2, error, others / 2, worst) for key, (own, error, others, worst) in ATTACKS.items()}
    table = pd.concat([summary(), summary(small, epsilon=2 / 255), summary(small, norm="l2", epsilon=0.5)])
    first, second = family(table)["parts"]
    assert (first["title"], second["title"]) == ("L∞, radius 8/255", "L2, radius 0.5")
    assert [(row["radius"], row["hidden"][0]) for row in first["radii"]] == [("2/255", "9.0"), ("8/255", "18.0")]
    assert second["radii"] == []
    assert "hidden damage 9.0 points" in second["says"][0]


def test_differing_steps_are_shown_by_line() -> None:
    table = pd.concat([summary(), summary({("cf", "heads", 1.0): (17.0, 1.0, 1.0, 1.0)}, steps=40)])
    (part,) = family(table, TURNS)["parts"]
    assert part["steps"] == ""
    assert [line["steps"] for line in part["lines"][1:3]] == ["20", "40"]
    assert [line["chosen"] for line in part["lines"][1:3]] == [True, False]
    assert part["turns"]["lines"][0]["cells"][0]["hidden"][0] == "30.0"


def test_without_trained_copies_nothing_is_said_of_forgetting() -> None:
    untrained = forgetting({("heads", "a", 0): (0.0, [0.0, 0.0])})
    for nothing in (None, untrained, untrained.iloc[:0], untrained.assign(family="other")):
        assert family(summary(), forgot=nothing)["forgetting"] is None


def test_dense_tasks_are_told_in_percent_of_the_clean_error() -> None:
    table = made.hidden(made.DENSE)
    found = family(made.summary(table), table, made.forgetting(made.DENSE))
    (part,) = found["parts"]
    assert found["unit"] == "%"
    assert [line["task"] for line in part["turns"]["lines"]] == [
        "s: semantic segmentation",
        "d: z-buffer depth",
        "n: surface normals",
        "E: occlusion edges",
    ]
    assert {line["clean"] for line in part["turns"]["lines"]} == {"0.250"}
    assert not any("points" in words for words in part["says"] + found["forgetting"]["says"])
    text = Page(template({"hidden": [found]})).text
    assert "Damage is the rise of the error, in percent of the clean error" in text


def template(values: dict[str, object]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(page.__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("hidden.html").render(values)


def test_a_study_without_this_part_shows_nothing() -> None:
    for nothing in ({}, {"hidden_summary": summary().iloc[:0]}, {"hidden": TURNS, "forgetting": forgetting(FORGOT)}):
        assert hidden_blocks.context(nothing) == {"hidden": []}
        assert template(hidden_blocks.context(nothing)).strip() == ""


def test_names_are_escaped_and_breaks_are_not() -> None:
    table = TURNS.assign(hidden=TURNS["hidden"].replace("a", "<i>a</i>"))
    shown = template({"hidden": [family(summary(), table)]})
    assert "&lt;i&gt;a&lt;/i&gt;" in shown
    assert "&lt;br&gt;" not in shown
    assert "<i>" not in shown


def test_a_study_of_this_part_alone_has_a_page(tmp_path: Path) -> None:
    for name, table in large().items():
        write_table(table, tmp_path / "tables" / f"{name}.csv")
    page.render(tmp_path, tmp_path / "report.html", settings=ONLY_THIS)
    shown = Page((tmp_path / "report.html").read_text())
    assert {source[1:] for source in shown.sources if source.startswith("#")} <= set(shown.ids)
    assert len(shown.ids) == len(set(shown.ids))
    for words in (
        "Can a task be broken that the attacker cannot see?",
        "arXiv 2405.15244",
        "this is a reconstruction, stated in docs/hidden.md",
        "Hidden tasks: objects",
        "Hidden tasks: rooms",
        "Hidden tasks: pairs",
        "L∞, radius 8/255, the largest",
        "L2, radius 0.03137",
        "What the copies forget",
        "tables/hidden_summary.csv",
    ):
        assert words in shown.text, words
    for words in ("GAP", "CAMRI", "nan", "None "):
        assert words not in shown.text.replace("None of", ""), words


def test_tables_are_missed_by_studies_that_have_the_section(tmp_path: Path) -> None:
    def text(**sections: object) -> str:
        page.render(tmp_path, tmp_path / "report.html", settings={**ONLY_THIS, **sections})
        return Page((tmp_path / "report.html").read_text()).text

    for words in hidden_blocks.TABLES:
        assert f"(tables/{words}.csv)" in text()
    other = text(hidden={"objects": None}, importance={"objects": {"trials": 5}})
    assert "tables/hidden" not in other
    assert "Can a loss favour one class" in other
    both = text(importance={"objects": {"trials": 5}})
    assert "Can a loss favour one class" in both
    assert "the one that the attacker does not see" in both
    assert "Can one generator break" in text(hidden=None)
