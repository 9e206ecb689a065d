"""The documentation keeps what it says: commands run, links lead somewhere, the site has every page and module."""

from __future__ import annotations

import fnmatch
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import checkout
import pages
import synthetic
from headstrong.analysis.vulnerability import build_table
from headstrong.configfiles import as_yaml, load, study_files
from headstrong.provenance import ROOT
from headstrong.study import Plan

# Run as they stand, in a copy of the checkout that has results of a study called quick.
RUN = (
    r"python -m headstrong (plan|doctor|audit|claims( --format \w+| results/quick)?)\b(?!.*\[)",
    r"python scripts/collect_vulnerability\.py ",
    r"python docs/site\.py > docs/gallery\.md",
)
# Too long or in need of more than a test of pages should make: what runs them instead.
ELSEWHERE = {
    r"python -m headstrong why res": "test_recorded_study.py::test_why_says_what_a_file_is_and_where_it_comes_from",
    r"python -m headstrong export results/": "test_recorded_study.py::test_the_crate_holds_the_study_and_reads_back",
    r"python -m headstrong fetch \w+": "test_fetch.py::test_an_archive_is_unpacked_to_where_the_readers_look",
    r"python -m headstrong verify \w+": "test_verify_command.py::test_exit_codes_and_what_the_command_says",
    r"python scripts/apply_pert": "test_apply_perturbation.py::test_pictures_come_out_as_png_inside_the_ball",
    r"python scripts/evaluate_model": "test_recorded_study.py::test_a_result_comes_out_again_from_its_record",
    r"python scripts/time_generators": "test_generator_timing.py::test_the_program_writes_a_table",
    r"tar xf results\.tar\.gz$": "test_partial_reruns.py::test_restored_results_beside_a_fresh_clone_run_nothing",
}
# Not commands to type but their names, or what stands for one: nothing to run.
NAMES = (
    r"python -m headstrong (fetch|verify) DATASET$",
    r"python -m headstrong (why RESULT|export FOLDER|export|claims \[FOLDER\])$",
    r"make study STUDY=\.\.\.$",  # the names are in the table below it, see test_every_study_is_told_of
    r"git clone$",
)
ALL_STUDIES = "make study STUDY=..."
# Studies of code that a guide tells how to write: tests/test_howto.py plans them.
OF_GUIDES = {block.title for page in (ROOT / "docs/howto").glob("*.md") for block in pages.blocks(page)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with a made-up study and the files that pages tell a reader to write."""
    made = checkout.make(tmp_path_factory.mktemp("pages") / "headstrong")
    reference = ROOT / "results" / "reference"
    shutil.copytree(reference, made / "results" / "reference", ignore=shutil.ignore_patterns("*.png"))
    for figures in reference.glob("*/figures"):
        for image in figures.glob("*.png"):
            (made / image.relative_to(ROOT)).touch()  # the gallery asks which there are
    quick = made / "results" / "quick"
    synthetic.write_study(quick, synthetic.Study())
    (quick / "tables").mkdir(exist_ok=True)
    table = build_table(quick / "evaluations", quick / "plan.csv")
    table.to_csv(quick / "tables" / "vulnerability.csv", index=False)
    (quick / "config.yaml").write_text(as_yaml(load(study_files(["quick"]))))
    for block in (block for page in pages.PAGES for block in pages.blocks(page) if block.title):
        (made / block.title).write_text(block.text)
    return made


def every_command() -> list[tuple[str, str]]:
    """(command, pages that have it), without the environment's folder and the path of modules, each once."""
    found: dict[str, list[str]] = {}
    for page in pages.PAGES:
        for command in pages.commands(page):
            plain = re.sub(r"(^|\s)\.venv/bin/", r"\1", command).removeprefix("PYTHONPATH=src ")
            found.setdefault(plain, []).append(pages.name(page))
    return [(command, ", ".join(sorted(set(names)))) for command, names in found.items()]


COMMANDS = every_command()


@cache
def _plan(folder: Path, overlays: tuple[str, ...]) -> Plan:
    return Plan(load([folder / name for name in ("config.yaml", *overlays)]))


def check_study(folder: Path, overlays: list[str]) -> None:
    """The overlays exist, fit together, and leave something to do."""
    plan = _plan(folder, tuple(overlays))
    assert plan.models or plan.generated.classifiers or plan.importance.trials


def overlays(study: str) -> list[str]:
    """The files of what is given as STUDY."""
    return [f"studies/{name}.yaml" for name in study.strip('"').split()]


def those(program: str) -> list[str]:
    return [command for command, _ in COMMANDS if program in command.split()]


def is_run(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in RUN)


@pytest.mark.parametrize(("command", "where"), COMMANDS)
def test_every_command_is_of_a_kind_that_is_tested(command, where):
    kinds = (
        is_run(command),
        any(re.match(pattern, command) for pattern in (*ELSEWHERE, *NAMES)),
        bool({"make", "snakemake", "pytest"} & set(command.split())) and command != ALL_STUDIES,
        re.match(r"python (-m )?benchmarks[./]", command) is not None,
    )
    assert sum(kinds) == 1, f"{where}: {command}: no test runs this, or it is of two kinds"


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS if is_run(command)])
def test_commands_run(folder, command):
    line = f"{shlex.quote(sys.executable)} {command.removeprefix('python ')}"
    environment = checkout.environment() | {"PYTHONPATH": str(folder / "src")}
    result = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    written = [folder / words for words in re.findall(r"(?:> |--output )(\S+)", command)]
    assert result.stdout or written
    assert all(path.stat().st_size for path in written)


@pytest.mark.parametrize("test", ELSEWHERE.values())
def test_what_is_run_elsewhere_is_run_there(test):
    file, name = test.split("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("pattern", [*RUN, *ELSEWHERE, *NAMES])
def test_no_pattern_is_left_of_a_command_that_is_gone(pattern):
    assert any(re.match(pattern, command) for command, _ in COMMANDS)


@pytest.mark.parametrize("command", those("snakemake"))
def test_snakemake_understands_its_commands(folder, command, monkeypatch):
    from snakemake.cli import parse_args

    monkeypatch.chdir(folder)
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)][1:]
    if "--profile" in words:
        place = words.index("--profile")
        own = words[place + 1].startswith("~")  # the reader's, a copy of ours
        words[place + 1] = "profiles/slurm" if own else words[place + 1]
    _, arguments = parse_args(words)
    files = [str(file) for file in arguments.configfile or []]
    assert all(Path(file).is_file() for file in files), files
    if not OF_GUIDES & set(files):
        check_study(folder, files)
    rules = set(
        re.findall(r"^(?:rule|checkpoint) (\w+):", "\n".join(p.read_text() for p in Path("rules").glob("*.smk")), re.M)
    )
    for target in {*arguments.targets, *(arguments.until or [])}:
        dataset = target.removeprefix("fetch_")
        assert target in rules or f"  {dataset}:" in Path("src/headstrong/data/datasets.yaml").read_text(), target


def test_the_tutorials_studies_can_be_planned_by_snakemake(folder):
    assert "train_model" in checkout.dry_run(folder, study="mine")


@pytest.mark.parametrize("command", [command for command in those("make") if command != ALL_STUDIES])
def test_make_understands_its_commands(folder, command):
    result = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = re.search(r"STUDY=(\S+|\".*?\")", command)
    check_study(folder, overlays(found[1]) if found else [])


@pytest.mark.parametrize("command", [c for c, _ in COMMANDS if re.match(r"python (-m )?(benchmarks|scripts)[./]", c)])
def test_programs_have_the_options_that_pages_name(command):
    program = re.match(r"python (?:-m )?((?:benchmarks|scripts)[./]\w+)", command)
    path = ROOT / f"{program[1].replace('.', '/')}.py"
    text = path.read_text() + (ROOT / "src/headstrong/program.py").read_text()  # where options are that many have
    for option in re.findall(r"--[\w-]+", command):
        assert f'"{option}"' in text, f"{path}: {option}"


@pytest.mark.parametrize("command", those("pytest"))
def test_files_of_tests_that_pages_name_are_there(command):
    for file in re.findall(r"tests/\S+", command):
        assert (ROOT / file).exists()
    for variable in re.findall(r"HEADSTRONG_\w+", command):
        assert any(variable in path.read_text() for path in (ROOT / "tests" / "faults").glob("*.py"))


def test_every_study_is_told_of(folder):
    told = " ".join(page.read_text() for page in pages.PAGES)
    for overlay in (ROOT / "studies").glob("*.yaml"):
        assert re.search(rf"\b{overlay.stem}\b", told), overlay.name
    table = (ROOT / "README.md").read_text().split("| `make study STUDY=...` | what |")[1].split("\n\n")[0]
    for names in re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)[1:]:
        for study in re.findall(r"`(.*?)`", names):
            check_study(folder, overlays(study))


# --- links, site, figures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_links_lead_somewhere(page):
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in pages.anchors(target), link


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_files_that_a_page_names_are_there(page):
    for path in re.findall(
        r"`((?:src|scripts|rules|studies|docs|tests|benchmarks|profiles|envs)/[\w./-]+)`", page.read_text()
    ):
        written = {block.title for other in pages.PAGES for block in pages.blocks(other)}
        assert (ROOT / path).exists() or path in written, path


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_modules_that_a_page_names_are_there(page):
    for module in re.findall(r"`(headstrong(?:\.\w+)+)", page.read_text()):
        parts = module.split(".")
        path = ROOT / "src"
        while parts and (path / parts[0]).is_dir():
            path /= parts.pop(0)
        text = path / f"{parts[0]}.py" if parts and (path / f"{parts[0]}.py").is_file() else path / "__init__.py"
        rest = parts[1:] if text.name != "__init__.py" else parts
        for name in rest[:1]:
            assert re.search(rf"\b{name}\b", text.read_text()), module


def site() -> ModuleType:
    """The module that mkdocs calls, without mkdocs."""
    spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / "docs" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def navigation() -> list[str]:
    text = re.sub(r"!!python\S+ \{.*?\}\}|!!python\S+", "null", (ROOT / "mkdocs.yml").read_text())
    waiting, found = [yaml.safe_load(text)["nav"]], []
    while waiting:
        for entry in waiting.pop():
            for value in entry.values():
                found += [value] if isinstance(value, str) else []
                waiting += [value] if isinstance(value, list) else []
    return found


def test_every_page_is_in_the_navigation_once():
    listed = Counter(navigation())
    assert max(listed.values()) == 1
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    made = {"index.md", "changelog.md", *(f"reference/{floor}.md" for floor in site().FLOORS)}
    assert set(listed) == written | made


def test_every_module_is_on_one_page_of_the_reference():
    listed = Counter(module for _, _, modules in site().FLOORS.values() for module in modules)
    assert max(listed.values()) == 1
    package = ROOT / "src" / "headstrong"
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    assert set(listed) == modules | {path.parent.name for path in package.glob("*/__init__.py")}


def test_the_map_of_floors_has_every_module_once_on_its_floor():
    table = (ROOT / "docs" / "design.md").read_text().split("| floor | modules")[1].split("\n\n")[0]
    package = ROOT / "src" / "headstrong"
    there = {path.stem for path in package.glob("*.py")} - {"__init__"}
    there |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    mapped: dict[str, list[str]] = {}
    current = ""
    for floor, cell in re.findall(r"^\| (\w*) ?\| (`.*?`) \|", table, flags=re.MULTILINE):
        current = floor or current
        for name in re.findall(r"`(.*?)`", cell):
            found = fnmatch.filter(there, name)
            assert found, name
            mapped.setdefault(current, []).extend(found)
    assert Counter(name for names in mapped.values() for name in names) == Counter(there)
    reference = {floor: set(modules) for floor, (_, _, modules) in site().FLOORS.items()}
    assert {floor: {name.strip("/") for name in names} - {"__main__"} for floor, names in mapped.items()} == reference


def test_the_gallery_is_the_one_that_the_command_writes():
    assert (ROOT / "docs" / "gallery.md").read_text() == site().gallery()


def test_pictures_of_pages_are_small_and_used():
    for image in (ROOT / "docs" / "images").iterdir():
        assert image.stat().st_size < 300_000
        assert any(f"images/{image.name}" in page.read_text() for page in pages.PAGES)


def test_the_readme_says_how_much_the_default_study_trains():
    plan = Plan(load(study_files(["quick"])))
    classifiers = len(plan.generated.classifiers) + len(plan.importance.trials)
    counts = (
        f"{len(plan.runs)} models, {classifiers} classifiers and {len(plan.generated.generators)} generators, lets "
    )
    counts += f"{len(plan.hidden.forgettings)} copies"
    assert counts in " ".join((ROOT / "README.md").read_text().split())
    assert plan.count() in (ROOT / "docs" / "tutorial.md").read_text()
    assert plan.count().startswith("25 multi-task, 20 reference")
    assert "45 models come out of 29 trainings" in (ROOT / "docs" / "tutorial.md").read_text()
