"""What the Snakefile asks of the package: the package on the path of its jobs, the study, mistakes as an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from headstrong import locks, warm
from headstrong.config import Config
from headstrong.configfiles import CONFIG_FILE, as_yaml, load_plan, read
from headstrong.data.build import check_there
from headstrong.errors import ConfigError, MachineError, UserError
from headstrong.failures import Failures
from headstrong.provenance import PACKAGE, STUDY_VARIABLE, settings_json, text_digest
from headstrong.study import Plan


def prepare_jobs() -> None:
    """Let every job run this very Python and this very package, whether or not its environment is activated.

    A conda environment that Snakemake activates for a job still comes first; the package is found there as well.
    """
    _put_first("PATH", str(Path(sys.executable).parent))
    _put_first("PYTHONPATH", str(PACKAGE.parent))
    _find_cache()


def _find_cache() -> None:
    """Where this user's caches cannot be written, let them be in the folder of Snakemake.

    The Snakemake that SLURM's plugin starts on a node makes its cache there whatever `shared-fs-usage` says, and nodes
    may have no home.
    """
    place = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        if os.access(place, os.W_OK | os.X_OK):
            return
    os.environ["XDG_CACHE_HOME"] = str(Path(".snakemake", "cache").resolve())


def _put_first(variable: str, folder: str) -> None:
    rest = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != folder]
    os.environ[variable] = os.pathsep.join([folder, *rest])


def announce_study(folder: str, config: Config, files: Sequence[str | Path], entries: Sequence[str] = ()) -> None:
    """Tell every job of this process which study it belongs to: what run records say of it.

    folder: where the results go. files: the configuration files that were merged, for people to read. entries: what
    the command line set on top of them, as KEY=VALUE.
    """
    found = {
        "sha256": text_digest(as_yaml(config)),
        "file": CONFIG_FILE,
        "from": [Path(os.path.relpath(file)).as_posix() for file in files],
        **({"command_line": list(entries)} if entries else {}),
    }
    os.environ[STUDY_VARIABLE] = settings_json({"folder": folder, "config": found})


def check_config_file(file: str | Path) -> None:
    """End in one line and exit code 2 where a configuration file is missing or is not YAML.

    Asked before Snakemake reads the file, whose own words then name no line of it, and at times no file.
    """
    try:
        read(Path(file))
    except ConfigError as error:
        _end(error)


def load_study(files: Sequence[str | Path], entries: Sequence[str] = ()) -> tuple[Config, Plan]:
    """Configuration and plan of configuration files, each laid on those before it, and of the `entries` of `--config`.

    Snakemake merges them as well, but all overlays first: a null in one of them is lost where a later one has the key.
    A mistake is one line on the error stream and exit code 2, before any job starts.
    """
    try:
        plan = load_plan([Path(file) for file in files], entries)
        return plan.config, plan
    except ConfigError as error:
        _end(error)


def check_data(output: str | Path, settings: Mapping[str, Any], labels: Sequence[str] = ()) -> None:
    """End in one line, and exit code 3 or 4, where a cache is to be made of data that are not there.

    output: the cache; where it is there already, the data may be gone. settings, labels: as `build.check_there`.
    """
    if Path(output).exists():
        return
    try:
        check_there(dict(settings), labels)
    except UserError as error:
        _end(error)


_STEP = 1000  # nanoseconds between two files of the future that were apart
_held: list[object] = []  # locks of this process, for as long as it lives
_failed = Failures()


def hold_study(work: str | Path, results: str | Path) -> None:
    """Let no second Snakemake run the same study in this folder: it ends in one line that says who runs it (code 7).

    Then let no result be of the future (`leave_future`).

    Snakemake's own lock stays behind when it is killed, and must then be taken away by hand; this one goes with its
    holder. So the profiles turn that one off.
    """
    lock = Path(f"{work}.lock")
    try:
        _held.append(locks.hold_study(lock))
    except MachineError as error:
        _end(error)
    if locks.way_out(lock):
        print(f"{lock}: this disk has no locks of its own; files stand in for them", flush=True)
    if moved := leave_future(Path(results)):
        print(f"{results}: {moved} files were of the future, as when a clock was set back; they are of now", flush=True)


def leave_future(folder: Path) -> int:
    """Give files below `folder` whose time is yet to come the time of now, in their order; how many there were.

    Snakemake takes a result that is older than what it was made from for a failure and deletes it: until the time of
    its inputs has come, whatever is made of them would be made again at every run.
    """
    now = time.time_ns()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    coming = sorted({when for when in times.values() if when > now}, reverse=True)
    moments = {when: now - _STEP * number for number, when in enumerate(coming)}
    moved = {path: moments[when] for path, when in times.items() if when in moments}
    for path, moment in moved.items():
        os.utime(path, ns=(moment, moment))
    return len(moved)


def keep_warm(local: bool) -> None:
    """Let the jobs of this Snakemake share one start of Python and torch, where they run on this machine (`local`)."""
    if local:
        _held.append(warm.start())
    else:
        os.environ[warm.VARIABLE] = warm.OFF


def watch_jobs() -> None:
    """Note which jobs fail from now on, for `tell_why`."""
    _failed.watch()


def tell_why() -> None:
    """Let the reasons of the jobs that failed be the last lines of this Snakemake, after its own account of them."""
    _failed.tell_at_exit()


def check_current() -> None:
    """End a job of a study that has been started anew since, before it removes what another has made (code 7)."""
    try:
        locks.check_current()
    except MachineError as error:
        _end(error)


def _end(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(error.code) from None
