"""Broken recipes and what is said about them: each message has the line, what is wrong, and what to do."""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autoif_blocks import Recipe, RecipeError
from autoif_blocks.errors import Problem

ROOT = Path(__file__).parents[1]
READ = "steps:\n  - {name: a, block: read_lines, path: in.txt}\n"  # lines 1 and 2
MODEL = "models: {teacher: {base_url: simulated, model: m}}\n"
LOOP = "".join(
    f"{'abcdefghijkl'[i]}: &{'abcdefghijkl'[i]} [{', '.join(['*' + 'xabcdefghijkl'[i]] * 9)}]\n" for i in range(12)
)

FILES: dict[str, str | bytes] = {
    "in.txt": "- one thing\n- another\n",
    "empty.txt": "",
    "latin.txt": b"good\nna\xefve\n",
    "rows.jsonl": '{"query": "why?"}\n',
    "broken.jsonl": '{"query": "why?"}\n\n{"query": \n',
    "list.jsonl": "[1]\n",
    "noquery.jsonl": '{"query": "why?"}\n{"topic": "x"}\n',
    "good.jinja": "{{ instruction }}\n",
    "bad.jinja": "{{ instruction }\n",
    "latin.jinja": b"na\xefve",
    "t_syntax.py": "x = 1\ndef f(:\n",
    "t_missing.py": "import a_package_that_is_not_there.part\n",
    "t_raises.py": "raise RuntimeError('no luck')\n",
    "t_exits.py": "import sys\nsys.exit(3)\n",
    "json.py": "x = 1\n",
    "colorsys.py": "x = 1\n",
    "my-blocks.py": "x = 1\n",
    "t.blocks.py": "x = 1\n",
    "t_blocks.py": """
import threading
from autoif_blocks import Block, Filter, Generator

class Good(Filter):
    def __init__(self, share: float = 0.5, kind: type = int) -> None:
        super().__init__()
        if share > 1:
            raise ValueError(f"share must be at most 1, got {share}")
    def reject(self, record):
        return None

class NoSuper(Good):
    def __init__(self) -> None:
        self.x = 1

class Lock(Good):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

class OneField(Good):
    reads = "instruction"

class NoReject(Filter):
    pass

class Crashes(Good):
    def __init__(self) -> None:
        self.x = 1 / 0

class Exits(Good):
    def __init__(self) -> None:
        raise SystemExit(7)

class BadCheck(Good):
    def check(self):
        raise OSError("disk on fire")

class BadFields(Good):
    def fields_after(self, before):
        return before["x"]

class Plain:
    pass
""",
}


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """Modules that a recipe's own files brought in must not be there for the next test."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("t_"):
            del sys.modules[name]


def write(folder: Path, text: str | bytes, files: dict[str, str | bytes] = FILES) -> Path:
    for name, content in {**files, "recipe.yaml": text}.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / "recipe.yaml"


def problems(path: Path, *overrides: str) -> list[str]:
    """What is said about a recipe, without its folder."""
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path, overrides)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def check(said: list[str], expected: list[str]) -> None:
    assert len(said) == len(expected), said
    for one, beginning in zip(said, expected, strict=True):
        assert one.startswith(beginning), f"\n{one}\n{beginning}"


# One row: what the recipe holds after "steps:" and its reader on line 2, and how each message begins after the file.
STEPS = {
    # names
    "no name": ("- {block: dedup}", ["3: step 2 needs a 'name': its output file is called so"]),
    "null name": ("- {name: ~, block: dedup}", ["3: step 2 needs a 'name'"]),
    "path as name": ("- {name: ../x, block: dedup}",
        ["3: '../x' cannot name a step and its file: use up to 100 letters,"]),
    "space in name": ("- {name: b c, block: dedup}", ["3: 'b c' cannot name a step"]),
    "unicode name": ("- {name: été, block: dedup}", ["3: 'été' cannot name a step"]),
    "dash first": ("- {name: -rf, block: dedup}", ["3: '-rf' cannot name a step"]),
    "long name": (f"- {{name: {'b' * 101}, block: dedup}}", ["3: 'bbb"]),
    "empty name": ("- {name: '', block: dedup}", ["3: '' cannot name a step"]),
    "reserved name": ("- {name: Run, block: dedup}",
        ["3: 'Run' cannot name a step and its file: use up to 100 letters, digits, _ and -, and none of cache, disca"]),
    "number as name": ("- {name: 2024, block: dedup}", ["3: step 2 needs a name with a letter in it, got 2024"]),
    "digits as name": ("- {name: '7', block: dedup}", ["3: step 2 needs a name with a letter in it, got '7'"]),
    "list as name": ("- {name: [b], block: dedup}", ["3: step 2 needs a name with a letter in it, got a list"]),
    "name twice": ("- {name: A, block: dedup}", ["3: step 'A': the step on line 2 has this name too: rename one"]),
    # the shape of a step
    "step of text": ("- dedup", ["3: step 2 must be a mapping with 'name' and 'block', got 'dedup'"]),
    "no block": ("- {name: b}", ["3: step 'b': a step needs a 'block' (or a list of 'blocks'): `autoif blocks` lists"]),
    "blok": ("- {name: b, blok: dedup}", ["3: step 'b': a step needs a 'block' (or a list of 'blocks'): is 'blok' me"]),
    "block and blocks": ("- name: b\n    block: dedup\n    blocks:\n      - {block: dedup}",
        ["4: step 'b': 'block' belongs to one of the blocks: move it under 'blocks'"]),
    "options beside blocks": ("- name: b\n    on: [instruction]\n    blocks: [{block: dedup}]",
        ["4: step 'b': 'on' belongs to one of the blocks: move it under 'blocks'"]),
    "no blocks": ("- {name: b, blocks: []}",
        ["3: step 'b': 'blocks' must be a list of at least one block, got an empty"]),
    "blocks of text": ("- {name: b, blocks: dedup}",
        ["3: step 'b': 'blocks' must be a list of at least one block, got 'd"]),
    "a block of text": ("- name: b\n    blocks:\n      - dedup",
        ["5: step 'b': a block must be a mapping with 'block' and"]),
    # blocks
    "unknown block": ("- {name: b, block: dedupe}", ["3: step 'b': there is no block 'dedupe'; did you mean 'dedup'?"]),
    "unlike any block": ("- {name: b, block: xyz}",
        ["3: step 'b': there is no block 'xyz'; known blocks: read_lines, "]),
    "no such file": ("- {name: b, block: 'gone.py:X'}",
        ["3: step 'b': there is no file gone.py: paths are relative to "]),
    "file alone": ("- {name: b, block: t_blocks.py}",
        ["3: step 'b': 't_blocks.py' names a file; name a class in it too: t_blocks.py:MyBlock"]),
    "no such class": ("- {name: b, block: 't_blocks.py:Godo'}",
        ["3: step 'b': t_blocks has no 'Godo'; did you mean 'Good'?"]),
    "no such class at all": ("- {name: b, block: 't_blocks.py:X'}",
        ["3: step 'b': t_blocks has no 'X'; known blocks: Good, NoSuper, Lock, OneField, NoReject,"]),
    "a plain class": ("- {name: b, block: 't_blocks.py:Plain'}",
        ["3: step 'b': t_blocks.Plain is not a block: derive it from "]),
    "a module for a class": ("- {name: b, block: 't_blocks.py:threading'}",
        ["3: step 'b': t_blocks.threading is not a bl"]),
    "syntax error": ("- {name: b, block: 't_syntax.py:X'}",
        ["3: step 'b': importing t_syntax fails: SyntaxError: invalid syntax (t_syntax.py, line 2)"]),
    "import error": ("- {name: b, block: 't_missing.py:X'}",
        ["3: step 'b': t_missing needs the package 'a_package_that_is_not_there': pip install a_package_that_is_not_"]),
    "raises": ("- {name: b, block: 't_raises.py:X'}", ["3: step 'b': importing t_raises fails: RuntimeError: no luck"]),
    "exits": ("- {name: b, block: 't_exits.py:X'}", ["3: step 'b': importing t_exits fails: SystemExit: 3"]),
    "named like a loaded module": ("- {name: b, block: 'json.py:X'}", ["3: step 'b': the name 'json' is taken by /"]),
    "named like a module": ("- {name: b, block: 'colorsys.py:X'}", ["3: step 'b': the name 'colorsys' is taken by /"]),
    "no module's name": ("- {name: b, block: 'my-blocks.py:X'}",
        ["3: step 'b': 'my-blocks' cannot be a Python module: rename my-blocks.py, with letters, digits and _ only"]),
    "dots in a file": ("- {name: b, block: 't.blocks.py:X'}",
        ["3: step 'b': 't.blocks' cannot be a Python module: rename"]),
    "dots for a file": ("- {name: b, block: t_blocks.Good}",
        ["3: step 'b': there is no module 't_blocks': write t_blocks.py:Good"]),
    "no such package": ("- {name: b, block: nopackage.sub.X}",
        ["3: step 'b': there is no module 'nopackage': install it, "]),
    "no such module": ("- {name: b, block: datatrove.nothing.X}",
        ["3: step 'b': there is no module 'datatrove.nothing': "]),
    "no such class there": ("- {name: b, block: datatrove.pipeline.filters.RegxFilter}",
        ["3: step 'b': datatrove.pipeline.filters has no 'RegxFilter'; did you mean 'RegexFilter'?"]),
    "dots only": ("- {name: b, block: ...}",
        ["3: step 'b': '...' is no path to a class: write my_blocks.py:MyBlock or "]),
    "a function": ("- {name: b, block: os.system}", ["3: step 'b': os.system is not a block: derive it from Filter, "]),
    # what constructors say
    "no super": ("- {name: b, block: 't_blocks.py:NoSuper'}",
        ["3: step 'b': NoSuper: its __init__ must begin with super()"]),
    "a lock": ("- {name: b, block: 't_blocks.py:Lock'}",
        ["3: step 'b': Lock cannot be sent to a worker (cannot pickle '_thread.lock' object): open such things in ru"]),
    "a text for fields": ("- {name: b, block: 't_blocks.py:OneField'}",
        ["3: step 'b': OneField: reads must be a tuple of names, like ('query',), got 'instruction'"]),
    "abstract": ("- {name: b, block: 't_blocks.py:NoReject'}",
        ["3: step 'b': NoReject: TypeError: Can't instantiate abstract class NoReject with"]),
    "crashes": ("- {name: b, block: 't_blocks.py:Crashes'}",
        ["3: step 'b': Crashes: ZeroDivisionError: division by zero"]),
    "init exits": ("- {name: b, block: 't_blocks.py:Exits'}", ["3: step 'b': Exits: SystemExit: 7"]),
    "check crashes": ("- {name: b, block: 't_blocks.py:BadCheck'}",
        ["3: step 'b': BadCheck: its check() fails: OSError: d"]),
    "fields crash": ("- {name: b, block: 't_blocks.py:BadFields'}",
        ["3: step 'b': BadFields: its fields_after() fails: "]),
    "value refused": ("- name: b\n    block: t_blocks.py:Good\n    share: 1.5",
        ["5: step 'b': Good: share must be at most"]),
    "bounds refused": ("- name: b\n    block: keep_length\n    field: instruction\n    max_chars: -1",
        ["6: step 'b': keep_length: min_chars must be from 0 to max_chars, got 0 and -1"]),
    "no threshold": ("- name: b\n    block: keep_where\n    field: instruction\n    value: high",
        ['6: step \'b\': keep_where: a threshold is a comparison like "> 0.5" or ">= 8", got \'high\'']),
    # options
    "unknown option": ("- {name: b, block: dedup, onn: [instruction]}",
        ["3: step 'b': dedup has no option 'onn'; did you mean 'on'?"]),
    "far-off option": ("- {name: b, block: dedup, xyz: 1}",
        ["3: step 'b': dedup has no option 'xyz'; known options: on"]),
    "required option": ("- {name: b, block: drop_label, field: instruction}",
        ["3: step 'b': drop_label needs the option 'label' (str)"]),
    "text for number": ("- {name: b, block: keep_length, field: instruction, min_chars: '8'}",
        ["3: step 'b': min_chars must be a whole number, got '8': write it without quotes"]),
    "bool for number": ("- {name: b, block: keep_length, field: instruction, min_chars: true}",
        ["3: step 'b': min_chars must be a whole number, got true"]),
    "float for number": ("- {name: b, block: keep_length, field: instruction, min_chars: 1.5}",
        ["3: step 'b': min_chars must be a whole number, got 1.5"]),
    "null for number": ("- {name: b, block: keep_length, field: instruction, min_chars: }",
        ["3: step 'b': min_chars must be a whole number, got null: leave the option out to have its default"]),
    "list for text": ("- {name: b, block: drop_label, field: [instruction], label: x}",
        ["3: step 'b': field must be a text, got a list"]),
    "number for text": ("- {name: b, block: drop_label, field: instruction, label: 1}",
        ["3: step 'b': label must be a text, got 1: put it in quotes"]),
    "text for list": ("- {name: b, block: dedup, on: instruction}",
        ["3: step 'b': on must be a list, got 'instruction': write [instruction]"]),
    "item of a list": ("- {name: b, block: dedup, on: [instruction, 2]}",
        ["3: step 'b': item 2 of on must be a text, got 2:"]),
    "none of the choices": ("- {name: b, block: drop_label, field: instruction, label: x, when: most}",
        ["3: step 'b': when must be 'any', 'majority' or 'all', got 'most'"]),
    "bool for several types": ("- {name: b, block: keep_where, field: instruction, value: true}",
        ["3: step 'b': value must be a text or a number, got true: put it in quotes"]),
    "no number": ("- {name: b, block: keep_where, field: instruction, value: .nan}",
        ["3: .nan is no number to count with"]),
    "long number": (f"- {{name: b, block: keep_where, field: instruction, value: 0x{'f' * 9000}}}", ["3: 0xfff"]),
    "unquoted >": ("- name: b\n    block: keep_where\n    field: instruction\n    value: > 8",
        ["6: not YAML: put a value that begins with > or | in quotes"]),
    "unquoted >8": ("- name: b\n    block: keep_where\n    field: instruction\n    value: >8",
        ["6: an empty block of text: put a value that begins with > in quotes"]),
    # files
    "no file": ("- name: b\n    block: join_queries\n    path: gone.jsonl",
        ["5: step 'b': there is no file gone.jsonl: path"]),
    "folder for file": ("- {name: b, block: join_queries, path: .}", ["3: step 'b': there is no file "]),
    "endless path": (f"- {{name: b, block: join_queries, path: {'x' * 5000}}}", ["3: step 'b': cannot read 'xxx"]),
    "NUL in path": ('- {name: b, block: join_queries, path: "x\\0"}',
        ["3: the character '\\x00' cannot stand in a value"]),
    "half a character": ('- {name: b, block: join_queries, path: "\\ud83d"}',
        ["3: the character '\\ud83d' cannot stand"]),
    "broken JSONL": ("- {name: b, block: join_queries, path: broken.jsonl}",
        ["3: step 'b': join_queries: broken.jsonl:3: not JSON"]),
    "JSONL of lists": ("- {name: b, block: join_queries, path: list.jsonl}",
        ["3: step 'b': join_queries: list.jsonl:1: a J"]),
    "no query": ("- {name: b, block: join_queries, path: noquery.jsonl}",
        ["3: step 'b': join_queries: noquery.jsonl:2: no qu"]),
    "empty file": ("- {name: b, block: read_lines, path: empty.txt}", ["3: step 'b': read_lines: empty.txt is empty"]),
    "not UTF-8": ("- {name: b, block: read_lines, path: latin.txt}",
        ["3: step 'b': read_lines: latin.txt:2: not UTF-8"]),
    "missing field": ("- {name: b, block: read_jsonl, path: rows.jsonl, fields: [topic]}",
        ["3: step 'b': read_jsonl: rows.jsonl:1: no 'topic'; the line has query"]),
    "file outside": ("- {name: b, block: write_lines, field: instruction, path: ../x.txt}",
        ["3: step 'b': write_lines: path must be a .txt file inside the output directory"]),
    # datatrove's blocks
    "no text field": ("- {name: b, block: datatrove.pipeline.filters.RegexFilter, regex_exp: x}",
        ["3: step 'b': RegexFilter is a datatrove block: say which field is its text, like `text: response`"]),
    "typo of theirs": ("- {name: b, block: datatrove.pipeline.filters.RegexFilter, text: instruction, regexp: x}",
        ["3: step 'b': RegexFilter has no option 'regexp'; did you mean 'regex_exp'?",
         "3: step 'b': RegexFilter needs the option 'regex_exp' (str)"]),
    "bad pattern": ("- {name: b, block: datatrove.pipeline.filters.RegexFilter, text: instruction, regex_exp: '('}",
        [f"3: step 'b': RegexFilter: {re.error.__name__}: missing )"]),  # its name has changed in Python 3.13
    "extra to install": (
        "- {name: b, block: datatrove.pipeline.filters.FastTextClassifierFilter, text: instruction, model_url: x}",
        ["3: step 'b': FastTextClassifierFilter: Please install `"]),
    "no such field": ("- {name: b, block: datatrove.pipeline.filters.RegexFilter, text: respons, regex_exp: x}",
        ["3: step 'b': RegexFilter reads 'respons', which no earlier step writes; known fields here: instr"]),
    # reads and writes
    "nobody writes": ("- {name: b, block: keep_length, field: instructoin}",
        ["3: step 'b': keep_length reads 'instructoin', which no earlier step writes; did you mean 'instruction'?"]),
    "written later": (
        '- name: b\n    block: keep_length\n    field: query\n  - {name: c, block: join_queries, path: rows.jsonl}',
        ["5: step 'b': keep_length reads 'query', which no earlier step writes; it is written by 'c': move that step"]),
    "not kept": (
        '- {name: b, block: join_queries, path: rows.jsonl, keep: []}\n  - {name: c, block: dedup, on: [instruction]}',
        ["4: step 'c': dedup reads 'instruction', which no earlier step writes; step 'b' does not pass it on"]),
    "own writes": ("- {name: b, block: cross_validate}",
        ["3: step 'b': cross_validate reads 'cases', which no earlier step writes; known fields here: instruction",
         "3: step 'b': cross_validate reads 'functions', which"]),
    "no cascade": (
        '- {name: b, block: join_queries, path: rows.jsonl, keeps: []}\n  - {name: c, block: dedup, on: [query]}',
        ["3: step 'b': join_queries has no option 'keeps'; did you mean 'keep'?"]),
    # models and prompts
    "unknown model": ("- name: b\n    block: respond\n    prompt: hi\n    model: techer",
        ["6: step 'b': there is no model 'techer' under 'models'; did you mean 'teacher'?"]),
    "unknown model and more": ("- name: b\n    block: respond\n    prompt: hi\n    model: judge\n    n: many",
        ["6: step 'b': there is no model 'judge' under 'models'; known models: teacher",
         "7: step 'b': n must be a whole number, got 'many'"]),
    "unclosed template": ("- name: b\n    block: respond\n    prompt: |\n      Hi.\n      {{ instruction }",
        ["5: step 'b': respond: the prompt is no template (its line 2): "]),
    "empty prompt": ("- name: b\n    block: respond\n    prompt: ''",
        ["5: step 'b': respond: a prompt must not be empty"]),
    "field of a prompt": ("- name: b\n    block: respond\n    prompt: Do {{ instructions }}.",
        ["5: step 'b': respond reads 'instructions', which no earlier step writes; did you mean 'instr"]),
    "unquoted template": ("- name: b\n    block: respond\n    prompt: {{ instruction }}",
        ["5: a key must be a word; a value that begins with { or [ needs quotes"]),
    "no template file": ("- name: b\n    block: respond\n    prompt: gone.jinja",
        ["5: step 'b': there is no file gone.jinja"]),
    "bad template file": ("- name: b\n    block: respond\n    prompt: bad.jinja",
        ["5: step 'b': respond: the prompt is no te"]),
    "latin template file": ("- name: b\n    block: respond\n    prompt: latin.jinja",
        ["5: step 'b': cannot read 'latin.jinja"]),
}  # fmt: skip


@pytest.mark.parametrize(("step", "expected"), STEPS.values(), ids=STEPS)
def test_a_broken_step_is_explained(step: str, expected: list[str], tmp_path: Path) -> None:
    check(problems(write(tmp_path, f"{READ}  {step}\n{MODEL}")), [f"recipe.yaml:{line}" for line in expected])


# One row: a whole file, and how each message begins.
WHOLE: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", [":1: a recipe is a mapping with at least 'steps': it is empty"]),
    "comment": ('# nothing\n', [":1: a recipe is a mapping with at least 'steps': it is empty"]),
    "list": ('- a\n', [":1: a recipe is a mapping with at least 'steps': this is a list"]),
    "word": ('steps\n', [":1: a recipe is a mapping with at least 'steps': this is a single value"]),
    "two documents": (f"{READ}---\n{READ}", [":3: not YAML: a recipe is one document: delete the '---'"]),
    "no steps": ('name: x\n', [":1: a recipe needs 'steps', a list of at least one step, got null"]),
    "empty steps": ("name: x\nsteps: []\n",
        [":2: a recipe needs 'steps', a list of at least one step, got an empty list"]),
    "steps of a mapping": ("steps: {a: b}\n",
        [":1: a recipe needs 'steps', a list of at least one step, got a mapping"]),
    "no reader": ("steps:\n  - {name: a, block: dedup}\n",
        [":2: step 'a': dedup cannot come first, there are no records yet: begin with a reader: read_lines, read_jso"]),
    "unknown key": (f"{READ}modles: {{}}\n", [":3: a recipe has no 'modles'; did you mean 'models'?"]),
    "number as key": (f"{READ}1: x\n", [":3: a recipe has no '1'; known keys: name, seed, text,"]),
    "key twice": (f"{READ}seed: 1\nseed: 2\n", [":4: 'seed' stands here and on line 3: delete one"]),
    "option twice": ("steps:\n  - name: a\n    block: read_lines\n    path: in.txt\n    path: in.txt\n",
        [":5: 'path' stands here and on line 4: delete one"]),
    "tab": ('steps:\n\t- name: a\n', [":2: not YAML: a tab cannot indent: use spaces"]),
    "open quote": ("name: 'abc\nsteps:\n  - name: a\n", [":1: not YAML: a quote that is never closed"]),
    "quote in quotes": ("name: 'it's'\n", [":1: not YAML: this does not continue the line above"]),
    "indentation": ("steps:\n  - name: a\n   block: dedup\n",
        [":3: not YAML: this does not continue the line above: mend the indentation"]),
    "outdented": (f"  name: x\n{READ}", [":2: not YAML: "]),
    "colon in a value": (f"name: a: b\n{READ}", [":1: not YAML: a ': ' where none can be: quote the value"]),
    "key without colon": (f"name: x\nseed\n{READ}", [":2: not YAML: a key without its ':'"]),
    "open bracket": ('name: x\nsteps: [a, b\nseed: 1\n', [":2: not YAML: between brackets: one is not closed, a com"]),
    "at sign": ('name: @x\n', [":1: not YAML: put a value that begins with this character in quotes"]),
    "backslash": ('name: "a\\d"\n', [":1: not YAML: in double quotes a \\ begins an escape: write \\\\"]),
    "no such character": ('name: "\\UFFFFFFFF"\n', [":1: an escape of a character that does not exist"]),
    "unknown anchor": ('name: *x\n', [":1: not YAML: no anchor '&' of that name stands above; quote a value that beg"]),
    "list as key": ('[a]: b\n', [":1: a key must be a word"]),
    "merge of a word": (f"{READ}models:\n  a: {{<<: x}}\n", [":4: '<<' takes in a mapping, like `<<: *anchor`"]),
    "python call": ("steps: !!python/object/apply:os._exit [9]\n",
        [":1: a recipe has no tags like '!!python/object/apply:os._e"]),
    "python name": ("steps: !!python/name:os.system ''\n",
        [":1: a recipe has no tags like '!!python/name:os.system': delete it"]),
    "python object": ("steps:\n  - !!python/object:os.X {a: 1}\n",
        [":2: a recipe has no tags like '!!python/object:os.X'"]),
    "include": ('steps: !include x.yaml\n', [":1: a recipe has no tags like '!include'"]),
    "recursive alias": ('steps: &a\n  - *a\n', [":1: an alias that contains itself or explodes"]),
    "alias bomb": (f"x: &x [1]\n{LOOP}", [":1: an alias that contains itself or explodes"]),
    "deep": ("steps: " + "[" * 10_000 + "]" * 10_000, [":1: nested too deeply"]),
    "deep blocks": ("".join(f"{' ' * depth}a:\n" for depth in range(1000)), [":50: nested too deeply"]),
    "many values": ("steps:\n" + "- a\n" * 30_000,
        [":20000: more values than a recipe can need: put data into a file"]),
    "5 MB": ("steps: |\n" + " aaaaaaaaa\n" * 500_000,
        [": a recipe has at most 1,000,000 bytes: put long prompts and data into"]),
    "NUL": (f"{READ}name: a\0b\n", [":3: the character '\\x00' cannot stand in a recipe: delete it"]),
    "escape": (f"{READ}name: a\x1bb\n", [":3: the character '\\x1b' cannot stand in a recipe"]),
    "latin": (READ.encode() + b"name: caf\xe9\n",
        [":3: not UTF-8 (invalid continuation byte): save the file as UTF-8"]),
    "UTF-16": (READ.encode("utf-16"), [":1: not UTF-8 (invalid start byte)"]),
    "unset variable": (f"{READ}seed: ${{T_UNSET}}\n",
        [":3: the environment variable T_UNSET is not set: export it, or write ${T_UNSET:-default}"]),
    "bad variable": (f"{READ}output_dir: ${{T_UNSET-x}}\n",
        [":3: '${T_UNSET-x}' names no variable: write ${NAME} or ${NAME:-default}; $${ stands for a plain ${"]),
    "number as recipe": (f"{READ}name: 2024\n", [":3: name must be a word, got 2024: put it in quotes"]),
    "bool as seed": (f"{READ}seed: true\n", [":3: seed must be a whole number, got true"]),
    "empty path": (f"{READ}output_dir: ''\n", [":3: output_dir must be a path, got ''"]),
    "no interval": (f"{READ}flush_interval: 0\n", [":3: flush_interval must be above 0, got 0"]),
    "models of a list": (f"{READ}models: [{{name: t, api_key: SECRET}}]\n",
        [":3: models must be a mapping of names to values"]),
    "model of text": (f"{READ}models: {{t: SECRET}}\n",
        [":3: model 't' must be a mapping of options: base_url, model, serve"]),
    "model without url": (f"{READ}models: {{t: {{model: m}}}}\n",
        [":3: model 't': base_url must name a server, like http://HOST:8000/v1 (or 'simulated'); or serve: vllm"]),
    "model without name": (f"{READ}models: {{t: {{base_url: simulated}}}}\n",
        [":3: model 't': model must be the name that the servers know it by"]),
    "typo in a model": (f"{READ}models:\n  t:\n    base_url: simulated\n    model: m\n    max_concurency: 3\n",
        [":7: model 't' has no option 'max_concurency'; did you mean 'max_concurrency'?"]),
    "bad url": (f"{READ}models:\n  t: {{model: m,\n    base_url: localhost}}\n",
        [":5: model 't': base_url "]),
    "key in a recipe": (f"{READ}models:\n  t: {{base_url: simulated, model: m,\n   api_key: SECRET}}\n",
        [":5: model 't': api_key must name an environment variable, like ${OPENAI_API_KEY}"]),
    "list of keys": (f"{READ}models: {{t: {{base_url: simulated, model: m, api_key: [SECRET]}}}}\n",
        [":3: model 't': api_key must name an environment variable, like ${OPENAI_API_KEY}"]),
    "price of text": (f"{READ}models: {{t: {{base_url: simulated, model: m, price: {{input: a}}}}}}\n",
        [":3: model 't': 'input' of price must be a number, got 'a'"]),
    "typo in sandbox": (f"{READ}sandbox: {{memry_mb: 9}}\n",
        [":3: sandbox has no option 'memry_mb'; did you mean 'memory_mb'?"]),
    "refused in sandbox": (f"{READ}sandbox:\n  workers: 2\n  memory_mb: 1\n",
        [":5: sandbox: memory_mb must be in [16, "]),
    "type in sandbox": (f"{READ}sandbox: {{preload: light}}\n",
        [":3: sandbox: preload must be a list, got 'light': write [lig"]),
    "sandbox of a list": (f"{READ}sandbox: []\n", [":3: sandbox must be a mapping of names to values, got a list"]),
    "unknown executor": (f"{READ}executor: {{type: cloud}}\n",
        [":3: executor: type must be 'local', 'ray' or 'slurm'"]),
    "no tasks": (f"{READ}executor:\n  tasks: 0\n", [":4: executor: tasks and workers must be at least 1"]),
    "no shards": (f"{READ}shards: 0\n", [":3: shards must be a number of files, at least 1, got 0"]),
    "an option of another executor": (f"{READ}executor:\n  type: ray\n  partition: p\n",
        [":5: executor: partition is an option of type slurm, not of ray"]),
    "slurm without its own": (f"{READ}executor: {{type: slurm, tasks: 2}}\n",
        [':3: executor: type slurm needs a partition and a time, like "20:00:00"']),
    "a time of digits": (f"{READ}executor: {{type: slurm, partition: p, time: 90}}\n",
        [":3: executor: time must be a text, got 90: put it in quotes"]),
    "all at once, by line": (
        'sede: 1\nsteps:\n  - {name: a, block: read_line}\n  - {name: a, block: dedup, off: 1}\n  - 5\nmodels: {t: }\n',
        [":1: a recipe has no 'sede'; did you mean 'seed'?",
         ":3: step 'a': there is no block 'read_line'; did you mean 'read_l",
         ":4: step 'a': dedup has no option 'off'",
         ":4: step 'a': the step on line 3 has this name too",
         ":5: step 3 must be a mapping",
         ":6: model 't' must be a mapping of options"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WHOLE.values(), ids=WHOLE)
def test_a_broken_file_is_explained(text: str | bytes, expected: list[str], tmp_path: Path) -> None:
    began = time.monotonic()
    said = problems(write(tmp_path, text))
    check(said, [f"recipe.yaml{beginning}" for beginning in expected])
    assert "SECRET" not in "".join(said)
    assert time.monotonic() - began < 15  # where the machine is busy; what it is kept from takes minutes


def test_two_block_files_of_one_name_are_refused_in_one_recipe_and_fine_in_two(tmp_path: Path) -> None:
    blocks = FILES["t_blocks.py"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f"{READ}  - {{name: b, block: 't_blocks.py:Good'}}\n", {**FILES, "t_blocks.py": blocks})
        assert Recipe.load(tmp_path / name / "recipe.yaml").steps[1].blocks[0].cls.__module__ == "t_blocks"
    steps = "".join(f"  - {{name: {name}, block: '{name}/t_blocks.py:Good'}}\n" for name in ("one", "two"))
    check(problems(write(tmp_path, READ + steps, {"in.txt": "x"})), [
        "recipe.yaml:4: step 'two': the name 't_blocks' is taken by one/t_blocks.py: rename two/t_blocks.py",
    ])  # fmt: skip


def test_what_is_no_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert problems(tmp_path / "gone.yaml") == ["gone.yaml: cannot read the recipe: No such file or directory"]
    assert problems(tmp_path / "folder.yaml") == ["folder.yaml: this is a directory; name the recipe's .yaml file"]
    assert problems(tmp_path / "a\0b") == ["a\0b: cannot read the recipe: embedded null byte"]
    if os.path.exists("/dev/zero"):  # noqa: PTH110
        assert "at most 1,000,000 bytes" in problems(Path("/dev/zero"))[0]


def value_in(folder: Path, text: str) -> object:
    """What a value becomes, written as an option's."""
    step = f"  - name: on\n    block: respond\n    prompt: x\n    extra:\n     v: {text}\n"
    recipe = Recipe.load(write(folder, f"{READ}{step}{MODEL}"))
    assert recipe.steps[1].name == "on"
    return recipe.steps[1].blocks[0].options["extra"]["v"]


# What a step's option becomes: YAML 1.2, so that a word stays a word.
VALUES = [
    ("no", "no"), ("on", "on"), ("yes", "yes"), ("2024-01-01", "2024-01-01"), ("12:30", "12:30"), ("'8'", "8"),
    ("!!str 8", "8"), ("a # b", "a"), ("'a # b'", "a # b"), ('"a\\tb"', "a\tb"), ("|-\n      a\n      b", "a\nb"),
    ("=", "="),
    ("010", 10), ("0x10", 16), ("0o10", 8), ("1_000", 1000), ("1e3", 1000.0), (".5", 0.5), ("-1", -1), ("1.", 1.0),
    ("true", True), ("False", False), ("~", None), ("", None), ("[1, b]", [1, "b"]), ("{a: no}", {"a": "no"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values_are_what_they_look_like(text: str, value: object, tmp_path: Path) -> None:
    found = value_in(tmp_path, text)
    assert (found, type(found)) == (value, type(value))


def test_windows_files_anchors_and_merges_are_read(tmp_path: Path) -> None:
    text = (
        "models:\n  a: &a {base_url: simulated, model: m, timeout: 5}\n  b: &b {<<: *a, model: n}\n  c: *b\n"
        "  d: {<<: [*b, {max_n: 2, timeout: 9}], model: o}\n" + READ
    )
    models = Recipe.load(write(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())).models
    assert [(m.model, m.timeout, m.max_n) for m in models.values()] == [
        ("m", 5, None), ("n", 5, None), ("n", 5, None), ("o", 5, 2),
    ]  # fmt: skip
    wrong = text.replace("model: o", "modle: o").replace("\n", "\r\n")
    assert problems(write(tmp_path, wrong))[0].startswith("recipe.yaml:5: model 'd' has no option 'modle'")


def test_an_api_key_is_a_reference_and_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T_KEY", "sk-real")
    text = f"{READ}models: {{t: {{base_url: simulated, model: m, api_key: '${{T_KEY}}'}}}}\n"
    recipe = Recipe.load(write(tmp_path, text))
    assert recipe.models["t"].api_key == "${T_KEY}"
    assert "sk-real" not in repr(recipe)


INTERPOLATED = [
    ("${T_N}", 8), ("'${T_N}'", "8"), ('"a${T_N}b"', "a8b"), ("${T_NONE:-3}", 3), ("${T_EMPTY:-3}", 3),
    ("${T_EMPTY}", None),
    ("${T_NONE:-}", None), ("${T_NONE:-no}", "no"), ("${T_NONE:-true}", True), ("${T_NONE:-2024-99-99}", "2024-99-99"),
    ("${T_YAML}", "{a: [1"), ("x${T_NONE:-a b}y", "xa by"), ("$${T_N}", "${T_N}"), ("$T_N", "$T_N"),
    ("'${{ x }}'", "${{ x }}"),
    ("|-\n      ${T_N}", "${T_N}"), ("['${T_N}', '$${T_N}']", ["8", "${T_N}"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), INTERPOLATED)
def test_environment_variables_are_put_in(
    text: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("T_N", "8"), ("T_EMPTY", ""), ("T_YAML", "{a: [1")):
        monkeypatch.setenv(name, content)
    assert value_in(tmp_path, text) == value


SETTABLE = """\
models:
  teacher: &one {base_url: simulated, model: m}
  judge: *one
  m2.5: *one
sandbox:
steps:
  - name: a
    blocks:
      - {block: read_lines, path: in.txt}
      - {block: dedup}
      - {block: dedup, name: again}
  - name: b
    block: respond
    prompt: hi
    stop: [x, y]
"""

GOOD_SETS: list[tuple[str, str, object]] = [
    ("seed=3", "seed", 3), ("name='3'", "name", "3"), ("output_dir=/tmp/a=b", "output_dir", "/tmp/a=b"),
    ("steps.b.n=4", "steps.1.n", 4), ("steps.2.n=4", "steps.1.n", 4), ("steps.respond.n=4", "steps.1.n", 4),
    ("steps.b.name=c", "steps.1.name", "c"), ("steps.b.stop=[a, b]", "steps.1.stop", ["a", "b"]),
    ("steps.b.stop.2=z", "steps.1.stop", ["x", "z"]), ("steps.b.stop=null", "steps.1.stop", None),
    ("steps.b.extra.top_k=5", "steps.1.extra.top_k", 5), ("steps.b.extra={top_k: 5}", "steps.1.extra", {"top_k": 5}),
    ("steps.a.read_lines.field=x", "steps.0.blocks.0.field", "x"), ("steps.a.1.field=x", "steps.0.blocks.0.field", "x"),
    ("steps.a.again.on=[instruction]", "steps.0.blocks.2.on", ["instruction"]),
    ("steps.a.blocks.2.on=[instruction]", "steps.0.blocks.1.on", ["instruction"]),
    ("steps.b.prompt=Rate this: {{ instruction }}", "steps.1.prompt", "Rate this: {{ instruction }}"),
    ("steps.b.prompt={{ instruction }}", "steps.1.prompt", "{{ instruction }}"),
    ("steps.b.prompt=>8", "steps.1.prompt", ">8"),
    ("steps.b.prompt=> 8", "steps.1.prompt", "> 8"), ("steps.b.prompt=*.txt", "steps.1.prompt", "*.txt"),
    ("steps.b.prompt=no", "steps.1.prompt", "no"), ("steps.b.prompt=say 'x'", "steps.1.prompt", "say 'x'"),
    ("steps.b.prompt='a: b'", "steps.1.prompt", "a: b"), ("steps.b.n=${T_NONE:-3}", "steps.1.n", 3),
    ("models.judge.model=z", "models.judge.model", "z"),
    ("models.judge.price.input=1", "models.judge.price", {"input": 1}),
    ("models.judge.api_key=${T_KEY}", "models.judge.api_key", "${T_KEY}"),
    ("sandbox.workers=2", "sandbox", {"workers": 2}),
    ("models.m2.5.price.input=1", "models.m2/5.price", {"input": 1}), ("executor.tasks=2", "executor", {"tasks": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("override", "where", "value"), GOOD_SETS)
def test_set_overrides_one_value(override: str, where: str, value: object, tmp_path: Path) -> None:
    found: object = Recipe.load(write(tmp_path, SETTABLE), [override]).data
    for key in (part.replace("/", ".") for part in where.split(".")):
        found = found[int(key)] if isinstance(found, list) else found[key]  # type: ignore[index]
    assert (found, type(found)) == (value, type(value))


def test_set_reaches_only_what_it_names(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, SETTABLE), ["models.judge.model=z", "steps.b.n=2", "steps.b.n=3"])
    assert (recipe.models["teacher"].model, recipe.models["judge"].model) == ("m", "z")
    assert recipe.steps[1].blocks[0].options["n"] == 3


BAD_SETS = [
    ("steps.b.nn=1", ":12: step 'b': respond has no option 'nn'; did you mean 'n'? (set by --set steps.b.nn)"),
    ("steps.b.n=8x", ":12: step 'b': n must be a whole number, got '8x' (set by --set steps.b.n)"),
    ("steps.b.n='8'", ":12: step 'b': n must be a whole number, got '8': write it without quotes (set by --set"),
    ("steps.b.n=0", ":12: step 'b': respond: n must be at least 1, got 0 (set by --set steps.b.n)"),
    ("steps.b.n.x=1", ":12: step 'b': n must be a whole number, got a mapping (set by --set steps.b.n.x)"),
    ("steps.b.prompt=", ":14: step 'b': prompt must be a text, got null (set by --set steps.b.prompt)"),
    ("steps.b.prompt=gone.jinja", ":14: step 'b': there is no file gone.jinja: paths are relative to the recip"),
    ("steps.b.prompt={{ x }}", ":14: step 'b': respond reads 'x', which no earlier step writes; known fields here: "
     "instruction (set by --set steps.b.prompt)"),
    ("steps.b.block=respnd", ":13: step 'b': there is no block 'respnd'; did you mean 'respond'? (set by --set step"),
    ("steps.b.name=A", ":12: step 'A': the step on line 7 has this name too: rename one (set by --set steps.b.name)"),
    ("steps.x.n=1", ": --set steps.x.n: there is no 'x'; there are a, b"),
    ("steps.3.n=1", ": --set steps.3.n: there is no '3'; there are a, b"),
    ("steps.².n=1", ": --set steps.².n: there is no '²'; there are a, b"),
    ("steps.a.dedup.on=[x]", ": --set steps.a.dedup.on: there are 2 'dedup': say which by its number, 2, 3"),
    ("steps.a.respond.n=1", ": --set steps.a.respond.n: there is no 'respond'; there are read_lines, dedup, again"),
    ("steps.a.n=1", ": --set steps.a.n: this step has several blocks, name one of them before 'n': read_lines, dedup"),
    ("steps.b.stop.3=z", ": --set steps.b.stop.3: there is no '3'; there are 1, 2"),
    ("steps.b.prompt.x=1", ": --set steps.b.prompt.x: 'steps.b.prompt' is a single value and has no 'x'"),
    ("steps.b=1", ": --set steps.b: name a step and an option of it: steps.<step>.<option>=value"),
    ("steps=[]", ": --set steps: name a step and an option of it"),
    ("modles.t.model=x", ": a recipe has no 'modles'; did you mean 'models'? (set by --set modles.t.model)"),
    ("models.t.model=x", ": model 't': base_url must name a server, like http://HOST:8000/v1"),
    ("models.judge.api_key=SECRET", ": model 'judge': api_key must name an environment variable, like ${OPENAI_API"),
    ("steps.b.api_key.x.y=SECRET", ":12: step 'b': respond has no option 'api_key'"),
    ("sandbox.memry=1", ": sandbox has no option 'memry'; did you mean 'memory_mb'? (set by --set sandbox.memry)"),
    ("executor.type=SECRET", ": executor: type must be 'local'"),
    ("steps.b.n", ": --set steps.b.n: write it as path.to.option=value"),
    ("=SECRET", ": --set (nothing): write it as path.to.option=value"),
    ("steps..n=SECRET", ": --set steps..n: write it as path.to.option=value"),
    ("steps.b.prompt=${T_UNSET}", ": --set steps.b.prompt: the environment variable T_UNSET is not set: export it"),
    ("steps.b.prompt=a\0b", ": --set steps.b.prompt: the value is no UTF-8 text"),
    ("steps.b.prompt=!!python/name:os.system x", ": --set steps.b.prompt: a recipe has no tags like '!!python/name"),
    ("steps.b.extra=&a [*a]", ": --set steps.b.extra: an alias that contains itself"),
    ("steps.b.extra={a: 1, a: 2}", ": --set steps.b.extra: 'a' stands here and on line 1: delete one"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "expected"), BAD_SETS)
def test_a_wrong_set_says_that_it_was_the_set(override: str, expected: str, tmp_path: Path) -> None:
    said = problems(write(tmp_path, SETTABLE), override)
    check(said, [f"recipe.yaml{expected}"])
    assert said[0].startswith("recipe.yaml: --set") or said[0].endswith(f"(set by --set {override.partition('=')[0]})")
    assert override.startswith("executor") or "SECRET" not in said[0]


# Whatever a file holds, it is a recipe or its problems are told.

TEXT = (ROOT / "autoif.yaml").read_text(encoding="utf-8")
LINES = TEXT.splitlines()
FRAGMENTS = st.sampled_from([
    "", "-", "- ", ":", "?", "{", "}", "[", "]", "{{", "}}", "{%", "*", "&a", "*a", "<<: *a", "!!int", "!x", "|", ">",
    "'", '"', "#", "\t", "\\", "${", "${X}", "${X:-", "~", "null", "yes", "1e999", "0x", "2024-13-45", "::", "\0", "\r",
    "\u2028", "%YAML", "---", "...", "name:", "block: ", "block: ..", "block: x.py:Y", "path: /", "steps:", "n: -1",
    "a: [", "@", "`",
])  # fmt: skip
QUICK = settings(max_examples=120, deadline=3000, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    said: list[Problem] = []
    try:
        Recipe.load(path)
    except RecipeError as error:
        said = error.problems or [Problem("", -1, "", "")]
    assert all(problem.message and problem.line >= 0 for problem in said)


@pytest.fixture(scope="module")
def beside_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    return folder / "recipe.yaml"


@QUICK
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200), st.lists(FRAGMENTS, max_size=30).map(" \n ".join)))
@example(b"\xff\xfe")
@example("- \ud800")
@example("a: 2024-99-99")
@example("? |\n a\n: b")
def test_any_bytes_are_a_recipe_or_refused(beside_samples: Path, content: str | bytes) -> None:
    load_or_refuse(beside_samples, content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, len(LINES) - 1), FRAGMENTS), min_size=1, max_size=4),
    st.integers(),
)
def test_a_mutated_recipe_is_a_recipe_or_refused(
    beside_samples: Path, changes: list[tuple[int, int, str]], seed: int
) -> None:
    lines = list(LINES)
    draw = random.Random(seed)
    for kind, at, fragment in changes:
        line = lines[at]
        key, colon, value = line.partition(":")
        column = draw.randrange(len(line) + 1)
        lines[at] = {
            0: "",
            1: f"{line}\n{line}",
            2: draw.choice(LINES),
            3: f"{key}{colon} {fragment}",
            4: f"{line[:column]}{fragment}{line[column:]}",
            5: " " * draw.randrange(8) + line.lstrip() + value,
        }[kind]
    load_or_refuse(beside_samples, "\n".join(lines).encode("utf-8", "surrogatepass"))
