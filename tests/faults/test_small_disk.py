"""A study with its results on a full disk, or on one that can only be read, ends; with room a rerun finishes it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import fault_study
import pytest

import checkout
from small_disks import small_disk


def remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)


def check_whole(folder: Path, expected: dict[str, bytes]) -> set[str]:
    """What there is has the bytes it should have; the names."""
    found = fault_study.results(folder)
    names = {name for name in found if name in expected}
    assert [name for name in names if found[name] != expected[name]] == []
    # Parts of a data file that is being built are the only other thing that may be there.
    assert {name for name in found if name not in expected and ".parts/" not in name} == set()
    return names


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_a_study_that_fills_its_disk_goes_on_where_there_is_room(small, tmp_path, share):
    expected = fault_study.results(small)
    needed = sum(path.stat().st_size for path in (small / "results").rglob("*") if path.is_file())
    folder = checkout.copy(small, tmp_path / "copy")
    subprocess.run(["rm", "-rf", str(folder / "results"), str(folder / ".snakemake")], check=True)
    with small_disk(folder / "results") as place:
        remount(place, f"size={int(share * needed) // 4096 * 4}k")
        ended = checkout.snakemake(folder, *fault_study.TARGET, study="faults")
        assert ended.returncode == 1, ended.stderr[-2000:]
        assert check_whole(folder, expected) < set(expected)
        remount(place, "size=16m")
        checkout.run(folder, *fault_study.TARGET, study="faults")
        fault_study.check_same(folder, expected)


@pytest.mark.slow
def test_a_study_on_a_disk_that_can_only_be_read_goes_on_when_it_can_be_written(small, tmp_path):
    expected = fault_study.results(small)
    folder = checkout.copy(small, tmp_path / "copy")
    subprocess.run(["rm", "-rf", str(folder / "results")], check=True)
    with small_disk(folder / "results") as place:
        subprocess.run(["cp", "-a", f"{small}/results/.", str(place)], check=True)
        for name in ("evaluations", "models", "logs/evaluate_model", "logs/train_model"):
            subprocess.run(["rm", "-rf", str(place / "faults" / name)], check=True)
        left = check_whole(folder, expected)
        remount(place, "ro")
        ended = checkout.snakemake(folder, *fault_study.TARGET, study="faults")
        assert ended.returncode == 1, ended.stderr[-2000:]
        assert check_whole(folder, expected) == left
        remount(place, "rw")
        checkout.run(folder, *fault_study.TARGET, study="faults")
        fault_study.check_same(folder, expected)
