"""What this process may use of the machine it runs on, and answers of other programs that may be broken or hang."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

_MEMBERSHIP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}  # widest first


class NoAnswerError(Exception):
    """A program that was asked is not there, failed, or took too long; one line."""


def ask(command: Sequence[str], seconds: float) -> str:
    """What a program prints. NoAnswerError, with the last line of its complaint, where it fails or takes longer."""
    pipe = subprocess.PIPE
    try:
        # A session of its own: a script that hangs is stopped together with what it waits for.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise NoAnswerError(f"{command[0]}: {error.strerror}") from None
    with process:
        try:
            printed, complaint = process.communicate(timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise NoAnswerError(f"{Path(command[0]).name}: no answer within {seconds:g} s") from None
            raise
    if process.returncode != 0:
        lines = (complaint.strip() or printed.strip()).splitlines()
        raise NoAnswerError(lines[-1] if lines else f"{Path(command[0]).name}: exit code {process.returncode}")
    return printed


def processors(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> tuple[int, int]:
    """How many processors there are, and how many this process may use: by its affinity and its control groups.

    membership, groups: where Linux says what control groups the process is in, and what these allow.
    """
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    for folder in _groups_of("cpu", membership, groups):
        version_1 = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        for quota, *period in filter(None, (_words(folder / "cpu.max"), version_1)):
            if quota.isdecimal() and period:
                allowed = min(allowed, max(1, math.ceil(int(quota) / int(period[0]))))
    return there, allowed


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """What the processor calls itself, and its widest vectors: "AMD EPYC, AVX-512". Sums are rounded by these widths.

    cpuinfo: where Linux describes the processors. Elsewhere only the kind of machine: "arm64".
    """
    described = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    values = {name.strip(): value.strip() for name, mark, value in (line.partition(":") for line in described) if mark}
    features = set((values.get("flags") or values.get("Features") or "").split())
    widest = next((name for feature, name in _VECTORS.items() if feature in features), None)
    name = values.get("model name") or platform.machine() or "not known"
    return f"{name}, {widest}" if widest else name


def memory(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> tuple[int, int]:
    """Bytes of memory that there are, and that this process may use by its control groups (see `processors`)."""
    there = allowed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _groups_of("memory", membership, groups):
        for name in ("memory.max", "memory.limit_in_bytes"):
            allowed = min([allowed, *(int(word) for word in _words(folder / name) if word.isdecimal())])
    return there, allowed


def room(path: Path) -> tuple[Path, int, int]:
    """The folder that `path` is in or would be made in, and bytes free and in all on its file system."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return folder, usage.free, usage.total


def _groups_of(controller: str, membership: Path, groups: Path) -> Iterator[Path]:
    """Folders of the control groups that may limit a process, innermost first, of version 2 and of version 1."""
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        inner = PurePosixPath(path.lstrip("/"))
        base = groups if number == "0" else groups / controller
        yield from (base / part for part in (inner, *inner.parents))


def _words(file: Path) -> list[str]:
    """The words of a small file; none where it is not there."""
    try:
        return file.read_text().split()
    except OSError:
        return []


def user_name() -> str:
    """Who runs this process, or the number of who does."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container without a list of users
        return str(os.getuid())
