"""The layers: named when they are missing, refused by default, given up only on request and in the log."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig, doctor, kernel

ROOT = Path(__file__).resolve().parents[1]
HONEST = "import re\ndef evaluate(response):\n    return bool(re.search('a', response))"

# Stands for a container whose profile refuses some system calls: a filter of ours, then the sandbox inside it.
CRIPPLED = """
import asyncio, ctypes, errno, struct, sys
sys.path.insert(0, {root!r})
from autoif_blocks.errors import SandboxUnavailable
from autoif_blocks.sandbox import Sandbox, SandboxConfig, doctor, kernel
code = [(0x20, 0, 0, 0)]
for number in {numbers}:
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | errno.EPERM)]
program = b"".join(struct.pack("<HBBI", *line) for line in code + [(0x06, 0, 0, 0x7FFF0000)])
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
buffer = ctypes.create_string_buffer(program, len(program))
head = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
assert ctypes.CDLL(None).syscall(kernel.machine().calls["seccomp"], 1, 0, head) == 0
async def main():
    print([layer.name for layer in doctor() if not layer.ok])
    for isolation in ("auto", "full", "process"):
        try:
            async with Sandbox(SandboxConfig(workers=1, isolation=isolation)) as sandbox:
                print(isolation, (await sandbox.execute({honest!r}, ["a"]))[0].name)
        except SandboxUnavailable as error:
            print(isolation, error)
asyncio.run(main())
"""


def crippled(*numbers: int) -> list[str]:
    script = CRIPPLED.format(root=str(ROOT), numbers=numbers, honest=HONEST)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_doctor_finds_every_layer_here() -> None:
    layers = doctor()
    assert [layer.name for layer in layers if not layer.ok] == []
    assert {"limits", "capabilities", "landlock files", "seccomp", "self-test"} <= {name for name, _, _ in layers}


@pytest.mark.parametrize(
    ("number", "layer"),
    [(444, "landlock files"), (446, "landlock files"), (kernel.machine().calls["seccomp"], "seccomp")],
)
def test_without_a_layer_there_is_no_sandbox(number: int, layer: str) -> None:
    missing, auto, full, process = crippled(number)
    assert layer in missing
    for said in (auto, full):
        assert f"this machine lacks {layer} (" in said
        assert "`sandbox: {isolation: process}`" in said
    assert process == "process TRUE"


# What is changed in kernel.py, and what a function could then do.
HOLES = {
    "processes and signals": ('_FREELY = """', '_FREELY = """ clone kill prctl', "fork, signal its worker"),
    "the gate": (
        '("mmap", (*_NOT_AT_GATE, Arg(2, mask=mmap.PROT_EXEC)))',
        '("mmap", ())',
        "make memory executable, map the gate's page",
    ),
    "all that can be read": ('paths | {"/usr/share/zoneinfo"}', '{"/"}', "read /etc/passwd, list /"),
    "nothing that can be read": ('paths | {"/usr/share/zoneinfo"}', "set()", "not even import"),
}


@pytest.mark.parametrize("hole", HOLES)
def test_the_self_test_catches_a_wall_with_a_hole(hole: str, tmp_path: Path) -> None:
    """In a copy of the sandbox."""
    before, after, could = HOLES[hole]
    package = tmp_path / "autoif_blocks"
    (package / "sandbox").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "errors.py").write_text((ROOT / "autoif_blocks/errors.py").read_text())
    for path in (ROOT / "autoif_blocks/sandbox").glob("*.py"):
        text = path.read_text()
        if path.name == "kernel.py":
            assert before in text
            text = text.replace(before, after)
        (package / "sandbox" / path.name).write_text(text)
    script = "from autoif_blocks.sandbox import doctor\nprint(doctor()[-1])"
    done = subprocess.run([sys.executable, "-P", "-c", script], env={"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert b"self-test" in done.stdout
    assert b"ok=False" in done.stdout
    assert f"a function could {could}" in done.stdout.decode()


def test_the_opt_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Outcome]:
        async with Sandbox(SandboxConfig(workers=1, isolation="process")) as sandbox:
            return await sandbox.execute(HONEST, ["a", "b"])

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(main()) == [Outcome.TRUE, Outcome.FALSE]
    assert "isolation: process" in caplog.text


def test_every_module_of_the_standard_library_can_be_imported() -> None:
    """Also those with C code and shared libraries of their own, which nobody preloaded."""
    modules = [
        "ssl",
        "hashlib",
        "zlib",
        "bz2",
        "uuid",
        "xml.etree.ElementTree",
        "sqlite3",
        "ctypes",
        "asyncio",
        "decimal",
    ]
    code = "import importlib\ndef evaluate(name):\n    return importlib.import_module(name) is not None"

    async def main() -> list[Outcome]:
        async with Sandbox(SandboxConfig(workers=1, call_timeout=5.0)) as sandbox:
            return await sandbox.execute(code, [name for name in modules if importlib.util.find_spec(name)])

    assert set(asyncio.run(main())) == {Outcome.TRUE}


def test_accidents_are_survived_without_the_kernels_help() -> None:
    """`process` promises no more than that: time, memory, ends, state, and processes left behind."""
    mark = f"survivor-{time.monotonic_ns()}"
    accidents = {
        "def evaluate(response):\n    while True: pass": Outcome.TIMEOUT,
        "def evaluate(response): return bytes(10 ** 10) == b''": Outcome.MEMORY,
        "import os\ndef evaluate(response): os._exit(0)": Outcome.EXIT,
        "import os\ndef evaluate(response): os.kill(os.getpid(), 9)": Outcome.CRASH,
        "import os\ndef evaluate(response): os.killpg(0, 9)": Outcome.CRASH,
        "import os, signal\ndef evaluate(response): os.kill(os.getpid(), signal.SIGSTOP)": Outcome.TIMEOUT,
        "import builtins\nbuiltins.len = None\ndef evaluate(response): return True": Outcome.TRUE,
        f"""
import os, time, ctypes
def evaluate(response):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv({sys.executable!r}, ["{mark}", "-c", "import time; time.sleep(60)"])
    return True
""": Outcome.TRUE,
    }

    async def main() -> None:
        config = SandboxConfig(workers=1, call_timeout=0.2, memory_mb=128, isolation="process")
        async with Sandbox(config) as sandbox:
            for code, outcome in accidents.items():
                got = await sandbox.execute(code, ["a"])
                assert got == [outcome] or "fork" in code, code
                assert await sandbox.execute(HONEST, ["a", "b"]) == [Outcome.TRUE, Outcome.FALSE]
            assert not alive(mark)

    asyncio.run(main())


def alive(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0")[0]:
                return True
        except OSError:
            continue
    return False


def test_doctor_tells_what_holds_here() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autoif_blocks", "doctor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "seccomp" in done.stdout
    assert "The sandbox runs here." in done.stdout
