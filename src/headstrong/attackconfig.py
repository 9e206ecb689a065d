"""What config.yaml says about attacks: families to evaluate with, and the one to train with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from headstrong.protocol import Section

LARGEST = 2**31 - 1  # what any array can count
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0)]
# Names end up in names of files, of which no file system allows more than 255 letters.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
Stepper = Literal["fgsm", "ifgsm", "pgd", "mim", "apgd", "noise", "ilp_box", "ilp_max_min", "ilp_sparse"]
Balancer = Literal["single", "total", "sign_sum", "wgd", "wgd_published", "wgd_released", "wgd_cyclic", "dgba"]
Start = Literal["clean", "uniform", "corner"]


def check_once(key: str, values: Sequence[object]) -> None:
    """ValueError where a list names something twice: two results would have one name."""
    twice = next((value for value, number in Counter(values).items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"{key}: {twice} is there twice; each at most once")


class AttackConfig(Section):
    """One family of attacks: every combination of the lists."""

    stepper: Stepper = Field(
        description="How the image moves: a gradient method, a program per image (ilp_*), or noise, the control."
    )
    balancer: Annotated[list[Balancer], Field(min_length=1)] = Field(
        description="single: one attack per task. The others attack all tasks at once and differ in their weights; wgd "
        "takes the protocol's."
    )
    norm: Annotated[list[Literal["linf", "l2"]], Field(min_length=1)] = Field(["linf"], description="Norm of the ball.")
    epsilon: Annotated[list[float], Field(min_length=1)] = Field(
        description="Radii; images live in [0, 1], so 8/255 is 0.03137254901960784. linf: at most 1."
    )
    step_size: PositiveFloat | None = Field(
        None, description="Step in the same unit; null: epsilon / 4 for pgd, epsilon / steps for ifgsm and mim."
    )
    steps: Annotated[list[PositiveInt], Field(min_length=1)] = Field([1], description="Numbers of steps.")
    restarts: PositiveInt = Field(1, description="Random starts; the worst per image counts.")
    start: Start | None = Field(None, description="Of pgd and apgd; null: the protocol's.")
    pixels: Annotated[list[PositiveInt], Field(min_length=1)] | None = Field(
        None, description="ilp_sparse: at most so many pixels of an image change."
    )
    time_limit: PositiveFloat | None = Field(None, description="ilp_*: seconds for the program of one image; null: 60.")
    chains: bool = Field(
        False, description="true: also attack the nested sets of `chains`, on models that have all their tasks."
    )
    sections: list[Name] | None = Field(None, description="Sections of the plan that are attacked; null: all.")

    @model_validator(mode="after")
    def _check(self) -> AttackConfig:
        check_once("norm", self.norm)
        check_once("epsilon", [f"{value * 255:g}/255" for value in self.epsilon])  # as attacks are called
        check_once("steps", self.steps)
        check_once("pixels", self.pixels or [])
        for epsilon in self.epsilon:
            if epsilon < 0:
                raise ValueError(f"epsilon {epsilon}: must not be negative")
            if epsilon > 1 and "linf" in self.norm:
                raise ValueError(
                    f"epsilon {epsilon}: images live in [0, 1]; {epsilon:g}/255 is written {epsilon / 255:.6g}"
                )
        if (self.pixels is None) == (self.stepper == "ilp_sparse"):
            raise ValueError("pixels: ilp_sparse needs a list of numbers of pixels, no other stepper has one")
        program = self.stepper.startswith("ilp_")
        if program and self.norm != ["linf"]:
            raise ValueError(f"norm: {self.stepper} is a program over the Linf ball; give [linf]")
        if program and "sign_sum" in self.balancer:
            raise ValueError(f"balancer: sign_sum has no weights, which {self.stepper} needs; choose another")
        if self.time_limit is not None and not program:
            raise ValueError(f"time_limit: {self.stepper} solves no program; leave it out")
        return self


class AdversarialConfig(Section):
    """Adversarial training: every step also learns from a batch that is attacked on the network as it is then."""

    stepper: Literal["fgsm", "ifgsm", "pgd", "mim", "apgd"] = Field(description="As in `attacks`.")
    balancer: Literal["total", "sign_sum", "wgd", "wgd_published", "wgd_released", "wgd_cyclic", "dgba"] = Field(
        description="As in `attacks`; all tasks of the model are attacked."
    )
    norm: Literal["linf", "l2"] = Field("linf", description="Norm of the ball.")
    epsilon: Annotated[float, Field(ge=0)] = Field(description="Radius; images live in [0, 1].")
    step_size: PositiveFloat | None = Field(None, description="As in `attacks`.")
    steps: PositiveInt = Field(1, description="Number of steps.")
    start: Start | None = Field(None, description="As in `attacks`.")
    clean_steps: bool = Field(True, description="true: a step on the clean batch comes before the adversarial one.")

    @model_validator(mode="after")
    def _check(self) -> AdversarialConfig:
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"epsilon {self.epsilon}: images live in [0, 1]; {self.epsilon:g}/255 is written "
                f"{self.epsilon / 255:.6g}"
            )
        return self
