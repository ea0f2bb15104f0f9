"""Constraints that a prompt states in words, in the manner of IFEval (Zhou et al. 2023).

Each reads the prompt's system and last user message and says None where it asks no such thing.
Only wordings that leave no doubt are recognized: a constraint that is missed says nothing, one
that is made up would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from rubrics.programs.case import Case, Prompt, Value, words_of
from rubrics.programs.layout import is_json
from rubrics.programs.length import NUMBER, number_of

TAIL: Final = 240  # characters after a trigger in which its words stand
QUOTED: Final = re.compile(r"[\"“]([^\"”]{1,120}+)[\"”]|(?<!\w)'([^']{1,60}+)'(?!\w)")
LISTED: Final = re.compile(r"\[([^\[\]]{1,200}+)\]")
_THINGS: Final = r"(?:key ?)?(?:words?|phrases?|terms?)"
_USE: Final = "include|including|use|using|mention|mentioning|contain|containing|say|write"
INCLUDE: Final = re.compile(
    rf"\b(?:{_USE})s?(?: all| both)?(?: of)?(?: the)?(?: following)? {_THINGS}\b"
)
NEVER: Final = re.compile(
    rf"\b(?:do not|don't|never|must not|should not|shouldn't|cannot|can't|without|avoid|refrain from)"
    rf"(?: (?:{_USE}))?(?: any of)?(?: the)?(?: following)? {_THINGS}\b"
)
NOT_BEFORE: Final = re.compile(r"\b(?:not|don't|never|without|avoid|shouldn't|can't|cannot|from)\b")
BARE: Final = re.compile(r" ([\w'-]{2,40}+)(?=[.,;!]|$| (?:in|at|anywhere|and nothing)\b)")
COMMAS: Final = re.compile(
    r"\b(?:no|without|avoid|refrain from|do not|don't|never|not)"
    r"(?: (?:use|using|any|the|use of|include|including)){0,3}+ commas?\b"
)
LOWER: Final = re.compile(
    r"\b(?:all|entirely|only)(?: in)? lower ?-?case\b|\bin (?:all |only )lower ?-?case\b"
    r"|\blower ?-?case(?: letters)? only\b|\bno (?:capital|upper ?-?case) letters\b"
    r"|\bin lower ?-?case letters\b"
)
UPPER: Final = re.compile(
    r"\b(?:all|entirely|only)(?: in)? (?:upper ?-?case|capital letters|capitals|caps)\b"
    r"|\bin (?:all |only )?(?:upper ?-?case|capital) letters\b|\bno lower ?-?case letters\b"
)
ABOUT_TEXT: Final = re.compile(r"\b(?:string|function|python|javascript|regex|variable|column)s?\b")
LETTER: Final = re.compile(
    rf"\bletter [\"'“]?([a-z])[\"'”]?(?: should| must| has to)? (?:appears?|occurs?)"
    rf" (at least|no fewer than|at most|no more than|less than|fewer than|more than|exactly)"
    rf" ({NUMBER})"
)
TIMES: Final = re.compile(
    rf"\bword [\"'“]([\w'-]{{1,40}}+)[\"'”](?: should| must| has to)? (?:appears?|occurs?)"
    rf" (at least|no fewer than|at most|no more than|less than|fewer than|more than|exactly)"
    rf" ({NUMBER})"
)
POSTSCRIPT: Final = re.compile(
    r"\b(?:add|include|end with|with|write|append)(?: a| an)? (?:postscript|p\.? ?s\b)"
)
PS_LINE: Final = re.compile(r"p\.? ?p?\.? ?s\b")
ANGLES: Final = re.compile(r"\bdouble angu?l(?:e|ar) brackets\b|<<[a-z ]{1,40}+>>")
TITLE: Final = re.compile(r"<<[^<>\n]{1,300}+>>")
QUOTES: Final = re.compile(
    r"\b(?:wrap|enclose|put|surround)(?: [a-z]{2,10}+){0,3}?"
    r" (?:response|answer|reply) (?:with|in|inside|by)(?: double)? quot(?:ation marks|es)\b"
)
ENDING: Final = re.compile(
    r"\b(?:end|finish|conclude|close)(?: your| the| this)?(?: entire)?"
    r"(?: response| answer| reply| text| message)? (?:with|by saying)(?: this| the)?(?: exact)?"
    r"(?: words?| phrase| sentence| question| line)?:? [\"“]([^\"”]{1,200}+)[\"”]"
)
JSON: Final = re.compile(
    r"\b(?:in|as|using|valid|with)(?: a| an)?(?: single)?(?: valid)? json\b(?! file)"
    r"|\bjson (?:format|object|only)\b"
)
ONLY: Final = re.compile(
    r"\b(?:respond|reply|answer|output|return|response|format|wrap|entire|provide)"
)
CLOSING_QUOTES: Final = '"”'


class Counts(NamedTuple):
    """How often something should come."""

    what: str
    how: str
    number: int

    def hold(self, count: int) -> bool:
        if self.how in ("at least", "no fewer than"):
            return count >= self.number
        if self.how in ("at most", "no more than"):
            return count <= self.number
        if self.how in ("less than", "fewer than"):
            return count < self.number
        return count > self.number if self.how == "more than" else count == self.number


def _named(text: str, at: int) -> list[str]:
    """The words that stand after a trigger: in quotes, in brackets, or one by itself."""
    tail = text[at : at + TAIL]
    # Up to the sentence's end, so that the next constraint's words stay its own.
    stop = re.search(r"[.!?;] (?!\d)", tail)
    tail = tail[: stop.start() + 1] if stop else tail
    quoted = [one or other for one, other in QUOTED.findall(tail)]
    if quoted:
        return quoted
    listed = LISTED.search(tail)
    if listed:
        return [one.strip(" '\"") for one in listed[1].split(",") if one.strip(" '\"")]
    bare = BARE.match(tail)
    return [bare[1]] if bare else []


def keywords(prompt: Prompt) -> list[list[str]]:
    """The words of every keyword that should be there."""
    found = []
    for match in INCLUDE.finditer(prompt.request):
        if NOT_BEFORE.search(prompt.request, max(0, match.start() - 20), match.start()):
            continue
        if prompt.request[match.end() : match.end() + 2].strip().isdigit():
            continue
        found += _named(prompt.request, match.end())
    return [words for one in found if (words := words_of(one))]


def forbidden(prompt: Prompt) -> list[list[str]]:
    found: list[str] = []
    for match in NEVER.finditer(prompt.request):
        found += _named(prompt.request, match.end())
    return [words for one in found if (words := words_of(one))]


def _has(case: Case, words: list[str]) -> bool:
    return f" {' '.join(words)} " in case.flow


def asked_keywords(case: Case) -> Value:
    """The share of the asked keywords that are there."""
    wanted = case.prompt.read(keywords)
    return sum(_has(case, one) for one in wanted) / len(wanted) if wanted else None


def without_words(case: Case) -> Value:
    banned = case.prompt.read(forbidden)
    return not any(_has(case, one) for one in banned) if banned else None


def _asks(pattern: re.Pattern[str], case: Case) -> bool:
    return case.prompt.read(_SEARCHES[pattern])


def no_commas(case: Case) -> Value:
    return "," not in case.text if _asks(COMMAS, case) else None


def lower_case(case: Case) -> Value:
    if not _asks(LOWER, case) or _asks(ABOUT_TEXT, case):
        return None
    return case.text == case.text.lower() and bool(case.words)


def upper_case(case: Case) -> Value:
    if not _asks(UPPER, case) or _asks(ABOUT_TEXT, case):
        return None
    return case.text == case.text.upper() and bool(case.words)


def _letter(prompt: Prompt) -> Counts | None:
    match = LETTER.search(prompt.request)
    return Counts(match[1], match[2], number_of(match[3])) if match else None


def letter_count(case: Case) -> Value:
    wanted = case.prompt.read(_letter)
    return wanted.hold(case.text.lower().count(wanted.what)) if wanted else None


def _times(prompt: Prompt) -> Counts | None:
    match = TIMES.search(prompt.request)
    return Counts(match[1], match[2], number_of(match[3])) if match else None


def word_count(case: Case) -> Value:
    wanted = case.prompt.read(_times)
    return wanted.hold(case.words.count(wanted.what)) if wanted else None


def postscript(case: Case) -> Value:
    if not _asks(POSTSCRIPT, case):
        return None
    return any(PS_LINE.match(line.lstrip("*_ ").lower()) for line in case.lines)


def title(case: Case) -> Value:
    """A title in double angle brackets."""
    return TITLE.search(case.text) is not None if _asks(ANGLES, case) else None


def quoted(case: Case) -> Value:
    """The whole response in quotation marks."""
    if not _asks(QUOTES, case):
        return None
    return len(case.bare) > 2 and case.bare[0] in '"“' and case.bare[-1] in CLOSING_QUOTES


def _ending(prompt: Prompt) -> list[str] | None:
    match = ENDING.search(prompt.request)
    return words_of(match[1]) if match else None


def ending(case: Case) -> Value:
    """The asked words are the last ones."""
    wanted = case.prompt.read(_ending)
    return case.words[-len(wanted) :] == wanted if wanted else None


def _json(prompt: Prompt) -> bool:
    """JSON is asked as the form of the answer, not talked about."""
    return any(
        ONLY.search(prompt.request, max(0, match.start() - 60), match.start())
        for match in JSON.finditer(prompt.request)
    )


def json_form(case: Case) -> Value:
    return is_json(case) or False if case.prompt.read(_json) else None


def _searcher(pattern: re.Pattern[str]) -> Callable[[Prompt], bool]:
    return lambda prompt: pattern.search(prompt.request) is not None


_SEARCHES: Final = {
    pattern: _searcher(pattern)
    for pattern in (COMMAS, LOWER, UPPER, ABOUT_TEXT, POSTSCRIPT, ANGLES, QUOTES)
}
