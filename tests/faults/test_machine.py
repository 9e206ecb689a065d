"""What the machine refuses (room, leave to write, memory) is one line and exit code 7; nothing is half-written."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import subprocess
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from fault_study import MICRO_PLAN, script

import checkout
import synthetic
from headstrong import program
from headstrong.jobs import to_dict
from headstrong.refusals import refusal
from job_files import job_file
from small_disks import small_disk

TOLD = {
    errno.ENOSPC: "no room", errno.EDQUOT: "quota", errno.EROFS: "only be read", errno.EACCES: "rights",
    errno.EPERM: "rights", errno.EIO: "disk failed", errno.EMFILE: "ulimit -n", errno.ENAMETOOLONG: "shorter",
}  # fmt: skip
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
H5PY = "Unable to flush (file write failed: time = Sat, filename = '/d/a.h5', errno = 28, error message = 'No space"


def ended(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """How a program ends in which this is raised, and what it says."""

    def main(_: argparse.Namespace) -> None:
        raise error

    code = program.run(main, argparse.ArgumentParser(), [])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("number", TOLD)
def test_what_the_system_refuses_is_one_line_with_what_to_do(number, capsys):
    code, said = ended(OSError(number, os.strerror(number), "results/a.h5"), capsys)
    assert (code, said.count("\n")) == (7, 1)
    assert said.startswith("error: results/a.h5: ")
    assert TOLD[number] in said
    assert "run it again" in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has"),
        RuntimeError(ALLOCATOR), OSError(errno.ENOMEM, "Cannot allocate memory"), BrokenProcessPool("A process died"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_lack_of_memory_says_what_to_lower(error, capsys):
    code, said = ended(error, capsys)
    assert (code, said.count("\n")) == (7, 1)
    assert "batch_size" in said


def test_what_hdf5_and_safetensors_say_without_a_number_is_understood():
    assert str(refusal(RuntimeError(H5PY))).startswith("/d/a.h5: no room")
    assert refusal(RuntimeError("shapes differ")) is None
    assert refusal(ValueError("errno = 28")) is None
    assert refusal(FileNotFoundError(errno.ENOENT, "no such file", "a")) is None


def test_torch_itself_asked_for_too_much_is_no_defect(capsys):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ended(caught.value, capsys)[0] == 7


def fill(place: Path, room: int) -> Path:
    """Fill a disk up to so many bytes of room."""
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, filler.stat().st_size - room)
    return filler


SETTINGS = {"source": "rooms", "size": [32, 32], "count": 8, "antialias": 1, "seed": 3}
MODEL = "combinations-resnet18-sd"
SHOWN = {"family": "pgd", "norm": "linf", "epsilon": "8/255", "steps": 25}
LOOK = {"formats": ["png", "svg"], "dpi": 40, "width": 7.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the stages below begin with."""
    folder = tmp_path_factory.mktemp("made")
    for split in ("train", "test"):
        settings = job_file({**SETTINGS, "split": split})
        assert script("build_data", "--settings", settings, "--output", folder / f"{split}.h5").returncode == 0
    synthetic.write_study(folder / "quick", synthetic.Study())
    return folder


# Stages, each with the one that it reads the results of.
STAGES = {
    "build": None, "train": None, "evaluate": "train", "vulnerability": None, "tables": "vulnerability",
    "figures": "tables", "report": "vulnerability",
}  # fmt: skip
USUAL = {("build", 0), ("train", 80), ("vulnerability", 0)}  # stage and KiB of room; the others take minutes


CASES = [
    pytest.param(name, room, marks=() if (name, room) in USUAL else pytest.mark.slow)
    for name in STAGES
    for room in (0, 80)
]


def finished(made: Path, name: str) -> dict[str, bytes]:
    """What a stage makes where there is room."""
    out, before = made / name, STAGES[name]
    if not out.exists():
        if before is not None:
            finished(made, before)
        out.mkdir()
        program_, arguments = stage(name, made)
        result = script(program_, *(str(word).replace("OUT", str(out)) for word in arguments))
        assert result.returncode == 0, result.stderr
        if name == "vulnerability":
            (made / "quick" / "tables").mkdir()
            (made / "quick" / "tables" / "vulnerability.csv").write_bytes((out / "vulnerability.csv").read_bytes())
    return content(out)


def stage(name: str, made: Path) -> tuple[str, list[object]]:
    """The script of a stage and its arguments; OUT stands for the folder that it writes to."""
    vulnerability, plan = made / "vulnerability" / "vulnerability.csv", made / "quick" / "plan.csv"
    tables = made / "tables" / "tables"
    return {
        "build": ("build_data", ["--settings", job_file({**SETTINGS, "split": "test"}), "--output", "OUT/test.h5"]),
        "train": (
            "train_model",
            ["--job", job_file(to_dict(MICRO_PLAN.training_job(MODEL))), "--data", made / "train.h5", "--weights",
             "OUT/m/weights.safetensors", "--history", "OUT/m/history.csv", "--work", "OUT/work",
             "--checkpoint-minutes", 0, "--device", "cpu"],
        ),
        "evaluate": (
            "evaluate_model",
            ["--job", job_file(to_dict(MICRO_PLAN.evaluation_job(MODEL))), "--data", made / "test.h5", "--weights",
             made / "train" / "m" / "weights.safetensors", "--output", "OUT/e.h5", "--device", "cpu"],
        ),
        "vulnerability": (
            "collect_vulnerability",
            ["--plan", plan, "--evaluations", made / "quick" / "evaluations", "--output", "OUT/vulnerability.csv"],
        ),
        "tables": (
            "make_tables",
            ["--vulnerability", vulnerability, "--plan", plan, "--settings",
             job_file({**SHOWN, "bootstrap": 20, "seed": 0}), "--output", "OUT/tables"],
        ),
        "figures": (
            "draw_figures",
            ["--vulnerability", vulnerability, "--plan", plan, "--surrogates", tables / "surrogates.csv",
             "--settings", job_file({"attack": SHOWN, "chains": [], "look": LOOK}), "--output", "OUT/f"],
        ),
        "report": (
            "make_report",
            ["--results", made / "quick", "--settings", job_file(MICRO_PLAN.config.model_dump()),
             "--output", "OUT/r.html"],
        ),
    }[name]  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    """Every file but records, which tell the time."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if b'"seconds"' not in data and name != "filler"}


def check_refused(result: subprocess.CompletedProcess[str], word: str) -> None:
    """It ended in one line that names a file on the disk and what to do, with code 7 and without a traceback."""
    assert result.returncode == 7, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == result.stderr.splitlines()[-1:]
    assert word in errors[0]
    assert "/disk/" in errors[0]


@pytest.mark.parametrize(("name", "room"), CASES)
def test_a_full_disk_is_one_line_and_room_and_a_rerun_give_the_same_bytes(made, tmp_path, name, room):
    expected = finished(made, name)
    program_, arguments = stage(name, made)
    size = sum(map(len, expected.values()))
    with small_disk(tmp_path / "disk") as place:
        words = [str(word).replace("OUT", str(place)) for word in arguments]
        filler = fill(place, min(1024 * room, size // 8192 * 4096))
        check_refused(script(program_, *words), "no room")
        left = content(place)
        assert {path: data for path, data in left.items() if path in expected and data != expected[path]} == {}
        assert {
            path for path in left if path not in expected and not path.startswith((".test.parts/", "work/"))
        } == set()
        filler.unlink()
        assert script(program_, *words).returncode == 0
        assert content(place) == expected


@pytest.mark.parametrize(
    "name", ["build", "train", *(pytest.param(name, marks=pytest.mark.slow) for name in list(STAGES)[2:])]
)
def test_a_disk_that_can_only_be_read_is_one_line(made, tmp_path, name):
    if STAGES[name] is not None:
        finished(made, STAGES[name])
    program_, arguments = stage(name, made)
    with small_disk(tmp_path / "disk") as place:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        check_refused(script(program_, *(str(word).replace("OUT", str(place)) for word in arguments)), "only be read")


def test_a_home_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "/proc/nowhere")  # where root cannot write either
    checkout.run(checkout.make(tmp_path / "checkout"), "--", "results/micro/plan.csv")
