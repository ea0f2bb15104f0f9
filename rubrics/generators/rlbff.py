"""RLBFF: binary principles out of what people wrote, with their words as evidence and consensus.

Source: Wang et al. 2025, arXiv 2509.21319 (METHODS 1.4). A model lists what a rationale asserts of
either answer, yes, no or partly, with a quote. A quote that is not in the rationale drops its
principle, and so do "helpfulness" and "partly"; what every other rater of the pair says too is
kept. ``Extracted.rows`` is the data a principle-following reward model is trained on.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from rapidfuzz import fuzz

from rubrics.asking import Counted, Section, ask, conversation, each, question, reply_words
from rubrics.generators.diverse import different
from rubrics.generators.likeness import Embed, Likeness
from rubrics.generators.rlbff_options import RlbffOptions
from rubrics.generators.rules import MAX_EVIDENCE, Asking, fit_rule, key_of, listed, ticker
from rubrics.generators.types import (
    CandidateCriterion,
    Evidence,
    Generated,
    Journal,
    PreferencePair,
    Rationale,
)
from rubrics.judging.prompts import MAX_TEXT, clean, shorten
from rubrics.llm.types import Call, CallFailed, Reply

Side = Literal["chosen", "rejected"]

SIDES: Final[dict[str, Side]] = {"a": "chosen", "b": "rejected"}
VERDICTS: Final = ("yes", "no", "partial")
GENERIC: Final = re.compile(
    r"(?:is |be |overall |general |more |very )*(?:helpful(?:ness)?|useful(?:ness)?|"
    r"(?:good|better|best|high|overall|general)?\s*quality|good|better|preferred)"
    r"(?: answers?| responses?| overall)?",
    re.IGNORECASE,
)
ALONE: Final = "too few raters gave reasons"
LEAST_LETTERS: Final = 4  # of a quote: a shorter one stands in any text
LONGER: Final = 1.2  # times the rationale: a longer quote would contain it, not be in it
MAX_QUOTE: Final = 2_000  # characters
MAX_PRINCIPLES: Final = 60  # of one rationale
REPLY: Final = reply_words(
    {
        "principles": (
            'a list of objects, each with "principle", a few words; "answer", "A" or "B"; '
            '"verdict", "yes" where the feedback says that this answer has it, "no" where it says '
            'that it lacks it, "partial" where it says neither in full; and "quote", the words of '
            "the feedback that say so, letter by letter"
        )
    }
)
ROW: Final = {
    "principle": {"type": "string"},
    "answer": {"type": "string", "enum": ["A", "B"]},
    "verdict": {"type": "string", "enum": list(VERDICTS)},
    "quote": {"type": "string"},
}
SCHEMA: Final[dict[str, Any]] = {
    "title": "principles",
    "type": "object",
    "properties": {
        "principles": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": ROW,
                "required": list(ROW),
                "additionalProperties": False,
            },
        }
    },
    "required": ["principles"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class BinaryRow:
    """One principle of one response as one rater sees it. ``is_met``: their yes or no.

    ``likeness``: 0 to 100, how well the quote stands in what they wrote.
    """

    pair: int
    side: Side
    principle: str
    is_met: bool
    quote: str
    likeness: float
    judgment: int | None = None
    rater: Hashable = None

    @property
    def supports(self) -> bool:
        """Whether having the property goes with being preferred here."""
        return self.is_met == (self.side == "chosen")


@dataclass(frozen=True, slots=True)
class Extracted:
    """``found``: what stands in the words of one rater; ``rows``: what all of them say.

    ``dropped`` counts principles, and rationales whose call failed, by reason.
    """

    rows: tuple[BinaryRow, ...]
    found: tuple[BinaryRow, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    rationales: int = 0
    stopped: str = ""


async def extract(
    pairs: Sequence[PreferencePair],
    call: Call,
    *,
    options: RlbffOptions,
    embed: Embed | None = None,
    tick: Callable[[int], Any] | None = None,
) -> Extracted:
    """One call for each rationale. Pairs with fewer raters than it takes are not asked about."""
    dropped: Counter[str] = Counter()
    asked: list[tuple[PreferencePair, Rationale, Hashable]] = []
    raters: dict[int, set[Hashable]] = {}
    for pair in pairs:
        told = _told(pair)
        raters[pair.id] = {rater for _, rater in told}
        if len(raters[pair.id]) >= options.least_raters:
            asked += [(pair, rationale, rater) for rationale, rater in told]
        elif told:
            dropped[ALONE] += len(told)
    how = Asking(
        model=options.model,
        max_tokens=options.max_tokens,
        repairs=options.repairs,
        concurrency=options.concurrency,
    )
    work = partial(_read_one, call=call, how=how, least_fuzzy=options.least_fuzzy)
    results = await each(asked, work, concurrency=options.concurrency, tick=tick)
    found: list[BinaryRow] = []
    for result in results:
        if isinstance(result, CallFailed):
            dropped[result.kind] += 1
        else:
            found += result[0]
            dropped += result[1]
    threshold = options.similarity if embed else options.ngram_similarity
    likeness = Likeness([row.principle for row in found], embed=embed, threshold=threshold)
    rows = consensus(found, raters, likeness)
    dropped["not said by every other rater"] += len(found) - len(rows)
    stopped = "budget" if dropped["budget"] else ""
    return Extracted(tuple(rows), tuple(found), +dropped, len(asked), stopped)


def consensus(
    found: Sequence[BinaryRow], raters: dict[int, set[Hashable]], likeness: Likeness
) -> list[BinaryRow]:
    """Rows that every other rater of the pair has too: alike, of the same side, the same verdict.

    ``raters``: pair -> all who gave reasons for it; one who says nothing of it, or whose words
    could not be read, does not agree. Not a majority: one who is silent is enough.
    """
    said: dict[tuple[int, Side, bool], dict[Hashable, list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in found:
        said[row.pair, row.side, row.is_met][row.rater].append(row.principle)
    kept = []
    for row in found:
        by_rater = said[row.pair, row.side, row.is_met]
        others = raters[row.pair] - {row.rater}
        if all(likeness.alike(row.principle, by_rater.get(rater, [])) for rater in others):
            kept.append(row)
    return kept


def quote_likeness(quote: str, text: str) -> float:
    """0 to 100: the best match of a quote within a text, case and white space aside.

    0 for a quote that is too short to be found by anything but chance, longer than the text, or
    longer than ``MAX_QUOTE`` characters: the search takes time in proportion to both.
    """
    one, whole = (" ".join(said.casefold().split()) for said in (quote, text))
    if len(one) > min(MAX_QUOTE, LONGER * len(whole)):
        return 0.0
    if sum(map(str.isalnum, one)) < LEAST_LETTERS:
        return 0.0
    return float(fuzz.partial_ratio(one, whole))


class RlbffGenerator:
    """rubrics.generators.types.Generator. One call for each rationale. It needs written reasons.

    ``embed``: vectors of principles; without it, character n-grams with their own threshold.
    """

    def __init__(self, options: RlbffOptions, *, embed: Embed | None = None) -> None:
        self.options = options
        self.embed = embed

    async def generate(
        self, pairs: Sequence[PreferencePair], *, call: Call | None, journal: Journal
    ) -> Generated:
        """Criteria by support; polarity -1 where what people name speaks against. Raises ValueError."""
        options = self.options
        if call is None or not options.model:
            raise ValueError("rlbff asks a model: it needs an endpoint and the model's name")
        told = [pair for pair in pairs if _told(pair)][: options.pairs]
        if not told:
            raise ValueError("rlbff reads the reasons people wrote: no pair has any")
        counted = Counted(call)
        journal.stage("extract", "Take principles out of what people wrote")
        total = sum(len(pair.rationales) for pair in told)
        extracted = await extract(
            told,
            counted,
            options=options,
            embed=self.embed,
            tick=ticker(journal, total, "rationales"),
        )
        journal.stage("group", "Put principles together that are the same")
        dropped = extracted.dropped.copy()
        criteria = different(
            self._criteria(extracted.rows, pairs=len(told)),
            options.different,
            text=lambda one: one.text,
            dropped=dropped,
        )
        dropped["beyond the criteria kept"] += max(0, len(criteria) - options.most_criteria)
        yes = sum(row.is_met for row in extracted.rows)
        return Generated(
            tuple(criteria[: options.most_criteria]),
            figures={
                "pairs": len(told),
                "rationales": extracted.rationales,
                "calls": counted.replies,
                "calls_per_pair": counted.replies / len(told),
                "likeness": self._likeness(),
                "found": len(extracted.found),
                "agreed": len(extracted.rows),
                "yes_share": yes / len(extracted.rows) if extracted.rows else None,
            },
            dropped=dict(sorted((+dropped).items())),
            stopped=extracted.stopped,
            notes=self._notes(extracted),
        )

    def _likeness(self) -> dict[str, Any]:
        """By what two principles are one: figures must not claim meaning where letters are told."""
        if self.embed is not None:
            return {"by": "embeddings", "threshold": self.options.similarity}
        return {"by": "character n-grams", "threshold": self.options.ngram_similarity}

    def _notes(self, extracted: Extracted) -> tuple[str, ...]:
        notes = []
        alone = extracted.dropped[ALONE]
        if alone and self.options.least_raters > 1:
            notes.append(
                f"{alone:,} reasons were not read: fewer than {self.options.least_raters} people "
                "gave any for their pair. With least_raters = 1 the word of one is believed."
            )
        if self.embed is None and extracted.found:
            notes.append(
                "Principles were compared by their letters (n-grams), not by meaning: no "
                "embeddings are at hand."
            )
        return tuple(notes)

    def _criteria(self, rows: Sequence[BinaryRow], *, pairs: int) -> tuple[CandidateCriterion, ...]:
        threshold = self.options.similarity if self.embed else self.options.ngram_similarity
        often = Counter(row.principle for row in rows)
        names = [text for text, _ in often.most_common()]
        likeness = Likeness(names, embed=self.embed, threshold=threshold)
        kind = dict(zip(names, likeness.kinds(names), strict=True))
        by_kind: dict[str, list[BinaryRow]] = defaultdict(list)
        for row in rows:
            by_kind[kind[row.principle]].append(row)
        made = [_criterion(text, some, pairs=pairs) for text, some in by_kind.items()]
        return tuple(sorted(made, key=lambda one: -(one.figures["support"] or 0)))


def _criterion(text: str, rows: Sequence[BinaryRow], *, pairs: int) -> CandidateCriterion:
    """``precision`` over pairs that lean to one side: the share whose lean is the criterion's."""
    leans: Counter[int] = Counter()
    for row in rows:
        leans[row.pair] += 1 if row.supports else -1
    for_it = sum(lean > 0 for lean in leans.values())
    against = sum(lean < 0 for lean in leans.values())
    polarity: Literal[1, -1] = 1 if for_it >= against else -1
    decisive = for_it + against
    return CandidateCriterion(
        text,
        polarity=polarity,
        evidence=tuple(
            Evidence(
                row.pair,
                supports=row.supports == (polarity > 0),
                quote=row.quote,
                judgment=row.judgment,
                rater=row.rater if isinstance(row.rater, int) else None,
                role="source",
            )
            for row in rows[:MAX_EVIDENCE]
        ),
        figures={
            "support": len(leans),
            "rows": len(rows),
            "decisive": decisive,
            "coverage": decisive / pairs,
            "precision": max(for_it, against) / decisive if decisive else None,
        },
    )


def _told(pair: PreferencePair) -> list[tuple[Rationale, Hashable]]:
    """Rationales that say something, and whose they are; one of nobody known is a rater's own."""
    return [
        (one, one.rater if one.rater is not None else ("unknown", at))
        for at, one in enumerate(pair.rationales)
        if one.text.strip()
    ]


async def _read_one(
    asked: tuple[PreferencePair, Rationale, Hashable],
    *,
    call: Call,
    how: Asking,
    least_fuzzy: float,
) -> tuple[list[BinaryRow], Counter[str]]:
    pair, rationale, _ = asked
    messages = question(
        "principles",
        [
            Section("prompt", conversation(pair.messages)),
            Section("answer A", pair.chosen.text, pair.chosen.picture),
            Section("answer B", pair.rejected.text, pair.rejected.picture),
            Section("winner", "A"),
            Section("feedback", rationale.text),
        ],
        reply=REPLY,
    )
    read = partial(_read, asked=asked, least_fuzzy=least_fuzzy)
    told, _ = await ask(call, how.request(messages, schema=SCHEMA), read, repairs=how.repairs)
    return told


def _read(
    reply: Reply, *, asked: tuple[PreferencePair, Rationale, Hashable], least_fuzzy: float
) -> tuple[list[BinaryRow], Counter[str]]:
    """The principles of one rationale that pass its own checks. Raises Unreadable."""
    pair, rationale, rater = asked
    said = shorten(clean(rationale.text), MAX_TEXT)  # as the model saw it
    dropped: Counter[str] = Counter()
    found = []
    rows = listed(reply, "principles")
    dropped["more than a rationale holds"] += max(0, len(rows) - MAX_PRINCIPLES)
    for row in rows[:MAX_PRINCIPLES]:
        row = row if isinstance(row, dict) else {}
        side = SIDES.get(str(row.get("answer")).strip().casefold())
        verdict = str(row.get("verdict")).strip().casefold()
        text = fit_rule(row.get("principle"), dropped)
        if not text:
            continue
        quote = clean(str(row.get("quote") or "").strip())
        likeness = quote_likeness(quote, said)
        if side is None or verdict not in VERDICTS:
            dropped["no verdict on an answer"] += 1
        elif likeness <= least_fuzzy:
            dropped["quote is not in the rationale"] += 1
        elif verdict == "partial":
            dropped["partly"] += 1
        elif GENERIC.fullmatch(key_of(text)) or GENERIC.fullmatch(text.strip(" .")):
            dropped["generic"] += 1
        else:
            found.append(
                BinaryRow(
                    pair.id,
                    side,
                    text,
                    verdict == "yes",
                    quote,
                    likeness,
                    rationale.judgment,
                    rater,
                )
            )
    return found, +dropped
