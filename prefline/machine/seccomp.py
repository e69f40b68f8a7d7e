"""Forbid system calls that lead out of a sandbox, or to memory that no process counts (Linux, seccomp).

The filter refuses namespaces, mounts, sessions, keyrings, tracing of other processes, io_uring and BPF. It
refuses memory without a process: memfd, System V's and POSIX's queues. Sockets are Unix or internet sockets,
since the kernel gives some other families (vsock) no namespace.
"""

import ctypes
import errno
import os
import struct

# Numbers on x86_64 and aarch64, from Linux's headers.
FORBIDDEN = {
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # a session apart, which the kernel gives its own share of the processor (sched_autogroup)
    "setsid": (112, 157),
    # keyrings
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # other processes, and files by handle
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "open_by_handle_at": (304, 265),
    # parts of the kernel that programs seldom need and attackers often use
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "syslog": (103, 116),
    # memory that is no process's
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
# The kernel's names of the two kinds of processor, by uname's.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Every kind of namespace that clone can make.
NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
FAMILIES = (1, 2, 10)  # Unix, IPv4, IPv6
# x86_64 has its calls a second time, from this number (x32).
X32 = 0x40000000

# From linux/filter.h and linux/seccomp.h.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


def forbid():
    """Set the filter for this process and all that it starts; it must have set no_new_privs."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        raise OSError(errno.ENOSYS, f"seccomp: no filter for {machine}, only for {known}")
    lines = _program(list(ARCHITECTURES).index(machine), ARCHITECTURES[machine])
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(word) for word in (SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0)]
    if libc.prctl(PR_SET_SECCOMP, *words) == -1:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def _program(column, architecture):
    """Return a BPF program: (code, lines to skip if true, if false, value) per line."""
    error = [(RETURN, 0, 0, ERROR | number) for number in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)]
    refuse, missing, unknown_family = error
    lines = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)]
    lines += [(LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, X32), refuse]
    for numbers in FORBIDDEN.values():
        lines += [(EQUAL, 0, 1, numbers[column]), refuse]
    # The flags of clone3 lie in memory that a filter cannot read; C libraries use clone where it is missing.
    lines += [(EQUAL, 0, 1, CLONE3[column]), missing]
    lines += [(EQUAL, 0, 3, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT)]
    lines += [(ANY_BIT, 0, 1, NEW_NAMESPACES), refuse, (LOAD, 0, 0, NUMBER)]
    lines += [(EQUAL, 0, 1 + len(FAMILIES) + 1, SOCKET[column]), (LOAD, 0, 0, FIRST_ARGUMENT)]
    lines += [(EQUAL, len(FAMILIES) - place, 0, family) for place, family in enumerate(FAMILIES)]
    return [*lines, unknown_family, (RETURN, 0, 0, ALLOW)]
