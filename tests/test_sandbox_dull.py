"""Which functions may share a process: those of which nothing could remain. And that nothing does."""

from __future__ import annotations

import ast
import asyncio
import importlib
import types
from typing import Any

import pytest
from test_sandbox_attacks import ATTACKS
from test_sandbox_corpus import FUNCTIONS, inputs, run_plainly

from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig, dull
from autoif_blocks.sandbox.policy import LIGHT

# Each would let one function change what the next one finds, read what it should not, or run after its end.
DOORS = {
    "attribute set": "import re\nre.search = None",
    "attribute set in a loop": "import re\nfor re.search in [None]: pass",
    "attribute set by unpacking": "def f(x):\n (x.a, b) = 1, 2",
    "attribute set in place": "def f(x): x.a += 1",
    "attribute annotated": "def f(x): x.a: int = 1",
    "attribute deleted": "import string\ndel string.digits",
    "class": "class A: pass",
    "class by hand": "A = type('A', (), {'__del__': print})",
    "class by hand, another name": "t = type\nA = t('A', (), {})",
    "class by hand in a comparison": "A = type('A', (), {}) == 1",
    "class by hand with a star": "x = type(*['A', (), {}]) == 1",
    "type as a value": "x = list(map(type, ['A'], [()], [{}]))",
    "underscore": "def f(x): return x.__class__",
    "underscore behind a call": "x = [].append.__self__",
    "underscore of a function": "def f(): pass\nx = f.__globals__",
    "frame of a generator": "g = (i for i in [1])\nf = g.gi_frame",
    "a function called like an attribute": "def gi_frame(): pass\nf = (i for i in [1]).gi_frame",
    "traceback": "try:\n 1/0\nexcept Exception as e:\n t = e.__traceback__",
    "traceback with": "def f(e): e.with_traceback(None)",
    "builtins by name": "__builtins__['len'] = None",
    "builtins defined": "def __builtins__(): pass",
    "builtins as an argument": "def f(__builtins__): pass",
    "builtins imported": "import builtins\nbuiltins.len = None",
    "import function": "__import__('re')",
    "getattr": "getattr(str, '__class__')",
    "setattr": "import re\nsetattr(re, 'search', None)",
    "setattr in a default": "def f(g=setattr): pass",
    "setattr as a decorator": "@setattr\ndef f(): pass",
    "setattr in an f-string": "x = f'{setattr}'",
    "setattr in a format": "x = f'{1:{setattr}}'",
    "setattr in a comprehension": "x = [s for s in [setattr]]",
    "setattr in a lambda": "f = lambda: setattr",
    "setattr shadowed elsewhere": "def g():\n setattr = 1\ndef f(): setattr",
    "setattr in another script": "x = ｓetattr",
    "vars": "vars()['x'] = 1",
    "globals": "globals()['x'] = 1",
    "eval": "eval('1')",
    "exec": "exec('1')",
    "compile": "compile('1', '', 'eval')",
    "open": "open('/etc/passwd')",
    "object": "object()",
    "super": "def f(): super()",
    "memoryview": "memoryview(b'')",
    "format walks": "'{0.__class__}'.format(1)",
    "format as a value": "f = str.format",
    "format_map": "'{a.b}'.format_map({})",
    "module as a value": "import re\nx = re",
    "module as an argument": "import re\nprint(re)",
    "module in a list": "import re\nx = [re]",
    "module as a default": "import re\ndef f(m=re): m.template",
    "module under a name": "import re as r\nx = r",
    "module under two names": "import re as m\nimport json as m\nm.loads",
    "module name bound again": "import re\ndef f(re): return re.group",
    "module name bound by a walrus": "import re\n(re := 1)",
    "module name bound by except": "import re\ntry: pass\nexcept ValueError as re: pass",
    "module name bound by import": "import re\nfrom json import loads as re",
    "module behind a module": "import re\nre.enum.sys.modules.clear()",
    "module from a module": "from re import enum",
    "not exported": "import re\nre.purge()",
    "not exported, from": "from collections import abc",
    "not exported, another module": "import json\njson.decoder",
    "everything": "from re import *",
    "relative": "from . import x",
    "package": "import collections.abc",
    "package that flows": "import urllib.parse as p\nx = p",
    "sys": "import sys",
    "os": "import os",
    "ctypes": "import ctypes",
    "gc": "import gc",
    "random keeps state": "import random\nrandom.seed(1)",
    "decimal keeps state": "from decimal import getcontext\ngetcontext().prec = 1",
    "csv keeps state": "import csv\ncsv.field_size_limit(1)",
    "locale": "import locale",
    "warnings": "import warnings",
    "threads": "import threading",
    "contextlib": "import contextlib",
    "names as strings": "import operator\noperator.attrgetter('__class__')",
    "wraps changes its argument": "import functools\nfunctools.update_wrapper",
    "item set by a function": "import operator\noperator.setitem",
    "context manager": "with x: pass",
    "async": "async def f(): pass",
    "await": "async def f(): await x",
    "match on a class": "match 1:\n case int(real=x): pass",
    "generator that catches its end": "def g():\n try:\n  yield 1\n finally:\n  while True: pass",
    "generator beside a try": "def g():\n yield 1\ntry: pass\nexcept: pass",
    "dunder by global": "def f():\n global __name__\n __name__ = 1",
    "exit": "exit()",
    "input": "input()",
    "breakpoint": "breakpoint()",
}

DULL = {
    "comparison of types": "def evaluate(r): return type(r) is str and type(r) == type('')",
    "main": "def evaluate(r): return True\nif __name__ == '__main__':\n    print(evaluate('x'))",
    "future": "from __future__ import annotations\ndef evaluate(r: str) -> bool: return True",
    "nested": "def evaluate(r):\n def f(x):\n  nonlocal r\n  r += x\n f('a')\n return r",
    "module under a name": "import re as regex\ndef evaluate(r): return regex.search('a', r)",
    "module of a package": "import urllib.parse as p\ndef evaluate(r): return p.unquote(r)",
    "import inside": "def evaluate(r):\n import json\n return json.loads(r)",
    "generator": "def g():\n yield 1\ndef evaluate(r): return list(g())",
    "counter": "from collections import Counter\ndef evaluate(r): return Counter(r).most_common(1)[0][1] > 1",
    "chain": "from itertools import chain\ndef evaluate(r): return list(chain.from_iterable(r.split()))",
}


@pytest.mark.parametrize("name", DOORS)
def test_what_could_leave_a_trace_is_not_dull(name: str) -> None:
    code = DOORS[name]
    assert not dull.is_dull(ast.parse(code)), code
    assert not dull.is_dull(ast.parse("def evaluate(response):\n    return True\n" + code))


@pytest.mark.parametrize("name", DULL)
def test_what_cannot_is(name: str) -> None:
    assert dull.is_dull(ast.parse(DULL[name]))


def test_most_of_what_models_write_is_dull() -> None:
    assert sum(dull.is_dull(ast.parse(code)) for code in FUNCTIONS) >= 0.8 * len(FUNCTIONS)


def test_an_import_is_a_look_into_a_dictionary() -> None:
    loaded = set(LIGHT.split()) | {"collections"}  # it comes with `collections.abc`
    assert set(dull.MODULES) <= loaded


def test_nothing_that_can_be_reached_can_be_changed() -> None:
    """Follows every allowed attribute of every exported value: no module, frame, or container of somebody else's."""
    todo: list[tuple[str, Any]] = [
        (f"{module}.{name}", getattr(importlib.import_module(module), name))
        for module, names in dull.MODULES.items()
        for name in names.split()
    ]
    todo += [(name, vars(__import__("builtins"))[name]) for name in dull.BUILTINS]
    todo += [("an instance", value) for value in ("", b"", 0, 0.0, (), (lambda: 0), (n for n in ()), ValueError())]
    seen = set()
    while todo:
        path, value = todo.pop()
        if id(value) in seen or path.count(".") > 4:
            continue
        seen.add(id(value))
        assert not isinstance(value, types.ModuleType | types.FrameType | types.CodeType), path
        assert not isinstance(value, dict | list | set | bytearray), path
        todo += [(f"{path}.{name}", getattr(value, name)) for name in dull.ATTRIBUTES if hasattr(value, name)]


def outcomes(jobs: list[tuple[str, list[str]]], **config: Any) -> list[list[Outcome]]:
    """All at once through one worker, so that they share children where they may."""

    async def main() -> list[list[Outcome]]:
        async with Sandbox(SandboxConfig(workers=1, **config)) as sandbox:
            return await asyncio.gather(*(sandbox.execute(code, texts) for code, texts in jobs))

    return asyncio.run(main())


TROUBLE = {
    "a loop": ("def evaluate(r):\n while r == 'x': pass\n return True", Outcome.TIMEOUT),
    "a loop while loading": ("while True: pass", Outcome.LOAD_ERROR),
    "a loop in a pattern": (
        "import re\ndef evaluate(r): return r != 'x' or re.match('(a+)+$', 'a' * 40 + 'b')",
        Outcome.TIMEOUT,
    ),
    "memory": ("def evaluate(r): return r != 'x' or len('a' * 10 ** 10)", Outcome.MEMORY),
    "an exit": ("def evaluate(r):\n if r == 'x': raise SystemExit\n return True", Outcome.EXIT),
    "recursion": ("def f(): f()\ndef evaluate(r): return r != 'x' or f()", Outcome.EXCEPTION),
    "no function": ("evaluate = 3", Outcome.LOAD_ERROR),
    "no syntax": ("def", Outcome.LOAD_ERROR),
    "too deep to parse": ("(" * 5000, Outcome.LOAD_ERROR),
    "NUL": ("\0", Outcome.LOAD_ERROR),
    "a crash": (
        "import ctypes\ndef evaluate(r):\n if r == 'x': ctypes.string_at(0)\n return True",
        Outcome.CRASH,
    ),
    "an exit of the process": ("import os\ndef evaluate(r):\n if r == 'x': os._exit(0)\n return True", Outcome.EXIT),
    "its mark rubbed out": (
        "import os\nos._exit = print\ndef evaluate(r):\n if r == 'x': raise ValueError\n return True",
        Outcome.EXCEPTION,
    ),
}


@pytest.mark.parametrize("name", TROUBLE)
@pytest.mark.parametrize("place", [0, 3, 7])
def test_who_shares_a_child_with_trouble_gets_its_own_answer(name: str, place: int) -> None:
    code, outcome = TROUBLE[name]
    texts = ["a", "x", "b"]
    jobs = [(FUNCTIONS[index], texts) for index in range(12)]
    jobs.insert(place, (code, texts))
    got = outcomes(jobs, call_timeout=0.3, memory_mb=128)
    after = Outcome.LOAD_ERROR if outcome == Outcome.LOAD_ERROR else Outcome.TRUE
    assert got.pop(place) == [after, outcome, after]
    assert got == [run_plainly(code, texts) for code in FUNCTIONS[:12]]


@pytest.mark.heavy
def test_attacks_among_dull_functions_spoil_none() -> None:
    texts = inputs(5)
    attacks = [(code, texts) for name, (_, code, *_) in sorted(ATTACKS.items()) if "stop" not in name][::4]
    jobs = [job for attack in attacks for job in (attack, *((code, texts) for code in FUNCTIONS[:6]))]
    got = outcomes(jobs, call_timeout=0.3, memory_mb=128)
    honest = [outcome for index, outcome in enumerate(got) if index % 7]
    assert honest == [run_plainly(code, texts) for code in FUNCTIONS[:6]] * len(attacks)


def test_a_greedy_function_leaves_its_memory_to_the_next() -> None:
    greedy = "def evaluate(r): return len(['x' * n for n in range(12_000)]) > 0"  # 72 MB
    assert outcomes([(greedy, ["a"])] * 12, memory_mb=128) == [[Outcome.TRUE]] * 12
