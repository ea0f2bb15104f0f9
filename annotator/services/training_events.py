"""What a training process says, as progress, curves and log lines of its run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from django.db import transaction

from annotator import formats
from annotator.services.runs import Work

POINTS: Final = 1000  # most points of a curve; more updates are averaged into one
LOG_SECONDS: Final = 5.0  # between two log lines about steps
CURVES: Final = (
    "loss",
    "margin",
    "grad_norm",
    "lr",
    "pairs_per_second",
    "memory_mb",
    "epoch",
)
MEASURED: Final = ("accuracy", "interval", "n", "loss", "margin", "split")

Event = dict[str, Any]


def member_of(event: Event) -> dict[str, int]:
    """Which member of an ensemble it is about, counted from 1; nothing for a single model."""
    return {"member": event["member"]} if "member" in event else {}


def told(event: Event) -> str:
    """The same in words, before whatever is said of it."""
    return f"member {event['member']} of {event['members']}, " if "member" in event else ""


class Reporter:
    """Called with every event. Whatever is written names the run's token: a worker that lost its
    run raises LostRun here, which ends the training process."""

    def __init__(self, work: Work, *, labels: Mapping[str, str]) -> None:
        self.work, self.labels = work, labels
        self.waiting: list[Event] = []  # step events of the point that is being filled
        self.logged = float("-inf")

    def __call__(self, event: Event) -> None:
        match event["event"]:
            case "started":
                made = ", ".join(f"{name} {v}" for name, v in event["versions"].items())
                self.work.log(f"training process {event['pid']}: {made}")
            case "stage":
                self.stage(event)
            case "resumed":
                self.work.resumed(f"{told(event)}step {event['step']:,}")
            case "step":
                self.step(event)
            case "evaluate":
                self.evaluate(event)
            case "checkpoint":
                size = f"{event['bytes'] / 1e6:,.1f} MB"
                self.work.log(f"{told(event)}checkpoint step-{event['step']}  {size}")
            case "log":
                self.work.log(event["message"])
            case "failed":
                self.work.log(f"failed: {event.get('reason', '')}")

    def stage(self, event: Event) -> None:
        key = event["stage"]
        label = self.labels.get(key, key.capitalize())
        if event["state"] != "running":
            return
        if "pairs" in event:
            self.work.say(f"{label}: {event['pairs']:,} {event['split']} pairs")
        else:
            self.work.say(label)
            self.work.stage(key, label)

    def step(self, event: Event) -> None:
        step, total = event["step"], event["total_steps"]
        self.work.progress(step, total, unit="steps")
        if self.waiting and member_of(self.waiting[-1]) != member_of(event):
            self.settle()  # a point is of one member
        self.waiting.append(event)
        if step == total or self.place(event) != self.place(self.waiting[0]) or total <= POINTS:
            self.settle()
        if step == total or time.monotonic() - self.logged >= LOG_SECONDS:
            self.logged = time.monotonic()
            self.work.log(
                f"{told(event)}step {step:,}  loss {event['loss']:.3f}  margin {event['margin']:.2f}"
                f"  lr {event['lr']:.1e}  {event['pairs_per_second']:,.1f} pairs/s"
            )

    def settle(self) -> None:
        """Write the mean of what is waiting as one point."""
        mean = {
            name: sum(e[name] for e in self.waiting) / len(self.waiting)
            for name in CURVES
            if all(e.get(name) is not None for e in self.waiting)
        }
        self.point("step", self.waiting[-1]["step"], mean | member_of(self.waiting[-1]))
        self.waiting = []

    def evaluate(self, event: Event) -> None:
        values = {k: event[k] for k in MEASURED if k in event}
        self.point("evaluate", event["step"], values | member_of(event))
        if event.get("accuracy") is None:
            self.work.log(f"evaluate   no {event['split']} pair has a preference")
            return
        share = formats.percent(event["accuracy"])
        accuracy = f"{share} {formats.interval(*event['interval'])}"
        self.work.log(
            f"{told(event)}evaluate   {event['split']} accuracy {accuracy} on {event['n']:,} pairs"
            f"  loss {event['loss']:.3f}"
        )
        self.work.say(f"{told(event)}{event['split']} accuracy {accuracy}")

    def point(self, kind: str, step: int, values: dict[str, Any]) -> None:
        with transaction.atomic():
            self.work.flush()  # the run's row stays ours until the point is written
            self.work.points(kind, [(step, values)])

    @staticmethod
    def place(event: Event) -> int:
        return int(event["step"] * POINTS // event["total_steps"])
