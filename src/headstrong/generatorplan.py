"""What is made for generated perturbations: pictures, classifiers, generators, and the jobs that make them.

Everything here is plain Python, so that the Snakefile can read it at every job.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstrong import radius
from headstrong.errors import ConfigError
from headstrong.jobs import ClassifierJob, GeneratedJob, GeneratorJob
from headstrong.pictureconfig import TESTS_CHOSEN, classifier_job
from headstrong.scheduleconfig import schedule_of
from headstrong.seeds import derive_seed

if TYPE_CHECKING:
    from headstrong.config import Config
    from headstrong.generatorconfig import GeneratorsConfig
    from headstrong.pictureconfig import PicturesConfig


@dataclass(frozen=True)
class ClassifierSpec:
    """One classifier: its family, the set of pictures, and the domain of it that it is trained on."""

    id: str
    family: str
    pictures: str
    domain: str


@dataclass(frozen=True)
class Victim:
    """What a task's perturbation is trained to fool or tried on: a classifier, or a dense model of the plan."""

    name: str  # of the victims: the family of classifiers, or the section of the plan
    task: str
    classifier: str | None  # id
    model: str | None  # id


class GeneratorPlan:
    """Every picture cache, classifier and generator of a study, in a fixed order.

    `dense_models` gives, by section of the plan, (id, tasks) of its only model, or None where it has none or several.
    Raises ConfigError for victims that cannot be (`victims`) and for two ids that differ in no more than capitals.
    """

    def __init__(self, config: Config, dense_models: Mapping[str, tuple[str, str] | None]) -> None:
        self.config, self._dense = config, dense_models
        self.classifiers = tuple(_classifiers(config))
        self.generators = tuple(job for name in config.generator_families for job in self._jobs(name))
        for name in config.generator_families:
            self.victims(name, transfer=True)  # says what cannot be
        self._classifiers = {spec.id: spec for spec in self.classifiers}
        self._generators = {job.id: job for job in self.generators}
        for made in (self.classifiers, self.generators):
            ids = [one.id.casefold() for one in made]
            twice = next((one for one in ids if ids.count(one) > 1), None)
            if twice is not None:
                raise ConfigError(f"config: two classifiers or generators would both be {twice!r}; rename a family")

    def classifier(self, classifier_id: str) -> ClassifierSpec:
        """The classifier of an id."""
        return self._classifiers[classifier_id]

    def generator_job(self, generator_id: str) -> GeneratorJob:
        """What the training job of these generators needs to know."""
        return self._generators[generator_id]

    def picture_settings(self, pictures: str, domain: str, split: str) -> dict[str, Any]:
        """What the cache of one domain and split depends on."""
        chosen = self.config.picture_sets[pictures]
        return {
            "source": chosen.source,
            "domain": domain,
            "split": split,
            "size": list(chosen.size),
            "count": getattr(chosen, split),
            "seed": derive_seed(self.config.study.seed, "pictures", pictures),
            **_source_settings(chosen, split),
        }

    def classifier_job(self, classifier_id: str) -> ClassifierJob:
        """What the training job of this classifier needs to know."""
        spec = self._classifiers[classifier_id]
        family = self.config.classifier_families[spec.family]
        seed = derive_seed(self.config.study.seed, "classifier", spec.id)
        return classifier_job(family, spec.id, self.config.labels_of(spec.family), seed)

    def victims(self, family: str, transfer: bool = False) -> tuple[Victim, ...]:
        """The victims of a family of generators, in the order of its tasks; `transfer`: those it is tried on too.

        Raises ConfigError where a section of the plan has not one model, or models differ in their tasks.
        """
        settings = self.config.generator_families[family]
        of_name = self._classes if settings.classifiers else self._outputs
        own = list(of_name(settings.classifiers or settings.section or ""))
        found = list(own)
        for name in settings.transfer if transfer else ():
            others = list(of_name(name))
            if {victim.task for victim in others} != {victim.task for victim in own}:
                raise ConfigError(f"config: generators.{family}.transfer: {name} has other tasks than the victims")
            found += others
        return tuple(found)

    def family_job(self, family: str) -> GeneratedJob:
        """What the evaluation job of this family needs to know."""
        settings, evaluation = self.config.generator_families[family], self.config.evaluation
        protocol = self._protocol(settings)
        own = self.victims(family)
        return GeneratedJob(
            family=family,
            kind="classes" if settings.classifiers else "dense",
            tasks=tuple(victim.task for victim in own),
            label=self._label(settings),
            victims=own[0].name,
            transfer=tuple(settings.transfer),
            generators=tuple(job for job in self.generators if job.family == family),
            samples=settings.samples,
            batch_size=evaluation.batch_size,
            examples=settings.examples,
            error_pixels="valid"
            if settings.classifiers
            else protocol["error_pixels"],  # of classes they change nothing
            miou="labelled" if settings.classifiers else protocol["miou"],
            seed=derive_seed(self.config.study.seed, "generated"),
        )

    def pictures_of(self, family: str) -> str | None:
        """The set of pictures that a family's tasks are the domains of; None for a dense model's images."""
        name = self.config.generator_families[family].classifiers
        return None if name is None else self.config.classifier_families[name].pictures

    def _classes(self, name: str) -> Iterator[Victim]:
        for spec in self.classifiers:
            if spec.family == name:
                yield Victim(name, spec.domain, spec.id, None)

    def _outputs(self, name: str) -> Iterator[Victim]:
        found = self._dense.get(name)
        if found is None:
            raise ConfigError(f"config: plan.{name}: must give exactly one model, for generators attack its tasks")
        for letter in found[1]:
            yield Victim(name, letter, None, found[0])

    def _label(self, settings: GeneratorsConfig) -> str:
        if settings.classifiers is None:
            return ""
        return settings.label or self.config.classifier_families[settings.classifiers].labels[0]

    def _protocol(self, settings: GeneratorsConfig) -> dict[str, Any]:
        """Every switch with its value for a family: its own, else its victim's section's, else the study's."""
        return self.config.switches(settings.section, settings.protocol)

    def _jobs(self, family: str) -> Iterator[GeneratorJob]:
        settings = self.config.generator_families[family]
        protocol, training = self._protocol(settings), settings.training
        tasks = tuple(victim.task for victim in self.victims(family))
        for method, mode, goal, norm, epsilon in itertools.product(
            settings.methods, settings.modes, settings.goals, settings.norm, settings.epsilon
        ):
            yield GeneratorJob(
                id=f"{family}-{method}-{mode}-{goal}-{norm}-{radius.in_name(epsilon)}",
                family=family,
                kind="classes" if settings.classifiers else "dense",
                method=method,
                mode=mode,
                goal=goal,
                norm=norm,
                epsilon=float(epsilon),
                tasks=tasks,
                label=self._label(settings),
                targets=_targets(settings.target, tasks) if goal == "targeted" else (),
                filters=settings.filters,
                blocks=getattr(settings.blocks, mode),
                normalization=settings.normalization,
                activation=settings.activation,
                dropout=settings.dropout,
                scaling=protocol["perturbation_scale"],
                log_mean=protocol["log_mean"],
                untargeted_loss=protocol["untargeted_loss"],
                weights=settings.weights,
                epochs=training.epochs,
                batch_size=training.batch_size,
                **schedule_of(training, training.optimizer),
                precision=training.precision,
                samples=training.samples,
                shared_input=settings.section is not None,
                # Not of the method: GAP and MTA see the same pattern and the same order of images.
                seed=derive_seed(self.config.study.seed, "generator", family),
            )


def _classifiers(config: Config) -> Iterator[ClassifierSpec]:
    for name, family in config.classifier_families.items():
        for domain in config.picture_sets[family.pictures].domains:
            yield ClassifierSpec(f"{name}-{family.backbone}-{domain}", name, family.pictures, domain)


def _source_settings(pictures: PicturesConfig, split: str) -> dict[str, Any]:
    """What a source is told beside size, count and seed; what changes nothing is left out."""
    if pictures.source == "objects":
        return {}
    found: dict[str, Any] = {"domains": sorted(pictures.domains)}
    if pictures.source in TESTS_CHOSEN:
        found["test_share"] = pictures.test_share
    if pictures.source == "folder":
        found["folder"] = pictures.folder
    if pictures.validation_share is not None and split != "test":  # held out of the training pictures
        found["validation_share"] = pictures.validation_share
    if pictures.on_bad_image != "fail":
        found["on_bad_image"] = pictures.on_bad_image
    return found


def _targets(target: str | list[str] | None, tasks: tuple[str, ...]) -> tuple[str, ...]:
    return (target,) * len(tasks) if isinstance(target, str) else tuple(target or ())
