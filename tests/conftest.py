"""Fixtures that several test files share: one synthetic study and its tables, a web server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import http_server
import synthetic
from headstrong.analysis import plan, tables, vulnerability


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "quick"
    synthetic.write_study(folder, synthetic.Study())
    return folder


@pytest.fixture(scope="module")
def table(results: Path) -> pd.DataFrame:
    return vulnerability.build_table(results / "evaluations", results / "plan.csv")


@pytest.fixture(scope="module")
def cells(results: Path, table: pd.DataFrame) -> pd.DataFrame:
    return tables.cells(table, plan.read_plan(results / "plan.csv"), tables.choose_attack(table))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http_server.Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http_server.running() as found:
        yield found
