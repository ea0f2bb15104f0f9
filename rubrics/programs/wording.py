"""Words: repeated, copied from the prompt, new, hard to read, varied; sources and figures."""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from rubrics.programs.case import Case, Prompt, Value, listed

GRAM: Final = 4  # words of a phrase that is repeated or copied
ABOUT_SENTENCE: Final = 6  # words
WINDOW: Final = 100  # words over which variety is measured, so that it does not fall with length
LONG_LINE: Final = 20  # characters; shorter lines may well come twice
COMMON: Final = frozenset(
    listed(
        "a about all also am an and any are as at be been but by can could did do does for from had"
        " has have he her him his how i if in into is it its just me more most my no not of on one or"
        " other our out she so some such than that the their them then there these they this to up us"
        " was we were what when where which who why will with would you your"
    )
)
URL: Final = re.compile(r"\bhttps?://[^\s<>]{4,300}+|\bwww\.[^\s<>]{4,300}+|\bdoi:[^\s<>]{4,100}+")
CITATION: Final = re.compile(
    r"\[\d{1,3}\]|\((?:[A-Z][\w'-]{1,30}+,? (?:et al\.,? )?|see )(?:19|20)\d\d[a-z]?\)|\bet al\b"
)
FIGURE: Final = re.compile(r"\d")
UNIT: Final = re.compile(
    r"\d ?(?:%|°|€|£|¥|km|cm|mm|kg|mg|ml|lb|oz|mph|kwh|kw|hz|mhz|ghz|kb|mb|gb|tb|percent|degrees"
    r"|meters|metres|miles|feet|inches|grams|pounds|dollars|euros|years|months|weeks|days|hours"
    r"|minutes|seconds)(?![a-z])|[$€£¥] ?\d"
)
VOWELS: Final = re.compile(r"[aeiouyà-öø-ÿ]+")


def _grams(words: list[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(islice(words, at, None) for at in range(size)), strict=False))


def repeated_phrases(case: Case) -> Value:
    """The share of runs of four words that were there before."""
    grams = _grams(case.words, GRAM)
    return 1 - len(set(grams)) / len(grams) if grams else None


def repeated_lines(case: Case) -> Value:
    """The share of longer lines that were there before."""
    lines = [line for line in case.lines if len(line) >= LONG_LINE]
    return 1 - len(set(lines)) / len(lines) if lines else None


def _prompt_grams(prompt: Prompt) -> frozenset[tuple[str, ...]]:
    return frozenset(_grams(prompt.words, GRAM))


def copied(case: Case) -> Value:
    """The share of runs of four words that the prompt has too."""
    known = case.prompt.read(_prompt_grams)
    grams = _grams(case.words, GRAM)
    return sum(map(known.__contains__, grams)) / len(grams) if grams and known else None


def _content(prompt: Prompt) -> frozenset[str]:
    return prompt.word_set - COMMON


def on_topic(case: Case) -> Value:
    """The share of the prompt's words, the most common aside, that come up."""
    wanted = case.prompt.read(_content)
    return len(wanted.intersection(case.words)) / len(wanted) if wanted and case.words else None


def novelty(case: Case) -> Value:
    """The share of different words, the most common aside, that the prompt does not have."""
    used = set(case.words) - COMMON
    return len(used - case.prompt.word_set) / len(used) if used else None


def readable(case: Case) -> Value:
    """Flesch reading ease, 0 to 100, as a share. Syllables are runs of vowels; English only.

    Flesch 1948, Journal of Applied Psychology 32:221.
    """
    words = [word for word in case.words if word.isascii() and word.isalpha()]
    if len(words) < ABOUT_SENTENCE or len(words) * 2 < len(case.words):
        return None
    silent = sum(len(word) > 3 and word.endswith("e") and word[-2:] != "le" for word in words)
    syllables = max(len(words), len(VOWELS.findall(" ".join(words))) - silent)
    per_sentence = len(words) / max(1, case.sentences)
    ease = 206.835 - 1.015 * per_sentence - 84.6 * syllables / len(words)
    return min(1.0, max(0.0, ease / 100))


def varied(case: Case) -> Value:
    """Different words by all words, the mean over windows of 100."""
    words = case.words
    if len(words) < ABOUT_SENTENCE:
        return None
    windows = [words[at : at + WINDOW] for at in range(0, len(words), WINDOW)]
    if len(windows) > 1 and len(windows[-1]) < WINDOW:
        windows.pop()
    return sum(len(set(one)) / len(one) for one in windows) / len(windows)


def sources(case: Case) -> Value:
    """Names a source: an address, a number in brackets, an author with a year."""
    if not case.bare:
        return None
    return any(URL.search(line) or CITATION.search(line) for line in case.prose)


def figures(case: Case) -> Value:
    """The share of words that hold a digit."""
    tokens = [token for line in case.prose for token in line.split()]
    found = sum(FIGURE.search(token) is not None for token in tokens)
    return found / len(tokens) if tokens else None


def units(case: Case) -> Value:
    """A figure with its unit or currency."""
    return None if not case.bare else any(UNIT.search(line.lower()) for line in case.prose)
