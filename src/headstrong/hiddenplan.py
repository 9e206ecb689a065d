"""What is made for attacks on hidden tasks: whose turn it is to be hidden, and the jobs that forget and attack.

Everything here is plain Python, so that the Snakefile can read it at every job.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headstrong import radius
from headstrong.attackplan import FROM_START, ONE_STEP, step_size
from headstrong.errors import ConfigError
from headstrong.jobs import AttackJob, ForgettingJob, HiddenAttackJob, HiddenJob, Tasks
from headstrong.scheduleconfig import schedule_of
from headstrong.seeds import derive_seed
from headstrong.tasks import file_safe, in_order

if TYPE_CHECKING:
    from headstrong.config import Config
    from headstrong.hiddenconfig import ForgettingConfig, HiddenConfig

PULLED = ("cf", "cf_delta", "disruption")  # by features
SIZES = ("linf", "l2")  # lie beside the tasks in an evaluation


@dataclass(frozen=True)
class Turn:
    """One task of a family that is hidden."""

    id: str
    family: str
    hidden: str


class HiddenPlan:
    """Every turn of a study's families of hidden tasks, in a fixed order.

    `dense_models` gives, by section of the plan, (id, tasks) of its only model, or None where it has none or several.
    Raises ConfigError where a family has fewer than two tasks, hides one that it has not, has one called
    "linf" or "l2", or is about a section without exactly one model; also for two ids that differ in capitals only.
    """

    def __init__(self, config: Config, dense_models: Mapping[str, tuple[str, str] | None]) -> None:
        self.config, self._dense = config, dense_models
        self.turns = tuple(turn for name in config.hidden_families for turn in self._turns(name))
        self._turns_by_id = {turn.id: turn for turn in self.turns}
        jobs = [self._forgetting(turn, access) for turn in self.turns for access in self._settings(turn.family).access]
        self.forgettings = tuple(jobs)
        self._forgettings = {job.id: job for job in jobs}
        self._families = {
            self.forgetting_id(turn, access): turn.family
            for turn in self.turns
            for access in self._settings(turn.family).access
        }
        for made in (self.turns, self.forgettings):
            ids = [one.id.casefold() for one in made]
            twice = next((one for one in ids if ids.count(one) > 1), None)
            if twice is not None:
                raise ConfigError(f"config: hidden: two would both be {twice!r}; rename a family or a task")

    def turn(self, turn_id: str) -> Turn:
        """The turn of an id."""
        return self._turns_by_id[turn_id]

    def of_family(self, family: str) -> tuple[Turn, ...]:
        """The turns of a family."""
        return tuple(turn for turn in self.turns if turn.family == family)

    def family_of_forgetting(self, forgetting_id: str) -> str:
        """The family that a forgetful copy is of."""
        return self._families[forgetting_id]

    def forgetting_job(self, forgetting_id: str) -> ForgettingJob:
        """What the job of this forgetful copy needs to know."""
        return self._forgettings[forgetting_id]

    def forgetting_id(self, turn: Turn, access: str) -> str:
        """The forgetful copy of a turn and an access."""
        return f"{turn.id}-{access}"

    def accesses(self, family: str) -> tuple[str, ...]:
        """What attackers of a family have, one kind of them after the other."""
        return tuple(self._settings(family).access)

    def classifier(self, family: str) -> str | None:
        """Id of the classifier that a family is about; None of a dense one."""
        settings = self._settings(family)
        if settings.classifiers is None:
            return None
        chosen = self.config.classifier_families[settings.classifiers]
        return f"{settings.classifiers}-{chosen.backbone}-{self.pictures(family)[1]}"

    def model(self, family: str) -> str:
        """Id of the dense model that a family is about."""
        return self._dense_model(family)[0]

    def pictures(self, family: str) -> tuple[str, str]:
        """The set of pictures of a family of a classifier, and the domain of it."""
        settings = self._settings(family)
        name = self.config.classifier_families[settings.classifiers or ""].pictures
        return name, settings.domain or self.config.picture_sets[name].domains[0]

    def tasks(self, family: str) -> Tasks:
        """The tasks of a family, with the labels or the letter of each."""
        settings = self._settings(family)
        if settings.classifiers is None:
            return tuple((letter, (letter,)) for letter in in_order(self._dense_model(family)[1]))
        known = self.config.labels_of(settings.classifiers)
        chosen = {label: [label] for label in known} if settings.tasks is None else settings.tasks
        tasks = ((task, tuple(sorted(labels, key=known.index))) for task, labels in chosen.items())
        return tuple(sorted(tasks, key=lambda task: known.index(task[1][0])))

    def hidden_job(self, turn_id: str) -> HiddenJob:
        """What the evaluation of this turn needs to know."""
        turn = self._turns_by_id[turn_id]
        settings, protocol = self._settings(turn.family), self._protocol(turn.family)
        if self._kind(turn.family) == "classes":  # of which these change nothing
            protocol |= {"error_pixels": "valid", "miou": "labelled"}
        return HiddenJob(
            family=turn.family,
            kind=self._kind(turn.family),
            hidden=turn.hidden,
            tasks=self.tasks(turn.family),
            accesses=self.accesses(turn.family),
            attacks=tuple(self._attacks(turn)),
            samples=settings.samples,
            batch_size=self.config.evaluation.batch_size,
            error_pixels=protocol["error_pixels"],
            miou=protocol["miou"],
            seed=derive_seed(self.config.study.seed, "hidden"),
        )

    def _settings(self, family: str) -> HiddenConfig:
        return self.config.hidden_families[family]

    def _kind(self, family: str) -> str:
        return "dense" if self._settings(family).classifiers is None else "classes"

    def _dense_model(self, family: str) -> tuple[str, str]:
        section = self._settings(family).section or ""
        found = self._dense.get(section)
        if found is None:
            raise ConfigError(
                f"config: plan.{section}: must give exactly one model, for hidden.{family} hides its tasks"
            )
        return found

    def _protocol(self, family: str) -> dict[str, Any]:
        """Every switch with its value for a family: its own, else its section's, else the study's."""
        settings = self._settings(family)
        return self.config.switches(settings.section, settings.protocol)

    def _turns(self, family: str) -> Iterator[Turn]:
        tasks = [task for task, _ in self.tasks(family)]
        if len(tasks) < 2:
            named = ", ".join(tasks)
            raise ConfigError(f"config: hidden.{family}: tasks {named}; one hidden and one visible are needed")
        chosen = self._settings(family).hide or tasks
        unknown = [task for task in chosen if task not in tasks]
        if unknown:
            raise ConfigError(f"config: hidden.{family}.hide: no task {unknown[0]!r}; there are {', '.join(tasks)}")
        sizes = [task for task in tasks if task in SIZES]
        if sizes:
            raise ConfigError(f"config: hidden.{family}: a task cannot be called {sizes[0]!r}; give it another name")
        letters = self._kind(family) == "dense"
        for task in chosen:
            yield Turn(f"{family}-{file_safe(task) if letters else task}", family, task)

    def _forgetting(self, turn: Turn, access: str) -> ForgettingJob:
        how: ForgettingConfig = self._settings(turn.family).forgetting
        own_heads = access == "backbone"
        return ForgettingJob(
            id=self.forgetting_id(turn, access),
            kind=self._kind(turn.family),
            hidden=turn.hidden,
            visible=tuple(task for task in self.tasks(turn.family) if task[0] != turn.hidden),
            access=access,
            layers=how.layers,
            train_heads=how.train_heads,
            probe_epochs=how.probe_epochs if own_heads else 0,
            probe_rate=how.probe_rate if own_heads else 0.0,
            epochs=how.epochs,
            curve=tuple(sorted({-(-point * how.epochs // how.curve) for point in range(1, how.curve + 1)})),
            batch_size=how.batch_size,
            **schedule_of(how, how.optimizer),
            precision=how.precision,
            samples=how.samples,
            # Not of the access: both see the same batches.
            seed=derive_seed(self.config.study.seed, "forgetting", turn.family, turn.hidden),
        )

    def _attacks(self, turn: Turn) -> Iterator[HiddenAttackJob]:
        settings = self._settings(turn.family)
        chosen, protocol = settings.attacks, self._protocol(turn.family)
        visible = tuple(task for task, _ in self.tasks(turn.family) if task != turn.hidden)
        sets: dict[str, list[tuple[str, ...]]] = {"dgba": [visible], "total": [visible], "oracle": [(turn.hidden,)]}
        sets["single"] = [(task,) for task in visible]
        for objective, norm, epsilon in itertools.product(chosen.objectives, chosen.norm, chosen.epsilon):
            method = _method(settings, objective, norm, epsilon, protocol)
            accesses: list[str] = [""] if objective in ("oracle", "noise") else list(settings.access)
            stealthy = objective in (*PULLED, "oracle")
            for access, stealth in itertools.product(accesses, chosen.stealth if stealthy else [0.0]):
                for attacked in sets.get(objective, [()]):
                    words = [objective, access, *(attacked if objective == "single" else ())]
                    words += [f"stealth{stealth:g}"] if stealthy else []
                    words += [norm, radius.in_name(epsilon)]
                    named = replace(method, name=".".join(word for word in words if word))
                    own = _pull(settings, objective, protocol)
                    yield HiddenAttackJob(objective, access, float(stealth), attacked, named, **own)


def _pull(settings: HiddenConfig, objective: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What an objective of features depends on; a switch that changes nothing of it is left out."""
    if objective not in PULLED:
        return {}
    found = {"distance": protocol["feature_distance"]}
    if objective != "disruption":
        found["direction"] = protocol["forgetting_direction"]
    if objective == "cf_delta":
        found["delta"] = protocol["cf_delta"]
        found |= {"reach": settings.attacks.reach} if protocol["cf_delta"] == "target" else {}
    return found


def _method(
    settings: HiddenConfig, objective: str, norm: str, epsilon: float, protocol: Mapping[str, Any]
) -> AttackJob:
    """Stepper, balancer and threat of an objective, still without a name."""
    chosen = settings.attacks
    stepper = "noise" if objective == "noise" else chosen.stepper
    steps = 1 if stepper in ONE_STEP else chosen.steps
    balancer = {"dgba": "dgba", "total": "total", "noise": "total"}.get(objective, "single")
    start = (chosen.start or protocol["start"]) if stepper in FROM_START else "clean"
    return AttackJob(
        name="",
        family="hidden",
        balancer=balancer,
        attacked="",
        stepper=stepper,
        norm=norm,
        epsilon=float(epsilon),
        step_size=float((None if stepper in ONE_STEP else chosen.step_size) or step_size(stepper, epsilon, steps)),
        steps=steps,
        start=start,
        restarts=chosen.restarts if stepper != "noise" and start == "uniform" else 1,
    )
