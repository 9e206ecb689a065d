"""No two jobs have the same GPU, whoever they belong to and however they end: real processes, real locks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path

import pytest

from gpu_jobs import Job
from headstrong import gpulocks
from headstrong.errors import ConfigError, MachineError

NOBODY = 65534


@pytest.fixture
def job(tmp_path):
    """Starts jobs, and ends those that a test leaves."""
    jobs = []

    def start(*arguments, folder=tmp_path / "locks", **options):
        jobs.append(Job(folder, *arguments, **options))
        return jobs[-1]

    yield start
    for one in jobs:
        one.process.kill()
        one.process.communicate()


def _take_turns(folder: Path, holders: dict, mistakes, turns: int) -> None:
    gpulocks.POLL_SECONDS = 0.002
    for _ in range(turns):
        with gpulocks.one_of(["a", "b"], folder=folder) as taken:
            # Who holds it alone can add itself and take itself away unseen by any other.
            with holders[taken].get_lock():
                holders[taken].value += 1
            if holders[taken].value != 1:
                mistakes.value += 1
            with holders[taken].get_lock():
                holders[taken].value -= 1


def test_no_two_processes_ever_hold_the_same(tmp_path):
    spawned = multiprocessing.get_context("spawn")
    holders, mistakes = {id: spawned.Value("i", 0) for id in "ab"}, spawned.Value("i", 0)
    arguments = (tmp_path / "locks", holders, mistakes, 100)
    processes = [spawned.Process(target=_take_turns, args=arguments) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 5
    assert mistakes.value == 0


def test_two_jobs_take_two_gpus_and_the_third_waits_and_says_for_whom(job):
    first, second = job(["a", "b"]), job(["b", "a"])
    assert {first.taken(), second.taken()} == {"a", "b"}
    third = job(["a", "b"])
    line = third.said()
    for holder in (first, second):
        assert f"process {holder.process.pid} of " in line
    assert line.startswith("waiting for a GPU; taken: a by process")
    assert second.end() == 0
    assert third.taken() in "ab"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_leaves_its_gpu_to_who_waits(job, tmp_path, number):
    holder = job(["a"])
    assert holder.taken() == "a"
    waiting = job(["a"])
    assert "waiting" in waiting.said()
    assert holder.stop(number) == -number
    assert waiting.taken() == "a"
    assert str(waiting.process.pid) in gpulocks.holders_of("a", tmp_path / "locks")[0]


def test_sigterm_ends_a_job_that_waits(job):
    holder = job(["a"])
    assert holder.taken() == "a"
    waiting = job(["a"])
    assert "waiting" in waiting.said()
    assert waiting.stop(signal.SIGTERM) == -signal.SIGTERM
    assert holder.end() == 0


def test_jobs_that_share_fill_all_gpus_evenly_before_one_waits(job):
    jobs = []
    for expected in ("a", "b", "a", "b"):
        jobs.append(job(["a", "b"], 2))
        assert jobs[-1].taken() == expected
    waiting = job(["a", "b"], 2)
    line = waiting.said()
    assert all(f"process {one.process.pid} " in line for one in jobs)
    jobs[1].end()
    assert waiting.taken() == "b"


def test_a_job_that_wants_a_gpu_alone_has_it_alone(job):
    sharing = job(["a"], 3)
    assert sharing.taken() == "a"
    alone = job(["a"])
    assert "waiting" in alone.said()
    sharing.end()
    assert alone.taken() == "a"
    another = job(["a"], 3)
    assert f"process {alone.process.pid} " in another.said()
    alone.end()
    assert another.taken() == "a"


def test_a_gpu_that_is_let_go_is_free(job, tmp_path):
    holder = job(["a"])
    assert holder.taken() == "a"
    assert len(gpulocks.holders_of("a", tmp_path / "locks")) == 1
    assert gpulocks.holders_of("b", tmp_path / "locks") == []
    assert holder.end() == 0
    assert gpulocks.holders_of("a", tmp_path / "locks") == []
    assert gpulocks.holders_of("a", tmp_path / "none") == []


def test_a_lock_file_that_is_cleaned_away_is_made_anew(job, tmp_path):
    with gpulocks.one_of(["a"], folder=tmp_path / "locks"):
        pass
    shutil.rmtree(tmp_path / "locks")
    assert job(["a"]).taken() == "a"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be two users")
def test_two_users_share_one_folder(job):
    # In a folder that all may write to, unlike pytest's own; with a strict umask.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o1777)
        folder = Path(place) / "locks"
        before = os.umask(0o077)
        try:
            with gpulocks.one_of(["a"], folder=folder):
                other = job(["a"], folder=folder, user=NOBODY)
                assert f"process {os.getpid()} of " in other.said()
        finally:
            os.umask(before)
        assert other.taken() == "a"
        assert f"process {other.process.pid} " in gpulocks.holders_of("a", folder)[0]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
        assert stat.S_IMODE((folder / "a.lock").stat().st_mode) == 0o666


def plant_link(place: Path, precious: Path) -> None:
    place.symlink_to(precious)


def plant_second_name(place: Path, precious: Path) -> None:
    place.hardlink_to(precious)


def plant_pipe(place: Path, precious: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("plant", [plant_link, plant_second_name, plant_pipe])
def test_nothing_is_written_where_another_user_points(tmp_path, plant):
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    (tmp_path / "locks").mkdir()
    plant(tmp_path / "locks" / "a.lock", precious)
    with (
        pytest.raises(MachineError, match=r"a\.lock: cannot lock GPUs") as caught,
        gpulocks.one_of(["a"], folder=tmp_path / "locks"),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert precious.read_text() == "thesis"


def test_a_folder_that_is_a_link_or_a_file_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "file").touch()
    for name in ("link", "file", "absent/folder"):
        with pytest.raises(MachineError, match=gpulocks.FOLDER), gpulocks.one_of(["a"], folder=tmp_path / name):
            pass
    assert list((tmp_path / "own").iterdir()) == []


def test_what_another_user_wrote_cannot_steer_a_terminal(tmp_path):
    with gpulocks.one_of(["a"], folder=tmp_path / "locks"):
        file = tmp_path / "locks" / "a.lock"
        for text in (
            "\x1b[2J",
            "[]",
            '{"pid": "\\u001b[2J", "user": 1, "host": 2, "since": 3, "command": 4}',
            "\xff",
            "[" * 9000,
        ):
            file.write_bytes(text.encode("latin-1"))
            [line] = gpulocks.holders_of("a", tmp_path / "locks")
            assert line.isprintable()


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_jobs_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv(gpulocks.SHARING, given)
    with pytest.raises(ConfigError, match=gpulocks.SHARING):
        gpulocks.jobs_per_gpu()
