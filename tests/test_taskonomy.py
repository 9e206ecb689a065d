"""Taskonomy's layouts and encodings, on images made here."""

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.label_accuracy import agreement
from headstrong import tasks
from headstrong.configfiles import parse
from headstrong.data import rooms, taskonomy, taskonomy_views
from headstrong.data.build import build_split
from headstrong.data.cache import SplitFile
from headstrong.data.verification import verify
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.provenance import ROOT
from headstrong.study import Plan
from taskonomy_folders import SIZE, place, write_list


@pytest.mark.parametrize("layout", taskonomy_views.LAYOUTS)
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
    np.testing.assert_allclose(tasks.encode("p", raw["p"]), curvature.transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(tasks.encode("n", raw["n"]), view["n"].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(tasks.encode("K", raw["K"])[0], view["K"] / 65535 * 2 - 1, atol=1e-6)
    clipped = np.clip(view["e"] / 65535, 0, 0.08) / 0.08 * 2 - 1
    np.testing.assert_allclose(tasks.encode("e", raw["e"])[0], clipped, atol=1e-5)


def test_the_segmentation_of_the_public_downloader_has_its_classes_in_red(tmp_path):
    place(tmp_path, "{domain}", "", 5, seed=7, without="s")
    # A couch, a dining table, a vase and a bottle; a laptop and background are none of the 16 objects; no label.
    numbers = {39: "couch", 42: "dining table", 57: "vase", 21: "bottle", 45: "unlabelled", 0: "unlabelled"}
    red = np.resize([*numbers, 255], SIZE)
    pixels = np.stack([red, np.zeros(SIZE), np.ones(SIZE)], axis=-1).astype(np.uint8)
    (tmp_path / "semantic").mkdir()
    Image.fromarray(pixels).save(tmp_path / "semantic" / "point_5_view_0_domain_semantic.png")
    _, raw = next(taskonomy.samples(tmp_path, "train", SIZE))
    found = [taskonomy.class_names()[number] for number in raw["s"].ravel()]
    assert found == [numbers.get(number, "unlabelled") for number in red.ravel()]
    assert not [finding for finding in verify("taskonomy", tmp_path).findings if "semantic" in finding.path]


def test_a_room_in_taskonomys_images_is_what_is_derived_from_its_picture_and_depth(tmp_path):
    raw = rooms.render(11, SIZE)
    images = {
        "rgb": raw["rgb"].transpose(1, 2, 0),
        **{letter: np.rint(raw[letter] * 512).astype(np.uint16) for letter in "dD"},
        **{letter: np.rint(raw[letter] * 65535).astype(np.uint16) for letter in "kKeE"},
        "n": np.rint((raw["n"].transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8),
        "r": np.rint(raw["r"] * 255).astype(np.uint8),
    }
    place(tmp_path, "{domain}", "", 1, seed=1, images=images)
    (view,) = taskonomy.frames(tmp_path, "train")
    found = agreement(taskonomy.read_frame(tmp_path, view, SIZE))
    assert {*found} == set("keEKnr")
    assert found["n"] < 2
    assert min(found[letter] for letter in "keE") > 0.98
    assert found["r"] > 0.9


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
    with pytest.raises(MissingDataError, match=r"domain_normal.*data\.missing_labels"):
        taskonomy.count(tmp_path, "train", {"missing_labels": "fail"})


# --- splits --------------------------------------------------------------------------------------------------------

OFFICIAL = "{building}/{domain}"


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Four buildings of two views each, on both sides of the released split by points."""
    root = tmp_path_factory.mktemp("town") / "taskonomy"
    for building in ("allen", "beach", "cosmos", "darden"):
        for point in (1, 1500):
            place(root, OFFICIAL, building, point, seed=point)
    write_list(root / "splits" / "train_val_test_tiny.csv", ["allen,1,0,0", "cosmos,0,1,0", "darden,0,0,1"])
    write_list(root / "train_val_test_medium.csv", ["allen,1,0,0", "nowhere,1,0,0", "beach,0,0,1"])
    return root


def names(root, split, **settings):
    return [view.name.replace("point_", "").replace("_view_0", "") for view in taskonomy.frames(root, split, settings)]


def test_an_official_list_says_which_building_is_for_what(town):
    assert names(town, "train", buildings="tiny") == ["allen/1", "allen/1500"]
    assert names(town, "validation", buildings="tiny") == ["cosmos/1", "cosmos/1500"]
    assert names(town, "test", buildings="tiny") == ["darden/1", "darden/1500"]
    assert names(town, "test", buildings="medium") == ["beach/1", "beach/1500"]


def test_a_list_of_ones_own_by_name_or_in_the_configuration(town):
    write_list(town / "splits" / "train_val_test_mine.csv", ["beach,1,0,0", "cosmos,0,0,1"])
    assert names(town, "train", buildings="mine") == ["beach/1", "beach/1500"]
    own = {"train": ["darden", "allen"], "test": ["cosmos"]}
    assert names(town, "train", buildings=own) == ["allen/1", "allen/1500", "darden/1", "darden/1500"]
    assert names(town, "test", buildings=own) == ["cosmos/1", "cosmos/1500"]


def test_listed_buildings_without_images_are_left_out_and_named(town, caplog):
    assert names(town, "train", buildings="medium", absent_buildings="skip") == ["allen/1", "allen/1500"]
    assert "left out 1 of 2 buildings of train_val_test_medium.csv, which have no images: nowhere" in caplog.text


def test_the_released_rule_splits_every_building_by_its_points(town):
    buildings = ["allen", "beach", "cosmos", "darden"]
    assert names(town, "train", split_rule="point") == [f"{building}/1" for building in buildings]
    assert names(town, "test", split_rule="point") == [f"{building}/1500" for building in buildings]
    assert names(town, "test") == ["darden/1", "darden/1500"]  # by buildings: of four, the last


def test_points_are_in_the_order_of_their_numbers(tmp_path):
    for point in (10, 9, 100):
        place(tmp_path, "{domain}", "", point, seed=1, without="sdDnkKeEpr")
    assert names(tmp_path, "train") == ["9", "10", "100"]


@pytest.mark.parametrize(
    ("settings", "split", "error", "said"),
    [
        ({"buildings": "medium"}, "train", MissingDataError, r"of 1 of 2 buildings .*: nowhere; .*skip"),
        ({"buildings": "full"}, "train", MissingDataError, r"train_val_test_full\.csv: no such list .*github"),
        (
            {"buildings": "huge"},
            "train",
            MissingDataError,
            r"huge\.csv: no such list .*tiny, medium.*columns id",
        ),
        ({"buildings": "../tiny"}, "train", ConfigError, "is not the name of a list"),
        ({"buildings": {"train": ["allen"]}}, "test", ConfigError, "no buildings for split 'test'"),
        ({"buildings": {"train": ["nowhere"]}, "absent_buildings": "skip"}, "train", MissingDataError, "of 1 of 1"),
        ({"absent_buildings": "drop"}, "train", ConfigError, "'drop' is unknown"),
        ({"buildings": "tiny", "split_rule": "point"}, "train", ConfigError, r"taskonomy_split to buildings"),
        ({}, "validation", ConfigError, r"data\.buildings"),
        ({}, "holdout", ConfigError, "'holdout' is unknown"),
    ],
)
def test_lists_and_settings_that_do_not_fit_are_one_line(town, settings, split, error, said):
    with pytest.raises(error, match=said) as caught:
        names(town, split, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        (["allen,1,0"], "id,train,test", "line 1"),
        (["allen,1,0,0", "beach,1,0,1"], "id,train,val,test", "line 3"),
        (["allen,yes,0,0"], "id,train,val,test", "line 2"),
        (["allen,1,0,0", "allen,0,0,1"], "id,train,val,test", "line 3"),
        (["allen,0,0,1"], "id,train,val,test", "no building has a 1 in column train"),
    ],
)
def test_a_list_that_is_not_one_is_named_by_line(tmp_path, rows, header, said):
    place(tmp_path, OFFICIAL, "allen", 1, seed=1)
    write_list(tmp_path / "train_val_test_tiny.csv", rows, header)
    with pytest.raises(BrokenFileError, match=rf"train_val_test_tiny\.csv.*{said}"):
        names(tmp_path, "train", buildings="tiny")


def test_one_folder_without_buildings_has_no_list(tmp_path):
    place(tmp_path, "{domain}", "", 1, seed=1)
    write_list(tmp_path / "train_val_test_tiny.csv", ["allen,1,0,0"])
    with pytest.raises(MissingDataError, match="no folders of buildings"):
        names(tmp_path, "train", buildings="tiny")
    with pytest.raises(MissingDataError, match="no view is for split 'test'"):
        names(tmp_path, "test")


def test_a_view_twice_and_a_foreign_name_are_refused(tmp_path):
    place(tmp_path, OFFICIAL, "allen", 1, seed=1)
    place(tmp_path, "{domain}/{building}", "allen", 1, seed=1)
    with pytest.raises(BrokenFileError, match="the same view as"):
        names(tmp_path, "train")
    odd = tmp_path / "beach" / "rgb" / "point_1_view_0_domain_normal.png"
    odd.parent.mkdir(parents=True)
    odd.write_bytes(b"")
    with pytest.raises(BrokenFileError, match="expected a name point_P_view_V_domain_rgb"):
        names(tmp_path, "train")


# --- labels that are not there, or not what they should be -----------------------------------------------------------


@pytest.fixture
def patchy(tmp_path):
    for point, without in enumerate(("", "n", "sdD", "d")):
        place(tmp_path, "{domain}", "", point, seed=point, without=without)
    place(tmp_path, "{domain}", "", 9, seed=9)
    (tmp_path / "rgb" / "point_9_view_0_domain_rgb.png").unlink()
    return tmp_path


def test_absent_labels_are_none_and_views_without_a_picture_are_left_out(patchy):
    found = dict(taskonomy.samples(patchy, "train", SIZE))
    absent = {name: "".join(letter for letter in raw if raw[letter] is None) for name, raw in found.items()}
    assert absent == {f"point_{point}_view_0": letters for point, letters in enumerate(("", "n", "sdD", "d"))}


def test_views_that_lack_labels_can_be_dropped_or_refused(patchy):
    assert names(patchy, "train", missing_labels="drop") == ["0"]
    with pytest.raises(MissingDataError, match=r"point_1_view_0_domain_normal\.png: no such image .*normal 1"):
        names(patchy, "train", missing_labels="fail")
    for path in (patchy / "normal").iterdir():
        path.unlink()
    with pytest.raises(MissingDataError, match=r"no view .* has every label .*normal 4"):
        names(patchy, "train", missing_labels="drop")


def test_a_hole_in_one_depth_is_a_hole_in_both(tmp_path):
    view = place(tmp_path, "{domain}", "", 5, seed=7)
    view["D"][10:20] = 65535
    Image.fromarray(view["D"]).save(tmp_path / "depth_euclidean" / "point_5_view_0_domain_depth_euclidean.png")
    _, raw = next(taskonomy.samples(tmp_path, "train", SIZE))
    valid = (view["d"] < 64500) & (view["D"] < 64500)
    assert 0 < valid.sum() < valid.size
    for letter in "dD":
        np.testing.assert_array_equal(tasks.depth_is_valid(raw[letter]), valid)


def test_a_label_cut_anywhere_is_named_and_never_read_as_another(tmp_path):
    place(tmp_path, "{domain}", "", 1, seed=1)
    path = tmp_path / "depth_zbuffer" / "point_1_view_0_domain_depth_zbuffer.png"
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 10), len(whole) - 12]:
        path.write_bytes(whole[:length])
        with pytest.raises(BrokenFileError, match=r"domain_depth_zbuffer\.png: truncated") as caught:
            next(taskonomy.samples(tmp_path, "train", SIZE))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "array", "said"),
    [
        ("depth_zbuffer", np.zeros(SIZE, np.uint8), "mode L, expected 16-bit grey"),
        ("edge_texture", np.zeros((*SIZE, 3), np.uint8), "mode RGB, expected 16-bit grey"),
        ("normal", np.zeros(SIZE, np.uint8), "mode L, expected 8-bit colour"),
        ("segment_semantic", np.zeros((*SIZE, 3), np.uint8), "mode RGB, expected 8-bit grey"),
        ("segment_semantic", np.full(SIZE, 18, np.uint8), "class 18, expected 0..17"),
        ("semantic", np.zeros(SIZE, np.uint8), "mode L, expected 8-bit colour"),
        ("semantic", np.full((*SIZE, 3), 62, np.uint8), "class 62, expected 0..61 in red, or 255"),
    ],
)
def test_an_image_of_another_kind_is_refused(tmp_path, domain, array, said):
    place(tmp_path, "{domain}", "", 1, seed=1, without="s" if domain == "semantic" else "")
    (tmp_path / domain).mkdir(exist_ok=True)
    Image.fromarray(array).save(tmp_path / domain / f"point_1_view_0_domain_{domain}.png")
    with pytest.raises(BrokenFileError, match=f"{domain}.png: .*{said}"):
        next(taskonomy.samples(tmp_path, "train", SIZE))


# --- from the configuration ------------------------------------------------------------------------------------------


def settings_of(**changed):
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    content["data"] |= {"source": "taskonomy", "train": None, "test": None, **changed.pop("data", {})}
    content["protocol"] |= changed
    return Plan(parse(content, [(ROOT / "config.yaml", content)])).data_settings("train")


def test_the_configuration_decides_split_and_missing_labels(town, tmp_path, monkeypatch):
    settings = settings_of()
    assert (settings["buildings"], settings["split_rule"], settings["missing_labels"]) == (None, "buildings", "mask")
    assert settings_of(preset="released")["split_rule"] == "point"
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(town.parent))
    build_split(settings_of(data={"buildings": "tiny"}), tmp_path / "train.h5", code="abc")
    with SplitFile(tmp_path / "train.h5") as split:
        assert split.names == ["allen/point_1_view_0", "allen/point_1500_view_0"]
    with pytest.raises(ConfigError, match=r"data\.buildings: .*taskonomy_split"):
        settings_of(data={"buildings": "tiny"}, preset="released")
    with pytest.raises(ConfigError, match="of taskonomy only"):
        settings_of(data={"source": "nyuv2", "buildings": "tiny"})
    own = {"train": ["allen"], "test": ["beach"]}
    settings = settings_of(data={"buildings": own, "absent_buildings": "skip"})
    assert (settings["buildings"], settings["absent_buildings"]) == (own, "skip")
    with pytest.raises(ConfigError, match=r"data\.buildings.*allen"):
        settings_of(data={"buildings": {"train": ["allen"], "test": ["allen"]}})
    with pytest.raises(ConfigError, match=r"config\.yaml: data\.buildings\.test: missing$"):
        settings_of(data={"buildings": {"train": ["allen"]}})
    with pytest.raises(ConfigError, match=r"absent_buildings: only with buildings"):
        settings_of(data={"absent_buildings": "skip"})
    with pytest.raises(ConfigError, match="published"):
        settings_of(data={"source": "nyuv2"}, class_weights="published")


def test_many_processes_give_the_same_samples(town):
    one = list(taskonomy.samples(town, "train", (32, 32)))
    two = list(taskonomy.samples(town, "train", (32, 32), processes=2))
    assert [name for name, _ in one] == [name for name, _ in two]
    for (_, a), (_, b) in zip(one, two, strict=True):
        assert all(np.array_equal(a[letter], b[letter]) for letter in a)
