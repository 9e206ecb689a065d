"""The explorer: its numbers against the tables, and the page as a browser shows it, at 1,002 models."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import browser
import thousand
from headstrong.analysis import audit
from headstrong.analysis.audit_finding import NO, OPEN, YES
from headstrong.errors import BrokenFileError
from headstrong.figures.generated_pictures import palette
from headstrong.report import evidence, model_data, page, pictures, program_text

CLAIMS = pd.DataFrame(
    [
        ("R1", "R", "Tasks <b>do not</b> help", "9/20", "share", 0.35, "", 0.15, 0.59, 25, "", "reproduced", "inside"),
        ("B1", "B", "DGBA is stronger", "", "gain", -1.25, "%", -3.1, 0.6, 2, "corrected", "not decidable", "holds 0"),
    ],
    columns=list(evidence.CLAIM_COLUMNS),
)  # fmt: skip
FINDINGS = pd.DataFrame(
    [
        ("A1", "ghamizi2022", "Table 1", "mean of row s", "0.86", "0.82", NO, "mean of five cells"),
        ("A2", "ghamizi2022", "Table 1", "mean of row d", "0.5", "0.5", YES, "mean of five cells"),
        ("A3", "ghamizi2022", "Table 3", "r of early epochs", "not run", "0.55", OPEN, "pooled"),
    ],
    columns=list(evidence.AUDIT_COLUMNS),
)
MODEL = "weighted-resnet18-s_D"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explorer") / "full"
    settings = thousand.write(folder)
    CLAIMS.to_csv(folder / "tables" / "claims.csv", index=False)
    page.render(folder, folder / "report.html", settings=settings, audit=FINDINGS)
    return folder


@pytest.fixture(scope="module")
def vulnerability(study: Path) -> pd.DataFrame:
    return page.read_table(study / "tables" / "vulnerability.csv")


@pytest.fixture(scope="module")
def data(study: Path) -> dict[str, Any]:
    text = (study / "report.html").read_text()
    found = re.search(r'<script type="application/json" id="explorer-data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def tab(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    if browser.PROGRAM is None:
        pytest.skip("no Chromium on this machine")
    with browser.browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def address(study: Path, part: str = "") -> str:
    return f"{(study / 'report.html').as_uri()}{part}"


def of(vulnerability: pd.DataFrame, task: str, **wanted: object) -> float:
    rows = vulnerability.loc[vulnerability["model"].eq(MODEL) & vulnerability["task"].eq(task)]
    for key, value in wanted.items():
        rows = rows.loc[rows[key].eq(value)]
    assert len(rows) == 1
    return float(rows["mean"].iloc[0])


def test_the_page_of_1002_models_is_whole_and_small(study: Path, data: dict[str, Any]) -> None:
    assert len(data["models"]) == 1002
    assert sum(len(one["tasks"]) > 1 for one in data["models"].values()) == 936  # and the model of five tasks
    assert (study / "report.html").stat().st_size < 6_000_000


def test_numbers_are_those_of_the_table(vulnerability: pd.DataFrame, data: dict[str, Any]) -> None:
    model = data["models"][MODEL]
    assert model["clean"]["s"][0] == pytest.approx(of(vulnerability, "s", metric="clean_error"), rel=1e-3)
    setting = next(k for k, one in enumerate(data["settings"]) if one["words"].startswith("pgd, 8/255"))
    single = next(a for a in model["attacks"] if a[:3] == [setting, "single", "D"])
    wanted = {"family": "pgd", "balancer": "single", "attacked": "D"}
    grown = of(vulnerability, "s", metric="relative_task_vulnerability", **wanted)
    assert single[3]["s"][1] == pytest.approx(grown, rel=5e-3)
    assert len(model["attacks"]) == vulnerability.loc[vulnerability["model"].eq(MODEL), "attack"].nunique() - 1


def test_heat_maps_cover_every_encoder_and_pair(data: dict[str, Any]) -> None:
    maps = {(one["group"], one["quantity"]): one for one in data["maps"] if one["setting"] in (None, 0)}
    groups = {group for group, _ in maps}
    assert groups == {
        "resnet18", "resnet50", "resnet152", "wide_resnet50_2", "xception", "resnet18, 50 epochs", "resnet18, weighted",
    }  # fmt: skip
    assert data["maps"][0]["group"] == "resnet18"
    cells = maps["resnet18", "single"]["cells"]
    assert len(cells) == 121
    main, auxiliary, value, _, model = next(cell for cell in cells if cell[:2] == ["n", "s"])
    values = next(a for a in data["models"][model]["attacks"] if a[:3] == [0, "single", main])[3]
    assert (auxiliary, value) == ("s", values["n"][1])


def test_an_early_model_has_the_curve_of_its_run(data: dict[str, Any]) -> None:
    early = data["models"]["early-resnet18-sd"]
    assert early["run"] == "combinations-resnet18-sd"
    assert data["histories"][early["run"]]["epochs"][-1] == 150
    assert len(data["histories"][early["run"]]["epochs"]) == model_data.MOST_POINTS


def test_claims_and_audit_are_shown_as_text(study: Path) -> None:
    text = (study / "report.html").read_text()
    assert "Tasks &lt;b&gt;do not&lt;/b&gt; help" in text
    assert "0.150 to 0.590" in text
    assert "−3.10 to 0.600" in text
    assert "mean of five cells" in text


def test_the_audit_keeps_its_three_answers() -> None:
    findings = audit.findings()
    shown = evidence.audit_rows(findings)
    assert [row["answer"] for row in shown["rows"]] == list(findings["agrees"])
    said = findings["agrees"].value_counts()
    assert {one["answer"]: one["number"] for one in shown["counts"]} == {key: said[key] for key in (YES, NO, OPEN)}
    marks = {row["answer"]: (row["sign"], row["words"], row["kind"]) for row in shown["rows"]}
    assert marks == {
        YES: ("✓", "agrees", "reproduced"),
        NO: ("✗", "differs", "contradicted"),
        OPEN: ("?", OPEN, "not-decidable"),
    }


def test_an_answer_of_the_audit_that_is_none_is_named() -> None:
    with pytest.raises(BrokenFileError, match="audit: answer 'perhaps'"):
        evidence.audit_rows(FINDINGS.assign(agrees="perhaps"))


def test_the_page_says_the_answers_of_the_audit_and_where_they_are_from(study: Path, tab: browser.Browser) -> None:
    tab.open(address(study))
    counts, first, *_ = tab.run("[...document.querySelectorAll('#audit ~ p')].map((one) => one.innerText)")
    assert " ".join(counts.split()) == "✓ 1 agrees ✗ 1 differs ? 1 not decidable"
    rows = tab.run("[...document.querySelectorAll('table.audit tbody th')].map((one) => one.innerText.trim())")
    assert rows == ["✗ differs", "✓ agrees", "? not decidable"]
    assert "No result of this study" not in first  # of runs there are some, which may be this study's
    assert "results/reference" in first
    assert not audit.findings().query("table.str.startswith('our runs')").empty  # those that the sentence is about


def test_a_verdict_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    CLAIMS.assign(verdict="perhaps").to_csv(tmp_path / "tables" / "claims.csv", index=False)
    with pytest.raises(BrokenFileError, match=r"claims\.csv: verdict 'perhaps'"):
        evidence.read_claims(tmp_path)
    (tmp_path / "pictured").mkdir()
    (tmp_path / "pictured" / "a.h5").write_text("")
    with pytest.raises(BrokenFileError, match=r"a\.h5: no pictures"):
        pictures.of_models(tmp_path / "pictured")


def test_libraries_are_those_their_authors_publish() -> None:
    folder = program_text.HERE / "vendor"
    said = dict(re.findall(r"`([\w.-]+\.js)`.*`([0-9a-f]{64})`", (folder / "README.md").read_text()))
    assert {f"vendor/{name}" for name in said} == set(program_text.LIBRARIES)
    for name, digest in said.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_maps_are_coloured_by_one_scale() -> None:
    mask = np.array([[True, True], [True, False]])
    truth = np.array([[[0.0, 0.5], [1.0, 9.0]]])
    drawn = pictures.colours("d", [truth, truth, truth + 5], mask, 0)
    assert drawn[0][1, 1].tolist() == list(pictures.UNLABELLED)
    assert (drawn[0][0, 0] == drawn[1][0, 0]).all()
    assert (drawn[2] == drawn[2][0, 0]).all()  # all beyond the truth: one colour
    classes = np.array([[0, 1], [2, 2]], dtype=np.uint8)
    shown = pictures.colours("s", [classes, classes, classes], mask, 3)[1]
    assert (shown[1, 0] == np.rint(palette(3)[2] * 255)).all()
    grey = pictures.colours("n", [np.zeros((3, 2, 2))] * 3, np.ones((2, 2), dtype=bool), 0)[2]
    assert grey.tolist() == [[[128] * 3] * 2] * 2


def shown(tab: browser.Browser) -> list[str]:
    return tab.run("shownModels()")


def test_filters_sorts_and_opens_a_model(study: Path, tab: browser.Browser, data: dict[str, Any]) -> None:
    tab.open(address(study))
    assert len(shown(tab)) == 1002
    tab.run("byId('filters').elements.tasks.focus()")
    for letter in "nE":
        tab.press(letter, ord(letter), letter)
    both = [name for name, one in data["models"].items() if {"n", "E"} <= set(one["tasks"])]
    assert sorted(shown(tab)) == sorted(both)
    assert tab.run("byId('count').textContent") == f"{len(both)} of 1\u202f002 models"
    tab.run("const heading = document.querySelector('[data-key=clean] button'); heading.focus()")
    tab.press("Enter", 13, "\r")
    tab.press("Enter", 13, "\r")
    assert tab.run("heading.parentElement.getAttribute('aria-sort')") == "descending"
    errors = [data["models"][name]["clean"][data["models"][name]["main"]][0] for name in shown(tab)]
    assert errors == sorted(errors, reverse=True)
    first = shown(tab)[0]
    tab.run("document.querySelector('#model-table tbody tr:not([hidden]) a').focus()")
    tab.press("Enter", 13, "\r")
    tab.wait_for("!byId('model-view').hidden")
    assert tab.run("document.activeElement.textContent") == first
    assert tab.run("document.querySelectorAll('#model-view .plot svg path').length") > 0
    tab.run("document.querySelector('#model-view [rel=next]').click()")
    tab.wait_for(f"document.querySelector('#model-view h2').textContent === {json.dumps(shown(tab)[1])}")
    tab.run("history.back()")
    tab.wait_for(f"document.querySelector('#model-view h2').textContent === {json.dumps(first)}")
    tab.run("document.querySelector('#model-view a').click()")
    tab.wait_for("byId('model-view').hidden")
    assert tab.run("document.activeElement.textContent") == first  # back at the row it came from
    assert tab.complaints == []


def test_another_task_changes_the_numbers(study: Path, tab: browser.Browser, data: dict[str, Any]) -> None:
    tab.open(address(study))
    tab.run("byId('filters').elements.task.value = 'n'")
    tab.run("byId('filters').elements.task.dispatchEvent(new Event('change', { bubbles: true }))")
    assert len(shown(tab)) == sum("n" in one["tasks"] for one in data["models"].values())
    cell = "byId('model=combinations-resnet18-sn').cells[keys.indexOf('clean')].textContent"
    error = data["models"]["combinations-resnet18-sn"]["clean"]["n"][0]
    assert float(tab.run(cell)) == pytest.approx(error, rel=5e-3)
    assert tab.complaints == []


def test_plots_are_drawn_when_seen_and_lead_to_models(study: Path, tab: browser.Browser) -> None:
    tab.open(address(study))
    assert tab.run("typeof Plot") == "undefined"  # nothing of the library before the first plot
    tab.run("byId('maps').scrollIntoView()")
    tab.wait_for("document.querySelectorAll('#map svg a').length === 121")
    tab.run("byId('map-choice').elements.group.value = 'xception'")
    tab.run("byId('map-choice').elements.group.dispatchEvent(new Event('change', { bubbles: true }))")
    links = tab.run(
        "[...document.querySelectorAll('#map a')].map((one) => one.getAttributeNS(null, 'href') ?? one.href.baseVal)"
    )
    assert len(links) == 121
    assert all("xception" in link for link in links)
    tab.run("byId('scatters').scrollIntoView()")
    tab.wait_for("document.querySelectorAll('#scatter svg a').length > 100")
    tab.run("document.querySelector('#scatter a').dispatchEvent(new MouseEvent('click', { bubbles: true }))")
    tab.wait_for("!byId('model-view').hidden")
    assert tab.complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1200, "dark")])
def test_no_sideways_scroll_and_readable_colours(study: Path, tab: browser.Browser, width: int, scheme: str) -> None:
    for part in ("", f"#model={MODEL}"):
        tab.open(address(study, part), width, 800, prefers_color_scheme=scheme)
        tab.run("dispatchEvent(new Event('beforeprint'))")  # draws every plot
        assert tab.run("document.documentElement.scrollWidth") <= width
    dark = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")
    assert tab.complaints == []


def test_first_paint_comes_soon(study: Path, tab: browser.Browser) -> None:
    # Two seconds are the aim; the best of three, since other programs may be busy beside.
    times = []
    for _ in range(3):
        tab.open(address(study))
        times.append(tab.run("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert min(times) < 2000


def test_without_programs_all_numbers_are_there(study: Path, tab: browser.Browser) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.call("Page.navigate", url=address(study))
        text = ""
        while "<h3>Settings</h3>" not in text:
            with contextlib.suppress(RuntimeError):  # the document that was there before, gone between the two
                root = tab.call("DOM.getDocument", depth=0)["root"]["nodeId"]
                text = tab.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert text.count('<tr id="model=') == 1002
    assert 'class="programs"' not in text
