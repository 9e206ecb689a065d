"""What config.yaml says about attacks: families to evaluate with, and the one to train with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from headstrong import radius
from headstrong.protocol import Section
from headstrong.radius import Radius

LARGEST = 2**31 - 1  # what any array can count
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0)]
PositiveRadius = Annotated[Radius, Field(gt=0)]
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


def check_radii(radii: Radius | Sequence[Radius], norms: Sequence[str], step_size: Radius | None = None) -> None:
    """ValueError, with the line to write, where radii or the step are too large for their norm, or one comes twice."""
    for key, given in (("epsilon", radii), ("step_size", step_size)):
        wrong = "" if given is None else radius.too_large(key, given, norms)
        if wrong:
            raise ValueError(wrong)
    names = Counter(map(radius.in_name, [] if isinstance(radii, Radius) else radii))  # as attacks are called
    twice = next((name for name, number in names.items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"epsilon: {twice}/255 is there twice; each at most once, told apart by six digits")


class AttackConfig(Section):
    """One family of attacks: every combination of the lists."""

    any_order = ("balancer", "norm", "epsilon", "steps", "pixels")

    stepper: Stepper = Field(
        description="How the image moves: a gradient method, a program per image (ilp_*), or noise, the control."
    )
    balancer: Annotated[list[Balancer], Field(min_length=1)] = Field(
        description="single: one attack per task. The others attack all tasks at once and differ in their weights; wgd "
        "takes the protocol's."
    )
    norm: Annotated[list[Literal["linf", "l2"]], Field(min_length=1)] = Field(["linf"], description="Norm of the ball.")
    epsilon: Annotated[list[Radius], Field(min_length=1)] = Field(
        description='Radii, as "8/255" or as numbers; images live in [0, 1]. linf: at most 1. l2: Euclidean lengths.'
    )
    step_size: PositiveRadius | None = Field(
        None, description="Step, written alike; null: epsilon / 4 for pgd, epsilon / steps for ifgsm and mim."
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
        check_radii(self.epsilon, self.norm, self.step_size)
        check_once("steps", self.steps)
        check_once("pixels", self.pixels or [])
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
    epsilon: Radius = Field(description="Radius, as in `attacks`.")
    step_size: PositiveRadius | None = Field(None, description="As in `attacks`.")
    steps: PositiveInt = Field(1, description="Number of steps.")
    start: Start | None = Field(None, description="As in `attacks`.")
    clean_steps: bool = Field(True, description="true: a step on the clean batch comes before the adversarial one.")

    @model_validator(mode="after")
    def _check(self) -> AdversarialConfig:
        check_radii(self.epsilon, [self.norm], self.step_size)
        return self
