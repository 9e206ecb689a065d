"""Trainings that are killed by another process, or stopped from within, once their checkpoint is so far."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headstrong.models.store import read_tensors
from headstrong.provenance import ROOT

# A shell in the background, or nohup, has its children ignore what ends others.
ENDED_BY_SIGNALS = ("env", "--default-signal=HUP,INT,TERM")


def kill_after(folder: Path, program: str, arguments: list[str], epoch: int, step: int) -> tuple[int, int]:
    """Start a training into `folder` in another process and kill it once its checkpoint is that far.

    program: Python code that trains; it finds `folder` and then the arguments in `sys.argv[1:]`.
    Returns the epoch and the step of the checkpoint.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", program, str(folder), *arguments]
    checkpoint, place = folder / "work" / "last.ckpt", (0, 0)
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        try:
            while place < (epoch, step):
                assert child.poll() is None, "the training ended before it could be killed"
                if checkpoint.exists():
                    description = read_tensors(checkpoint)[1]
                    place = (description["epoch"], description["step"])
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    return place


class Stop(BaseException):
    """Ends a training from within, leaving its checkpoint as a kill would."""


@contextmanager
def stopping(folder: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, calls: int) -> Iterator[None]:
    """A training into `folder` that is run herein stops after so many calls of the function `owner.name`."""
    done, count = getattr(owner, name), iter(range(calls))

    def counted(*arguments: object) -> object:
        if next(count, None) is None:
            raise Stop
        return done(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counted)
        with pytest.raises(Stop):
            yield
    assert (folder / "work" / "last.ckpt").is_file()
