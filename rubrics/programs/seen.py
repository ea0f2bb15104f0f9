"""What a program saw in a response, in words: the count, the bound, the phrase behind its verdict.

Texts are quoted in part and on one line; they are as foreign as the response itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, cast

from rubrics.programs import PROGRAMS, Program, asked, code, language, layout, length, manner
from rubrics.programs import wording as words
from rubrics.programs.case import Block, Case, Prompt, Value
from rubrics.programs.evaluate import Messages, compute
from rubrics.registry import find

QUOTED: Final = 60  # characters of a response that a reason quotes
AROUND: Final = 20  # characters before and after what was found
MOST_NAMED: Final = 5
ASKED: Final = "asked-"


def seen(key: str, messages: Messages, text: str) -> str:
    """Why the program says what it says of one response. Raises UnknownMethod."""
    case = Case(Prompt(messages), text)
    return explain(key, case, compute(key, case))


def explain(key: str, case: Case, value: Value) -> str:
    """Why ``value`` is what the program says of this case."""
    row = cast(Program, find(PROGRAMS, key))
    if value is None:
        if key.startswith(ASKED) or not case.bare:
            return "the prompt does not ask for it" if case.bare else "there is no text"
        return "there is nothing in it that this can be asked of"
    if key in SEEN:
        return SEEN[key](case)
    if row.gives == "share":
        return f"{_percent(float(value))}: {row.summary}"
    return f"{'found' if value else 'not found'}: {row.summary}"


def counted(number: int, thing: str, plural: str = "") -> str:
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


def quote(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line if len(line) <= QUOTED else line[: QUOTED - 1] + '…'}”"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _bounds(bounds: length.Bounds) -> str:
    low, high = bounds
    if low == high:
        return f"exactly {low:,} asked"
    if low == 0:
        return f"at most {high:,} asked"
    return f"at least {low:,} asked" if high >= length.FAR else f"{low:,} to {high:,} asked"


def _limited(unit: str, count: Callable[[Case], int]) -> Callable[[Case], str]:
    def say(case: Case) -> str:
        found = case.prompt.read(length.limits)
        bounds = found.get(unit) or (found.get("item") if unit == "bullet" else None)
        told = counted(count(case), unit)
        return f"{told}; {_bounds(bounds)}" if bounds else told

    return say


def _lines_of_lists(case: Case) -> str:
    return f"{counted(case.items, 'bulleted line')}, {counted(case.numbered, 'numbered line')}"


def _paragraphs(case: Case) -> str:
    return f"{counted(case.paragraphs, 'paragraph')}, {_blocks(case)}"


def _blocks(case: Case) -> str:
    return counted(len(case.blocks), "block of code", "blocks of code")


def _headings(case: Case) -> str:
    return counted(sum(map(bool, map(layout.HEADING.match, case.prose))), "heading")


def _end(case: Case) -> str:
    return f"ends with {quote(case.bare[-30:])}"


def _parsing(
    which: Callable[[Block], bool], parses: Callable[[str], bool | None], verb: str
) -> Callable[[Case], str]:
    def say(case: Case) -> str:
        known = [ok for one in case.blocks if which(one) and (ok := parses(one.body)) is not None]
        return f"{sum(known)} of {counted(len(known), 'block')} {verb}"

    return say


def _phrase(phrases: tuple[str, ...], within: int | None) -> Callable[[Case], str]:
    """The first known phrase that is said, in its first words or anywhere."""
    where = f"in its first {within} words" if within else "in it"

    def say(case: Case) -> str:
        flow = case.opening(within) if within else case.flow
        found = next((one.strip() for one in phrases if one in flow), "")
        return f"says {quote(found)}" if found else f"no such phrase {where}"

    return say


def _match(*patterns: re.Pattern[str], lower: bool = False) -> Callable[[Case], str]:
    def say(case: Case) -> str:
        for line in case.prose:
            text = line.lower() if lower else line
            for pattern in patterns:
                if found := pattern.search(text):
                    return quote(_around(text, found.start(), found.end()))
        return "none found"

    return say


def _around(text: str, start: int, end: int) -> str:
    """What stands from ``start`` to ``end``, with the whole words near before it."""
    before = text[max(0, start - AROUND) : start]
    if start > AROUND:
        before = before.partition(" ")[2]
    return before + text[start : end + AROUND]


def _hedges(case: Case) -> str:
    found = sum(map(case.flow.count, manner.HEDGES))
    return f"{counted(found, 'hedge')} in {counted(case.sentences, 'sentence')}"


def _exclamations(case: Case) -> str:
    found = sum(line.count("!") + line.count("！") for line in case.prose)
    return f"{counted(found, 'exclamation mark')} in {counted(case.sentences, 'sentence')}"


def _swears(case: Case) -> str:
    found = sum(map(manner.SWEARS.__contains__, case.words))
    return counted(found, "strong word")


def _emoji(case: Case) -> str:
    return counted(len(manner.EMOJI.findall(case.text)), "emoji", "emoji")


def _opening(case: Case) -> str:
    return f"begins with {quote(' '.join(case.words[: words.ABOUT_SENTENCE]))}"


def _languages(case: Case) -> str:
    wanted = case.prompt.read(language.asked)
    said = f"{wanted} asked" if wanted else f"prompt in {case.prompt.read(language.of_prompt)}"
    return f"{said}, answer in {language.language_of(chr(10).join(case.prose))}"


def _keywords(case: Case) -> str:
    wanted = [" ".join(one) for one in case.prompt.read(asked.keywords)]
    missing = [one for one in wanted if f" {one} " not in case.flow]
    told = f"{len(wanted) - len(missing)} of {counted(len(wanted), 'keyword')}"
    return f"{told}; lacks {_named(missing)}" if missing else told


def _banned(case: Case) -> str:
    banned = [" ".join(one) for one in case.prompt.read(asked.forbidden)]
    found = [one for one in banned if f" {one} " in case.flow]
    return f"has {_named(found)}" if found else f"has none of {_named(banned)}"


def _named(texts: Iterable[str]) -> str:
    every = list(dict.fromkeys(texts))
    shown = ", ".join(map(quote, every[:MOST_NAMED]))
    return f"{shown} and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else shown


def _times(pattern: re.Pattern[str], count: Callable[[Case, str], int]) -> Callable[[Case], str]:
    def say(case: Case) -> str:
        match = pattern.search(case.prompt.request)
        assert match is not None, "a value came from this match"
        found = counted(count(case, match[1]), "time")
        return f"{quote(match[1])} {found}; {match[2]} {length.number_of(match[3])} asked"

    return say


SEEN: Final[dict[str, Callable[[Case], str]]] = {
    "characters": lambda case: counted(len(case.bare), "character"),
    "words": lambda case: counted(len(case.words), "word"),
    "sentences": lambda case: counted(case.sentences, "sentence"),
    "answered": lambda case: counted(len(case.words), "word"),
    "asked-words": _limited("word", lambda case: len(case.words)),
    "asked-sentences": _limited("sentence", lambda case: case.sentences),
    "asked-paragraphs": _limited("paragraph", lambda case: case.paragraphs),
    "asked-bullets": _limited("bullet", lambda case: max(case.items, case.numbered)),
    "list": _lines_of_lists,
    "numbered-list": lambda case: counted(case.numbered, "numbered line"),
    "headings": _headings,
    "bold": _match(layout.BOLD),
    "code-block": _blocks,
    "one-paragraph": _paragraphs,
    "complete-ending": _end,
    "truncated": _end,
    "python-parses": _parsing(
        lambda one: one.language in code.PYTHON, code.python_parses, "as Python"
    ),
    "json-parses": _parsing(lambda one: one.language == "json", code.json_parses, "as JSON"),
    "xml-parses": _parsing(lambda one: one.language in code.XML, code.xml_parses, "as XML"),
    "asked-code": _blocks,
    "same-language": _languages,
    "asked-language": _languages,
    "refusal": _phrase(manner.REFUSALS, manner.OPENING),
    "apology": _phrase(manner.APOLOGIES, manner.OPENING),
    "flattery": _phrase(manner.FLATTERIES, manner.FLATTERY_WITHIN),
    "ai-mention": _phrase(manner.MACHINES, None),
    "hedging": _hedges,
    "asks-back": _end,
    "exclamations": _exclamations,
    "emoji": _emoji,
    "placeholder": _match(manner.PLACEHOLDER, lower=True),
    "profanity": _swears,
    "restates": _opening,
    "sources": _match(words.URL, words.CITATION),
    "units": _match(words.UNIT, lower=True),
    "asked-keywords": _keywords,
    "asked-without": _banned,
    "asked-no-commas": lambda case: counted(case.text.count(","), "comma"),
    "asked-letter": _times(asked.LETTER, lambda case, what: case.text.lower().count(what)),
    "asked-word-count": _times(asked.TIMES, lambda case, what: case.words.count(what)),
    "asked-ending": _end,
}
