"""How good are the functions themselves: do they notice what is done to a text, do they agree with one another?"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import DropRecord
from ..perturbations import GRAFTS, PERTURBATIONS, mutants
from ..records import Record
from .base import AsyncBlock
from .executors import Number, told
from .functions import cases_of, functions_of, only_functions, texts_of
from .threshold import Threshold

GRAFTED = 3  # texts of which parts are put into others


class Probed(NamedTuple):
    """A text that the functions ran on: as it was, or by which perturbation of the last one that was."""

    perturbation: str
    text: str
    verdicts: tuple[bool | str, ...]
    """of each function"""


class Probe(AsyncBlock):
    """Runs the functions on texts and on what perturbations make of them.

    Args:
        field: a field with a text, or a list of texts, to perturb; null takes the inputs of the record's cases.
        perturbations: names of those to use; null uses all.
        max_texts: how many of the texts are perturbed, the first ones.
    """

    kind = "executor"

    def __init__(self, field: str | None, perturbations: list[str] | None, max_texts: int) -> None:
        super().__init__()
        known = [*PERTURBATIONS, *GRAFTS]
        unknown = sorted(set(perturbations or ()) - set(known))
        if unknown or perturbations == []:
            raise ValueError(f"perturbations must be some of {', '.join(known)}; got {', '.join(unknown) or 'none'}")
        if max_texts < 1:
            raise ValueError(f"max_texts must be at least 1, got {max_texts}")
        self.field = field
        self.perturbations = perturbations or known
        self.max_texts = max_texts
        self.reads = ("functions", field or "cases")

    def weigh(self, record: Record, probed: list[Probed]) -> Iterable[Record]:
        """What the record becomes; there is at least one function, and at least one text."""
        raise NotImplementedError

    async def handle_async(self, record: Record) -> Iterable[Record]:
        probes, functions = self._probes(record), functions_of(record)
        if not probes or not functions:
            raise DropRecord("nothing_to_probe", f"{len(probes)} texts, {len(functions)} functions")
        sandbox = await self.live.sandbox()
        runs = await sandbox.execute_all([(code, [text for _, text in probes]) for code in functions])
        verdicts = zip(*([told(outcome) for outcome in run] for run in runs), strict=True)
        return self.weigh(record, [Probed(*probe, of) for probe, of in zip(probes, verdicts, strict=True)])

    def _probes(self, record: Record) -> list[tuple[str, str]]:
        """Each text, and after it what each perturbation makes of it."""
        cases = cases_of(record) if self.field is None or record.get("cases") is not None else []
        if self.field is None:
            texts = [case["input"] for case in cases]
        else:
            found = record[self.field]
            texts = [found] if isinstance(found, str) else texts_of(record, self.field)
        texts = texts[: self.max_texts]
        # What must not be in a text comes from one that does not follow the instruction.
        others = ([case["input"] for case in cases if not case["output"]] or texts)[:GRAFTED]
        probes = []
        for text in texts:
            probes.append(("", text))
            probes += [(name, mutant) for mutant, name in mutants(text, others, self.perturbations).items()]
        return probes


class MutationScore(Probe):
    """Scores each function by the changes to texts that it notices, of those that most functions notice.

    A changed text counts if most of the functions that accept the text as it was reject it: what most of them still
    accept was changed in vain. A function's score is the share that it rejects of what counts and comes from texts that
    it accepts: 0 for a function that accepts whatever is done, and for all where nothing is noticed.

    Args:
        min_score: drop functions below; null drops none, for a vote with `weights: mutation_scores`.
        keep_functions: how many must be left.
        field: a field with a text, or a list of texts, to perturb; null takes the inputs of the record's cases.
        perturbations: names of those to use; null uses all.
        max_texts: how many of the texts are perturbed, the first ones.
    """

    writes = ("functions", "mutation_scores")

    def __init__(
        self,
        min_score: float | None = None,
        keep_functions: int = 1,
        field: str | None = None,
        perturbations: list[str] | None = None,
        max_texts: int = 12,
    ) -> None:
        super().__init__(field, perturbations, max_texts)
        if min_score is not None and not 0 <= min_score <= 1:
            raise ValueError(f"min_score must be in [0, 1], or null to drop none, got {min_score}")
        self.min_score = min_score
        self.keep_functions = max(1, keep_functions)

    def weigh(self, record: Record, probed: list[Probed]) -> Iterable[Record]:
        functions = record["functions"]
        scores, missed = _scores(probed, len(functions))
        kept = [i for i, score in enumerate(scores) if self.min_score is None or score >= self.min_score]
        if len(kept) < self.keep_functions:
            detail = f"{len(kept)} of {len(functions)} functions notice changes, needed {self.keep_functions}"
            raise DropRecord("functions_notice_nothing", detail, mutation_scores=scores)
        for i in sorted(set(range(len(functions))) - set(kept)):
            names = ", ".join(list(dict.fromkeys(missed[i]))[:5]) or "nothing that most notice"
            self.discard(
                record, "function_notices_little", f"score {scores[i]:.2f}, missed {names}: {functions[i][:300]}"
            )
        return [only_functions(record.with_(mutation_scores=scores), kept)]


def _scores(probed: list[Probed], count: int) -> tuple[list[float], list[list[str]]]:
    """The score of each function, and the names of the perturbations that it should have noticed."""
    noticed = [0] * count
    missed: list[list[str]] = [[] for _ in range(count)]
    accepting: list[int] = []
    for perturbation, _, verdicts in probed:
        if not perturbation:
            accepting = [i for i, verdict in enumerate(verdicts) if verdict is True]
        elif 2 * sum(verdicts[i] is False for i in accepting) > len(accepting):
            for i in accepting:
                if verdicts[i] is False:
                    noticed[i] += 1
                else:
                    missed[i].append(perturbation)
    return [round(noticed[i] / max(1, noticed[i] + len(missed[i])), 4) for i in range(count)], missed


class MineDisagreements(Probe):
    """Looks for texts on which the functions disagree, and keeps the largest group that agrees.

    The functions run on the texts and their perturbations. Two that say the same on `alike` of those are of one mind;
    the largest group around a function stays, of equally large ones the one whose verdicts the others share the most.
    `agreement` is the group's share of the functions, `disputes` holds the texts that divide them, the most evenly
    divided first, as {input, perturbation, verdicts}.

    Args:
        alike: the share of the texts on which two functions of one mind agree, as a threshold.
        majority: the share of the functions that the group must have, as a threshold.
        keep_functions: how many must be left.
        max_disputes: how many texts `disputes` holds at most.
        field: a field with a text, or a list of texts, to perturb; null takes the inputs of the record's cases.
        perturbations: names of those to use; null uses all.
        max_texts: how many of the texts are perturbed, the first ones.
    """

    writes = ("functions", "agreement", "disputes")

    def __init__(
        self,
        alike: Number = ">= 0.95",
        majority: Number = "> 0.5",
        keep_functions: int = 1,
        max_disputes: int = 5,
        field: str | None = None,
        perturbations: list[str] | None = None,
        max_texts: int = 12,
    ) -> None:
        super().__init__(field, perturbations, max_texts)
        self.alike = Threshold(alike)
        self.majority = Threshold(majority)
        self.keep_functions = max(1, keep_functions)
        if max_disputes < 0:
            raise ValueError(f"max_disputes must be at least 0, got {max_disputes}")
        self.max_disputes = max_disputes

    def weigh(self, record: Record, probed: list[Probed]) -> Iterable[Record]:
        functions = record["functions"]
        rows = list(zip(*(of.verdicts for of in probed), strict=True))
        same = [[sum(map(operator.eq, one, other)) / len(probed) for other in rows] for one in rows]
        groups = [[j for j, share in enumerate(shares) if self.alike.passes(share)] for shares in same]
        centre = max(range(len(rows)), key=lambda i: (len(groups[i]), sum(same[i]), -i))
        kept = groups[centre]
        found = {"agreement": round(len(kept) / len(rows), 4), "disputes": self._disputes(probed)}
        if not self.majority.passes(len(kept) / len(rows)) or len(kept) < self.keep_functions:
            raise DropRecord("functions_disagree", f"{len(kept)} of {len(rows)} functions agree", **found)
        for i in sorted(set(range(len(rows))) - set(kept)):
            detail = f"agrees with the others on {same[centre][i]:.2f} of the texts: {functions[i][:300]}"
            self.discard(record, "function_outvoted", detail)
        return [only_functions(record, kept, **found)]

    def _disputes(self, probed: list[Probed]) -> list[dict[str, Any]]:
        found = []
        for perturbation, text, verdicts in probed:
            accepting = verdicts.count(True)
            if divided := min(accepting, len(verdicts) - accepting):
                row = {"input": text, "perturbation": perturbation, "verdicts": list(verdicts)}
                found.append((divided, row))
        found.sort(key=lambda pair: -pair[0])
        return [row for _, row in found[: self.max_disputes]]
