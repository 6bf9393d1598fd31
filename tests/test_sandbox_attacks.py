"""What hostile functions try, and that it comes to nothing: for themselves, beside them and after them.

An attack returns True when it succeeded; so no attack may end in TRUE. Each runs beside an honest function and before
one, in the same worker; then the world outside is looked at. The loop runs in a thread of its own, as in a real run.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import children

from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig

SECRET = "hunter2-" + "x" * 24  # assembled here so that no attack holds it by being compiled
MARK = "sandbox-attack-survivor"

HONEST = """
import re, json, sys, math, random
from collections import Counter
assert random.random() == 0.8444218515250481
def evaluate(response):
    words = re.findall(r"\\w+", response)
    assert json.loads(json.dumps(words)) == words and len("abc") == 3 and math.sqrt(4) == 2 and sys.maxsize > 0
    assert isinstance(response, str) and sorted([2, 1]) == [1, 2]
    return Counter(words)["fair"] == 1
"""
HONEST_INPUTS = ["this is fair", "foul", "fair is fair", "a fair answer"]
HONEST_OUTCOMES = [Outcome.TRUE, Outcome.FALSE, Outcome.FALSE, Outcome.TRUE]

T, M, C, X, E = Outcome.TIMEOUT, Outcome.MEMORY, Outcome.CRASH, Outcome.EXIT, Outcome.EXCEPTION
LOAD, F, TRUE = Outcome.LOAD_ERROR, Outcome.FALSE, Outcome.TRUE

# name: (outcomes that are all right, code). `{home}` is a folder with a secret in it, `{port}` one that is listened on.
ATTACKS: dict[str, tuple[set[Outcome], str]] = {}


def attack(name: str, *fine: Outcome, setup: str = "", body: str) -> None:
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    ATTACKS[name] = (set(fine), f"{setup}\ndef evaluate(response):\n{lines}\n")


# Time -----------------------------------------------------------------------------------------------------------------
attack("loop", T, body="while True: pass")
attack("loop that swallows everything", T, body="while True:\n try:\n  while True: pass\n except BaseException: pass")
attack("loop in a regular expression", T, setup="import re", body="re.match(r'(a+)+$', 'a' * 64 + 'b')")
attack("loop in an integer", T, body="return 3 ** (3 ** 20) % 7 == 0")
attack("loop in C", T, body="return sum(range(10 ** 12)) > 0")
attack("loop in __bool__", T, setup="class B:\n def __bool__(self):\n  while True: pass", body="return B()")
attack("loop while loading", LOAD, setup="while True: pass", body="return True")
attack(
    "loop deaf to signals",
    T,
    setup="import signal",
    body="""
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except Exception: pass
signal.alarm(0)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
""",
)
attack("sleep", T, setup="import time", body="time.sleep(1000)\nreturn True")
attack(
    "deadlock", T, setup="import threading", body="lock = threading.Lock()\nlock.acquire()\nlock.acquire()\nreturn True"
)
attack(
    "a progress byte that moves to and fro",
    T,
    LOAD,
    setup="import gc, mmap",
    body="""
shared = [thing for thing in gc.get_objects() if isinstance(thing, mmap.mmap)]
import sys
frame = sys._getframe()
while frame:
    shared += [thing for thing in frame.f_locals.values() if isinstance(thing, mmap.mmap)]
    frame = frame.f_back
while True:
    for thing in shared:
        thing[0] = not thing[0]
        thing[1] = 0
""",
)
# Memory ---------------------------------------------------------------------------------------------------------------
attack("endless list", M, T, body="things = []\nwhile True: things.append('x' * 100_000 + str(len(things)))")
attack("doubled string", M, T, body="text = 'x'\nwhile True: text += text")
attack("mapped memory", E, M, setup="import mmap", body="return len(mmap.mmap(-1, 1 << 36)) > 0")
attack("memory file", E, setup="import os", body="fd = os.memfd_create('x')\nos.write(fd, b'x' * 4096)\nreturn True")
attack("endless output", T, body="while True: print('x' * 100_000)")
attack("endless errors", T, setup="import os", body="while True: os.write(2, b'x' * 100_000)")
attack("huge number as text", M, E, T, body="return len(format(1.0, '.2000000000f')) > 0")
attack("recursion", E, setup="def f(n): return f(n + 1)", body="return f(0)")
attack(
    "recursion without limit",
    C,
    M,
    E,  # from Python 3.12 on, C code has a limit of its own
    setup="import sys\nsys.setrecursionlimit(10 ** 9)",
    body="f = lambda f, n: f(f, n + 1)\nclass A:\n def __repr__(self): return repr(self)\nreturn repr(A()) == ''",
)
attack(
    "file descriptors",
    E,
    setup="import os, string",
    body="fds = []\nfor n in range(100_000): fds.append(os.open(string.__file__, os.O_RDONLY))\nreturn True",
)
# Processes ------------------------------------------------------------------------------------------------------------
attack("fork", E, setup="import os", body="return os.fork() >= 0")
attack("fork bomb", T, setup="import os", body="while True:\n try: os.fork()\n except OSError: pass")
attack("thread", E, setup="import threading", body="threading.Thread(target=print).start()\nreturn True")
attack(
    "thread bomb",
    T,
    E,
    setup="import _thread",
    body="while True:\n try: _thread.start_new_thread(print, ())\n except RuntimeError: pass",
)
attack("subprocess", E, setup="import subprocess", body="return subprocess.run(['/bin/true']).returncode == 0")
attack("shell", F, E, setup="import os", body="return os.system('touch {home}/made') == 0")
attack("popen", E, F, setup="import os", body="return os.popen('echo yes').read() != ''")
attack("exec", E, setup="import os", body="os.execv('/bin/sh', ['sh', '-c', 'touch {home}/made'])")
attack("spawn", E, setup="import os", body="return os.posix_spawn('/bin/true', ['true'], {}) > 0")
attack(
    "multiprocessing",
    E,
    setup="import multiprocessing",
    body="p = multiprocessing.get_context('fork').Process(target=print)\np.start()\nreturn True",
)
attack(
    "daemon",
    E,
    setup="import os, time",
    body="""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
return True
""",
)
CALL = "import ctypes\ndef call(*numbers): return ctypes.CDLL(None).syscall(*map(ctypes.c_long, numbers))"
for name, numbers in {
    "clone": "56, 17, 0, 0, 0, 0",
    "clone a thread": "56, 0x50f00, 0, 0, 0, 0",
    "clone3": "435, 0, 88",
    "vfork": "58",
    "x32 clone": "0x40000000 + 56, 17, 0, 0, 0, 0",
    "ptrace": "101, 16, os.getppid(), 0, 0",
    "process_vm_readv": "310, os.getppid(), 0, 0, 0, 0, 0",
    "pidfd_open": "434, os.getppid(), 0",
    "tkill the worker": "200, os.getppid(), 9",
    "unshare": "272, 0x10000000",
    "setns": "308, 0, 0",
    "keyring": "250, 0, -3, 1",
    "bpf": "321, 0, 0, 0",
    "io_uring": "425, 8, 0",
    "userfaultfd": "323, 0",
    "perf_event_open": "298, 0, 0, -1, -1, 0",
    "shared memory segment": "29, 0, 4096, 0o1777",
    "message queue": "68, 0, 0o1777",
    "eventfd": "290, 1, 0",
    "dumpable again": "157, 4, 1, 0, 0, 0",
    "outlive its worker": "157, 1, 0, 0, 0, 0",
    "another filter": "317, 0, 0, 0",
    "openat2": "437, -100, 0, 0, 24",
    "personality": "135, 0x0400000",
    "raise the limits of others": "302, os.getppid(), 7, 0, 0",
    "new session": "112",
    "nice": "141, 0, 0, -5",
    "chroot": "161, ctypes.cast(ctypes.c_char_p(b'/'), ctypes.c_void_p).value",
}.items():
    attack(f"system call: {name}", F, C, setup=CALL + "\nimport os", body=f"return call({numbers}) != -1")
attack(
    "make memory executable",
    F,
    setup="import ctypes, mmap\nlibc = ctypes.CDLL(None)",
    body="""
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page)) & ~4095
return libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 7) == 0
""",
)
GATE = "import ctypes, string\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_ssize_t\nGATE = 0x20_8000_0000"
attack("call the gate", C, setup=GATE, body="return ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(GATE)(39) > 0")
for name, where, protection, flags in (
    ("memory", "GATE", 3, 0x32),
    ("code", "GATE", 7, 0x32),
    ("a hint", "GATE", 3, 0x22),
    ("a page below", "GATE - (1 << 31)", 3, 0x32),
    ("a page far below", "GATE - (1 << 32)", 3, 0x32),
):
    attack(
        f"map {name} at the gate",
        F,
        setup=GATE,
        body=f"""
got = libc.mmap(ctypes.c_void_p({where}), ctypes.c_size_t(4096), {protection}, {flags}, -1, ctypes.c_long(0))
return got != -1
""",
    )
attack(
    "map a library's code at the gate",
    F,
    setup=GATE + "\nimport os, _random",
    body="""
fd = os.open(_random.__file__, os.O_RDONLY)
return libc.mmap(ctypes.c_void_p(GATE), ctypes.c_size_t(4096), 5, 0x12, fd, ctypes.c_long(0)) != -1
""",
)
attack(
    "move code to the gate",
    F,
    setup=GATE,
    body="""
code = ctypes.cast(libc.syscall, ctypes.c_void_p).value & ~4095
libc.mremap.restype = ctypes.c_ssize_t
return libc.mremap(ctypes.c_void_p(code), ctypes.c_size_t(4096), ctypes.c_size_t(4096), 3, ctypes.c_void_p(GATE)) != -1
""",
)
# Ends -----------------------------------------------------------------------------------------------------------------
attack("_exit", X, setup="import os", body="os._exit(0)")
attack("_exit while loading", LOAD, setup="import os\nos._exit(0)", body="return True")
attack("SystemExit", X, body="raise SystemExit(0)")
attack("KeyboardInterrupt", E, body="raise KeyboardInterrupt")
attack("an exception whose text raises", E, setup="class Bad(BaseException):\n __str__ = None", body="raise Bad")
attack("kill its worker", E, setup="import os", body="os.kill(os.getppid(), 9)\nreturn True")
attack("kill its group", E, setup="import os", body="os.killpg(0, 9)\nreturn True")
attack("kill everybody", E, setup="import os", body="os.kill(-1, 9)\nreturn True")
attack("stop itself", E, setup="import os", body="os.kill(os.getpid(), 19)\nreturn True")
attack("abort", C, setup="import os", body="os.abort()")
attack("segmentation fault", C, setup="import ctypes", body="return ctypes.string_at(0) != b''")
attack(
    "trample on memory", C, X, E, T, setup="import ctypes", body="ctypes.memset(id(None), 255, 1 << 20)\nreturn True"
)
attack(
    "bad bytecode",
    C,
    T,
    M,
    E,
    X,
    Outcome.NONE,
    Outcome.TRUTHY,
    setup="def f(): pass",
    body="f.__code__ = f.__code__.replace(co_code=bytes([124, 200] * 8), co_stacksize=0)\nreturn f() or 'x'",
)
# Files ----------------------------------------------------------------------------------------------------------------
for name, setup, body in (
    ("read /etc/passwd", "", "return open('/etc/passwd').read() != ''"),
    ("read a secret", "", "return 'hunter' in open('{home}/secret').read()"),
    ("read a secret with FileIO", "import io", "return io.FileIO('{home}/secret').read() != b''"),
    (
        "read a secret with the importer",
        "import importlib.machinery as m",
        """
return m.SourceFileLoader('x', '{home}/secret').get_data('{home}/secret') != b''""",
    ),
    ("read the worker's environment", "import os", "return open(f'/proc/{{os.getppid()}}/environ').read() != 3"),
    ("read its own memory", "", "return open('/proc/self/mem', 'rb') is not None"),
    ("read its own maps", "", "return open('/proc/self/maps').read() != ''"),
    ("list a folder", "import os", "return os.listdir('{home}') != []"),
    ("list the root", "import os", "return os.listdir('/') != []"),
    ("write here", "", "open('made', 'w').write('x')\nreturn True"),
    ("write to /tmp", "", "open('/tmp/sandbox-attack-made', 'w').write('x')\nreturn True"),
    ("write to a secret", "", "open('{home}/secret', 'a').write('x')\nreturn True"),
    ("write to a library", "import string", "open(string.__file__, 'a').write('x')\nreturn True"),
    ("write shared memory", "", "open('/dev/shm/sandbox-attack-made', 'w').write('x')\nreturn True"),
    ("a temporary file", "import tempfile", "tempfile.TemporaryFile()\nreturn True"),
    ("delete", "import os", "os.remove('{home}/secret')\nreturn True"),
    ("delete a tree", "import shutil", "shutil.rmtree('{home}')\nreturn True"),
    ("rename", "import os", "os.rename('{home}/secret', '{home}/made')\nreturn True"),
    ("hard link", "import os", "os.link('{home}/secret', '{home}/made')\nreturn True"),
    ("symbolic link", "import os", "os.symlink('/etc', '{home}/made')\nreturn True"),
    ("make a folder", "import os", "os.mkdir('{home}/made')\nreturn True"),
    ("make a pipe", "import os", "os.mkfifo('{home}/made')\nreturn True"),
    ("truncate", "import os", "os.truncate('{home}/secret', 0)\nreturn True"),
    ("change the mode", "import os", "os.chmod('{home}/secret', 0o777)\nreturn True"),
    ("change the time", "import os", "os.utime('{home}/secret', (0, 0))\nreturn True"),
    ("change the folder", "import os", "os.chdir('/tmp')\nreturn True"),
    ("an input that is code", "", "return eval(\"open('{home}/secret').read()\") != ''"),
    # Network
    ("connect", "import socket", "socket.create_connection(('127.0.0.1', {port}), 1)\nreturn True"),
    ("connect with version 6", "import socket", "socket.create_connection(('::1', {port}), 1)\nreturn True"),
    (
        "send a datagram",
        "import socket",
        """
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))\nreturn True""",
    ),
    ("unix socket", "import socket", "socket.socket(socket.AF_UNIX).connect('{home}/socket')\nreturn True"),
    ("abstract socket", "import socket", "socket.socket(socket.AF_UNIX).connect('\\0{mark}')\nreturn True"),
    ("socket pair", "import socket", "return socket.socketpair() != ()"),
    ("fetch", "import urllib.request", "urllib.request.urlopen('http://127.0.0.1:{port}')\nreturn True"),
    ("take over the worker's socket", "import socket", "return any(socket.socket(fileno=n) for n in range(3, 64))"),
):
    attack(name, E, F, setup=setup, body=body)
attack("its environment", F, setup="import os", body="return len(os.environ) > 0")
attack(
    "open descriptors",
    F,
    setup="import os",
    body="""
found = []
for fd in range(3, 64):
    try: found.append(os.read(fd, 100))
    except OSError: pass
return found != []
""",
)
attack(
    "write results for others",
    F,
    setup="import os",
    body="""
written = 0
for fd in range(3, 64):
    try: written += os.write(fd, bytes(range(1, 9)))
    except OSError: pass
return written > 0
""",
)
# The interpreter ------------------------------------------------------------------------------------------------------
for name, setup in {
    "poisoned builtins": "import builtins\nbuiltins.len = builtins.sorted = builtins.isinstance = lambda *a: 0",
    "poisoned re": "import re\nre.findall = re.compile = re.match = None",
    "poisoned json": "import json\njson.loads = json.dumps = lambda *a: {'x': 1}",
    "poisoned random": "import random\nrandom.seed(7)\nrandom.random = lambda: 2.0",
    "poisoned modules": "import sys\nsys.modules['re'] = sys.modules['math'] = sys.modules['json'] = None",
    "emptied modules": "import sys\nsys.modules.clear()",
    "poisoned search path": "import sys\nsys.path[:] = []\nsys.meta_path[:] = []",
    "poisoned types": "import collections\ncollections.Counter.__getitem__ = lambda *a: 99",
    "poisoned harness": """
import sys
frame = sys._getframe()
while frame:
    for name in list(frame.f_globals):
        if name.startswith('_') and isinstance(frame.f_globals[name], int):
            frame.f_globals[name] = 99
    frame = frame.f_back""",
    "poisoned exit": "import os, atexit\nos._exit = print\natexit.register(lambda: [None for n in iter(int, 1)])",
    "poisoned integers": "import ctypes\nctypes.memset(id(5) + 24, 9, 1)",
    "traced": "import sys\nsys.settrace(lambda *a: sys.exit())\nsys.setprofile(lambda *a: 1 / 0)",
    "audited": "import sys\nsys.addaudithook(lambda *a: 1 / 0)",
    "collected": "import gc\ngc.unfreeze()\ngc.set_threshold(1)\ngc.callbacks.append(lambda *a: 1 / 0)",
}.items():
    code = setup + "\ndef evaluate(response):\n    return 'done'\n"
    ATTACKS[name] = ({Outcome.TRUTHY, E, X, C, T, LOAD, Outcome.NONE}, code)
attack(
    "a gadget as result",
    Outcome.TRUTHY,
    setup="import os\nclass Gadget:\n def __reduce__(self): return os.system, ('touch {home}/made',)",
    body="return Gadget()",
)
attack(
    "a result that equals everything",
    Outcome.TRUTHY,
    setup="class Yes:\n __eq__ = __call__ = lambda *a: True\n __class__ = bool\n __hash__ = None",
    body="return Yes()",
)
attack(
    "a result that kills when looked at", X, setup="class B:\n def __bool__(self): raise SystemExit", body="return B()"
)
attack(
    "a result that dies late", F, Outcome.NONE, setup="class B:\n def __del__(self): 1 / 0", body="B()\nreturn False"
)
SEARCH = f"""
import gc, sys
gc.unfreeze()
def strings():
    for thing in gc.get_objects():
        for part in gc.get_referents(thing):
            if isinstance(part, (str, bytes, bytearray)) and len(part) >= 32: yield part
    frame = sys._getframe()
    while frame:
        yield from (str(value) for value in frame.f_locals.values())
        frame = frame.f_back
NEEDLE = {SECRET[:4]!r} + 'er2-x'
"""
attack(
    "look for others' inputs among all objects",
    F,
    setup=SEARCH,
    body="return any((NEEDLE in part) if isinstance(part, str) else (NEEDLE.encode() in part) for part in strings())",
)
attack(
    "look for others' inputs in memory",
    F,
    C,
    setup=SEARCH + "import ctypes",
    body="""
NEEDLE_BYTES = (NEEDLE + 'x' * 20).encode()
start = id(response) & ~0xFFFFF
return any(NEEDLE_BYTES in ctypes.string_at(start + n * 4096, 4096) for n in range(256)) and False
""",
)


@dataclass
class World:
    """What the attacks would like to get at."""

    home: Path
    port: int
    run: Callable[[str, list[str]], list[Outcome]]
    both: Callable[[str, str], tuple[list[Outcome], list[Outcome], list[Outcome]]]

    def snapshot(self) -> object:
        status = (self.home / "secret").stat()
        return (
            (self.home / "secret").read_text(),
            stat.S_IMODE(status.st_mode),
            status.st_mtime,
            sorted(path.name for path in self.home.iterdir()),
            sorted(str(path) for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob("sandbox-attack-*")),
            Path("made").exists(),
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    (home / "secret").write_text(SECRET)
    config = SandboxConfig(workers=1, call_timeout=0.2, function_timeout=1.0, memory_mb=128)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        unix.bind(str(home / "socket"))
        unix.listen()
        abstract.bind("\0" + MARK + str(os.getpid()))
        abstract.listen()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        sandbox = Sandbox(config)

        def wait(coroutine):  # type: ignore[no-untyped-def]
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

        async def both(code: str, text: str) -> tuple[list[Outcome], list[Outcome], list[Outcome]]:
            beside, hostile = await asyncio.gather(
                sandbox.execute(HONEST, HONEST_INPUTS), sandbox.execute(code, [text])
            )
            return hostile, beside, await sandbox.execute(HONEST, HONEST_INPUTS)

        wait(sandbox.__aenter__())
        try:
            yield World(
                home,
                server.getsockname()[1],
                lambda code, texts: wait(sandbox.execute(code, texts)),
                lambda code, text: wait(both(code, text)),
            )
        finally:
            wait(sandbox.__aexit__(None, None, None))
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_comes_to_nothing(name: str, world: World) -> None:
    fine, code = ATTACKS[name]
    for key, value in {"{home}": world.home, "{port}": world.port, "{mark}": MARK + str(os.getpid())}.items():
        code = code.replace(key, str(value))
    before = world.snapshot()
    workers = children(os.getpid())
    hostile, beside, after = world.both(code.replace("{{", "{").replace("}}", "}"), "hello")
    assert hostile[0] in fine
    assert hostile[0] is not Outcome.TRUE
    assert beside == HONEST_OUTCOMES
    assert after == HONEST_OUTCOMES
    assert world.snapshot() == before
    assert children(os.getpid()) == workers, "the worker died"
    assert children(workers[0]) == [], "a process survived"


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 45


def test_inputs_of_earlier_functions_are_out_of_reach(world: World) -> None:
    """The worker forks the children and so hands its own memory to them: it must never have read an input."""
    for _ in range(3):
        assert world.run("def evaluate(response): return len(response) > 9", [SECRET] * 3) == [Outcome.TRUE] * 3
    _, code = ATTACKS["look for others' inputs among all objects"]
    assert world.run(code, ["hello"]) == [Outcome.FALSE]
    # The search itself works: it finds what is in its own input.
    assert world.run(code, ["say " + SECRET]) == [Outcome.TRUE]
    whole = f"""
import ctypes, re
def evaluate(response):
    needle = bytes(reversed({SECRET.encode()[::-1]!r}))
    found = set()
    for start in {{id(response), id(evaluate), id(None), id(re), id(needle)}}:
        base = start & ~0xFFFFF
        libc = ctypes.CDLL(None)
        for page in range(base, base + (1 << 20), 4096):
            vector = (ctypes.c_ubyte * 1)()
            if libc.msync(ctypes.c_void_p(page), ctypes.c_size_t(4096), 1) == 0:
                at = ctypes.string_at(page, 4096).find(needle)
                if at >= 0 and not page <= id(needle) + 32 < page + 4096: found.add(page)
    return len(found) > 0
"""
    assert world.run(whole, ["hello"])[0] is not Outcome.TRUE


def test_the_walls_as_the_kernel_sees_them(world: World) -> None:
    worker = children(os.getpid())[0]
    status = dict(
        line.split(":\t") for line in Path(f"/proc/{worker}/status").read_text().splitlines() if ":\t" in line
    )
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )
    assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
    assert os.getpgid(worker) == os.getsid(worker) == worker
    if os.geteuid() != 0:  # what belongs to a process that is not dumpable belongs to root
        assert Path(f"/proc/{worker}/environ").stat().st_uid == 0


def test_a_flood_of_hostile_functions_does_no_harm(world: World) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(40):
        assert world.run(ATTACKS["abort"][1], ["a"] * 5) == [C] * 5
    assert world.run(HONEST, HONEST_INPUTS) == HONEST_OUTCOMES
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests of this file have just run as an ordinary user")
def test_the_same_as_an_ordinary_user(tmp_path: Path) -> None:
    """All of the above as uid 65534, in a mount namespace where that user can reach the interpreter."""
    if not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs setpriv and unshare")
    script = ["set -e", "cd /"]
    for number, path in enumerate(sorted(hidden_parents())):
        inner = tmp_path / str(number)
        inner.mkdir()
        kept = Path(sys.base_prefix)
        script += [f"mount --bind {kept} {inner}", f"mount -t tmpfs -o mode=755 none {path}"]
        script += [f"mkdir -p {kept}", f"mount --bind {inner} {kept}"]
    script.append(
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "
        f"{sys.executable} -m pytest -q -p no:cacheprovider --basetemp=/tmp/sandbox-as-nobody-{os.getpid()} "
        f"-c {Path(__file__).resolve().parents[1] / 'pyproject.toml'} {Path(__file__).resolve()}"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", "\n".join(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def hidden_parents() -> set[Path]:
    """Folders above the interpreter that only root may enter."""
    return {path for path in Path(sys.base_prefix).parents if not path.stat().st_mode & stat.S_IXOTH}


def test_the_worker_dies_with_its_parent(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
from autoif_blocks.sandbox import Sandbox, SandboxConfig
async def main():
    async with Sandbox(SandboxConfig(workers=1, call_timeout=60, function_timeout=60)) as sandbox:
        task = asyncio.create_task(sandbox.execute("while True: pass", ["a"]))
        await asyncio.sleep(0.3)
        print("up", flush=True)
        await task
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        worker = children(process.pid)[0]
        child = children(worker)[0]
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in (worker, child)):
        assert time.monotonic() < deadline, "worker or child survived"
        time.sleep(0.02)
