"""Which classes are important: ranks by hand, names, and what is refused in one line."""

from __future__ import annotations

import contextlib
import csv
import json

import numpy as np
import pytest

import importance_runs as runs
from headstrong import class_choice
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.models.classifier import load_classifier


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choice")
    data = runs.pictures(folder)
    return data, [runs.train(folder, runs.job("ce", trial), data["train"]) for trial in range(2)]


def choose(trained, output, **changes):
    data, weights = trained
    settings = runs.choice_settings(**changes)
    recall = output.with_suffix(".csv")
    class_choice.choose(settings, weights, data["validation"], output, recall, device="cpu", batch_size=4)
    return json.loads(output.read_text())


@pytest.mark.parametrize(
    ("recall", "wanted"),
    [
        ([90, 10, 50, 70, 30], {"worst1": 1, "worst2": 4, "median": 2}),
        ([4, 3, 2, 1], {"worst1": 3, "worst2": 2, "median": 2}),  # the lower of two in the middle
        ([5, 5, 5], {"worst1": 0, "worst2": 1, "median": 1}),
    ],
)
def test_ranks_by_hand(recall, wanted):
    assert class_choice.ranked(np.array(recall, dtype=float)) == wanted


def test_recalls_are_counted_picture_by_picture(trained):
    data, weights = trained
    model = load_classifier(weights[0])
    with contextlib.closing(PictureBatches(data["validation"], ["colour"], "cpu")) as batches:
        found = class_choice.recalls(model, batches, "colour", 4)
        right, there = [0, 0, 0], [0, 0, 0]
        for row in range(batches.count):
            batch = batches.get([row])
            truth = int(batch.labels["colour"])
            there[truth] += 1
            right[truth] += int(model(batch.images)["colour"].argmax()) == truth
    assert there == [3, 3, 3]
    np.testing.assert_allclose(found, [100 * r / n for r, n in zip(right, there, strict=True)])


def test_the_choice_follows_the_mean_recall_of_all_models(trained, tmp_path):
    data, weights = trained
    chosen = choose(trained, tmp_path / "c.json")
    with contextlib.closing(PictureBatches(data["validation"], ["colour"], "cpu")) as batches:
        each = [class_choice.recalls(load_classifier(path), batches, "colour", 4) for path in weights]
    mean = np.mean(each, axis=0)
    written = list(csv.reader((tmp_path / "c.csv").open()))
    assert written[0] == ["class", "recall"]
    assert [name for name, _ in written[1:]] == chosen["classes"]
    assert [float(value) for _, value in written[1:]] == pytest.approx(mean.tolist(), abs=1e-5)
    assert chosen["important"] == {"worst1": [chosen["classes"][int(np.argmin(mean))]], "named": ["blue"]}
    assert class_choice.important_classes(tmp_path / "c.json", "named") == ["blue"]
    assert choose(trained, tmp_path / "d.json") == chosen
    assert (tmp_path / "d.json").read_bytes() == (tmp_path / "c.json").read_bytes()


def test_as_long_as_the_same_classes_are_chosen_the_bytes_are_the_same(trained, tmp_path):
    data, weights = trained
    important = choose(trained, tmp_path / "c.json")["important"]
    for one in weights:
        if choose((data, [one]), tmp_path / "d.json")["important"] == important:
            assert (tmp_path / "d.json").read_bytes() == (tmp_path / "c.json").read_bytes()
            assert (tmp_path / "d.csv").read_bytes() != (tmp_path / "c.csv").read_bytes()
            return
    raise AssertionError("each classifier by itself chooses other classes: take another seed")


def test_named_classes_need_no_models(trained, tmp_path):
    chosen = choose((trained[0], []), tmp_path / "c.json", important={"two": ["red", "blue"]})
    assert chosen["important"] == {"two": ["red", "blue"]}
    assert (tmp_path / "c.csv").read_text() == "class,recall\nred,\ngreen,\nblue,\n"


@pytest.mark.parametrize(
    ("important", "models", "reason"),
    [
        ({"odd": ["pink"]}, 2, r"importance\.squares\.important\.odd: there is no class 'pink' among red, green, blue"),
        ({"worst1": []}, 0, "no picture of any class"),
    ],
)
def test_what_cannot_be_chosen_is_said_in_one_line(trained, tmp_path, important, models, reason):
    with pytest.raises(ConfigError, match=reason):
        choose((trained[0], trained[1][:models]), tmp_path / "c.json", important=important)
    assert not (tmp_path / "c.json").exists()


def test_files_that_are_not_choices(tmp_path):
    with pytest.raises(MissingDataError, match="choose the important classes first"):
        class_choice.read_choice(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BrokenFileError, match="not JSON"):
        class_choice.read_choice(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(BrokenFileError, match="not a choice of classes"):
        class_choice.read_choice(tmp_path / "bad.json")


def test_a_key_that_is_not_there(trained, tmp_path):
    choose(trained, tmp_path / "c.json")
    with pytest.raises(BrokenFileError, match="has no 'median', but worst1, named"):
        class_choice.important_classes(tmp_path / "c.json", "median")
