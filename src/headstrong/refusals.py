"""What a machine can refuse - room, memory, leave to write - told as one line with what to do (exit code 7)."""

from __future__ import annotations

import errno
import os
import re
from concurrent.futures.process import BrokenProcessPool

from headstrong.errors import MachineError

# What the system says (errno), what that means to a person, and what to do.
_REFUSALS = {
    errno.ENOSPC: ("no room is left on this disk", "make room"),
    errno.EDQUOT: ("your quota of this disk is used up", "make room"),
    errno.EFBIG: ("the file is larger than this disk or your limits allow", "raise the limit (ulimit -f)"),
    errno.EROFS: ("this disk can only be read", "make it writable, or work in another folder"),
    errno.EACCES: ("no leave to read or write it", "see to its rights"),
    errno.EPERM: ("no leave to read or write it", "see to its rights"),
    errno.EIO: ("the disk failed", "see to the disk"),
    errno.ESTALE: ("the network disk lost the file", "see to the disk"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs"),
    errno.ENAMETOOLONG: ("the name is longer than this disk allows", "choose a shorter study.name or folder"),
}
_MEMORY = "give it more memory (mem_mb), fewer processes, a smaller batch_size or smaller images (data.size)"
# HDF5 and safetensors put errno and name into their text, and often nowhere else.
_ERRNO = re.compile(r"errno = (\d+)|os error (\d+)|\[Errno (\d+)\]")
_NAME = re.compile(r"name = '([^']+)'")
_NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory|Cannot allocate memory", re.IGNORECASE)


def refusal(error: BaseException) -> MachineError | None:
    """What the machine refused, not raised, where an exception means that; None for a defect of the program."""
    if isinstance(error, MemoryError) or _is_memory(error):
        return MachineError(f"out of memory ({_first_line(error)}); {_MEMORY}, and run it again")
    if isinstance(error, BrokenProcessPool):
        said = "a helper process was killed, as systems do that run out of memory"
        return MachineError(f"{said}; {_MEMORY}, and run it again")
    number = _number(error) if isinstance(error, OSError | RuntimeError) or _is_foreign(error) else None
    if number not in _REFUSALS:
        return None
    meaning, remedy = _REFUSALS[number]
    return MachineError(f"{_place(error)}: {meaning} ({os.strerror(number)}); {remedy}, and run it again")


def _is_memory(error: BaseException) -> bool:
    """Whether torch or the system ran out of memory, on whatever device; torch itself is not imported."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))
    )


def _is_foreign(error: BaseException) -> bool:
    return type(error).__name__ == "SafetensorError"


def _number(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if number is not None:
        return int(number)
    found = _ERRNO.search(str(error))
    return int(next(filter(None, found.groups()))) if found else None


def _place(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    if name is None:
        found = _NAME.search(str(error))
        name = found[1] if found else None
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    return str(name) if name is not None else "a file"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
