"""A judge's run: tasks chosen by ``start``, judged by ``perform`` in a worker, then measured.

A run can be killed, paused, canceled or taken over at any point. What is judged stands in the
tables, what was asked in the ledger: whoever goes on takes the tasks without an outcome, and a
call that was paid for is not made again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from django.db import connection

from annotator.errors import Conflict, Invalid, MethodFailed
from annotator.models import Judge, Project, Run, User
from annotator.queries import judging as queries
from annotator.queries.judging import CHUNK, IMAGE_CHUNK, Source, Unshowable, parse_selection
from annotator.services import acceptance, devices, judge_report, judges, llm, runs
from annotator.services.judging_pump import OFFLINE_AT_ONCE, Ended, Pump, Said
from annotator.services.judging_write import write
from models import gateway
from models.errors import ModelsError
from rubrics.judging import ASKING, ON_GPU
from rubrics.judging.types import AskingJudge, Decision, Item, ScoringJudge
from rubrics.llm.budget import Budget
from rubrics.llm.types import Call, Reply, Request

STAGES: Final = (("judge", "Judge"), ("report", "Report"))
FAILED: Final = "failed"
MAX_CALLS: Final = 10**12
# A run that asks afresh tells its requests apart by its own number, above any judge's own salts.
SALT_STEP: Final = 1_000
SCORED_AT_ONCE: Final = 64
PAID: Final = ("calls", "tokens_in", "tokens_out", "cost")


def start(
    *,
    project: Project,
    judge: Judge,
    by: User | None,
    tasks: str = queries.ALL,
    limit: int | None = None,
    budget: Budget | Mapping[str, Any] | None = None,
    retry: str = "",
    retry_of: Run | None = None,
) -> Run:
    """A queued run; the caller enqueues its job. Raises Invalid or Conflict.

    ``tasks`` as ``queries.judging.parse_selection`` reads them; those with an outcome are left
    out. ``retry="failed"`` takes those instead whose outcome is a failure. ``limit`` is the most
    tasks that the run takes.
    """
    if judge.project_id != project.pk:
        raise Invalid("That judge is of another project.")
    if retry not in ("", FAILED):
        raise Invalid(f"Only what {FAILED} can be tried again.")
    judges.check_usable(judge)
    if not isinstance(budget, Budget):
        budget = Budget(**(budget or {}))
    _check_limits(limit, budget)
    selection = parse_selection(tasks)
    config = {
        "judge": judge.pk,
        "judged_by": str(judge),
        "tasks": selection.text,
        "limit": limit,
        "budget": asdict(budget),
        "retry": retry,
        "queue": judges.queue_of(judge),
    }
    title = f"Judge by {judge}" + (", what had failed" if retry else "")
    return runs.start(
        project=project, kind=Run.Kind.JUDGE, title=title, config=config, by=by, retry_of=retry_of
    )


def _check_limits(limit: int | None, budget: Budget) -> None:
    given = {"limit": limit, **asdict(budget)}
    for name, value in given.items():
        if value is not None and not 0 < value <= MAX_CALLS:
            raise Invalid(f"{name.capitalize()}: a number above 0, or none for no limit.")


def retry_failed(*, run: Run, by: User | None) -> Run:
    """A queued run over what this one left unjudged. Raises Conflict while it is under way."""
    if run.is_active:
        raise Conflict("The run is still under way.", advice="Pause or cancel it first.")
    judge = queries.judge_of(run)
    if judge is None:
        raise Conflict("The judge of this run is not there any more.")
    return start(
        project=run.project,
        judge=judge,
        by=by,
        tasks=run.config["tasks"],
        budget=Budget(**run.config["budget"]),
        retry=FAILED,
        retry_of=run,
    )


def perform(work: runs.Work) -> dict[str, Any]:
    """Judge what is left, then measure the judge. Safe to be killed at any point and run again."""
    known = {stage["key"]: stage for stage in work.run.stages}
    work.run.stages = [
        known.get(key, {"key": key, "label": label, "state": "", "seconds": None})
        for key, label in STAGES
    ]
    judge = queries.judge_of(work.run)
    if judge is None:
        raise Conflict("The judge of this run is not there any more.")
    judges.check_usable(judge)
    work.stage(*STAGES[0])
    job = _Job(work, judge)
    ended = job.judge_all()
    work.stage(*STAGES[1])
    report = judge_report.record(judge, work.run, stage=lambda key, label: work.check())
    accepted = acceptance.apply(judge=judge, run=work.run, between=lambda looked: work.check())
    return {**job.result(ended), "report": report, "accepted": asdict(accepted)}


class _Tally:
    """What a run has used and met, over all its attempts.

    Tasks and money are what the tables say, so a killed worker's share is in them; retries,
    errors and cache hits are what was last written down.
    """

    def __init__(self, run: Run) -> None:
        judged, failed = queries.outcomes(run)
        self.judged, self.failed = judged, Counter(failed)
        self._paid = queries.paid(run)
        before = run.counters
        self._cached = before.get("cached", 0)
        self._retries = Counter(before.get("retries", {}))
        self.errors = Counter(before.get("errors", {}))
        self._begun: dict[str, Any] = {}
        self._now: dict[str, Any] = {}

    @property
    def done(self) -> int:
        return self.judged + self.failed.total()

    def see(self, used: dict[str, Any]) -> None:
        """What this attempt's caller says it has used; the first time it is the zero.

        Called in the loop, where it changes; read in the database thread.
        """
        self._begun = self._begun or used
        self._now = used

    def as_json(self) -> dict[str, Any]:
        begun, now = self._begun, self._now
        since = {name: now.get(name, 0) - begun.get(name, 0) for name in (*PAID, "cached")}
        retries = self._retries + Counter(now.get("retries", {}))
        return {
            **{name: self._paid[name] + since[name] for name in PAID},
            "cached": self._cached + since["cached"],
            "judged": self.judged,
            "failed": self.failed.total(),
            "failures": dict(sorted(self.failed.items())),
            "errors": dict(sorted(self.errors.items())),
            "retries": dict(sorted(retries.items())),
        }


@dataclass
class _Place:
    """How far the reading is."""

    after: int = 0
    left: int | None = None  # of the run's limit


class _Job:
    """One attempt at a run."""

    def __init__(self, work: runs.Work, judge: Judge) -> None:
        self._work, self._judge = work, judge
        self._project = judge.project
        self._options = self._project.options
        run, config = work.run, work.run.config
        self._tally = _Tally(run)
        self._is_retry = config["retry"] == FAILED
        self._source = Source(
            project_id=run.project_id,
            judge_id=judge.pk,
            run_id=run.pk,
            selection=parse_selection(config["tasks"]),
            only_failed=self._is_retry,
        )
        limit = config["limit"]
        left = None if limit is None else max(0, limit - self._tally.done)
        self._place = _Place(left=left)
        is_images = self._project.modality == Project.Modality.IMAGE
        self._chunk = IMAGE_CHUNK if is_images else CHUNK
        self._silent: dict[int, queries.Silent] = {}
        if self._tally.done and run.attempt > 1:
            work.resumed(f"task {self._tally.done:,}")
        waiting = self._source.count(most=left)
        work.progress(self._tally.done, self._tally.done + waiting, unit="tasks")
        work.log(f"{waiting:,} tasks to judge by {judge}")

    def judge_all(self) -> Ended:
        """All that is left; what came of it is in the tables. Raises Stopped, MethodFailed."""
        loaded = judges.load(self._judge)
        if self._judge.kind in ASKING:
            if not connection.in_atomic_block:
                connection.close()  # this thread only waits, for hours perhaps
            ended = asyncio.run(self._ask(loaded))
        else:
            ended = self._score(loaded)
        self._note()
        self._work.flush()
        counted = self._tally.as_json()
        self._work.log(
            f"{counted['judged']:,} judged, {counted['failed']:,} failed; {counted['calls']:,} calls"
            f" paid, {counted['cached']:,} from the cache; ended: {ended.why or 'no task is left'}"
            + (f" ({ended.detail})" if ended.detail else "")
        )
        if ended.why == "stopped":
            raise runs.Stopped
        if ended.why == "down":
            raise MethodFailed(
                f"The endpoint answers nothing more: {ended.detail}.",
                advice="Look at the endpoint, then resume the run and retry what failed.",
            )
        if ended.why == "broken":
            raise MethodFailed(
                f"The judge breaks on every task: {ended.detail}.",
                advice="The server's log has the details. What was judged is kept.",
            )
        return ended

    def result(self, ended: Ended) -> dict[str, Any]:
        counted = self._tally.as_json()
        return {
            "run": self._work.run.pk,
            "judge": self._judge.pk,
            "tokens": counted["tokens_in"] + counted["tokens_out"],
            **counted,
            "stopped": ended.why,
        }

    # Reading and writing: in whichever thread has the database.

    def _read(self) -> Sequence[Item | Unshowable]:
        found: list[Item | Unshowable] = []
        while not found and (ids := self._next_ids()):
            if self._is_retry:
                self._silent |= queries.silent_calls(self._judge.pk, ids)
            found = queries.items(self._project, ids)  # none where all are gone since
        return found

    def _next_ids(self) -> list[int]:
        place = self._place
        size = self._chunk if place.left is None else min(self._chunk, place.left)
        ids = self._source.ids(after=place.after, size=size) if size else []
        if ids:
            place.after = ids[-1]
        if place.left is not None:
            place.left -= len(ids)
        return ids

    def _write(self, said: Said) -> None:
        written = write(
            judge=self._judge, run_id=self._work.run.pk, options=self._options, said=said
        )
        self._tally.judged += written.judged
        self._tally.failed += written.failed
        self._tally.errors += written.errors
        self._note()

    def _note(self) -> None:
        self._work.count(self._tally.as_json())
        self._work.progress(self._tally.done)

    def _look(self) -> bool:
        self._note()
        return self._work.should_stop()

    # Judges that ask.

    async def _ask(self, asking: AskingJudge) -> Ended:
        endpoint = self._judge.endpoint
        at_once = endpoint.concurrency if endpoint is not None else OFFLINE_AT_ONCE
        pump = Pump(
            read=self._read,
            write=self._write,
            look=self._look,
            width=at_once + max(2, at_once // 4),
        )
        if endpoint is None:  # programs check everything it has to know
            return await pump.run(lambda item: asking.judge(item, judges.nobody))
        budget = Budget(**self._work.run.config["budget"])
        async with llm.open_caller(endpoint=endpoint, run=self._work.run, budget=budget) as caller:
            self._tally.see(caller.counters.as_json())

            async def judge(item: Item) -> Decision:
                silent = self._silent.pop(item.id, None)
                call = self._afresh(caller, silent) if silent else caller
                try:
                    return await asking.judge(item, call)
                finally:
                    self._tally.see(caller.counters.as_json())

            ended = await pump.run(judge)
        self._tally.see(caller.counters.as_json())  # with what came in while it closed
        return ended

    def _afresh(self, call: Call, silent: queries.Silent) -> Call:
        """A call that is not content with a reply that said nothing the last time.

        The last time may have been such a call too, under the number of its own run.
        """
        endpoint = self._judge.endpoint
        assert endpoint is not None

        def salted(request: Request, run_id: int) -> Request:
            return replace(request, salt=request.salt + SALT_STEP * run_id)

        async def ask(request: Request) -> Reply:
            asked = (salted(request, run_id) for run_id in {0, *silent.runs})
            if any(one.key(endpoint.base_url) in silent.keys for one in asked):
                request = salted(request, self._work.run.pk)
            return await call(request)

        return ask

    # Judges that score.

    def _score(self, scoring: ScoringJudge) -> Ended:
        """Chunk by chunk; a local model holds the device meanwhile."""
        if hasattr(scoring, "check"):  # one that works in another process looks up now and then
            scoring.check = self._work.check
        try:
            with self._device():
                while chunk := self._read():
                    for at in range(0, len(chunk), SCORED_AT_ONCE):
                        self._write(self._scored(scoring, chunk[at : at + SCORED_AT_ONCE]))
                        self._work.check()
        except ModelsError as error:
            raise MethodFailed(error.message, advice=error.advice) from None
        return Ended()

    def _scored(self, scoring: ScoringJudge, chunk: Sequence[Item | Unshowable]) -> Said:
        items = [one for one in chunk if isinstance(one, Item)]
        said = dict(zip((one.id for one in items), scoring.judge(items), strict=True))
        for one in chunk:
            if isinstance(one, Unshowable):
                said[one.id] = Decision(ranks=None, error=one.error, detail=one.detail)
        return list(said.items())

    @contextmanager
    def _device(self) -> Iterator[None]:
        """Hold the device where the judge needs one, and leave nothing on it."""
        if self._judge.kind not in ON_GPU:
            yield
            return

        def wait(other: str) -> None:
            self._work.check()
            self._work.say("waits for the device" + (f": {other} holds it" if other else ""))

        with devices.hold(holder=f"run {self._work.run.pk}", on_wait=wait):
            try:
                yield
            finally:
                gateway.release()
