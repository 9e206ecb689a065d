"""How long a study takes, estimated from run records of this study and of studies like it.

The work of a training is its images times its passes over them, that of an evaluation its images times its gradients. A
record gives seconds per work; a planned job takes those of the records that are most like it: the same data, image
size, width and network, else other networks of the same study. Nothing is carried over to other sizes of images or
networks; jobs without such a record are counted by rule.
"""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstrong.config import Config
from headstrong.configfiles import CONFIG_FILE, load_plan
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.lineage import read_record
from headstrong.provenance import ROOT, settings_json
from headstrong.study import Plan

STAGES_FILE = "stages.csv"  # of a reference: seconds of all jobs by rule (benchmarks/stages.py)
Likeness = tuple[object, ...]


@dataclass(frozen=True)
class Unit:
    """A job. name: what tells it from others of its rule. alike: what it is like, the closest likeness first."""

    rule: str
    name: str
    work: float
    alike: tuple[Likeness, ...]


@dataclass
class Rate:
    """Seconds that so much work took, by which jobs, on which devices, as recorded in which folder."""

    folder: Path
    seconds: float = 0.0
    work: float = 0.0
    jobs: set[tuple[str, str]] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)

    def add(self, rule: str, name: str, seconds: float, work: float, device: str) -> None:
        """Take a record into account."""
        self.seconds, self.work = self.seconds + seconds, self.work + work
        self.jobs.add((rule, name))
        self.devices.add(device)


@dataclass(frozen=True)
class Estimate:
    """Seconds of all jobs together; how many jobs they stand for, and from how many records they follow; where these
    lie, and the devices they name; the jobs that nothing is known of, by rule."""

    seconds: float
    jobs: int
    records: int
    folders: tuple[str, ...]
    devices: tuple[str, ...]
    unknown: Mapping[str, int]


def estimate(plan: Plan, results: Path = Path("results"), reference: Path = ROOT / "results" / "reference") -> Estimate:
    """How long the jobs of a plan take, by the run records in the folders of studies in `results` and `reference`."""
    wanted = list(units(plan))
    rates: dict[Likeness, Rate] = {}
    for folder, its_plan in _sources(plan.config, results, reference):
        for likeness, rate in _rates(folder, its_plan).items():
            rates.setdefault(likeness, rate)
        if all(unit.alike[0] in rates for unit in wanted):
            break
    rest = rates.get(_rest(plan.config))
    used = [rest] if rest is not None else []
    seconds, unknown = sum(rate.seconds for rate in used), Counter[str]()
    for unit in wanted:
        found = next((rates[likeness] for likeness in unit.alike if likeness in rates), None)
        if found is None:
            unknown[unit.rule] += 1
        else:
            used.append(found)
            seconds += unit.work * found.seconds / found.work
    return Estimate(
        seconds=seconds,
        jobs=len(wanted) - unknown.total(),
        records=len({(rate.folder, *job) for rate in used if rate is not rest for job in rate.jobs}),
        folders=tuple(dict.fromkeys(_shown(rate.folder) for rate in used)),
        devices=tuple(sorted({device for rate in used for device in rate.devices})),
        unknown=unknown,
    )


def in_words(found: Estimate, cores: int) -> list[str]:
    """An estimate in one or two lines, e.g. "run time: about 35 min on 2 cores (70 min of jobs), from ...".

    Where most jobs are like none that is recorded, no time is given: it would be that of the others.
    """
    known = found.jobs > sum(found.unknown.values())
    lines = []
    if known:
        time = f"about {_duration(found.seconds / cores)} on {cores} cores ({_duration(found.seconds)} of jobs)"
        if cores == 1 or "cuda" in found.devices:
            time = f"about {_duration(found.seconds)}, one job after the other"
        devices = f", on {' and '.join(found.devices)}" if found.devices else ""
        source = f"from records of {found.records} jobs in {', '.join(found.folders)}{devices}"
        lines.append(f"run time: {time}, {source}")
    if found.unknown:
        rules = ", ".join(f"{number} {rule}" for rule, number in found.unknown.items())
        what = "not counted, as no record is like them" if known else "not known, as no record is like these"
        lines.append(f"run time: {what}: {rules}")
    return lines


def _duration(seconds: float) -> str:
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}" if seconds < 10 * unit else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} days"


def units(plan: Plan) -> Iterator[Unit]:
    """The jobs of a plan that take time, but for tables, figures and the page."""
    if plan.models:
        yield from _dense(plan)
    yield from _pictured(plan)
    yield from _generated(plan)
    yield from _hidden(plan)


def _scene(config: Config) -> Likeness:
    data = config.data
    return (data.source, *data.size, data.train is None, data.test is None, config.model.width)


def _own(rule: str, config: Config, *more: object) -> Likeness:
    """Jobs of a rule in this very study, at this size."""
    return (rule, config.study_id, *_scene(config), *more)


def _rest(config: Config) -> Likeness:
    return _own("tables, figures and page", config)


def _dense(plan: Plan) -> Iterator[Unit]:
    config, data = plan.config, plan.config.data
    train, test = data.train or 1, config.evaluation.samples or data.test or 1
    for split in ("train", "test"):
        yield Unit("build_data", split, getattr(data, split) or 1, (("build_data", *_scene(config)[:-1]),))
    for run in plan.runs:
        job = plan.training_job(run.id)
        passes = int(job.clean_steps) + (0 if job.adversarial is None else 1 + job.adversarial.steps)
        alike = _networks("train_model", config, job.encoder, len(job.tasks))
        yield Unit("train_model", run.id, job.epochs * train * passes, alike)
    for model in plan.models:
        attacks = plan.evaluation_job(model.id).attacks
        work = test * (1 + sum(attack.steps * attack.restarts for attack in attacks))
        yield Unit(
            "evaluate_model", model.id, work, _networks("evaluate_model", config, model.encoder, len(model.tasks))
        )
    for name in plan.pictured:
        yield Unit("picture_attacks", name, 1, (_own("picture_attacks", config),))


def _networks(rule: str, config: Config, encoder: str, tasks: int) -> tuple[Likeness, ...]:
    alike = (rule, *_scene(config), encoder)
    return (*alike, tasks), alike, _own(rule, config)


def _pictured(plan: Plan) -> Iterator[Unit]:
    """Caches of pictures, their classifiers, and what families of important classes do with them."""
    config, made, importance = plan.config, plan.generated, plan.importance
    victims = [made.classifier(name) for name in _attacked_classifiers(plan)]
    used = {(one.pictures, one.domain): False for one in victims}
    used |= {importance.pictures(family): True for family in config.importance_families}
    for (name, domain), ranked in used.items():
        pictures = config.picture_sets[name]
        for split in ("train", "test", *(["validation"] if ranked and pictures.validated else [])):
            settings = made.picture_settings(name, domain, split)
            alike = ("build_pictures", pictures.source, *pictures.size, settings["count"] is None)
            yield Unit("build_pictures", _name("build_pictures", settings), settings["count"] or 1, (alike,))
    jobs = [(one.pictures, made.classifier_job(one.id)) for one in victims]
    jobs += [(importance.pictures(one.family)[0], importance.classifier_job(one.id)) for one in importance.trials]
    for name, job in jobs:
        pictures = config.picture_sets[name]
        network = ("train_classifier", pictures.source, *pictures.size, pictures.train is None, job.backbone, job.width)
        yield Unit("train_classifier", job.id, job.epochs * (pictures.train or 1), (network,))
    for family in config.importance_families:
        for rule in ("choose_classes", "evaluate_importance"):
            yield Unit(rule, family, len(importance.of_family(family)), (_own(rule, config, family),))


def _attacked_classifiers(plan: Plan) -> list[str]:
    """Ids of the classifiers that are attacked: no others are trained."""
    families = plan.config.generator_families
    found = [victim.classifier for family in families for victim in plan.generated.victims(family, transfer=True)]
    found += [plan.hidden.classifier(turn.family) for turn in plan.hidden.turns]
    return list(dict.fromkeys(name for name in found if name is not None))


def _generated(plan: Plan) -> Iterator[Unit]:
    config, made = plan.config, plan.generated
    for job in made.generators:
        name = made.pictures_of(job.family)
        source = config.data if name is None else config.picture_sets[name]
        images = job.samples or source.train
        kind = (job.kind, job.method, job.mode, job.filters, job.blocks, *source.size, images is None)
        work = job.epochs * len(job.tasks) * (images or 1)
        yield Unit("train_generator", job.id, work, (("train_generator", *kind),))
    for family in config.generator_families:
        jobs = len(made.family_job(family).generators)
        for rule in ("evaluate_generators", "time_generators"):
            yield Unit(rule, family, jobs, (_own(rule, config, family),))


def _hidden(plan: Plan) -> Iterator[Unit]:
    config, hidden = plan.config, plan.hidden
    for copy in hidden.forgettings:
        own = _own("forget_task", config, hidden.family_of_forgetting(copy.id))
        yield Unit("forget_task", copy.id, copy.epochs + copy.probe_epochs, (own,))
    for turn in hidden.turns:
        job = hidden.hidden_job(turn.id)
        work = 1 + sum(attack.method.steps * attack.method.restarts for attack in job.attacks)
        name = _name("evaluate_hidden", {"family": turn.family, "hidden": turn.hidden})
        yield Unit("evaluate_hidden", name, work, (_own("evaluate_hidden", config, turn.family),))


def _name(rule: str, job: Mapping[str, Any]) -> str:
    """What tells a job from others of its rule, by its settings."""
    if rule == "build_pictures":
        return settings_json({key: job.get(key) for key in ("source", "domain", "split", "size", "count")})
    if rule == "evaluate_hidden":
        return f"{job.get('family')}-{job.get('hidden')}"
    return str(next((job[key] for key in ("id", "family", "split") if key in job), ""))


def _sources(config: Config, results: Path, reference: Path) -> Iterator[tuple[Path, Plan]]:
    """Folders of studies and their plans: of each place the study's own first. What no longer is a configuration, or
    plans nothing, is left out."""
    for place in (results, reference):
        plans: list[tuple[Path, Plan]] = []
        for file in sorted(place.glob(f"*/{CONFIG_FILE}")):
            with contextlib.suppress(ConfigError):
                plans.append((file.parent, load_plan([file])))
        yield from sorted(plans, key=lambda found: found[1].config.study_id != config.study_id)


def _rates(folder: Path, plan: Plan) -> dict[Likeness, Rate]:
    """Seconds per work by likeness, from the records in a study's folder."""
    known = {(unit.rule, unit.name): unit for unit in units(plan)}
    if (folder / STAGES_FILE).is_file():
        return _rates_of_stages(folder, plan, list(known.values()))
    rates: dict[Likeness, Rate] = {}
    rules = {rule for rule, _ in known}
    for rule, name, seconds, device in _recorded(folder):
        unit = known.get((rule, name))
        alike = unit.alike if unit is not None else () if rule in rules else (_rest(plan.config),)
        for likeness in alike:
            rates.setdefault(likeness, Rate(folder)).add(rule, name, seconds, unit.work if unit else 0.0, device)
    return rates


def _recorded(folder: Path) -> Iterator[tuple[str, str, float, str]]:
    """Rule, name, seconds and device of every job that a readable record is of."""
    for path in sorted(folder.rglob("*.json")):
        try:
            record = read_record(path)
        except BrokenFileError:  # a study that is run again tells of it
            continue
        seconds = None if record is None or record.old else record.content.get("seconds")
        if record is not None and isinstance(seconds, int | float):
            yield record.rule, _name(record.rule, record.job), float(seconds), str(record.content.get("device", ""))


def _rates_of_stages(folder: Path, plan: Plan, known: Sequence[Unit]) -> dict[Likeness, Rate]:
    """The same from the table of all jobs' seconds by rule."""
    rates: dict[Likeness, Rate] = {}
    with (folder / STAGES_FILE).open(newline="", encoding="utf-8") as file:
        seconds = {row["rule"]: float(row["seconds"]) for row in csv.DictReader(file)}
    for rule, total in seconds.items():
        jobs = [unit for unit in known if unit.rule == rule]
        rate = rates.setdefault(jobs[0].alike[-1] if jobs else _rest(plan.config), Rate(folder))
        rate.seconds, rate.work = rate.seconds + total, sum(unit.work for unit in jobs)
        rate.jobs |= {(unit.rule, unit.name) for unit in jobs}
    return rates


def _shown(folder: Path) -> str:
    return str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder)
