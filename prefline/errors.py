"""End scripts: one clear error for a user's mistake, and no process left behind."""

import ctypes
import errno
import logging
import os
import select
import signal
import sys

from prefline import optional_packages
from prefline.printable import printable

# The system's messages when nothing can be written; libraries wrap them in their own exceptions.
UNWRITABLE = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)]


class InputError(ValueError):
    """Bad input: the message names the file, row or key, and what to do."""


class MachineError(RuntimeError):
    """A failure that another attempt may not meet: the message says what failed."""


def run(main):
    """Run a script's `main` as the process: print one line on stderr for an InputError and exit with 1.

    Do the same for a MachineError and a disk that is full or read-only, in words that
    prefline/machine/faults.py takes for the machine's fault. Any other exception is a bug and keeps its
    traceback. Of processes that train together only the first logs its progress.
    """
    die_with_parent()
    optional_packages.hide()
    # It warns about a CPU kernel that nothing here needs, whenever peft is imported.
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
        sys.exit(f"error: {printable(str(error))}")
    except MachineError as error:
        sys.exit(f"failed: {printable(str(error))}")
    except BrokenPipeError:
        if not _nobody_reads(sys.stdout):
            raise
        # Buffered output must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not any(words in str(error) for words in UNWRITABLE):
            raise
        sys.exit(f"cannot write: {error}; free disk space and start again; finished work is cached")


def _nobody_reads(stream):
    """Return whether a stream is a pipe that its reader has closed, as `| head` does."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


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
