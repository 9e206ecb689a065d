"""Models on disk: safetensors, never a pickle, so reading a file cannot run code. Equal models give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save

from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.models.multitask import MultiTaskModel, build_model, use_channels_last
from headstrong.provenance import settings_json, write_atomically

FORMAT = "headstrong-model-1"
# One key for everything: safetensors does not promise an order of several keys, and the bytes would vary.
KEY = "headstrong"


def save_model(path: Path, model: MultiTaskModel, job: dict[str, Any], extra: dict[str, str] | None = None) -> None:
    """Write a model; the file appears when whole. job: the training job as a dictionary; extra: code digest and such.

    All of it can be read back with `load_metadata`. Nothing in the file depends on time, host or device.
    """
    description = {
        "format": FORMAT,
        "encoder": model.encoder_name,
        "tasks": model.tasks,
        "classes": model.classes,
        "width": model.width,
        "layout": model.layout,
        "job": job,
        **(extra or {}),
    }
    write_tensors(path, model.state_dict(), description)


def load_model(path: Path, device: torch.device | str = "cpu") -> MultiTaskModel:
    """The model of a file, in evaluation mode, on `device`, in the memory layout the training uses.

    Raises MissingDataError where there is no file; BrokenFileError, naming the file, for a pickle, a truncated file,
    or a safetensors file of something else.
    """
    tensors, description = _read_checked(path)
    try:
        with torch.device("meta"):  # shapes only: the weights come from the file
            shape = {key: description[key] for key in ("encoder", "tasks", "classes", "width")}
            model = build_model(**shape, layout=description.get("layout"))  # files older than layouts name none
        model.load_state_dict(tensors, assign=True)
    except (ConfigError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenFileError(
            f"{path}: its tensors are not those of the model it names ({reason}); {_REMEDY}"
        ) from error
    return use_channels_last(model.to(device)).eval()


def load_metadata(path: Path) -> dict[str, Any]:
    """What `save_model` wrote beside the weights: encoder, tasks, classes, width, layout, job and the extra entries.

    Raises MissingDataError where there is no file, BrokenFileError for anything but a model.
    """
    return _read_checked(path)[1]


def _read_checked(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; train this model first")
    tensors, description = read_tensors(path)
    if description.get("format") != FORMAT:
        raise BrokenFileError(f"{path}: not a model of headstrong ({FORMAT}); {_REMEDY}")
    return tensors, description


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], description: dict[str, Any]) -> None:
    """Write tensors and a JSON description as one safetensors file, atomically; equal content gives equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, {KEY: settings_json(description)}))


def read_tensors(
    path: Path, wanted: Callable[[str], bool] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The inverse of `write_tensors`. The tensors are on the CPU.

    Raises BrokenFileError for anything else, and for numbers that are not finite, of an optimiser's state excepted.

    wanted: by name, which tensors; the bytes of the others are not read. None: all.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[KEY])
            names = [name for name in file.keys() if wanted is None or wanted(name)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenFileError(f"{path}: truncated or not a file of headstrong ({reason}); {_REMEDY}") from error
    _check_numbers(path, tensors)
    return tensors, description


def _check_numbers(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """BrokenFileError that names the first tensor with NaN or infinity: what is made of them may look like a result."""
    for name, tensor in tensors.items():
        # An optimiser's state is no result; where it makes one that is no number, the training says so.
        if tensor.is_floating_point() and not name.startswith("optimizer.") and not torch.isfinite(tensor).all():
            raise BrokenFileError(f"{path}: {name} holds numbers that are not finite; {_REMEDY}")


_REMEDY = "delete it and train this model again"
