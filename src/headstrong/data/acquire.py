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

# data set -> where to get it, under what terms, and what to place (docs/data.md has the folders)
DATASETS = {
    "nyuv2": (
        "NYU Depth v2: get nyu_depth_v2_labeled.mat and splits.mat from "
        "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (docs/data.md lists two other layouts)"
    ),
    "taskonomy": (
        "Taskonomy: get the buildings and domains named in docs/data.md from https://github.com/StanfordVL/taskonomy"
    ),
    "office31": (
        "Office-31: get domain_adaptation_images from https://faculty.cc.gatech.edu/~judy/domainadapt/ (no licence is "
        "known: for research, not to be passed on), take its amazon, dslr and webcam with images/<class>/ in each"
    ),
    "cifar10": (
        "CIFAR-10: get cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html (free for research), "
        "unpack its cifar-10-batches-py/"
    ),
    "gtsrb": (
        "GTSRB: get GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip by way of "
        "https://benchmark.ini.rub.de (free for research), unpack GTSRB/ and GT-final_test.csv"
    ),
    "awa2": (
        "AwA2: get AwA2-data.zip from https://cvml.ista.ac.at/AwA2/ (each image has a licence of its own), unpack its "
        "JPEGImages/"
    ),
    "celeba": (
        "CelebA: get img_align_celeba.zip, list_attr_celeba.txt and list_eval_partition.txt from "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (non-commercial research only), unpack img_align_celeba/"
    ),
    "deepfashion": (
        "DeepFashion, Category and Attribute Prediction Benchmark: sign the agreement of "
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html (non-commercial research only), get Anno_fine and "
        "img.zip, unpack img/"
    ),
}
# Of a folder of the user's own; it is not in DATASETS, because its name is not known.
_OWN_FOLDER = "pictures of your own: make a folder of <domain>/<class>/<images> (docs/data.md)"


def locate(dataset: str, folder: str | None = None) -> Path:
    """The folder of a real data set; MissingDataError says where it was looked for and what to place there.

    folder: its name, where it is not that of the data set.
    """
    folder = folder or dataset
    named = os.environ.get(VARIABLE)
    places = [Path(named)] if named else [ROOT / "data"]
    for place in places:
        if (place / folder).is_dir():
            return place / folder
    looked = ", ".join(str(place / folder) for place in places)
    what = DATASETS.get(dataset, _OWN_FOLDER)
    raise MissingDataError(f"{folder}: no folder {looked}; {what} and place it there, or set {VARIABLE}")
