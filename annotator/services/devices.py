"""One training per device: a lock that the kernel gives back, whoever dies and however.

The lock is ``flock`` on a file in the shared work folder, named after the machine and the device.
Nothing has to be renewed and nothing can be left behind: it is free again once every process that
has the file open is gone.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from django.conf import settings

from models import gateway

POLL_SECONDS: Final = 0.5
# One value per start of a machine, the same in every container on it, unlike the host name.
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
HOLDER_CHARS: Final = 80


def machine() -> str:
    """What tells this machine from others that share the work folder."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()


def device() -> str:
    """The device that training here runs on: the first visible one, ``0`` where none is named.

    A machine without a GPU counts as one device: two trainings would only share its cores.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[0].strip() or "0"


def lock_path() -> Path:
    """The lock file of this process's device."""
    name = re.sub(r"[^\w.-]", "_", f"{machine()}-{device()}")
    return Path(settings.WORK_ROOT) / "locks" / f"device-{name}"


@contextmanager
def hold(
    *, holder: str, on_wait: Callable[[str], None], keeps_model: bool = False
) -> Iterator[int]:
    """Hold this process's device; yields the lock's file descriptor for a child to inherit.

    ``on_wait(who holds it)`` is called about twice a second while another holds it; what it
    raises ends the waiting. A child that inherited the descriptor keeps the device until it ends,
    so a killed worker's child is waited for. A model that this process keeps loaded between
    requests for scores is let go of first, unless ``keeps_model``.
    """
    path = lock_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _try(descriptor):
            on_wait(os.pread(descriptor, HOLDER_CHARS, 0).decode("utf-8", "replace").strip("\0\n "))
            time.sleep(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode()[:HOLDER_CHARS], 0)
        if not keeps_model:
            gateway.release()
        yield descriptor
    finally:
        os.close(descriptor)  # never unlocked: that would take it from a child as well


def holder() -> str:
    """Who holds this process's device, in words; empty where nobody does."""
    try:
        descriptor = os.open(lock_path(), os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        # Shared, so that two who look do not see each other; it is given back at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        return os.pread(descriptor, HOLDER_CHARS, 0).decode("utf-8", "replace").strip("\0\n ")
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
