"""The kernel's side of the walls, called through ctypes: no library of anybody else stands between us and them.

One idea needs an explanation. A worker has to fork and kill; the functions in its children must do neither; and a
seccomp filter passes from the one to the other, while a second filter for every child costs as much as half a fork. So
there is one filter, installed once, which allows the dangerous calls only to instructions at one address: a page of its
own, the **gate**. A child unmaps it before it runs anything, and the filter refuses to map whatever else near that
place. Nothing secret is involved: the address is below, and it does not help.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock: a child must not wake up in the middle of giving it back.
_locked_libc = ctypes.PyDLL(None, use_errno=True)

GATE = 0x20_8000_0000  # far from all that the kernel chooses by itself, also with 39 bits of address space
_GATE_HIGH = GATE >> 32
_PAGE = mmap.PAGESIZE

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
CLONE_PIDFD = 0x1000


@dataclass(frozen=True)
class Machine:
    """What differs from one processor to the next."""

    audit: int
    gate: bytes
    """Machine code of `long gate(number, six arguments)`."""
    calls: dict[str, int]


# fmt: off
_X86_64 = Machine(
    audit=0xC000003E,
    gate=bytes.fromhex("4889f8 4889f7 4889d6 4889ca 4d89c2 4d89c8 4c8b4c2408 0f05 c3"),
    calls={
        "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
        "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
        "ioctl": 16, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "sched_yield": 24,
        "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33, "nanosleep": 35, "getitimer": 36, "alarm": 37,
        "setitimer": 38, "getpid": 39, "sendto": 44, "recvmsg": 47, "clone": 56, "exit": 60, "wait4": 61, "kill": 62,
        "uname": 63, "fcntl": 72, "getcwd": 79, "readlink": 89, "gettimeofday": 96, "getrusage": 98, "sysinfo": 99,
        "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
        "sigaltstack": 131, "prctl": 157, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
        "getdents64": 217, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230,
        "exit_group": 231, "openat": 257, "newfstatat": 262, "readlinkat": 267, "faccessat": 269, "dup3": 292,
        "prlimit64": 302, "seccomp": 317, "getrandom": 318, "statx": 332, "clone3": 435, "close_range": 436,
        "openat2": 437, "faccessat2": 439,
    },
)
_AARCH64 = Machine(
    audit=0xC00000B7,
    gate=struct.pack("<9I", 0xAA0003E8, 0xAA0103E0, 0xAA0203E1, 0xAA0303E2, 0xAA0403E3, 0xAA0503E4, 0xAA0603E5,
                     0xD4000001, 0xD65F03C0),
    calls={
        "getcwd": 17, "dup": 23, "dup3": 24, "fcntl": 25, "ioctl": 29, "faccessat": 48, "openat": 56, "close": 57,
        "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
        "pwrite64": 68, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94,
        "futex": 98, "nanosleep": 101, "getitimer": 102, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114,
        "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "kill": 129,
        "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153,
        "uname": 160, "getrusage": 165, "prctl": 167, "gettimeofday": 169, "getpid": 172, "getppid": 173,
        "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "sendto": 206,
        "recvmsg": 212, "brk": 214, "munmap": 215, "mremap": 216, "clone": 220, "mmap": 222, "mprotect": 226,
        "madvise": 233, "wait4": 260, "prlimit64": 261, "seccomp": 277, "getrandom": 278, "statx": 291,
        "clone3": 435, "close_range": 436, "openat2": 437, "faccessat2": 439,
    },
)
# fmt: on
MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def machine() -> Machine:
    name = platform.machine()
    if sys.maxsize < 1 << 32 or name not in MACHINES:
        raise OSError(errno.ENOSYS, f"the seccomp filter knows {', '.join(MACHINES)}, not {name}")
    return MACHINES[name]


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *arguments: int) -> None:
    values = (*arguments, 0, 0, 0, 0)[:4]
    _check(_libc.prctl(option, *map(ctypes.c_ulong, values)), f"prctl {option}")


def map_memory(address: int, protection: int, fd: int = -1) -> int | None:
    """One page at this place, of this file or of nothing; the address, or None."""
    fixed_noreplace = 0x100000
    flags = mmap.MAP_PRIVATE | fixed_noreplace | (mmap.MAP_ANONYMOUS if fd < 0 else 0)
    got = ctypes.CFUNCTYPE(ctypes.c_ssize_t, *[ctypes.c_ssize_t] * 6)(("mmap", _libc))(
        address, _PAGE, protection, flags, fd, 0
    )
    return got if got != -1 else None


class Gate:
    """The only way to the dangerous calls: for a worker, until a child closes it."""

    def __init__(self, sealed: bool) -> None:
        self.sealed = sealed
        self._pidfd = ctypes.c_int(-1)
        self._limit = ctypes.create_string_buffer(16)
        if not sealed:
            return
        self._calls = machine().calls
        fd = os.memfd_create("gate", os.MFD_CLOEXEC)
        os.write(fd, machine().gate)
        address = map_memory(GATE, mmap.PROT_READ | mmap.PROT_EXEC, fd)
        os.close(fd)
        if address != GATE:
            raise OSError(errno.ENOMEM, "the page for the gate is taken")
        # PYFUNCTYPE keeps the interpreter's lock, like _locked_libc.
        self._call = ctypes.PYFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 7)(GATE)

    def _through(self, name: str, *arguments: int) -> int:
        result = int(self._call(self._calls[name], *(*arguments, 0, 0, 0, 0, 0, 0)[:6]))
        if result < 0:
            raise OSError(-result, f"{name}: {os.strerror(-result)}")
        return result

    def fork(self) -> tuple[int, int]:
        """Process and pidfd of a new child; (0, -1) in it.

        Not `os.fork`: what it does for threads and locks, of which a worker has none, doubles the cost of a child.
        """
        if self.sealed:
            pid = self._through("clone", CLONE_PIDFD | signal.SIGCHLD, 0, ctypes.addressof(self._pidfd))
            return pid, self._pidfd.value if pid else -1
        pid = _check(_locked_libc.fork(), "fork")
        return pid, os.pidfd_open(pid) if pid else -1

    def kill(self, pid: int) -> None:
        if self.sealed:
            self._through("kill", pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)

    def limit(self, pid: int, what: int, value: int) -> None:
        """From outside: what a child does in its first moments is paid for page by page."""
        if self.sealed:
            struct.pack_into("<QQ", self._limit, 0, value, value)
            self._through("prlimit64", pid, what, ctypes.addressof(self._limit))
        else:
            resource.prlimit(pid, what, (value, value))

    def close(self) -> None:
        """For a child, before anything of others' making runs. It dies with its worker, and the gate is no more."""
        if self.sealed:
            self._through("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
            _check(_libc.munmap(ctypes.c_void_p(GATE), ctypes.c_size_t(_PAGE)), "munmap")
        else:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def drop_capabilities() -> str:
    """All sets; that a process without any may not touch the bounding set is no loss."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
    _libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    header = struct.pack("<Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("CapInh", "CapPrm", "CapEff", "CapAmb") and int(value, 16):
            raise OSError(errno.EPERM, f"{name} is still {value.strip()}")
    return f"none, uid {os.getuid()}"


# Landlock -------------------------------------------------------------------------------------------------------------

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Everything that a version knows is refused: execute and write, ioctl on devices (5), rename across (2), truncate (3).
_FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_BIND_CONNECT_TCP, _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3


def landlock_version() -> int:
    """0 if the kernel has none or has it switched off."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def library_paths() -> list[str]:
    """What functions may read: the interpreter's library, the installed packages, and the folders of the shared
    libraries that this process runs on (a module like zlib asks for its own only when it is imported)."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = {os.path.realpath(sysconfig.get_path(name)) for name in names}
    paths |= {os.path.realpath(path) for path in sys.path if "dynload" in path or path.endswith("-packages")}
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, slash, path = line.partition("/")
        if slash and ".so" in Path(path).name:
            paths.add(str(Path(slash + path).parent))
    return sorted(path for path in paths | {"/usr/share/zoneinfo"} if Path(path).is_dir())


def restrict_files() -> str:
    version = landlock_version()
    if version < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock (Linux 5.13 and later do), or it is switched off")
    network = _BIND_CONNECT_TCP if version >= 4 else 0
    scope = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    attributes = struct.pack("<QQQ", _FS_RIGHTS[min(version, 5)], network, scope)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _check(_libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock")
    try:
        for path in library_paths():
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("<Qi", _READ_FILE | _READ_DIR, fd)
            _check(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock rule for {path}")
            os.close(fd)
        _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return f"version {version}"


# seccomp --------------------------------------------------------------------------------------------------------------

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ARCH, _NUMBER, _ADDRESS_HIGH = 4, 0, 12


@dataclass(frozen=True)
class Arg:
    """A condition on half of an argument: `value & mask == equals`, or not."""

    index: int
    mask: int = 0xFFFFFFFF
    equals: int = 0
    negated: bool = False
    high: bool = False


# What an interpreter needs that computes on strings and imports modules, and what the worker needs to serve: it waits
# for its children and talks through its socket, and functions have neither.
_FREELY = """
    read write close stat fstat lstat poll ppoll lseek munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64
    pwrite64 readv writev access sched_yield madvise dup dup2 dup3 nanosleep getitimer alarm setitimer getpid
    sendto recvmsg exit wait4 uname getcwd readlink gettimeofday getrusage sysinfo times getuid getgid geteuid
    getegid getppid sigaltstack gettid time futex sched_getaffinity getdents64 restart_syscall clock_gettime
    clock_getres clock_nanosleep exit_group newfstatat readlinkat faccessat getrandom statx close_range faccessat2
"""
_NOT_AT_GATE = (
    Arg(0, high=True, equals=_GATE_HIGH, negated=True),
    Arg(0, high=True, equals=_GATE_HIGH - 1, negated=True),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
_ON_CONDITION: list[tuple[str, tuple[Arg, ...]]] = [
    ("openat", (Arg(2, mask=_WRITING),)),
    # Executable memory comes from files that Landlock lets them read, and from nowhere else.
    ("mmap", (*_NOT_AT_GATE, Arg(2, mask=mmap.PROT_EXEC))),
    ("mmap", (*_NOT_AT_GATE, Arg(3, mask=mmap.MAP_ANONYMOUS))),
    ("mprotect", (Arg(2, mask=mmap.PROT_EXEC),)),
    ("mremap", (Arg(3, mask=2),)),  # MREMAP_FIXED could move a page to the gate's place
    ("prlimit64", (Arg(0),)),  # of oneself; what is limited cannot be raised again
    *(("ioctl", (Arg(1, equals=request),)) for request in (0x5401, 0x5450, 0x5451)),  # isatty, close on exec
    *(("fcntl", (Arg(1, equals=command),)) for command in (0, 1, 2, 3, 1030)),  # dup and flags; no owners or signals
]
# libc tries the newer call first and falls back on the one that a filter can look into.
_UNKNOWN = ("clone3", "openat2")


def filter_program() -> bytes:
    """An allow-list. Whatever is not on it fails with EPERM, which Python makes an exception of."""
    here = machine()
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, here.audit),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for name in _FREELY.split():
        if name in here.calls:
            program += [(_EQUAL, 0, 1, here.calls[name]), (_RETURN, 0, 0, _ALLOW)]
    for name in _UNKNOWN:
        program += [(_EQUAL, 0, 1, here.calls[name]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for name, arguments in _ON_CONDITION:
        rest = 3 * len(arguments) + 1
        program += [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, rest, here.calls[name])]
        for argument in arguments:
            rest -= 3
            jumps = (rest, 0) if argument.negated else (0, rest)
            program += [
                (_LOAD, 0, 0, 16 + 8 * argument.index + 4 * argument.high),
                (_AND, 0, 0, argument.mask),
                (_EQUAL, *jumps, argument.equals),
            ]
        program.append((_RETURN, 0, 0, _ALLOW))
    program += [
        (_LOAD, 0, 0, _ADDRESS_HIGH),
        (_EQUAL, 0, 1, _GATE_HIGH),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def install_filter() -> str:
    program = filter_program()
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    _check(_libc.syscall(machine().calls["seccomp"], 1, 0, head), "seccomp")
    return f"allow-list, {len(program) // 8} instructions"
