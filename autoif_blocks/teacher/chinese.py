"""Plain Chinese prose: sentences without commas, digits or marks other than the full stop, like those of `prose.py`."""

from __future__ import annotations

import re
from itertools import cycle, islice
from random import Random

_SENTENCES = (
    "{a}看起来很难其实开个好头就容易了。",
    "谈到{a}的时候最好先想一想{b}。",
    "多数人只要坚持就能在{a}上有进步。",
    "先从小事做起再慢慢增加难度。",
    "{a}的关键在于耐心和习惯。",
    "每天花一点时间就会看到变化。",
    "可以把遇到的问题记下来以后再看。",
    "{a}和{b}的关系比想象中更紧密。",
    "不要着急把基础打好最重要。",
    "如果觉得太难可以把它分成几个部分。",
    "请教有经验的人也是一个好办法。",
    "合适的工具能让整件事轻松不少。",
    "做完之后回头看看哪里还能改进。",
    "刚开始做不好是很正常的。",
    "关于{a}有很多说法但是道理差不多。",
)
_TOPICS = (
    "面包",
    "跑步",
    "花草",
    "旅行",
    "睡眠",
    "音乐",
    "预算",
    "天气",
    "做饭",
    "学习",
    "手机",
    "孩子",
    "时间",
    "工作",
)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def is_chinese(text: str) -> bool:
    """Whether there are Chinese characters in it."""
    return _CHINESE.search(text) is not None


def topics_in(text: str) -> tuple[str, ...]:
    """What a text is about, of the few things that the prose knows."""
    return tuple(topic for topic in _TOPICS if topic in text) or ("这件事",)


def draw_topics(rng: Random) -> tuple[str, ...]:
    return tuple(rng.sample(_TOPICS, 2))


def write(topics: tuple[str, ...], rng: Random, count: int) -> str:
    """`count` sentences about the topics."""
    lines = rng.sample(_SENTENCES, min(count, len(_SENTENCES)))
    return "".join(line.format(a=rng.choice(topics), b="时间" if len(topics) == 1 else topics[-1]) for line in lines)


def sentences(text: str) -> list[str]:
    return re.findall(r"[^。]*。|[^。]+$", text)


def stretch(text: str, count: int) -> list[str]:
    """Exactly `count` sentences: the text's own, then others that need no topic."""
    own = sentences(text)
    spare = [line for line in _SENTENCES if "{" not in line and line not in own]
    return list(islice(cycle([*own, *spare]), count))


def cut(text: str, count: int) -> str:
    """Exactly `count` characters, the last one a full stop."""
    return "".join(stretch(text, 2 + count // 8))[: count - 1].rstrip("。").ljust(count - 1, "好") + "。"


def put(text: str, word: str, rng: Random) -> str:
    """The text with the word in one of its sentences, neither at their beginning nor at their end."""
    lines = sentences(text)
    at = rng.randrange(len(lines))
    where = rng.randrange(1, max(2, len(lines[at]) - 1))
    lines[at] = lines[at][:where] + word + lines[at][where:]
    return "".join(lines)
