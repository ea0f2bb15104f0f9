"""Pairs that read almost like another pair, and prompts almost like one in a cleaner split.

Two pairs are one where the word triples of prompt and both answers together, and those of each
answer by itself, are shared to the asked-for percent: a long prompt that two pairs have in common
does not make them one. Found by signatures of some 32 bytes, decided on the texts themselves.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.exporters import shingles
from annotator.exporters.files import Row
from annotator.exporters.shingles import Pairs, Words, jaccard
from annotator.exporters.verdicts import Decided
from annotator.queries.pair_texts import PromptText, ResponseText, prompts_of, responses_of

CLEANEST: Final = {"test": 0, "validation": 1, "train": 2}  # the split that must stay clean first
AT_ONCE: Final = 512  # texts made into signatures by one call
CHECKED_AT_ONCE: Final = 1_000  # pairs of rows whose texts are read at once
MOST_VOTES: Final = 65_535

HOW: Final = (
    "Pairs share the asked-for percent of word triples, over prompt and both answers and of each"
    " answer by itself; prompts in two splits share it of the prompt, and all rows of the one that"
    " may be learned from are left out. Candidates come from MinHash signatures and are decided on"
    " the texts."
)
Mask = NDArray[np.bool_]
Triples = frozenset[int]


class _Texts(NamedTuple):
    """Word triples of a pair."""

    prompt: Triples
    one: Triples
    other: Triples

    @property
    def whole(self) -> Triples:
        return self.prompt | self.one | self.other


class _Signatures:
    """Signatures of texts as they come: 32 bytes each."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._held: list[list[Words]] = []

    def add(self, parts: list[Words]) -> None:
        self._held.append(parts)
        if len(self._held) >= AT_ONCE:
            self._flush()

    def table(self) -> shingles.Signatures:
        self._flush()
        return np.frombuffer(self._done, np.uint8).reshape(-1, shingles.HASHES)

    def _flush(self) -> None:
        if self._held:
            self._done += shingles.signatures(self._held).tobytes()
            self._held = []


class NearDuplicates:
    """A rule of ``exporters.rules``: about 60 bytes a row and 40 a prompt."""

    reason = "near_duplicate"

    def __init__(self, percent: int, *, connection: psycopg.Connection) -> None:
        self.percent, self._connection = percent, connection
        self._places, self._of_prompt = array("i"), array("i")
        self._chosen, self._rejected = array("q"), array("q")
        self._votes, self._certain = array("H"), array("f")
        self._prompts, self._splits = array("q"), array("b")
        self._rows, self._texts = _Signatures(), _Signatures()
        self._told: dict[str, Any] = {}

    def note(self, prompt: PromptText, one: Decided, cells: Row) -> None:
        """Hear of a candidate row; those of one prompt follow each other."""
        if not self._prompts or self._prompts[-1] != prompt.id:
            self._prompts.append(prompt.id)
            self._splits.append(CLEANEST[one.pair.split])
            self._texts.add([shingles.words(_prompt_text(prompt))])
        self._places.append(one.place)
        self._of_prompt.append(len(self._prompts) - 1)
        self._chosen.append(one.chosen.id)
        self._rejected.append(one.rejected.id)
        self._votes.append(min(one.verdict.votes, MOST_VOTES))
        self._certain.append(one.verdict.certainty)
        self._rows.add([shingles.words(_answer_text(text)) for text in (one.chosen, one.rejected)])

    def cut(self, gone: Mask) -> NDArray[np.int64]:
        """Places whose pair is almost another, better voted one; those ``gone`` count nowhere."""
        places = np.array(self._places, dtype=np.int64)
        owner = np.array(self._of_prompt, dtype=np.int64)
        there = ~gone[places]
        leaking, prompt_pairs = self._leaking(np.unique(owner[there]))
        leaked = there & np.isin(owner, leaking)
        again, row_pairs = self._repeated(np.flatnonzero(there & ~leaked), owner)
        self._told = {
            "percent": self.percent,
            "rows": int(leaked.sum()) + len(again),
            "across_splits": int(leaked.sum()),
            "prompts": len(leaking),
            "candidates": prompt_pairs + row_pairs,
            "found_at_threshold": round(shingles.chance(self.percent / 100), 4),
            "how": HOW,
        }
        return np.concatenate([places[leaked], places[again]])

    def as_dict(self) -> dict[str, Any]:
        return {"near_duplicates": self._told}

    def _leaking(self, prompts: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Of the prompts by place, those almost like one in a cleaner split, and how many pairs
        of prompts were looked at."""
        splits = np.array(self._splits, dtype=np.int64)[prompts]
        if len(np.unique(splits)) < 2:
            return np.empty(0, np.int64), 0
        rank = np.empty(len(prompts), np.int64)
        rank[np.lexsort((prompts, splits))] = np.arange(len(prompts))
        pairs = shingles.alike(self._texts.table()[prompts], rank, least=self.percent / 100)
        pairs = pairs[splits[pairs[:, 0]] != splits[pairs[:, 1]]]
        ids = np.array(self._prompts, dtype=np.int64)[prompts]

        def decide(some: Pairs) -> Iterator[bool]:
            texts = prompts_of(set(ids[some].ravel().tolist()), self._connection)
            known = {pk: _triples(_prompt_text(text)) for pk, text in texts.items()}
            for a, b in ids[some].tolist():
                yield self._is_alike(known[a], known[b])

        return prompts[_losers(pairs, rank, decide)], len(pairs)

    def _repeated(
        self, rows: NDArray[np.int64], owner: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], int]:
        """Of the rows, those that another one stands for."""
        if not rows.size:
            return rows, 0
        votes, certain = (
            np.array(one, dtype=np.float64)[rows] for one in (self._votes, self._certain)
        )
        rank = np.empty(len(rows), np.int64)
        splits = np.array(self._splits)[owner[rows]]
        rank[np.lexsort((rows, -certain, -votes, splits))] = np.arange(len(rows))
        pairs = shingles.alike(self._rows.table()[rows], rank, least=self.percent / 100)

        def decide(some: Pairs) -> Iterator[bool]:
            known = self._read(np.unique(rows[some]).tolist())
            for a, b in rows[some].tolist():
                yield self._is_same(known[a], known[b])

        return rows[_losers(pairs, rank, decide)], len(pairs)

    def _read(self, rows: list[int]) -> dict[int, _Texts]:
        """The texts of rows, read again."""
        ids = {row: self._prompts[self._of_prompt[row]] for row in rows}
        prompts = {
            pk: _triples(_prompt_text(text))
            for pk, text in prompts_of(set(ids.values()), self._connection).items()
        }
        wanted: Iterable[int] = chain.from_iterable(
            (self._chosen[row], self._rejected[row]) for row in rows
        )
        answers = {
            pk: _triples(_answer_text(text))
            for pk, text in responses_of(set(wanted), self._connection).items()
        }
        return {
            row: _Texts(prompts[ids[row]], answers[self._chosen[row]], answers[self._rejected[row]])
            for row in rows
        }

    def _is_same(self, a: _Texts, b: _Texts) -> bool:
        straight = self._is_alike(a.one, b.one) and self._is_alike(a.other, b.other)
        crossed = self._is_alike(a.one, b.other) and self._is_alike(a.other, b.one)
        return (straight or crossed) and self._is_alike(a.whole, b.whole)

    def _is_alike(self, one: Triples, other: Triples) -> bool:
        return 100 * jaccard(one, other) >= self.percent


def _losers(pairs: Pairs, rank: NDArray[np.int64], decide: Any) -> NDArray[np.int64]:
    """What a better one stands for that stays itself; ``decide`` says which pairs are alike.

    From the best down, so that what was left out leaves nothing out.
    """
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    pairs = np.where(swap[:, None], pairs[:, ::-1], pairs)
    pairs = pairs[np.lexsort((rank[pairs[:, 1]], rank[pairs[:, 0]]))]
    out = np.zeros(len(rank), dtype=bool)
    for start in range(0, len(pairs), CHECKED_AT_ONCE):
        some = pairs[start : start + CHECKED_AT_ONCE]
        some = some[~out[some].any(axis=1)]
        if not some.size:
            continue
        for (better, worse), is_alike in zip(some.tolist(), decide(some), strict=True):
            if is_alike and not out[better]:
                out[worse] = True
    return np.flatnonzero(out)


def _triples(text: str) -> Triples:
    return shingles.triples(shingles.words(text))


def _prompt_text(prompt: PromptText) -> str:
    """All turns, one after the other."""
    return "\n".join(message["content"] for message in prompt.messages)


def _answer_text(response: ResponseText) -> str:
    if response.picture:
        return response.picture
    messages = response.messages
    return "\n".join(one["content"] for one in messages) if messages else response.text
