"""The simulated judge as a real server on a loopback port, for tests.

    with simulated(position_bias=0.8) as server:      # one model, "sim", of these dials
        client = AsyncOpenAI(base_url=server.url, api_key="any")
    with simulated(models={"a": Dials(), "b": Dials(noise=2)}, known={text: 1.3}) as server: ...

or ``from tests.simulated import sim`` and take ``sim``, a server of the default dials, or
``judge_server``, a factory whose servers all stop at the end of the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from rubrics.simulated.app import SimulatedApp
from rubrics.simulated.dials import Dials
from rubrics.simulated.mind import Known, key_of
from rubrics.simulated.serving import ThreadedServer

MODEL = "sim"


class SimulatedServer(ThreadedServer):
    """``url`` ends in /v1; ``stats()`` survives ``restart()``."""

    @property
    def host(self) -> str:
        """As LLM_HOSTS lists it."""
        return f"127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        return self.app.ledger.stats()

    def turn(self, model: str = MODEL, **dials: Any) -> None:
        """Change dials of a model while it serves."""
        self.app.models[model] = self.app.models[model].but(**dials)


@contextmanager
def simulated(
    *,
    models: Mapping[str, Dials] | None = None,
    known: Mapping[str, float | Known] | None = None,
    seed: int = 0,
    api_key: str = "",
    **dials: Any,
) -> Iterator[SimulatedServer]:
    """A server in a thread. ``known``: text, or hex SHA-256 of an image, to utility.

    Without ``models`` there is one, "sim", of these dials; with them, the dials go to all.
    """
    base = {MODEL: Dials()} if models is None else models
    table = {
        key if re.fullmatch(r"[0-9a-f]{64}", key) else key_of(key): (
            value if isinstance(value, Known) else Known(value)
        )
        for key, value in (known or {}).items()
    }
    app = SimulatedApp(
        {name: one.but(**dials) for name, one in base.items()},
        known=table,
        seed=seed,
        api_key=api_key,
    )
    server = SimulatedServer(app)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def sim() -> Iterator[SimulatedServer]:
    """A server of one model, "sim", with the default dials and no faults."""
    with simulated() as server:
        yield server


@pytest.fixture
def judge_server() -> Iterator[Callable[..., SimulatedServer]]:
    """``judge_server(**as simulated)``: any number of servers, stopped with the test."""
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(simulated(**how))
