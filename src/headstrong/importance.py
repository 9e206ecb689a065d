"""Evaluate a family of important classes: what every trial says of every picture, and at which angle it sees it.

One HDF5 per family ("headstrong-importance-1"), per picture, so that recalls, accuracies and angles can be recomputed:

    /truth/<split>                     int16 (N,)     number of the true class; splits: validation (if any), test
    /trials/<id>/<split>/predicted     int16 (N,)     number of the class it is taken for
    /trials/<id>/<split>/angle         float32 (N,)   radians between its feature and the true class's weight vector
    /trials/<id>/test/features         float32 (N, 2) where features have two numbers
    /trials/<id>/weights               float32 (C, 2) there: the weight vectors

A trial's attributes: loss, important, margin, scale, weight (NaN where a loss has none) and trial, its number. The
file's: format, family, dataset, label, classes, important, ranking, job (JSON), code, complete. Equal content gives
equal bytes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from headstrong.class_choice import read_choice
from headstrong.data.hdf5_files import FILE_FORMAT
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, DivergedError
from headstrong.jobs import ImportanceJob, to_dict
from headstrong.learned import NOT_LEARNED, learned, majority_right
from headstrong.models.classifier import Classifier, load_classifier, load_classifier_metadata
from headstrong.progress import BatchProgress
from headstrong.provenance import atomic_path, code_digest
from headstrong.runtime import reproducible

FORMAT = "headstrong-importance-1"
Arrays = dict[str, NDArray[Any]]
log = logging.getLogger(__name__)


def evaluate(
    job: ImportanceJob,
    weights: Path,
    pictures: Mapping[str, Path],
    choice: Path,
    output: Path,
    *,
    device: str,
    threads: int,
    code: str | None = None,
) -> None:
    """Evaluate all trials of a family and write one HDF5.

    weights: folder with `<trial>/weights.safetensors` of each. pictures: file of every split, "test" among them.
    choice: the JSON of the important classes. Raises ConfigError without test pictures, BrokenFileError for classifiers
    or pictures of other classes than the choice has, or trained for other important ones, DivergedError for an angle
    that is not a number, and what reading raises.
    """
    if "test" not in pictures:
        raise ConfigError(f"family {job.family}: no test pictures; give --data test=FILE")
    chosen = read_choice(choice)
    with reproducible(device, threads), contextlib.ExitStack() as stack:
        splits = {}
        for split, path in pictures.items():
            splits[split] = stack.enter_context(contextlib.closing(PictureBatches(path, [job.label], device)))
            if splits[split].classes[job.label] != chosen["classes"]:
                raise BrokenFileError(f"{path}: other classes than {choice} has; delete both and make them again")
        unfinished = stack.enter_context(atomic_path(output))
        file = stack.enter_context(h5py.File(unfinished, "w", libver=FILE_FORMAT, locking=False))
        for split, batches in splits.items():
            file.create_dataset(f"truth/{split}", data=batches.truth(job.label).astype(np.int16), track_times=False)
        progress = stack.enter_context(BatchProgress(f"family {job.family}", len(job.trials)))
        for trial in job.trials:
            accuracy = _evaluate_trial(
                file, trial, weights / trial / "weights.safetensors", splits, chosen, job, device
            )
            truth = splits["test"].truth(job.label)
            if not learned(file[f"trials/{trial}/test/predicted"][:] == truth, majority_right(truth)):
                log.warning("classifier %s: %s", trial, NOT_LEARNED)
            progress.advance()
            progress.finished(trial, partial("test accuracy {:.1f} %".format, accuracy))
        _describe(file, job, chosen, splits["test"].dataset, code or code_digest("headstrong.importance"))


def _describe(file: h5py.File, job: ImportanceJob, chosen: Mapping[str, Any], dataset: str, code: str) -> None:
    file.attrs["family"] = job.family
    file.attrs["dataset"] = dataset
    file.attrs["label"] = job.label
    file.attrs["classes"] = json.dumps(chosen["classes"], ensure_ascii=False)
    # In the order of the configuration, which the tables then follow.
    important = {key: chosen["important"][key] for key, _ in job.important}
    file.attrs["important"] = json.dumps(important, ensure_ascii=False)
    file.attrs["ranking"] = chosen["ranking"]
    file.attrs["job"] = json.dumps(to_dict(job))
    file.attrs["code"] = code
    file.attrs["format"] = FORMAT
    file.attrs["complete"] = 1


def _evaluate_trial(
    file: h5py.File,
    trial: str,
    weights: Path,
    splits: Mapping[str, PictureBatches],
    chosen: Mapping[str, Any],
    job: ImportanceJob,
    device: str,
) -> float:
    """Write what one trial says; returns its test accuracy in percent."""
    model = load_classifier(weights, device)
    if model.classes != {job.label: len(chosen["classes"])}:
        raise BrokenFileError(f"{weights}: tells {model.classes}, expected {len(chosen['classes'])} of {job.label}")
    group = file.create_group(f"trials/{trial}")
    for key, value in _setting(trial, weights, chosen).items():
        group.attrs[key] = value
    vectors = _weight_vectors(model)
    flat = vectors.shape[1] == 2
    for split, batches in splits.items():
        found = measure(model, batches, job.label, job.batch_size, features=flat and split == "test")
        _check_numbers(found["angle"], trial, split)
        for name, values in found.items():
            group.create_dataset(f"{split}/{name}", data=values, track_times=False)
    if flat:
        group.create_dataset("weights", data=vectors.float().cpu().numpy(), track_times=False)
    right = group["test/predicted"][:] == file["truth/test"][:]
    return 100 * float(right.mean())


def _check_numbers(angles: NDArray[Any], trial: str, split: str) -> None:
    """DivergedError for a feature that is not a number: the class told from it would look like a prediction."""
    broken = np.flatnonzero(~np.isfinite(angles))
    if len(broken):
        raise DivergedError(f"{trial}, {split}: the angle of picture {broken[0]} is not a number; train it again")


def _setting(trial: str, weights: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a trial, from how its classifier says it was trained."""
    description = load_classifier_metadata(weights)
    loss = description["job"]["loss"] or {"name": "ce"}
    key = loss.get("important") or ""
    if key and description["important"] != chosen["important"].get(key):
        raise BrokenFileError(
            f"{weights}: trained for {description['important']}, but {key} is {chosen['important'].get(key)}; "
            "delete it and train this classifier again"
        )
    numbers = {name: math.nan if loss.get(name) is None else loss[name] for name in ("margin", "scale", "weight")}
    return {"loss": loss["name"], "important": key, **numbers, "trial": int(trial.rpartition("-")[2])}


def measure(model: Classifier, pictures: PictureBatches, label: str, batch_size: int, features: bool = False) -> Arrays:
    """What a classifier says of every picture: predicted int16 (N,) and angle float32 (N,) in radians between feature
    and the true class's weight vector; with `features` also those, float32 (N, F).

    Angles are computed in float64, as arc tangent of sine and cosine: the arc cosine loses half its digits near 0.
    """
    vectors = _weight_vectors(model)
    found: dict[str, list[NDArray[Any]]] = {"predicted": [], "angle": [], **({"features": []} if features else {})}
    for batch in pictures.in_order(batch_size):
        with torch.no_grad():
            feature = model.features(batch.images)
            predicted = model.heads[0](feature).argmax(dim=1)
            own = vectors[batch.labels[label]]
            found["predicted"].append(predicted.cpu().numpy().astype(np.int16))
            found["angle"].append(angles(feature, own).float().cpu().numpy())
            if features:
                found["features"].append(feature.float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def angles(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Radians float64 (B,) between vectors (B, F), after Kahan: 2 atan2(|a - b|, |a + b|) of unit vectors a and b."""
    a, b = (torch.nn.functional.normalize(vectors.double(), dim=1) for vectors in (first, second))
    return 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))


def _weight_vectors(model: Classifier) -> torch.Tensor:
    """(C, F): of the linear layer, or of the layer of cosines."""
    return model.heads[0].get_parameter("weight").detach()
