"""What a chat request asks: the sections of its prompt, the answers, and the form of the reply."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

from rubrics.judging.sections import FENCED, read_sections

ANSWER: Final = re.compile(r"^answer(?: ([A-Z]))?$")
IS_NEXT: Final = re.compile(r"answer(?: ([A-Z]))? is the next picture\W*$", re.IGNORECASE)
BULLET: Final = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
RANGE: Final = re.compile(r"\b(-?\d{1,3}) *(?:to|–|-|\.\.) *(-?\d{1,3})\b")


class BadRequest(ValueError):
    """A request that no server of this protocol would take. The message is for its sender."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``picture``: SHA-256, hex, of an image's bytes; empty where there is none."""

    label: str
    text: str
    picture: str = ""


@dataclass(frozen=True)
class Asked:
    """One request as the simulated judge understands it. Answers stand as they are shown."""

    model: str
    sections: Mapping[str, str]
    answers: tuple[Answer, ...]
    schema: Mapping[str, Any] | None
    text: str = field(repr=False)
    temperature: float = 0.0
    seed: int | None = None

    @property
    def title(self) -> str:
        """The title of the schema; empty where there is none."""
        title = (self.schema or {}).get("title")
        return title if isinstance(title, str) else ""

    @property
    def properties(self) -> Mapping[str, Any]:
        found = (self.schema or {}).get("properties")
        return found if isinstance(found, dict) else {}

    @cached_property
    def instructions(self) -> str:
        """The prompt less everything foreign."""
        return FENCED.sub(" ", self.text)

    def wants(self, key: str) -> bool:
        """Whether a key is asked for, by the schema or, without one, in the prompt."""
        return key in self.properties if self.schema else f'"{key}"' in self.instructions

    def lines(self, section: str) -> list[str]:
        """The lines of a section, less bullets and numbers."""
        rows = self.sections.get(section, "").splitlines()
        return [BULLET.sub("", row).strip() for row in rows if row.strip()]

    @property
    def prompt(self) -> str:
        return self.sections.get("prompt", "")

    @cached_property
    def criteria(self) -> list[str]:
        return self.lines("criteria")

    @property
    def principle(self) -> str:
        return self.sections.get("principle", "")

    def scale(self, low: int, high: int) -> tuple[int, int]:
        """The first "3 to 7" in the instructions, else what is given."""
        found = RANGE.search(self.instructions)
        bounds = (int(found[1]), int(found[2])) if found else (low, high)
        return bounds if bounds[0] < bounds[1] else (low, high)


def read(body: Mapping[str, Any]) -> Asked:
    """Raises BadRequest."""
    model = body.get("model")
    if not isinstance(model, str):
        raise BadRequest("you must provide a model parameter")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list with at least one message")
    parts = [part for message in messages for part in _parts(message)]
    text = "\n".join(part for part in parts if isinstance(part, str))
    sections = read_sections(text)
    seed = body.get("seed")
    return Asked(
        model=model,
        sections=sections,
        answers=_answers(sections, parts),
        schema=_schema(body.get("response_format")),
        text=text,
        temperature=_number(body.get("temperature"), "temperature"),
        seed=seed if isinstance(seed, int) else None,
    )


def _number(value: Any, name: str) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise BadRequest(f"'{name}' must be a number from 0 to 2")
    return float(value)


def _parts(message: Any) -> list[str | bytes]:
    """Text and image bytes of a message; nothing of what the judge itself said before."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRequest("every message needs a role")
    content = message.get("content")
    if message["role"] == "assistant":
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise BadRequest("content must be a string or a list of parts")
    return [_part(part) for part in content]


def _part(part: Any) -> str | bytes:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    image = part.get("image_url") if kind == "image_url" else None
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str):
        raise BadRequest("a part must be text or image_url")
    head, comma, data = url.partition(";base64,")
    if not comma or not head.startswith("data:image/"):
        raise BadRequest("images are taken as data: URLs only")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadRequest("an image is not valid base64") from error


def _schema(form: Any) -> Mapping[str, Any] | None:
    """The schema asked for; its title, where it has none, is the name it was sent under."""
    if form is None or (isinstance(form, dict) and form.get("type") in ("text", "json_object")):
        return None
    inner = form.get("json_schema") if isinstance(form, dict) else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(schema, dict):
        raise BadRequest("response_format needs json_schema.schema")
    return {"title": inner.get("name"), **schema}


def _answers(sections: Mapping[str, str], parts: Sequence[str | bytes]) -> tuple[Answer, ...]:
    """Answers in the order shown. A picture belongs to the answer named in the line before it."""
    texts: dict[str, str] = {}
    for name, text in sections.items():
        if found := ANSWER.match(name):
            texts[found[1] or ""] = text
    pictures: dict[str, str] = {}
    before = ""
    for part in parts:
        if isinstance(part, str):
            before = part.rstrip()[-80:]
        elif found := IS_NEXT.search(before):
            pictures[(found[1] or "").upper()] = sha256(part).hexdigest()
    labels = sorted({*texts, *pictures})
    return tuple(Answer(label, texts.get(label, ""), pictures.get(label, "")) for label in labels)
