"""The plan: which models are trained and attacked, and the jobs that make them.

Everything here is plain Python, so that the Snakefile can read it at every job.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headstrong.attackplan import adversarial_attack, adversarial_text, attack_decided_by, attack_read, attacks_of
from headstrong.errors import ConfigError
from headstrong.generatorplan import GeneratorPlan
from headstrong.hiddenplan import HiddenPlan
from headstrong.importanceplan import ImportancePlan
from headstrong.jobs import EvaluationJob, TrainingJob
from headstrong.layouts import BRANCHED
from headstrong.provenance import settings_json
from headstrong.scheduleconfig import schedule_of
from headstrong.seeds import derive_seed
from headstrong.tasks import file_safe, in_order

if TYPE_CHECKING:
    from headstrong.config import Config

COLUMNS = (
    "id", "section", "encoder", "main", "auxiliary", "weights", "epochs", "seed", "layout", "adversarial", "switches",
)  # fmt: skip


@dataclass(frozen=True)
class ModelSpec:
    """One row of the plan.

    `weights` are the loss weights of main and auxiliary tasks, in the order of `tasks`; `run` is the id of the training
    run whose weights after `epochs` this model is (its own id, unless the section stops early, or differs from another
    section only in switches that do not touch the training). `layout` numbers how a branched network shares its blocks;
    `adversarial` describes the attack it is trained against; `switches` are those by which it departs from the study's
    protocol, e.g. "optimizer=sgd;start=corner". Each is None or "" where there is nothing to say.
    """

    id: str
    section: str
    encoder: str
    main: str
    auxiliary: str
    weights: tuple[float, ...]
    epochs: int
    seed: int
    run: str
    reference: bool
    layout: int | None = None
    adversarial: str = ""
    switches: str = ""
    early: bool = False  # a checkpoint of a longer run

    @property
    def tasks(self) -> str:
        """Letters of all tasks, the main task first."""
        return self.main + self.auxiliary


# Schedules as the protocol has them: learning rate, momentum, and milestones. Adam: released scripts (drops at 120 and
# 140 of 150). SGD: the paper's Appendix B (100, 120 and 140 of 150).
_SCHEDULES: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "adam": (1e-3, 0.0, (120 / 150, 140 / 150)),
    "sgd": (1e-2, 0.99, (100 / 150, 120 / 150, 140 / 150)),
}


class Plan:
    """Every model of a study, in a fixed order, and the jobs that make them.

    Raises ConfigError as `models_of`. Its methods raise KeyError for ids that it does not have.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.models = models_of(plan_settings(config))
        self._by_id = {model.id: model for model in self.models}
        self._protocols = {name: _protocol_of(config, name) for name in config.sections}

    def __getitem__(self, model_id: str) -> ModelSpec:
        return self._by_id[model_id]

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._by_id

    @cached_property
    def runs(self) -> tuple[ModelSpec, ...]:
        """The models that are trained; the others are checkpoints of these, or their weights measured otherwise."""
        return tuple(model for model in self.models if model.run == model.id)

    @cached_property
    def runs_with_snapshots(self) -> frozenset[str]:
        """Ids of the runs of which some model is an earlier checkpoint."""
        return frozenset(model.run for model in self.models if model.early)

    @cached_property
    def snapshot_epochs(self) -> tuple[int, ...]:
        """Epochs at which those runs keep their weights as well: the same for all, as a rule's outputs are."""
        return tuple(sorted({model.epochs for model in self.models if model.early}))

    @cached_property
    def generated(self) -> GeneratorPlan:
        """The classifiers and generators of the study."""
        return GeneratorPlan(self.config, self._only_models)

    @cached_property
    def _only_models(self) -> dict[str, tuple[str, str] | None]:
        """By section (id, tasks) of its model; None where it has several."""
        of_section: dict[str, list[tuple[str, str]]] = {}
        for model in self.models:
            of_section.setdefault(model.section, []).append((model.id, model.tasks))
        return {name: found[0] if len(found) == 1 else None for name, found in of_section.items()}

    @cached_property
    def importance(self) -> ImportancePlan:
        """The trials of losses that favour important classes."""
        return ImportancePlan(self.config)

    @cached_property
    def hidden(self) -> HiddenPlan:
        """The turns of tasks at being hidden."""
        return HiddenPlan(self.config, self._only_models)

    def count(self) -> str:
        """The plan in one line, e.g. '935 multi-task, 67 reference, 936 runs'.

        A plan without reference sections, such as the paper's own list, is counted as one list of models.
        """
        models, runs = len(self.models), len(self.runs)
        reference = sum(model.reference for model in self.models)
        if reference:
            return f"{models - reference} multi-task, {reference} reference, {runs} runs"
        multi = sum(bool(model.auxiliary) for model in self.models)
        return f"{models} models ({multi} multi-task, {models - multi} single-task), {runs} runs"

    def data_settings(self, split: str) -> dict[str, Any]:
        """What the cache of one split ("train" or "test") depends on; size: [H, W]."""
        data = self.config.data
        own: dict[str, Any] = {"antialias": data.antialias} if data.source == "rooms" else {"classes": data.classes}
        if data.source == "taskonomy":
            rule = self.config.protocol.resolved()["taskonomy_split"]
            missing = data.missing_labels or "mask"
            own |= {"buildings": data.model_dump()["buildings"], "split_rule": rule, "missing_labels": missing}
            if data.absent_buildings is not None:
                own["absent_buildings"] = data.absent_buildings
        count = getattr(data, split)
        if count is not None:  # of a subset; the whole of a data set does not depend on it
            own["seed"] = self.config.study.seed
        return {"source": data.source, "split": split, "size": list(data.size), "count": count, **own}

    def training_job(self, run: str) -> TrainingJob:
        """What the training job of this run needs to know."""
        model, training = self[run], self.config.training
        protocol, adversarial = self._protocols[model.section], self.config.sections[model.section].adversarial
        rate, momentum, milestones = _SCHEDULES[protocol["optimizer"]]
        return TrainingJob(
            id=model.id,
            encoder=model.encoder,
            width=self.config.model.width,
            tasks=model.tasks,
            weights=model.weights,
            epochs=model.epochs,
            snapshots=self.snapshot_epochs if run in self.runs_with_snapshots else (),
            batch_size=training.batch_size,
            shuffle=protocol["shuffle"],
            **schedule_of(
                training,
                protocol["optimizer"],
                rate=rate,
                momentum=momentum,
                milestones=milestones,
                epochs=model.epochs,
            ),
            precision=training.precision,
            loss_pixels=protocol["loss_pixels"],
            class_weights=protocol["class_weights"],
            output_start=protocol["output_start"],
            seed=model.seed,
            curvature=protocol["curvature"],
            depth=protocol["depth"],
            normals=protocol["normals"],
            layout=model.layout,
            adversarial=None if adversarial is None else adversarial_attack(adversarial, model.tasks, protocol),
            clean_steps=adversarial is None or adversarial.clean_steps,
        )

    def evaluation_job(self, model_id: str) -> EvaluationJob:
        """What the evaluation job of this model needs to know."""
        model, evaluation = self[model_id], self.config.evaluation
        protocol = self._protocols[model.section]
        return EvaluationJob(
            id=model.id,
            tasks=model.tasks,
            attacks=tuple(attacks_of(self.config, model.section, model.tasks, protocol)),
            samples=evaluation.samples,
            batch_size=evaluation.batch_size,
            error_pixels=protocol["error_pixels"],
            miou=protocol["miou"],
            loss_pixels=protocol["loss_pixels"],
            class_weights=protocol["class_weights"],
            precision="float32",
            seed=derive_seed(self.config.study.seed, "attacks"),
            curvature=protocol["curvature"],
            depth=protocol["depth"],
            normals=protocol["normals"],
            baseline=protocol["baseline"],
            gradients=evaluation.gradients,
        )

    @cached_property
    def pictured(self) -> dict[str, EvaluationJob]:
        """The models of `report.models` that the plan has, and their jobs: the attack that tables show on the most
        tasks, on a few test images. A model that is not attacked so has none."""
        analysis, wanted = self.config.analysis, self.config.report
        shown = (analysis.family, analysis.norm, analysis.epsilon, analysis.steps)
        found = {}
        for model in self.models:
            if model.id in wanted.models:
                job = self.evaluation_job(model.id)
                fits = [one for one in job.attacks if (one.family, one.norm, one.epsilon, one.steps) == shown]
                if fits:
                    attack = max(fits, key=lambda one: len(one.attacked))
                    found[model.id] = replace(job, attacks=(attack,), samples=wanted.images, gradients=False)
        return found


def _protocol_of(config: Config, section: str) -> dict[str, Any]:
    """Every switch with its value for the models of one section."""
    own, common = config.sections[section].protocol, config.protocol.resolved()
    return common if own is None else own.over(common)


def _switches(config: Config, section: str) -> dict[str, Any]:
    """The switches by which a section departs from the study's protocol."""
    common = config.protocol.resolved()
    own = _protocol_of(config, section)
    return {key: own[key] for key in sorted(own) if key != "preset" and own[key] != common[key]}


def rows(models: Sequence[ModelSpec]) -> list[dict[str, Any]]:
    """The rows of plan.csv, by the names in COLUMNS."""
    return [
        {
            **{key: getattr(model, key) for key in COLUMNS},
            "weights": ";".join(f"{w:g}" for w in model.weights),
            "layout": "" if model.layout is None else str(model.layout),
        }
        for model in models
    ]


def plan_settings(config: Config) -> dict[str, Any]:
    """The part of the configuration that decides which models there are, as plain data."""
    return {
        "seed": config.study.seed,
        "tasks": config.tasks,
        "epochs": config.training.epochs,
        "sections": {
            name: {**section.model_dump(), "protocol": _switches(config, name)}
            for name, section in config.sections.items()
        },
        "lambdas": config.lambdas,
    }


def models_of(settings: Mapping[str, Any]) -> tuple[ModelSpec, ...]:
    """Every model of a plan, from `plan_settings`: those trained or measured otherwise, then checkpoints of them.

    What a model is trained from does not depend on the order of the sections: overlays and config files merge in
    different orders. Raises ConfigError for a checkpoint of a model that no section trains, and for a pair without a
    weight in `lambdas`.
    """
    sections = settings["sections"]
    specs = [
        _model(settings, name, section, encoder, tasks, layout)
        for name, section in sections.items()
        for encoder in section["encoders"]
        for tasks in _task_sets(section, settings["tasks"])
        for layout in _layouts(section, encoder)
    ]
    runs: dict[tuple[object, ...], ModelSpec] = {}
    settled: dict[str, ModelSpec] = {}
    for spec in sorted(specs, key=lambda spec: (spec.switches != "", spec.section)):
        section = sections[spec.section]
        if section["share_of_epochs"] == 1:
            settled[spec.id] = _as_variant(spec, section, runs) if spec.switches else spec
            if settled[spec.id].run == spec.id:
                runs.setdefault(_problem(spec, section), settled[spec.id])
    trained = [settled[spec.id] for spec in specs if spec.id in settled]
    found = [_checkpoint_of(spec, sections[spec.section], runs) for spec in specs if spec.id not in settled]
    return (*trained, *found)


def _problem(spec: ModelSpec, section: Mapping[str, Any]) -> tuple[object, ...]:
    """What two models have in common that are trained alike, but for their seeds.

    Of the switches by which a section departs from the study, those count that training reads, or the attack that it
    trains against.
    """
    attack = section["adversarial"]
    read = {*TrainingJob.__dataclass_fields__, *(attack_decided_by(attack) if attack else ())}
    switches = tuple((key, value) for key, value in sorted(section["protocol"].items()) if key in read)
    return spec.encoder, spec.tasks, spec.weights, spec.layout, settings_json(attack_read(attack)), switches


def _as_variant(spec: ModelSpec, section: Mapping[str, Any], runs: Mapping[tuple[object, ...], ModelSpec]) -> ModelSpec:
    """A model that departs from the protocol: the weights of the run that trains it, if another section does; else its
    own run, from the seed of the model it is compared with, so that only the switch makes a difference."""
    same = runs.get(_problem(spec, section))
    if same is not None:
        return replace(spec, run=same.id, seed=same.seed)
    base = runs.get(_problem(spec, {**section, "protocol": {}}))
    return spec if base is None else replace(spec, seed=base.seed)


def _layouts(section: Mapping[str, Any], encoder: str) -> Sequence[int | None]:
    if encoder not in BRANCHED:
        return [None]
    return section["layouts"] or [0]


def _model(
    settings: Mapping[str, Any], name: str, section: Mapping[str, Any], encoder: str, tasks: str, layout: int | None
) -> ModelSpec:
    model_id = f"{name}-{encoder}-{file_safe(tasks)}" + ("" if layout is None else f"-{layout}")
    return ModelSpec(
        id=model_id,
        section=name,
        encoder=encoder,
        main=tasks[0],
        auxiliary=tasks[1:],
        weights=_weights(section["weights"], tasks, settings["lambdas"]),
        epochs=max(1, round(section["share_of_epochs"] * settings["epochs"])),
        seed=derive_seed(settings["seed"], "model", model_id),
        run=model_id,
        reference=section["reference"],
        layout=layout,
        adversarial=adversarial_text(section["adversarial"]),
        switches=";".join(f"{key}={str(value).lower()}" for key, value in section["protocol"].items()),
    )


def _checkpoint_of(
    spec: ModelSpec, section: Mapping[str, Any], runs: Mapping[tuple[object, ...], ModelSpec]
) -> ModelSpec:
    run = runs.get(_problem(spec, section))
    if run is None:
        raise ConfigError(
            f"config: plan.{spec.section}: a checkpoint of {spec.encoder} on {spec.tasks!r} after {spec.epochs} epochs "
            "needs a section that trains that model to the end; add one, or remove this set"
        )
    return replace(spec, run=run.id, seed=run.seed, early=True)


def _task_sets(section: Mapping[str, Any], tasks: str) -> Iterator[str]:
    letters = in_order(section["tasks"] or tasks)
    for size in sorted(set(section["sizes"])):
        if not section["ordered"]:
            yield from map("".join, itertools.combinations(letters, size))
            continue
        # Only the main task's place matters: (main, {auxiliaries}) is one model whatever the order of the latter.
        for main in letters:
            for others in itertools.combinations(letters.replace(main, ""), size - 1):
                yield "".join((main, *others))


def _weights(kind: str, tasks: str, lambdas: Mapping[str, Mapping[str, float]]) -> tuple[float, ...]:
    if kind == "uniform" or len(tasks) == 1:
        return (1 / len(tasks),) * len(tasks)
    main, auxiliary = tasks[0], tasks[1]
    found = lambdas.get(main, {}).get(auxiliary, lambdas.get("default", {}).get(auxiliary))
    if found is None:
        raise ConfigError(
            f"config: lambdas: no weight for main {main!r}, auxiliary {auxiliary!r}; give lambdas.{main}.{auxiliary}"
        )
    return (1.0, found)
