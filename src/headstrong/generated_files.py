"""Universal perturbations as files that other programs can read, and how they are added to a picture.

    <folder>/<task>.npy          float32 (3, H, W), channels red, green, blue, for pixels from 0 to 255
    <folder>/<task>.png          for looking: 128 where nothing changes, stretched to fill 8 bits
    <folder>/perturbation.json   format, generator, norm, epsilon (linf: "10/255"), size, tasks, files, how to add them

A dense task is a letter, and its file is named as `tasks.file_safe` writes it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstrong import radius
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.jobs import GeneratorJob
from headstrong.provenance import write_atomically
from headstrong.tasks import file_safe

FORMAT = "headstrong-perturbation-2"
FIRST_FORMAT = "headstrong-perturbation-1"  # its epsilon is on the scale of the values
DESCRIPTION = "perturbation.json"
HOW = (
    "adversarial = clip(picture + perturbation, 0, 255); picture: red, green, blue, 0 to 255, of this size; "
    "or: python scripts/apply_perturbation.py --perturbation FILE.npy --images FOLDER --output FOLDER"
)
GREY = 128  # no change, in the picture for looking
ROUNDING = 1e-3  # of 255: float32 may leave 9.9999 where a network meant 10
_REMEDY = "export it again"


@dataclass(frozen=True)
class UniversalPerturbation:
    """One perturbation for all pictures: values float32 (3, H, W) for pixels from 0 to 255, and the ball it is of.

    norm: "linf" | "l2". epsilon: radius in pixel units, images in [0, 1].
    """

    values: NDArray[np.float32]
    norm: str
    epsilon: float

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.values.shape[1], self.values.shape[2]


def export_perturbations(folder: Path, job: GeneratorJob, perturbations: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the perturbations (3, H, W), for pixels from 0 to 255, by task of one set of universal generators.

    Equal content gives equal bytes.
    """
    files = {task: _file_name(job, task) for task in perturbations}
    for task, values in perturbations.items():
        write_atomically(folder / files[task], _npy(values))
        write_atomically((folder / files[task]).with_suffix(".png"), _png(picture_of(values)))
    height, width = next(iter(perturbations.values())).shape[1:]
    description = {
        "format": FORMAT,
        "generator": job.id,
        "method": job.method,
        "goal": job.goal,
        "norm": job.norm,
        "epsilon": job.epsilon if job.norm == "l2" else str(radius.parse(job.epsilon)),
        "units": "values of the files 0 to 255, epsilon in pixels of [0, 1]",
        "size": [height, width],
        "targets": dict(zip(job.tasks, job.targets, strict=True)) if job.targets else {},
        "files": files,
        "use": HOW,
    }
    write_atomically(folder / DESCRIPTION, json.dumps(description, indent=1, ensure_ascii=False) + "\n")


def read_perturbation(path: Path) -> UniversalPerturbation:
    """The perturbation of a .npy file. Without a perturbation.json beside it, it is an Linf ball's, as large as it is.

    Raises MissingDataError when it is absent, BrokenFileError when it is none or not as described.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such perturbation; evaluate a family of universal generators first")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BrokenFileError(f"{path}: not an array of numpy ({_line(error)}); {_REMEDY}") from error
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.shape[0] != 3 or values.dtype.kind not in "fiu":
        raise BrokenFileError(f"{path}: expected numbers (3, H, W), red, green and blue; {_REMEDY}")
    values = values.astype(np.float32)
    if not values.size or not np.isfinite(values).all():
        raise BrokenFileError(f"{path}: empty, or holds a value that is not a finite number; {_REMEDY}")
    description = path.with_name(DESCRIPTION)
    if not description.is_file():
        return UniversalPerturbation(values, "linf", float(np.abs(values).max()) / radius.SHADES)
    norm, epsilon = _ball(description)
    found = float(np.abs(values).max() if norm == "linf" else np.linalg.norm(values.astype(np.float64)))
    if found > radius.SHADES * epsilon + ROUNDING:
        size, said = (radius.text(one, norm) for one in (found / radius.SHADES, epsilon))
        raise BrokenFileError(f"{path}: its {norm} norm is {size}, {description} says {said}; {_REMEDY}")
    return UniversalPerturbation(values, norm, epsilon)


def perturb_picture(
    picture: NDArray[np.uint8], perturbation: UniversalPerturbation, *, tile: bool = False
) -> NDArray[np.uint8]:
    """The picture (H, W, 3) with the perturbation added, whole numbers in the ball and in [0, 255].

    Changes are rounded towards the original. tile: the perturbation is repeated from the upper left corner to cover
    the picture. Raises ConfigError, not naming the picture, where sizes differ without `tile`, and for a tiled
    perturbation of an L2 ball, since several copies would leave it.
    """
    height, width = picture.shape[:2]
    if (height, width) != perturbation.size:
        own = f"{perturbation.size[0]}x{perturbation.size[1]}"
        if not tile:
            raise ConfigError(f"{height}x{width} pixels, the perturbation has {own}; use --resize or --tile")
        if perturbation.norm != "linf" and (height > perturbation.size[0] or width > perturbation.size[1]):
            raise ConfigError(f"{height}x{width} pixels: copies of {own} would leave the L2 ball; use --resize")
    change = whole_numbers(perturbation)
    copies = (1, -(-height // change.shape[1]), -(-width // change.shape[2]))
    change = np.tile(change, copies)[:, :height, :width].transpose(1, 2, 0)
    return np.clip(picture.astype(np.int32) + change, 0, 255).astype(np.uint8)


def whole_numbers(perturbation: UniversalPerturbation) -> NDArray[np.int32]:
    """The perturbation (3, H, W) in whole numbers: no larger than it was, and inside its ball."""
    size = np.abs(perturbation.values).astype(np.float64)
    if perturbation.norm == "linf":
        # What float rounding took off a whole number is given back, but never more than the ball allows.
        size = np.minimum(np.floor(size + ROUNDING), np.floor(radius.SHADES * perturbation.epsilon + 1e-6))
    return (np.sign(perturbation.values) * np.floor(size)).astype(np.int32)


def picture_of(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A perturbation (3, H, W) as a picture (H, W, 3) for looking: grey where it is 0, stretched to fill 8 bits."""
    largest = float(np.abs(values).max())
    stretched = values.astype(np.float64) * ((255 - GREY) / largest if largest > 0 else 0)
    return np.rint(GREY + stretched).astype(np.uint8).transpose(1, 2, 0)


def read_picture(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Any picture of 8 bits as colours uint8 (H, W, 3), upright, and its transparency (H, W), None where it has none.

    Raises MissingDataError when it is absent, BrokenFileError, in one line, when it cannot be read or has more bits.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such picture")
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I") or image.mode == "F":
                raise BrokenFileError(f"{path}: has more than 8 bits per channel; save it with 8 bits first")
            clear = "transparency" in image.info or "A" in image.getbands()
            array = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenFileError(f"{path}: cannot be read as a picture ({_line(error)})") from error
    return array[..., :3].copy(), array[..., 3].copy() if clear else None


def write_picture(path: Path, colours: NDArray[np.uint8], transparency: NDArray[np.uint8] | None = None) -> None:
    """Write colours uint8 (H, W, 3), and transparency (H, W) if any, as PNG, which loses nothing."""
    array = colours if transparency is None else np.dstack([colours, transparency])
    write_atomically(path, _png(array))


def resized(array: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) or a plane (H, W) at another size (H, W)."""
    return np.asarray(Image.fromarray(array).resize(size[::-1], Image.Resampling.LANCZOS))


def _file_name(job: GeneratorJob, task: str) -> str:
    return f"{file_safe(task) if job.kind == 'dense' else task}.npy"


def _ball(description: Path) -> tuple[str, float]:
    try:
        fields: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))
        norm, epsilon = str(fields["norm"]), float(radius.parse(fields["epsilon"]))
        epsilon /= radius.SHADES if fields.get("format") == FIRST_FORMAT else 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenFileError(f"{description}: not the description of a perturbation ({_line(error)})") from error
    if norm not in ("linf", "l2"):
        raise BrokenFileError(f"{description}: norm {norm!r}; expected linf or l2")
    return norm, epsilon


def _npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()


def _png(array: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
