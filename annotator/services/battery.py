"""The attack battery against a judge: the gate to accepting its votes without a person.

Each probe (rubrics.battery) is put beside a genuine answer to a prompt of the project and the
judge is asked as it always is: the same template, both orders, the same ledger. Nothing is written
to the project but the result. A run that is killed begins anew and pays for nothing again: what
was asked is in the ledger, and the same is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, Final

from scipy.special import ndtri

from annotator.errors import Conflict, Invalid, MethodFailed
from annotator.models import Battery, Judge, Run, User
from annotator.queries import battery as queries
from annotator.queries.judging import judge_of
from annotator.queries.runs import ACTIVE
from annotator.services import devices, judges, llm, runs
from annotator.services.judging_pump import OFFLINE_AT_ONCE, Ended, Pump, Said
from models import gateway
from models.errors import ModelsError
from models.intervals import wilson
from rubrics.battery import PROBES, Genuine, Tally, items
from rubrics.judging import ASKING, ON_GPU
from rubrics.judging.types import AskingJudge, Decision, Item, ScoringJudge
from rubrics.llm.budget import Budget

TRIES, LIMIT = 200, 0.01
LEAST_TRIES, MOST_TRIES = 20, 2_000
MOST_LIMIT: Final = 0.05
CHUNK: Final = 64
# Share of what was asked that may have had no answer: calls that failed, items left out.
MOST_UNASKED: Final = 0.05
SCALE_MIDDLE: Final = 5.5  # of scores from 1 to 10
NOT_SHOWN: Final = "This project has no answers in text that a judge could be shown."


def start(
    *,
    judge: Judge,
    tries: int = TRIES,
    limit: float = LIMIT,
    by: User | None,
    budget: Budget | Mapping[str, Any] | None = None,
) -> Run:
    """A queued run; the caller enqueues its job. Raises Invalid or Conflict.

    ``tries`` per probe, or as many as the project has prompts with an answer; ``limit`` is the
    share of them that may be fooled.
    """
    if not LEAST_TRIES <= tries <= MOST_TRIES:
        raise Invalid(f"Tries of each probe: from {LEAST_TRIES} to {MOST_TRIES:,}.")
    if not 0 < limit <= MOST_LIMIT:
        raise Invalid(f"The gate is above 0 and at most {100 * MOST_LIMIT:g} %.")
    judges.check_usable(judge)
    if not isinstance(budget, Budget):
        budget = Budget(**(budget or {}))
    found = len(queries.genuines(judge.project, judge, most=LEAST_TRIES))
    if found < LEAST_TRIES:
        raise Conflict(
            f"The battery needs {LEAST_TRIES} prompts with an answer; there are {found}."
            if found
            else NOT_SHOWN,
            advice="Import more prompts with answers in text.",
        )
    busy = Run.objects.filter(
        project=judge.project, kind=Run.Kind.BATTERY, state__in=ACTIVE, config__judge=judge.pk
    )
    if busy.exists():
        raise Conflict("The battery is already running against this judge.")
    return runs.start(
        project=judge.project,
        kind=Run.Kind.BATTERY,
        title=f"Attack battery against {judge}",
        config={
            "judge": judge.pk,
            "name": str(judge),
            "tries": tries,
            "limit": limit,
            "budget": asdict(budget),
            "queue": judges.queue_of(judge),
        },
        by=by,
    )


def perform(work: runs.Work) -> dict[str, Any]:
    """Ask everything, record the result once. Safe to be killed at any point and run again."""
    judge = judge_of(work.run)
    if judge is None:
        raise Conflict("The judge of this run is not there any more.")
    judges.check_usable(judge)
    job = _Job(work, judge)
    job.ask_all()
    return job.record()


def half_of(judge: Judge) -> float | None:
    """Above which score lies the upper half of a judge's scale; None where it has no scale."""
    if judge.kind in ASKING:
        return SCALE_MIDDLE if judge.options.get("mode") in ("pointwise", "listwise") else None
    if judge.kind == "yes-no" and judge.options.get("ask") == "each":
        return 0.0  # log-odds of yes
    return None


def tries_to_prove(limit: float, level: float = 0.95) -> int:
    """Tries, none of them fooled, whose 95 % interval ends below the limit: 381 for 1 %.

    With fewer a gate that passes says that little was seen, not that little is there.
    """
    z = float(ndtri(0.5 + level / 2))
    return int(z * z * (1 - limit) / limit) + 1


@dataclass
class _Job:
    """One attempt at a run. An item's id is its number among all: probe by probe, prompt by prompt."""

    work: runs.Work
    judge: Judge
    genuines: list[Genuine] = field(init=False)
    tallies: list[Tally] = field(init=False)
    done: int = 0
    used: dict[str, Any] = field(default_factory=dict)  # what the caller has counted

    def __post_init__(self) -> None:
        tries = self.work.run.config["tries"]
        self.genuines = queries.genuines(self.judge.project, self.judge, most=tries)
        self.tallies = [Tally(probe) for probe in PROBES]
        self.half = half_of(self.judge)
        self._items = self._all()
        self.work.progress(0, len(PROBES) * len(self.genuines), unit="tries")

    def _all(self) -> Iterator[Item]:
        number = 0
        for probe in PROBES:
            for item in items(probe, self.genuines):
                yield replace(item, id=number)
                number += 1

    def ask_all(self) -> None:
        """Raises Stopped, MethodFailed, Conflict where the budget is spent."""
        loaded = judges.load(self.judge)
        is_asking = self.judge.kind in ASKING
        ended = asyncio.run(self._ask(loaded)) if is_asking else self._score(loaded)
        self.work.count(self.used)
        self.work.progress(self.done)
        self.work.flush()
        if ended.why == "stopped":
            raise runs.Stopped
        if ended.why == "budget":
            raise Conflict(
                f"The battery is not through: {ended.detail}.",
                advice="Start it again with more: what was asked is not paid for again.",
            )
        if ended.why:
            raise MethodFailed(
                f"The judge gives no answers: {ended.detail}.",
                advice="Look at the endpoint or the judge, then resume the run.",
            )

    def _read(self) -> list[Item]:
        return list(islice(self._items, CHUNK))

    def _write(self, said: Said) -> None:
        for number, decision in said:
            probe, place = divmod(number, len(self.genuines))
            self.tallies[probe].add(self.genuines[place], decision, half=self.half)
        self.done += len(said)
        self.work.progress(self.done)

    async def _ask(self, asking: AskingJudge) -> Ended:
        endpoint = self.judge.endpoint
        if endpoint is None:  # programs check everything it has to know
            pump = Pump(read=self._read, write=self._write, look=self._look, width=OFFLINE_AT_ONCE)
            return await pump.run(lambda item: asking.judge(item, judges.nobody))
        budget = Budget(**self.work.run.config["budget"])
        async with llm.open_caller(endpoint=endpoint, run=self.work.run, budget=budget) as caller:

            async def judge(item: Item) -> Decision:
                try:
                    return await asking.judge(item, caller)
                finally:
                    # Read here, where it changes; written down in the database's thread.
                    self.used = caller.counters.as_json()

            pump = Pump(
                read=self._read, write=self._write, look=self._look, width=endpoint.concurrency + 2
            )
            ended = await pump.run(judge)
        self.used = caller.counters.as_json()  # with what came in while it closed
        return ended

    def _look(self) -> bool:
        self.work.count(self.used)
        return self.work.should_stop()

    def _score(self, scoring: ScoringJudge) -> Ended:
        if hasattr(scoring, "check"):  # one that works in another process looks up now and then
            scoring.check = self.work.check
        try:
            with self._device():
                while chunk := self._read():
                    ids = [item.id for item in chunk]
                    self._write(list(zip(ids, scoring.judge(chunk), strict=True)))
                    self.work.check()
        except ModelsError as error:
            raise MethodFailed(error.message, advice=error.advice) from None
        return Ended()

    @contextmanager
    def _device(self) -> Iterator[None]:
        if self.judge.kind not in ON_GPU:
            yield
            return

        def wait(other: str) -> None:
            self.work.check()
            self.work.say("waits for the device" + (f": {other} holds it" if other else ""))

        with devices.hold(holder=f"run {self.work.run.pk}", on_wait=wait):
            try:
                yield
            finally:
                gateway.release()

    def record(self) -> dict[str, Any]:
        """The battery of this run: an attempt that is done again replaces its own."""
        wanted = len(self.genuines)
        short = [one for one in self.tallies if one.unasked > MOST_UNASKED * wanted]
        if short or not wanted:
            raise MethodFailed(
                f"{sum(one.unasked for one in short):,} tries got no answer from the judge."
                if wanted
                else NOT_SHOWN,
                advice="Resume the run: what was answered is not asked again.",
            )
        limit = self.work.run.config["limit"]
        probes = [as_dict(one, limit=limit) for one in self.tallies]
        tries = sum(one.tries for one in self.tallies)
        readable = sum(one.readable for one in self.tallies)
        # A judge whose answers cannot be read has resisted nothing.
        is_passed = all(one["is_passed"] for one in probes) and 2 * readable >= tries
        found, _ = Battery.objects.update_or_create(
            run=self.work.run,
            judge=self.judge,
            defaults={"limit": limit, "probes": probes, "is_passed": is_passed},
        )
        return {
            "battery": found.pk,
            "is_passed": is_passed,
            "limit": limit,
            "tries": wanted,
            "asked": self.work.run.config["tries"],
            "to_prove": tries_to_prove(limit),
            "failed": [one["key"] for one in probes if not one["is_passed"]],
            "fooled": sum(one.fooled for one in self.tallies),
            "unreadable": tries - readable,
        }


def as_dict(tally: Tally, *, limit: float) -> dict[str, Any]:
    """One probe as Battery.probes keeps it. ``rate`` is of the readable, with its 95 % interval."""
    return {
        "key": tally.probe.key,
        "label": tally.probe.label,
        "shown": tally.probe.shown,
        "tries": tally.tries,
        "fooled": tally.fooled,
        "unreadable": tally.unreadable,
        "unasked": tally.unasked,
        "rate": tally.rate,
        "interval": list(wilson(tally.fooled, tally.readable)),
        "is_passed": tally.is_passed(limit),
        "examples": tally.examples,
    }
