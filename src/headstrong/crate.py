"""A finished study as an RO-Crate (Provenance Run Crate 0.5): results, what made each, and the workflow.

    results/<study>/      the study's files; weights and data caches only on request, else listed with digest and size
    Snakefile, rules/, scripts/, src/, ...    the workflow of this checkout

Every run record is one CreateAction. Dates are those of the records, so that the same study gives the same crate.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headstrong import __version__, kinds
from headstrong.configfiles import CONFIG_FILE
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.lineage import Lineage, Record, absolute
from headstrong.provenance import ROOT, atomic_path, file_digest, files_in, partial_of, settings_json
from headstrong.why import RENDERED, commit_in_words

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

REPORT = "report.html"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"  # sha256 is one of its words
SNAKEFILE = "Snakefile"
_SOURCES = ("config.yaml", "config.schema.json", "CITATION.cff", "LICENSE", "README.md", "pyproject.toml")
_FOLDERS = ("rules", "scripts", "src/headstrong", "studies", "profiles", "envs")
_NO_SOURCE = ("__pycache__", ".egg-info")
# Not the machine's own list of types, which differs from one to the next.
_TYPES = {
    ".csv": "text/csv",
    ".h5": "application/x-hdf5",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".npy": "application/octet-stream",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
}
_CACHES = ("build_data", "build_pictures", "forget_task")  # rules whose HDF5 files are heavy and can be made again


def export(study: Path, output: Path, *, weights: bool = False) -> str:
    """Write the crate of a finished study to `output`, a new folder or a .zip file; returns what was written, in words.

    weights: whether weights and data caches go in as well. Nothing is at `output` until all is.
    Raises MissingDataError for a study that is not finished, naming what is missing, and outside a checkout;
    BrokenFileError where a file is not what its record says; ConfigError where `output` cannot be.
    """
    lineage = Lineage(absolute(study))
    records = finished(lineage)
    _check_output(output, lineage.study)
    crate, contained = build(lineage, records, weights=weights)
    if output.suffix == ".zip":
        with atomic_path(output) as partial:
            crate.write_zip(partial)
    else:
        _write_folder(crate, output)
    return f"{output}: {len(records)} actions, {contained} files"


def finished(lineage: Lineage) -> list[Record]:
    """The records of all that the report was made from, in the order of their ends.

    Raises MissingDataError where one of these, or the report, is missing; BrokenFileError where a file has changed.
    """
    if not lineage.study.is_dir():
        raise MissingDataError(
            f"{lineage.study}: no such folder; give the folder of a finished study, e.g. results/quick"
        )
    found: dict[Path, Record] = {}
    problems: list[str] = []
    waiting: list[tuple[Path, str | None]] = [(lineage.study / name, None) for name in (REPORT, CONFIG_FILE)]
    seen: set[tuple[Path, str | None]] = set()
    while waiting:
        path, expected = waiting.pop()
        if (path, expected) in seen:
            continue
        seen.add((path, expected))
        made = lineage.makers(path)
        if not made or lineage.digest(path) is None:
            absent = "missing" if lineage.digest(path) is None else "no run record names it"
            problems.append(f"{lineage.relative(path)} ({absent})")
            continue
        _check_digest(lineage, path, {made[0].outputs[path], expected or made[0].outputs[path]})
        if made[0].path not in found:
            found[made[0].path] = made[0]
            waiting += [*made[0].inputs.items(), *made[0].outputs.items()]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise MissingDataError(
            f"{lineage.study}: the study is not finished: {', '.join(sorted(problems)[:3])}{more}; run it to its end"
        )
    return sorted(found.values(), key=lambda record: (str(record.content.get("end")), str(record.path)))


def _check_digest(lineage: Lineage, path: Path, expected: set[str]) -> None:
    if expected != {lineage.digest(path)}:
        raise BrokenFileError(
            f"{path}: not the file that its record and the records of what was made from it tell of; "
            "run the study again, or restore the file"
        )


def _check_output(output: Path, study: Path) -> None:
    if absolute(output).is_relative_to(study):
        raise ConfigError(f"--output {output}: lies in the study's folder; choose another place")
    if output.suffix == ".zip":
        if output.is_dir():
            raise ConfigError(f"--output {output}: is a folder; expected a file that ends in .zip, or a new folder")
    elif output.exists():
        raise ConfigError(f"--output {output}: is there already; choose a folder that is not")
    for name in (SNAKEFILE, "CITATION.cff"):
        if not (ROOT / name).is_file():
            raise MissingDataError(f"{name}: not found; export from a checkout of headstrong, whose workflow goes in")


def _write_folder(crate: ROCrate, output: Path) -> None:
    partial = partial_of(output)
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        crate.write(partial)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def build(lineage: Lineage, records: list[Record], *, weights: bool) -> tuple[ROCrate, int]:
    """The crate of these records, not written yet, and how many files it contains; MissingDataError without rocrate."""
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise MissingDataError("rocrate: not installed; envs/requirements.lock lists it: run `make study`") from None
    crate = ROCrate(gen_preview=False, version="1.1")
    crate.metadata.extra_contexts.append(CONTEXT)
    return crate, _Builder(crate, lineage, weights).fill(records)


class _Builder:
    """Fills one crate; entities are found again by the path of their file."""

    def __init__(self, crate: ROCrate, lineage: Lineage, weights: bool) -> None:
        self.crate, self.lineage, self.weights = crate, lineage, weights
        self.files: dict[Path, Entity] = {}
        self.contained = 0

    def fill(self, records: list[Record]) -> int:
        self._describe(records)
        workflow = self._workflow()
        steps = {rule: self._step(rule, place) for place, rule in enumerate(_rules(records), start=1)}
        workflow["step"] = list(steps.values())
        workflow["hasPart"] = [self.files[_script(rule)] for rule in steps]
        workflow["softwareRequirements"] = self._software(records)
        for record in records:
            for path in record.outputs:
                self._result(path, record)
        actions = {record.path: self._action(record) for record in records}
        whole = self._run_of_workflow(workflow, records)
        controls = [self._control(record, steps[record.rule], actions[record.path]) for record in records]
        self._engine(records, whole, controls)
        self.crate.root_dataset["mentions"] = [whole, *actions.values()]
        return self.contained

    def _entity(self, identifier: str, **properties: Any) -> Entity:
        from rocrate.model.contextentity import ContextEntity

        told = {key: value[0] if _single(value) else value for key, value in properties.items() if value != []}
        return self.crate.add(ContextEntity(self.crate, identifier, {"@type": told.pop("kind"), **told}))

    def _describe(self, records: list[Record]) -> None:
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        crate, study = self.crate, self.lineage.study.name
        commits = sorted({commit_in_words(record.content.get("git")) for record in records})
        crate.name = f"headstrong: study {study}"
        crate.description = f"Results of the study {study}, made from commit {'; '.join(commits)}. {citation['title']}"
        crate.datePublished = max(_time(record.content["end"]) for record in records)
        name = citation["license"]
        crate.license = self._entity(f"https://spdx.org/licenses/{name}", kind="CreativeWork", name=f"{name} licence")
        crate.root_dataset["conformsTo"] = [
            self._entity(identifier, kind="CreativeWork", name=name, version=version)
            for identifier, (name, version) in PROFILES.items()
        ]
        authors = [
            self._entity(f"#author-{number}", kind="Organization", name=author["name"])
            for number, author in enumerate(citation["authors"], start=1)
        ]
        crate.root_dataset["author"] = authors[0] if _single(authors) else authors
        crate.root_dataset["citation"] = [self._study_cited(*pair) for pair in enumerate(citation["references"], 1)]

    def _study_cited(self, number: int, reference: Mapping[str, Any]) -> Entity:
        return self._entity(
            f"#cited-{number}", kind="ScholarlyArticle", name=reference["title"], datePublished=str(reference["year"])
        )

    def _workflow(self) -> Entity:
        paths = [ROOT / name for name in _SOURCES if (ROOT / name).is_file()]
        paths += [path for folder in _FOLDERS if (ROOT / folder).is_dir() for path in files_in(ROOT / folder)]
        for path in paths:
            name = path.relative_to(ROOT).as_posix()
            if not any(part.endswith(_NO_SOURCE) for part in path.parts):
                self._add(path, name, **self._about_source(name))
        about = {"name": "headstrong", "license": self.crate.license, "version": __version__}
        about |= {"encodingFormat": "text/plain", "sha256": file_digest(ROOT / SNAKEFILE)}
        main = {"@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"], **about}
        main["conformsTo"] = {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"}
        workflow = self.crate.add_workflow(ROOT / SNAKEFILE, SNAKEFILE, main=True, lang="snakemake", properties=main)
        self.contained += 1
        return workflow

    def _about_source(self, name: str) -> dict[str, Any]:
        if name.startswith("scripts/"):
            return {"kind": ["File", "SoftwareSourceCode"], "name": name, "version": __version__}
        return {"name": name, **({"about": self.crate.root_dataset} if name == "README.md" else {})}

    def _add(self, path: Path, place: str, kind: str | list[str] = "File", **properties: Any) -> Entity:
        """A file that goes into the crate, to `place`."""
        about = {"@type": kind, "sha256": file_digest(path), "contentSize": str(path.stat().st_size), **properties}
        about.setdefault("encodingFormat", _type(path))
        self.files[path] = self.crate.add_file(path, place, properties=about)
        self.contained += 1
        return self.files[path]

    def _result(self, path: Path, record: Record) -> None:
        """One output of a record: a file of the crate, or where it is heavy, a word about it."""
        name, words = self._name(path), kinds.file_in_words(record, self.lineage.relative(path))
        about = {"name": words, **_terms(record)}
        if self.weights or not _heavy(path, record):
            self._add(path, name, **about)
            return
        about |= {"sha256": record.outputs[path], "contentSize": str(path.stat().st_size)}
        about["description"] = f"{name}: not contained in this crate; digest and size tell it"
        about["encodingFormat"] = _type(path)
        self.files[path] = self._entity(f"#{name}", kind="CreativeWork", **about)

    def _name(self, path: Path) -> str:
        return f"results/{self.lineage.study.name}/{self.lineage.relative(path)}"

    def _action(self, record: Record) -> Entity:
        content, name = record.content, self.lineage.relative(record.path)
        written = self._add(record.path, self._name(record.path), name=f"run record of {record.rule}")
        where = ", ".join(str(content[key]) for key in ("host", "device", "processor", "platform") if content.get(key))
        objects = [self.files[path] for path in record.inputs]
        if record.job:
            settings = {"kind": "PropertyValue", "name": "settings", "value": settings_json(record.job)}
            objects.append(self._entity(f"#settings/{name}", **settings))
        return self._entity(
            f"#run/{name}",
            kind="CreateAction",
            name=f"{record.rule} {record.job.get('id', '')}".strip(),
            description=f"on {where}; commit {commit_in_words(content.get('git'))}; code {content.get('code')}; "
            f"lock file {content.get('lock')}",
            startTime=_time(content["start"]),
            endTime=_time(content["end"]),
            actionStatus="http://schema.org/CompletedActionStatus",
            instrument=self.files[_script(record.rule)],
            object=objects,
            result=[self.files[path] for path in record.outputs],
            subjectOf=written,
        )

    def _step(self, rule: str, place: int) -> Entity:
        script = self.files[_script(rule)]
        return self._entity(f"#step/{rule}", kind="HowToStep", name=rule, position=str(place), workExample=script)

    def _control(self, record: Record, step: Entity, action: Entity) -> Entity:
        name = self.lineage.relative(record.path)
        words = f"job of rule {record.rule}"
        return self._entity(f"#job/{name}", kind="ControlAction", name=words, instrument=step, object=action)

    def _run_of_workflow(self, workflow: Entity, records: list[Record]) -> Entity:
        study = self.lineage.study
        report = next(record for record in records if study / REPORT in record.outputs)
        return self._entity(
            "#run",
            kind="CreateAction",
            name=f"study {study.name}",
            description="all jobs of the study, from data to the report",
            startTime=min(_time(record.content["start"]) for record in records),
            endTime=max(_time(record.content["end"]) for record in records),
            actionStatus="http://schema.org/CompletedActionStatus",
            instrument=workflow,
            object=[self.files[study / CONFIG_FILE]],
            result=[self.files[path] for path in (study / REPORT, *report.inputs)],
        )

    def _engine(self, records: list[Record], whole: Entity, controls: list[Entity]) -> None:
        version = next((one.content["versions"]["snakemake"] for one in reversed(records)), "")
        self._entity(
            "#engine-run",
            kind="OrganizeAction",
            name=f"run of Snakemake {version}",
            instrument=self.crate.get(f"#software/snakemake-{version}"),
            object=controls,
            result=whole,
            startTime=whole["startTime"],
            endTime=whole["endTime"],
        )

    def _software(self, records: Iterable[Record]) -> list[Entity]:
        found = {pair for record in records for pair in record.content["versions"].items()}
        return [
            self._entity(f"#software/{name}-{version}", kind="SoftwareApplication", name=name, softwareVersion=version)
            for name, version in sorted(found)
        ]


def _single(value: object) -> bool:
    """Whether a value is a list of one, which JSON-LD writes without the list."""
    return isinstance(value, list) and len(value) == 1


def _time(recorded: str) -> str:
    """A time of a record with its offset in figures, as the profile has it."""
    return recorded.replace("Z", "+00:00")


def _rules(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(record.rule for record in records))


def _script(rule: str) -> Path:
    return ROOT / "scripts" / f"{rule}.py"


def _heavy(path: Path, record: Record) -> bool:
    return path.suffix == ".safetensors" or (path.suffix == ".h5" and record.rule in _CACHES)


def _terms(record: Record) -> dict[str, str]:
    """What data of other people allow is for them to say."""
    source = record.job.get("folder") or record.job.get("source")
    if record.rule not in _CACHES or source is None or source in RENDERED:
        return {}
    return {"conditionsOfAccess": f"made from {source}, whose terms apply"}


def _type(path: Path) -> str:
    return _TYPES.get(path.suffix, "text/plain")
