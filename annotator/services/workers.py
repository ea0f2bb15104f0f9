"""Which workers live, what each works on and on what device: told by themselves, through Redis.

A worker of a solo pool answers no remote question while it works; a thread in each says how it is
every few seconds instead, and whoever looks at a page reads what was said last.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import orjson
import psutil

from annotator.services import devices
from annotator.services.shared_keys import key, redis

SILENT_AFTER: Final = 20.0  # seconds without a word: four that were missed
FORGOTTEN_AFTER: Final = 24 * 60 * 60.0
NVIDIA_SECONDS: Final = 5.0
MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Device:
    """What a worker computes on. Bytes; 0 where they are not known. ``holder`` has it now."""

    name: str
    used: int = 0
    total: int = 0
    holder: str = ""


@dataclass(frozen=True)
class Said:
    """What a worker said of itself last. ``at`` and ``started`` are seconds since the epoch."""

    name: str  # as Run.worker has it
    hostname: str
    queues: tuple[str, ...]
    started: float
    at: float
    device: Device | None = None  # of those that take the gpu queue

    @property
    def age(self) -> float:
        return max(0.0, time.time() - self.at)

    @property
    def is_silent(self) -> bool:
        return self.age > SILENT_AFTER


def name_here() -> str:
    """What this process is called where it works on runs."""
    return f"{socket.gethostname()}:{os.getpid()}"


def beat(*, hostname: str, queues: Sequence[str], started: float) -> None:
    """Say that this worker lives. Raises RedisError."""
    own = device_here() if "gpu" in queues else None
    said = Said(name_here(), hostname, tuple(sorted(queues)), started, time.time(), own)
    # Under the name that its start gave it: one that is started again takes the place of the old.
    redis().hset(key("workers"), hostname, orjson.dumps(asdict(said)))


def leave(*, hostname: str) -> None:
    """This worker ends. Raises RedisError."""
    redis().hdel(key("workers"), hostname)


def known() -> list[Said]:
    """Every worker that was heard of in the last day, the gpu workers first. Raises RedisError."""
    found, gone = [], []
    for name, value in redis().hgetall(key("workers")).items():
        said = _read(value)
        if said is None or said.age > FORGOTTEN_AFTER:
            gone.append(name)
        else:
            found.append(said)
    if gone:
        redis().hdel(key("workers"), *gone)
    return sorted(found, key=lambda one: ("gpu" not in one.queues, one.hostname, one.name))


def is_answered(queue: str) -> bool:
    """Whether a worker that was heard of just now takes from this queue. Raises RedisError."""
    return any(queue in one.queues and not one.is_silent for one in known())


def device_here() -> Device:
    """The devices of this process, as far as they can be known without torch: their memory
    together."""
    holder = devices.holder()
    if found := _nvidia(devices.names()):
        name, used, total = found
        return Device(name, used, total, holder)
    memory = psutil.virtual_memory()
    return Device(_processor(), memory.total - memory.available, memory.total, holder)


def _nvidia(names: list[str]) -> tuple[str, int, int] | None:
    """Name, bytes in use and bytes of GPUs; None where there is none to be seen."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=name,memory.used,memory.total"]
    command += ["--format=csv,noheader,nounits", f"--id={','.join(names)}"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=NVIDIA_SECONDS
        )
        lines = [line.rsplit(",", 2) for line in done.stdout.strip().splitlines()]
        kinds = Counter(name.strip() for name, _, _ in lines)
        told = ", ".join(name if n == 1 else f"{n} × {name}" for name, n in kinds.items())
        used, total = (sum(int(line[i]) for line in lines) * MIB for i in (1, 2))
        return (told, used, total) if lines else None
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None  # a driver that does not answer: the worker is told of without its GPU


@lru_cache(maxsize=1)
def _processor() -> str:
    name = "CPU"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    cores = os.cpu_count() or 1
    return f"{name}, {cores} core{'' if cores == 1 else 's'}"


def _read(value: bytes) -> Said | None:
    """None for what another version wrote."""
    try:
        fields = orjson.loads(value)
        own = fields.pop("device")
        fields["queues"] = tuple(fields["queues"])
        return Said(**fields, device=Device(**own) if own else None)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
