"""What config.yaml says about the schedule of a training: the same keys for every kind of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from headstrong.attackconfig import LARGEST, PositiveFloat, PositiveInt
from headstrong.protocol import Section

Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]


def _milestone(given: object) -> float | int:
    """A share of the epochs, as float, or a number of steps, as int; ValueError for anything else."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        if 0 < given < 1:
            return float(given)
        if isinstance(given, int) and 1 <= given <= LARGEST:
            return given
    raise ValueError(f"{given!r}: expected a share of the epochs between 0 and 1, or a whole number of steps")


_SHARE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
Milestone = Annotated[
    float | int,
    PlainValidator(_milestone),
    WithJsonSchema({"anyOf": [_SHARE, {"type": "integer", "minimum": 1, "maximum": LARGEST}]}),
]


class ScheduleConfig(Section):
    """How long a training lasts, how its optimiser moves, and when the learning rate falls. A step is one batch."""

    epochs: PositiveInt = Field(description="Passes over the training images.")
    batch_size: PositiveInt = Field(description="Images in a step.")
    learning_rate: PositiveFloat | None = Field(None, description="Learning rate at the start.")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(0.9, description="sgd: momentum.")
    betas: Betas = Field([0.9, 0.999], description="adam: its betas.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="L2 penalty on the weights.")
    milestones: list[Milestone] | None = Field(
        [],
        description="When the rate is multiplied by `decay`: shares of the epochs (0.7) or numbers of steps (20000).",
    )
    decay_every: PositiveInt | None = Field(
        None, description="Multiply the rate by `decay` each time this many steps are done, instead of at milestones."
    )
    decay: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="Factor on the rate; 0.5 halves it.")

    @model_validator(mode="after")
    def _one_rhythm(self) -> ScheduleConfig:
        if self.decay_every is not None and self.milestones:
            raise ValueError("milestones, decay_every: give one of them; with decay_every write milestones: []")
        return self


def schedule_of(
    how: ScheduleConfig,
    optimizer: str,
    *,
    rate: float = 0.0,
    momentum: float = 0.0,
    milestones: Sequence[float] = (),
    epochs: int | None = None,
) -> dict[str, Any]:
    """The fields of a job's `Schedule`, by name.

    rate, momentum, milestones: what null stands for. epochs: those of the job, None: of `how`.
    """
    given = how.milestones if how.milestones is not None else milestones if how.decay_every is None else ()
    whole = how.epochs if epochs is None else epochs
    return {
        "optimizer": optimizer,
        "learning_rate": rate if how.learning_rate is None else how.learning_rate,
        "momentum": momentum if how.momentum is None else how.momentum,
        "betas": tuple(how.betas),
        "weight_decay": how.weight_decay,
        "milestones": tuple(sorted({round(share * whole) for share in given if isinstance(share, float)})),
        "step_milestones": tuple(sorted({step for step in given if isinstance(step, int)})),
        "decay_every": how.decay_every,
        "decay": how.decay,
    }
