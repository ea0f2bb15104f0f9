"""A frozen view of the database for reads that take minutes while people go on voting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections


@contextmanager
def snapshot() -> Iterator[psycopg.Connection]:
    """A connection of its own in one read-only transaction at repeatable read.

    Everything read through it is as it was at the first statement. It is not the thread's
    connection: progress is written through that one meanwhile, and must commit.
    """
    wrapper = connections[DEFAULT_DB_ALIAS].copy()
    wrapper.connect()
    try:
        raw = wrapper.connection
        raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        raw.read_only = True
        with raw.transaction():
            yield raw
    finally:
        wrapper.close()


def current() -> psycopg.Connection:
    """The psycopg connection of this thread, inside whatever transaction it is in."""
    connection.ensure_connection()
    return connection.connection
