"""The plan: which models are trained and attacked, and the jobs that make them.

Everything here is plain Python, so that the Snakefile can read it at every job.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headstrong.errors import ConfigError
from headstrong.jobs import (  # noqa: F401
    AttackJob,
    EvaluationJob,
    TrainingJob,
    evaluation_job_from_dict,
    to_dict,
    training_job_from_dict,
)
from headstrong.seeds import derive_seed
from headstrong.tasks import file_safe, in_order

if TYPE_CHECKING:
    from headstrong.config import AttackConfig, Config

COLUMNS = ("id", "section", "encoder", "main", "auxiliary", "weights", "epochs", "seed")


@dataclass(frozen=True)
class ModelSpec:
    """One row of the plan.

    `weights` are the loss weights of main and auxiliary tasks, in the order of `tasks`; `run` is the id of the training
    run whose checkpoint at `epochs` this model is (its own id, unless the section stops early).
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

    @property
    def tasks(self) -> str:
        """Letters of all tasks, the main task first."""
        return self.main + self.auxiliary

    @property
    def early(self) -> bool:
        """True when the model is a checkpoint of a longer run."""
        return self.run != self.id


# Schedules as the protocol has them: learning rate, momentum, and the shares of the epochs after which the rate falls
# tenfold. Adam: released scripts (drops at 120 and 140 of 150). SGD: the paper's Appendix B (100, 120 and 140 of 150).
_SCHEDULES: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "adam": (1e-3, 0.0, (120 / 150, 140 / 150)),
    "sgd": (1e-2, 0.99, (100 / 150, 120 / 150, 140 / 150)),
}


class Plan:
    """Every model of a study, in a fixed order, and the jobs that make them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.models = models_of(plan_settings(config))
        self._by_id = {model.id: model for model in self.models}
        self._protocol = config.protocol.resolved()

    def __getitem__(self, model_id: str) -> ModelSpec:
        return self._by_id[model_id]

    @cached_property
    def runs(self) -> tuple[ModelSpec, ...]:
        """The models that are trained; the others are checkpoints of these."""
        return tuple(model for model in self.models if not model.early)

    @cached_property
    def runs_with_snapshots(self) -> frozenset[str]:
        """Ids of the runs of which some model is an earlier checkpoint."""
        return frozenset(model.run for model in self.models if model.early)

    @cached_property
    def snapshot_epochs(self) -> tuple[int, ...]:
        """Epochs at which those runs keep their weights as well: the same for all, as a rule's outputs are."""
        return tuple(sorted({model.epochs for model in self.models if model.early}))

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
        """What the cache of one split ("train" or "test") depends on."""
        data = self.config.data
        own = (
            {"antialias": data.antialias, "seed": self.config.study.seed}
            if data.source == "rooms"
            else {"classes": data.classes}
        )
        return {"source": data.source, "split": split, "size": list(data.size), "count": getattr(data, split), **own}

    def training_job(self, run: str) -> TrainingJob:
        """What the training job of this run needs to know."""
        model, training, protocol = self[run], self.config.training, self._protocol
        rate, momentum, shares = _SCHEDULES[protocol["optimizer"]]
        shares = shares if training.milestones is None else tuple(training.milestones)
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
            optimizer=protocol["optimizer"],
            learning_rate=rate if training.learning_rate is None else training.learning_rate,
            momentum=momentum,
            weight_decay=0.0,
            milestones=tuple(sorted({round(share * model.epochs) for share in shares})),
            decay=0.1,
            precision=training.precision,
            loss_pixels=protocol["loss_pixels"],
            class_weights=protocol["class_weights"],
            output_start=protocol["output_start"],
            seed=model.seed,
        )

    def evaluation_job(self, model_id: str) -> EvaluationJob:
        """What the evaluation job of this model needs to know."""
        model, evaluation, protocol = self[model_id], self.config.evaluation, self._protocol
        return EvaluationJob(
            id=model.id,
            tasks=model.tasks,
            attacks=tuple(self.attacks(model.tasks)),
            samples=evaluation.samples,
            batch_size=evaluation.batch_size,
            error_pixels=protocol["error_pixels"],
            miou=protocol["miou"],
            loss_pixels=protocol["loss_pixels"],
            class_weights=protocol["class_weights"],
            precision="float32",
            seed=derive_seed(self.config.study.seed, "attacks"),
        )

    def attacks(self, tasks: str) -> Iterator[AttackJob]:
        """Every attack on a model of these tasks."""
        for family, attack in self.config.attack_families.items():
            sets = list(_attacked_sets(attack, tasks, self.config.chains))
            for (balancer, attacked), norm, epsilon, steps in itertools.product(
                sets, attack.norm, attack.epsilon, attack.steps
            ):
                yield self._attack(family, attack, balancer, attacked, norm, epsilon, steps)

    def _attack(
        self, family: str, attack: AttackConfig, balancer: str, attacked: str, norm: str, epsilon: float, steps: int
    ) -> AttackJob:
        one_step = attack.stepper in ("fgsm", "noise")
        from_clean = attack.stepper in ("fgsm", "ifgsm")
        steps = 1 if one_step else steps
        return AttackJob(
            name=f"{family}.{balancer}.{attacked}.{norm}.{epsilon * 255:g}.{steps}",
            family=family,
            balancer=balancer,
            attacked=attacked,
            stepper=attack.stepper,
            norm=norm,
            epsilon=epsilon,
            step_size=epsilon if one_step else (attack.step_size or epsilon / 4),
            steps=steps,
            start="clean" if from_clean else (attack.start or self._protocol["start"]),
            restarts=attack.restarts,
        )


def _attacked_sets(attack: AttackConfig, tasks: str, chains: list[str]) -> Iterator[tuple[str, str]]:
    """(balancer, letters) of every attack of a family; a set of one task is a single attack, and comes once."""
    seen: set[tuple[str, str]] = set()

    def fresh(balancer: str, letters: str) -> Iterator[tuple[str, str]]:
        key = ("single" if len(letters) == 1 and "single" in attack.balancer else balancer, letters)
        if key not in seen:
            seen.add(key)
            yield key

    for balancer in attack.balancer:
        for letters in tasks if balancer == "single" else [in_order(tasks)]:
            yield from fresh(balancer, letters)
    if attack.chains and "total" in attack.balancer:
        for chain in chains:
            if set(chain) <= set(tasks):
                for length in range(1, len(chain) + 1):
                    yield from fresh("total", in_order(chain[:length]))


def rows(models: Sequence[ModelSpec]) -> list[dict[str, Any]]:
    """The rows of plan.csv, by the names in COLUMNS."""
    return [
        {**{key: getattr(model, key) for key in COLUMNS}, "weights": ";".join(f"{w:g}" for w in model.weights)}
        for model in models
    ]


def plan_settings(config: Config) -> dict[str, Any]:
    """The part of the configuration that decides which models there are, as plain data."""
    return {
        "seed": config.study.seed,
        "tasks": config.tasks,
        "epochs": config.training.epochs,
        "sections": {name: section.model_dump() for name, section in config.sections.items()},
        "lambdas": config.lambdas,
    }


def models_of(settings: Mapping[str, Any]) -> tuple[ModelSpec, ...]:
    """Every model of a plan, from `plan_settings`: trained models in the order of their sections, then checkpoints."""
    specs = [
        _model(settings, name, section, encoder, tasks)
        for name, section in settings["sections"].items()
        for encoder in section["encoders"]
        for tasks in _task_sets(section, settings["tasks"])
    ]
    trained = [spec for spec in specs if settings["sections"][spec.section]["share_of_epochs"] == 1]
    runs: dict[tuple[object, ...], ModelSpec] = {}
    for spec in trained:
        runs.setdefault((spec.encoder, spec.tasks, spec.weights), spec)
    checkpoints = [
        _checkpoint_of(spec, runs) for spec in specs if settings["sections"][spec.section]["share_of_epochs"] < 1
    ]
    return (*trained, *checkpoints)


def _model(settings: Mapping[str, Any], name: str, section: Mapping[str, Any], encoder: str, tasks: str) -> ModelSpec:
    model_id = f"{name}-{encoder}-{file_safe(tasks)}"
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
    )


def _checkpoint_of(spec: ModelSpec, runs: Mapping[tuple[object, ...], ModelSpec]) -> ModelSpec:
    run = runs.get((spec.encoder, spec.tasks, spec.weights))
    if run is None:
        raise ConfigError(
            f"config: plan.{spec.section}: a checkpoint of {spec.encoder} on {spec.tasks!r} after {spec.epochs} epochs "
            "needs a section that trains that model to the end; add one, or remove this set"
        )
    return replace(spec, run=run.id, seed=run.seed)


def _task_sets(section: Mapping[str, Any], tasks: str) -> Iterator[str]:
    letters = in_order(section["tasks"] or tasks)
    pick = itertools.permutations if section["ordered"] else itertools.combinations
    for size in sorted(set(section["sizes"])):
        for chosen in pick(letters, size):
            # Only the main task's place matters: (main, {auxiliaries}) is one model whatever the order of the latter.
            if list(chosen[1:]) == sorted(chosen[1:], key=letters.index):
                yield "".join(chosen)


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
