"""One training per device: a lock that the kernel gives back, whoever dies and however.

The lock is ``flock`` on a file in the shared work folder, named after the machine and the device.
Nothing has to be renewed and nothing can be left behind: it is free again once every process that
has the file open is gone. A worker has the devices that CUDA_VISIBLE_DEVICES lists, one for most of
what it does, several for a training that asks for them.
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


def names() -> list[str]:
    """The devices of this process: the visible ones, ``0`` where none is named.

    A machine without a GPU counts as one device: two trainings would only share its cores.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return list(dict.fromkeys(name.strip() for name in visible if name.strip())) or ["0"]


def device() -> str:
    """The one that whatever takes a single device runs on."""
    return names()[0]


def shown(count: int) -> dict[str, str]:
    """The environment of a child that shall see so many of the devices."""
    own = names()
    return {"CUDA_VISIBLE_DEVICES": ",".join(own[:count])} if len(own) > count else {}


def lock_path(name: str) -> Path:
    """The lock file of a device of this machine."""
    safe = re.sub(r"[^\w.-]", "_", f"{machine()}-{name}")
    return Path(settings.WORK_ROOT) / "locks" / f"device-{safe}"


@contextmanager
def hold(
    *,
    holder: str,
    on_wait: Callable[[str], None],
    keeps_model: bool = False,
    count: int = 1,
) -> Iterator[list[int]]:
    """Hold the first ``count`` devices of this process; yields the file descriptors of their locks
    for a child to inherit.

    ``on_wait(who holds it)`` is called about twice a second while another holds one; what it
    raises ends the waiting. A child that inherited the descriptors keeps the devices until it ends,
    so a killed worker's child is waited for. A model that this process keeps loaded between
    requests for scores is let go of first, unless ``keeps_model``.
    """
    descriptors: list[int] = []
    try:
        # In one order everywhere: two workers that share devices do not wait for each other.
        for name in sorted(names()[:count]):
            path = lock_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
            while not _try(descriptors[-1]):
                on_wait(_said(descriptors[-1]))
                time.sleep(POLL_SECONDS)
            os.ftruncate(descriptors[-1], 0)
            os.pwrite(descriptors[-1], holder.encode()[:HOLDER_CHARS], 0)
        if not keeps_model:
            gateway.release()
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)  # never unlocked: that would take it from a child as well


def holder() -> str:
    """Who holds devices of this process, in words; empty where nobody does."""
    return ", ".join(dict.fromkeys(filter(None, map(_holder, names()))))


def _holder(name: str) -> str:
    try:
        descriptor = os.open(lock_path(name), os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        # Shared, so that two who look do not see each other; it is given back at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        return _said(descriptor)
    finally:
        os.close(descriptor)


def _said(descriptor: int) -> str:
    return os.pread(descriptor, HOLDER_CHARS, 0).decode("utf-8", "replace").strip("\0\n ")


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
