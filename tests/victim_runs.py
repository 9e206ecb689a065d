"""Victims for tests, made in a moment: classifiers of coloured squares with a head in closed form, a dense network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import classifier_runs
import evaluation_runs
import stopped_runs
import training_runs
from generated_jobs import make_generator_job
from headstrong import generator_training
from headstrong.data.picture_batches import PictureBatches
from headstrong.generator_training import build_generators, train
from headstrong.jobs import GeneratorJob, to_dict
from headstrong.models.classifier import build_classifier, save_classifier
from headstrong.models.generators import Generators
from stopped_runs import stopping

ROOT = Path(__file__).parent.parent
SIDE = 24
TASKS = ("east", "west")
COUNTS = {"east": 36, "west": 24}
COLOURS = list(classifier_runs.COLOURS)
Files = tuple[dict[str, Path], dict[str, Path]]  # weights and data by task
JOB = make_generator_job(tasks=TASKS, label="colour", batch_size=6, epochs=2)


def job_with(**changes: Any) -> GeneratorJob:
    return dataclasses.replace(JOB, **changes)


def dense_job(**changes: Any) -> GeneratorJob:
    dense = {"kind": "dense", "tasks": tuple("sdn"), "label": "", "shared_input": True, "batch_size": 5}
    return job_with(**{**dense, **changes})


def write_classifier(path: Path, data: Path, seed: int, names: list[str] = COLOURS) -> Path:
    """A network that nothing has trained but for its head: least squares on its features, right on all of the data."""
    model = build_classifier("resnet18", {"colour": len(COLOURS)}, width=0.125, seed=seed).eval()
    batches = PictureBatches(data, ["colour"], "cpu")
    batch = batches.get(range(batches.count))
    with torch.no_grad():
        features = model.features(batch.images)
        mean, spread = features.mean(0), features.std()
        seen = ((features - mean) / spread).double()
        wanted = F.one_hot(batch.labels["colour"], len(COLOURS)).double() - 1 / len(COLOURS)
        ridge = 1e-2 * len(seen) * torch.eye(seen.shape[1], dtype=torch.float64)
        found = torch.linalg.solve(seen.T @ seen + ridge, seen.T @ wanted).float()
        model.heads[0].weight.copy_(8 * found.T / spread)
        model.heads[0].bias.copy_(-model.heads[0].weight @ mean)
    save_classifier(path, model, {"colour": names}, {})
    return path


def class_victims(folder: Path) -> Files:
    """Two domains of squares, of different counts, with a classifier of the colours each."""
    data = {
        task: classifier_runs.write_squares(folder / f"{task}.h5", count, seed, SIDE)
        for seed, (task, count) in enumerate(COUNTS.items())
    }
    weights = {
        task: write_classifier(folder / f"{task}.safetensors", data[task], seed) for seed, task in enumerate(data)
    }
    return weights, data


def dense_victims(folder: Path) -> Files:
    """DMTL's network, trained as MTAN trains it until it looks at its images, and these."""
    data = evaluation_runs.write_data(folder / "train.h5", 16, 0)
    job = training_runs.job_with(
        encoder="segnet", tasks="sdn", weights=(1.0, 1.0, 1.0), depth="metres", normals="cosine", epochs=40,
        batch_size=8, learning_rate=2e-3, output_start="mean", loss_pixels="valid", class_weights="prior",
    )  # fmt: skip
    weights = training_runs.run(folder, job, data)
    return dict.fromkeys("sdn", weights), dict.fromkeys("sdn", data)


def run(folder: Path, job: GeneratorJob, files: Files, minutes: float = 1e9, device: str = "cpu") -> Path:
    """Train generators into a folder; returns the path of the weights."""
    train(
        job, *files, folder / "weights.safetensors", history=folder / "history.csv", work=folder / "work",
        device=device, threads=1, checkpoint_minutes=minutes,
    )  # fmt: skip
    return folder / "weights.safetensors"


def random_signs(images: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Noise (B, 3, H, W) in pixel units at the corners of the Linf ball: what an attack must be stronger than."""
    drawn = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(drawn < 0.5, -epsilon, epsilon)


def used(job: GeneratorJob) -> Generators:
    """Generators in evaluation mode, with the running averages that a training would leave."""
    generators = build_generators(job).train()
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _ in range(40):
            generators({task: torch.rand(3, 3, SIDE, SIDE, generator=drawn) for task in job.tasks})
    return generators.eval()


CHILD = """
import json, sys
from pathlib import Path
from headstrong.generator_training import train
from headstrong.jobs import generator_job_from_dict
folder, job, victims, data = Path(sys.argv[1]), *(json.loads(text) for text in sys.argv[2:])
paths = [{task: Path(path) for task, path in given.items()} for given in (victims, data)]
train(generator_job_from_dict(job), *paths, folder / "weights.safetensors", history=folder / "history.csv",
      work=folder / "work", device="cpu", threads=1, checkpoint_minutes=0)
"""


def kill_after(folder: Path, job: GeneratorJob, files: Files, epoch: int, step: int) -> None:
    """Start a training in another process and kill it once its checkpoint is that far."""
    given = [json.dumps({task: str(path) for task, path in paths.items()}) for paths in files]
    stopped_runs.kill_after(folder, CHILD, [json.dumps(to_dict(job)), *given], epoch, step)


def stopped(folder: Path, job: GeneratorJob, files: Files, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Train generators of one task with a checkpoint after every step, and stop after so many."""
    with stopping(folder, monkeypatch, generator_training, "batch_rows", steps):
        run(folder, job, files, minutes=0)
