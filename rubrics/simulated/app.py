"""The protocol: OpenAI's chat completions as a plain ASGI application.

``GET /v1/models``, ``POST /v1/chat/completions`` (whole or as a stream), ``GET /stats``. A reply
is a function of the request and the seed; a fault also of how often the request came before.
A reply is charged when it is made, also where it never arrives; a repeated Idempotency-Key gets
the reply that was paid for.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
)
from contextlib import aclosing
from hashlib import blake2b
from typing import Any, Final

import orjson

from rubrics.simulated import asking, faults, tokens
from rubrics.simulated.dials import MODELS, Dials, named
from rubrics.simulated.handlers import handler_of
from rubrics.simulated.ledger import Ledger
from rubrics.simulated.mind import Known, Mind
from rubrics.simulated.tokens import Said

MOST_BYTES: Final = 64 * 1024**2
MOST_TOKENS: Final = 32_768
MOST_LOGPROBS: Final = 20
PIECE_TOKENS: Final = 4  # of a streamed reply
SLOW_PIECES: Final = 4
CREATED: Final = 1_700_000_000  # replies carry no clock: they are functions of the request
FINGERPRINT: Final = "simulated"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Failed(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": code, "param": None, "code": code}}
        self.headers = headers


class Died(Exception):
    """The connection is to die without a further byte."""


class SimulatedApp:
    """One server. ``known`` maps texts (mind.key_of) and pictures (hex digest) to what is known.

    ``api_key``: what callers must present; empty lets everybody in.
    """

    def __init__(
        self,
        models: Mapping[str, Dials] | None = None,
        *,
        known: Mapping[str, Known] | None = None,
        seed: int = 0,
        api_key: str = "",
        ledger: Ledger | None = None,
    ) -> None:
        self.models = dict(named() if models is None else models)
        self.known = dict(known or {})
        self.seed = seed
        self.api_key = api_key
        self.ledger = ledger or Ledger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._route(scope, receive, send)
        except Failed as failed:
            await _send_json(send, failed.status, failed.body, failed.headers)
        except Died:
            pass  # the server closes a connection whose answer was not finished

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/stats"):
            await _send_json(send, 200, self.ledger.stats())
            return
        headers = dict(scope["headers"])
        self._authenticate(headers)
        if (method, path) == ("GET", "/v1/models"):
            await _send_json(send, 200, {"object": "list", "data": self._list()})
        elif (method, path) == ("POST", "/v1/chat/completions"):
            await self._complete(headers, receive, send)
        else:
            raise Failed(404, f"there is no {method} {path}", "not_found")

    def _authenticate(self, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if self.api_key and not hmac.compare_digest(given, self.api_key.encode()):
            raise Failed(401, "that is not the key", "invalid_api_key")

    def _list(self) -> list[dict[str, Any]]:
        return [
            {
                "id": name,
                "object": "model",
                "created": CREATED,
                "owned_by": "simulated",
                "summary": MODELS[name].summary if name in MODELS else "",
            }
            for name in self.models
        ]

    async def _complete(self, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        self.ledger.requests += 1
        raw = await _body(receive)
        body = _parsed(raw)
        model = body.get("model")
        dials = self.models.get(model) if isinstance(model, str) else None
        if dials is None:
            raise Failed(404, f"the model {str(model)[:100]!r} does not exist", "model_not_found")
        name = str(model)
        self.ledger.by_model[name] += 1
        if dials.max_concurrency and self.ledger.at_once[name] >= dials.max_concurrency:
            self.ledger.faults["too_many"] += 1
            raise _too_many(dials)
        self.ledger.enter(name)
        try:
            await self._reply(raw, body, dials, headers, receive, send)
        finally:
            self.ledger.leave(name)

    async def _reply(
        self,
        raw: bytes,
        body: dict[str, Any],
        dials: Dials,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        request = blake2b(raw, digest_size=16).digest()
        attempt = self.ledger.attempt(request)
        fault = faults.strikes(dials, faults.ON_THE_WAY, self.seed, request.hex(), attempt)
        if fault:
            self.ledger.faults[fault] += 1
        if fault == "hang":
            await _until_gone(receive)
            raise Died
        completion: dict[str, Any] | None = None
        if fault not in ("too_many", "server_error"):
            completion = self._paid_for(
                body, dials, request, attempt, headers.get(b"idempotency-key", b"")
            )
        if dials.latency_ms:
            await asyncio.sleep(dials.latency_ms / 1000)
        if completion is None:
            raise _too_many(dials) if fault == "too_many" else _server_error()
        # Counted before the last byte is out: whoever has read a reply finds it counted.
        self.ledger.completed += fault != "broken"
        if not fault and not body.get("stream"):
            await _send_json(send, 200, completion)
            return
        pause = dials.slow_ms / 1000 if fault == "slow" else 0.0
        pieces = _streamed(completion, body) if body.get("stream") else _whole(completion)
        kind = "text/event-stream" if body.get("stream") else "application/json"
        async with aclosing(_trickled(pieces, pause, is_broken=fault == "broken")) as data:
            await _send_pieces(send, kind, data, size=None if body.get("stream") else pieces)

    def _paid_for(
        self, body: dict[str, Any], dials: Dials, request: bytes, attempt: int, key: bytes
    ) -> dict[str, Any]:
        """The completion, from the ledger where its Idempotency-Key was charged before."""
        paid = self.ledger.paid.get(key) if key else None
        if paid is not None:
            if paid.request != request:
                raise Failed(422, "this Idempotency-Key came with another request", "key_reused")
            self.ledger.replayed += 1
            return paid.completion
        completion = self._completion(body, dials, request, attempt)
        self.ledger.charge(key, request, completion)
        return completion

    def _completion(
        self, body: dict[str, Any], dials: Dials, request: bytes, attempt: int
    ) -> dict[str, Any]:
        try:
            asked = asking.read(body)
            limit = _whole_number(body, "max_tokens", "max_completion_tokens", most=MOST_TOKENS)
            top = _whole_number(body, "top_logprobs", most=MOST_LOGPROBS) or 0
        except asking.BadRequest as error:
            raise Failed(400, str(error), "invalid_request_error") from error
        said = handler_of(asked).answer(Mind(asked, dials, self.known, self.seed))
        key = (self.seed, request.hex(), attempt)
        fault = faults.strikes(dials, faults.IN_THE_REPLY, *key)
        if fault:
            self.ledger.faults[fault] += 1
            said = faults.spoil(said, fault, *key)
        said = tokens.shortened(said, MOST_TOKENS if limit is None else limit)
        with_logprobs = body.get("logprobs") is True
        return _as_completion(asked, said, request, top=top if with_logprobs else None)


def _as_completion(
    asked: asking.Asked, said: Said, request: bytes, *, top: int | None
) -> dict[str, Any]:
    images = sum(bool(answer.picture) for answer in asked.answers)
    used_in, used_out = tokens.estimate(asked.text, images), tokens.count(said.text)
    logprobs = None if top is None else {"content": tokens.log_probabilities(said, top)}
    return {
        "id": f"chatcmpl-{request.hex()}",
        "object": "chat.completion",
        "created": CREATED,
        "model": asked.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text, "refusal": None},
                "logprobs": logprobs,
                "finish_reason": said.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": used_in,
            "completion_tokens": used_out,
            "total_tokens": used_in + used_out,
        },
    }


def _whole(completion: dict[str, Any]) -> list[bytes]:
    """A reply in several pieces, so that it can trickle or break."""
    data = orjson.dumps(completion)
    step = -(-len(data) // SLOW_PIECES)
    return [data[at : at + step] for at in range(0, len(data), step)]


def _streamed(completion: dict[str, Any], body: Mapping[str, Any]) -> list[bytes]:
    """Server-sent events: a few tokens each, the reason to end, usage where asked, [DONE]."""
    choice = completion["choices"][0]
    words = tokens.TOKEN.findall(choice["message"]["content"])
    all_logprobs = choice["logprobs"]["content"] if choice["logprobs"] else None
    events = [_event(completion, {"role": "assistant", "content": ""})]
    for at in range(0, len(words), PIECE_TOKENS):
        piece = {"content": "".join(words[at : at + PIECE_TOKENS])}
        some = all_logprobs and {"content": all_logprobs[at : at + PIECE_TOKENS]}
        events.append(_event(completion, piece, logprobs=some))
    events.append(_event(completion, {}, finish_reason=choice["finish_reason"]))
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        events.append(_chunk(completion) | {"choices": [], "usage": completion["usage"]})
    return [b"data: " + orjson.dumps(event) + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


def _chunk(completion: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: completion[name] for name in ("id", "created", "model", "system_fingerprint")}
    return {**kept, "object": "chat.completion.chunk"}


def _event(
    completion: Mapping[str, Any],
    delta: dict[str, Any],
    *,
    logprobs: Any = None,
    finish_reason: str | None = None,
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return {**_chunk(completion), "choices": [choice]}


async def _trickled(
    pieces: list[bytes], pause: float, *, is_broken: bool
) -> AsyncGenerator[bytes, None]:
    """The pieces with pauses between; of a broken reply the first half, then the connection dies."""
    for number, piece in enumerate(pieces):
        if is_broken and number >= len(pieces) // 2:
            raise Died
        if pause and number:
            await asyncio.sleep(pause)
        yield piece


async def _send_pieces(
    send: Send, kind: str, data: AsyncIterator[bytes], *, size: list[bytes] | None
) -> None:
    """``size``: the pieces whose length is announced; None for a stream."""
    headers = [(b"content-type", kind.encode()), (b"x-simulated", b"true")]
    if size is not None:
        headers.append((b"content-length", str(sum(map(len, size))).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for piece in data:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _send_json(
    send: Send, status: int, value: Any, headers: Mapping[str, str] | None = None
) -> None:
    data = orjson.dumps(value)
    rows = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        (b"x-simulated", b"true"),
        *((name.encode(), text.encode()) for name, text in (headers or {}).items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": rows})
    await send({"type": "http.response.body", "body": data})


async def _body(receive: Receive) -> bytes:
    """Raises Died where the caller went away, Failed where it sends too much."""
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Died
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MOST_BYTES:
            raise Failed(413, f"over {MOST_BYTES // 1024**2} MB", "too_large")
        if not message.get("more_body"):
            return b"".join(pieces)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Failed(400, f"the body is not JSON: {error}", "invalid_request_error") from error
    if not isinstance(body, dict):
        raise Failed(400, "the body must be an object", "invalid_request_error")
    return body


def _whole_number(body: Mapping[str, Any], *names: str, most: int) -> int | None:
    """The first of these that is there. Raises BadRequest."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise asking.BadRequest(f"'{name}' must be a whole number from 0 to {most}")
        return value
    return None


def _too_many(dials: Dials) -> Failed:
    headers = {"retry-after": f"{dials.retry_after:g}"} if dials.retry_after else {}
    return Failed(429, "too many requests", "rate_limit_exceeded", **headers)


def _server_error() -> Failed:
    return Failed(500, "the simulated server had an error of its own", "server_error")
