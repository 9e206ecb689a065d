"""Features of images before and after a backbone forgot a task, cached in HDF5 for the attacks that need them.

    /original            float32 (N, ...)   f0, of the backbone as it was
    /forgetful/<epoch>   float32 (N, ...)   f1, of the copy after so many epochs of forgetting
    /mean_direction      float32 (...)      mean of f1 - f0 after the last epoch, over the attacker's training images

File attributes: format, job (JSON), code, weights_sha256 (of the network attacked), test_sha256 (of the images' file),
complete. Everything in it was made by an attacker: it holds no label and no picture's name. Equal content gives equal
bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import torch
from torch import Tensor

from headstrong.data.hdf5_files import FILE_FORMAT
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.provenance import atomic_path

FORMAT = "headstrong-features-1"
_REMEDY = "delete it and forget this task again"
Batched = Callable[[Tensor], Tensor]  # rows (B,) -> features (B, ...)


def write_features(
    path: Path,
    sources: Mapping[str, Batched],
    count: int,
    batch_size: int,
    mean_direction: Tensor,
    attributes: Mapping[str, str],
) -> None:
    """Write the features of `count` images, batch by batch; the file appears when whole.

    sources: what gives the features of some rows, by the name of their array, "original" or "forgetful/<epoch>".
    """
    with atomic_path(path) as part, h5py.File(part, "w", libver=FILE_FORMAT, locking=False) as file:
        for rows in torch.arange(count).split(batch_size):
            for name, source in sources.items():
                values = source(rows).float().cpu().numpy()
                if name not in file:
                    shape = (count, *values.shape[1:])
                    file.create_dataset(
                        name, shape, np.float32, chunks=(1, *shape[1:]), fletcher32=True, track_times=False
                    )
                file[name][int(rows[0]) : int(rows[-1]) + 1] = values
        mean = mean_direction.float().cpu().numpy()
        file.create_dataset("mean_direction", data=mean, chunks=mean.shape, fletcher32=True, track_times=False)
        file.attrs.update(attributes)
        file.attrs["format"] = FORMAT
        file.attrs["complete"] = 1


class FeatureFile:
    """Reads what `write_features` wrote: features by row, `epochs`, `count`, and the attributes `job` (JSON),
    `weights_sha256` and `test_sha256`.

    Raises MissingDataError where there is no file, BrokenFileError for another or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingDataError(f"{path}: no such file; forget this task first")
        self.path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise BrokenFileError(f"{path}: truncated or not HDF5; {_REMEDY}") from error
        try:
            with self._damaged("its description"):
                self._load_description()
        except BrokenFileError:
            self._file.close()
            raise

    def _load_description(self) -> None:
        attributes = self._file.attrs
        if attributes.get("format") != FORMAT or int(attributes.get("complete", 0)) != 1:
            raise BrokenFileError(f"{self.path}: not features of headstrong ({FORMAT}), or not whole; {_REMEDY}")
        self.job = str(attributes["job"])
        self.weights_sha256 = str(attributes["weights_sha256"])
        self.test_sha256 = str(attributes["test_sha256"])
        self.epochs = tuple(sorted(int(epoch) for epoch in self._file["forgetful"]))
        self.count = len(self._file["original"])
        self._rows = torch.arange(self.count)

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def choose(self, rows: Tensor) -> None:
        """Have only these rows of the file, long (N,), in ascending order, which count from 0 from now on."""
        self._rows, self.count = self._rows[rows], len(rows)

    def original(self, rows: Tensor) -> Tensor:
        """f0 of these rows, in ascending order, float32 (B, ...) on the CPU."""
        return self._read("original", rows)

    def forgetful(self, rows: Tensor, epoch: int | None = None) -> Tensor:
        """f1 of these rows, in ascending order, after so many epochs; None: the last."""
        return self._read(f"forgetful/{self.epochs[-1] if epoch is None else epoch}", rows)

    def mean_direction(self) -> Tensor:
        """The mean of f1 - f0 over the training images, float32 (...)."""
        with self._damaged("mean_direction"):
            return torch.from_numpy(self._file["mean_direction"][()])

    def _read(self, name: str, rows: Tensor) -> Tensor:
        with self._damaged(name):
            return torch.from_numpy(self._file[name][self._rows[rows].numpy()])

    @contextlib.contextmanager
    def _damaged(self, name: str) -> Iterator[None]:
        """Turn what h5py raises on damaged files into one line a person can act on."""
        try:
            yield
        except (OSError, KeyError, RuntimeError) as error:
            raise BrokenFileError(f"{self.path}: {name} cannot be read; {_REMEDY}") from error
