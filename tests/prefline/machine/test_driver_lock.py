"""Locks of a dead Snakemake go; those of a living one stay."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefline.errors import InputError
from prefline.machine import driver_lock

ROOT = Path(__file__).parents[3]
TAKE = (
    "from prefline.machine import driver_lock\n"
    "with driver_lock.syncing() as other:\n    assert other is None, other\n"
    "driver_lock.begin(driver_lock.latest())"
)


def take(folder, more=""):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); \n{TAKE}\nprint('taken', flush=True)\n{more}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_only_the_locks_of_the_dead_are_removed(tmp_path):
    lock = tmp_path / ".snakemake/locks/0.input.lock"
    living = take(tmp_path, "import time; time.sleep(600)")
    assert living.stdout.readline() == "taken\n"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert take(tmp_path).wait() == 1
    assert lock.exists()
    living.send_signal(signal.SIGKILL)
    living.wait()
    deadline = time.monotonic() + 60
    while lock.exists() and time.monotonic() < deadline:
        take(tmp_path).wait()
    assert not lock.exists()


def test_a_file_system_without_locks_leaves_them_to_snakemake(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")  # as Lustre says without its mount option

    lock = tmp_path / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcntl, "flock", flock)
    with driver_lock.syncing() as other:
        assert other is None
    assert lock.exists()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder in which this process runs no jobs yet."""
    monkeypatch.chdir(tmp_path)
    held = []
    monkeypatch.setattr(driver_lock, "_held", held)
    yield tmp_path
    for file in held:
        file.close()


def test_a_dry_run_that_is_going_on_does_not_keep_a_run_from_syncing_and_beginning(here):
    """A dry run lets go of its lock once it has synced, long before it ends."""
    code = TAKE.rpartition("\n")[0]  # it syncs, and begins no run
    dry = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('synced', flush=True)\nimport time; time.sleep(600)"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert dry.stdout.readline() == "synced\n"
        with driver_lock.syncing() as other:
            assert other is None
        driver_lock.begin(driver_lock.latest())
    finally:
        dry.kill()


def test_a_second_run_is_one_sentence_and_a_dry_run_beside_a_run_is_told(here):
    living = take(here, "import time; time.sleep(600)")
    try:
        assert living.stdout.readline() == "taken\n"
        with driver_lock.syncing() as other:
            assert f"process {living.pid} on " in other
        with pytest.raises(InputError, match=rf"another Snakemake \(process {living.pid} .* is running jobs"):
            driver_lock.begin(driver_lock.latest())
    finally:
        living.kill()
        living.wait()


@pytest.mark.parametrize("known", ["", None])
def test_a_plan_from_before_or_during_another_run_is_refused(here, known):
    living = take(here)
    assert living.wait() == 0
    with pytest.raises(InputError, match="has run jobs in this folder since this one made its plan"):
        driver_lock.begin(known)
    driver_lock.begin(driver_lock.latest())


def test_a_start_waits_for_one_that_syncs(here, capfd):
    with driver_lock.syncing():
        second = take(here)
        time.sleep(1.0)
        assert second.poll() is None
    assert second.wait() == 0
    assert "waiting for another Snakemake" in capfd.readouterr().err
