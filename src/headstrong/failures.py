"""Why jobs failed, as the last thing that a user sees.

Snakemake reports a failed job in ten lines and more; the one line that says why is the end of the job's log. The events
that it logs for plugins (snakemake_interface_logger_plugins.common.LogEvent) tell which jobs failed and where their
logs are.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from headstrong.program import DEFECT, INTERRUPTED

SHOWN = 5  # reasons that differ; a study whose data are damaged has one for each of its jobs, nearly always the same
_REASON = re.compile(r"(slurmstepd\S*: )?error: ")  # of a program, or of SLURM about one that it ended
_TRACEBACK = "Traceback (most recent call last):"


class Failure(NamedTuple):
    """A job, or a group of jobs in one allocation, that failed.

    jobs: Snakemake's ids. title: the rules. logs: of the programs. more: logs of the cluster. said: by the executor.
    """

    jobs: frozenset[Any]
    title: str
    logs: tuple[str, ...]
    more: tuple[str, ...]
    said: str


class Failures(logging.Handler):
    """Notes which jobs failed in their last attempt, from the records of Snakemake's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Failure] = []

    def watch(self) -> None:
        """Listen to the Snakemake of this process from now on."""
        logging.getLogger("snakemake.logging").addHandler(self)

    def tell_at_exit(self) -> None:
        """Print why jobs failed when this process ends, after Snakemake's last words."""
        atexit.register(tell, tuple(self.found))

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; any but those of jobs that start or fail are ignored."""
        event, facts = getattr(record, "event", None), vars(record)
        if event == "job_info":  # it starts, maybe not for the first time
            self.found = [failure for failure in self.found if facts["jobid"] not in failure.jobs]
        elif event == "job_error" and not facts["indent"]:
            self._note([facts], (), facts["rule_msg"])
        elif event == "group_error":  # an event of each of its jobs follows, whether it failed or not: indented
            self._note(facts["job_error_info"], facts["aux_logs"], None)

    def _note(self, jobs: list[dict[str, Any]], more: Iterable[str | None], said: str | None) -> None:
        title = ", ".join(dict.fromkeys(job["rule_name"] for job in jobs))
        logs = [log for job in jobs for log in job["log"]]
        own, others = ([log for log in logs if (".snakemake" in Path(log).parts) == other] for other in (False, True))
        ids = frozenset(job["jobid"] for job in jobs)
        in_one_line = " ".join((said or "").partition("For further error details")[0].split())
        self.found.append(Failure(ids, title, tuple(own), (*others, *filter(None, more)), in_one_line))


def tell(failures: Iterable[Failure]) -> None:
    """Print why jobs failed on the error stream."""
    with contextlib.suppress(OSError):  # nobody listens any more
        print(in_words(failures), file=sys.stderr, end="", flush=True)


def in_words(failures: Iterable[Failure]) -> str:
    """Every reason once, with the first job that has it and its log; the reason is the last line. "" without failures.

    A defect is shown with its traceback.
    """
    titles: dict[str, list[str]] = {}
    for failure in failures:
        for log, reason in reasons(failure):
            titles.setdefault(reason, []).append(f"{failure.title} failed{log and f', see {log}'}")
    hidden = len(titles) - SHOWN
    blocks = [f"{hidden} other reasons are in the logs that Snakemake names above"] if hidden > 0 else []
    for reason, (first, *others) in list(titles.items())[-SHOWN:]:
        same = f" ({len(others)} more for the same reason)" if others else ""
        blocks.append(f"{first}{same}:\n{reason}")
    return "".join(f"\n{block}\n" for block in blocks)


def reasons(failure: Failure) -> list[tuple[str, str]]:
    """Log and reason of each program of a failed job that says one; else of the cluster; else that none is known."""
    for logs in (failure.logs, failure.more):
        found = [(log, reason) for log in logs if (reason := _reason(Path(log))) is not None]
        if found:
            return found
    log = next((log for log in (*failure.logs, *failure.more) if Path(log).exists()), "")
    return [
        (log, f"error: {failure.title}: {failure.said or 'ended without saying why, as a job does that is killed'}")
    ]


def _reason(log: Path) -> str | None:
    """The line of a log that says why its program ended; for a defect, everything from its traceback on."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    if lines[-1:] == ["KeyboardInterrupt"]:  # while it was still importing
        return INTERRUPTED
    last = next((line for line in reversed(lines) if _REASON.match(line)), None)
    if _TRACEBACK in lines and (last is None or DEFECT in last):
        return "\n".join(lines[lines.index(_TRACEBACK) :])
    return last
