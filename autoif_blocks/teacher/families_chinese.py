"""Families in Chinese. Their wrong functions are mistakes of that language: words parted by blanks, ASCII marks."""

from __future__ import annotations

from random import Random

from .chinese import cut, put, sentences, stretch
from .family import Builder, Family, Params, Wrong, code, one

_NOUNS = ("月亮", "竹林", "灯塔", "石桥", "琥珀", "蜻蜓")
_OPENERS = ("首先", "其实", "总之", "朋友")


def _length(*shifts: int) -> Builder:
    return lambda text, p, rng: cut(text, p.n + rng.choice(shifts))


def _with_word(text: str, p: Params, rng: Random) -> str:
    return put(text.replace(p.word, ""), p.word, rng)


def _lines(form: str, between: str, *shifts: int) -> Builder:
    """n plus one of the shifts sentences, each in the form."""

    def build(text: str, p: Params, rng: Random) -> str:
        return between.join(form.format(line) for line in stretch(text, p.n + rng.choice(shifts)))

    return build


def _with_comma(text: str, p: Params, rng: Random) -> str:
    return put(text, "，", rng)


def _question(text: str, p: Params, rng: Random) -> str:
    return text.rstrip("。") + rng.choice(("。你觉得呢？", "。这样可以吗？", "对吗？"))


def _started(text: str, p: Params, rng: Random) -> str:
    return p.word + rng.choice(("", "，")) + text


FAMILIES = (
    Family(
        name="zh_max_chars",
        language="zh",
        n=(40, 60, 80, 100),
        clashes=("zh_min_chars",),
        wordings=("全文不超过{n}个字。", "请把回答控制在{n}个字以内。", "字数最多为{n}。"),
        comply=_length(0, 0, -1, -9),
        violate=_length(1, 1, 2, 15),
        correct=(
            one("len(''.join(response.split())) <= @n@"),
            one("sum(1 for ch in response if not ch.isspace()) <= @n@"),
            code("""
                def evaluate(response):
                    text = response.replace(' ', '').replace('\\n', '')
                    return len(text) <= @n@
            """),
        ),
        wrong=(
            Wrong(one("len(response.split()) <= @n@"), "空格隔开的词最多{n}个。"),
            Wrong(one("len(response) < @n@"), "写得比{n}个字少。"),
            Wrong(one("len(response) > @n@"), "写得比{n}个字多。", "contradiction"),
        ),
    ),
    Family(
        name="zh_min_chars",
        language="zh",
        n=(30, 50, 70),
        ease=0.75,
        clashes=("zh_max_chars",),
        wordings=("至少写{n}个字。", "回答不得少于{n}个字。", "字数要达到{n}或更多。"),
        comply=_length(0, 0, 1, 12),
        violate=_length(-1, -1, -2, -10),
        correct=(
            one("len(''.join(response.split())) >= @n@"),
            one("sum(not ch.isspace() for ch in response) >= @n@"),
        ),
        wrong=(
            Wrong(one("len(response.split()) >= @n@"), "空格隔开的词至少{n}个。"),
            Wrong(one("len(response.encode('utf-8')) >= @n@"), "文本至少占{n}个字节。"),
            Wrong(one("len(response) < @n@"), "要写得比{n}个字短。", "contradiction"),
        ),
    ),
    Family(
        name="zh_no_commas",
        language="zh",
        ease=0.8,
        wordings=("不要使用逗号。", "回答中不得出现逗号。", "全文禁用逗号。"),
        comply=lambda text, p, rng: text.replace("，", ""),
        violate=_with_comma,
        correct=(
            one("'，' not in response and ',' not in response"),
            one("not any(mark in response for mark in '，,')"),
            code("""
                import re

                def evaluate(response):
                    return re.search('[，,]', response) is None
            """),
        ),
        wrong=(
            Wrong(one("',' not in response"), "不要使用半角逗号。"),
            Wrong(one("'，' in response"), "至少使用一个全角逗号。", "contradiction"),
        ),
    ),
    Family(
        name="zh_end_question",
        language="zh",
        ease=0.7,
        wordings=("以问号结尾。", "最后用一个问句收尾。", "回答的最后一个字符必须是问号。"),
        comply=_question,
        violate=lambda text, p, rng: rng.choice((text, "是这样吗？" + text)),
        correct=(
            one("response.strip().endswith(('？', '?'))"),
            one("response.rstrip()[-1:] in ('？', '?') and bool(response.strip())"),
        ),
        wrong=(
            Wrong(one("response.strip().endswith('?')"), "以半角问号结尾。"),
            Wrong(one("'？' in response"), "文中要有一个问句。"),
        ),
    ),
    Family(
        name="zh_include_word",
        language="zh",
        word=_NOUNS,
        ease=0.8,
        clashes=("zh_avoid_word",),
        wordings=("回答中必须出现“{word}”一词。", "请用到“{word}”这个词。", "文中要提到“{word}”。"),
        comply=_with_word,
        violate=lambda text, p, rng: text.replace(p.word, ""),
        correct=(one("@word@ in response"), one("response.count(@word@) >= 1"), one("response.find(@word@) != -1")),
        wrong=(
            Wrong(one("@word@ in response.split()"), "“{word}”的前后要有空格。"),
            Wrong(one("response.startswith(@word@)"), "全文的前两个字是“{word}”。"),
            Wrong(one("@word@ not in response"), "文中不能有“{word}”。", "contradiction"),
        ),
    ),
    Family(
        name="zh_avoid_word",
        language="zh",
        word=_NOUNS,
        ease=0.8,
        clashes=("zh_include_word",),
        wordings=("不要使用“{word}”这个词。", "回答中不得出现“{word}”一词。"),
        comply=lambda text, p, rng: text.replace(p.word, ""),
        violate=_with_word,
        correct=(one("@word@ not in response"), one("response.count(@word@) == 0")),
        wrong=(
            Wrong(one("@word@ not in response.split()"), "“{word}”不能单独成词。"),
            Wrong(one("not response.startswith(@word@)"), "不能一上来就写“{word}”。", "entailment"),
        ),
    ),
    Family(
        name="zh_sentences",
        language="zh",
        n=(2, 3, 4, 5),
        ease=0.65,
        wordings=("正好写{n}句话，每句以句号结尾。", "回答由{n}个以句号结尾的句子组成。"),
        comply=_lines("{}", "", 0),
        violate=_lines("{}", "", -1, 1, 2),
        correct=(
            one("response.count('。') == @n@"),
            one("len([s for s in response.split('。') if s.strip()]) == @n@"),
        ),
        wrong=(
            Wrong(one("response.count('.') == @n@"), "正好用{n}个英文句点。"),
            Wrong(one("response.count('。') >= @n@"), "写{n}句话或更多，每句以句号结尾。"),
        ),
    ),
    Family(
        name="zh_bullets",
        language="zh",
        n=(3, 4, 5),
        ease=0.7,
        wordings=("用正好{n}个以“- ”开头的要点作答。", "列出{n}个要点，每个要点占一行并以“- ”开头。"),
        comply=_lines("- {}", "\n", 0),
        violate=_lines("- {}", "\n", -1, 1),
        correct=(
            one("sum(line.strip().startswith('- ') for line in response.splitlines()) == @n@"),
            one("len([line for line in response.split('\\n') if line.lstrip()[:2] == '- ']) == @n@"),
        ),
        wrong=(
            Wrong(one("response.count('-') >= @n@"), "至少用{n}个连字符。"),
            Wrong(one("len(response.splitlines()) > @n@"), "行数要超过{n}。"),
        ),
    ),
    Family(
        name="zh_first_word",
        language="zh",
        word=_OPENERS,
        ease=0.75,
        wordings=("以“{word}”开头。", "回答的第一个词必须是“{word}”。"),
        comply=_started,
        violate=lambda text, p, rng: rng.choice((text, put(text, p.word, rng))),
        correct=(one("response.strip().startswith(@word@)"), one("response.lstrip()[:len(@word@)] == @word@")),
        wrong=(
            Wrong(one("response.split()[0] == @word@"), "“{word}”独自在最前面，后面跟一个空格。"),
            Wrong(one("@word@ in response[:20]"), "“{word}”出现在前二十个字里。", "entailment"),
        ),
    ),
    Family(
        name="zh_no_digits",
        language="zh",
        ease=0.75,
        wordings=("不要使用阿拉伯数字。", "回答中不得出现数字0到9。"),
        comply=lambda text, p, rng: text,
        violate=lambda text, p, rng: put(text, rng.choice(("3", "12", "2024", "7")), rng),
        correct=(
            one("not any(ch in '0123456789' for ch in response)"),
            code(r"""
                import re

                def evaluate(response):
                    return not re.search(r"[0-9]", response)
            """),
        ),
        wrong=(
            Wrong(one("not response.isdigit()"), "回答不能只有数字。", "entailment"),
            Wrong(one("not any(ch in '一二三四五' for ch in response)"), "不要用一到五的汉字数字。"),
        ),
    ),
    Family(
        name="zh_paragraphs",
        language="zh",
        n=(2, 3),
        ease=0.7,
        wordings=("分成{n}段，段与段之间空一行。", "回答应有{n}个用空行隔开的段落。"),
        comply=_lines("{}", "\n\n", 0),
        violate=lambda text, p, rng: rng.choice(("", "\n\n")).join(sentences(text)[:1] * (p.n + 1)),
        correct=(
            one("len([part for part in response.split('\\n\\n') if part.strip()]) == @n@"),
            code(r"""
                import re

                def evaluate(response):
                    return len([p for p in re.split(r"\n\s*\n", response.strip()) if p.strip()]) == @n@
            """),
        ),
        wrong=(
            Wrong(one("response.count('\\n') == @n@"), "正好换行{n}次。"),
            Wrong(one("len(response.split('\\n\\n')) >= @n@"), "至少有{n}段，中间空行。"),
        ),
    ),
)
