"""Pictures that cannot be read: stop, or leave them out, count and list them; sources of photographs as files."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import h5py
import numpy as np
import pytest

from headstrong.data import acquire, build, pictures
from headstrong.data.listings import Part
from headstrong.data.pictures import Skipped
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.provenance import ROOT
from job_files import job_file
from official_folders import (
    CIFAR10,
    write_awa2,
    write_celeba,
    write_deepfashion,
    write_gtsrb,
    write_image_folders,
)

SETTINGS = {"source": "cifar10", "domain": "cifar10", "domains": ["cifar10"], "split": "train", "size": [8, 12]}
SETTINGS |= {"count": None, "seed": 5}
SKIP = SETTINGS | {"on_bad_image": "skip"}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """CIFAR-10 with five training pictures of each class."""
    write_image_folders(tmp_path / "real" / "cifar10")
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path / "real"))
    return tmp_path / "real" / "cifar10"


def order(data):
    """The names of the training pictures, in the order of the file."""
    from headstrong.data import cifar10

    return cifar10.listing(data, Part("cifar10", "train", 5)).names


def spoil(data, *rows):
    """Cut the files of these rows short; returns their names."""
    names = [order(data)[row] for row in rows]
    for name in names:
        path = data / "train" / name
        path.write_bytes(path.read_bytes()[:40])
    return names


def made(settings, path, processes=1):
    skipped = build.build_pictures(settings, path, code="abc", processes=processes)
    return skipped, pictures.PictureFile(path)


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_pictures_are_left_out_and_listed(data, tmp_path, caplog, processes):
    whole = made(SETTINGS, tmp_path / "whole.h5")[1]
    gone = spoil(data, 0, 20, 49)
    with caplog.at_level(logging.INFO):
        skipped, file = made(SKIP, tmp_path / "some.h5", processes)
    assert [one.name for one in skipped] == gone
    assert file.skipped == skipped
    for name, reason in skipped:
        assert reason.startswith(f"cifar10/train/{name}: truncated or not an image")
        # Where the data lie is not part of the content.
        assert str(tmp_path) not in reason
    kept = [row for row, name in enumerate(whole.names) if name not in gone]
    assert file.names == [whole.names[row] for row in kept]
    assert np.array_equal(file.read_images(range(47)), whole.read_images(kept))
    assert file.read_labels("class", range(47)).tolist() == whole.read_labels("class", kept).tolist()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-1] == "skipped 3 of 50 pictures"
    assert [line for line in lines if line.startswith("skipped ")][:-1] == [
        f"skipped {name}: {reason}" for name, reason in skipped
    ]


def test_a_listed_picture_that_is_not_there_is_a_bad_one(tmp_path, monkeypatch):
    root = write_celeba(tmp_path / "celeba")
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path))
    (root / "img_align_celeba" / "000004.jpg").unlink()
    settings = SETTINGS | {"source": "celeba", "domain": "celeba", "domains": ["celeba"]}
    with pytest.raises(MissingDataError, match=r"000004\.jpg: no such image"):
        made(settings, tmp_path / "a.h5")
    skipped, file = made(settings | {"on_bad_image": "skip"}, tmp_path / "a.h5")
    assert skipped == file.skipped
    assert skipped[0].reason.startswith("celeba/img_align_celeba/000004.jpg: no such image")
    assert sorted(file.names) == [f"{i:06d}.jpg" for i in (1, 2, 3, 5, 6)]


def test_equal_content_gives_equal_bytes_wherever_the_data_lie(data, tmp_path, monkeypatch):
    spoil(data, 3, 4)
    made(SKIP, tmp_path / "one.h5")
    (tmp_path / "elsewhere").mkdir()
    data.rename(tmp_path / "elsewhere" / "cifar10")
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path / "elsewhere"))
    made(SKIP, tmp_path / "two.h5", processes=2)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_a_file_without_bad_pictures_has_no_list_of_them(data, tmp_path):
    for name, settings in (("fail", SETTINGS), ("skip", SKIP)):
        assert build.build_pictures(settings, tmp_path / f"{name}.h5", code="abc") == []
    with h5py.File(tmp_path / "skip.h5") as file, h5py.File(tmp_path / "fail.h5") as other:
        assert "skipped" not in file.attrs
        assert other["rgb"].maxshape == other["rgb"].shape
        for name in ("rgb", "index", "labels/class"):
            assert np.array_equal(file[name][:], other[name][:])


def test_bad_pictures_stop_the_building_unless_told_otherwise(data, tmp_path):
    (name,) = spoil(data, 7)
    with pytest.raises(BrokenFileError, match=f"{name}.*or leave out such pictures with on_bad_image: skip"):
        made(SETTINGS, tmp_path / "made" / "train.h5")
    with pytest.raises(ConfigError, match="on_bad_image 'ignore' is unknown; choose fail or skip"):
        made(SETTINGS | {"on_bad_image": "ignore"}, tmp_path / "made" / "train.h5")
    assert not list(tmp_path.glob("made/*"))


def test_nothing_but_bad_pictures_is_an_error(data, tmp_path):
    names = spoil(data, *range(50))
    with pytest.raises(
        BrokenFileError, match="cifar10 train: none of 50 pictures can be read; the first: cifar10/train/"
    ):
        made(SKIP, tmp_path / "made" / "train.h5")
    assert not list(tmp_path.glob("made/*"))
    assert len(names) == 50


def test_thousands_of_skipped_pictures_fit_into_the_file(tmp_path):
    """HDF5 keeps small attributes in the object's header, 64 KiB at most."""
    many = 4000

    def samples():
        yield from (Skipped(f"picture {i}", f"folder/picture {i}: truncated") for i in range(many))
        yield "last", np.zeros((3, 4, 4), np.uint8), {"class": 1}

    place = {"size": (4, 4), "dataset": "x", "domain": "x", "split": "test", "classes": {"class": ["a", "b"]}}
    pictures.write_pictures(tmp_path / "a.h5", samples(), count=many + 1, settings={}, code="", shrinks=True, **place)
    with pictures.PictureFile(tmp_path / "a.h5") as file:
        assert (file.count, file.names, len(file.skipped)) == (1, ["last"], many)
        assert file.skipped[-1] == Skipped(f"picture {many - 1}", f"folder/picture {many - 1}: truncated")


def test_the_program_skips_when_told_to_and_says_so(data, tmp_path):
    names = spoil(data, 1, 2, 3)

    def run(settings, *options):
        command = [sys.executable, "scripts/build_pictures.py", "--output", str(tmp_path / "train.h5"), *options]
        environment = {"PYTHONPATH": str(ROOT / "src"), acquire.VARIABLE: str(data.parent)}
        return subprocess.run(
            [*command, "--settings", job_file(settings)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    stopped = run(SKIP, "--on-bad-image", "fail")
    assert stopped.returncode == 4
    assert "truncated or not an image" in stopped.stderr.splitlines()[-1]
    for result in (run(SKIP), run(SETTINGS, "--on-bad-image", "skip")):
        assert result.returncode == 0, result.stderr
        assert result.stderr.splitlines()[-1].endswith("skipped 3 of 50 pictures")
        assert "found 50 to train with and 20 to test with, in 10 classes" in result.stderr
        record = json.loads((tmp_path / "train.json").read_text())
        assert [name for name, _ in record["skipped"]] == names
        assert all("truncated" in reason for _, reason in record["skipped"])
        assert record["settings"] == SKIP
        with pictures.PictureFile(tmp_path / "train.h5") as file:
            assert (file.count, file.settings) == (47, SKIP)
    assert run(SETTINGS | {"count": 1}).returncode == 0
    assert json.loads((tmp_path / "train.json").read_text())["skipped"] == []


# --- from settings to the file, of every source --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "write", "shares", "counts", "labels"),
    [
        ("cifar10", write_image_folders, {"validation_share": 0.4}, (30, 20, 20), 1),
        ("gtsrb", write_gtsrb, {"validation_share": 0.3}, (344, 172, 86), 1),
        ("awa2", write_awa2, {"validation_share": 0.5, "test_share": 0.2}, (100, 100, 50), 1),
        ("celeba", write_celeba, {}, (6, 3, 3), 40),
        ("deepfashion", write_deepfashion, {}, (8, 4, 3), 33),
    ],
)
def test_every_split_of_every_source_becomes_a_file(tmp_path, monkeypatch, source, write, shares, counts, labels):
    write(tmp_path / source)
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path))
    seen = []
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        settings = SETTINGS | {"source": source, "domain": source, "domains": [source], "split": split} | shares
        _, file = made(settings, tmp_path / f"{split}.h5")
        assert (file.dataset, file.domain, file.split, file.count) == (source, source, split, count)
        assert len(file.classes) == labels
        # Their test pictures are in another folder than the others.
        seen += [f"{split == 'test' and source in ('cifar10', 'gtsrb')} {name}" for name in file.names]
        file.close()
    assert len(set(seen)) == sum(counts)
    with pytest.raises(ConfigError, match=f"{source} has one domain, .* must be '{source}', not 'amazon'"):
        made(settings | {"domain": "amazon"}, tmp_path / "a.h5")


@pytest.mark.parametrize("source", ["cifar10", "gtsrb", "awa2", "celeba", "deepfashion"])
def test_a_source_that_is_not_there_says_where_to_get_it(tmp_path, monkeypatch, source):
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path))
    with pytest.raises(MissingDataError, match=f"{source}: no folder .*https://.*HEADSTRONG_REAL_DATA") as caught:
        made(SETTINGS | {"source": source, "domain": source, "domains": [source]}, tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def test_objects_have_validation_pictures_of_their_own(tmp_path):
    settings = {"source": "objects", "domain": "studio", "size": [16, 16], "count": 2, "seed": 5}
    found = {}
    for split in ("train", "validation", "test"):
        _, file = made(settings | {"split": split}, tmp_path / f"{split}.h5")
        found[split] = file.read_images([0, 1])
        assert file.names[0] == f"{split}-000000"
    assert not np.array_equal(found["train"], found["validation"])
    assert not np.array_equal(found["test"], found["validation"])


def test_classes_take_turns(data, tmp_path):
    _, file = made(SETTINGS | {"count": 13}, tmp_path / "some.h5")
    assert file.read_labels("class", range(13)).tolist() == [*range(len(CIFAR10)), 0, 1, 2]
