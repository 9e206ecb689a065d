"""Archives from strangers, unpacked so that nothing lands outside the folder made for it.

Zip, tar and tar.gz. Refused, in one line each: paths that are absolute or lead upwards, backslashes and drive letters,
links of any kind, devices, names that come twice, encrypted zips, truncated archives, more than `Limits` allow.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from headstrong.data.registry import Limits
from headstrong.data.transfer import check_room
from headstrong.errors import BrokenFileError, MissingDataError

_BLOCK = 1 << 20
_RATIO_FROM = 64 << 20  # bytes: little archives of little files may well shrink more
_HEADER = 16 << 20  # bytes: no header of an honest tar is as long
_TAR_BLOCK = 512
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, struct.error, lzma.LZMAError)


class Unpacked(NamedTuple):
    """How much an archive held."""

    files: int
    bytes: int


class _RefusedError(Exception):
    """Why an archive is not unpacked."""


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> Unpacked:
    """Unpack into `folder`, which is made, and removed again unless all went well.

    BrokenFileError says what is wrong with the archive, MissingDataError that a password is needed, DownloadError that
    the disk is too small. A folder that a killed run left is removed first.
    """
    limits = limits or Limits()
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with _one_line(archive):
            with archive.open("rb") as file:
                start = file.read(4)
            read = _unzip if start[:2] == b"PK" else _untar
            return read(archive, folder, _Count(archive, limits))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _one_line(archive: Path) -> Iterator[None]:
    """Whatever the readers of zip and tar raise, as one line naming the archive."""
    try:
        yield
    except _RefusedError as error:
        raise BrokenFileError(f"{archive}: {error}; nothing was unpacked, get it again") from None
    except (*_BROKEN, NotImplementedError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise BrokenFileError(
            f"{archive}: truncated, or no archive that can be read ({words}); nothing was unpacked, get it again"
        ) from None
    except (UnicodeError, ValueError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        words = " ".join(str(error).split())
        raise BrokenFileError(f"{archive}: a name in it cannot be used ({words}); nothing was unpacked") from None


class _Count:
    """What has been promised so far: names, files and bytes, held against the limits."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.packed, self.limits = max(archive.stat().st_size, 1), limits
        self.names: dict[str, bool] = {}
        self.files = self.bytes = 0

    @property
    def most(self) -> int:
        """Bytes that this archive may unpack to."""
        return min(self.limits.bytes, max(int(self.packed * self.limits.ratio), _RATIO_FROM))

    def add(self, name: str, size: int, is_folder: bool) -> None:
        """One member more; refused unless its name leads inside, is new, and all of it stays below the limits."""
        key = _inside(name)
        if key in self.names and not (is_folder and self.names[key]):
            raise _RefusedError(f"{name!r} is in it twice")
        self.names[key] = is_folder
        self.files += not is_folder
        self.bytes += size
        if len(self.names) > self.limits.files:
            raise _RefusedError(f"more than {self.limits.files} files, the limit")
        if self.bytes > self.limits.bytes:
            raise _RefusedError(f"unpacks to more than {self.limits.bytes} bytes, the limit")
        if self.bytes > self.most:
            raise _RefusedError(f"unpacks to more than {self.limits.ratio:g} times its size, a bomb it seems")


def _inside(name: str) -> str:
    """The name without needless parts; refused where it could mean a place outside."""
    if not name or "\0" in name:
        raise _RefusedError(f"{name!r} is no name of a file")
    if "\\" in name:
        raise _RefusedError(f"{name!r} has a backslash")
    if re.match(r"[A-Za-z]:", name):
        raise _RefusedError(f"{name!r} begins with a drive letter")
    if name.startswith("/"):
        raise _RefusedError(f"{name!r} is an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _RefusedError(f"{name!r} leads out of the folder")
    return "/".join(parts)


def _unzip(archive: Path, folder: Path, count: _Count) -> Unpacked:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            if member.flag_bits & 1:
                raise MissingDataError(
                    f"{archive}: encrypted; a person must unpack it by hand, with the password, into {archive.parent}"
                )
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = "a link" if kind == stat.S_IFLNK else "a device or the like"
                raise _RefusedError(f"{member.orig_filename!r} is {what}")
            count.add(member.orig_filename, member.file_size, member.is_dir())
        check_room(folder, count.bytes, f"unpacking {archive.name}")
        for member in members:
            target = folder / _inside(member.orig_filename)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open(member) as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy, _BLOCK)
    return Unpacked(count.files, count.bytes)


class _Stream:
    """A plain or gzipped tar as a stream of its own bytes, of which no more is read than the limits allow."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _HEADER:
            raise _RefusedError("a header in it is longer than any honest one")
        found = self._file.read(size)
        if self._file.tell() > self._most:
            raise _RefusedError("unpacks to more than the limits allow, a bomb it seems")
        if size == _TAR_BLOCK:
            self.last = found
        return found

    def seek(self, place: int, whence: int = 0) -> int:
        # Forwards by reading: a gzip file would unpack a bomb to skip it.
        while whence == 0 and place - self._file.tell() > _BLOCK:
            if not self.read(_BLOCK):
                break
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


def _untar(archive: Path, folder: Path, count: _Count) -> Unpacked:
    with archive.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    opener: Callable[[Path, str], IO[bytes]] = gzip.open if zipped else open  # type: ignore[assignment]
    with opener(archive, "rb") as opened:
        # Beside the files: a header and up to a block of filling for each, and long names.
        overhead = 4 * _TAR_BLOCK * min(count.limits.files, count.most // _TAR_BLOCK) + _BLOCK
        stream = _Stream(opened, count.most + overhead)
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                if member.issym() or member.islnk():
                    raise _RefusedError(f"{member.name!r} is a link")
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise _RefusedError(f"{member.name!r} is a device or the like")
                count.add(member.name, member.size if member.isreg() else 0, member.isdir())
                tar.extract(member, folder, filter="data")
        if stream.last.strip(b"\0") or len(stream.last) != _TAR_BLOCK:
            raise _RefusedError("truncated: the end of the archive is missing")
        while stream.read(_BLOCK):  # to the end: gzip compares its checksum there
            pass
    return Unpacked(count.files, count.bytes)
