"""Honest functions, as models write them: the sandbox must answer exactly what plain execution answers.

The benchmark runs the same corpus. Some functions are clumsy, wrong or raise on some inputs: so are real ones.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from typing import Any

from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig

CORPUS = r'''
def evaluate(response):
    return len(response.split()) <= 12
# ---
def evaluate(response):
    words = response.split()
    return 5 <= len(words) <= 50
# ---
import re

def evaluate(response):
    sentences = re.split(r'(?<=[.!?])\s+', response.strip())
    return len([s for s in sentences if s]) == 2
# ---
def evaluate(response: str) -> bool:
    """Every word starts with a capital letter."""
    words = response.split()
    return all(word[0].isupper() for word in words if word[0].isalpha())
# ---
import json

def evaluate(response):
    try:
        data = json.loads(response)
    except json.JSONDecodeError:
        return False
    return isinstance(data, dict) and "answer" in data
# ---
def evaluate(response):
    return response.endswith("?")
# ---
import string

def evaluate(response):
    return not any(ch in string.punctuation for ch in response)
# ---
def evaluate(response):
    return 'e' not in response.lower()
# ---
import re
def evaluate(response):
    bullets = re.findall(r'^\s*[-*•]\s+.+$', response, flags=re.MULTILINE)
    return len(bullets) == 3
# ---
import re
def evaluate(response):
    numbers = [int(n) for n in re.findall(r'\b\d+\b', response)]
    return numbers == sorted(numbers) and len(numbers) > 0
# ---
from collections import Counter

def evaluate(response):
    counts = Counter(response.lower().split())
    return counts.most_common(1)[0][1] <= 3
# ---
def evaluate(response):
    lines = response.strip().split("\n")
    return len(lines) == 4 and all(line.strip() for line in lines)
# ---
def is_palindrome(word):
    word = ''.join(c for c in word.lower() if c.isalnum())
    return len(word) > 2 and word == word[::-1]

def evaluate(response):
    return any(is_palindrome(w) for w in response.split())
# ---
import re

def count_syllables(word):
    word = word.lower()
    groups = re.findall(r'[aeiouy]+', word)
    count = len(groups)
    if word.endswith('e') and count > 1:
        count -= 1
    return max(count, 1)

def evaluate(response):
    lines = [l for l in response.splitlines() if l.strip()]
    if len(lines) != 3:
        return False
    return [sum(count_syllables(w) for w in re.findall(r"[a-zA-Z']+", l)) for l in lines] == [5, 7, 5]
# ---
import unicodedata

def evaluate(response):
    for ch in response:
        if unicodedata.category(ch) == 'So':
            return True
    return False
# ---
def evaluate(response):
    first_letters = [word[0].lower() for word in response.split()]
    return len(set(first_letters)) == 1
# ---
def evaluate(response):
    if not response:
        return False
    return response[0] == response[-1]
# ---
import re
def evaluate(response):
    return bool(re.search(r'\b(19|20)\d{2}\b', response))
# ---
from datetime import datetime

def evaluate(response):
    for token in response.split():
        try:
            datetime.strptime(token.strip('.,'), '%Y-%m-%d')
            return True
        except ValueError:
            continue
    return False
# ---
import html
def evaluate(response):
    return html.unescape(response) == response
# ---
from html.parser import HTMLParser

class TagCounter(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

def evaluate(response):
    parser = TagCounter()
    parser.feed(response)
    return parser.tags == []
# ---
import csv, io
def evaluate(response):
    rows = list(csv.reader(io.StringIO(response)))
    return len(rows) > 1 and len({len(row) for row in rows}) == 1
# ---
import ast
def evaluate(response):
    try:
        tree = ast.parse(response)
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.Expr) for node in ast.walk(tree))
# ---
import difflib
def evaluate(response):
    half = len(response) // 2
    return difflib.SequenceMatcher(None, response[:half], response[half:]).ratio() > 0.4
# ---
import statistics
def evaluate(response):
    lengths = [len(word) for word in response.split()]
    return statistics.mean(lengths) < 5
# ---
import math
def evaluate(response):
    total = sum(ord(c) for c in response)
    return math.gcd(total, 6) == 1
# ---
from itertools import groupby
def evaluate(response):
    return max((len(list(g)) for _, g in groupby(response)), default=0) < 3
# ---
import random
def evaluate(response):
    words = response.split()
    random.shuffle(words)
    return sorted(words) == sorted(response.split())
# ---
def evaluate(response):
    keywords = ["river", "apple", "storm"]
    return any(k in response.lower() for k in keywords)
# ---
FORBIDDEN = {"very", "really", "just", "actually"}

def evaluate(response):
    return FORBIDDEN.isdisjoint(response.lower().split())
# ---
def evaluate(response):
    paragraphs = [p for p in response.split("\n\n") if p.strip()]
    for i, p in enumerate(paragraphs):
        if not p.strip().startswith(str(i + 1)):
            return False
    return True
# ---
def evaluate(response):
    stack = []
    pairs = {')': '(', ']': '[', '}': '{'}
    for ch in response:
        if ch in '([{':
            stack.append(ch)
        elif ch in pairs:
            if not stack or stack.pop() != pairs[ch]:
                return False
    return not stack
# ---
import re
def evaluate(response):
    match = re.match(r'^(?P<greeting>Hello|Hi|Dear)\s+(?P<name>\w+)', response)
    return match
# ---
def evaluate(response):
    return response.count("!")
# ---
def evaluate(response):
    if response.isupper():
        return True
    elif response.islower():
        return False
# ---
def evaluate(response):
    return int(response) > 0
# ---
def evaluate(response):
    data = {}
    for word in response.split():
        data[word] = data.get(word, 0) + 1
    return max(data.values()) == 1
# ---
from dataclasses import dataclass, field

@dataclass(order=True)
class Line:
    length: int
    text: str = field(compare=False)

def evaluate(response):
    lines = [Line(len(t), t) for t in response.splitlines()]
    return lines == sorted(lines)
# ---
from enum import Enum
class Tone(Enum):
    CALM = 1
    LOUD = 2
def tone(text):
    return Tone.LOUD if "!" in text or text.isupper() else Tone.CALM
def evaluate(response):
    return tone(response) is Tone.CALM
# ---
from functools import lru_cache, reduce
@lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def evaluate(response):
    return len(response) in {fib(n) for n in range(20)}
# ---
def vowels():
    yield from "aeiou"
def evaluate(response):
    return all(v in response.lower() for v in vowels())
# ---
from typing import List, Optional
def longest(words: List[str]) -> Optional[str]:
    return max(words, key=len) if words else None
def evaluate(response: str) -> bool:
    word = longest(response.split())
    return word is not None and len(word) > 10
# ---
import re
def evaluate(response):
    emails = re.findall(r'[\w.+-]+@[\w-]+\.[\w.-]+', response)
    urls = re.findall(r'https?://[^\s]+', response)
    return len(emails) + len(urls) > 0
# ---
import re
def evaluate(response):
    response = re.sub(r'[^\w\s]', '', response)
    words = response.lower().split()
    return all(len(a) <= len(b) for a, b in zip(words, words[1:]))
# ---
import textwrap
def evaluate(response):
    return textwrap.fill(response, 80) == response
# ---
from decimal import Decimal, InvalidOperation
def evaluate(response):
    try:
        return Decimal(response.strip()) > 1
    except InvalidOperation:
        return False
# ---
from fractions import Fraction
def evaluate(response):
    total = sum((Fraction(1, n) for n in range(1, len(response.split()) + 1)), Fraction(0))
    return total > 2
# ---
import heapq
def evaluate(response):
    return heapq.nlargest(2, (len(w) for w in response.split()))[1] > 6
# ---
import bisect
def evaluate(response):
    marks = [10, 40, 120]
    return bisect.bisect(marks, len(response)) == 2
# ---
import hashlib
def evaluate(response):
    return hashlib.sha256(response.encode('utf-8')).hexdigest()[0] in '01234567'
# ---
def evaluate(response):
    try:
        value = eval(response)
    except Exception:
        return False
    return isinstance(value, (list, int))
# ---
def evaluate(response):
    table = str.maketrans('', '', 'aeiouAEIOU')
    return len(response.translate(table)) > len(response) * 0.6
# ---
def evaluate(response):
    print("checking", response[:20])
    return response.strip() != ""
# ---
import string
def evaluate(response):
    alphabet = set(string.ascii_lowercase)
    return len(alphabet - set(response.lower())) < 12
# ---
def evaluate(response):
    words = [w.strip('.,!?;:').lower() for w in response.split()]
    for i in range(len(words) - 1):
        if words[i] == words[i + 1]:
            return False
    return True
# ---
import re
ROMAN = re.compile(r'\b(?=[MDCLXVI])M*(C[MD]|D?C{0,3})(X[CL]|L?X{0,3})(I[XV]|V?I{0,3})\b')
def evaluate(response):
    return ROMAN.search(response) is not None
# ---
def evaluate(response):
    code_blocks = response.split("```")
    if len(code_blocks) < 3:
        return False
    return code_blocks[1].startswith("python")
# ---
def evaluate(response):
    def depth(line):
        return len(line) - len(line.lstrip(" "))
    return max(map(depth, response.splitlines()), default=0) >= 2
# ---
def evaluate(response):
    sentences = [s.strip() for s in response.replace("!", ".").replace("?", ".").split(".") if s.strip()]
    return all(len(s.split()) < 15 for s in sentences) and len(sentences) >= 1
# ---
import re
from collections import defaultdict
def evaluate(response):
    index = defaultdict(list)
    for position, word in enumerate(re.findall(r"[A-Za-z]+", response)):
        index[word.lower()].append(position)
    gaps = [b - a for positions in index.values() for a, b in zip(positions, positions[1:])]
    return not gaps or min(gaps) > 2
# ---
def is_prime(n):
    if n < 2:
        return False
    for d in range(2, int(n ** 0.5) + 1):
        if n % d == 0:
            return False
    return True
def evaluate(response):
    return is_prime(len(response))
# ---
def edit_distance(a, b):
    previous = list(range(len(b) + 1))
    for i, ca in enumerate(a, 1):
        current = [i]
        for j, cb in enumerate(b, 1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (ca != cb)))
        previous = current
    return previous[-1]
def evaluate(response):
    words = response.lower().split()[:6]
    return any(edit_distance(a, b) == 1 for a in words for b in words)
# ---
import operator
def evaluate(response):
    order = sorted(enumerate(response.split()), key=operator.itemgetter(1))
    return [i for i, _ in order] == list(range(len(order)))
# ---
def evaluate(response):
    ascii_only = response.encode("ascii", errors="ignore").decode()
    return ascii_only == response
# ---
import re

class Checker:
    def __init__(self, minimum):
        self.minimum = minimum
    def __call__(self, text):
        return sum(1 for _ in re.finditer(r'\b[A-Z][a-z]+\b', text)) >= self.minimum

evaluate = Checker(2)
# ---
evaluate = lambda response: response.startswith(("The", "A ")) and "," in response
# ---
from urllib.parse import urlparse
def evaluate(response):
    links = [urlparse(w) for w in response.split() if "://" in w]
    return bool(links) and all(link.scheme == "https" for link in links)
# ---
def evaluate(response):
    assert "\t" not in response, "tabs"
    return True
# ---
import re
def evaluate(response):
    acronym = ''.join(w[0] for w in re.findall(r'\w+', response)).upper()
    return set(acronym) & set("XYZ")
# ---
def evaluate(response):
    if len(response) > 60:
        raise ValueError("too long")
    return True
'''

FUNCTIONS = [code.strip() + "\n" for code in CORPUS.split("# ---\n")]

_TEXTS = [
    "",
    "Hello Anna, the river is calm today. How are you?",
    "- one\n- two\n- three",
    '{"answer": 42, "why": ["because"]}',
    "The storm came in 1987, and the storm left in 1988.",
    "1. First\n\n2. Second\n\n3. Third",
    "An old silent pond\nA frog jumps into the pond\nSplash silence again",
    "SHOUTING IS NOT A VERY NICE THING",
    "all lower case without any marks",
    "Write to anna@example.org or see https://example.org/page?x=1",
    "a,b,c\nd,e,f\ng,h,i",
    "[1, 2, 3]",
    "```python\nprint('hi')\n```",
    "Crazy Fredrick bought many very exquisite opal jewels.",
    "Level noon racecar, 2024-02-29 XIV.",
    "É uma frase com acentos e um emoji 🙂!",
    "42",
    "one two\n  three four\n    five six\nseven",
    "This &amp; that <b>bold</b> (maybe [not] {at all})",
    "word " * 40,
]


def inputs(count: int) -> list[str]:
    """Short answers as they come from a model: the first twenty by hand, the others mixed from them."""
    chance = random.Random(0)
    texts = list(_TEXTS)
    while len(texts) < count:
        texts.append(" ".join(chance.sample(_TEXTS[1:19], 2)))
    return texts[:count]


def run_plainly(code: str, texts: list[str]) -> list[Outcome]:
    """The unsafe way: what the outcomes have to be."""
    space: dict[str, Any] = {}
    exec(compile(code, "plain", "exec", dont_inherit=True), space)  # noqa: S102
    outcomes = []
    for text in texts:
        try:
            result = space["evaluate"](text)
            names = {True: Outcome.TRUE, False: Outcome.FALSE}
            if isinstance(result, bool):
                outcomes.append(names[result])
            elif result is None:
                outcomes.append(Outcome.NONE)
            else:
                outcomes.append(Outcome.TRUTHY if result else Outcome.FALSY)
        except Exception:
            outcomes.append(Outcome.EXCEPTION)
    return outcomes


def test_honest_functions_get_the_answers_of_plain_execution() -> None:
    texts = inputs(100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of them evaluates its inputs, some of which look like odd literals
        expected = [run_plainly(code, texts) for code in FUNCTIONS]

    async def main() -> list[list[Outcome]]:
        async with Sandbox(SandboxConfig()) as sandbox:
            return await asyncio.gather(*(sandbox.execute(code, texts) for code in FUNCTIONS))

    for code, want, got in zip(FUNCTIONS, expected, asyncio.run(main()), strict=True):
        assert got == want, code


def test_the_corpus_is_worth_its_name() -> None:
    assert len(FUNCTIONS) >= 60
    answers = [outcome for code in FUNCTIONS for outcome in run_plainly(code, inputs(15))]
    assert {Outcome.TRUE, Outcome.FALSE, Outcome.NONE, Outcome.TRUTHY, Outcome.FALSY, Outcome.EXCEPTION} == set(answers)
    assert sum(outcome.verdict is not None for outcome in answers) > len(answers) * 0.7
