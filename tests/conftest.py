"""Shared by every test: a real PostgreSQL and a real Redis, all files under a temporary folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings as django_settings
from redis import Redis

from annotator.celery import app

# No example has to be quick: a machine under load is no fault of the code.
hypothesis.settings.register_profile(
    "touchstone", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("touchstone")

# Keys of this process in the shared Redis: queues and caches; deleted when it ends.
PREFIX = f"test-{uuid.uuid4().hex}-"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """One test database per worker and per TEST_DB_SUFFIX: runs side by side do not collide."""
    request.getfixturevalue("django_db_modify_db_settings_parallel_suffix")
    suffix = os.environ.get("TEST_DB_SUFFIX")
    if suffix:
        name = django_settings.DATABASES["default"]["NAME"]
        test = django_settings.DATABASES["default"].setdefault("TEST", {})
        test["NAME"] = f"{test.get('NAME') or f'test_{name}'}_{suffix}"


@pytest.fixture(autouse=True)
def _own_files(settings: Any, tmp_path: Path) -> None:
    settings.WORK_ROOT = tmp_path / "work"
    settings.MEDIA_ROOT = tmp_path / "media"
    # A process that loads a trainer for every export: switched on where that is what is tested,
    # and for everything by the environment.
    settings.DATASET_CHECKS = os.environ.get("TEST_DATASET_CHECKS") == "1"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture(autouse=True)
def _own_cache(settings: Any) -> None:
    """Cache keys of this test only, also in the threads of a live server."""
    default = {**settings.CACHES["default"], "KEY_PREFIX": f"{PREFIX}{uuid.uuid4().hex}"}
    settings.CACHES = {"default": default}


@pytest.fixture(scope="session", autouse=True)
def _static_root() -> None:
    """WhiteNoise warns about a missing folder; the live server serves from the sources."""
    Path(django_settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def _own_queue() -> Iterator[None]:
    """Messages of the tests stay away from the workers of a running product."""
    prefix = PREFIX
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "global_keyprefix": prefix,
    }
    yield
    with Redis.from_url(django_settings.REDIS_URL) as client:
        for key in client.scan_iter(f"{PREFIX}*"):
            client.delete(key)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("TOUCHSTONE_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip("TOUCHSTONE_DATA is not there")
    return folder
