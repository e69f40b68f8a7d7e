"""A real Slurm for the tests of this folder, and a copy of the project to run on it."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cluster import slurm_here
from tests.workflow.conftest import copy_project


@pytest.fixture(scope="session")
def slurm():
    """A running slurm_here.Slurm with two GPUs; skips where there can be none."""
    # Slurm's sockets and munge want short paths that every user may enter.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    folder.chmod(0o755)
    reason = slurm_here.why_not(folder)
    if reason is not None:
        shutil.rmtree(folder)
        pytest.skip(reason)
    here = slurm_here.Slurm(folder, gpus=2, cpus=16, kill_wait=5)
    try:
        here.start()
        yield here
    finally:
        here.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def project(tmp_path):
    """The project's files alone, nothing made yet."""
    return copy_project(tmp_path / "project")
