"""How a script ends: one clear sentence for a user's mistake, never an orphan."""

import ctypes
import errno
import logging
import os
import signal
import sys

from prefline import optional_packages

# What the system says when nothing can be written; libraries wrap it in exceptions of their own.
UNWRITABLE = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)]


class InputError(ValueError):
    """Bad input: the message names the file, row or key and says what to do."""


def run(main):
    """Run a script's `main` as the process: InputError becomes one sentence on stderr and exit status 1.

    So does a disk that is full or cannot be written, in words that prefline/machine/faults.py takes for the
    machine's fault. Any other exception keeps its traceback: it is a fault of ours, and we want to see where.
    Of processes that train together only the first speaks of its progress.
    """
    die_with_parent()
    optional_packages.hide()
    # It speaks of a kernel for CPUs that nothing here needs, wherever peft is imported.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        rank, size, local = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        devices = os.environ.get("CUDA_VISIBLE_DEVICES") or "none"
        # In one write: print writes the line feed apart, and all of them write at once.
        sys.stdout.write(
            f"process {rank} of {size} on {os.uname().nodename}, number {local} there, with GPUs {devices}\n"
        )
        sys.stdout.flush()
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if not any(words in str(error) for words in UNWRITABLE):
            raise
        sys.exit(f"cannot write: {error}; make room and start again: what is finished stays")


def die_with_parent():
    """Have the kernel send SIGTERM to this process when its parent dies (Linux; elsewhere nothing).

    A job must not outlive the Snakemake that started it: killed with SIGKILL, Snakemake cannot stop its
    jobs, and a restarted one would write the same files beside the orphans.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
