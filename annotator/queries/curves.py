"""The curves of a training run and what its last points say."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from annotator.models import Run, RunPoint, RunState

EVALUATIONS_READ: Final = 200
POINTS_READ: Final = 2_000  # services.training_events keeps at most 1,000 of a kind
RATE_POINTS: Final = 30
MEMBER: Final = "member"  # of an ensemble, in the values of a point

Series = list[tuple[float, float]]


@dataclass(frozen=True)
class Evaluation:
    step: int
    accuracy: float
    low: float
    high: float
    n: int
    loss: float | None
    split: str
    member: int | None = None  # of an ensemble

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class Curves:
    """``series[name]`` are (step, value) points, at most ``POINTS_READ`` of them."""

    series: dict[str, Series] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    test: Evaluation | None = None
    last: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    steps: int | None = None
    steps_a_second: float | None = None
    is_active: bool = False
    members: dict[int, int] = field(default_factory=dict)  # of an ensemble: member and first step

    @property
    def seconds_left(self) -> float | None:
        if not self.steps_a_second or self.step is None or self.steps is None:
            return None
        return max(0, self.steps - self.step) / self.steps_a_second

    @property
    def done_at(self) -> datetime | None:
        left = self.seconds_left
        return None if left is None else timezone.now() + timedelta(seconds=left)

    @property
    def latest(self) -> Evaluation | None:
        return self.evaluations[-1] if self.evaluations else None

    @property
    def best(self) -> Evaluation | None:
        return max(self.evaluations, key=lambda one: one.accuracy, default=None)


def curves(run: Run) -> Curves:
    """Two reads of rows bounded by construction, whatever the length of the training."""
    rows = list(
        RunPoint.objects.filter(run=run, kind="step")
        .order_by("-step")
        .values_list("step", "values", "at")[:POINTS_READ]
    )[::-1]
    evaluations = _evaluations(run)
    if not rows and not evaluations:
        return Curves()
    names = dict.fromkeys(name for _, values, _ in rows for name in values if name != MEMBER)
    series = {
        name: [(step, values[name]) for step, values, _ in rows if values.get(name) is not None]
        for name in names
    }
    return Curves(
        series={name: points for name, points in series.items() if points},
        evaluations=[one for one in evaluations if one.split != "test"],
        test=next((one for one in reversed(evaluations) if one.split == "test"), None),
        last=rows[-1][1] if rows else {},
        step=rows[-1][0] if rows else None,
        steps=run.total if run.unit == "steps" else None,
        is_active=run.is_active,
        members=_members(rows),
        steps_a_second=_rate(rows) if run.state == RunState.RUNNING else None,
    )


def _members(rows: list[tuple[int, Any, datetime]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for step, values, _ in rows:
        if MEMBER in values:
            found.setdefault(values[MEMBER], step)
    return found


def _rate(rows: list[tuple[int, Any, datetime]]) -> float | None:
    """Steps a second over the last points, so that an interruption does not count."""
    if len(rows) < 2:
        return None
    (first, _, began), (last, _, ended) = rows[-RATE_POINTS:][0], rows[-1]
    spent = (ended - began).total_seconds()
    return (last - first) / spent if spent > 0 else None


def _evaluations(run: Run) -> list[Evaluation]:
    rows = (
        RunPoint.objects.filter(run=run, kind="evaluate")
        .order_by("-step")
        .values_list("step", "values")[:EVALUATIONS_READ]
    )
    found = []
    for step, values in rows:
        if values.get("accuracy") is None:
            continue  # no pair of the split has a preference: there is nothing to show
        low, high = values.get("interval") or (values["accuracy"], values["accuracy"])
        found.append(
            Evaluation(
                step=step,
                accuracy=values["accuracy"],
                low=low,
                high=high,
                n=values.get("n", 0),
                loss=values.get("loss"),
                split=values.get("split", "validation"),
                member=values.get(MEMBER),
            )
        )
    return found[::-1]
