"""Redis as the product's processes share it: one connection pool, keys of one installation."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from django.conf import settings
from redis import Redis

TIMEOUT: Final = 2.0  # seconds: somebody waits for what is asked of it


def key(name: str) -> str:
    """A key that another installation on the same Redis does not use."""
    own = settings.CACHES["default"]["KEY_PREFIX"]
    return f"{settings.CELERY_BROKER_TRANSPORT_OPTIONS['global_keyprefix']}{own}:{name}"


def redis() -> Redis:
    return _client(settings.REDIS_URL)


@lru_cache(maxsize=2)
def _client(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
