"""Cancel jobs that a killed Snakemake left in Slurm's queue.

Slurm continues to run them, but no Snakemake waits for them: a new one would run the same jobs beside them.
So they are cancelled first. Their finished work is in journals and checkpoints.
"""

import subprocess
import time

from prefline.errors import InputError

# A cancelled job may write its checkpoint for as long as Slurm's KillWait.
SECONDS_TO_END = 300
LISTED = ["squeue", "--me", "--noheader", "--states=PENDING,RUNNING,SUSPENDED,COMPLETING"]


def of_folder(listing, folder):
    """Return the numbers (list of str) of the jobs that a Snakemake submitted in a folder.

    listing: lines of squeue, each "number|working directory|comment".
    """
    jobs = [line.split("|", 2) for line in listing.splitlines() if line.count("|") >= 2]
    return [
        number
        for number, directory, comment in jobs
        if directory == folder and comment.startswith(("rule_", "group_"))
    ]


def cancel(folder):
    """Cancel the jobs of a folder (absolute path, str), wait for their end, and return their numbers.

    Raises InputError if Slurm does not answer or they do not end.
    """
    cancelled = left = _queued(folder)
    if left:
        _ask("scancel", *left)
    deadline = time.monotonic() + SECONDS_TO_END
    while left:
        if time.monotonic() > deadline:
            raise InputError(
                f"Slurm's jobs {', '.join(left)} of this folder belong to a Snakemake that was killed and do "
                f"not end; see `squeue --jobs {','.join(left)}`, and start again when they are gone"
            )
        time.sleep(1)
        left = _queued(folder)
    return cancelled


def _queued(folder):
    return of_folder(_ask(*LISTED, "--format=%i|%Z|%k"), folder)


def _ask(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"{words[0]} failed, so jobs of an earlier Snakemake may still be in the queue: "
            f"{done.stderr.strip()}"
        )
    return done.stdout
