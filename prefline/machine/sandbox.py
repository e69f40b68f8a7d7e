"""Run a Python program that may do anything, where there is nothing for it to do harm with (Linux).

The program gets new namespaces: no network, no other process to see, and a file system that holds the
system's libraries and this interpreter, both read-only, and a folder in memory to work in. No home, no
project, no /etc, no /proc; no variables but those that it is given; no privileges on the machine. It ends
when the process that waits for it does. Needed is a kernel that lets this user make user namespaces: where it
does not, `run` refuses.

    python -m prefline.machine.sandbox SPEC        (by `run` alone)
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from prefline.errors import InputError

# Where the program works, what it finds there beside the files that it is given, and who it is.
SCRATCH = "/scratch"
PROGRAM = "/program.py"
NOBODY = 65534
# What a dynamically linked interpreter needs of the system; of /proc, what says how large the machine is.
SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache"]
SYSTEM += ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/proc/meminfo", "/proc/stat"]
MOST_PROCESSES = 1024
# How the process says that it could not shut itself in.
REFUSED = 97

# From Linux's headers.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE = 1024, 2048, 4096, 16384, 1 << 18
MS_RELATIME, ST_RELATIME = 1 << 21, 4096
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38


def run(program, inputs, variables, megabytes):
    """What the Python file `program` writes to stdout (bytes); its stderr is this process's.

    inputs: {name: path} of files that it finds in SCRATCH; variables: its environment (dict of str);
    megabytes: int, the most that it can write. Raises InputError where it cannot be shut in, and
    subprocess.CalledProcessError if it fails.
    """
    with tempfile.TemporaryDirectory() as root:
        spec = {
            "program": str(Path(program).resolve()),
            "inputs": {name: str(Path(path).resolve()) for name, path in inputs.items()},
            "variables": variables,
            "megabytes": megabytes,
            "root": root,
        }
        process = subprocess.run(
            [sys.executable, "-m", "prefline.machine.sandbox", json.dumps(spec)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
    if process.returncode == REFUSED:
        raise InputError(
            f"this machine lets no process be shut in ({process.stdout.decode()}), and code that a model "
            "wrote is not run otherwise: allow unprivileged user namespaces (sysctl "
            "user.max_user_namespaces, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0, in a "
            "container its seccomp profile), or run this rule on a Linux machine that has them"
        )
    process.check_returncode()
    return process.stdout


def shown():
    """Paths (list of str) outside of the new file system that are shown in it, none inside of another."""
    interpreter = Path(sys.executable).resolve().parent.parent
    own = [sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), str(interpreter)]
    found = []
    for path in sorted(set(filter(os.path.exists, [*SYSTEM, *own])), key=len):
        if not any(Path(path).is_relative_to(other) for other in found):
            found.append(path)
    return found


def shut_in(spec):
    """Leave the machine behind, but for what `spec` (see `run`) lets in; returns in another process."""
    user, group = os.getuid(), os.getgid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
    # Changed credentials have undone what the caller may have asked for.
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    _make_root(spec)
    os.chdir(spec["root"])
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir(SCRATCH)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (MOST_PROCESSES, MOST_PROCESSES))
    for capability in range(64):
        # Those above the kernel's last are refused, which is as good.
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _make_root(spec):
    """Put the new file system together at spec["root"]."""
    root = spec["root"]
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in shown():
        target = Path(root + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(path) and path in SYSTEM:
            target.symlink_to(os.readlink(path))
            continue
        target.mkdir() if os.path.isdir(path) else target.touch()
        _mount(path, target, None, MS_BIND | MS_REC)
    shutil.copyfile(spec["program"], root + PROGRAM)
    rooms = {root + SCRATCH: spec["megabytes"], root + "/dev/shm": 64}
    for folder in rooms:
        Path(folder).mkdir(parents=True)
    for folder in _mounts_below(root):
        flags = os.statvfs(folder).f_flag
        kept = flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
        kept |= MS_RELATIME if flags & ST_RELATIME else 0
        _mount(None, folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)
    for folder, megabytes in rooms.items():
        _mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, f"size={megabytes}m,mode=755")
    for name, path in spec["inputs"].items():
        shutil.copyfile(path, f"{root}{SCRATCH}/{name}")


def _mounts_below(root):
    """Where something is mounted in `root`, itself included (list of str)."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # The kernel writes blanks and the like in octal.
    points = [point.encode().decode("unicode_escape").encode("latin-1").decode() for point in points]
    return [point for point in points if Path(point).is_relative_to(root)]


def _mount(source, target, kind, flags, data=None):
    _call(
        "mount",
        *(text and str(text).encode() for text in (source, target, kind)),
        flags,
        data and data.encode(),
    )


def _call(name, *arguments):
    """Call a function of the C library that returns -1 for an error."""
    # Longs, where a plain int would be one of 32 bits.
    words = [ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*words) == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def main():
    spec = json.loads(sys.argv[1])
    try:
        shut_in(spec)
    except (OSError, AttributeError) as error:  # on a system that is not Linux, the functions are missing
        sys.stdout.write(str(error))
        sys.stdout.flush()
        os._exit(REFUSED)
    os.execve(sys.executable, [sys.executable, "-I", "-B", PROGRAM], spec["variables"])


if __name__ == "__main__":
    main()
