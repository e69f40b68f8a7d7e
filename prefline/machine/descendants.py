"""End every process that a job has started when the job ends, however it ends (Linux).

An engine, a server or a rank can outlive its killed parent for minutes and keep the memory of a GPU. So
`guard` labels this process, and starts a process that waits for its end. That process then ends everything
with the label, and holds the job's leases until the last process is gone.

The label is the soft limit RLIMIT_LOCKS, which Linux has ignored since 2003. Every child inherits its limits,
also through exec and into another session, and /proc shows them.
"""

import contextlib
import os
import resource
import secrets
import signal
import sys
import time

RLIMIT_LOCKS = 10  # from Linux's headers
# Seconds: what is ending anyway may end, then has this long after SIGTERM, before SIGKILL.
UNTOLD, GRACE = 0.3, 1.0
SECONDS_BETWEEN_LOOKS = 0.1


def guard():
    """Have all processes that this one will start end with it; exec keeps the guard."""
    if not sys.platform.startswith("linux"):
        return
    label, own = secrets.randbits(62), resource.getrlimit(RLIMIT_LOCKS)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(RLIMIT_LOCKS, (label, own[1]))
    job = os.getpid()
    if job not in labelled(label):  # /proc is not mounted, or shows no limits
        return
    begun = started(job)
    # The guard is no child of the job, which may wait for its children.
    if child := os.fork():
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    try:
        _watch(job, begun, label, own)
    finally:
        os._exit(0)


def labelled(label):
    """Return the living processes (list of int) with the `label` (int)."""
    found = []
    with contextlib.suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/limits", encoding="ascii") as file:
                limits = next((line.split() for line in file if line.startswith("Max file locks")), [])
                if str(label) in limits[3:4] and started(pid):
                    found.append(int(pid))
    return found


def started(pid):
    """Return when a process started, in ticks since the machine's start (str); None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _watch(job, begun, label, own):
    """Wait for the end of a job and end the processes with its label, as the process that guards it."""
    resource.setrlimit(RLIMIT_LOCKS, own)
    # Not in the job's session: what a terminal or a scheduler sends to the whole job is for the others.
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    while started(job) == begun:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    ended, told = time.monotonic(), []
    while left := labelled(label):
        seconds = time.monotonic() - ended
        if seconds > UNTOLD and not told:
            told = left
            _report(told)
            _send(told, signal.SIGTERM)
        if seconds > UNTOLD + GRACE:
            # Python's resource tracker ends after the others, when it has removed their shared memory.
            late = seconds > UNTOLD + 2 * GRACE
            _send([pid for pid in left if late or not _is_tracker(pid)], signal.SIGKILL)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _report(processes):
    """Write to the job's log which processes are ended."""
    named = []
    for pid in processes:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file,
        ):
            named.append(f"{file.read().strip()} ({pid})")
    with contextlib.suppress(OSError):
        print(f"ending the processes that outlived this job: {', '.join(named)}", file=sys.stderr, flush=True)


def _is_tracker(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"resource_tracker" in file.read()
    return False


def _send(processes, number):
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
