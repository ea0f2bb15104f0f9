"""HTTP to an OpenAI-compatible endpoint: one attempt at one request.

Whatever a server sends back is hostile until read: it is bounded in size and time, read by hand,
and the key is cut out of every text.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
import openai
import orjson

from rubrics.llm.replies import Unreadable, read_completion, read_models, without_bad_characters
from rubrics.llm.retry import AttemptFailed, asked_wait
from rubrics.llm.server import Server
from rubrics.llm.transport import Unusable, http_client
from rubrics.llm.types import Picture, Reply, Request

MAX_DETAIL: Final = 300
# Shorter keys ("none", "EMPTY") guard nothing, and cutting them out would damage replies.
MIN_SECRET: Final = 8
REDACTED: Final = "[key]"
NO_KEY: Final = "none"


class Client:
    """Asks one server. Use as an async context manager, or ``close`` it."""

    def __init__(self, server: Server) -> None:
        self.base_url = server.base_url
        self._server = server
        self._secrets = _forms_of(server.key)
        self._own_headers: dict[str, Any] = {} if server.key else {"Authorization": openai.Omit()}
        self._newer_names: set[str] = set()  # models that want max_completion_tokens
        self._openai = openai.AsyncOpenAI(
            base_url=server.base_url,
            api_key=server.key or NO_KEY,
            admin_api_key="",  # else the environment's
            organization="",
            project="",
            webhook_secret="",
            max_retries=0,
            timeout=server.timeout,
            default_headers={"Authorization": f"Bearer {server.key}"} if server.key else None,
            http_client=http_client(
                server.base_url, concurrency=server.concurrency, timeout=server.timeout
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._openai.close()

    async def ask(self, request: Request, key: bytes) -> Reply:
        """One attempt. Raises AttemptFailed, whose detail holds no key.

        ``key`` is the request's; an endpoint that knows ``Idempotency-Key`` bills it once.
        """
        body = orjson.dumps(self._body(request))
        headers = {"Content-Type": "application/json", "Idempotency-Key": key.hex()}
        began = time.monotonic()
        try:
            raw = await self._sent(
                self._openai.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    content=body,
                    options={"headers": headers | self._own_headers},
                )
            )
        except openai.APIStatusError as error:
            raise self._refused(request, error) from None
        latency = round((time.monotonic() - began) * 1000)
        try:
            return read_completion(raw, request, key=key, latency_ms=latency, scrub=self._scrub)
        except Unreadable as error:
            if error.status:
                raise self._failed(error.status, error.detail, None) from None
            raise AttemptFailed("unreadable", error.detail) from None

    async def models(self) -> tuple[str, ...]:
        """Names of the models that the server lists. Raises AttemptFailed."""
        try:
            raw = await self._sent(
                self._openai.get(
                    "/models", cast_to=httpx2.Response, options={"headers": self._own_headers}
                )
            )
            return tuple(self._scrub(name) for name in read_models(raw))
        except openai.APIStatusError as error:
            raise self._failed(error.response.status_code, _said(error), None) from None
        except Unreadable as error:
            raise AttemptFailed("unreadable", error.detail) from None

    async def _sent(self, request: Awaitable[httpx2.Response]) -> bytes:
        """The body of the reply, all of it within the timeout."""
        try:
            async with asyncio.timeout(self._server.timeout):
                return (await request).content
        except (TimeoutError, openai.APITimeoutError):
            detail = f"no reply within {self._server.timeout:g} seconds"
            raise AttemptFailed("timeout", detail) from None
        except openai.APIConnectionError as error:
            raise self._broken(error) from None

    def _body(self, request: Request) -> dict[str, Any]:
        """What is sent: a chat completion with only what the server has."""
        longest = "max_completion_tokens" if request.model in self._newer_names else "max_tokens"
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [
                {"role": message.role, "content": self._content(message.parts)}
                for message in request.messages
            ],
            "temperature": request.temperature,
            longest: request.max_tokens,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None and self._server.has_schema:
            body["response_format"] = _response_format(request.schema)
        if request.top_logprobs and self._server.has_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        return body

    def _content(self, parts: tuple[str | Picture, ...]) -> str | list[dict[str, Any]]:
        if all(isinstance(part, str) for part in parts):
            return "\n\n".join(str(part) for part in parts)  # not every server reads lists of text
        if not self._server.has_images:
            detail = "the request has pictures and the endpoint is set to read none"
            raise AttemptFailed("refused", detail)
        return [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": _data_url(part)}}
            for part in parts
        ]

    def _refused(self, request: Request, error: openai.APIStatusError) -> AttemptFailed:
        detail = _said(error)
        status = error.response.status_code
        if (
            status == 400
            and "max_completion_tokens" in detail
            and request.model not in self._newer_names
        ):
            self._newer_names.add(request.model)
            return AttemptFailed("server", "the endpoint wants max_completion_tokens", wait=0.0)
        return self._failed(status, detail, asked_wait(error.response.headers))

    def _failed(self, status: int, detail: str, wait: float | None) -> AttemptFailed:
        said = f"HTTP {status}: {self._scrub(detail)}" if detail else f"HTTP {status}"
        said = " ".join(said.split())[:MAX_DETAIL]
        if status == 429:
            return AttemptFailed("rate-limited", said, wait=wait)
        if status == 408:
            return AttemptFailed("timeout", said, wait=wait)
        if status >= 500:
            return AttemptFailed("server", said, wait=wait)
        if 300 <= status < 400:
            return AttemptFailed("refused", f"HTTP {status}: redirects are not followed")
        return AttemptFailed("refused", said)

    def _broken(self, error: openai.APIConnectionError) -> AttemptFailed:
        cause = error.__cause__
        if isinstance(cause, Unusable):
            return AttemptFailed("unreadable", str(cause))
        # Its text may repeat what the server sent; its class says enough.
        name = type(cause).__name__ if cause else "APIConnectionError"
        return AttemptFailed("connection", f"the connection failed ({name})")

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return without_bad_characters(text)


def _said(error: openai.APIStatusError) -> str:
    said = error.body.get("message") if isinstance(error.body, Mapping) else error.body
    return said if isinstance(said, str) else ""


def _forms_of(key: str) -> tuple[str, ...]:
    """The key as it may come back in a text: as it is, percent-encoded, in base64."""
    if len(key) < MIN_SECRET:
        return ()
    forms = [key, quote(key, safe=""), base64.b64encode(key.encode()).decode().rstrip("=")]
    return tuple(dict.fromkeys(forms))


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {"name": str(schema.get("title") or "reply"), "schema": schema}
    if schema.get("additionalProperties") is False:  # else "strict" is refused
        named["strict"] = True
    return {"type": "json_schema", "json_schema": named}


def _data_url(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode()}"
