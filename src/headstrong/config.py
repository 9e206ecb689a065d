"""Typed configuration: what config.yaml and the overlays in studies/ may say.

`load` merges the files key by key, checks them, and answers any mistake with one line that names the file, the key and
what is allowed. The models below are the single source: `config.schema.json` is generated from them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headstrong.errors import ConfigError
from headstrong.provenance import ROOT
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
    variant: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]*)?$", description="Added to the name by an overlay such as tiny.")
    seed: int = Field(0, ge=0, description="Every random draw of the study derives from it.")


class DataConfig(Section):
    """The images and labels."""

    source: Literal["rooms", "nyuv2"] = Field(description="rooms: embedded, ray-cast. nyuv2: real photographs.")
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = Field(
        description=f"Height and width in pixels, multiples of {SIZE_STEP}."
    )
    train: PositiveInt | None = Field(description="Training images; null: all the data set has (not for rooms).")
    test: PositiveInt | None = Field(description="Test images; null: all the data set has (not for rooms).")
    antialias: Annotated[int, Field(ge=1, le=4)] = Field(1, description="rooms: rays per pixel side for the colour image.")
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
    weights: Literal["uniform", "lambda"] = Field("uniform", description="uniform: 1/T each. lambda: main 1, auxiliary `lambdas`.")
    share_of_epochs: Share = Field(1.0, description="Below 1: checkpoints of the full runs after this share of the epochs.")
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

    width: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Factor on every channel count; 1: the published networks.")


class TrainingConfig(Section):
    """How one model is trained; optimiser, order and loss details are switches of the protocol."""

    epochs: PositiveInt = Field(description="Passes over the training images.")
    batch_size: PositiveInt = Field(description="Images in a step.")
    learning_rate: PositiveFloat | None = Field(None, description="null: the protocol's, 0.001 for Adam and 0.01 for SGD.")
    milestones: list[Share] | None = Field(
        None, description="Shares of the epochs after which the learning rate falls tenfold; null: the protocol's."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU that has it, else float32.")


class AttackConfig(Section):
    """One family of attacks: every combination of the lists."""

    stepper: Literal["fgsm", "ifgsm", "pgd", "noise"] = Field(description="How the image moves. noise: no gradient, the control.")
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
    chains: bool = Field(False, description="true: also attack the nested sets of `chains`, on models that have all their tasks.")

    @model_validator(mode="after")
    def _check(self) -> AttackConfig:
        for epsilon in self.epsilon:
            if epsilon < 0:
                raise ValueError(f"epsilon {epsilon}: must not be negative")
            if epsilon > 1 and "linf" in self.norm:
                raise ValueError(f"epsilon {epsilon}: images live in [0, 1]; {epsilon:g}/255 is written {epsilon / 255:.6g}")
        return self


class EvaluationConfig(Section):
    """What is attacked."""

    samples: PositiveInt | None = Field(None, description="The first so many test images; null: all.")
    batch_size: PositiveInt = Field(32, description="Images attacked together; does not change their attacks.")


class ProtocolConfig(Section):
    """Where paper, released code and common sense differ. A switch set to null follows the preset."""

    preset: Literal["published", "released", "corrected"] = Field(
        "corrected", description="published: as the paper says. released: as its code does. corrected: what a careful reader would do."
    )
    start: Literal["clean", "uniform", "corner"] | None = Field(None, description="Where PGD starts.")
    aggregation: Literal["ratio_of_means", "mean_of_ratios"] | None = Field(None, description="Relative task vulnerability over samples.")
    adversarial_vulnerability: Literal["definition", "released"] | None = Field(
        None, description="definition: mean of |change| over the attacked tasks. released: |mean change| over all the model's tasks."
    )
    optimizer: Literal["adam", "sgd"] | None = Field(None, description="Optimiser, with its own schedule.")
    shuffle: bool | None = Field(None, description="Shuffle the training images every epoch.")
    loss_pixels: Literal["all", "valid"] | None = Field(None, description="Pixels in the denominator of a masked loss.")
    error_pixels: Literal["all", "valid"] | None = Field(None, description="Pixels over which errors are taken.")
    miou: Literal["all", "labelled"] | None = Field(None, description="Whether unlabelled pixels count in the mIoU, as class 0.")
    class_weights: Literal["uniform", "prior"] | None = Field(None, description="Class weights of the cross-entropy.")

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
        "class_weights": "prior",
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

    formats: Annotated[list[Literal["png", "svg", "pdf"]], Field(min_length=1)] = Field(["png", "svg"], description="File formats.")
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


def _cross_checks(config: Config) -> list[tuple[tuple[str, ...], str]]:
    """Combinations that cannot be, as (key path, message)."""
    found: list[tuple[tuple[str, ...], str]] = []
    available = TASKS_OF_SOURCE[config.data.source]

    def check(path: tuple[str, ...], letters: str) -> None:
        try:
            _check_letters(letters, path[-1])
        except ValueError as error:
            found.append((path, str(error)))
            return
        missing = [letter for letter in letters if letter not in available]
        if missing:
            found.append((path, f"{config.data.source} has no labels for {missing[0]!r}; it has {' '.join(available)}"))

    check(("tasks",), config.tasks)
    for name, section in config.sections.items():
        letters = section.tasks or config.tasks
        check(("plan", name, "tasks"), letters)
        if max(section.sizes) > len(letters):
            found.append((("plan", name, "sizes"), f"{max(section.sizes)} tasks of {letters!r}: there are {len(letters)}"))
    for chain in config.chains:
        check(("chains",), chain)
    for main, row in config.lambdas.items():
        if main != "default":
            check(("lambdas", main), main)
        for auxiliary in row:
            check(("lambdas", main, auxiliary), auxiliary)
    return found or _cross_checks_of_analysis(config)


def _cross_checks_of_analysis(config: Config) -> list[tuple[tuple[str, ...], str]]:
    analysis, families = config.analysis, config.attack_families
    family = families.get(analysis.family)
    if family is None:
        return [(("analysis", "family"), f"{analysis.family!r} is not among attacks: {', '.join(families) or 'none'}")]
    found = []
    for key in ("norm", "epsilon", "steps"):
        wanted, configured = getattr(analysis, key), getattr(family, key)
        if wanted not in configured:
            message = f"{wanted} is not among attacks.{analysis.family}.{key}: {', '.join(map(str, configured))}"
            found.append((("analysis", key), message))
    return found


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay on base, key by key, mappings merged and everything else replaced (as Snakemake merges config files)."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def study_files(names: Sequence[str]) -> list[Path]:
    """config.yaml and the overlays of the studies named; `quick` is config.yaml alone."""
    files = [ROOT / "config.yaml"]
    for name in names:
        if name == "quick":
            continue
        path = ROOT / "studies" / f"{name}.yaml"
        if not path.is_file():
            known = sorted(["quick", *(file.stem for file in (ROOT / "studies").glob("*.yaml"))])
            raise ConfigError(f"study {name!r}: no file studies/{name}.yaml; there are: {', '.join(known)}")
        files.append(path)
    return files


def load(files: Sequence[Path]) -> Config:
    """Read, merge and check configuration files; ConfigError with one line on any mistake."""
    parts = [(file, _read(file)) for file in files]
    merged: dict[str, Any] = {}
    for _, part in parts:
        merged = merge(merged, part)
    return parse(merged, parts)


def parse(merged: Mapping[str, Any], parts: Sequence[tuple[Path, Mapping[str, Any]]] = ()) -> Config:
    """Check a merged configuration; `parts` (file, content) tell which file to name in a mistake."""
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        problems = [(tuple(map(str, item["loc"])), _explain(item)) for item in error.errors()]
        raise ConfigError(_one_line(problems, parts)) from None
    problems = _cross_checks(config)
    if problems:
        raise ConfigError(_one_line(problems, parts))
    return config


def parse_for_snakemake(merged: Mapping[str, Any], files: Sequence[str | Path]) -> Config:
    """`parse` for the Snakefile: a mistake is one line on the error stream and exit code 2, before any job starts."""
    try:
        return parse(merged, [(Path(file), _read(Path(file))) for file in files])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.code) from None


def _read(file: Path) -> dict[str, Any]:
    name = _display(file)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}: not YAML{where}: {getattr(error, 'problem', None) or 'check indentation and quotes'}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: expected keys and values at the top level, found a {type(content).__name__}")
    return content


def _display(file: Path) -> str:
    try:
        return str(file.resolve().relative_to(ROOT))
    except ValueError:
        return str(file)


def _explain(item: Any) -> str:
    kind, given, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "missing"
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    message = item["msg"].removeprefix("Input ").replace("should be", "must be")
    if isinstance(given, dict | list) and len(str(given)) > 60:
        return message
    hint = ""
    if isinstance(given, str) and kind in ("float_type", "int_type"):
        hint = _number_hint(given)
    return f"{given!r} {message}{hint}"


def _number_hint(text: str) -> str:
    try:
        numerator, _, denominator = text.partition("/")
        return f", written {float(numerator) / float(denominator or 1):.6g} without quotes"
    except (ValueError, ZeroDivisionError):
        return ""


def _one_line(problems: Sequence[tuple[tuple[str, ...], str]], parts: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    path, message = problems[0]
    path = tuple(part for part in path if part not in ("constrained-str",))
    file = _file_of(path, parts)
    known = _known_keys(path) if message == "unknown key" else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(f"{file}: {'.'.join(path) or 'top level'}: {message}{known}{more}".split())


def _file_of(path: tuple[str, ...], parts: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """The last file that says anything about the longest part of this key path."""
    for length in range(len(path), 0, -1):
        for file, content in reversed(parts):
            node: Any = content
            for key in path[:length]:
                node = node.get(key, _ABSENT) if isinstance(node, Mapping) else _ABSENT
            if node is not _ABSENT:
                return _display(file)
    return _display(parts[0][0]) if parts else "configuration"


_ABSENT = object()


def _known_keys(path: tuple[str, ...]) -> str:
    model: Any = Config
    for key in path[:-1]:
        field = getattr(model, "model_fields", {}).get(key)
        model = {"plan": SectionConfig, "attacks": AttackConfig}.get(path[0]) if field is None else field.annotation
    fields = getattr(model, "model_fields", None)
    return f"; allowed: {', '.join(fields)}" if fields else ""


def schema() -> str:
    """The JSON schema of the configuration, as config.schema.json holds it."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"
