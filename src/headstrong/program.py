"""How every program of headstrong starts and ends: log lines, errors in one line, exit codes (see `errors`)."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from headstrong import locks, warm
from headstrong.errors import ConfigError, UserError
from headstrong.refusals import refusal

CHECKPOINT_VARIABLE = "HEADSTRONG_CHECKPOINT_MINUTES"  # where a cluster kills without warning, let it be small
# Linear algebra outside torch has one thread, whatever the environment says: with two, sums of products are rounded
# differently. Read when numpy is imported, so programs import this module first.
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
log = logging.getLogger(__name__)
Job = TypeVar("Job")
Key = TypeVar("Key")
Value = TypeVar("Value")
_IN_JSON = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
DEFECT = "a defect of headstrong, or of the machine"  # what is said of an error that nobody foresaw
INTERRUPTED = "error: interrupted; run it again to go on"
DEVICE_HELP = "auto: a GPU that no other job has, the CPU without one; or cpu, cuda, cuda:1, ..."


def run(
    main: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parse arguments, run `main`, return the exit code. A user's mistake is one line; a defect ends in one as well.

    Codes: what `main` returns, else those of `errors`; 130 when interrupted. argv: None for the command line, where the
    warm interpreter may do the work (`warm`). Arguments that cannot be parsed end the process (SystemExit, 2).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        given = _with_files(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        return _told(error)
    if argv is None:
        sys.argv[1:] = given  # what a run record tells as the command
    arguments = parser.parse_args(given)
    if argv is None and (code := warm.compute()) is not None:
        return code
    try:
        with locks.working():
            return main(arguments) or 0
    except UserError as error:
        return _told(error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has seen enough, as in `headstrong plan | head`
        return 0
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    except Exception as error:
        refused = refusal(error)
        if refused is not None:
            code = _told(refused)
            if argv is None and "h5py" in sys.modules:
                # HDF5 crashes when it frees a file that the disk had no room for: the process ends before that.
                os._exit(code)
            return code
        traceback.print_exc()
        print(
            f"error: {type(error).__name__}: {error} ({DEFECT}; see above)",
            file=sys.stderr,
        )
        return 1


def _with_files(given: Sequence[str]) -> list[str]:
    """The arguments, with those in the file of each `--arguments FILE` in its place."""
    found: list[str] = []
    rest = iter(given)
    for argument in rest:
        option, equals, file = argument.partition("=")
        if option != "--arguments":
            found.append(argument)
        elif equals or (file := next(rest, "")):
            found += read_text(option, file).splitlines()
        else:
            raise ConfigError("--arguments: expected the path of a text file, with one argument per line")
    return found


def _told(error: UserError) -> int:
    with contextlib.suppress(OSError):  # on a full disk the log has no room either; the code still says it
        print(f"error: {error}", file=sys.stderr, flush=True)
    return error.code


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose --help shows the program's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description,
        epilog="--arguments FILE stands for the arguments in a file, one per line.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_job_option(parser: argparse.ArgumentParser) -> None:
    """What every program takes that has a job (`read_job`)."""
    parser.add_argument(
        "--job", type=Path, required=True, metavar="FILE", help="JSON with the job, or the run record of such a job"
    )


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    """What every program takes that has settings (`read_settings`)."""
    parser.add_argument(
        "--settings",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON with the settings, or the run record of a job that had some",
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What every program that trains takes: where results and checkpoint go, device, threads, code."""
    parser.add_argument(
        "--weights", type=Path, required=True, help="safetensors file to write; run.json goes beside it"
    )
    parser.add_argument("--history", type=Path, required=True, help="CSV of losses by epoch to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for the rolling checkpoint")
    parser.add_argument(
        "--checkpoint-minutes",
        type=_minutes,
        default=os.environ.get(CHECKPOINT_VARIABLE, "5"),
        help=f"minutes between checkpoints, 0: after every step; 5, or what {CHECKPOINT_VARIABLE} says",
    )
    add_machine_options(parser)


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """What every program that computes takes: device, threads, code."""
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--threads", type=int, default=1, help="processor threads; part of what fixes the bits")
    parser.add_argument("--code", help="digest of the code; computed when not given")


def _minutes(value: str) -> float:
    with contextlib.suppress(ValueError):
        minutes = float(value)
        if 0 <= minutes < math.inf:
            return minutes
    raise argparse.ArgumentTypeError(f"{value!r}: expected minutes, 0 or more (also as {CHECKPOINT_VARIABLE})")


def read_text(option: str, path: str | Path) -> str:
    """The text of the file that an option names. Raises ConfigError, naming both, where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null in the path
        said = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        shown = str(path)
        if any(sign in shown for sign in "{[\n"):  # not a path, but what its file should hold
            shown = _short(" ".join(shown.split()))
        raise ConfigError(f"{option} {shown}: {said}; expected the path of a text file") from None


def read_json(option: str, path: str | Path) -> Any:
    """The content of the JSON file that an option names. Raises ConfigError, naming both, where it is not JSON."""
    try:
        return json.loads(read_text(option, path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{option} {path}: expected JSON: {error}; correct it, or run the study again, which writes its own files"
        ) from None


def read_job(path: Path, make: Callable[[dict[str, Any]], Job]) -> tuple[dict[str, Any], Job]:
    """The job in the file that --job names: its fields as they are written, and what `make` makes of them.

    The file is a job as a study writes it, or the run record of one. Raises ConfigError, naming the file, where it
    holds no job of this program.
    """
    fields = _part(read_json("--job", path), "job")
    try:
        job = make(fields)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--job {path}: not a job of this program ({type(error).__name__}: {error}); "
            "start from a run record, or run the study again, which writes its own files"
        ) from None
    log.info("job %s", path)
    return fields, job


def read_settings(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in the JSON file that --settings names: an object with at least the keys of `kinds`.

    The file holds settings as a study writes them, or is the run record of a job that had some.

    kinds: key -> type of its value in JSON, as in `int | None`. Raises ConfigError, naming the option, for another
    content, for all keys that are missing, and for a value of another type.
    """
    settings = _part(read_json("--settings", path), "settings")
    if not isinstance(settings, dict):
        raise ConfigError(f"--settings {path}: expected an object with {', '.join(kinds)}, found {_shown(settings)}")
    check_settings(path, settings, kinds)
    return settings


def _part(content: Any, key: str) -> Any:
    """That part of a run record; of any other file the whole."""
    return content[key] if isinstance(content, dict) and key in content else content


def check_settings(path: Path, settings: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """ConfigError, naming --settings and its file, where they are not as `kinds` says (see `read_settings`)."""
    missing = [key for key in kinds if key not in settings]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"--settings {path}: {', '.join(missing)} {are} missing; start from a run record")
    for key, kind in kinds.items():
        allowed = get_args(kind) or (kind,)
        if not isinstance(settings[key], (*allowed, int) if float in allowed else allowed):
            expected = " or ".join(_IN_JSON[one] for one in allowed)
            raise ConfigError(f"--settings {path}: {key} is {_shown(settings[key])}, expected {expected}")


def _shown(value: Any) -> str:
    return _short(json.dumps(value))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def named_paths(option: str, given: Iterable[str], form: str, names: Collection[str] = ()) -> dict[str, Path]:
    """Paths by what stands before the first "=", of an option that may be given several times.

    form: how one is to be given, as in TASK=PATH. names: those there are; empty: any. Raises ConfigError, naming the
    option, for a text of another form and for a name given twice.
    """
    found = []
    for text in given:
        name, _, path = text.partition("=")
        if not (name and path) or (names and name not in names):
            raise ConfigError(f"{option} {text}: expected {form}")
        found.append((name, Path(path)))
    return once(option, found)


def once(option: str, pairs: Iterable[tuple[Key, Value]]) -> dict[Key, Value]:
    """Values by key; ConfigError, naming the option, for a key that comes twice."""
    found: dict[Key, Value] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"{option} {key}: given twice; give it once")
        found[key] = value
    return found
