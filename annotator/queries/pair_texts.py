"""Pairs with their texts, and the rows that a reward model is trained on.

Texts are fetched per list of pairs by primary key: every response once, however many pairs it
stands in, and two statements a list instead of a join that the planner might turn into a sort.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
import psycopg

from annotator.models import Project
from annotator.queries import pair_stream
from annotator.queries.pairs import CHUNK, Pair, Selection, chunks
from annotator.queries.snapshot import current

Message = dict[str, str]
RatingsOf = Callable[[Iterable[int]], dict[int, dict[str, float]]]
Content = tuple[str, str | None, str | None]  # text, messages, picture


class PromptText(NamedTuple):
    """A prompt: ``last`` message's text, all turns as JSON in ``source``, equal for equal prompts.

    ``raw`` is the transcript it came as, where the turns alone would not give that back
    (annotator.importers.transcripts).
    """

    id: int
    last: str | None
    source: str
    raw: str | None

    @property
    def messages(self) -> list[Message]:
        """Parsed on every call: most rows need the last text only."""
        return orjson.loads(self.source)


class ResponseText(NamedTuple):
    """An answer; ``source`` is the JSON of its messages where it is more than one, ``picture``
    the stored file where it is an image."""

    id: int
    text: str
    source: str | None
    raw: str | None
    leak: str = ""  # the model it names
    picture: str | None = None
    generator: str = ""

    @property
    def messages(self) -> list[Message] | None:
        return orjson.loads(self.source) if self.source else None

    @property
    def is_empty(self) -> bool:
        return not self.text.strip() and not self.source and not self.picture

    @property
    def answer(self) -> str | list[Message] | Message:
        """As ``models.pairs`` writes it."""
        if self.picture:
            return {"image": self.picture}
        return self.messages or self.text

    @property
    def length(self) -> int:
        """Characters, whatever the form."""
        if self.source:
            return sum(len(message["content"]) for message in orjson.loads(self.source))
        return len(self.text)

    def same_as(self, other: ResponseText) -> bool:
        return _key(self) == _key(other)


class Compared(NamedTuple):
    """A pair with its texts. ``is_repeat``: its votes were pooled into an earlier pair of the same
    two texts, and it stands for nothing by itself."""

    pair: Pair
    prompt: PromptText
    a: ResponseText
    b: ResponseText
    is_repeat: bool = False


@dataclass(slots=True)
class Batch:
    """Pairs with texts, as four lists of one length: half the cost of an object per pair.

    Pairs of one prompt follow each other, and all of them are in one batch.
    """

    pairs: list[Pair]
    prompts: list[PromptText]
    a: list[ResponseText]
    b: list[ResponseText]
    repeats: frozenset[int] = frozenset()  # places of pairs with ``is_repeat``
    has_alike: bool = False  # whether any two of the answers hold the same text
    extra: Any = None  # what a reader looks up beside the texts

    def __iter__(self) -> Iterator[Compared]:
        rows = zip(self.pairs, self.prompts, self.a, self.b, strict=True)
        for place, row in enumerate(rows):
            yield Compared(*row, is_repeat=place in self.repeats)

    def __len__(self) -> int:
        return len(self.pairs)


def with_texts(
    pairs: Iterable[list[Pair]],
    *,
    connection: psycopg.Connection | None = None,
    pool_repeats: bool = False,
) -> Iterator[Batch]:
    """The lists of ``pairs.chunks`` with texts.

    Two pairs of one prompt can hold the same two texts, from different generators. Where such
    pairs disagree about the winner, their votes are pooled into the first of them, so that no
    reader ever sees both directions; with ``pool_repeats`` they are pooled in any case.
    """
    raw = connection or current()
    for chunk in pairs:
        yield settled(_join(raw, chunk), pool_repeats=pool_repeats)


def settled(batch: Batch, *, pool_repeats: bool) -> Batch:
    """The pairs with the votes of repeats pooled, as ``with_texts`` says."""
    # Nearly always no two texts of a list are alike.
    return _settle_repeats(batch, everything=pool_repeats) if batch.has_alike else batch


def _join(raw: psycopg.Connection, chunk: list[Pair]) -> Batch:
    """The pairs with their texts."""
    prompts, responses = pair_stream.texts(raw, chunk)
    return batch_of(chunk, prompts, responses, has_alike=pair_stream.are_some_alike(responses))


def batch_of(
    pairs: list[Pair],
    prompts: Iterable[tuple[Any, ...]],
    responses: Iterable[tuple[Any, ...]],
    *,
    has_alike: bool,
) -> Batch:
    """Pairs and the rows of all their texts, put together."""
    prompt_of = {row[0]: row for row in map(PromptText._make, prompts)}
    response_of = {row[0]: row for row in map(ResponseText._make, responses)}
    return Batch(
        pairs,
        [prompt_of[pair[0]] for pair in pairs],
        [response_of[pair[1]] for pair in pairs],
        [response_of[pair[2]] for pair in pairs],
        has_alike=has_alike,
    )


def prompts_of(ids: Iterable[int], raw: psycopg.Connection) -> dict[int, PromptText]:
    """Prompts by id."""
    rows = pair_stream.fetch(raw, pair_stream.PROMPTS, ids)
    return {row[0]: row for row in map(PromptText._make, rows)}


def responses_of(ids: Iterable[int], raw: psycopg.Connection) -> dict[int, ResponseText]:
    """Answers by id."""
    rows = pair_stream.fetch(raw, pair_stream.RESPONSES, ids)
    return {row[0]: row for row in map(ResponseText._make, rows)}


def _settle_repeats(batch: Batch, *, everything: bool) -> Batch:
    found: list[Compared] = []
    for _, of_prompt in groupby(batch, key=attrgetter("pair.prompt_id")):
        found += _settle_prompt(list(of_prompt), everything=everything)
    repeats = frozenset(place for place, one in enumerate(found) if one.is_repeat)
    return replace(batch, pairs=[one.pair for one in found], repeats=repeats)


def _settle_prompt(pairs: list[Compared], *, everything: bool) -> list[Compared]:
    alike: dict[frozenset[Content], list[int]] = defaultdict(list)
    for place, one in enumerate(pairs):
        alike[frozenset((_key(one.a), _key(one.b)))].append(place)
    for places in alike.values():
        if len(places) == 1:
            continue
        first = pairs[places[0]]
        flips = [not one.a.same_as(first.a) for one in (pairs[place] for place in places)]
        said = {
            _turned(pairs[place].pair.outcome, flip)
            for place, flip in zip(places, flips, strict=True)
        }
        if not everything and not {"a", "b"} <= said:
            continue
        pooled = first.pair
        for place, flip in zip(places[1:], flips[1:], strict=True):
            pooled = pooled.pooled(pairs[place].pair, flipped=flip)
            pairs[place] = pairs[place]._replace(is_repeat=True)
        pairs[places[0]] = first._replace(pair=pooled)
    return pairs


def _key(response: ResponseText) -> Content:
    return response.text, response.source, response.picture


def _turned(outcome: str, flip: bool) -> str:
    return {"a": "b", "b": "a"}.get(outcome, outcome) if flip else outcome


def training_rows(
    project: Project,
    split: str,
    *,
    selection: Selection | None = None,
    min_votes: int = 1,
    keep_ties: bool = False,
    ratings: RatingsOf | None = None,
    connection: psycopg.Connection | None = None,
) -> Iterator[dict[str, Any]]:
    """The pairs of one split as a reward model's trainer reads them (``models.pairs``).

    ``p`` is the share of votes for the chosen response, a tie as half a vote each. Pairs without a
    majority come as ``p`` .5 where ``keep_ties``, else not at all. Identical texts never come:
    there is nothing to learn from them. ``ratings`` gives those of a prompt's responses.
    """
    chosen = replace(selection or Selection(), splits=(split,))
    read = chunks(project, chosen, connection=connection, size=CHUNK)
    for chunk in with_texts(read, connection=connection):
        rated = ratings({pair.prompt_id for pair in chunk.pairs}) if ratings else {}
        for one in chunk:
            if one.is_repeat or one.pair.votes < max(min_votes, 1) or one.a.same_as(one.b):
                continue
            outcome = one.pair.outcome
            if outcome in ("a", "b") or keep_ties:
                yield _training_row(one, flip=outcome == "b", ratings=rated)


def _training_row(
    one: Compared, *, flip: bool, ratings: dict[int, dict[str, float]]
) -> dict[str, Any]:
    pair = one.pair
    chosen, rejected = (one.b, one.a) if flip else (one.a, one.b)
    decided = pair.outcome in ("a", "b")
    share = 1 - pair.p_a if flip else pair.p_a
    return {
        "prompt": one.prompt.messages,
        "chosen": chosen.answer,
        "rejected": rejected.answer,
        "p": share if decided else 0.5,
        "weight": 1.0,
        "strength": max(1, round(pair.strength)) if decided else 0,
        "prompt_id": pair.prompt_id,
        "pair_id": pair.pair_id,
        "chosen_ratings": ratings.get(chosen.id),
        "rejected_ratings": ratings.get(rejected.id),
    }
