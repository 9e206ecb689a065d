"""Folders of domains: the split, the turns of the classes, sizes and modes, and what is wrong said in one line."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from headstrong.data import domains
from headstrong.data.listings import Part, read_image
from headstrong.data.pictures import Skipped
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError, UserError
from picture_folders import CLASSES, noise, write_domain
from real_folders import real_folder

SIZE = (12, 16)
SEED = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("folder")
    write_domain(place / "amazon", official=True)
    write_domain(place / "dslr")
    return place


def part(domain="amazon", split="train", seed=SEED, test_share=0.2, others=(), validation_share=None):
    return Part(domain, split, seed, tuple(others), test_share, validation_share)


def read(root, *place, size=SIZE, count=None, processes=1, **changed):
    return list(domains.listing(root, part(*place, **changed)).samples(size, count, processes))


def number(root, *place, **changed):
    return len(domains.listing(root, part(*place, **changed)))


def names(root, *place, **changed):
    return [name for name, _, _ in read(root, *place, **changed)]


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the split -----------------------------------------------------------------------------------------------------


def test_both_layouts_give_the_same_names_and_classes(root):
    assert domains.class_names(root, ["amazon", "dslr"]) == sorted(CLASSES)
    for domain in ("amazon", "dslr"):
        found = names(root, domain, "train") + names(root, domain, "test")
        assert sorted(found) == sorted(
            f"{name}/frame_{i:04d}.png" for name, many in CLASSES.items() for i in range(many)
        )
        for name, _, labels in read(root, domain):
            assert labels == {"class": sorted(CLASSES).index(name.split("/")[0])}


@pytest.mark.parametrize(("share", "tests"), [(0.2, (1, 1, 2)), (0.5, (4, 2, 5)), (0.01, (1, 1, 1)), (0.99, (6, 3, 9))])
def test_every_class_is_split_and_has_some_of_both(root, share, tests):
    test, train = (Counter(n.split("/")[0] for n in names(root, split=s, test_share=share)) for s in ("test", "train"))
    assert tuple(test[name] for name in CLASSES) == tests
    assert {name: test[name] + train[name] for name in CLASSES} == CLASSES
    assert number(root, split="test", test_share=share) == sum(tests)
    assert number(root, split="train", test_share=share) == sum(CLASSES.values()) - sum(tests)


def test_any_count_is_balanced_and_the_beginning_of_all(root):
    everything = names(root)
    counts = Counter(n.split("/")[0] for n in everything)
    for count in range(1, len(everything) + 1):
        some = names(root, count=count)
        assert some == everything[:count]
        found = Counter(n.split("/")[0] for n in some)
        # A class is behind the fullest by more than one turn only when it has no more pictures.
        assert all(found[name] >= min(max(found.values()) - 1, counts[name]) for name in CLASSES)


def test_the_split_is_decided_by_seed_domain_and_class_alone(root, tmp_path):
    assert names(root) == names(root)
    assert len({tuple(names(root, seed=seed, split="test")) for seed in range(5)}) > 1
    assert set(names(root, seed=4)).isdisjoint(names(root, seed=4, split="test"))
    fewer = tmp_path / "amazon"
    shutil.copytree(root / "amazon", fewer)
    shutil.rmtree(fewer / "images" / "mug")
    (fewer / "images" / "bike" / ".hidden.png").write_bytes(b"")
    (fewer / "images" / "bike" / "Thumbs.db").write_bytes(b"")
    (fewer / "images" / ".cache").mkdir()
    assert names(tmp_path) == [name for name in names(root) if not name.startswith("mug/")]


def test_the_split_is_that_of_earlier_versions(tmp_path):
    """Names noted before there was a validation split: files that were made then are not made again."""
    write_domain(tmp_path / "b", {"bike": 9, "mug": 5, "cup": 14})
    noted = {
        "test": "bike/5 cup/2 mug/3 bike/7 cup/10 cup/6 cup/7",
        "train": "bike/3 cup/8 mug/0 bike/2 cup/9 mug/2 bike/4 cup/13 mug/1 bike/0 cup/12 mug/4 bike/1 cup/11 bike/6 "
        "cup/3 bike/8 cup/1 cup/0 cup/4 cup/5",
    }
    for split, expected in noted.items():
        found = names(tmp_path, "b", split, seed=7, test_share=0.25)
        assert found == [f"{name}/frame_{int(i):04d}.png" for name, i in (n.split("/") for n in expected.split())]


@pytest.mark.parametrize(("share", "held"), [(0.5, (3, 2, 4)), (0.01, (1, 1, 1)), (0.99, (5, 2, 7))])
def test_validation_pictures_come_out_of_what_is_not_for_tests(root, share, held):
    """bike, calculator and mug have 7, 4 and 10 pictures, and 1, 1 and 2 tests."""
    splits = {s: names(root, split=s, validation_share=share) for s in ("train", "validation", "test")}
    assert splits["test"] == names(root, split="test")
    assert sorted(splits["train"] + splits["validation"]) == sorted(names(root))
    found = Counter(n.split("/")[0] for n in splits["validation"])
    assert tuple(found[name] for name in CLASSES) == held


def test_what_validation_cannot_do(root, tmp_path):
    with pytest.raises(ConfigError, match="amazon has no validation pictures: give a validation_share"):
        read(root, split="validation")
    for share in (0.0, 1.0):
        with pytest.raises(ConfigError, match=f"validation_share {share:g}: expected a share between 0 and 1"):
            read(root, validation_share=share)
    write_domain(tmp_path / "one", {"a": 2, "b": 9})
    with pytest.raises(BrokenFileError, match=r"one/a: too few images; .* to train with and some to validate with"):
        read(tmp_path, "one", validation_share=0.5)


def test_bits_do_not_depend_on_the_number_of_processes(root):
    for one, other in zip(read(root, count=5), read(root, count=5, processes=2), strict=True):
        assert (one[0], one[2]) == (other[0], other[2])
        assert one[1].tobytes() == other[1].tobytes()


# --- images --------------------------------------------------------------------------------------------------------


def test_pictures_are_those_of_the_files_at_the_size_asked_for(root):
    for name, rgb, _ in read(root, size=(20, 30)):
        truth = np.asarray(Image.open(root / "amazon/images" / name))
        assert np.array_equal(rgb, truth.transpose(2, 0, 1))
    for _, rgb, _ in read(root, size=(7, 9), count=2):
        assert (rgb.shape, rgb.dtype, rgb.flags.c_contiguous) == ((3, 7, 9), np.uint8, True)


def test_resizing_squashes_and_does_not_alias(tmp_path):
    """A whole fraction of a fine chessboard is grey; halves keep their place whatever happens to the shape."""
    board = (np.indices((64, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    grey = read_image(tmp_path / "board.png", (8, 8))
    assert np.abs(grey.astype(int) - 127).max() <= 1
    halves = np.zeros((40, 100, 3), np.uint8)
    halves[:, 50:] = (250, 120, 10)
    Image.fromarray(halves).save(tmp_path / "halves.png")
    small = read_image(tmp_path / "halves.png", (10, 10))
    assert (small[:, :, :4] == 0).all()
    assert (small[:, :, 6:] == np.reshape((250, 120, 10), (3, 1, 1))).all()


def test_resizing_is_that_of_torchvision(tmp_path):
    transforms = pytest.importorskip("torchvision.transforms")
    Image.fromarray(noise("peer", 57, 83)).save(tmp_path / "peer.png")
    expected = np.asarray(transforms.Resize((24, 32))(Image.open(tmp_path / "peer.png").convert("RGB")))
    assert np.array_equal(read_image(tmp_path / "peer.png", (24, 32)), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_colour(tmp_path, mode):
    truth = Image.fromarray(noise("mode"))
    suffix = ".jpg" if mode == "CMYK" else ".png"
    if mode == "I;16":
        fine = np.asarray(truth.convert("L")).astype(np.uint16) * 257
        Image.fromarray(fine).save(tmp_path / "image.png")
        expected = truth.convert("L").convert("RGB")
    else:
        truth.convert(mode).save(tmp_path / f"image{suffix}", quality=100)
        expected = truth.convert(mode).convert("RGB")
    found = read_image(tmp_path / f"image{suffix}", (20, 30))
    difference = np.abs(found.transpose(1, 2, 0).astype(int) - np.asarray(expected)).mean()
    assert difference < (4 if mode == "CMYK" else 1e-9)


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".gif"])
def test_images_of_other_kinds_are_named_not_passed_over(tmp_path, suffix):
    write_domain(tmp_path / "one", {"a": 3, "b": 3})
    Image.fromarray(noise("other")).save(tmp_path / "one" / "b" / f"picture{suffix}")
    with pytest.raises(BrokenFileError, match=rf"picture{suffix}: {suffix} images are not read; convert it to .png"):
        [read(tmp_path, "one", split) for split in ("train", "test")]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".PNG", ".Bmp", ".webp", ".ppm"])
def test_every_suffix_in_any_case(tmp_path, suffix):
    write_domain(tmp_path / "one", {"a": 2, "b": 2}, suffix=suffix)
    (_, rgb, _), _ = read(tmp_path, "one", size=(20, 30))
    assert rgb.std() > 10


# --- errors --------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_named(root, tmp_path):
    with pytest.raises(MissingDataError, match="absent: no such folder"):
        number(tmp_path / "absent")
    with pytest.raises(MissingDataError, match=r"webcam: no such domain; .* has amazon, dslr") as caught:
        read(root, others=["webcam"])
    one_line(caught)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="empty: no class folders"):
        read(tmp_path, "empty")
    (tmp_path / "unpacked" / "images").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="images: no class folders"):
        read(tmp_path, "unpacked")
    write_domain(tmp_path / "hollow", {"a": 2, "b": 0})
    (tmp_path / "hollow/b/notes.txt").write_text("soon")
    (tmp_path / "hollow/b/folder.jpg").mkdir()
    with pytest.raises(MissingDataError, match=r"hollow/b: no images \(\.jpg") as caught:
        read(tmp_path, "hollow")
    one_line(caught)
    write_domain(tmp_path / "single", {"a": 2, "b": 1})
    with pytest.raises(BrokenFileError, match="single/b: one image only"):
        read(tmp_path, "single")


def test_a_class_may_be_called_images(tmp_path):
    write_domain(tmp_path / "one", {"images": 2, "texts": 2})
    assert domains.class_names(tmp_path, ["one"]) == ["images", "texts"]
    assert number(tmp_path, "one") == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bike": 2, "mug": 2}, "lacks 'calculator', which amazon has"),
        (CLASSES | {"pen": 2}, "has 'pen', which amazon"),
    ],
)
def test_class_sets_that_differ(root, tmp_path, changed, said):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    write_domain(tmp_path / "webcam", changed)
    with pytest.raises(BrokenFileError, match=f"mixed class sets: webcam {said}") as caught:
        read(tmp_path, "amazon", others=["amazon", "dslr", "webcam"])
    one_line(caught)
    with pytest.raises(BrokenFileError, match="mixed class sets"):
        read(tmp_path, "webcam", others=["amazon"])
    assert read(tmp_path, "dslr", others=["amazon"])


def test_a_truncated_photograph_is_named_wherever_it_ends(tmp_path):
    path = tmp_path / "photograph.jpg"
    for options in ({"quality": 92}, {"quality": 92, "progressive": True}):
        Image.fromarray(noise("long", 120, 160)).save(path, **options)
        whole = path.read_bytes()
        read_image(path, SIZE)
        for tenth in range(10):
            path.write_bytes(whole[: len(whole) * tenth // 10])
            with pytest.raises(BrokenFileError, match=r"photograph\.jpg: truncated or not an image") as caught:
                read_image(path, SIZE)
            one_line(caught)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".ppm"])
def test_other_truncated_formats_are_named(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(noise("long", 60, 80)).save(path)
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(BrokenFileError, match="truncated or not an image"):
            read_image(path, SIZE)


def test_damage_inside_a_file_never_ends_in_a_defect(tmp_path):
    """Bytes turned over give an image or BrokenFileError, nothing else."""
    noticed = 0
    for suffix in (".jpg", ".png", ".bmp", ".webp", ".ppm"):
        path = tmp_path / f"image{suffix}"
        Image.fromarray(noise("damage")).save(path)
        whole = bytearray(path.read_bytes())
        for position in np.linspace(0, len(whole) - 1, 120, dtype=int):
            changed = whole.copy()
            changed[position] ^= 0xD5
            path.write_bytes(changed)
            try:
                assert read_image(path, SIZE).shape == (3, *SIZE)
            except BrokenFileError:
                noticed += 1
    assert noticed > 100


def test_a_broken_photograph_is_named_from_another_process_as_well(tmp_path):
    write_domain(tmp_path / "one", {"a": 3, "b": 3})
    name = names(tmp_path, "one")[2]
    (tmp_path / "one" / name).write_bytes(b"")
    for processes in (1, 2):
        with pytest.raises(BrokenFileError, match=name):
            read(tmp_path, "one", processes=processes)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"count": 18}, "18 pictures asked for, but .*amazon has 17"),
        ({"count": 0}, "0 pictures asked for"),
        ({"test_share": 0.0}, "test_share 0"),
        ({"test_share": 1.0}, "test_share 1"),
        ({"split": "val"}, "split 'val' is unknown"),
    ],
)
def test_what_cannot_be_asked_for(root, changed, said):
    with pytest.raises(ConfigError, match=said) as caught:
        read(root, **changed)
    one_line(caught)


def test_office31_is_whole_or_not(tmp_path, monkeypatch):
    for domain in domains.OFFICE31:
        write_domain(tmp_path / domain, {"bike": 2, "mug": 2}, official=True)
    with pytest.raises(MissingDataError, match="back_pack: no such class folder; expected 31 classes, 29 not there"):
        domains.check_office31(tmp_path)
    monkeypatch.setattr(domains, "OFFICE31_CLASSES", ("bike", "mug"))
    with pytest.raises(BrokenFileError, match="amazon: 4 images, Office-31 has 2817"):
        domains.check_office31(tmp_path)
    assert "4 of 2817 of amazon" in domains.check_office31(tmp_path, whole=False)
    assert sum(domains.OFFICE31.values()) == 4110
    monkeypatch.setitem(domains.OFFICE31, "amazon", 3)
    with pytest.raises(BrokenFileError, match="amazon: 4 images, the official data set has 3"):
        domains.check_office31(tmp_path, whole=False)


def test_a_picture_that_is_there_twice_is_refused_in_a_folder_of_ones_own(root, tmp_path):
    shutil.copytree(root / "amazon", tmp_path / "amazon")
    copy = tmp_path / "amazon/images/mug/other name.png"
    shutil.copy(tmp_path / "amazon/images/bike/frame_0001.png", copy)
    with pytest.raises(BrokenFileError, match=r"other name\.png: the same picture as .*bike/frame_0001\.png"):
        [read(tmp_path, split=split, validation_share=0.5) for split in ("train", "validation", "test")]
    skipped = [
        one
        for split in ("train", "test")
        for one in domains.listing(tmp_path, part(split=split)).samples(SIZE, skip=True)
        if isinstance(one, Skipped)
    ]
    assert [name for name, _ in skipped] == ["mug/other name.png"]
    published = Part("amazon", "train", SEED, (), 0.2, official=True)  # a published data set is taken as it is
    assert len(domains.listing(tmp_path, published).unusable) == 0


# --- real photographs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return real_folder("cifar10")


@pytest.mark.real_data
def test_real_folders_are_read_as_domains(real):
    """CIFAR-10's own train and test as two domains of its ten classes."""
    classes = domains.class_names(real, ["train", "test"])
    assert classes == ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    counts = {d: [number(real, d, split) for split in ("train", "test")] for d in ("train", "test")}
    assert counts == {"train": [8000, 2000], "test": [1600, 400]}
    for domain in counts:
        for name, rgb, labels in read(real, domain, size=(32, 32), count=30, others=["train", "test"]):
            truth = np.asarray(Image.open(real / domain / name))
            assert np.array_equal(rgb, truth.transpose(2, 0, 1))
            assert classes[labels["class"]] == name.split("/")[0]


@pytest.mark.real_data
def test_truncated_real_photographs_are_named(real, tmp_path):
    name = names(real, "test", count=1)[0]
    path = tmp_path / "real.jpg"
    Image.open(real / "test" / name).resize((300, 300)).save(path, quality=92)
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(BrokenFileError, match=r"real\.jpg"):
            read_image(path, (224, 224))
