"""From a data set's settings to its cache, through the same function the workflow calls."""

import hashlib

import numpy as np
import pytest

from headstrong.config import Config
from headstrong.configfiles import load, study_files
from headstrong.data.build import build_split
from headstrong.data.cache import SplitFile
from headstrong.data.statistics import target_mean
from headstrong.study import Plan
from headstrong.tasks import TASKS, decode_depth, encode

SETTINGS = {"source": "rooms", "split": "test", "size": [32, 64], "count": 3, "antialias": 1, "seed": 5}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("build") / "test.h5"
    build_split(SETTINGS, path, code="abc")
    return path


def test_equal_settings_give_equal_bytes(cache, tmp_path):
    again = tmp_path / "again.h5"
    build_split(SETTINGS, again, code="abc")
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(cache.read_bytes()).digest()


def test_every_task_can_be_read_within_its_bounds(cache):
    rows = np.arange(3)
    with SplitFile(cache) as split:
        assert (split.count, split.size) == (3, (32, 64))
        assert split.settings == SETTINGS
        for letter, task in TASKS.items():
            target = split.read_target(letter, rows)
            if letter == "s":
                assert target.max() < len(split.classes)
                continue
            assert target.shape == (3, task.channels, 32, 64)
            assert task.low <= target.min() <= target.max() <= task.high
            assert target.std() > 0


def test_the_two_depths_agree_with_the_geometry_of_a_camera(cache):
    rows = np.arange(3)
    with SplitFile(cache) as split:
        z = decode_depth(split.read_target("d", rows))
        euclidean = decode_depth(split.read_target("D", rows))
        valid = split.read_valid(rows)[:, None]
    assert (euclidean[valid] >= z[valid] * 0.998).all()
    centre = (slice(None), 0, 16, 32)
    np.testing.assert_allclose(euclidean[centre], z[centre], rtol=0.01)


def test_decode_depth_inverts_encode():
    metres = np.linspace(0.1, 100, 50).reshape(5, 10)
    np.testing.assert_allclose(decode_depth(encode("d", metres))[0], metres, rtol=1e-4)


def test_the_mean_of_a_target_is_that_of_its_valid_pixels(cache):
    rows = np.arange(3)
    with SplitFile(cache) as split:
        target, valid = split.read_target("n", rows), split.read_valid(rows)
        expected = [target[:, c][valid].mean(dtype=np.float64) for c in range(3)]
        np.testing.assert_allclose(target_mean(split, "n", "valid"), expected, rtol=1e-6)
        np.testing.assert_allclose(
            target_mean(split, "n", "all"), target.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6
        )


def test_settings_of_a_plan_are_what_the_builder_takes(tmp_path):
    config: Config = load(study_files(["quick"]))
    settings = {**Plan(config).data_settings("test"), "count": 1, "size": [32, 32]}
    build_split(settings, tmp_path / "one.h5", code="x")
    with SplitFile(tmp_path / "one.h5") as split:
        assert split.dataset == "rooms"
