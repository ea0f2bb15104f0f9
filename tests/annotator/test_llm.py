"""Calls through the table and Redis: paid once, whoever asks, whoever dies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from annotator.models import LlmCall
from annotator.services import endpoints
from annotator.services.llm import open_caller
from rubrics.llm.types import Message, Request
from tests import factories
from tests.rubrics.llm_server import always, completion, http, serving

pytestmark = pytest.mark.django_db(transaction=True)


def ask(text: str = "Hello", **fields: Any) -> Request:
    return Request(model="m", messages=(Message("user", (text,)),), **fields)


def test_call_is_kept_and_asked_once(settings: Any) -> None:
    project = factories.project()
    with serving(always(http(completion("yes")))) as fake:
        settings.LLM_HOSTS = [fake.host]
        endpoint = endpoints.add(
            project=project, name="E", base_url=fake.base_url, by=None, prices={"*": [1, 2]}
        )

        async def main() -> Any:
            async with open_caller(endpoint=endpoint) as call:
                first = await call(ask())
                again = await call(ask())
                many = await asyncio.gather(*(call(ask(f"q{n % 10}")) for n in range(50)))
                return first, again, many, call.counters.as_json()

        first, again, many, counters = asyncio.run(main())
        assert len(fake.seen) == 11
    assert first.text == "yes"
    assert first.cost == pytest.approx(14e-6)
    assert again.is_cached
    assert again.cost == 0
    assert len(many) == 50
    assert counters["calls"] == 11
    assert counters["cached"] == 41
    assert LlmCall.objects.filter(project=project).count() == 11
