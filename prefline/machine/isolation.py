"""Isolate this process, then become an untrusted Python program. `sandbox.run` starts it and supervises it.

There are three processes. The first makes the namespaces and waits. The second is process 1 of the new PID
namespace; it builds the file system and waits. The third gives up its privileges and becomes the program. The
first ends with the caller, and all others with the first.

    python -m prefline.machine.isolation SPEC REPORT ANSWER

REPORT and ANSWER are file descriptors: the process writes MAP when it needs its users, and reads a byte when
it has them. Anything else that it writes is the reason why this machine has no sandbox.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

from prefline.machine import seccomp

# The program's working folder, its file, and its user.
SCRATCH = "/scratch"
PROGRAM = "/program.py"
NOBODY = 65534
MAP = b"map\n"
# Paths that a dynamically linked interpreter needs; of /proc, the files with the machine's size.
SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache"]
SYSTEM += ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/proc/meminfo", "/proc/stat"]
# Most that the program may have at once: threads of all its processes; files in one folder; open files.
MOST_TASKS = 512
MOST_FILES = 100_000
MOST_OPEN = 256

# From Linux's headers.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE = 1024, 2048, 4096, 16384, 1 << 18
MS_RELATIME, ST_RELATIME = 1 << 21, 4096
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
KEYCTL_JOIN_SESSION_KEYRING = 1


def isolate(spec, report, answer):
    """Start a sandbox with only the files and variables of `spec` (see `sandbox.run`).

    Returns in another process. report, answer: file descriptors, see above.
    """
    _keep_with_parent()
    number = seccomp.FORBIDDEN["keyctl"][os.uname().machine != "x86_64"]
    ctypes.CDLL(None).syscall(number, KEYCTL_JOIN_SESSION_KEYRING, None)
    os.umask(0o022)
    # If memory is short, the kernel ends these processes first.
    Path("/proc/self/oom_score_adj").write_text("1000")
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
    os.write(report, MAP)
    if not os.read(answer, 1):
        os._exit(1)  # the caller has ended
    _wait_for_child(report)
    _make_root(spec)
    os.chdir(spec["root"])
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir(SCRATCH)
    limits = {"CORE": 0, "NPROC": MOST_TASKS, "NOFILE": MOST_OPEN, "MSGQUEUE": 0, "MEMLOCK": 0, "RTPRIO": 0}
    for name, most in (limits | {"NICE": 0, "AS": spec["memory"]}).items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    for capability in range(64):
        # The kernel refuses numbers above its last capability, so ignore errors.
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    # Process 1 remains outside the program's reach: the kernel shields it from signals.
    _wait_for_child(report)
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp.forbid()


def _wait_for_child(report):
    """Return in a new process, which ends with this one; end this one with the exit status of the new."""
    child = os.fork()
    if not child:
        _keep_with_parent()
        return
    os.close(report)
    # Process 1 of a namespace inherits the processes whose parents have ended.
    while (ended := os.wait())[0] != child:
        pass
    code = os.waitstatus_to_exitcode(ended[1])
    os._exit(code if code >= 0 else 128 - code)


def _keep_with_parent():
    """End this process when its parent ends. Changed credentials reset that."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)


def shown():
    """Return the outside paths (list of str) that the new file system shows, none inside another."""
    interpreter = Path(sys.executable).resolve().parent.parent
    own = [sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), str(interpreter)]
    found = []
    for path in sorted(set(filter(os.path.exists, [*SYSTEM, *own])), key=len):
        if not any(Path(path).is_relative_to(other) for other in found):
            found.append(path)
    return found


def _make_root(spec):
    """Build the new file system at spec["root"]."""
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
        size = f"size={megabytes}m,nr_inodes={MOST_FILES},mode=777"
        _mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, size)
    for name, path in spec["inputs"].items():
        shutil.copyfile(path, f"{root}{SCRATCH}/{name}")


def _mounts_below(root):
    """Return the mount points (list of str) in `root`, itself included."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # The kernel writes blanks and other special characters in octal.
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
    # Pass longs, since ctypes would pass an int as 32 bits.
    words = [ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*words) == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def main():
    spec = json.loads(sys.argv[1])
    report, answer = map(int, sys.argv[2:])
    os.set_inheritable(report, False)
    os.set_inheritable(answer, False)
    try:
        isolate(spec, report, answer)
        os.execve(sys.executable, [sys.executable, "-I", "-B", PROGRAM], spec["variables"])
    except (OSError, AttributeError) as error:  # on a system that is not Linux, the functions are missing
        os.write(report, str(error).encode())
        os._exit(1)


if __name__ == "__main__":
    main()
