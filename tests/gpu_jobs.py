"""Jobs that take one of some pretended GPUs: real processes, real locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from headstrong.provenance import ROOT

JOB = """
import json, logging, os, sys
from headstrong import gpulocks
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
gpulocks.POLL_SECONDS = 0.02
ids, sharing, user = json.loads(sys.argv[1])
if user is not None:
    os.setuid(user)
with gpulocks.one_of(ids, sharing) as taken:
    print(taken, flush=True)
    sys.stdin.readline()
"""


class Job:
    """A process that takes one of `ids` and keeps it until told to end."""

    def __init__(self, folder: Path, ids: list[str], sharing: int = 1, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, json.dumps([ids, sharing, user])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HEADSTRONG_GPU_LOCKS": str(folder), "PYTHONPATH": str(ROOT / "src")},
        )

    def taken(self) -> str:
        """What it has; waits until it has something."""
        return _pipe(self.process.stdout).readline().strip()

    def said(self) -> str:
        """The next line of its log; waits for one."""
        return _pipe(self.process.stderr).readline().strip()

    def end(self) -> int:
        """Let it end by itself; its exit code."""
        self.process.communicate("\n")
        return self.process.returncode

    def stop(self, number: int) -> int:
        """Send it a signal; its exit code."""
        self.process.send_signal(number)
        self.process.communicate()
        return self.process.returncode


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
