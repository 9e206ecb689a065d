"""The warm interpreter: a job through it is, for everyone who looks on, the job in a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headstrong import locks, warm
from headstrong.provenance import ROOT
from stopped_runs import ENDED_BY_SIGNALS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every job starts an interpreter of its own")

# A program as those of scripts/: it does what its argument says.
PROGRAM = """
import os, select, signal, sys
from headstrong import program
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MachineError, MissingDataError

def main(arguments):
    from headstrong.checkpoints import Termination
    what = arguments.what
    mistakes = (ConfigError, MissingDataError, BrokenFileError, DivergedError, MachineError)
    for mistake in mistakes:
        if what == mistake.__name__:
            raise mistake(f"a mistake of kind {what}")
    if what == "defect":
        return 1 // 0
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        sys.exit("in words")
    if what == "wait":
        with Termination() as termination:
            print("works", os.getpid(), flush=True)
            while not termination.asked:
                select.select([], [], [], 0.05)
            print("checkpoint", flush=True)
    if what == "tell":
        import json, resource, torch
        umask = os.umask(0)
        os.umask(umask)
        print(json.dumps({
            "argv": sys.argv, "folder": os.getcwd(), "name": __name__, "file": __file__, "path": sys.path,
            "umask": umask, "spec": __spec__,
            "given": os.environ.get("GIVEN"), "torch": "torch" in sys.modules, "threads": torch.get_num_threads(),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE), "input": sys.stdin.read(),
            "open": sorted(os.listdir("/proc/self/fd"), key=int),
            "handlers": [str(signal.getsignal(n)) for n in (1, 2, 15)],
        }))
        print(os.getpid(), os.getppid(), torch.rand(1).item(), file=sys.stderr)

if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("what")
    sys.exit(program.run(main, parser))
"""
# Stands for Snakemake: starts the warm interpreter and says of it when it is ready.
SNAKEMAKE = """
import os, sys
from headstrong import warm
held = warm.start()
path = os.environ[warm.VARIABLE]
while path != "off" and not os.path.exists(path) and held.poll() is None:
    os.sched_yield()
print(path, held and held.pid, flush=True)
sys.stdin.read()
"""


class Warm:
    """A process that has a warm interpreter, and programs that use it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **warm.ONE_THREAD, **environment}
        self.script = folder / "program.py"
        self.script.write_text(textwrap.dedent(PROGRAM))
        self.owner = subprocess.Popen(
            [*ENDED_BY_SIGNALS, sys.executable, "-c", SNAKEMAKE], env=self.environment, text=True, cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.path, server = self.owner.stdout.readline().split()
        self.server = None if server == "None" else int(server)

    def start(self, what: str, how: str = "", **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*ENDED_BY_SIGNALS, sys.executable, "program.py", what], cwd=self.folder, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**self.environment, warm.VARIABLE: how or self.path, **environment},
        )  # fmt: skip

    def run(self, what: str, how: str = "", **environment: str) -> tuple[int, str, str]:
        process = self.start(what, how, **environment)
        out, err = process.communicate("typed")
        return process.returncode, out, err

    def end(self) -> None:
        self.owner.kill()
        self.owner.communicate()


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Warm]:
    found = Warm(folder, **environment)
    try:
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Warm]:
    with running(tmp_path_factory.mktemp("warm")) as found:
        yield found


@pytest.fixture
def own(tmp_path) -> Iterator[Warm]:
    with running(tmp_path) as found:
        yield found


def works(process: subprocess.Popen[str]) -> int:
    """The number of the process that computes, once it does."""
    said = process.stdout.readline().split()
    assert said[:1] == ["works"], process.communicate()
    return int(said[1])


def ended(process: int) -> bool:
    """Wait until a process that is not ours has ended; False when it will not."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)


def test_it_has_imported_everything_and_started_nothing(shared):
    tasks = Path(f"/proc/{shared.server}/task")
    assert len(list(tasks.iterdir())) == 1
    loaded = Path(f"/proc/{shared.server}/maps").read_text()
    assert "libtorch_cpu" in loaded
    assert "hdf5" in loaded
    opened = [os.readlink(link) for link in Path(f"/proc/{shared.server}/fd").iterdir()]
    assert not [name for name in opened if "nvidia" in name or name.endswith(".h5")]


def test_a_job_finds_what_a_process_of_its_own_would(shared):
    told = {}
    for how in (shared.path, "off"):
        code, out, err = shared.run("tell", how, GIVEN="ü \udcff")
        assert code == 0, err
        told[how] = json.loads(out)
        assert (int(err.split()[1]) == shared.server) == (how == shared.path)
    assert told[shared.path] == told["off"]
    assert told["off"]["input"] == "typed"


def test_random_numbers_that_nobody_seeded_differ(shared):
    assert shared.run("tell")[2].split()[2] != shared.run("tell")[2].split()[2]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("nothing", 0),
        ("ConfigError", 2),
        ("MissingDataError", 3),
        ("BrokenFileError", 4),
        ("DivergedError", 5),
        ("MachineError", 7),
        ("defect", 1),
        ("exit", 1),
        ("killed", -signal.SIGKILL),
    ],
)
def test_it_ends_as_a_process_of_its_own(shared, what, code):
    by_itself = shared.run(what, "off")
    assert by_itself[0] == code
    assert shared.run(what) == by_itself


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_what_computes(shared, number):
    ends = {}
    for how in (shared.path, "off"):
        program = shared.start("wait", how)
        child = works(program)
        assert (child == program.pid) == (how == "off")
        program.send_signal(number)
        out, err = program.communicate()
        ends[how] = (program.returncode, out, err)
        assert ended(child)
    assert ends[shared.path] == ends["off"]
    if number == signal.SIGTERM:
        assert ends["off"] == (-signal.SIGTERM, "checkpoint\n", "")
    if number == signal.SIGINT:
        assert ends["off"] == (130, "checkpoint\n", "error: interrupted; run it again to go on\n")


def test_a_killed_program_takes_its_child_with_it(shared):
    program = shared.start("wait")
    child = works(program)
    program.kill()
    assert ended(child)
    assert program.communicate()[0] == ""
    assert shared.run("nothing")[0] == 0  # and the others go on


def test_a_killed_server_takes_its_children_and_their_programs_start_anew(own):
    program = own.start("wait")
    child = works(program)
    os.kill(own.server, signal.SIGKILL)
    assert ended(child)
    assert works(program) == program.pid
    program.terminate()
    out, err = program.communicate()
    assert program.returncode == -signal.SIGTERM
    assert out == "checkpoint\n"
    assert len(err.splitlines()) == 1
    assert "computing without the warm interpreter: it was killed" in err
    code, _, err = own.run("nothing")
    assert code == 0
    assert len(err.splitlines()) == 1
    assert "computing without the warm interpreter" in err


def test_each_snakemake_has_its_own_and_a_killed_one_leaves_none(shared, own):
    assert own.path != shared.path
    assert own.server != shared.server
    assert Path(own.path).parent.stat().st_mode & 0o777 == 0o700
    own.owner.kill()
    assert ended(own.server)
    assert not Path(own.path).parent.exists()
    assert own.run("nothing") == (0, "", "")
    assert shared.run("nothing") == (0, "", "")


def test_a_server_that_is_told_to_end_lets_its_children_finish(own):
    program = own.start("wait")
    child = works(program)
    os.kill(own.server, signal.SIGTERM)
    own.owner.kill()
    os.kill(child, signal.SIGTERM)  # as the next Snakemake does, by the number in the job's lock
    assert program.communicate()[0] == "checkpoint\n"
    assert program.returncode == -signal.SIGTERM
    assert ended(own.server)


def test_the_lock_of_a_job_is_held_by_what_computes(shared, tmp_path, monkeypatch):
    study = tmp_path / "work" / "micro.lock"
    monkeypatch.setenv(locks.RUN_VARIABLE, "")
    first = locks.hold_study(study)
    program = shared.start("wait", **{locks.RUN_VARIABLE: os.environ[locks.RUN_VARIABLE]})
    child = works(program)
    (lock,) = study.parent.glob("micro.lock.jobs/*.lock")
    assert locks.holder(lock)["process"] == child
    assert locks.holder(lock)["command"] == "program.py wait"
    first.release()
    locks.hold_study(study).release()  # ends it, after its checkpoint
    assert program.communicate()[0] == "checkpoint\n"
    assert program.returncode == -signal.SIGTERM


def test_jobs_of_other_threads_or_libraries_compute_by_themselves(shared):
    for name, value, says in (("OMP_NUM_THREADS", "2", False), ("MALLOC_ARENA_MAX", "3", True)):
        program = shared.start("wait", **{name: value})
        assert works(program) == program.pid
        program.terminate()
        assert ("it has another environment" in program.communicate()[1]) == says


def test_it_can_be_turned_off(tmp_path):
    with running(tmp_path, **{warm.VARIABLE: "off"}) as none:
        assert (none.path, none.server) == ("off", None)


def test_a_temporary_folder_with_a_long_name_is_no_obstacle(tmp_path):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    code = "from headstrong import warm; print(warm._private_folder())"
    environment = {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(long), "XDG_RUNTIME_DIR": str(long)}
    made = Path(
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout[:-1]
    )
    assert len(os.fsencode(made / "socket")) <= 107
    assert made.stat().st_mode & 0o777 == 0o700
    made.rmdir()


def test_a_snakemake_that_has_ended_before_it_was_ready_is_no_mistake(tmp_path):
    command = [sys.executable, "-m", "headstrong.warm_server", str(tmp_path / "gone" / "socket")]
    found = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **warm.ONE_THREAD}, stdin=subprocess.PIPE,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
