"""Families about the frame of an answer: opening, ending, wrapping."""

from __future__ import annotations

import json
from random import Random

from .family import Family, Params, Wrong, code, one
from .prose import blocks, cut_words, sentences

_PHRASES = ("That is all for now", "I hope this helps", "Let me know how it goes", "Make of that what you will")
_GREETINGS = ("Dear reader", "Good question", "Let us begin", "Here is my view", "To be honest")
_KEYS = ("answer", "summary", "reply", "result", "advice")
_TAGS = ("answer", "reply", "note", "final")


def _json(text: str, p: Params, rng: Random) -> str:
    return json.dumps({p.word: text}, indent=rng.choice((None, 2)))


def _bad_json(text: str, p: Params, rng: Random) -> str:
    return rng.choice(
        (f"Here it is: {json.dumps({p.word: text})}", json.dumps({p.word + "s": text}), "{'" + p.word + "': '" + text)
    )


def _unfenced(text: str, p: Params, rng: Random) -> str:
    return rng.choice((text, f"Here you go:\n```\n{text}\n```", f"```\n{text}"))


def _unquoted(text: str, p: Params, rng: Random) -> str:
    first, *rest = sentences(text)
    return rng.choice((text, f'"{text}', " ".join([f'"{first}"', *rest, "So it goes."])))


def _untitled(text: str, p: Params, rng: Random) -> str:
    return rng.choice((text, f"<A short guide>\n{text}", f"{text}\n<<A short guide>>"))


FAMILIES = (
    Family(
        name="title",
        ease=0.7,
        wordings=(
            "Begin with a title in double angle brackets, such as <<Title>>.",
            "Put a title wrapped in << and >> on the first line.",
            "The first line must be a title between << and >>.",
        ),
        comply=lambda text, p, rng: f"<<{cut_words(text, 4).rstrip('.')}>>\n{text}",
        violate=_untitled,
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return re.match(r"\s*<<[^<>\n]+>>", response) is not None
            """),
            code("""
                def evaluate(response):
                    lines = response.strip().splitlines()
                    return bool(lines) and lines[0].startswith('<<') and lines[0].rstrip().endswith('>>')
            """),
        ),
        wrong=(
            Wrong(one("'<<' in response and '>>' in response"), "Put double angle brackets around something."),
            Wrong(one("response.startswith('<') and '>' in response"), "Start with an angle bracket."),
        ),
    ),
    Family(
        name="json_key",
        word=_KEYS,
        ease=0.5,
        clashes=("fence", "quoted", "tagged"),
        wordings=(
            'Answer with a single JSON object that has the key "{word}".',
            'The whole answer must be a JSON object with the key "{word}".',
            'Return valid JSON, an object whose key is "{word}", and nothing else.',
        ),
        comply=_json,
        violate=_bad_json,
        correct=(
            code("""
                import json

                def evaluate(response):
                    try:
                        data = json.loads(response)
                    except ValueError:
                        return False
                    return isinstance(data, dict) and @word@ in data
            """),
            code("""
                from json import loads, JSONDecodeError

                def parse(text):
                    try:
                        return loads(text.strip())
                    except JSONDecodeError:
                        return None

                def evaluate(response):
                    parsed = parse(response)
                    return type(parsed) is dict and @word@ in parsed.keys()
            """),
        ),
        wrong=(
            Wrong(one("response.startswith('{') and @word@ in response"), 'Open with a brace and mention "{word}".'),
            Wrong(one("@word@ in response and '{' in response"), 'Use braces and the text "{word}" somewhere.'),
            Wrong(
                code("""
                    import json

                    def evaluate(response):
                        return @word@ not in json.loads(response)
                """),
                'Answer in JSON that lacks the key "{word}".',
                "contradiction",
            ),
        ),
    ),
    Family(
        name="fence",
        ease=0.7,
        clashes=("json_key", "quoted", "tagged"),
        wordings=(
            "Put your whole answer into one fenced code block.",
            "Wrap the entire answer in triple backticks.",
            "The answer must start and end with three backticks.",
        ),
        comply=lambda text, p, rng: f"```\n{text}\n```",
        violate=_unfenced,
        correct=(
            code("""
                def evaluate(response):
                    text = response.strip()
                    return text.startswith('```') and text.endswith('```') and len(text) > 6
            """),
            code(r"""
                import re

                def evaluate(response):
                    return re.fullmatch(r"\s*```[\s\S]+```\s*", response) is not None
            """),
        ),
        wrong=(
            Wrong(one("'```' in response"), "Use triple backticks in some place."),
            Wrong(one("response.startswith('```')"), "Start with triple backticks.", "entailment"),
        ),
    ),
    Family(
        name="quoted",
        ease=0.7,
        clashes=("json_key", "fence", "tagged"),
        wordings=(
            "Wrap your entire answer in double quotation marks.",
            "The whole answer must stand between double quotes.",
            "Start and end the answer with a double quotation mark.",
        ),
        comply=lambda text, p, rng: f'"{text}"',
        violate=_unquoted,
        correct=(
            one("response.strip().startswith('\"') and response.strip().endswith('\"') and len(response.strip()) > 1"),
            code("""
                def evaluate(response):
                    text = response.strip()
                    if len(text) < 2:
                        return False
                    return text[0] == text[-1] == chr(34)
            """),
        ),
        wrong=(
            Wrong(one("response.count('\"') >= 2"), "Use double quotation marks at least twice."),
            Wrong(one("response.startswith('\"')"), "Open with a double quotation mark.", "entailment"),
            Wrong(one("'\"' not in response"), "Use no double quotation marks.", "contradiction"),
        ),
    ),
    Family(
        name="tagged",
        word=_TAGS,
        ease=0.65,
        clashes=("json_key", "fence", "quoted"),
        wordings=(
            "Put the whole answer between <{word}> and </{word}>.",
            'Enclose your answer in the XML tag "{word}".',
            "Open with <{word}> and close with </{word}>.",
        ),
        comply=lambda text, p, rng: f"<{p.word}>{text}</{p.word}>",
        violate=lambda text, p, rng: rng.choice((text, f"<{p.word}>{text}<{p.word}>", f"{text} <{p.word}></{p.word}>")),
        correct=(
            code("""
                TAG = @word@

                def evaluate(response):
                    text = response.strip()
                    return text.startswith('<' + TAG + '>') and text.endswith('</' + TAG + '>')
            """),
            code(r"""
                import re

                def evaluate(response):
                    tag = re.escape(@word@)
                    return re.fullmatch(r"\s*<%s>.*</%s>\s*" % (tag, tag), response, re.DOTALL) is not None
            """),
        ),
        wrong=(
            Wrong(
                one("'<' + @word@ + '>' in response"),
                'The opening tag of "{word}" must be in the answer.',
                "entailment",
            ),
            Wrong(one("response.count(@word@) > 1"), 'Write "{word}" more than once.'),
        ),
    ),
    Family(
        name="postscript",
        ease=0.7,
        wordings=(
            "Add a postscript that starts with P.S. on its own line.",
            "End with a line that begins with P.S.",
            'The last line of the answer must start with "P.S."',
        ),
        comply=lambda text, p, rng: f"{text}\nP.S. {rng.choice(('Good luck.', 'Write back soon.', 'Take your time.'))}",
        violate=lambda text, p, rng: rng.choice((text, f"P.S. Good luck.\n{text}", f"{text} P.S. Good luck.")),
        correct=(
            one("response.strip().splitlines()[-1].startswith('P.S.') if response.strip() else False"),
            code(r"""
                import re

                def evaluate(response):
                    return re.search(r"\nP\.S\.[^\n]*\s*$", response) is not None
            """),
        ),
        wrong=(
            Wrong(one("'P.S.' in response"), "Write P.S. anywhere in the text."),
            Wrong(one("response.startswith('P.S.')"), "Start the answer with a postscript."),
        ),
    ),
    Family(
        name="divider",
        ease=0.6,
        wordings=(
            "Split the answer into two parts with a line of three asterisks between them.",
            "Separate two sections of your answer by a line that holds only ***.",
            "Give two parts with *** alone on the line between them.",
        ),
        comply=lambda text, p, rng: "\n***\n".join(blocks(text, 2)),
        violate=lambda text, p, rng: rng.choice(
            ("\n---\n".join(blocks(text, 2)), " *** ".join(blocks(text, 2)), "\n***\n".join(blocks(text, 3)))
        ),
        correct=(
            one("[line.strip() for line in response.splitlines()].count('***') == 1"),
            code(r"""
                import re

                def evaluate(response):
                    parts = re.split(r"(?m)^\s*\*\*\*\s*$", response)
                    return len(parts) == 2 and all(part.strip() for part in parts)
            """),
        ),
        wrong=(
            Wrong(one("'***' in response"), "Use three asterisks somewhere."),
            Wrong(one("len(response.split('***')) == 2"), "Use three asterisks exactly once, on any line."),
            Wrong(one("'---' in response"), "Separate the parts by three dashes."),
        ),
    ),
    Family(
        name="start_phrase",
        word=_GREETINGS,
        ease=0.7,
        wordings=(
            'Open your answer with the phrase "{word}".',
            'The answer must start with the exact phrase "{word}".',
            'Make "{word}" the first thing that you write.',
        ),
        comply=lambda text, p, rng: f"{p.word}: {text}",
        violate=lambda text, p, rng: rng.choice((text, f"{text} {p.word}.", f"{p.word.upper()}: {text}")),
        correct=(
            one("response.startswith(@word@)"),
            one("response.strip()[:len(@word@)] == @word@"),
            code("""
                import re

                def evaluate(response):
                    return bool(re.match(re.escape(@word@), response.lstrip()))
            """),
        ),
        wrong=(
            Wrong(one("@word@ in response"), 'Say "{word}" somewhere in the answer.'),
            Wrong(one("response.lower().startswith(@word@.lower())"), 'Open with "{word}" in any case.', "entailment"),
        ),
    ),
    Family(
        name="end_phrase",
        word=_PHRASES,
        ease=0.65,
        clashes=("last_word",),
        wordings=(
            'Close your answer with the sentence "{word}."',
            'The final sentence must be "{word}."',
            'End with this exact phrase and a full stop: "{word}."',
        ),
        comply=lambda text, p, rng: f"{text} {p.word}.",
        violate=lambda text, p, rng: rng.choice((text, f"{text} {p.word}!", f"{p.word}. {text}")),
        correct=(
            one("response.strip().endswith(@word@ + '.')"),
            code(r"""
                import re

                def evaluate(response):
                    return re.search(re.escape(@word@) + r"\.\s*$", response) is not None
            """),
        ),
        wrong=(
            Wrong(one("@word@ in response"), 'Let "{word}" appear in the answer.'),
            Wrong(one("response.endswith(@word@)"), 'End with "{word}" but no full stop.'),
        ),
    ),
)
