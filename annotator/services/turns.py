"""Whose turn it is on the gpu queue.

Messages come first in, first out: a project with fifty trainings would hold up everybody else's
first one. A message of that queue therefore only says that there is work, and the worker that takes
it begins the run whose turn it is. There are as many messages as runs that wait, so all get theirs.
Projects take turns; within one, what somebody waits for goes first, then the oldest.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Final

from django.db.models import Q
from redis import RedisError

from annotator.models import Run, RunState
from annotator.services.shared_keys import key, redis

log = logging.getLogger(__name__)

GPU: Final = "gpu"
ON_GPU: Final = Q(kind=Run.Kind.TRAIN) | Q(config__queue=GPU)
BEGUN: Final = (RunState.RUNNING, RunState.STOPPING)
REMEMBERED: Final = 24 * 60 * 60  # seconds for which a project is known to have had its turn
WAITING_READ: Final = 10_000


def is_on_gpu(run: Run) -> bool:
    return run.kind == Run.Kind.TRAIN or run.config.get("queue") == GPU


def next_on_gpu() -> Run | None:
    """The queued run whose turn it is; None where none waits.

    First the projects with the fewest runs at work, of those the one whose last turn was longest
    ago. Reads only runs under way, by their index.
    """
    rows = Run.objects.filter(ON_GPU, state=RunState.QUEUED).order_by("pk")
    first: dict[int, tuple[int, str]] = {}
    for pk, project, kind in rows.values_list("pk", "project_id", "kind")[:WAITING_READ]:
        mine = first.get(project)
        if mine is None or (kind == Run.Kind.ASK and mine[1] != Run.Kind.ASK):
            first[project] = (pk, kind)
    if not first:
        return None
    busy = Counter(
        Run.objects.filter(ON_GPU, state__in=BEGUN, project__in=first).values_list(
            "project_id", flat=True
        )
    )
    had = _had_turns(list(first))
    chosen = min(first, key=lambda one: (busy[one], had[one], first[one][0]))
    return Run.objects.filter(pk=first[chosen][0]).first()


def took(project_id: int) -> None:
    """A project has had its turn, now."""
    try:
        pipe = redis().pipeline()
        pipe.hset(key("turns"), str(project_id), repr(time.time()))
        pipe.expire(key("turns"), REMEMBERED)
        pipe.execute()
    except RedisError:  # the order is then that of age, until it is back
        log.warning("the turn of project %s is not remembered", project_id, exc_info=True)


def _had_turns(projects: list[int]) -> dict[int, float]:
    try:
        found = redis().hmget(key("turns"), [str(one) for one in projects])
    except RedisError:
        log.warning("turns are not known: the oldest run goes first", exc_info=True)
        found = [None] * len(projects)
    return {one: float(at) if at else 0.0 for one, at in zip(projects, found, strict=True)}
