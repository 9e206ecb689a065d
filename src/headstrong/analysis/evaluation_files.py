"""Opening evaluations: HDF5 files of per-sample numbers, and what may be wrong with them, said in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

import h5py

from headstrong.errors import BrokenFileError, MissingDataError


@contextlib.contextmanager
def opened(
    path: Path, form: str, title: str, source: str, remedy: str, older: Collection[str] = ()
) -> Iterator[h5py.File]:
    """The file, read-only; what its reading raises inside ends in one line that names the file.

    form: the format it must have. title: what such a file is called. source: what makes it. remedy: what to do.
    older: formats that the caller still reads.
    Raises MissingDataError when it is absent, BrokenFileError when it is truncated, foreign or incomplete.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such evaluation; {source} first")
    try:
        # No lock: files are renamed into place when whole, and locks fail on some network file systems.
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") not in (form, *older):
                raise BrokenFileError(f"{path}: not {title} ({form}); {remedy}")
            yield file
    except BrokenFileError:
        raise
    except KeyError as error:
        raise BrokenFileError(f"{path}: incomplete, {error.args[0]}; {remedy}") from error
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFileError(f"{path}: truncated or foreign, {reason}; {remedy}") from error
