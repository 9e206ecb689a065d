"""Damage that `verify` knows never reaches training: each reader of pictures, each kind of damage, ten damaged files.

The pictures are built as a study builds them. Where bad images stop the build, it ends in one line with the name of a
damaged file, exit code 4 (3 where a file is gone), and leaves nothing; where they are skipped, they are counted, and
the file has the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

import official_folders
from headstrong.data import acquire, build, domains, verification
from headstrong.data.pictures import PictureFile
from headstrong.errors import UserError
from picture_folders import write_domain

TIMES = 10
Damage = Callable[[Path, np.random.Generator], None]


def cut(path: Path, rng: np.random.Generator) -> None:
    """At any byte but the first and the last."""
    whole = path.read_bytes()
    path.write_bytes(whole[: rng.integers(1, len(whole) - 1)])


def empty(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"")


def a_page(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"<html>404 Not Found</html>")


def a_link_to_nowhere(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone"))


def a_pipe(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    os.mkfifo(path)


def gone(path: Path, rng: np.random.Generator) -> None:
    path.unlink()


def own(root: Path) -> Path:
    write_domain(root / "photo", {"bike": 12, "mug": 12})
    return root


def dslr(root: Path) -> Path:
    write_domain(root / "dslr", dict.fromkeys(domains.OFFICE31_CLASSES, 2), official=True)
    return root


def clothes(root: Path) -> Path:
    with patch.dict(official_folders.FASHION, train=16):
        return official_folders.write_deepfashion(root)


# reader -> how its data are written, where the training pictures lie, what a study says besides
READERS = {
    "folder": (own, "photo/*/*", {"folder": "mine", "domain": "photo", "domains": ["photo"], "test_share": 0.2}),
    "office31": (
        dslr,
        "dslr/images/*/*",
        {"domain": "dslr", "domains": ["dslr"], "test_share": 0.2, "count": 31},
    ),
    "cifar10": (official_folders.write_image_folders, "train/*/*", {}),
    "gtsrb": (official_folders.write_gtsrb, "GTSRB/Training/*/*.ppm", {}),
    "gtsrb complete": (
        lambda root: official_folders.write_gtsrb(root, complete=True),
        "GTSRB/Final_Training/Images/*/*.ppm",
        {},
    ),
    "awa2": (official_folders.write_awa2, "JPEGImages/*/*", {"test_share": 0.2}),
    "celeba": (lambda root: official_folders.write_celeba(root, 24), "img_align_celeba/*", {}),
    "deepfashion": (clothes, "img/Dress_train/*", {}),
}
EVERY = [cut, empty, a_page, a_link_to_nowhere, a_pipe]
LISTED = ("gtsrb complete", "celeba", "deepfashion")  # a list says which pictures there are
CASES = [(reader, damage) for reader in READERS for damage in (*EVERY, *([gone] if reader in LISTED else []))]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Whole data of every reader."""
    root = tmp_path_factory.mktemp("whole")
    for case, (write, _, _) in READERS.items():
        write(root / case / ("mine" if case == "folder" else case.split()[0]))
    return root


@pytest.mark.parametrize(("reader", "damage"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_no_damaged_picture_reaches_training(written, tmp_path, monkeypatch, reader, damage):
    shutil.copytree(written / reader, tmp_path / "real", symlinks=True)
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path / "real"))
    source, pattern, more = reader.split()[0], READERS[reader][1], READERS[reader][2]
    settings = {"source": source, "domain": source, "domains": [source], "split": "train", "size": [8, 8]}
    settings |= {"count": None, "seed": 1, **more}
    root = tmp_path / "real" / more.get("folder", source)
    rng = np.random.default_rng(7)
    build.build_pictures(settings, tmp_path / "whole.h5", code="abc")
    with PictureFile(tmp_path / "whole.h5") as file:
        names = file.names
    places = [path for path in sorted(root.glob(pattern)) if any(str(path).endswith(f"/{name}") for name in names)]
    damaged = [places[i] for i in sorted(rng.permutation(len(places))[:TIMES])]
    assert len(damaged) == TIMES
    for path in damaged:
        damage(path, rng)
    with pytest.raises(UserError) as caught:
        build.build_pictures(settings, tmp_path / "bad.h5", code="abc")
    said = str(caught.value)
    assert "\n" not in said
    assert any(path.as_posix() in said for path in damaged)
    assert said.endswith(", or leave out such pictures with on_bad_image: skip")
    assert caught.value.code == (3 if damage is gone else 4)
    assert not list(tmp_path.glob("bad*"))
    skipped = build.build_pictures(settings | {"on_bad_image": "skip"}, tmp_path / "some.h5", code="abc")
    assert len(skipped) == TIMES
    with PictureFile(tmp_path / "some.h5") as file:
        assert file.names == [name for name in names if name not in {one.name for one in skipped}]
    found = verification.verify(source, root, name=more.get("folder"))
    assert {finding.path for finding in found.faults} == {path.relative_to(root).as_posix() for path in damaged}


# --- lists and numbers ---------------------------------------------------------------------------------------------

LISTS = [
    ("celeba", "list_attr_celeba.txt", "000002.jpg " + "1 " * 39 + "2"),
    ("celeba", "list_eval_partition.txt", "000002.jpg 7"),
    ("gtsrb", "GT-final_test.csv", "00001.ppm;12;10;1;1;11;9;43"),
    ("gtsrb complete", "GTSRB/Final_Training/Images/00003/GT-00003.csv", "00000_00001.ppm;12;10;1;1;11;9;44"),
    ("deepfashion", "Anno_fine/split/train_cate.txt", "51"),
    ("deepfashion", "Anno_fine/split/train_attr.txt", "2 " + "0 " * 25),
]


@pytest.mark.parametrize(("reader", "name", "text"), LISTS)
def test_no_list_with_a_value_out_of_range_is_read(written, tmp_path, monkeypatch, reader, name, text):
    shutil.copytree(written / reader, tmp_path / "real")
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path / "real"))
    source = reader.split()[0]
    settings = {"source": source, "domain": source, "domains": [source], "split": "train", "size": [8, 8]}
    path = tmp_path / "real" / source / name
    lines = path.read_text()
    last = len(lines.splitlines())
    for line in np.linspace(3, last, min(TIMES, last - 2), dtype=int):
        path.write_text(lines)
        official_folders.replace_line(path, int(line), text)
        with pytest.raises(UserError) as caught:
            build.build_pictures(settings | {"count": None, "seed": 1}, tmp_path / "bad.h5", code="abc")
        assert caught.value.code == 4
        assert path.as_posix() in str(caught.value)
        assert not list(tmp_path.glob("bad*"))
