"""Duplicates: of several records that are alike one stays, the one with the smallest id, and the others name it.

MinHash is datatrove's: its shingles' hashes and its signatures. Its four steps (signatures, buckets, clusters, filter)
are made for corpora that fill a cluster's disks: they leave files between them and forget ids. A set of chats fits one
task, where a table of buckets in SQLite does what the last three do and drops with a reason. It does not chain: who is
dropped is like the one that stays, not like another that was dropped.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from datatrove.data import Document

from ..errors import StopRun
from ..languages import words_of
from ..records import Record, content_hash
from .base import Block

if TYPE_CHECKING:
    from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

_EMBEDDED_AT_ONCE = 256


class Duplicates(Block):
    """What blocks have in common that leave one of several records that are alike: subclasses say which are."""

    kind = "filter"
    whole_set = True

    def like(self, records: Iterable[Record]) -> Iterator[tuple[Record, str | None]]:
        """Each record with why it is a duplicate, as `of <id>`, or None if it stays. They come sorted by id."""
        raise NotImplementedError(f"{type(self).__name__} must define like()")

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        records: Iterable[Record] = self._take(data or ())
        if self.whole_set:
            records = sorted(records, key=lambda record: record.id)
        for record, detail in self.like(records):
            if detail is not None:
                self.drop(record, "duplicate", detail)
                continue
            self.meter.given += 1
            yield record.document

    def _take(self, data: Iterable[Document]) -> Iterator[Record]:
        for document in data:
            self.meter.taken += 1
            yield Record(document)


class Dedup(Duplicates):
    """Leaves one of several equal records.

    Without `on`, records with one id are equal: they come from equal content, so the first is as good as any, and
    records flow on at once. With `on`, records that agree in those fields are equal whatever their ids; the one with
    the smallest id stays, which takes waiting for all records.

    Args:
        on: fields to compare; null compares ids.
    """

    def __init__(self, on: list[str] | None = None) -> None:
        super().__init__()
        if on == []:
            raise ValueError("on must name at least one field, or be left out to compare ids")
        self.on = on
        self.reads = tuple(on or ())
        self.whole_set = on is not None

    def like(self, records: Iterable[Record]) -> Iterator[tuple[Record, str | None]]:
        with contextlib.closing(_Firsts()) as firsts:
            for record in records:
                equal = record.id if self.on is None else content_hash(*(record[field] for field in self.on))
                first = firsts.of(equal, record.id)
                yield record, None if first is None else f"of {first}"


class DedupMinhash(Duplicates):
    """Leaves one of several records whose texts share most of their words, in the same order: near-duplicates.

    A text's shingles are its runs of `n_grams` words (characters in Chinese, Japanese, Thai); punctuation, case and
    accents do not count. Two texts are alike if all hashes of one of their `buckets` are equal: at the defaults,
    datatrove's own, that finds 92% of the pairs that share 80% of their shingles, and 5% of those that share half. Of
    records that are alike the one with the smallest id stays. Use it on queries and responses: instructions that differ
    in one word are alike here and ask for different things; for those there is `dedup_functions`.

    Args:
        field: the field that holds the text.
        n_grams: words in a shingle; a shorter text is one shingle.
        buckets: chances for a pair to be found. More find more.
        hashes: hashes in a bucket. More find only what is more alike.
    """

    def __init__(self, field: str = "response", n_grams: int = 5, buckets: int = 14, hashes: int = 8) -> None:
        super().__init__()
        for name, value in (("n_grams", n_grams), ("buckets", buckets), ("hashes", hashes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.field = field
        self.n_grams = n_grams
        self.buckets = buckets
        self.hashes = hashes
        self.reads = (field,)

    def like(self, records: Iterable[Record]) -> Iterator[tuple[Record, str | None]]:
        signer = self._signer()
        with contextlib.closing(_Firsts()) as firsts:
            for record in records:
                keys = self._keys(signer, str(record[self.field]))
                found = Counter(first for key in keys if (first := firsts.find(key)) is not None)
                if found:
                    first, count = min(found.items(), key=lambda pair: (-pair[1], pair[0]))
                    yield record, f"of {first}, {count} of {self.buckets} buckets"
                    continue
                for key in keys:
                    firsts.of(key, record.id)
                yield record, None

    def _signer(self) -> MinhashDedupSignature:
        from datatrove.pipeline.dedup.minhash import HashConfig, MinhashConfig, MinhashDedupSignature, TextNormConfig

        config = MinhashConfig(
            self.n_grams, self.buckets, self.hashes,
            # A number is what many instructions are about: datatrove would read them all as 0.
            norm_config=TextNormConfig(norm_numbers=False), hash_config=HashConfig(hash_fc="sha1"),
        )  # fmt: skip
        # It writes to its folder only when it is run as a step.
        return MinhashDedupSignature(tempfile.gettempdir(), config, _tokenizer(self.n_grams))

    def _keys(self, signer: MinhashDedupSignature, text: str) -> list[str]:
        """One for each bucket; none if the text has no word."""
        shingles = signer.get_shingles(text)
        if not shingles.size:
            return []
        return [f"{bucket}:{hashes}" for bucket, hashes in enumerate(signer.get_signature(shingles))]


class DedupSemantic(Duplicates):
    """Leaves one of several records whose texts mean the same, by the cosine of their embeddings.

    The embeddings are static ones, by model2vec, on the processor: thousands of texts a second, and the same each time.
    Of records that are alike the one with the smallest id stays. Each text is compared with all that stay: the time
    grows with the square of their number.

    Args:
        field: the field that holds the text.
        embeddings: the folder of a model2vec model, or its name on the Hub, from where it is fetched once.
        threshold: texts with at least this cosine are alike, 0 to 1.
    """

    def __init__(
        self, field: str = "query", embeddings: str = "minishlab/potion-base-8M", threshold: float = 0.9
    ) -> None:
        super().__init__()
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {threshold}")
        try:
            import model2vec  # noqa: F401
        except ImportError as error:
            raise ImportError("it needs model2vec: pip install 'autoif-blocks[semantic]'") from error
        self.field = field
        self.embeddings = embeddings
        self.threshold = threshold
        self.reads = (field,)

    def like(self, records: Iterable[Record]) -> Iterator[tuple[Record, str | None]]:
        import numpy

        embed = self._embedder()
        waiting = list(records)
        kept: Any = numpy.zeros((0, 0), dtype=numpy.float32)
        ids: list[str] = []
        for start in range(0, len(waiting), _EMBEDDED_AT_ONCE):
            some = waiting[start : start + _EMBEDDED_AT_ONCE]
            for record, vector in zip(some, embed([str(record[self.field]) for record in some]), strict=True):
                if not vector.any():  # no word that the model knows: nothing is known of what it means
                    yield record, None
                    continue
                vector = vector / numpy.linalg.norm(vector)
                if len(ids) == len(kept):
                    room = numpy.zeros((max(_EMBEDDED_AT_ONCE, 2 * len(kept)), len(vector)), dtype=numpy.float32)
                    room[: len(ids)] = kept[: len(ids)] if ids else 0
                    kept = room
                cosines = kept[: len(ids)] @ vector
                best = int(cosines.argmax()) if ids else 0
                if ids and cosines[best] >= self.threshold - 1e-6:
                    yield record, f"of {ids[best]}, cosine {cosines[best]:.3f}"
                    continue
                kept[len(ids)] = vector
                ids.append(record.id)
                yield record, None

    def _embedder(self) -> Any:
        from model2vec import StaticModel

        try:
            return StaticModel.from_pretrained(self.embeddings).encode
        except Exception as error:  # no such folder, no network, not a model: each has an exception of its own
            said = f"{type(error).__name__}: {error}"[:300]
            raise StopRun(
                f"step '{self.step}': cannot load the embedding model '{self.embeddings}' ({said}): "
                "name the folder of a model2vec model, or a name on the Hub that can be reached or is in its cache"
            ) from error


def _tokenizer(least: int) -> Any:
    """datatrove's own tokenizers want a package for each language; this one wants none. It fills up what has fewer than
    `least` words: a text that is shorter than a shingle would have none, and equal nothing."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):  # type: ignore[misc]  # datatrove has no type hints
        def word_tokenize(self, text: str) -> list[str]:
            words = words_of(text)
            return words + [""] * (least - len(words)) if words else []

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return Words()


class _Firsts:
    """The first record of each that are equal; on disk once they are many, in a file that SQLite deletes."""

    def __init__(self) -> None:
        # Whoever closes a chain of generators may do it from another thread.
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.execute("PRAGMA journal_mode=OFF")
        self._table.execute("PRAGMA cache_size=-1000")
        self._table.execute("CREATE TABLE firsts (equal BLOB PRIMARY KEY, id BLOB) WITHOUT ROWID")

    def of(self, equal: str, record_id: str) -> str | None:
        """The id of the first that is equal to this one; None if this is the first."""
        try:
            key = equal.encode("utf-8", "surrogatepass")
            added = self._table.execute(
                "INSERT OR IGNORE INTO firsts VALUES (?, ?)", (key, record_id.encode("utf-8", "surrogatepass"))
            )
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        return None if added.rowcount else self.find(equal)

    def find(self, equal: str) -> str | None:
        """The id of the first that is equal to this one, if there was one."""
        try:
            row = self._table.execute(
                "SELECT id FROM firsts WHERE equal = ?", (equal.encode("utf-8", "surrogatepass"),)
            ).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        return None if row is None else str(row[0].decode("utf-8", "surrogatepass"))

    def _trouble(self, error: sqlite3.Error) -> StopRun:
        return StopRun(f"cannot keep the ids of records on disk, in {tempfile.gettempdir()}: {error}")

    def close(self) -> None:
        self._table.close()
