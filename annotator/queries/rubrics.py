"""Rubrics as pages show them: the list, a version with its criteria, the evidence of one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db.models import Count, Q

from annotator.models import (
    Criterion,
    CriterionEvidence,
    Judgment,
    Preference,
    Project,
    Prompt,
    Rater,
    Response,
    Rubric,
    RubricMeasurement,
    RubricVersion,
    Run,
    Task,
)
from annotator.queries.criteria import IN_FORCE, asked, digest
from annotator.queries.pages import Page, page_by_id
from annotator.queries.runs import ACTIVE
from rubrics.sheet import Sheet

PAGE: Final = 30
NAMED: Final = re.compile(r"(.+?)\s*[:@\s]\s*v([0-9]{1,9})", re.DOTALL)
VERSIONS: Final = 50
QUOTES: Final = 3
QUOTES_FOR: Final = 2  # of those, at most so many speak for it where some speak against
OF_RUBRICS: Final = (Run.Kind.RUBRIC, Run.Kind.MEASURE)
OPEN: Final = Criterion.Decision.PROPOSED
EXCERPT: Final = 600
READ: Final = 200  # rows of evidence that a page looks through for its few


@dataclass(frozen=True)
class Row:
    """One rubric in the list. ``held_out`` and ``ceiling`` are estimates of ``shown``;
    ``is_changed``: its criteria were others when that was measured."""

    rubric: Rubric
    in_use: RubricVersion | None
    draft: RubricVersion | None
    to_decide: int
    criteria: int
    held_out: dict[str, Any] | None
    ceiling: dict[str, Any] | None
    is_changed: bool = False

    @property
    def shown(self) -> RubricVersion | None:
        """The version that its figures are of, and that its name leads to."""
        return self.draft or self.in_use


def listing(
    project: Project, *, after: int | None = None, archived: bool = False, size: int = PAGE
) -> Page[Row]:
    """Rubrics, the newest first."""
    rows = Rubric.objects.filter(project=project, archived_at__isnull=not archived)
    page = page_by_id(rows.order_by("-pk"), after=after, size=size, build=lambda one: one)
    ids = [one.pk for one in page.rows]
    found = RubricVersion.objects.filter(rubric__in=ids).order_by("rubric_id", "state", "-number")
    newest = {(one.rubric_id, one.state): one for one in found.distinct("rubric_id", "state")}
    counts = _counts([one.pk for one in newest.values()])
    figures = _figures(list(newest.values()))
    return Page([_row(one, newest, counts, figures) for one in page.rows], page.next, page.is_first)


def _row(
    rubric: Rubric,
    newest: dict[tuple[int, str], RubricVersion],
    counts: dict[int, tuple[int, int]],
    figures: dict[int, _Told],
) -> Row:
    draft = newest.get((rubric.pk, RubricVersion.State.DRAFT))
    in_use = newest.get((rubric.pk, RubricVersion.State.APPROVED))
    shown = draft or in_use
    found = (figures.get(shown.pk) if shown else None) or _Told()
    return Row(
        rubric=rubric,
        in_use=in_use,
        draft=draft,
        to_decide=counts.get(draft.pk, (0, 0))[0] if draft else 0,
        criteria=counts.get(shown.pk, (0, 0))[1] if shown else 0,
        held_out=found.held_out.get("rubric"),
        ceiling=found.held_out.get("human_ceiling"),
        is_changed=found.is_changed,
    )


def _counts(versions: list[int]) -> dict[int, tuple[int, int]]:
    """Criteria of each version: not decided on, and in force."""
    rows = Criterion.objects.filter(version__in=versions).values("version_id").order_by()
    rows = rows.annotate(
        waiting=Count("pk", filter=Q(decision=OPEN)),
        kept=Count("pk", filter=Q(decision__in=(OPEN, Criterion.Decision.ACCEPTED))),
    )
    return {pk: (waiting, kept) for pk, waiting, kept in rows.values_list(
        "version_id", "waiting", "kept"
    )}  # fmt: skip


@dataclass(frozen=True)
class _Told:
    """What the newest measurement of a version found on held-out pairs."""

    held_out: dict[str, Any] = field(default_factory=dict)
    is_changed: bool = False


def _figures(versions: list[RubricVersion]) -> dict[int, _Told]:
    rows = RubricMeasurement.objects.filter(version__in=versions)
    newest = rows.order_by("version_id", "-id").distinct("version_id")
    now = digests(versions)
    return {
        pk: _Told(held_out or {}, is_changed=then is not None and then != now[pk])
        for pk, held_out, then in newest.values_list(
            "version_id", "figures__held_out", "figures__digest"
        )
    }


def digests(versions: Sequence[RubricVersion]) -> dict[int, str]:
    """By version what its criteria in force are now; an approved one has it noted."""
    found = {one.pk: one.digest for one in versions}
    drafts: dict[int, list[Criterion]] = {one.pk: [] for one in versions if one.is_draft}
    rows = Criterion.objects.filter(version__in=drafts, decision__in=IN_FORCE)
    for one in rows.order_by("version_id", "position"):
        drafts[one.version_id].append(one)
    return found | {pk: digest(criteria) for pk, criteria in drafts.items()}


def is_current(version: RubricVersion, measured: RubricMeasurement) -> bool:
    """Whether a measurement is of the criteria as they are now, with their weights."""
    then = measured.figures.get("digest")
    return then is None or then == digests([version])[version.pk]


def find_rubric(project: Project, rubric_id: int) -> Rubric | None:
    return Rubric.objects.filter(project=project, pk=rubric_id).first()


def find(project: Project, rubric_id: int, number: int) -> RubricVersion | None:
    """A version with its rubric, its verifier and its parent; None for one of another project."""
    rows = RubricVersion.objects.select_related(
        "rubric", "verifier", "verifier__endpoint", "parent", "run", "approved_by"
    )
    return rows.filter(rubric__project=project, rubric_id=rubric_id, number=number).first()


def named(project: Project, text: str, *, only_approved: bool = False) -> RubricVersion | None:
    """The version that ``NAME``, or ``NAME:v3`` (also ``NAME@v3``, ``NAME v3``), means.

    Without a number it is the newest, or with ``only_approved`` the newest in use. A rubric whose
    very name reads like a number of another is taken first.
    """
    rows = RubricVersion.objects.filter(rubric__project=project).select_related(
        "rubric", "verifier", "approved_by"
    )
    numbered = NAMED.fullmatch(text)
    if numbered and not Rubric.objects.filter(project=project, name=text).exists():
        return rows.filter(rubric__name=numbered[1], number=int(numbered[2])).first()
    rows = rows.filter(rubric__name=text)
    if only_approved:
        rows = rows.filter(state=RubricVersion.State.APPROVED)
    return rows.order_by("-number").first()


def versions(rubric: Rubric) -> list[RubricVersion]:
    """The newest versions of a rubric, newest first."""
    rows = rubric.versions.select_related("approved_by", "created_by", "parent")
    return list(rows.order_by("-number")[:VERSIONS])


def criteria(version: RubricVersion) -> list[Criterion]:
    """All of a version, in their order; those merged into another know which."""
    return list(version.criteria.select_related("merged_into").order_by("position"))


def measurement(version: RubricVersion) -> RubricMeasurement | None:
    """What was measured last, without the sheet it rests on."""
    return version.measurements.defer("sheet").order_by("-id").first()


def sheet(measured: RubricMeasurement) -> Sheet:
    """The scores that a measurement rests on."""
    return Sheet.from_bytes(bytes(measured.sheet))


def sheet_now(measured: RubricMeasurement, criteria: Iterable[Criterion]) -> Sheet:
    """The same of those of ``criteria`` that still ask what they asked when it was measured."""
    return sheet(measured).of_criteria(_as_asked(measured, criteria))


def figures_now(
    measured: RubricMeasurement | None, criteria: Iterable[Criterion]
) -> dict[str, Any]:
    """What was measured, without what was said of criteria that ask something else now."""
    if measured is None:
        return {}
    kept, told = _as_asked(measured, criteria), measured.figures.get("criteria", {})
    return measured.figures | {
        "criteria": {pk: figures for pk, figures in told.items() if int(pk) in kept}
    }


def _as_asked(measured: RubricMeasurement, criteria: Iterable[Criterion]) -> set[int]:
    then = measured.figures.get("asked")
    return {one.pk for one in criteria if then is None or then.get(str(one.pk)) == asked(one)}


def active_runs(version: RubricVersion) -> list[Run]:
    """Runs that work on a version now: its measurement, or the next draft of its rubric."""
    rows = Run.objects.filter(
        project_id=version.rubric.project_id, kind__in=OF_RUBRICS, state__in=ACTIVE
    )
    mine = Q(config__version=version.pk) | Q(config__rubric=version.rubric.name)
    return list(rows.filter(mine).order_by("pk")[:5])


# Evidence -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quote:
    """Words of somebody who judged a pair; ``who`` is empty for a model that read it."""

    text: str
    who: str
    supports: bool
    task_id: int | None


@dataclass(frozen=True)
class Example:
    """A pair with the start of its texts; images are shown by their id."""

    prompt_id: int
    chosen_id: int
    rejected_id: int
    prompt: str
    chosen: Response
    rejected: Response
    task_id: int | None
    mark: str = ""


@dataclass(frozen=True)
class Evidence:
    """What speaks for a criterion and against it: counts of all, some words, one pair.

    ``quotes`` are people's, ``traces`` what the model gave as its reason.
    """

    supports: int
    contradicts: int
    quotes: list[Quote]
    traces: list[Quote]
    example: Example | None
    counter: Example | None


def evidence(project: Project, criterion: Criterion, measured: Sheet | None) -> Evidence:
    """What a generator noted, and pairs of the measurement where it noted none."""
    rows = CriterionEvidence.objects.filter(criterion=criterion)
    counts = rows.aggregate(
        pro=Count("pk", filter=Q(supports=True)), con=Count("pk", filter=Q(supports=False))
    )
    told = rows.select_related("rater", "rater__user").order_by("-supports", "pk")
    rows = list(told[:READ])
    said = list(told.exclude(quote="").exclude(judgment_id=None)[:READ])
    return Evidence(
        supports=counts["pro"],
        contradicts=counts["con"],
        quotes=_picked(_quotes(said)) if said else _picked(_rationales(project, rows)),
        traces=_picked(_traces(rows)),
        example=_example(project, criterion, told.filter(supports=True).first(), measured, 1),
        counter=_example(project, criterion, told.filter(supports=False).first(), measured, -1),
    )


def _picked(quotes: list[Quote]) -> list[Quote]:
    """A few in different words, of both sides where there are both."""
    different = list({one.text: one for one in reversed(quotes)}.values())[::-1]
    pro = [one for one in different if one.supports]
    con = [one for one in different if not one.supports]
    kept = pro[: QUOTES_FOR if con else QUOTES]
    return kept + con[: QUOTES - len(kept)]


def _quotes(rows: list[CriterionEvidence]) -> list[Quote]:
    tasks = dict(
        Judgment.objects.filter(pk__in={one.judgment_id for one in rows}).values_list(
            "pk", "task_id"
        )
    )
    return [
        Quote(
            one.quote,
            str(one.rater) if one.rater else "somebody",
            one.supports,
            tasks.get(one.judgment_id or 0),
        )
        for one in rows
    ]


def _traces(rows: list[CriterionEvidence]) -> list[Quote]:
    told = [one for one in rows if one.quote and one.judgment_id is None]
    return [Quote(one.quote, "", one.supports, None) for one in told]


def _rationales(project: Project, rows: list[CriterionEvidence]) -> list[Quote]:
    """Why people voted as they did on the pairs of a criterion that nobody is quoted for."""
    wanted = {(one.chosen_id, one.rejected_id): one.supports for one in rows}
    votes = (
        Preference.objects.filter(
            project=project, prompt_id__in={one.prompt_id for one in rows}, is_gold=False
        )
        .exclude(rater__kind=Rater.Kind.JUDGE)
        .exclude(rater__is_excluded=True)
        .exclude(judgment__rationale="")
        .exclude(outcome=0)
        .select_related("judgment", "rater", "rater__user")
        .order_by("pk")[:READ]
    )
    found = []
    for vote in votes:
        won, lost = (vote.a_id, vote.b_id) if vote.outcome == 1 else (vote.b_id, vote.a_id)
        towards = wanted.get((won, lost))
        away = wanted.get((lost, won))
        if towards is None and away is None:
            continue
        supports = towards if towards is not None else not away
        words, task = vote.judgment.rationale, vote.judgment.task_id
        found.append(Quote(words, str(vote.rater), supports, task))
    return found


def _example(
    project: Project,
    criterion: Criterion,
    noted: CriterionEvidence | None,
    measured: Sheet | None,
    sign: int,
) -> Example | None:
    """The pair that was noted, or the learned one that most clearly goes with the vote (1, -1)."""
    if noted is not None:
        mark = noted.quote
        return pair(project, noted.prompt_id, noted.chosen_id, noted.rejected_id, mark=mark)
    if measured is None or criterion.pk not in measured.criteria:
        return None
    learned = measured.learned()  # who decides by a pair of the test split makes it no test
    column = learned.differences[:, learned.places([criterion.pk])[0]]
    towards = sign * column * (criterion.polarity if criterion.weight is None else criterion.weight)
    at = int(towards.argmax()) if len(towards) else -1
    if at < 0 or towards[at] <= 0:
        return None
    ids = (int(one[at]) for one in (learned.prompts, learned.chosen, learned.rejected))
    return pair(project, *ids)


def pair(
    project: Project, prompt_id: int, chosen_id: int, rejected_id: int, *, mark: str = ""
) -> Example | None:
    """A pair of the project with its texts; None where one of them is gone."""
    prompt = Prompt.objects.filter(project=project, pk=prompt_id).first()
    rows = Response.objects.select_related("image").filter(prompt_id=prompt_id)
    sides = rows.in_bulk([chosen_id, rejected_id])
    if prompt is None or len(sides) < 2:
        return None
    return Example(
        prompt_id=prompt_id,
        chosen_id=chosen_id,
        rejected_id=rejected_id,
        prompt=prompt.last_message[:EXCERPT],
        chosen=sides[chosen_id],
        rejected=sides[rejected_id],
        task_id=tasks_of([(prompt_id, chosen_id, rejected_id)]).get((chosen_id, rejected_id)),
        mark=mark,
    )


def tasks_of(pairs: list[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    """(chosen, rejected) -> a task that asks about both, the smallest; where there is one."""
    by_prompt: dict[int, list[Task]] = defaultdict(list)
    rows = Task.objects.filter(prompt_id__in={prompt for prompt, _, _ in pairs})
    for task in rows.only("pk", "prompt_id", "response_ids"):
        by_prompt[task.prompt_id].append(task)
    found = {}
    for prompt, chosen, rejected in pairs:
        both = [
            (len(task.response_ids), task.pk)
            for task in by_prompt[prompt]
            if {chosen, rejected} <= set(task.response_ids)
        ]
        if both:
            found[chosen, rejected] = min(both)[1]
    return found
