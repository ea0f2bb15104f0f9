"""What a response looks like."""

from __future__ import annotations

import re
from typing import Final

import orjson

from rubrics.programs.case import CLOSERS, ENDS, Case, Value, listed

HEADING: Final = re.compile(r"#{1,6}+[ \t]")
RULE: Final = frozenset("|-: ")
BOLD: Final = re.compile(r"\*\*[^*\s][^*]{0,200}+\*\*|__[^_\s][^_]{0,200}+__")
INLINE_CODE: Final = re.compile(r"`[^`\n]{1,200}+`")
LINK: Final = re.compile(r"\]\([^()\s]{1,300}+\)")
OPEN_ENDS: Final = ",;:-–—(/"
# Nobody ends on one of these.
HANGING: Final = frozenset(
    listed(
        "the a an and or but of to with for in on at by from as that which because if when while"
        " is are was were be this these their its your my our"
    )
)
DEEPEST_JSON: Final = 200


def whole_json(text: str) -> bool | None:
    """Whether a text is one JSON object or list. None: nested too deeply to say."""
    if text[:1] not in ("{", "["):
        return False
    depth = most = 0
    for mark in text:
        if mark in "[{":
            depth += 1
            most = max(most, depth)
        elif mark in "]}":
            depth -= 1
    if most > DEEPEST_JSON:
        return None
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def is_json(case: Case) -> Value:
    """One JSON object or list and nothing else, bare or in one fenced block."""
    if not case.bare:
        return None
    if len(case.blocks) == 1 and not any(case.prose):
        return whole_json(case.blocks[0].body.strip())
    return whole_json(case.bare)


def has_list(case: Case) -> Value:
    """Two bulleted or numbered lines, or more."""
    return None if not case.bare else case.items + case.numbered >= 2


def numbered_list(case: Case) -> Value:
    return None if not case.bare else case.numbered >= 2


def table(case: Case) -> Value:
    """A Markdown table: a row of cells above a row of dashes."""
    if not case.bare:
        return None
    return any(
        "|" in one and "|" in rule and "-" in rule and RULE.issuperset(rule)
        for one, rule in zip(case.prose, case.prose[1:], strict=False)
    )


def headings(case: Case) -> Value:
    return None if not case.bare else any(map(HEADING.match, case.prose))


def bold(case: Case) -> Value:
    return None if not case.bare else any(map(BOLD.search, case.prose))


def code_block(case: Case) -> Value:
    return None if not case.bare else bool(case.blocks)


def one_paragraph(case: Case) -> Value:
    return None if not case.bare else case.paragraphs == 1 and not case.blocks


def no_markdown(case: Case) -> Value:
    """No heading, list, table, bold, code or link."""
    if not case.bare:
        return None
    if case.blocks or case.items or case.numbered or table(case):
        return False
    return not any(
        HEADING.match(line) or BOLD.search(line) or INLINE_CODE.search(line) or LINK.search(line)
        for line in case.prose
    )


def complete_ending(case: Case) -> Value:
    """Ends with a sentence's end, a closed block of code or a list's item."""
    if not case.bare:
        return None
    if case.blocks and case.bare.endswith(("```", "~~~")):
        return case.blocks[-1].is_closed
    end = case.bare.rstrip(CLOSERS)
    return (bool(end) and end[-1] in ENDS) or _ends_in_list(case)


def _ends_in_list(case: Case) -> bool:
    last = case.lines[-1]
    is_item = last[:1] in "-*+•|" or last[:1].isdigit()
    return is_item and not truncated(case)


def truncated(case: Case) -> Value:
    """Breaks off: an open block of code, a hanging word, a comma, a bracket never closed."""
    if not case.bare:
        return None
    if case.blocks and not case.blocks[-1].is_closed:
        return True
    if case.bare[-1] in OPEN_ENDS and not case.bare.endswith((":-", ";)", ":(", "--", "---")):
        return True
    return case.bare[-1].isalpha() and bool(case.words) and case.words[-1] in HANGING
