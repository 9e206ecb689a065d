"""Archives from strangers: what is honest is unpacked, what is not ends in one line and leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from headstrong.data.archives import unpack
from headstrong.data.registry import Limits
from headstrong.errors import BrokenFileError, DownloadError, MissingDataError

NOISE = random.Random(0).randbytes(40_000)
FILES = {"toy/a.bin": NOISE, "toy/deep/er/b.txt": b"text", "toy/empty": b""}
KINDS = ("zip", "tar", "tar.gz")


def make(path: Path, files: dict[str, bytes]) -> Path:
    """An archive of the kind that the name says, its names exactly as given."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                member = zipfile.ZipInfo("x")
                member.filename, member.compress_type = name, zipfile.ZIP_DEFLATED
                archive.writestr(member, content)
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, limits: Limits | None = None, kind: type[Exception] = BrokenFileError) -> str:
    """The line; nothing but the archive may be left, in the folder and above it."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(kind) as caught:
        unpack(archive, archive.parent / "out", limits)
    assert sorted(archive.parent.rglob("*")) == before
    assert len(str(caught.value).splitlines()) == 1
    assert str(archive) in str(caught.value) or kind is DownloadError
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_honest_is_unpacked(tmp_path, kind):
    archive = make(tmp_path / f"toy.{kind}", FILES)
    stale = tmp_path / "out" / "of a killed run"
    stale.mkdir(parents=True)
    assert unpack(archive, tmp_path / "out") == (3, 40_004)
    assert read(tmp_path / "out") == FILES
    assert not stale.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil", "leads out of the folder"),
        ("toy/../../evil", "leads out of the folder"),
        ("/tmp/evil", "an absolute path"),
        ("..\\evil", "a backslash"),
        ("C:evil", "a drive letter"),
        ("c:/evil", "a drive letter"),
        ("\\\\server\\share", "a backslash"),
    ],
)
def test_names_that_lead_elsewhere(tmp_path, kind, name, words):
    assert words in refused(make(tmp_path / f"toy.{kind}", {"toy/a": b"fine", name: b"evil"}))


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_come_twice(tmp_path, kind):
    assert "in it twice" in refused(make(tmp_path / f"toy.{kind}", {"a": b"1", "./a": b"2"}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_also_a_folder(tmp_path, kind):
    refused(make(tmp_path / f"toy.{kind}", {"a": b"1", "a/b": b"2"}))


def tar_of(path: Path, member: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.addfile(member)
        inside = tarfile.TarInfo(f"{member.name}/inside")
        inside.size = 4
        archive.addfile(inside, io.BytesIO(b"evil"))
    return path


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc", "../..", "a"])
def test_links_in_a_tar(tmp_path, kind, target):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, target
    assert "'link' is a link" in refused(tar_of(tmp_path / "toy.tar", member))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_devices_in_a_tar(tmp_path, kind):
    member = tarfile.TarInfo("thing")
    member.type, member.devmajor, member.devminor = kind, 1, 3
    refused(tar_of(tmp_path / "toy.tar", member))


@pytest.mark.parametrize(
    ("mode", "words"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "a d")]
)
def test_links_and_devices_in_a_zip(tmp_path, mode, words):
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("thing")
        member.create_system, member.external_attr = 3, (mode | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    assert words in refused(path)


def test_modes_of_files_are_tame(tmp_path):
    path = tmp_path / "toy.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("suid")
        member.mode = 0o6777
        archive.addfile(member)
    unpack(path, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out" / "suid").stat().st_mode) & (stat.S_ISUID | stat.S_ISGID | 0o022) == 0


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb(tmp_path, kind):
    archive = make(tmp_path / f"toy.{kind}", {"zeros": bytes(70 << 20)})
    assert archive.stat().st_size < 1 << 20
    assert "more than 100 times its size" in refused(archive)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("limits", "words"), [(Limits(files=2), "more than 2 files"), (Limits(bytes=40_000), "more than 40000 bytes")]
)
def test_limits_on_files_and_bytes(tmp_path, kind, limits, words):
    assert words in refused(make(tmp_path / f"toy.{kind}", FILES), limits)


def test_a_bomb_in_a_header_of_a_tar(tmp_path):
    path = tmp_path / "toy.tar.gz"
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 40 << 20
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT) + bytes(header.size))
    assert "header" in refused(path)


def test_a_bomb_after_the_end_of_a_tar(tmp_path):
    path = tmp_path / "toy.tar.gz"
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(inner.getvalue())
        for _ in range(12):
            file.write(bytes(1 << 20))
    assert "bomb" in refused(path, Limits(bytes=1 << 20))


def test_a_zip_that_lies_about_its_size(tmp_path):
    path = make(tmp_path / "toy.zip", {"a": bytes(100_000)})
    content = path.read_bytes()
    assert content.count(struct.pack("<I", 100_000)) == 2
    path.write_bytes(content.replace(struct.pack("<I", 100_000), struct.pack("<I", 10)))
    refused(path)


def test_an_encrypted_zip_needs_a_person(tmp_path):
    path = make(tmp_path / "toy.zip", {"a": b"secret"})
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    line = refused(path, kind=MissingDataError)
    assert "encrypted" in line
    assert "password" in line


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_at_every_tenth_byte(tmp_path, kind):
    whole = make(tmp_path / f"whole.{kind}", {"a/one": NOISE[:700], "a/two": b"x" * 600}).read_bytes()
    end = len(whole) if kind != "tar" else len(whole.rstrip(b"\0")) + 1
    cut = tmp_path / "cut" / f"toy.{kind}"
    cut.parent.mkdir()
    for length in range(0, end - 1, 10 if kind != "tar" else 64):
        cut.write_bytes(whole[:length])
        refused(cut)
    # The header of the next file, or the end, must follow: also where a member ends exactly.
    if kind == "tar":
        for length in (1536, 3072):
            cut.write_bytes(whole[:length])
            assert "truncated" in refused(cut)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_altered_bytes(tmp_path, kind):
    path = make(tmp_path / f"toy.{kind}", {"a": NOISE})
    content = bytearray(path.read_bytes())
    content[20_000] ^= 0xFF
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("content", [b"", b"P", b"PK", b"<html>not an archive</html>" * 50, NOISE])
def test_no_archive_at_all(tmp_path, content):
    path = tmp_path / "toy.zip"
    path.write_bytes(content)
    refused(path)


def test_a_zip_larger_than_the_disk(tmp_path):
    path = make(tmp_path / "toy.zip", {"a": b"x"})
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFF0)
    many = 50_000  # of 4 GB each, all in the same bytes
    entry = bytes(content[place : content.index(b"PK\5\6")])
    directory = b"".join(
        entry[:28] + struct.pack("<H", 5) + entry[30:-1] + f"{number:05d}".encode() for number in range(many)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, many, many, len(directory), place, 0)
    path.write_bytes(bytes(content[:place]) + directory + end)
    assert "needs" in refused(path, Limits(bytes=10**18, ratio=1e18), DownloadError)


def test_a_link_that_lies_where_the_archive_is_unpacked_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, tmp_path / "out")
    archive = make(tmp_path / "toy.zip", {"a": b"1"})
    unpack(archive, tmp_path / "out")
    assert list(outside.iterdir()) == []
    assert read(tmp_path / "out") == {"a": b"1"}
