"""CelebA and DeepFashion: labels and official splits from their lists, and what is wrong with file and line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from headstrong.data import celeba, deepfashion
from headstrong.data.listings import Part
from headstrong.data.verification import verify
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from official_folders import (
    FASHION,
    celeba_value,
    fashion_category,
    fashion_image,
    fashion_values,
    replace_line,
    write_celeba,
    write_coarse_deepfashion,
    write_deepfashion,
)

SIZE = (10, 12)
OFFICIAL = {"train": "train", "validation": "val", "test": "test"}
NAMED = [f"Category_{i}" for i in range(1, 51)]


def listing(module, root, split="train", seed=3, share=None):
    return module.listing(root, Part(module.__name__.rpartition(".")[2], split, seed, (), None, share))


def said(error, module, root, split="train", share=None):
    """What an error says, in one line."""
    with pytest.raises(error) as caught:
        list(listing(module, root, split, share=share).samples(SIZE))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_celeba(tmp_path_factory.mktemp("celeba"))


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    return write_deepfashion(tmp_path_factory.mktemp("deepfashion"))


# --- CelebA --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nested", "table"), [(False, False), (True, False), (False, True), (True, True)])
def test_faces_have_the_labels_and_the_split_of_the_lists(tmp_path, nested, table):
    root = write_celeba(tmp_path, nested=nested, table=table)
    folder = (
        tmp_path / ("Img/img_align_celeba" if nested else "img_align_celeba") / ("img_align_celeba" if table else "")
    )
    seen = {}
    for split in OFFICIAL:
        found = listing(celeba, root, split)
        assert found.classes == {label: ["absent", "present"] for label in celeba.LABELS}
        seen[split] = sorted(found.names)
        for name, rgb, labels in found.samples(SIZE):
            row = int(name[:6]) - 1
            expected = [int(celeba_value(row, column) == 1) for column in range(40)]
            assert labels == dict(zip(celeba.LABELS, expected, strict=True))
            assert np.array_equal(rgb, np.asarray(Image.open(folder / name)).transpose(2, 0, 1))
    everything = [f"{i:06d}.jpg" for i in range(1, 13)]
    assert seen == {"train": everything[:6], "validation": everything[6:9], "test": everything[9:]}


def test_the_seed_decides_the_order_of_faces_and_nothing_else(faces):
    orders = [listing(celeba, faces, seed=seed).names for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    some = list(listing(celeba, faces, seed=0).samples(SIZE, 2))
    assert [name for name, _, _ in some] == orders[0][:2]
    assert len(set(celeba.LABELS)) == 40
    assert (celeba.LABELS[0], celeba.LABELS[20], celeba.LABELS[31], celeba.LABELS[39]) == (
        "5_o_Clock_Shadow",
        "Male",
        "Smiling",
        "Young",
    )


ROW = "000003.jpg " + " ".join(["-1"] * 40)
CELEBA_ERRORS = [
    ("attr", 1, "13", "line 1: 13 pictures said, 12 follow, expected as many as said"),
    ("attr", 1, "many", "line 1: 'many', expected a number of pictures"),
    ("attr", 2, "Bald Young", "line 2: other names, expected the 40 attributes, 5_o_Clock_Shadow to Young"),
    ("attr", 5, ROW[:-3], "line 5: 40 columns, expected 41"),
    ("attr", 5, ROW[:-2] + "0", "line 5: Young is '0', expected 1 or -1"),
    ("attr", 5, ROW.replace("3.jpg", "2.jpg"), "line 5: '000002.jpg' again, as in line 4, expected each name once"),
    ("attr", 5, ROW.replace("3.jpg", "99.jpg"), "line 5: '0000099.jpg', which .*partition.txt has not got"),
    ("partition", 3, "000003.jpg 3", "line 3: '3', expected a part of 0 to 2"),
    ("partition", 3, "000003.jpg", "line 3: 1 columns, expected 2"),
    ("partition", 3, "000002.jpg 0", "line 3: '000002.jpg' again, as in line 2, expected each name once"),
    ("partition", 3, None, "attr_celeba.txt line 5: '000003.jpg', which .*partition.txt has not got"),
    ("partition", 13, "000013.jpg 2", "line 13: '000013.jpg', which .*attr_celeba.txt has not got"),
]


@pytest.mark.parametrize(("kind", "number", "text", "expected"), CELEBA_ERRORS)
def test_what_is_wrong_in_a_list_of_celeba(faces, tmp_path, kind, number, text, expected):
    root = tmp_path / "celeba"
    shutil.copytree(faces, root)
    path = root / {"attr": "list_attr_celeba.txt", "partition": "list_eval_partition.txt"}[kind]
    replace_line(path, number, text)
    with pytest.raises(BrokenFileError, match=expected):
        listing(celeba, root)
    assert (path.name if text else "list_attr") in said(BrokenFileError, celeba, root)


@pytest.mark.parametrize(
    ("name", "number", "text", "expected"),
    [
        ("list_attr_celeba.csv", 1, "Bald,Young", "line 1: other names, expected image_id,5_o_Clock_Shadow,..."),
        ("list_attr_celeba.csv", 4, "000003.jpg,1", "line 4: 2 columns, expected 41"),
        ("list_eval_partition.csv", 1, "000001.jpg,0", "line 1: other names, expected image_id,partition"),
        ("list_eval_partition.csv", 3, "000002.jpg,3", "line 3: '3', expected a part of 0 to 2"),
    ],
)
def test_what_is_wrong_in_a_table_of_celeba(tmp_path, name, number, text, expected):
    root = write_celeba(tmp_path, table=True)
    replace_line(root / name, number, text)
    assert f"{name} {expected}" in said(BrokenFileError, celeba, root)


def test_files_of_celeba_that_are_not_there(faces, tmp_path):
    assert "celeba has official validation pictures" in said(ConfigError, celeba, faces, share=0.1)
    root = tmp_path / "celeba"
    shutil.copytree(faces, root)
    image = root / "img_align_celeba/000002.jpg"
    image.write_bytes(image.read_bytes()[:100])
    assert "000002.jpg: truncated or not an image" in said(BrokenFileError, celeba, root)
    image.unlink()
    assert "000002.jpg: no such image, but it is listed" in said(MissingDataError, celeba, root)
    for name in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        (root / name).unlink()
        assert f"{name}: no such file" in said(MissingDataError, celeba, root)
    shutil.rmtree(root / "img_align_celeba")
    assert "img_align_celeba: no such folder" in said(MissingDataError, celeba, root)


# --- DeepFashion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", ["none", "count", "names", "both"])
@pytest.mark.parametrize(("place", "nested"), [("split", False), ("", True), ("own", False)])
def test_clothes_have_the_labels_and_the_split_of_the_lists(tmp_path, headers, place, nested):
    root = write_deepfashion(tmp_path, headers=headers, place=place, nested=nested)
    for split, official in OFFICIAL.items():
        found = listing(deepfashion, root, split)
        rows = {fashion_image(official, row): row for row in range(FASHION[official])}
        assert sorted(found.names) == sorted(rows)
        assert list(found.classes) == list(deepfashion.LABELS)
        assert found.classes["category"] == NAMED
        for name, _, labels in found.samples(SIZE):
            assert labels["category"] == fashion_category(official, rows[name]) - 1
            assert [labels[attribute] for attribute in deepfashion.ATTRIBUTES] == fashion_values(rows[name])


def test_a_group_is_the_one_attribute_that_is_present(clothes):
    """Picture 0 has, of texture, sleeve and length, no, one and two attributes; and so on."""
    found = listing(deepfashion, clothes)
    assert found.classes["sleeve"] == ["long_sleeve", "short_sleeve", "sleeveless", "none or several"]
    assert [len(found.classes[group]) for group in deepfashion.GROUPS] == [8, 4, 4, 5, 7, 4]
    assert found.classes["floral"] == ["absent", "present"]
    by_name = {name: labels for name, _, labels in found.samples(SIZE)}
    for row, expected in (
        (0, ["none or several", "long_sleeve", "none or several", "none or several", "denim", "none or several"]),
        (1, ["graphic", "none or several", "none or several", "v_neckline", "none or several", "none or several"]),
    ):
        labels = by_name[fashion_image("train", row)]
        assert [found.classes[group][labels[group]] for group in deepfashion.GROUPS] == expected


def test_attributes_may_have_another_order_and_spaces_in_their_names(clothes, tmp_path):
    root = tmp_path / "deepfashion"
    shutil.copytree(clothes, root)
    path = root / "Anno_fine/list_attr_cloth.txt"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:2], *(row.replace("_", " ") for row in reversed(rows[2:]))]))
    for split, many in FASHION.items():
        values = [" ".join(map(str, reversed(fashion_values(row)))) for row in range(many)]
        (root / "Anno_fine/split" / f"{split}_attr.txt").write_text("\n".join(values))
    one, other = listing(deepfashion, clothes), listing(deepfashion, root)
    for label in deepfashion.LABELS:
        assert np.array_equal(one.labels[label], other.labels[label]), label


def test_without_lists_of_categories_clothes_have_the_other_labels(clothes, tmp_path):
    root = tmp_path / "deepfashion"
    shutil.copytree(clothes, root)
    categories = [root / "Anno_fine/list_category_cloth.txt", *root.glob("Anno_fine/split/*_cate.txt")]
    categories[0].unlink()
    assert "list_category_cloth.txt: no such file" in said(MissingDataError, deepfashion, root)
    for path in categories[1:]:
        path.unlink()
    found, whole = listing(deepfashion, root), listing(deepfashion, clothes)
    assert list(found.classes) == list(deepfashion.LABELS[1:])
    assert all(np.array_equal(found.labels[label], whole.labels[label]) for label in found.classes)
    assert "without categories, whose lists are not there" in found.note
    assert verify("deepfashion", root).faults == []


def test_a_picture_that_is_listed_for_two_splits(clothes, tmp_path):
    root = tmp_path / "deepfashion"
    shutil.copytree(clothes, root)
    replace_line(root / "Anno_fine/split/test.txt", 2, fashion_image("train", 4))
    for split in ("train", "test"):
        message = said(BrokenFileError, deepfashion, root, split)
        assert "img_00000005.jpg: listed twice, for train and test" in message


ZEROS = " ".join(["0"] * 26)
FINE_ERRORS = [
    ("split/train.txt", 3, "img/a/b", "line 3: 'img/a/b', expected the path of an image"),
    ("split/train.txt", 3, "img/../../b.jpg", "line 3: .*expected the path of an image"),
    ("split/train.txt", 3, fashion_image("train", 0), "line 3: .* again, as in line 1, expected each name once"),
    ("split/train.txt", 3, None, "train_attr.txt: 8 rows, expected 7, one for each picture of train.txt"),
    ("split/train_attr.txt", 3, ZEROS[:-2], "line 3: 25 columns, expected 26"),
    ("split/train_attr.txt", 1, ZEROS[:-2], "line 1: 25 columns, expected 26"),
    ("split/train_attr.txt", 3, ZEROS[:-1] + "2", "line 3: '2' in column 26, expected 0 or 1"),
    ("split/train_attr.txt", 3, None, "train_attr.txt: 7 rows, expected 8, one for each picture of train.txt"),
    ("split/train_cate.txt", 3, "51", "line 3: '51', expected a category of 1 to 50"),
    ("split/train_cate.txt", 3, "0", "line 3: '0', expected a category of 1 to 50"),
    ("split/train_cate.txt", 3, "Dress", "line 3: 'Dress', expected a category of 1 to 50"),
    ("split/train_cate.txt", 3, "4 4", "line 3: 2 columns, expected 1"),
    ("split/train_cate.txt", 3, None, "train_cate.txt: 7 rows, expected 8, one for each picture of train.txt"),
    ("list_category_cloth.txt", 1, "51", "line 1: 51 rows said, 50 follow"),
    ("list_category_cloth.txt", 7, "Category_1 1", "line 7: 'Category_1' again, as in line 3"),
    ("list_category_cloth.txt", 7, "Category_5", "line 7: 1 columns, expected 2"),
    ("list_category_cloth.txt", 7, "Category_5 9", "line 7: '9', expected a type of 1 to 3"),
    ("list_attr_cloth.txt", 4, "flora 1", "line 4: unknown attribute 'flora', expected one of 26"),
    ("list_attr_cloth.txt", 4, "graphic 2", r"line 4: graphic is of type '2', expected 1 \(texture\)"),
    ("list_attr_cloth.txt", 4, "floral 1", "line 4: 'floral' again, as in line 3"),
]


@pytest.mark.parametrize(("name", "number", "text", "expected"), FINE_ERRORS)
def test_what_is_wrong_in_a_fine_list(clothes, tmp_path, name, number, text, expected):
    root = tmp_path / "deepfashion"
    shutil.copytree(clothes, root)
    replace_line(root / "Anno_fine" / name, number, text)
    with pytest.raises(BrokenFileError, match=expected) as caught:
        listing(deepfashion, root)
    assert "\n" not in str(caught.value)
    assert "Anno_fine" in str(caught.value)


def test_a_list_that_is_short_of_names(clothes, tmp_path):
    root = tmp_path / "deepfashion"
    shutil.copytree(clothes, root)
    for name, many, expected in (
        ("list_attr_cloth.txt", 26, "attributes"),
        ("list_category_cloth.txt", 50, "categories"),
    ):
        path = root / "Anno_fine" / name
        whole = path.read_text()
        replace_line(path, 1, str(many - 1))
        replace_line(path, 9, None)
        assert f"{name}: {many - 1} {expected}, expected {many}" in said(BrokenFileError, deepfashion, root)
        path.write_text(whole)


def test_files_of_deepfashion_that_are_not_there(clothes, tmp_path):
    assert "deepfashion has official validation" in said(ConfigError, deepfashion, clothes, share=0.1)
    root = tmp_path / "deepfashion"
    shutil.copytree(clothes, root)
    (root / fashion_image("train", 2)).unlink()
    assert "img_00000003.jpg: no such image" in said(MissingDataError, deepfashion, root)
    for name in ("split/train_cate.txt", "split/train_attr.txt", "split/train.txt"):
        (root / "Anno_fine" / name).unlink()
        assert f"{name}: no such file" in said(MissingDataError, deepfashion, root)
    shutil.rmtree(root / "Anno_fine")
    assert "Anno_fine: no such folder" in said(MissingDataError, deepfashion, root)
    shutil.rmtree(root / "img")
    assert "img: no such folder; unpack img.zip" in said(MissingDataError, deepfashion, root)


@pytest.mark.parametrize("folder", ["Anno_coarse", "Anno"])
def test_the_coarse_annotation_gives_the_category(tmp_path, folder):
    root = write_coarse_deepfashion(tmp_path, folder)
    for split, official in OFFICIAL.items():
        found = listing(deepfashion, root, split)
        rows = {fashion_image(official, row): row for row in range(FASHION[official])}
        assert found.classes == {"category": NAMED}
        assert sorted(found.names) == sorted(rows)
        for name, _, labels in found.samples(SIZE):
            assert labels == {"category": fashion_category(official, rows[name]) - 1}


COARSE_ERRORS = [
    ("Anno_coarse/list_category_img.txt", 1, "14", "line 1: 14 rows said, 15 follow"),
    ("Anno_coarse/list_category_img.txt", 4, "img/a.jpg 51", "line 4: '51', expected a category of 1 to 50"),
    ("Anno_coarse/list_category_img.txt", 4, "img/a.jpg 5", "line 4: 'img/a.jpg', which .*partition.txt has not got"),
    (
        "Eval/list_eval_partition.txt",
        4,
        "img/a.jpg train",
        "line 4: .*00000002.jpg', which .*partition.txt has not got",
    ),
    ("Eval/list_eval_partition.txt", 4, "img/a.jpg validation", "line 4: 'validation', expected train, val or test"),
    ("Eval/list_eval_partition.txt", 4, "img/a.jpg", "line 4: 1 columns, expected 2"),
]


@pytest.mark.parametrize(("name", "number", "text", "expected"), COARSE_ERRORS)
def test_what_is_wrong_in_a_coarse_list(tmp_path, name, number, text, expected):
    root = write_coarse_deepfashion(tmp_path)
    replace_line(root / name, number, text)
    with pytest.raises(BrokenFileError, match=expected):
        listing(deepfashion, root)
