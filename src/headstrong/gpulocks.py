"""Which job has which GPU of this machine: locks that the operating system lets go when their holder ends.

A GPU has a file GPU-<uuid>.lock in a folder of this machine. A job that wants the GPU for itself locks it exclusively;
jobs that share it (HEADSTRONG_JOBS_PER_GPU above 1) lock it together, and each one file GPU-<uuid>.<slot>.lock on its
own. Who holds a lock stands in its file, for people. All users share the folder; files are opened so that what another
user puts there can mislead nobody into writing elsewhere.

The locks are flock's: they end with the process, however it ends. The package filelock, used elsewhere, opens its files
so that Linux refuses those of other users in a folder that all may write to (fs.protected_regular), and shares none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headstrong.errors import ConfigError, MachineError
from headstrong.machine import user_name

SHARING = "HEADSTRONG_JOBS_PER_GPU"
FOLDER = "HEADSTRONG_GPU_LOCKS"
# Not where TMPDIR points: schedulers give every job a folder of its own there, and jobs would not meet.
DEFAULT_FOLDER = Path("/tmp/headstrong-gpus")
POLL_SECONDS = 1.0
_SHOWN = 200  # characters of an argument of a command
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
log = logging.getLogger(__name__)


class _Folder(NamedTuple):
    path: Path
    handle: int


def jobs_per_gpu() -> int:
    """How many jobs share a GPU, from HEADSTRONG_JOBS_PER_GPU; ConfigError where that is no whole number from 1 on."""
    given = os.environ.get(SHARING, "1")
    if not (given.isdecimal() and int(given) >= 1):
        raise ConfigError(f"{SHARING}={given}: expected a whole number of jobs, 1 or more")
    return int(given)


def lock_folder() -> Path:
    """Where the locks of this machine are: HEADSTRONG_GPU_LOCKS, else one folder for all users."""
    return Path(os.environ.get(FOLDER) or DEFAULT_FOLDER)


@contextlib.contextmanager
def one_of(ids: Sequence[str], sharing: int = 1, folder: Path | None = None) -> Iterator[str]:
    """Within it, this process has one of the GPUs `ids`, the one yielded; it waits while all are taken.

    The log says who has them while it waits. sharing: how many jobs may have it at once, as far as this one is
    concerned; 1: nobody else. Raises MachineError where the folder of locks cannot be used.
    """
    place = folder or lock_folder()
    with contextlib.ExitStack() as held:
        taken = _take(place, ids, sharing)
        if taken is None:
            log.info("waiting for a GPU; taken: %s", "; ".join(f"{id} by {_who(id, place)}" for id in ids))
        while taken is None:
            time.sleep(POLL_SECONDS)
            taken = _take(place, ids, sharing)
        id, handles = taken
        for handle in handles:
            held.callback(os.close, handle)
        _describe(handles[-1])
        held.callback(os.ftruncate, handles[-1], 0)
        yield id


def holders_of(id: str, folder: Path | None = None) -> list[str]:
    """Who has this GPU now, a line each: process, user, host, since when, command. Empty: it is free.

    Raises MachineError where the folder of locks cannot be used.
    """
    place = folder or lock_folder()
    if not place.exists():
        return []
    with _folder(place) as opened:
        names = sorted(name for name in os.listdir(opened.handle) if name.startswith(f"{id}.") and name[-5:] == ".lock")
        return [found for name in names if (found := _holder(opened, name)) is not None]


def _who(id: str, place: Path) -> str:
    with contextlib.suppress(MachineError):  # a foreign thing in the folder, which is in nobody's way
        return ", ".join(holders_of(id, place)) or "a job that is just ending"
    return "a job"


def _take(place: Path, ids: Sequence[str], sharing: int) -> tuple[str, list[int]] | None:
    """The first GPU that is free, and the descriptors that keep it; those with fewest jobs first; None: none is."""
    with _folder(place) as folder:
        for slot in range(sharing):
            for id in ids:
                handles = _take_alone(folder, id) if sharing == 1 else _take_slot(folder, id, slot)
                if handles is not None:
                    return id, handles
    return None


def _take_alone(folder: _Folder, id: str) -> list[int] | None:
    handle = _lock(folder, f"{id}.lock", fcntl.LOCK_EX)
    return None if handle is None else [handle]


def _take_slot(folder: _Folder, id: str, slot: int) -> list[int] | None:
    gate = _lock(folder, f"{id}.lock", fcntl.LOCK_SH)
    if gate is None:
        return None
    handle = _lock(folder, f"{id}.{slot}.lock", fcntl.LOCK_EX)
    if handle is None:
        os.close(gate)
        return None
    return [gate, handle]


def _lock(folder: _Folder, name: str, kind: int) -> int | None:
    """A descriptor of the file, locked, or None: another has it. Closing it, or the end of the process, unlocks it."""
    while True:
        handle = _open(folder, name)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(name, dir_fd=folder.handle, follow_symlinks=False)):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(handle)
            raise _unusable(folder.path / name, error.strerror) from None
        os.close(handle)  # the file was cleaned away before it was locked: others would lock a new one


def _open(folder: _Folder, name: str) -> int:
    """A descriptor of a plain file of the folder, made where there is none; nothing else is ever opened for writing."""
    try:
        try:
            handle = os.open(name, _OPEN, dir_fd=folder.handle)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError), _for_everyone():
                return os.open(name, _OPEN | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder.handle)
            handle = os.open(name, _OPEN, dir_fd=folder.handle)
    except OSError as error:
        raise _unusable(folder.path / name, error.strerror) from None
    found = os.fstat(handle)
    # A second name of a file would let whoever made it choose what is written over.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise _unusable(folder.path / name, "not a plain file")
    return handle


@contextlib.contextmanager
def _folder(place: Path) -> Iterator[_Folder]:
    """The folder opened, made where there is none: all users may add files, none may remove another's."""
    try:
        with contextlib.suppress(FileExistsError), _for_everyone():
            os.mkdir(place, 0o1777)
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(place, error.strerror) from None
    try:
        yield _Folder(place, handle)
    finally:
        os.close(handle)


def _unusable(path: Path, reason: str | None) -> MachineError:
    return MachineError(f"{path}: cannot lock GPUs with it: {reason}; set {FOLDER} to a folder of this machine")


@contextlib.contextmanager
def _for_everyone() -> Iterator[None]:
    """Within it, files and folders have the permissions asked for from the start: no user is refused in between."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def _describe(handle: int) -> None:
    command = " ".join("{…}" if word.startswith("{") else shlex.quote(word[:_SHOWN]) for word in sys.argv)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    facts = {"pid": os.getpid(), "user": user_name(), "host": socket.gethostname(), "since": since, "command": command}
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(facts).encode(), 0)


def _holder(folder: _Folder, name: str) -> str | None:
    """Who holds the lock exclusively; None: nobody."""
    handle = _open(folder, name)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(handle)
    except OSError as error:
        raise _unusable(folder.path / name, error.strerror) from None
    else:
        return None
    finally:
        os.close(handle)


def _read(handle: int) -> str:
    try:
        facts = json.loads(os.pread(handle, 10_000, 0))
        text = "process {pid} of {user} on {host} since {since}: {command}".format(**facts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a process that has not said who it is"
    return "".join(letter if letter.isprintable() else "?" for letter in text[:1000])
