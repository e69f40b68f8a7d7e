"""A real Slurm for the tests of this folder, and a copy of the project to run on it."""

import pytest

from tests.cluster import slurm_here
from tests.workflow.conftest import copy_project


@pytest.fixture(scope="session")
def slurm():
    """A running slurm_here.Slurm with two GPUs."""
    with slurm_here.running(gpus=2, cpus=16, kill_wait=5) as here:
        yield here


@pytest.fixture
def project(tmp_path):
    """The project's files alone, nothing made yet."""
    return copy_project(tmp_path / "project")
