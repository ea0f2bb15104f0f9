"""Calls to a project's endpoints: limits shared by all processes, every reply in the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from django.conf import settings
from redis.asyncio import Redis

from annotator.models import Endpoint, Project, Run
from annotator.services.endpoints import server_of
from annotator.services.llm_ledger import TableLedger
from annotator.services.llm_limiter import RedisLimiter
from rubrics.llm.budget import Budget, Spent
from rubrics.llm.caller import Caller
from rubrics.llm.retry import Patience

REDIS_TIMEOUT: Final = 10.0  # seconds


@asynccontextmanager
async def open_caller(
    *,
    endpoint: Endpoint,
    run: Run | None = None,
    project: Project | None = None,
    budget: Budget | None = None,
    spent: Spent | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[Caller]:
    """A Caller of ``endpoint`` for as long as the block lasts.

    A reply is in the ledger of ``project`` (the endpoint's if not given) when its call returns,
    and is what every equal call of that project gets from then on. ``spent`` is what counts
    against ``budget`` already; if not given, all that the ledger has of ``run``. ``patience`` says
    how often a call that fails is tried again, where somebody waits for it. Leaving the block waits
    some seconds for the calls on the wire. Raises AppError if the endpoint cannot be used.
    """
    from rubrics.llm.client import Client  # brings the SDK, which no page needs

    server = server_of(endpoint)
    ledger = TableLedger(
        project_id=project.pk if project else endpoint.project_id,
        endpoint_id=endpoint.pk,
        run_id=run.pk if run else None,
    )
    try:
        before = await ledger.start()
        async with (
            Redis.from_url(
                settings.REDIS_URL,
                socket_timeout=REDIS_TIMEOUT,
                socket_connect_timeout=REDIS_TIMEOUT,
            ) as redis,
            Client(server) as client,
        ):
            limiter = RedisLimiter(
                redis,
                prefix=_prefix(endpoint),
                concurrency=endpoint.concurrency,
                per_minute=endpoint.per_minute,
            )
            caller = Caller(
                client=client,
                ledger=ledger,
                limiter=limiter,
                budget=budget,
                spent=spent or before,
                prices=endpoint.prices,
                patience=patience,
            )
            try:
                yield caller
            finally:
                await caller.close()
                await limiter.close()
    finally:
        await ledger.close()


def _prefix(endpoint: Endpoint) -> str:
    """Of the limiter's keys: two installations that share a Redis have other prefixes."""
    own = settings.CACHES["default"]["KEY_PREFIX"]
    queue = settings.CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"]
    return f"{queue}{own}:llm:{endpoint.pk}:"
