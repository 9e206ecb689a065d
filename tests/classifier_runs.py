"""Small trainings of classifiers for tests: pictures of coloured squares, a narrow network, runs that are killed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

import stopped_runs
from headstrong import classifier_training
from headstrong.data.pictures import write_pictures
from headstrong.jobs import ClassifierJob, to_dict
from stopped_runs import stopping

torch.set_num_threads(1)  # small work: more threads cost more than they bring
ROOT = Path(__file__).parent.parent
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (50, 50, 230)}
CLASSES = {"colour": list(COLOURS), "size": ["small", "large"]}
JOB = ClassifierJob(
    id="squares", backbone="resnet18", width=0.125, labels=("colour", "size"), pretrained=None, epochs=2, batch_size=4,
    optimizer="adam", learning_rate=1e-3, momentum=0.9, weight_decay=0.0, milestones=(), decay=0.1, augment=True,
    precision="float32", seed=7,
)  # fmt: skip


def squares(count, seed=0, side=32):
    """Noise with one coloured square in it: name, picture uint8 (3, side, side), class numbers."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        colour, large = number % len(COLOURS), int(rng.integers(2))
        picture = rng.integers(0, 90, (3, side, side)).astype(np.uint8)
        width = 20 if large else 8
        top, left = rng.integers(0, side - width, 2)
        picture[:, top : top + width, left : left + width] = np.reshape(list(COLOURS.values())[colour], (3, 1, 1))
        yield f"{number:03d}", picture, {"colour": colour, "size": large}


def write_squares(path, count, seed=0, side=32, split="train"):
    write_pictures(
        path, squares(count, seed, side), count=count, size=(side, side), dataset="squares", domain="noise",
        split=split, classes=CLASSES, settings={"count": count, "seed": seed}, code="test",
    )  # fmt: skip
    return path


def job_with(**changes):
    return dataclasses.replace(JOB, **changes)


def run(folder, job, data, minutes=1e9, device="cpu"):
    """Train into a folder; returns the path of the weights."""
    classifier_training.train(
        job, data, folder / "weights.safetensors", history=folder / "history.csv", work=folder / "work",
        device=device, threads=1, checkpoint_minutes=minutes,
    )  # fmt: skip
    return folder / "weights.safetensors"


CHILD = """
import json, sys
from pathlib import Path
from headstrong.classifier_training import train
from headstrong.jobs import classifier_job_from_dict
folder, data, job = Path(sys.argv[1]), Path(sys.argv[2]), classifier_job_from_dict(json.loads(sys.argv[3]))
train(job, data, folder / "weights.safetensors", history=folder / "history.csv", work=folder / "work", device="cpu",
      threads=1, checkpoint_minutes=0)
"""


def kill_after(folder, data, job, epoch, step):
    """Start a training in another process and kill it once its checkpoint is that far."""
    stopped_runs.kill_after(folder, CHILD, [str(data), json.dumps(to_dict(job))], epoch, step)


def stopped(folder, job, data, monkeypatch, step=1):
    """Train with a checkpoint after every step, and stop after so many."""
    with stopping(folder, monkeypatch, classifier_training, "train_step", step):
        run(folder, job, data, minutes=0)
