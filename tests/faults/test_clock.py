"""Clocks that go back, and files of the future: the same bytes, true records, and nothing is made again for ever."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import fault_study
import pytest

import checkout
from headstrong.jobs import to_dict
from headstrong.provenance import ROOT
from headstrong.workflow import leave_future
from job_files import job_file
from training_runs import job_with, run, write_data

DAY = 86400
LARGE = ("--max-checksum-file-size", "0")  # as if files were large: Snakemake goes by their times, not their content
LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="no libfaketime (apt-get install faketime)")


def turned(**told: str) -> dict[str, str]:
    """The environment in which the clock on the wall is turned; files and the clock that never goes back are not.

    Snakemake itself hangs in such an environment, whose waits never end: for programs alone.
    """
    fixed = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    return {**fixed, **told}


def seconds_of_day(text: str) -> int:
    hours, minutes, seconds = map(int, text.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def test_files_of_the_future_are_of_now_in_their_order(tmp_path):
    now = time.time()
    times = {"a": now - DAY, "b": now + DAY, "c": now + 2 * DAY, "deeper/d": now + DAY, "e": now - 1}
    for name, when in times.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (when, when))
    (tmp_path / "link").symlink_to("a")
    assert leave_future(tmp_path) == 3
    found = {name: (tmp_path / name).stat().st_mtime_ns for name in times}
    assert found["a"] < found["e"] < found["b"] == found["deeper/d"] < found["c"] <= time.time_ns()
    assert [round(found[name] / 1e9, 3) for name in "ae"] == [round(times[name], 3) for name in "ae"]
    assert leave_future(tmp_path) == leave_future(tmp_path / "nothing") == 0


def test_what_is_made_from_a_file_of_the_future_is_made_once(small, tmp_path):
    folder, expected = checkout.copy(small, tmp_path / "copy"), fault_study.results(small)
    cache = folder / "results/faults/data/train.h5"
    os.utime(cache, (time.time() + DAY, time.time() + DAY))
    assert checkout.dry_run(folder, *fault_study.TARGET, study="faults") == {}  # a small file is known by its content
    planned = checkout.dry_run(folder, *LARGE, *fault_study.TARGET, study="faults")
    assert set(planned) == {"train_model_with_checkpoints", "evaluate_model"}
    checkout.run(folder, *LARGE, *fault_study.TARGET, study="faults")
    assert checkout.dry_run(folder, *LARGE, *fault_study.TARGET, study="faults") == {}
    fault_study.check_same(folder, expected)


def test_a_clock_set_back_by_a_day_before_a_training_lets_it_be_made_once_more(small, tmp_path):
    """What such a clock leaves: weights and an evaluation that are older than the data they were made from."""
    folder, expected = checkout.copy(small, tmp_path / "copy"), fault_study.results(small)
    for name in ("models", "evaluations"):
        for path in (folder / "results/faults" / name).rglob("*"):
            os.utime(path, (path.stat().st_mtime - DAY, path.stat().st_mtime - DAY))
    assert checkout.dry_run(folder, *fault_study.TARGET, study="faults") == {}
    checkout.run(folder, *LARGE, *fault_study.TARGET, study="faults")
    assert checkout.dry_run(folder, *LARGE, *fault_study.TARGET, study="faults") == {}
    fault_study.check_same(folder, expected)


@needs_faketime
def test_a_clock_set_back_in_the_middle_of_a_training_changes_nothing(tmp_path):
    """Checkpoints go on by a clock that never goes back, and so do the seconds of the record."""
    data, job = write_data(tmp_path / "data.h5", 8), job_with(epochs=20)
    expected = run(tmp_path / "expected", job, data)
    clock, out = tmp_path / "clock", tmp_path / "out"
    clock.write_text("+0")
    line = [
        sys.executable, ROOT / "scripts/train_model.py", "--job", job_file(to_dict(job)), "--data", data, "--weights",
        out / "weights.safetensors", "--history", out / "history.csv", "--work", out / "work", "--device", "cpu",
        "--checkpoint-minutes", "0",
    ]  # fmt: skip
    told = turned(
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        TZ="UTC",
        PYTHONPATH=str(ROOT / "src"),
    )
    environment = {**os.environ, **told, "HEADSTRONG_RUN": ""}
    with subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "work/last.ckpt").exists() and process.poll() is None:
            pass
        assert process.poll() is None
        clock.write_text("-90m")
        said = process.communicate()[1]
    assert process.returncode == 0, said
    shown = re.findall(r"^(\d\d:\d\d:\d\d) model pair: epoch", said, re.MULTILINE)
    assert (out / "weights.safetensors").read_bytes() == expected.read_bytes()
    assert (out / "history.csv").read_bytes() == expected.with_name("history.csv").read_bytes()
    assert not (out / "work").exists()
    record = json.loads((out / "run.json").read_text())
    begun, ended = (seconds_of_day(text) for text in (record["start"][11:19], shown[-1]))
    assert (begun - ended) % DAY > 3600  # the clock did go back
    assert record["start"] <= record["end"]
    assert 0 <= record["seconds"] < 3600
