"""Tests run side by side, so each keeps to one thread, none fails for taking long, and some stay together."""

import functools
import gc
import math
import os
import time
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ["OMP_NUM_THREADS"] = "1"

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.register_profile("fast", deadline=None, max_examples=30)
hypothesis.settings.load_profile("shared machine")

# Tests of these share something heavy that a process starts once: vLLM, Slurm, the environments.
TOGETHER = (
    "tests/cluster/",
    "tests/prefline/engines/test_vllm.py",
    "tests/workflow/test_environments.py",
    "tests/workflow/test_published_systems.py",
)


BEGAN = time.monotonic()


def pytest_addoption(parser):
    parser.addoption(
        "--slow-minutes",
        type=float,
        default=math.inf,
        help="skip slow tests that would begin later than so many minutes after the start",
    )
    parser.addoption("--edits", type=int, default=20, help="random edits of test_random_edits.py")
    parser.addoption("--edits-seed", type=int, help="their seed; none: another each time, which is printed")


def pytest_configure(config):
    """Tests compare numbers of a CPU, to the bit: only those that ask for a GPU see the machine's.

    Slow and long tests by themselves try 100 examples, others 30.
    """
    if config.option.markexpr not in ("slow", "long"):
        hypothesis.settings.load_profile("fast")
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)  # before a fixture makes anything
def pytest_runtest_setup(item):
    minutes = item.config.option.slow_minutes
    if is_slow(item) and time.monotonic() - BEGAN > 60 * minutes:
        pytest.skip(f"not begun within {minutes:g} minutes")


def is_slow(item):
    return item.get_closest_marker("slow") is not None


def pytest_itemcollected(item):
    """Mark as slow what has the whole chain run first."""
    if "finished" in getattr(item, "fixturenames", ()) and item.get_closest_marker("long") is None:
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)  # after those that were not asked for are out
def pytest_collection_modifyitems(items):
    """Run fast tests first; but before them one that has the whole chain run, for which others would wait."""
    items.sort(key=is_slow)
    first = next((item for item in items if "finished" in getattr(item, "fixturenames", ())), None)
    if first is not None:
        items.remove(first)
        items.insert(0, first)


def pytest_collection_finish():
    """Spare the garbage collector what is imported: millions of objects that all stay."""
    gc.collect()
    gc.freeze()


@functools.cache
def shares(path):
    """Whether the tests of a file share what a process makes once, by a fixture of the module."""
    return 'scope="module"' in Path(__file__).parents[1].joinpath(path).read_text(encoding="utf-8")


class Together(LoadScopeScheduling):
    """Sends tests that share something heavy to one process, all others one by one to whichever is free."""

    def _split_scope(self, nodeid):
        path = nodeid.partition("::")[0]
        alone = path if shares(path) else nodeid
        return next((entry for entry in TOGETHER if nodeid.startswith(entry)), alone)


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
