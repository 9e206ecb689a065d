"""report.html: one self-contained page about a study, from its tables, figures and records; read without a network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from headstrong import provenance, radius
from headstrong.analysis.files import read_table
from headstrong.analysis.plan import by_own_protocol, read_plan
from headstrong.errors import BrokenFileError
from headstrong.figures.gallery import INDEX
from headstrong.report import (
    attack_blocks,
    blocks,
    evidence,
    explorer,
    facts,
    generated_blocks,
    hidden_blocks,
    importance_blocks,
    program_text,
    protocol,
)

TEMPLATE = "page.html"
INLINED = 12  # figures of one kind shown on the page; a study of five encoders has more, in its figures folder
PUBLISHED_DATA = "Taskonomy's single-building sample at 256 x 256"
TABLES_OF_MODELS = {
    "baselines": "clean errors against a constant predictor",
    "pairs": "the tables of pairs (supplement Tables 2 to 6)",
    "table_1": "Table 1",
    "table_3": "Table 3 (surrogates)",
    "surrogates": "correlations of surrogates",
    "combinations": "the table of all combinations",
    **attack_blocks.TABLES,
}
# Tables of each section of the settings: a study without the section makes none of them.
SECTION_TABLES = {
    "generators": generated_blocks.TABLES,
    "importance": importance_blocks.TABLES,
    "hidden": hidden_blocks.TABLES,
}
TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
HEAVY = 200_000  # bytes of an SVG that a lighter PNG stands for: a page of 1,002 models is to stay below 15 MB


def render(
    results: Path,
    output: Path,
    *,
    settings: Mapping[str, Any],
    code: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    figure_script: str = "scripts/draw_figures.py",
    audit: pd.DataFrame | None = None,
) -> None:
    """Write the report of one study.

    results: the study's folder with plan.csv, tables/ (of a study with models vulnerability.csv is needed; those of
    TABLES_OF_MODELS and SECTION_TABLES are used where they are), figures/ with index.json, benchmarks/ and run
    records. settings: the whole configuration as plain values; settings["protocol"] with every switch resolved.
    code: digests of the code of the stages after evaluation, by stage. versions: of Python and packages; None: those
    running now. figure_script: what drew the figures. audit: findings about the papers' printed numbers, columns
    `evidence.AUDIT_COLUMNS`; None: there were none to be had.
    The page has no time stamp: equal results give equal bytes. What is absent is said on the page.
    Raises MissingDataError where models lack a plan or vulnerability.csv, BrokenFileError for a file that is not as it
    should be.
    """
    spine = _has_models(settings)
    sections = {name: _has_section(name, settings) for name in SECTION_TABLES}
    wanted = dict(TABLES_OF_MODELS) if spine else {}
    for section in (name for name, there in sections.items() if there):
        wanted |= SECTION_TABLES[section]
    found = {name: results / "tables" / f"{name}.csv" for name in wanted}
    tables = {name: read_table(path) for name, path in found.items() if path.is_file()}
    absent = [f"{words} (tables/{name}.csv)" for name, words in wanted.items() if name not in tables]
    gallery, missing = _figures(results / "figures")
    records = facts.run_records(results)
    times = facts.stage_times(results / "benchmarks")
    absent += missing
    absent += [] if times else ["the time each stage took (benchmarks/<rule>/*.tsv)"]
    absent += [] if records["code"] else ["run records of data, training and evaluation"]
    context = {
        "study": results.name,
        "spine": spine,
        "sections": sections,
        "source": _source(settings),
        "published_data": PUBLISHED_DATA,
        "protocol": protocol.in_words(settings.get("protocol") or {}),
        "analysis": _analysis(settings),
        "gallery": gallery,
        "figure_script": figure_script,
        "settings": yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True, width=100),
        "versions": dict(versions if versions is not None else provenance.versions()),
        "lock": provenance.lock_digest(),
        "code": dict(code or {}),
        "records": records,
        "times": times,
        "absent": absent,
        "styles": program_text.styles(),
        "verdicts": evidence.verdicts(evidence.read_claims(results)),
        "audit": evidence.audit_rows(audit),
        **(_spine(results, tables, settings) if spine else {}),
        **attack_blocks.context(tables),
        **generated_blocks.context(tables),
        **importance_blocks.context(tables),
        **hidden_blocks.context(tables),
    }
    provenance.write_atomically(output, _environment().get_template(TEMPLATE).render(context))


def _has_models(settings: Mapping[str, Any]) -> bool:
    """Whether the study has models of its own plan; settings that say nothing of a plan are of one that has."""
    if "plan" not in settings:
        return True
    return any(section is not None for section in (settings["plan"] or {}).values())


def _has_section(section: str, settings: Mapping[str, Any]) -> bool:
    """Whether the settings have a family in this section; null switches one off, or all."""
    return any((settings.get(section) or {}).values())


def _analysis(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The attack that tables and figures show, its radius as a number; the settings may have it as text."""
    found = dict(settings.get("analysis") or {})
    return found | {"epsilon": float(radius.parse(found["epsilon"]))} if "epsilon" in found else found


def _spine(results: Path, tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says about the models of the plan."""
    plan = read_plan(results / "plan.csv")
    vulnerability = read_table(results / "tables" / "vulnerability.csv")
    return {
        "head": facts.headline(plan, vulnerability),
        "explorer": explorer.context(results, plan, vulnerability, tables, _analysis(settings)),
        "libraries": program_text.libraries(),
        "scripts": program_text.programs(),
        **_tables(by_own_protocol(vulnerability, plan), tables, settings),
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = facts.duration
    environment.filters["thousands"] = lambda value: f"{value:,}".replace(",", "\u202f")
    environment.filters["number"] = blocks.number
    environment.filters["radius"] = radius.text
    return environment


def _tables(
    vulnerability: pd.DataFrame, tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Every table of the page; empty where its CSV is absent or has no rows. And what their errors are, in words."""
    switches = settings.get("protocol") or {}
    miou = str(switches.get("miou") or "labelled")
    constant = tables.get("baselines", pd.DataFrame(columns=["task", "predictor", "error", "n"]))
    return {
        "errors": protocol.errors_in_words(switches),
        "metres": switches.get("depth") == "metres",
        "clean": blocks.clean_against_constant(vulnerability, constant, miou),
        "marginal": blocks.marginal(vulnerability),
        "claims": blocks.more_vulnerable(tables["pairs"]) if "pairs" in tables else [],
        "encoders": blocks.encoder_tables(tables["pairs"]) if "pairs" in tables else [],
        "table_1": blocks.table_1(tables["table_1"]) if "table_1" in tables else [],
        "table_3": blocks.surrogate_rows(tables["table_3"]) if "table_3" in tables else [],
        "best": blocks.best_sets(tables["combinations"]) if "combinations" in tables else [],
    }


def _figures(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The figures of index.json with their data, and what is missing."""
    index = folder / INDEX
    if not index.is_file():
        return [], [f"figures (figures/{INDEX})"]
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        fields = [
            {key: str(entry[key]) for key in ("stem", "title", "caption", "module", "reason")} for entry in entries
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenFileError(f"{index}: not an index of figures; delete it and draw the figures again") from error
    shown: list[dict[str, Any]] = []
    missing = []
    for entry in fields:
        path = _drawn(folder, entry["stem"])
        if entry["reason"] or path is None:
            reason = entry["reason"] or f"figures/{entry['stem']}.svg and .png are not there"
            missing.append(f"figure “{entry['title']}”: {reason}")
            continue
        inlined = sum(other["module"] == entry["module"] and other["data"] != "" for other in shown) < INLINED
        data = base64.b64encode(path.read_bytes()).decode() if inlined else ""
        shown.append({**entry, "file": path.name, "data": data and f"data:{TYPES[path.suffix]};base64,{data}"})
    return shown, missing


def _drawn(folder: Path, stem: str) -> Path | None:
    """The file of a figure that the page shows: the SVG, or the PNG where there is no other or it is much lighter."""
    found = [path for suffix in TYPES if (path := folder / f"{stem}{suffix}").is_file()]
    if found and found[0].stat().st_size > HEAVY:
        return min(found, key=lambda path: path.stat().st_size)
    return found[0] if found else None


def _source(settings: Mapping[str, Any]) -> str:
    data = settings.get("data") or {}
    size = data.get("size")
    extent = f" at {' x '.join(str(side) for side in size)}" if size else ""
    return f"{data.get('source', 'unnamed data')}{extent}"


def _plain(value: Any, key: str = "") -> Any:
    """Mappings and sequences as dictionaries and lists, which YAML writes without type marks, and radii as text.

    key: what the value is called.
    """
    if isinstance(value, Mapping):
        return {str(name): _plain(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, key) for item in value]
    if key in radius.KEYS and isinstance(value, float):
        return str(radius.Radius(value))
    return value if isinstance(value, str | int | float | bool | None) else str(value)
