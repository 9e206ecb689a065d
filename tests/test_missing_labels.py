"""Labels that some images lack: kept in the cache as absent, and counted nowhere."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from headstrong.analysis.baselines import build_table
from headstrong.data import cache
from headstrong.data.batches import Batches
from headstrong.data.constants import median_depth
from headstrong.data.statistics import target_mean
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.losses import PUBLISHED_WEIGHTS, per_sample_losses, published_class_weights
from headstrong.measures import per_sample_measures
from headstrong.metrics import per_sample_errors
from headstrong.tasks import TASKS, encode
from test_cache import CLASSES, SIZE, raw_sample

ABSENT = {1: "sk", 2: "dDn", 4: "e"}  # row -> letters that it lacks
LETTERS = "sdDnkKeEprA"
COUNT = 5


def samples(absent=ABSENT):
    for row in range(COUNT):
        yield f"frame {row}", raw_sample(row) | dict.fromkeys(absent.get(row, ""))


def write(path, absent=ABSENT):
    known = {"size": SIZE, "dataset": "x", "split": "train", "classes": CLASSES, "settings": {}, "code": "0"}
    return path, cache.write_split(path, samples(absent), count=COUNT, **known)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("absent") / "train.h5")[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "train.h5", {})[0]


def has(row, letter):
    return letter not in ABSENT.get(row, "")


def test_only_what_is_absent_is_written(path, whole, tmp_path):
    with cache.SplitFile(path) as split:
        assert set(split.incomplete) == set("sdDnke")
        for letter in cache.STORED:
            assert split.read_present(letter, range(COUNT)).tolist() == [has(row, letter) for row in range(COUNT)]
            for row in range(COUNT):
                found = split.read_codes(letter, [row])
                if not has(row, letter):
                    assert not found.any()
                elif letter != "s":
                    truth = encode(letter, raw_sample(row)[letter])
                    np.testing.assert_allclose(split.read_target(letter, [row])[0], truth, atol=2e-4)
        # Frame 2 has no depth: no hole is known.
        assert split.read_valid([2]).all()
        assert not split.read_valid([0]).all()
    with h5py.File(whole) as file:
        assert "present" not in file
    assert write(tmp_path / "again.h5")[1] == {"s": 1, "d": 1, "D": 1, "n": 1, "k": 1, "e": 1}


def test_a_hole_is_known_from_the_other_depth(tmp_path):
    path, _ = write(tmp_path / "a.h5", {0: "d"})
    with cache.SplitFile(path) as split:
        np.testing.assert_array_equal(split.read_valid([0])[0], raw_sample(0)["D"] > 0)


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_masks_of_absent_labels_are_empty_and_the_others_unchanged(path, whole, memory):
    some, every = (Batches(place, LETTERS, "cpu", memory_bytes=memory).get(range(COUNT)) for place in (path, whole))
    assert set(some.absent) == set("sdDnke")
    assert every.absent == {}
    for letter in LETTERS:
        for row in range(COUNT):
            if not has(row, letter):
                assert not some.masks[letter][row].any()
            elif row != 2:  # there, the depth says where to look, and is absent
                assert torch.equal(some.masks[letter][row], every.masks[letter][row])
            if has(row, letter):
                assert torch.equal(some.targets[letter][row], every.targets[letter][row])
    moved = some.to("meta")
    assert {tensor.device.type for tensor in moved.absent.values()} == {"meta"}


@pytest.mark.parametrize("pixels", ["valid", "all"])
@pytest.mark.parametrize("miou", ["labelled", "all"])
def test_an_absent_label_counts_in_no_loss_error_measure_or_confusion(path, pixels, miou):
    batch = Batches(path, LETTERS, "cpu").get(range(COUNT))
    generator = torch.Generator().manual_seed(0)
    outputs = {
        letter: torch.randn((COUNT, TASKS[letter].channels or len(CLASSES), *SIZE), generator=generator)
        for letter in LETTERS
    }
    leaves = {letter: output.clone().requires_grad_() for letter, output in outputs.items()}
    losses = per_sample_losses(leaves, batch, LETTERS, pixels=pixels, class_weights=None)
    losses.sum().backward()
    errors, counts = per_sample_errors(outputs, batch, LETTERS, pixels=pixels, miou=miou)
    measures = per_sample_measures(outputs, batch, LETTERS, pixels=pixels)
    for column, letter in enumerate(LETTERS):
        for row in range(COUNT):
            present = has(row, letter)
            assert bool(losses[row, column].isfinite()) == present
            assert bool(leaves[letter].grad[row].any()) == present
            assert bool(errors[row, column].isfinite()) == present
            assert all(bool(values[row].isfinite()) == present for values in measures[letter].values())
    assert [bool(table.any()) for table in counts] == [has(row, "s") for row in range(COUNT)]


def test_statistics_are_those_of_the_labels_there_are(path):
    there = {letter: [row for row in range(COUNT) if has(row, letter)] for letter in LETTERS}
    with cache.SplitFile(path) as split:
        for letter, pixels in (("e", "valid"), ("k", "all"), ("n", "all"), ("D", "all")):
            expected = split.read_target(letter, there[letter]).mean(axis=(0, 2, 3), dtype=np.float64)
            np.testing.assert_allclose(target_mean(split, letter, pixels), expected, rtol=1e-6)
        rows = there["d"]
        known = split.read_target("d", rows)[:, 0][split.read_valid(rows)]
        assert median_depth(split, "d")[0] == np.sort(known)[(known.size - 1) // 2]
    labels = np.stack([raw_sample(row)["s"] for row in there["s"]])
    shares = np.bincount(labels[labels > 0], minlength=len(CLASSES)) / (labels > 0).sum()
    np.testing.assert_allclose(cache.class_frequencies(path), shares, atol=1e-15)


def test_baselines_are_measured_where_there_are_labels(path):
    table = build_table(path, path, "sdken", pixels="all").set_index("task")
    assert {letter: int(table.loc[letter, "n"]) for letter in "dken"} == dict.fromkeys("dken", COUNT - 1)
    assert table.loc["s", "n"].min() == COUNT - 1  # per sample; COUNT for the summed confusion matrix


def test_a_task_without_any_label_is_named(tmp_path):
    path, _ = write(tmp_path / "a.h5", dict.fromkeys(range(COUNT), "p"))
    Batches(path, "sd", "cpu").close()
    with pytest.raises(MissingDataError, match=r"a\.h5: none of 5 images has a label for task 'p'") as caught:
        Batches(path, "sp", "cpu")
    assert "\n" not in str(caught.value)


def test_an_array_of_presence_that_is_not_one_is_refused(tmp_path):
    path, _ = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["present/s"]
        file["present/s"] = np.ones(COUNT - 1, np.uint8)
    with pytest.raises(BrokenFileError, match=r"a\.h5: present/s"):
        cache.SplitFile(path)


def test_published_weights_are_of_taskonomy_only():
    weights = published_class_weights("taskonomy", 17)
    assert (len(weights), float(weights[0]), float(weights[2])) == (17, 0.0, pytest.approx(7.331))
    assert weights.tolist() == pytest.approx(PUBLISHED_WEIGHTS)
    for dataset, classes in (("rooms", 17), ("taskonomy", 13)):
        with pytest.raises(ConfigError, match="published"):
            published_class_weights(dataset, classes)
