"""Where a result comes from: digests of code and data, versions, host.

Two kinds are kept apart. What decides the numbers (settings, code digest, data digest) goes into the result file
itself, so that equal runs give equal bytes. What does not (host, device, time, git commit) goes into a run record, a
small JSON file beside the result, which names every file it vouches for and every file these were made from.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import platform
import socket
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from headstrong.machine import processor
from headstrong.vouching import check_vouched, records_beside

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parent.parent  # the repository, when run from one
# Modules that jobs import but that cannot change a number: an edit here makes nothing run again.
NOT_NUMBERS = frozenset(
    {
        "__init__.py",
        "devices.py",
        "errors.py",
        "gpulocks.py",
        "gpus.py",
        "jobfiles.py",
        "locks.py",
        "machine.py",
        "program.py",
        "progress.py",
        "provenance.py",
        "refusals.py",
        "vouching.py",
        "warm.py",
        "warm_server.py",
    }
)
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "h5py", "pandas", "scipy", "matplotlib", "snakemake", "pulp")
RECORD_FORMAT = "headstrong-record-1"
# What the workflow tells its jobs of their study, as JSON: folder, config (sha256, file, from). Not a parameter of any
# rule: one changed key of the configuration would make every job run again.
STUDY_VARIABLE = "HEADSTRONG_STUDY"


def settings_json(settings: Any) -> str:
    """Settings as JSON with sorted keys: the same settings give the same text."""
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def code_digest(*modules: str, without: Sequence[str] = ()) -> str:
    """Digest of the modules named and of everything in the package they import, by walking the import statements.

    Comments, docstrings and blank lines do not count: they cannot change a number. `modules` are dotted names
    ("headstrong.training") or paths of scripts ("scripts/train_model.py"); the walk does not enter those of `without`.
    """
    digest = hashlib.sha256()
    for path in imported_files(*modules, without=without):
        digest.update(path.name.encode())
        digest.update(_meaningful_source(path).encode())
    return digest.hexdigest()[:16]


def training_code(adversarial: bool) -> str:
    """Digest of the code that trains a model. Clean training never runs an attack: an edit there leaves it alone."""
    return code_digest("headstrong.training", without=() if adversarial else ("headstrong.adversarial",))


def imported_files(*modules: str, without: Sequence[str] = ()) -> list[Path]:
    """The files that `code_digest` reads for these modules."""
    found = _closure(modules, without)
    return sorted(path for path in found if path.parent != PACKAGE or path.name not in NOT_NUMBERS)


def _closure(modules: Sequence[str], without: Sequence[str]) -> set[Path]:
    closed = {_source_of(name) for name in without}
    found: set[Path] = set()
    waiting = [_source_of(name) or Path(name) for name in modules]
    while waiting:
        path = waiting.pop()
        if path not in found and path not in closed:
            found.add(path)
            waiting.extend(_imports(path))
    return found


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [name for node in _running_nodes(tree) for name in _imported_names(node, path)]
    return tuple(source for name in names if (source := _source_of(name)) is not None)


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`, which never run."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def _imported_names(node: ast.AST, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
            base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _source_of(dotted: str) -> Path | None:
    first, *rest = dotted.split(".")
    if first != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*rest)
    for candidate in (path.with_suffix(".py") if rest else None, path / "__init__.py"):
        if candidate is not None and candidate.is_file():
            return candidate
    return None


@cache
def _meaningful_source(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                for row in range(first.lineno, (first.end_lineno or first.lineno) + 1):
                    lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, as `file_digest` gives it for a file that holds it."""
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def lock_digest() -> str | None:
    """Digest of the lock file, or None outside a checkout."""
    lock = ROOT / "envs" / "requirements.lock"
    return file_digest(lock)[:16] if lock.is_file() else None


def git_state() -> dict[str, Any]:
    """The commit of the checkout and whether it has uncommitted changes; empty outside one."""
    if not (ROOT / ".git").exists():
        return {}
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return result.stdout.strip()


class RunRecord:
    """What one job did, written when its results are whole: `with RunRecord(path, outputs=..., inputs=...) as record`.

    inputs, outputs: files, or folders that stand for all files in them; digested at the end; inputs with records of
    their own at the start: BrokenFileError where one is not what its record vouches for (`vouching`). facts: what else
    the record is to say: settings or job, code, device, threads. Paths in a record are relative to its study's folder,
    and that is relative to the record, so that a copied folder stays true. docs/provenance.md lists every field.
    """

    def __init__(
        self, path: Path, *, inputs: Iterable[Path] = (), outputs: Iterable[Path] = (), rule: str = "", **facts: Any
    ) -> None:
        self.path = path
        self.rule = rule or Path(sys.argv[0]).stem
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.facts = facts
        self._known: dict[Path, str] = {}

    def __enter__(self) -> RunRecord:
        self._start, self._since = time.time(), time.monotonic()
        in_study = bool(os.environ.get(STUDY_VARIABLE))
        for path in self.inputs:
            if path.is_file() and any(records_beside(path)):
                check_vouched(path, self.digest(path), RECORD_FORMAT, in_study=in_study)
        return self

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, read once: what was read of an input is what it was at the start."""
        if path not in self._known:
            self._known[path] = file_digest(path)
        return self._known[path]

    def add(self, **facts: Any) -> None:
        """Add facts known only at the end: the device used, the seconds a stage took."""
        self.facts.update(facts)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        study = json.loads(os.environ.get(STUDY_VARIABLE) or "{}")
        root = Path(study.get("folder", self.path.parent))
        seconds = time.monotonic() - self._since  # the clock of a machine may be set back meanwhile
        record = {
            "format": RECORD_FORMAT,
            "rule": self.rule,
            "root": _relative(root, self.path.parent),
            "device": "cpu",
            **self.facts,
            "inputs": self._digests(self.inputs, root),
            "outputs": self._digests(self.outputs, root),
            "config": study.get("config"),
            "command": sys.argv,
            "host": socket.gethostname(),
            "platform": platform.platform(),
            "processor": processor(),
            "versions": versions(),
            "lock": lock_digest(),
            "git": git_state(),
            "start": _iso(self._start),
            "end": _iso(self._start + seconds),
            "seconds": round(seconds, 3),
        }
        write_atomically(self.path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def _digests(self, paths: Iterable[Path], root: Path) -> dict[str, str]:
        found = (file for path in paths for file in (files_in(path) if path.is_dir() else [path]))
        return {_relative(file, root): self.digest(file) for file in dict.fromkeys(found) if file != self.path}


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, in order, without those that are being written."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then rename: a reader sees the old file or the whole new one."""
    with atomic_path(path) as partial:
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            partial.write_text(content, encoding="utf-8")


def partial_of(path: Path) -> Path:
    """Where `atomic_path` writes before the file is whole; what a killed writer leaves."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` at success, remove it on failure.

    The temporary name keeps the suffix, for writers that look at it. It is always the same for a path: what a killed
    writer left is overwritten and renamed by the next. A path has one writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None:  # a write that failed does not say where
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
