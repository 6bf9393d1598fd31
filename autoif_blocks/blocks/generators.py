"""Generators: what a model writes. Instructions, verification functions, back-translations, responses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from datatrove.data import Document

from ..errors import DropRecord, StopRun
from ..languages import count_characters
from ..parsing import defines, find_lines, find_object, repair_code, strip_reasoning, to_bool, unwrap
from ..records import SEEDS, Record, seeded_random
from ..streaming import stream
from .functions import functions_of
from .kinds import Generator


class SelfInstruct(Generator):
    """Writes more instructions like those that come (paper section 3.1): seeds are kept, new ones are added once.

    Every one of the `n` completions is asked for with its own draw of seeds and its own sampling seed. The completions
    are read in the order of their number, so which of two equal instructions survives does not depend on arrival.
    A new instruction names, in `seeds`, the ids of those that were drawn for its prompt; none where all were shown.

    Args:
        n: completions; each brings as many instructions as the prompt asks for.
        demonstrations: seeds that the prompt shows, as the list `demonstrations`; null shows all.
        field: the field that holds the instruction.
        min_chars, max_chars: bounds on the length of a new instruction, in characters as a reader sees them.
    """

    whole_set = True
    grows = "n"
    supplies = ("demonstrations",)

    def __init__(
        self,
        prompt: str,
        n: int = 10,
        demonstrations: int | None = None,
        field: str = "instruction",
        min_chars: int = 10,
        max_chars: int = 400,
        **options: Any,
    ) -> None:
        super().__init__(prompt, n=n, **options)
        if demonstrations is not None and demonstrations < 1:
            raise ValueError(f"demonstrations must be at least 1, or null for all seeds, got {demonstrations}")
        if self.reask:
            raise ValueError(f"reask: {self.reask} has nothing to ask again, each completion being its own: raise n")
        self.demonstrations = demonstrations
        self.field = field
        self.min_chars = min_chars
        self.max_chars = max_chars
        self.reads = sorted({*self.reads, field})
        self.writes = (field,)

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return frozenset(self.writes)  # new instructions have nothing else, whatever the seeds had

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        seeds: dict[str, Record] = {}
        for record in map(Record, data or ()):
            self.meter.taken += 1
            key = normal_form(record[self.field])
            if key in seeds:
                self.drop(record, "duplicate", f"of {seeds[key].id}")
                continue
            seeds[key] = record
            self.meter.given += 1
            yield record.document
        if not seeds and not self.live.stopping:
            raise StopRun(f"step '{self.step}': no seed instruction came, so there is nothing to learn from")
        self._shown = sorted((str(seed[self.field]), seed.id) for seed in seeds.values())
        known = {key: seed.id for key, seed in seeds.items()}
        for number, lines in stream(range(self.n), self._sample, self.live, self.width(), ordered=True):
            if isinstance(lines, Exception):
                self.discard(Record.new("sample", number), *self._reason(lines))
                continue
            drawn = [] if self.demonstrations is None else [seed_id for _, seed_id in self._demonstrations(number)]
            for text in lines:
                yield from self._admit(text, drawn, known)

    def _demonstrations(self, number: int) -> list[tuple[str, str]]:
        if self.demonstrations is None:
            return self._shown
        draw = seeded_random("demonstrations", self.live.settings.seed, number)
        return draw.sample(self._shown, min(self.demonstrations, len(self._shown)))

    async def _sample(self, number: int) -> list[str] | Exception:
        shown = [text for text, _ in self._demonstrations(number)]
        try:
            (completion,) = await self.ask(Record.new(), start=number, n=1, demonstrations=shown)
        except Exception as error:
            return error
        return find_lines(completion) or DropRecord("no_instructions", completion[:500])

    def _admit(self, text: str, drawn: list[str], known: dict[str, str]) -> Iterator[Document]:
        record = Record.new(self.field, text, **{self.field: text, SEEDS: drawn})
        self.meter.created += 1
        key = normal_form(text)
        if key in known:
            self.drop(record, "duplicate", f"of {known[key]}")
        elif not self.min_chars <= (length := count_characters(text)) <= self.max_chars:
            self.drop(record, "too_short" if length < self.min_chars else "too_long", f"{length} characters")
        else:
            known[key] = record.id
            self.meter.given += 1
            yield record.document


def normal_form(text: str) -> str:
    """What two spellings of one instruction share: no case, no punctuation at the end, single spaces."""
    return re.sub(r"\s+", " ", text).strip().rstrip(".!;:,。！；：，").casefold()


class WriteVerifiers(Generator):
    """Has functions `evaluate(response)` and test cases written for an instruction (paper section 3.1).

    A completion is a JSON object with `func`, the code, and `cases`, a list of {input, output}. Each piece stands for
    itself: an answer with a good function and bad cases keeps the function, and one bad case loses one case. Outputs
    that arrive as "true", "True" or "yes" are read as booleans.
    """

    writes = ("functions", "cases")

    def parse(self, completions: list[str], record: Record) -> Iterable[Record]:
        functions: dict[str, None] = {}  # dictionaries, to keep the order and each only once
        cases: dict[tuple[str, bool], None] = {}
        for completion in completions:
            answer = find_object(completion, "func") or find_object(completion, "cases")
            if answer is None:
                self.discard(record, "not_json", completion[:500])
                continue
            code = self._code(answer.get("func"), record)
            if code is not None:
                functions[code] = None
            listed = answer.get("cases")
            for case in listed if isinstance(listed, list) else []:
                if (pair := self._case(case, record)) is not None:
                    cases[pair] = None
        if not functions:
            raise DropRecord("no_function", f"{len(completions)} completions, none with a usable function")
        rows = [{"input": text, "output": verdict} for text, verdict in cases]
        return [record.with_(functions=list(functions), cases=rows)]

    def _code(self, func: object, record: Record) -> str | None:
        code = repair_code(func) if isinstance(func, str) else None
        if code is None:
            self.discard(record, "does_not_compile", str(func)[:500])
        elif not defines(code, "evaluate"):
            self.discard(record, "no_evaluate", code[:500])
        else:
            return code
        return None

    def _case(self, case: object, record: Record) -> tuple[str, bool] | None:
        text, verdict = (case.get("input"), case.get("output")) if isinstance(case, dict) else (None, None)
        if not isinstance(text, str):
            self.discard(record, "case_without_text", str(case)[:500])
        elif (output := to_bool(verdict)) is None:
            self.discard(record, "case_output_not_boolean", str(verdict)[:500])
        else:
            return text, output
        return None


class BackTranslate(Generator):
    """Has functions put into words again (paper section 3.1): what a function really checks shows in the words.

    Args:
        max_functions: how many of the record's functions are translated, the most accurate first.
    """

    reads = ("functions",)
    writes = ("back_translations",)
    supplies = ("function",)
    needs = ("function",)
    on_length = "discard"

    def __init__(self, prompt: str, max_functions: int = 3, **options: Any) -> None:
        super().__init__(prompt, **options)
        if max_functions < 1:
            raise ValueError(f"max_functions must be at least 1, got {max_functions}")
        self.max_functions = max_functions

    async def attempt(self, record: Record, start: int) -> Iterable[Record]:
        functions = functions_of(record)[: self.max_functions]
        if not functions:
            raise DropRecord("no_function", "the record has no function to put into words")
        answers = await self.each(record, (self.ask(record, start=start, function=each) for each in functions))
        return self.parse([text for completions in answers for text in completions], record)

    def parse(self, completions: list[str], record: Record) -> Iterable[Record]:
        said = [unwrap(strip_reasoning(completion)) for completion in completions]
        for _ in range(said.count("")):
            self.discard(record, "empty_completion")
        if not any(said):
            raise DropRecord("no_back_translation", f"{len(completions)} completions, all empty")
        return [record.with_(back_translations=[text for text in said if text])]


class Respond(Generator):
    """Has each record answered: `n` completions become `n` records, each with its `field`.

    Equal completions get equal ids; a `dedup` behind this step leaves one of them.

    Args:
        field: the field that holds the answer.
    """

    on_length = "discard"

    def __init__(self, prompt: str, field: str = "response", **options: Any) -> None:
        super().__init__(prompt, **options)
        self.field = field
        self.writes = (field,)

    def parse(self, completions: list[str], record: Record) -> Iterable[Record]:
        texts = [strip_reasoning(completion) for completion in completions]
        for _ in range(texts.count("")):
            self.discard(record, "empty_completion")
        if not any(texts):
            raise DropRecord("no_response", f"{len(completions)} completions, all empty")
        return [record.child(self.field, text, **{self.field: text}) for text in texts if text]
