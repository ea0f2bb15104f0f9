"""A tiny HTTP server in a thread: says what a test tells it to, byte by byte where it matters."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def prompt(self) -> str:
        return str(self.json["messages"][-1]["content"])


Answer = Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]


def completion(text: str = "yes", **fields: Any) -> dict[str, Any]:
    message = fields.pop("message", {"role": "assistant", "content": text})
    choice = {"index": 0, "message": message, "finish_reason": fields.pop("finish", "stop")}
    if "logprobs" in fields:
        choice["logprobs"] = fields.pop("logprobs")
    usage = fields.pop("usage", {"prompt_tokens": 10, "completion_tokens": 2})
    return {"object": "chat.completion", "choices": [choice], "usage": usage, **fields}


def http(body: Any, *, status: int = 200, headers: str = "", reason: str = "OK") -> bytes:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw


@dataclass
class Fake:
    """The server's state: what it saw, the most it worked on at once."""

    answer: Answer
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    now: int = 0
    most: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (seen := await _read(reader)) is not None:
                self.seen.append(seen)
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    raw = await self.answer(seen, writer)
                finally:
                    self.now -= 1
                if raw is None:
                    break
                writer.write(raw)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as some tests want it to
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ", 2)
    return Seen(method, path, headers, body)


@contextmanager
def serving(answer: Answer) -> Iterator[Fake]:
    """The server on a port of its own, in a thread of its own."""
    fake = Fake(answer)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, limit=2**24)
        fake.port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def always(raw: bytes) -> Answer:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        del seen, writer
        return raw

    return answer


def in_turn(*raws: bytes) -> Answer:
    """One answer after the other; the last one for ever."""
    left = list(raws)

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        del seen, writer
        return left.pop(0) if len(left) > 1 else left[0]

    return answer
