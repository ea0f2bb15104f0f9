"""Locks, accounts, socket folders and detached processes for the embedded servers.

PostgreSQL refuses to run as root, so root hands both servers to an ordinary account. Nothing here
trusts a pid file: a server is alive while it holds the ``flock`` that it inherited when started
(the kernel drops it with the last process), and signals go only to processes whose name and
working folder are the server's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

LOCK_TIMEOUT: Final = 300.0  # seconds to wait for another process that is starting the servers
POLL: Final = 0.01
SOCKET_PATH_LIMIT: Final = 100  # bytes; Linux takes 107, macOS 103
SOCKET_NAME_ROOM: Final = len("/.s.PGSQL.5432")
PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9_./-]+")
FALLBACK_ACCOUNTS: Final = ("postgres", "touchstone")
CAP_DAC_READ_SEARCH: Final = 2  # bit number, see capabilities(7)
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedError(RuntimeError):
    """An embedded server cannot be started, reached or stopped; the message says what to do."""


# Locks --------------------------------------------------------------------------------------


@contextlib.contextmanager
def startup_lock(path: Path) -> Iterator[int]:
    """Hold the lock that serializes starting and stopping; yields its descriptor."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        descriptor = _try_lock(path, fcntl.LOCK_EX)
        if descriptor is not None:
            break
        if time.monotonic() > deadline:
            raise EmbeddedError(f"another process has held {path} for {LOCK_TIMEOUT:.0f} s")
        time.sleep(POLL)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take_hold(path: Path) -> int | None:
    """The lock a server keeps for life, as a descriptor to hand to it; None while one lives."""
    deadline = time.monotonic() + 0.2  # a status probe may hold it for an instant
    while (descriptor := _try_lock(path, fcntl.LOCK_EX)) is None and time.monotonic() < deadline:
        time.sleep(POLL)
    return descriptor


def is_held(path: Path) -> bool:
    """Whether any process of the server that inherited this lock is alive."""
    if not path.exists():
        return False
    descriptor = _try_lock(path, fcntl.LOCK_SH)  # shared: two probes do not see each other
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _try_lock(path: Path, kind: int) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise EmbeddedError(
            f"{path} belongs to another user: run as that one or as root"
        ) from error
    hand_over(path)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        # The folder may have been deleted and made again while we waited.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BlockingIOError:
        pass  # held by someone else, which is an answer
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


# Accounts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """Who the servers run as. ``switch`` is false when that is already this process."""

    uid: int
    gid: int
    switch: bool
    prefix: tuple[str, ...] = field(default=())

    def popen_options(self) -> dict[str, Any]:
        if not self.switch or self.prefix:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def current_account(var: Path) -> Account:
    """The account that owns (or will own) the data under ``var``.

    An ordinary user runs the servers itself. Root takes the owner of existing data, else the
    owner of the checkout, else ``postgres``, else a system user ``touchstone`` that it adds.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    for data in (var / "postgres", var / "redis"):
        if data.exists() and (owner := data.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid, switch=True)
    existing = next(path for path in (var, *var.parents) if path.exists())
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(existing.stat().st_uid)
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, switch=True)
    entry = _fallback_account()
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def _fallback_account() -> pwd.struct_passwd:
    for name in FALLBACK_ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    name = FALLBACK_ACCOUNTS[-1]
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return pwd.getpwnam(name)  # also when another checkout added it at the same moment
    except OSError as error:
        reason = str(error)
    except KeyError:
        reason = done.stderr.strip()
    raise EmbeddedError(
        "PostgreSQL does not run as root and no account for it could be added "
        f"({reason}): run as an ordinary user, or set DATABASE_URL and REDIS_URL"
    )


def give_access(account: Account, *, folders: Sequence[Path], programs: Sequence[Path]) -> Account:
    """Let ``account`` reach ``folders`` and run ``programs``, from root's own home if need be.

    A checkout in ``/root`` (mode 0700) is closed to other accounts. Where the kernel lets us, the
    servers get the one capability to search folders and no mode is changed; else (for example
    in a container without it) the closed folders on the way are opened for search, not for reading.
    """
    if not account.switch:
        return account
    for program in programs:
        if program.stat().st_mode & 0o005 != 0o005:  # installed under umask 077
            _open_tree(program.parent.parent)
    paths = [path.resolve() for path in (*folders, *programs)]
    ancestors = {parent for path in paths for parent in path.parents}
    closed = sorted(parent for parent in ancestors if not _can_search(account, parent))
    if not closed:
        return account
    setpriv = shutil.which("setpriv")
    if setpriv and _has_capability(CAP_DAC_READ_SEARCH):
        ids = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
        caps = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        return Account(account.uid, account.gid, switch=True, prefix=(setpriv, *ids, *caps, "--"))
    for folder in closed:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
        print(f"Opened {folder} for search (o+x): PostgreSQL cannot run as root", file=sys.stderr)
    return account


def _can_search(account: Account, folder: Path) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _has_capability(bit: int) -> bool:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return False
    masks = dict(line.split(":\t", 1) for line in lines if line.startswith(("CapPrm", "CapBnd")))
    return all(int(mask, 16) >> bit & 1 for mask in masks.values()) and len(masks) == 2


def _open_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | 0o055)
        for name in files:
            path = Path(folder, name)
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (0o055 if mode & stat.S_IXUSR else 0o044))


def make_folder(path: Path) -> None:
    """Make ``path`` and its missing parents; root gives each to the owner of the one above."""
    if path.exists():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o755)
        path.chmod(0o755)  # whatever the umask: the servers' account has to pass
        hand_over(path)


def hand_over(path: Path) -> None:
    """As root, give ``path`` to the owner of its folder, who may want to go on without root."""
    if os.geteuid() == 0:
        above = path.parent.stat()
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile, with all of var/
            os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)


# The folder for sockets ---------------------------------------------------------------------


def socket_folder(var: Path, account: Account) -> Path | None:
    """Where the sockets are now, or None when there is no such folder or it is not safely ours."""
    link = var / "run"
    folder = Path(os.readlink(link)) if link.is_symlink() else link
    if link.is_symlink() and not folder.name.startswith(_short_prefix(var)):
        return None  # a copied or moved checkout still points to another one's sockets
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return None
    safe = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077 == 0
    return folder if safe and status.st_uid == account.uid else None


def make_socket_folder(var: Path, account: Account) -> Path:
    """``var/run``, or a link of that name to a short private folder when the path is long or odd.

    A socket's path is limited to about a hundred bytes, and it travels inside URLs.
    """
    folder = socket_folder(var, account)
    if folder is not None:
        return folder
    link = var / "run"
    if link.is_symlink() or link.is_file():
        link.unlink()
    if _fits(link):
        link.mkdir(mode=0o700, exist_ok=True)
        folder = link
    else:
        if link.is_dir():
            shutil.rmtree(link)
        parents = (tempfile.gettempdir(), "/tmp")  # /tmp: TMPDIR may be long or odd itself
        parent = next(p for p in parents if _fits(Path(p, _short_prefix(var) + "12345678")))
        folder = Path(tempfile.mkdtemp(prefix=_short_prefix(var), dir=parent))
        link.symlink_to(folder)
        hand_over(link)
    folder.chmod(0o700)
    account.own(folder)
    return folder


def _fits(folder: Path) -> bool:
    short = len(os.fsencode(folder)) + SOCKET_NAME_ROOM <= SOCKET_PATH_LIMIT
    return short and PLAIN_PATH.fullmatch(str(folder)) is not None


def _short_prefix(var: Path) -> str:
    return f"touchstone-{hashlib.sha256(os.fsencode(var)).hexdigest()[:10]}-"


# Processes ----------------------------------------------------------------------------------


def run_tool(
    command: Sequence[str], *, account: Account, lock: int, folder: Path, script: str = ""
) -> None:
    """Run a short command as ``account``; it keeps the start-up lock should we be killed."""
    options = {"input": script, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = _run(command, account=account, keep=lock, folder=folder, text=True, **options)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-12:])
        raise EmbeddedError(f"{Path(command[0]).name} failed ({done.returncode}):\n{tail}")


def spawn_server(
    command: Sequence[str], *, account: Account, hold: int, folder: Path, log: Path
) -> None:
    """Start ``command`` in its own session, working in ``folder``, keeping the lock ``hold``.

    The shell in between exits at once, so that the server is nobody's child: it outlives us and
    leaves no zombie behind in a long-lived web process.
    """
    detached = ["/bin/sh", "-c", '"$@" &', "sh", *command]
    with log.open("wb") as output:
        hand_over(log)
        options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        done = _run(
            detached, account=account, keep=hold, folder=folder, start_new_session=True, **options
        )
    if done.returncode != 0:
        raise EmbeddedError(f"{command[0]} could not be started, see {log}")


def _run(
    command: Sequence[str], *, account: Account, keep: int, folder: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [*account.prefix, *command],
            cwd=folder,
            env=ENVIRONMENT,
            pass_fds=(keep,),
            umask=0o077,
            check=False,
            **account.popen_options(),
            **options,
        )
    except OSError as error:  # for example a container that has no other account than root
        raise EmbeddedError(
            f"cannot run {command[0]} as uid {account.uid} ({error}): "
            "run as an ordinary user, or set DATABASE_URL and REDIS_URL"
        ) from error


def server_pids(name: str, folder: Path) -> list[int]:
    """Processes called ``name`` that work in ``folder``, those nobody of them started first."""
    import psutil

    places = {str(folder), f"{folder} (deleted)"}  # the latter: var/ was removed under a server
    parents: dict[int, int] = {}
    for process in psutil.process_iter(["name", "ppid", "cwd"]):
        if process.info["name"] == name and process.info["cwd"] in places:
            parents[process.pid] = process.info["ppid"]
    return sorted(parents, key=lambda pid: (parents[pid] in parents, pid))


def signal_pids(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # gone meanwhile: what we wanted
            os.kill(pid, number)
