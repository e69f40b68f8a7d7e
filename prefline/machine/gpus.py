"""Distribute the GPUs of one machine among the jobs that one or several Snakemakes run there.

Snakemake counts the resource `gpu` but does not assign devices: two jobs would both use the first. So a
Snakemake that runs jobs on its own machine hides all devices from them (`share`), and a job that asks for
GPUs leases them (`lease`). A lease is an exclusive lock on one file per device; the kernel releases it when
the job's process ends, also after SIGKILL. Under a scheduler, which sets the devices, this module shares
none.
"""

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import stat
import subprocess
import textwrap
import threading
import time
from pathlib import Path

from prefline.errors import InputError

# The variable with the names of the devices that jobs may lease; not set under a scheduler.
POOL = "PREFLINE_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
# Not TMPDIR: all users of the machine must use the same folder.
LOCKS = "/tmp"
# The folder where NVIDIA's driver has a file for each GPU of this machine: nvidia0 and so on.
DEVICES = "/dev"
# The driver's files where it has none for each GPU: under Windows (WSL), and on Tegra, which has one GPU.
WSL, TEGRA = "dxg", ("nvhost-gpu", "nvgpu")
WSL_TOOLS = "/usr/lib/wsl/lib"
# The name of a device for CUDA, which stops reading at any other (-1, none, void, NoDevFiles).
DEVICE = re.compile(r"[0-9]+|(GPU|MIG)-[\w/-]+")
SECONDS_BETWEEN_LOOKS = 0.2
# A shorter wait needs no explanation.
SECONDS_BEFORE_REPORT = 1.0


def names(text):
    """Return the devices (list of str) that CUDA_VISIBLE_DEVICES names, up to the first invalid one."""
    found = []
    for name in (part.strip() for part in text.split(",")):
        if not DEVICE.fullmatch(name):
            break
        found.append(name)
    return found


def installed(environment):
    """Return the names (list of str) of this machine's GPUs that `environment` (dict) allows."""
    if VISIBLE in environment:
        return names(environment[VISIBLE])
    return [str(number) for number in range(_number())]


def _number():
    """Return the number of GPUs (int) that NVIDIA's driver has on this machine.

    CUDA counts them from 0, regardless of the numbers of their files.
    """
    if found := len(_files()):
        return found
    if Path(DEVICES, WSL).exists():  # GPUs of other makers have this file too, so ask NVIDIA's tool
        tool = shutil.which("nvidia-smi", path=f"{WSL_TOOLS}:{os.environ.get('PATH', '')}")
        listed = ""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            listed = tool and subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60).stdout
        return len(re.findall(r"^GPU [0-9]+:", listed or "", re.MULTILINE))
    return int(any(Path(DEVICES, name).exists() for name in TEGRA))


def _files():
    """Return the files (list of Path) of NVIDIA's driver, one for each GPU."""
    return [path for path in Path(DEVICES).glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]


def share(environment):
    """Hide the machine's GPUs from jobs started with `environment` (dict); `lease` assigns them."""
    environment[POOL] = ",".join(installed(environment))
    environment[VISIBLE] = ""


def lease(count, pool, locks=LOCKS):
    """Wait for `count` devices of the `pool` (list of str), or all if it has fewer, and return their names.

    The lease lasts until this process, and all that inherit its open files, have ended; exec keeps it. One
    process at a time collects devices: two processes with half of them each would wait for each other. A
    process that waits prints once for whom. Raises InputError for a lock file that cannot be used.
    """
    count = min(count, len(pool))
    if count == 0:
        return []
    paths = {name: Path(locks, f"prefline-gpu-{name}.lock") for name in pool}
    report = threading.Timer(SECONDS_BEFORE_REPORT, _report_users, [paths])
    report.start()
    held = {}
    try:
        gathering = _open(Path(locks, "prefline-gpus.lock"))
        fcntl.flock(gathering, fcntl.LOCK_EX)
        while len(held) < count:
            for name, path in paths.items():
                if name not in held and len(held) < count and (lock := _lock(path)) is not None:
                    held[name] = lock
            if len(held) < count:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        os.close(gathering)
    finally:
        report.cancel()
        report.join()
    for lock in held.values():
        os.set_inheritable(lock, True)
    return [name for name in pool if name in held]


def _report_users(paths):
    """Print which processes have the GPUs; paths: {name: path of the lock file}."""
    with contextlib.suppress(InputError):  # raised by `lease`, too
        users = {name: _user(path) for name, path in paths.items()}
        words = [f"GPU {name} is in use by {user}" for name, user in users.items() if user]
        if words:
            print(f"waiting for a GPU: {'; '.join(words)}", flush=True)


def _user(path):
    """Return which other process holds a lock file, in words; None if there is none."""
    import psutil

    if (lock := _lock(path)) is not None:
        os.close(lock)
        return None
    holder, ending = None, f":{os.stat(path).st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="utf-8") as file:
        for words in map(str.split, file):  # 1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF
            if words[1] == "FLOCK" and words[5].endswith(ending):
                holder = int(words[4])
    if holder == os.getpid():
        return None
    try:
        process = psutil.Process(holder or -1)
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(process.create_time()))
        command = textwrap.shorten(" ".join(process.cmdline()), 100, placeholder=" …")
        return f"process {holder} of {process.username()} since {since} ({command})"
    except (psutil.Error, ValueError):
        return f"process {holder}, which is ending" if holder else "a process of another container"


def _lock(path):
    """Return a descriptor of the file, created if missing and now locked; None if another process has it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open(path):
    """Return a descriptor of the lock file, created if missing; every user can lock it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
                os.fchmod(descriptor, 0o644)  # whatever the umask is
            except FileExistsError:
                continue
            except OSError as error:
                raise InputError(f"{path}: the lock file of a GPU cannot be made: {error.strerror}") from None
        except OSError as error:
            raise _unusable(path, error.strerror) from None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise _unusable(path, "not a file")


def _unusable(path, reason):
    """Return the InputError for a lock file that cannot be used for a reason (str)."""
    about = os.lstat(path)
    with contextlib.suppress(OSError):
        reason = f"a link to {os.readlink(path)}"
    owner = about.st_uid
    with contextlib.suppress(KeyError):
        owner = pwd.getpwuid(owner).pw_name
    return InputError(
        f"{path}: the lock file of a GPU is unusable ({reason}; owner {owner}); "
        "have its owner or root remove it"
    )
