"""The product as a user meets it: gunicorn as a process of its own, clients over HTTP."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.cached_db import SessionStore
from django.db import connection

from annotator.models import User

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def database_url() -> str:
    """The database this process uses now, for a child process: the test database in tests."""
    values = connection.settings_dict
    user = quote(values["USER"] or "", safe="")
    password = f":{quote(values['PASSWORD'], safe='')}" if values["PASSWORD"] else ""
    query = {"host": values["HOST"]} if values["HOST"] else {}
    query |= {"port": str(values["PORT"])} if values["PORT"] else {}
    return f"postgresql://{user}{password}@/{quote(values['NAME'])}?{urlencode(query)}"


def child_env(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "TOUCHSTONE_WORK": str(settings.WORK_ROOT),
        "LOG_LEVEL": "WARNING",
        **more,
    }


@dataclass
class Web:
    """gunicorn on a loopback port; ``kill`` and ``start`` may be called in mid-traffic."""

    port: int
    workers: int = 2
    debug: bool = True  # static files from the sources; without it they must be collected
    log: Path = Path(os.devnull)
    _process: subprocess.Popen | None = field(default=None, repr=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "-c", "annotator/gunicorn_conf.py"]
        env = child_env(
            BIND=f"127.0.0.1:{self.port}",
            WEB_CONCURRENCY=str(self.workers),
            DEBUG=str(int(self.debug)),
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "annotator.wsgi"],
                cwd=ROOT,
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_ready()

    def _wait_until_ready(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                web = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                web.request("GET", "/readyz")
                if web.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.05)
            finally:
                web.close()
        raise TimeoutError(f"gunicorn did not get ready; its log is {self.log}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL to the whole process group: no clean-up of any kind."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(30)


@contextmanager
def web(**options: object) -> Iterator[Web]:
    server = Web(port=free_port(), **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def session_cookie(person: User) -> str:
    """A signed-in session for this person, as the sign-in page would make it."""
    session = SessionStore()
    session[SESSION_KEY] = str(person.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = person.get_session_auth_hash()
    session.create()
    return session.session_key


class Annotator:
    """One person at the desk over one kept-alive connection."""

    CSRF = "k" * 32
    FORM = re.compile(rb'id="task" method="post" action="([^"]+)"')

    def __init__(self, *, port: int, slug: str, session: str, timeout: float = 30) -> None:
        self._port, self._timeout = port, timeout
        self._desk = f"/p/{slug}/annotate/"
        self._headers = {
            "Cookie": f"sessionid={session}; csrftoken={self.CSRF}",
            "X-CSRFToken": self.CSRF,
            "HX-Request": "true",
            "HX-Target": "work",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        self._connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: str | None = None) -> bytes:
        """The body of a 200 answer. Raises OSError or HTTPException when the server is away."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=self._timeout
            )
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.status != 200:
            raise AssertionError(f"{method} {path}: {response.status} {content[:300]!r}")
        return content

    def open_desk(self) -> str | None:
        """The address of the task on the desk; None when there is none."""
        return self._task(self.request("GET", self._desk))

    def submit(self, task: str, verdict: str) -> str | None:
        """Save and next: the address of the next task."""
        return self.send(task, urlencode({"verdict": verdict}))

    def send(self, task: str, answers: str) -> str | None:
        """Save and next with any answers, encoded as a form."""
        return self._task(self.request("POST", task, answers))

    def _task(self, page: bytes) -> str | None:
        found = self.FORM.search(page)
        return found[1].decode() if found else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
