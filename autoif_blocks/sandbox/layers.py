"""Builds the walls around a worker, one after the other, and then runs against them to see whether they stand."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from autoif_blocks.sandbox import kernel

MAX_FILES = 256  # a worker holds one for each function that waits in it
_NEWER = ("landlock network", "landlock signals")
OPT_OUT = "To run model-written code without this protection, set `sandbox: {isolation: process}`."


class Layer(NamedTuple):
    name: str
    ok: bool
    detail: str


def build(memory_mb: int, isolation: str) -> tuple[kernel.Gate, list[Layer]]:
    """Confine this process and all its children for ever. What fails is reported, and what comes after it is tried."""
    sealed = isolation != "process"
    found: list[Layer] = []
    gate = kernel.Gate(sealed=False)

    def layer(name: str, raise_it: Callable[[], str | None]) -> None:
        try:
            found.append(Layer(name, True, raise_it() or ""))
        except (OSError, ValueError) as error:
            found.append(Layer(name, False, str(error)))

    layer("limits", lambda: limit(memory_mb))
    layer("capabilities", kernel.drop_capabilities)
    layer("no new privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
    layer("dies with its parent", lambda: kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL))
    layer("not dumpable", lambda: kernel.prctl(kernel.PR_SET_DUMPABLE, 0))
    layer("adopts orphans", lambda: kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1))
    if sealed:
        version = kernel.landlock_version()
        layer("landlock files", kernel.restrict_files)
        for name, needed, kind in ((_NEWER[0], 4, "6.7"), (_NEWER[1], 6, "6.12")):
            detail = f"version {version}" if version >= needed else f"Linux {kind} and later have it"
            found.append(Layer(name, version >= needed, detail))
        try:
            gate = kernel.Gate(sealed=True)
            layer("seccomp", kernel.install_filter)
        except OSError as error:
            found.append(Layer("seccomp", False, str(error)))
        if found[-1].ok:
            layer("self-test", lambda: attack(gate))
    return gate, found


def missing(found: list[Layer], isolation: str) -> str:
    """Why this isolation is not to be had here; empty if it is."""
    if isolation == "process":
        return ""
    broken = [layer for layer in found if not layer.ok and (isolation == "full" or layer.name not in _NEWER)]
    if not broken:
        return ""
    return f"this machine lacks {'; '.join(f'{layer.name} ({layer.detail})' for layer in broken)}. {OPT_OUT}"


def limit(memory_mb: int) -> str:
    """Limits that children inherit. The interpreter's own size is not charged to the function."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    space = size + (memory_mb << 20)
    for what, value in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))
    return f"{memory_mb} MB"


def limit_child(gate: kernel.Gate, pid: int, cpu_seconds: int) -> None:
    """Limits that a worker could not live with. The second line behind the watcher and the filter."""
    gate.limit(pid, resource.RLIMIT_CPU, cpu_seconds)
    gate.limit(pid, resource.RLIMIT_FSIZE, 0)
    gate.limit(pid, resource.RLIMIT_NPROC, 0)


def _map_at_gate() -> None:
    if kernel.map_memory(kernel.GATE, mmap.PROT_READ | mmap.PROT_EXEC) is None:
        raise OSError


def _forbidden() -> list[tuple[str, Callable[[], object]]]:
    return [
        ("read /etc/passwd", lambda: os.open("/etc/passwd", os.O_RDONLY)),
        ("list /", lambda: os.scandir("/").close()),
        ("write a file", lambda: os.open("/dev/null", os.O_WRONLY)),
        ("fork", lambda: os.fork() or os._exit(0)),
        ("exec", lambda: os.execv("/bin/true", ["true"])),
        ("open a socket", socket.socket),
        ("signal its worker", lambda: os.kill(os.getppid(), 0)),
        ("make memory executable", lambda: mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC)),
        ("map the gate's page", _map_at_gate),
    ]


def attack(gate: kernel.Gate) -> str:
    """Do in a child what a child must not be able to do."""
    attempts = _forbidden()
    with mmap.mmap(-1, mmap.PAGESIZE) as results:
        pid, pidfd = gate.fork()
        if pid == 0:
            try:
                gate.close()
                for index, (_, attempt) in enumerate(attempts):
                    try:
                        attempt()
                    except OSError:
                        results[index] = 1
                # What must go on working: else every function would fail, and nobody would know why.
                os.close(os.open(os.__file__, os.O_RDONLY))
                ctypes.create_string_buffer(1 << 20)
                results[len(attempts)] = 1
            finally:
                os._exit(0)
        os.close(pidfd)
        os.waitpid(pid, 0)
        possible = [name for index, (name, _) in enumerate(attempts) if not results[index]]
        if possible:
            raise OSError(f"a function could {', '.join(possible)}")
        if not results[len(attempts)]:
            raise OSError("a function could not even import")
    return f"{len(attempts)} attempts refused"
