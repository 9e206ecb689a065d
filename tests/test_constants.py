"""The constant predictor of a training split, against the same numbers taken from all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest

import evaluation_runs
from headstrong.data.cache import SplitFile, write_split
from headstrong.data.constants import constant_outputs, median_depth
from headstrong.tasks import decode_depth


@pytest.mark.parametrize("count", [1, 2])
def test_the_median_depth_is_that_of_all_pixels_sorted(tmp_path, count):
    rng = np.random.default_rng(count)

    def samples():
        for row in range(count):
            raw = evaluation_runs.raw_sample(row)
            holes = rng.random(raw["d"].shape) < 0.3
            raw["d"] = np.where(holes, 0, rng.lognormal(1, 1, holes.shape)).astype(np.float32)
            yield f"{row}", raw

    known = {"dataset": "x", "split": "train", "classes": evaluation_runs.CLASSES, "settings": {}, "code": "0"}
    path = tmp_path / "train.h5"
    write_split(path, samples(), count=count, size=(evaluation_runs.SIDE,) * 2, **known)
    with SplitFile(path) as split:
        values = np.sort(split.read_target("d", range(count))[:, 0][split.read_valid(range(count))])
        assert median_depth(split, "d") == values[(len(values) - 1) // 2]
    metres = constant_outputs(path, "dA", depth="metres")
    np.testing.assert_allclose(metres["d"], decode_depth(values[(len(values) - 1) // 2]), rtol=1e-6)
    with SplitFile(path) as split:
        mean = split.read_images(range(count)).mean((0, 2, 3)) / 127.5 - 1
    np.testing.assert_allclose(metres["A"], mean, rtol=1e-5)
