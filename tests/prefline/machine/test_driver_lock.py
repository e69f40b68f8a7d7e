"""Locks of a dead Snakemake go; those of a living one stay."""

import errno
import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefline.machine import driver_lock

ROOT = Path(__file__).parents[3]
TAKE = "from prefline.machine import driver_lock; driver_lock.remove_stale_locks()"


def take(folder, more=""):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {TAKE}; print('taken', flush=True); {more}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_only_the_locks_of_the_dead_are_removed(tmp_path):
    lock = tmp_path / ".snakemake/locks/0.input.lock"
    living = take(tmp_path, "import time; time.sleep(60)")
    assert living.stdout.readline() == "taken\n"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert take(tmp_path).wait() == 0
    assert lock.exists()
    living.send_signal(signal.SIGKILL)
    living.wait()
    deadline = time.monotonic() + 10
    while lock.exists() and time.monotonic() < deadline:
        assert take(tmp_path).wait() == 0
    assert not lock.exists()


def test_a_file_system_without_locks_leaves_them_to_snakemake(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")  # as Lustre says without its mount option

    lock = tmp_path / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcntl, "flock", flock)
    assert driver_lock.remove_stale_locks()
    assert lock.exists()
