"""Taskonomy's layouts and encodings, on images made here."""

import numpy as np
import pytest
from PIL import Image

from headstrong import tasks
from headstrong.data import taskonomy
from headstrong.data.build import build_split
from headstrong.data.cache import SplitFile
from headstrong.errors import BrokenFileError, MissingDataError

SIZE = (64, 64)
WRITTEN = {letter: names[0] for letter, names in taskonomy.DOMAINS.items()}


def images(seed: int) -> dict[str, np.ndarray]:
    """One view: what the PNG of each domain holds."""
    rng = np.random.default_rng(seed)
    found = {letter: rng.integers(0, 65536, SIZE, dtype=np.uint16) for letter in "kKeE"}
    depth = rng.integers(200, 5000, SIZE, dtype=np.uint16)
    depth[:4] = 65535  # a hole
    return found | {
        "rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "n": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "p": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "r": rng.integers(0, 256, SIZE, dtype=np.uint8),
        "s": rng.integers(0, 17, SIZE, dtype=np.uint8),
        "d": depth,
        "D": depth,
    }


def place(root, layout: str, building: str, point: int, seed: int) -> dict[str, np.ndarray]:
    view = images(seed)
    for letter, array in view.items():
        domain = WRITTEN[letter]
        folder = root / layout.format(domain=domain, building=building)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"point_{point}_view_0_domain_{domain}.png")
    return view


@pytest.mark.parametrize("layout", ["{building}/{domain}", "{domain}/{building}", "{domain}"])
def test_every_layout_is_found_and_one_building_is_split_as_released(tmp_path, layout):
    for point in (3, 1199, 1200, 1201):
        place(tmp_path, layout, "allen", point, seed=point)
    assert taskonomy.count(tmp_path, "train") == 2
    assert taskonomy.count(tmp_path, "test") == 2
    names = [name for name, _ in taskonomy.samples(tmp_path, "test", SIZE)]
    assert [name.split("/")[-1] for name in names] == ["point_1200_view_0", "point_1201_view_0"]


def test_several_buildings_are_split_whole(tmp_path):
    for building in "abcdef":
        for point in (1, 1500):
            place(tmp_path, "{building}/{domain}", building, point, seed=point)
    test = {name.split("/")[0] for name, _ in taskonomy.samples(tmp_path, "test", SIZE)}
    train = {name.split("/")[0] for name, _ in taskonomy.samples(tmp_path, "train", SIZE)}
    assert test == {"e"}
    assert train == set("abcdf")


def test_targets_are_what_the_released_loader_makes_of_the_images(tmp_path):
    view = place(tmp_path, "{domain}", "", 5, seed=7)
    _, raw = next(taskonomy.samples(tmp_path, "train", SIZE))
    np.testing.assert_array_equal(raw["rgb"], view["rgb"].transpose(2, 0, 1))
    np.testing.assert_array_equal(raw["s"], np.where(view["s"] == 0, 1, view["s"]) - 1)
    valid = view["d"] < 64500
    np.testing.assert_array_equal(tasks.depth_is_valid(raw["d"]), valid)
    expected = np.log(1 + view["d"].astype(float)) / np.log(65536)
    np.testing.assert_allclose(tasks.encode("d", raw["d"])[0][valid], expected[valid], atol=1e-6)
    mean, std = np.array(tasks.CURVATURE_MEAN), np.array(tasks.CURVATURE_STD)
    curvature = (view["p"][..., :2].astype(float) - mean) / std
    np.testing.assert_allclose(tasks.encode("p", raw["p"]), curvature.transpose(2, 0, 1), atol=1e-3)
    np.testing.assert_allclose(tasks.encode("n", raw["n"]), view["n"].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(tasks.encode("K", raw["K"])[0], view["K"] / 65535 * 2 - 1, atol=1e-6)
    clipped = np.clip(view["e"] / 65535, 0, 0.08) / 0.08 * 2 - 1
    np.testing.assert_allclose(tasks.encode("e", raw["e"])[0], clipped, atol=1e-5)


def test_the_cache_is_built_from_it(tmp_path, monkeypatch):
    for point in range(3):
        place(tmp_path / "taskonomy", "{domain}", "", point, seed=point)
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path))
    settings = {"source": "taskonomy", "split": "train", "size": [32, 32], "count": None, "classes": 13}
    build_split(settings, tmp_path / "train.h5", code="abc")
    with SplitFile(tmp_path / "train.h5") as split:
        assert (split.count, split.size, len(split.classes)) == (3, (32, 32), 17)


def test_what_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="docs/data"):
        taskonomy.count(tmp_path / "absent", "train")
    place(tmp_path, "{domain}", "", 1, seed=1)
    normal = tmp_path / "normal" / "point_1_view_0_domain_normal.png"
    whole = normal.read_bytes()
    normal.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenFileError, match="domain_normal"):
        list(taskonomy.samples(tmp_path, "train", SIZE))
    normal.unlink()
    with pytest.raises(MissingDataError, match="domain_normal"):
        taskonomy.count(tmp_path, "train")
