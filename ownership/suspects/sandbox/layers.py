"""The layers of the cage, put on by the process that goes in, before it imports anything heavy.

Standard library only. On Linux: limits, namespaces of its own (where the system lets it), Landlock (files), seccomp
(system calls). None needs root or a package. Elsewhere: what limits there are. `lock` returns what was put on; whoever
calls it decides what to refuse. Numbers and constants are the kernel's (landlock.h, seccomp.h, asm/unistd.h).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Any

STRICT = ("landlock", "seccomp")
"""Layers without which no format that holds code is opened."""

_REFUSED = {
    machine: {name: int(number) for name, number in (pair.split() for pair in table.split(","))}
    for machine, table in {
        "x86_64": """
        socket 41, connect 42, socketpair 53, bind 49, listen 50, fork 57, vfork 58, execve 59, kill 62,
        truncate 76, chmod 90, fchmod 91, chown 92, fchown 93, lchown 94, utime 132, mknod 133, setpriority 141,
        sched_setparam 142, sched_setscheduler 144, pivot_root 155, acct 163, chroot 161, settimeofday 164,
        mount 165, umount2 166, swapon 167, swapoff 168, reboot 169, sethostname 170, setdomainname 171, iopl 172,
        ioperm 173, init_module 175, delete_module 176, quotactl 179, setxattr 188, lsetxattr 189, fsetxattr 190,
        removexattr 197, lremovexattr 198, fremovexattr 199, tkill 200, clock_settime 227, utimes 235,
        kexec_load 246, add_key 248, request_key 249, keyctl 250, mknodat 259, fchownat 260, futimesat 261,
        fchmodat 268, unshare 272, move_pages 279, utimensat 280, perf_event_open 298, open_by_handle_at 304,
        setns 308, process_vm_readv 310, process_vm_writev 311, kcmp 312, finit_module 313, sched_setattr 314,
        memfd_create 319, kexec_file_load 320, bpf 321, execveat 322, userfaultfd 323, ptrace 101, syslog 103,
        shmget 29, msgget 68, semget 64, fanotify_init 300, rt_sigqueueinfo 129, rt_tgsigqueueinfo 297,
        pidfd_send_signal 424, io_uring_setup 425, io_uring_enter 426, io_uring_register 427, open_tree 428,
        move_mount 429, fsopen 430, fsconfig 431, fsmount 432, fspick 433, pidfd_open 434, pidfd_getfd 438,
        process_madvise 440, mount_setattr 442, process_mrelease 448, fchmodat2 452
        """,
        "aarch64": """
        setxattr 5, lsetxattr 6, fsetxattr 7, removexattr 14, lremovexattr 15, fremovexattr 16, mknodat 33,
        umount2 39, mount 40, pivot_root 41, truncate 45, chroot 51, fchmod 52, fchmodat 53, fchownat 54,
        fchown 55, quotactl 60, utimensat 88, acct 89, unshare 97, kexec_load 104, init_module 105,
        delete_module 106, clock_settime 112, syslog 116, ptrace 117, sched_setparam 118, sched_setscheduler 119,
        kill 129, tkill 130, rt_sigqueueinfo 138, setpriority 140, reboot 142, sethostname 161, setdomainname 162,
        settimeofday 170, msgget 186, semget 190, shmget 194, socket 198, socketpair 199, bind 200, listen 201,
        connect 203, add_key 217, request_key 218, keyctl 219, execve 221, swapon 224, swapoff 225, move_pages 239,
        rt_tgsigqueueinfo 240, perf_event_open 241, fanotify_init 262, open_by_handle_at 265, setns 268,
        process_vm_readv 270, process_vm_writev 271, kcmp 272, finit_module 273, sched_setattr 274,
        memfd_create 279, bpf 280, execveat 281, userfaultfd 282, kexec_file_load 294, pidfd_send_signal 424,
        io_uring_setup 425, io_uring_enter 426, io_uring_register 427, open_tree 428, move_mount 429, fsopen 430,
        fsconfig 431, fsmount 432, fspick 433, pidfd_open 434, pidfd_getfd 438, process_madvise 440,
        mount_setattr 442, process_mrelease 448, fchmodat2 452
        """,
    }.items()
}
"""System calls that are refused: sockets, other programs, other processes, modes and owners of files, the system."""

_SPECIAL = {  # clone (threads only), clone3 (unknown, so that the C library falls back), those to oneself only
    "x86_64": {"arch": 0xC000003E, "clone": 56, "clone3": 435, "tgkill": 234, "prlimit64": 302},
    "aarch64": {"arch": 0xC00000B7, "clone": 220, "clone3": 435, "tgkill": 131, "prlimit64": 261},
}


def lock(*, readable: list[str], writable: list[str], memory: int, without: frozenset[str]) -> dict[str, str]:
    """Locks this process in, for good, and returns layer -> what it does here; a layer that is missing is not named.

    Args:
        readable: files and folders that may be read; everything else on disk may not.
        writable: folders that may be written.
        memory: most bytes of address space.
        without: layers to leave off, as a system without them would.
    """
    on: dict[str, str] = {}
    if "limits" not in without and (limits := _limits(memory)) is not None:
        on["limits"] = limits
    if sys.platform != "linux":
        return on
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: die with the parent
    # a user namespace (no powers outside) with network, IPC and host names of its own; containers often forbid it
    if "namespaces" not in without and libc.unshare(0x10000000 | 0x40000000 | 0x08000000 | 0x04000000) == 0:
        on["namespaces"] = "user, network, ipc, uts"
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS; the two below need it
        return on
    if "landlock" not in without and (abi := _landlock(libc, readable, writable)):
        on["landlock"] = f"abi {abi}"
    if "seccomp" not in without and _seccomp(libc):
        on["seccomp"] = platform.machine()
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: nobody looks in, no core
    return on


def _limits(memory: int) -> str | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    wanted = {"AS": memory, "FSIZE": 64 << 20, "NOFILE": 512, "CORE": 0}
    kept = []
    for name, value in wanted.items():
        try:
            which = getattr(resource, f"RLIMIT_{name}")
            _, hard = resource.getrlimit(which)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (value, value))
            kept.append(name.lower())
        except (AttributeError, ValueError, OSError):  # macOS refuses some
            continue
    return ", ".join(kept) or None


def _landlock(libc: Any, readable: list[str], writable: list[str]) -> int:
    """Puts the file rules on; returns the kernel's Landlock version, 0 if it has none."""
    abi: int = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return 0
    everything = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        everything |= (1 << bit) if abi >= since else 0
    rules = struct.pack("QQQ", everything, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)  # files, TCP, signals
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = libc.syscall(444, rules, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return 0
    read, of_files = (1 << 2) | (1 << 3), (1 << 1) | (1 << 2) | (1 << 14)
    for paths, rights in ((readable, read), (writable, everything & ~1)):  # bit 0 is execution: nowhere
        for path in paths:
            try:
                opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # what is not there cannot be read
            allowed = rights if os.path.isdir(path) else rights & of_files
            rule = struct.pack("=Qi", allowed & everything, opened)
            failed = libc.syscall(445, ruleset, 1, rule, 0)
            os.close(opened)
            if failed:
                return 0
    failed = libc.syscall(446, ruleset, 0)
    os.close(ruleset)
    return 0 if failed else abi


def _seccomp(libc: Any) -> bool:
    """Puts the system call filter on; returns whether it is on."""
    machine = platform.machine()
    if machine not in _REFUSED or sys.maxsize < 2**32:
        return False
    special, me = _SPECIAL[machine], os.getpid()
    program: list[bytes] = []

    def add(code: int, yes: int, no: int, value: int) -> None:
        program.append(struct.pack("HBBI", code, yes, no, value & 0xFFFFFFFF))

    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse, unknown = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
    add(load, 0, 0, 4)  # architecture
    add(equal, 1, 0, special["arch"])
    add(give, 0, 0, kill)
    add(load, 0, 0, 0)  # number of the call
    if machine == "x86_64":
        add(at_least, 0, 1, 0x40000000)  # x32 calls
        add(give, 0, 0, kill)
    for number in sorted(_REFUSED[machine].values()):
        add(equal, 0, 1, number)
        add(give, 0, 0, refuse)
    add(equal, 0, 1, special["clone3"])
    add(give, 0, 0, unknown)
    add(equal, 0, 4, special["clone"])
    add(load, 0, 0, 16)  # its flags
    add(any_bit, 0, 1, 0x00010000)  # CLONE_THREAD: threads, no processes
    add(give, 0, 0, allow)
    add(give, 0, 0, refuse)
    for name in ("tgkill", "prlimit64"):  # the first argument is a process: oneself
        add(equal, 0, 5, special[name])
        add(load, 0, 0, 16)
        add(equal, 1, 0, me)
        add(equal, 0, 1, 0)
        add(give, 0, 0, allow)
        add(give, 0, 0, refuse)
    add(give, 0, 0, allow)
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    number = 317 if machine == "x86_64" else 277
    failed: int = libc.syscall(number, 1, 1, filter_program)  # SECCOMP_SET_MODE_FILTER, all threads
    return failed == 0
