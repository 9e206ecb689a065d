"""`headstrong verify` as a command: exit codes, reports, processes that die."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import official_folders
from headstrong import cli
from headstrong.data import verification
from headstrong.data.verify_files import look_at_picture
from headstrong.data.verify_findings import Finding
from headstrong.errors import ConfigError, MissingDataError
from picture_folders import write_domain


@pytest.fixture
def signs(tmp_path):
    return official_folders.write_gtsrb(tmp_path / "gtsrb")


@pytest.fixture
def small(tmp_path):
    return official_folders.write_image_folders(tmp_path / "cifar10")


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "headstrong", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), **environment},
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_exit_codes_and_what_the_command_says(small, tmp_path):
    whole = run("cifar10", "--processes", 2, HEADSTRONG_REAL_DATA=str(tmp_path))
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.splitlines() == [
        f"cifar10 in {small}",
        "layout: folders of images, train/<class>/* and test/<class>/*",
        "training pictures: 50 of 50000, a subset",
        "test pictures: 20 of 10000, a subset",
        "examined: 70 images",
        "what is there of cifar10 is in order, but it is not the official number "
        "(training pictures 50 of 50000, test pictures 20 of 10000)",
    ]
    assert "70 of 70 images" in whole.stderr
    assert "Traceback" not in whole.stderr
    for path in (small / "train" / "cat").iterdir():
        path.write_bytes(b"no image")
    (small / "train" / "dog" / "00000.png").write_bytes(b"")
    report = tmp_path / "reports" / "cifar10.json"
    broken = run("cifar10", "--root", small, "--report", report, "--processes", 1)
    assert broken.returncode == 1
    assert "broken: 6\n" in broken.stdout
    assert "  ... and 1 more\n" in broken.stdout
    assert broken.stdout.endswith("cifar10 is not whole: 6 faults\n")
    told = json.loads(report.read_text())
    assert (told["dataset"], told["whole"], told["faults"], told["examined"]) == ("cifar10", False, 6, 70)
    assert told["counts"][0] == {"what": "training pictures", "found": 50, "official": 50000}
    assert [one["path"] for one in told["findings"]][-1] == "train/dog/00000.png"
    assert not list(report.parent.glob(".*"))


def test_a_terminal_that_knows_few_characters_gets_them_escaped(small):
    (small / "train" / "cat" / "späß.png").write_bytes(b"no image")
    found = run("cifar10", "--root", small, "--processes", 1, PYTHONIOENCODING="ascii")
    assert found.returncode == 1
    assert "train/cat/sp\\xe4\\xdf.png: truncated or not an image" in found.stdout


def test_what_is_not_there_ends_in_three_and_a_wrong_command_in_two(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path))
    (tmp_path / "gtsrb").mkdir()
    missing = ("awa2", "gtsrb", "taskonomy"), ("folder", "mine"), ("nyuv2", "--root", str(tmp_path / "no"))
    for arguments in (*((name,) for name in missing[0]), *missing[1:]):
        assert cli.main(["verify", *arguments]) == 3, arguments
        assert capsys.readouterr().err.count("\n") == 1
    wrong = (
        ("imagenet",),
        ("folder",),
        ("cifar10", "mine"),
        ("cifar10", "--processes", "0"),
        ("cifar10", "--report", "a.txt"),
    )
    for arguments in wrong:
        assert cli.main(["verify", *arguments]) == 2, arguments
        assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["verify", "cifar10", "--whole", "--processes", "1"]) == 1
    assert "missing: 2" in capsys.readouterr().out


def test_the_folder_is_found_by_itself_or_by_the_one_that_holds_it(small, tmp_path):
    assert verification.place("cifar10", small) == small
    assert verification.place("cifar10", tmp_path) == small
    signs = tmp_path / "signs"
    (signs / "GTSRB").mkdir(parents=True)
    assert verification.place("gtsrb", signs) == signs
    write_domain(tmp_path / "mine" / "photo")
    assert verification.place("folder", tmp_path, "mine") == tmp_path / "mine"
    with pytest.raises(MissingDataError):
        verification.place("cifar10", tmp_path / "nowhere")
    with pytest.raises(ConfigError):
        verification.place("imagenet")


def test_the_report_does_not_depend_on_the_number_of_processes(signs, tmp_path, capsys):
    for number in (0, 11, 42):
        folder = signs / "GTSRB" / "Training" / f"{number:05d}"
        (folder / "00000_00001.ppm").write_bytes(b"P6 12 10 255\n")
    out = []
    for processes in (1, 2, 3):
        report = tmp_path / f"{processes}.json"
        arguments = ["verify", "gtsrb", "--root", str(signs), "--report", str(report), "--processes", str(processes)]
        assert cli.main(arguments) == 1
        out.append((capsys.readouterr().out, report.read_bytes()))
    assert out[0] == out[1] == out[2]


def test_a_report_that_cannot_be_written_is_said(small, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["verify", "cifar10", "--root", str(small), "--report", str(tmp_path / "file" / "a.json")]) == 2
    assert "a.json: cannot be written" in capsys.readouterr().err


# --- processes that die --------------------------------------------------------------------------------------------


def deadly(root: Path, name: str) -> list[Finding]:
    """A look at a picture that kills its process by one file, as the kernel does where memory ends."""
    if name.endswith("deadly.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    return look_at_picture(root, name)


def test_a_file_that_kills_its_process_is_a_finding_and_the_others_are_read(tmp_path, caplog):
    names = [f"{i:02d}.png" for i in range(20)] + ["deadly.png"] + [f"{i:02d}.png" for i in range(21, 40)]
    for name in names:
        official_folders.write_image(tmp_path / name)
    (tmp_path / "39.png").write_bytes(b"")
    found, read = [], 0
    for some, many in verification._looked_at(partial(deadly, tmp_path), names, 2):
        found += some
        read += many
    assert read == 40
    assert {one.path: one.reason.split(",")[0] for one in found} == {
        "deadly.png": "the process that read it was killed",
        "39.png": "an empty file",
    }
    assert "a process was killed" in caplog.text
