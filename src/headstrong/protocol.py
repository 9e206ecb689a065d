"""Where the papers, their released code and common sense differ: one switch each, and three presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from headstrong.tasks import TASKS


@cache
def _choices(annotation: Any) -> Sequence[object]:
    """The values that a type, or the items of it, are chosen from; none where any is possible."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors, values never change.

    any_order: keys of lists, or of letters, whose order means nothing. They are kept in one order (that of the choices,
    else ascending), so that jobs do not depend on how a file lists them.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    any_order: ClassVar[tuple[str, ...]] = ()

    @field_validator("*")
    @classmethod
    def _in_one_order(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name not in cls.any_order or value is None:
            return value
        if isinstance(value, str):
            known = list(TASKS)  # others, which are refused later, come last
            return "".join(sorted(value, key=lambda letter: known.index(letter) if letter in known else len(known)))
        annotation: Any = cls.model_fields[info.field_name].annotation
        choices = _choices(annotation)
        return sorted(value, key=choices.index if choices else None)


class SwitchesConfig(Section):
    """The switches. One that is null follows the preset."""

    preset: Literal["published", "released", "corrected"] | None = Field(
        None,
        description="published: as the paper says. released: as its code does. corrected: a careful reader's choice.",
    )
    start: Literal["clean", "uniform", "corner"] | None = Field(None, description="Where PGD and APGD start.")
    baseline: Literal["clean", "start"] | None = Field(
        None, description="What an attack's error is compared with: the clean image's, or that at the attack's start."
    )
    aggregation: Literal["ratio_of_means", "mean_of_ratios"] | None = Field(
        None, description="Relative task vulnerability over samples."
    )
    adversarial_vulnerability: Literal["definition", "released"] | None = Field(
        None,
        description="definition: mean of |change|, attacked tasks. released: |mean change|, all tasks of the model.",
    )
    l2_step: Literal["direction", "released"] | None = Field(
        None, description="L2 PGD. direction: steps of step_size, exact projection. released: the whole-batch step."
    )
    wgd: Literal["published", "released", "cyclic"] | None = Field(
        None, description="Weights of balancer wgd: r_t of Definition 5, 1 / L_t(0), or one task after the other."
    )
    optimizer: Literal["adam", "sgd"] | None = Field(None, description="Optimiser, with its own schedule.")
    shuffle: bool | None = Field(None, description="Shuffle the training images every epoch.")
    loss_pixels: Literal["all", "valid"] | None = Field(None, description="Pixels in the denominator of a masked loss.")
    error_pixels: Literal["all", "valid"] | None = Field(None, description="Pixels over which errors are taken.")
    miou: Literal["all", "labelled"] | None = Field(
        None, description="Whether unlabelled pixels count in the mIoU, as class 0."
    )
    class_weights: Literal["uniform", "prior", "published"] | None = Field(
        None,
        description="Class weights of the cross-entropy: none, by the training split, or those published (taskonomy).",
    )
    output_start: Literal["random", "mean"] | None = Field(
        None, description="What a network predicts before training: random numbers, or the training mean."
    )
    curvature: Literal["decoded", "grey"] | None = Field(
        None, description="Targets of p: the two curvatures, or the nearly constant grey of the released loader."
    )
    depth: Literal["encoded", "metres"] | None = Field(
        None, description="Targets of d and D: the published encoding, or metres (MTAN)."
    )
    normals: Literal["l1", "cosine"] | None = Field(
        None, description="Loss of n: the absolute difference, or one minus the cosine of the angle (MTAN)."
    )
    log_mean: Literal["outside", "inside"] | None = Field(
        None, description="Generators: a batch's mean is outside (MTA) or inside (GAP's code) the logarithm."
    )
    untargeted_loss: Literal["truth", "least_likely"] | None = Field(
        None, description="Generators of classes: away from the truth (MTA), or to the least likely class (GAP's code)."
    )
    perturbation_scale: Literal["whole", "channel"] | None = Field(
        None, description="Generators: scaled by the norm of all of a perturbation (MTA), or by channel (GAP's code)."
    )
    large_angles: Literal["monotone", "unhandled"] | None = Field(
        None, description="ArcFace and CAMRI, angle and margin beyond pi: the logit goes on falling, or rises again."
    )
    ranking: Literal["validation", "test"] | None = Field(
        None, description="Important classes: the pictures by which the classes are ranked."
    )
    cf_delta: Literal["product", "target"] | None = Field(
        None,
        description="Hidden tasks, CF-delta: as far as can be along forgetting, or to a point `reach` times as far.",
    )
    forgetting_direction: Literal["image", "mean"] | None = Field(
        None,
        description="Hidden tasks: each image's own direction of forgetting, or the mean over the attacker's images.",
    )
    feature_distance: Literal["squared", "cosine"] | None = Field(
        None, description="Hidden tasks: features are compared by squared Euclidean distance, or by their angle."
    )

    def over(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Every switch with its value: those given here, else the preset given here, else those of `base`."""
        given = {key: value for key, value in self.model_dump().items() if value is not None}
        preset = PRESETS[self.preset] if self.preset else {}
        own = {key: value for key, value in preset.items() if key in type(self).model_fields}
        return {**base, **own, **given}


class ProtocolConfig(SwitchesConfig):
    """The switches of the whole study. One that is null follows the preset."""

    preset: Literal["published", "released", "corrected"] = Field(
        "corrected",
        description="published: as the paper says. released: as its code does. corrected: a careful reader's choice.",
    )

    # Of the data, which all sections of a plan share.
    taskonomy_split: Literal["point", "buildings"] | None = Field(
        None,
        description="taskonomy: camera points below 1200 of each building train (released), or whole buildings do.",
    )

    def resolved(self) -> dict[str, Any]:
        """Every switch with its value, nulls replaced by the preset's."""
        return self.over({})


PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "start": "uniform",
        "baseline": "clean",
        "aggregation": "mean_of_ratios",
        "adversarial_vulnerability": "definition",
        "l2_step": "direction",
        "wgd": "published",
        "optimizer": "sgd",
        "shuffle": True,
        "loss_pixels": "all",
        "error_pixels": "all",
        "miou": "labelled",
        "class_weights": "uniform",
        "output_start": "random",
        "curvature": "decoded",
        "depth": "encoded",
        "normals": "l1",
        "log_mean": "outside",
        "untargeted_loss": "truth",
        "perturbation_scale": "whole",
        "large_angles": "unhandled",
        "ranking": "test",
        "cf_delta": "product",
        "forgetting_direction": "image",
        "feature_distance": "squared",
        "taskonomy_split": "point",
    },
    "released": {
        "start": "corner",
        "baseline": "start",
        "aggregation": "ratio_of_means",
        "adversarial_vulnerability": "released",
        "l2_step": "released",
        "wgd": "released",
        "optimizer": "adam",
        "shuffle": False,
        "loss_pixels": "all",
        "error_pixels": "all",
        "miou": "all",
        "class_weights": "prior",
        "output_start": "random",
        "curvature": "grey",
        "depth": "encoded",
        "normals": "l1",
        "log_mean": "inside",
        "untargeted_loss": "least_likely",
        "perturbation_scale": "channel",
        "large_angles": "unhandled",
        "ranking": "test",
        "cf_delta": "product",
        "forgetting_direction": "image",
        "feature_distance": "squared",
        "taskonomy_split": "point",
    },
    "corrected": {
        "start": "uniform",
        "baseline": "clean",
        "aggregation": "ratio_of_means",
        "adversarial_vulnerability": "definition",
        "l2_step": "direction",
        "wgd": "released",
        "optimizer": "adam",
        "shuffle": True,
        "loss_pixels": "valid",
        "error_pixels": "valid",
        "miou": "labelled",
        "class_weights": "uniform",
        "output_start": "mean",
        "curvature": "decoded",
        "depth": "encoded",
        "normals": "l1",
        "log_mean": "outside",
        "untargeted_loss": "truth",
        "perturbation_scale": "whole",
        "large_angles": "monotone",
        "ranking": "validation",
        "cf_delta": "product",
        "forgetting_direction": "image",
        "feature_distance": "squared",
        "taskonomy_split": "buildings",
    },
}
