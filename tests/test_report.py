"""The report: self-contained, complete, honest about what is missing."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import synthetic
from headstrong.analysis import baselines, build, plan, surrogates, tables, vulnerability
from headstrong.analysis.files import write_table
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.figures import gallery
from headstrong.protocol import ProtocolConfig
from headstrong.report import blocks, facts, page, protocol

SETTINGS = {
    "study": {"name": "quick", "seed": 0},
    "data": {"source": "rooms", "size": [64, 64]},
    "analysis": {"family": "pgd", "norm": "linf", "epsilon": 8 / 255, "steps": 25},
    "protocol": {
        "preset": "corrected",
        "start": "uniform",
        "aggregation": "ratio_of_means",
        "miou": "labelled",
        "shuffle": True,
    },
}


class Page(html.parser.HTMLParser):
    """Checks that tags balance; collects sources, ids and the text."""

    VOID = frozenset(("meta", "link", "img", "br", "hr", "input"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]
        self.ids += [value or "" for key, value in attrs if key == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "quick"
    synthetic.write_study(folder, synthetic.Study(samples=6))
    return folder


@pytest.fixture(scope="module")
def full(results: Path) -> Path:
    table = vulnerability.build_table(results / "evaluations", results / "plan.csv")
    write_table(table, results / "tables" / "vulnerability.csv")
    models, choice = plan.read_plan(results / "plan.csv"), tables.choose_attack(table)
    made = build.build_tables(table, models, choice, draws=50)
    for name, frame in made.items():
        write_table(frame, results / "tables" / f"{name}.csv")
    rows = [("s", baselines.majority("labelled"), 90.0, 6), ("d", baselines.MEAN, 0.016, 6)]
    write_table(pd.DataFrame(rows, columns=list(baselines.COLUMNS)), results / "tables" / "baselines.csv")
    settings = {"dpi": 40, "formats": ["svg"]}
    few = models.loc[models["id"].isin(["single-resnet18-s", "single-resnet18-d", "combinations-resnet18-sd"])]
    rows_of_few = table.loc[table["model"].isin(few["id"])]
    correlations = surrogates.build_table(tables.cells(rows_of_few, few, choice), draws=20)
    arguments = {"choice": choice, "chains": ["sd"], "settings": settings}
    gallery.draw_all(rows_of_few, few, correlations, results / "figures", **arguments)
    for rule, seconds in {"train_model": [3.0, 5.0, 10.0], "build_data": [2.5]}.items():
        for number, value in enumerate(seconds):
            path = results / "benchmarks" / rule / f"{number}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"s\th:m:s\tmax_rss\n{value}\t0:00:03\t10\n")
    for name, code in (("a", "aaaa"), ("b", "bbbb")):
        path = results / "models" / name / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"code": code, "device": "cpu", "git": {"commit": "c0ffee", "dirty": True}}))
    return results


@pytest.fixture(scope="module")
def report(full: Path) -> Page:
    page.render(full, full / "report.html", settings=SETTINGS, code={"analysis": "d1ce"})
    return Page((full / "report.html").read_text())


def test_page_needs_no_network(report: Page, full: Path) -> None:
    assert report.sources
    assert all(source.startswith(("data:", "#", "figures/")) for source in report.sources)
    page_text = (full / "report.html").read_text()
    assert "default-src 'none'" in page_text  # a browser refuses whatever would leave the file
    assert not re.search(r"@import|url\(", page_text[: page_text.index('<script type="text/plain"')])
    assert not re.search(r"<(script|link)[^>]+(src|href)=.(?!data:)", page_text)
    targets = [source[1:] for source in report.sources if source.startswith("#")]
    assert set(targets) <= set(report.ids)
    assert len(report.ids) == len(set(report.ids))


def test_radii_on_the_page_are_as_people_write_them(report: Page) -> None:
    assert "norm, radius 8/255, 25 steps" in report.text
    assert "epsilon: 8/255" in report.text
    assert "0.0313" not in report.text


def test_a_heavy_svg_gives_way_to_a_lighter_png(full: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(full, results)
    index = json.loads((results / "figures" / gallery.INDEX).read_text())
    heavy, alone, *_ = [entry["stem"] for entry in index if not entry["reason"]]
    for stem in (heavy, alone):
        with (results / "figures" / f"{stem}.svg").open("a") as file:
            file.write(f"<!-- {'points ' * page.HEAVY} -->")
    (results / "figures" / f"{heavy}.png").write_bytes(b"a small picture")
    page.render(results, results / "report.html", settings=SETTINGS, code={"analysis": "d1ce"})
    shown = Page((results / "report.html").read_text())
    assert f"figures/{heavy}.png" in shown.text
    assert f"figures/{alone}.svg" in shown.text
    small = base64.b64encode(b"a small picture").decode()
    assert f"data:image/png;base64,{small}" in shown.sources


def test_page_shows_every_figure_with_its_script(report: Page, full: Path) -> None:
    index = json.loads((full / "figures" / gallery.INDEX).read_text())
    drawn = [entry for entry in index if not entry["reason"]]
    assert drawn
    assert sum(source.startswith("data:image/svg") for source in report.sources) == len(drawn)
    for entry in drawn:
        assert entry["module"] in report.text
        assert f"figures/{entry['stem']}.svg" in report.text
    for entry in index:
        assert entry["reason"] == "" or entry["reason"] in report.text
    assert "scripts/draw_figures.py" in report.text


def test_page_says_what_is_what(report: Page) -> None:
    for words in (
        "Study “quick”",
        "models: 31 multi-task, 15 single-task",
        "none leaves the ball",
        "mean error under attack over mean clean error",
        "at a random point of the ball",
        "radius 8/255, 25 steps",
        "The data differ",
        "rooms at 64 x 64",
        "results of different code are mixed",
        "d1ce",
        "c0ffee with changes",
        "source: rooms",
        "train_model 3 18 s 5 s 10 s",
    ):
        assert words in report.text, words
    assert "22.57" not in report.text  # published numbers are shown with three digits
    assert "22.6" in report.text


def test_equal_results_give_equal_pages(full: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        page.render(full, tmp_path / name, settings=SETTINGS, versions={"python": "3"})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_page_states_what_is_missing(full: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("plan.csv", "tables/vulnerability.csv"):
        (tmp_path / name).write_bytes((full / name).read_bytes())
    page.render(tmp_path, tmp_path / "report.html", settings={})
    text = Page((tmp_path / "report.html").read_text()).text
    for words in (
        "tables/table_1.csv",
        "no table of claims",
        "No audit",
        "tables/baselines.csv",
        "figures/index.json",
        "the time each stage took",
        "run records",
    ):
        assert words in text, words
    with pytest.raises(MissingDataError, match="no plan"):
        page.render(tmp_path / "nowhere", tmp_path / "x.html", settings={})


ENCODED = "mean squared errors per pixel and channel of the encoded target"


@pytest.mark.parametrize(
    ("switches", "said", "unsaid"),
    [
        ({"depth": "encoded"}, [ENCODED], ["square metres", "in metres"]),
        ({"depth": "metres"}, ["d and D in square metres, the others encoded", "ours are in metres"], [ENCODED]),
        ({"error_pixels": "valid"}, ["over the pixels that have a label"], ["over all pixels"]),
        ({"error_pixels": "all"}, ["over all pixels, those without a label"], ["over the pixels that have a label"]),
        ({"miou": "all"}, ["unlabelled pixels being a class"], ["over labelled pixels"]),
        ({"normals": "cosine"}, ["The loss of n says nothing"], []),
        ({"normals": "l1"}, [], ["The loss of n says nothing"]),
    ],
)
def test_page_words_its_errors_by_the_protocol(
    full: Path, tmp_path: Path, switches: dict[str, str], said: list[str], unsaid: list[str]
) -> None:
    settings = {**SETTINGS, "protocol": {**ProtocolConfig().resolved(), **switches}}
    page.render(full, tmp_path / "report.html", settings=settings)
    text = Page((tmp_path / "report.html").read_text()).text
    errors = text.partition("Clean errors against a constant prediction")[2].partition("Can robustness be told")[0]
    for words in said:
        assert words in errors, words
    for words in unsaid:
        assert words not in errors, words


def test_page_of_a_thousand_models_stays_small(full: Path, tmp_path: Path) -> None:
    models = (full / "plan.csv").read_text().splitlines()
    rows = (full / "tables" / "vulnerability.csv").read_text().splitlines()
    chosen = [row for row in rows[1:] if row.startswith("combinations-resnet18-sd,")]
    spec = next(row for row in models if row.startswith("combinations-resnet18-sd,"))
    many = [f"copy-{i}" for i in range(1000)]
    (tmp_path / "tables").mkdir()
    changed = [spec.replace("combinations-resnet18-sd", name) for name in many]
    (tmp_path / "plan.csv").write_text("\n".join([models[0], *changed]) + "\n")
    copies = [row.replace("combinations-resnet18-sd", name) for name in many for row in chosen]
    (tmp_path / "tables" / "vulnerability.csv").write_text("\n".join([rows[0], *copies]) + "\n")
    page.render(tmp_path, tmp_path / "report.html", settings=SETTINGS)
    content = (tmp_path / "report.html").read_text()
    assert "1\u202f000" in content
    assert len(content) < 2_000_000  # half a megabyte of it are the libraries


def test_settings_cannot_break_out_of_the_page(full: Path, tmp_path: Path) -> None:
    evil = "</pre></script><script>alert(1)</script>"
    page.render(full, tmp_path / "r.html", settings={**SETTINGS, "note": evil})
    page.render(full, tmp_path / "plain.html", settings=SETTINGS)
    evil_page, plain_page = ((tmp_path / name).read_text() for name in ("r.html", "plain.html"))
    assert evil_page.count("<script") == plain_page.count("<script")
    assert "<script>alert" not in evil_page


def test_broken_parts_are_named(full: Path, tmp_path: Path) -> None:
    (tmp_path / "rule").mkdir()
    (tmp_path / "rule" / "x.tsv").write_text("seconds\n3\n")
    with pytest.raises(BrokenFileError, match=r"x\.tsv: not a Snakemake benchmark"):
        facts.stage_times(tmp_path)
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "run.json").write_text("{")
    with pytest.raises(BrokenFileError, match=r"run\.json: not a run record"):
        facts.run_records(tmp_path)


def test_claims_are_counted_as_in_the_published_tables(full: Path) -> None:
    pairs = tables.pairs_table(_cells(full))
    rows = {(row["encoder"], row["attack"]): row for row in blocks.more_vulnerable(pairs)}
    # facts of the published tables, counted by hand: 9 and 4 of 20 for resnet18, 15 and 8 for resnet50
    assert [rows["resnet18", attack]["published"] for attack in ("main task", "all tasks")] == ["9 of 20", "4 of 20"]
    assert [rows["resnet50", attack]["published"] for attack in ("main task", "all tasks")] == ["15 of 20", "8 of 20"]
    for row in rows.values():
        assert row["clearly_more"] <= row["more"]
        assert row["pairs"] == 20


def _cells(results: Path):
    table = vulnerability.build_table(results / "evaluations", results / "plan.csv")
    return tables.cells(table, plan.read_plan(results / "plan.csv"), tables.choose_attack(table))


def test_clean_errors_are_judged_by_the_constant(full: Path) -> None:
    table = page.read_table(full / "tables" / "vulnerability.csv")
    constant = page.read_table(full / "tables" / "baselines.csv")
    rows = {row["task"]: row for row in blocks.clean_against_constant(table, constant, "labelled")}
    errors = table.loc[table["metric"].eq("clean_error") & table["task"].eq("d"), "mean"]
    assert rows["d"]["gain"] == f"−{100 * (1 - errors.median() / 0.016):.0f} %"
    assert rows["s"]["gain"].startswith("mIoU × ")
    assert rows["n"]["gain"] == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (-0.5, "−0.500"),
        (1234.0, "1234"),
        (0.00001234, "1.23·10⁻⁵"),
        (float("nan"), "–"),
        (None, "–"),
        (12.345, "12.3"),
        (999.6, "1000"),
    ],
)
def test_numbers_for_people(value: float | None, text: str) -> None:
    assert blocks.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.424, "0.42 s"), (38.2, "38 s"), (725, "12 min 5 s"), (12000, "3 h 20 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert facts.duration(seconds) == text


def test_every_switch_of_the_configuration_has_words() -> None:
    config = pytest.importorskip("headstrong.protocol")
    for preset in ("published", "released", "corrected"):
        _, rows = protocol.in_words(config.ProtocolConfig(preset=preset).resolved())
        assert {row["switch"] for row in rows} == set(config.ProtocolConfig.model_fields) - {"preset"}
        assert not [row for row in rows if "no description" in row["meaning"] + row["decides"]]
    _, rows = protocol.in_words({"preset": "corrected", "new_switch": 3})
    assert rows[0]["meaning"] == "(no description)"


def test_a_record_of_another_rule_in_the_same_folder_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "generated").mkdir()
    for name, rule, code in (("a", "evaluate_generators", "aaaa"), ("a-cost", "time_generators", "cccc")):
        (tmp_path / "generated" / f"{name}.json").write_text(json.dumps({"rule": rule, "code": code}))
    assert facts.run_records(tmp_path)["code"] == {"evaluation of generators": {"aaaa": 1}}
