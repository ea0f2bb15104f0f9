"""The embedded servers, started for real under temporary folders and stopped again."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kombu import Connection
from redis import Redis

from annotator import embedded
from annotator.embedded_process import (
    CAP_DAC_READ_SEARCH,
    Account,
    _has_capability,
    give_access,
    server_pids,
    socket_folder,
    startup_lock,
)
from annotator.embedded_servers import wheel_folder

CHECKOUT = Path(embedded.__file__).resolve().parent.parent
ELSEWHERE = "postgresql://db.example/touchstone"

# Loads annotator.embedded alone: another account need not be able to read all of the project.
PROGRAM = """
import json, sys, types
package = types.ModuleType("annotator")
package.__path__ = [sys.argv[1]]
sys.modules["annotator"] = package
from pathlib import Path
from annotator import embedded
services = embedded.ensure(Path(sys.argv[2]), database_url=None, redis_url=None)
pids = [server.pid for server in embedded.status(Path(sys.argv[2]))]
if sys.argv[3:] == ["stop"]:
    embedded.stop(Path(sys.argv[2]))
print(json.dumps([services.database_url, services.redis_url, services.started, pids]))
"""

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty PostgreSQL data folder, made once: initdb takes most of a first start."""
    var = tmp_path_factory.mktemp("cluster") / "var"
    start_postgres(var)
    embedded.stop(var)
    return var / "postgres"


@pytest.fixture
def make(tmp_path: Path, cluster: Path) -> Iterator[Make]:
    """Makes folders for servers; at the end nothing may run in any of them."""
    made: list[Path] = []

    def one(name: str, *, empty: bool = False) -> Path:
        made.append(tmp_path / name)
        if not empty:
            made[-1].mkdir()
            subprocess.run(["cp", "-a", str(cluster), str(made[-1])], check=True)
        return made[-1]

    yield one
    for var in made:
        run = var / "run"
        short = Path(os.readlink(run)) if run.is_symlink() else None
        embedded.stop(var)
        if short is not None:
            shutil.rmtree(short, ignore_errors=True)
        assert not server_pids("postgres", var / "postgres")
        assert not server_pids("redis-server", var / "redis")


def start(var: Path) -> embedded.Services:
    return embedded.ensure(var, database_url=None, redis_url=None)


def start_redis(var: Path) -> embedded.Services:
    return embedded.ensure(var, database_url=ELSEWHERE, redis_url=None)


def start_postgres(var: Path) -> embedded.Services:
    return embedded.ensure(var, database_url=None, redis_url="redis://cache.example/0")


def pids(var: Path) -> list[int | None]:
    return [server.pid for server in embedded.status(var)]


def kill(var: Path) -> list[int]:
    """Kill -9 both servers and wait until the kernel has taken them down."""
    killed = [pid for pid in pids(var) if pid is not None]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    names = {"postgres": var / "postgres", "redis-server": var / "redis"}
    while {pid for name, data in names.items() for pid in server_pids(name, data)} & set(killed):
        time.sleep(0.01)
    return killed


def query(url: str, sql: str) -> Any:
    with psycopg.connect(url, autocommit=True) as database:
        cursor = database.execute(sql)
        return cursor.fetchone() if cursor.description else None


def spawn(var: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-B", "-c", PROGRAM, str(CHECKOUT / "annotator"), str(var)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *arguments], **{**piped, **options})


def result(process: subprocess.Popen[str]) -> Any:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output)


def test_first_start_gives_working_servers_and_says_so(
    make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    var = make("var", empty=True)
    services = start(var)
    assert services.started == ["PostgreSQL", "Redis"]
    (line,) = capfd.readouterr().err.splitlines()
    assert "PostgreSQL and Redis" in line
    assert str(var) in line
    row = query(
        services.database_url,
        "SELECT current_database(), current_user, current_setting('server_encoding'),"
        " current_setting('TimeZone'), current_setting('listen_addresses'),"
        " current_setting('fsync'), upper('\u00e9'), rolsuper, rolcreatedb"
        " FROM pg_roles WHERE rolname = current_user",
    )
    expected = ("touchstone", "touchstone", "UTF8", "UTC", "", "on", "\u00c9", False, True)
    assert row == expected
    with Redis.from_url(services.redis_url, decode_responses=True) as redis:
        assert redis.config_get("appendonly") == {"appendonly": "yes"}
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert redis.config_get("port") == {"port": "0"}


def test_second_call_reuses_servers_without_waiting_for_the_lock(
    make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    var = make("var")
    first = start(var)
    before = pids(var)
    capfd.readouterr()
    with startup_lock(var / "embedded.lock"):  # held by someone: the quick path does not ask
        second = start(var)
    assert second.started == []
    assert (second.database_url, second.redis_url) == (first.database_url, first.redis_url)
    assert pids(var) == before
    assert None not in before
    assert capfd.readouterr().err == ""


def test_given_urls_start_nothing(tmp_path: Path) -> None:
    var = tmp_path / "var"
    services = embedded.ensure(var, database_url=ELSEWHERE, redis_url="redis://cache.example/0")
    assert services == embedded.Services(ELSEWHERE, "redis://cache.example/0", [])
    assert not var.exists()


@pytest.mark.parametrize(
    ("begin", "name"), [(start_redis, "Redis"), (start_postgres, "PostgreSQL")]
)
def test_one_given_url_starts_only_the_other(make: Make, begin: Any, name: str) -> None:
    var = make("var")
    assert begin(var).started == [name]
    assert [server.name for server in embedded.status(var) if server.ready] == [name]


def test_two_folders_have_servers_of_their_own(make: Make) -> None:
    one, two = start(make("one")), start(make("two"))
    query(one.database_url, "CREATE TABLE only_in_one (id int)")
    assert query(two.database_url, "SELECT to_regclass('only_in_one')") == (None,)
    with Redis.from_url(one.redis_url) as first, Redis.from_url(two.redis_url) as second:
        first.set("key", "one")
        assert second.get("key") is None


def test_four_processes_at_once_share_one_server(make: Make) -> None:
    var = make("var", empty=True)
    answers = [result(process) for process in [spawn(var) for _ in range(4)]]
    assert len({json.dumps(answer[:2]) for answer in answers}) == 1
    assert len({json.dumps(answer[3]) for answer in answers}) == 1
    started = [name for answer in answers for name in answer[2]]
    assert sorted(started) == ["PostgreSQL", "Redis"]


def test_data_survive_stop_and_start(make: Make) -> None:
    var = make("var")
    services = start(var)
    query(services.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with Redis.from_url(services.redis_url) as redis:
        redis.set("kept", "yes")
    assert embedded.stop(var) == ["Redis", "PostgreSQL"]
    assert embedded.stop(var) == []
    assert not any(server.running or server.ready for server in embedded.status(var))
    services = start(var)
    assert query(services.database_url, "SELECT answer FROM kept") == (42,)
    with Redis.from_url(services.redis_url) as redis:
        assert redis.get("kept") == b"yes"


def test_killed_servers_come_back_with_their_data(make: Make) -> None:
    var = make("var")
    services = start(var)
    query(services.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with Redis.from_url(services.redis_url) as redis:
        redis.set("kept", "yes")
    time.sleep(1.1)  # Redis promises to keep what is older than a second
    killed = kill(var)
    assert len(killed) == 2
    services = start(var)
    assert services.started == ["PostgreSQL", "Redis"]
    assert not set(pids(var)) & set(killed)
    assert query(services.database_url, "SELECT answer FROM kept") == (42,)
    with Redis.from_url(services.redis_url) as redis:
        assert redis.get("kept") == b"yes"


def test_busy_backend_left_by_a_killed_postmaster_does_not_block(make: Make) -> None:
    var = make("var")
    services = start_postgres(var)
    loop = "DO $$ BEGIN LOOP NULL; END LOOP; END $$"  # never looks whether its parent lives

    def run_loop() -> None:
        with pytest.raises(psycopg.OperationalError):
            query(services.database_url, loop)

    thread = threading.Thread(target=run_loop)
    thread.start()
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
    while query(services.database_url, busy) != (1,):
        time.sleep(0.02)
    assert len(kill(var)) == 1
    assert start_postgres(var).started == ["PostgreSQL"]
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_stale_pid_files_naming_a_live_process_are_ignored(make: Make) -> None:
    var = make("var")
    start_postgres(var)
    data, run = var / "postgres", var / "run"
    lines = (data / "postmaster.pid").read_text().splitlines()
    embedded.stop(var)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        stale = "\n".join([str(stranger.pid), *lines[1:]]) + "\n"
        for path in (data / "postmaster.pid", run / ".s.PGSQL.5432.lock"):
            path.write_text(stale)
            os.chown(path, data.stat().st_uid, data.stat().st_gid)
        assert start_postgres(var).started == ["PostgreSQL"]
        assert stranger.poll() is None
        stranger.kill()


def test_start_after_being_killed_anywhere_in_the_first_start(make: Make) -> None:
    var = make("var", empty=True)
    for delay in (0.2, 0.6, 1.0):
        process = spawn(var, start_new_session=True)
        time.sleep(delay)
        process.kill()
        process.communicate()
    services = start(var)
    assert query(services.database_url, "SELECT 1") == (1,)
    with Redis.from_url(services.redis_url) as redis:
        assert redis.ping()
    assert not list(var.glob("*.new-*"))
    assert len({pid for pid in pids(var) if pid}) == 2


def test_removed_sockets_restart_the_server(make: Make) -> None:
    var = make("var")
    start_redis(var)
    before = pids(var)
    shutil.rmtree(var / "run")
    assert start_redis(var).started == ["Redis"]
    assert pids(var) != before


def test_removed_folder_ends_the_old_server(make: Make) -> None:
    var = make("var")
    start_redis(var)
    (old,) = server_pids("redis-server", var / "redis")
    shutil.rmtree(var)
    assert start_redis(var).started == ["Redis"]
    (new,) = server_pids("redis-server", var / "redis")
    assert new != old


@pytest.mark.parametrize("name", ["x" * 160, 'with space, "quote" $HOME `id` 100% \u00fc\u8a9e'])
def test_long_or_odd_path_works(make: Make, name: str) -> None:
    var = make(name)
    services = start(var)
    assert query(services.database_url, "SELECT 1") == (1,)
    assert " " not in services.database_url
    with Redis.from_url(services.redis_url) as redis:
        assert redis.ping()
    assert start(var).started == []


def test_copied_folder_does_not_use_the_servers_of_the_original(make: Make) -> None:
    original, copy = make("o" * 160), make("c" * 160, empty=True)
    first = start_redis(original)
    shutil.copytree(original, copy, symlinks=True, ignore=lambda *_: {"postgres", "redis"})
    second = start_redis(copy)
    assert second.redis_url != first.redis_url
    with Redis.from_url(first.redis_url) as one, Redis.from_url(second.redis_url) as two:
        one.set("key", "original")
        assert two.get("key") is None


def test_socket_folder_of_someone_else_is_not_used(make: Make) -> None:
    var = make("v" * 160)
    start_redis(var)
    owner = (var / "redis").stat()
    account = Account(owner.st_uid, owner.st_gid, switch=False)
    folder = socket_folder(var, account)
    assert folder is not None
    folder.chmod(0o777)  # anybody could put a socket of their own there
    assert socket_folder(var, account) is None
    folder.chmod(0o700)
    assert socket_folder(var, Account(owner.st_uid + 1, owner.st_gid, switch=False)) is None


def test_foreign_data_is_left_alone(make: Make) -> None:
    var = make("var", empty=True)
    (var / "postgres").mkdir(parents=True)
    (var / "postgres" / "notes.txt").write_text("mine")
    if os.geteuid() == 0:
        shutil.chown(var / "postgres", "nobody")
    with pytest.raises(embedded.EmbeddedError, match="holds no PostgreSQL data"):
        start_postgres(var)
    assert (var / "postgres" / "notes.txt").read_text() == "mine"


def test_data_of_another_version_is_refused(make: Make) -> None:
    var = make("var")
    start_postgres(var)
    embedded.stop(var)
    (var / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(embedded.EmbeddedError, match="made by PostgreSQL 12"):
        start_postgres(var)


def test_failed_start_shows_the_log(make: Make) -> None:
    var = make("var")
    start_postgres(var)
    embedded.stop(var)
    with (var / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(embedded.EmbeddedError, match="no_such_setting"):
        start_postgres(var)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach (pytest's own is closed to others)."""
    with tempfile.TemporaryDirectory(prefix="touchstone-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_ordinary_user_starts_and_stops_servers(open_folder: Path) -> None:
    var = open_folder / "var"
    account = Account(os.geteuid(), os.getegid(), switch=False)
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        account = Account(entry.pw_uid, entry.pw_gid, switch=True)
        os.chown(open_folder, entry.pw_uid, entry.pw_gid)
        reach = [CHECKOUT / "annotator" / "embedded.py", wheel_folder("psycopg", "") / "x"]
        account = give_access(account, folders=reach, programs=[Path(sys.executable).resolve()])
    command = [*account.prefix, sys.executable, "-B", "-c", PROGRAM, str(CHECKOUT / "annotator")]
    done = subprocess.run(
        [*command, str(var), "stop"],
        cwd=open_folder,
        capture_output=True,
        text=True,
        check=False,
        **account.popen_options(),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[2] == ["PostgreSQL", "Redis"]
    assert (var / "postgres").stat().st_uid == (var / "redis").stat().st_uid == account.uid
    assert not server_pids("postgres", var / "postgres")


def test_root_in_a_checkout_of_a_user_runs_servers_as_that_user(open_folder: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(open_folder, "nobody")
    owner = open_folder.stat().st_uid
    var = open_folder / "var"
    try:
        start(var)
        paths = [var, *var.iterdir()]
        assert {path.lstat().st_uid for path in paths} == {owner}
    finally:
        embedded.stop(var)


def test_closed_parent_is_opened_only_where_the_kernel_offers_no_better_way(
    open_folder: Path,
) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    var = home / "checkout" / "var"
    limits: list[list[str]] = [[]]
    if os.geteuid() == 0:
        limits.append(["setpriv", "--bounding-set=-dac_read_search", "--inh-caps=-dac_read_search"])
    modes = []
    for limit in limits:
        command = [*limit, sys.executable, "-B", "-c", PROGRAM, str(CHECKOUT / "annotator")]
        done = subprocess.run(
            [*command, str(var), "stop"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        modes.append(home.stat().st_mode & 0o777)
    kept = os.geteuid() != 0 or _has_capability(CAP_DAC_READ_SEARCH)
    assert modes == [0o700 if kept else 0o701, 0o701][: len(limits)]


def test_celery_reaches_the_same_redis(make: Make) -> None:
    services = start_redis(make("var"))
    url = embedded.celery_url(services.redis_url.replace("db=0", "db=3"))
    with Connection(url) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put("hello")
        queue.close()
    with Redis.from_url(services.redis_url.replace("db=0", "db=3")) as redis:
        assert redis.llen("letters") == 1
    assert embedded.celery_url("redis://cache.example/2") == "redis://cache.example/2"


def test_command_line_stops_what_it_started(make: Make) -> None:
    var = make("var")
    start_redis(var)
    command = [sys.executable, "-B", "-m", "annotator.embedded", "--dir", str(var)]
    outputs = [
        subprocess.run([*command, action], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        for action in ("status", "stop", "stop")
    ]
    assert "Redis: ready, pid" in outputs[0].stdout
    assert outputs[1].stdout == "Stopped Redis\n"
    assert outputs[2].stdout == "Stopped nothing: nothing was running\n"


def test_dead_socket_is_not_taken_for_redis(make: Make) -> None:
    var = make("var")
    start_redis(var)
    embedded.stop(var)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as impostor:
        impostor.bind(str(var / "run" / "redis.sock"))  # nobody listens
        assert start_redis(var).started == ["Redis"]
