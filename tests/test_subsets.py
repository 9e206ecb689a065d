"""Subsets of data sets: seeded, nested, spread over scenes and buildings, the same whatever the number of processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from headstrong.configfiles import parse
from headstrong.data import nyuv2, nyuv2_layouts, taskonomy
from headstrong.data.build import build_split
from headstrong.data.cache import SplitFile
from headstrong.data.subsets import drawn, spread
from headstrong.provenance import ROOT
from headstrong.study import Plan
from nyuv2_folders import write_folders, write_mat
from real_folders import real_folder
from taskonomy_folders import place


@pytest.mark.parametrize("available", [1, 2, 7, 64, 654])
def test_a_spread_has_every_position_once_and_is_nested(available):
    whole = spread(available, available, seed=3)
    assert sorted(whole) == list(range(available))
    for count in range(1, available + 1, 1 + available // 9):
        assert spread(available, count, seed=3).tolist() == whole[:count].tolist()
    assert available < 7 or spread(available, available, seed=4).tolist() != whole.tolist()


def test_a_spread_has_one_position_in_each_part():
    for seed in range(20):
        for parts in (2, 8, 64):
            assert Counter(spread(64000, parts, seed) * parts // 64000) == dict.fromkeys(range(parts), 1)


def test_every_position_has_the_same_chance():
    """Of 654 positions, 64 at a time: each is drawn 64/654 of the time."""
    draws = np.concatenate([spread(654, 64, seed) for seed in range(2000)])
    share = np.bincount(draws, minlength=654) / 2000
    assert np.abs(share - 64 / 654).max() < 5 * np.sqrt(64 / 654 / 2000)


def test_a_draw_takes_of_every_group_its_share():
    groups = ["kitchen"] * 60 + ["office"] * 20 + ["bedroom"] * 20
    shuffled = np.random.default_rng(0).permutation(100).tolist()
    found = drawn(shuffled, 20, [groups[item] for item in shuffled], 0, "subset")
    counts = Counter(groups[item] for item in found)
    assert all(abs(counts[name] - share) <= 2 for name, share in {"kitchen": 12, "office": 4, "bedroom": 4}.items())
    assert found == drawn(shuffled, 40, [groups[item] for item in shuffled], 0, "subset")[:20]
    assert drawn(shuffled, None, None, 0) == shuffled


# --- from the readers ------------------------------------------------------------------------------------------------


def settings_of(**data):
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    content["data"] |= data
    return Plan(parse(content, [(ROOT / "config.yaml", content)])).data_settings("train")


def test_only_a_subset_depends_on_the_seed():
    assert settings_of(source="nyuv2", train=9, test=9)["seed"] == 0
    assert "seed" not in settings_of(source="nyuv2", train=None, test=9)


def test_a_subset_is_the_same_for_every_number_of_processes_and_another_for_another_seed(tmp_path, monkeypatch):
    for building in ("allen", "birch", "cedar", "elm"):
        for point in range(6):
            place(tmp_path / "taskonomy", "{building}/{domain}", building, point, seed=point, without="DnpkKeEr")
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path))
    settings = {"source": "taskonomy", "split": "train", "size": [32, 32], "count": 6, "classes": 13}
    found = []
    for seed, processes in ((1, 1), (1, 2), (2, 1)):
        build_split(settings | {"seed": seed}, tmp_path / "train.h5", code="abc", processes=processes)
        with SplitFile(tmp_path / "train.h5") as split:
            found.append(split.names)
    assert found[0] == found[1] != found[2]
    for names in found:
        assert set(Counter(name.split("/")[0] for name in names).values()) <= {1, 2, 3}
        assert len({name.split("/")[0] for name in names}) == 3
    views = taskonomy.frames(tmp_path / "taskonomy", "train", limit=3, seed=1)
    assert [view.name for view in views] == found[0][:3]


def test_scenes_are_those_that_the_data_name(tmp_path):
    folders, mat = write_folders(tmp_path / "folders", step=8), write_mat(tmp_path / "mat", step=8)
    assert nyuv2_layouts.detect(folders).scenes() == {}
    (folders / "splits.csv").write_text("index,split,scene\n0001,test,office\n0002,train,bath\n0004,train,\n")
    assert nyuv2_layouts.detect(folders).scenes() == {"0001": "office", "0002": "bath"}
    with h5py.File(mat / "nyu_depth_v2_labeled.mat", "r+") as file:
        texts = [np.array([[ord(letter)] for letter in text], np.uint16) for text in ("den", "bath", "den", "attic")]
        cells = [file.create_dataset(f"#scenes#/{i}", data=text) for i, text in enumerate(texts)]
        file.create_dataset("sceneTypes", data=np.array([[cell.ref for cell in cells]], dtype=h5py.ref_dtype))
    assert nyuv2_layouts.detect(mat).scenes() == {"0001": "den", "0002": "bath", "0003": "den", "0004": "attic"}
    assert sorted(nyuv2.frames(mat, "train", 2, seed=5)) == ["0002", "0004"]


@pytest.fixture(scope="module")
def real() -> tuple[Path, dict[str, np.ndarray]]:
    """The real NYUv2, and pixels of each class by test frame."""
    root = real_folder("nyuv2")
    layout = nyuv2_layouts.FrameFolders(root)
    counts = {name: np.bincount(layout.image(name, "label13").ravel(), minlength=14) for name in layout.names("test")}
    return root, {name: count[1:] for name, count in counts.items()}


def off(counts: dict[str, np.ndarray], names: list[str]) -> float:
    """Total variation of the shares of the classes in some frames from those in all."""
    shares = [np.sum([counts[name] for name in some], axis=0) for some in (names, [*counts])]
    one, other = (share / share.sum() for share in shares)
    return float(np.abs(one - other).sum() / 2)


@pytest.mark.real_data
def test_64_real_frames_have_the_classes_of_all_of_them(real):
    root, counts = real
    assert off(counts, [*counts][:64]) > 0.16  # what the first frames are
    found = [nyuv2.frames(root, "test", 64, seed) for seed in range(10)]
    assert max(off(counts, names) for names in found) < 0.09
    assert np.mean([off(counts, names) for names in found]) < 0.06
    assert nyuv2.frames(root, "test") == [*counts]
