"""NYUv2's adapter: three layouts tell the same, sizes change without mixing surfaces, damage is named in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from headstrong.data import nyuv2, nyuv2_layouts, rooms
from headstrong.data.cameras import rays
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.tasks import encode
from nyuv2_folders import BOOK, CROP, FLOOR, WALL, class_table, room, write_arrays, write_folders, write_mat
from real_folders import real_folder

SIZE = (48, 64)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    place = tmp_path_factory.mktemp("nyuv2")
    return {
        "mat": write_mat(place / "mat"),
        "arrays": write_arrays(place / "arrays"),
        "folders": write_folders(place / "folders"),
    }


@pytest.fixture(scope="module")
def raw(roots):
    """The training frames of each layout at SIZE."""
    return {layout: list(nyuv2.samples(root, "train", SIZE)) for layout, root in roots.items()}


def test_every_layout_has_the_same_frames_in_the_same_split(roots, raw):
    for layout, root in roots.items():
        assert (nyuv2.count(root, "train"), nyuv2.count(root, "test")) == (2, 2)
        assert "2 train and 2 test frames" in nyuv2.check(root)
        assert len(raw[layout]) == 2
    assert [name for name, _ in raw["mat"]] == [name for name, _ in raw["folders"]] == ["0002", "0004"]
    assert [name for name, _ in raw["arrays"]] == ["train-0", "train-1"]


def test_the_layouts_tell_the_same(raw):
    """Depth, labels and what is derived from them to the last bit; colour up to JPEG; stored normals to a degree."""
    for (_, mat), (_, arrays), (_, folders) in zip(*raw.values(), strict=True):
        for other in (arrays, folders):
            assert np.array_equal(mat["s"], other["s"])
            assert np.array_equal(mat["d"], other["d"])
            assert np.array_equal(mat["D"], other["D"])
        for letter in "npKEr":
            assert np.array_equal(mat[letter], folders[letter])
        assert np.array_equal(mat["rgb"], arrays["rgb"])
        assert np.abs(mat["rgb"].astype(int) - folders["rgb"]).mean() < 2
        assert np.array_equal(mat["e"], arrays["e"])
        assert np.abs(mat["e"] - folders["e"]).mean() < 0.01
        assert np.median(angles(mat["n"], arrays["n"])) < 1


def angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((one * other).sum(axis=0), -1, 1)))


def test_a_sample_keeps_the_contract(raw):
    for layout in raw:
        for _, sample in raw[layout]:
            assert sample["rgb"].dtype == sample["s"].dtype == np.uint8
            assert sample["rgb"].shape == (3, *SIZE)
            for letter, channels in {"d": 0, "D": 0, "n": 3, "p": 2, "k": 0, "K": 0, "e": 0, "E": 0, "r": 0}.items():
                assert sample[letter].dtype == np.float32, letter
                assert sample[letter].shape == ((channels, *SIZE) if channels else SIZE)
                assert np.isfinite(sample[letter]).all()
            assert np.abs(np.linalg.norm(sample["n"], axis=0) - 1).max() < 1e-4
            assert (np.abs(sample["p"][0]) >= np.abs(sample["p"][1])).all()
            assert (sample["D"] >= sample["d"]).all()
            for letter in "kKeEr":
                assert sample[letter].min() >= 0
            assert max(sample["K"].max(), sample["r"].max()) <= 1


def test_stored_normals_are_turned_into_the_cameras_axes(raw):
    """The .npy copy was given other axes; the adapter finds them, and fills what is not stored from the depth."""
    truth = room(2)["normals"][..., *CROP]
    sample = raw["arrays"][0][1]
    right = (angles(sample["n"], raw["mat"][0][1]["n"]) < 10).mean()
    assert right > 0.9
    allowed = {tuple(normal) for normal in truth.reshape(3, -1).T}
    exact = [tuple(normal) in allowed for normal in np.round(sample["n"][:, 3:, 3:].reshape(3, -1).T, 5)]
    assert np.mean(exact) == 1
    assert angles(sample["n"], raw["mat"][0][1]["n"])[0, 0] < 1


def test_derived_normals_are_those_of_the_planes(raw):
    """Away from the corners of the room, normals derived from the depth are the planes' own within a degree or two."""
    stored, derived = raw["arrays"][0][1]["n"], raw["mat"][0][1]["n"]
    off = angles(stored, derived)
    assert np.median(off) < 1
    assert np.percentile(off, 80) < 3


def test_the_camera_follows_every_cut_and_scale(raw):
    """At SIZE, depth over the camera's rays still puts the floor at 1.1 m below and the left wall at 1.4 m."""
    step = min(427 / SIZE[0], 561 / SIZE[1])
    camera = nyuv2_layouts.cut(
        nyuv2_layouts.CAMERA, 44 + (427 - SIZE[0] * step) / 2, 40 + (561 - SIZE[1] * step) / 2
    ).scaled(1 / step)
    sample = raw["mat"][0][1]
    points = rays(SIZE, camera) * sample["d"]
    floor, left = sample["n"][1] < -0.99, sample["n"][0] > 0.99
    assert min(floor.sum(), left.sum()) > 100
    # A pixel's depth is measured up to half a pixel from its centre: half a pixel of slope is allowed.
    assert np.median(np.abs(points[1][floor] - 1.1)) < 0.02
    assert np.median(np.abs(points[0][left] + 1.4)) < 0.02
    distance = np.linalg.norm(points, axis=0)
    assert np.allclose(sample["D"], distance, rtol=1e-5)


def test_resizing_never_makes_depths_or_classes_that_were_not_there(raw):
    depths = np.unique(room(2)["depth"])
    for _, sample in raw["mat"][:1]:
        assert np.isin(sample["d"], depths).all()
        assert set(np.unique(sample["s"])) <= set(class_table(13)[[0, FLOOR, WALL, BOOK]])


def test_majority_and_median_of_what_lies_under_a_pixel():
    depth = np.array([[1, 1, 0, 0], [1, 9, 0, 5], [2, 3, 0, 0], [4, 9, 0, 0]], dtype=np.float32)
    pick = nyuv2._Pick(depth, nyuv2.Window(0, 0, 2), (2, 2))
    assert pick.median(depth).tolist() == [[1, 5], [3, 0]]
    classes = np.array([[1, 2, 0, 3], [2, 2, 3, 0], [0, 0, 7, 7], [0, 4, 7, 6]], dtype=np.uint8)
    assert pick.majority(classes).tolist() == [[2, 3], [0, 7]]


@pytest.mark.parametrize(("old", "new"), [((427, 561), (96, 128)), ((170, 224), (64, 64)), ((20, 90), (40, 30))])
def test_the_window_covers_in_one_direction_and_is_centred(old, new):
    window = nyuv2.Window.covering(old, new)
    height, width = new[0] * window.step, new[1] * window.step
    assert min(old[0] - height, old[1] - width) == pytest.approx(0, abs=1e-9)
    assert (2 * window.top + height, 2 * window.left + width) == pytest.approx(old)


def test_bits_do_not_depend_on_the_number_of_processes(roots, raw):
    many = list(nyuv2.samples(roots["folders"], "train", SIZE, processes=2))
    assert [name for name, _ in many] == ["0002", "0004"]
    for (_, one), (_, other) in zip(raw["folders"], many, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].tobytes() == other[key].tobytes()


def test_limit_and_other_sizes(roots, raw):
    ((name, only),) = nyuv2.samples(roots["folders"], "train", SIZE, limit=1)
    assert np.array_equal(only["d"], dict(raw["folders"])[name]["d"])
    ((_, square),) = nyuv2.samples(roots["folders"], "test", (40, 40), classes=40, limit=1)
    assert square["rgb"].shape == (3, 40, 40)
    assert set(np.unique(square["s"])) <= set(class_table(40)[[0, FLOOR, WALL, BOOK]])
    with pytest.raises(ConfigError, match="13 only"):
        next(nyuv2.samples(roots["arrays"], "train", SIZE, classes=40))
    with pytest.raises(ConfigError, match="21"):
        nyuv2.samples(roots["folders"], "train", SIZE, classes=21)


def test_class_names():
    names = "unlabelled bed books ceiling chair floor furniture objects picture sofa table tv wall window"
    assert nyuv2.class_names(13) == names.split()
    names = nyuv2.class_names(40)
    assert (len(names), names[0], names[1], names[40]) == (41, "unlabelled", "wall", "otherprop")


def test_labels_from_depth_in_steps_of_39_mm_stay_near_the_truth():
    """A ray-cast room, where the truth is known, with NYUv2's quantisation: the median filter helps, and is enough."""
    raw = rooms.render(1000, (120, 160))
    depth = (np.round(raw["d"] / (10 / 255)) * (10 / 255)).astype(np.float32)
    frame = nyuv2_layouts.Frame(raw["rgb"].transpose(1, 2, 0), depth, raw["s"], None, raw["intrinsics"])
    with_specks = nyuv2._derived({"rgb": raw["rgb"], "d": depth}, frame.camera, "np")
    surface, known = nyuv2._surface(frame, None), raw["d"] > 0

    def off(letter: str, labels: dict[str, np.ndarray]) -> float:
        return float(np.abs(encode(letter, labels[letter]) - encode(letter, raw[letter]))[:, known].mean())

    for letter in "np":
        assert off(letter, surface) < off(letter, with_specks)
    assert np.median(angles(surface["n"], raw["n"])[known]) < 3
    assert (angles(surface["n"], raw["n"])[known] < 11.25).mean() > 0.75


# --- errors --------------------------------------------------------------------------------------------------------


def first(root: Path) -> None:
    next(nyuv2.samples(root, "train", SIZE))


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingDataError, match="no such folder"):
        nyuv2.count(tmp_path / "absent", "train")
    with pytest.raises(MissingDataError) as caught:
        nyuv2.check(tmp_path)
    for place in ("nyu_depth_v2_labeled.mat", "train/image", "rgb/*.jpg"):
        assert place in one_line(caught)


def test_damaged_frame_folders(tmp_path):
    root = write_folders(tmp_path / "folders")
    depth, label = root / "depth/0002.png", root / "label13/0002.png"

    whole = depth.read_bytes()
    for length in (0, 20, len(whole) // 2, len(whole) - 60):
        depth.write_bytes(whole[:length])
        with pytest.raises(BrokenFileError, match=r"depth/0002\.png: truncated") as caught:
            first(root)
        one_line(caught)
    Image.fromarray(np.zeros((10, 12), np.uint16)).save(depth)
    with pytest.raises(BrokenFileError, match=r"depth/0002\.png: no depth in it"):
        first(root)
    Image.fromarray(np.full((10, 12), 3000, np.uint16)).save(depth)
    with pytest.raises(BrokenFileError, match=r"depth/0002\.png: 12x10 pixels, its image has 640x480"):
        first(root)
    with pytest.raises(BrokenFileError, match=r"rgb/0002\.jpg"):
        nyuv2.check(root)
    depth.unlink()
    for look in (first, nyuv2.check):
        with pytest.raises(MissingDataError, match=r"depth/0002\.png: no such file"):
            look(root)
    depth.write_bytes(whole)

    pixels = np.asarray(Image.open(label)).copy()
    pixels[0, 0] = pixels[240, 320] = 14
    Image.fromarray(pixels).save(label)
    with pytest.raises(BrokenFileError, match=r"label13/0002\.png: class 14, expected 0\.\.13"):
        first(root)
    (root / "splits.csv").write_text("index,split\n0001,holdout\n")
    with pytest.raises(BrokenFileError, match=r"splits\.csv: expected the columns"):
        nyuv2.count(root, "train")
    (root / "splits.csv").unlink()
    with pytest.raises(MissingDataError, match=r"splits\.csv"):
        nyuv2.count(root, "train")


def test_damaged_array_folders(tmp_path):
    root = write_arrays(tmp_path / "arrays")
    label, normal = root / "train/label/1.npy", root / "train/normal/0.npy"
    whole = label.read_bytes()
    label.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenFileError, match=r"train/label/1\.npy: truncated"):
        nyuv2.check(root)
    np.save(label, np.full((427, 561), 13.0))
    with pytest.raises(BrokenFileError, match=r"train/label/1\.npy: class 13, expected -1\.\.12"):
        list(nyuv2.samples(root, "train", SIZE))
    np.save(label, np.zeros((5, 5)))
    with pytest.raises(BrokenFileError, match=r"train/label/1\.npy: array of shape \(5, 5\), expected \(427, 561\)"):
        list(nyuv2.samples(root, "train", SIZE))
    label.write_bytes(whole)
    vectors = np.random.default_rng(0).normal(size=(427, 561, 3))
    np.save(normal, vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
    (root / "train/normal/1.npy").write_bytes(normal.read_bytes())
    with pytest.raises(BrokenFileError, match="not those of the depth in any axes"):
        first(root)
    normal.unlink()
    with pytest.raises(MissingDataError, match=r"train/normal/0\.npy"):
        nyuv2.check(root)


def test_normals_of_one_frame_that_point_the_other_way_are_named(tmp_path):
    root = write_arrays(tmp_path / "arrays", step=4)
    for kind in ("image", "label", "depth", "normal"):
        shutil.copy(root / f"train/{kind}/0.npy", root / f"train/{kind}/2.npy")
    np.save(root / "train/normal/1.npy", -np.load(root / "train/normal/1.npy"))
    with pytest.raises(BrokenFileError, match=r"normal/1\.npy: normals that are not those of the depth \(mean"):
        list(nyuv2.samples(root, "train", SIZE))


def test_damaged_mat(tmp_path):
    root = write_mat(tmp_path / "mat")
    (root / "splits.mat").write_bytes(b"not MATLAB")
    with pytest.raises(BrokenFileError, match=r"splits\.mat"):
        nyuv2.count(root, "train")
    (root / "splits.mat").unlink()
    (root / "splits.csv").write_text("index,split\n1,train\n2,test\n9,test\n")
    assert nyuv2.count(root, "test") == 2
    with pytest.raises(BrokenFileError, match="no images of 9 frames"):
        nyuv2.check(root)
    with pytest.raises(BrokenFileError, match="frame 9 cannot be read"):
        list(nyuv2.samples(root, "test", SIZE))
    other = write_mat(tmp_path / "other")
    with h5py.File(other / "nyu_depth_v2_labeled.mat", "r+") as file:
        file["#refs#/20"][:4] = np.array([[ord(c)] for c in "hall"])
    with pytest.raises(BrokenFileError, match="class 21 is hall, expected wall"):
        nyuv2.check(other)
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "splits.csv").write_text("index,split\n1,train\n2,test\n")
    whole = (root / "nyu_depth_v2_labeled.mat").read_bytes()
    (cut / "nyu_depth_v2_labeled.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenFileError, match=r"nyu_depth_v2_labeled\.mat: truncated"):
        first(cut)


# --- the real photographs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return real_folder("nyuv2")


@pytest.mark.real_data
def test_real_counts_are_official(real):
    assert (nyuv2.count(real, "train"), nyuv2.count(real, "test")) == (795, 654)
    assert "795 train and 654 test" in nyuv2.check(real)


@pytest.mark.real_data
def test_real_frames_are_plausible(real):
    for classes in (13, 40):
        for name, sample in nyuv2.samples(real, "test", (60, 80), classes=classes, limit=4):
            assert len(name) == 4
            assert 0.3 < sample["d"].min() <= sample["d"].max() < 12
            assert 0 < sample["s"].max() <= classes
            assert (sample["s"] > 0).mean() > 0.3
            assert 20 < sample["rgb"].mean() < 235
            # Rooms have floors and walls, cameras are held level: normals up or sideways, few point down.
            assert (sample["n"][1] < -0.7).mean() > (sample["n"][1] > 0.7).mean() - 0.3
            ray = rays((60, 80), nyuv2_layouts.CAMERA.scaled(1 / 8))
            assert ((ray * sample["n"]).sum(axis=0) < 0.3).all()


@pytest.mark.real_data
def test_real_labels_follow_the_official_class_mapping(real):
    allowed = {(0, 0), *zip(class_table(40).tolist(), class_table(13).tolist(), strict=True)}
    layout = nyuv2_layouts.detect(real)
    for name in layout.names("test")[::100] + layout.names("train")[::100]:
        coarse, fine = (layout.read(name, classes).labels.ravel() for classes in (13, 40))
        assert set(zip(fine.tolist(), coarse.tolist(), strict=True)) <= allowed


def test_a_table_of_splits_may_begin_with_a_byte_order_mark(tmp_path):
    root = write_folders(tmp_path)
    names = [nyuv2_layouts.detect(root).names(split) for split in nyuv2_layouts.SPLITS]
    (root / "splits.csv").write_bytes(b"\xef\xbb\xbf" + (root / "splits.csv").read_bytes())
    assert [nyuv2_layouts.detect(root).names(split) for split in nyuv2_layouts.SPLITS] == names
