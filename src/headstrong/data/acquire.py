"""Where real data lie on this machine.

The configuration holds no paths: the same study on another machine is the same study. Real data are looked for in the
folder that the environment variable HEADSTRONG_REAL_DATA names, else in data/ beside the Snakefile.
"""

from __future__ import annotations

import os
from pathlib import Path

from headstrong.errors import MissingDataError
from headstrong.provenance import ROOT

VARIABLE = "HEADSTRONG_REAL_DATA"

# data set -> where to get it and what to place
DATASETS = {
    "nyuv2": (
        "NYU Depth v2: get nyu_depth_v2_labeled.mat and splits.mat from "
        "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (docs/data.md lists two other layouts)"
    ),
    "taskonomy": (
        "Taskonomy: get the buildings and domains named in docs/data.md from https://github.com/StanfordVL/taskonomy"
    ),
}


def locate(dataset: str) -> Path:
    """The folder of a real data set; MissingDataError says where it was looked for and what to place there."""
    named = os.environ.get(VARIABLE)
    places = [Path(named)] if named else [ROOT / "data"]
    for place in places:
        if (place / dataset).is_dir():
            return place / dataset
    looked = ", ".join(str(place / dataset) for place in places)
    raise MissingDataError(f"{dataset}: no folder {looked}; {DATASETS[dataset]} and place it there, or set {VARIABLE}")
