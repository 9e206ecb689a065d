"""Which device a job gets: what the driver shows, what a name means, and what its process sees afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cuda_driver
from gpu_jobs import Job
from headstrong import gpulocks, gpus
from headstrong.devices import take_device
from headstrong.errors import ConfigError
from headstrong.provenance import ROOT, imported_files
from job_files import job_file

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
SCRIPTS = [
    path
    for path in (ROOT / "scripts").glob("*.py")
    if any(option in path.read_text() for option in ('"--device"', "add_training_options"))
]


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """This process has the pretended driver; the folder of its locks."""
    monkeypatch.setenv(gpus.MASK, "")  # so that it is put back afterwards, whoever sets it
    monkeypatch.delenv(gpus.MASK)
    for name, value in cuda_driver.build(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "locks"


@cuda_driver.needs_compiler
def test_the_driver_is_read_as_it_answers(driver):
    found = gpus.visible()
    assert [gpu.id for gpu in found] == cuda_driver.IDS
    assert found[2] == gpus.Gpu(2, cuda_driver.IDS[2], "Old One", 141 * 2**30, (7, 0))
    assert [gpu.has_bfloat16 for gpu in found] == [True, True, False]


@cuda_driver.needs_compiler
@pytest.mark.parametrize(("mask", "expected"), [("2", [2]), ("2,0", [2, 0]), ("1,-1,0", [1]), ("", []), ("-1", [])])
def test_a_gpu_has_one_name_whatever_the_mask(driver, monkeypatch, mask, expected):
    monkeypatch.setenv(gpus.MASK, mask)
    found = gpus.visible()
    assert [gpu.id for gpu in found] == [cuda_driver.IDS[number] for number in expected]
    for gpu in found:
        monkeypatch.setenv(gpus.MASK, mask)
        gpus.show_only(gpu)
        assert [only.id for only in gpus.visible()] == [gpu.id]


@cuda_driver.needs_compiler
def test_a_driver_that_is_not_well_is_one_line_and_the_processor(driver, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_CUDA_ERROR", "803")
    with pytest.raises(gpus.DriverError, match="error 803"):
        gpus.visible()
    with take_device("auto") as device:
        assert device == "cpu"
    assert caplog.messages == ["no GPU can be used: the CUDA driver does not start (error 803)"]


def test_masks_of_uuids_keep_their_words():
    assert gpus.mask_for(1, {gpus.MASK: "GPU-aa, MIG-bb"}) == "MIG-bb"
    assert gpus.mask_for(1, {gpus.MASK: "7,3"}) == "3"
    assert gpus.mask_for(1, {}) == "1"


HOLD = """
import sys
import torch
from headstrong import devices, gpus
torch.cuda.is_available = lambda: True  # the pretended driver can be listed, and computes nothing
with devices.take_device(sys.argv[1]) as device:
    print(device, *[gpu.id for gpu in gpus.visible()], flush=True)
    sys.stdin.readline()
"""


@cuda_driver.needs_compiler
@pytest.mark.parametrize(
    ("name", "mask", "expected"),
    [("auto", None, 0), ("cuda", None, 0), ("cuda:1", None, 1), ("cuda:1", "2,0", 0), ("auto", "1", 1)],
)
def test_a_job_sees_its_own_gpu_only_and_calls_it_cuda(driver, name, mask, expected):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **({} if mask is None else {gpus.MASK: mask})}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, name], env=env, stdin=pipe, stdout=pipe, text=True) as job:
        assert job.stdout is not None
        id = cuda_driver.IDS[expected]
        assert job.stdout.readline().split() == ["cuda", id]
        assert [bool(gpulocks.holders_of(one, driver)) for one in cuda_driver.IDS] == [
            one == id for one in cuda_driver.IDS
        ]
        job.communicate("\n")
    assert job.returncode == 0
    assert gpulocks.holders_of(id, driver) == []


@cuda_driver.needs_compiler
@no_gpu
def test_a_gpu_that_torch_cannot_use_is_let_go(driver, caplog):
    with take_device("auto") as device:
        assert device == "cpu"
        assert not any(gpulocks.holders_of(id, driver) for id in cuda_driver.IDS)
    assert "torch cannot use cuda:0, New One" in caplog.messages[-1]
    del os.environ[gpus.MASK]
    with pytest.raises(ConfigError, match="only 3 here, from cuda:0 on"), take_device("cuda:3"):
        pass


@pytest.mark.parametrize("name", ["cuda:", "cuda:-1", "gpu", "mps", ""])
def test_a_device_of_another_name_is_refused(name):
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:NUMBER"), take_device(name):
        pass


@no_gpu
def test_without_a_gpu_auto_is_the_processor_and_cuda_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv(gpulocks.FOLDER, str(tmp_path / "locks"))
    for name in ("auto", "cpu"):
        with take_device(name) as device:
            assert device == "cpu"
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError, match=f"device '{name}': torch finds no CUDA device here"), take_device(name):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_taken_computed_on_and_let_go(tmp_path, monkeypatch):
    monkeypatch.setenv(gpulocks.FOLDER, str(tmp_path))
    first = gpus.visible()[0]
    properties = torch.cuda.get_device_properties(0)
    assert first.id == f"GPU-{properties.uuid}"
    assert (first.name, first.capability) == (properties.name, (properties.major, properties.minor))
    monkeypatch.setenv(gpus.MASK, gpus.mask_for(0, os.environ))  # in this process CUDA has started: one to choose from
    with take_device("auto") as device:
        assert device == "cuda"
        assert float(torch.ones(3, device=device).sum()) == 3
        assert len(gpulocks.holders_of(first.id)) == 1
    assert gpulocks.holders_of(first.id) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_program_that_computes_takes_its_device_in_the_one_way(script: Path):
    assert "take_device(arguments.device" in script.read_text()


def test_picking_a_device_is_in_no_digest_of_code():
    picking = {"devices.py", "gpulocks.py", "gpus.py"}
    assert not picking & {path.name for path in imported_files("headstrong.training", "headstrong.devices")}


JOB = (
    '{"id": "x", "tasks": "s", "attacks": [], "samples": null, "batch_size": 4, "error_pixels": "valid", '
    '"miou": "labelled", "loss_pixels": "valid", "class_weights": "uniform", "precision": "float32", "seed": 0}'
)


@cuda_driver.needs_compiler
@no_gpu
def test_a_program_waits_for_its_gpu_and_obeys_sigterm_meanwhile(driver, tmp_path, monkeypatch):
    monkeypatch.setenv(gpus.MASK, "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    files = ["--weights", str(tmp_path / "w"), "--data", str(tmp_path / "d"), "--output", str(tmp_path / "out.h5")]
    command = [sys.executable, str(ROOT / "scripts" / "evaluate_model.py"), "--job", job_file(JOB), *files]
    holder = Job(driver, [cuda_driver.IDS[1]])
    assert holder.taken() == cuda_driver.IDS[1]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as stopped,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as patient,
    ):
        waiting = f"waiting for a GPU; taken: {cuda_driver.IDS[1]} by process {holder.process.pid} "
        for process in (stopped, patient):
            assert process.stderr.readline().endswith(".json\n")  # the job
            assert waiting in process.stderr.readline()
        stopped.terminate()
        stopped.communicate()
        assert stopped.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
        assert holder.end() == 0
        _, said = patient.communicate()
    assert patient.returncode == 3  # it went on, to find that there are no weights
    assert said.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out.h5").exists()
