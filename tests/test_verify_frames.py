"""`headstrong verify` on the data sets with dense labels: sizes, bits, ranges, and labels that a view lacks."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from headstrong.data import taskonomy, taskonomy_views, verification
from nyuv2_folders import write_arrays, write_folders, write_mat
from official_folders import replace_line
from real_folders import real_folder
from taskonomy_folders import coded_normals


def faults(dataset, root, **settings):
    """{path: (kind, reason)} of the faults; a path with two has both reasons."""
    found = {}
    for one in verification.verify(dataset, root, **settings).faults:
        kind, reason = found.get(one.path, (one.kind, ""))
        found[one.path] = (kind, f"{reason} {one.reason}".strip())
    return found


# --- NYUv2 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("nyuv2")
    return {
        name: write(root / name) for name, write in (("mat", write_mat), ("npy", write_arrays), ("png", write_folders))
    }


@pytest.fixture
def layout(written, tmp_path):
    return lambda name: Path(shutil.copytree(written[name], tmp_path / "nyuv2"))


@pytest.mark.parametrize(
    ("name", "title"), [("mat", "the official .mat"), ("npy", "folders of .npy files"), ("png", "frame folders")]
)
def test_every_layout_of_nyuv2_is_whole_but_for_its_number_of_frames(written, name, title):
    verdict = verification.verify("nyuv2", written[name])
    assert (verdict.findings, verdict.layout, verdict.examined) == ([], title, 4)
    assert [(count.found, count.official) for count in verdict.counts] == [(2, 795), (2, 654)]
    assert len(faults("nyuv2", written[name], whole=True)["."][1].split("official")) == 3


def save(path, array):
    Image.fromarray(array).save(path)


def test_what_is_wrong_in_frame_folders(layout):
    root = layout("png")
    depth = np.asarray(Image.open(root / "depth" / "0001.png"))
    save(root / "depth" / "0001.png", (depth // 64).astype(np.uint8))
    save(root / "depth" / "0002.png", depth[::2, ::2])
    save(root / "depth" / "0003.png", (depth * 5).astype(np.uint16))
    save(root / "depth" / "0004.png", np.zeros_like(depth))
    label = np.asarray(Image.open(root / "label13" / "0001.png"))
    save(root / "label13" / "0001.png", np.where(label == 0, 14, label).astype(np.uint8))
    save(root / "label13" / "0002.png", label.astype(np.uint16))
    (root / "label13" / "0003.png").unlink()
    (root / "label40" / "0003.png").unlink()
    (root / "label40" / "0003.png").symlink_to(root / "gone.png")
    save(root / "rgb" / "0004.jpg", np.zeros((480, 640), np.uint8))
    save(root / "label40" / "0009.png", label)
    (root / "classes.csv").write_text("")
    found = faults("nyuv2", root)
    expected = {
        "depth/0001.png": ("broken", "uint8"),
        "depth/0002.png": ("broken", "320x240 pixels, its image has 640x480"),
        "depth/0003.png": ("broken", "in other units?"),
        "depth/0004.png": ("broken", "every pixel is a hole"),
        "label13/0001.png": ("broken", "class 14, expected 0..13"),
        "label13/0002.png": ("broken", "uint16"),
        "label13/0003.png": ("missing", "no such file"),
        "label40/0003.png": ("broken", "a link to nowhere"),
        "rgb/0004.jpg": ("broken", "uint8 of shape (480, 640)"),
        "label40/0009.png": ("extra", "an image that no list"),
    }
    assert {*found} == {*expected}
    for path, (kind, reason) in expected.items():
        assert found[path][0] == kind
        assert reason in found[path][1]


@pytest.mark.parametrize("file", ["rgb/0002.jpg", "depth/0002.png", "label40/0002.png"])
def test_an_image_of_a_frame_cut_anywhere_is_found(layout, file):
    root = layout("png")
    whole = (root / file).read_bytes()
    for end in [*range(0, len(whole), len(whole) // 9), len(whole) - 1]:
        (root / file).write_bytes(whole[:end])
        assert [*faults("nyuv2", root)] == [file], end


def test_frames_that_are_listed_twice_wrongly_or_are_of_another_shape(layout):
    root = layout("png")
    replace_line(root / "splits.csv", 3, "0001,train")
    found = faults("nyuv2", root)
    assert found["."] == ("broken", "frame 0001 is listed twice, for train and test")
    assert {path for path in found if path != "."} == {
        f"{kind}/0002.{'jpg' if kind == 'rgb' else 'png'}" for kind in ("rgb", "depth", "label13", "label40")
    }
    replace_line(root / "splits.csv", 3, "0002,validation")
    assert "expected the columns" in faults("nyuv2", root)["splits.csv"][1]
    (root / "splits.csv").unlink()
    assert faults("nyuv2", root)["splits.csv"][0] == "missing"
    (root / "splits.csv").write_text("index,split\n0003,test\n")
    for kind in ("rgb/0003.jpg", "depth/0003.png", "label13/0003.png", "label40/0003.png"):
        with Image.open(root / kind) as image:
            part = np.asarray(image)[:400]
        save(root / kind, part)
    assert "expected a whole frame of 4:3" in faults("nyuv2", root)["rgb/0003.jpg"][1]


def test_what_is_wrong_in_folders_of_arrays(layout):
    root = layout("npy")
    change = {
        "val/normal/0.npy": lambda old: (old + 1) / 2,
        "train/normal/1.npy": lambda old: old * 2,
        "val/depth/0.npy": lambda old: old * 1000,
        "train/label/1.npy": lambda old: np.where(old == old.max(), 13, old),
        "val/label/0.npy": lambda old: np.where(old == old.max(), np.nan, old),
        "train/image/1.npy": lambda old: old * 255,
        "val/image/1.npy": lambda old: old[:50],
    }
    for file, make in change.items():
        np.save(root / file, make(np.load(root / file)))
    (root / "train" / "depth" / "1.npy").unlink()
    np.save(root / "train" / "depth" / "7.npy", np.zeros(3))
    found = faults("nyuv2", root)
    for file, said in {
        "val/normal/0.npy": "stored as (n + 1) / 2?",
        "train/normal/1.npy": "lengths 2.00 to 2.00",
        "val/depth/0.npy": "in other units?",
        "train/label/1.npy": "class 13, expected -1..12",
        "val/label/0.npy": "class nan",
        "train/image/1.npy": "to 238, expected 0 to 1",
        "train/depth/1.npy": "no such file",
        "train/depth/7.npy": "an image that no list",
        "val/depth/1.npy": "expected (50, 561, 1)",
    }.items():
        assert said in found[file][1], file
    whole = (root / "train" / "image" / "0.npy").read_bytes()
    for end in range(0, len(whole), len(whole) // 5):
        (root / "train" / "image" / "0.npy").write_bytes(whole[:end])
        assert "train/image/0.npy" in faults("nyuv2", root)


def test_what_is_wrong_in_the_official_file(layout):
    root = layout("mat")
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "r+") as file:
        file["labels"][1] = 895
        file["depths"][2] = 30.0
    found = faults("nyuv2", root)
    assert {*found} == {path.name}
    assert "frame 0002: class 895, expected 0..894" in found[path.name][1]
    assert "frame 0003: depth up to 30 m, expected a farthest point at 1.05 to 10.04 m" in found[path.name][1]


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_an_official_file_that_is_cut_is_found(layout, share):
    root = layout("mat")
    path = root / "nyu_depth_v2_labeled.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated or not a MATLAB 7.3 file" in faults("nyuv2", root)[path.name][1]
    (root / "splits.mat").write_bytes(b"none")
    assert faults("nyuv2", root)["splits.mat"][0] == "broken"


def test_a_split_that_is_no_text_is_found(layout):
    root = layout("png")
    (root / "splits.csv").write_bytes(b"index,split\n\xff\xfe,train\n")
    assert "not a table" in faults("nyuv2", root)["splits.csv"][1]


# --- Taskonomy -----------------------------------------------------------------------------------------------------

LAYOUTS = taskonomy_views.LAYOUTS
SIZE = (16, 20)


def view_images(seed):
    """One view, as its PNG files hold it: letter -> pixels."""
    rng = np.random.default_rng(seed)
    deep = {letter: rng.integers(0, 65536, SIZE, dtype=np.uint16) for letter in "kKeEdD"}
    colour = {letter: rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for letter in ("rgb", "p")}
    normals = coded_normals(rng, SIZE)
    normals[:2] = 0
    grey = {"r": rng.integers(0, 256, SIZE, dtype=np.uint8), "s": rng.integers(0, 18, SIZE, dtype=np.uint8)}
    return {**deep, **colour, **grey, "n": normals}


def write_view(root, layout, building, point):
    """{letter: path} of a view written in a layout."""
    paths = {}
    for letter, pixels in view_images(point + len(building)).items():
        domain = taskonomy.DOMAINS[letter][0]
        path = root / layout.format(domain=domain, building=building) / f"point_{point}_view_0_domain_{domain}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths[letter] = path
    return paths


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_taskonomy_is_recognised_and_whole(tmp_path, layout):
    buildings = ["allen", "birch tree"] if "building" in layout else [""]
    for building in buildings:
        for point in (3, 1200):
            write_view(tmp_path, layout, building, point)
    verdict = verification.verify("taskonomy", tmp_path, processes=2)
    assert verdict.findings == []
    assert verdict.layout.startswith(layout.replace("{building}", "<building>").replace("{domain}", "<domain>"))
    assert [(count.what, count.found) for count in verdict.counts] == [
        ("buildings", len(buildings)),
        ("views", 2 * len(buildings)),
    ]


def test_what_is_wrong_in_taskonomy(tmp_path):
    one, two, three = (write_view(tmp_path, LAYOUTS[0], "allen", point) for point in (1, 2, 3))
    pixels = view_images(1)
    save(one["d"], (pixels["d"] // 256).astype(np.uint8))
    save(one["s"], pixels["s"].astype(np.uint16))
    save(one["n"], pixels["p"])
    save(one["K"], pixels["K"][:8])
    save(two["s"], np.full(SIZE, 18, np.uint8))
    two["r"].unlink()
    two["E"].unlink()
    two["E"].symlink_to(tmp_path / "gone.png")
    two["e"].write_bytes(b"")
    two["k"].write_bytes(two["k"].read_bytes()[:-5])
    three["rgb"].unlink()
    (tmp_path / "allen" / "class_object").mkdir()
    save(tmp_path / "allen" / "class_object" / "point_1_view_0_domain_class_object.png", pixels["s"])
    found = faults("taskonomy", tmp_path)
    expected = {
        one["d"]: ("broken", "mode L, expected 16-bit grey"),
        one["s"]: ("broken", "expected 8-bit grey"),
        one["n"]: ("broken", "not of unit length"),
        one["K"]: ("broken", "20x8 pixels, its image has 20x16"),
        two["s"]: ("broken", "class 18, expected 0..17"),
        two["r"]: ("missing", "no such file"),
        two["E"]: ("broken", "a link to nowhere"),
        two["e"]: ("broken", "an empty file"),
        two["k"]: ("broken", "truncated"),
    } | {path: ("extra", "an image that no list") for letter, path in three.items() if letter != "rgb"}
    assert {*found} == {path.relative_to(tmp_path).as_posix() for path in expected}
    for path, (kind, reason) in expected.items():
        told = found[path.relative_to(tmp_path).as_posix()]
        assert told[0] == kind
        assert reason in told[1]


def test_a_label_that_no_view_has_is_one_finding_and_a_view_comes_once(tmp_path):
    for point in range(4):
        write_view(tmp_path, LAYOUTS[1], "allen", point)["p"].unlink()
    assert faults("taskonomy", tmp_path) == {
        "principal_curvature": ("missing", "no image of this label (task p) in any of 4 views")
    }
    write_view(tmp_path, LAYOUTS[0], "allen", 3)
    (tmp_path / "rgb" / "allen" / "mine_domain_rgb.png").write_bytes(b"")
    found = [one for one in verification.verify("taskonomy", tmp_path).faults if one.kind == "broken"]
    assert {one.path: one.reason.removesuffix("; rename or remove it") for one in found} == {
        "rgb/allen/mine_domain_rgb.png": "expected a name point_P_view_V_domain_rgb.png",
        "rgb/allen/point_3_view_0_domain_rgb.png": ("the same view as allen/rgb/point_3_view_0_domain_rgb.png"),
    }


def test_the_buildings_of_an_official_list_are_counted(tmp_path):
    write_view(tmp_path, LAYOUTS[0], "allen", 1)
    path = tmp_path / "splits" / "train_val_test_tiny.csv"
    path.parent.mkdir()
    path.write_text("id,train,val,test\nallen,1,0,0\nbeech,0,1,0\nelm,0,0,0\n")
    verdict = verification.verify("taskonomy", tmp_path)
    assert verdict.findings == []
    assert (verdict.counts[-1].found, verdict.counts[-1].official) == (1, 2)
    path.write_text("id,train,val,test\nallen,1,1,0\n")
    assert [one.kind for one in verification.verify("taskonomy", tmp_path).faults] == ["broken"]


def test_one_picture_in_two_splits_is_found(layout, tmp_path):
    root = layout("png")
    shutil.copy(root / "rgb" / "0002.jpg", root / "rgb" / "0003.jpg")
    assert "the same picture as rgb/0002.jpg" in faults("nyuv2", root)["rgb/0003.jpg"][1]
    one, other = (write_view(tmp_path / "views", LAYOUTS[0], "allen", point) for point in (1, 1300))
    shutil.copy(one["rgb"], other["rgb"])
    assert [*faults("taskonomy", tmp_path / "views")] == [other["rgb"].relative_to(tmp_path / "views").as_posix()]


@pytest.mark.parametrize("letter", ["rgb", "d", "n"])
def test_an_image_of_a_view_cut_at_any_tenth_byte_is_found(tmp_path, letter):
    path = write_view(tmp_path, LAYOUTS[2], "", 1)[letter]
    whole = path.read_bytes()
    for end in [*range(0, len(whole), 10), len(whole) - 1]:
        path.write_bytes(whole[:end])
        assert [*faults("taskonomy", tmp_path)] == [path.relative_to(tmp_path).as_posix()], end


# --- the real photographs ------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_nyuv2_is_whole():
    verdict = verification.verify("nyuv2", real_folder("nyuv2"), processes=2, whole=True)
    assert verdict.faults == []
    assert [one.path for one in verdict.findings] == ["classes.csv"]
    assert verdict.examined == 1449
