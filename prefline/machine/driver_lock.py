"""Whether another Snakemake is at work in this folder, told by the kernel and not by leftover files."""

import fcntl
from pathlib import Path

_held = []  # open until the process ends


def remove_stale_locks():
    """Remove Snakemake's locks if the Snakemake that set them is dead (killed, or its machine rebooted).

    Returns whether this process is the only Snakemake at work here, as far as can be known: a network file
    system may have no such locks (Lustre without `flock`), and then Snakemake's own stay and count.

    The kernel drops this file lock with its process, so whoever gets it knows that no other Snakemake is
    at work here. Without it, a killed run has to be followed by `snakemake --unlock`.
    """
    Path(".snakemake").mkdir(exist_ok=True)
    lock = open(".snakemake/driver.lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    except OSError:
        lock.close()
        return True
    _held.append(lock)
    for stale in Path(".snakemake/locks").glob("*.lock"):
        stale.unlink(missing_ok=True)
    return True
