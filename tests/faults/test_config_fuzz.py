"""A configuration that is wrong anywhere, in any way, is a plan with all its jobs, or one clear line; never more.

HEADSTRONG_FAULT_CONFIGS=5000 python -m pytest -m slow tests/faults/test_config_fuzz.py
"""

from __future__ import annotations

import copy
import itertools
import os
import resource
import signal
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checkout
from headstrong.configfiles import load, merge, parse
from headstrong.errors import ConfigError
from headstrong.jobs import to_dict
from headstrong.provenance import ROOT, settings_json
from headstrong.study import Plan, plan_settings

CONFIGS = int(os.environ.get("HEADSTRONG_FAULT_CONFIGS", "1000"))
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
OVERLAYS = {path.name: yaml.safe_load(path.read_text()) or {} for path in sorted((ROOT / "studies").glob("*.yaml"))}
LONGEST = 600  # letters of a message
PATIENCE = 60  # seconds after which a configuration counts as one that hangs
MEMORY = 2 << 30  # bytes of addresses that it may take
Place = tuple[Any, ...]


def everything(plan: Plan) -> None:
    """Make what the rules ask of a plan: every job as JSON; no two of one kind have one name."""
    jobs: list[Any] = [plan_settings(plan.config), plan.count()]
    if plan.models:
        jobs += [plan.data_settings(split) for split in ("train", "test")]
    jobs += [to_dict(plan.training_job(run.id)) for run in plan.runs]
    evaluations = [plan.evaluation_job(model.id) for model in plan.models]
    jobs += map(to_dict, evaluations)
    made, favouring, hidden = plan.generated, plan.importance, plan.hidden
    jobs += [to_dict(made.classifier_job(one.id)) for one in made.classifiers]
    jobs += [to_dict(made.generator_job(one.id)) for one in made.generators]
    jobs += [to_dict(made.family_job(family)) for family in plan.config.generator_families]
    for name, pictures in plan.config.picture_sets.items():
        jobs += [made.picture_settings(name, domain, "train") for domain in pictures.domains]
    jobs += [to_dict(favouring.classifier_job(one.id)) for one in favouring.trials]
    for family in plan.config.importance_families:
        jobs += [to_dict(favouring.family_job(family)), favouring.choice_settings(family)]
    jobs += [to_dict(hidden.forgetting_job(one.id)) for one in hidden.forgettings]
    jobs += [to_dict(hidden.hidden_job(one.id)) for one in hidden.turns]
    for job in jobs:
        assert "\n" not in settings_json(job)
    for names in (
        [model.id for model in plan.models], [one.id for one in made.classifiers], [one.id for one in made.generators],
        [one.id for one in favouring.trials], [one.id for one in hidden.turns],
        *([attack.name for attack in job.attacks] for job in evaluations),
    ):  # fmt: skip
        assert len(set(names)) == len(names)
        assert max(map(len, names), default=0) < 240  # names of files


def check(make: Any, *arguments: Any) -> str | None:
    """What is wrong with a configuration in one line; None where it is a plan."""
    signal.alarm(PATIENCE)
    try:
        everything(Plan(make(*arguments)))
    except ConfigError as error:
        said = str(error)
        assert said.isprintable(), repr(said)
        assert len(said) <= LONGEST, said
        assert ": " in said, said
        return said
    return None


@pytest.fixture(autouse=True)
def _bounds():
    """Bounds on the time and the memory of a configuration."""

    def hangs(*_: object) -> None:
        raise AssertionError("a configuration hangs")

    before, limits = signal.signal(signal.SIGALRM, hangs), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    signal.signal(signal.SIGALRM, before)


def places(node: Any, place: Place = ()) -> Iterator[Place]:
    """The place of everything in a tree."""
    if place:
        yield place
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*place, key))


NUMBERS = st.one_of(
    st.integers(-3, 300), st.floats(), st.sampled_from([10**9, 10**30, -(10**30), 2**31, 2**63, 1e308, 5e-324, -0.0]),
)  # fmt: skip
KNOWN = ["sdDnkKeEprA", "ds", "null", "resnet18", "worst1", "pgd", "domains", "../../etc", "a/b", "single"]
WORDS = st.one_of(
    st.text(max_size=6), st.text(string.printable, max_size=8), st.sampled_from(KNOWN),
    st.sampled_from(["a" * 5000, "x\u202e\x00y", "é", "~", ".."]),
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
KEYS = st.one_of(WORDS, NUMBERS, st.none())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=2)),
    max_leaves=6,
)
CHANGES = st.sampled_from(["drop", "rename", "replace", "number", "nest", "list", "add", "text", "move", "double"])


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A study's name, and all of its configuration with one to four things in it changed."""
    name = draw(st.sampled_from(["config.yaml", *OVERLAYS]))
    content = copy.deepcopy(merge(DEFAULT, OVERLAYS.get(name, {})))
    for _ in range(draw(st.integers(1, 4))):
        known = list(places(content))
        if known:
            change(draw, content, draw(st.sampled_from(known)), known)
    return name, content


def at(content: Any, place: Place) -> Any:
    for step in place:
        content = content[step]
    return content


def change(draw: st.DrawFn, content: dict[str, Any], place: Place, known: list[Place]) -> None:
    """Change what is at one place of a tree."""
    parent, key, how = at(content, place[:-1]), place[-1], draw(CHANGES)
    old = parent[key]
    if how == "drop":
        del parent[key]
    elif how in ("rename", "add"):
        if isinstance(parent, list):
            parent.append(draw(VALUES))
            return
        value = parent.pop(key) if how == "rename" else draw(VALUES)
        parent[draw(st.one_of(KEYS, st.just(f"{key}x")))] = value
    elif how == "double" and isinstance(old, list):
        parent[key] = old * 2
    elif how == "move":
        parent[key] = copy.deepcopy(at(content, draw(st.sampled_from(known))))
    else:
        new = {"number": NUMBERS, "nest": st.just({str(key): old}), "list": st.just([old]), "text": st.just(str(old))}
        parent[key] = draw(new.get(how, VALUES))


FREE = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=1000, derandomize=True, **FREE)
@given(mutated())
def test_a_configuration_changed_a_thousand_ways_is_a_plan_or_one_line(case):
    check(parse, case[1], [(ROOT / "studies" / case[0], case[1])])


@pytest.mark.slow
@settings(max_examples=CONFIGS, **FREE)
@given(mutated())
def test_a_configuration_changed_at_random_is_a_plan_or_one_line(case):
    check(parse, case[1], [(ROOT / "studies" / case[0], case[1])])


TEXT = (ROOT / "config.yaml").read_text()
LETTERS = "abcdefghijklm"
BOMB = "".join(
    f"{second}: &{second} [{','.join([f'*{first}'] * 9)}]\n" for first, second in itertools.pairwise(LETTERS)
)
BROKEN_TEXTS = {
    "deep": "a: " + "[" * 20000,
    "deep mapping": "".join(f"{' ' * depth}a:\n" for depth in range(2000)),
    "bomb": f"a: &a [x,x,x,x,x,x,x,x,x]\n{BOMB}study: {{name: *m}}\n",
    "recursive": "study: &s {name: *s}",
    "recursive list": "tasks: &t [*t]",
    "date": "study: {name: 2020-13-45}",
    "tag": "study: {name: !!python/object/apply:os.system ['true']}",
    "int": "study: {seed: !!int abc}",
    "timestamp": "study: {seed: !!timestamp abc}",
    "float": "study: {seed: !!float x}",
    "binary": "study: {name: !!binary x}",
    "null byte": "study: {name: \0}",
    "list key": "[1, 2]: 3",
    "mapping key": "{a: 1}: 3",
    "tab": "study:\n\tname: a",
    "twice": "training: {epochs: 1}\ndata: {train: 8}\ntraining: {batch_size: 2}",
    "twice inside": "training: {epochs: 1, epochs: 2}",
    "two documents": "study: {name: a}\n---\nstudy: {name: b}",
    "unknown alias": "study: *nowhere",
    "sexagesimal": "study: {seed: 99999999999999999999:99:99}",
    "huge number": f"study: {{seed: {'9' * 5000}}}",
    "long key": f"{'k' * 100000}: 1",
    "many": "\n".join(f"k{n}: 1" for n in range(5000)),
    "scalar": "hello",
    "twice a layout": "plan: {sharing: {layouts: [0, 0]}}",
    "twice an encoder": "plan: {three: {encoders: [resnet18, resnet18]}}",
    "twice a radius": "attacks: {pgd: {epsilon: [8/255, 0.03137254901960785]}}",
    "many trials": "importance: {shapes: {trials: 1000000000}}",
    "many points": "hidden: {attributes: {forgetting: {epochs: 1000000000, curve: 1000000000}}}",
    "long name": f"study: {{name: {'a' * 300}}}",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN_TEXTS)
def test_a_file_that_is_no_configuration_is_one_line_that_names_it(tmp_path, kind):
    file = tmp_path / "mine.yaml"
    file.write_text(BROKEN_TEXTS[kind])
    said = check(load, [ROOT / "config.yaml", file])
    assert said is not None
    assert said.startswith(f"{file}: ")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc", TEXT.encode("utf-16"), b"study: {name: \xe9}"])
def test_a_file_that_is_no_text_is_one_line(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert str(check(load, [ROOT / "config.yaml", file])).startswith(f"{file}: ")


@settings(max_examples=100, derandomize=True, **FREE)
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 40), st.text(string.printable, max_size=5))
def test_a_text_with_letters_changed_is_a_plan_or_one_line(tmp_path_factory, begin, gone, new):
    file = tmp_path_factory.getbasetemp() / "text.yaml"
    file.write_text(TEXT[:begin] + new + TEXT[begin + gone :])
    check(load, [file])


def test_merged_keys_are_not_there_twice(tmp_path):
    file = tmp_path / "mine.yaml"
    base = "{source: objects, domains: [studio], train: 8, size: [32, 32]}"
    file.write_text(f"pictures: {{more: {{<<: &base {base}, test: 4, train: 9}}, less: {{<<: *base, test: 5}}}}\n")
    found = load([ROOT / "config.yaml", file]).picture_sets
    assert (found["more"].train, found["less"].train) == (9, 8)


def test_sets_of_eleven_tasks_with_an_order_are_found_at_once():
    section = {"encoders": ["resnet18"], "tasks": "sdDnkKeEprA", "sizes": [11, 2], "ordered": True, "reference": True}
    signal.alarm(PATIENCE)
    plan = Plan(parse(merge(DEFAULT, {"plan": {"all": section}})))
    found = [model.tasks for model in plan.models if model.section == "all"]
    assert len(found) == 110 + 11
    assert found[:2] == ["sd", "sD"]
    assert found[-1] == "AsdDnkKeEpr"


SAID = ["deep", "recursive", "date", "list key", "twice", "scalar", "many trials", "twice a radius", "long name", "tab"]


BEFORE_US = ("deep", "recursive", "date")  # Snakemake reads the file first, and stumbles over these by itself


@pytest.mark.parametrize("kind", SAID)
def test_snakemake_and_the_command_say_it_without_a_traceback(tmp_path_factory, kind):
    folder = tmp_path_factory.getbasetemp() / "said"
    if not folder.exists():
        checkout.make(folder)
    (folder / "studies" / "broken.yaml").write_text(BROKEN_TEXTS[kind])
    result = checkout.snakemake(folder, "--dry-run", study="broken")
    assert result.returncode
    if kind not in BEFORE_US:
        assert "Traceback" not in result.stdout + result.stderr
    line = [sys.executable, "-m", "headstrong", "plan", "--study", "broken", "--count"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    told = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment)
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1
    assert told.stderr.startswith("error: studies/broken.yaml: ")
