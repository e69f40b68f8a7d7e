"""The GPUs of one machine, shared out among the jobs that one or several Snakemakes run there.

Snakemake counts the resource `gpu` but tells no job which one to use: two jobs would both take the first. So
the Snakemake that runs jobs on its own machine hides all devices from them (`share`), and a job that asks for
some leases them (`lease`): an exclusive lock on one file per device, which the kernel gives back when the
job's process ends, however it ends. Under a scheduler nothing is shared here: it sets the devices itself.
"""

import fcntl
import importlib.util
import os
import re
import sys
import time
from pathlib import Path

from prefline.errors import InputError

# The devices that jobs may lease, by name; not set where a scheduler gives them out.
POOL = "PREFLINE_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
# Not TMPDIR: every user of the machine has to look in the same place.
LOCKS = "/tmp"
# Where NVIDIA's driver has a file for each GPU of this machine.
DEVICES = "/dev"
SECONDS_BETWEEN_LOOKS = 0.2


def names(text):
    """The devices (list of str) that a value of CUDA_VISIBLE_DEVICES names, up to the first invalid one."""
    found = []
    for name in (part.strip() for part in text.split(",")):
        if name in ("", "-1", "NoDevFiles"):
            break
        found.append(name)
    return found


def installed(environment):
    """Names (list of str) of this machine's GPUs: those that the environment (dict) names, else all."""
    if VISIBLE in environment:
        return names(environment[VISIBLE])
    return [str(number) for number in range(_number())]


def check_torch(given):
    """Raise InputError if a job has GPUs of this machine and the torch that is installed is a build for CPUs.

    Such a torch would compute on the CPU without a word. It is not imported here, which takes more than a
    second. given: names of GPUs (list of str); a number that no GPU has is none, as CUDA has it.
    """
    number = _number()
    if not any(int(name) < number if name.isdigit() else number for name in given):
        return
    spec = importlib.util.find_spec("torch")
    about = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if about is None or not about.is_file():
        return
    text = about.read_text(encoding="utf-8")
    without = re.search(r"^cuda\b[^=]*= *None\b", text, re.MULTILINE)
    if without and not re.search(r"^(hip|rocm|xpu)\b[^=]*= *['\"]", text, re.MULTILINE):
        version = re.search(r"^__version__\b[^=]*= *['\"](.*)['\"]", text, re.MULTILINE)
        raise InputError(
            f"this job was given a GPU, but torch{' ' + version[1] if version else ''} of {sys.executable} "
            "is a build for CPUs; start Snakemake with `--sdm conda`, which installs builds for CUDA "
            "(docs/environments.md), or with `--resources gpu=0` to compute on the CPU"
        )


def _number():
    """How many GPUs (int) NVIDIA's driver has on this machine."""
    return len(list(Path(DEVICES).glob("nvidia[0-9]*")))


def share(environment):
    """Hide the machine's GPUs from the jobs started with `environment` (dict); `lease` gives them out."""
    environment[POOL] = ",".join(installed(environment))
    environment[VISIBLE] = ""


def lease(count, pool, locks=LOCKS):
    """Wait for `count` devices of the `pool` (list of str), or all if it has fewer, and return their names.

    They are held until this process and those that inherit its open files have ended, across exec, too. One
    process at a time gathers devices: two that hold half of them each would wait for each other.
    """
    count = min(count, len(pool))
    if count == 0:
        return []
    gathering = _open(Path(locks, "prefline-gpus.lock"))
    fcntl.flock(gathering, fcntl.LOCK_EX)
    try:
        held = {}
        while len(held) < count:
            for name in pool:
                if name not in held and len(held) < count:
                    lock = _open(Path(locks, f"prefline-gpu-{name}.lock"))
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        os.close(lock)
                    else:
                        held[name] = lock
            if len(held) < count:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        os.close(gathering)
    for lock in held.values():
        os.set_inheritable(lock, True)
    return [name for name in pool if name in held]


def _open(path):
    """A descriptor of the lock file, made if missing: whoever made it, every user can lock it."""
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            try:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                continue
