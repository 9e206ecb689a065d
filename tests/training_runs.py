"""Small trainings for tests: ten images of slopes and balls, a narrow network, runs that are killed or stopped."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

import stopped_runs
from headstrong import training
from headstrong.data.cache import write_split
from headstrong.jobs import TrainingJob, to_dict
from headstrong.models import load_model
from stopped_runs import stopping

torch.set_num_threads(1)  # small work: more threads cost more than they bring
ROOT = Path(__file__).parent.parent
CLASSES = ["unlabelled", "left", "right", "ball"]
JOB = TrainingJob(
    id="pair", encoder="resnet18", width=0.125, tasks="sd", weights=(0.5, 0.5), epochs=2, snapshots=(), batch_size=4,
    shuffle=True, optimizer="adam", learning_rate=1e-3, momentum=0.9, weight_decay=0.0, milestones=(), decay=0.1,
    precision="float32", loss_pixels="all", class_weights="uniform", output_start="random", seed=7,
)  # fmt: skip


def raw_samples(count, side=32):
    """Images with something to learn: a slope to the left or right, and a ball somewhere; some pixels unlabelled."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    for number in range(count):
        cx, cy, flip = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), number % 2
        ball = (x - cx) ** 2 + (y - cy) ** 2 < 0.04
        depth = np.where(ball, 1.0, 2 + 3 * (x if flip else 1 - x)).astype(np.float32)
        depth[:2] = 0  # a hole
        labels = np.where(ball, 3, 1 + flip).astype(np.uint8)
        labels[-2:] = 0
        grey = np.clip(depth / 5, 0, 1)
        response = rng.uniform(0, 0.005, (side, side)).astype(np.float32)
        normal = np.stack([np.zeros_like(depth), np.zeros_like(depth), -np.ones_like(depth)])
        yield f"{number:03d}", {
            "rgb": (255 * np.stack([grey, ball, 1 - grey])).astype(np.uint8), "s": labels, "d": depth, "D": depth,
            "n": normal, "p": np.zeros((2, side, side), np.float32),
            **dict.fromkeys("kKeEr", response),
        }  # fmt: skip


def write_data(path, count, absent=None):
    """absent: by row, the letters of which it has no label."""
    lacking = [dict.fromkeys((absent or {}).get(row, "")) for row in range(count)]
    samples = ((name, raw | lacking[row]) for row, (name, raw) in enumerate(raw_samples(count)))
    write_split(
        path, samples, count=count, size=(32, 32), dataset="slopes", split="train", classes=CLASSES,
        settings={"count": count}, code="test",
    )  # fmt: skip
    return path


def job_with(**changes):
    return dataclasses.replace(JOB, **changes)


def run(folder, job, data, snapshots=(), minutes=1e9, threads=1):
    """Train into a folder; returns the path of the weights."""
    paths = {epoch: folder / f"epoch-{epoch}.safetensors" for epoch in snapshots}
    training.train(
        job, data, folder / "weights.safetensors", snapshots=paths, history=folder / "history.csv",
        work=folder / "work", device="cpu", threads=threads, checkpoint_minutes=minutes,
    )  # fmt: skip
    return folder / "weights.safetensors"


def history_of(folder):
    with (folder / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def outputs_of(folder, *more):
    """What equal runs leave equal, by name: weights, history and more files."""
    return {name: (folder / name).read_bytes() for name in ("weights.safetensors", "history.csv", *more)}


def weights_of(path):
    return load_model(path).state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


CHILD = """
import json, sys
from pathlib import Path
from headstrong.jobs import training_job_from_dict
from headstrong.training import train
folder, data, job = Path(sys.argv[1]), Path(sys.argv[2]), training_job_from_dict(json.loads(sys.argv[3]))
train(job, data, folder / "weights.safetensors", snapshots={2: folder / "epoch-2.safetensors"},
      history=folder / "history.csv", work=folder / "work", device="cpu", threads=1, checkpoint_minutes=0)
"""


def kill_after(folder, data, job, epoch, step):
    """Start a training in another process and kill it once its checkpoint is that far; returns where it was."""
    return stopped_runs.kill_after(folder, CHILD, [str(data), json.dumps(to_dict(job))], epoch, step)


def interrupted(folder, data, job, monkeypatch, step=3, snapshots=()):
    """Train with a checkpoint after every step, and stop at a step."""
    with stopping(folder, monkeypatch, training, "train_step", step):
        run(folder, job, data, minutes=0, snapshots=snapshots)


def check_equal_on_a_gpu(tmp_path, job, data):
    """Two runs of a job on a GPU leave equal bytes."""
    for name in ("a", "b"):
        training.train(
            job, data, tmp_path / name / "weights.safetensors", snapshots={}, history=tmp_path / name / "history.csv",
            work=tmp_path / name / "work", device="cuda", threads=1, checkpoint_minutes=0,
        )  # fmt: skip
    for name in ("weights.safetensors", "history.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
