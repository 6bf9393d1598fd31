"""Proves of a function that it cannot leave a trace in the process that runs it: hostile until proven dull.

A fresh fork for every function costs several times what a verification function computes. Most functions do not need
one: they split a string, count, and compare. Those that this module proves dull share a child, one after the other;
all others get one of their own. Both stand behind the same walls, so a gap here would cost at most a wrong answer of
another function in the same batch, as persistent workers would; it would open no file and no socket.

The proof is an allow-list over the syntax tree, read from top to bottom by somebody who trusts nothing:

- Nothing can be changed but what the function itself has made. There is no assignment to attributes, no class, no
  `global` of another module, no `setattr`, `exec` or `__dict__`; names and attributes that start with an underscore do
  not exist. What can be reached by the remaining names is immutable, made anew by the call, or the function's own.
- A module is no value: its name stands only in front of a dot, and what stands behind it is in `MODULES`. All of them
  are imported before any function arrives, so that an import is a look into a dictionary.
- Nothing runs later. There are no threads, finalizers (they need a class), context managers or signals, and no
  generator that could catch its own end.

What it does not prove: that the function ends, is frugal, or is right. That is for the watcher.
"""

from __future__ import annotations

import ast
import builtins
import collections
import datetime
import hashlib
import io
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

MODULES = {
    "__future__": "annotations",
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    "collections": "Counter OrderedDict defaultdict deque",
    "collections.abc": "Callable Collection Hashable Iterable Iterator Mapping Sequence Set Sized",
    "csv": "Error QUOTE_ALL QUOTE_MINIMAL QUOTE_NONE QUOTE_NONNUMERIC reader",
    "datetime": "date datetime time timedelta",
    "decimal": "Decimal InvalidOperation",
    "fractions": "Fraction",
    "functools": "cache cmp_to_key lru_cache partial reduce",
    "hashlib": "blake2b md5 sha1 sha224 sha256 sha384 sha512",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "html": "escape unescape",
    "io": "StringIO",
    "itertools": """accumulate chain combinations combinations_with_replacement compress count cycle dropwhile
        filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest""",
    "json": "JSONDecodeError dumps loads",
    "math": """ceil comb copysign cos dist e erf exp fabs factorial floor fmod frexp fsum gcd hypot inf isclose isfinite
        isinf isnan isqrt lcm log log10 log1p log2 modf nan perm pi pow prod sin sqrt tan tau trunc""",
    "operator": "add and_ contains eq floordiv ge gt itemgetter le lt mod mul ne neg not_ or_ sub truediv xor",
    "re": """A ASCII DOTALL I IGNORECASE M MULTILINE Match Pattern S U UNICODE VERBOSE X compile error escape findall
        finditer fullmatch match search split sub subn""",
    "statistics": """StatisticsError fmean geometric_mean harmonic_mean mean median median_high median_low mode
        multimode pstdev pvariance quantiles stdev variance""",
    "string": """ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable punctuation
        whitespace""",
    "textwrap": "dedent fill indent shorten wrap",
    "typing": "Any Callable Dict FrozenSet Iterable Iterator List Mapping Optional Sequence Set Tuple Union",
    "unicodedata": """bidirectional category combining decimal digit east_asian_width is_normalized lookup mirrored name
        normalize numeric""",
    "urllib.parse": "parse_qs parse_qsl quote quote_plus unquote unquote_plus urljoin urlparse urlsplit",
}
_EXPORTS = {name: frozenset(names.split()) for name, names in MODULES.items()}

_ERRORS = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}
_HARMLESS = """abs all any ascii bin bool bytearray bytes callable chr complex dict divmod enumerate filter float format
    frozenset hash hex int isinstance issubclass iter len list map max min next oct ord pow print range repr reversed
    round set slice sorted str sum tuple zip Ellipsis NotImplemented"""
BUILTINS = _ERRORS.union(_HARMLESS.split())
_NO_BUILTIN = set(dir(builtins)) - BUILTINS

# Public names of what values can be. `format` walks along attributes that it finds in a string.
_KINDS = (
    *(str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, range, slice, io.StringIO),
    *(re.Match, re.Pattern, collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, urllib.parse.ParseResult),
    type(hashlib.sha256()),
)
_OF_ERRORS = {"args", "colno", "doc", "end", "lineno", "msg", "pos", "reason", "start"}
ATTRIBUTES = {name for kind in _KINDS for name in dir(kind) if not name.startswith("_")} | _OF_ERRORS
ATTRIBUTES = ATTRIBUTES - {"format", "format_map"} | {"from_iterable"}

_NODES = {
    *(ast.Module, ast.FunctionDef, ast.Lambda, ast.arguments, ast.arg, ast.Return, ast.Global, ast.Nonlocal, ast.Pass),
    *(ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr, ast.Delete, ast.Assert, ast.Raise),
    *(ast.For, ast.While, ast.If, ast.Break, ast.Continue, ast.Try, ast.ExceptHandler, ast.Yield, ast.YieldFrom),
    *(ast.Import, ast.ImportFrom, ast.alias, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Starred),
    *(ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Call, ast.keyword),
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
}
# Whatever the operator: without classes, operands are of built-in kinds.
_SIGNS = (ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop)


def is_dull(tree: ast.Module) -> bool:
    """Whether the code of this syntax tree, and what it defines, can be run here without the next one noticing."""
    modules: dict[str, str] = {}
    """Names that stand for a module, and for which one."""
    bound: set[str] = set()
    """Names that stand for anything else."""
    loaded: set[str] = set()
    dotted: list[tuple[str, str]] = []
    catches = yields = False
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        kind = type(node)
        if kind not in _NODES:
            return False
        catches = catches or kind is ast.Try
        yields = yields or kind is ast.Yield or kind is ast.YieldFrom
        bound.update(_binds(node))
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                loaded.add(node.id)
        elif isinstance(node, ast.Attribute):
            if not isinstance(node.ctx, ast.Load):
                return False
            if isinstance(node.value, ast.Name):
                dotted.append((node.value.id, node.attr))
            elif node.attr not in ATTRIBUTES:
                return False
            else:
                todo.append(node.value)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name
                if alias.name not in _EXPORTS or "." in name or modules.setdefault(name, alias.name) != alias.name:
                    return False
        elif isinstance(node, ast.ImportFrom):
            exports = _EXPORTS.get(node.module or "", frozenset())
            if node.level or not exports.issuperset(alias.name for alias in node.names):
                return False
        elif isinstance(node, ast.Compare):
            todo += map(_type_of, (node.left, *node.comparators))
        else:
            todo += _parts(node)
    for name, attribute in dotted:
        if name not in modules:
            loaded.add(name)
        if attribute not in (_EXPORTS[modules[name]] if name in modules else ATTRIBUTES):
            return False
    names = bound | loaded - {"__name__"}
    return (
        not (yields and catches)
        and names.isdisjoint(_NO_BUILTIN)
        and names.isdisjoint(modules)
        and not any(name.startswith("__") for name in (*names, *modules))
    )


def _binds(node: Any) -> Iterator[str]:
    """Every name that this node gives a meaning to, or declares to have one."""
    if isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Load):
            yield node.id
    elif isinstance(node, ast.FunctionDef | ast.ExceptHandler):
        if node.name:
            yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield from node.names


def _type_of(node: ast.expr) -> ast.AST:
    """`type(x)` on one side of a comparison is as good as x; elsewhere it is a door (`type(name, bases, dict)`)."""
    match node:
        case ast.Call(func=ast.Name(id="type"), args=[one], keywords=[]) if not isinstance(one, ast.Starred):
            return one
    return node


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    for name in node._fields:
        value = getattr(node, name)
        if isinstance(value, list):
            yield from (item for item in value if isinstance(item, ast.AST) and not isinstance(item, _SIGNS))
        elif isinstance(value, ast.AST) and not isinstance(value, _SIGNS):
            yield value
