"""A study whose processes are all killed and that is started again ends with the bytes of an undisturbed one."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

import checkout


def results_of(folder: Path) -> dict[str, bytes]:
    """Content of everything that holds a number: data, weights, histories, evaluations, tables, figures."""
    results = folder / "results" / "micro"
    suffixes = {".h5", ".safetensors", ".csv", ".png", ".svg"}
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("*") if path.suffix in suffixes}


def run_until(folder: Path, pattern: str) -> None:
    """Start the study and kill Snakemake and all its jobs once a result matches the pattern."""
    process = subprocess.Popen(
        checkout.command(), cwd=folder, env=checkout.environment(), start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(folder.glob(f"results/micro/{pattern}")):
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the study ended with {process.wait(timeout=0.05)} before it could be killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_study_killed_three_times_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    undisturbed = checkout.make(tmp_path / "undisturbed")
    checkout.run(undisturbed, "--cores", "1")  # nor does the number of jobs side by side matter
    killed = checkout.make(tmp_path / "killed")
    for pattern in ("data/test.h5", "models/*/weights.safetensors", "evaluations/*.h5"):
        run_until(killed, pattern)
    checkout.run(killed)
    expected, found = results_of(undisturbed), results_of(killed)
    assert len(expected) > 30
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not [path for path in (killed / "results").rglob("*") if ".part" in path.name]
    assert not list((killed / "work").rglob("*.ckpt"))
