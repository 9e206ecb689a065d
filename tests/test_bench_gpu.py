"""The benchmarks of a GPU, tried out on the CPU: the whole command, what it keeps, its limit, its arithmetic."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from benchmarks import bench_gpu, gpu_jobs, gpu_ledger
from benchmarks.bench_gpu import Child, Piece
from benchmarks.device import fastest_batch, flops_of, matrix_rates, share_of_rate
from benchmarks.extrapolation import extrapolate
from benchmarks.gpu_ledger import CUT, DONE, FAILED, Ledger
from benchmarks.gpu_scale import PUBLISHED, TINY
from benchmarks.gpu_study import MeasuredRun, as_record, from_record, study_rows
from benchmarks.rows import absent, make_row
from benchmarks.standins import safetensors as standin
from benchmarks.standins.safetensors import torch as written
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.provenance import ROOT

# A sitecustomize for a machine that lacks what a GPU machine may lack, and PIL and torchattacks.
LACKING = """
import sys
from importlib.machinery import PathFinder

NAMES = {"pydantic", "pulp", "snakemake", "filelock", "yaml", "jinja2", "tqdm", "rocrate", "safetensors",
    "matplotlib", "markdown", "requests", "PIL", "torchattacks"}

class Lacking:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is None and name in NAMES:
            path = [folder for folder in sys.path if "site-packages" not in folder]
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking
"""
PIECES = ["device", "training-32", "study"]


def command(folder: Path, *options: str) -> list[str]:
    places = ["--output", str(folder / "bench_gpu.json"), "--scratch", str(folder / "scratch")]
    return [sys.executable, "-m", "benchmarks.bench_gpu", *places, *options]


def environment(folder: Path) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text(LACKING)
    path = os.pathsep.join([str(folder), str(ROOT / "src")])
    return {**os.environ, "PYTHONPATH": path, "HEADSTRONG_GPU_LOCKS": str(folder / "locks")}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, str]:
    """Two calls on a machine without all those libraries: the first is killed after a piece, the second goes on."""
    folder = tmp_path_factory.mktemp("gpu")
    tried = command(folder, "--device", "cpu", "--scale", "tiny", "--only", *PIECES)
    with (folder / "log").open("wb") as log:
        first = subprocess.Popen(tried, env=environment(folder), cwd=ROOT, stderr=log, start_new_session=True)
        output = folder / "bench_gpu.json"
        while first.poll() is None and not (output.is_file() and gpu_ledger.read(output)["pieces"]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                first.wait(timeout=0.05)
        assert first.poll() is None, (folder / "log").read_text()
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    killed = gpu_ledger.read(output)
    second = subprocess.run(tried, env=environment(folder), cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    return killed, gpu_ledger.read(output), second.stdout


# --- the whole command -----------------------------------------------------------------------------------------------


def test_what_was_measured_before_a_kill_is_kept(measured: tuple[dict, dict, str]) -> None:
    killed, found, _ = measured
    assert list(killed["pieces"]) == ["device"]
    assert found["pieces"]["device"] == killed["pieces"]["device"]
    assert {name: piece["how"] for name, piece in found["pieces"].items()} == dict.fromkeys(PIECES, DONE)


def test_rows_and_facts_are_there_without_the_libraries(measured: tuple[dict, dict, str]) -> None:
    _, found, printed = measured
    rows = {row["name"]: row for row in found["rows"]}
    batch = "training, resnet18, 3 tasks, 32 x 32, batch 2"
    assert rows[batch]["ratio"] > 0
    absents = [row["peer_name"] for row in found["rows"] if row["ours"] is None]
    assert absents
    assert all("PIL cannot be imported" in reason for reason in absents)
    (hours,) = [row for name, row in rows.items() if name.startswith("the full study") and row["target"] == "ours < 1"]
    assert hours["ours"] > 0
    assert f"| {hours['name']} |" in printed
    assert found["facts"]["torch"] == torch.__version__
    assert found["facts"]["matrix rate float32"] > 0


def test_the_study_was_run_for_real(measured: tuple[dict, dict, str]) -> None:
    _, found, _ = measured
    (run,) = found["runs"]
    assert run["done"]
    assert run["whole"]
    assert not run["failed"]
    names = [name for name, _ in run["evaluations"]]
    assert names == ["combinations resnet18 2", "early resnet18 2"]
    assert all(0 < seconds < 600 for seconds in (run["train"], *(seconds for _, seconds in run["evaluations"])))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_a_line(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path), env=environment(tmp_path), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 7
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == done.stderr.splitlines()
    assert "no GPU can be used: RuntimeError: torch finds no CUDA device here" in done.stderr
    assert not (tmp_path / "bench_gpu.json").exists()


def test_a_piece_that_outlasts_the_limit_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = Child("cpu", TINY, tmp_path, 120)
    try:
        ledger, start = Ledger(tmp_path / "b.json", {}), time.monotonic()
        how, rows = child.measure(Piece("training-32", 1, "training_rows", 32), ledger, tmp_path, 0.5)
        assert (how, rows) == (CUT, [])
        assert time.monotonic() - start < 5
    finally:
        child.end()
    assert alive_in_group(child.process_id) == []


def alive_in_group(leader: int) -> list[str]:
    """Command names of the processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
        except OSError:  # it ended just now
            continue
        state, _, group = rest.split()[:3]
        if int(group) == leader and state not in "ZX":
            found.append(name)
    return found


def test_pieces_that_nobody_knows_are_refused() -> None:
    assert [piece.name for piece in bench_gpu._wanted(["study", "device"], PUBLISHED)] == ["device", "study"]
    with pytest.raises(ConfigError, match="no piece 'trainign'"):
        bench_gpu._wanted(["trainign"], PUBLISHED)


def test_every_piece_has_its_function() -> None:
    from benchmarks import gpu_pieces

    names = {piece.name for piece in bench_gpu.pieces(PUBLISHED)}
    assert {"training-64", "training-128", "training-256", "attack-64", "attack-128", "attack-256"} <= names
    assert all(callable(getattr(gpu_pieces, piece.function)) for piece in bench_gpu.pieces(PUBLISHED))


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_what_waits_and_how_long_it_is_expected_to_take(tmp_path: Path) -> None:
    ledger = Ledger.opened(tmp_path / "b.json", {"device": "a"})
    assert ledger.waits("a")
    assert ledger.expected("a", 60, 400) == 60
    ledger.ended("a", CUT, 100, [])
    assert ledger.waits("a")
    assert ledger.expected("a", 60, 400) == 150
    assert ledger.expected("a", 60, 120) == 120  # what a call can give: else it would never be started
    for tries in (1, 2):
        ledger.ended("a", FAILED, 3, [absent("a", "-", "no room")])
        assert ledger.waits("a") == (tries < 2)
    ledger.ended("b", DONE, 3, [make_row("b", "s", [1.0])])
    again = Ledger.opened(tmp_path / "b.json", {"device": "a"})
    assert not again.waits("b")
    assert again.rows() == ledger.rows()


def test_numbers_of_another_device_are_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    Ledger(path, {"device": "a"}).ended("p", DONE, 1, [make_row("p", "s", [1.0])])
    other = Ledger.opened(path, {"device": "b"})
    assert other.waits("p")
    assert not path.exists()
    assert [row.name for row in gpu_ledger.rows_of(tmp_path / "b.before-1.json")] == ["p"]


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}'])
def test_another_file_is_not_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(BrokenFileError, match=r"b\.json"):
        Ledger.opened(path, {})
    assert path.read_text() == text


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_extrapolation_by_hand() -> None:
    found = extrapolate({"a x 2": 10, "b x 2": 4}, {"a x 2": [10, 14], "b x 2": [1, 1, 1, 1]})
    # 10 x 12 + 4 x 1. Variance: 10^2 (1 - 2/10) 8 / 2 = 320; all of b is measured, and adds none.
    assert found.seconds == 124
    assert found.high == pytest.approx(124 + 2 * math.sqrt(320))
    assert found.low == pytest.approx(124 - 2 * math.sqrt(320))
    assert (found.measured, found.jobs, found.guessed) == (6, 14, 0)


def test_strata_with_one_measurement_or_none() -> None:
    sizes = {"a x 2": 10, "b x 2": 5, "c y 2": 3, "d z 2": 2}
    found = extrapolate(sizes, {"a x 2": [10, 14], "c y 2": [100]})
    # b has a's encoder, d nobody's: it takes the longest.
    assert found.seconds == 10 * 12 + 5 * 12 + 3 * 100 + 2 * 100
    assert found.guessed == 7
    spread = statistics.stdev([10, 14]) / 12
    parts = [10**2 * 0.8 * 8 / 2, 5**2 * 0.8 * (12 * spread) ** 2]
    parts += [3**2 * (1 - 1 / 3) * (100 * spread) ** 2, 2**2 * 0.5 * (100 * spread) ** 2]
    assert found.high == pytest.approx(found.seconds + 2 * math.sqrt(sum(parts)))
    alone = extrapolate({"a x 2": 3}, {"a x 2": [5]})
    assert (alone.seconds, alone.low, alone.high) == (15, None, None)
    with pytest.raises(ValueError, match="no job was measured"):
        extrapolate(sizes, {})


def test_totals_add_up_with_their_errors() -> None:
    one = extrapolate({"a x 2": 10}, {"a x 2": [10, 14]})
    both = one + one
    assert both.seconds == 240
    assert both.high == pytest.approx(240 + math.sqrt(2) * 2 * math.sqrt(320))
    assert both.jobs == 20


def test_hours_of_the_study_are_those_of_jobs_side_by_side() -> None:
    jobs = gpu_jobs.read_jobs()
    runs = [MeasuredRun(name, name, 36.0, True, [(name, 36.0)], True) for name in jobs.runs]
    runs[0].evaluations += [("early resnet18 2", 36.0), ("single-early resnet18 1", 36.0)]
    rows = {row.target: row for row in study_rows(jobs, runs, 4) if row.unit == "hours"}
    assert rows["ours < 1"].ours == pytest.approx((936 + 1002) * 36 / 4 / 3600, rel=1e-3)
    broken = MeasuredRun("x", "combinations resnet18 2", 0.0, False, done=True, failed="no room")
    assert list(study_rows(jobs, [*runs, broken], 4)) == list(study_rows(jobs, runs, 4))
    assert from_record(json.loads(json.dumps(as_record(runs[0])))) == runs[0]


def test_flops_of_a_convolution_and_its_share() -> None:
    layer, image = torch.nn.Conv2d(3, 8, 3, padding=1), torch.rand(2, 3, 4, 4)
    forward = 2 * (2 * 4 * 4) * 8 * (3 * 3 * 3)  # a multiplication and an addition for each weight at each output
    assert flops_of(lambda: layer(image)) == forward
    assert flops_of(lambda: layer(image).sum().backward()) == 2 * forward  # the image needs no gradient
    assert share_of_rate(100, 3e9, 6e12) == pytest.approx(0.05)


def test_matrix_rates_are_of_both_precisions() -> None:
    rates = matrix_rates("cpu", 32, 2, 0.0)
    assert set(rates) == {"bfloat16", "float32"}
    assert all(rate > 0 for rate in rates.values())


def test_the_search_for_a_batch_ends_where_there_is_no_room() -> None:
    tried = []

    def make(batch: int):
        tried.append(batch)
        if batch > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return lambda: time.sleep(0.02 / batch)  # four times the images per second: no load hides that

    assert fastest_batch(make, [1, 2, 4, 8], "cpu", 1) == 2
    assert tried == [1, 2, 4]


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_the_file_of_jobs_is_current() -> None:
    assert gpu_jobs.JOBS.read_text(encoding="utf-8") == gpu_jobs.current(), "run: python -m benchmarks.gpu_jobs"
    assert gpu_jobs.JOBS.stat().st_size < 300_000


def test_jobs_read_back_are_those_of_the_plan() -> None:
    from headstrong.configfiles import load
    from headstrong.study import Plan

    plan, jobs = Plan(load([ROOT / name for name in gpu_jobs.FILES])), gpu_jobs.read_jobs()
    assert (sum(jobs.runs.values()), sum(jobs.evaluations.values())) == (936, 1002)
    for run in jobs.sample:
        assert run.training == plan.training_job(run.training.id)
        for _, job, epochs in run.evaluations:
            assert job == plan.evaluation_job(job.id)
            assert epochs == plan[job.id].epochs
    assert {run.training.epochs for run in jobs.sample} == {20}
    assert jobs.data == {split: plan.data_settings(split) for split in ("train", "test")}
    assert (jobs.data["train"]["count"], jobs.data["test"]["count"]) == (8000, 1000)


def test_any_beginning_of_the_sample_covers_as_many_strata_as_it_can() -> None:
    jobs = gpu_jobs.read_jobs()
    order = [run.stratum for run in jobs.sample]
    assert set(order[: len(jobs.runs)]) == set(jobs.runs)
    assert {name for run in jobs.sample[: len(jobs.runs)] for name, _, _ in run.evaluations} == set(jobs.evaluations)
    assert len({run.training.id for run in jobs.sample}) == len(order)


# --- the stand-in ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.int16, torch.int32)
    found = {f"layer.{number}": torch.arange(6).view(2, 3).to(kind) for number, kind in enumerate(kinds)}
    return {**found, "Z": torch.tensor(3), "no": torch.empty(0, 3), "a": torch.rand(5), "flag": torch.tensor([True])}


def test_the_stand_in_writes_the_bytes_of_the_library(tensors: dict[str, torch.Tensor]) -> None:
    for metadata in ({"headstrong": '{"a": "é\\n"}'}, None):
        assert written.save(tensors, metadata) == safetensors.torch.save(tensors, metadata)


def test_the_stand_in_reads_the_files_of_the_library(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"headstrong": "{}"}))
    with standin.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"headstrong": "{}"}
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert file.get_tensor(name).dtype == tensor.dtype
            assert torch.equal(file.get_tensor(name), tensor)
    path.write_bytes(path.read_bytes()[:-1])
    for library in (standin, safetensors):
        with pytest.raises(library.SafetensorError):
            library.safe_open(path, framework="pt")


def test_libraries_are_used_where_they_are() -> None:
    code = "from benchmarks import standins; standins.install(); import safetensors; print(safetensors.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == safetensors.__file__
