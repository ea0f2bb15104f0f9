r"""Conversations written as one text: ``\n\nHuman: ...\n\nAssistant: ...`` (HH-RLHF).

Parsing keeps every character: a turn's content is what stands between its marker and the next,
less the one space after the colon. ``render`` puts it back, so a transcript whose markers all
have that space comes back byte for byte; ``is_exact`` tells, and what does not is kept verbatim
beside the parsed form by the importer (``Prompt.extra`` and ``Response.extra``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

Message = dict[str, str]

ROLES: Final = {"Human": "user", "Assistant": "assistant"}
NAMES: Final = {"user": "Human", "assistant": "Assistant"}
MARKER: Final = re.compile(r"\n\n(Human|Assistant):")
# Keys in Prompt.extra / Response.extra.
FORM: Final = "transcript"  # Prompt.extra[FORM] == "hh": this prompt came as a transcript
RAW: Final = "transcript_raw"  # the exact text, where ``render`` would not give it back


def looks_like(text: str) -> bool:
    """Whether a text is a transcript: it opens with a person's turn and has an answer."""
    return text.startswith(("\n\nHuman:", "Human:")) and "\n\nAssistant:" in text


def parse(text: str) -> list[Message]:
    """The turns of a transcript. Text before the first marker becomes a system message."""
    parts = MARKER.split(text if text.startswith("\n\n") else f"\n\n{text}")
    turns = []
    if parts[0].strip():
        turns.append({"role": "system", "content": parts[0].strip()})
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        turns.append({"role": ROLES[name], "content": content.removeprefix(" ")})
    return turns


def render(messages: Sequence[Message]) -> str:
    """The transcript of some turns; the inverse of ``parse`` where ``is_exact``."""
    return "".join(
        f"\n\n{NAMES[message['role']]}: {message['content']}"
        if message["role"] in NAMES
        else f"\n\n{message['content']}"
        for message in messages
    )


def render_prompt(messages: Sequence[Message], extra: dict[str, Any]) -> str:
    r"""The prompt as a transcript that ends in ``\n\nAssistant:``, where an answer begins."""
    raw = extra.get(RAW)
    return raw if isinstance(raw, str) else f"{render(messages)}\n\nAssistant:"


def render_reply(text: str, messages: Sequence[Message] | None, extra: dict[str, Any]) -> str:
    r"""The answer as it follows ``render_prompt``: a space, then the text."""
    raw = extra.get(RAW)
    if isinstance(raw, str):
        return raw
    if messages:
        return f" {messages[0]['content']}{render(messages[1:])}"
    return f" {text}"


def split_reply(one: list[Message], other: list[Message]) -> int | None:
    """How many turns two conversations share before their answers; None when they share none.

    Both rests begin with an assistant's turn. Only whole turns are shared: a common opening of
    two answers stays in the answers.
    """
    common = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        common += 1
    while common > 0:
        rests = one[common:], other[common:]
        if all(rest and rest[0]["role"] == "assistant" for rest in rests):
            return common
        common -= 1
    return None
