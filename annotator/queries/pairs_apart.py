"""Pairs and their texts, read by a process of its own while this one works on the last of them.

A thread would not do: most of reading is Python, and two threads of Python share one core.
"""

from __future__ import annotations

import fcntl
import json
import marshal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import psycopg

from annotator.errors import MethodFailed
from annotator.models import Project
from annotator.queries import pair_stream
from annotator.queries.pair_texts import Batch, batch_of, settled
from annotator.queries.pairs import CHUNK, Pair, Selection, counted, ordered

PIPE_BYTES: Final = 1 << 20  # a list of pairs ahead, more or less; Linux gives no more unasked
RESOLVED: Final = ("service", "servicefile")  # what they stand for is among the parameters
ADVICE: Final = "Nothing was published. Resume the run."


def batches(
    project: Project,
    selection: Selection,
    *,
    connection: psycopg.Connection,
    pool_repeats: bool = False,
    size: int = CHUNK,
) -> Iterator[Batch]:
    """What ``with_texts(chunks(...))`` gives, from the snapshot of ``connection``.

    That must be in a transaction at repeatable read, and stay in it until the iterator ends or is
    closed. Raises MethodFailed where the reading process or the database fails.
    """
    # Here, not in the generator: another thread may read it, and the connection is this one's.
    sql, values = counted(project, selection, connection=connection)
    exported = connection.execute("SELECT pg_export_snapshot()").fetchone()
    assert exported is not None
    # Nothing reaches the connection meanwhile: the other process reads.
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    job = {
        "connection": _parameters(connection),
        "snapshot": exported[0],
        "ordered": ordered(sql),
        "values": values,
        "size": size,
    }
    return _batches(job, pool_repeats=pool_repeats)


def _parameters(connection: psycopg.Connection) -> dict[str, str]:
    """What makes the same connection again, to the same server of several: every parameter is
    named, so that the environment has no say."""
    known = {one.keyword.decode(): one.val.decode() for one in connection.pgconn.info if one.val}
    info = connection.info
    known |= {"host": info.host, "hostaddr": info.hostaddr, "port": str(info.port)}
    return {name: value for name, value in known.items() if value and name not in RESOLVED}


def _batches(job: dict[str, Any], *, pool_repeats: bool) -> Iterator[Batch]:
    # -P: the modules beside the program cannot stand for those of Python. In a session of its own
    # it outlives the signal that asks all workers to end what they do; without one it ends.
    reader = subprocess.Popen(
        [sys.executable, "-P", pair_stream.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    try:
        _widen(reader.stdout)
        # Where it ended at once, reading will say so.
        with suppress(BrokenPipeError), reader.stdin as asked:
            asked.write(json.dumps(job).encode())
        for pairs, prompts, answers, has_alike in _frames(reader):
            found = list(map(Pair._make, pairs))
            batch = batch_of(found, prompts, answers, has_alike=has_alike)
            yield settled(batch, pool_repeats=pool_repeats)
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()


def _frames(reader: subprocess.Popen[bytes]) -> Iterator[tuple[Any, Any, Any, bool]]:
    pipe, head_size = reader.stdout, pair_stream.HEAD.size
    assert pipe is not None
    while True:
        head = pipe.read(head_size)
        size = pair_stream.HEAD.unpack(head)[0] if len(head) == head_size else 1
        frame = pipe.read(size)
        if len(frame) < size:
            raise MethodFailed(
                f"The process that reads the pairs ended with {reader.wait()}; the worker's log"
                " may say why.",
                advice=ADVICE,
            )
        kind, value = marshal.loads(frame)
        if kind == pair_stream.END:
            return
        if kind == pair_stream.ERROR:
            raise MethodFailed(f"The pairs could not be read: {value}", advice=ADVICE)
        yield value


def _widen(pipe: Any) -> None:
    """Let more wait in the pipe, where the system can and this user may."""
    if sys.platform == "linux":
        with suppress(PermissionError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
