"""The audit: one changed cell flips a finding, our runs may be missing, formats read back, the page is current."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from headstrong import cli, published
from headstrong.analysis import audit, audit_text
from headstrong.analysis.audit_runs import COST, SURROGATES, SWITCHES
from headstrong.errors import BrokenFileError
from headstrong.provenance import ROOT

T1, T2, T3 = "ghamizi_table_1", "ghamizi_table_2", "ghamizi_table_3"
S1, S26 = "ghamizi_supplement_table_1", "ghamizi_supplement_tables_2_to_6"
OFFICE, DENSE, COSTS, AVERAGES = (
    "mta_tables_1_to_4_office31",
    "mta_tables_5_and_6_nyuv2",
    "mta_table_7_cost",
    "mta_tables_1_to_4_averages",
)
CAMRI, PROSE = "camri_table_1", "statements"


def changed(name: str, column: str, value: float, where: dict[str, object]):
    """A loader of the published tables in which one table has another number in the cells where ... holds."""

    def load(wanted: str) -> pd.DataFrame:
        frame = published.load(wanted)
        if wanted != name:
            return frame
        chosen = pd.Series(True, index=frame.index)
        for key, held in where.items():
            chosen &= frame[key].eq(held)
        assert chosen.sum() == 1, where
        frame[column] = frame[column].astype(float)
        frame.loc[chosen, column] = value
        return frame

    return load


def pair(main: str, auxiliary: str, **more: object) -> dict[str, object]:
    return {"main": main, "auxiliary": auxiliary, **more}


# finding, its answer before and after, table, column, new number, the cell
FLIPS = [
    ("t1-weights-single", "yes", "no", T1, "value", 9.6, pair("n", "d", weights="weighted", attacked="single")),
    ("t1-weights-multi", "yes", "no", T1, "value", 9.6, pair("n", "d", weights="weighted", attacked="multi")),
    ("t1-s-alone", "yes", "no", T1, "value", 0.8, pair("s", "d", weights="uniform", attacked="single")),
    ("t1-s-weighted", "yes", "no", T1, "value", 0.9, pair("s", "E", weights="weighted", attacked="multi")),
    ("t2-diagonal-wgd", "yes", "no", T2, "value", 20.0, pair("n", "n", weights="weighted", attack="wgd")),
    ("t2-at-least-one-apgd-uniform", "no", "yes", T2, "value", 80.0, pair("E", "s", weights="uniform", attack="apgd")),
    ("t2-at-least-one-wgd-uniform", "no", "yes", T2, "value", 0.89, pair("s", "d", weights="uniform", attack="wgd")),
    ("t2-at-least-one-wgd-weighted", "no", "yes", T2, "value", 0.89, pair("s", "d", weights="weighted", attack="wgd")),
    ("supplement-1-models", "no", "yes", S1, "models", 568.0, {"setting": "S1"}),
    ("supplement-1-935", "no", "yes", PROSE, "value", 121 + 25, {"name": "multi_task_models"}),
    ("text-all-combinations", "no", "yes", PROSE, "value", 2047, {"name": "multi_task_models"}),
    ("supplement-1-sizes", "yes", "no", S1, "parameters_millions", 29.76, {"setting": "S5"}),
    (
        "supplement-more-vulnerable-large",
        "no",
        "yes",
        S26,
        "value",
        9.0,
        pair("D", "E", encoder="resnet50", quantity="single"),
    ),
    ("supplement-diagonal", "yes", "no", S26, "value", 7.9, pair("d", "d", encoder="resnet18", quantity="multi")),
    ("t3-n-1", "no", "yes", T3, "p_value", 0.012, {"proxy": "50 epochs"}),
    ("t3-text", "no", "yes", PROSE, "value", 0.98, {"name": "pearson_clean_performance"}),
    ("t3-surrogate-single", "no", "yes", T3, "pearson", 0.914, {"proxy": "resnet18"}),
    ("t3-surrogate-multi", "yes", "no", T3, "pearson", 0.95, {"proxy": "resnet18"}),
    ("t3-clean-relative", "no", "yes", T3, "pearson", 0.203, {"proxy": "clean performance"}),
    (
        "mta-averages",
        "no",
        "yes",
        AVERAGES,
        "percent",
        87.94,
        {"table": 1, "epsilon_255": 5, "method": "MTA", "metric": "fooling_ratio"},
    ),
    (
        "mta-lead",
        "no",
        "yes",
        AVERAGES,
        "percent",
        87.94,
        {"table": 1, "epsilon_255": 5, "method": "MTA", "metric": "fooling_ratio"},
    ),
    (
        "mta-possible",
        "yes",
        "no",
        OFFICE,
        "percent",
        50.0,
        {"table": 1, "epsilon_255": 10, "method": "GAP", "domain": "dslr", "metric": "accuracy"},
    ),
    (
        "mta-table-1-wins",
        "yes",
        "no",
        OFFICE,
        "percent",
        75.0,
        {"table": 1, "epsilon_255": 5, "method": "MTA", "domain": "dslr", "metric": "fooling_ratio"},
    ),
    (
        "mta-table-2-wins",
        "yes",
        "no",
        OFFICE,
        "percent",
        70.0,
        {"table": 2, "epsilon_255": 5, "method": "MTA", "domain": "dslr"},
    ),
    (
        "mta-table-3-dslr",
        "yes",
        "no",
        OFFICE,
        "percent",
        70.0,
        {"table": 3, "epsilon_255": 5, "method": "MTA", "domain": "dslr", "metric": "fooling_ratio"},
    ),
    (
        "mta-table-4-average",
        "yes",
        "no",
        OFFICE,
        "percent",
        40.0,
        {"table": 4, "epsilon_255": 5, "method": "MTA", "domain": "dslr"},
    ),
    (
        "mta-table-5-instance-mta",
        "yes",
        "no",
        DENSE,
        "value",
        6.0,
        {"table": 5, "mode": "per-instance", "method": "MTA", "metric": "seg_miou"},
    ),
    ("mta-table-7-time", "yes", "no", COSTS, "inference_ms", 400, {"mode": "universal", "method": "MTA"}),
    ("mta-table-7-weights", "yes", "no", COSTS, "parameters_printed", 4.0, {"mode": "per-instance", "method": "MTA"}),
    (
        "camri-best",
        "no",
        "yes",
        CAMRI,
        "recall",
        0.79,
        {"loss": "WCE", "dataset": "cifar10", "important_class": "worst1"},
    ),
    (
        "camri-largest-gain",
        "yes",
        "no",
        CAMRI,
        "recall",
        0.3,
        {"loss": "CAMRI", "dataset": "awa2", "important_class": "worst2"},
    ),
    (
        "camri-accuracy",
        "yes",
        "no",
        CAMRI,
        "accuracy",
        0.8795,
        {"loss": "CAMRI", "dataset": "cifar10", "important_class": "median"},
    ),
    (
        "camri-printed-keep",
        "yes",
        "no",
        CAMRI,
        "accuracy",
        0.97,
        {"loss": "ArcFace", "dataset": "gtsrb", "important_class": "median"},
    ),
    (
        "camri-ce-once",
        "yes",
        "no",
        CAMRI,
        "accuracy",
        0.88,
        {"loss": "CE", "dataset": "cifar10", "important_class": "median"},
    ),
]


@pytest.mark.parametrize(("name", "before", "after", "table", "column", "value", "where"), FLIPS)
def test_one_changed_cell_flips_the_finding_that_rests_on_it(name, before, after, table, column, value, where):
    assert audit.findings().set_index("id").loc[name, "agrees"] == before
    assert audit.findings(changed(table, column, value, where)).set_index("id").loc[name, "agrees"] == after


def test_a_cell_that_two_tables_share_is_missed_when_it_changes():
    where = pair("d", "s", encoder="xception", quantity="multi")
    found = audit.findings(changed(S26, "value", 3.7, where)).set_index("id").loc["supplement-duplicates"]
    assert "4 of 250" in found["recomputed"]
    assert "d|s" not in found["recomputed"]


@pytest.fixture
def reference(tmp_path) -> Path:
    for table in (SWITCHES, SURROGATES, COST):
        (tmp_path / table).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(audit.REFERENCE / table, tmp_path / table)
    return tmp_path


def of_runs(folder: Path) -> pd.DataFrame:
    found = audit.findings(reference=folder).set_index("id")
    return found.loc[found["table"].str.startswith("our runs")]


def test_what_a_switch_changes_in_our_runs(reference):
    rows = list(csv.DictReader((audit.REFERENCE / SWITCHES).open(newline="", encoding="utf-8")))
    told = of_runs(reference)
    mine = [
        row
        for row in rows
        if row["switch"] == "l2_step=released"
        and row["attack"].startswith("l2.total")
        and row["metric"] == "relative_task_vulnerability"
    ]
    assert [row["task"] for row in mine] == ["d", "n", "s"]
    for row in mine:
        text = f"{row['task']} {float(row['base_value']):.3g} to {float(row['value']):.3g}"
        assert text in told.loc["switch-l2_step-released", "recomputed"]
    assert any(abs(float(row["difference"])) > 2 * float(row["standard_error"]) for row in mine)
    assert told.loc["switch-l2_step-released", "agrees"] == "no"
    assert told.loc["switch-error_pixels-all", "agrees"] == "yes"  # embedded data have a label at every pixel
    assert set(told["agrees"]) == {"yes", "no", "not decidable"}
    # every switch that has been run is told of, once
    whole = {switch for switch in {row["switch"] for row in rows} if switch.count(";") < 3}
    assert {t.removeprefix("our runs, switch ").replace(", ", ";") for t in told["table"] if "switch" in t} == whole


def test_a_switch_without_effect_agrees(reference):
    frame = pd.read_csv(reference / SWITCHES, keep_default_na=False)
    chosen = frame["switch"].eq("l2_step=released")
    frame.loc[chosen, "value"] = frame.loc[chosen, "base_value"]
    frame.loc[chosen, ["difference", "relative_difference"]] = 0.0
    frame.to_csv(reference / SWITCHES, index=False)
    assert of_runs(reference).loc["switch-l2_step-released", "agrees"] == "yes"
    frame.loc[chosen, "difference"], frame.loc[chosen, "standard_error"] = 0.1, 0.06
    frame.to_csv(reference / SWITCHES, index=False)
    assert of_runs(reference).loc["switch-l2_step-released", "agrees"] == "not decidable"


def test_runs_that_are_not_there_or_broken(reference, tmp_path_factory):
    empty = of_runs(tmp_path_factory.mktemp("empty"))
    assert empty["agrees"].eq("not decidable").all()
    assert empty["recomputed"].str.fullmatch(r"results/reference/\S+\.csv is not there").all()
    assert list(empty.index) == list(of_runs(reference).index)
    (reference / SWITCHES).write_text("model,value\nfirst,none of a number\n", encoding="utf-8")
    with pytest.raises(BrokenFileError, match=r"switches\.csv"):
        of_runs(reference)


def test_a_package_without_its_checkout_says_so(tmp_path):
    shutil.copytree(ROOT / "src" / "headstrong", tmp_path / "lib" / "src" / "headstrong")
    result = subprocess.run(
        [sys.executable, "-m", "headstrong", "audit"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "lib" / "src")},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "switches.csv is not there" in " ".join(result.stdout.split())


def printed(capsys, *arguments: str) -> str:
    assert cli.main(["audit", *arguments]) == 0
    return str(capsys.readouterr().out)


def test_csv_reads_back(capsys):
    text = printed(capsys, "--format", "csv")
    assert text.count("\r\n") == text.count("\n") == len(audit.findings()) + 1
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == list(audit.COLUMNS)
    assert rows == audit.findings().to_numpy().tolist()


def test_markdown_reads_back(capsys):
    def plain(cell: str) -> str:
        return re.sub(r"\\(.)", r"\1", cell.strip().replace("&lt;", "<"))

    lines = printed(capsys, "--format", "md").splitlines()
    header, rule, *rows = [[plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert header == list(audit.COLUMNS)
    assert set(rule) == {"---"}
    assert rows == audit.findings().to_numpy().tolist()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_the_terminal_and_holds_every_word(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = printed(capsys)
    assert max(map(len, text.splitlines())) <= width
    letters = re.sub(r"\s", "", text)
    for row in audit.findings().to_dict("records"):
        for column in ("id", "paper", "table", "statement", "recomputed", "how"):
            assert re.sub(r"\s", "", row[column]) in letters
    assert letters.endswith(re.sub(r"\s", "", audit_text.counted(audit.findings())))


def test_a_wrong_format_is_one_line(capsys):
    assert cli.main(["audit", "--format", "xml"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: --format xml: expected table, csv or md\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom headstrong import cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'pandas', 'numpy', 'scipy', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    assert re.search(r"^\s+audit\s", result.stdout, flags=re.MULTILINE)


def test_the_page_is_current(capsys):
    page = printed(capsys, "--page")
    assert (ROOT / "docs" / "audit.md").read_text(encoding="utf-8") == page, "run: " + audit_text.COMMAND
    assert audit_text.COMMAND in page
