"""Configuration files: read, merge, check; any mistake is one line that names the file, the key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import ValidationError

from headstrong import tasks
from headstrong.config import Config
from headstrong.configchecks import Problem, impossible, not_planned
from headstrong.errors import ConfigError
from headstrong.importanceconfig import BY_RECALL
from headstrong.provenance import ROOT
from headstrong.radius import Radius
from headstrong.study import Plan

CONFIG_FILE = "config.yaml"  # of a study's folder: its whole configuration
COMMAND_LINE = "command line (--config)"
Part = tuple[Path | str, Mapping[str, Any]]  # where settings come from, and the settings


def as_yaml(config: Config) -> str:
    """A configuration with everything filled in; the same configuration gives the same text."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """YAML's plain values; a radius as people write it."""


_Dumper.add_representer(Radius, lambda dumper, radius: dumper.represent_str(str(radius)))


class _Loader(yaml.SafeLoader):
    """YAML's plain values; a key that is there twice is a mistake, not the last of the two."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                said = f"{_shortened(key.value, 40)!r} is there twice; each key at most once"
                raise yaml.composer.ComposerError(None, None, said, key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add((key.tag, key.value))
        return node


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay on base, key by key, mappings merged and everything else replaced (as Snakemake merges config files)."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def study_files(names: Sequence[str]) -> list[Path]:
    """config.yaml and the overlays of the studies named; `quick` is config.yaml alone.

    Raises ConfigError for a name that no study has.
    """
    files = [ROOT / "config.yaml"]
    for name in names:
        if name == "quick":
            continue
        path = ROOT / "studies" / f"{name}.yaml"
        if not path.is_file():
            known = sorted(["quick", *(file.stem for file in (ROOT / "studies").glob("*.yaml"))])
            plain = name.removeprefix("studies/").removesuffix(".yaml")
            if plain in known:
                raise ConfigError(f"study {name!r}: a study is named, not its file; give the name alone: {plain}")
            raise ConfigError(f"study {name!r}: no file studies/{name}.yaml; there are: {', '.join(known)}")
        files.append(path)
    return files


def load(files: Sequence[Path], entries: Sequence[str] = ()) -> Config:
    """Read, merge and check configuration files, and settings of the command line (`given`) on top of them.

    Raises ConfigError with one line on any mistake.
    """
    parts = _parts(files, entries)
    return parse(_merged(parts), parts)


def load_plan(files: Sequence[Path], entries: Sequence[str] = ()) -> Plan:
    """The plan of the configuration that `load` reads; raises as `load` and `planned`."""
    parts = _parts(files, entries)
    return planned(parse(_merged(parts), parts), parts)


def planned(config: Config, parts: Sequence[Part] = ()) -> Plan:
    """The plan of a configuration, with all that is in it; ConfigError, in one line, where there cannot be one.

    parts: as in `parse`.
    """
    try:
        plan = Plan(config)
        for name in ("generated", "importance", "hidden"):  # made when they are asked for, else
            getattr(plan, name)
        return plan
    except ConfigError as error:
        raise ConfigError(_located(str(error), config, parts)) from None


def _located(said: str, config: Config, parts: Sequence[Part]) -> str:
    """A mistake in a plan, which says "config: <key>: ...", with the file that has the key and the likely cause."""
    found = re.fullmatch(r"config: ([\w.-]+): (.*)", said)
    if found is None or not parts:
        return said
    path = tuple(found[1].split("."))
    gone = [name for name, section in (config.plan or {}).items() if section is None] if path[0] == "plan" else []
    causes = [f"{remover} removes plan.{name}" for name in gone if (remover := _removal(("plan", name), parts)[1])]
    cause = f" ({', '.join(causes)})" if causes else ""
    return _printable(f"{_file_of(path, parts)}: {found[1]}: {_shortened(found[2], 300)}{_shortened(cause, 200)}")


def _parts(files: Sequence[Path], entries: Sequence[str]) -> list[Part]:
    return [*((file, read(file)) for file in files), *given(entries)]


def _merged(parts: Sequence[Part]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for _, part in parts:
        merged = merge(merged, part)
    return merged


def given(entries: Sequence[str]) -> list[Part]:
    """The settings of Snakemake's `--config KEY=VALUE ...`, with values read as in a configuration file.

    Snakemake itself leaves the numbers, booleans and nulls inside such a value as text.
    Raises ConfigError for a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for entry in entries:
        key, _, value = entry.partition("=")
        found = merge(found, {key: _yaml(value, f"{COMMAND_LINE}: {key}")})
    return [(COMMAND_LINE, found)] if found else []


def parse(merged: Mapping[str, Any], parts: Sequence[Part] = ()) -> Config:
    """Check a merged configuration; `parts` tell which file to name in a mistake, or the command line.

    Raises ConfigError, in one line, for the first mistake.
    """
    _check_tasks()
    merged, problems = _ranked(merged, parts)
    if problems:
        raise ConfigError(_one_line(problems, parts))
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        problems = [(tuple(map(str, item["loc"])), _explain(item)) for item in error.errors()]
        raise ConfigError(_one_line(problems, parts)) from None
    problems = impossible(config) or ([] if _pictures_are_inherited(parts) else [*not_planned(config)])
    if problems:
        raise ConfigError(_one_line(problems, parts))
    return config


def _ranked(merged: Mapping[str, Any], parts: Sequence[Part]) -> tuple[Mapping[str, Any], list[Problem]]:
    """The configuration with `recall` for the nulls that said it in older versions, and the nulls that remove nothing.

    Older versions wrote `worst1: null` for the class that is recalled worst. In the first file, where there is nothing
    to remove, that is still understood; in later files null removes a key, as it does in every other section.
    """
    problems: list[Problem] = []
    for name, family in _mapping(merged, "importance").items():
        for key in (key for key, names in _mapping(family, "important").items() if names is None):
            path = ("importance", str(name), "important", str(key))
            last = _last_to_say(path, parts)
            if last == 0:
                merged = merge(merged, {"importance": {name: {"important": {key: BY_RECALL}}}})
            elif last > 0 and _last_to_say(path, parts[:last]) < 0:
                said = f"null removes it, but no earlier file has it; to rank it, write {key}: {BY_RECALL}"
                problems.append((path, said))
    return merged, problems


def _mapping(node: Any, key: str) -> Mapping[Any, Any]:
    found = node.get(key) if isinstance(node, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _check_tasks() -> None:
    """ConfigError where a task cannot be: one that somebody has added, most likely (docs/howto/task.md).

    Here, and not where tasks are defined: code there is part of what every training depends on.
    """
    named: dict[str, str] = {}
    for task in tasks._ALL:
        said = _slip_of_task(task, named.get(task.letter))
        if said:
            raise ConfigError(f"src/headstrong/tasks.py: {said}")
        named[task.letter] = task.domain
        if task.channels is not None:
            tasks.encoding(task.letter)


def _slip_of_task(task: tasks.Task, other: str | None) -> str:
    """What is wrong with the line of a task, of whose letter there may be an `other` task before it; "" if nothing."""
    name = f"task {task.letter!r} ({task.domain})"
    if other is not None:
        return f"letter {task.letter!r} is of {other} and {task.domain}; give one another letter"
    if len(task.letter) != 1 or not task.letter.isascii() or not task.letter.isalpha():
        return f"{name}: expected one letter, a to z or A to Z"
    kinds = get_type_hints(tasks.Task)
    for key in ("loss", "mask"):
        if getattr(task, key) not in get_args(kinds[key]):
            return f"{name}: {key} {getattr(task, key)!r}; expected {' or '.join(get_args(kinds[key]))}"
    if task.letter != "s" and (task.loss == "cross_entropy" or not task.channels):
        return f"{name}: channels {task.channels}, loss {task.loss}; only s has classes, expected channels and l1"
    if not task.low < task.high:
        return f"{name}: low {task.low:g}, high {task.high:g}; expected low below high"
    return ""


def read(file: Path) -> dict[str, Any]:
    """The content of one file; ConfigError when it is not a mapping in YAML."""
    name = _display(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from None
    content = _yaml(text, name)
    if content is None:
        raise ConfigError(f"{name}: empty; expected keys and values, as in `study: {{name: mine}}`")
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: expected keys and values at the top level, found a {type(content).__name__}")
    return content


def _yaml(text: str, name: str) -> Any:
    """What a text in YAML says; ConfigError, which begins with `name`, where it is not YAML."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ConfigError(f"{name}: not YAML: nested too deeply; write it flat") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark and "\n" in text else ""
        raise ConfigError(f"{name}: not YAML{where}: {_slip(getattr(error, 'problem', None) or '')}") from None
    except (ValueError, AttributeError, TypeError, LookupError, OverflowError) as error:  # of a date or a tag
        raise ConfigError(f"{name}: not YAML: a value cannot be read ({_short(error)}); quote it") from None


def _display(origin: Path | str) -> str:
    if isinstance(origin, str):
        return origin
    try:
        return str(origin.resolve().relative_to(ROOT))
    except ValueError:
        return str(origin)


def _explain(item: Any) -> str:
    kind, given, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "missing"
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    message = _expected(kind, given, context) or item["msg"].removeprefix("Input ").replace("should be", "must be")
    if isinstance(given, dict | list):  # aliases can make them too large to be written
        return message
    if given is None:
        return f"null {message}"
    hint = ""
    if isinstance(given, str) and kind in ("float_type", "int_type"):
        hint = _number_hint(given)
    return f"{_echo(given)} {message}{hint}"


def _expected(kind: str, given: Any, context: Mapping[str, Any]) -> str:
    """What should be there, where the type checker says it in words of Python; "" where its own words will do."""
    if kind in ("dict_type", "model_type"):
        lost = "; are the lines below indented?" if given is None else ""
        return f"must be keys and values, one `key: value` a line{lost}"
    if kind == "list_type":
        number = _number(given) if isinstance(given, str) else None
        if given is None or isinstance(given, dict):
            return "must be a list, as in [...]"
        text = _echo(given).strip("'") if number is None else f'"{given}"' if "/" in given else f"{number:.6g}"
        return f"must be a list, as in [{_shortened(text, 40)}]"
    if kind == "string_type":
        read = "; YAML reads some words as true or false: write it in quotes" if isinstance(given, bool) else ""
        joined = "".join(given) if isinstance(given, list) and all(isinstance(part, str) for part in given) else ""
        return f"must be text{f', as in {_shortened(joined, 40)}' if joined else ''}{read}"
    if kind == "string_pattern_mismatch" and "a-z0-9-" in context["pattern"]:
        return "must be small letters, digits and hyphens, as in my-study"
    return ""


def _slip(problem: str) -> str:
    """What YAML's reader says is wrong, and what most often is."""
    if "is there twice" in problem:
        return _short(problem)
    if r"'\t'" in problem:
        return f"{_short(problem)}; indent with spaces, not tabs"
    return (
        f"{_short(problem)}; check indentation and quotes there and above"
        if problem
        else "check indentation and quotes"
    )


def _number(text: str) -> float | None:
    """The number that a text means, also as a fraction: "8/255"."""
    try:
        numerator, _, denominator = text.partition("/")
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        return None


def _number_hint(text: str) -> str:
    number = _number(text)
    return "" if number is None else f", written {number:.6g} without quotes"


def _one_line(problems: Sequence[Problem], parts: Sequence[Part]) -> str:
    path, message, *named = problems[0]
    path = tuple(part for part in path if part not in ("constrained-str", "BuildingsConfig"))
    file = _file_of(path, parts)
    removed, remover = _removal(named[0] if named else path, parts)
    if removed and named:
        message = f"null removes it, but {_key(path)} in {file} needs it; remove or change that as well"
        path, file = removed, remover
    elif removed and message == "missing":
        message = f"missing, for {remover} removes {_key(removed)} with null; give all its keys, or take out the null"
    known = _known_keys(path) if message == "unknown key" else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return _printable(f"{file}: {_key(path)}: {_shortened(message, 300)}{known}{more}")


def _key(path: tuple[str, ...]) -> str:
    return ".".join(_shortened(part, 40) for part in path) or "top level"


def _printable(text: str) -> str:
    """The text in one line, and whatever a terminal would not show as an escape."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 3]}..."


def _echo(given: Any) -> str:
    """What was given, as Python writes it; it may be of any length."""
    try:
        return _shortened(repr(given), 60)
    except ValueError:  # Python writes no integer of so many digits
        return "a number of thousands of digits"


def _short(error: object) -> str:
    return _printable(_shortened(str(error) or type(error).__name__, 100))


def _file_of(path: tuple[str, ...], parts: Sequence[Part]) -> str:
    """The last file that says anything about the longest part of this key path."""
    for length in range(len(path), 0, -1):
        place = _last_to_say(path[:length], parts)
        if place >= 0:
            return _display(parts[place][0])
    return _display(parts[0][0]) if parts else "configuration"


def _last_to_say(path: tuple[str, ...], parts: Sequence[Part]) -> int:
    """The place of the last file that has this key path; -1 where none has, or a later one replaces what it is in."""
    for place in reversed(range(len(parts))):
        found = [_value(path[:length], parts[place]) for length in range(1, len(path) + 1)]
        if found[-1] is not _ABSENT:
            return place
        if any(value is not _ABSENT and not isinstance(value, Mapping) for value in found):
            return -1
    return -1


def _removal(path: tuple[str, ...], parts: Sequence[Part]) -> tuple[tuple[str, ...], str]:
    """What a file removes with null of this key path, which an earlier one has, and the file; empty where none does."""
    for place in reversed(range(len(parts))):
        for length in range(1, len(path) + 1):
            if _value(path[:length], parts[place]) is None and _last_to_say(path, parts[:place]) >= 0:
                return path[:length], _display(parts[place][0])
    return (), ""


def _value(path: tuple[str, ...], part: Part) -> Any:
    """What a file has at this key path, or _ABSENT."""
    node: Any = part[1]
    for key in path:
        node = node.get(key, _ABSENT) if isinstance(node, Mapping) else _ABSENT
    return node


_ABSENT = object()


def _pictures_are_inherited(parts: Sequence[Part]) -> bool:
    """Whether a later file than the one that names models to picture changes which models there are."""
    changed = max(_last_to_say((key,), parts) for key in ("plan", "tasks"))
    return not parts or _last_to_say(("report", "models"), parts) < changed


def _known_keys(path: tuple[str, ...]) -> str:
    """The keys allowed where this path ends, as a list to choose from; "" where any key is."""
    place: Any = Config
    for key in path[:-1]:
        fields = getattr(place, "model_fields", None)
        place = _values_of(place) if fields is None else fields[key].annotation if key in fields else None
        place = next((part for part in get_args(place) if _is_section(part)), place)  # without "or null"
    fields = getattr(place, "model_fields", None)
    return f"; allowed: {', '.join(fields)}" if fields else ""


def _values_of(mapping: Any) -> Any:
    """The type of the values of dict[str, ...], or of that or null."""
    found = next((part for part in (mapping, *get_args(mapping)) if get_origin(part) is dict), None)
    return None if found is None else get_args(found)[-1]


def _is_section(annotation: Any) -> bool:
    return hasattr(annotation, "model_fields")
