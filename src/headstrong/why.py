"""`python -m headstrong why RESULT`: what a file is, what made it, when, where, from which code and from what."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from headstrong import kinds
from headstrong.configfiles import CONFIG_FILE, as_yaml, load
from headstrong.errors import BrokenFileError, MissingDataError, UserError
from headstrong.lineage import Lineage, Record, absolute, lineage_of, read_record
from headstrong.provenance import ROOT, files_in, lock_digest
from headstrong.stages import stage_code

RENDERED = ("rooms", "objects")  # embedded data: no files are read
SAME, OTHER, UNKNOWN = "same", "other", "unknown"
_WIDTH = 14  # of the column of headings
_PAGE = 100  # characters of a line of settings
_LONG = 60  # characters of a setting that are shown; --json has them all


def explain(path: Path) -> dict[str, Any]:
    """Everything that is known of a result, as plain data; a folder, or a record itself, may be given as well.

    result, study; what: in words; file: sha256 now and recorded, state ("unchanged", "changed"); record, rule, job,
    code, git, lock, config, versions, host, platform, processor, device, start, end, seconds: as recorded; checkout:
    whether code, lock and configuration of this checkout are the same, other or unknown; made_from: groups of inputs,
    each with what, rule, files, changed, missing, and its own made_from, down to the data.
    Raises MissingDataError without file or record, BrokenFileError for a damaged record.
    """
    lineage = lineage_of(path)
    record = _record_of(path, lineage)
    outputs = [output for output in _files_of(path) if output in record.outputs]
    content = record.content
    facts = (
        "code",
        "git",
        "lock",
        "config",
        "versions",
        "host",
        "platform",
        "processor",
        "device",
        "start",
        "end",
        "seconds",
    )
    return {
        "result": lineage.relative(absolute(path)),
        "study": lineage.study.name,
        "what": kinds.file_in_words(record, lineage.relative(absolute(path))),
        "files": len(outputs),
        "changed": [lineage.relative(one) for one in outputs if lineage.digest(one) != record.outputs[one]],
        "sha256": record.outputs[outputs[0]] if len(outputs) == 1 else None,
        "record": lineage.relative(record.path),
        "old_record": record.old,
        "rule": record.rule,
        "job": dict(record.job),
        **{name: content.get(name) for name in facts},
        "checkout": _compared(record, lineage),
        "data": _data_in_words(record),
        "inputs_known": not record.old,
        "made_from": _groups(record.inputs.items(), lineage, set()),
    }


def _files_of(path: Path) -> list[Path]:
    whole = absolute(path)
    return files_in(whole) if whole.is_dir() else [whole]


def _record_of(path: Path, lineage: Lineage) -> Record:
    """The one record of a file, of all files of a folder, or the record that the file itself is."""
    own = read_record(path) if path.suffix == ".json" and path.is_file() else None
    if own is not None:
        return own
    found = {id(made[0]): made[0] for one in _files_of(path) if (made := lineage.makers(one))}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise MissingDataError(f"{path}: holds results of {len(found)} jobs; name one of its files")
    if lineage.broken:
        raise BrokenFileError(next(iter(lineage.broken.values())))
    old = [record for record in lineage.records if record.old]
    others = f"; the {len(old)} records of this folder name no files: {_origins(old)}" if old else ""
    raise MissingDataError(f"{path}: no run record names it{others}")


def _origins(records: Iterable[Record]) -> str:
    found = sorted({f"commit {commit_in_words(record.content.get('git'))}" for record in records})
    return "; ".join([*found[:2], *(["..."] if len(found) > 2 else [])])


def _compared(record: Record, lineage: Lineage) -> dict[str, str]:
    """Whether this checkout would make the same: its code, lock file, and configuration; and the folder's."""
    recorded = (record.content.get("config") or {}).get("sha256")
    saved = lineage.study / CONFIG_FILE
    beside = _verdict(recorded, lineage.digest(saved))
    return {
        "code": _verdict(record.content.get("code"), _code_now(record)),
        "lock": _verdict(record.content.get("lock"), lock_digest()),
        "config": _against_files(record, saved) if beside == SAME else UNKNOWN,
        "config_of_folder": beside,
    }


def _verdict(recorded: object, now: object) -> str:
    return UNKNOWN if recorded is None or now is None else SAME if recorded == now else OTHER


def _code_now(record: Record) -> str | None:
    try:
        return stage_code(record.rule, record.job)
    except (KeyError, OSError):  # a source of data, or a module, that this checkout does not have
        return None


def _against_files(record: Record, saved: Path) -> str:
    """Whether this checkout's configuration files give the configuration `saved`, in whatever order."""
    config = record.content["config"]
    files, entries = [ROOT / name for name in config["from"]], config.get("command_line", [])
    try:
        return SAME if yaml.safe_load(as_yaml(load(files, entries))) == yaml.safe_load(saved.read_bytes()) else OTHER
    except (UserError, yaml.YAMLError):
        return UNKNOWN


def _groups(inputs: Iterable[tuple[Path, str]], lineage: Lineage, seen: set[str]) -> list[dict[str, Any]]:
    """Inputs of the same rule as one group each, with what they were made from; the same files are followed once."""
    by_rule: dict[str, dict[Path, str]] = {}
    makers: dict[Path, Record] = {}
    for path, digest in inputs:
        made = lineage.makers(path)
        if made:
            makers[path] = made[0]
        rule = made[0].rule if made else ""
        by_rule.setdefault(rule, {})[path] = digest
    return [_group(rule, files, makers, lineage, seen) for rule, files in by_rule.items()]


def _group(
    rule: str, files: Mapping[Path, str], makers: Mapping[Path, Record], lineage: Lineage, seen: set[str]
) -> dict[str, Any]:
    records = list({id(makers[path]): makers[path] for path in files if path in makers}.values())
    names = {path: lineage.relative(path) for path in files}
    key = "\n".join(sorted(names.values()))
    again = key in seen
    seen.add(key)
    deeper = {path: digest for record in records for path, digest in record.inputs.items()}
    return {
        "what": kinds.group_in_words(rule, len(files), len(records)),
        "rule": rule or None,
        "files": sorted(names.values()),
        "changed": sorted(names[path] for path, digest in files.items() if lineage.digest(path) not in (digest, None)),
        "missing": sorted(names[path] for path in files if lineage.digest(path) is None),
        "commits": sorted({commit_in_words(record.content.get("git")) for record in records}),
        "other_code": sum(_verdict(one.content.get("code"), _code_now(one)) == OTHER for one in records),
        "data": sorted({text for record in records if (text := _data_in_words(record))}),
        "told_above": again,
        "made_from": [] if again else _groups(deeper.items(), lineage, seen),
    }


def _data_in_words(record: Record) -> str:
    """What a data cache was read from, as its manifest says; "" for other records."""
    if record.rule not in ("build_data", "build_pictures"):
        return ""
    source = record.job.get("folder") or record.job.get("source")
    for path in record.outputs:
        if path.name.endswith(".manifest.json") and path.is_file():
            read = json.loads(path.read_text(encoding="utf-8"))["inputs"]
            if read["files"]:
                return f"from {read['files']} files of {source} (sha256 of their list {read['sha256'][:16]})"
    return f"from {source}, rendered" if source in RENDERED else f"from {source}"


def commit_in_words(git: Mapping[str, Any] | None) -> str:
    """A record's commit and whether the checkout had changes that were not committed."""
    if not git:
        return "not recorded (no git checkout)"
    return f"{git['commit'][:12]}, {'with uncommitted changes' if git.get('dirty') else 'clean'}"


def in_words(found: Mapping[str, Any]) -> str:
    """What `explain` found, as lines for people."""
    lines = [f"{found['result']}: {found['what']}, study {found['study']}"]
    for heading, text in _headings(found):
        lines.append(f"  {heading:{_WIDTH}}{text}")
    lines += ["  made from", *_tree(found["made_from"], 2)] if found["made_from"] else []
    if not found["made_from"]:
        known = "nothing but its settings" if found["inputs_known"] else "not recorded: a record of an older version"
        lines.append(f"  {'made from':{_WIDTH}}{found['data'] or known}")
    return "\n".join(lines)


def _headings(found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    checkout = found["checkout"]
    yield "state", _state(found)
    yield "made by", f"rule {found['rule']} (scripts/{found['rule']}.py); record {found['record']}"
    yield "when", f"{found['start']} to {found['end']} ({found['seconds']} s)"
    yield "where", ", ".join(str(found[key]) for key in ("host", "device", "processor", "platform") if found[key])
    settings = "; ".join(f"{key} {_short(value)}" for key, value in found["job"].items() if value is not None)
    for number, line in enumerate(textwrap.wrap(settings, _PAGE, break_long_words=False)):
        yield "" if number else "settings", line
    yield "commit", commit_in_words(found["git"])
    yield "code", f"{found['code']}; {_against(checkout['code'], 'made by other code than this checkout has')}"
    yield "lock file", f"{found['lock']}; {_against(checkout['lock'], 'other packages than this checkout asks for')}"
    yield "configuration", _configuration(found)
    yield "versions", ", ".join(f"{name} {number}" for name, number in (found["versions"] or {}).items())


def _state(found: Mapping[str, Any]) -> str:
    if found["changed"]:
        some = f"{len(found['changed'])} of {found['files']} files" if found["files"] > 1 else "the file"
        return f"CHANGED: {some} is not what the record says any more ({', '.join(found['changed'][:3])})"
    if not found["files"]:
        return "the record itself; name a result to have it compared"
    if found["sha256"]:
        return f"unchanged, sha256 {found['sha256']}"
    return f"unchanged, {found['files']} files"


def _configuration(found: Mapping[str, Any]) -> str:
    config, checkout = found["config"], found["checkout"]
    if not config:
        return "not recorded: run by hand, or by an older version"
    folder = {SAME: "as", OTHER: "NOT as it is now in", UNKNOWN: "not there any more:"}[checkout["config_of_folder"]]
    now = _against(checkout["config"], "this checkout's files give another one now")
    origins = " + ".join([*config["from"], *(f"--config {entry}" for entry in config.get("command_line", []))])
    return f"{origins}, sha256 {config['sha256'][:16]}, {folder} {config['file']}; {now}"


def _against(verdict: str, other: str) -> str:
    return {SAME: "the same in this checkout", OTHER: other.upper(), UNKNOWN: "unknown in this checkout"}[verdict]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 4]} ..."


def _tree(groups: Iterable[Mapping[str, Any]], depth: int) -> Iterable[str]:
    for group in groups:
        yield f"{'  ' * depth}{_branch(group)}"
        yield from _tree(group["made_from"], depth + 1)


def _branch(group: Mapping[str, Any]) -> str:
    files = group["files"]
    shown = files[0] if len(files) == 1 else f"{files[0]} ... {files[-1]}"
    parts = [f"{group['what']}: {shown}"]
    parts += [f"by {group['rule']}"] if group["rule"] else ["no record names it"]
    for state in ("changed", "missing"):
        if group[state]:
            many = f"{len(group[state])} of {len(files)} " if len(files) > 1 else ""
            parts.append(f"{many}{state.upper()} since: {', '.join(group[state][:3])}")
    if not group["changed"] and not group["missing"]:
        parts.append("unchanged")
    if group["other_code"]:
        parts.append(f"{group['other_code']} MADE BY OTHER CODE than this checkout's")
    parts += group["data"]
    parts += ["told above"] if group["told_above"] and group["rule"] else []
    return ", ".join(parts)
