"""A copy of the project in which the whole chain has run once, for the tests to look at and to disturb."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--set-resources", "train_policy:save_steps=2", "--configfile", "tests/workflow/quick.yaml"]


def copy_project(to):
    """The files that git knows or would know, as they are now."""
    names = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, text=True
    )
    for name in names.rstrip("\0").split("\0"):
        source = ROOT / name
        if source.is_symlink() or source.is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name, follow_symlinks=False)
    return to


def snakemake(directory, *arguments, check=True):
    """Run Snakemake in `directory` with this interpreter's environment; the finished process."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.run(
        ["snakemake", *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if check:
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process


def planned(directory, *arguments):
    """{rule: number of jobs} that Snakemake would run in `directory`, the target `all` aside."""
    said = snakemake(directory, "-n", *arguments)
    table = re.search(r"^Job stats:\n.*?\n-+.*?\n(.*?)^total", said.stdout + said.stderr, re.S | re.M)
    if not table:
        assert "Nothing to be done" in said.stdout + said.stderr
        return {}
    rows = [line.split() for line in table[1].splitlines() if line.strip()]
    return {rule: int(count) for rule, count in rows if rule != "all"}


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
