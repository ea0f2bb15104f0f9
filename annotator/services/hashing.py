"""What makes two prompts, responses or tasks the same: 16-byte BLAKE2b digests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import orjson

SIZE: Final = 16
UNIT: Final = b"\x1f"  # between parts: two texts joined are not one longer text


def digest(*parts: bytes) -> bytes:
    return blake2b(UNIT.join(parts), digest_size=SIZE).digest()


def of_prompt(messages: Sequence[dict[str, Any]], raw: str = "") -> bytes:
    """Role and content of every message; ``raw`` tells transcripts apart that parse alike."""
    turns = [[message["role"], message["content"]] for message in messages]
    return digest(orjson.dumps(turns), raw.encode()) if raw else digest(orjson.dumps(turns))


def of_response(text: str, generator: str = "", raw: str = "") -> bytes:
    """Text and who wrote it: the same words of two named generators are two responses."""
    return digest(text.encode(), generator.encode(), raw.encode())


def of_task(
    kind: str, prompt: bytes, responses: Iterable[bytes], *, rubric_version: int | None = None
) -> bytes:
    """The kind and the set of responses, in whatever order they came.

    The same responses under another version of a rubric are another task.
    """
    asked = () if rubric_version is None else (b"rubric version %d" % rubric_version,)
    return digest(kind.encode(), prompt, *sorted(responses), *asked)
