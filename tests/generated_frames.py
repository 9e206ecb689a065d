"""Made-up evaluations of generated perturbations with known numbers, in the layout that the evaluation writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from headstrong.analysis.generated_records import FORMAT
from headstrong.analysis.records import measures_of
from headstrong.jobs import GeneratedJob, GeneratorJob, to_dict
from headstrong.radius import in_name

DOMAINS = ("studio", "room", "webcam")
SHAPES = ("cube", "brick", "ball", "egg", "cylinder", "bucket", "cone", "ring", "dumb-bell", "table lamp")
SURFACES = ("unlabelled", "wall", "floor", "ceiling", "chair", "table", "lamp")
IMAGES = 40
FIVE, TEN = 5 / 255, 10 / 255
RADII = (TEN, FIVE)
# Of 40 pictures, how many a perturbation turns into another class: by method, mode and radius, each domain one more.
TURNED = {
    ("gap", "universal", TEN): 34, ("mta", "universal", TEN): 36, ("gap", "universal", FIVE): 20,
    ("mta", "universal", FIVE): 25, ("gap", "instance", TEN): 30, ("mta", "instance", TEN): 29,
    ("gap", "instance", FIVE): 18, ("mta", "instance", FIVE): 18,
    ("noise", "", TEN): 3, ("noise", "", FIVE): 1,
}  # fmt: skip
# What is left of a dense victim's quality, clean 1.
LEFT = {
    ("clean", ""): 1.0, ("noise", ""): 0.95, ("gap", "universal"): 0.45, ("mta", "universal"): 0.4,
    ("gap", "instance"): 0.3, ("mta", "instance"): 0.32, ("trivial", ""): 0.5,
}  # fmt: skip
CLEAN_MEASURES = {
    "angle_mean": 25.0, "angle_median": 20.0, "within_11.25": 0.3, "within_22.5": 0.6, "within_30": 0.7,
    "absolute": 0.5, "relative": 0.2, "within_1.25": 0.6, "within_1.25^2": 0.8, "within_1.25^3": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """Files and tables of a study with a family of each kind."""

    classes: Path
    dense: Path


def generator(
    family: str, kind: str, method: str, mode: str, goal: str, epsilon: float, **other: object
) -> GeneratorJob:
    """One set of generators."""
    tasks = DOMAINS if kind == "classes" else ("s", "d", "n")
    fields: dict[str, object] = {
        "id": f"{family}-{method}-{mode}-{goal}-linf-{in_name(epsilon)}", "family": family, "kind": kind,
        "method": method, "mode": mode, "goal": goal, "norm": "linf", "epsilon": epsilon, "tasks": tasks,
        "label": "shape" if kind == "classes" else "", "targets": ("ring",) * 3 if goal == "targeted" else (),
        "filters": 8, "blocks": 2, "normalization": "batch", "activation": "relu", "dropout": 0.0, "scaling": "whole",
        "log_mean": "outside", "untargeted_loss": "truth", "weights": "uniform", "epochs": 1, "batch_size": 2,
        "learning_rate": 2e-4, "milestones": (), "decay": 1.0, "precision": "float32", "samples": None,
        "shared_input": kind == "dense", "seed": 0,
    }  # fmt: skip
    return GeneratorJob(**{**fields, **other})


def job_of(
    family: str, kind: str, generators: Sequence[GeneratorJob], victims: str, transfer: tuple[str, ...]
) -> GeneratedJob:
    """The job of a family."""
    tasks, label = generators[0].tasks, generators[0].label
    return GeneratedJob(
        family, kind, tasks, label, victims, transfer, tuple(generators), None, 4, 2, "valid", "labelled", 0
    )


def write_classes(
    path: Path, *, radii: Sequence[float] = RADII, size: int = 32, family: str = "office", dataset: str = "objects"
) -> Path:
    """Three classifiers of ten shapes; labels go round, clean accuracy 36 of 40, turned pictures as TURNED says.

    Turned are the first so many pictures; a targeted perturbation turns them into rings. Only the targeted ones of
    5/255 are missing, as in a study that was set so.
    """
    generators = [
        generator(family, "classes", method, mode, goal, epsilon)
        for mode in ("universal", "instance")
        for goal in ("untargeted", "targeted")
        for epsilon in radii
        for method in ("gap", "mta")
        if goal == "untargeted" or epsilon != FIVE
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        _head(
            file,
            job_of(family, "classes", generators, "resnets", ()),
            {task: list(SHAPES) for task in DOMAINS},
            dataset,
        )
        labels = np.arange(IMAGES) % len(SHAPES)
        clean = np.where(np.arange(IMAGES) < 36, labels, (labels + 1) % len(SHAPES))
        for number, task in enumerate(DOMAINS):
            _names(file, task)
            file[f"labels/{task}"] = labels.astype(np.int16)
            _class_leaf(file, f"clean/resnets/{task}", clean, None)
            for epsilon in radii:
                turned = _turned(clean, TURNED["noise", "", epsilon], None)
                _class_leaf(file, f"noise/linf-{in_name(epsilon)}/resnets/{task}", turned, epsilon)
            for one in generators:
                many = TURNED[one.method, one.mode, one.epsilon] + number
                turned = _turned(clean, many, 7 if one.goal == "targeted" else None)
                _class_leaf(file, f"generated/{one.id}/resnets/{task}", turned, one.epsilon)
            _class_examples(file, task, generators, size, labels, clean)
        _describe(file, generators)
    return path


def write_dense(
    path: Path,
    *,
    radii: Sequence[float] = (FIVE,),
    size: tuple[int, int] = (24, 32),
    family: str = "nyu",
    dataset: str = "rooms",
) -> Path:
    """A model of s, d and n, and another that the perturbations are tried on; quality falls as LEFT says.

    Every image has 100 labelled pixels of the class after its number, and 20 unlabelled. Image k has 100 * q + d right,
    where d is 5, -5, 5, ... The other pixels are called the next class.
    """
    generators = [
        generator(family, "dense", method, mode, "untargeted", epsilon)
        for mode in ("universal", "instance")
        for epsilon in radii
        for method in ("gap", "mta")
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        _head(file, job_of(family, "dense", generators, "dmtl", ("mtan",)), {"s": list(SURFACES)}, dataset)
        for task in ("s", "d", "n"):
            _names(file, task)
            for victim, share in (("dmtl", 1.0), ("mtan", 0.5)):
                _dense_leaf(file, f"clean/{victim}/{task}", task, LEFT["clean", ""], None)
                for epsilon in radii:
                    _dense_leaf(
                        file, f"noise/linf-{in_name(epsilon)}/{victim}/{task}", task, LEFT["noise", ""], epsilon
                    )
                for one in generators:
                    # What is transferred is half of the damage.
                    left = 1 - share * (1 - LEFT[one.method, one.mode]) * min(1, one.epsilon / FIVE)
                    _dense_leaf(file, f"generated/{one.id}/{victim}/{task}", task, left, one.epsilon)
            _dense_leaf(file, f"trivial/{task}", task, LEFT["trivial", ""], None)
        _dense_examples(file, generators, size)
        _describe(file, generators)
    return path


def confusion(left: float, right: float = 0.6) -> np.ndarray:
    """Matrices (IMAGES, C, C): of 100 labelled pixels of class 1 + k mod 6, 100 * right * left +- 5 are right."""
    many = len(SURFACES)
    table = np.zeros((IMAGES, many, many), np.uint32)
    for k in range(IMAGES):
        true = 1 + k % (many - 1)
        hit = round(100 * right * left) + (5 if k % 2 == 0 else -5)
        table[k, true, true] = hit
        table[k, true, 1 + true % (many - 1)] = 100 - hit
        table[k, 0, true] = 20
    return table


def measure(name: str, left: float) -> np.ndarray:
    """A measure (IMAGES,): errors grow as quality falls, shares fall; image 3 has nothing to measure."""
    factor = left if name.startswith("within") else 1 / left
    values = CLEAN_MEASURES[name] * factor * np.where(np.arange(IMAGES) % 2 == 0, 1.1, 0.9)
    values[3] = np.nan
    return values.astype(np.float32)


def cost_table() -> pd.DataFrame:
    """generator_cost.csv of one family."""
    published = {("universal", "gap"): (1.64, 384), ("universal", "mta"): (0.62, 137)}
    rows = [
        {
            "family": "nyu", "mode": mode, "method": method, "size": "288x384", "filters": 64, "blocks": 4,
            "parameters": 16_440_000 if method == "gap" else 6_237_000,
            "median_ms": 300.0 if method == "gap" else 120.0,
            "low_ms": 100.0, "high_ms": 310.0, "rounds": 20, "published_parameters_millions": said[0],
            "published_ms": said[1],
        }
        for (mode, method), said in published.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _head(file: h5py.File, job: GeneratedJob, classes: dict[str, list[str]], dataset: str) -> None:
    file.attrs.update(
        format=FORMAT,
        family=job.family,
        kind=job.kind,
        tasks=json.dumps(job.tasks),
        victims=job.victims,
        dataset=dataset,
        job=json.dumps(to_dict(job)),
        code="0123456789abcdef",
        classes=json.dumps(classes),
    )


def _names(file: h5py.File, task: str) -> None:
    file[f"index/{task}"] = np.array([f"test/{i:05d}" for i in range(IMAGES)], dtype=h5py.string_dtype())


def _describe(file: h5py.File, generators: Sequence[GeneratorJob]) -> None:
    for one in generators:
        file[f"generated/{one.id}"].attrs.update(
            method=one.method,
            mode=one.mode,
            goal=one.goal,
            norm=one.norm,
            epsilon=one.epsilon,
            parameters=1000,
            job=json.dumps(to_dict(one)),
            targets=json.dumps(dict(zip(one.tasks, one.targets, strict=False))),
        )


def _turned(clean: np.ndarray, many: int, target: int | None) -> np.ndarray:
    other = (clean + 3) % len(SHAPES) if target is None else np.full_like(clean, target)
    return np.where(np.arange(IMAGES) < many, other, clean)


def _class_leaf(file: h5py.File, where: str, prediction: np.ndarray, epsilon: float | None) -> None:
    file[f"{where}/prediction"] = prediction.astype(np.int16)
    file[f"{where}/loss"] = np.ones(IMAGES, np.float32)
    _sizes(file, where, epsilon)


def _dense_leaf(file: h5py.File, where: str, task: str, left: float, epsilon: float | None) -> None:
    file[f"{where}/loss"] = np.full(IMAGES, 1 / left, np.float32)
    for name in measures_of(task):
        file[f"{where}/measures/{name}"] = measure(name, left)
    if task == "s":
        file[f"{where}/confusion"] = confusion(left)
    _sizes(file, where, epsilon)


def _sizes(file: h5py.File, where: str, epsilon: float | None) -> None:
    if epsilon is not None:
        file[f"{where}/linf"] = np.full(IMAGES, epsilon, np.float32)
        file[f"{where}/l2"] = np.full(IMAGES, 50 * epsilon, np.float32)


def _class_examples(
    file: h5py.File, task: str, generators: Sequence[GeneratorJob], size: int, labels: np.ndarray, clean: np.ndarray
) -> None:
    count = 2
    rng = np.random.default_rng(list(task.encode()))
    where = f"examples/clean/{task}"
    file[f"{where}/image"] = np.stack([picture((size, size), rng) for _ in range(count)])
    file[f"{where}/truth"], file[f"{where}/output"] = labels[:count].astype(np.int16), clean[:count].astype(np.int16)
    for one in generators:
        turned = _turned(clean, 1, 7 if one.goal == "targeted" else None)[:count].astype(np.int16)
        patterns = [pattern((size, size), one.epsilon, rng) for _ in range(count)]
        file[f"examples/{one.id}/{task}/perturbation"] = np.stack(patterns)
        file[f"examples/{one.id}/{task}/output"] = turned


def _dense_examples(file: h5py.File, generators: Sequence[GeneratorJob], size: tuple[int, int]) -> None:
    count = 2
    rng = np.random.default_rng(5)
    images = np.stack([picture(size, rng) for _ in range(count)])
    truth = {task: np.stack([scene(size, task, 0.0, rng) for _ in range(count)]) for task in "sdn"}
    for task in "sdn":
        file[f"examples/clean/{task}/image"], file[f"examples/clean/{task}/truth"] = images, truth[task]
        file[f"examples/clean/{task}/output"] = np.stack([scene(size, task, 0.1, rng) for _ in range(count)])
        for one in generators:
            patterns = [pattern(size, one.epsilon, rng) for _ in range(count)]
            file[f"examples/{one.id}/{task}/perturbation"] = np.stack(patterns)
            file[f"examples/{one.id}/{task}/output"] = np.stack([scene(size, task, 0.8, rng) for _ in range(count)])


def picture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """uint8 (3, H, W): a disc on a graded ground."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    ground = rng.uniform(120, 200, 3)[:, None, None] + 40 * y
    disc = x**2 + y**2 < rng.uniform(0.2, 0.5)
    shade = rng.uniform(30, 160, 3)[:, None, None] * (1 - 0.4 * x)
    return np.clip(np.where(disc, shade, ground), 0, 255).astype(np.uint8)


def pattern(size: tuple[int, int], epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """float32 (3, H, W) within epsilon: waves, as universal perturbations have them."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    pitch = rng.uniform(0.2, 0.9, (3, 2))
    waves = np.stack([np.sin(a * x + b * y) for a, b in pitch])
    return (epsilon * np.clip(1.6 * waves, -1, 1)).astype(np.float32)


def scene(size: tuple[int, int], task: str, wrong: float, rng: np.random.Generator) -> np.ndarray:
    """A map of one task, `wrong` from 0 (the truth) to 1 (nothing like it)."""
    y, x = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j]
    blobs = np.sin(9 * x + 7 * y + rng.uniform(0, 6)) * np.cos(11 * y - 5 * x + rng.uniform(0, 6))
    if task == "s":
        truth = np.where(y > 0.7, 2, np.where(y < 0.15, 3, 1)) + np.where((abs(x - 0.5) < 0.2) & (y > 0.5), 2, 0)
        spoilt = np.where(blobs > 1 - 2 * wrong, 4 + (blobs > 0.3), truth).astype(np.uint8)
        return np.where((x < 0.05) & (wrong == 0), 0, spoilt).astype(np.uint8)
    if task == "d":
        return (1 + 4 * (1 - y) + 3 * wrong * blobs).clip(0.1).astype(np.float32)
    vectors = np.stack([x - 0.5, y - 0.5 + wrong * blobs, np.full_like(x, 0.8) - wrong * blobs])
    return (vectors / np.linalg.norm(vectors, axis=0)).astype(np.float32)
