"""Locks of a dead Snakemake go; those of a living one stay."""

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAKE = "from scripts.common import driver_lock; driver_lock.remove_stale_locks()"


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
