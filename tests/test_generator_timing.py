"""What generators cost: runs of the networks are counted, parameters computed by hand; no test looks at a clock."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch

from generated_jobs import make_generator_job
from headstrong.analysis.files import read_table
from headstrong.errors import ConfigError
from headstrong.generator_timing import (
    COLUMNS,
    all_perturbations,
    build,
    comparable,
    interleaved,
    measure,
    published_jobs,
)
from headstrong.jobs import to_dict
from headstrong.models.generators import Generators, count_parameters
from headstrong.provenance import ROOT, settings_json

SIZE = (8, 12)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def pair(**changes):
    return [make_generator_job(method=method, **changes) for method in ("gap", "mta")]


def runs_of(networks: Generators, job) -> Counter:
    """How often encoders and decoders run, and on how many images, for the perturbations of one image."""
    counted: Counter = Counter()
    hooks = []
    for kind, parts in (("encoder", networks.encoders), ("decoder", networks.decoders)):
        for part in parts:

            def count(_, inputs, __, kind=kind):
                counted[kind] += 1
                counted[f"{kind} images"] += len(inputs[0])

            hooks.append(part.register_forward_hook(count))
    outputs = all_perturbations(networks, job, torch.rand(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    assert list(outputs) == list(job.tasks)
    assert {tuple(output.shape) for output in outputs.values()} == {(1, 3, *SIZE)}
    return counted


@pytest.mark.parametrize("mode", ["universal", "instance"])
@pytest.mark.parametrize(
    ("method", "shared_input", "encoders", "images"),
    [("gap", True, 3, 3), ("gap", False, 3, 3), ("mta", True, 1, 1), ("mta", False, 1, 3)],
)
def test_the_shared_encoder_runs_once(mode, method, shared_input, encoders, images):
    job = make_generator_job(method=method, mode=mode, tasks=("s", "d", "n"), shared_input=shared_input)
    found = runs_of(build(job, "cpu"), job)
    assert found == {"encoder": encoders, "encoder images": images, "decoder": 3, "decoder images": 3}


def test_parameters_of_table_7():
    # Convolutions without bias, batch norms with two numbers per channel, worked out by hand for n = 64.
    n = 64
    blocks = lambda count: count * 2 * (4 * n * 4 * n * 9 + 2 * 4 * n)  # noqa: E731
    encoder = 3 * n * 49 + 2 * n + 2 * n * n * 9 + 4 * n + 8 * n * n * 9 + 8 * n
    decoder = 8 * n * n * 9 + 4 * n + 2 * n * n * 9 + 2 * n + n * 3 * 49 + 3
    found = {(job.mode, job.method): count_parameters(build(job, "cpu")) for job in published_jobs()}
    for mode, count in (("universal", 4), ("instance", 10)):
        assert found[mode, "gap"] == 3 * (encoder + blocks(count) + decoder)
        assert found[mode, "mta"] == encoder + blocks(count) + 3 * decoder
    # As printed: 1.64, 0.62, 3.77, 1.33, in units of ten million.
    assert [round(number / 1e7, 2) for number in found.values()] == [1.64, 0.62, 3.77, 1.33]


def test_rows_of_both_methods_once_per_architecture():
    jobs = [
        *pair(epsilon=10 / 255),
        *pair(epsilon=5 / 255, goal="targeted", targets=("cube", "cube")),
        *pair(mode="instance", blocks=2),
        make_generator_job(family="lonely"),
    ]
    rows = measure(jobs, SIZE, rounds=3, warmup=1, device="cpu", threads=1)
    assert all(tuple(row) == COLUMNS for row in rows)
    names = ("family", "mode", "method", "blocks")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("family", "universal", "gap", 1),
        ("family", "universal", "mta", 1),
        ("family", "instance", "gap", 2),
        ("family", "instance", "mta", 2),
    ]
    for row in rows:
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["size"] == "8x12"
        assert row["rounds"] == 3
        assert row["published_ms"] is row["published_parameters_millions"] is None
    assert rows[0]["parameters"] > rows[1]["parameters"]
    assert comparable(jobs[:1]) == []


def test_published_numbers_beside_three_tasks():
    jobs = [job for mode in ("universal", "instance") for job in pair(mode=mode, tasks=("s", "d", "n"))]
    rows = measure(jobs, SIZE, rounds=1, warmup=0, device="cpu", threads=1)
    assert [(row["published_parameters_millions"], row["published_ms"]) for row in rows] == [
        (1.64, 384),
        (0.62, 137),
        (3.77, 342),
        (1.33, 126),
    ]


def test_methods_take_turns_and_warm_up():
    calls = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    found = interleaved(runs, rounds=2, warmup=1, finish=lambda: calls.append("-"))
    assert "".join(calls) == "-a--b-" * 3
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("changes", "words"), [({"size": (8, 10)}, "8x10"), ({"size": (0, 0)}, "0x0"), ({"rounds": 0}, "rounds 0")]
)
def test_what_cannot_be_timed_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        measure(pair(), **{"size": SIZE, **changes}, device="cpu", threads=1)


def test_the_program_writes_a_table(tmp_path):
    jobs, output = tmp_path / "jobs.json", tmp_path / "generator_cost.csv"
    jobs.write_text(settings_json([to_dict(job) for job in pair()]))
    command = [sys.executable, "scripts/time_generators.py", "--jobs", str(jobs), "--size", "8", "12"]
    command += ["--rounds", "2", "--device", "cpu", "--output", str(output)]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert result.returncode == 0, result.stderr
    table = read_table(output)
    assert tuple(table.columns) == COLUMNS
    assert table["method"].tolist() == ["gap", "mta"]
    assert table["size"].tolist() == ["8x12", "8x12"]
    assert table["published_ms"].isna().all()
    jobs.write_text('[{"id": 3}]')
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
