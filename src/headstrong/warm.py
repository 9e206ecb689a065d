"""A warm interpreter for the jobs of a local run: one process has imported torch, and forks a child for each job.

Half of a small training is its start. So Snakemake starts `warm_server` and tells its jobs where it listens
(HEADSTRONG_WARM); a program then lets a child of it do the work, hands it its arguments, environment, folder, limits
and standard streams, passes signals on, and ends as the child ended. Where nothing listens, or what listens is not the
same Python with the same libraries, it computes itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "HEADSTRONG_WARM"  # path of the socket; "off": every job starts an interpreter of its own
OFF = "off"
# Read by the libraries when they are loaded, and set by Snakemake to the threads of each job: the warm interpreter has
# 1, as nearly all jobs; others compute by themselves.
ONE_THREAD = dict.fromkeys(
    [*(f"{name}_NUM_THREADS" for name in ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")), "VECLIB_MAXIMUM_THREADS"], "1"
)
# What else Python and the libraries read when they are loaded, by the beginnings of the names.
_READ_EARLY = (
    *("OMP_", "KMP_", "GOMP_", "GOTO_", "OPENBLAS_", "MKL_", "VECLIB_", "NUMEXPR_", "DNNL_", "ONEDNN_", "ATEN_"),
    *("TORCH_", "PYTORCH_", "HDF5_", "MPL", "MALLOC_", "LD_", "LC_", "LANG", "TZ", "PYTHON"),
)
_LONGEST_PATH = 100  # of a Unix socket; Linux takes 107 bytes
_GREETING_SECONDS = 30.0  # it forks and answers at once, unless the machine is out of breath
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HEADER = struct.Struct("!I")
log = logging.getLogger(__name__)


def start() -> object:
    """Start the warm interpreter of this process and tell its jobs of it; nothing where it is off, or not on Linux.

    It is there when it has imported everything, some seconds later, and ends when this process does, however that ends,
    or with the last of its jobs. What is returned is to be kept.
    """
    if sys.platform != "linux" or os.environ.get(VARIABLE) == OFF:
        os.environ[VARIABLE] = OFF
        return None
    path = _private_folder() / "socket"
    # A session of its own: Ctrl-C in the terminal is for Snakemake and the programs, which pass it on.
    process = subprocess.Popen(
        [sys.executable, "-m", "headstrong.warm_server", str(path)],
        stdin=subprocess.PIPE,  # its end tells the server that this process has ended
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **ONE_THREAD},
    )
    os.environ[VARIABLE] = str(path)
    atexit.register(_remove, path)
    return process


def compute() -> int | None:
    """Let the warm interpreter run this very program: its exit code; None where this process is to do it itself."""
    path = os.environ.get(VARIABLE, OFF)
    if path == OFF or not os.path.exists(path):  # still importing, or of another machine
        return None
    if "numpy" in sys.modules or any(os.environ.get(name, "1") != "1" for name in ONE_THREAD):
        return None  # nothing to gain, or not the threads it was loaded with
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_GREETING_SECONDS)
            connection.connect(path)
            return _delegate(connection)
    except (OSError, ValueError) as error:
        log.info("computing without the warm interpreter: %s", error)
        return None


def identity(path: list[str]) -> dict[str, Any]:
    """What must be equal in two interpreters, for one to do the other's work. path: where it finds modules."""
    early = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_READ_EARLY)}
    flags = [sys.version, sys.prefix, list(sys.flags), sys.warnoptions]
    return {"python": flags, "path": path, "environment": {**early, **ONE_THREAD}}


def peer_is_ours(connection: socket.socket) -> bool:
    """Whether a process of the same user is at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())


def send(connection: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    """Send a message, with descriptors that the other end gets copies of. OSError when the connection has ended."""
    text = json.dumps(message).encode()
    if descriptors:
        socket.send_fds(connection, [_HEADER.pack(len(text))], descriptors)
    else:
        connection.sendall(_HEADER.pack(len(text)))
    connection.sendall(text)


def receive(connection: socket.socket, descriptors: int = 0) -> tuple[dict[str, Any], list[int]]:
    """The next message, and so many descriptors with it.

    Raises ConnectionError (an OSError) when the connection has ended or other descriptors came, ValueError for what is
    not JSON.
    """
    header, found, _, _ = socket.recv_fds(connection, _HEADER.size, descriptors)
    header += _exactly(connection, _HEADER.size - len(header))
    message = json.loads(_exactly(connection, _HEADER.unpack(header)[0]))
    if len(found) != descriptors:
        raise ConnectionError("it sent other descriptors than it should")
    return message, found


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise ConnectionError("it has ended")
        parts += part
    return bytes(parts)


def _delegate(connection: socket.socket) -> int | None:
    if not peer_is_ours(connection):
        raise ConnectionError("it belongs to another user")
    greeting, (child,) = receive(connection, 1)
    try:
        if greeting != identity(sys.path[1:]):
            raise ConnectionError(f"it has another {_difference(greeting)}")
        with _forwarding(child) as received:
            send(connection, _request(), [0, 1, 2])
            connection.settimeout(None)
            status = _status(connection, child)
    finally:
        os.close(child)
    if status is None and not received:
        raise ConnectionError("it was killed; this job starts anew")
    if status is None or status < 0:
        return _die(received[0] if status is None else -status)
    return status


def _difference(greeting: dict[str, Any]) -> str:
    mine = identity(sys.path[1:])
    return ", ".join(key for key in mine if greeting.get(key) != mine[key])


def _request() -> dict[str, Any]:
    import resource

    umask = os.umask(0)
    os.umask(umask)
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {
        "argv": sys.argv, "path": sys.path, "environment": environment, "folder": os.getcwd(), "umask": umask,
        "limits": limits,
    }  # fmt: skip


def _status(connection: socket.socket, child: int) -> int | None:
    """The exit code of the child, negative for a signal; None when the warm interpreter died, and the child with it."""
    try:
        return int(receive(connection)[0]["status"])
    except OSError:
        # Without its parent nobody can tell how the child ends; two must not write one result.
        _signal(child, signal.SIGKILL)
        waiting = select.poll()
        waiting.register(child, select.POLLIN)
        waiting.poll()
        return None


@contextlib.contextmanager
def _forwarding(child: int) -> Iterator[list[int]]:
    """Within it, signals that would end this process go to the child; they are noted in the list."""
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        _signal(child, number)

    before = {number: signal.getsignal(number) for number in _FORWARDED}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, forward)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child, number)  # no number of a process, which could be another's by now


def _die(number: int) -> int:
    """End by a signal, so that whoever waits sees what happened."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _private_folder() -> Path:
    """A new folder that only this user can enter, with a path that is short enough for a socket in it."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]
    short = [name for name in candidates if len(os.fsencode(name)) < _LONGEST_PATH - 40 and os.access(name, os.W_OK)]
    return Path(tempfile.mkdtemp(prefix="headstrong-", dir=short[0] if short else None))


def _remove(path: Path) -> None:
    """Take away what a server leaves that is killed."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()
