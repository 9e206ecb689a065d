"""A SLURM of one's own on this machine: the real daemons, accounting in a real database, two pretend GPUs.

Everything lies in one folder and listens on free ports of the loopback device; no file of the system is touched, and
every daemon is stopped by the process id it was started with, or by the death of who started it. The configuration is
the one measured with Debian 12's packages.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "sbatch",
    "sacctmgr",
    "setpriv",
)
COMMANDS = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
PATIENCE = 60.0  # seconds until a daemon answers; they take one to five
PARTITION = "gpu"

SLURM_CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[slurmctld]}
SlurmdPort={ports[slurmd]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2,requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{accounting}
KillWait=20
MinJobAge=300
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10
"""

ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={ports[slurmdbd]}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
"""

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={ports[slurmdbd]}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[mariadb]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""

GRES_CONF = """
NodeName={host} Name=gpu File=/dev/null
NodeName={host} Name=gpu File=/dev/zero
"""


def missing() -> list[str]:
    """The programs that a local SLURM needs and this machine lacks."""
    return [name for name in PROGRAMS if _found(name) is None]


@dataclass
class LocalSlurm:
    """`with LocalSlurm(folder) as slurm:` runs the daemons; `slurm.environment` lets SLURM's commands find them."""

    folder: Path
    cpus: int = 2
    memory: int = 64000  # megabytes that jobs may ask for; more than the machine need have
    accounting: bool = True
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host = socket.gethostname().split(".")[0]
        self.ports = {name: _free_port() for name in ("mariadb", "slurmdbd", "slurmctld", "slurmd")}

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which sbatch, squeue, sacct and Snakemake's plugin reach this SLURM and no other."""
        return {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def __enter__(self) -> LocalSlurm:
        self.folder.mkdir(parents=True, mode=0o755)
        for name in ("state", "spool", "database", "bin"):
            (self.folder / name).mkdir()
        # Snakemake's plugin takes SLURM_CONF out of the environment: commands would look for the system's SLURM.
        for name in COMMANDS:
            command = self.folder / "bin" / name
            command.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {_found(name)} "$@"\n')
            command.chmod(0o755)
        facts = {
            "host": self.host, "user": getpass.getuser(), "folder": self.folder, "ports": self.ports,
            "cpus": self.cpus, "memory": self.memory, "partition": PARTITION,
        }  # fmt: skip
        facts["accounting"] = ACCOUNTING.format(**facts) if self.accounting else ""
        for name, text in (("slurm", SLURM_CONF), ("slurmdbd", SLURMDBD_CONF), ("gres", GRES_CONF)):
            path = self.folder / f"{name}.conf"
            path.touch(mode=0o600)
            path.write_text(text.format(**facts))
        try:
            self._start_munge()
            if self.accounting:
                self._start_database()
                self.start("slurmdbd", "-D")
                self._until(lambda: self.answers("sacctmgr", "-n", "show", "cluster"), "slurmdbd")
                self.call("sacctmgr", "-i", "add", "cluster", "local")
            self.start_controller()
            self.start("slurmd", "-D", "-N", self.host)
            self._until(lambda: self.call("sinfo", "-h", "-o", "%T").split()[:1] == ["idle"], "slurmd")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- daemons ----------------------------------------------------------------------------------------------------

    def start(self, name: str, *arguments: str) -> None:
        """Start a daemon in the foreground of a process of its own."""
        program = _found(name)
        assert program, name
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", program, *arguments], start_new_session=True,
                env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers; what it knew before it was stopped or killed it knows again."""
        self.start("slurmctld", "-D")
        self._until(lambda: self.answers("scontrol", "ping"), "slurmctld")

    def end(self, name: str, *, kill: bool = False) -> None:
        """End a daemon by its process id: as an administrator would, or with SIGKILL."""
        process = self._daemons.pop(name, None)
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Cancel all jobs and stop every daemon, last started first."""
        with contextlib.suppress(Exception):
            self.call("scancel", "--full", "--user", getpass.getuser())
            self._until(lambda: not self.call("squeue", "-h"), "jobs to end")
        for name in reversed(list(self._daemons)):
            self.end(name)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"key-file": key, "socket": self.folder / "munge.socket", "pid-file": self.folder / "munge.pid"}
        files |= {"log-file": self.folder / "munge.log", "seed-file": self.folder / "munge.seed"}
        self.start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged")

    def _start_database(self) -> None:
        data, user = self.folder / "database", getpass.getuser()
        installer = _found("mariadb-install-db")
        options = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
        setup = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([str(installer), *options, *setup], check=True, capture_output=True)
        place = self.folder / "mariadb.socket"
        network = ["--bind-address=127.0.0.1", f"--port={self.ports['mariadb']}", f"--socket={place}"]
        memory = ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900", f"--pid-file={self.folder}/db.pid"]
        self.start("mariadbd", *options, *network, *memory)
        client = ["mariadb", "--no-defaults", f"--socket={place}", "--user=root", "--execute"]
        self._until(lambda: subprocess.run([*client, "select 1"], capture_output=True).returncode == 0, "mariadbd")
        grants = [
            f"create user slurm@{host} identified by 'slurm'; grant all on slurm_acct.* to slurm@{host};"
            for host in ("localhost", "'127.0.0.1'")
        ]
        subprocess.run([*client, f"create database slurm_acct; {' '.join(grants)}"], check=True, capture_output=True)

    # --- commands ---------------------------------------------------------------------------------------------------

    def call(self, *command: str) -> str:
        """The output of one of SLURM's commands; raises CalledProcessError where it fails."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def answers(self, *command: str) -> bool:
        """Whether a command succeeds."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.call(*command)
            return True
        return False

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                logs = [f"== {path.name}\n{_tail(path)}" for path in sorted(self.folder.glob("*.[lo][ou][gt]"))]
                raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}\n" + "\n".join(logs))
            time.sleep(0.1)


def _found(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:])
