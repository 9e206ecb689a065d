"""What config.yaml says about attacks on hidden tasks (CF and CF-delta)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from headstrong.attackconfig import Name, PositiveFloat, PositiveInt, PositiveRadius, Start, check_radii
from headstrong.protocol import Section, SwitchesConfig
from headstrong.radius import Radius
from headstrong.scheduleconfig import ScheduleConfig

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]
Objective = Literal["cf", "cf_delta", "disruption", "dgba", "total", "single", "oracle", "noise"]
Access = Literal["heads", "backbone"]


class ForgettingConfig(ScheduleConfig):
    """How a copy of the backbone forgets: fine-tuned on the visible tasks alone."""

    batch_size: Annotated[int, Field(gt=1)] = Field(description="Images in a step.")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="Optimiser.")
    learning_rate: PositiveFloat = Field(description="Learning rate; the higher, the more is forgotten.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU that has it, else float32."
    )
    layers: PositiveInt | None = Field(None, description="Number of final blocks to fine-tune; null: all.")
    train_heads: bool = Field(False, description="true: the copy's heads learn too; false: they stay as they are.")
    probe_epochs: PositiveInt = Field(
        3, description="Access backbone: passes in which the attacker's own heads learn, on the backbone as it is."
    )
    probe_rate: PositiveFloat = Field(0.003, description="Learning rate of these.")
    samples: PositiveInt | None = Field(None, description="Number of training images, spread over them; null: all.")
    curve: Annotated[int, Field(gt=0, le=1000)] = Field(
        4, description="Points of the curve of forgetting, evenly spaced over the epochs."
    )


class HiddenAttacksConfig(Section):
    """The attacks on each hidden task: every combination of the lists."""

    any_order = ("objectives", "stealth", "norm", "epsilon")

    objectives: Annotated[list[Objective], Field(min_length=1)] = Field(
        description="cf: towards forgetful features. cf_delta: along the direction of forgetting. disruption: away "
        "from the clean features. dgba, total, single: the visible tasks. oracle: sees the hidden task. noise: no "
        "gradient, the control."
    )
    stealth: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = Field(
        [0.0], description="cf, cf_delta, disruption, oracle: weights of the term that keeps visible predictions."
    )
    reach: PositiveFloat = Field(
        2.0, description="cf_delta with the switch `delta: target`: how far along the direction, in its length."
    )
    stepper: Literal["fgsm", "ifgsm", "pgd", "mim", "apgd"] = Field("pgd", description="As in `attacks`.")
    norm: Annotated[list[Literal["linf", "l2"]], Field(min_length=1)] = Field(["linf"], description="Norm of the ball.")
    epsilon: Annotated[list[Radius], Field(min_length=1)] = Field(description="Radii, as in `attacks`.")
    step_size: PositiveRadius | None = Field(None, description="As in `attacks`.")
    steps: PositiveInt = Field(20, description="Number of steps.")
    restarts: PositiveInt = Field(1, description="As in `attacks`.")
    start: Start | None = Field(None, description="As in `attacks`.")

    @model_validator(mode="after")
    def _check(self) -> HiddenAttacksConfig:
        named: dict[str, Sequence[str]] = {"objectives": self.objectives, "norm": self.norm}
        named["stealth"] = [f"{value:g}" for value in self.stealth]  # as attacks are called
        for key, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key} {getattr(self, key)}: each at most once, told apart by six digits")
        check_radii(self.epsilon, self.norm, self.step_size)
        return self


class HiddenConfig(Section):
    """A family: one network, of whose tasks each takes its turn at being hidden."""

    any_order = ("access",)

    classifiers: Name | None = Field(None, description="The network: key in `classifiers`; its labels are the tasks.")
    domain: str | None = Field(None, description="classifiers: domain of the pictures; null: the only one they have.")
    section: Name | None = Field(None, description="The network: section of `plan` with one model.")
    tasks: dict[TaskName, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None, description="classifiers: names of tasks and the labels each is made of; null: every label is a task."
    )
    hide: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Tasks that take a turn at being hidden; null: all."
    )
    access: Annotated[list[Access], Field(min_length=1)] = Field(
        ["heads"],
        description="heads: the attacker has backbone and visible heads. backbone: no head, it trains its own.",
    )
    forgetting: ForgettingConfig
    attacks: HiddenAttacksConfig
    samples: PositiveInt | None = Field(None, description="Number of test images, spread over them; null: all.")
    protocol: SwitchesConfig | None = Field(None, description="Switches that differ from the study's; null: none.")

    @model_validator(mode="after")
    def _check(self) -> HiddenConfig:
        if (self.classifiers is None) == (self.section is None):
            raise ValueError("give either classifiers or section: the network whose tasks are hidden in turn")
        if self.section is not None and (self.tasks is not None or self.domain is not None):
            raise ValueError("tasks, domain: of classifiers only; the tasks of a section are its letters")
        if len(set(self.access)) < len(self.access):
            raise ValueError(f"access {self.access}: each at most once")
        labels = [label for names in (self.tasks or {}).values() for label in names]
        if len(set(labels)) < len(labels):
            raise ValueError(f"tasks {self.tasks}: a label can be in one task, and there once")
        if self.tasks is not None and len(self.tasks) < 2:
            raise ValueError("tasks: expected at least two, one hidden and one visible")
        if self.hide is not None and len(set(self.hide)) < len(self.hide):
            raise ValueError(f"hide {self.hide}: each at most once")
        return self
