"""A registry of toy data sets for a server on loopback, and what a fetch of one of them left and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from headstrong import cli

QUICK = {"attempts": 3, "first_wait": 0.001, "longest_wait": 0.002, "longest_retry_after": 5.0, "timeout": 20.0}


class Told(NamedTuple):
    """Exit code, what was printed, the error line, and every file that is there with its bytes."""

    code: int
    printed: str
    line: str
    files: dict[str, bytes]


def write_registry(path: Path, *files: dict[str, Any], steps: str | None = None, **sections: Any) -> Path:
    """A registry of one data set, called toy."""
    toy = {
        "title": "Toy",
        "home": "https://toy.example/page",
        "licence": "free",
        "get": "the toy",
        "steps": steps,
        "files": list(files),
    }
    content = {"patience": QUICK, **sections, "datasets": {"toy": toy}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def left(folder: Path) -> dict[str, bytes]:
    """Files of a data set by path, without the record of downloads."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if name != ".fetched.json"}


def fetch(capsys: pytest.CaptureFixture[str], root: Path, registry: Path) -> Told:
    """Run the command and read off everything."""
    code = cli.main(["fetch", "toy", "--root", str(root), "--registry", str(registry)])
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == (code != 0), said.err
    assert not (root / ".toy.fetch.holder").exists()
    return Told(code, said.out, "".join(lines), left(root / "toy"))
