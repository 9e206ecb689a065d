"""What config.yaml says about generated perturbations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from headstrong.attackconfig import Name, PositiveFloat, PositiveInt, PositiveRadius, check_radii
from headstrong.protocol import Section, SwitchesConfig
from headstrong.scheduleconfig import Betas, ScheduleConfig


class GeneratorTrainingConfig(ScheduleConfig):
    """How generators are trained."""

    epochs: PositiveInt = Field(description="Passes over the images of the largest task.")
    batch_size: PositiveInt = Field(description="Images of each task in a step.")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="Optimiser.")
    learning_rate: PositiveFloat = Field(0.0002, description="Learning rate.")
    betas: Betas = Field([0.9, 0.999], description="adam: its betas; GAP's code has [0.5, 0.999].")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="Factor on the rate; 0.5 halves it.")
    samples: PositiveInt | None = Field(None, description="Number of training images, spread over them; null: all.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="As for classifiers.")

    @model_validator(mode="before")
    @classmethod
    def _once_beta1(cls, given: Any) -> Any:
        if isinstance(given, dict) and "beta1" in given:
            raise ValueError(f"beta1: both betas of Adam are one key; write betas: [{given['beta1']}, 0.999]")
        return given


class BlocksConfig(Section):
    """Residual blocks of a generator, by what it makes."""

    universal: Annotated[int, Field(ge=0, le=1000, description="For universal perturbations.")] = 6
    instance: Annotated[int, Field(ge=0, le=1000, description="For per-instance perturbations.")] = 6


class GeneratorsConfig(Section):
    """A family of generated perturbations: every combination of the lists, against one set of victims."""

    any_order = ("transfer", "methods", "modes", "goals", "norm", "epsilon")

    classifiers: Name | None = Field(None, description="Victims: key in `classifiers`, a task per domain.")
    section: Name | None = Field(
        None, description="Victim: section of `plan` with one model, whose tasks are attacked."
    )
    label: str | None = Field(None, description="classifiers: the label attacked; null: their first.")
    transfer: list[Name] = Field([], description="Other victims of the same kind that the perturbations are tried on.")
    methods: Annotated[list[Literal["gap", "mta"]], Field(min_length=1)] = Field(
        ["gap", "mta"], description="gap: a generator per task. mta: one encoder for all tasks, a decoder for each."
    )
    modes: Annotated[list[Literal["universal", "instance"]], Field(min_length=1)] = Field(
        ["universal", "instance"], description="One perturbation for all images, or one for each."
    )
    goals: Annotated[list[Literal["untargeted", "targeted"]], Field(min_length=1)] = Field(
        ["untargeted"], description="Away from the truth, or to a class."
    )
    target: str | list[str] | None = Field(None, description="targeted: the class, or one for each domain.")
    norm: Annotated[list[Literal["linf", "l2"]], Field(min_length=1)] = Field(["linf"], description="Norm of the ball.")
    epsilon: Annotated[list[PositiveRadius], Field(min_length=1)] = Field(
        description='Radii above 0, as in `attacks`: the 10 of the papers of MTA and GAP is "10/255", for l2 as well.'
    )
    blocks: BlocksConfig = Field(BlocksConfig(), description="Residual blocks.")
    filters: PositiveInt = Field(64, description="Channels after the first layer; 64: the published networks.")
    normalization: Literal["batch", "instance"] = Field("batch", description="Normalisation of the generators.")
    activation: Literal["relu", "selu"] = Field("relu", description="Activation outside the residual blocks.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout in the residual blocks.")
    weights: Literal["uniform", "learned"] = Field(
        "uniform", description="Of the tasks' losses: 1/M each, or learned (uncertainty weighting)."
    )
    training: GeneratorTrainingConfig
    samples: PositiveInt | None = Field(None, description="Number of test images of each task; null: all.")
    examples: Annotated[int, Field(ge=1)] = Field(3, description="Images of each task kept for the figures.")
    protocol: SwitchesConfig | None = Field(None, description="Switches that differ from the study's; null: none.")

    @model_validator(mode="after")
    def _check(self) -> GeneratorsConfig:
        if (self.classifiers is None) == (self.section is None):
            raise ValueError("classifiers, section: give one of them, the victims")
        check_radii(self.epsilon, self.norm)
        if 1 in self.epsilon and "linf" in self.norm:
            raise ValueError('epsilon 1: all images are within 1 in linf; write "1/255" for what once was written 1')
        if self.section is not None and (self.goals != ["untargeted"] or self.label or self.target):
            raise ValueError(
                "section: a dense model has no classes to aim at; leave out label and target, goals: [untargeted]"
            )
        if ("targeted" in self.goals) != (self.target is not None):
            raise ValueError("target: targeted perturbations need a class to aim at, others have none")
        return self
