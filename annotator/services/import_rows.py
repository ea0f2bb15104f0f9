"""Rows into tables by COPY, in one transaction on a connection of its own.

Ids are drawn from the sequences in blocks, so that a row's children can name it before it is
there; what the project has already is looked up by content hash, a chunk at a time. One import
at a time per project: an advisory lock, held until the transaction ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import orjson
import psycopg
from django.db import connection

from annotator.importers.types import KnownTask, Reply
from annotator.models import Project, ProjectSettings, Run
from annotator.services import acceptance, hashing
from annotator.services.import_chunk import Checked, Chunk, Counts
from annotator.services.import_copy import (
    COPIES,
    EMPTY,
    NULL,
    TABLES,
    as_json,
    escaped,
    image_id,
)
from annotator.services.import_votes import Desk, gold_json
from annotator.services.queue import IMPORT_LOCK_SQL
from annotator.services.runs import LostRun
from annotator.services.splits import splitter

LOCK_POLL: Final = 0.5  # seconds between two looks whether another import has ended
ANALYZE_FROM: Final = 5_000  # rows; below that autovacuum is soon enough
KNOWN_TASKS: Final = """
    CREATE TEMPORARY TABLE import_task ON COMMIT DROP AS
    SELECT coalesce(nullif(t.external_id, ''), p.external_id) AS name, t.id, t.prompt_id,
           t.response_ids
    FROM annotator_task t JOIN annotator_prompt p ON p.id = t.prompt_id
    WHERE t.project_id = %s AND t.kind = 'pairwise' AND (t.external_id <> '' OR p.external_id <> '')
"""
NAMED_TASKS: Final = """
    SELECT name, id, prompt_id, response_ids[1], response_ids[2]
    FROM import_task WHERE name = ANY(%s)
"""
# Tasks that were here before and got a verdict or a known answer from this file.
TOUCHED: Final = """
    CREATE TEMPORARY TABLE import_touched (n bigserial, id bigint, gold text) ON COMMIT DROP
"""
TOUCH: Final = """
    INSERT INTO import_touched (id, gold) SELECT * FROM unnest(%s::bigint[], %s::text[])
"""
# By id and at the very end: as everybody locks tasks, and nobody waits for a whole import.
LOCK_TOUCHED: Final = """
    SELECT count(*) FROM (
        SELECT FROM annotator_task WHERE id IN (SELECT id FROM import_touched)
        ORDER BY id FOR NO KEY UPDATE
    ) locked
"""
SET_GOLDS: Final = """
    UPDATE annotator_task t SET gold = g.gold::jsonb
    FROM (SELECT DISTINCT ON (id) id, gold FROM import_touched
          WHERE gold IS NOT NULL ORDER BY id, n) g
    WHERE t.id = g.id AND t.gold IS NULL
"""
# Edges say for themselves whether they are of a gold or of a task that a reviewer settled.
MARK_EDGES: Final = """
    UPDATE annotator_preference p SET is_gold = t.is_gold, is_overruled = t.is_settled
    FROM annotator_task t JOIN annotator_judgment j ON j.task_id = t.id
    WHERE t.id IN (SELECT id FROM import_touched) AND (t.is_gold OR t.is_settled)
      AND j.import_run_id = %s AND p.judgment_id = j.id
"""
# Votes of judges that were accepted here count no more where labels of somebody else came.
FOLLOW: Final = acceptance.follow_sql("SELECT id FROM import_touched")


class Loader:
    """``with Loader(...) as loader: loader.add(rows)``; commits at the end of the block.

    Any exception in the block rolls everything back.
    """

    def __init__(
        self,
        *,
        project: Project,
        run: Run,
        is_simulated: bool = False,
        is_open: bool = True,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """``is_open``: people are asked to judge the new tasks; else only their labels count."""
        self.counts = Counts()
        self._project = project
        self._run, self._token = run.pk, run.token
        self._while_waiting = while_waiting
        self._is_simulated = is_simulated
        self._is_open = is_open
        self._knows_tasks = False
        self._position = 0
        self._keeps_ids = False
        self._touches = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"import-{run.pk}")
        self._writing: Future[None] | None = None
        self._sequences: dict[str, int] = {}
        self._now = datetime.now(UTC).isoformat()

    def __enter__(self) -> Self:
        self._connection = psycopg.connect(**_plain(connection.get_connection_params()))
        try:
            self._prepare()
        except BaseException:
            self._writer.shutdown()
            self._connection.close()
            raise
        return self

    def _prepare(self) -> None:
        self._cursor = self._connection.cursor()
        # Deferred checks would pile up in memory until the commit.
        self._cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        while not self._is_first():
            self._while_waiting()
            time.sleep(LOCK_POLL)
        # Read under the lock: from here on nobody changes overlap or split (projects.change).
        self._cursor.execute(
            "SELECT settings FROM annotator_project WHERE id = %s", [self._project.pk]
        )
        options = ProjectSettings.model_validate(self._cursor.fetchone()[0])
        self._options = options
        self._overlap = options.overlap if self._is_open else 0
        self._split_of = splitter(shares=options.split, seed=options.split_seed)
        # Looked up once: in the query that draws ids it would be looked up for each of them.
        for table in TABLES:
            self._cursor.execute(
                "SELECT pg_get_serial_sequence(%s, 'id')::regclass::oid", [f"annotator_{table}"]
            )
            self._sequences[table] = self._cursor.fetchone()[0]
        self._cursor.execute(
            "SELECT coalesce(max(position), 0) FROM annotator_task WHERE project_id = %s",
            [self._project.pk],
        )
        self._position = self._cursor.fetchone()[0]
        self._desk = Desk(
            project_id=self._project.pk,
            run_id=self._run,
            options=options,
            counts=self.counts,
            cursor=self._cursor,
            ids=self._ids,
            is_simulated=self._is_simulated,
            now=self._now,
        )

    def _is_first(self) -> bool:
        self._cursor.execute(IMPORT_LOCK_SQL, [self._project.pk])
        return self._cursor.fetchone()[0]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._wait()
                self._finish()
                self._connection.commit()
        finally:
            self._writer.shutdown()
            # Closing alone lets go of the lock only once the server notices.
            with suppress(psycopg.OperationalError):  # lost: nothing of it is kept anyway
                self._connection.rollback()
            self._connection.close()
        if error is None and self.counts.prompts + self.counts.judgments > ANALYZE_FROM:
            self._analyze()

    def _finish(self) -> None:
        # By id, as everybody locks raters: see services.queue.
        self._cursor.execute(
            "SELECT id FROM annotator_rater WHERE project_id = %s ORDER BY id FOR NO KEY UPDATE",
            [self._project.pk],
        )
        for name, added in self.counts.raters.items():
            self._cursor.execute(
                "UPDATE annotator_rater SET judged = judged + %s WHERE id = %s",
                [added, self._desk.raters[name]],
            )
        # New tasks may sort before a mark: see services.queue.reset_marks.
        self._cursor.execute(
            "UPDATE annotator_rater SET mark_priority = NULL, mark_position = NULL,"
            " mark_task_id = NULL, claims_since_mark = 0"
            " WHERE project_id = %s AND kind = 'human'",
            [self._project.pk],
        )

    def _analyze(self) -> None:
        with connection.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"ANALYZE annotator_{table}")

    def record(self, result: dict[str, Any]) -> None:
        """Keep the run's result in the same transaction as the rows it speaks of."""
        self._wait()
        self._cursor.execute(
            "UPDATE annotator_run SET result = %s WHERE id = %s AND token = %s",
            [orjson.dumps(result, default=str).decode(), self._run, self._token],
        )
        if not self._cursor.rowcount:
            raise LostRun(f"run {self._run} belongs to another worker")

    def add(self, rows: Sequence[Checked]) -> None:
        """Add checked rows with the replies that each of their tasks holds.

        Returns while PostgreSQL still takes the rows in: the caller reads on meanwhile.
        """
        chunk = Chunk(rows)
        self._wait()
        if chunk.rows:
            self._place_prompts(chunk)
            self._place_responses(chunk)
            self._place_tasks(chunk)
        self._desk.place(chunk)
        self._touch(chunk)
        self.counts.rows_known += chunk.rows_known()
        self._writing = self._writer.submit(self._write, chunk.lines)

    def _touch(self, chunk: Chunk) -> None:
        touched = [(pk, None) for pk in chunk.old_tasks if chunk.has_labels] + chunk.golds
        if not touched:
            return
        if not self._touches:
            self._cursor.execute(TOUCHED)
            self._touches = True
        self._cursor.execute(TOUCH, list(map(list, zip(*touched, strict=True))))

    def settle(self) -> None:
        """After the last row: what it means for tasks that were here before."""
        self._wait()
        if not self._touches:
            return
        self._cursor.execute(LOCK_TOUCHED)
        self._cursor.execute(SET_GOLDS)
        self.counts.golds += self._cursor.rowcount
        self._cursor.execute(MARK_EDGES, [self._run])
        self._cursor.execute(FOLLOW)

    @property
    def judges(self) -> list[str]:
        """The AI judges whose verdicts came along."""
        return self._desk.judges.names

    @property
    def options(self) -> ProjectSettings:
        """The project's settings, read under the lock that keeps them as they are."""
        return self._options

    def tasks_named(self, names: Sequence[str]) -> dict[str, list[KnownTask]]:
        """Pairwise tasks that were here before this import, by the id of their prompt."""
        self._wait()
        if not self._knows_tasks:
            self._cursor.execute(KNOWN_TASKS, [self._project.pk])
            self._cursor.execute("CREATE INDEX ON import_task (name)")
            self._knows_tasks = True
        found: dict[str, list[KnownTask]] = {}
        for name, *task in self._known(NAMED_TASKS, list(set(names))):
            found.setdefault(name, []).append(KnownTask(*task))
        return found

    def _write(self, lines: dict[str, list[str]]) -> None:
        for table in TABLES:
            if lines[table]:
                statement = f"COPY annotator_{table} ({COPIES[table]}) FROM STDIN"
                with self._cursor.copy(statement) as copy:
                    copy.write("".join(lines[table]))

    def _wait(self) -> None:
        """Until the chunk before is in: what follows may meet its rows. Raises its error."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def taken_ids(self, named: Sequence[tuple[str, list[dict[str, Any]]]]) -> set[int]:
        """Places of rows whose id an earlier row of this file gave to another prompt.

        ``named`` holds (id, messages); an empty id is none. What was seen lies in a temporary
        table, so that memory does not grow with the file.
        """
        self._wait()
        first: dict[str, bytes] = {}
        prompts = [hashing.of_prompt(messages) for _, messages in named]
        for (name, _), prompt in zip(named, prompts, strict=True):
            if name:
                first.setdefault(name, prompt)
        if not self._keeps_ids:
            self._cursor.execute(
                "CREATE TEMPORARY TABLE import_id (id text PRIMARY KEY, prompt bytea)"
                " ON COMMIT DROP"
            )
            self._keeps_ids = True
        self._cursor.execute(
            "INSERT INTO import_id SELECT * FROM unnest(%s::text[], %s::bytea[])"
            " ON CONFLICT DO NOTHING",
            [list(first), list(first.values())],
        )
        if self._cursor.rowcount < len(first):
            known = self._known("SELECT id, prompt FROM import_id WHERE id = ANY(%s)", list(first))
            first = {name: bytes(prompt) for name, prompt in known}
        return {
            place
            for place, ((name, _), prompt) in enumerate(zip(named, prompts, strict=True))
            if name and first[name] != prompt
        }

    def _ids(self, table: str, count: int) -> Sequence[int]:
        """Fresh ids: a range where nobody else drew in between, which is nearly always."""
        if not count:
            return ()
        drawn = f"SELECT nextval({self._sequences[table]}) AS n FROM generate_series(1, {count})"
        self._cursor.execute(f"SELECT min(n), max(n) FROM ({drawn}) ids")
        low, high = self._cursor.fetchone()
        if high - low + 1 == count:
            return range(low, high + 1)
        self._cursor.execute(drawn)
        return [row[0] for row in self._cursor.fetchall()]

    def _known(self, query: str, *values: Any) -> list[tuple]:
        self._cursor.execute(query, values)
        return self._cursor.fetchall()

    def _place_prompts(self, chunk: Chunk) -> None:
        hashes = list(dict.fromkeys(chunk.prompt_hashes))
        found = self._known(
            "SELECT content_hash, id FROM annotator_prompt"
            " WHERE project_id = %s AND content_hash = ANY(%s)",
            self._project.pk,
            hashes,
        )
        chunk.prompt_ids = {bytes(key): pk for key, pk in found}
        chunk.old_prompts = set(chunk.prompt_ids.values())
        missing = [key for key in hashes if key not in chunk.prompt_ids]
        chunk.prompt_ids.update(zip(missing, self._ids("prompt", len(missing)), strict=True))
        new = set(missing)
        lines = chunk.lines["prompt"]
        for key, (row, _) in zip(chunk.prompt_hashes, chunk.rows, strict=True):
            if key not in new:
                continue
            new.discard(key)
            split = self._split_of(hashing.of_prompt(row.messages)).value
            self.counts.splits[split] += 1
            lines.append(
                f"{chunk.prompt_ids[key]}\t{self._project.pk}\t\\\\x{key.hex()}"
                f"\t{as_json(row.messages)}\t{split}\t{escaped(row.external_id)}"
                f"\t{as_json(row.tags or [])}\t{as_json(row.extra) if row.extra else EMPTY}"
                f"\t{self._run}\t{self._now}\t{image_id(row.source)}\t{image_id(row.mask)}"
                f"\t{row.thread}\t{row.turn}\n"
            )
        self.counts.prompts += len(missing)

    def _place_responses(self, chunk: Chunk) -> None:
        known: dict[tuple[int, bytes], int] = {}
        if chunk.old_prompts:
            found = self._known(
                "SELECT prompt_id, content_hash, id FROM annotator_response"
                " WHERE prompt_id = ANY(%s)",
                list(chunk.old_prompts),
            )
            known = {(prompt, bytes(key)): pk for prompt, key, pk in found}
        wanted: dict[tuple[int, bytes], Reply] = {}
        for at, (key, hashes, (row, _)) in enumerate(
            zip(chunk.prompt_hashes, chunk.reply_hashes, chunk.rows, strict=True)
        ):
            prompt = chunk.prompt_ids[key]
            for reply_hash, reply in zip(hashes, row.replies, strict=True):
                place = (prompt, reply_hash)
                if place not in known and place not in wanted:
                    wanted[place] = reply
                    chunk.rows_that_add.add(at)
        lines = chunk.lines["response"]
        ids = self._ids("response", len(wanted))
        for pk, ((prompt, reply_hash), reply) in zip(ids, wanted.items(), strict=True):
            known[(prompt, reply_hash)] = pk
            messages = as_json(reply.messages) if reply.messages else NULL
            lines.append(
                f"{pk}\t{self._project.pk}\t{prompt}\t\\\\x{reply_hash.hex()}"
                f"\t{escaped(reply.text)}\t{messages}\t{escaped(reply.generator)}"
                f"\t{as_json(reply.sampling) if reply.sampling else EMPTY}"
                f"\t{as_json(reply.extra) if reply.extra else EMPTY}"
                f"\t{self._run}\t{self._now}\t{image_id(reply.image)}"
                f"\t{escaped(reply.leak)}\n"
            )
        chunk.response_ids = known
        self.counts.responses += len(wanted)

    def _place_tasks(self, chunk: Chunk) -> None:
        wanted: dict[bytes, tuple[int, tuple[int, ...]]] = {}  # hash -> (row, its places)
        for at, (key, hashes, (row, tasks)) in enumerate(
            zip(chunk.prompt_hashes, chunk.reply_hashes, chunk.rows, strict=True)
        ):
            for places in tasks:
                task = hashing.of_task(row.kind, key, [hashes[place] for place in places])
                chunk.task_hashes[(at, places)] = task
                wanted.setdefault(task, (at, places))
        if chunk.old_prompts:
            found = self._known(
                "SELECT content_hash, id, response_ids FROM annotator_task"
                " WHERE project_id = %s AND content_hash = ANY(%s)",
                self._project.pk,
                list(wanted),
            )
            for key, pk, response_ids in found:
                chunk.tasks[bytes(key)] = (pk, response_ids)
                chunk.old_tasks.append(pk)
        old = set(chunk.tasks)
        missing = [key for key in wanted if key not in old]
        for pk, key in zip(self._ids("task", len(missing)), missing, strict=True):
            chunk.tasks[key] = (pk, chunk.ids_of(*wanted[key]))
        golds = self._golds(chunk, old)
        for key in missing:
            at, _places = wanted[key]
            self._write_task(chunk, at, key, golds.get(key, NULL))
        self.counts.tasks += len(missing)
        self._count_repeats(chunk, set(missing))

    def _write_task(self, chunk: Chunk, at: int, key: bytes, gold: str) -> None:
        pk, ids = chunk.tasks[key]
        row, tasks = chunk.rows[at]
        kind = row.kind
        name = escaped(row.external_id) if row.external_id and len(tasks) == 1 else ""
        prompt = chunk.prompt_ids[chunk.prompt_hashes[at]]
        self._position += 1
        self.counts.kinds[kind] += 1
        chunk.lines["task"].append(
            f"{pk}\t{self._project.pk}\t{prompt}\t{kind}\t{{{','.join(map(str, ids))}}}"
            f"\t\\\\x{key.hex()}\t{self._overlap}\t{self._overlap}\t{self._position}"
            f"\t{self._run}\t{self._now}\t0\t0\tf\t{gold}\t{name}\n"
        )

    def _golds(self, chunk: Chunk, old: set[bytes]) -> dict[bytes, str]:
        """Known answers of new tasks as fields; those of old ones wait in ``chunk.golds``."""
        golds: dict[bytes, str] = {}
        for at, (row, tasks) in enumerate(chunk.rows if chunk.has_golds else ()):
            if row.gold is None or len(tasks) != 1:
                continue
            key = chunk.task_hashes[(at, tasks[0])]
            pk, ids = chunk.tasks[key]
            order = [chunk.ids_of(at, tasks[0]).index(one) for one in ids]
            gold = gold_json(row.gold, row.kind, order, options=self._options)
            if key in old:
                chunk.golds.append((pk, gold))
            elif key not in golds:
                golds[key] = escaped(gold)
                self.counts.golds += 1
        for row in chunk.onto:
            if row.gold is not None and row.onto is not None:
                gold = gold_json(row.gold, "pairwise", [0, 1], options=self._options)
                chunk.golds.append((row.onto.id, gold))
        return golds

    def _count_repeats(self, chunk: Chunk, fresh: set[bytes]) -> None:
        for (at, _places), key in chunk.task_hashes.items():
            if key in fresh:
                fresh.discard(key)
                chunk.rows_that_add.add(at)
            elif not chunk.rows[at][0].votes and not chunk.rows[at][0].verdicts:
                # a repeated vote is counted as a vote
                self.counts.skipped_duplicates += 1


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Django's connection parameters less what only its own cursors understand."""
    ours = {"cursor_factory", "context", "prepare_threshold", "server_side_binding"}
    return {key: value for key, value in parameters.items() if key not in ours}
