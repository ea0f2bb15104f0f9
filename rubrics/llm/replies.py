"""Reads the body of a chat completion that anybody may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

import orjson

from rubrics.llm.types import Reply, Request

MAX_TOKENS: Final = 2**31 - 1  # what a column holds
MAX_POSITIONS: Final = 20_000  # of logprobs
MAX_ALTERNATIVES: Final = 20
MAX_MODELS: Final = 500
CHARACTERS_PER_TOKEN: Final = 4  # where the endpoint does not count

TopLogprobs = tuple[tuple[tuple[str, float], ...], ...]


class Unreadable(Exception):
    """No reply is in the body. ``status`` where the body says an HTTP status of its own, else 0."""

    def __init__(self, detail: str, *, status: int = 0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


def without_bad_characters(text: str) -> str:
    """``text`` without what no table and no page can hold: NUL and halves of characters."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8") if _has_surrogate(text) else text


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def read_completion(
    raw: bytes,
    request: Request,
    *,
    key: bytes,
    latency_ms: int,
    scrub: Callable[[str], str],
) -> Reply:
    """The reply in a body. Raises Unreadable.

    ``scrub`` is put over every text. An endpoint that counts no tokens gets an estimate of one per
    four characters, so that a budget in tokens or money still ends.
    """
    body = _parsed(raw)
    choice = _first_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Unreadable("the reply has no message")
    finish, text = _finish_and_text(choice, message)
    if request.with_thoughts and (thoughts := _thoughts(message)):
        text = f"<think>\n{thoughts}\n</think>\n{text}"
    counted = body.get("usage")
    usage = counted if isinstance(counted, dict) else {}
    sent = sum(len(part) for m in request.messages for part in m.parts if isinstance(part, str))
    return Reply(
        text=scrub(text),
        key=key,
        finish_reason=scrub(finish)[:40],
        tokens_in=_count(usage.get("prompt_tokens"), otherwise=sent),
        tokens_out=_count(usage.get("completion_tokens"), otherwise=len(text)),
        latency_ms=min(latency_ms, MAX_TOKENS),
        top_logprobs=_logprobs(choice.get("logprobs"), scrub) if request.top_logprobs else None,
    )


def read_models(raw: bytes) -> list[str]:
    """Names in the body of ``/models``, at most ``MAX_MODELS``. Raises Unreadable."""
    listed = _parsed(raw).get("data")
    if not isinstance(listed, list):
        raise Unreadable("the reply lists no models")
    names = (one.get("id") for one in listed[:MAX_MODELS] if isinstance(one, dict))
    return [name[:200] for name in names if isinstance(name, str) and name]


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:  # it takes halves of characters, which orjson does not
            body = json.loads(raw)
        except (ValueError, RecursionError):
            raise Unreadable("the reply is not JSON") from None
    if not isinstance(body, dict):
        raise Unreadable("the reply is not a JSON object")
    return body


def _first_choice(body: dict[str, Any]) -> dict[str, Any]:
    """Some gateways put an error into a reply of status 200."""
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    error = body.get("error")
    if isinstance(error, dict):
        code, said = error.get("code"), error.get("message")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        raise Unreadable(said if isinstance(said, str) else "", status=status)
    raise Unreadable("the reply has no choices")


def _finish_and_text(choice: dict[str, Any], message: dict[str, Any]) -> tuple[str, str]:
    reason = choice.get("finish_reason")
    finish = reason if isinstance(reason, str) else ""
    content = message.get("content")
    if isinstance(content, list):  # parts, as a few servers send them
        content = "".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if isinstance(content, str) and content:
        return finish, content
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return "refusal", refusal
    if content is None or isinstance(content, str):
        return finish, ""
    raise Unreadable("the reply's content is not text")


def _thoughts(message: dict[str, Any]) -> str:
    """The reasoning beside a reply, under either of the names that servers give it."""
    given = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text.strip() for text in given if isinstance(text, str) and text.strip()), "")


def _count(value: object, *, otherwise: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return min(max(value, 0), MAX_TOKENS)
    return math.ceil(otherwise / CHARACTERS_PER_TOKEN)


def _logprobs(said: object, scrub: Callable[[str], str]) -> TopLogprobs | None:
    content = said.get("content") if isinstance(said, dict) else None
    if not isinstance(content, list):
        return None
    return tuple(_alternatives(position, scrub) for position in content[:MAX_POSITIONS])


def _alternatives(position: object, scrub: Callable[[str], str]) -> tuple[tuple[str, float], ...]:
    """(token, log-probability) at one position, best first; the token itself where no others are."""
    if not isinstance(position, dict):
        return ()
    top = position.get("top_logprobs")
    options = top if isinstance(top, list) and top else [position]
    pairs = []
    for option in options[:MAX_ALTERNATIVES]:
        token = option.get("token") if isinstance(option, dict) else None
        value = option.get("logprob") if isinstance(option, dict) else None
        # A probability: what is above one or not a number at all was not measured.
        if isinstance(token, str) and isinstance(value, int | float) and -1e9 < value < 1e-3:
            pairs.append((scrub(token), float(value)))
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))
