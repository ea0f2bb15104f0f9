"""Pairs and their texts as plain rows: as functions, and as a program that sends them.

Reading a million pairs costs as much as writing them. The program reads them on another core, in
the same snapshot (annotator.queries.pairs_apart). It is run by its path, so that it starts in no
time and weighs little: no import of this project, psycopg alone.
"""

from __future__ import annotations

import json
import marshal
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from operator import itemgetter
from typing import Any, BinaryIO, Final

import psycopg

Rows = list[tuple[Any, ...]]

HEAD: Final = struct.Struct("<Q")  # bytes of the frame that follows
PAIRS, END, ERROR = "pairs", "end", "error"  # kinds of frames, (kind, value)
PLAIN: Final = 2  # the version of marshal that does not look for repeats: several times quicker
_cursors = count(1)

# Ids go as the text of an array: two times quicker than a list of numbers, per row of a fetch.
PROMPTS: Final = """
SELECT id, messages->-1->>'content', messages::text, extra->>'transcript_raw'
FROM annotator_prompt WHERE id = ANY(%s::bigint[])
"""
RESPONSES: Final = """
SELECT r.id, r.text, r.messages::text, r.extra->>'transcript_raw', r.leak,
       (SELECT i.file FROM annotator_image i WHERE i.id = r.image_id), r.generator
FROM annotator_response r WHERE r.id = ANY(%s::bigint[])
"""


def pair_rows(
    raw: psycopg.Connection, ordered: str, values: dict[str, Any], size: int
) -> Iterator[Rows]:
    """The rows of a statement, ordered by their first column, in lists of about ``size``.

    Rows that share the first column, the prompt, are never in two lists.
    """
    # Compiling this statement takes longer than it ever saves.
    raw.execute("SET LOCAL jit = off")
    with psycopg.ServerCursor(raw, f"pairs_{next(_cursors)}") as cursor:
        cursor.execute(ordered, values, binary=True)
        held: Rows = []
        while rows := cursor.fetchmany(size):
            held += rows
            last = held[-1][0]
            if held[0][0] == last:
                continue
            end = len(held)
            while held[end - 1][0] == last:
                end -= 1
            yield held[:end]
            held = held[end:]
        if held:
            yield held


def texts(raw: psycopg.Connection, pairs: Sequence[tuple[Any, ...]]) -> tuple[Rows, Rows]:
    """Rows of the prompts and of the answers of some pairs (prompt, a, b, ...), each once."""
    prompts, a, b = (set(map(itemgetter(place), pairs)) for place in range(3))
    answers = a | b
    return fetch(raw, PROMPTS, prompts), fetch(raw, RESPONSES, answers)


def are_some_alike(answers: Rows) -> bool:
    """Whether any two of them hold the same text, or the same picture."""
    return len({(row[1], row[5]) for row in answers}) < len(answers)


def fetch(raw: psycopg.Connection, sql: str, ids: Iterable[int]) -> Rows:
    """The rows of ``PROMPTS`` or ``RESPONSES`` with these ids."""
    with psycopg.Cursor(raw) as cursor:
        cursor.execute(sql, [f"{{{','.join(map(str, ids))}}}"], binary=True)
        return cursor.fetchall()


# The program -------------------------------------------------------------------------------------


def send(job: dict[str, Any], out: BinaryIO) -> None:
    """Frames of pairs with their texts, then of the end.

    The job: ``connection`` (psycopg's parameters), ``snapshot`` (the name under which another
    transaction exported what it sees), ``ordered``, ``values`` and ``size`` as ``pair_rows``.
    """
    # No prepared statements: behind a pooler they would stay on a connection of others.
    with psycopg.connect(**job["connection"], prepare_threshold=None) as raw:
        raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        raw.read_only = True
        raw.execute(f"SET TRANSACTION SNAPSHOT '{job['snapshot']}'")
        # It may wait for whoever reads.
        raw.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        for pairs in pair_rows(raw, job["ordered"], job["values"], job["size"]):
            prompts, answers = texts(raw, pairs)
            put(out, PAIRS, (pairs, prompts, answers, are_some_alike(answers)))
    put(out, END, None)


def put(out: BinaryIO, kind: str, value: Any) -> None:
    """One frame: its size in bytes, then marshal's (kind, value)."""
    frame = marshal.dumps((kind, value), PLAIN)
    out.write(HEAD.pack(len(frame)))
    out.write(frame)
    out.flush()


def main() -> None:
    """Answer the job on standard input, JSON, on standard output."""
    out = sys.stdout.buffer
    try:
        try:
            send(json.load(sys.stdin), out)
        except psycopg.Error as error:
            put(out, ERROR, str(error))
    except BrokenPipeError:  # whoever read has gone; nothing is left to be said
        os._exit(1)


if __name__ == "__main__":
    main()
