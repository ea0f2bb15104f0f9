"""One attempt over HTTP: what is sent, what is read, what a hostile server can do."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubrics.llm.client import Client, Server
from rubrics.llm.replies import Unreadable, read_completion
from rubrics.llm.retry import AttemptFailed
from rubrics.llm.transport import HEADERS, MAX_BYTES
from rubrics.llm.types import Message, Picture, Reply, Request
from tests.rubrics.llm_server import (
    Answer,
    Fake,
    Seen,
    always,
    completion,
    http,
    in_turn,
    serving,
)

KEY = "sk-planted-0123456789+/abc"
DOT = Picture("ab" * 32, "image/png", b"\x89PNG dot")


def ask(text: str = "Hello", **fields: Any) -> Request:
    return Request(model="m", messages=(Message("user", (text,)),), **fields)


def asked(fake: Fake, request: Request | None = None, times: int = 1, **has: Any) -> Reply:
    """The last of ``times`` attempts."""
    request = request or ask()

    async def main() -> Reply:
        async with Client(Server(fake.base_url, **{"key": KEY, "timeout": 30, **has})) as client:
            for _ in range(times):
                reply = await client.ask(request, request.key(fake.base_url))
            return reply

    return asyncio.run(main())


def failure(answer: Answer, **has: Any) -> AttemptFailed:
    with serving(answer) as fake, pytest.raises(AttemptFailed) as caught:
        asked(fake, **has)
    return caught.value


def test_ask_reads_text_tokens_and_logprobs() -> None:
    position = {"token": "A", "logprob": -0.2, "top_logprobs": [
        {"token": "B", "logprob": -1.7}, {"token": "A", "logprob": -0.2}, {"token": 3},
    ]}  # fmt: skip
    body = completion("A", logprobs={"content": [position, {"token": ".", "logprob": -1}]})
    with serving(always(http(body))) as fake:
        reply = asked(fake, ask(top_logprobs=5), has_logprobs=True)
        sent = fake.seen[0].json
    assert reply.text == "A"
    assert (reply.tokens_in, reply.tokens_out, reply.finish_reason) == (10, 2, "stop")
    assert reply.top_logprobs == ((("A", -0.2), ("B", -1.7)), ((".", -1.0),))
    assert reply.key == ask(top_logprobs=5).key(fake.base_url)
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 5)


def test_ask_sends_few_headers_and_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "of-the-operator")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer of-the-operator\nX-A: 1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://192.0.2.1")
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:9")  # never for this machine
    with serving(always(http(completion()))) as fake:
        asked(fake)
        asked(fake, key="")
        with_key, without = fake.seen
    assert with_key.path == "/v1/chat/completions"
    assert with_key.headers["authorization"] == f"Bearer {KEY}"
    assert with_key.headers["idempotency-key"] == ask().key(fake.base_url).hex()
    assert "authorization" not in without.headers
    for seen in fake.seen:
        assert set(seen.headers) <= {name.decode() for name in HEADERS} | {"accept-encoding"}
        assert "of-the-operator" not in str(seen.headers)


def test_ask_sends_schema_and_logprobs_only_where_they_are_had() -> None:
    schema = {"title": "pairwise", "type": "object", "additionalProperties": False}
    request = ask(schema=schema, top_logprobs=3, seed=7, temperature=0.5)
    with serving(always(http(completion()))) as fake:
        asked(fake, request, has_schema=False)
        asked(fake, request, has_logprobs=True)
        without, having = (seen.json for seen in fake.seen)
    assert set(without) == {"model", "messages", "temperature", "max_tokens", "seed"}
    assert having["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "pairwise", "schema": schema, "strict": True},
    }
    assert having["top_logprobs"] == 3


def test_ask_sends_pictures_as_data_where_they_are_read() -> None:
    request = Request(model="m", messages=(Message("user", ("See:", DOT)),))
    with serving(always(http(completion()))) as fake:
        asked(fake, request, has_images=True)
        with pytest.raises(AttemptFailed, match="has pictures") as caught:
            asked(fake, request)
        assert len(fake.seen) == 1
        text, image = fake.seen[0].json["messages"][0]["content"]
    assert caught.value.kind == "refused"
    assert text == {"type": "text", "text": "See:"}
    data = image["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(data) == DOT.data


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "refused"), (401, "refused"), (403, "refused"), (404, "refused"),
        (422, "refused"), (408, "timeout"), (429, "rate-limited"), (500, "server"),
        (503, "server"), (529, "server"), (204, "unreadable"),
    ],
)  # fmt: skip
def test_ask_names_what_a_status_means(status: int, kind: str) -> None:
    body = b"" if status == 204 else orjson.dumps({"error": {"message": "because"}})
    failed = failure(always(http(body, status=status, headers="retry-after: 3\r\n")))
    assert failed.kind == kind
    if kind in ("rate-limited", "server"):
        assert failed.wait == 3
    if status != 204:
        assert failed.detail == f"HTTP {status}: because"


def test_ask_follows_no_redirect() -> None:
    with serving(always(http(completion()))) as other:
        there = f"location: {other.base_url}/chat/completions\r\n"
        failed = failure(always(http(b"{}", status=307, headers=there)))
        assert other.seen == []
    assert failed.kind == "refused"


def test_ask_takes_an_error_within_a_good_status_for_an_error() -> None:
    body = {"error": {"code": 429, "message": "slow down"}}
    assert failure(always(http(body))).kind == "rate-limited"
    assert failure(always(http({"error": {"message": "broken"}}))).kind == "server"


def test_ask_turns_to_the_newer_name_of_the_limit() -> None:
    asks = {"error": {"message": "use max_completion_tokens instead of max_tokens"}}
    with serving(in_turn(http(asks, status=400), http(completion()))) as fake:

        async def main() -> None:
            async with Client(Server(fake.base_url)) as client:
                with pytest.raises(AttemptFailed) as caught:
                    await client.ask(ask(), b"k" * 32)
                assert (caught.value.kind, caught.value.wait) == ("server", 0)
                await client.ask(ask(), b"k" * 32)

        asyncio.run(main())
        assert "max_tokens" in fake.seen[0].json
        assert fake.seen[1].json["max_completion_tokens"] == 1024


def endless(head: bytes, piece: bytes) -> Answer:
    """A reply that goes on for as long as somebody reads it."""

    async def answer(seen: Seen, writer: Any) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


def then_closes(raw: bytes) -> Answer:
    async def answer(seen: Seen, writer: Any) -> None:
        writer.write(raw)
        await writer.drain()

    return answer


CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
CHUNKED = b"HTTP/1.1 %d OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(then_closes(b""), "connection", id="nothing"),
        pytest.param(then_closes(b"SSH-2.0-OpenSSH\r\n\r\n"), "connection", id="not-http"),
        pytest.param(then_closes(http(completion())[:-5]), "connection", id="half"),
        pytest.param(then_closes(CHUNKED % 200 + b"5\r\nhel"), "connection", id="half-chunk"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"), "connection", id="headers"),
        pytest.param(endless(CHUNKED % 200, CHUNK), "unreadable", id="endless"),
        pytest.param(endless(CHUNKED % 500, CHUNK), "unreadable", id="endless-error"),
        pytest.param(
            always(http(b"x", headers="content-encoding: gzip\r\n")), "unreadable", id="packed"
        ),
        pytest.param(always(http(b"<html>")), "unreadable", id="html"),
        pytest.param(always(http(b"[]")), "unreadable", id="list"),
        pytest.param(always(http({"choices": []})), "unreadable", id="no-choices"),
        pytest.param(always(http({"choices": [{"message": 1}]})), "unreadable", id="no-message"),
        pytest.param(always(http(b"[" * 100_000)), "unreadable", id="deep"),
    ],
)
def test_ask_survives_broken_replies(answer: Answer, kind: str) -> None:
    assert failure(answer).kind == kind


def test_ask_gives_a_dripping_server_its_time_and_no_more() -> None:
    async def drip(seen: Seen, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:  # every read succeeds; the reply never ends
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    failed = failure(drip, timeout=0.3)
    assert failed.kind == "timeout"
    assert "0.3 seconds" in failed.detail


def test_ask_says_when_nobody_listens() -> None:
    with serving(always(b"")) as fake:
        pass
    with pytest.raises(AttemptFailed) as caught:
        asked(fake)
    assert caught.value.kind == "connection"


def test_ask_goes_on_after_the_server_closed_an_idle_connection() -> None:
    closing = http(completion(), headers="connection: close\r\n")
    with serving(always(closing)) as fake:
        assert asked(fake, times=3).text == "yes"


def test_ask_cleans_characters_that_nothing_holds() -> None:
    raw = http(orjson.dumps(completion("PLACE")).replace(b"PLACE", b"a\\u0000b\\ud800c"))
    with serving(always(raw)) as fake:
        assert asked(fake).text == "a\ufffdb?c"


def test_ask_estimates_what_the_endpoint_does_not_count() -> None:
    with serving(always(http(completion("x" * 40, usage=None)))) as fake:
        reply = asked(fake, ask("y" * 80))
    assert (reply.tokens_in, reply.tokens_out) == (20, 10)


@pytest.mark.parametrize("form", ["plain", "percent", "base64", "escaped"])
def test_key_comes_back_in_no_text(form: str) -> None:
    shown = {
        "plain": KEY,
        "percent": KEY.replace("+", "%2B").replace("/", "%2F"),
        "base64": base64.b64encode(KEY.encode()).decode(),
        "escaped": KEY,
    }[form]
    position = {"token": shown, "logprob": -0.1, "top_logprobs": [{"token": shown, "logprob": -1}]}
    body = orjson.dumps(
        completion(f"Your key is {shown}.", finish=shown, logprobs={"content": [position]})
    )
    if form == "escaped":
        body = body.replace(KEY.encode(), "".join(f"\\u{ord(c):04x}" for c in KEY).encode())
    with serving(always(http(body))) as fake:
        reply = asked(fake, ask(top_logprobs=1), has_logprobs=True)
    assert "Your key is [key]" in reply.text
    assert KEY not in str(reply)
    assert shown not in str(reply)


def test_key_comes_back_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    names = ("openai", "openai._base_client", "httpx2", "httpcore2.http11", "httpcore2.connection")
    for name in ("", "asyncio", *names):
        caplog.set_level(logging.DEBUG, logger=name)
    echo = f"x-request-id: {KEY}\r\nx-echo: Bearer {KEY}\r\n"
    error = {"error": {"message": f"bad key {KEY}", "code": KEY, "type": KEY}}
    shown = []
    for answer in (
        always(http(error, status=401, headers=echo, reason=KEY)),
        always(http(error, status=500, headers=echo, reason=KEY)),
        always(http(KEY.encode(), status=429, headers=f"{echo}retry-after: {KEY}\r\n")),
        always(http({"error": {"message": KEY}})),
        always(http(completion(KEY), headers=echo, reason=KEY)),
        then_closes(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode()),
        then_closes(f"{KEY}\r\n\r\n".encode()),
        always(http(b"", headers=f"content-encoding: {KEY}\r\n")),
        always(http(b"{}", status=302, headers=f"location: http://x/{KEY}\r\n")),
    ):
        with serving(answer) as fake:
            try:
                shown.append(repr(asked(fake)))
            except AttemptFailed as failed:
                shown += [failed.detail, repr(failed), repr(failed.args), repr(failed.__cause__)]
    assert "bad key [key]" in shown[0]
    assert KEY not in "".join(shown)
    assert KEY not in caplog.text
    assert KEY not in repr(Server("http://x", key=KEY))


NAMES = [
    "choices", "message", "content", "logprobs", "top_logprobs", "token", "logprob", "usage",
    "prompt_tokens", "completion_tokens", "refusal", "error", "code", "text",
]  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(body=JSON, message=JSON, logprobs=JSON, usage=JSON)
def test_read_completion_reads_or_refuses_anything(
    body: Any, message: Any, logprobs: Any, usage: Any
) -> None:
    shaped = {"choices": [{"message": message, "logprobs": logprobs}], "usage": usage}
    for value in (body, shaped, {"choices": [{"message": {"content": body}}], "usage": usage}):
        raw = json.dumps(value).encode()  # takes NaN, long integers and halves of characters
        try:
            reply = read_completion(
                raw, ask(top_logprobs=2), key=b"k", latency_ms=1, scrub=lambda text: text
            )
        except Unreadable:
            continue
        assert 0 <= reply.tokens_in < 2**31
        assert 0 <= reply.tokens_out < 2**31


def test_reply_of_the_longest_length_is_read() -> None:
    text = "x" * (MAX_BYTES - 1000)
    with serving(always(http(completion(text)))) as fake:
        assert len(asked(fake).text) == len(text)
