"""CIFAR-10, GTSRB and AwA2 in their official layouts: splits, tracks, peers, and what is wrong said in one line."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstrong.data import awa2, cifar10, gtsrb
from headstrong.data.listings import Part
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from official_folders import (
    CIFAR10,
    FRAMES,
    TRACKS,
    replace_line,
    write_awa2,
    write_cifar10_batches,
    write_gtsrb,
    write_image,
    write_image_folders,
)
from real_folders import real_folder

SPLITS = ("train", "validation", "test")
SIZE = (10, 12)  # of the pictures made here


@pytest.fixture(scope="module")
def cifar_root(tmp_path_factory):
    return write_image_folders(tmp_path_factory.mktemp("cifar10"))


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    return write_gtsrb(tmp_path_factory.mktemp("above") / "gtsrb")


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    return write_awa2(tmp_path_factory.mktemp("awa2"))


def listing(module, root, split="train", share=None, seed=3, test_share=None):
    name = module.__name__.rpartition(".")[2]
    return module.listing(root, Part(name, split, seed, (name,), test_share, share))


def names(*place, **changed):
    return listing(*place, **changed).names


def said(error, module, root, **changed):
    """What an error says, in one line."""
    with pytest.raises(error) as caught:
        list(listing(module, root, **changed).samples(SIZE))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_class(found):
    labels = found.labels["class"].tolist()
    return Counter(found.classes["class"][number] for number in labels)


# --- CIFAR-10 ------------------------------------------------------------------------------------------------------


def test_folders_of_cifar10_are_split_officially_and_stratified(cifar_root):
    parts = {split: listing(cifar10, cifar_root, split, share=0.4) for split in SPLITS}
    assert [by_class(parts[split]) for split in SPLITS] == [Counter(dict.fromkeys(CIFAR10, n)) for n in (3, 2, 2)]
    everything = listing(cifar10, cifar_root)
    assert sorted(parts["train"].names + parts["validation"].names) == sorted(everything.names)
    assert parts["train"].names == [name for name in everything.names if name not in parts["validation"].names]
    assert parts["test"].names == names(cifar10, cifar_root, "test")
    assert everything.classes == {"class": list(CIFAR10)}
    assert everything.note.endswith("found 50 to train with and 20 to test with, in 10 classes")
    for split, folder in (("train", "train"), ("validation", "train"), ("test", "test")):
        for name, rgb, labels in parts[split].samples(SIZE):
            truth = np.asarray(Image.open(cifar_root / folder / name))
            assert np.array_equal(rgb, truth.transpose(2, 0, 1))
            assert CIFAR10[labels["class"]] == name.split("/")[0]


def test_the_seed_decides_what_is_held_out(cifar_root):
    found = {tuple(names(cifar10, cifar_root, "validation", share=0.2, seed=seed)) for seed in range(4)}
    assert len(found) > 1
    # Classes are permuted each for itself: with five pictures in each, ten equal draws do not happen.
    assert len({name.split("/")[1] for name in next(iter(found))}) > 1
    with pytest.raises(ConfigError, match="cifar10 has no validation pictures: give a validation_share"):
        names(cifar10, cifar_root, "validation")


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """The official layout with content of our own, and torchvision's list of checksums changed to it."""
    datasets = pytest.importorskip("torchvision.datasets")
    digests = write_cifar10_batches(tmp_path)
    monkeypatch.setattr(
        datasets.CIFAR10, "train_list", [[f"data_batch_{i}", digests[f"data_batch_{i}"]] for i in range(1, 6)]
    )
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": digests["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return tmp_path


def test_the_batches_of_cifar10_are_what_torchvision_reads(batches):
    from torchvision import datasets

    for split, many in (("train", 100), ("test", 20)):
        found, peer = listing(cifar10, batches, split), datasets.CIFAR10(str(batches), train=split == "train")
        assert (len(found), found.classes) == (many, {"class": list(CIFAR10)})
        for name, rgb, labels in found.samples((32, 32)):
            image, target = peer[int(name.rpartition("_")[2])]
            assert np.array_equal(rgb, np.asarray(image).transpose(2, 0, 1))
            assert labels == {"class": target}
            assert name.startswith(f"{CIFAR10[target]}/{split}_")
    held, rest = (set(names(cifar10, batches, split, share=0.3)) for split in ("validation", "train"))
    assert (len(held), len(rest), held | rest) == (30, 70, set(names(cifar10, batches)))
    (_, rgb, _), *_ = listing(cifar10, batches).samples((16, 20), 3)
    assert rgb.shape == (3, 16, 20)


def test_batches_that_are_not_the_official_ones(batches, tmp_path):
    path = batches / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    assert "cifar-10-batches-py: a file is missing, or by its MD5" in said(BrokenFileError, cifar10, batches)
    path.unlink()
    assert "unpack cifar-10-python.tar.gz again" in said(BrokenFileError, cifar10, batches, split="test")


def test_the_real_checksums_are_asked_for(tmp_path):
    pytest.importorskip("torchvision.datasets")
    write_cifar10_batches(tmp_path)
    assert "by its MD5 not the official one (Dataset not found or corrupted" in said(BrokenFileError, cifar10, tmp_path)


def test_folders_of_cifar10_that_are_not_whole(cifar_root, tmp_path):
    assert "neither cifar-10-batches-py/ nor train/ and test/" in said(MissingDataError, cifar10, tmp_path)
    root = tmp_path / "cifar10"
    shutil.copytree(cifar_root, root)
    shutil.rmtree(root / "test" / "cat")
    assert "mixed class sets: test lacks 'cat', which train has" in said(BrokenFileError, cifar10, root)
    shutil.rmtree(root / "train" / "cat")
    assert "train/cat: no such class folder; expected 10 classes" in said(MissingDataError, cifar10, root)
    for folder in ("train", "test"):
        write_image(root / folder / "puma" / "0.png")
    assert "train/puma: unknown class" in said(BrokenFileError, cifar10, root)
    shutil.rmtree(root / "test")
    assert "cifar10/test: no such" in said(MissingDataError, cifar10, root)


# --- GTSRB ---------------------------------------------------------------------------------------------------------


def peers(root, split):
    """{name: (image, class number)} as torchvision reads it."""
    datasets = pytest.importorskip("torchvision.datasets")
    assert root.name == "gtsrb"
    peer = datasets.GTSRB(str(root.parent), split)
    folder = root / "GTSRB" / ("Training" if split == "train" else "Final_Test/Images")
    paths = [Path(path).relative_to(folder).as_posix() for path, _ in peer._samples]
    return {name: (np.asarray(image), target) for name, (image, target) in zip(paths, peer, strict=True)}


@pytest.mark.parametrize("split", ["train", "test"])
def test_gtsrb_is_what_torchvision_reads(signs, split):
    found, expected = listing(gtsrb, signs, split), peers(signs, split)
    assert sorted(found.names) == sorted(expected)
    assert len(found) == {"train": 43 * TRACKS * FRAMES, "test": 86}[split]
    for name, rgb, labels in found.samples(SIZE):
        image, target = expected[name]
        assert np.array_equal(rgb, image.transpose(2, 0, 1))
        assert labels == {"class": target}
    assert found.note.endswith("found 516 to train with and 86 to test with, in 43 classes")


def test_the_classes_of_gtsrb_have_names():
    assert len(set(gtsrb.CLASSES)) == 43
    # Numbers that the benchmark's own overview shows.
    assert [gtsrb.CLASSES[i] for i in (0, 8, 12, 13, 14, 17, 40)] == [
        "speed limit 20", "speed limit 120", "priority road", "give way", "stop", "no entry", "roundabout",
    ]  # fmt: skip


@pytest.mark.parametrize(("share", "tracks"), [(0.01, 1), (0.34, 1), (0.6, 2), (0.99, 2)])
def test_whole_tracks_are_held_out(signs, share, tracks):
    """Frames of a track are nearly equal pictures: one of them on the other side would be a leak."""
    held, rest = (
        [name.rpartition("_")[0] for name in names(gtsrb, signs, s, share=share)] for s in ("validation", "train")
    )
    assert set(held).isdisjoint(rest)
    assert set(Counter(held).values()) | set(Counter(rest).values()) == {FRAMES}
    per_class = Counter(track.split("/")[0] for track in set(held))
    assert per_class == Counter({f"{number:05d}": tracks for number in range(43)})
    assert len(held) + len(rest) == 43 * TRACKS * FRAMES
    assert names(gtsrb, signs, "test") == names(gtsrb, signs, "test", share=share)


def test_the_seed_decides_which_tracks_of_which_class(signs):
    found = [names(gtsrb, signs, "validation", share=0.3, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert len({name.split("/")[1].split("_")[0] for name in found[0]}) == TRACKS


def test_image_folders_of_gtsrb_keep_tracks_together_where_names_tell_them(tmp_path):
    for track, frame in np.ndindex(4, 3):
        for name in ("stop", "yield"):
            write_image(tmp_path / "train" / name / f"{track:05d}_{frame:05d}.png")
            write_image(tmp_path / "test" / name / f"{track}{frame}.png")
    held = names(gtsrb, tmp_path, "validation", share=0.5)
    assert set(Counter(name.split("_")[0] for name in held).values()) == {3}
    assert len(held) == 12
    assert len(names(gtsrb, tmp_path, "test")) == 24
    write_image(tmp_path / "train" / "stop" / "sign7.png")
    assert len(names(gtsrb, tmp_path)) == 25
    assert "sign7.png: the name tells no track" in said(BrokenFileError, gtsrb, tmp_path, share=0.5)


GTSRB_ERRORS = [
    (1, "Filename,Width", "line 1: another header, expected Filename;Width;"),
    (5, "00003.ppm;12;10;1;1;11;9", "line 5: 7 columns, expected 8"),
    (5, "00003.ppm;12;10;1;1;11;9;43", "line 5: '43', expected a class of 0 to 42"),
    (5, "00003.ppm;12;10;1;1;11;9;stop", "line 5: 'stop', expected a class of 0 to 42"),
    (5, "00002.ppm;12;10;1;1;11;9;4", "line 5: '00002.ppm' again, as in line 4, expected each name once"),
    (5, "../00003.ppm;12;10;1;1;11;9;4", "line 5: '../00003.ppm', expected the name of a .ppm file"),
    (5, None, "00003.ppm: GT-final_test.csv has no line of it"),
]


@pytest.mark.parametrize(("number", "text", "expected"), GTSRB_ERRORS)
def test_what_is_wrong_in_the_list_of_gtsrb(signs, tmp_path, number, text, expected):
    root = tmp_path / "gtsrb"
    shutil.copytree(signs, root)
    replace_line(root / "GT-final_test.csv", number, text)
    message = said(BrokenFileError, gtsrb, root, split="test")
    assert expected in message
    assert "GT-final_test.csv" in message


def test_files_of_gtsrb_that_are_not_there(signs, tmp_path):
    assert "neither GTSRB/ nor train/ and test/" in said(MissingDataError, gtsrb, tmp_path)
    root = tmp_path / "gtsrb"
    shutil.copytree(signs, root)
    (root / "GTSRB/Final_Test/Images/00007.ppm").unlink()
    assert "00007.ppm: no such image, but it is listed" in said(MissingDataError, gtsrb, root, split="test")
    image = root / "GTSRB/Training/00002/00001_00001.ppm"
    image.write_bytes(image.read_bytes()[:60])
    assert "00002/00001_00001.ppm: truncated or not an image" in said(BrokenFileError, gtsrb, root)
    shutil.rmtree(root / "GTSRB/Training/00042")
    assert "Training/00042: no such class folder; expected 43" in said(MissingDataError, gtsrb, root)
    write_image(root / "GTSRB/Training/00043/00000_00000.ppm")
    assert "Training/00043: unknown class; expected 43 classes" in said(BrokenFileError, gtsrb, root)
    (root / "GT-final_test.csv").write_bytes(b"\xff\xfe\x00")
    shutil.rmtree(root / "GTSRB/Training/00043")
    write_image(root / "GTSRB/Training/00042/00000_00000.ppm")
    assert "GT-final_test.csv: not a text file" in said(BrokenFileError, gtsrb, root)
    (root / "GT-final_test.csv").unlink()
    assert "GT-final_test.csv: no such file" in said(MissingDataError, gtsrb, root)
    shutil.rmtree(root / "GTSRB/Training")
    assert "GTSRB-Training_fixed.zip" in said(MissingDataError, gtsrb, root)


def test_the_complete_training_set_is_read_and_named(tmp_path, signs):
    root = write_gtsrb(tmp_path / "gtsrb", complete=True)
    found, part = (listing(gtsrb, place, share=0.3) for place in (root, signs))
    assert (found.names, found.variant) == (part.names, "the complete training set")
    assert part.variant == "the training part of the 2011 competition"
    assert found.folder == root / "GTSRB" / "Final_Training" / "Images"
    assert "the complete training set (39209 and 12630 when whole)" in found.note
    (root / "GTSRB" / "Training").symlink_to(signs / "GTSRB" / "Training")
    assert "both Training/ (the competition's part) and Final_Training/" in said(BrokenFileError, gtsrb, root)
    (root / "GTSRB" / "Training").unlink()
    replace_line(found.folder / "00009" / "GT-00009.csv", 3, "00000_00001.ppm;12;10;1;1;11;9;8")
    assert "GT-00009.csv: 00000_00001.ppm is of class 8, expected 9" in said(BrokenFileError, gtsrb, root)
    replace_line(found.folder / "00009" / "GT-00009.csv", 3, None)
    assert "00000_00001.ppm: GT-00009.csv has no line of it" in said(BrokenFileError, gtsrb, root)


def test_a_renamed_complete_set_is_told_by_its_number():
    place = Path("GTSRB/Training")
    assert [gtsrb.published(many, place).train for many in (6450, 26640, 26641, 39209)] == [26640, 26640, 39209, 39209]


# --- AwA2 ----------------------------------------------------------------------------------------------------------


def test_awa2_is_split_within_its_classes(animals):
    parts = {split: listing(awa2, animals, split, share=0.5, test_share=0.2) for split in SPLITS}
    assert [set(by_class(parts[split]).values()) for split in SPLITS] == [{2}, {2}, {1}]
    everything = [name for split in SPLITS for name in parts[split].names]
    assert len(set(everything)) == len(everything) == 250
    classes = parts["train"].classes["class"]
    assert (len(classes), classes) == (50, sorted(classes))
    assert {"polar+bear", "siamese+cat", "zebra"} < {*classes}
    for name, _, labels in parts["test"].samples(SIZE, 60 - 10):
        assert classes[labels["class"]] == name.split("/")[0]
    assert "found 250 of 37322 images in 50 classes" in parts["test"].note
    unvalidated = names(awa2, animals, test_share=0.2)
    assert sorted(unvalidated) == sorted(parts["train"].names + parts["validation"].names)


def test_what_is_wrong_with_awa2(animals, tmp_path):
    assert "give a test_share" in said(ConfigError, awa2, animals)
    assert "JPEGImages: no such folder" in said(MissingDataError, awa2, tmp_path, test_share=0.2)
    root = tmp_path / "awa2"
    shutil.copytree(animals, root)
    (root / "JPEGImages/polar+bear").rename(root / "JPEGImages/polar bear")
    assert "polar bear: unknown class" in said(BrokenFileError, awa2, root, test_share=0.2)
    shutil.rmtree(root / "JPEGImages/polar bear")
    assert "polar+bear: no such class folder; expected 50" in said(MissingDataError, awa2, root, test_share=0.2)


# --- real photographs ----------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_cifar10_is_what_torchvision_reads_from_its_folders():
    root = real_folder("cifar10")
    datasets = pytest.importorskip("torchvision.datasets")
    for split in ("train", "test"):
        peer = datasets.ImageFolder(str(root / split))
        truth = {Path(path).relative_to(root / split).as_posix(): (path, target) for path, target in peer.samples}
        found = listing(cifar10, root, split)
        assert sorted(found.names) == sorted(truth)
        assert list(found.classes["class"]) == peer.classes
        for name, rgb, labels in found.samples((32, 32), 200):
            path, target = truth[name]
            assert np.array_equal(rgb, np.asarray(peer.loader(path)).transpose(2, 0, 1))
            assert labels["class"] == target
    counts = by_class(listing(cifar10, root, "validation", share=0.1))
    assert counts == Counter(dict.fromkeys(CIFAR10, 100))


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["train", "test"])
def test_real_gtsrb_is_what_torchvision_reads(split):
    root = real_folder("gtsrb")
    found, expected = listing(gtsrb, root, split), peers(root, split)
    assert sorted(found.names) == sorted(expected)
    for name, rgb, labels in found.samples((32, 32)):
        image, target = expected[name]
        assert image.shape == (32, 32, 3)
        assert np.array_equal(rgb, image.transpose(2, 0, 1))
        assert labels["class"] == target


@pytest.mark.real_data
def test_real_tracks_are_held_out_whole_and_their_frames_are_alike():
    root = real_folder("gtsrb")
    held, rest = (names(gtsrb, root, split, share=0.2) for split in ("validation", "train"))
    tracks = [{name.rpartition("_")[0] for name in part} for part in (held, rest)]
    assert tracks[0].isdisjoint(tracks[1])
    assert len(held) + len(rest) == 43 * 150
    assert 0.1 < len(held) / (len(held) + len(rest)) < 0.3
    # Why: the picture most like another one of its class is a frame of the same track.
    found = listing(gtsrb, root)
    images = defaultdict(list)
    for name, rgb, labels in found.samples((32, 32)):
        images[labels["class"]].append((name.rpartition("_")[0], rgb.ravel().astype(np.float32)))
    twins, chance = [], []
    for pictures in images.values():
        track, pixels = np.array([one for one, _ in pictures]), np.stack([rgb for _, rgb in pictures])
        distance = (pixels**2).sum(1)[:, None] + (pixels**2).sum(1) - 2 * pixels @ pixels.T
        np.fill_diagonal(distance, np.inf)
        twins.extend(track == track[distance.argmin(axis=1)])
        chance.extend((track == track[:, None]).mean(axis=1))
    assert np.mean(twins) > 3 * np.mean(chance)
