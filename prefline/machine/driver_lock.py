"""Tell whether another Snakemake is running in this folder, by kernel locks instead of leftover files.

The kernel releases a file lock with its process. Without such locks, a killed run would need
`snakemake --unlock`. A network file system may have none (Lustre without `flock`): then Snakemake's own locks
count.
"""

import contextlib
import fcntl
import os
import sys
from pathlib import Path

from prefline.errors import InputError

# A Snakemake holds the first lock for a moment, while it syncs or begins to run jobs, and the second one as
# long as it runs them. The second file names the latest that did.
SYNC, DRIVER = Path(".snakemake/sync.lock"), Path(".snakemake/driver.lock")
_held = []  # open until the process ends


@contextlib.contextmanager
def syncing():
    """Yield None if no other Snakemake runs jobs here, else the name of its process (str); none begins to.

    Removes Snakemake's own locks if the Snakemake that set them is dead.
    """
    SYNC.parent.mkdir(exist_ok=True)
    with open(SYNC, "a") as sync:
        locks = _lock(sync, wait=True)
        if not locks or _held:
            yield None
            return
        with open(DRIVER, "a+") as driver:
            free = _lock(driver)
            if free:
                for stale in Path(".snakemake/locks").glob("*.lock"):
                    stale.unlink(missing_ok=True)
            yield None if free else latest()


def latest():
    """Return the name of the latest process that ran jobs here (str)."""
    return DRIVER.read_text(encoding="utf-8") if DRIVER.exists() else ""


def hold_while_running(persistence_class, known, refuse):
    """Make Snakemake's class `begin` before a run takes its own locks, which a dry run does not.

    known: as `begin` takes it; refuse: an exception, made from a sentence.
    """
    lock = persistence_class.__dict__.get("prefline_lock", persistence_class.lock)

    def locked(persistence):
        try:
            begin(known)
        except InputError as error:
            raise refuse(str(error)) from None
        return lock(persistence)

    persistence_class.prefline_lock, persistence_class.lock = lock, locked


def begin(known):
    """Count as running jobs until this process ends.

    known: of `latest` before the plan was made, None if it was made while another Snakemake ran jobs. Raises
    InputError if another one runs jobs here, or ran some since.
    """
    if _held:
        return
    with open(SYNC, "a") as sync:
        locks = _lock(sync, wait=True)
        driver = open(DRIVER, "a+", encoding="utf-8")  # noqa: SIM115
        if locks and not _lock(driver):
            driver.close()
            raise InputError(
                f"another Snakemake ({latest()}) is running jobs in this folder; wait until it has ended, or "
                "stop it"
            )
        if latest() != known:
            driver.close()
            raise InputError(
                "another Snakemake has run jobs in this folder since this one made its plan; start it again"
            )
        driver.truncate(0)
        driver.write(f"process {os.getpid()} on {os.uname().nodename}, {os.urandom(4).hex()}")
        driver.flush()
        _held.append(driver)


def _lock(file, wait=False):
    """Lock an open file and return whether that worked; None if the file system has no such locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        print("waiting for another Snakemake here that compares files with their records", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return None
    return True
