"""What is asked of a language model and what comes back, independent of who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal

import orjson

Role = Literal["system", "user", "assistant"]

# Why a call has no reply. Kept in tables: never renamed.
FAILURES: Final = {
    "timeout": "the endpoint did not answer in time",
    "connection": "the connection failed or broke",
    "rate-limited": "the endpoint asked to wait, again and again",
    "server": "the endpoint had an error of its own",
    "refused": "the endpoint refused the request",
    "unreadable": "the reply could not be read",
    "cut": "the reply was cut at its longest length",
    "budget": "the run's budget is spent",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image in a message. It is sent as data and known by ``digest``, hex of its bytes."""

    digest: str
    media_type: str
    data: bytes = field(repr=False, compare=False)


Part = str | Picture


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One chat completion. Two equal requests get one reply: ``key`` is the cache's.

    ``schema`` is a JSON schema of the reply; ``top_logprobs`` how many alternatives per token to
    ask for, 0 for none. ``salt`` tells apart what is meant to be asked again: it is never sent.
    ``with_thoughts``: a reasoning that the endpoint gives beside its reply stands before the text
    in a <think> block, so that whoever keeps the text keeps it too.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int | None = None
    schema: Mapping[str, Any] | None = None
    top_logprobs: int = 0
    salt: int = 0
    with_thoughts: bool = False

    def as_json(self) -> dict[str, Any]:
        """Everything that makes the request what it is, pictures by digest: what the ledger keeps."""
        return {
            "model": self.model,
            "messages": [
                {
                    "role": message.role,
                    "content": [
                        {"type": "text", "text": part}
                        if isinstance(part, str)
                        else {"type": "image", "digest": part.digest}
                        for part in message.parts
                    ],
                }
                for message in self.messages
            ],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "schema": self.schema,
            "top_logprobs": self.top_logprobs,
            "salt": self.salt,
            **({"with_thoughts": True} if self.with_thoughts else {}),
        }

    def key(self, base_url: str) -> bytes:
        """SHA-256 (32 bytes) of the endpoint and the whole request."""
        return sha256(
            orjson.dumps([base_url, self.as_json()], option=orjson.OPT_SORT_KEYS)
        ).digest()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. ``top_logprobs`` per token of the reply: (token, log-probability), best first.

    ``cost`` in the unit of the endpoint's prices; 0 and ``is_cached`` where nothing was paid now.
    ``key`` is the request's: where the ledger keeps the call.
    """

    text: str
    key: bytes
    finish_reason: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    latency_ms: int = 0
    attempts: int = 1
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] | None = None
    is_cached: bool = False


class CallFailed(Exception):
    """There is no reply: ``kind`` is a key of FAILURES, ``detail`` fit for a page, free of keys."""

    def __init__(self, kind: str, detail: str = "", *, attempts: int = 0) -> None:
        super().__init__(detail or FAILURES[kind])
        self.kind = kind
        self.detail = detail or FAILURES[kind]
        self.attempts = attempts


# What judges and generators are given: cache, budget, limits, retries and ledger are behind it.
# Raises CallFailed.
Call = Callable[[Request], Awaitable[Reply]]
