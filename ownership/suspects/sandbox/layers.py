"""Isolation layers of the sandbox, which the process applies to itself before it imports anything large.

On Linux: resource limits, namespaces (where the system allows them), Landlock (files) and seccomp (system calls). None
needs root or a package. Elsewhere: the resource limits that the system has. Constants carry their names in the kernel's
headers. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from enum import IntFlag
from typing import Any

from ownership.suspects.sandbox import syscalls

STRICT = ("landlock", "seccomp")
"""Layers without which no format that holds code is opened."""

MAX_FILE_BYTES = 64 << 20
"""RLIMIT_FSIZE: the largest file that the process can write."""

MAX_OPEN_FILES = 512
"""RLIMIT_NOFILE: the most files that the process can have open."""

# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38

# linux/sched.h
CLONE_THREAD = 0x00010000
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000

# linux/audit.h and asm/unistd.h
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_SYSCALL_BIT = 0x40000000

# linux/bpf_common.h: class | size or operation | source of the operand
BPF_LD_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
BPF_JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
BPF_JGE = 0x35  # BPF_JMP | BPF_JGE | BPF_K
BPF_JSET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
BPF_RET = 0x06  # BPF_RET | BPF_K

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
SECCOMP_DATA_NR, SECCOMP_DATA_ARCH, SECCOMP_DATA_ARG0 = 0, 4, 16  # offsets in struct seccomp_data (little-endian)

# linux/landlock.h
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_ACCESS_NET_BIND_TCP, LANDLOCK_ACCESS_NET_CONNECT_TCP = 1, 2  # since ABI 4
LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL = 1, 2  # since ABI 6


class LandlockAccessFs(IntFlag):
    """LANDLOCK_ACCESS_FS_*: what a process may do to files and folders."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # since ABI 2
    TRUNCATE = 1 << 14  # since ABI 3
    IOCTL_DEV = 1 << 15  # since ABI 5


ADDED_IN_ABI = {LandlockAccessFs.REFER: 2, LandlockAccessFs.TRUNCATE: 3, LandlockAccessFs.IOCTL_DEV: 5}
READABLE = LandlockAccessFs.READ_FILE | LandlockAccessFs.READ_DIR
FOR_FILES = LandlockAccessFs.WRITE_FILE | LandlockAccessFs.READ_FILE | LandlockAccessFs.TRUNCATE
"""Rights that a rule for a file, not a folder, may name."""


def lock(*, readable: list[str], writable: list[str], memory: int, without: frozenset[str]) -> dict[str, str]:
    """Apply the isolation layers to this process, irrevocably.

    Args:
        readable: files and folders that may be read. Nothing else on disk may be read.
        writable: folders that may be written.
        memory: most bytes of address space.
        without: layers to leave off, as on a system that lacks them.

    Returns:
        Layer -> its details on this machine. A layer that could not be applied is not named; the caller decides what
        to refuse without it.
    """
    layers: dict[str, str] = {}
    if "limits" not in without and (limits := _limits(memory)) is not None:
        layers["limits"] = limits
    if sys.platform != "linux":
        return layers
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # die with the parent
    # in a user namespace the process has no privileges outside; containers often forbid namespaces
    namespaces = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    if "namespaces" not in without and libc.unshare(namespaces) == 0:
        layers["namespaces"] = "user, network, ipc, uts"
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):  # Landlock and seccomp need it
        return layers
    if "landlock" not in without and (abi := _landlock(libc, readable, writable)):
        layers["landlock"] = f"abi {abi}"
    if "seccomp" not in without and _seccomp(libc):
        layers["seccomp"] = platform.machine()
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no core dump, and no other process can read this one's memory
    return layers


def _limits(memory: int) -> str | None:
    """Set the resource limits; return the names of those that the system accepted."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    wanted = {"AS": memory, "FSIZE": MAX_FILE_BYTES, "NOFILE": MAX_OPEN_FILES, "CORE": 0}
    applied = []
    for name, value in wanted.items():
        try:
            limit = getattr(resource, f"RLIMIT_{name}")
            _, hard = resource.getrlimit(limit)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))
            applied.append(name.lower())
        except (AttributeError, ValueError, OSError):  # macOS refuses some
            continue
    return ", ".join(applied) or None


def landlock_ruleset(abi: int) -> tuple[LandlockAccessFs, bytes]:
    """Return the file rights that a Landlock version handles, and its `struct landlock_ruleset_attr`."""
    handled = LandlockAccessFs(0)
    for right in LandlockAccessFs:
        if abi >= ADDED_IN_ABI.get(right, 1):
            handled |= right
    tcp = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP if abi >= 4 else 0
    scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL if abi >= 6 else 0
    size = 8 if abi < 4 else 16 if abi < 6 else 24  # the kernel refuses fields that it does not know
    return handled, struct.pack("QQQ", handled, tcp, scoped)[:size]


def _landlock(libc: Any, readable: list[str], writable: list[str]) -> int:
    """Apply the file rules; return the kernel's Landlock version, or 0 if they are not applied."""
    version_flag = LANDLOCK_CREATE_RULESET_VERSION
    abi: int = libc.syscall(syscalls.LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), version_flag)
    if abi < 1:
        return 0
    handled, attributes = landlock_ruleset(abi)
    ruleset = libc.syscall(syscalls.LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return 0
    for paths, rights in ((readable, READABLE), (writable, handled & ~LandlockAccessFs.EXECUTE)):
        for path in paths:
            try:
                opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # a path that does not exist needs no rule
            allowed = rights if os.path.isdir(path) else rights & FOR_FILES
            rule = struct.pack("=Qi", allowed & handled, opened)  # struct landlock_path_beneath_attr
            failed = libc.syscall(syscalls.LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
            os.close(opened)
            if failed:
                return 0
    failed = libc.syscall(syscalls.LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return 0 if failed else abi


def seccomp_program(machine: str, pid: int) -> list[bytes]:
    """Return the filter of system calls, one `struct sock_filter` an item.

    Args:
        machine: one of `syscalls.MACHINES`.
        pid: of this process, the only one that it may signal or limit.
    """
    column = syscalls.MACHINES.index(machine)
    refuse, unknown = SECCOMP_RET_ERRNO | errno.EPERM, SECCOMP_RET_ERRNO | errno.ENOSYS
    program: list[bytes] = []

    def add(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> None:
        """Append one instruction; a jump skips so many instructions."""
        program.append(struct.pack("HBBI", code, if_true, if_false, value))

    add(BPF_LD_ABS, SECCOMP_DATA_ARCH)
    add(BPF_JEQ, AUDIT_ARCH[machine], if_true=1)
    add(BPF_RET, SECCOMP_RET_KILL_PROCESS)
    add(BPF_LD_ABS, SECCOMP_DATA_NR)
    if machine == "x86_64":
        add(BPF_JGE, X32_SYSCALL_BIT, if_false=1)
        add(BPF_RET, SECCOMP_RET_KILL_PROCESS)
    for number in syscalls.refused_on(machine):
        add(BPF_JEQ, number, if_false=1)
        add(BPF_RET, refuse)
    add(BPF_JEQ, syscalls.CLONE3[column], if_false=1)  # its flags lie in memory; the C library falls back to clone
    add(BPF_RET, unknown)
    add(BPF_JEQ, syscalls.CLONE[column], if_false=4)  # threads only, no processes
    add(BPF_LD_ABS, SECCOMP_DATA_ARG0)
    add(BPF_JSET, CLONE_THREAD, if_false=1)
    add(BPF_RET, SECCOMP_RET_ALLOW)
    add(BPF_RET, refuse)
    for numbers in (syscalls.TGKILL, syscalls.PRLIMIT64):  # of this process only; 0 is this process, too
        add(BPF_JEQ, numbers[column], if_false=5)
        add(BPF_LD_ABS, SECCOMP_DATA_ARG0)
        add(BPF_JEQ, pid, if_true=1)
        add(BPF_JEQ, 0, if_false=1)
        add(BPF_RET, SECCOMP_RET_ALLOW)
        add(BPF_RET, refuse)
    add(BPF_RET, SECCOMP_RET_ALLOW)
    return program


def _seccomp(libc: Any) -> bool:
    """Apply the filter of system calls to all threads; return whether it is applied."""
    machine = platform.machine()
    if machine not in syscalls.MACHINES or sys.maxsize < 2**32:
        return False
    program = seccomp_program(machine, os.getpid())
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    number = syscalls.SECCOMP[syscalls.MACHINES.index(machine)]
    failed: int = libc.syscall(number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, filter_program)
    return failed == 0
