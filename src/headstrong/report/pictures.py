"""Pictures of chosen models under attack, as `picture_attacks` leaves them: read and put into the page."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from headstrong.errors import BrokenFileError

INDEX = "index.json"
FIELDS = ("attack", "scale", "images")


def of_models(folder: Path) -> dict[str, Any]:
    """models: by id attack (in words), scale (how much the difference is magnified) and images, a list of
    {name, input, adversarial, difference, tasks: {letter: {truth, before, after, error_before, error_after}}} with
    the pictures as data addresses. Empty where the folder is not there.

    folder: <model>/index.json with the same fields and names of PNG files beside it.
    Raises BrokenFileError for an index that is none, or a picture that is not there.
    """
    paths = sorted(folder.glob(f"*/{INDEX}")) if folder.is_dir() else []
    return {"models": {path.parent.name: _model(path) for path in paths}}


def _model(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        found = {key: index[key] for key in FIELDS}
        found["images"] = [_image(path.parent, image) for image in found["images"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BrokenFileError(f"{path}: not an index of pictures; delete its folder and make them again") from error
    return found


def _image(folder: Path, image: dict[str, Any]) -> dict[str, Any]:
    tasks = {
        letter: {key: _inlined(folder, value) for key, value in maps.items()} for letter, maps in image["tasks"].items()
    }
    named = {key: _inlined(folder, image[key]) for key in ("input", "adversarial", "difference")}
    return {"name": str(image["name"]), **named, "tasks": tasks}


def _inlined(folder: Path, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    data = base64.b64encode((folder / value).read_bytes()).decode()
    return f"data:image/png;base64,{data}"
