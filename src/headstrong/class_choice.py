"""Which classes are important: by name, or by how well classifiers trained with the cross entropy recall them.

The paper (Nishiyama et al., IJCNN 2022) takes "worst1", "worst2" and "median" of the classes by the cross entropy
model's recall; on which pictures it does not say. Here: on the validation pictures, or, as a switch, on the test ones.
The choice is a small JSON file, so that what is trained for a class follows from a file that anyone can read. It holds
no numbers: as long as the same classes are chosen it has the same bytes, and what was trained for them is still right.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.models.classifier import Classifier, load_classifier
from headstrong.provenance import write_atomically

FORMAT = "headstrong-classes-1"
Array = NDArray[np.float64]


def choose(
    settings: Mapping[str, Any],
    weights: Sequence[Path],
    pictures: Path,
    output: Path,
    recall: Path,
    *,
    device: str,
    batch_size: int,
) -> None:
    """Write the choice of a family's important classes as JSON: format, family, label, classes (names), ranking
    ("validation" | "test"), important (key -> names of its classes); and what it follows from as CSV, a row per class:
    class, recall (percent, mean over the classifiers; empty without any).

    settings: family, label, important (key -> names; none: by rank), ranking. weights: classifiers trained with the
    cross entropy; none where no class is ranked. pictures: those by which classes are ranked.
    Raises ConfigError for a class that there is not and for too few classes or pictures to rank, BrokenFileError or
    MissingDataError for files, DivergedError where what a classifier says is not finite.
    """
    label = settings["label"]
    with contextlib.closing(PictureBatches(pictures, [label], device)) as batches:
        classes = batches.classes[label]
        found = [_recalls(path, batches, label, device, batch_size, pictures) for path in weights]
    means = np.mean(found, axis=0) if found else np.empty(0)
    place = f"config: importance.{settings['family']}.important"
    important = {
        key: _classes(f"{place}.{key}", key, names, classes, means, pictures)
        for key, names in settings["important"].items()
    }
    choice = {
        "format": FORMAT,
        "family": settings["family"],
        "label": label,
        "classes": classes,
        "ranking": settings["ranking"],
        "important": important,
    }
    numbers = [f"{value:.6f}" for value in means] or [""] * len(classes)
    write_atomically(recall, _csv([("class", "recall"), *zip(classes, numbers, strict=True)]))
    write_atomically(output, json.dumps(choice, indent=1, ensure_ascii=False) + "\n")


def _recalls(weights: Path, batches: PictureBatches, label: str, device: str, batch_size: int, pictures: Path) -> Array:
    model = load_classifier(weights, device)
    try:
        return recalls(model, batches, label, batch_size)
    except DivergedError as error:
        raise DivergedError(f"{weights}: what it says of {error} of {pictures} is not finite; train it again") from None


def _csv(rows: Sequence[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def recalls(model: Classifier, pictures: PictureBatches, label: str, batch_size: int) -> Array:
    """Percent of each class's pictures (C,) that the classifier tells; NaN for a class without pictures.

    Raises DivergedError, which names the picture only, where what it says is not a number.
    """
    told = np.zeros(len(pictures.classes[label]))
    there = np.zeros(len(pictures.classes[label]))
    with torch.no_grad():
        for batch in pictures.in_order(batch_size):
            truth = batch.labels[label].cpu().numpy()
            logits = model(batch.images)[label]
            broken = torch.nonzero(~torch.isfinite(logits))
            if len(broken):
                raise DivergedError(f"picture {int(batch.index[broken[0, 0]])}")
            right = logits.argmax(dim=1).cpu().numpy() == truth
            np.add.at(there, truth, 1)
            np.add.at(told, truth, right)
    with np.errstate(invalid="ignore"):
        return 100 * told / there


def ranked(recall: Array) -> dict[str, int]:
    """The numbers of the classes that are recalled worst, second worst, and in the middle (the lower of two).

    Of equally well recalled classes the first is the worse. recall: (C,), percent, without NaN. Needs three classes at
    least; of three or four, the second worst is also the middle one.
    """
    order = np.argsort(recall, kind="stable")
    return {"worst1": int(order[0]), "worst2": int(order[1]), "median": int(order[(len(order) - 1) // 2])}


def _classes(
    place: str, key: str, names: Sequence[str], classes: Sequence[str], recall: Array, pictures: Path
) -> list[str]:
    """The names of the classes that an entry stands for; place: of the entry in the configuration."""
    if names:
        unknown = [name for name in names if name not in classes]
        if unknown:
            raise ConfigError(f"{place}: there is no class '{unknown[0]}' among {', '.join(classes)}")
        return list(names)
    if len(classes) < 3:
        raise ConfigError(f"{place}: {len(classes)} classes cannot be ranked; name the important one")
    if not len(recall) or np.isnan(recall).any():
        absent = [name for name, value in zip(classes, recall, strict=False) if np.isnan(value)]
        raise ConfigError(
            f"{pictures}: no picture of {absent[0] if absent else 'any class'} to rank the classes by; take more"
        )
    return [classes[ranked(recall)[key]]]


def read_choice(path: Path) -> dict[str, Any]:
    """What `choose` wrote; MissingDataError or BrokenFileError, naming the file, where it is not there or another."""
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; choose the important classes first (scripts/choose_classes.py)")
    try:
        choice = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BrokenFileError(f"{path}: not JSON; delete it and choose the classes again") from error
    if not isinstance(choice, dict) or choice.get("format") != FORMAT:
        raise BrokenFileError(f"{path}: not a choice of classes ({FORMAT}); delete it and choose the classes again")
    return choice


def important_classes(path: Path, key: str) -> list[str]:
    """The names of the classes that a key of `important` stands for; BrokenFileError for a key it has not."""
    important = read_choice(path)["important"]
    if key not in important:
        raise BrokenFileError(f"{path}: has no '{key}', but {', '.join(important)}; choose the classes again")
    return list(important[key])
