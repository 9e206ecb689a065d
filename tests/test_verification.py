"""`headstrong verify` on folders of pictures: what is missing, broken or extra, reports and exit codes."""

import csv
import io
import json
import os
import pickle
import shutil
import struct
import sys
import zlib
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import official_folders
from headstrong import cli
from headstrong.data import domains, image_folders, verification
from headstrong.data.listings import Part
from headstrong.data.verify_files import look_at_picture
from headstrong.errors import BrokenFileError
from picture_folders import CLASSES, noise, write_domain
from real_folders import real_folder


def faults(dataset, root, **settings):
    """{path: (kind, reason)} of the faults."""
    found = verification.verify(dataset, root, **settings).faults
    assert len({one.path for one in found}) == len(found)
    return {one.path: (one.kind, one.reason) for one in found}


def notes(dataset, root):
    return [one.path for one in verification.verify(dataset, root).findings if not one.fault]


@pytest.fixture
def signs(tmp_path):
    return official_folders.write_gtsrb(tmp_path / "gtsrb")


@pytest.fixture
def small(tmp_path):
    return official_folders.write_image_folders(tmp_path / "cifar10")


# --- layouts -------------------------------------------------------------------------------------------------------


def office31(root, classes=domains.OFFICE31_CLASSES):
    for name in ("amazon", "dslr", "webcam"):
        write_domain(root / name, dict.fromkeys(classes, 2), official=True)
    return root


def own(root):
    for name in ("photo", "sketch"):
        write_domain(root / name)
    return root


WRITERS = {
    "cifar10": (official_folders.write_image_folders, "folders of images, train/<class>/* and test/<class>/*", 70),
    "gtsrb": (
        official_folders.write_gtsrb,
        "the official GTSRB/Training, the training part of the 2011 competition, with GT-final_test.csv",
        43 * 12 + 86,
    ),
    "gtsrb complete": (
        partial(official_folders.write_gtsrb, complete=True),
        "the official GTSRB/Final_Training/Images, the complete training set, with GT-final_test.csv",
        43 * 12 + 86,
    ),
    "awa2": (official_folders.write_awa2, "JPEGImages/<class>/*", 250),
    "celeba": (official_folders.write_celeba, "img_align_celeba/*, list_attr", 12),
    "celeba nested": (partial(official_folders.write_celeba, nested=True), "Img/img_align_celeba/*, list_attr", 12),
    "celeba tables": (partial(official_folders.write_celeba, table=True), "img_align_celeba/img_align_celeba/*", 12),
    "deepfashion": (official_folders.write_deepfashion, "img/, the fine annotation Anno_fine/", 15),
    "deepfashion nested": (
        partial(official_folders.write_deepfashion, nested=True, headers="both", place="own"),
        "Img/img/, the fine annotation Anno_fine/",
        15,
    ),
    "deepfashion coarse": (official_folders.write_coarse_deepfashion, "img/, the coarse annotation Anno_coarse/", 15),
    "office31": (office31, "domains, <domain>/images/<class>/*", 3 * 31 * 2),
    "folder": (own, "domains, <domain>/<class>/*", 2 * sum(CLASSES.values())),
}


@pytest.mark.parametrize("case", WRITERS)
def test_what_is_laid_out_as_officially_has_no_fault_and_is_a_subset(tmp_path, case):
    write, layout, pictures = WRITERS[case]
    dataset = case.split()[0]
    verdict = verification.verify(dataset, write(tmp_path / dataset))
    assert verdict.faults == []
    assert verdict.layout.startswith(layout)
    assert verdict.examined == pictures
    assert sum(count.found for count in verdict.counts if count.what != "classes") == pictures
    if dataset != "folder":
        assert all(count.differs for count in verdict.counts)
        whole = verification.verify(dataset, tmp_path / dataset, whole=True)
        assert [one.kind for one in whole.faults] == ["missing"] * len(verdict.counts)


def test_the_batches_of_cifar10_are_compared_with_torchvisions_checksums(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    digests = official_folders.write_cifar10_batches(tmp_path, each=20)
    assert len(faults("cifar10", tmp_path)) == 7  # these are not the official ones
    names = list(digests)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, digests[name]] for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": digests["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    verdict = verification.verify("cifar10", tmp_path)
    assert (verdict.faults, [count.found for count in verdict.counts]) == ([], [100, 20])
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "data_batch_2").unlink()
    (folder / "data_batch_3").write_bytes(b"")
    (folder / "test_batch").write_bytes(pickle.dumps({}))
    (folder / "readme.html").write_text("official")
    found = faults("cifar10", tmp_path)
    assert {Path(path).name: kind for path, (kind, _) in found.items()} == {
        "data_batch_2": "missing",
        "data_batch_3": "broken",
        "test_batch": "broken",
    }
    assert notes("cifar10", tmp_path) == ["cifar-10-batches-py/readme.html"]


# --- single images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".ppm", ".bmp", ".webp"])
def test_an_image_cut_at_any_tenth_byte_is_found(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(noise("cut", 20, 26)).save(path)
    whole = path.read_bytes()
    assert look_at_picture(tmp_path, path.name) == []
    ends = sorted({*range(0, len(whole), 10), *range(len(whole) - 12, len(whole))})
    for end in ends:
        path.write_bytes(whole[:end])
        found = look_at_picture(tmp_path, path.name)
        assert [one.kind for one in found] == ["broken"], end
        assert ("empty" if end == 0 else "truncated") in found[0].reason


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header says that it is huge."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(out, "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00"
    data = out.getvalue()
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_what_is_no_image_is_a_finding_and_stops_nothing(small):
    folder = small / "train" / "cat"
    (folder / "00000.png").write_bytes(bomb(100_000, 100_000))
    (folder / "00001.png").write_bytes(b"<html>404</html>")
    (folder / "00002.png").write_bytes(b"")
    data = bytearray((folder / "00003.png").read_bytes())
    data[-20] ^= 1
    (folder / "00003.png").write_bytes(data)
    found = faults("cifar10", small)
    assert [Path(path).name for path in found] == [f"0000{i}.png" for i in range(4)]
    reasons = [reason for _, reason in found.values()]
    for reason, said in zip(reasons, ("bomb", "cannot identify", "an empty file", ""), strict=True):
        assert said in reason
    assert all(str(small) not in reason for reason in reasons)


# --- folders -------------------------------------------------------------------------------------------------------


def test_extra_files_are_told_and_images_among_them_are_faults(small):
    (small / "README.txt").write_text("notes")
    (small / "train" / "cat" / ".DS_Store").write_text("")  # hidden files count for nothing, as fetch's record
    (small / ".fetched.json").write_text("{}")
    (small / "thumbs").mkdir()
    official_folders.write_image(small / "thumbs" / "a.png")
    official_folders.write_image(small / "train" / "loose.png")
    official_folders.write_image(small / "test" / "cat" / "more" / "b.png")
    assert {path: kind for path, (kind, _) in faults("cifar10", small).items()} == {
        "train/loose.png": "extra",
        "test/cat/more/b.png": "extra",
    }
    assert sorted(notes("cifar10", small)) == ["README.txt", "thumbs/a.png"]


def test_links_pipes_empty_and_unknown_folders(small):
    cat = small / "train" / "cat"
    (cat / "away.png").symlink_to(small / "nowhere.png")
    (cat / "good.png").symlink_to(cat / "00000.png")
    (small / "train" / "loop").symlink_to(small / "train")
    os.mkfifo(small / "test" / "dog" / "pipe.png")
    for path in (small / "train" / "dog").iterdir():
        path.unlink()
    found = faults("cifar10", small)
    assert found["train/cat/away.png"] == ("broken", "a link to nowhere")
    assert found["train/dog"] == ("missing", "no images")
    assert found["train/loop"][0] == "broken"
    assert found["test/dog/pipe.png"] == ("broken", "not a file")
    assert "train/cat/good.png" not in found


def test_a_listed_pipe_is_not_waited_for(tmp_path):
    root = official_folders.write_celeba(tmp_path / "celeba")
    (root / "img_align_celeba" / "000002.jpg").unlink()
    os.mkfifo(root / "img_align_celeba" / "000002.jpg")
    assert faults("celeba", root) == {"img_align_celeba/000002.jpg": ("broken", "not a file")}


@pytest.mark.parametrize(
    "name", ["späß 狗.png", "a\nb.png", "quote'\".png", "x" * 200 + ".png", "a: b, c.png", "$(x).png"]
)
def test_unusual_names_are_read_and_told(small, tmp_path, name):
    path = small / "train" / "cat" / name
    official_folders.write_image(path)
    assert faults("cifar10", small) == {}
    path.write_bytes(path.read_bytes()[:50])
    report = tmp_path / "report.csv"
    assert cli.main(["verify", "cifar10", "--root", str(small), "--report", str(report), "--processes", "1"]) == 1
    with report.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"train/cat/{name}".replace("\n", "\\n")]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_that_is_no_text_is_told(small, tmp_path, capsys):
    with open(os.fsencode(small / "train" / "cat") + b"/\xff.png", "wb") as file:
        file.write(b"no image")
    report = tmp_path / "report.json"
    assert cli.main(["verify", "cifar10", "--root", str(small), "--report", str(report), "--processes", "2"]) == 1
    assert "train/cat/\\udcff.png: truncated or not an image" in capsys.readouterr().out
    assert json.loads(report.read_text())["findings"][0]["path"] == "train/cat/\\udcff.png"


def test_domains_have_the_same_classes_with_two_images_at_least(tmp_path):
    root = tmp_path / "mine"
    for name in ("amazon", "dslr", "webcam"):
        write_domain(root / name, official=True)
    (root / "dslr" / "images" / "mug").rename(root / "dslr" / "images" / "cup")
    for path in sorted((root / "webcam" / "images" / "bike").iterdir())[1:]:
        path.unlink()
    found = faults("folder", root)
    assert found["dslr/images/mug"] == ("missing", "no such class folder, one of 4")
    assert found["webcam/images/bike"] == ("missing", "one image only, none for tests")
    assert {"amazon/images/cup", "webcam/images/cup"} < {*found}
    assert len(found) == 4


def test_part_of_the_classes_of_office31_and_too_many_pictures_are_faults(tmp_path, monkeypatch):
    root = office31(tmp_path / "office31", domains.OFFICE31_CLASSES[:7])
    found = faults("office31", root)
    assert len(found) == 3 * 24
    assert found["amazon/images/trash_can"] == ("missing", "no such class folder, one of 31")
    monkeypatch.setattr(domains, "OFFICE31", {"amazon": 14, "dslr": 13, "webcam": 20})
    monkeypatch.setattr(domains, "OFFICE31_CLASSES", domains.OFFICE31_CLASSES[:7])
    assert faults("office31", root) == {".": ("extra", "14 pictures of dslr, the official data set has 13")}


@pytest.mark.parametrize(
    ("dataset", "counted"), [("cifar10", "PUBLISHED"), ("gtsrb", "COMPLETE"), ("awa2", "PICTURES")]
)
def test_more_pictures_than_were_published_are_a_fault_and_are_not_read(tmp_path, monkeypatch, dataset, counted):
    root = WRITERS[dataset][0](tmp_path / dataset)
    reader = import_module(f"headstrong.data.{dataset}")
    few = 40 if dataset == "awa2" else replace(getattr(reader, counted), train=40)
    monkeypatch.setattr(reader, counted, few)
    if dataset == "gtsrb":
        monkeypatch.setattr(reader, "COMPETITION", replace(reader.COMPETITION, train=30))
    assert [kind for kind, _ in faults(dataset, root).values()] == ["extra"]
    with pytest.raises(BrokenFileError, match=r"\d+ (training )?pictures, the official data set has 40"):
        reader.listing(root, Part(dataset, "train", 0, (dataset,), 0.2))


def test_which_set_of_signs_it_is_and_what_its_lists_say(tmp_path):
    root = official_folders.write_gtsrb(tmp_path / "gtsrb", complete=True)
    folder = root / "GTSRB" / "Final_Training" / "Images"
    verdict = verification.verify("gtsrb", root)
    assert [count.official for count in verdict.counts] == [39209, 12630]
    (folder / "00007" / "00001_00002.ppm").unlink()
    official_folders.write_image(folder / "00008" / "00009_00000.ppm")
    official_folders.replace_line(folder / "00009" / "GT-00009.csv", 3, "00000_00001.ppm;12;10;1;1;11;9;8")
    assert {path: kind for path, (kind, _) in faults("gtsrb", root).items()} == {
        "GTSRB/Final_Training/Images/00007/00001_00002.ppm": "missing",
        "GTSRB/Final_Training/Images/00008/00009_00000.ppm": "extra",
        "GTSRB/Final_Training/Images/00009/GT-00009.csv": "broken",
    }


def test_a_training_picture_among_the_tests_is_a_fault_where_it_is_not_one_in_a_thousand(signs, monkeypatch):
    train = signs / "GTSRB" / "Training" / "00007" / "00001_00002.ppm"
    shutil.copy(signs / "GTSRB" / "Final_Test" / "Images" / "00003.ppm", train)
    assert faults("gtsrb", signs)["GTSRB/Training/00007/00001_00002.ppm"] == (
        "broken",
        "the same picture as GTSRB/Final_Test/Images/00003.ppm, expected in one split only",
    )
    monkeypatch.setattr(image_folders, "TOLERATED", 1 / 500)
    assert faults("gtsrb", signs) == {}
    assert "GTSRB/Training/00007/00001_00002.ppm" in notes("gtsrb", signs)


# --- lists ---------------------------------------------------------------------------------------------------------


def test_a_listed_image_that_is_absent_and_one_that_no_list_has(tmp_path):
    celeba = official_folders.write_celeba(tmp_path / "celeba")
    (celeba / "img_align_celeba" / "000003.jpg").unlink()
    official_folders.write_image(celeba / "img_align_celeba" / "999999.jpg")
    found = faults("celeba", celeba)
    assert {path: kind for path, (kind, _) in found.items()} == {
        "img_align_celeba/000003.jpg": "missing",
        "img_align_celeba/999999.jpg": "extra",
    }
    fashion = official_folders.write_deepfashion(tmp_path / "deepfashion")
    (fashion / official_folders.fashion_image("val", 1)).unlink()
    official_folders.write_image(fashion / "img" / "Coat" / "img_00000001.jpg")  # the fine lists have a share only
    assert [*faults("deepfashion", fashion)] == [official_folders.fashion_image("val", 1)]
    assert "img/Coat/img_00000001.jpg" in notes("deepfashion", fashion)


def test_the_signs_of_both_splits(signs):
    (signs / "GTSRB" / "Training" / "00007" / "00001_00002.ppm").rename(
        signs / "GTSRB" / "Training" / "00007" / "sign.ppm"
    )
    (signs / "GTSRB" / "Final_Test" / "Images" / "00005.ppm").unlink()
    official_folders.write_image(signs / "GTSRB" / "Final_Test" / "Images" / "99999.ppm")
    (signs / "GTSRB" / "Training" / "00050").mkdir()
    assert {path: kind for path, (kind, _) in faults("gtsrb", signs).items()} == {
        "GTSRB/Training/00007/sign.ppm": "broken",
        "GTSRB/Training/00050": "broken",
        "GTSRB/Final_Test/Images/00005.ppm": "missing",
        "GTSRB/Final_Test/Images/99999.ppm": "extra",
    }


@pytest.mark.parametrize(
    ("dataset", "file", "line", "text", "where", "said"),
    [
        ("gtsrb", "GT-final_test.csv", 3, "00001.ppm;12;10;1;1;11;9;43", "line 3", "a class of 0 to 42"),
        ("gtsrb", "GT-final_test.csv", 3, "00000.ppm;12;10;1;1;11;9;4", "line 3", "each name once"),
        ("celeba", "list_attr_celeba.txt", 4, "000002.jpg " + "1 " * 39 + "2", "line 4", "1 or -1"),
        ("celeba", "list_eval_partition.txt", 2, "000002.jpg 3", "line 2", "a part of 0 to 2"),
        ("deepfashion", "Anno_fine/split/val_cate.txt", 2, "51", "line 2", "a category of 1 to 50"),
        ("deepfashion", "Anno_fine/split/val_attr.txt", 1, "2 " + "0 " * 25, "line 1", "0 or 1"),
    ],
)
def test_a_label_out_of_range_is_told_with_its_line_and_the_images_are_looked_at(
    tmp_path, dataset, file, line, text, where, said
):
    root = WRITERS[dataset][0](tmp_path / dataset)
    official_folders.replace_line(root / file, line, text)
    broken = sorted(root.rglob("*.jpg") if dataset != "gtsrb" else root.rglob("Final_Test/Images/*"))[-2]
    broken.write_bytes(broken.read_bytes()[:60])
    found = faults(dataset, root)
    assert {*found} == {f"{file} {where}", broken.relative_to(root).as_posix()}
    assert said in found[f"{file} {where}"][1]


def test_lists_that_are_not_there(tmp_path):
    celeba = official_folders.write_celeba(tmp_path / "celeba")
    (celeba / "list_eval_partition.txt").unlink()
    assert [kind for kind, _ in faults("celeba", celeba).values()] == ["missing"]
    assert verification.verify("celeba", celeba).examined == 12


# --- the real photographs ------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(("dataset", "counts"), [("cifar10", [10000, 2000]), ("gtsrb", [6450, 2150])])
def test_the_real_subsets_have_no_fault(dataset, counts):
    verdict = verification.verify(dataset, real_folder(dataset), processes=2)
    assert verdict.faults == []
    assert [count.found for count in verdict.counts] == counts
