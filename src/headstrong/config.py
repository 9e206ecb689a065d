"""Typed configuration: what config.yaml and the overlays in studies/ may say.

The models below are the single source: `config.schema.json` is generated from them. `configfiles` reads and merges the
files and answers any mistake in one line.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from headstrong.attackconfig import (
    AdversarialConfig,
    AttackConfig,
    Name,
    PositiveFloat,
    PositiveInt,
    check_once,
)
from headstrong.generatorconfig import GeneratorsConfig
from headstrong.hiddenconfig import HiddenConfig
from headstrong.importanceconfig import ImportanceConfig
from headstrong.pictureconfig import ClassifierConfig, PicturesConfig
from headstrong.protocol import ProtocolConfig, Section, SwitchesConfig
from headstrong.radius import Radius
from headstrong.scheduleconfig import Milestone, ScheduleConfig
from headstrong.tasks import TASKS

SIZE_STEP = 32  # the encoders halve the image five times

Share = Annotated[float, Field(gt=0, le=1)]
Encoder = Literal[
    "resnet18", "resnet50", "resnet152", "wide_resnet50_2", "xception", "resnet34", "mobilenet_v2", "segnet", "mtan",
]  # fmt: skip

# What each data set has labels for. Every source of the spine gives all eleven tasks.
TASKS_OF_SOURCE = {source: "".join(TASKS) for source in ("rooms", "nyuv2", "taskonomy")}


class StudyConfig(Section):
    """Names the study: results go to `results/<name>` or `results/<name>-<variant>`."""

    name: Name = Field(description="Name of the study, and of its folder in results/.")
    variant: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        max_length=64,
        description="Added to the name by an overlay such as tiny.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Every random draw of the study derives from it.")


class BuildingsConfig(Section):
    """Buildings of Taskonomy by split."""

    train: Annotated[list[str], Field(min_length=1)] = Field(description="Buildings for training.")
    test: Annotated[list[str], Field(min_length=1)] = Field(description="Buildings for testing.")

    @model_validator(mode="after")
    def _check(self) -> BuildingsConfig:
        check_once("buildings", [*self.train, *self.test])
        return self


class DataConfig(Section):
    """The images and labels."""

    source: Literal["rooms", "nyuv2", "taskonomy"] = Field(
        description="rooms: embedded, ray-cast. nyuv2: real photographs. taskonomy: scanned buildings."
    )
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = Field(
        description=f"Height and width in pixels, multiples of {SIZE_STEP}."
    )
    train: PositiveInt | None = Field(
        description="Training images, drawn from the seed and spread over scenes or buildings; null: all the data set "
        "has (not for rooms)."
    )
    test: PositiveInt | None = Field(
        description="Test images, drawn like the training images; null: all the data set has (not for rooms)."
    )
    antialias: Annotated[int, Field(ge=1, le=4)] = Field(
        1, description="rooms: rays per pixel side for the colour image."
    )
    classes: Literal[13, 40] = Field(13, description="nyuv2: number of segmentation classes.")
    buildings: (
        Annotated[
            Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"), Tag("constrained-str")]
            | Annotated[BuildingsConfig, Tag("BuildingsConfig")],
            Discriminator(lambda value: "constrained-str" if isinstance(value, str) else "BuildingsConfig"),
        ]
        | None
    ) = Field(
        None,
        description="taskonomy: a list of buildings that lies beside the data, by name (tiny, medium, fullplus and "
        "full are official), or the buildings themselves, by split; null: all there are.",
    )
    absent_buildings: Literal["fail", "skip"] | None = Field(
        None,
        description="taskonomy: listed buildings without images are an error, or left out and named in the log; null: "
        "fail.",
    )
    missing_labels: Literal["mask", "drop", "fail"] | None = Field(
        None,
        description="taskonomy: a view without some label is kept and masked, left out, or an error; null: mask.",
    )

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for side in self.size:
            if side % SIZE_STEP:
                raise ValueError(f"size {self.size}: both sides must be multiples of {SIZE_STEP}")
        if self.source == "rooms" and (self.train is None or self.test is None):
            raise ValueError("rooms makes any number of images: train and test must be numbers, not null")
        for key in ("buildings", "absent_buildings", "missing_labels"):
            if getattr(self, key) is not None and self.source != "taskonomy":
                raise ValueError(f"{key}: of taskonomy only, but source is {self.source}; set it to null")
        if self.absent_buildings is not None and self.buildings is None:
            raise ValueError("absent_buildings: only with buildings, which is null; set it to null")
        return self


class SectionConfig(Section):
    """One section of the plan: every set of `sizes` tasks, on every encoder."""

    any_order = ("tasks",)

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
    layouts: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = Field(
        None,
        description="resnet34 and mobilenet_v2: how the tasks share the blocks of the network, by number; 0: all "
        "shared, the last: each task its own. null: 0.",
    )
    adversarial: AdversarialConfig | None = Field(None, description="Adversarial training; null: clean training.")
    protocol: SwitchesConfig | None = Field(
        None, description="Switches that differ from the study's, to see what each does; null: none."
    )

    @model_validator(mode="after")
    def _check(self) -> SectionConfig:
        for key in ("encoders", "layouts"):
            check_once(key, getattr(self, key) or [])
        if self.tasks is not None:
            check_letters(self.tasks, "tasks")
        if self.weights == "lambda" and max(self.sizes) > 2:
            raise ValueError("weights: lambda is defined for one main and one auxiliary task; sizes may be 1 and 2")
        return self


class ModelConfig(Section):
    """The networks."""

    width: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on every channel count; 1: the published networks."
    )


class TrainingConfig(ScheduleConfig):
    """How one model is trained; optimiser, order and loss details are switches of the protocol."""

    learning_rate: PositiveFloat | None = Field(
        None, description="null: the protocol's, 0.001 for Adam and 0.01 for SGD."
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="sgd: momentum; null: the protocol's, 0.99."
    )
    milestones: list[Milestone] | None = Field(
        None, description="As elsewhere; null: the protocol's, or none where `decay_every` is given."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU that has it, else float32."
    )


class EvaluationConfig(Section):
    """What is attacked."""

    samples: PositiveInt | None = Field(None, description="Number of test images, spread over them; null: all.")
    batch_size: PositiveInt = Field(
        32, description="Images attacked together; does not change their attacks (but for l2_step: released)."
    )
    gradients: bool = Field(True, description="Also keep the inner products of the tasks' gradients, for the theorems.")


class AnalysisConfig(Section):
    """Which attack the tables show."""

    family: str = Field("pgd", description="Key in `attacks`.")
    norm: Literal["linf", "l2"] = Field("linf", description="Norm.")
    epsilon: Radius = Field(description="One of the family's radii.")
    steps: PositiveInt = Field(description="One of the family's numbers of steps.")
    bootstrap: Annotated[int, Field(gt=0, le=1_000_000)] = Field(
        2000, description="Bootstrap draws for confidence intervals."
    )


class FiguresConfig(Section):
    """How figures look; changing this redraws them and does nothing else."""

    any_order = ("formats",)

    formats: Annotated[list[Literal["png", "svg", "pdf"]], Field(min_length=1)] = Field(
        ["png", "svg"], description="File formats."
    )
    dpi: Annotated[int, Field(gt=0, le=2400)] = Field(150, description="Dots per inch of PNG files.")
    width: Annotated[float, Field(gt=0, le=100)] = Field(7.0, description="Width in inches.")


class ReportConfig(Section):
    """What the page shows beside tables and figures."""

    models: list[str] = Field(
        [],
        description="Models of the plan shown with pictures under attack; those that a later file takes out of it are "
        "left out.",
    )
    images: Annotated[int, Field(gt=0, le=20)] = Field(
        2, description="Pictures of each: test images, chosen as evaluation.samples are."
    )


class Config(Section):
    """The whole configuration of a study."""

    any_order = ("tasks",)

    study: StudyConfig
    data: DataConfig
    tasks: str = Field(description="Letters of the tasks studied, among s d D n k K e E p r A.")
    plan: dict[Name, SectionConfig | None] | None = Field(description="Sections of the plan; null removes one, or all.")
    lambdas: dict[str, dict[str, PositiveFloat]] = Field(
        description="Weight of the auxiliary task, by main task and auxiliary; `default` by auxiliary alone."
    )
    chains: list[str] = Field(description="Orders in which tasks are attacked one after the other, as letters.")
    model: ModelConfig
    training: TrainingConfig
    attacks: dict[Name, AttackConfig | None] = Field(description="Families of attacks; null removes one.")
    pictures: dict[Name, PicturesConfig | None] | None = Field(
        {}, description="Labelled pictures, by name; null removes one, or all."
    )
    classifiers: dict[Name, ClassifierConfig | None] | None = Field(
        {}, description="Classifiers of them, by name; null removes one, or all."
    )
    generators: dict[Name, GeneratorsConfig | None] | None = Field(
        {}, description="Families of generated perturbations; null removes one, or all."
    )
    importance: dict[Name, ImportanceConfig | None] | None = Field(
        {}, description="Families of losses that favour important classes; null removes one, or all."
    )
    hidden: dict[Name, HiddenConfig | None] | None = Field(
        {}, description="Families of attacks on hidden tasks; null removes one, or all."
    )
    evaluation: EvaluationConfig
    protocol: ProtocolConfig
    analysis: AnalysisConfig
    figures: FiguresConfig
    report: ReportConfig = Field(ReportConfig(models=[], images=2), description="The page, report.html.")

    @property
    def study_id(self) -> str:
        """The name of the study's folder in results/."""
        return "-".join(part for part in (self.study.name, self.study.variant) if part)

    @property
    def sections(self) -> dict[str, SectionConfig]:
        """The sections of the plan that are not switched off."""
        return {name: section for name, section in (self.plan or {}).items() if section is not None}

    @property
    def attack_families(self) -> dict[str, AttackConfig]:
        """The families of attacks that are not switched off."""
        return {name: attack for name, attack in self.attacks.items() if attack is not None}

    @property
    def picture_sets(self) -> dict[str, PicturesConfig]:
        """The sets of pictures that are not switched off."""
        return {name: pictures for name, pictures in (self.pictures or {}).items() if pictures is not None}

    @property
    def classifier_families(self) -> dict[str, ClassifierConfig]:
        """The families of classifiers that are not switched off."""
        return {name: classifier for name, classifier in (self.classifiers or {}).items() if classifier is not None}

    @property
    def generator_families(self) -> dict[str, GeneratorsConfig]:
        """The families of generators that are not switched off."""
        return {name: family for name, family in (self.generators or {}).items() if family is not None}

    @property
    def importance_families(self) -> dict[str, ImportanceConfig]:
        """The families of important classes that are not switched off."""
        return {name: family for name, family in (self.importance or {}).items() if family is not None}

    @property
    def hidden_families(self) -> dict[str, HiddenConfig]:
        """The families of hidden tasks that are not switched off."""
        return {name: family for name, family in (self.hidden or {}).items() if family is not None}

    def labels_of(self, family: str) -> tuple[str, ...]:
        """The labels that a family of classifiers tells, in the order in which its pictures have them."""
        chosen = self.classifier_families[family]
        return tuple(label for label in self.picture_sets[chosen.pictures].labels if label in chosen.labels)

    def labels_told(self, pictures: str) -> list[str]:
        """The labels that the study tells of a set of pictures."""
        classifiers = (one.labels for one in self.classifier_families.values() if one.pictures == pictures)
        favouring = ([one.label] for one in self.importance_families.values() if one.pictures == pictures and one.label)
        return [label for labels in (*classifiers, *favouring) for label in labels]

    def switches(self, section: str | None, own: SwitchesConfig | None) -> dict[str, Any]:
        """Every switch with its value for a family: its `own`, else its section's, else the study's."""
        protocol = self.protocol.resolved()
        chosen = self.sections.get(section or "")
        for some in (chosen.protocol if chosen else None, own):
            protocol = protocol if some is None else some.over(protocol)
        return protocol


def check_letters(letters: str, key: str) -> None:
    """ValueError, which names the key, unless these are letters of tasks, at least one, each once."""
    unknown = sorted(set(letters) - set(TASKS))
    if unknown:
        raise ValueError(f"{key} {letters!r}: {unknown[0]!r} is not a task; allowed: {' '.join(TASKS)}")
    if len(set(letters)) != len(letters) or not letters:
        raise ValueError(f"{key} {letters!r}: each task at most once, at least one")


def schema() -> str:
    """The JSON schema of the configuration, as config.schema.json holds it."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"
