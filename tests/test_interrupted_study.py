"""A study whose processes are killed or interrupted goes on, and ends with the bytes of an undisturbed one."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import checkout
from headstrong import warm
from headstrong.models.store import read_tensors
from stopped_runs import ENDED_BY_SIGNALS

# A training long enough to be interrupted on any machine.
LONG = yaml.safe_dump(yaml.safe_load(checkout.MICRO) | {"training": {"epochs": 5000, "batch_size": 8}})
RUN = "combinations-resnet18-sd"


def results_of(folder: Path) -> dict[str, bytes]:
    """Content of everything that holds a number: data, weights, histories, evaluations, tables, figures."""
    results = folder / "results" / "micro"
    suffixes = {".h5", ".safetensors", ".csv", ".png", ".svg"}
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("*") if path.suffix in suffixes}


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the study in a process group of its own."""
    return subprocess.Popen(
        [*ENDED_BY_SIGNALS, *checkout.command(*arguments)], cwd=folder, env=checkout.environment() | variables,
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end_when(condition: Callable[[], object], process: subprocess.Popen[str], number: int) -> str:
    """Send a signal to Snakemake and all its jobs once a condition holds; returns what Snakemake said."""
    while not condition():
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the study ended with {process.wait(timeout=0.05)} before it could be stopped")
    os.killpg(process.pid, number)
    return process.communicate()[1]


@pytest.fixture(scope="module")
def trainable(tmp_path_factory):
    """A checkout with data for one long training."""
    folder = checkout.make(tmp_path_factory.mktemp("trainable") / "checkout", LONG)
    checkout.run(folder, "--", "data")
    return folder


@pytest.mark.parametrize("how", ["on", warm.OFF])
def test_ctrl_c_leaves_the_checkpoint_of_a_training(trainable, tmp_path, how):
    folder = checkout.copy(trainable, tmp_path / "checkout")
    log = folder / "results" / "micro" / "logs" / "train_model" / f"{RUN}.log"
    process = start(folder, "--", f"results/micro/models/{RUN}/weights.safetensors", **{warm.VARIABLE: how})
    # The terminal sends it to the whole group.
    said = end_when(lambda: log.exists() and ": epoch 2 of" in log.read_text(), process, signal.SIGINT)
    assert process.returncode == 1
    *_, noted, last = log.read_text().splitlines()
    assert "SIGINT after" in noted
    assert last == said.splitlines()[-1] == "error: interrupted; run it again to go on"
    assert read_tensors(folder / "work" / "micro" / RUN / "last.ckpt")[1]["epoch"] >= 2


@pytest.mark.slow
def test_a_study_killed_three_times_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    undisturbed = checkout.make(tmp_path / "undisturbed")
    checkout.run(undisturbed, "--cores", "1")  # nor does the number of jobs side by side matter
    killed = checkout.make(tmp_path / "killed")
    for pattern in ("data/test.h5", "models/*/weights.safetensors", "evaluations/*.h5"):
        process = start(killed)
        end_when(lambda pattern=pattern: list(killed.glob(f"results/micro/{pattern}")), process, signal.SIGKILL)
    checkout.run(killed)
    expected, found = results_of(undisturbed), results_of(killed)
    assert len(expected) > 30
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not [path for path in (killed / "results").rglob("*") if ".part" in path.name]
    assert not list((killed / "work").rglob("*.ckpt"))
