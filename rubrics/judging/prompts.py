"""One question to a model: an item in one order, as messages and a schema.

Foreign text stands in fenced sections only. NUL and halves of characters become U+FFFD, since no
endpoint and no ledger takes them. A text over its limit loses its middle, and the prompt says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rubrics.judging import schemas
from rubrics.judging.options import LlmOptions
from rubrics.judging.orders import Order
from rubrics.judging.schemas import LABELS, Schema
from rubrics.judging.sections import fence, nonce_of
from rubrics.judging.templates import Template
from rubrics.judging.types import Item
from rubrics.llm.types import Message, Part, Picture

MAX_TEXT: Final = 60_000  # characters of one section, about 15,000 tokens
MAX_ANSWERS: Final = 240_000  # of all answers of one question together
HEAD_SHARE: Final = 0.75  # of a cut text, what is kept of its beginning; the rest is its end
REPLACED: Final = "\ufffd"


@dataclass(frozen=True, slots=True)
class Question:
    """What one call asks. ``lines`` are the attributes or the checklist of those modes."""

    mode: str
    shown: Order
    messages: tuple[Message, ...]
    schema: Schema
    lines: tuple[str, ...] = ()


def ask(
    item: Item, shown: Order, *, mode: str, options: LlmOptions, template: Template
) -> Question:
    """The question for these candidates in this order. Raises BadTemplate."""
    lines = lines_of(item, mode=mode, options=options)
    schema, reply = _reply(item, shown, mode=mode, lines=lines, reasoning=options.reasoning)
    single = len(shown) == 1 and mode != "listwise"
    names = ["answer"] if single else [f"answer {label}" for label in LABELS[: len(shown)]]
    limit = answer_limit(len(shown))
    answers = [shorten(clean(item.candidates[place].text), limit) for place in shown]
    sections = _sections(item, mode=mode, options=options, lines=lines)
    nonce = nonce_of(sections | dict(zip(names, answers, strict=True)))
    values: dict[str, tuple[Part, ...]] = {
        name: (fence(name, sections[name], nonce) + "\n",) if sections.get(name) else ()
        for name in ("principle", "criteria", "question", "guidelines", "attributes", "checklist")
    }
    values["prompt"] = _prompt(item, sections["prompt"], nonce)
    values["answers"] = tuple(_answers(item, shown, names, answers, nonce))
    is_cut = any(len(item.candidates[place].text) > limit for place in shown)
    values["notes"] = _notes(item, mode=mode, lines=lines, is_cut=is_cut)
    values["nonce"] = (nonce,)
    values["think"] = (schemas.think(reasoning=options.reasoning),)
    values["reply"] = (reply,)
    messages = (
        Message("system", template.fill(mode, "system", values)),
        Message("user", template.fill(mode, "user", values)),
    )
    return Question(mode, shown, messages, schema, lines)


def lines_of(item: Item, *, mode: str, options: LlmOptions) -> tuple[str, ...]:
    """Attributes of a rating, criteria then failures of a checklist, as its verdict names them.

    The judge's own criteria where the task's list is empty.
    """
    if mode == "rating":
        return tuple(item.attributes)
    if mode == "checklist":
        return (*item.criteria, *item.failures) or tuple(options.criteria)
    return ()


def clean(text: str) -> str:
    """``text`` without what cannot be sent or kept, each such character replaced by one."""
    if "\0" in text:
        text = text.replace("\0", REPLACED)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join(REPLACED if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters of a text and a line that says how many are left out."""
    if len(text) <= limit:
        return text
    head = int(limit * HEAD_SHARE)
    tail = limit - head
    left_out = len(text) - limit
    return f"{text[:head]}\n[… {left_out:,} characters left out …]\n{text[-tail:]}"


def answer_limit(shown: int) -> int:
    """Characters of each of ``shown`` answers that a prompt holds: the same for all of them."""
    return min(MAX_TEXT, MAX_ANSWERS // shown)


def one_line(text: str) -> str:
    return " ".join(clean(text).split())


def _sections(
    item: Item, *, mode: str, options: LlmOptions, lines: tuple[str, ...]
) -> dict[str, str]:
    """All foreign text but the answers, by section."""
    turns = [f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in item.messages]
    numbered = [f"{at}. {one_line(line)}" for at, line in enumerate(lines, start=1)]
    texts = {
        "principle": options.principle.strip(),
        "criteria": "\n".join(f"- {one_line(line)}" for line in options.criteria),
        "question": item.question.strip(),
        "guidelines": item.guidelines.strip() if options.use_guidelines else "",
        "prompt": "\n\n".join(turns),
        "attributes": "\n".join(map(one_line, lines)) if mode == "rating" else "",
        "checklist": "\n".join(numbered) if mode == "checklist" else "",
    }
    return {name: shorten(clean(text), MAX_TEXT) for name, text in texts.items()}


def _prompt(item: Item, text: str, nonce: str) -> tuple[Part, ...]:
    parts: list[Part] = [fence("prompt", text, nonce) + "\n"]
    for name, picture in (("source", item.source), ("mask", item.mask)):
        if picture is not None:
            parts += _picture(f"the {name} of the prompt", picture)
    return tuple(parts)


def _answers(
    item: Item, shown: Order, names: list[str], texts: list[str], nonce: str
) -> Iterable[Part]:
    for name, text, place in zip(names, texts, shown, strict=True):
        picture = item.candidates[place].picture
        if text or picture is None:
            yield fence(name, text, nonce) + "\n"
        if picture is not None:
            yield from _picture(name, picture)


def _picture(name: str, picture: Picture) -> tuple[Part, ...]:
    return (f"{name} is the next picture\n", picture, "\n")


def _notes(item: Item, *, mode: str, lines: tuple[str, ...], is_cut: bool) -> tuple[Part, ...]:
    notes = []
    if mode == "checklist" and item.failures:
        first = len(item.criteria) + 1
        which = f"Line {first} names a fault"
        if len(lines) > first:
            which = f"Line {first} and those after it name faults"
        notes.append(f"{which}: there, yes means that the answer has it.")
    if is_cut:
        notes.append(
            "A long answer is shown without its middle, at a line that counts the characters left "
            "out. That was done for you to read it: it is no fault of the answer."
        )
    return ("\n".join(notes) + "\n",) if notes else ()


def _reply(
    item: Item, shown: Order, *, mode: str, lines: tuple[str, ...], reasoning: bool
) -> tuple[Schema, str]:
    if mode == "pairwise":
        return schemas.pairwise(reasoning=reasoning, tie=item.allow_tie)
    if mode == "listwise":
        return schemas.listwise(LABELS[: len(shown)], reasoning=reasoning)
    if mode == "rating":
        names = tuple(map(one_line, lines))
        return schemas.rating(names, low=item.low, high=item.high, reasoning=reasoning)
    if mode == "checklist":
        return schemas.checklist(len(lines), reasoning=reasoning)
    return schemas.pointwise(reasoning=reasoning)
