"""The simulated server under uvicorn: in the foreground of a process, or in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any, Final

import uvicorn

from rubrics.simulated.app import SimulatedApp

BACKLOG: Final = 2048
LOOPBACK: Final = "127.0.0.1"


def _config(app: SimulatedApp, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        lifespan="off",
        ws="none",
        log_level="critical",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=300,
        **more,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. It says that it is TCP: else asyncio leaves Nagle's algorithm on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def serve(app: SimulatedApp, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. Raises OSError where the port is taken."""
    with _listen(host, port) as listening:
        uvicorn.Server(_config(app, timeout_graceful_shutdown=1)).run(sockets=[listening])


class _Abrupt(uvicorn.Server):
    """A server that ends like a killed process: at once, in the middle of every reply."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self._over.is_set():
            await self._wake.wait()

    def end(self) -> None:
        """From any thread."""
        self._over.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # it ended by itself
                self._loop.call_soon_threadsafe(self._wake.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close their sockets one turn later


class ThreadedServer:
    """A server on a free loopback port in a thread of its own."""

    def __init__(self, app: SimulatedApp) -> None:
        self.app = app
        self.port = 0
        self._server: _Abrupt | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What clients are given as their base URL."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    def start(self) -> None:
        """Ready when it returns; after a stop on the same port as before."""
        listening = _listen(LOOPBACK, self.port)
        self.port = listening.getsockname()[1]
        self._server = _Abrupt(_config(self.app))
        # The socket listens already: whoever connects early waits in its queue.
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="simulated", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Break every connection and wait until the port is free."""
        if self._server is not None and self._thread is not None:
            self._server.end()
            self._thread.join()
        self._server = self._thread = None

    def restart(self) -> None:
        """As if the process had been killed and started again; the ledger stays."""
        self.stop()
        self.start()
