"""Scoring in a process of its own: ``python -m models.neural.serve``, asked by models.helper.

Requests are JSON lines on stdin, replies JSON lines on stdout. What goes wrong on purpose is a
reply; anything else, a CUDA fault above all, ends this process and not the one that asked. It ends
as well when stdin closes, and when nothing was asked for a while, so that an idle model does not
keep a device's memory. It listens before it loads torch, which takes seconds.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Final

import orjson

from models.errors import ModelsError, OutOfMemory
from models.supervision import EXIT_DONE, EXIT_ORPHANED

IDLE_SECONDS: Final = 300.0


def main() -> int:
    """Score until stdin closes or nothing was asked for IDLE_SECONDS."""
    return run(_load)


def run(load: Callable[[], Callable[[bytes], None]]) -> int:
    """Answer until stdin closes or nothing was asked for IDLE_SECONDS.

    ``load`` is called with the first request; it returns what answers one on stdout.
    """
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    reply: Callable[[bytes], None] | None = None
    while True:
        try:
            line = requests.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return EXIT_DONE
        reply = reply or load()
        reply(line)


def _load() -> Callable[[bytes], None]:
    """What answers a request on stdout; torch comes with it."""
    from models.neural.answers import Models, answer
    from models.neural.process import take_stdout

    stdout, models = take_stdout(), Models()

    def reply(line: bytes) -> None:
        try:
            said = answer(orjson.loads(line), models, lambda: None)
        except ModelsError as error:
            if isinstance(error, OutOfMemory):
                models.clear()
            said = {"kind": error.kind, "reason": error.message, "advice": error.advice}
        stdout.write(orjson.dumps(said) + b"\n")
        stdout.flush()

    return reply


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Pass requests on; nobody left to answer ends the process at once, whatever it is doing."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    os._exit(main())  # without waiting for the thread that listens
