"""A database of one's own beside the configured one, for as long as a benchmark runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = %s AND usename = current_user"
)


@contextmanager
def own_database(name: str) -> Iterator[str]:
    """Point Django, and every child process, at a fresh migrated database; yields its URL."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
    import django

    django.setup()
    from django.conf import settings
    from django.db import connection, connections

    from tests.serving import database_url

    home = connection.settings_dict["NAME"]
    fresh = f"{home}_{name}"
    _drop(fresh)
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{fresh}"')
    connections.close_all()
    before = {key: os.environ.get(key) for key in ("DATABASE_URL", "REDIS_URL")}
    connection.settings_dict["NAME"] = fresh
    os.environ["DATABASE_URL"] = database_url()
    os.environ["REDIS_URL"] = settings.REDIS_URL
    try:
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], check=True)
        yield os.environ["DATABASE_URL"]
    finally:
        connections.close_all()
        connection.settings_dict["NAME"] = home
        for key, value in before.items():
            if value is None:
                os.environ.pop(key)
            else:
                os.environ[key] = value
        _drop(fresh)


def _drop(name: str) -> None:
    # Not WITH (FORCE): an ordinary role may not end an autovacuum, but a plain DROP waits for it.
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(TERMINATE, [name])
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')
