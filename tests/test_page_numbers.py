"""Numbers that pages state by hand are those of results/reference."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from headstrong.provenance import ROOT

REFERENCE = ROOT / "results" / "reference"
OBJECTIVES = {
    "CF-delta": "cf_delta", "CF": "cf", "feature disruption": "disruption", "DGBA on the visible tasks": "dgba",
    "total on the visible tasks": "total", "oracle": "oracle", "noise": "noise",
}  # fmt: skip
EPSILON = 8 / 255


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with a header."""
    text = (ROOT / "docs" / page).read_text().split(header)[1]
    lines = text.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def chosen(study: str, family: str, objective: str, access: str, stealth: str) -> pd.Series:
    table = pd.read_csv(REFERENCE / study / "tables" / "hidden_summary.csv", keep_default_na=False)
    found = table.loc[
        table["family"].eq(family)
        & table["objective"].eq(OBJECTIVES[objective])
        & table["access"].isin([access, ""])
        & (table["stealth"].astype(float) == float(stealth or 0))
        & ((table["epsilon"].astype(float) - EPSILON).abs() < 1e-9)
    ]
    assert len(found) == 1, (study, objective, access, stealth)
    return found.iloc[0]


def test_hidden_attributes_are_those_of_the_recorded_study():
    stated = rows("hidden.md", "| attack | access | stealth | hidden task |")
    assert len(stated) == 9
    for objective, access, stealth, hidden, visible, share in stated:
        row = chosen("hidden", "attributes", objective, access, stealth)
        assert float(hidden) == pytest.approx(float(row["hidden_damage"]), abs=0.051)
        assert float(visible) == pytest.approx(float(row["visible_damage"]), abs=0.051)
        assert float(share) == pytest.approx(float(row["oracle_share"]), abs=0.0051)


def test_hidden_dense_tasks_are_those_of_the_recorded_studies():
    stated = rows("hidden.md", "| | rooms: hidden, visible | NYUv2: hidden, visible |")
    assert len(stated) == 7
    for words, *cells in stated:
        objective, *rest = words.split(", ")
        stealth = next((part.split()[1] for part in rest if part.startswith("stealth")), "0")
        for study, cell in zip(("hidden", "hidden_nyuv2"), cells, strict=True):
            row = chosen(study, "scenes", objective, "heads", stealth)
            hidden, visible = (float(number) for number in cell.split(", "))
            assert hidden == pytest.approx(float(row["hidden_damage"]), abs=0.051), (study, words)
            assert visible == pytest.approx(float(row["visible_damage"]), abs=0.051), (study, words)


def test_how_fast_caches_are_built_is_what_the_last_run_says():
    sources = json.loads((REFERENCE / "cache_building.json").read_text())["sources"]
    stated = {row[0]: row[1:] for row in rows("cache.md", "| | rooms | taskonomy |")}
    for place, source in enumerate(("rooms", "taskonomy")):
        run = sources[source]
        told = {key: [float(x) for x in re.findall(r"[\d.]+", cells[place])] for key, cells in stated.items()}
        speeds = run["images_per_second"]
        assert told["images per second, one process, two (their start included)"] == [
            round(speeds["1"]), round(speeds["2"]),
        ]  # fmt: skip
        assert told["two processes against one, once started"] == [run["two_against_one_once_started"]]
        share, times = told["writer's share of the processor time: more processes give at most"]
        assert (share, times) == (run["writer_share_of_two"], round(1 / share))
        assert told["peak memory of the builder, one process"] == [run["peak_mb"]]
        assert told["the same against a build of a quarter of the images"] == [round(run["peak_ratio"], 2)]
        assert told["peak memory of a worker process"] == [run["peak_mb_two_processes"]["largest_worker"]]


def test_what_the_935_took_and_say_is_what_the_last_run_says():
    study = REFERENCE / "full-tiny"
    took = pd.read_csv(study / "stages.csv").set_index("rule")
    stated = rows("plan.md", "| stage | jobs | seconds, all jobs | median |")
    assert len(stated) == 4
    for rule, jobs, seconds, median in stated:
        assert int(jobs) == took.loc[rule, "jobs"]
        assert int(seconds) == round(took.loc[rule, "seconds"])
        assert float(median) == pytest.approx(took.loc[rule, "median_seconds"], abs=0.006)
    judged = pd.read_csv(study / "tables" / "claims.csv").set_index("id")
    page = " ".join((ROOT / "docs" / "plan.md").read_text().split())
    count = judged["verdict"].value_counts()
    assert (
        f"Of the {len(judged)} claims that it speaks to, {count['reproduced']} are reproduced, "
        f"{count['contradicted']} contradicted, {count['not decidable']} not decidable" in page
    )
    assert set(judged.index[judged["verdict"].eq("contradicted")]) == {"R21", "R23"}
    for claim, words in {
        "R21": "a smaller encoder (r = {:.2f})", "R23": "the clean error (r = {:.2f})",
        "R24": "tell a little (r = {:.2f})", "R19": "tells most (r = {:.2f}, pooled)",
    }.items():  # fmt: skip
        assert words.format(judged.loc[claim, "effect"]) in page


def test_tasks_that_the_935_do_not_learn_are_those_that_the_page_names():
    study = REFERENCE / "full-tiny" / "tables"
    constant = pd.read_csv(study / "baselines.csv")
    constant = constant.loc[constant["predictor"].isin(["training mean", "majority class, labelled, per sample"])]
    table = pd.read_csv(study / "vulnerability.csv.xz")
    clean = table.loc[table["metric"].eq("clean_error")].groupby("task")["mean"].median()
    learned = clean < constant.set_index("task")["error"].reindex(clean.index)
    assert set(learned.index[~learned]) == {"k", "K", "e", "p"}
