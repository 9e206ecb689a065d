"""A data set one can learn in a moment, jobs to evaluate on it, and readers of what comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

from headstrong.data.batches import Batches
from headstrong.data.cache import write_split
from headstrong.evaluation import evaluate
from headstrong.jobs import AttackJob, EvaluationJob
from headstrong.losses import per_sample_losses
from headstrong.models import build_model, save_model

SIDE, COUNT, TASKS = 32, 10, "sdn"
CLASSES = ["unlabelled", "dark", "bright"]
CLASS_WEIGHTS = [0.0, 0.5, 2.0]
EPSILON = 8 / 255


def attack_job(name: str, stepper: str, balancer: str, attacked: str, **changes: object) -> AttackJob:
    fields = {"norm": "linf", "epsilon": EPSILON, "step_size": 2 / 255, "steps": 6, "start": "uniform", "restarts": 1}
    return AttackJob(
        name=name, family=stepper, stepper=stepper, balancer=balancer, attacked=attacked, **{**fields, **changes}
    )


ATTACKS = (
    attack_job("pgd.single.s.linf.8.6", "pgd", "single", "s"),
    attack_job("pgd.single.d.linf.8.6", "pgd", "single", "d"),
    attack_job("pgd.total.sdn.linf.8.6", "pgd", "total", "sdn"),
    attack_job("pgd.total.sdn.l2.128.6", "pgd", "total", "sdn", norm="l2", epsilon=0.5, step_size=0.2),
    attack_job("noise.total.sdn.linf.8.1", "noise", "total", "sdn", steps=1),
)


def make_job(**changes: object) -> EvaluationJob:
    base = EvaluationJob(
        id="combinations-xception-sdn",
        tasks=TASKS,
        attacks=ATTACKS,
        samples=None,
        batch_size=4,
        error_pixels="valid",
        miou="labelled",
        loss_pixels="valid",
        class_weights="uniform",
        precision="float32",
        seed=3,
    )
    return replace(base, **changes)


def raw_sample(seed: int) -> dict[str, np.ndarray]:
    """A dark and a bright side, cut at a random column: labels follow. Some pixels have no depth or no label."""
    rng = np.random.default_rng(seed)
    bright = np.broadcast_to((np.arange(SIDE) < rng.integers(6, SIDE - 6)) ^ (rng.random() < 0.5), (SIDE, SIDE))
    rgb = (np.where(bright, 150, 105) + rng.normal(0, 12, (3, SIDE, SIDE))).clip(0, 255).astype(np.uint8)
    labels = np.where(bright, 2, 1).astype(np.uint8)
    labels[:3] = 0
    depth = np.where(bright, 0.1, 20.0).astype(np.float32)
    depth[:, :2] = 0
    tilt = np.where(bright, 0.8, -0.8)
    normals = np.stack([np.sin(tilt), np.zeros_like(tilt), -np.cos(tilt)]).astype(np.float32)
    others = {letter: np.zeros((SIDE, SIDE), np.float32) for letter in "kKeEr"}
    curvature = np.zeros((2, SIDE, SIDE), np.float32)
    return {"rgb": rgb, "s": labels, "d": depth, "D": depth, "n": normals, "p": curvature, **others}


def write_data(path: Path, count: int, first_seed: int, absent: Mapping[int, str] | None = None) -> Path:
    """absent: by row, the letters of which it has no label."""
    seeds = range(first_seed, first_seed + count)
    lacking = [dict.fromkeys((absent or {}).get(row, "")) for row in range(count)]
    samples = ((f"frame {seed}", raw_sample(seed) | lacking[row]) for row, seed in enumerate(seeds))
    known = {"size": (SIDE, SIDE), "dataset": "sides", "split": "test", "classes": CLASSES, "settings": {}, "code": "0"}
    write_split(path, samples, count=count, **known)
    return path


def train_briefly(folder: Path) -> Path:
    """Weights of a network trained for a moment, so that it answers better than chance."""
    batches = Batches(write_data(folder / "train.h5", 64, 0), TASKS, "cpu")
    model = build_model("xception", TASKS, len(CLASSES), width=0.125, seed=1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        batch = batches.get(torch.arange(16) + 16 * (step % 4))
        losses = per_sample_losses(model(batch.images), batch, TASKS, pixels="valid", class_weights=None)
        optimizer.zero_grad()
        losses.mean(0).sum().backward()
        optimizer.step()
    save_model(folder / "weights.safetensors", model, {}, {"class_weights": json.dumps(CLASS_WEIGHTS)})
    return folder / "weights.safetensors"


def run(job: EvaluationJob, weights: Path, data: Path, output: Path) -> Path:
    evaluate(job, weights, data, output, device="cpu", threads=1, code="c0de")
    return output


def losses_of(file: h5py.File, group: str) -> np.ndarray:
    return np.stack([file[f"{group}/{letter}/loss"][:] for letter in TASKS], 1)


def errors_of(file: h5py.File, group: str) -> np.ndarray:
    return np.stack([file[f"{group}/{letter}/error"][:] for letter in TASKS], 1)
