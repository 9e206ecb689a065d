"""Why jobs on a real SLURM failed is the last thing that Snakemake says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import checkout
from headstrong.provenance import ROOT

pytestmark = pytest.mark.slow

# A job that says why it fails, one that is killed, and a group of which the second job fails.
WORKFLOW = """
from headstrong.failures import Failures
failed = Failures()
onstart:
    failed.watch()
onerror:
    failed.tell_at_exit()
rule all:
    input: "said", "killed", "second"
rule mistaken:
    output: "said"
    log: "said.log"
    shell: "echo 'error: data: not there; get it' > {log}; exit 3"
rule killed:
    output: "killed"
    log: "killed.log"
    shell: "echo epoch 1 > {log}; scancel $SLURM_JOB_ID; sleep 60"
rule first:
    output: "first"
    log: "first.log"
    group: "pair"
    shell: "echo done | tee {output} > {log}"
rule second:
    input: "first"
    output: "second"
    log: "second.log"
    group: "pair"
    shell: "echo 'error: no room; make room' > {log}; exit 7"
"""


def test_each_reason_is_told_last_once(slurm, tmp_path):
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    options = ["--executor", "slurm", "--jobs", "9", "--keep-going", "--slurm-init-seconds-before-status-checks", "1"]
    environment = {**checkout.environment(), **slurm.environment, "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(
        [sys.executable, "-m", "snakemake", *options, "--slurm-status-command", "squeue", "--latency-wait", "5"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    told = ended.stderr.partition("At least one job did not complete successfully.")[2].strip("\n").split("\n\n")
    assert len(told) == 3, ended.stderr
    blocks = dict(block.split(":\n") for block in told)
    assert blocks.pop("mistaken failed, see said.log") == "error: data: not there; get it"
    assert blocks.pop("first, second failed, see second.log") == "error: no room; make room"
    ((title, reason),) = blocks.items()
    assert title.startswith("killed failed, see ")
    assert re.match(r"slurmstepd.*: error: \*\*\* .* CANCELLED AT ", reason)
