"""One SLURM for all tests of a process; without its programs, or without the right to run them, they are skipped."""

from __future__ import annotations

import pytest

import cluster_runs
import local_slurm


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    missing = local_slurm.missing()
    if missing:
        pytest.skip(f"no {', '.join(missing)} here; as root on Debian, `make test-cluster` installs them")
    # Sockets have short names: the folder of pytest may be too deep.
    with local_slurm.LocalSlurm(tmp_path_factory.getbasetemp() / "slurm") as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A checkout with the caches of the study `training` and the weights that an undisturbed local run makes."""
    return cluster_runs.undisturbed(tmp_path_factory.mktemp("undisturbed") / "checkout")
