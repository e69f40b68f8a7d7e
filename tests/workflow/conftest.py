"""A copy of the project in which the whole chain has run once, for the tests to look at and to disturb."""

import contextlib
import fcntl
from pathlib import Path

import pytest
from project_copy import ROOT, copy_project, planned, snakemake  # noqa: F401

QUICK = ["--set-resources", "train_policy:save_steps=2", "--configfile", "tests/workflow/quick.yaml"]


@pytest.fixture(scope="session")
def one_at_a_time(tmp_path_factory, worker_id):
    """`with one_at_a_time(name):` keeps out the other processes that pytest runs side by side."""
    base = tmp_path_factory.getbasetemp()

    @contextlib.contextmanager
    def locked(name):
        with open((base if worker_id == "master" else base.parent) / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(lock.name).with_suffix("")

    return locked


@pytest.fixture(scope="session")
def finished(one_at_a_time):
    """The project's folder with everything made from quick.yaml. Do not change it: `shutil.copytree` it."""
    with one_at_a_time("finished") as directory:
        if not (directory / "results/winrate.png").exists():
            snakemake(copy_project(directory), *QUICK)
    return directory


@pytest.fixture
def project(tmp_path):
    """The project's files alone, nothing made yet."""
    return copy_project(tmp_path / "project")
