"""Run an untrusted Python program in a sandbox, and end it when it uses too much (Linux).

The program gets new namespaces: no network, no other visible process, and a file system with the system's
libraries and this interpreter, both read-only, and a folder in memory to work in. It has no home, project,
/etc or /proc, only the given variables, no keyring, no privileges, and a session apart. System calls that
lead out are forbidden (seccomp.py). Pipes bring its output to this process, as printable text.
It ends when the process that waits for it ends. The kernel must let this user create user namespaces;
otherwise `run` raises InputError. isolation.py makes the sandbox; this module supervises it from outside.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prefline.errors import InputError
from prefline.machine import isolation
from prefline.printable import printable

SCRATCH = isolation.SCRATCH
# Seconds between two counts of what the program uses.
INTERVAL = 0.05
# Threads of all its processes, above which it is ended; the kernel refuses more than MOST_TASKS.
TASKS = isolation.MOST_TASKS // 2
# Size of a socket's buffer (net.core.wmem_default).
SOCKET_KB = 208
# Most bytes that are read of what it prints; more of stdout ends it, more of stderr is dropped.
MOST_RESULT, MOST_LOG = 256 << 20, 1 << 20


class Ended(Exception):
    """The program failed, or used more than it may."""


def run(program, inputs, variables, *, megabytes, memory_mb, seconds):
    """Return what the Python file `program` writes to stdout (bytes); its stderr goes to this process's.

    inputs: {name: path} of files to copy to SCRATCH; variables: its environment (dict of str); the most that
    it can write to its folder, that its processes can use in all, folder included, and that it can take.
    Raises InputError if this machine has no sandbox, and Ended if the program fails or uses more.
    """
    with tempfile.TemporaryDirectory() as root:
        spec = {
            "program": str(Path(program).resolve()),
            "inputs": {name: str(Path(path).resolve()) for name, path in inputs.items()},
            "variables": variables,
            "megabytes": megabytes,
            "memory": memory_mb << 20,
            "root": root,
        }
        (told, report), (answer, tell) = os.pipe(), os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", isolation.__name__, json.dumps(spec), str(report), str(answer)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(report, answer),
                start_new_session=True,
            )
            os.close(report)
            with process:
                try:
                    _introduce(process, told, tell)
                    return _supervise(process, memory_mb << 10, time.monotonic() + seconds)
                finally:
                    process.kill()  # and with it all others
        finally:
            for descriptor in (told, answer, tell):
                os.close(descriptor)


def _introduce(process, told, tell):
    """Give the process the users that it needs; return when the program runs. Raises InputError if it cannot.

    told, tell: file descriptors of isolation.py's report and answer.
    """
    reason = os.read(told, 4096)
    if reason == isolation.MAP:
        try:
            _map_users(process.pid)
            os.write(tell, b"\n")
            reason = b"".join(iter(lambda: os.read(told, 4096), b""))
        except OSError as error:
            reason = str(error).encode()
    elif not reason:
        reason = b"the process ended: " + process.stderr.read(4096).strip()[-1000:]
    if reason:
        raise InputError(
            f"this machine cannot sandbox a process ({printable(reason.decode())}), and code that a model "
            "wrote runs only in a sandbox. Allow unprivileged user namespaces (sysctl "
            "user.max_user_namespaces; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a "
            "container its seccomp profile), or run this rule on a Linux machine that has them"
        )


def _map_users(pid):
    """Make this user, who builds the sandbox, root there, and the program's user another where possible.

    Only root has another user to give. Its programs must not be root's outside: the kernel counts no
    processes of root, and root's files can be read.
    """
    user, group, nobody = os.getuid(), os.getgid(), isolation.NOBODY
    if user == 0:
        try:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text(f"0 0 1\n{nobody} {nobody} 1\n")
            return
        except OSError:  # root of a container without other users, who is no root outside
            pass
    Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(f"{nobody} {user} 1")
    Path(f"/proc/{pid}/gid_map").write_text(f"{nobody} {group} 1")


def _supervise(process, kilobytes, deadline):
    """Return the program's stdout; pass its stderr on. Raises Ended."""
    counter, log, printed = _Counter(process.pid), _Log(), bytearray()
    takers = {process.stdout: printed.extend, process.stderr: log.take}
    next_count = 0.0
    with selectors.DefaultSelector() as selector:
        for pipe in takers:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(INTERVAL):
                text = os.read(key.fd, 1 << 16)
                takers[key.fileobj](text)
                if not text:
                    selector.unregister(key.fileobj)
            now = time.monotonic()
            if now < next_count:
                continue
            next_count = now + INTERVAL
            reason = counter.excess(kilobytes)
            if len(printed) > MOST_RESULT:
                reason = f"wrote more than {MOST_RESULT >> 20} MB"
            elif now > deadline:
                reason = "took longer than it may"
            if reason:
                raise Ended(f"it {reason}")
    # Without its pipes it may run on, and the count with it.
    while process.poll() is None:
        reason = counter.excess(kilobytes) or (time.monotonic() > deadline and "took longer than it may")
        if reason:
            raise Ended(f"it {reason}")
        time.sleep(INTERVAL)
    if process.returncode:
        raise Ended(f"it ended with status {process.returncode}")
    return bytes(printed)


class _Log:
    """Pass on to this process's stderr, line by line, what a program prints."""

    def __init__(self):
        self.line, self.left = b"", MOST_LOG

    def take(self, text):
        """Take some bytes; none at the end."""
        if self.left <= 0:
            return
        self.left -= len(text)
        *lines, self.line = (self.line + text).split(b"\n")
        if not text and self.line:
            lines.append(self.line)
        for line in lines:
            print(printable(line.decode(errors="replace")), file=sys.stderr, flush=True)
        if self.left <= 0:
            print(f"(more than {MOST_LOG >> 20} MB; the rest is not shown)", file=sys.stderr, flush=True)


class _Counter:
    """Count the processes in the PID namespace that the process `pid` gives its children."""

    def __init__(self, pid):
        try:
            self.namespace = os.readlink(f"/proc/{pid}/ns/pid_for_children")
        except FileNotFoundError:  # it has ended, and all others with it
            self.namespace = None
        self.others = set()

    def excess(self, kilobytes):
        """Return what the processes have too much of (str), or None."""
        memory = tasks = 0
        sockets = ""
        listed = {name for name in os.listdir("/proc") if name.isdigit()}
        self.others &= listed
        for name in listed - self.others:
            try:
                if os.readlink(f"/proc/{name}/ns/pid") != self.namespace:
                    self.others.add(name)
                    continue
                status = Path(f"/proc/{name}/status").read_text()
                sockets = Path(f"/proc/{name}/net/sockstat").read_text()
            except PermissionError:
                self.others.add(name)
                continue
            except OSError:  # it has ended
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            tasks += int(fields.get("Threads", 1))
            for field in ("RssAnon", "RssShmem", "VmSwap", "VmPTE", "HugetlbPages"):
                memory += int(fields.get(field, "0").split()[0])
        # "sockets: used 3": what they hold is in no process's memory.
        memory += SOCKET_KB * int(sockets.split()[2]) if sockets else 0
        if tasks > TASKS:
            return f"started more than {TASKS} processes and threads"
        if memory > kilobytes:
            return f"used more than {kilobytes >> 10} MB of memory"
        return None
