"""What this machine can run, and what the workflow will use of it: the text of `python -m headstrong doctor`.

Every part is told on its own: what is missing, broken or does not answer takes a line and stops nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from headstrong import gpulocks, gpus, machine
from headstrong.data.acquire import DATASETS, VARIABLE, data_root, locate
from headstrong.errors import MissingDataError, UserError
from headstrong.provenance import versions

SECONDS = 15.0  # that SLURM may take for an answer
TORCH_SECONDS = 120.0  # torch is loaded from disk, on some clusters slowly
_WIDTH = 22
_PLUGIN = "snakemake-executor-plugin-slurm"
_TORCH = (
    "import json, torch; print(json.dumps([torch.version.cuda or torch.version.hip, torch.cuda.is_available(), "
    "torch.cuda.is_available() and torch.cuda.is_bf16_supported()]))"
)
Row = tuple[str, str]


class Answers:
    """What other programs say, all asked at once; `seconds`: how long SLURM's may take."""

    def __init__(self, pool: ThreadPoolExecutor, seconds: float) -> None:
        self.torch = pool.submit(_ask_torch)
        self.gpus = pool.submit(_ask_driver)
        self.sbatch = shutil.which("sbatch")
        self.slurm = {name: pool.submit(machine.ask, command, seconds) for name, command in _slurm_commands().items()}


def report(seconds: float = SECONDS) -> Iterator[str]:
    """The lines of the report. Never fails: what cannot be told says why."""
    with ThreadPoolExecutor() as pool:
        answers = Answers(pool, seconds)
        for number, (title, section) in enumerate(SECTIONS.items()):
            if number:
                yield ""
            yield f"[{title}]"
            yield from _lines(section, answers)


def _lines(section: Callable[[Answers], Iterator[Row]], answers: Answers) -> Iterator[str]:
    try:
        for label, text in section(answers):
            yield f"{label:{_WIDTH}} {' '.join(text.split())}"
    except Exception as error:  # a doctor that falls ill is no help
        yield f"{'cannot be told':{_WIDTH}} {type(error).__name__}: {' '.join(str(error).split())}"


def _machine(_: Answers) -> Iterator[Row]:
    yield "processor", machine.processor()
    yield "processors", _of_which(*machine.processors(), str)
    yield "memory", _of_which(*machine.memory(), _size)
    folder, free, total = machine.room(Path("results"))
    writable = "" if os.access(folder, os.W_OK) else "; this user cannot write here"
    yield "room for results", f"{_size(free)} free of {_size(total)} in {folder}{writable}"


def _of_which(there: int, allowed: int, shown: Callable[[int], str]) -> str:
    return shown(there) if allowed >= there else f"{shown(there)}, of which this process may use {shown(allowed)}"


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"


def _devices(answers: Answers) -> Iterator[Row]:
    torch = answers.torch.result()
    found = answers.gpus.result()
    if isinstance(found, str):
        yield "GPU", f"none can be used: {found}"
        found = []
    elif not found:
        yield "GPU", "none" if not _sees_gpu(torch) else "seen by torch, but not by name: jobs will not lock it"
    for gpu in found:
        bfloat16 = "bfloat16" if gpu.has_bfloat16 else "bfloat16 only emulated"
        yield "GPU", f"{gpu}, {_size(gpu.memory)}, {bfloat16}; {_holders(gpu)}"
    if gpus.MASK in os.environ:
        yield gpus.MASK, f"{os.environ[gpus.MASK] or '(empty)'}: jobs see these GPUs only"
    yield "auto means", _meaning_of_auto(torch, found)
    if _sees_gpu(torch):
        yield "jobs per GPU", _sharing()
    yield "precision auto", "bfloat16" if _sees_gpu(torch) and torch[2] else "float32"


def _sees_gpu(torch: Any) -> bool:
    return not isinstance(torch, str) and torch[1]


def _meaning_of_auto(torch: Any, found: Sequence[gpus.Gpu]) -> str:
    if isinstance(torch, str):
        return f"nothing yet: torch cannot be loaded: {torch}"
    if torch[1]:
        return "a GPU that no other job has; a job waits while all are taken"
    if torch[0] is None:
        return "the CPU: this torch is built for CPUs only"
    return f"the CPU: this torch (for CUDA {torch[0]}) cannot use these GPUs" if found else "the CPU"


def _sharing() -> str:
    try:
        return f"{gpulocks.jobs_per_gpu()} ({gpulocks.SHARING} sets it)"
    except UserError as error:
        return str(error)


def _holders(gpu: gpus.Gpu) -> str:
    try:
        holders = gpulocks.holders_of(gpu.id)
    except (UserError, OSError) as error:
        return str(error)
    return f"taken by {', '.join(holders)}" if holders else "free"


def _slurm(answers: Answers) -> Iterator[Row]:
    if answers.sbatch is None:
        yield "SLURM", "none here: no sbatch"
        return
    yield "SLURM", _told(answers.slurm["version"])
    yield "Snakemake plugin", _plugin()
    try:
        partitions = [line.split("|") for line in answers.slurm["partitions"].result().splitlines()]
    except machine.NoAnswerError as error:
        yield "partitions", f"none can be used from here: {error}"
        return
    for name, state, limit, nodes, cores, megabytes, devices in partitions:
        gres = "no GPU" if devices == "(null)" else devices
        size = f"{nodes} nodes with {cores} processors, {megabytes} MB, {gres}"
        yield "partition", f"{name}: {state}, at most {limit}, {size}" + ("; the default" if name[-1:] == "*" else "")
    yield "accounting", _accounting(answers)


def _told(answer: Future[str]) -> str:
    try:
        return answer.result().strip()
    except machine.NoAnswerError as error:
        return f"does not answer: {error}"


def _plugin() -> str:
    try:
        return f"{_PLUGIN} {metadata.version(_PLUGIN)}"
    except metadata.PackageNotFoundError:
        return f"{_PLUGIN} is missing"


def _accounting(answers: Answers) -> str:
    try:
        answers.slurm["accounting"].result()
    except machine.NoAnswerError as error:
        return f"not available: {error}"
    accounts = ", ".join(sorted(set(_told(answers.slurm["accounts"]).split("\n"))))
    return f"available; your accounts: {accounts or 'none'}"


def _slurm_commands() -> dict[str, list[str]]:
    if shutil.which("sbatch") is None:
        return {}
    return {
        "version": ["sbatch", "--version"],
        "partitions": ["sinfo", "--noheader", "--format=%P|%a|%l|%D|%c|%m|%G"],
        "accounting": ["sacct", "--noheader", "--allocations", "--starttime=now"],
        "accounts": ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={machine.user_name()}",
                     "format=Account"],
    }  # fmt: skip


def _commands(answers: Answers) -> Iterator[Row]:
    _, cores = machine.processors()
    yield "here", f"make study CORES={cores}"
    found = answers.gpus.result()
    if _sees_gpu(answers.torch.result()) and not isinstance(found, str):
        jobs = max(1, len(found)) * gpulocks.jobs_per_gpu()
        yield "with these GPUs", f"snakemake --cores {cores} --resources gpu={jobs} --configfile studies/full.yaml"
    if answers.sbatch is not None and answers.slurm["partitions"].exception() is None:
        yield "on the cluster", "snakemake --profile profiles/slurm --configfile studies/full.yaml"


def _data(_: Answers) -> Iterator[Row]:
    yield "rooms, objects", "embedded, nothing to place"
    for dataset in DATASETS:
        try:
            yield dataset, str(locate(dataset))
        except MissingDataError:
            yield dataset, f"not in {data_root() / dataset}"
    yield "to get one", f"python -m headstrong fetch NAME; {VARIABLE} says in which folder to look"


def _versions(answers: Answers) -> Iterator[Row]:
    yield from versions().items()
    torch = answers.torch.result()
    if not isinstance(torch, str):
        yield "torch is for", f"CUDA {torch[0]}" if torch[0] else "CPUs only"


def _ask_torch() -> list[Any] | str:
    """What torch is built for, whether it sees a GPU, and whether in bfloat16; or why it cannot be loaded.

    In a process of its own: loading it takes seconds and may fail.
    """
    try:
        answer: list[Any] = json.loads(machine.ask([sys.executable, "-c", _TORCH], TORCH_SECONDS).splitlines()[-1])
    except (machine.NoAnswerError, ValueError, IndexError) as error:
        return str(error)
    return answer


def _ask_driver() -> list[gpus.Gpu] | str:
    try:
        return gpus.visible()
    except gpus.DriverError as error:
        return str(error)


SECTIONS: dict[str, Callable[[Answers], Iterator[Row]]] = {
    "machine": _machine,
    "devices": _devices,
    "SLURM": _slurm,
    "how to run": _commands,
    "data": _data,
    "versions": _versions,
}
