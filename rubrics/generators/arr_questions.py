"""What ARR asks a model to write: criteria for a pair, better ones, criteria for a prompt, themes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rubrics.asking import Section, as_sentence, conversation, question, reply_words
from rubrics.generators.arr_options import ArrOptions
from rubrics.generators.rules import BULLET
from rubrics.generators.types import PreferencePair
from rubrics.judging.prompts import one_line
from rubrics.judging.reading import Unreadable, read_object
from rubrics.llm.types import Message, Reply, Request

MAX_CRITERION: Final = 400  # characters
MAX_THEME: Final = 120
MAX_READ: Final = 60  # criteria of one reply that are looked at
# "Answer A", "the second response", "A is better": what only holds of this showing.
PLACE: Final = re.compile(
    r"\b(?i:answer|response|option|candidate|image|picture|assistant) ?[AB12]\b"
    r"|\b(?i:first|second|1st|2nd|left|left-hand|right-hand|latter|former|preferred|chosen|rejected) "
    r"(?i:answer|response|candidate|one|image|picture|assistant)\b"
    r"|\b[AB] (?:is|was|wins|beats)\b|\b[AB] ?[>≻] ?[AB]\b"
)
LABELS: Final = ("answer A", "answer B")
MOST_REASONS: Final = 5  # of one pair that are shown
MAX_REASON: Final = 600  # characters of each
SAID: Final = (
    'The section "reasons" holds what people wrote of why, one a line; they may call an answer by '
    "a place or letter it does not have here. Criteria that say what they say come first."
)
KEYS: Final = {
    "reasoning": "what sets the answers apart, in a few sentences",
    "rubric": "a list of the criteria, each a text",
}
THEME_KEYS: Final = {
    "themes": (
        'a list of objects with the keys "theme" (one line) and "tips", a list of objects with the '
        'keys "text" (the tip) and "from" (a list of the numbers it says)'
    )
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """Criteria that can be used, and how many cannot by the reason."""

    criteria: tuple[str, ...]
    refused: Counter[str]


@dataclass(frozen=True, slots=True)
class Tip:
    """One criterion of a structured rubric, and the places of the lines that it says."""

    text: str
    theme: str
    lines: tuple[int, ...]


def propose(pair: PreferencePair, options: ArrOptions, *, is_chosen_first: bool) -> Request:
    sections = _shown(pair, options, is_chosen_first=is_chosen_first)
    return _criteria_request("arr-propose", sections, options)


def reasons_of(pair: PreferencePair) -> list[str]:
    """What people wrote of a pair, each text once, the first few of them."""
    said = [one_line(one.text)[:MAX_REASON] for one in pair.rationales]
    return list(dict.fromkeys(text for text in said if text))[:MOST_REASONS]


def refine(
    pair: PreferencePair,
    options: ArrOptions,
    *,
    is_chosen_first: bool,
    previous: Sequence[str],
    feedback: Sequence[str],
) -> Request:
    sections = [
        *_shown(pair, options, is_chosen_first=is_chosen_first),
        Section("previous", numbered(previous)),
        Section("feedback", "\n".join(feedback)),
    ]
    return _criteria_request("arr-refine", sections, options)


def of_prompt(messages: Sequence[dict[str, str]], options: ArrOptions) -> Request:
    return _criteria_request("arr-prompt", [Section("prompt", conversation(messages))], options)


def structure(lines: Sequence[str], options: ArrOptions) -> Request:
    schema = {
        "title": "arr-structure",
        **_object({"themes": _list_of(_object({"theme": TEXT, "tips": _list_of(TIP)}))}),
    }
    messages = question(
        "arr-structure",
        [Section("accepted", numbered(lines))],
        count=str(options.themes),
        reply=reply_words(THEME_KEYS),
    )
    return _request(messages, schema, options)


def numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"{at}. {one_line(line)}" for at, line in enumerate(lines, start=1))


def read_criteria(reply: Reply, most: int) -> Proposal:
    """Raises Unreadable where nothing can be used; the message tells the model what is wrong."""
    said = read_object(reply.text).get("rubric")
    if not isinstance(said, list):
        raise Unreadable('"rubric" is not a list')
    kept: dict[str, str] = {}
    refused: Counter[str] = Counter()
    for one in said[:MAX_READ]:
        text = BULLET.sub("", one_line(one)) if isinstance(one, str) else ""
        reason = _fault(text, kept)
        if reason or len(kept) == most:
            refused[reason or "too-many"] += 1
        else:
            kept[folded(text)] = as_sentence(text)
    if not kept:
        why = max(refused, key=lambda reason: refused[reason], default="empty")
        raise Unreadable(f'"rubric" holds no criterion that can be used ({why})')
    return Proposal(tuple(kept.values()), refused)


def read_themes(reply: Reply, count: int) -> list[Tip]:
    """Tips that say lines 1 to ``count``, no line twice. Raises Unreadable where there are none."""
    said = read_object(reply.text).get("themes")
    if not isinstance(said, list):
        raise Unreadable('"themes" is not a list')
    tips, taken = [], set[int]()
    for theme in said[:count]:
        named = theme if isinstance(theme, dict) else {}
        title = one_line(str(named.get("theme") or ""))[:MAX_THEME]
        each = named.get("tips")
        for tip in each[:count] if isinstance(each, list) else ():
            text, places = _tip(tip, count)
            places = [place for place in places if place not in taken]
            if text and places:  # what says none of the lines was made up
                taken.update(places)
                tips.append(Tip(text, title, tuple(places)))
    if not tips:
        raise Unreadable('no tip of "themes" names the lines it says under "from"')
    return tips


def folded(text: str) -> str:
    """What tells one criterion from another: letters and digits."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def _tip(tip: Any, count: int) -> tuple[str, list[int]]:
    """The text and the places from 0; no text where it is none that a rubric could hold."""
    named: Mapping[str, Any] = tip if isinstance(tip, dict) else {}
    said, lines = named.get("text"), named.get("from")
    text = BULLET.sub("", one_line(said)) if isinstance(said, str) else ""
    given = lines if isinstance(lines, list) else ()
    places = [
        line - 1
        for line in given
        if isinstance(line, int) and not isinstance(line, bool) and 1 <= line <= count
    ]
    return ("" if _fault(text, {}) else as_sentence(text)), list(dict.fromkeys(places))


def _fault(text: str, kept: Mapping[str, str]) -> str:
    """Why a criterion cannot be used; empty where it can."""
    if not any(char.isalnum() for char in text):
        return "empty"
    if len(text) > MAX_CRITERION:
        return "too-long"
    if PLACE.search(text):
        return "position-cue"
    return "repeated" if folded(text) in kept else ""


def _shown(pair: PreferencePair, options: ArrOptions, *, is_chosen_first: bool) -> list[Section]:
    reasons = reasons_of(pair) if options.rationales else []
    answers = [pair.chosen, pair.rejected] if is_chosen_first else [pair.rejected, pair.chosen]
    return [
        Section("prompt", conversation(pair.messages)),
        *(
            Section(label, answer.text, answer.picture)
            for label, answer in zip(LABELS, answers, strict=True)
        ),
        Section("preferred", LABELS[0 if is_chosen_first else 1]),
        Section("reasons", "\n".join(f"- {text}" for text in reasons)),
    ]


def _criteria_request(name: str, sections: list[Section], options: ArrOptions) -> Request:
    schema = {"title": name, **_object({"reasoning": TEXT, "rubric": _list_of(TEXT)})}
    has_reasons = any(one.name == "reasons" and one.text for one in sections)
    messages = question(
        name,
        sections,
        count=str(options.criteria),
        reply=reply_words(KEYS),
        said=SAID if has_reasons else "",
    )
    return _request(messages, schema, options)


def _request(
    messages: tuple[Message, ...], schema: Mapping[str, Any], options: ArrOptions
) -> Request:
    return Request(
        model=options.model,
        messages=messages,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        seed=options.seed if options.temperature > 0 else None,
        schema=schema,
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list_of(what: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": what}


TEXT: Final = {"type": "string"}
TIP: Final = _object({"text": TEXT, "from": _list_of({"type": "integer"})})
