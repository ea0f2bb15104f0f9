"""Rules out of preferences: explain a pair, take rules out of the reasoning, merge what is alike.

What AutoRule (METHODS 1.2) and AutoRubric-T2I (1.3) share. A pair is explained and its rules are
taken before the next one's: what a budget cuts off is pairs, and the rules of all others stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final

from rubrics.asking import (
    Section,
    as_sentence,
    ask,
    conversation,
    each,
    question,
    reply_words,
)
from rubrics.generators.types import Evidence, Journal, PreferencePair
from rubrics.judging.prompts import clean, one_line
from rubrics.judging.reading import Unreadable, read_object
from rubrics.llm.parsing import END_OF_THOUGHT, THOUGHT
from rubrics.llm.types import Call, CallFailed, Message, Reply, Request

MAX_RULE: Final = 300  # characters; a longer one says more than one thing
MAX_QUOTE: Final = 1_000
DECLINED: Final = frozenset({"refusal", "content_filter"})  # finish reasons
MAX_EVIDENCE: Final = 200  # of one criterion of one kind: the pairs met first
MAX_PASSES: Final = 4  # of merging, where a list is longer than one call takes
BULLET: Final = re.compile(r"^\s*(?:[-–—*•·]+|\(?\d{1,3}[.):])\s*(?=\S)")
# A rule that only holds of this pair, or of where an answer stood.
POSITION: Final = re.compile(
    r"\b(?:answer|response|option|image|picture|conversation) [AB]\b|"
    r"\b(?:first|second|other|chosen|rejected|winning|losing|preferred) "
    r"(?:answer|response|option|image|picture)\b",
    re.IGNORECASE,
)
LEAD_IN: Final = re.compile(
    r"^(?:the )?(?:answer|response|assistant|reply|image|picture|it)s? (?:should|must|has to|ought to) "
)
FILLERS: Final = frozenset(["a", "an", "the", "its", "at", "least", "one", "any", "some"])
ENDING: Final = re.compile(r"(?<=\w{3})s\b")
EXTRACT_REPLY: Final = reply_words(
    {
        "rules": (
            'a list of objects, each with "rule", one short sentence, and "quote", the words of '
            "the reasoning that say so, letter by letter"
        )
    }
)
MERGE_REPLY: Final = reply_words(
    {
        "rules": (
            'a list of objects, each with "rule", one short sentence, and "of", the numbers of the '
            "lines it stands for"
        )
    }
)


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask. ``max_tokens`` has room for a chain of thought."""

    model: str
    temperature: float = 0.0
    max_tokens: int = 8192
    seed: int = 0
    repairs: int = 1
    concurrency: int = 16

    def request(
        self,
        messages: tuple[Message, ...],
        *,
        schema: Mapping[str, Any] | None = None,
        with_thoughts: bool = False,
    ) -> Request:
        return Request(
            model=self.model,
            messages=messages,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=self.seed if self.temperature > 0 else None,
            schema=schema,
            with_thoughts=with_thoughts,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The pair a rule comes from, and the words that said so; empty where they are not there."""

    pair: int
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """``sources`` in the order of the pairs; a pair can stand there twice."""

    text: str
    sources: tuple[Source, ...]

    @property
    def support(self) -> int:
        """Pairs it comes from."""
        return len({source.pair for source in self.sources})


@dataclass(frozen=True, slots=True)
class Taken:
    """``dropped``: rules, and pairs that failed, by reason. ``stopped`` is "budget" or nothing."""

    rules: tuple[Rule, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    stopped: str = ""


async def take_rules(
    pairs: Sequence[PreferencePair],
    call: Call,
    how: Asking,
    *,
    most: int,
    tick: Callable[[int], Any] | None = None,
) -> Taken:
    """At most ``most`` rules a pair, two calls each; equal ones are one rule already."""
    told = await each(
        pairs, lambda pair: _of_pair(pair, call, how, most), concurrency=how.concurrency, tick=tick
    )
    dropped: Counter[str] = Counter()
    found: list[Rule] = []
    for one in told:
        if isinstance(one, CallFailed):
            dropped[one.kind] += 1
            continue
        found += one.rules
        dropped += one.dropped
    return Taken(gather(found), dropped, "budget" if dropped["budget"] else "")


async def _of_pair(pair: PreferencePair, call: Call, how: Asking, most: int) -> Taken:
    request = how.request(question("explain", shown(pair)), with_thoughts=True)
    reasoning, _ = await ask(call, request, chain_of, repairs=how.repairs)
    messages = question(
        "extract-rules",
        [Section("reasoning", reasoning)],
        most=str(most),
        reply=EXTRACT_REPLY,
    )
    schema = rules_schema("extract-rules", {"quote": {"type": "string"}})
    read = partial(read_rules, pair=pair.id, within=reasoning, most=most)
    (rules, dropped), _ = await ask(
        call, how.request(messages, schema=schema), read, repairs=how.repairs
    )
    return Taken(rules, dropped)


def shown(pair: PreferencePair) -> list[Section]:
    """A pair with its winner, which is A in about every other pair, drawn by the pair's id."""
    first_wins = bool(sha256(str(pair.id).encode()).digest()[0] & 1)
    both = (pair.chosen, pair.rejected) if first_wins else (pair.rejected, pair.chosen)
    return [
        Section("prompt", conversation(pair.messages)),
        *(
            Section(f"answer {label}", one.text, one.picture)
            for label, one in zip("AB", both, strict=True)
        ),
        Section("winner", "A" if first_wins else "B"),
    ]


def chain_of(reply: Reply) -> str:
    """The reasoning of a reply: its <think> block, also without a beginning; else all of it.

    Raises Unreadable where it says nothing, or the model declined.
    """
    if reply.finish_reason in DECLINED:
        raise Unreadable("it declines to answer")
    thought, closed, spoken = reply.text.rpartition(END_OF_THOUGHT)
    chain = thought.replace(THOUGHT, "").strip() if closed else ""
    text = chain or spoken.replace(THOUGHT, "").strip()
    if not text:
        raise Unreadable("it is empty")
    return text


def rules_schema(title: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """A list of objects with "rule" and ``more``."""
    properties = {"rule": {"type": "string"}, **more}
    one = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "title": title,
        "type": "object",
        "properties": {"rules": {"type": "array", "items": one}},
        "required": ["rules"],
        "additionalProperties": False,
    }


def listed(reply: Reply, key: str) -> list[Any]:
    """The list under a key of a reply. Raises Unreadable."""
    found = read_object(reply.text).get(key)
    if not isinstance(found, list):
        raise Unreadable(f'"{key}" is not a list')
    return found


def read_rules(
    reply: Reply, *, pair: int, within: str, most: int
) -> tuple[tuple[Rule, ...], Counter[str]]:
    """Rules of one pair with the quotes that are there, and what was dropped. Raises Unreadable."""
    dropped: Counter[str] = Counter()
    found = []
    said = _folded(within)
    for at, one in enumerate(listed(reply, "rules")):
        row = one if isinstance(one, dict) else {"rule": one}
        text = fit_rule(row.get("rule"), dropped)
        if text and at >= most:
            dropped["more than asked for"] += 1
        elif text:
            quote = row.get("quote")
            quote = clean(quote.strip()) if isinstance(quote, str) else ""
            is_there = len(quote) <= MAX_QUOTE and _folded(quote) in said
            found.append(Rule(text, (Source(pair, quote if is_there else ""),)))
    return tuple(found), dropped


def fit_rule(said: object, dropped: Counter[str]) -> str:
    """A rule as one line; empty, and counted, where it is none."""
    text = BULLET.sub("", one_line(said[: 10 * MAX_RULE])) if isinstance(said, str) else ""
    if not key_of(text):
        dropped["empty"] += 1
    elif len(text) > MAX_RULE:
        dropped["too long"] += 1
    elif POSITION.search(text):
        dropped["names an answer of the pair"] += 1
    else:
        return as_sentence(text)
    return ""


def key_of(rule: str) -> str:
    """What rules have in common that differ in case, punctuation, plural and filling words."""
    text = LEAD_IN.sub("", _folded(rule))
    words = re.sub(r"[^\w ]+", " ", text).split()
    return " ".join(ENDING.sub("", word) for word in words if word not in FILLERS)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def gather(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Equal rules (``key_of``) as one, in the words met first; the best supported first."""
    by_key: dict[str, list[Rule]] = {}
    for rule in rules:
        by_key.setdefault(key_of(rule.text), []).append(rule)
    merged = [
        Rule(same[0].text, tuple(source for rule in same for source in rule.sources))
        for same in by_key.values()
    ]
    return tuple(sorted(merged, key=lambda rule: -rule.support))


async def merge_rules(
    rules: Sequence[Rule],
    call: Call,
    how: Asking,
    *,
    chunk: int,
    tick: Callable[[int], Any] | None = None,
) -> Taken:
    """One call that puts together what asks for the same, with the sources of all of it.

    More than ``chunk`` rules are merged in chunks of neighbors in spelling, then what is left
    again, until it fits one call or stays the same. A chunk whose call fails stays as it is.
    """
    dropped: Counter[str] = Counter()
    left = tuple(rules)
    for _ in range(MAX_PASSES if len(left) > 1 else 0):
        before = len(left)
        ordered = sorted(left, key=lambda rule: key_of(rule.text)) if before > chunk else left
        chunks = [ordered[at : at + chunk] for at in range(0, before, chunk)]
        told = await each(
            chunks, lambda some: _merged(some, call, how), concurrency=how.concurrency, tick=tick
        )
        found: list[Rule] = []
        for some, one in zip(chunks, told, strict=True):
            if isinstance(one, CallFailed):
                dropped[f"not merged: {one.kind}"] += 1
                found += some
                continue
            found += one.rules
            dropped += one.dropped
        left = gather(found)
        if before <= chunk or len(left) == before:
            break
    stopped = "budget" if dropped["not merged: budget"] else ""
    return Taken(left, dropped, stopped)


async def _merged(rules: Sequence[Rule], call: Call, how: Asking) -> Taken:
    lines = "\n".join(f"{at}. {rule.text}" for at, rule in enumerate(rules, start=1))
    numbers = {"type": "array", "items": {"type": "integer"}}
    request = how.request(
        question("merge-rules", [Section("rules", lines)], limit=len(lines) + 1, reply=MERGE_REPLY),
        schema=rules_schema("merge-rules", {"of": numbers}),
    )
    read = partial(_read_merged, rules=rules)
    taken, _ = await ask(call, request, read, repairs=how.repairs)
    return taken


def _read_merged(reply: Reply, *, rules: Sequence[Rule]) -> Taken:
    """Every rule given counts once, for the first that names it. Raises Unreadable for none.

    A rule that no line stands for stays as it was: a model that loses it has not judged it.
    """
    free = set(range(1, len(rules) + 1))
    dropped: Counter[str] = Counter()
    found = []
    for one in listed(reply, "rules"):
        row = one if isinstance(one, dict) else {}
        numbers = row.get("of")
        numbers = [n for n in numbers if type(n) is int] if isinstance(numbers, list) else []
        named = sorted(free & set(numbers))
        text = fit_rule(row.get("rule"), Counter())
        if not named or not text:
            dropped["merged into nothing"] += 1
            continue
        free -= set(named)
        found.append(Rule(text, tuple(s for n in named for s in rules[n - 1].sources)))
    if not found:
        raise Unreadable("no rule names the numbers of the lines it stands for")
    kept = [rules[n - 1] for n in sorted(free)]
    return Taken((*found, *kept), dropped)


def evidence_of(rule: Rule) -> tuple[Evidence, ...]:
    """The pairs whose explanation gave a rule, each once, with the words that said so."""
    quotes: dict[int, str] = {}
    for source in rule.sources:
        quotes[source.pair] = quotes.get(source.pair) or source.quote
    some = list(quotes.items())[:MAX_EVIDENCE]
    return tuple(Evidence(pair, supports=True, quote=quote, role="source") for pair, quote in some)


def ticker(journal: Journal, total: int, unit: str) -> Any:
    """Progress of calls that are bounded by ``total``, 0 where that is not known."""

    def tick(done: int) -> None:
        journal.progress(done, max(total, done), unit)
        journal.check()

    return tick
