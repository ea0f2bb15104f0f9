"""Real PostgreSQL and Redis for a checkout that names no others.

``ensure`` starts what is missing under one folder (``var/``), detached: the servers outlive the
command that started them and are shared by web, worker and shell until ``stop``. Any number of
processes may call it at once, and any of them may be killed at any moment.

    python -m annotator.embedded start|stop|status
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from annotator.embedded_process import (
    POLL,
    Account,
    EmbeddedError,
    current_account,
    give_access,
    is_held,
    make_folder,
    make_socket_folder,
    server_pids,
    signal_pids,
    socket_folder,
    spawn_server,
    startup_lock,
    take_hold,
)
from annotator.embedded_servers import Postgres, Redis, Server, connection

__all__ = ["EmbeddedError", "ServerStatus", "Services", "celery_url", "ensure", "status", "stop"]

READY_TIMEOUT: Final = 300.0  # seconds; replaying the log after a crash can take minutes
SILENT_TIMEOUT: Final = 3.0  # seconds that a live server may go without a socket
STOP_TIMEOUT: Final = 60.0
KILL_TIMEOUT: Final = 10.0


@dataclass(frozen=True)
class Services:
    """Where the database and the queue are; ``started`` names what this call started."""

    database_url: str
    redis_url: str
    started: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ServerStatus:
    name: str
    running: bool
    ready: bool
    pid: int | None
    data: Path
    url: str | None


def ensure(base_dir: Path, *, database_url: str | None, redis_url: str | None) -> Services:
    """Start PostgreSQL and Redis with data in ``base_dir/postgres`` and ``base_dir/redis``.

    A server whose URL is given is left alone; one that runs is reused. Says in one line on stderr
    what it started. Raises EmbeddedError when a server cannot be started or reached.
    """
    if database_url and redis_url:
        return Services(database_url, redis_url)
    var = base_dir.resolve()
    make_folder(var)
    account = current_account(var)
    started: list[str] = []
    if not database_url:
        database_url = _ensure_server(Postgres(var), account, started)
    if not redis_url:
        redis_url = _ensure_server(Redis(var), account, started)
    if started:
        names = " and ".join(started)
        print(f"Started {names} with data in {var} (`make stop` stops them)", file=sys.stderr)
    return Services(database_url, redis_url, started)


def stop(base_dir: Path) -> list[str]:
    """Stop what runs under ``base_dir``, in order and without losing anything; returns names."""
    var = base_dir.resolve()
    if not var.exists():
        return []
    stopped: list[str] = []
    with startup_lock(var / "embedded.lock"):
        for server in (Redis(var), Postgres(var)):
            if is_held(_hold_path(server)) or server_pids(server.process, server.data):
                _stop_server(server)
                stopped.append(server.label)
    return stopped


def status(base_dir: Path) -> list[ServerStatus]:
    """What runs under ``base_dir``; starts nothing."""
    var = base_dir.resolve()
    run = socket_folder(var, current_account(var)) if var.exists() else None
    return [_status(server, run) for server in (Postgres(var), Redis(var))]


def celery_url(redis_url: str) -> str:
    """The same Redis as Celery's broker URL (kombu has its own scheme for sockets)."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    options = dict(parse_qsl(parts.query))
    options["virtual_host"] = options.pop("db", "0")
    return f"redis+socket://{parts.netloc}{parts.path}?{urlencode(options)}"


def _status(server: Server, run: Path | None) -> ServerStatus:
    running = is_held(_hold_path(server))
    ready = run is not None and server.is_ready(run)
    pids = server_pids(server.process, server.data) if running else []
    url = server.url(run) if run is not None and ready else None
    pid = pids[0] if pids else None
    return ServerStatus(server.label, running, ready, pid, server.data, url)


def _hold_path(server: Server) -> Path:
    return server.var / f"{server.key}.lock"


def _ensure_server(server: Server, account: Account, started: list[str]) -> str:
    if server.data.exists() and server.data.stat().st_uid != account.uid:
        raise EmbeddedError(f"{server.data} belongs to another user: run as that one or as root")
    run = socket_folder(server.var, account)
    if run is not None and server.is_ready(run):
        return server.url(run)
    with startup_lock(server.var / "embedded.lock") as lock:
        run = make_socket_folder(server.var, account)
        if _becomes_ready(server, run, silence=SILENT_TIMEOUT):
            return server.url(run)
        if is_held(_hold_path(server)) or server_pids(server.process, server.data):
            _stop_server(server)  # alive, but out of reach
        _start_server(server, account, run, lock)
        started.append(server.label)
    return server.url(run)


def _becomes_ready(server: Server, run: Path, *, silence: float) -> bool:
    """Wait for a live server; False when it is dead or had no socket for ``silence`` seconds."""
    deadline = time.monotonic() + READY_TIMEOUT
    silent_since = time.monotonic()
    while is_held(_hold_path(server)):
        if server.is_ready(run):
            return True
        now = time.monotonic()
        with connection(server.socket(run)) as peer:
            if peer is not None:
                silent_since = now
        if now > deadline:
            raise EmbeddedError(f"{server.label} in {server.data} is still not ready; see its log")
        if now - silent_since > silence:
            return False
        time.sleep(POLL)
    return False


def _start_server(server: Server, account: Account, run: Path, lock: int) -> None:
    hold = take_hold(_hold_path(server))
    if hold is None:
        raise EmbeddedError(f"processes of {server.label} in {server.data} do not end")
    log = server.var / f"{server.key}-start.log"
    try:
        able = give_access(account, folders=[server.data, run], programs=server.programs())
        server.prepare(able, lock)
        for leftover in run.glob(f"{server.socket(run).name}*"):
            leftover.unlink()  # PostgreSQL's .lock beside it would count if its pid is reused
        spawn_server(server.command(run), account=able, hold=hold, folder=server.data, log=log)
    finally:
        os.close(hold)  # the server has its own copy by now
    if not _becomes_ready(server, run, silence=READY_TIMEOUT):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise EmbeddedError(f"{server.label} did not start (log in {server.data}):\n{tail}")
    server.finish(run)


def _stop_server(server: Server) -> None:
    """Ask, then insist; both servers recover from being killed."""

    def is_gone() -> bool:
        return not is_held(_hold_path(server)) and not server_pids(server.process, server.data)

    leader = server.leader(server_pids(server.process, server.data))
    if leader is not None:
        signal_pids([leader], server.stop_signal)
        if _wait(is_gone, STOP_TIMEOUT):
            return
    signal_pids(server_pids(server.process, server.data), signal.SIGKILL)
    if not _wait(is_gone, KILL_TIMEOUT):
        raise EmbeddedError(
            f"{server.label} in {server.data} does not stop, or runs where its processes cannot be "
            "seen from here (in a container?): stop it there"
        )


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m annotator.embedded")
    parser.add_argument("action", choices=["start", "stop", "status"])
    default = Path(__file__).resolve().parent.parent / "var"
    folder = Path(os.environ.get("TOUCHSTONE_VAR") or default)
    parser.add_argument("--dir", type=Path, default=folder, help="default: var/ of the checkout")
    options = parser.parse_args(arguments)
    if options.action == "start":
        ensure(options.dir, database_url=None, redis_url=None)
    elif options.action == "stop":
        print("Stopped " + (" and ".join(stop(options.dir)) or "nothing: nothing was running"))
    for server in status(options.dir) if options.action == "status" else []:
        state = f"ready, pid {server.pid}" if server.ready else "running, not ready"
        print(f"{server.name}: {state if server.running else 'stopped'} ({server.data})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
