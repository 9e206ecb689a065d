"""How to compress the data cache: size and speed of HDF5's filters on the arrays of a real cache file.

    python benchmarks/compression.py results/quick/data/train.h5
    python benchmarks/compression.py --make nyuv2 --count 64 --size 96 128

Prints a Markdown table. Every filter is timed in every round, one after the other, and the median over the rounds is
told, so that a busy moment of the machine does not fall on one filter alone. Files are read back from the operating
system's cache: the table compares the work of decoding, not disks.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong.data.build import build_split
from headstrong.data.cache import SplitFile
from headstrong.data.hdf5_files import FILE_FORMAT

Arrays = dict[str, NDArray[Any]]
BATCH = 32
BATCH_ARRAYS = ("rgb", "valid", "targets/s", "targets/d", "targets/n")  # what a model of three tasks reads


def filters() -> dict[str, dict[str, Any]]:
    """Keyword arguments of h5py's create_dataset by the name of the filter."""
    found: dict[str, dict[str, Any]] = {
        "none": {},
        "none, with checksum": {"fletcher32": True},
        "lzf + shuffle (h5py only)": {"compression": "lzf", "shuffle": True},
    }
    for level in (1, 4, 9):
        found[f"gzip {level}"] = {"compression": "gzip", "compression_opts": level}
        found[f"gzip {level} + shuffle"] = {"compression": "gzip", "compression_opts": level, "shuffle": True}
    try:
        import hdf5plugin
    except ImportError:
        print("hdf5plugin is not installed: Blosc2 left out", file=sys.stderr)
    else:
        zstd = hdf5plugin.Blosc2(cname="zstd", clevel=5, filters=hdf5plugin.Blosc2.SHUFFLE)
        found["Blosc2-zstd 5 (plugin)"] = {"compression": zstd}
    return found


def load(path: Path, count: int) -> Arrays:
    """The first samples of a cache file, all its arrays."""
    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, thing: names.append(name) if isinstance(thing, h5py.Dataset) else None)
        return {name: file[name][:count] for name in names if name != "index"}


def write(path: Path, arrays: Arrays, options: dict[str, Any]) -> None:
    with h5py.File(path, "w", libver=FILE_FORMAT) as file:
        for name, array in arrays.items():
            data = file.create_dataset(name, array.shape, array.dtype, chunks=(1, *array.shape[1:]), **options)
            for row, sample in enumerate(array):
                data[row] = sample


def read_batches(path: Path, order: NDArray[np.int64]) -> Iterator[None]:
    """Shuffled batches, a sample at a time, as the cache reads them."""
    with h5py.File(path, "r") as file:
        data = [file[name] for name in BATCH_ARRAYS]
        for start in range(0, len(order), BATCH):
            for array in data:
                np.stack([array[row] for row in order[start : start + BATCH]])
            yield


def measure(arrays: Arrays, rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds of writing everything and of reading an epoch of batches, and bytes, by filter, round by round."""
    count = len(arrays["rgb"])
    order = np.random.default_rng(0).permutation(count)
    results: dict[str, dict[str, list[float]]] = {name: {"write": [], "read": [], "bytes": []} for name in filters()}
    for _ in range(rounds):
        for name, options in filters().items():
            path = folder / "cache.h5"
            start = time.perf_counter()
            write(path, arrays, options)
            middle = time.perf_counter()
            for _ in read_batches(path, order):
                pass
            results[name]["write"].append(middle - start)
            results[name]["read"].append(time.perf_counter() - middle)
            results[name]["bytes"].append(path.stat().st_size)
            path.unlink()
    return results


def table(results: dict[str, dict[str, list[float]]], count: int) -> str:
    """The results as a Markdown table, milliseconds and kilobytes for one sample."""
    whole = results["none"]["bytes"][0]
    lines = [
        "| filter | kB a sample | share of none | write, ms a sample | read, ms a sample |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, seen in results.items():
        size = seen["bytes"][0]
        write_ms, read_ms = (1000 * statistics.median(seen[key]) / count for key in ("write", "read"))
        lines.append(f"| {name} | {size / count / 1000:.0f} | {size / whole:.2f} | {write_ms:.2f} | {read_ms:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, nargs="?", help="a cache file to take the arrays from")
    parser.add_argument("--make", choices=("nyuv2", "rooms"), help="make a small cache of this data set instead")
    parser.add_argument("--count", type=int, default=64, help="samples")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("H", "W"), help="for --make")
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    if (wanted.cache is None) == (wanted.make is None):
        parser.error("give either a cache file or --make")
    with tempfile.TemporaryDirectory() as scratch:
        path = wanted.cache
        if path is None:
            path = Path(scratch) / "train.h5"
            settings = {"source": wanted.make, "split": "train", "size": list(wanted.size), "count": wanted.count}
            extra = {"classes": 13} if wanted.make == "nyuv2" else {"seed": 0, "antialias": 2}
            build_split(settings | extra, path, code="benchmark")
        with SplitFile(path) as split:  # checks it
            title = f"{min(split.count, wanted.count)} samples of {split.dataset} at {split.size[0]}x{split.size[1]}"
        arrays = load(path, wanted.count)
        results = measure(arrays, wanted.rounds, Path(scratch))
    print(f"{title}, all tasks; reading: {', '.join(BATCH_ARRAYS)}; median of {wanted.rounds} rounds\n")
    print(table(results, len(arrays["rgb"])))


if __name__ == "__main__":
    main()
