"""What waits on each queue, and what each worker has at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from annotator.models import Project, Run, RunState

QUEUES: Final = ("default", "llm", "gpu")
# As settings.CELERY_TASK_ROUTES has it; a run's configuration may name another.
USUAL: Final = {Run.Kind.TRAIN: "gpu", Run.Kind.JUDGE: "llm", Run.Kind.BATTERY: "llm"}
READ: Final = 10_000


@dataclass(frozen=True)
class Line:
    """Runs that wait on one queue."""

    queue: str
    own: int
    others: int

    @property
    def total(self) -> int:
        return self.own + self.others


@dataclass
class Held:
    """What a worker has begun and not ended: runs of this project, and how many of others."""

    runs: list[Run] = field(default_factory=list)
    others: int = 0


def waiting(project: Project) -> list[Line]:
    """How long each line is. Reads runs under way, by their index."""
    counts = {queue: [0, 0] for queue in QUEUES}
    rows = Run.objects.filter(state=RunState.QUEUED)
    for kind, queue, of in rows.values_list("kind", "config__queue", "project_id")[:READ]:
        name = queue if queue in counts else USUAL.get(kind, "default")
        counts[name][of != project.pk] += 1
    return [Line(queue, own, others) for queue, (own, others) in counts.items()]


def held_by(names: Sequence[str], *, project: Project) -> dict[str, Held]:
    """By name of a worker what it works on."""
    found: dict[str, Held] = {}
    rows = Run.objects.filter(
        worker__in=list(names), state__in=[RunState.RUNNING, RunState.STOPPING]
    )
    for run in rows.defer("log", "config", "result").order_by("pk")[:READ]:
        held = found.setdefault(run.worker, Held())
        if run.project_id == project.pk:
            held.runs.append(run)
        else:
            held.others += 1
    return found
