"""Inducing a rubric: preferences in, a draft of criteria out, measured on prompts it never saw.

A run can be killed at any point. Until its draft is written it is then done again from its start:
what it asked is in the ledger, so the same questions cost nothing. The draft is durable before it
is measured, and once it is there only the measuring goes on: it is people's from then on.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from django.db import transaction
from pydantic import BaseModel, ValidationError

from annotator.errors import Conflict, Invalid, MethodFailed
from annotator.models import Judge, Project, Rubric, RubricVersion, Run, Split, User
from annotator.queries import preference_pairs as queries
from annotator.queries.pairs import Selection
from annotator.queries.runs import ACTIVE
from annotator.services import asking, judges, rubric_measure, rubrics, runs
from models.training import explain
from rubrics.generators import GENERATORS
from rubrics.generators.types import Generated, Generator, PreferencePair
from rubrics.judging import ASKING
from rubrics.llm.budget import Budget
from rubrics.llm.types import Call
from rubrics.registry import UnknownMethod, find

PAIRS: Final = 256  # given to a generator where nobody says how many
MEASURED: Final = 200  # held-out pairs at most, where every one of them costs calls
LEARNED: Final = (Split.TRAIN, Split.VALIDATION)
# What a method need not do: every draft is measured on the test split here.
ALREADY: Final[dict[str, dict[str, Any]]] = {"arr": {"held_out": 0}}
MOST_ONLY: Final = 10_000  # pairs that a run can be told to learn from and no others
READ: Final = ("read", "Read the pairs")
WRITE: Final = ("write", "Write the draft")
MEASURE: Final = ("measure", "Measure on held-out prompts")
STAGES: Final = (READ, WRITE, MEASURE)  # those of the method come between


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
    only: dict[str, Any] | None = None,
    by: User | None,
) -> Run:
    """A queued run that writes a draft of the rubric ``name``; the caller enqueues its job.

    ``judge`` names the endpoint and model that a method asks; it becomes the version's verifier.
    ``pairs`` is how many preferences the method is given. ``only``: {"version": number of the
    row, "rows": [[prompt, chosen, rejected], ...]}, the pairs to learn from and what left them
    unexplained; those of the test split, or without that majority, are left out all the same.
    Raises Invalid, Conflict.
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
        "asked": str(judge) if judge else "",
        "rubric": name,
        "raters": raters,
        "pairs": pairs,
        "budget": asdict(budget),
        "only": _checked_only(project, only),
        "queue": "llm" if judge else "default",
    }
    title = f"Induce “{name}” by {GENERATORS[method].label}"
    with transaction.atomic():
        _require_idle(project, name)
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


def _checked_only(project: Project, only: dict[str, Any] | None) -> dict[str, Any] | None:
    if only is None:
        return None
    rows = only["rows"]
    if not 0 < len(rows) <= MOST_ONLY:
        raise Invalid(f"Name 1 to {MOST_ONLY:,} pairs to learn from.")
    if not all(len(row) == 3 and all(type(pk) is int for pk in row) for row in rows):
        raise Invalid("A pair is the ids of its prompt, its chosen and its rejected response.")
    if not RubricVersion.objects.filter(pk=only["version"], rubric__project=project).exists():
        raise Invalid("There is no such version of a rubric in this project.")
    return {"version": only["version"], "rows": [list(row) for row in rows]}


def _check_judge(project: Project, judge: Judge) -> None:
    if judge.project_id != project.pk or judge.kind not in ASKING or not judge.endpoint_id:
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


def _require_idle(project: Project, name: str) -> None:
    """Two runs of one name would replace each other's draft. Locks the project's row."""
    Project.objects.select_for_update(no_key=True).only("pk").get(pk=project.pk)
    rows = Run.objects.filter(project=project, kind=Run.Kind.RUBRIC, state__in=ACTIVE)
    other = rows.filter(config__rubric=name).first()
    if other is not None:
        raise Conflict(
            f"Run {other.pk} is inducing “{name}” already.",
            advice="Wait for it, cancel it, or give the new rubric another name.",
        )


def perform(work: runs.Work) -> dict[str, Any]:
    """Read, generate, write, measure. Safe to be killed at any point and run again."""
    known = {stage["key"] for stage in work.run.stages}
    work.run.stages += [_row(key, label) for key, label in STAGES if key not in known]
    return _Induction(work).done()


def _row(key: str, label: str) -> dict[str, Any]:
    return {"key": key, "label": label, "state": "", "seconds": None}


class _Induction:
    """One attempt at a run."""

    def __init__(self, work: runs.Work) -> None:
        self._work, self._config = work, work.run.config
        self._project = work.run.project
        self._options = _read_options(self._config["method"], self._config["options"])
        self._judge = asking.find_judge(self._project, self._config["judge"])
        if self._judge is not None and not self._model():
            model = asking.model_of(self._judge)
            self._options = self._options.model_copy(update={"model": model})
        budget = Budget(**self._config["budget"])
        self._desk = asking.Desk(work, judge=self._judge, budget=budget)

    def _model(self) -> str:
        return str(getattr(self._options, "model", ""))

    def done(self) -> dict[str, Any]:
        version = RubricVersion.objects.filter(run=self._work.run).first()
        if version is None:
            version = self._write(*self._generate())
        else:  # by an earlier attempt, and perhaps somebody has decided on it since
            self._work.log(f"{version} is written: only the measuring goes on")
        self._work.stage(*MEASURE)
        measured = rubric_measure.measure(
            self._desk,
            version,
            sizes=rubric_measure.Sizes(),
            raters=self._config["raters"],
            on_stage=lambda key, label: self._work.say(label),
        )
        return self._result(version, measured.figures)

    def _generate(self) -> tuple[Generated, dict[int, rubrics.Pair]]:
        self._work.stage(*READ)
        most = self._config["pairs"] or (PAIRS if self._judge is not None else None)
        sides, learned = self._pairs(LEARNED, most=most)
        self._work.log(f"{len(learned):,} pairs to learn from")
        if not learned:
            raise Invalid(
                "No pair outside the test split has a majority.",
                advice="Judge or import pairs first.",
            )
        generator: Generator = find(GENERATORS, self._config["method"]).load()(self._options)

        async def generate(call: Call | None, journal: asking.Journal) -> Generated:
            return await generator.generate(learned, call=call, journal=journal)

        try:
            generated = self._desk.drive(generate, on_stage=self._enter)
        except ValueError as error:
            raise MethodFailed(
                f"The method cannot learn from these pairs: {error}.",
                advice="Judge or import more pairs, or choose another method.",
            ) from error
        self._require_answers(generated)
        return generated, sides

    def _require_answers(self, generated: Generated) -> None:
        """A method that was never answered has found nothing: an empty draft would hide that."""
        used = self._work.run.counters
        failed = sum(used.get("errors", {}).values())
        answered = used.get("calls", 0) + used.get("cached", 0)
        if failed and not answered and not generated.criteria:
            raise MethodFailed(
                f"None of {failed:,} question{'s' if failed > 1 else ''} was answered.",
                advice="The log has the first failure of each kind. Mend what it names, "
                "then resume the run.",
            )

    def _enter(self, key: str, label: str) -> None:
        """A stage of the generator's own, a row before that of the writing."""
        key, rows = f"{self._config['method']}:{key}", self._work.run.stages
        keys = [row["key"] for row in rows]
        if key not in keys:
            rows.insert(keys.index(WRITE[0]), _row(key, label))
        self._work.stage(key, label)

    def _pairs(
        self, splits: tuple[str, ...], *, most: int | None
    ) -> tuple[dict[int, rubrics.Pair], list[PreferencePair]]:
        selection = Selection(self._config["raters"], splits=splits)
        only = self._config.get("only")
        seed = str(getattr(self._options, "seed", 0))
        wanted = None if only is None else {tuple(row) for row in only["rows"]}
        sides = queries.chosen(self._project, selection, most=most, seed=seed, only=wanted)
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

    def _write(self, generated: Generated, sides: dict[int, rubrics.Pair]) -> RubricVersion:
        """The draft, durable before anything more is asked."""
        self._work.stage(*WRITE)
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
            version.verifier = self._judge
            notes = [note.replace("\0", "") for note in generated.notes]
            version.figures |= {"stopped": generated.stopped, "notes": notes}
            version.save(update_fields=["figures", "verifier"])
        for note in notes:
            self._work.log(note)
        return version

    def _result(self, version: RubricVersion, measured: dict[str, Any]) -> dict[str, Any]:
        used = self._work.run.counters
        return {
            "run": self._work.run.pk,
            "rubric": version.rubric.name,
            "version": version.number,
            "criteria": [
                {
                    "text": one.text,
                    "weight": one.weight,
                    "coverage": _value(measured["criteria"][str(one.pk)]["coverage"]),
                    "precision": _value(measured["criteria"][str(one.pk)]["precision"]),
                }
                for one in rubrics.in_force(version)
                if str(one.pk) in measured["criteria"]
            ],
            "held_out": rubric_measure.held_out(measured),
            "dropped": version.figures.get("dropped", {}),
            "stopped": version.figures.get("stopped", ""),
            "notes": version.figures.get("notes", []),
            "calls": used.get("calls", 0),
            "tokens": used.get("tokens_in", 0) + used.get("tokens_out", 0),
        }


def _value(estimate: dict[str, Any] | None) -> float | None:
    return None if estimate is None else float(estimate["value"])


def raters_offered() -> list[tuple[str, str]]:
    """(key, words) of whose votes can be learned from."""
    return [
        ("all", "Everybody whose votes count"),
        ("people", "People"),
        ("imported", "Imported raters"),
        ("judges", "Judges, accepted or not"),
    ]
