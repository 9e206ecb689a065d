"""The file of pictures: exact round trip, equal bytes, checks before use; batches; from settings to the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from damaged_files import check_cuts, count_noticed
from headstrong.data import acquire, build, domains, objects, pictures
from headstrong.data.listings import Part
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.provenance import ROOT, imported_files
from job_files import job_file
from picture_folders import write_domain
from real_folders import real_folder

torch.set_num_threads(1)
SIZE = (12, 16)
COUNT = 7
CLASSES = {"shape": ["cube", "ball", "größe"], "light": ["left", "right"]}


def picture(number: int) -> tuple[str, np.ndarray, dict[str, int]]:
    rgb = np.random.default_rng(number).integers(0, 256, (3, *SIZE), dtype=np.uint8)
    return f"picture {number}", rgb, {"light": number % 2, "shape": number % 3}


def write(path: Path, count: int = COUNT, **changed) -> Path:
    known = {"count": count, "size": SIZE, "dataset": "objects", "domain": "room", "split": "train"}
    known |= {"classes": CLASSES, "settings": {"seed": 3, "size": list(SIZE)}, "code": "0123"} | changed
    pictures.write_pictures(path, map(picture, range(count)), **known)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pictures") / "train.h5")


# --- the file ------------------------------------------------------------------------------------------------------


def test_round_trip_is_exact(path):
    with pictures.PictureFile(path) as file:
        assert (file.count, file.size, file.classes, file.code) == (COUNT, SIZE, CLASSES, "0123")
        assert (file.dataset, file.domain, file.split) == ("objects", "room", "train")
        assert file.settings == {"seed": 3, "size": list(SIZE)}
        assert file.names == [f"picture {i}" for i in range(COUNT)]
        rows = [5, 0, 1, 5, 6]
        assert np.array_equal(file.read_images(rows), np.stack([picture(row)[1] for row in rows]))
        for label in CLASSES:
            numbers = file.read_labels(label, rows)
            assert numbers.dtype == np.int16
            assert numbers.tolist() == [picture(row)[2][label] for row in rows]
        assert file.read_images([]).shape == (0, 3, *SIZE)
        assert file.read_labels("shape", []).shape == (0,)


def test_rows_and_labels_that_are_not_there(path):
    with pictures.PictureFile(path) as file:
        for rows in ([0, COUNT], [-1]):
            with pytest.raises(IndexError, match=str(COUNT)):
                file.read_images(rows)
            with pytest.raises(IndexError, match=str(COUNT)):
                file.read_labels("shape", rows)
        with pytest.raises(ConfigError, match="no label 'colour'; choose from shape, light"):
            file.read_labels("colour", [0])


def test_equal_content_gives_equal_bytes(path, tmp_path):
    again = write(tmp_path / "other name.h5")
    assert again.read_bytes() == path.read_bytes()
    with h5py.File(again) as file:
        things = [file, file["labels"], *(file[name] for name in ("rgb", "index", "labels/shape"))]
        times = [h5py.h5o.get_info(thing.id) for thing in things]
        assert {(info.atime, info.btime, info.ctime, info.mtime) for info in times} == {(0, 0, 0, 0)}
        assert file["rgb"].chunks == (1, 3, *SIZE)
        assert {data.compression for data in (file["rgb"], *file["labels"].values())} == {"gzip"}
        assert file.attrs["format"] == "headstrong-pictures-1"
    assert write(tmp_path / "changed.h5", settings={"seed": 4}).read_bytes() != path.read_bytes()


def test_no_pictures_are_a_file_as_well(tmp_path):
    with pictures.PictureFile(write(tmp_path / "none.h5", count=0)) as file:
        assert (file.count, file.size, file.names) == (0, SIZE, [])
        assert file.read_labels("shape", []).shape == (0,)


def test_a_file_cut_anywhere_is_refused_with_its_name(path, tmp_path):
    check_cuts(path, tmp_path, pictures.PictureFile, "file of pictures.*delete it")


def test_damage_inside_is_noticed_or_harmless(path, tmp_path):
    """A byte turned over gives BrokenFileError or the same images and classes; never other ones."""

    def read(place):
        with pictures.PictureFile(place) as file:
            return [file.read_images(range(COUNT)), *(file.read_labels(label, range(COUNT)) for label in CLASSES)]

    assert count_noticed(path, tmp_path, read, 300) > 50


def test_foreign_and_unfinished_files_are_refused(path, tmp_path):
    def changed(name, change):
        shutil.copy(path, tmp_path / name)
        with h5py.File(tmp_path / name, "a") as file:
            change(file)
        return tmp_path / name

    text = tmp_path / "text.h5"
    text.write_text("not HDF5 at all\n" * 100)
    with pytest.raises(BrokenFileError, match=r"text\.h5"):
        pictures.PictureFile(text)
    for broken, said in {
        changed("foreign.h5", lambda file: file.attrs.modify("format", "headstrong-cache-1")): "not a file of pictures",
        changed("unfinished.h5", lambda file: file.attrs.pop("complete")): "not written to the end",
        changed("thinner.h5", lambda file: file.pop("labels/shape")): "labels/shape",
        changed("nameless.h5", lambda file: file.attrs.pop("domain")): "domain",
        changed("other.h5", lambda file: file["labels/light"].write_direct(np.full(7, 2, np.int16))): "light .*0..1",
    }.items():
        with pytest.raises(BrokenFileError, match=f"{broken.name}: .*{said}.*delete it"):
            pictures.PictureFile(broken)
    with pytest.raises(MissingDataError, match=r"absent\.h5: no such file"):
        pictures.PictureFile(tmp_path / "absent.h5")


def test_a_failing_source_leaves_nothing_behind(tmp_path):
    def failing():
        yield picture(0)
        raise RuntimeError("the camera fell over")

    place = {
        "size": SIZE,
        "dataset": "x",
        "domain": "y",
        "split": "test",
        "classes": CLASSES,
        "settings": {},
        "code": "",
    }
    with pytest.raises(RuntimeError):
        pictures.write_pictures(tmp_path / "a.h5", failing(), count=2, **place)
    for count in (1, 3):
        with pytest.raises(ValueError, match=str(count)):
            pictures.write_pictures(tmp_path / "a.h5", map(picture, range(2)), count=count, **place)
    name, rgb, labels = picture(1)
    for broken in (
        (name, rgb[:, 1:], labels),
        (name, rgb.astype(np.float32), labels),
        (name, rgb, {"shape": 0}),
        (name, rgb, labels | {"colour": 0}),
        (name, rgb, labels | {"light": 2}),
        (name, rgb, labels | {"light": -1}),
    ):
        with pytest.raises(ValueError, match="picture 1"):
            pictures.write_pictures(tmp_path / "a.h5", iter([broken]), count=1, **place)
    assert list(tmp_path.iterdir()) == []


# --- batches -------------------------------------------------------------------------------------------------------


def test_batches_give_what_the_file_holds_resident_and_streamed(path):
    wanted = [6, 2, 2, 0]
    resident, streamed = (PictureBatches(path, ["light", "shape"], "cpu", memory_bytes=limit) for limit in (1 << 20, 0))
    assert (resident.resident, streamed.resident) == (True, False)
    for batches in (resident, streamed):
        assert (batches.count, batches.size, batches.classes) == (COUNT, SIZE, CLASSES)
        batch = batches.get(torch.tensor(wanted))
        assert torch.equal(batch.index, torch.tensor(wanted))
        expected = torch.from_numpy(np.stack([picture(row)[1] for row in wanted])).float() / 255
        assert torch.equal(batch.images, expected)
        assert list(batch.labels) == ["light", "shape"]
        for label, numbers in batch.labels.items():
            assert numbers.dtype == torch.long
            assert numbers.tolist() == [picture(row)[2][label] for row in wanted]
        with pytest.raises(IndexError):
            batches.get([COUNT])
        assert len(batches.get([]).index) == 0
        batches.close()


def test_limit_labels_and_devices(path):
    batches = PictureBatches(path, ["shape"], "cpu", limit=3)
    assert (batches.count, list(batches.get([2]).labels)) == (3, ["shape"])
    assert torch.equal(batches.get([2]).images, PictureBatches(path, [], "cpu").get([2]).images)
    with pytest.raises(IndexError):
        batches.get([3])
    assert PictureBatches(path, [], "cpu", limit=99).count == COUNT
    with pytest.raises(ConfigError, match="no label 'colour'"):
        PictureBatches(path, ["colour"], "cpu")
    moved = batches.get([0]).to("meta")
    assert {tensor.device.type for tensor in (moved.index, moved.images, *moved.labels.values())} == {"meta"}


# --- from settings to the file -------------------------------------------------------------------------------------

OBJECTS = {"source": "objects", "domain": "room", "split": "test", "size": [32, 32], "count": 3, "seed": 5}
FOLDER = {"source": "folder", "folder": "mine", "domain": "a", "split": "train", "size": [8, 12], "count": None}
FOLDER |= {"seed": 0, "domains": ["a", "b"], "test_share": 0.25}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of real data with two domains of four pictures of each of two classes."""
    for domain in "ab":
        write_domain(tmp_path / "real" / "mine" / domain, {"bike": 4, "mug": 4})
    monkeypatch.setenv(acquire.VARIABLE, str(tmp_path / "real"))
    return tmp_path / "real"


def test_a_folder_of_domains_becomes_a_file(data, tmp_path):
    build.build_pictures(FOLDER, tmp_path / "train.h5", code="abc")
    with pictures.PictureFile(tmp_path / "train.h5") as file:
        assert (file.count, file.size, file.classes) == (6, (8, 12), {"class": ["bike", "mug"]})
        assert (file.dataset, file.domain, file.split, file.settings) == ("mine", "a", "train", FOLDER)
        expected = list(domains.listing(data / "mine", Part("a", "train", 0, "ab", 0.25)).samples((8, 12)))
        assert file.names == [name for name, _, _ in expected]
        assert np.array_equal(file.read_images(range(6)), np.stack([rgb for _, rgb, _ in expected]))
        assert file.read_labels("class", range(6)).tolist() == [0, 1, 0, 1, 0, 1]
    build.build_pictures(FOLDER | {"split": "test", "count": 2}, tmp_path / "test.h5", code="abc")
    with pictures.PictureFile(tmp_path / "test.h5") as test:
        assert test.count == 2
        assert set(test.names).isdisjoint(file.names)


def test_office31_is_found_by_its_own_name_and_must_be_whole_unless_some_are_asked_for(data, tmp_path, monkeypatch):
    (data / "mine").rename(data / "office31")
    for old, new in (("a", "amazon"), ("b", "dslr")):
        (data / "office31" / old).rename(data / "office31" / new)
    settings = {key: value for key, value in FOLDER.items() if key != "folder"} | {"source": "office31"}
    settings |= {"domain": "amazon", "domains": ["amazon", "dslr"]}
    with pytest.raises(MissingDataError, match="expected 31 classes, 29 not there"):
        build.build_pictures(settings | {"count": 5}, tmp_path / "some.h5", code="abc")
    monkeypatch.setattr(domains, "OFFICE31_CLASSES", ("bike", "mug"))
    build.build_pictures(settings | {"count": 5}, tmp_path / "some.h5", code="abc")
    with pictures.PictureFile(tmp_path / "some.h5") as file:
        assert (file.dataset, file.count) == ("office31", 5)
    with pytest.raises(BrokenFileError, match="amazon: 8 images, Office-31 has 2817"):
        build.build_pictures(settings, tmp_path / "all.h5", code="abc")
    with pytest.raises(ConfigError, match="office31 has no domain 'phone'; choose from amazon, dslr, webcam"):
        build.build_pictures(settings | {"domain": "phone", "domains": ["phone"]}, tmp_path / "all.h5", code="abc")
    monkeypatch.setattr(domains, "OFFICE31", {"amazon": 8, "dslr": 8})
    build.build_pictures(settings, tmp_path / "all.h5", code="abc")
    with pictures.PictureFile(tmp_path / "all.h5") as file:
        assert file.count == 6


def test_a_source_that_makes_pictures_is_asked_for_as_many_as_wanted(tmp_path, monkeypatch):
    def samples(*asked):
        assert asked == (5, "room", "test", 3, SIZE, 2, 0)
        return map(picture, range(3))

    stand_in = types.ModuleType("stand_in")
    monkeypatch.setattr(stand_in, "ATTRIBUTES", CLASSES, raising=False)
    monkeypatch.setattr(stand_in, "samples", samples, raising=False)
    monkeypatch.setitem(sys.modules, "stand_in", stand_in)
    monkeypatch.setitem(build.PICTURE_SOURCES, "objects", "stand_in")
    build.build_pictures(OBJECTS | {"size": list(SIZE)}, tmp_path / "test.h5", code="abc", processes=2)
    with pictures.PictureFile(tmp_path / "test.h5") as file:
        assert (file.dataset, file.domain, file.split, file.classes) == ("objects", "room", "test", CLASSES)
        assert file.names == [f"picture {i}" for i in range(3)]
    with pytest.raises(ConfigError, match="count must be a number"):
        build.build_pictures(OBJECTS | {"count": None}, tmp_path / "all.h5", code="abc")


def test_objects_become_a_file(tmp_path):
    for name in ("one", "again"):
        build.build_pictures(OBJECTS, tmp_path / f"{name}.h5", code="abc", processes=1 if name == "one" else 2)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    with pictures.PictureFile(tmp_path / "one.h5") as file:
        assert (file.count, file.size, file.classes) == (3, (32, 32), dict(objects.ATTRIBUTES))
        expected = list(objects.samples(5, "room", "test", 3, (32, 32)))
        assert file.names == [name for name, _, _ in expected]
        assert np.array_equal(file.read_images(range(3)), np.stack([rgb for _, rgb, _ in expected]))
        for label in file.classes:
            assert file.read_labels(label, range(3)).tolist() == [numbers[label] for _, _, numbers in expected]


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"folder": "yours"}, MissingDataError, "yours: no folder .*<domain>/<class>/<images>.*HEADSTRONG_REAL_DATA"),
        (
            {"source": "office31", "folder": None},
            MissingDataError,
            "office31: no folder .*gatech.*HEADSTRONG_REAL_DATA",
        ),
        ({"source": "photographs"}, ConfigError, "'photographs' is unknown; choose from objects, office31, folder"),
        ({"domains": ["a", "c"]}, MissingDataError, "c: no such domain; .* has a, b"),
        ({"count": 7}, ConfigError, "train: 7 pictures asked for, but .* has 6"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_and_leaves_nothing(data, tmp_path, changed, error, said):
    with pytest.raises(error, match=said) as caught:
        build.build_pictures(FOLDER | changed, tmp_path / "made" / "train.h5", code="abc")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("made/*"))


def test_the_code_of_a_source_does_not_hang_on_the_others():
    def files(modules):
        return {path.name for path in imported_files(*modules)}

    assert {"pictures.py", "domains.py", "hdf5_files.py"} <= files(build.picture_modules("office31"))
    assert "objects.py" not in files(build.picture_modules("folder"))
    assert not {"pictures.py", "domains.py", "objects.py"} & files(build.code_modules("rooms"))


def test_nothing_here_loads_torch():
    modules = "headstrong.data.pictures, headstrong.data.domains, headstrong.data.build"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}, check=True
    )
    assert result.stdout.strip() == "False"


def test_the_program_writes_the_file_and_its_record(data, tmp_path):
    def run(settings):
        command = [sys.executable, "scripts/build_pictures.py", "--output", str(tmp_path / "train.h5")]
        environment = {"PYTHONPATH": str(ROOT / "src"), acquire.VARIABLE: str(data)}
        arguments = ["--settings", job_file(settings), "--processes", "2"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)

    broken = data / "mine" / "a" / domains.listing(data / "mine", Part("a", "train", 0, "ab", 0.25)).names[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    result = run(FOLDER)
    assert result.returncode == 4
    assert str(broken) in result.stderr.splitlines()[-1]
    assert not (tmp_path / "train.h5").exists()
    broken.write_bytes(whole)
    result = run(FOLDER)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1].startswith("mine a train: 6 of 6 pictures")
    with pictures.PictureFile(tmp_path / "train.h5") as file:
        record = json.loads((tmp_path / "train.json").read_text())
        assert record["code"] == file.code
        assert len(record["sha256"]) == 64


@pytest.mark.real_data
def test_real_photographs_become_a_file(tmp_path):
    """CIFAR-10's own train and test as two domains of a folder."""
    real_folder("cifar10")
    settings = {
        "source": "folder",
        "folder": "cifar10",
        "domain": "test",
        "split": "test",
        "size": [48, 48],
        "count": 25,
    }
    settings |= {"seed": 1, "domains": ["train", "test"], "test_share": 0.2}
    build.build_pictures(settings, tmp_path / "test.h5", code="abc")
    with pictures.PictureFile(tmp_path / "test.h5") as file:
        assert (file.count, file.size, file.dataset) == (25, (48, 48), "cifar10 (own folder)")
        assert np.bincount(file.read_labels("class", range(25))).tolist() == [3] * 5 + [2] * 5
        assert 30 < file.read_images(range(25)).mean() < 220
