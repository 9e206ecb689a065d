"""`python -m headstrong doctor` tells what is there, whatever is missing, broken or silent."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cuda_driver
from gpu_jobs import Job
from headstrong import doctor, machine
from headstrong.provenance import ROOT

BASE = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}


def run(folder: Path, **environment: str) -> dict[str, list[str]]:
    """Run the real command in a folder; what it says, by label."""
    result = subprocess.run(
        [sys.executable, "-m", "headstrong", "doctor"],
        capture_output=True, text=True, cwd=folder, env={**BASE, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "Traceback" not in result.stdout
    return told(result.stdout.splitlines())


def told(lines: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        if line and not re.fullmatch(r"\[[\w ]+\]", line):
            label, text = line[:22].strip(), line[22:]
            assert re.match(r" \S", text), line  # aligned, and never empty
            found.setdefault(label, []).append(text[1:])
    return found


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_what_is_there_and_what_is_missing(tmp_path):
    (tmp_path / "cifar10").mkdir()
    found = run(tmp_path, HEADSTRONG_REAL_DATA=str(tmp_path))
    assert found["cifar10"] == [str(tmp_path / "cifar10")]
    assert found["nyuv2"] == [f"not in {tmp_path / 'nyuv2'}"]
    assert found["torch"] == [str(torch.__version__).split("+")[0]]
    assert re.match(r"[\d.,]+ GiB free of [\d.,]+ GiB in ", found["room for results"][0])
    assert found["room for results"][0].endswith(str(tmp_path))
    assert int(found["processors"][0].split(",")[0]) == os.cpu_count()
    assert bool(re.match("none|seen", found["GPU"][0])) != torch.cuda.is_available()
    assert found["auto means"][0].startswith("a GPU" if torch.cuda.is_available() else "the CPU")
    assert "SLURM" in found
    assert "cannot be told" not in found


@cuda_driver.needs_compiler
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpus_and_who_has_them(tmp_path):
    driver = cuda_driver.build(tmp_path)
    job = Job(Path(driver["HEADSTRONG_GPU_LOCKS"]), [cuda_driver.IDS[2]])
    assert job.taken() == cuda_driver.IDS[2]
    found = run(tmp_path, **driver, CUDA_VISIBLE_DEVICES="2,0")
    assert job.end() == 0
    first, second = found["GPU"]
    assert first.startswith("cuda:0, Old One, 141.0 GiB, bfloat16 only emulated; taken by process ")
    assert f"process {job.process.pid} of " in first
    assert second == "cuda:1, New One, 141.0 GiB, bfloat16; free"
    assert found["CUDA_VISIBLE_DEVICES"] == ["2,0: jobs see these GPUs only"]
    assert re.match(r"the CPU: this torch (.* cannot use these GPUs|is built for CPUs)", found["auto means"][0])


def test_everything_broken_at_once(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so: file too short')\n")
    (tmp_path / "file").touch()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "sbatch").write_bytes(b"\x7fELF")
    (tmp_path / "tools" / "sbatch").chmod(0o755)
    found = run(
        tmp_path,
        PATH=str(tmp_path / "tools"),
        PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}",
        HEADSTRONG_REAL_DATA=str(tmp_path / "file"),
        HEADSTRONG_GPU_LOCKS=str(tmp_path / "file"),
        HEADSTRONG_JOBS_PER_GPU="many",
        CUDA_VISIBLE_DEVICES="nonsense",
        LANG="C",
    )
    assert found["auto means"] == ["nothing yet: torch cannot be loaded: ImportError: libcudart.so: file too short"]
    assert found["SLURM"] == ["does not answer: sbatch: Exec format error"]
    assert "sinfo: No such file or directory" in found["partitions"][0]
    assert "on the cluster" not in found
    assert found["python"]


def test_no_slurm_is_one_line(tmp_path):
    (tmp_path / "tools").mkdir()
    found = run(tmp_path, PATH=str(tmp_path / "tools"))
    assert found["SLURM"] == ["none here: no sbatch"]
    assert not {"partitions", "partition", "accounting", "Snakemake plugin"} & set(found)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder of SLURM's commands, before all others on PATH."""
    tools = tmp_path / "tools"
    program(tools, "sbatch", "echo slurm 24.05.2")
    gpu, cpu = "gpu*|up|2-00:00:00|12|64|512000|gpu:a100:4", "cpu|down|infinite|3|128|1000|(null)"
    program(tools, "sinfo", f"echo '{gpu}'; echo '{cpu}'")
    program(tools, "sacct", "true")
    program(tools, "sacctmgr", "echo vision; echo robots; echo vision")
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return tools


def test_a_cluster_is_told_in_words(cluster):
    found = told(list(doctor.report()))
    assert found["SLURM"] == ["slurm 24.05.2"]
    assert found["partition"] == [
        "gpu*: up, at most 2-00:00:00, 12 nodes with 64 processors, 512000 MB, gpu:a100:4; the default",
        "cpu: down, at most infinite, 3 nodes with 128 processors, 1000 MB, no GPU",
    ]
    assert found["accounting"] == ["available; your accounts: robots, vision"]
    assert "profiles/slurm" in found["on the cluster"][0]


def test_a_cluster_without_accounting(cluster):
    program(cluster, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert told(list(doctor.report()))["accounting"] == ["not available: Slurm accounting storage is disabled"]


def test_a_controller_that_is_silent_is_waited_for_once_and_not_long(cluster):
    for name in ("sinfo", "sacct", "sacctmgr"):
        program(cluster, name, "tail -f /dev/null")  # a child of the script, which keeps its output open
    found = told(list(doctor.report(seconds=0.2)))
    assert found["partitions"] == ["none can be used from here: sinfo: no answer within 0.2 s"]
    assert "accounting" not in found


@pytest.mark.parametrize(
    ("membership", "files", "processors", "memory"),
    [
        ("0::/slurm/job", {"slurm/job/cpu.max": "max 100000", "slurm/cpu.max": "100000 100000"}, 1, None),
        ("0::/job", {"cpu.max": "50000 100000", "memory.max": "1048576"}, 1, 2**20),
        ("0::/job", {"job/memory.max": "max", "job/cpu.max": "max 100000"}, None, None),
        (
            "4:memory:/a/b\n3:cpu,cpuacct:/a\n0::/",
            {
                "memory/a/memory.limit_in_bytes": "4096",
                "cpu/a/cpu.cfs_quota_us": "100000",
                "cpu/a/cpu.cfs_period_us": "100000",
            },
            1,
            4096,
        ),
        ("1:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None, None),
        ("", {}, None, None),
    ],
)
def test_limits_of_control_groups(tmp_path, membership, files, processors, memory):
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    (tmp_path / "membership").write_text(membership + "\n" if membership else "")
    places = (tmp_path / "membership", tmp_path / "groups")
    assert machine.processors(*places)[1] == (processors or len(os.sched_getaffinity(0)))
    assert machine.memory(*places)[1] == (memory or machine.memory()[0])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["model name\t: AMD EPYC", "flags\t\t: fpu sse2 avx avx2 avx512f avx512_bf16"], "AMD EPYC, AVX-512"),
        (["model name\t: Some: Processor @ 2.60GHz", "flags\t\t: fpu avx avx2"], "Some: Processor @ 2.60GHz, AVX2"),
        (["CPU implementer\t: 0x41", "Features\t: fp asimd crc32", ""], f"{platform.machine()}, NEON"),
        ([], platform.machine()),
    ],
)
def test_processors_by_name_and_vectors(tmp_path, lines, expected):
    (tmp_path / "cpuinfo").write_text("\n".join(lines))
    assert machine.processor(tmp_path / "cpuinfo") == expected
    assert machine.processor(tmp_path / "none") == platform.machine()


def test_affinity_counts():
    code = "import os; from headstrong import machine; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "print(machine.processors()[1])"
    result = subprocess.run([sys.executable, "-c", code], env=BASE, capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"
