"""What must be there of real data is known before the first job: folders, domains, lists; for embedded data nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial

import pytest

import checkout
from headstrong.data import acquire, build
from headstrong.errors import BrokenFileError, MissingDataError, UserError
from headstrong.provenance import ROOT
from official_folders import (
    write_awa2,
    write_celeba,
    write_coarse_deepfashion,
    write_deepfashion,
    write_gtsrb,
    write_image_folders,
)
from picture_folders import write_domain

FINE = "deepfashion/Anno_fine"
WRITERS = {
    "cifar10": write_image_folders,
    "gtsrb": write_gtsrb,
    "awa2": write_awa2,
    "celeba": write_celeba,
    "deepfashion": write_deepfashion,
    "deepfashion coarse": write_coarse_deepfashion,
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A folder of real data for each way they may lie."""
    root = tmp_path_factory.mktemp("real")
    for case, write in WRITERS.items():
        write(root / case / case.split()[0])
    for domain in ("photo", "sketch"):
        write_domain(root / "folder" / "mine" / domain, {"bike": 2, "mug": 2})
    (root / "nyuv2" / "nyuv2" / "rgb").mkdir(parents=True)
    return root


def settings_of(source):
    if source == "nyuv2":
        return {"source": source}
    if source == "folder":
        return {"source": source, "folder": "mine", "domains": ["photo", "sketch"]}
    return {"source": source, "domains": [source]}


# case, what is taken away, labels that the study uses, what is said
ABSENT = [
    ("folder", "mine", (), "mine: no folder .*HEADSTRONG_REAL_DATA"),
    ("folder", "mine/sketch", (), "sketch: no such domain; .* has photo"),
    ("folder", "mine/sketch/mug", (), "sketch lacks 'mug', which photo has"),
    ("cifar10", "cifar10/test", (), "test: no such domain"),
    ("cifar10", "cifar10/test/cat", (), "test lacks 'cat'"),
    ("gtsrb", "gtsrb/GTSRB/Training/00009", (), "00009: no such class folder"),
    ("gtsrb", "gtsrb/GTSRB/Final_Test", (), "unpack GTSRB_Final_Test_Images.zip"),
    ("gtsrb", "gtsrb/GT-final_test.csv", (), "GT-final_test.csv: no such file"),
    ("awa2", "awa2/JPEGImages/zebra", (), "zebra: no such class folder"),
    ("celeba", "celeba/list_eval_partition.txt", (), "list_eval_partition.txt: no such file"),
    ("celeba", "celeba/img_align_celeba", (), "unpack img_align_celeba.zip"),
    ("deepfashion", "deepfashion/img", (), "unpack img.zip"),
    ("deepfashion", f"{FINE}/split/val_attr.txt", (), "val_attr.txt: no such file"),
    ("deepfashion", f"{FINE}/split/val_cate.txt", (), "val_cate.txt: no such file"),
    ("deepfashion", f"{FINE}/*cat*.txt {FINE}/split/*cat*.txt", ("category",), "which the label category needs"),
    ("deepfashion coarse", "", ("sleeve",), "Anno_fine: no such folder, which the label sleeve needs"),
    ("nyuv2", "nyuv2/rgb", (), "no NYUv2 here"),
]


@pytest.mark.parametrize(("case", "gone", "labels", "said"), ABSENT)
def test_what_is_not_there_is_said(real, tmp_path, monkeypatch, case, gone, labels, said):
    shutil.copytree(real / case, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path))
    settings = settings_of(case.split()[0])
    others = {"deepfashion": ("sleeve", "fit"), "deepfashion coarse": ("category",)}
    build.check_there(settings, others.get(case, ()))
    for path in [path for pattern in gone.split() for path in tmp_path.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises((MissingDataError, BrokenFileError), match=said) as caught:
        build.check_there(settings, labels)
    assert "\n" not in str(caught.value)
    if labels == ("category",):
        build.check_there(settings, ("sleeve", "fit"))  # of which the lists of categories say nothing


def test_embedded_data_are_always_there(monkeypatch, tmp_path):
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path / "nowhere"))
    for source in ("rooms", "objects"):
        build.check_there({"source": source})
    with pytest.raises(UserError):
        build.check_there({"source": "taskonomy"})


def test_nothing_heavy_is_loaded_for_it(real):
    sources = [case for case in WRITERS if " " not in case]
    code = f"""
import json, os, sys
from headstrong.data import build
for source in {sources!r}:
    os.environ["{acquire.VARIABLE}"] = os.path.join({str(real)!r}, source)
    build.check_there({{"source": source, "domains": [source]}})
print(json.dumps(sorted({{"torch", "torchvision", "pandas", "scipy"}} & set(sys.modules))))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}, check=True
    )
    assert json.loads(result.stdout) == []


STUDY = checkout.only("""
study: {name: own}
plan: null
generators: null
hidden: null
pictures: {mine: {source: folder, folder: mine, domains: [photo, skech], size: [32, 32]}}
classifiers: {mine: {pictures: mine, labels: [class], training: {epochs: 1, batch_size: 8}}}
importance: null
""")


def test_a_misspelt_domain_ends_a_dry_run_and_what_is_built_needs_no_data(real, tmp_path, monkeypatch):
    monkeypatch.setenv(acquire.VARIABLE, str(real / "folder"))
    folder = checkout.make(tmp_path / "clone", STUDY)
    targets = [f"results/own/pictures/mine/{domain}/train.h5" for domain in ("photo", "skech")]
    run = partial(checkout.snakemake, folder, "--dry-run", study="own")
    result = run(*targets)
    assert result.returncode == 3
    assert "skech: no such domain; " in (result.stdout + result.stderr).strip().splitlines()[-1]
    for target in targets:
        (folder / target).parent.mkdir(parents=True)
        (folder / target).write_bytes(b"made elsewhere")
    assert run(*targets, "--rerun-triggers", "mtime").returncode == 0
