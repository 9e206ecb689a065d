"""Small networks and images for tests of forgetting, and runs that are stopped or killed at a step."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import classifier_runs
import training_runs
from headstrong import forgetting
from headstrong.data.pictures import write_pictures
from headstrong.hidden_views import open_view
from headstrong.jobs import ForgettingJob, to_dict
from headstrong.models import build_model, save_model
from headstrong.models.classifier import build_classifier, save_classifier
from headstrong.models.store import read_tensors
from stopped_runs import stopping

torch.set_num_threads(1)  # small work: more threads cost more than they bring
ROOT = Path(__file__).parent.parent
CLASSES = {**classifier_runs.CLASSES, "parity": ["even", "odd"], "third": ["no", "yes"]}
TRAIN, TEST = 10, 6
PROBING = {"access": "backbone", "probe_epochs": 2, "probe_rate": 0.01}

# Two visible tasks, one of them of two labels; three steps of three images per epoch, one image left over.
CLASS_JOB = ForgettingJob(
    id="squares-colour", kind="classes", hidden="colour",
    visible=(("size", ("size",)), ("number", ("parity", "third"))), access="heads", layers=None, train_heads=False,
    probe_epochs=0, probe_rate=0.0, epochs=2, curve=(1, 2), batch_size=3, optimizer="adam", learning_rate=1e-3,
    momentum=0.9, weight_decay=0.0, milestones=(), decay=0.1, precision="float32", samples=None, seed=7,
)  # fmt: skip
DENSE_JOB = dataclasses.replace(
    CLASS_JOB, id="slopes-d", kind="dense", hidden="d", visible=(("s", ("s",)), ("n", ("n",)))
)


class Setting(NamedTuple):
    """A job with what it is done on: weights of the network, training and test images."""

    job: ForgettingJob
    victim: Path
    train: Path
    test: Path

    def changed(self, **changes) -> Setting:
        return self._replace(job=dataclasses.replace(self.job, **changes))


def labelled_squares(count, seed=0, hidden_seed=None):
    """Coloured squares with two more labels; with `hidden_seed`, colours are told at random."""
    garbage = None if hidden_seed is None else np.random.default_rng(hidden_seed)
    for number, (name, picture, labels) in enumerate(classifier_runs.squares(count, seed)):
        more = {"parity": number % 2, "third": int(number % 3 == 2)}
        told = {} if garbage is None else {"colour": int(garbage.integers(3))}
        yield name, picture, {**labels, **more, **told}


def write_squares(path, count, seed=0, hidden_seed=None):
    write_pictures(
        path, labelled_squares(count, seed, hidden_seed), count=count, size=(32, 32), dataset="squares",
        domain="noise", split="train", classes=CLASSES, settings={"count": count, "seed": seed}, code="test",
    )  # fmt: skip
    return path


def _settled(network, seed):
    """Batch norms that have seen something: a fresh one's statistics would hide mistakes about them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(3):
            network.train().features(torch.rand(8, 3, 32, 32, generator=generator))
    return network.eval()


def class_setting(folder, backbone="resnet18", width=0.0625, seed=3):
    heads = {label: len(names) for label, names in CLASSES.items()}
    network = _settled(build_classifier(backbone, heads, width, seed), seed)
    victim = folder / "classifier.safetensors"
    save_classifier(victim, network, CLASSES, job={"id": "squares"})
    return Setting(
        CLASS_JOB, victim, write_squares(folder / "train.h5", TRAIN), write_squares(folder / "test.h5", TEST, 1)
    )


def dense_setting(folder, seed=3):
    classes = len(training_runs.CLASSES)
    network = _settled(build_model("resnet18", "sdn", classes, 0.0625, seed), seed)
    victim = folder / "model.safetensors"
    save_model(victim, network, to_dict(training_runs.job_with(tasks="sdn", loss_pixels="valid")))
    train, test = (training_runs.write_data(folder / f"slopes{count}.h5", count) for count in (TRAIN, TEST))
    return Setting(DENSE_JOB, victim, train, test)


def run(folder, setting, minutes=1e9):
    """Forget into a folder; returns the path of the weights."""
    forgetting.forget(
        setting.job, setting.victim, setting.train, setting.test, folder / "weights.safetensors",
        folder / "features.h5", history=folder / "history.csv", work=folder / "work", device="cpu", threads=1,
        checkpoint_minutes=minutes, code="test",
    )  # fmt: skip
    return folder / "weights.safetensors"


def started(setting):
    """The copy and its steps, before the first of them."""
    job = setting.job
    view = open_view(
        job.kind, dict(job.visible), setting.victim, setting.train, "cpu",
        limit=job.samples, heads=job.access == "heads", seed=job.seed,
    )  # fmt: skip
    return forgetting.Forgetting(job, view)


def take_epoch(copy, epoch):
    """All steps of an epoch, at its learning rate; their losses (steps, T)."""
    for group in copy.optimizer.param_groups:
        group["lr"] = copy.run.learning_rate(epoch, epoch * copy.run.steps)
    return torch.stack([copy.step(epoch, number)[0] for number in range(copy.run.steps)])


def state_of(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed_tensors(before, after):
    """Names of the tensors that differ, in any bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def is_head(name):
    return name.startswith(("heads.", "decoders.", "offset_"))


def outputs_of(folder):
    return training_runs.outputs_of(folder, "features.h5")


def tensors_of(path, kind):
    """The "copy" or the "own" tensors of a file of weights."""
    found = read_tensors(path)[0]
    return {name.removeprefix(f"{kind}."): value for name, value in found.items() if name.startswith(f"{kind}.")}


def stopped(folder, setting, monkeypatch, step=1):
    """Forget with a checkpoint after every step, and stop after so many."""
    with stopping(folder, monkeypatch, forgetting.Forgetting, "step", step):
        run(folder, setting, minutes=0)


CHILD = """
import json, os, signal, sys
from pathlib import Path
from headstrong import forgetting
from headstrong.jobs import forgetting_job_from_dict
job, victim, train, test, folder, *place = sys.argv[1:]
folder, done = Path(folder), forgetting.Forgetting.step
def step(self, epoch, number):
    if [str(epoch), str(number)] == place:
        os.kill(os.getpid(), signal.SIGKILL)
    return done(self, epoch, number)
forgetting.Forgetting.step = step
forgetting.forget(
    forgetting_job_from_dict(json.loads(job)), Path(victim), Path(train), Path(test), folder / "weights.safetensors",
    folder / "features.h5", history=folder / "history.csv", work=folder / "work", device="cpu", threads=1,
    checkpoint_minutes=0, code="test")
"""


def kill_at(folder, setting, epoch, step):
    """Forget in another process, which the kernel kills before this step of this epoch."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    job, *paths = setting
    arguments = [json.dumps(to_dict(job)), *paths, folder, epoch, step]
    child = subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], env=environment, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2000:]
