"""One response with its prompt, taken apart once for all programs.

Everything here takes time linear in the text, whatever the text is: patterns are single classes
repeated, or repeat a bounded number of times (tests/rubrics/test_programs_hostile.py checks them
all), and nothing recurses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

Found = TypeVar("Found")


def listed(text: str) -> tuple[str, ...]:
    """The words of a list that is written as text."""
    return tuple(text.split())


Value = bool | float | None  # None: the criterion does not apply

# Scripts without spaces: each character counts as a word.
_SPACELESS: Final = "぀-ヿ㐀-䶿一-鿿฀-๿"
WORD: Final = re.compile(r"[\w']+")
WORD_ANYWHERE: Final = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])[\w'])+")
ENDS: Final = ".!?。！？…"
CLOSERS: Final = "\"'”’»)]}*_`"
# Words with a period that ends no sentence.
ABBREVIATIONS: Final = frozenset(
    listed("mr mrs ms dr prof st vs etc e.g i.e eg ie cf no vol fig jr sr approx inc ltd co")
)
FENCES: Final = ("```", "~~~")
BULLET: Final = re.compile(r"[-*+•‣–][ \t]")
NUMBERED: Final = re.compile(r"\d{1,3}[.)][ \t]")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code. ``language`` in lower case, empty where none was given."""

    language: str
    body: str
    is_closed: bool


class Prompt:
    """What was asked. Parsers of it run once, however many responses it has."""

    def __init__(self, messages: Sequence[dict[str, str]]) -> None:
        self.last = next(
            (str(one["content"]) for one in reversed(messages) if one.get("role") == "user"), ""
        )
        system = [str(one["content"]) for one in messages if one.get("role") == "system"]
        self._whole = "\n".join([*system, self.last])
        self._found: dict[Callable[[Prompt], Any], Any] = {}

    @cached_property
    def request(self) -> str:
        """System and last user message, lower case, spaces single: what constraints stand in."""
        return " ".join(self._whole.replace("’", "'").split()).lower()

    @cached_property
    def exact(self) -> str:
        """The same with its capitals."""
        return " ".join(self._whole.replace("’", "'").split())

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.last)

    @cached_property
    def word_set(self) -> frozenset[str]:
        return frozenset(self.words)

    def read(self, parser: Callable[[Prompt], Found]) -> Found:
        """What a parser finds in it, asked once."""
        if parser not in self._found:
            self._found[parser] = parser(self)
        found: Found = self._found[parser]
        return found


class Case:
    """A response and its prompt."""

    def __init__(self, prompt: Prompt, text: str) -> None:
        self.prompt = prompt
        self.text = text

    @cached_property
    def bare(self) -> str:
        """Without the spaces around it."""
        return self.text.strip()

    @cached_property
    def words(self) -> list[str]:
        """Lower case, without punctuation, apostrophes kept inside."""
        return words_of(self.text)

    @cached_property
    def flow(self) -> str:
        """All words, a space before and after each: where phrases are looked for."""
        return f" {' '.join(self.words)} "

    def opening(self, count: int) -> str:
        """The first words, as in ``flow``."""
        return f" {' '.join(self.words[:count])} "

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not empty, without the spaces around them."""
        return [line for one in self.text.splitlines() if (line := one.strip())]

    @cached_property
    def _parts(self) -> tuple[list[Block], list[str]]:
        return split_blocks(self.text)

    @property
    def blocks(self) -> list[Block]:
        return self._parts[0]

    @property
    def prose(self) -> list[str]:
        """Lines outside of code, without the spaces around them; empty ones are kept."""
        return self._parts[1]

    @cached_property
    def paragraphs(self) -> int:
        """Runs of lines outside of code with an empty line between them."""
        return sum(
            bool(line) and not before
            for before, line in zip(["", *self.prose], self.prose, strict=False)
        )

    @cached_property
    def sentences(self) -> int:
        """Sentences outside of code; a line's end ends one, an abbreviation does not."""
        return sum(map(sentences_in, self.prose))

    @cached_property
    def items(self) -> int:
        """Lines that begin with a bullet."""
        return sum(BULLET.match(line) is not None for line in self.prose)

    @cached_property
    def numbered(self) -> int:
        """Lines that begin with a number and a period or bracket."""
        return sum(NUMBERED.match(line) is not None for line in self.prose)


def words_of(text: str) -> list[str]:
    """Words in lower case. Characters of scripts without spaces are a word each."""
    text = text.replace("’", "'").lower()
    pattern = WORD if text.isascii() else WORD_ANYWHERE
    return [word for one in pattern.findall(text) if (word := one.strip("'_"))]


def split_blocks(text: str) -> tuple[list[Block], list[str]]:
    """(fenced blocks of code, the lines outside of them)."""
    blocks: list[Block] = []
    prose: list[str] = []
    held: list[str] = []
    fence = language = ""
    for line in text.splitlines():
        bare = line.strip()
        mark = bare[:3]
        if not fence and mark in FENCES:
            fence, language, held = mark, bare.strip("`~ ").lower()[:40], []
        elif fence and mark == fence and not bare.strip("`~"):
            blocks.append(Block(language, "\n".join(held), True))
            fence = ""
        elif fence:
            held.append(line)
        else:
            prose.append(bare)
    if fence:
        blocks.append(Block(language, "\n".join(held), False))
    return blocks, prose


def sentences_in(line: str) -> int:
    """Sentences on one line; what has no end of its own is ended by the line's."""
    tokens = line.split()
    count = 0
    is_open = False
    for token in tokens:
        bare = token.rstrip(CLOSERS)
        if bare and bare[-1] in ENDS:
            stem = bare.rstrip(ENDS).lstrip("([\"'“‘*_").lower()
            is_short = bare[-1] == "." and (
                stem in ABBREVIATIONS or (len(stem) == 1 and stem.isalpha() and stem != "i")
            )
            is_number = not is_open and stem.isdigit()  # "1." before an item
            if is_short or is_number or not (stem or is_open):
                is_open = is_open or not is_number
                continue
            count += _inner_ends(stem) + 1
            is_open = False
        else:
            is_open = is_open or any(map(str.isalnum, bare))
    return count + is_open


def _inner_ends(stem: str) -> int:
    """Ends inside of a token: scripts without spaces have them."""
    return sum(map(stem.count, "。！？"))
