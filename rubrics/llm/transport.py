"""The way out: one host, few headers, bounded replies, nothing in logs.

The ``openai`` client sits on ``httpx2``; these are the parts of it that it is given.
"""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import httpcore2
import httpx2

from rubrics.llm.network import Backend
from rubrics.llm.server import is_loopback

MAX_BYTES: Final = 8 * 1024 * 1024  # of one reply, as it comes over the wire
KEEP_ALIVE: Final = 30.0  # seconds that an idle connection is kept
BROKEN: Final = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    httpcore2.ConnectionNotAvailable,
)
# All that leaves the machine; the SDK and its environment variables would add more.
HEADERS: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"content-type",
        b"content-length",
        b"accept",
        b"connection",
        b"user-agent",
        b"idempotency-key",
    }
)


class Unusable(httpx2.TransportError):
    """A reply that is not read: too long, or packed although nothing packed was asked for."""


def proxy_for(url: httpx2.URL) -> str | None:
    """The proxy of the environment (HTTPS_PROXY, NO_PROXY, ...); never one for this machine."""
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(url.scheme) or proxies.get("all")


class DirectTransport(httpx2.AsyncBaseTransport):
    """httpcore2's pool on plain asyncio (rubrics.llm.network), without a proxy."""

    def __init__(self, connections: int) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=None,  # the limiter counts
            max_keepalive_connections=connections,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=Backend(),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore2.Request(
            request.method, url, headers=request.headers.raw, content=request.stream
        )
        with _translated():
            answer = await self._pool.handle_async_request(sent)
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_DirectStream(answer), extensions={}
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _DirectStream(httpx2.AsyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._answer.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """The pool's errors as those of httpx2, which the SDK knows."""
    try:
        yield
    except BROKEN as error:
        raise httpx2.TransportError(type(error).__name__) from error


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Sends only ``HEADERS``, refuses packed replies, stops reading after ``MAX_BYTES``."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        kept = [(name, value) for name, value in request.headers.raw if name.lower() in HEADERS]
        request.headers = httpx2.Headers([*kept, (b"accept-encoding", b"identity")])
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise Unusable("the reply is compressed, which was not asked for")
        response.stream = _BoundedStream(response.stream)  # type: ignore[arg-type]
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for chunk in self._inner:
            seen += len(chunk)
            if seen > MAX_BYTES:
                raise Unusable(f"the reply is longer than {MAX_BYTES // 1024**2} MB")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def http_client(base_url: str, *, concurrency: int, timeout: float) -> httpx2.AsyncClient:
    """An HTTP client for one host: no redirects, no cookies kept, connections for ``concurrency``.

    ``timeout`` in seconds is that of one read; the whole attempt has the caller's.
    """
    silence()
    url = httpx2.URL(base_url)
    proxy = proxy_for(url)
    inner: httpx2.AsyncBaseTransport
    if proxy is None:
        inner = DirectTransport(concurrency)
    else:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=concurrency)
        inner = httpx2.AsyncHTTPTransport(limits=limits, proxy=proxy)
    return httpx2.AsyncClient(
        transport=BoundedTransport(inner),
        timeout=httpx2.Timeout(timeout, pool=None),
        follow_redirects=False,
        trust_env=False,
    )


class _Quiet(logging.Filter):
    """Drops what the HTTP layers say below WARNING: it repeats what a server sent.

    A broken or hostile server echoes the key it was given, in a header or a reason phrase.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING


_QUIET: Final = _Quiet()
_LOGGERS: Final = (
    "openai",
    "openai._base_client",
    "httpx2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "httpcore2.proxy",
    "httpcore2.socks",
)


def silence() -> None:
    """Keep keys out of the logs at every level. Twice is once."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_QUIET)
