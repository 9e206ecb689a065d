"""Pictures of one model under one attack: what goes in and what comes out, before and after, into one HDF5 file.

    /image, adversarial        float32 (N, 3, H, W)   in [0, 1]
    /truth/<letter>            s uint8 (N, H, W), classes; the others float32 (N, C, H, W), as the network is taught
    /before/<letter>, after    the same: the network's output on the image and on the attacked one
    /error/<letter>            float32 (N, 2)         `headstrong.metrics`, before and after
    /mask/<letter>             bool (N, H, W)         pixels that have a label
    /index                     str (N,)               names of the samples

File attributes: format, id, tasks, job (JSON), code, weights_sha256, classes (JSON). Equal runs give equal bytes. The
attacked images are those of the evaluation: an attack's draws belong to the sample, whatever batch it is in.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstrong.attacks.run import perturb
from headstrong.data.batches import Batch, Batches
from headstrong.data.cache import SplitFile
from headstrong.errors import ConfigError
from headstrong.folding import frozen
from headstrong.jobs import EvaluationJob, to_dict
from headstrong.losses import per_sample_losses
from headstrong.metrics import per_sample_errors
from headstrong.models import load_metadata, load_model
from headstrong.provenance import atomic_path, file_digest, settings_json
from headstrong.runtime import autocast, reproducible

FORMAT = "headstrong-pictured-1"


def picture(
    job: EvaluationJob, weights: Path, data: Path, output: Path, *, device: str, threads: int, code: str
) -> None:
    """Write the pictures of the model of `weights` on `job.samples` images of `data`, under the job's attack.

    The file appears only when whole. Raises ConfigError for a job that has not one attack, MissingDataError or
    BrokenFileError where weights or data are not what they should be, DivergedError where a gradient is not a number.
    """
    if len(job.attacks) != 1:
        raise ConfigError(f"pictures of {job.id!r}: one attack is shown, the job has {len(job.attacks)}")
    with reproducible(device, threads):
        model = load_model(weights, device)
        batches = Batches(data, job.tasks, device, limit=job.samples, curvature=job.curvature, depth=job.depth)
        with contextlib.closing(batches), SplitFile(data, job.samples) as split:
            batch = batches.get(list(range(batches.count)))
            arrays = _arrays(job, frozen(model, batch.images[:1]), batch, _class_weights(job, weights, device))
            with atomic_path(output) as part, h5py.File(part, "w", locking=False) as file:
                file.attrs["format"] = FORMAT
                file.attrs["id"] = job.id
                file.attrs["tasks"] = job.tasks
                file.attrs["job"] = settings_json(to_dict(job))
                file.attrs["code"] = code
                file.attrs["weights_sha256"] = file_digest(weights)
                file.attrs["classes"] = json.dumps(split.classes, ensure_ascii=False)
                names = np.array(split.names, dtype=object)
                file.create_dataset("index", data=names, dtype=h5py.string_dtype(), track_times=False)
                for name, values in arrays.items():
                    file.create_dataset(name, data=values, track_times=False, compression="gzip")


def _arrays(job: EvaluationJob, model: Any, batch: Batch, class_weights: Tensor | None) -> dict[str, NDArray[Any]]:
    attack = job.attacks[0]
    how: Any = {"pixels": job.loss_pixels, "normals": job.normals, "class_weights": class_weights}

    def outputs(images: Tensor, tasks: str) -> dict[str, Tensor]:
        with autocast(job.precision, images.device):
            found = model(images, tasks)
        return {letter: output.float() for letter, output in found.items()}

    def losses(images: Tensor) -> Tensor:
        return per_sample_losses(outputs(images, attack.attacked), batch, attack.attacked, **how)

    labelled = batch.labelled(attack.attacked)
    adversarial = perturb(losses, batch.images, attack, attack.attacked, batch.index, job.seed, labelled=labelled)
    arrays = {"image": batch.images, "adversarial": adversarial}
    errors = []
    measured: Any = {"pixels": job.error_pixels, "miou": job.miou}
    with torch.no_grad():
        for when, images in (("before", batch.images), ("after", adversarial)):
            found = outputs(images, job.tasks)
            errors.append(per_sample_errors(found, batch, job.tasks, **measured)[0])
            arrays |= {f"{when}/{letter}": _shown(letter, output) for letter, output in found.items()}
    both = torch.stack(errors, dim=-1)  # (N, T, 2)
    for place, letter in enumerate(job.tasks):
        truth = batch.targets[letter]
        arrays[f"truth/{letter}"] = truth.to(torch.uint8) if letter == "s" else truth
        arrays[f"mask/{letter}"] = batch.counted(letter, "valid")
        arrays[f"error/{letter}"] = both[:, place]
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def _shown(letter: str, output: Tensor) -> Tensor:
    return output.argmax(dim=1).to(torch.uint8) if letter == "s" else output


def _class_weights(job: EvaluationJob, weights: Path, device: str) -> Tensor | None:
    """Class weights (C,) of the training, kept beside the model's weights; None where classes weigh alike."""
    if job.class_weights == "uniform" or "s" not in job.tasks:
        return None
    stored = json.loads(load_metadata(weights).get("class_weights") or "null")
    return None if stored is None else torch.tensor(stored, dtype=torch.float32, device=device)
