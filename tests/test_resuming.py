"""A build that is killed goes on where it was, and makes the bytes that it would have made; in a bounded memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from headstrong.data import manifest, row_parts
from headstrong.data.acquire import VARIABLE
from headstrong.data.build import build_pictures, build_split
from headstrong.data.cache import SplitFile
from headstrong.errors import BrokenFileError, MissingDataError
from headstrong.provenance import ROOT
from picture_folders import write_domain
from taskonomy_folders import place

ROWS = 8
ROOMS = {"source": "rooms", "split": "test", "size": [32, 32], "count": 20, "antialias": 1, "seed": 5}
FOLDER = {"source": "folder", "folder": "mine", "domain": "a", "split": "train", "size": [16, 16], "count": None}
FOLDER |= {"seed": 0, "domains": ["a"], "test_share": 0.1, "on_bad_image": "skip"}
TASKONOMY = {"source": "taskonomy", "split": "train", "size": [32, 32], "count": None, "classes": 13}

# Kills itself at the n-th time that it does a thing: no sleep, no luck.
BUILD = """
import json, os, signal, sys
from pathlib import Path
import h5py
from headstrong.data import build, row_parts

what, settings, output, owner, name, times = sys.argv[1:]
owner = {"row": h5py.Dataset, "parts": row_parts, "os": os, "none": None}[owner]
left = int(times)
if owner is not None:
    true = getattr(owner, name)

    def deadly(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return true(*arguments, **named)

    setattr(owner, name, deadly)
row_parts.ROWS = 8
getattr(build, what)(json.loads(settings), Path(output), code="x")
"""


def build(what, settings, output, data, kill=("none", "", 0)):
    """Run a build in a process of its own; returns its exit code."""
    arguments = [what, json.dumps(settings), str(output), *map(str, kill)]
    environment = {"PYTHONPATH": str(ROOT / "src"), VARIABLE: str(data), "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, "-c", BUILD, *arguments], env=environment, capture_output=True).returncode


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_domain(root / "mine" / "a", {"bike": 20, "mug": 20})
    for bad in sorted((root / "mine" / "a" / "bike").rglob("*.*"))[3:8]:  # two of the bikes are for tests
        bad.write_bytes(bad.read_bytes()[:100])
    for point in range(20):
        place(root / "taskonomy", "{domain}", "", point, seed=point, without="n" if point % 3 else "")
    return root


@pytest.fixture
def small_parts(monkeypatch, data):
    monkeypatch.setattr(row_parts, "ROWS", ROWS)
    monkeypatch.setenv(VARIABLE, str(data))


def left_over(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("a.h5", "a.manifest.json"))


@pytest.mark.parametrize(
    ("what", "settings"), [("build_split", ROOMS), ("build_pictures", FOLDER), ("build_split", TASKONOMY)]
)
def test_a_killed_build_goes_on_and_makes_the_same_bytes(what, settings, data, small_parts, tmp_path):
    (tmp_path / "whole").mkdir()
    {"build_split": build_split, "build_pictures": build_pictures}[what](
        settings, tmp_path / "whole" / "a.h5", code="x"
    )
    expected = (tmp_path / "whole" / "a.h5").read_bytes()
    output = tmp_path / "a.h5"
    parts = tmp_path / ".a.parts"
    done = []
    # In the middle of the first part; of a later one; when all parts are there; and when all but the renaming is done.
    for kill in (("row", "__setitem__", 5), ("parts", "file_digest", 2), ("parts", "seal", 1), ("os", "replace", 1)):
        assert build(what, settings, output, data, kill) == -signal.SIGKILL
        assert not output.exists()
        done.append(len(list(parts.glob("0*.h5"))))
    assert done[:2] == [0, 1]
    assert done[2] == done[3] == -(-{"rooms": 20, "folder": 36, "taskonomy": 20}[settings["source"]] // ROWS)
    assert build(what, settings, output, data) == 0
    assert output.read_bytes() == expected
    assert left_over(tmp_path) == ["whole"]
    assert manifest.check(output) == manifest.check(tmp_path / "whole" / "a.h5")


def test_whole_parts_are_not_made_again(data, small_parts, tmp_path):
    output = tmp_path / "a.h5"
    build("build_split", ROOMS, output, data, ("parts", "file_digest", 3))
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".a.parts").glob("0*.h5")}
    assert len(kept) == 2
    build("build_split", ROOMS, output, data, ("parts", "seal", 1))
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".a.parts").glob("0*.h5")}
    assert len(now) == 3
    assert kept.items() <= now.items()


def test_parts_of_other_settings_and_damaged_parts_are_not_taken(data, small_parts, tmp_path):
    output = tmp_path / "a.h5"
    expected = {}
    for seed in (5, 6):
        build_split(ROOMS | {"seed": seed}, tmp_path / f"{seed}.h5", code="x")
        expected[seed] = (tmp_path / f"{seed}.h5").read_bytes()
    build("build_split", ROOMS, output, data, ("parts", "seal", 1))
    build_split(ROOMS | {"seed": 6}, output, code="x")
    assert output.read_bytes() == expected[6]
    output.unlink()
    build("build_split", ROOMS, output, data, ("parts", "seal", 1))
    part = sorted((tmp_path / ".a.parts").glob("0*.h5"))[1]
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    part.write_bytes(damaged)
    build_split(ROOMS, output, code="x")
    assert output.read_bytes() == expected[5]


def test_a_bad_image_stops_the_build_which_goes_on_once_it_is_replaced(small_parts, tmp_path, monkeypatch):
    root = tmp_path / "real" / "taskonomy"
    for point in range(20):
        place(root, "{domain}", "", point, seed=point)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "real"))
    (tmp_path / "out").mkdir()
    output, bad = tmp_path / "out" / "a.h5", root / "normal" / "point_13_view_0_domain_normal.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:500])
    with pytest.raises(BrokenFileError, match=r"point_13_view_0_domain_normal\.png: truncated"):
        build_split(TASKONOMY, output, code="x")
    assert left_over(output.parent) == [".a.parts"]
    assert len(list((output.parent / ".a.parts").glob("0*.h5"))) == 1
    bad.write_bytes(whole)
    # A picture of the first part changes as well, and so does the part.
    changed = root / "rgb" / "point_2_view_0_domain_rgb.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(changed)
    build_split(TASKONOMY, output, code="x")
    assert left_over(output.parent) == []
    with SplitFile(output) as split:
        assert not split.read_images([2]).any()
        assert split.count == 20


def test_a_failed_build_of_less_than_a_part_leaves_nothing(small_parts, tmp_path, monkeypatch):
    place(tmp_path / "real" / "taskonomy", "{domain}", "", 1, seed=1)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "real"))
    (tmp_path / "out").mkdir()
    (tmp_path / "real" / "taskonomy" / "rgb" / "point_1_view_0_domain_rgb.png").write_bytes(b"")
    with pytest.raises(BrokenFileError):
        build_split(TASKONOMY, tmp_path / "out" / "a.h5", code="x")
    assert list((tmp_path / "out").iterdir()) == []


# --- manifests -------------------------------------------------------------------------------------------------------


def test_a_manifest_tells_what_went_in(data, small_parts, tmp_path):
    build_split(TASKONOMY, tmp_path / "a.h5", code="x")
    found = manifest.check(tmp_path / "a.h5")
    assert (found["output"], found["code"], found["settings"]) == ("a.h5", "x", TASKONOMY)
    assert found["counts"] == {"rows": 20, "absent": {"n": 13}}
    pictures = list((data / "taskonomy").rglob("*.png"))
    assert found["inputs"]["files"] == len(found["files"]) == len(pictures)
    told = {name: (size, time) for name, size, time in found["files"]}
    seen = {str(path.relative_to(data / "taskonomy")): path.stat() for path in pictures}
    assert told == {name: (stat.st_size, stat.st_mtime_ns) for name, stat in seen.items()}
    skipped = build_pictures(FOLDER, tmp_path / "b.h5", code="x")
    found = manifest.check(tmp_path / "b.h5")
    assert found["skipped"] == [list(one) for one in skipped]
    assert 3 <= len(skipped) == 36 - found["counts"]["rows"]
    build_split(ROOMS | {"count": 2}, tmp_path / "c.h5", code="x")
    assert manifest.check(tmp_path / "c.h5")["files"] == []


def test_a_file_that_changed_since_its_manifest_is_named(small_parts, tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(MissingDataError, match=r"a\.h5: no such file"):
        manifest.check(path)
    build_split(ROOMS | {"count": 2}, path, code="x")
    whole = path.read_bytes()
    for changed in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(changed)
        with pytest.raises(BrokenFileError, match=r"a\.h5: not the file that a\.manifest\.json tells of"):
            manifest.check(path)
    manifest.path_of(path).write_text("{}")
    with pytest.raises(BrokenFileError, match="not a manifest"):
        manifest.check(path)


# --- memory ----------------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from headstrong.data.cache import write_split

size, count = (96, 96), int(sys.argv[1])
rng = np.random.default_rng(0)
flat = {letter: rng.random(size, dtype=np.float32) for letter in "dDkKeEr"}
raw = flat | {"rgb": rng.integers(0, 256, (3, *size), dtype=np.uint8), "s": np.zeros(size, np.uint8)}
raw |= {"n": rng.random((3, *size), dtype=np.float32), "p": rng.random((2, *size), dtype=np.float32)}
known = {"size": size, "dataset": "x", "split": "train", "classes": ["unlabelled"], "settings": {}, "code": ""}
write_split(Path(sys.argv[2]), ((f"frame {i}", raw) for i in range(count)), count=count, **known)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
TOLERANCE = 8 << 10  # kilobytes


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Four times as many images take no more memory, within a quarter of what they add to the file."""
    peak, size = {}, {}
    for count in (70, 280):
        command = [sys.executable, "-c", MEASURE, str(count), str(tmp_path / f"{count}.h5")]
        environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"]}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peak[count], size[count] = int(result.stdout), (tmp_path / f"{count}.h5").stat().st_size
    assert size[280] - size[70] > 4 * (TOLERANCE << 10)
    assert peak[280] - peak[70] < TOLERANCE, peak
