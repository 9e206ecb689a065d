"""`python -m headstrong fetch`: archives end up where the readers look, what a person placed is used and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import checkout
import fetching
import nyuv2_folders
import official_folders
from headstrong.data import awa2, celeba, gtsrb
from headstrong.data.acquire import DATASETS
from headstrong.data.listings import Part
from headstrong.data.registry import load
from headstrong.provenance import ROOT
from http_server import Reply
from small_disks import small_disk
from test_archives import make

ZIPPED = {"name": "toy.zip", "unpack": True, "provides": ["one", "two/three"]}
CONTENT = {"one/a.bin": b"a" * 100, "two/three/b.txt": b"b", "two/licence.txt": b"free"}


@pytest.fixture
def archive(tmp_path):
    return make(tmp_path / "toy.zip", CONTENT)


def serve(server, tmp_path, path: Path, **item) -> Path:
    """A registry of one archive that the server has."""
    server.script["/file"] = [Reply(path.read_bytes())]
    return fetching.write_registry(
        tmp_path / "toy.yaml", {**ZIPPED, "url": server.url("/file"), "name": path.name, **item}
    )


@pytest.mark.parametrize("top", ["", "Toy/", "Toy/Version_2/"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_is_unpacked_to_where_the_readers_look(server, tmp_path, capsys, top, kind):
    path = make(tmp_path / f"toy.{kind}", {top + name: content for name, content in CONTENT.items()})
    registry = serve(server, tmp_path, path)
    told = fetching.fetch(capsys, tmp_path / "data", registry)
    assert told.code == 0
    assert told.files == {**CONTENT, path.name: path.read_bytes()}
    assert told.printed == f"toy: all of it is in {tmp_path / 'data' / 'toy'}\n"
    record = json.loads((tmp_path / "data" / "toy" / ".fetched.json").read_text())
    assert record["unpacked"][path.name]["files"] == 3
    (tmp_path / "data" / "toy" / path.name).unlink()
    assert fetching.fetch(capsys, tmp_path / "data", registry).files == CONTENT
    assert len(server.seen) == 1


def test_what_a_kill_left_while_moving_is_completed(server, tmp_path, capsys, archive):
    registry, folder = serve(server, tmp_path, archive), tmp_path / "data" / "toy"
    assert fetching.fetch(capsys, tmp_path / "data", registry).code == 0
    (folder / "two" / "three" / "b.txt").unlink()
    (folder / "two" / "three").rmdir()
    (folder / ".unpacking-toy.zip" / "one").mkdir(parents=True)
    (folder / "one" / "a.bin").write_bytes(b"mine")
    told = fetching.fetch(capsys, tmp_path / "data", registry)
    assert told.code == 0
    assert told.files == {**CONTENT, "one/a.bin": b"mine", "toy.zip": archive.read_bytes()}
    assert not (folder / ".unpacking-toy.zip").exists()
    assert len(server.seen) == 1


@pytest.mark.parametrize("bad", [{"one/a": b"1"}, {"two/three/b": b"1", "../evil": b"2"}])
def test_an_archive_that_is_not_what_it_should_be_leaves_no_data(server, tmp_path, capsys, bad):
    path = make(tmp_path / "toy.zip", bad)
    told = fetching.fetch(capsys, tmp_path / "data", serve(server, tmp_path, path))
    assert (told.code, told.files) == (4, {})
    assert str(tmp_path / "data" / "toy" / "toy.zip") in told.line
    # It is not what later copies are compared with; one whose checksum is published is what it should be, and stays.
    assert not (tmp_path / "data" / "toy").exists()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    told = fetching.fetch(capsys, tmp_path / "data", serve(server, tmp_path, path, md5=md5, checksum_from="someone"))
    assert (told.code, list(told.files)) == (4, ["toy.zip"])
    assert sorted(one.name for one in (tmp_path / "data" / "toy").iterdir()) == [".fetched.json", "toy.zip"]


def test_a_placed_file_that_is_no_archive_is_no_first_copy(tmp_path, capsys, archive):
    placed = tmp_path / "data" / "toy" / "toy.zip"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(archive.read_bytes()[:-30])
    registry = by_hand(tmp_path, ZIPPED)
    told = fetching.fetch(capsys, tmp_path / "data", registry)
    assert (told.code, list(told.files)) == (4, ["toy.zip"])
    assert "truncated" in told.line
    placed.write_bytes(archive.read_bytes())
    assert fetching.fetch(capsys, tmp_path / "data", registry).code == 0


STEPS = "sign the agreement"


def by_hand(tmp_path, *files):
    return fetching.write_registry(tmp_path / "toy.yaml", *files, steps=STEPS)


def test_what_a_person_must_get_is_said_and_nothing_is_made(tmp_path, capsys):
    md5 = "0" * 32
    registry = by_hand(
        tmp_path,
        {**ZIPPED, "md5": md5, "checksum_from": "someone"},
        {"name": None, "provides": ["Anno", "Eval"]},
    )
    told = fetching.fetch(capsys, tmp_path / "data", registry)
    assert (told.code, told.files) == (3, {})
    for part in (
        f"toy.zip (MD5 {md5}, by someone)", "Anno and Eval", "https://toy.example/page", STEPS, "free",
        f"put it into {tmp_path / 'data' / 'toy'}; then run python -m headstrong fetch toy again",
    ):  # fmt: skip
        assert part in told.line
    assert not (tmp_path / "data" / "toy").exists()


def test_what_a_person_placed_is_checked_and_unpacked(tmp_path, capsys, archive):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    placed = folder / "toy.zip"
    placed.write_bytes(archive.read_bytes())
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    wrong = by_hand(tmp_path, {**ZIPPED, "md5": "0" * 32, "checksum_from": "someone"})
    told = fetching.fetch(capsys, tmp_path / "data", wrong)
    assert (told.code, told.files) == (4, {"toy.zip": placed.read_bytes()})
    assert f"MD5 {md5}, expected {'0' * 32} (published by someone)" in told.line
    right = by_hand(tmp_path, {**ZIPPED, "md5": md5, "checksum_from": "someone"})
    told = fetching.fetch(capsys, tmp_path / "data", right)
    assert (told.code, told.files) == (0, {**CONTENT, "toy.zip": placed.read_bytes()})


def test_what_can_be_fetched_is_fetched_although_a_person_must_get_the_rest(server, tmp_path, capsys):
    server.script["/list"] = [Reply(b"list")]
    registry = by_hand(tmp_path, {"name": "photos.zip", "unpack": True, "provides": ["photos"]}, {
        "name": "list.txt", "url": server.url("/list")
    })  # fmt: skip
    told = fetching.fetch(capsys, tmp_path / "data", registry)
    assert (told.code, told.files) == (3, {"list.txt": b"list"})
    assert "must get photos.zip from" in told.line


def test_another_layout_counts(tmp_path, capsys):
    (tmp_path / "data" / "toy" / "a building" / "rgb").mkdir(parents=True)
    registry = by_hand(tmp_path, {"name": None, "instead": ["rgb", "*/rgb"]})
    assert fetching.fetch(capsys, tmp_path / "data", registry).code == 0


def test_an_encrypted_zip_is_for_a_person(tmp_path, capsys, archive):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    (folder / "toy.zip").write_bytes(content)
    told = fetching.fetch(capsys, tmp_path / "data", by_hand(tmp_path, ZIPPED))
    assert (told.code, list(told.files)) == (3, ["toy.zip"])
    assert "unpack it by hand, with the password" in told.line


def test_unpacked_and_packed_must_fit_on_the_disk(server, tmp_path, capsys, archive):
    registry = serve(server, tmp_path, archive, unpacked_bytes=10**18)
    told = fetching.fetch(capsys, tmp_path / "data", registry)
    assert (told.code, told.files, server.seen) == (6, {}, [])
    assert "packed and unpacked, needs 1000000.0 TB" in told.line


def test_a_record_that_cannot_be_read(tmp_path, capsys, server):
    registry = fetching.write_registry(tmp_path / "toy.yaml", {"name": "a", "url": server.url("/a")})
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "data" / "toy" / ".fetched.json").write_text('{"files": ["a"]}')
    told = fetching.fetch(capsys, tmp_path / "data", registry)
    assert (told.code, told.files) == (4, {})
    assert ".fetched.json: not a record" in told.line


def test_a_root_that_is_a_file(tmp_path, capsys, server):
    registry = fetching.write_registry(tmp_path / "toy.yaml", {"name": "a", "url": server.url("/a")})
    (tmp_path / "data").write_text("a file")
    code = fetching.cli.main(["fetch", "toy", "--root", str(tmp_path / "data"), "--registry", str(registry)])
    line = capsys.readouterr().err
    assert (code, len(line.splitlines())) == (6, 1)
    assert str(tmp_path / "data") in line


def test_an_unknown_data_set_and_an_unreadable_registry(tmp_path, capsys):
    assert fetching.cli.main(["fetch", "imagenet", "--root", str(tmp_path)]) == 2
    assert "data set 'imagenet' is unknown; choose from nyuv2, " in capsys.readouterr().err
    assert fetching.cli.main(["fetch", "toy", "--registry", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml: cannot be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


OFFICIAL = {
    "awa2": (awa2, official_folders.write_awa2, {"AwA2-data.zip": ("JPEGImages", "Animals_with_Attributes2/")}),
    "celeba": (celeba, official_folders.write_celeba, {"img_align_celeba.zip": ("img_align_celeba", "")}),
    "gtsrb": (
        gtsrb,
        official_folders.write_gtsrb,
        {
            "GTSRB-Training_fixed.zip": ("GTSRB/Training", ""),
            "GTSRB_Final_Test_Images.zip": ("GTSRB/Final_Test", ""),
            "GTSRB_Final_Test_GT.zip": ("GT-final_test.csv", ""),
        },
    ),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_archives_laid_out_as_the_official_ones_end_up_where_the_readers_look(tmp_path, capsys, name):
    # Little pictures in them, hence without the checksums; all else as the registry has it.
    reader, write, archives = OFFICIAL[name]
    source, folder = tmp_path / "source", tmp_path / "data" / "toy"
    write(source)
    folder.mkdir(parents=True)
    for archive, (part, top) in archives.items():
        with zipfile.ZipFile(folder / archive, "w") as packed:
            for path in sorted([source / part, *(source / part).rglob("*")]):
                packed.write(path, f"{top}{path.relative_to(source)}")
    for path in source.glob("list_*.txt"):
        (folder / path.name).write_bytes(path.read_bytes())
    entries = [
        {"name": one.name, "unpack": one.unpack, "provides": list(one.provides), "instead": list(one.instead)}
        for one in load()[name].files
    ]
    assert fetching.fetch(capsys, tmp_path / "data", by_hand(tmp_path, *entries)).code == 0
    part = Part(name, "test", 0, (name,), test_share=0.2 if name == "awa2" else None)
    found, expected = reader.listing(folder, part), reader.listing(source, part)
    assert len(found.names) > 0
    assert found.names == expected.names
    assert all(np.array_equal(found.labels[label], expected.labels[label]) for label in expected.labels)


def test_snakemake_has_a_rule_for_every_data_set(tmp_path, monkeypatch):
    real = tmp_path / "real"
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(real))
    # What could be fetched is there, so that nothing leaves this machine.
    there = {
        "nyuv2": nyuv2_folders.write_folders,
        "cifar10": official_folders.write_image_folders,
        "gtsrb": official_folders.write_gtsrb,
        "awa2": official_folders.write_awa2,
    }
    for name, write in there.items():
        write(real / name)
    folder = checkout.make(tmp_path / "clone")
    result = checkout.snakemake(folder, "--printshellcmds", *(f"fetch_{name}" for name in DATASETS))
    assert result.returncode == 1
    for name in DATASETS:
        said = (folder / "results" / "fetch" / f"{name}.log").read_text()
        if name in there:
            assert said.startswith(f"{name}: part of it is in {real / name}, and in order (")
        else:
            assert said.startswith(f"error: {name}: a person must get ")
            assert said in result.stdout + result.stderr


def zipped(source: Path, target: Path, part: str) -> str:
    """Pack a part of a folder; returns the archive's MD5."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as packed:
        for path in sorted([source / part, *(source / part).rglob("*")]):
            packed.write(path, path.relative_to(source).as_posix())
    return hashlib.md5(target.read_bytes()).hexdigest()


def fetch_registered(capsys, tmp_path, name, *items):
    """Fetch a data set of a real name by a registry of these items; exit code and all lines."""
    registry = fetching.write_registry(tmp_path / "registry.yaml", *items, steps=STEPS)
    registry.write_text(registry.read_text().replace(" toy:", f" {name}:"))
    code = fetching.cli.main(["fetch", name, "--root", str(tmp_path), "--registry", str(registry)])
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.mark.parametrize("archive_kept", [True, False])
def test_files_that_are_missing_or_empty_are_taken_from_the_archive_again(tmp_path, capsys, server, archive_kept):
    root = official_folders.write_gtsrb(tmp_path / "gtsrb")
    whole = fetching.left(root)
    md5 = zipped(root, root / "training.zip", "GTSRB/Training")
    content = (root / "training.zip").read_bytes()
    server.script["/training.zip"] = [Reply(content)]
    if not archive_kept:
        (root / "training.zip").unlink()
    folder = root / "GTSRB" / "Training"
    (folder / "00007" / "00000_00000.ppm").write_bytes(b"")
    (folder / "00008" / "00001_00001.ppm").write_bytes(b"")
    shutil.rmtree(folder / "00009")
    mine = folder / "00010" / "00000_00000.ppm"
    mine.write_bytes(whole["GTSRB/Training/00010/00000_00001.ppm"])
    item = {"name": "training.zip", "url": server.url("/training.zip"), "md5": md5, "checksum_from": "someone"}
    item |= {"unpack": True, "provides": ["GTSRB/Training"]}
    code, said = fetch_registered(capsys, tmp_path, "gtsrb", item)
    assert code == 0, said
    assert "gtsrb: part of it is in " in said
    expected = whole | {"GTSRB/Training/00010/00000_00000.ppm": mine.read_bytes(), "training.zip": content}
    assert fetching.left(root) == expected
    assert len(server.seen) == (not archive_kept)


def test_a_corrupt_batch_of_cifar10_is_replaced(tmp_path, capsys, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    digests = official_folders.write_cifar10_batches(tmp_path / "cifar10")
    names = list(digests)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, digests[name]] for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": digests["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    md5 = zipped(tmp_path / "cifar10", tmp_path / "cifar10" / "batches.zip", "cifar-10-batches-py")
    batch = tmp_path / "cifar10" / "cifar-10-batches-py" / "data_batch_2"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1] + b"x")
    item = {"name": "batches.zip", "unpack": True, "provides": ["cifar-10-batches-py"]}
    code, said = fetch_registered(capsys, tmp_path, "cifar10", {**item, "md5": md5, "checksum_from": "someone"})
    assert (code, batch.read_bytes()) == (0, whole), said


def test_a_third_of_deepfashion_is_not_all_of_it(tmp_path, capsys):
    root = official_folders.write_deepfashion(tmp_path / "deepfashion")
    item = {"name": None, "instead": ["Anno_fine"]}
    assert "deepfashion: part of it is in " in fetch_registered(capsys, tmp_path, "deepfashion", item)[1]
    for path in sorted((root / "img").rglob("*.jpg"))[:10]:
        path.unlink()
    code, said = fetch_registered(capsys, tmp_path, "deepfashion", item)
    assert code == 3
    assert "no such file" in said
    assert "(10 such faults in deepfashion; python -m headstrong verify deepfashion names all)" in said


def test_it_starts_without_torch_and_requests(tmp_path):
    code = (
        "import sys, headstrong.cli, headstrong.data.acquire as a, headstrong.data.fetch;"
        "a.instructions('cifar10'); print(sorted({'torch','requests','h5py','pydantic','filelock'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout == "[]\n", result.stderr


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", megabytes=4) as place:
        yield place


def test_a_disk_that_fills_up_while_bytes_arrive(server, tmp_path, capsys, disk):
    # Nobody says how long it is, so that nothing can be said before the start.
    server.script["/file"] = [Reply(os.urandom(5_000_000), silent=True, etag='"one"')]
    registry = fetching.write_registry(tmp_path / "toy.yaml", {"name": "a.bin", "url": server.url("/file")})
    told = fetching.fetch(capsys, disk, registry)
    assert told.code == 6
    assert "No space left on device" in told.line
    assert "a.bin" not in told.files


def test_a_disk_that_fills_up_while_unpacking(tmp_path, capsys, disk):
    placed = disk / "toy" / "toy.tar.gz"
    placed.parent.mkdir()
    make(placed, {"one/a": b"1", "two/three/b": bytes(5_000_000)})
    told = fetching.fetch(capsys, disk, by_hand(tmp_path, {**ZIPPED, "name": placed.name}))
    assert (told.code, list(told.files)) == (6, [placed.name])
    assert "No space left on device" in told.line
