"""The warm interpreter: imports what the programs import, then forks a child for each that asks (see `warm`).

  python -m headstrong.warm_server SOCKET

Nothing that a fork would break is started here: no threads, no CUDA, no file of HDF5. It ends when its standard input
does or at SIGTERM, at once or with the last of its children. A child whose program was killed is killed as well, at
once, as the program would have been; so is one whose server was killed: its program then starts anew.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import importlib
import os
import random
import resource
import select
import signal
import socket
import sys
import time
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

from headstrong import warm
from headstrong.provenance import NOT_NUMBERS, PACKAGE, ROOT, imported_files

# Torch imports its compiler, which nothing here uses, with the first optimiser and the first use of deterministic
# kernels: more than a second and a half of every job.
_LATE = ("torch._dynamo", "torch._inductor")
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h


class Child(NamedTuple):
    """A child that works: its number, a descriptor that can be waited for, the connection to its program."""

    process: int
    descriptor: int
    connection: socket.socket

    def kill(self) -> None:
        """Kill it, and whatever it has started."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
            os.killpg(self.process, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it."""
        self.connection.close()
        os.close(self.descriptor)


def modules() -> list[str]:
    """The package's modules that the programs import, early or late."""
    scripts = sorted(str(path) for path in (ROOT / "scripts").glob("*.py"))
    files = {path for path in imported_files(*scripts) if path.is_relative_to(PACKAGE)}
    files |= {PACKAGE / name for name in NOT_NUMBERS}
    dotted = (path.relative_to(PACKAGE.parent).with_suffix("").parts for path in sorted(files))
    return [".".join(parts).removesuffix(".__init__") for parts in dotted if "__main__" not in parts]


def load() -> None:
    """Import them. One that cannot be imported here is left to the job that needs it, which says why."""
    for name in (*modules(), *_LATE):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # collections in the children leave the pages that they share alone


class Server:
    """Forks for every program that connects to `path`, until it is told to end and its last child has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.children: dict[int, Child] = {}  # by descriptor
        self.process = os.getpid()
        self.greeting = warm.identity(sys.path)
        self.told, self._tell = os.pipe()  # SIGTERM is a byte in it
        os.set_blocking(self._tell, False)
        signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        self.listener: socket.socket | None = socket.socket(socket.AF_UNIX)
        early = path.with_name("early")  # a socket is seen only when it answers
        self.listener.bind(str(early))
        self.listener.listen(128)
        early.rename(path)

    def serve(self) -> socket.socket | None:
        """Returns in every child, with the connection to its program, and in the server at the end, with None."""
        while self.listener is not None or self.children:
            for descriptor in self._ready():
                if descriptor in self.children:
                    self._reap(self.children.pop(descriptor))
                elif self.listener is None or descriptor in (0, self.told):
                    self.close()
                else:
                    program = self._fork(self.listener)
                    if program is not None:
                        return program
        return None

    def close(self) -> None:
        """Take no more programs."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
            warm._remove(self.path)

    def _ready(self) -> list[int]:
        """Descriptors of children that ended, of the listener, of what tells to end. Kills whose program is dead."""
        waiting = select.poll()
        if self.listener is not None:
            for descriptor in (0, self.told, self.listener.fileno()):
                waiting.register(descriptor, select.POLLIN)
        programs = {child.connection.fileno(): child for child in self.children.values()}
        for child in self.children.values():
            waiting.register(child.descriptor, select.POLLIN)
            waiting.register(child.connection, select.POLLRDHUP)  # not POLLIN: what comes is for the child
        ready = [descriptor for descriptor, _ in waiting.poll()]
        for descriptor in programs.keys() & set(ready):
            programs[descriptor].kill()
            self._reap(self.children.pop(programs[descriptor].descriptor))
        return [descriptor for descriptor in ready if descriptor in self.children or descriptor not in programs]

    def _reap(self, child: Child) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(child.process, 0)[1])
        with contextlib.suppress(OSError):  # its program is dead
            warm.send(child.connection, {"status": status}, [])
        child.close()

    def _fork(self, listener: socket.socket) -> socket.socket | None:
        try:
            connection, _ = listener.accept()
        except OSError:  # no descriptors left; later programs compute by themselves
            self.close()
            return None
        try:
            process = os.fork() if warm.peer_is_ours(connection) else None
        except OSError:
            process = None
        if process == 0:
            self._leave_to_server(listener)
            return connection
        if process is None:
            connection.close()
            return None
        child = Child(process, os.pidfd_open(process), connection)
        self.children[child.descriptor] = child
        with contextlib.suppress(OSError):
            warm.send(connection, self.greeting, [child.descriptor])
        return None

    def _leave_to_server(self, listener: socket.socket) -> None:
        """In a child: let go of all that is the server's, or nobody would see when the others end."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.process:  # it died before that
            os._exit(1)
        listener.close()
        os.close(self.told)
        os.close(self._tell)
        for child in self.children.values():
            child.close()


def _prctl(option: int, argument: Any) -> None:
    ctypes.CDLL(None).prctl(option, argument)


def become(program: socket.socket) -> None:
    """In a child: take the place of the program that asks, and run its script as it would have."""
    try:
        request, streams = warm.receive(program, 3)
    except OSError:
        os._exit(1)  # it does without
    program.close()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    for name, limits in request["limits"].items():
        with contextlib.suppress(ValueError, OSError):  # no more than this process has, which is Snakemake's child too
            resource.setrlimit(getattr(resource, name), tuple(limits))
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    sys.argv[:], sys.path[:] = request["argv"], request["path"]
    _prctl(_PR_SET_NAME, Path(sys.argv[0]).stem.encode())
    _seed()
    path = os.path.abspath(sys.argv[0])
    loader = SourceFileLoader("__main__", path)
    script = types.ModuleType("__main__")
    vars(script).update(__file__=path, __loader__=loader, __builtins__=builtins)
    sys.modules["__main__"] = script
    exec(loader.source_to_code(Path(path).read_bytes(), path), vars(script))


def _seed() -> None:
    """Let generators of random numbers that nobody has seeded differ between children, as between processes."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.seed()


def main() -> None:
    """Load, serve; in a child, run."""
    del sys.path[0]  # the folder of Snakemake, where the programs have their own
    load()
    try:
        server = Server(Path(sys.argv[1]))
    except FileNotFoundError:  # Snakemake has ended meanwhile, and taken its folder away
        os._exit(0)
    program = server.serve()
    if program is None:
        os._exit(0)  # nothing is open
    del server
    become(program)


if __name__ == "__main__":
    main()
