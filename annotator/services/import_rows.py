"""Rows into tables by COPY, in one transaction on a connection of its own.

Ids are drawn from the sequences in blocks, so that a row's children can name it before it is
there; what the project has already is looked up by content hash, a chunk at a time. One import
at a time per project: an advisory lock, held until the transaction ends.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import orjson
import psycopg
from django.db import connection

from annotator.importers import transcripts
from annotator.importers.types import Reply, Row
from annotator.models import Project, ProjectSettings, Run
from annotator.services import hashing
from annotator.services.queue import IMPORT_LOCK_SQL
from annotator.services.runs import LostRun
from annotator.services.splits import splitter

KIND: Final = "pairwise"
LOCK_POLL: Final = 0.5  # seconds between two looks whether another import has ended
ANALYZE_FROM: Final = 5_000  # rows; below that autovacuum is soon enough
TABLES: Final = ("prompt", "response", "task", "judgment", "preference")
COPIES: Final = {
    "prompt": "id, project_id, content_hash, messages, split, external_id, tags, extra,"
    " import_run_id, created_at",
    "response": "id, project_id, prompt_id, content_hash, text, messages, generator, sampling,"
    " extra, import_run_id, created_at",
    "task": "id, project_id, prompt_id, kind, response_ids, content_hash, overlap, free, position,"
    " import_run_id, created_at, judged, priority, is_gold",
    "judgment": "id, project_id, task_id, rater_id, ranks, strength, both_bad, rationale,"
    " submitted_at, import_run_id, kind, revision, is_current, is_counted, reasons",
    "preference": "id, project_id, judgment_id, task_id, prompt_id, rater_id, a_id, b_id, outcome,"
    " strength, both_bad, is_gold",
}
EMPTY: Final = "{}"


def escaped(text: str) -> str:
    """A text field as COPY's text format wants it."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text:
        text = text.replace("\n", "\\n")
    if "\t" in text:
        text = text.replace("\t", "\\t")
    if "\r" in text:
        text = text.replace("\r", "\\r")
    return text


def as_json(value: Any) -> str:
    # default=str: a Parquet file hands out dates and decimals in columns that no field claims.
    return escaped(orjson.dumps(value, default=str).decode())


@dataclass
class Counts:
    """What one import added and what it found there already."""

    prompts: int = 0
    responses: int = 0
    tasks: int = 0
    judgments: int = 0
    skipped_duplicates: int = 0
    rows_known: int = 0  # rows of the file that added nothing
    splits: Counter[str] = field(default_factory=Counter)
    raters: Counter[str] = field(default_factory=Counter)


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
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.counts = Counts()
        self._project = project
        self._run, self._token = run.pk, run.token
        self._while_waiting = while_waiting
        self._is_simulated = is_simulated
        self._raters: dict[str, int] = {}
        self._position = 0
        self._keeps_ids = False
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
        self._overlap = options.overlap
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
                [added, self._raters[name]],
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

    def add(self, rows: Sequence[tuple[Row, list[tuple[int, int]]]]) -> None:
        """Add checked rows with the pairs of replies that each compares.

        Returns while PostgreSQL still takes the rows in: the caller reads on meanwhile.
        """
        chunk = _Chunk(rows)
        self._wait()
        self._place_prompts(chunk)
        self._place_responses(chunk)
        self._place_tasks(chunk)
        self._place_votes(chunk)
        self.counts.rows_known += len(chunk.rows) - len(chunk.rows_that_add)
        self._writing = self._writer.submit(self._write, chunk.lines)

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

    def _place_prompts(self, chunk: _Chunk) -> None:
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
                f"\t{self._run}\t{self._now}\n"
            )
        self.counts.prompts += len(missing)

    def _place_responses(self, chunk: _Chunk) -> None:
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
            messages = as_json(reply.messages) if reply.messages else "\\N"
            lines.append(
                f"{pk}\t{self._project.pk}\t{prompt}\t\\\\x{reply_hash.hex()}"
                f"\t{escaped(reply.text)}\t{messages}\t{escaped(reply.generator)}"
                f"\t{as_json(reply.sampling) if reply.sampling else EMPTY}"
                f"\t{as_json(reply.extra) if reply.extra else EMPTY}"
                f"\t{self._run}\t{self._now}\n"
            )
        chunk.response_ids = known
        self.counts.responses += len(wanted)

    def _place_tasks(self, chunk: _Chunk) -> None:
        wanted: dict[bytes, tuple[int, int, int]] = {}
        for at, (key, hashes, (_, pairs)) in enumerate(
            zip(chunk.prompt_hashes, chunk.reply_hashes, chunk.rows, strict=True)
        ):
            prompt = chunk.prompt_ids[key]
            for one, other in pairs:
                task = hashing.of_task(KIND, key, (hashes[one], hashes[other]))
                chunk.task_hashes[(at, one, other)] = task
                a = chunk.response_ids[(prompt, hashes[one])]
                b = chunk.response_ids[(prompt, hashes[other])]
                wanted.setdefault(task, (prompt, a, b))
        found = []
        if chunk.old_prompts:
            found = self._known(
                "SELECT content_hash, id, response_ids FROM annotator_task"
                " WHERE project_id = %s AND content_hash = ANY(%s)",
                self._project.pk,
                list(wanted),
            )
        for key, pk, response_ids in found:
            chunk.tasks[bytes(key)] = (pk, response_ids[0])
            chunk.old_tasks.append(pk)
        missing = [key for key in wanted if key not in chunk.tasks]
        lines = chunk.lines["task"]
        for pk, key in zip(self._ids("task", len(missing)), missing, strict=True):
            prompt, a, b = wanted[key]
            chunk.tasks[key] = (pk, a)
            self._position += 1
            lines.append(
                f"{pk}\t{self._project.pk}\t{prompt}\t{KIND}\t{{{a},{b}}}\t\\\\x{key.hex()}"
                f"\t{self._overlap}\t{self._overlap}\t{self._position}\t{self._run}"
                f"\t{self._now}\t0\t0\tf\n"
            )
        self.counts.tasks += len(missing)
        fresh = set(missing)
        for (at, _one, _other), key in chunk.task_hashes.items():
            if key in fresh:
                fresh.discard(key)
                chunk.rows_that_add.add(at)
            elif not chunk.rows[at][0].votes:  # a repeated vote is counted as a vote
                self.counts.skipped_duplicates += 1

    def _place_votes(self, chunk: _Chunk) -> None:
        if not chunk.has_votes:
            return
        taken = self._taken(chunk)
        votes = []
        for at, (row, _) in enumerate(chunk.rows):
            for vote in row.votes:
                key = chunk.task_hashes.get((at, vote.first, vote.second))
                if key is None:
                    key = chunk.task_hashes[(at, vote.second, vote.first)]
                task, first_id = chunk.tasks[key]
                rater = self._rater(vote.rater)
                if (task, rater) in taken:
                    self.counts.skipped_duplicates += 1
                    continue
                taken.add((task, rater))
                prompt = chunk.prompt_ids[chunk.prompt_hashes[at]]
                hashes = chunk.reply_hashes[at]
                first = chunk.response_ids[(prompt, hashes[vote.first])]
                second = chunk.response_ids[(prompt, hashes[vote.second])]
                # Canonical order is the task's, which an earlier row may have set.
                flipped = first != first_id
                outcome = -vote.outcome if flipped else vote.outcome
                pair = (second, first) if flipped else (first, second)
                votes.append((task, rater, prompt, pair, outcome, vote))
                chunk.rows_that_add.add(at)
        self._write_votes(chunk, votes)

    def _taken(self, chunk: _Chunk) -> set[tuple[int, int]]:
        if not chunk.old_tasks:
            return set()
        return set(
            self._known(
                "SELECT task_id, rater_id FROM annotator_judgment WHERE task_id = ANY(%s)",
                chunk.old_tasks,
            )
        )

    def _write_votes(self, chunk: _Chunk, votes: list[tuple]) -> None:
        judgments = self._ids("judgment", len(votes))
        preferences = self._ids("preference", len(votes))
        project, run = self._project.pk, self._run
        for pk, edge, (task, rater, prompt, (a, b), outcome, vote) in zip(
            judgments, preferences, votes, strict=True
        ):
            ranks = "{1,1}" if outcome == 0 else "{1,2}" if outcome > 0 else "{2,1}"
            strength = vote.strength if outcome else 0
            both_bad = "t" if vote.both_bad else "f"
            at = vote.at.isoformat() if vote.at else self._now
            chunk.lines["judgment"].append(
                f"{pk}\t{project}\t{task}\t{rater}\t{ranks}\t{strength}\t{both_bad}"
                f"\t{escaped(vote.rationale)}\t{at}\t{run}\timported\t1\tt\tt\t{{}}\n"
            )
            chunk.lines["preference"].append(
                f"{edge}\t{project}\t{pk}\t{task}\t{prompt}\t{rater}\t{a}\t{b}\t{outcome}"
                f"\t{strength}\t{both_bad}\tf\n"
            )
            self.counts.raters[vote.rater] += 1
        self.counts.judgments += len(votes)

    def _rater(self, name: str) -> int:
        """The imported rater of this name, made on first use, in this transaction."""
        known = self._raters.get(name)
        if known is None:
            self._cursor.execute(
                "INSERT INTO annotator_rater (project_id, kind, name, is_simulated, created_at,"
                " judged, skipped, claims_since_mark) VALUES (%s, 'imported', %s, %s, now(), 0,"
                " 0, 0) ON CONFLICT (project_id, kind, name) WHERE kind <> 'human' DO NOTHING",
                [self._project.pk, name, self._is_simulated],
            )
            self._cursor.execute(
                "SELECT id FROM annotator_rater"
                " WHERE project_id = %s AND kind = 'imported' AND name = %s",
                [self._project.pk, name],
            )
            known = self._raters[name] = self._cursor.fetchone()[0]
        return known


class _Chunk:
    """Some rows on their way into the tables, with the ids they get."""

    def __init__(self, rows: Sequence[tuple[Row, list[tuple[int, int]]]]) -> None:
        self.rows = rows
        self.prompt_hashes = []
        self.reply_hashes = []
        for row, _pairs in self.rows:
            raw = (row.extra or {}).get(transcripts.RAW, "") if row.as_is else ""
            self.prompt_hashes.append(hashing.of_prompt(row.messages, raw))
            self.reply_hashes.append(
                [
                    hashing.of_response(
                        reply.text,
                        reply.generator,
                        (reply.extra or {}).get(transcripts.RAW, "") if row.as_is else "",
                    )
                    for reply in row.replies
                ]
            )
        self.has_votes = any(row.votes for row, _pairs in self.rows)
        self.prompt_ids: dict[bytes, int] = {}
        self.old_prompts: set[int] = set()
        self.response_ids: dict[tuple[int, bytes], int] = {}
        self.task_hashes: dict[tuple[int, int, int], bytes] = {}
        self.tasks: dict[bytes, tuple[int, int]] = {}  # hash -> (id, its first response)
        self.old_tasks: list[int] = []
        self.rows_that_add: set[int] = set()
        self.lines: dict[str, list[str]] = {table: [] for table in TABLES}


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Django's connection parameters less what only its own cursors understand."""
    ours = {"cursor_factory", "context", "prepare_threshold", "server_side_binding"}
    return {key: value for key, value in parameters.items() if key not in ours}
