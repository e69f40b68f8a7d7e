"""Programs that try to leave a sandbox, or to take more than it gives. Each prints "escaped" if it can.

As a script it runs all of them and prints what came of each: it needs no package, so that another user's
interpreter can run it.

    python tests/helpers/hostile_programs.py
"""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAD = """
import ctypes, fcntl, mmap, os, resource, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
def call(x86, arm, *words):
    words = [ctypes.c_ulong(w) if isinstance(w, int) else w for w in words]
    found = libc.syscall(x86 if X86 else arm, *words)
    if found == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
def all_memory_is_counted():
    time.sleep(3)
    print("escaped")
"""

# These do no harm outside, where each must get through: otherwise it shows nothing.
PROBES = {
    "reads a file of the user": "assert open({secret!r}).read() == 'secret'",
    "reads the list of users": "assert open('/etc/passwd').read()",
    "writes beside the user's files": "open({secret!r} + '.new', 'w').close()",
    "reads the environment of the caller": "assert b'CANARY' in open('/proc/{pid}/environ', 'rb').read()",
    "has the caller's variables": "assert os.environ['CANARY']",
    "signals the caller": "os.kill({pid}, 0)",
    "traces its parent": "call(310, 270, os.getppid(), 0, 0, 0, 0, 0)",
    "connects to a port of this machine": "socket.create_connection(('127.0.0.1', {port}), 2).close()",
    "connects to an abstract Unix socket": "socket.socket(socket.AF_UNIX).connect({abstract!r})",
    "opens a socket to the hypervisor": "socket.socket(40, socket.SOCK_STREAM)",
    "opens a socket of the kernel's ciphers": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "opens a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "searches the caller's keyring": "call(250, 219, 10, -3, b'user', b'prefline-canary', 0)",
    "adds a key": "call(248, 217, b'user', b'prefline-hostile', b'x', 1, -2)",
    "makes a user namespace": "call(272, 97, 0x10000000)",
    "makes a user namespace by clone": "call(56, 220, 0x10000000 | 17, 0, 0, 0, 0) or os._exit(0); os.wait()",
    "makes a process by clone3": (
        "a = ctypes.create_string_buffer(struct.pack('11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))\n"
        "call(435, 435, a, 88) or os._exit(0); os.wait()"
    ),
    "makes memory that is no process's (memfd)": "call(319, 279, b'x', 0)",
    "makes memory that is no process's (System V)": "assert call(29, 194, 0, 1 << 20, 0o1600) >= 0",
    "makes a message queue": "call(68, 186, 0, 0o1600)",
    "sees the caller's shared memory": "assert os.path.exists({shared!r})",
    "is in the caller's session": "assert os.getsid(0) != 0",
    "is in the caller's process group": "assert os.getpgrp() != 0",
    "may gain privileges": "assert libc.prctl(39, 0, 0, 0, 0) == 0",
    "opens 2,000 files": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "[os.dup(0) for _ in range(2000)]"
    ),
    "lists processes": "assert os.listdir('/proc/1')",
    "reads the mount table": "assert open('/proc/self/mountinfo').read()",
}
# The user root gets through with these outside, or nobody does.
ATTEMPTS = {
    "reads a private file of root": "open({private!r}).read()",
    "writes to the interpreter's library": "open(os.__file__, 'a').close()",
    "writes to the system": "open('/usr/lib/prefline-hostile', 'w').close()",
    "makes a new file beside its root": "open('/prefline-hostile', 'w').close()",
    "changes the null device": "os.chmod('/dev/null', 0o600)",
    "makes a device": "os.mknod('/scratch/disk', 0o060666, os.makedev(8, 0))",
    "mounts": "assert libc.mount(b'x', b'/scratch', b'tmpfs', ctypes.c_ulong(0), None) == 0",
    "changes its root": "os.chroot('/scratch')",
    "joins another namespace": "call(308, 268, os.open('/', os.O_RDONLY), 0)",
    "opens a file by its handle": (
        "a = ctypes.create_string_buffer(struct.pack('Ii', 8, 1) + b'2' * 8)\n"
        "try: call(304, 265, -100, a, 0)\n"
        "except OSError as e: assert e.errno == 116"
    ),
    "becomes root": "os.setuid(0)",
    "becomes root by a program": "subprocess.run(['/usr/bin/su', '-c', 'true'], check=True)",
    "takes a real-time priority": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "takes a higher priority": "os.setpriority(os.PRIO_PROCESS, 0, -5)",
    "sets the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "changes the host's name": "socket.sethostname('hostile')",
    "uses io_uring": "call(425, 425, 1, ctypes.create_string_buffer(256))",
    "uses BPF": "call(321, 280, 0, ctypes.create_string_buffer(128), 128)",
    "uses performance counters": "call(298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)",
    "reads the kernel's log": "call(103, 116, 3, ctypes.create_string_buffer(64), 64)",
    "uses the calls of another processor": "call(0x40000000 + 272, 97, 0x10000000)",
    "opens the terminal": "os.open('/dev/tty', os.O_RDWR)",
    "types on the terminal": "fcntl.ioctl(2, 0x5412, b'x')",
    "kills process 1": "os.kill(1, 9); time.sleep(0.2); os._exit(3)",
    "opens its parent's memory": "open(f'/proc/{{os.getppid()}}/mem', 'rb')",
    "fills the disk": ("f = open('x', 'wb')\nfor _ in range(100):\n    f.write(bytes(1 << 20))\nf.flush()"),
    "fills the shared memory": (
        "f = open('/dev/shm/x', 'wb')\nfor _ in range(100):\n    f.write(bytes(1 << 20))\nf.flush()"
    ),
    "makes files without end": "for n in range(200_000):\n    open(str(n), 'w').close()",
    "takes memory": "a = bytearray(1 << 30)",
    "takes addresses for page tables": "a = [mmap.mmap(-1, 1 << 33, prot=mmap.PROT_READ) for _ in range(9)]",
}
# Ended by the supervisor, but for two that do no harm.
EXCESSES = {
    "kills its process group": "os.kill(0, 9)",
    "kills all that it can": ("os.kill(-1, 9); time.sleep(1)\nprint('escaped')"),
    "stops all that it can": "os.kill(-1, 19); os.kill(os.getpid(), 19)",
    "forks without end": ("while True:\n    try: os.fork()\n    except OSError: pass"),
    "forks without end, each in a session": (
        "while True:\n    try: os.fork() or os.setsid()\n    except OSError: pass"
    ),
    "starts threads without end": (
        "while True:\n"
        "    try: threading.Thread(target=time.sleep, args=(9,)).start()\n"
        "    except Exception: pass"
    ),
    "takes memory in many processes": (
        "for _ in range(9): os.fork() and os.fork()\na = bytearray(60 << 20)\nall_memory_is_counted()"
    ),
    "takes shared memory in many processes": (
        "for _ in range(6):\n"
        "    if not os.fork():\n"
        "        break\n"
        "a = mmap.mmap(-1, 100 << 20)\n"
        "for n in range(0, len(a), 4096): a[n] = 1\n"
        "all_memory_is_counted()"
    ),
    "takes memory in sockets": (
        "for _ in range(30):\n"
        "    if not os.fork():\n"
        "        break\n"
        "a = [socket.socketpair() for _ in range(100)]\n"
        "for one, _ in a:\n"
        "    one.setblocking(False)\n"
        "    try:\n"
        "        while True: one.send(bytes(4096))\n"
        "    except OSError: pass\n"
        "all_memory_is_counted()"
    ),
    "waits for ever": "time.sleep(1000)",
    "computes for ever, deaf to signals": (
        "for n in range(1, 65):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "prints results without end": "while True: os.write(1, bytes(1 << 16))",
    "prints lines without end": "while True: os.write(2, b'x' * 99 + b'\\n')",
    "crashes": "ctypes.string_at(0)",
    "leaves a process behind": (
        "if not os.fork():\n    os.setsid()\n    libc.prctl(1, 0, 0, 0, 0)\n    time.sleep(1000)"
    ),
    "closes what it prints to, and stays": "os.close(1); os.close(2); time.sleep(1000)",
    "obeys no terminal": "sys.stderr.write('\\x1b]0;owned\\x07\\x1b[31m\\u202e')",
}
LIMITS = {"megabytes": 32, "memory_mb": 400, "seconds": 2}


def outside(body):
    """Return what a probe prints without a sandbox."""
    command = [sys.executable, "-c", f"{HEAD}\n{body}\nprint('escaped')"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr[-300:]


def inside(folder, body):
    """Return (what the program prints, why it was ended, seconds)."""
    from prefline.machine import sandbox

    path = Path(folder, "program.py")
    path.write_text(f"{HEAD}\n{body}")
    start = time.monotonic()
    try:
        said, reason = sandbox.run(path, {}, {}, **LIMITS).decode(), None
    except sandbox.Ended as error:
        said, reason = "", str(error)
    return said[:1000], reason, time.monotonic() - start


def main():
    kinds = PROBES | ATTEMPTS | EXCESSES
    found = {"outside": {}, "inside": {}}
    with tempfile.TemporaryDirectory() as folder, places(folder) as targets:
        for name, body in kinds.items():
            body = body if name in EXCESSES else body.format(**targets) + "\nprint('escaped')"
            if name in PROBES:
                found["outside"][name] = outside(body)
            found["inside"][name] = inside(folder, body)
    json.dump(found, sys.stdout)


@contextlib.contextmanager
def places(folder):
    """Make what a program should not reach; yield {name: where it is}."""
    secret = Path(folder, "secret")
    secret.write_text("secret")
    name = f"\0prefline-{os.getpid()}"
    private = Path(sys.prefix, name[1:])
    keyctl = 250 if os.uname().machine == "x86_64" else 219
    libc = ctypes.CDLL(None)
    libc.syscall(keyctl, 1, None)  # a session keyring for the key
    libc.syscall(keyctl - 2, b"user", b"prefline-canary", b"secret", 6, -3)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(name)
        abstract.listen()
        shared = stack.enter_context(tempfile.NamedTemporaryFile(dir="/dev/shm"))
        bystander = stack.enter_context(subprocess.Popen(["sleep", "600"]))
        stack.callback(bystander.kill)
        try:
            private.write_text("secret")
            private.chmod(0o600)
            stack.callback(private.unlink)
        except OSError:  # not root
            pass
        yield {
            "secret": str(secret),
            "private": str(private),
            "port": server.getsockname()[1],
            "abstract": name,
            "shared": shared.name,
            "pid": bystander.pid,
        }
        assert bystander.poll() is None


if __name__ == "__main__":
    # For the environment of what it starts.
    os.environ["CANARY"] = "secret"
    sys.path.insert(0, os.environ["PYTHONPATH"])
    main()
