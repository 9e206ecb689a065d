"""Pictures of chosen models under attack, drawn from what `picture_attacks` leaves, as data for the explorer."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstrong.errors import BrokenFileError
from headstrong.figures.generated_pictures import palette
from headstrong.report.model_data import radius_words, short

FORMAT = "headstrong-pictured-1"
WHEN = ("truth", "before", "after")
UNLABELLED = (228, 228, 228)
Pixels = NDArray[np.uint8]
Values = NDArray[Any]


def of_models(folder: Path) -> dict[str, Any]:
    """models: by id, attack (in words), scale (how much the difference is magnified) and images, a list of
    {name, input, adversarial, difference, tasks: {letter: {truth, before, after, error_before, error_after}}} with
    the pictures as data addresses. Empty where the folder is not there.

    folder: <model>.h5. Raises BrokenFileError for a file that is none of these.
    """
    paths = sorted(folder.glob("*.h5")) if folder.is_dir() else []
    return {"models": {path.stem: _model(path) for path in paths}}


def _model(path: Path) -> dict[str, Any]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs["format"] != FORMAT:
                raise KeyError(file.attrs["format"])
            return _shown(file)
    except (OSError, KeyError, ValueError) as error:
        raise BrokenFileError(f"{path}: no pictures of a model under attack; delete it and make them again") from error


def _shown(file: h5py.File) -> dict[str, Any]:
    attack = json.loads(file.attrs["job"])["attacks"][0]
    classes = len(json.loads(file.attrs["classes"]))
    images, attacked = file["image"][:], file["adversarial"][:]
    change = attacked - images
    largest = float(attack["epsilon"]) if attack["norm"] == "linf" else max(float(np.abs(change).max()), 1e-6)
    found = []
    for k, name in enumerate(file["index"].asstr()[:]):
        tasks = {}
        for letter in file.attrs["tasks"]:
            maps = [file[f"{when}/{letter}"][k] for when in WHEN]
            drawn = colours(letter, maps, file[f"mask/{letter}"][k], classes)
            before, after = (short(value) for value in file[f"error/{letter}"][k])
            drawings = {when: _png(pixels) for when, pixels in zip(WHEN, drawn, strict=True)}
            tasks[letter] = {**drawings, "error_before": before, "error_after": after}
        three = {"input": images[k], "adversarial": attacked[k], "difference": 0.5 + change[k] / (2 * largest)}
        found.append({"name": name, **{key: _png(eight_bits(v)) for key, v in three.items()}, "tasks": tasks})
    words = f"{attack['family']} on {attack['attacked']}, {radius_words(attack['norm'], attack['epsilon'])}"
    return {"attack": f"{words}, {attack['steps']} steps", "scale": short(0.5 / largest), "images": found}


def eight_bits(values: Values) -> Pixels:
    """Colours (3, H, W) in [0, 1] as (H, W, 3) from 0 to 255."""
    return np.rint(np.moveaxis(np.clip(values, 0, 1), 0, -1) * 255).astype(np.uint8)


def colours(letter: str, maps: list[Values], mask: NDArray[np.bool_], classes: int) -> list[Pixels]:
    """Truth, prediction before and after as colours (H, W, 3): one scale for the three, by the truth where it is
    known (1st to 99th percentile); of p the first curvature. Truth without a label is pale grey."""
    if letter == "s":
        drawn = [np.rint(palette(classes)[values] * 255).astype(np.uint8) for values in maps]
    elif letter in "nA":
        drawn = [eight_bits((values + 1) / 2) for values in maps]
    else:
        single = [values[0] for values in maps]
        known = single[0][mask & np.isfinite(single[0])]
        low, high = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
        scaled = [np.clip((values - low) / max(high - low, 1e-6), 0, 1) for values in single]
        drawn = [np.rint(mpl.colormaps["viridis"](values)[..., :3] * 255).astype(np.uint8) for values in scaled]
    drawn[0][~mask] = UNLABELLED
    return drawn


def _png(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
