"""Tests run side by side, so each keeps to one thread, none fails for taking long, and some keep together."""

import os

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ["OMP_NUM_THREADS"] = "1"

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

# Tests of these share something heavy that a process starts once: vLLM, Slurm, the environments.
TOGETHER = (
    "tests/cluster/",
    "tests/prefline/engines/test_vllm.py",
    "tests/workflow/test_environments.py",
    "tests/workflow/test_published_systems.py",
)


def pytest_configure(config):
    """Tests compare numbers of a CPU, to the bit: only those that ask for a GPU see the machine's."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class Together(LoadScopeScheduling):
    """Sends the tests of one entry of TOGETHER to one process, all others one by one to whichever is free."""

    def _split_scope(self, nodeid):
        return next((shared for shared in TOGETHER if nodeid.startswith(shared)), nodeid)


def pytest_xdist_make_scheduler(config, log):
    return Together(config, log)


@pytest.fixture
def start():
    """start(says, ...) -> a StandIn, which ends with the test; says(payload) -> what the judge says."""
    from stand_in import StandIn

    started = []

    def make(says=lambda payload: "Good. [[7]]", **options):
        started.append(StandIn(says=says, **{"name": "judge"} | options))
        return started[-1]

    yield make
    for stand_in in started:
        stand_in.close()
