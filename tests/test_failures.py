"""When jobs fail, the reason is the last thing at the terminal; a defect comes with its traceback."""

from __future__ import annotations

import pytest

import checkout

PLAN = "results/micro/plan.csv"
MISTAKE = """
import argparse, sys
from headstrong import program
from headstrong.errors import MissingDataError
def main(_):
    raise MissingDataError("data/x.png: not there; get it again")
sys.exit(program.run(main, argparse.ArgumentParser(), []))
"""
DEFECT = MISTAKE.replace('raise MissingDataError("data/x.png: not there; get it again")', "return 1 // 0")
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkout.make(tmp_path_factory.mktemp("failing") / "checkout")


def fail(folder, targets, **scripts) -> str:
    """What Snakemake prints last, after its own words, where programs do something else."""
    for name, text in scripts.items():
        (folder / "scripts" / f"{name}.py").write_text(text)
    result = checkout.snakemake(folder, "--", *targets)
    assert result.returncode == 1
    return result.stderr.partition("At least one job did not complete successfully.")[2].lstrip("\n")


def test_the_reasons_are_told_last_and_each_once(folder):
    told = fail(folder, ["data", PLAN], build_data=MISTAKE, write_plan=KILLED)
    blocks = dict(block.split(":\n") for block in told.rstrip("\n").split("\n\n"))
    logs = [f"results/micro/logs/{name}.log" for name in ("build_data/train", "build_data/test", "write_plan")]
    same = [f"build_data failed, see {log} (1 more for the same reason)" for log in logs[:2]]
    killed = f"write_plan failed, see {logs[2]}"
    assert (set(blocks) - set(same), len(blocks)) == ({killed}, 2)
    assert blocks[killed] == "error: write_plan: ended without saying why, as a job does that is killed"
    del blocks[killed]
    assert list(blocks.values()) == ["error: data/x.png: not there; get it again"]


def test_a_defect_keeps_its_traceback(folder):
    told = fail(folder, [PLAN, "results/micro/config.yaml"], write_plan=DEFECT, write_config="import absent")
    blocks = {block.partition(" ")[0]: block.splitlines() for block in told.rstrip("\n").split("\n\n")}
    for rule, last in (
        ("write_plan", "error: ZeroDivisionError: integer division or modulo by zero (a defect of headstrong, "),
        ("write_config", "ModuleNotFoundError: No module named 'absent'"),
    ):
        first, traceback, *_, line = blocks[rule]
        assert first == f"{rule} failed, see results/micro/logs/{rule}.log:"
        assert traceback == "Traceback (most recent call last):"
        assert line.startswith(last)
