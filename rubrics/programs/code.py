"""Whether code parses. Nothing is ever executed."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Final
from xml.parsers import expat

from rubrics.programs.case import Block, Case, Prompt, Value
from rubrics.programs.layout import whole_json

LONGEST: Final = 20_000  # characters of a block that is parsed; longer ones are not judged
DEEPEST: Final = 40  # brackets, indents and operators inside each other
PYTHON: Final = frozenset({"python", "py", "python3", "py3"})
XML: Final = frozenset({"xml", "svg", "xhtml", "rss"})
OPENING: Final = {"(": ")", "[": "]", "{": "}"}
CLOSING: Final = frozenset(OPENING.values())
ASKS_CODE: Final = re.compile(
    r"\b(?:write|implement|create|give me|provide|code|develop)"
    r" (?:me )?(?:a |an |some |the )?(?:[\w+#-]{1,20}+ ){0,3}"
    r"(?:function|script|program|snippet|regex|query|class|method|algorithm in|code)\b"
)
# Operators that nest without a bracket; a run of them is a nest.
NESTING: Final = re.compile(r"(?:[-+~] ?|not |lambda: ?|await ){12}+")


def python_parses(text: str) -> bool | None:
    """Whether a text is Python's grammar. None: too long or too deep to try."""
    if len(text) > LONGEST or _depth(text) > DEEPEST or NESTING.search(text):
        return None
    if any(_indents(text)):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string parses, with a warning
            ast.parse(_without_prompt(text))
    except (SyntaxError, ValueError):
        return False
    except (RecursionError, MemoryError):
        return None
    return True


def _indents(text: str) -> Iterable[bool]:
    deepest = DEEPEST * 8
    return (
        len(line) > deepest and not line[:deepest].strip() and bool(line.strip())
        for line in text.splitlines()
    )


def _without_prompt(text: str) -> str:
    """A session of the interpreter as what was typed in it."""
    lines = text.splitlines()
    if not any(line.startswith(">>> ") for line in lines):
        return text
    return "\n".join(line[4:] for line in lines if line[:4] in (">>> ", "... "))


def _depth(text: str) -> int:
    depth = most = 0
    for mark in text:
        if mark in OPENING:
            depth += 1
            most = max(most, depth)
        elif mark in CLOSING:
            depth = max(0, depth - 1)
    return most


def xml_parses(text: str) -> bool | None:
    """Whether a text is well-formed XML. None: too long, or with entities of its own."""
    if len(text) > LONGEST or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        expat.ParserCreate().Parse(text.strip().encode(), True)
    except (expat.ExpatError, UnicodeEncodeError, ValueError):
        return False
    return True


def json_parses(text: str) -> bool | None:
    return whole_json(text.strip()) if len(text) <= LONGEST else None


def _share(blocks: Iterable[Block], parses: Callable[[str], bool | None]) -> Value:
    known = [ok for block in blocks if (ok := parses(block.body)) is not None]
    return sum(known) / len(known) if known else None


def python_code(case: Case) -> Value:
    """The share of blocks marked as Python that parse."""
    return _share((one for one in case.blocks if one.language in PYTHON), python_parses)


def json_code(case: Case) -> Value:
    """The share of blocks marked as JSON that parse."""
    return _share((one for one in case.blocks if one.language == "json"), json_parses)


def xml_code(case: Case) -> Value:
    """The share of blocks marked as XML that are well-formed."""
    return _share((one for one in case.blocks if one.language in XML), xml_parses)


def balanced(case: Case) -> Value:
    """Brackets close in the order they were opened, in all blocks of code or else in the text.

    Blocks of code hold brackets in strings and comments too, so this is a hint, not a proof.
    """
    texts = [block.body for block in case.blocks] or ["\n".join(case.prose)]
    if not any(mark in text for text in texts for mark in "()[]{}"):
        return None
    return all(map(_closes, texts))


def _closes(text: str) -> bool:
    wanted: list[str] = []
    before = ""
    for mark in text:
        if mark in OPENING:
            wanted.append(OPENING[mark])
        elif mark in CLOSING:
            if wanted and wanted[-1] == mark:
                wanted.pop()
            elif not (mark == ")" and (before.isalnum() or before in ":;.8")):
                return False  # "a)" of a list and a smiley close nothing
        before = mark
    return not wanted


def asks_code(prompt: Prompt) -> bool:
    return ASKS_CODE.search(prompt.request) is not None


def asked_code(case: Case) -> Value:
    """Where the prompt asks for code, there is a block of it or indented lines that are."""
    if not case.prompt.read(asks_code):
        return None
    if case.blocks:
        return True
    lines = case.text.splitlines()
    return (
        sum(line.startswith(("    ", "\t")) or line.endswith((";", "{", "}")) for line in lines) > 1
    )
