"""Typed configuration: what config.yaml and the overlays in studies/ may say.

The models below are the single source: `config.schema.json` is generated from them. `configfiles` reads and merges the
files and answers any mistake in one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from headstrong.tasks import TASKS

ENCODERS = ("resnet18", "resnet50", "resnet152", "wide_resnet50_2", "xception")
SIZE_STEP = 32  # the encoders halve the image five times

Share = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Encoder = Literal["resnet18", "resnet50", "resnet152", "wide_resnet50_2", "xception"]

# What each data set has labels for. Every source of the spine gives all eleven tasks.
TASKS_OF_SOURCE = {"rooms": "".join(TASKS), "nyuv2": "".join(TASKS)}


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StudyConfig(Section):
    """Names the study: results go to `results/<name>` or `results/<name>-<variant>`."""

    name: Name = Field(description="Name of the study, and of its folder in results/.")
    variant: str = Field(
        "", pattern=r"^([a-z0-9][a-z0-9-]*)?$", description="Added to the name by an overlay such as tiny."
    )
    seed: int = Field(0, ge=0, description="Every random draw of the study derives from it.")


class DataConfig(Section):
    """The images and labels."""

    source: Literal["rooms", "nyuv2"] = Field(description="rooms: embedded, ray-cast. nyuv2: real photographs.")
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = Field(
        description=f"Height and width in pixels, multiples of {SIZE_STEP}."
    )
    train: PositiveInt | None = Field(description="Training images; null: all the data set has (not for rooms).")
    test: PositiveInt | None = Field(description="Test images; null: all the data set has (not for rooms).")
    antialias: Annotated[int, Field(ge=1, le=4)] = Field(
        1, description="rooms: rays per pixel side for the colour image."
    )
    classes: Literal[13, 40] = Field(13, description="nyuv2: number of segmentation classes.")

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for side in self.size:
            if side % SIZE_STEP:
                raise ValueError(f"size {self.size}: both sides must be multiples of {SIZE_STEP}")
        if self.source == "rooms" and (self.train is None or self.test is None):
            raise ValueError("rooms makes any number of images: train and test must be numbers, not null")
        return self


class SectionConfig(Section):
    """One section of the plan: every set of `sizes` tasks, on every encoder."""

    encoders: Annotated[list[Encoder], Field(min_length=1)] = Field(description="Encoders.")
    tasks: str | None = Field(None, description="Letters to combine; null: the study's `tasks`.")
    sizes: Annotated[list[PositiveInt], Field(min_length=1)] = Field(description="Sizes of the task sets.")
    ordered: bool = Field(False, description="true: (main, auxiliary) and (auxiliary, main) are two models.")
    weights: Literal["uniform", "lambda"] = Field(
        "uniform", description="uniform: 1/T each. lambda: main 1, auxiliary `lambdas`."
    )
    share_of_epochs: Share = Field(
        1.0, description="Below 1: checkpoints of the full runs after this share of the epochs."
    )
    reference: bool = Field(False, description="true: models to compare with, not counted among the multi-task models.")

    @model_validator(mode="after")
    def _check(self) -> SectionConfig:
        if self.tasks is not None:
            _check_letters(self.tasks, "tasks")
        if self.weights == "lambda" and max(self.sizes) > 2:
            raise ValueError("weights: lambda is defined for one main and one auxiliary task; sizes may be 1 and 2")
        return self


class ModelConfig(Section):
    """The networks."""

    width: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on every channel count; 1: the published networks."
    )


class TrainingConfig(Section):
    """How one model is trained; optimiser, order and loss details are switches of the protocol."""

    epochs: PositiveInt = Field(description="Passes over the training images.")
    batch_size: PositiveInt = Field(description="Images in a step.")
    learning_rate: PositiveFloat | None = Field(
        None, description="null: the protocol's, 0.001 for Adam and 0.01 for SGD."
    )
    milestones: list[Share] | None = Field(
        None, description="Shares of the epochs after which the learning rate falls tenfold; null: the protocol's."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU that has it, else float32."
    )


class AttackConfig(Section):
    """One family of attacks: every combination of the lists."""

    stepper: Literal["fgsm", "ifgsm", "pgd", "noise"] = Field(
        description="How the image moves. noise: no gradient, the control."
    )
    balancer: Annotated[list[Literal["single", "total"]], Field(min_length=1)] = Field(
        description="single: one attack per task of the model. total: one attack on all of them, their losses summed."
    )
    norm: Annotated[list[Literal["linf", "l2"]], Field(min_length=1)] = Field(["linf"], description="Norm of the ball.")
    epsilon: Annotated[list[float], Field(min_length=1)] = Field(
        description="Radii; images live in [0, 1], so 8/255 is 0.03137254901960784. linf: at most 1."
    )
    step_size: PositiveFloat | None = Field(None, description="Step in the same unit; null: epsilon / 4.")
    steps: Annotated[list[PositiveInt], Field(min_length=1)] = Field([1], description="Numbers of steps.")
    restarts: PositiveInt = Field(1, description="Random starts; the worst per image counts.")
    start: Literal["clean", "uniform", "corner"] | None = Field(None, description="null: the protocol's.")
    chains: bool = Field(
        False, description="true: also attack the nested sets of `chains`, on models that have all their tasks."
    )

    @model_validator(mode="after")
    def _check(self) -> AttackConfig:
        for epsilon in self.epsilon:
            if epsilon < 0:
                raise ValueError(f"epsilon {epsilon}: must not be negative")
            if epsilon > 1 and "linf" in self.norm:
                raise ValueError(
                    f"epsilon {epsilon}: images live in [0, 1]; {epsilon:g}/255 is written {epsilon / 255:.6g}"
                )
        return self


class EvaluationConfig(Section):
    """What is attacked."""

    samples: PositiveInt | None = Field(None, description="The first so many test images; null: all.")
    batch_size: PositiveInt = Field(32, description="Images attacked together; does not change their attacks.")


class ProtocolConfig(Section):
    """Where paper, released code and common sense differ. A switch set to null follows the preset."""

    preset: Literal["published", "released", "corrected"] = Field(
        "corrected",
        description="published: as the paper says. released: as its code does. corrected: a careful reader's choice.",
    )
    start: Literal["clean", "uniform", "corner"] | None = Field(None, description="Where PGD starts.")
    aggregation: Literal["ratio_of_means", "mean_of_ratios"] | None = Field(
        None, description="Relative task vulnerability over samples."
    )
    adversarial_vulnerability: Literal["definition", "released"] | None = Field(
        None,
        description="definition: mean of |change|, attacked tasks. released: |mean change|, all tasks of the model.",
    )
    optimizer: Literal["adam", "sgd"] | None = Field(None, description="Optimiser, with its own schedule.")
    shuffle: bool | None = Field(None, description="Shuffle the training images every epoch.")
    loss_pixels: Literal["all", "valid"] | None = Field(None, description="Pixels in the denominator of a masked loss.")
    error_pixels: Literal["all", "valid"] | None = Field(None, description="Pixels over which errors are taken.")
    miou: Literal["all", "labelled"] | None = Field(
        None, description="Whether unlabelled pixels count in the mIoU, as class 0."
    )
    class_weights: Literal["uniform", "prior"] | None = Field(None, description="Class weights of the cross-entropy.")
    output_start: Literal["random", "mean"] | None = Field(
        None, description="What a network predicts before training: random numbers, or the training mean."
    )

    def resolved(self) -> dict[str, Any]:
        """Every switch with its value, nulls replaced by the preset's."""
        given = {key: value for key, value in self.model_dump().items() if value is not None}
        return {"preset": self.preset, **PRESETS[self.preset], **given}


PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "start": "uniform",
        "aggregation": "mean_of_ratios",
        "adversarial_vulnerability": "definition",
        "optimizer": "sgd",
        "shuffle": True,
        "loss_pixels": "all",
        "error_pixels": "all",
        "miou": "labelled",
        "class_weights": "uniform",
        "output_start": "random",
    },
    "released": {
        "start": "corner",
        "aggregation": "ratio_of_means",
        "adversarial_vulnerability": "released",
        "optimizer": "adam",
        "shuffle": False,
        "loss_pixels": "all",
        "error_pixels": "all",
        "miou": "all",
        "class_weights": "prior",
        "output_start": "random",
    },
    "corrected": {
        "start": "uniform",
        "aggregation": "ratio_of_means",
        "adversarial_vulnerability": "definition",
        "optimizer": "adam",
        "shuffle": True,
        "loss_pixels": "valid",
        "error_pixels": "valid",
        "miou": "labelled",
        "class_weights": "uniform",
        "output_start": "mean",
    },
}


class AnalysisConfig(Section):
    """Which attack the tables show."""

    family: str = Field("pgd", description="Key in `attacks`.")
    norm: Literal["linf", "l2"] = Field("linf", description="Norm.")
    epsilon: float = Field(description="One of the family's radii.")
    steps: PositiveInt = Field(description="One of the family's numbers of steps.")
    bootstrap: PositiveInt = Field(2000, description="Bootstrap draws for confidence intervals.")


class FiguresConfig(Section):
    """How figures look; changing this redraws them and does nothing else."""

    formats: Annotated[list[Literal["png", "svg", "pdf"]], Field(min_length=1)] = Field(
        ["png", "svg"], description="File formats."
    )
    dpi: PositiveInt = Field(150, description="Dots per inch of PNG files.")
    width: PositiveFloat = Field(7.0, description="Width in inches.")


class Config(Section):
    """The whole configuration of a study."""

    study: StudyConfig
    data: DataConfig
    tasks: str = Field(description="Letters of the tasks studied, among s d D n k K e E p r A.")
    plan: dict[Name, SectionConfig | None] = Field(description="Sections of the plan; null removes one.")
    lambdas: dict[str, dict[str, PositiveFloat]] = Field(
        description="Weight of the auxiliary task, by main task and auxiliary; `default` by auxiliary alone."
    )
    chains: list[str] = Field(description="Orders in which tasks are attacked one after the other, as letters.")
    model: ModelConfig
    training: TrainingConfig
    attacks: dict[Name, AttackConfig | None] = Field(description="Families of attacks; null removes one.")
    evaluation: EvaluationConfig
    protocol: ProtocolConfig
    analysis: AnalysisConfig
    figures: FiguresConfig

    @property
    def study_id(self) -> str:
        """The name of the study's folder in results/."""
        return "-".join(part for part in (self.study.name, self.study.variant) if part)

    @property
    def sections(self) -> dict[str, SectionConfig]:
        """The sections of the plan that are not switched off."""
        return {name: section for name, section in self.plan.items() if section is not None}

    @property
    def attack_families(self) -> dict[str, AttackConfig]:
        """The families of attacks that are not switched off."""
        return {name: attack for name, attack in self.attacks.items() if attack is not None}


def _check_letters(letters: str, key: str) -> None:
    unknown = sorted(set(letters) - set(TASKS))
    if unknown:
        raise ValueError(f"{key} {letters!r}: {unknown[0]!r} is not a task; allowed: {' '.join(TASKS)}")
    if len(set(letters)) != len(letters) or not letters:
        raise ValueError(f"{key} {letters!r}: each task at most once, at least one")


def impossible(config: Config) -> list[tuple[tuple[str, ...], str]]:
    """Combinations that cannot be, as (key path, message)."""
    found = [*_letters_without_labels(config), *_restarts_without_draws(config), *_oversized_sets(config)]
    return found or _analysis_of_nothing(config)


def _letters_without_labels(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    available = TASKS_OF_SOURCE[config.data.source]
    named: list[tuple[tuple[str, ...], str]] = [(("tasks",), config.tasks)]
    named += [(("chains",), chain) for chain in config.chains]
    named += [(("plan", name, "tasks"), section.tasks or config.tasks) for name, section in config.sections.items()]
    for main, row in config.lambdas.items():
        named += [(("lambdas", main), main)] if main != "default" else []
        named += [(("lambdas", main, auxiliary), auxiliary) for auxiliary in row]
    for path, letters in named:
        try:
            _check_letters(letters, path[-1])
        except ValueError as error:
            yield path, str(error)
            continue
        missing = [letter for letter in letters if letter not in available]
        if missing:
            yield path, f"{config.data.source} has no labels for {missing[0]!r}; it has {' '.join(available)}"


def _oversized_sets(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, section in config.sections.items():
        letters = section.tasks or config.tasks
        if max(section.sizes) > len(letters):
            message = f"{max(section.sizes)} tasks of {letters!r}: there are {len(letters)}"
            yield ("plan", name, "sizes"), message


def _restarts_without_draws(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    start = config.protocol.resolved()["start"]
    for name, attack in config.attack_families.items():
        if attack.restarts > 1 and (attack.stepper != "pgd" or (attack.start or start) != "uniform"):
            yield ("attacks", name, "restarts"), f"{attack.restarts}: only pgd from a uniform start can restart"


def _analysis_of_nothing(config: Config) -> list[tuple[tuple[str, ...], str]]:
    analysis, families = config.analysis, config.attack_families
    family = families.get(analysis.family)
    if family is None:
        return [(("analysis", "family"), f"{analysis.family!r} is not among attacks: {', '.join(families) or 'none'}")]
    found: list[tuple[tuple[str, ...], str]] = []
    for key in ("norm", "epsilon", "steps"):
        wanted, configured = getattr(analysis, key), getattr(family, key)
        if wanted not in configured:
            message = f"{wanted} is not among attacks.{analysis.family}.{key}: {', '.join(map(str, configured))}"
            found.append((("analysis", key), message))
    return found


def schema() -> str:
    """The JSON schema of the configuration, as config.schema.json holds it."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"
