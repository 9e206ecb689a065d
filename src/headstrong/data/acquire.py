"""Where real data lie on this machine.

The configuration holds no paths: the same study on another machine is the same study. Real data are looked for in the
folder that the environment variable HEADSTRONG_REAL_DATA names, else in data/ beside the Snakefile. Where they come
from is said by `datasets.yaml`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from headstrong.errors import MissingDataError
from headstrong.provenance import ROOT

VARIABLE = "HEADSTRONG_REAL_DATA"
DATASETS = ("nyuv2", "taskonomy", "office31", "cifar10", "gtsrb", "awa2", "celeba", "deepfashion")
# Of a folder of the user's own; it is not in DATASETS, because its name is not known.
_OWN_FOLDER = "pictures of your own: make a folder of <domain>/<class>/<images> (docs/data.md)"


def data_root() -> Path:
    """The folder that holds a folder for each real data set."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else ROOT / "data"


def locate(dataset: str, folder: str | None = None) -> Path:
    """The folder of a real data set; MissingDataError says where it was looked for and what to place there.

    folder: its name, where it is not that of the data set.
    """
    folder = folder or dataset
    place = data_root() / folder
    if place.is_dir():
        return place
    what = instructions(dataset) if dataset in DATASETS else _OWN_FOLDER
    raise MissingDataError(f"{folder}: no folder {place}; {what} and place it there, or set {VARIABLE}")


def instructions(dataset: str) -> str:
    """Where to get a data set, and under what terms, in one line."""
    # By name: what the registry's reader looks like decides no number, so it stays out of the code digests.
    registry = importlib.import_module("headstrong.data.registry")
    try:
        text: str = registry.load()[dataset].instructions()
    except ImportError:  # a machine that only trains has no reader of YAML
        return f"{registry.REGISTRY.name} and docs/data.md say where to get it"
    return text
