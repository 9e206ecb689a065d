"""Files that tell a job what to do: written when the job is about to run, read by its program.

A command line has room for 128 KiB; a job has no such limit. The name of a file contains the digest of its content, and
the name is all that a rule has among its parameters: Snakemake runs a job again exactly when its content changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from headstrong.provenance import settings_json, text_digest, write_atomically
from headstrong.refusals import refusal

ARGUMENTS = ".txt"
WHOLE_STUDY = "all"  # in place of a name, for a rule that has one job per study
_LONGEST_NAME = 150  # bytes of a job's name that its files are called by; file systems allow 255 in all


class JobFiles:
    """The job files of one study: `<folder>/<rule>/<name>-<digest>.<suffix>`.

    Parameters
    ----------
    folder
        Where the files go, relative to the working directory, as the jobs see it.
    running
        Whether jobs are being run. Snakemake asks for a job's parameters while it plans as well, also in a dry run;
        files are written only when the job is about to run.
    """

    def __init__(self, folder: str | Path, running: Callable[[], bool]) -> None:
        self.folder = Path(folder)
        self._running = running
        self._earlier: dict[tuple[str, str, str], list[Path]] = {}

    def settings(self, rule: str, name: str, content: Any) -> str:
        """Path of the JSON file that holds a job or settings; `name` is that of the job."""
        return self.text(rule, name, settings_json(content) + "\n", ".json")

    def arguments(self, rule: str, name: str, arguments: Iterable[str]) -> str:
        """Path of the file with more arguments of a program, one per line, for its option `--arguments`."""
        return self.text(rule, name, "".join(f"{argument}\n" for argument in arguments), ARGUMENTS)

    def text(self, rule: str, name: str, content: str, suffix: str) -> str:
        """Path of the file with this content; the file is written when jobs are being run."""
        name = _shortened(name)
        path = self.folder / rule / f"{name}-{text_digest(content)[:16]}{suffix}"
        if self._running():
            self._write(path, content)
            for earlier in self._earlier.pop((rule, name, suffix), []):
                if earlier != path:
                    earlier.unlink(missing_ok=True)
        return path.as_posix()

    def tidy(self, planned: Mapping[str, Collection[str]]) -> None:
        """Remove the files of jobs that the plan no longer has, and remember those that may be replaced.

        Parameters
        ----------
        planned
            Names of the jobs in the plan, by rule. A rule that is not named has one job, which is always planned.
        """
        names = {rule: {_shortened(name) for name in found} for rule, found in planned.items()}
        for path in self.folder.glob("*/*"):
            rule, name = path.parent.name, path.stem.rpartition("-")[0]
            if name.startswith(".") or name not in names.get(rule, {WHOLE_STUDY}):
                path.unlink(missing_ok=True)
            else:
                self._earlier.setdefault((rule, name, path.suffix), []).append(path)

    @staticmethod
    def _write(path: Path, content: str) -> None:
        """Write a file unless it is there as it should be. Where that fails, say why: the job itself then ends."""
        try:
            if not path.is_file() or path.read_bytes() != content.encode():
                write_atomically(path, content)
        except OSError as error:
            print(f"error: {refusal(error) or error}", file=sys.stderr, flush=True)


def _shortened(name: str) -> str:
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")
