"""The elements of one huge JSON array, one at a time, in memory that does not grow with it.

``json`` finds where an element ends (its scanner is written in C and lenient); ``orjson`` then
reads the element strictly. So an element that is well formed but unreadable (NaN, a lone
surrogate) is one bad row; only broken structure ends the file.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from io import BufferedReader
from typing import Final

from annotator.errors import Invalid

CHUNK: Final = 1 << 18
MAX_ELEMENT: Final = 16 * 1024**2
# Lists that belong to a row: a single row written over several lines is no container.
ROW_LISTS: Final = frozenset(
    f'"{name}"'
    for name in ("messages", "responses", "images", "chosen", "rejected", "prompt", "tags")
)
SPACE: Final = re.compile(r"[ \t\r\n]*")


class Window:
    """A sliding piece of the text, with the line number of its reading position."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        # Numbers are not converted here, so their size is no matter.
        decoder = json.JSONDecoder(strict=False, parse_int=len, parse_float=len)
        self._find = decoder.scan_once
        self.text = ""
        self.at = 0
        self.line = 1
        self.is_over = False

    def fill(self) -> bool:
        """Read on; False at the end of the file."""
        if self.is_over:
            return False
        # As much again as waits: a long element is scanned a few times, not hundreds.
        data = self._stream.read(max(CHUNK, len(self.text) - self.at))
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            raise Invalid(
                f"The file is not UTF-8 text (after line {self.line}).",
                advice="Save it as UTF-8 and send it again. Nothing was imported.",
            ) from None
        self.is_over = not data
        self.line += self.text.count("\n", 0, self.at)
        self.text = self.text[self.at :] + more
        self.at = 0
        return True

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.fill():
                return ""

    def take(self, expected: str) -> None:
        if self.peek() != expected:
            self.broken(f"“{expected}” was expected")
        self.at += 1

    def value(self) -> str:
        """The text of the next JSON value. Raises Invalid for broken structure."""
        self.peek()
        while True:
            try:
                _, end = self._find(self.text, self.at)
            except (StopIteration, json.JSONDecodeError):
                end = -1
            except RecursionError:
                self.broken("it is nested too deeply")
            # A number or word that touches the end of the window may go on.
            if end >= 0 and (end < len(self.text) or self.is_over):
                found = self.text[self.at : end]
                self.at = end
                return found
            if len(self.text) - self.at > MAX_ELEMENT:
                self.broken("one element is broken or longer than 16 MB")
            if not self.fill():
                self.broken("the file ends in the middle, or an element is not JSON")

    def broken(self, why: str) -> None:
        line = self.line + self.text.count("\n", 0, self.at)
        raise Invalid(
            f"The JSON cannot be read from line {line} on: {why}.",
            advice="Nothing was imported. In JSON Lines, one row a line, a bad line costs only"
            " itself.",
        )


def array_elements(window: Window) -> Iterator[str]:
    """The texts of the elements of the array that the window stands before."""
    window.take("[")
    if window.peek() == "]":
        window.at += 1
        return
    while True:
        yield window.value()
        if window.peek() == "]":
            window.at += 1
            return
        window.take(",")


def rows(stream: BufferedReader) -> Iterator[str]:
    """The elements of a top-level array, or of the first list in a top-level object.

    An object without a list of objects is one row by itself.
    """
    window = Window(stream)
    if window.peek() == "[":
        yield from array_elements(window)
    else:
        yield from _object_rows(window)
    if window.peek():
        window.broken("something follows the end")


def _object_rows(window: Window) -> Iterator[str]:
    window.take("{")
    members: list[str] = []
    size = 0
    found = False
    while window.peek() != "}":
        key = window.value()
        window.take(":")
        if not found and window.peek() == "[" and _opens_rows(window, key):
            found = True
            yield from array_elements(window)
        else:
            value = window.value()
            size += len(value)
            if not found and size <= MAX_ELEMENT:
                members.append(f"{key}:{value}")
        if window.peek() == ",":
            window.at += 1
        elif window.peek() != "}":
            window.broken("a comma was expected")
    window.at += 1
    if not found:
        yield "{" + ",".join(members) + "}"


def _opens_rows(window: Window, key: str) -> bool:
    """Whether the list under ``key`` holds the rows, not a part of the only row."""
    if key in ROW_LISTS:
        return False
    while not (ahead := re.match(r"\[[ \t\r\n]*([^ \t\r\n])", window.text[window.at :])):
        if not window.fill():
            return False
    return ahead[1] == "{"
