"""Inducing a rubric: preferences in, a draft of criteria out, measured on prompts it never saw.

A run can be killed at any point. It is then done again from its start: what it asked is in the
ledger, so the same questions cost nothing, and its draft replaces the one it had made before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any, Final, TypeVar

from django.db import connection, transaction
from pydantic import BaseModel, ValidationError

from annotator.errors import Conflict, Invalid, MethodFailed, NotFound
from annotator.models import Judge, Project, Rubric, RubricVersion, Run, Split, User
from annotator.queries import preference_pairs as queries
from annotator.queries.pairs import Selection
from annotator.services import judges, llm, rubric_measure, rubrics, runs
from models.training import explain
from rubrics.generators import GENERATORS
from rubrics.generators.types import Generated, Generator, PreferencePair
from rubrics.judging import ASKING
from rubrics.llm.budget import Budget
from rubrics.llm.types import Call, CallFailed
from rubrics.registry import UnknownMethod, find

LOOK_SECONDS: Final = 0.5
PAIRS: Final = 256  # given to a generator where nobody says how many
MEASURED: Final = 200  # held-out pairs at most, where every one of them costs calls
LEARNED: Final = (Split.TRAIN, Split.VALIDATION)
HELD_OUT: Final = (Split.TEST,)
# What a method need not do: every draft is measured on the test split here.
ALREADY: Final[dict[str, dict[str, Any]]] = {"arr": {"held_out": 0}}
STAGES: Final = (("read", "Read"), ("generate", "Generate"), ("measure", "Measure"),
                 ("write", "Write"))  # fmt: skip

T = TypeVar("T")


def start(
    *,
    project: Project,
    method: str,
    options: dict[str, Any],
    judge: Judge | None = None,
    name: str = "",
    raters: str = "all",
    pairs: int | None = None,
    budget: Budget | None = None,
    by: User | None,
) -> Run:
    """A queued run that writes a draft of the rubric ``name``; the caller enqueues its job.

    ``judge`` names the endpoint and model that a method asks. ``pairs`` is how many preferences
    the method is given. Raises Invalid, Conflict.
    """
    read = _read_options(method, ALREADY.get(method, {}) | options)
    if judge is None and needs_model(method):
        raise Invalid("This method asks a model.", advice="Choose the judge whose model it asks.")
    if judge is not None:
        _check_judge(project, judge)
    if pairs is not None and not 0 < pairs <= queries.MOST:
        raise Invalid(f"A method is given 1 to {queries.MOST:,} pairs.")
    name = " ".join(name.split()) or GENERATORS[method].label
    _require_free(project, name)
    budget = budget or Budget()
    config = {
        "method": method,
        "options": read.model_dump(mode="json"),
        "judge": judge.pk if judge else None,
        "rubric": name,
        "raters": raters,
        "pairs": pairs,
        "budget": asdict(budget),
        "queue": "llm" if judge else "default",
    }
    title = f"Induce “{name}” by {GENERATORS[method].label}"
    return runs.start(project=project, kind=Run.Kind.RUBRIC, title=title, config=config, by=by)


def needs_model(method: str) -> bool:
    """Whether a method asks a language model."""
    options: type[BaseModel] = find(GENERATORS, method).load_options()
    return "model" in options.model_fields


def _read_options(method: str, options: dict[str, Any]) -> BaseModel:
    try:
        model: type[BaseModel] = find(GENERATORS, method).load_options()
    except UnknownMethod as error:
        raise Invalid(str(error)) from None
    try:
        return model.model_validate(options)
    except ValidationError as error:
        raise Invalid(explain(error)) from None


def _check_judge(project: Project, judge: Judge) -> None:
    if judge.project_id != project.pk or judge.kind not in ASKING:
        raise Invalid("Choose a judge of this project that asks a model.")
    judges.check_usable(judge)


def _require_free(project: Project, name: str) -> None:
    """A draft that somebody works on is not overwritten: better said before the money is spent."""
    found = Rubric.objects.filter(project=project, name=name).first()
    if found is not None and rubrics.has_work(found):
        raise Conflict(
            f"“{name}” has a draft that somebody works on.",
            advice="Approve or discard it, or give the new rubric another name.",
        )


def perform(work: runs.Work) -> dict[str, Any]:
    """Read, generate, measure, write. Safe to be killed at any point and run again."""
    known = {stage["key"]: stage for stage in work.run.stages}
    work.run.stages = [
        known.get(key, {"key": key, "label": label, "state": "", "seconds": None})
        for key, label in STAGES
    ]
    return _Induction(work).done()


class _Journal:
    """What the loop's thread says of itself; the job's thread writes it down.

    A rubrics.generators.types.Journal.
    """

    def __init__(self) -> None:
        self.words = ""
        self.how_far: tuple[int, int, str] | None = None
        self.used: dict[str, Any] = {}
        self.is_measuring = self.is_stopping = False
        self.cancel: Callable[[], None] = lambda: None

    def stage(self, key: str, label: str) -> None:
        self.words, self.how_far = label, None

    def progress(self, done: int, total: int, unit: str) -> None:
        self.how_far = (done, total, unit)

    def check(self) -> None:
        if self.is_stopping:
            raise asyncio.CancelledError


class _Induction:
    """One attempt at a run."""

    def __init__(self, work: runs.Work) -> None:
        self._work, self._config = work, work.run.config
        self._project = work.run.project
        self._options = _read_options(self._config["method"], self._config["options"])
        self._judge = self._find_judge()
        self._journal = _Journal()

    def _find_judge(self) -> Judge | None:
        if self._config["judge"] is None:
            return None
        rows = Judge.objects.select_related("endpoint", "project")
        found = rows.filter(project=self._project, pk=self._config["judge"]).first()
        if found is None:
            raise NotFound("The judge whose model was to be asked is not there any more.")
        judges.check_usable(found)
        if not self._options_model():
            self._options = self._options.model_copy(update={"model": found.options["models"][0]})
        return found

    def _options_model(self) -> str:
        return str(getattr(self._options, "model", ""))

    def done(self) -> dict[str, Any]:
        self._work.stage(*STAGES[0])
        seed = str(getattr(self._options, "seed", 0))
        asks = self._judge is not None
        most = self._config["pairs"] or (PAIRS if asks else None)
        sides, learned = self._pairs(LEARNED, most=most, seed=seed)
        _, held = self._pairs(HELD_OUT, most=MEASURED if asks else None, seed=seed)
        self._work.log(f"{len(learned):,} pairs to learn from, {len(held):,} held out")
        if not learned:
            raise Invalid(
                "No pair outside the test split has a majority.",
                advice="Judge or import pairs first.",
            )
        generated, measured = self._drive(lambda: self._induce(learned, held))
        measured["baselines"]["human_ceiling"] = rubric_measure.ceiling(self._project)
        return self._write(generated, measured, sides)

    def _pairs(
        self, splits: tuple[str, ...], *, most: int | None, seed: str
    ) -> tuple[dict[int, rubrics.Pair], list[PreferencePair]]:
        selection = Selection(self._config["raters"], splits=splits)
        sides = queries.chosen(self._project, selection, most=most, seed=seed)
        self._work.check()
        pairs = []
        for pair in queries.with_texts(self._project, sides):
            pairs.append(pair)
            self._work.progress(len(pairs), len(sides), unit="pairs")
        self._work.check()
        rows = {
            number: rubrics.Pair(one.prompt_id, one.chosen_id, one.rejected_id)
            for number, one in enumerate(sides)
        }
        return rows, pairs

    async def _induce(
        self, learned: list[PreferencePair], held: list[PreferencePair]
    ) -> tuple[Generated, dict[str, Any]]:
        generator: Generator = find(GENERATORS, self._config["method"]).load()(self._options)
        if self._judge is None:
            return await self._work_through(generator, learned, held, None)
        assert self._judge.endpoint is not None
        budget = Budget(**self._config["budget"])
        async with llm.open_caller(
            endpoint=self._judge.endpoint, run=self._work.run, budget=budget
        ) as caller:

            async def call(request: Any) -> Any:
                self._journal.check()
                try:
                    return await caller(request)
                finally:
                    self._journal.used = caller.counters.as_json()

            return await self._work_through(generator, learned, held, call)

    async def _work_through(
        self,
        generator: Generator,
        learned: list[PreferencePair],
        held: list[PreferencePair],
        call: Call | None,
    ) -> tuple[Generated, dict[str, Any]]:
        generated = await generator.generate(learned, call=call, journal=self._journal)
        self._journal.stage("measure", "measuring on the test split")
        self._journal.is_measuring = True
        try:
            measured = await rubric_measure.measure(
                generated.criteria, held, call=call, model=self._options_model()
            )
        except CallFailed as failed:
            if failed.kind != "budget":
                raise
            measured = rubric_measure.nothing("The budget was spent before it could be measured.")
        return generated, measured

    def _drive(self, make: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine in a thread of its own, and write down meanwhile how far it is.

        The tables belong to this thread: what is asked is written by the ledger's own.
        """
        self._work.stage(*STAGES[1])
        is_measuring = False
        with ThreadPoolExecutor(1, thread_name_prefix="induction") as pool:
            future: Future[T] = pool.submit(asyncio.run, self._cancelable(make))
            while not wait([future], timeout=LOOK_SECONDS).done:
                if self._work.should_stop():
                    self._journal.is_stopping = True
                    self._journal.cancel()
                if self._journal.is_measuring and not is_measuring:
                    is_measuring = True
                    self._work.stage(*STAGES[2])
                self._note()
        if self._journal.is_measuring and not is_measuring:
            self._work.stage(*STAGES[2])
        self._note()
        self._work.flush()
        try:
            return future.result()
        except asyncio.CancelledError:
            raise runs.Stopped from None
        except ValueError as error:
            raise MethodFailed(
                f"The method cannot learn from these pairs: {error}.",
                advice="Judge or import more pairs, or choose another method.",
            ) from error
        finally:
            connection.close()

    async def _cancelable(self, make: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.ensure_future(make())
        loop = asyncio.get_running_loop()
        self._journal.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        return await task

    def _note(self) -> None:
        journal = self._journal
        self._work.count(dict(journal.used))
        if journal.words:
            self._work.say(journal.words)
        if journal.how_far is not None:
            done, total, unit = journal.how_far
            self._work.progress(done, total, unit=unit)

    def _write(
        self, generated: Generated, measured: dict[str, Any], sides: dict[int, rubrics.Pair]
    ) -> dict[str, Any]:
        self._work.stage(*STAGES[3])
        self._work.check()
        run = self._work.run
        with transaction.atomic():
            rubric, _ = Rubric.objects.get_or_create(
                project=self._project,
                name=self._config["rubric"],
                defaults={"created_by": run.created_by},
            )
            version = rubrics.propose(
                rubric=rubric,
                generated=generated,
                pairs=sides,
                method=self._config["method"],
                options=self._config["options"],
                run=run,
                by=run.created_by,
            )
            version.figures |= {"held_out": measured}
            version.save(update_fields=["figures"])
        return self._result(version, generated, measured)

    def _result(
        self, version: RubricVersion, generated: Generated, measured: dict[str, Any]
    ) -> dict[str, Any]:
        used = self._work.run.counters
        return {
            "run": self._work.run.pk,
            "rubric": version.rubric.name,
            "version": version.number,
            "criteria": [
                {
                    "text": one.text,
                    "weight": one.weight,
                    "coverage": one.figures.get("coverage"),
                    "precision": one.figures.get("precision"),
                }
                for one in generated.criteria
            ],
            "held_out": measured,
            "dropped": generated.dropped,
            "stopped": generated.stopped,
            "calls": used.get("calls", 0),
            "tokens": used.get("tokens_in", 0) + used.get("tokens_out", 0),
        }


def raters_offered() -> list[tuple[str, str]]:
    """(key, words) of whose votes can be learned from."""
    return [
        ("all", "Everybody whose votes count"),
        ("people", "People"),
        ("imported", "Imported raters"),
        ("judges", "Judges, accepted or not"),
    ]
