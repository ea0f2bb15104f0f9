"""A run's page in words and numbers: its figures, what its stage is at, what stopping keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from annotator import formats
from annotator.models import Run, RunState
from annotator.queries.curves import Curves
from annotator.queries.runs import ASIDE, Detail
from annotator.views import run_rubric


@dataclass(frozen=True)
class Figure:
    """One figure: a quantity, its value, what it is of, and a line that qualifies it."""

    name: str
    value: str
    of: str = ""
    note: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class RunPage:
    figures: list[Figure]
    stage_note: str
    shows_bar: bool
    keeps: str
    is_counted: bool  # among the active runs that the header tells of


KEEPS = {
    Run.Kind.IMPORT: (
        "Canceling leaves the project as it was: the good rows of a file come in together. "
        "Resuming reads it from the start."
    ),
    Run.Kind.TRAIN: (
        "Canceling keeps the last checkpoint; resuming continues from it "
        "with the same order of data."
    ),
    Run.Kind.EXPORT: "Canceling leaves nothing half-built; resuming builds it from the start.",
    Run.Kind.JUDGE: (
        "Pausing and canceling keep every verdict, and every reply that was paid for; resuming "
        "goes on with the tasks that are left."
    ),
    Run.Kind.RUBRIC: (
        "Canceling keeps every reply that was paid for, and the draft once it is written; "
        "resuming asks the same questions and pays for none of them twice."
    ),
    Run.Kind.MEASURE: "Canceling keeps every reply that was paid for; resuming pays for the rest.",
    Run.Kind.TRY: "Canceling keeps every reply that was paid for; trying again pays for the rest.",
    Run.Kind.ASK: "Canceling keeps nothing; asking again scores it again.",
    Run.Kind.SCORE: "Canceling keeps every score and every reply; resuming asks for the rest.",
    Run.Kind.EVALUATE: "Canceling keeps every score; resuming asks for those that are missing.",
}


def run_page(detail: Detail, curves: Curves) -> RunPage:
    run = detail.run
    makers = {
        Run.Kind.TRAIN: _training,
        Run.Kind.JUDGE: _judging,
        Run.Kind.RUBRIC: _asking,
        Run.Kind.MEASURE: _asking,
        Run.Kind.SCORE: _asking,
    }
    return RunPage(
        figures=makers.get(Run.Kind(run.kind), _chunked)(detail, curves),
        stage_note=_stage_note(detail, curves),
        # A bar that stands still at its end says nothing that the state does not say.
        shows_bar=bool(run.total) and _counts_towards_total(run) and run.state != RunState.DONE,
        keeps=KEEPS.get(Run.Kind(run.kind), "") if run.kind in Run.Kind.values else "",
        is_counted=run.kind not in ASIDE,
    )


def _counts_towards_total(run: Run) -> bool:
    """In a training only the steps are counted towards the total; other stages count pairs."""
    return run.kind != Run.Kind.TRAIN or run.unit == "steps"


def _left(detail: Detail, curves: Curves) -> float | None:
    if detail.run.state != RunState.RUNNING or not _counts_towards_total(detail.run):
        return None
    return detail.line.seconds_left if curves.step is None else curves.seconds_left


def _stage_note(detail: Detail, curves: Curves) -> str:
    run, parts = detail.run, []
    # A stage that says nothing more than its name says nothing.
    message = "" if run.message in {stage["label"] for stage in run.stages} else run.message
    if not _counts_towards_total(run):
        return message
    if detail.line.percent is not None:
        parts.append(f"{detail.line.percent} %")
    left = _left(detail, curves)
    if left is not None:
        parts.append(f"{formats.duration(left)} left")
    return ", ".join(parts) or message


def _time(detail: Detail, curves: Curves) -> Figure | None:
    run, spent = detail.run, detail.line.seconds
    if spent is None:
        return None
    left = _left(detail, curves)
    if left is not None:
        note = f"{formats.duration(spent)} so far"
        text = formats.duration(left)
        return Figure("Time left", text if text.startswith("under") else f"about {text}", note=note)
    if run.is_active:
        return Figure("So far", formats.duration(spent))
    return Figure("Took", formats.duration(spent), note=_attempts(run))


def _attempts(run: Run) -> str:
    return f"in {run.attempt} attempts, pauses included" if run.attempt > 1 else ""


def _training(detail: Detail, curves: Curves) -> list[Figure]:
    if curves.step is None:
        return _plain(detail, curves)
    found = [_step(curves), _time(detail, curves), _accuracy(curves)]
    last = curves.last
    if last.get("pairs_per_second") is not None:
        speed = formats.compact(last["pairs_per_second"])
        found.append(Figure("Speed", speed, of="pairs a second"))
    if last.get("memory_mb") is not None:
        found.append(Figure("Peak memory", formats.file_size(last["memory_mb"] * 1e6)))
    return [one for one in found if one]


def _step(curves: Curves) -> Figure:
    of = f"of {curves.steps:,}" if curves.steps else ""
    epoch = curves.last.get("epoch")
    notes = [f"member {max(curves.members)}"] if curves.members else []
    notes += [f"epoch {formats.fixed(epoch)}"] if epoch is not None else []
    note = ", ".join(notes)
    return Figure("Step", f"{curves.step:,}", of=of, note=note)


def _accuracy(curves: Curves) -> Figure | None:
    one = curves.test or curves.latest
    if one is None:
        return None
    interval = formats.interval(*one.interval)
    of = f", member {one.member}" if one.member else ""
    return Figure(
        f"{one.split.capitalize()} accuracy",
        formats.percent(one.accuracy),
        note=f"{interval} on {one.n:,} pairs, step {one.step:,}{of}",
    )


def _chunked(detail: Detail, curves: Curves) -> list[Figure]:
    run, found = detail.run, []
    if run.state == RunState.DONE:
        return []  # its result says all that these would
    if run.progress:
        of = f"of {run.total:,} {run.unit}" if run.total else run.unit
        found.append(Figure("Done", f"{run.progress:,}", of=of.strip()))
    found.append(_time(detail, curves))
    if detail.speed and run.unit:
        found.append(Figure("Speed", formats.compact(detail.speed), of=f"{run.unit} a second"))
    return [one for one in found if one]


def _judging(detail: Detail, curves: Curves) -> list[Figure]:
    """What was judged and what it took; the same figures while it works and when it has ended."""
    run, used = detail.run, detail.run.counters
    if not used:
        return _plain(detail, curves)
    of = f"of {run.total:,}" if run.total is not None else ""
    failed = used.get("failed", 0)
    found = [Figure("Judged", f"{used['judged']:,}", of=of, note=f"{failed:,} failed")]
    found.append(_time(detail, curves))
    if detail.speed:
        found.append(Figure("Speed", formats.compact(detail.speed), of="tasks a second"))
    tokens = used["tokens_in"] + used["tokens_out"]
    if used["calls"] or used["cached"]:
        cached = f"{used['cached']:,} more from the cache"
        found.append(Figure("Calls paid", f"{used['calls']:,}", note=cached))
        sent = f"{used['tokens_in']:,} in, {used['tokens_out']:,} out"
        found.append(Figure("Tokens", formats.compact(tokens), note=sent))
        each = f"{1000 * used['cost'] / used['judged']:.3g} per 1,000" if used["judged"] else ""
        found.append(Figure("Cost", f"{used['cost']:.4g}", note=each))
    return [one for one in found if one]


def _asking(detail: Detail, curves: Curves) -> list[Figure]:
    """A run that asks about a rubric: how far it is, what it took, what it has made."""
    run = detail.run
    found: list[Figure | None] = []
    if run.progress and run.is_active:
        of = f"of {run.total:,} {run.unit}" if run.total else run.unit
        found.append(Figure("Done", f"{run.progress:,}", of=of.strip()))
    found.append(_time(detail, curves))
    rows = [*run_rubric.headlines(run), *run_rubric.paid(run.counters)]
    found += [Figure(name, value, note=note) for name, value, note in rows]
    return [one for one in found if one]


def _plain(detail: Detail, curves: Curves) -> list[Figure]:
    time = _time(detail, curves)
    return [time] if time else []
