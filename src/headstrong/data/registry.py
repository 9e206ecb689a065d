"""The registry of real data sets, `datasets.yaml`, read and checked; a mistake in it is one line, naming the key.

It is read without pydantic: every machine that reads data must be able to say where they come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from headstrong.errors import ConfigError

REGISTRY = Path(__file__).with_name("datasets.yaml")
_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Patience:
    """How long a download is tried; seconds, and bytes per second. `datasets.yaml` says what each means."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 600.0
    timeout: float = 60.0
    slowest: float = 200.0
    slow_for: float = 120.0
    redirects: int = 5


@dataclass(frozen=True)
class Limits:
    """What one archive may unpack to: number of files, bytes, and bytes to one byte of the archive."""

    files: int = 2_000_000
    bytes: int = 400_000_000_000
    ratio: float = 100.0


@dataclass(frozen=True)
class Item:
    """One file of a data set, or (name None) something that only a person can place; keys as in `datasets.yaml`."""

    name: str | None
    url: str | None = None
    bytes: int | None = None
    about_bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    checksum_from: str | None = None
    unpack: bool = False
    provides: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    unpacked_bytes: int | None = None

    def there(self, folder: Path) -> bool:
        """Whether the data set's folder holds what this provides, or another layout of it."""
        if any(next(folder.glob(pattern), None) is not None for pattern in self.instead):
            return True
        return bool(self.provides) and all((folder / path).exists() for path in self.provides)

    @property
    def size(self) -> int:
        """Bytes to download, as far as they are known."""
        return self.bytes or self.about_bytes or 0


@dataclass(frozen=True)
class Dataset:
    """What the registry says of one data set; keys as in `datasets.yaml`."""

    name: str
    title: str
    home: str
    licence: str
    get: str
    steps: str | None
    files: tuple[Item, ...]

    @property
    def automatic(self) -> bool:
        """Whether everything of it may be fetched without a person."""
        return all(item.url for item in self.files)

    def instructions(self) -> str:
        """Where to get it, what to get and under what terms, in one line."""
        steps = f"; {self.steps}" if self.steps else ""
        command = f", or run python -m headstrong fetch {self.name}" if self.automatic else ""
        return f"{self.title}: get {self.get} from {self.home} ({self.licence}{steps}){command}"


@dataclass(frozen=True)
class Registry:
    """The whole file."""

    datasets: Mapping[str, Dataset]
    patience: Patience = field(default_factory=Patience)
    limits: Limits = field(default_factory=Limits)

    def __getitem__(self, name: str) -> Dataset:
        """A data set; ConfigError for one that is not there."""
        if name not in self.datasets:
            raise ConfigError(f"data set '{name}' is unknown; choose from {', '.join(self.datasets)}")
        return self.datasets[name]


def load(path: Path = REGISTRY) -> Registry:
    """Read and check a registry; ConfigError names file, key and what was expected."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return _registry(content)
    except _WrongError as error:
        raise ConfigError(f"{path}: {error}") from None


class _WrongError(Exception):
    """Key, what it is, what was expected."""


def _registry(content: Any) -> Registry:
    parts = _mapping("the file", content, {"datasets"}, {"patience", "limits"})
    found = parts["datasets"]
    if not isinstance(found, dict) or not found:
        raise _WrongError("datasets: expected data sets by name")
    return Registry(
        {str(name): _dataset(str(name), value) for name, value in found.items()},
        Patience(**_numbers("patience", parts.get("patience") or {}, Patience)),
        Limits(**_numbers("limits", parts.get("limits") or {}, Limits)),
    )


def _mapping(where: str, value: Any, required: set[str], allowed: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongError(f"{where}: expected keys and values")
    missing, strange = required - value.keys(), value.keys() - required - allowed
    if missing:
        raise _WrongError(f"{where}: {sorted(missing)[0]} is missing")
    if strange:
        raise _WrongError(f"{where}: {sorted(map(str, strange))[0]} is unknown, expected {_list(required | allowed)}")
    return value


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _numbers(where: str, value: Any, kind: type[Patience] | type[Limits]) -> dict[str, Any]:
    known = {one.name: one for one in fields(kind)}
    found = _mapping(where, value, set(), set(known))
    for name, number in found.items():
        whole = isinstance(known[name].default, int)
        if isinstance(number, bool) or not isinstance(number, int if whole else int | float) or number < 0:
            wanted = "whole number" if whole else "number"
            raise _WrongError(f"{where}.{name} is {number!r}, expected a {wanted}, not negative")
    return found


def _dataset(name: str, value: Any) -> Dataset:
    where = f"datasets.{name}"
    if not re.fullmatch(r"[a-z0-9]+", name):
        raise _WrongError(f"{where}: expected a name of small letters and digits")
    texts = {"title", "home", "licence", "get"}
    found = _mapping(where, value, {*texts, "files"}, {"steps"})
    for key in sorted(texts if found.get("steps") is None else {*texts, "steps"}):
        text = found[key]
        if not isinstance(text, str) or len(text.splitlines()) != 1:
            raise _WrongError(f"{where}.{key} is {text!r}, expected one line of text")
    _check_url(f"{where}.home", found["home"])
    if not isinstance(found["files"], list) or not found["files"]:
        raise _WrongError(f"{where}.files: expected a list of files")
    files = tuple(_item(f"{where}.files[{row}]", item) for row, item in enumerate(found["files"]))
    if found.get("steps") is None and not all(item.url for item in files):
        raise _WrongError(f"{where}.steps: expected, because a file has no url: what must a person do?")
    return Dataset(name, found["title"], found["home"], found["licence"], found["get"], found.get("steps"), files)


def _item(where: str, value: Any) -> Item:
    found = dict(_mapping(where, value, {"name"}, {one.name for one in fields(Item)}))
    _check_facts(where, found)
    if found.get("url") is not None:
        _check_url(f"{where}.url", found["url"])
    for key in ("provides", "instead"):
        found[key] = _paths(f"{where}.{key}", found.get(key) or [])
    _check_name(where, found)
    if not found["provides"] and found["name"]:
        if found.get("unpack"):
            raise _WrongError(f"{where}.provides: expected what the archive holds for the readers")
        found["provides"] = (found["name"],)
    return Item(**found)


def _check_facts(where: str, found: dict[str, Any]) -> None:
    for key in ("bytes", "about_bytes", "unpacked_bytes"):
        number = found.get(key)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number <= 0):
            raise _WrongError(f"{where}.{key} is {number!r}, expected a whole number of bytes or null")
    for key, digits in _DIGITS.items():
        text = found.get(key)
        if text is not None and not (isinstance(text, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", text)):
            raise _WrongError(f"{where}.{key} is {text!r}, expected {digits} hexadecimal digits as text, or null")
    if not isinstance(found.get("unpack", False), bool):
        raise _WrongError(f"{where}.unpack is {found['unpack']!r}, expected true or false")


def _paths(where: str, paths: Any) -> tuple[str, ...]:
    if not isinstance(paths, list):
        raise _WrongError(f"{where} is {paths!r}, expected a list of paths")
    for path in paths:
        parts = PurePosixPath(path).parts if isinstance(path, str) else ()
        if not parts or parts[0] == "/" or ".." in parts:
            raise _WrongError(f"{where}: {path!r}, expected a path inside the data set's folder")
    return tuple(paths)


def _check_name(where: str, found: dict[str, Any]) -> None:
    name = found["name"]
    if name is None:
        if found.get("url") or not (found.get("provides") or found.get("instead")):
            raise _WrongError(f"{where}.name is null, expected a file name, or no url and something under provides")
        return
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise _WrongError(f"{where}.name is {name!r}, expected the name of a file")


def _check_url(where: str, url: Any) -> None:
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("https", "http") or not parts.hostname:
        raise _WrongError(f"{where} is {url!r}, expected an address https://... or http://...")
