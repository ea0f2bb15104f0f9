"""What a worker does, for tests whose browser keeps this thread's event loop."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from django.db import connection

from annotator.models import Run, RunState


def work_through(run: Run, job: Callable[..., object]) -> None:
    """What a worker would do; in a thread, since the browser's event loop runs in this one."""

    def work() -> None:
        try:
            job(run_id=run.pk)
        finally:
            connection.close()

    thread = Thread(target=work)
    thread.start()
    thread.join()
    run.refresh_from_db()
    assert run.state == RunState.DONE, run.error
