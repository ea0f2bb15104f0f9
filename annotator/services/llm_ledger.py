"""The table LlmCall as a Ledger (rubrics.llm.caller), written and read in batches by one thread.

The thread has a connection of its own. Whatever calls have gathered while it was busy goes into
the next round: one look-up, one insert, one commit for all of them, and nothing waits for more to
come. A key is claimed by an advisory lock of that connection: PostgreSQL frees it at once when the
process dies, so that two runs never pay for the same call and none waits for a dead one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import orjson
import psycopg
from django.db import Error, InterfaceError, OperationalError, connection
from django.db.models import Count, Sum
from psycopg import Cursor

from annotator.models import LlmCall
from rubrics.llm.budget import Spent
from rubrics.llm.replies import without_bad_characters
from rubrics.llm.types import Reply, Request

log = logging.getLogger(__name__)

# Seconds between two looks at a call that another run is making.
BUSY_WAIT: Final = (0.1, 0.3)
TRIES: Final = 6  # of a round while PostgreSQL is away; waits 0.5, 1, 2, ... seconds in between
MAX_ROWS: Final = 500  # of one insert
ROW_SQL: Final = "(%s, %s, %s, %s, %s, %s::jsonb, %s, %s::jsonb, %s, %s, %s, %s, %s, %s, now())"
INSERT_SQL: Final = """
INSERT INTO annotator_llmcall
  (project_id, key, endpoint_id, run_id, model, request, reply, logprobs, finish_reason,
   tokens_in, tokens_out, cost, latency_ms, attempts, created_at)
VALUES {rows} ON CONFLICT (project_id, key) DO NOTHING
"""
SELECT_SQL: Final = """
SELECT key, reply, logprobs, finish_reason, tokens_in, tokens_out, latency_ms, attempts
FROM annotator_llmcall WHERE project_id = %s AND key = ANY(%s)
"""
LOCK_SQL: Final = "SELECT n, pg_try_advisory_lock(n) FROM unnest(%s::bigint[]) AS n"
UNLOCK_SQL: Final = "SELECT pg_advisory_unlock(n) FROM unnest(%s::bigint[]) AS n"

CLAIMED: Final = "claimed"
BUSY: Final = "busy"
Row = tuple[Any, ...]  # the values of ROW_SQL
Told = list[tuple["asyncio.Future[Any]", Any]]


@dataclass(slots=True)
class _Round:
    """What has gathered since the last round."""

    claims: list[tuple[bytes, asyncio.Future[Any]]] = field(default_factory=list)
    puts: list[tuple[Row, asyncio.Future[Any]]] = field(default_factory=list)
    releases: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.claims or self.puts or self.releases)


class TableLedger:
    """A Ledger of one project's calls. ``start`` it in the event loop that uses it; ``close`` it."""

    def __init__(self, *, project_id: int, endpoint_id: int, run_id: int | None) -> None:
        self._project_id = project_id
        self._endpoint_id = endpoint_id
        self._run_id = run_id
        self._round = _Round()
        self._news = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="llm-ledger", daemon=True)

    async def start(self) -> Spent:
        """Begin to work; returns what the run has paid for before."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[Spent] = self._loop.create_future()
        self._thread.start()
        return await self._started

    async def close(self) -> None:
        """Finish what has gathered, free every claim, close the connection."""
        with self._news:
            self._is_closing = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join)

    async def claim(self, key: bytes) -> Reply | None:
        while True:
            future: asyncio.Future[Any] = self._loop.create_future()
            with self._news:
                self._round.claims.append((key, future))
                self._news.notify()
            try:
                found = await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled() and future.result() == CLAIMED:
                    await self.release(key)
                raise
            if found == CLAIMED:
                return None
            if isinstance(found, Reply):
                return found
            await asyncio.sleep(random.uniform(*BUSY_WAIT))

    async def put(self, request: Request, reply: Reply) -> None:
        row = self._row(request, reply)
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._news:
            self._round.puts.append((row, future))
            self._news.notify()
        await future

    async def release(self, key: bytes) -> None:
        with self._news:
            self._round.releases.append(key)
            self._news.notify()

    def _row(self, request: Request, reply: Reply) -> Row:
        sent = orjson.dumps(request.as_json())
        if b"\\u0000" in sent:  # or the text of one, which is rare as well
            sent = orjson.dumps(_storable(request.as_json()))
        logprobs = reply.top_logprobs
        return (
            self._project_id,
            reply.key,
            self._endpoint_id,
            self._run_id,
            without_bad_characters(request.model)[:200],
            sent.decode(),
            without_bad_characters(reply.text),
            None if logprobs is None else orjson.dumps(_storable(logprobs)).decode(),
            without_bad_characters(reply.finish_reason)[:40],
            reply.tokens_in,
            reply.tokens_out,
            reply.cost,
            reply.latency_ms,
            reply.attempts,
        )

    # In the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._tell([(self._started, self._tried(self._spent))])
            while True:
                with self._news:
                    while not self._round and not self._is_closing:
                        self._news.wait()
                    now, self._round = self._round, _Round()
                if not now:
                    return
                written = self._write(now.puts)  # committed before its claims end
                self._tell(written)
                freed = now.releases + [row[1] for row, _ in now.puts]
                self._tell(self._look_up(now.claims, freed))
        finally:
            connection.close()  # frees every claim

    def _tell(self, told: Told) -> None:
        if told:
            self._loop.call_soon_threadsafe(self._deliver, told)

    def _deliver(self, told: Told) -> None:
        for future, result in told:
            if future.cancelled():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _tried(self, work: Any, *args: Any) -> Any:
        """The result of ``work``, or the exception that remained. A lost connection is made anew."""
        for attempt in range(TRIES):
            try:
                return work(*args)
            except (OperationalError, InterfaceError) as error:
                last: Exception = error
                log.warning("the ledger has lost PostgreSQL", exc_info=True)
                connection.close()
                time.sleep(0.5 * 2**attempt if attempt < TRIES - 1 else 0)
            except (Error, psycopg.Error, ValueError) as error:  # of one round, not of the thread
                return error
        return last

    def _spent(self) -> Spent:
        if self._run_id is None:
            return Spent()
        sums = LlmCall.objects.filter(run_id=self._run_id).aggregate(
            calls=Count("pk"), sent=Sum("tokens_in"), got=Sum("tokens_out"), money=Sum("cost")
        )
        return Spent(
            calls=sums["calls"],
            tokens_in=sums["sent"] or 0,
            tokens_out=sums["got"] or 0,
            money=sums["money"] or 0.0,
        )

    def _write(self, puts: Sequence[tuple[Row, asyncio.Future[Any]]]) -> Told:
        told: Told = []
        for start in range(0, len(puts), MAX_ROWS):
            part = puts[start : start + MAX_ROWS]
            result = self._tried(_insert, [row for row, _ in part])
            if isinstance(result, Exception) and len(part) > 1:
                # One row does not fit: the others are paid for too.
                told += [(future, self._tried(_insert, [row])) for row, future in part]
            else:
                told += [(future, result) for _, future in part]
        return told

    def _look_up(
        self, claims: Sequence[tuple[bytes, asyncio.Future[Any]]], freed: Sequence[bytes]
    ) -> Told:
        """End the claims on ``freed``, then make new ones."""
        wanted = [(key, future) for key, future in claims if not future.cancelled()]
        if not wanted and not freed:
            return []
        found = self._tried(self._claimed, [key for key, _ in wanted], freed)
        if isinstance(found, Exception):
            return [(future, found) for _, future in wanted]
        return [(future, found[key]) for key, future in wanted]

    def _claimed(self, keys: Sequence[bytes], freed: Sequence[bytes]) -> dict[bytes, Any]:
        """Reply, CLAIMED or BUSY for every key.

        The look-up comes after the lock: who held it before may have written the row just then.
        """
        numbers = {self._lock(key): key for key in keys}
        with _cursors() as (first, second, third):
            if freed:
                first.execute(UNLOCK_SQL, [[self._lock(key) for key in freed]])
            if keys:
                second.execute(LOCK_SQL, [list(numbers)])
                third.execute(SELECT_SQL, [self._project_id, list(keys)])
        if not keys:
            return {}
        ours = {numbers[number] for number, is_ours in second.fetchall() if is_ours}
        found: dict[bytes, Any] = {bytes(row[0]): _reply(row) for row in third.fetchall()}
        if needless := ours & found.keys():
            with _cursors() as (first, *_):
                first.execute(UNLOCK_SQL, [[self._lock(key) for key in needless]])
        return {key: found.get(key, CLAIMED if key in ours else BUSY) for key in keys}

    def _lock(self, key: bytes) -> int:
        """The number of the advisory lock of a call of this project."""
        name = b"touchstone llm %d " % self._project_id + key
        return int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)


@contextmanager
def _cursors() -> Iterator[tuple[Cursor[Any], Cursor[Any], Cursor[Any]]]:
    """Three cursors whose statements go to PostgreSQL in one trip; errors are Django's."""
    connection.ensure_connection()
    raw = connection.connection
    with connection.wrap_database_errors, raw.pipeline():
        yield Cursor(raw), Cursor(raw), Cursor(raw)


def _insert(rows: Sequence[Row]) -> None:
    connection.ensure_connection()
    with connection.wrap_database_errors:
        Cursor(connection.connection).execute(
            INSERT_SQL.format(rows=",".join([ROW_SQL] * len(rows))),
            [value for row in rows for value in row],
        )


def _reply(row: Sequence[Any]) -> Reply:
    key, text, logprobs, finish, tokens_in, tokens_out, latency, attempts = row
    return Reply(
        text=text,
        key=bytes(key),
        finish_reason=finish,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        latency_ms=latency,
        attempts=attempts,
        top_logprobs=None if logprobs is None else _tuples(orjson.loads(logprobs)),
        is_cached=True,
    )


def _tuples(logprobs: list[list[list[Any]]]) -> tuple[tuple[tuple[str, float], ...], ...]:
    return tuple(tuple((token, float(value)) for token, value in position) for position in logprobs)


def _storable(value: Any) -> Any:
    """JSON that PostgreSQL takes."""
    if isinstance(value, str):
        return without_bad_characters(value)
    if isinstance(value, dict):
        return {without_bad_characters(key): _storable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(part) for part in value]
    return value
