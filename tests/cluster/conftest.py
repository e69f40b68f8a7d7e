"""A real Slurm for the tests of this folder."""

import pytest

from tests.cluster import slurm_here

# Fixtures of the workflow's tests, for these, too.
from tests.workflow.conftest import finished, one_at_a_time, project  # noqa: F401


@pytest.fixture(scope="session")
def slurm():
    """A running slurm_here.Slurm with two GPUs."""
    with slurm_here.running(gpus=2, cpus=16, kill_wait=5) as here:
        yield here


@pytest.fixture
def two_nodes():
    """One with two nodes of two GPUs each, for one test, which may break it."""
    with slurm_here.running(gpus=2, cpus=16, kill_wait=5, nodes=2) as here:
        yield here
