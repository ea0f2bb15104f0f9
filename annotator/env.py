"""Strict readers for environment variables: a misspelled value stops the process at start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from psycopg.conninfo import conninfo_to_dict

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})


def env_str(name: str, default: str = "") -> str:
    return os.environ.get(name, default)


def env_bool(name: str, *, default: bool) -> bool:
    value = os.environ.get(name)
    if value is None:
        return default
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is neither true nor false")


def env_int(name: str, default: int) -> int:
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        return int(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number") from error


def env_list(name: str, default: list[str]) -> list[str]:
    value = os.environ.get(name)
    if value is None:
        return default
    return [part.strip() for part in value.split(",") if part.strip()]


def database_settings(url: str) -> dict[str, Any]:
    """Django's DATABASES entry for a libpq URI (``postgresql://user@host/name?option=value``)."""
    parts = conninfo_to_dict(url)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST"}
    entry: dict[str, Any] = {
        "ENGINE": "django.db.backends.postgresql",
        # One connection per thread, kept open; a health check replaces one that PostgreSQL lost.
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {},
    }
    for key, value in parts.items():
        if key in names:
            entry[names[key]] = value
        elif key == "port":
            entry["PORT"] = str(value)
        else:
            entry["OPTIONS"][key] = value
    if "NAME" not in entry:
        raise ImproperlyConfigured("DATABASE_URL names no database")
    return entry


def stored_secret(path: Path) -> str:
    """The secret key under ``var/``, made on first use so that a fresh clone runs.

    Written to a private temporary file and linked into place: of two processes that start at
    once, one wins and both read the same key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(get_random_secret_key())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # the other process was first: its key is the key
        finally:
            fresh.unlink()
    return path.read_text().strip()
