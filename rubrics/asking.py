"""Questions to a language model that are not a judge's: files with places, replies read or repaired.

A question is a file of ``rubrics/generators/templates`` with a part ``=== system ===`` and a part
``=== user ===``. ``$sections`` is where foreign text goes, fenced (rubrics.judging.sections);
``$nonce``, ``$reply`` and the words a caller names are the other places. ``ask`` asks once more
where a reply was cut or cannot be read; ``each`` asks many questions, a bounded number at once.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, TypeVar

from rubrics.judging.llm import CUT, MAX_QUOTED, MAX_TOKENS, REPAIR
from rubrics.judging.prompts import MAX_TEXT, clean, shorten
from rubrics.judging.reading import is_whole
from rubrics.judging.sections import fence, nonce_of
from rubrics.judging.templates import Values, filled
from rubrics.llm.types import Call, CallFailed, Message, Part, Picture, Reply, Request

HEADER: Final = re.compile(r"^=== (system|user) ===\n", re.MULTILINE)
ENDED: Final = re.compile(r"[.!?…。！？]['\"”’)\]]*$")
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,59}")

Asked = TypeVar("Asked")
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Section:
    """Foreign text under a name, a picture beside or alone. Names are lower-case words."""

    name: str
    text: str = ""
    picture: Picture | None = None


@lru_cache(maxsize=64)
def template(name: str) -> Mapping[str, str]:
    """Role -> text with places. Raises ValueError where there is no such file, or a bad one."""
    file = files("rubrics.generators") / "templates" / f"{name}.txt"
    if not NAME.fullmatch(name) or not file.is_file():
        raise ValueError(f"there is no template {name!r}")
    before, *pieces = HEADER.split(file.read_text(encoding="utf-8"))
    parts = dict(zip(pieces[::2], map(str.strip, pieces[1::2]), strict=True))
    if before.strip() or set(parts) != {"system", "user"} or len(pieces) > 4:
        raise ValueError(f"{name}: needs one system and one user part and nothing else")
    return parts


def question(
    name: str, sections: Sequence[Section], *, limit: int = MAX_TEXT, **words: str
) -> tuple[Message, ...]:
    """The messages of a question. Sections stand in the order given, those with nothing in them not.

    A section over ``limit`` characters loses its middle, at a line that says how much.
    """
    parts = template(name)
    texts = {one.name: shorten(clean(one.text), limit) for one in sections}
    nonce = nonce_of(texts)
    shown: list[Part] = []
    for one in sections:
        if texts[one.name]:
            shown.append(fence(one.name, texts[one.name], nonce) + "\n")
        if one.picture is not None:
            shown += [f"{one.name} is the next picture\n", one.picture, "\n"]
    values: Values = {
        "sections": tuple(shown),
        "nonce": (nonce,),
        **{key: (word,) if word else () for key, word in words.items()},
    }
    return (
        Message("system", filled(parts["system"], values)),
        Message("user", filled(parts["user"], values)),
    )


def conversation(messages: Iterable[Mapping[str, str]]) -> str:
    """A prompt as a section holds it: "role: text" paragraphs."""
    return "\n\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in messages)


def reply_words(keys: Mapping[str, str]) -> str:
    """The reply asked for, in words: what an endpoint without schemas goes by."""
    lines = "\n".join(f'- "{key}": {what}' for key, what in keys.items())
    return f"Reply with one JSON object and nothing else. Its keys, in this order:\n{lines}"


def as_sentence(text: str) -> str:
    """A criterion as people read it: a capital at its head, a full stop at its end."""
    text = text.strip().rstrip(",;:")
    if not text:
        return ""
    return f"{text[0].upper()}{text[1:]}" + ("" if ENDED.search(text) else ".")


class Counted:
    """A Call that knows how many replies it gave: what a method cost, the cached ones as well."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.replies = 0

    async def __call__(self, request: Request) -> Reply:
        reply = await self._call(request)
        self.replies += 1
        return reply


async def ask(
    call: Call, request: Request, read: Callable[[Reply], Told], *, repairs: int = 1
) -> tuple[Told, Reply]:
    """What ``read`` makes of the reply, and the reply it was made of. Raises CallFailed.

    A reply that was cut is asked for once more with twice the room, one that ``read`` refuses
    with ValueError is asked for again with what it lacks, ``repairs`` times.
    """
    first, is_lengthened = request.messages, False
    while True:
        reply = await call(request)
        if reply.finish_reason == CUT and not is_whole(reply.text):
            if is_lengthened or request.max_tokens >= MAX_TOKENS:
                raise CallFailed("cut", f"cut at {request.max_tokens:,} tokens")
            is_lengthened = True
            request = replace(request, max_tokens=min(2 * request.max_tokens, MAX_TOKENS))
            continue
        try:
            return read(reply), reply
        except ValueError as error:
            if repairs <= 0:
                raise CallFailed("unreadable", str(error)[:MAX_QUOTED]) from error
            repairs -= 1
            said = clean(reply.text[:MAX_QUOTED])
            quoted = [Message("assistant", (said,))] if said.strip() else []
            note = Message("user", (REPAIR.format(why=error),))
            request = replace(request, messages=(*first, *quoted, note))


async def each(
    items: Sequence[Asked],
    work: Callable[[Asked], Awaitable[Told]],
    *,
    concurrency: int,
    tick: Callable[[int], Any] | None = None,
) -> list[Told | CallFailed]:
    """``work`` of every item, in their order; CallFailed in the place of what failed.

    After a failure "budget" nothing more is begun, and that failure stands for the rest. ``tick``
    is told how many are done; what it raises ends everything, after what is under way.
    """
    results: list[Told | CallFailed] = [CallFailed("budget")] * len(items)
    todo = iter(range(len(items)))
    done, is_spent = 0, False

    async def worker() -> None:
        nonlocal done, is_spent
        for at in todo:
            if is_spent:
                return
            try:
                results[at] = await work(items[at])
            except CallFailed as failed:
                results[at] = failed
                is_spent = is_spent or failed.kind == "budget"
            done += 1
            if tick is not None:
                tick(done)

    workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(items)))]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
    return results


def failures(results: Iterable[object]) -> Counter[str]:
    """How many failed, by kind."""
    return Counter(one.kind for one in results if isinstance(one, CallFailed))
