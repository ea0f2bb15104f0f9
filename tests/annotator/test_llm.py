"""Calls through the table and Redis: paid once, whoever asks, whoever dies."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from django.db import ProgrammingError, connection
from django.test import Client as Browser
from django.urls import reverse

from annotator.errors import AppError, NotAllowed
from annotator.jobs.base import perform
from annotator.models import AuditEvent, Endpoint, LlmCall, Project, Run, RunState, User
from annotator.services import endpoints
from annotator.services.llm import open_caller
from annotator.services.llm_ledger import TableLedger
from rubrics.llm.budget import Budget, Spent
from rubrics.llm.caller import Caller
from rubrics.llm.types import CallFailed, Message, Reply, Request
from tests import factories
from tests.rubrics.llm_server import Fake, Seen, always, completion, http, in_turn, serving

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "sk-planted-0123456789abcdef"
YES = http(completion("yes"))
# The connections that hold claims.
HELD = """
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND datname = current_database()
"""
TERMINATE = f"SELECT pg_terminate_backend(pid) FROM ({HELD}) AS held"


def ask(text: str = "Hello", **fields: Any) -> Request:
    return Request(model="m", messages=(Message("user", (text,)),), **fields)


def endpoint_at(
    fake: Fake, settings: Any, project: Project | None = None, **values: Any
) -> Endpoint:
    settings.LLM_HOSTS = [fake.host]
    values = {"name": "E", "base_url": fake.base_url, "by": None, "prices": {"*": [1, 2]}, **values}
    return endpoints.add(project=project or factories.project(), **values)


def calling(
    work: Callable[[Caller], Coroutine[Any, Any, Any]], endpoint: Endpoint, **parts: Any
) -> Any:
    async def main() -> Any:
        async with open_caller(endpoint=endpoint, **parts) as call:
            return await work(call)

    return asyncio.run(main())


async def all_of(call: Caller, texts: list[str]) -> list[Reply]:
    return list(await asyncio.gather(*(call(ask(text)) for text in texts)))


def a_run(project: Project) -> Run:
    return Run.objects.create(project=project, kind=Run.Kind.JUDGE, title="J")


def test_call_is_in_the_ledger_when_it_returns(settings: Any) -> None:
    with serving(always(YES)) as fake:
        endpoint = endpoint_at(fake, settings)
        run = a_run(endpoint.project)

        async def work(call: Caller) -> None:
            reply = await call(ask())
            row = await asyncio.to_thread(the_row)
            assert bytes(row.key) == reply.key == ask().key(fake.base_url)
            assert row.request == ask().as_json()
            assert (row.reply, row.model, row.run_id) == ("yes", "m", run.pk)
            assert (row.tokens_in, row.tokens_out, row.attempts) == (10, 2, 1)
            assert row.cost == reply.cost == pytest.approx(14e-6)

        calling(work, endpoint, run=run)


def test_equal_calls_are_paid_once(settings: Any) -> None:
    texts = [f"q{n % 10}" for n in range(50)]
    with serving(always(YES)) as fake:
        endpoint = endpoint_at(fake, settings)

        async def work(call: Caller) -> dict[str, Any]:
            await all_of(call, texts)
            return call.counters.as_json()

        first = calling(work, endpoint)
        again = calling(work, endpoint)
        assert (first["calls"], first["cached"]) == (10, 40)
        assert (again["calls"], again["cached"], again["cost"]) == (0, 50, 0)
        assert len(fake.seen) == 10
        # Another project pays for itself.
        calling(work, endpoint_at(fake, settings))
        assert len(fake.seen) == 20
    assert LlmCall.objects.count() == 20


def test_cached_reply_is_the_one_that_was_paid(settings: Any) -> None:
    strange = r"a\u0000b\ud800c '\\u0000'"
    position = {"token": "\u0000", "logprob": -1, "top_logprobs": []}
    body = completion("PLACE", logprobs={"content": [position]}, finish="f" * 99)
    body["usage"] = {"prompt_tokens": 10**30, "completion_tokens": -5}
    raw = json.dumps(body).encode().replace(b'"PLACE"', f'"{strange}"'.encode())
    request = ask("x\x00y \\u0000", top_logprobs=1)
    request = replace(request, model="m" * 300)
    with serving(always(http(raw))) as fake:
        endpoint = endpoint_at(fake, settings, has_logprobs=True)
        first = calling(lambda call: call(request), endpoint)
        again = calling(lambda call: call(request), endpoint)
        assert len(fake.seen) == 1
    assert first.text == "a\ufffdb?c '\\u0000'"
    assert (first.tokens_in, first.tokens_out) == (2**31 - 1, 0)
    assert again == replace(first, cost=0.0, is_cached=True)
    row = LlmCall.objects.get()
    assert row.request["messages"][0]["content"][0]["text"] == "x\ufffdy \\u0000"


def test_two_workers_on_the_same_calls_pay_once(settings: Any) -> None:
    texts = [str(n) for n in range(30)]
    together = threading.Barrier(2)
    counters: list[dict[str, Any]] = []
    with serving(always(YES)) as fake:
        endpoint = endpoint_at(fake, settings)

        async def work(call: Caller) -> None:
            await asyncio.to_thread(together.wait)
            await all_of(call, texts)
            counters.append(call.counters.as_json())

        workers = [threading.Thread(target=calling, args=(work, endpoint)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(fake.seen) == 30
    assert sum(one["calls"] for one in counters) == 30
    assert sum(one["cached"] for one in counters) == 30


def test_resumed_run_goes_on_spending_where_it_stopped(settings: Any) -> None:
    with serving(always(YES)) as fake:
        endpoint = endpoint_at(fake, settings)
        run = a_run(endpoint.project)

        async def work(call: Caller) -> list[str]:
            done = []
            for n in range(8):
                try:
                    await call(ask(str(n)))
                    done.append("ok")
                except CallFailed as failed:
                    done.append(failed.kind)
            return done

        first = calling(work, endpoint, run=run, budget=Budget(calls=5))
        again = calling(work, endpoint, run=run, budget=Budget(calls=6))
        given = calling(work, endpoint, run=run, budget=Budget(calls=6), spent=Spent(calls=5))
    assert first == ["ok"] * 5 + ["budget"] * 3
    assert again == ["ok"] * 6 + ["budget"] * 2
    assert given == ["ok"] * 7 + ["budget"]


def test_claims_of_a_dead_worker_are_free(settings: Any) -> None:
    endpoint = factories.endpoint(factories.project())

    def ledger() -> TableLedger:
        return TableLedger(project_id=endpoint.project_id, endpoint_id=endpoint.pk, run_id=None)

    async def main() -> None:
        first, second = ledger(), ledger()
        await first.start()
        await second.start()
        key = ask().key("u")
        assert await first.claim(key) is None
        waiting = asyncio.create_task(second.claim(key))
        await second.claim(b"other" * 6)  # by then the first try of the one before is over
        assert not waiting.done()
        await asyncio.to_thread(terminate)  # both lose their connections, and so their claims
        assert await waiting is None
        await second.put(ask(), Reply("late", key))  # over a new connection
        found = await first.claim(key)
        assert found is not None
        assert found.text == "late"
        await first.close()
        await second.close()

    asyncio.run(main())


def the_row() -> LlmCall:
    """As another connection sees it."""
    row = LlmCall.objects.get()
    connection.close()
    return row


def terminate() -> None:
    with connection.cursor() as cursor:
        cursor.execute(TERMINATE)
    connection.close()


def test_row_that_does_not_fit_takes_no_other_with_it() -> None:
    endpoint = factories.endpoint(factories.project())

    async def main() -> None:
        ledger = TableLedger(project_id=endpoint.project_id, endpoint_id=endpoint.pk, run_id=None)
        await ledger.start()
        replies = [Reply("x", bytes([n]) * 32, tokens_in=2**40 if n == 3 else 1) for n in range(6)]
        done = await asyncio.gather(
            *(ledger.put(ask(), reply) for reply in replies), return_exceptions=True
        )
        await ledger.close()
        assert [isinstance(one, Exception) for one in done] == [n == 3 for n in range(6)]

    asyncio.run(main())
    assert LlmCall.objects.count() == 5


def test_ledger_that_cannot_read_its_table_says_so_and_goes_on() -> None:
    endpoint = factories.endpoint(factories.project())

    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")
        connection.close()

    async def main() -> None:
        ledger = TableLedger(project_id=endpoint.project_id, endpoint_id=endpoint.pk, run_id=None)
        await ledger.start()
        await asyncio.to_thread(rename, "annotator_llmcall", "away")
        try:
            with pytest.raises(ProgrammingError):
                await ledger.claim(b"k" * 32)
            with pytest.raises(ProgrammingError):
                await ledger.put(ask(), Reply("x", b"k" * 32))
        finally:
            await asyncio.to_thread(rename, "away", "annotator_llmcall")
        assert await ledger.claim(b"k" * 32) is None
        await ledger.close()

    asyncio.run(main())


def test_failures_are_tried_again_and_counted(settings: Any) -> None:
    broken = http({"error": {"message": "busy"}}, status=503, headers="retry-after-ms: 1\r\n")
    slow = http({"error": {"message": "slow"}}, status=429, headers="retry-after-ms: 1\r\n")
    with serving(in_turn(broken, slow, YES)) as fake:
        endpoint = endpoint_at(fake, settings)

        async def work(call: Caller) -> Any:
            return await call(ask()), call.counters.as_json()

        reply, counters = calling(work, endpoint)
    assert reply.attempts == 3
    assert counters["retries"] == {"rate-limited": 1, "server": 1}
    assert LlmCall.objects.get().attempts == 3


def test_host_that_is_no_longer_allowed_is_not_called(settings: Any) -> None:
    with serving(always(YES)) as fake:
        endpoint = endpoint_at(fake, settings)
        settings.LLM_HOSTS = []
        with pytest.raises(NotAllowed):
            calling(lambda call: call(ask()), endpoint)
        assert fake.seen == []


def test_nothing_is_left_behind(settings: Any) -> None:
    with serving(always(YES)) as fake:
        endpoint = endpoint_at(fake, settings)
        calling(lambda call: all_of(call, ["a", "b"]), endpoint)
    assert [one.name for one in threading.enumerate() if "ledger" in one.name] == []
    with connection.cursor() as cursor:
        cursor.execute(HELD)
        assert cursor.fetchall() == []


def test_key_is_in_no_log_row_or_page(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "openai", "openai._base_client", "httpx2", "httpcore2.http11", "redis"):
        caplog.set_level(logging.DEBUG, logger=name)

    async def echo(seen: Seen, writer: Any) -> bytes:
        key = seen.headers["authorization"]
        headers = f"x-request-id: {key}\r\nretry-after-ms: 1\r\n"
        if seen.path.endswith("/models") or seen.prompt == "refuse":
            return http({"error": {"message": key}}, status=400, headers=headers, reason=key)
        return http(completion(f"You sent {key}", finish=key), headers=headers, reason=key)

    owner = User.objects.create_superuser("root@example.org", "x" * 12)
    with serving(echo) as fake:
        endpoint = endpoint_at(fake, settings, secret=KEY, by=owner)
        run = a_run(endpoint.project)

        said: list[str] = []

        def work(pen: Any) -> dict[str, Any]:
            async def both(call: Caller) -> None:
                said.append((await call(ask())).text)
                await call(ask("refuse"))

            try:
                calling(both, endpoint, run=run)
            except CallFailed as failed:
                pen.log(f"{said} {failed.detail}")
                raise AppError(str(failed)) from failed
            return {}

        assert perform(run.pk, work)
        checked = endpoints.check(endpoint=endpoint)
        assert KEY in str([seen.headers for seen in fake.seen])
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "[key]" in run.log
    assert "[key]" in run.error
    browser = Browser()
    browser.force_login(owner)
    pages = [caplog.text, str(checked)]
    for table in (AuditEvent, LlmCall, Run):
        name = table._meta.model_name
        pages.append(str(list(table.objects.values())))
        pages.append(browser.get(reverse(f"admin:annotator_{name}_changelist")).text)
        for one in table.objects.all():
            url = reverse(f"admin:annotator_{name}_change", args=[one.pk])
            pages.append(browser.get(url).text)
    assert "You sent Bearer [key]" in "".join(pages)
    assert KEY not in "".join(pages)
