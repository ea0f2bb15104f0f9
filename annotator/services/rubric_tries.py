"""Trying a version of a rubric on one response or one pair, pasted or stored. Nothing is kept of it
but the run.

Where programs and what is known already answer every criterion, the answer comes at once. Where a
language model checks some, a run asks it: within a budget, through the same ledger as every run, so
that the same question is not paid for twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from annotator.errors import Conflict, Invalid, MethodFailed, NotFound
from annotator.models import Criterion, Judge, Project, RubricVersion, Run, User
from annotator.queries import rubric_tries as queries
from annotator.queries.judging import Unsendable, pictures
from annotator.queries.rubric_tries import Standing, Stored, Voices
from annotator.services import asking, rubrics, runs
from rubrics import applying
from rubrics.applying import SAYS_YES, Applied, Finding, Rule
from rubrics.judging import ASKING
from rubrics.judging.prompts import clean
from rubrics.judging.types import Candidate
from rubrics.llm.budget import Budget
from rubrics.llm.retry import Patience
from rubrics.llm.types import FAILURES, Call
from rubrics.verifying import VerifyOptions

MAX_PROMPT: Final = 20_000  # characters that may be pasted
MAX_ANSWER: Final = 50_000
MOST_ANSWERS: Final = len(applying.NAMES)
MOST_AT_ONCE: Final = 8  # tries of a project that may wait for a model
PATIENCE: Final = Patience(attempts=3, timeouts=1, longest=5.0)  # somebody looks on
REPAIRS: Final = 1  # of a reply that cannot be read
STAGES: Final = (("read", "Read"), ("ask", "Ask"))


@dataclass(frozen=True)
class Subject:
    """What is tried: pasted texts, or responses of the project by id. One or two answers."""

    prompt: str = ""
    answers: tuple[str, ...] = ()
    response_ids: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Subject:
        return cls(str(values["prompt"]), tuple(values["answers"]), tuple(values["response_ids"]))


def paste(*, prompt: str, answers: Sequence[str]) -> Subject:
    """Texts that somebody typed or sent, checked. Raises Invalid."""
    prompt = clean(prompt).strip()
    texts = [clean(one) for one in answers]
    if len(texts) == MOST_ANSWERS and not texts[1].strip():
        texts.pop()
    if not prompt:
        raise Invalid("Say what was asked: a criterion is checked against the prompt.")
    if not 1 <= len(texts) <= MOST_ANSWERS or not all(one.strip() for one in texts):
        raise Invalid("Give one answer, or two to compare.")
    if len(prompt) > MAX_PROMPT or any(len(one) > MAX_ANSWER for one in texts):
        raise Invalid(f"A prompt has {MAX_PROMPT:,} characters at most, an answer {MAX_ANSWER:,}.")
    return Subject(prompt, tuple(texts))


def pick(*, project: Project, response_ids: Sequence[int]) -> Subject:
    """Stored responses to one prompt. Raises Invalid, NotFound."""
    ids = tuple(response_ids)
    if not 1 <= len(ids) <= MOST_ANSWERS or len(set(ids)) < len(ids):
        raise Invalid("Choose one answer, or two to compare.")
    if queries.stored(project, ids) is None:
        raise NotFound("There are no such answers to one prompt in this project.")
    return Subject(response_ids=ids)


def begin(
    *, version: RubricVersion, subject: Subject, judge: Judge | None = None, by: User | None
) -> dict[str, Any] | Run:
    """The result where nobody has to be asked, else a queued run; the caller enqueues its job.

    ``judge`` names the endpoint and model to ask, the version's own verifier if not given. Raises
    Invalid, Conflict, NotFound.
    """
    trial = _Trial(version, subject)
    judge = judge or verifier_of(version)
    asked = applying.to_ask(trial.rules)
    if not asked or judge is None:
        return trial.result(trial.here(), notes=_unasked(asked))
    _check(version, judge)
    project = version.rubric.project
    if queries.under_way(project) >= MOST_AT_ONCE:
        raise Conflict(
            f"{MOST_AT_ONCE} tries of this project wait for a model already.",
            advice="Try again when one of them is done.",
        )
    calls = len(asked) * len(trial.candidates) * (1 + REPAIRS)
    config = {
        "version": version.pk,
        "rubric": str(version),
        "subject": asdict(subject),
        "judge": judge.pk,
        "asked": str(judge),
        "budget": asdict(Budget(calls=calls)),
        "queue": "llm",
    }
    title = f"Try {version}"
    return runs.start(project=project, kind=Run.Kind.TRY, title=title, config=config, by=by)


def verifier_of(version: RubricVersion) -> Judge | None:
    """Who checks its criteria: the judge it names, else the one that its generator asked."""
    if version.verifier_id is not None:
        return version.verifier
    asked = (version.run.config if version.run else {}).get("judge")
    rows = Judge.objects.filter(project_id=version.rubric.project_id, kind__in=ASKING)
    return rows.select_related("endpoint").filter(pk=asked).first() if asked else None


def _check(version: RubricVersion, judge: Judge) -> None:
    """Only its endpoint and model are used: what else a judge is shown may have changed since."""
    if judge.project_id != version.rubric.project_id or judge.kind not in ASKING:
        raise Invalid("Choose a judge of this project that asks a model.")
    if judge.archived_at is not None:
        raise Conflict(f"{judge} is archived.", advice="Choose another one to ask.")
    if judge.endpoint is None or judge.endpoint.archived_at is not None:
        raise Conflict(f"The endpoint of {judge} is archived.")


def _unasked(asked: Sequence[Rule]) -> list[str]:
    if not asked:
        return []
    count = f"{len(asked):,} criteri{'on' if len(asked) == 1 else 'a'}"
    return [f"A language model checks {count}, and this version names none: choose whom to ask."]


# The run ------------------------------------------------------------------------------------------


def perform(work: runs.Work) -> dict[str, Any]:
    """Ask what there is to ask. Safe to be killed and run again: the ledger has what was answered."""
    work.stage(*STAGES[0])
    config = work.run.config
    rows = RubricVersion.objects.select_related("rubric__project", "verifier", "run")
    version = rows.filter(pk=config["version"], rubric__project=work.run.project).first()
    judges = Judge.objects.select_related("endpoint", "project")
    judge = judges.filter(pk=config["judge"], project=work.run.project).first()
    if version is None or judge is None:
        raise NotFound("The version or the judge it was to be tried with is not there any more.")
    _check(version, judge)
    trial = _Trial(version, Subject.from_json(config["subject"]))
    work.stage(*STAGES[1])
    applied = _ask(work, trial, judge)
    return trial.result(
        applied,
        notes=_failed(applied, judge),
        asked={
            "judge": str(judge), "model": asking.model_of(judge),
            "is_simulated": judge.is_simulated,
            **{name: work.run.counters.get(name, 0) for name in ("calls", "cached")},
        },
    )  # fmt: skip


def _ask(work: runs.Work, trial: _Trial, judge: Judge) -> Applied:
    """Raises MethodFailed where nothing at all came back."""
    options = VerifyOptions(
        model=asking.model_of(judge),
        concise=rubrics.is_concise(trial.version),
        reasons=True,
        repairs=REPAIRS,
    )
    total = len(applying.to_ask(trial.rules)) * len(trial.candidates)

    async def make(call: Call | None, journal: asking.Journal) -> Applied:
        assert call is not None, "a run of this kind has a judge"
        return await applying.apply(
            trial.rules, trial.messages, trial.candidates, call=call, options=options,
            known=trial.known, tick=lambda done: journal.progress(done, total, "questions"),
        )  # fmt: skip

    budget = Budget(**work.run.config["budget"])
    desk = asking.Desk(work, judge=judge, budget=budget, patience=PATIENCE)
    applied = desk.drive(make, on_stage=work.stage)
    said = [one for row in applied.rows for one in row.findings]
    if sum(applied.failures.values()) == total and not any(one.said for one in said):
        raise MethodFailed(
            f"The endpoint {judge.endpoint} gives no answers: {_reasons(applied)}.",
            advice="Check the endpoint on the page of judges, then try again.",
        )
    return applied


def _reasons(applied: Applied) -> str:
    return ", ".join(FAILURES[kind] for kind in applied.failures)


def _failed(applied: Applied, judge: Judge) -> list[str]:
    missing = sum(applied.failures.values())
    if not missing:
        return []
    questions = f"{missing:,} question{'' if missing == 1 else 's'}"
    return [f"The endpoint {judge.endpoint} did not answer {questions}: {_reasons(applied)}."]


# One try ------------------------------------------------------------------------------------------


class _Trial:
    """A version and what it is tried on, read from the tables once."""

    def __init__(self, version: RubricVersion, subject: Subject) -> None:
        self.version, self._project = version, version.rubric.project
        self._criteria = rubrics.in_force(version)
        if not self._criteria:
            raise Conflict(f"{version} has no criterion to try.")
        self._stored: Stored | None = None
        if subject.response_ids:
            self._stored = queries.stored(self._project, subject.response_ids)
            if self._stored is None:
                raise NotFound("An answer that was to be tried is not there any more.")
        self.messages, self.candidates = _shown(subject, self._stored)
        self.rules = [_rule(one, self._stored) for one in self._criteria]
        self.known = self._known(self._stored) if self._stored is not None else {}

    def here(self) -> Applied:
        return applying.apply_here(self.rules, self.messages, self.candidates, known=self.known)

    def result(
        self, applied: Applied, *, notes: Sequence[str], asked: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """As the API gives it and a run keeps it: JSON."""
        pair = self._stored if self._stored and len(self._stored.responses) > 1 else None
        return {
            "rubric": self.version.rubric.name,
            "rubric_id": self.version.rubric_id,
            "version": self.version.number,
            **applied.as_json(),
            "people": queries.votes(self._project, pair) if pair else None,
            "asked": asked,
            "notes": list(notes),
        }

    def _known(self, stored: Stored) -> dict[tuple[int, int], Finding]:
        """What people said of stored responses, and where reward models put them."""
        found: dict[tuple[int, int], Finding] = {}
        by_person = [one for one in self._criteria if one.verifier == Criterion.Verifier.PERSON]
        said = queries.people(by_person, stored.responses) if by_person else {}
        for criterion in self._criteria:
            for place, response in enumerate(stored.responses):
                if voices := said.get((criterion.pk, response.pk)):
                    found[criterion.pk, place] = _of_people(voices)
                elif criterion.verifier == Criterion.Verifier.REWARD_MODEL:
                    at = queries.standing(self._project, criterion.program, response)
                    if at is not None:
                        found[criterion.pk, place] = _of_reward_model(at)
        return found


def _shown(
    subject: Subject, stored: Stored | None
) -> tuple[list[dict[str, str]], tuple[Candidate, ...]]:
    """The prompt and the answers as whoever checks is shown them. Raises Invalid."""
    if stored is None:
        messages = [{"role": "user", "content": subject.prompt}]
        return messages, tuple(map(Candidate, subject.answers))
    show = pictures({one.image_id for one in stored.responses} - {None})
    try:
        candidates = tuple(
            Candidate(_text(one.text, one.messages), show(one.image_id)) for one in stored.responses
        )
    except Unsendable as error:
        raise Invalid(f"This pair cannot be tried: {error}.") from None
    return stored.prompt.messages, candidates


def _text(text: str, messages: list[dict[str, str]] | None) -> str:
    """A reply of several messages as one text, as queries.judging.whole has it."""
    if not messages:
        return text
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in messages)


def _rule(criterion: Criterion, stored: Stored | None) -> Rule:
    weight = criterion.weight
    return Rule(
        id=criterion.pk,
        text=criterion.text,
        worth=float(criterion.polarity if weight is None else weight),
        verifier=criterion.verifier,
        program=criterion.program,
        outside=_outside(criterion, stored),
    )


def _outside(criterion: Criterion, stored: Stored | None) -> str:
    """Why a narrower criterion does not concern this prompt; empty where it does."""
    if criterion.scope == Criterion.Scope.GROUP:
        tags = set(map(str, stored.prompt.tags)) if stored else set()
        return (
            "" if criterion.group in tags else f"it is for prompts of the tag “{criterion.group}”"
        )
    if criterion.scope == Criterion.Scope.PROMPT:
        own = str(stored.prompt.pk) if stored else ""
        return "" if criterion.group == own else f"it is for prompt {criterion.group} alone"
    return ""


def _of_people(voices: Voices) -> Finding:
    score = (voices.yes + voices.not_applicable / 2) / voices.total
    words = f"people said yes {voices.yes:,} of {voices.total:,}"
    if voices.not_applicable:
        words += f", does not apply {voices.not_applicable:,}"
    if voices.not_applicable > max(voices.yes, voices.no):
        return Finding("n/a", score, reason=words, by="people")
    return Finding("yes" if score >= SAYS_YES else "no", score, reason=words, by="people")


def _of_reward_model(at: Standing) -> Finding:
    share = at.below / at.of
    words = f"scored higher than {at.below:,} of {at.of:,} answers"
    return Finding("yes" if share >= SAYS_YES else "no", share, reason=words, by=at.name)
