"""Small families of important classes for tests: noise with a coloured square, a narrow network, one short epoch."""

from __future__ import annotations

import dataclasses

from classifier_runs import JOB, write_squares
from headstrong import class_choice, classifier_training
from headstrong.jobs import ClassLossJob, ImportanceJob

SETTINGS = {
    "ce": None,
    "wce": ClassLossJob("wce", weight=3.0, important="worst1"),
    "crwwce": ClassLossJob("crwwce", weight=2.0, important="worst1"),
    "softmax": ClassLossJob("softmax", scale=8.0),
    "arcface": ClassLossJob("arcface", margin=4.0, scale=8.0),
    "camri": ClassLossJob("camri", margin=4.0, scale=8.0, important="worst1"),
}
BASE = dataclasses.replace(JOB, labels=("colour",), epochs=1, augment=False)


def job(name, trial=0, **changes):
    """The training of one loss; trials of one number have one seed."""
    made = dataclasses.replace(BASE, id=f"squares-{name}-{trial}", seed=100 + trial, loss=SETTINGS[name], feature=6)
    return dataclasses.replace(made, **changes)


def train(folder, made, data, important=(), minutes=1e9):
    """Train into <folder>/<id>; returns the path of the weights."""
    place = folder / made.id
    favoured = important if made.loss is not None and made.loss.important else ()
    classifier_training.train(
        made, data, place / "weights.safetensors", history=place / "history.csv", work=place / "work", device="cpu",
        threads=1, checkpoint_minutes=minutes, important=favoured,
    )  # fmt: skip
    return place / "weights.safetensors"


def pictures(folder):
    """Files of training, validation and test pictures."""
    sizes = {"train": 12, "validation": 9, "test": 15}
    return {
        split: write_squares(folder / f"{split}.h5", count, seed, split=split)
        for seed, (split, count) in enumerate(sizes.items())
    }


def choice_settings(**changes):
    return {
        "family": "squares",
        "label": "colour",
        "important": {"worst1": [], "named": ["blue"]},
        "ranking": "validation",
        **changes,
    }


def family(folder, names=tuple(SETTINGS), trials=2, **changes):
    """Train a whole family; returns its job, the pictures and the choice of its classes."""
    data = pictures(folder)
    first = [train(folder, job("ce", trial, **changes), data["train"]) for trial in range(trials)]
    choice = folder / "classes.json"
    recall = folder / "recall.csv"
    class_choice.choose(choice_settings(), first, data["validation"], choice, recall, device="cpu", batch_size=4)
    important = class_choice.important_classes(choice, "worst1")
    for name in names:
        for trial in range(trials):
            train(folder, job(name, trial, **changes), data["train"], important)
    ids = tuple(f"squares-{name}-{trial}" for name in names for trial in range(trials))
    made = ImportanceJob(
        family="squares", label="colour", important=(("worst1", ()), ("named", ("blue",))), ranking="validation",
        trials=ids, tolerance=0.5, batch_size=4,
    )  # fmt: skip
    return made, data, choice
