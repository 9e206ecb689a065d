"""What config.yaml says about losses that favour important classes (CAMRI and what it is compared with)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from headstrong.attackconfig import PositiveFloat
from headstrong.pictureconfig import NetworkConfig
from headstrong.protocol import Section, SwitchesConfig

RANKS = ("worst1", "worst2", "median")
BY_RECALL = "recall"
LOSSES = ("ce", "wce", "crwwce", "softmax", "arcface", "camri")
# What a loss is varied over, and whether it favours a class.
GRIDS: dict[str, tuple[str, ...]] = {
    "ce": (),
    "wce": ("weight",),
    "crwwce": ("weight",),
    "softmax": ("scale",),
    "arcface": ("margin", "scale"),
    "camri": ("margin", "scale"),
}
FAVOURING = ("wce", "crwwce", "camri")
Values = Annotated[list[PositiveFloat], Field(min_length=1)]


class LossConfig(Section):
    """The settings that a loss is tried with: every combination of its lists."""

    any_order = ("margin", "scale", "weight")

    margin: Values | None = Field(None, description="arcface, camri: added to the angle, in sixty-fourths of pi.")
    scale: Values | None = Field(None, description="softmax, arcface, camri: factor on the cosines.")
    weight: Values | None = Field(
        None, description="wce: weight of the important classes. crwwce: cost of taking one for another."
    )


class ImportanceConfig(NetworkConfig):
    """A family of classifiers that are trained with each loss to favour each of some important classes."""

    domain: str | None = Field(None, description="Domain of the pictures; null: the only one they have.")
    label: str | None = Field(None, description="The label whose classes are told; null: the pictures' first.")
    important: dict[str, list[str] | Literal["recall"] | None] = Field(
        description="Important classes: a key and their names; or worst1, worst2, median and `recall`: the classes "
        "that the cross entropy's model recalls worst, second worst, and in the middle; null removes one."
    )
    losses: dict[Literal["ce", "wce", "crwwce", "softmax", "arcface", "camri"], LossConfig | None] = Field(
        description="Losses and their settings; null leaves one out. ce must be there: others are compared with it."
    )
    trials: Annotated[int, Field(gt=0, le=1000)] = Field(
        description="Trainings of each setting, from different seeds; pairs of them compare."
    )
    tolerance: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Points of accuracy that a setting may lose against ce and still be chosen."
    )
    protocol: SwitchesConfig | None = Field(None, description="Switches that differ from the study's; null: none.")

    @property
    def chosen_losses(self) -> dict[str, LossConfig]:
        """The losses that are not left out, in the order of LOSSES."""
        return {name: found for name in LOSSES if (found := self.losses.get(name)) is not None}  # type: ignore[call-overload]

    @field_validator("important", mode="before")
    @classmethod
    def _names_or_rank(cls, given: Any) -> Any:
        for key, names in given.items() if isinstance(given, dict) else ():
            named = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
            if not named and names not in (BY_RECALL, None):
                raise ValueError(f"{key} {names!r}: expected names of classes, as in [cat, dog], or {BY_RECALL}")
        return given

    @field_validator("important")
    @classmethod
    def _in_one_order_without_null(cls, given: dict[str, Any]) -> dict[str, Any]:
        left = [(key, names) for key, names in given.items() if names is not None]
        if not left:
            raise ValueError("no classes are left; name some")
        left.sort(key=lambda item: (RANKS.index(item[0]) if item[0] in RANKS else len(RANKS), item[0]))
        return {key: sorted(names) if isinstance(names, list) else names for key, names in left}

    @model_validator(mode="after")
    def _check(self) -> ImportanceConfig:
        if "ce" not in self.chosen_losses:
            raise ValueError("losses: ce is missing, which the others are compared with; add `ce: {}`")
        for name, grid in self.chosen_losses.items():
            _check_grid(name, grid)
        for key, names in self.important.items():
            if names == BY_RECALL and key not in RANKS:
                raise ValueError(f"important.{key}: give the names of its classes; only {', '.join(RANKS)} are ranks")
            if isinstance(names, list) and len(set(names)) < len(names):
                raise ValueError(f"important.{key} {names}: expected names of classes, each at most once")
            if not key.replace("_", "").isalnum() or not key.isascii():
                raise ValueError(f"important.{key}: expected letters, digits and underscores")
        return self


def _check_grid(name: str, grid: LossConfig) -> None:
    """ValueError where a loss has not the lists it needs, or values that cannot be."""
    given = {key for key in ("margin", "scale", "weight") if getattr(grid, key) is not None}
    if given != set(GRIDS[name]):
        wanted = " and ".join(GRIDS[name]) or "nothing"
        raise ValueError(f"losses.{name}: needs {wanted}; given: {', '.join(sorted(given)) or 'nothing'}")
    for key in given:
        values = getattr(grid, key)
        if len(set(values)) < len(values):
            raise ValueError(f"losses.{name}.{key} {values}: each at most once")
    if max(grid.margin or [0]) >= 64:
        raise ValueError(f"losses.{name}.margin {max(grid.margin or [0]):g}: 64 is pi, expected less")
