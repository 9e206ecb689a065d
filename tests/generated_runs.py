"""Tiny families of generators with their victims and images, and one call that evaluates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import evaluation_runs
from generated_jobs import make_generator_job
from headstrong.data.pictures import write_pictures
from headstrong.generated import evaluate_family
from headstrong.generator_training import build_generators, save_generators
from headstrong.jobs import GeneratedJob, GeneratorJob
from headstrong.models import build_model, save_model
from headstrong.models.classifier import build_classifier, save_classifier

SIDE = 16
COUNTS = {"studio": 7, "room": 4}
SHAPES = ["cube", "ball", "cone"]
LETTERS = ("s", "d", "n")


@dataclass(frozen=True)
class Family:
    """Everything that an evaluation is given."""

    job: GeneratedJob
    generators: dict[str, Path]
    victims: dict[tuple[str, str], Path]
    data: dict[str, Path]
    train: dict[str, Path] | None

    def evaluate(self, folder: Path, **changes: Any) -> Path:
        """Evaluate into a folder; `changes` are to the job."""
        output = folder / "family.h5"
        evaluate_family(
            replace(self.job, **changes), self.generators, self.victims, self.data, self.train, output,
            folder / "perturbations", device="cpu", threads=1, code="c0de",
        )  # fmt: skip
        return output


def family_job(generators: tuple[GeneratorJob, ...], **changes: Any) -> GeneratedJob:
    first = generators[0]
    base = GeneratedJob(
        family=first.family,
        kind=first.kind,
        tasks=first.tasks,
        label=first.label,
        victims="own",
        transfer=("other",),
        generators=generators,
        samples=None,
        batch_size=3,
        examples=2,
        error_pixels="valid",
        miou="labelled",
        seed=11,
    )
    return replace(base, **changes)


def write_generators(folder: Path, job: GeneratorJob, size: tuple[int, int]) -> Path:
    """Weights that nothing has trained, with the running averages that a training would leave."""
    networks = build_generators(job).train()
    drawn = torch.Generator().manual_seed(job.blocks)
    with torch.no_grad():
        for _ in range(40):
            networks({task: torch.rand(3, 3, *size, generator=drawn) for task in job.tasks})
    path = folder / f"{job.id}.safetensors"
    save_generators(path, networks, job, size)
    return path


def write_domain(path: Path, count: int, seed: int, centre: int = 128) -> Path:
    """Pictures round a middle grey, so that a small perturbation is never clamped."""
    rng = np.random.default_rng(seed)

    def sample(row: int) -> tuple[str, np.ndarray, dict[str, int]]:
        image = (centre + rng.normal(0, 15, (3, SIDE, SIDE))).clip(max(0, centre - 60), min(255, centre + 60))
        return f"picture {row}", image.astype(np.uint8), {"shape": row % 3, "colour": row % 2}

    known = {"dataset": "objects", "domain": path.stem, "split": "test", "settings": {}, "code": "0"}
    classes = {"shape": SHAPES, "colour": ["red", "blue"]}
    write_pictures(path, map(sample, range(count)), count=count, size=(SIDE, SIDE), classes=classes, **known)
    return path


def write_classifier(path: Path, seed: int, spoil: Callable[[Any], None] | None = None) -> Path:
    """A classifier whose three classes all come up: its head looks at features from which their mean is taken."""
    model = build_classifier("resnet18", {"shape": 3}, width=0.125, seed=seed).eval()
    probe = 0.5 + 0.06 * torch.randn(64, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        features = model.features(probe)
        spread = (features - features.mean(0)).std()
        head = model.heads[0]
        head.weight.mul_(10 / spread)
        head.bias.copy_(-head.weight @ features.mean(0))
    if spoil is not None:
        spoil(model)
    save_classifier(path, model, {"shape": SHAPES}, {})
    return path


def classes_family(folder: Path) -> Family:
    """Four sets of generators against the classifiers of two domains, tried on two others as well."""
    generators = tuple(
        make_generator_job(**changes)
        for changes in (
            {},
            {"method": "mta", "goal": "targeted", "targets": ("ball", "cone")},
            {"mode": "instance", "norm": "l2", "epsilon": 200 / 255},
            {"method": "mta", "mode": "instance"},
        )
    )
    return Family(
        job=family_job(generators),
        generators={job.id: write_generators(folder, job, (SIDE, SIDE)) for job in generators},
        victims={
            (name, task): write_classifier(folder / f"{name}-{task}.safetensors", seed)
            for seed, (name, task) in enumerate((name, task) for name in ("own", "other") for task in COUNTS)
        },
        data={task: write_domain(folder / f"{task}.h5", count, count) for task, count in COUNTS.items()},
        train=None,
    )


def write_dense(path: Path, seed: int, **switches: Any) -> Path:
    model = build_model("xception", "sdn", len(evaluation_runs.CLASSES), width=0.125, seed=seed)
    job = {"tasks": "sdn", "loss_pixels": "valid", "curvature": "decoded", **switches}
    save_model(path, model, job)
    return path


def dense_family(folder: Path) -> Family:
    """Two sets of generators against a model of three tasks, tried on one that takes depths in metres."""
    dense = {"kind": "dense", "tasks": LETTERS, "label": "", "shared_input": True}
    generators = (make_generator_job(**dense), make_generator_job(**dense, method="mta", mode="instance"))
    size = (evaluation_runs.SIDE, evaluation_runs.SIDE)
    own = write_dense(folder / "own.safetensors", 1)
    other = write_dense(folder / "other.safetensors", 2, depth="metres", normals="cosine")
    test = evaluation_runs.write_data(folder / "test.h5", 5, 100)
    train = evaluation_runs.write_data(folder / "train.h5", 6, 0)
    return Family(
        job=family_job(generators),
        generators={job.id: write_generators(folder, job, size) for job in generators},
        victims={(name, task): path for name, path in (("own", own), ("other", other)) for task in LETTERS},
        data=dict.fromkeys(LETTERS, test),
        train=dict.fromkeys(LETTERS, train),
    )
