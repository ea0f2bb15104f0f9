"""What reviewers see: the queue of tasks to look at, and everything about one task."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from django.db import connection
from django.utils import timezone

from annotator.charts_verdict import Axis, Mark, axis_of, mark_of, steepest
from annotator.kinds.base import LABELS, canonical_order, kind, review_options
from annotator.kinds.verdict import Verdict, as_verdict
from annotator.models import (
    Assignment,
    AssignmentState,
    Consensus,
    Judgment,
    ProjectSettings,
    Rater,
    Response,
    ReviewItem,
    Task,
    User,
)
from annotator.queries import rubric_lists
from annotator.queries.annotation import Answer, Desk, Turn, answer_of, pictures_of, turns_of
from annotator.queries.task_history import Remark, remarks, say
from annotator.rendering import render_messages
from models.aggregators import AGGREGATORS

# A key of ReviewItem.reason -> what a page calls it, the most pressing first.
REASONS: Final = {
    "flagged": "Flagged",
    "failed-gold": "Failed gold",
    "disagreement": "Disagreement",
    "low-posterior": "Doubtful",
}
COUNTED: Final = 999  # a tab says "999+" beyond
VERDICTS: Final = 200  # of one task shown; a gold has one of everybody


# The queue ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """One item of the queue and its neighbors. ``number`` counts from 1, both capped."""

    item: ReviewItem
    number: int
    total: int
    before: int | None
    after: int | None

    @property
    def label(self) -> str:
        return REASONS.get(self.item.reason, self.item.reason)


# A task stands in the queue once, where its most severe reason puts it.
QUEUE: Final = """
    FROM annotator_reviewitem i
    WHERE i.project_id = %(project)s AND i.closed_at IS NULL
      AND (%(reason)s = '' OR i.reason = %(reason)s)
      AND (%(reason)s <> '' OR NOT EXISTS (
        SELECT FROM annotator_reviewitem worse
        WHERE worse.task_id = i.task_id AND worse.closed_at IS NULL
          AND (worse.severity > i.severity OR worse.severity = i.severity AND worse.id < i.id)))
"""
AT: Final = "(i.severity * -1, i.id) {} ((%(severity)s)::double precision * -1, %(item)s::bigint)"


def open_counts(project_id: int) -> dict[str, int]:
    """Open items by reason, in the order of REASONS."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reason, count(*) FROM annotator_reviewitem"
            " WHERE project_id = %s AND closed_at IS NULL GROUP BY 1",
            [project_id],
        )
        found = dict(cursor.fetchall())
    return {reason: found[reason] for reason in REASONS if found.get(reason)}


def first_item(project_id: int, *, reason: str) -> int | None:
    """The item to look at first; None where there is nothing to review."""
    return _one(f"SELECT i.id {QUEUE} ORDER BY i.severity DESC, i.id LIMIT 1",
                {"project": project_id, "reason": reason})  # fmt: skip


def place_of(item: ReviewItem, *, reason: str) -> Place:
    """Where an item stands among the open ones; one that was closed still knows its neighbors."""
    values = {
        "project": item.project_id,
        "reason": reason,
        "severity": item.severity,
        "item": item.pk,
        "most": COUNTED + 1,
    }
    count = f"SELECT count(*) FROM (SELECT 1 {QUEUE} {{}} LIMIT %(most)s) few"
    up = f"SELECT i.id {QUEUE} AND {AT.format('<')} ORDER BY i.severity, i.id DESC LIMIT 1"
    down = f"SELECT i.id {QUEUE} AND {AT.format('>')} ORDER BY i.severity DESC, i.id LIMIT 1"
    earlier = _one(count.format(f"AND {AT.format('<')}"), values) or 0
    return Place(
        item=item,
        number=earlier + 1,
        total=_one(count.format(""), values) or 0,
        before=_one(up, values),
        after=_one(down, values),
    )


def _one(sql: str, values: dict[str, Any]) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        row = cursor.fetchone()
    return row[0] if row else None


# One task -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReviewedAnswer(Answer):
    """An answer with what made it: only reviewers' pages build these."""

    made_by: str = ""


@dataclass(frozen=True)
class Line:
    """Values of one attribute or criterion in one verdict, in the order of the answers."""

    name: str
    values: list[tuple[str, str]]  # (label, value)
    differs: bool


@dataclass(frozen=True)
class Said:
    """One rater's verdict as reviewers see it, the responses in canonical order."""

    judgment_id: int
    rater_id: int
    name: str
    rater_kind: str
    is_excluded: bool
    is_simulated: bool
    verdict: str
    both_bad: bool
    why: str
    reasons: list[str]
    seconds: float | None
    at: datetime
    revision: int
    is_counted: bool
    is_hit: bool | None
    can_go_back: bool
    mark: Mark | None = None
    lines: list[Line] = field(default_factory=list)
    reliability: tuple[float, float, float] | None = None  # value, low, high

    @property
    def style(self) -> int:
        return {"human": 1, "judge": 2}.get(self.rater_kind, 3)

    @property
    def back_value(self) -> str:
        """What the form sends to send it back."""
        return str(self.rater_id)

    @property
    def differing(self) -> list[Line]:
        return [line for line in self.lines if line.differs]


@dataclass(frozen=True)
class Case:
    """Everything about one task that a reviewer decides by."""

    task: Task
    desk: Desk
    axis: Axis | None
    verdicts: list[Said]
    more_verdicts: int
    decision: Judgment | None
    decision_said: str
    consensus: Consensus | None
    consensus_said: str
    consensus_by: str  # its aggregator, or a decision, in words
    items: list[ReviewItem]
    remarks: list[Remark]

    @property
    def line(self) -> str:
        """Who said something, in a sentence."""
        kinds = {"human": "person", "judge": "judge", "imported": "imported rater"}
        plural = {"person": "people", "judge": "judges", "imported rater": "imported raters"}
        parts = []
        for key, noun in kinds.items():
            count = sum(one.rater_kind == key for one in self.verdicts)
            if count:
                parts.append(f"{count} {noun if count == 1 else plural[noun]}")
        return ", ".join(parts) or "nobody yet"

    @property
    def waiting(self) -> list[tuple[int, str]]:
        """Open items as (id, what a page calls its reason)."""
        return [(item.pk, REASONS.get(item.reason, item.reason)) for item in self.items]

    @property
    def sendable(self) -> int:
        return sum(one.can_go_back for one in self.verdicts)

    def split_line(self) -> str:
        """How often each verdict was given: "2 A better, 2 B better"."""
        counts: dict[str, int] = {}
        for one in self.verdicts:
            counts[one.verdict] = counts.get(one.verdict, 0) + 1
        top = sorted(counts.items(), key=lambda item: -item[1])[:4]
        return ", ".join(f"{count} × {said}" for said, count in top)


def case(task: Task, *, options: ProjectSettings, viewer: User) -> Case:
    """The task as a reviewer sees it, the decision in force filled in."""
    options = rubric_lists.options_for(task, options)
    chosen = review_options(options)
    order = canonical_order(task)
    current, more = _current(task)
    decision = next((one for one in current if one.kind == Judgment.Kind.ADJUDICATION), None)
    votes = [one for one in current if one.kind != Judgment.Kind.ADJUDICATION]
    of_kind = kind(task.kind)
    desk = _desk(task)
    draft = {}
    if decision is not None:
        draft = of_kind.show(as_verdict(decision), options=chosen, shown_order=order)
    consensus = Consensus.objects.filter(task=task).first()
    return Case(
        task=task,
        desk=desk.with_answers(draft, chosen),
        axis=axis_of(votes, options) if task.kind == "pairwise" else None,
        verdicts=_said(task, votes, options=options),
        more_verdicts=more,
        decision=decision,
        decision_said=say(decision, task, options) if decision else "",
        consensus=consensus,
        consensus_said=_say_consensus(consensus, task, options) if consensus else "",
        consensus_by=_named(consensus.aggregator) if consensus else "",
        items=list(
            task.review_items.filter(closed_at__isnull=True).order_by("-severity", "pk")[:20]
        ),
        remarks=remarks(task, viewer=viewer),
    )


def _current(task: Task) -> tuple[list[Judgment], int]:
    rows = (
        Judgment.objects.filter(task=task, is_current=True).select_related("rater").order_by("pk")
    )
    found = list(rows[: VERDICTS + 1])
    more = max(0, rows.count() - VERDICTS) if len(found) > VERDICTS else 0
    found = found[:VERDICTS]
    decision = rows.filter(kind=Judgment.Kind.ADJUDICATION).first() if more else None
    if decision is not None and decision not in found:
        found.append(decision)
    rank = {Rater.Kind.HUMAN: 0, Rater.Kind.JUDGE: 1}
    found.sort(key=lambda one: (rank.get(one.rater.kind, 2), one.rater.name.lower(), one.pk))
    return found, more


def _desk(task: Task) -> Desk:
    prompt = task.prompt
    responses = Response.objects.in_bulk(task.response_ids)
    ordered = [responses[pk] for pk in task.response_ids]
    turns = [Turn(*one) for one in render_messages(prompt.messages)]
    pictures = pictures_of(
        [prompt.source_image_id, prompt.mask_image_id, *(one.image_id for one in ordered)]
    )
    answers: list[Answer] = []
    for slot, one in enumerate(ordered):
        plain = answer_of(
            LABELS[slot],
            one.text if one.messages is None else one.messages,
            pictures.get(one.image_id),
        )
        answers.append(ReviewedAnswer(**vars(plain), made_by=_made_by(one)))
    return Desk(
        assignment_id=0,
        task_id=task.pk,
        kind=task.kind,
        template=f"annotate/kinds/{kind(task.kind).template}",
        expires_at=timezone.now(),
        is_late=False,
        earlier=turns[:-1],
        last=turns[-1],
        answers=answers,
        source=pictures.get(prompt.source_image_id),
        mask=pictures.get(prompt.mask_image_id),
        turn=prompt.turn,
        turns=turns_of(project_id=prompt.project_id, thread=prompt.thread) if prompt.thread else 0,
    )


def _made_by(response: Response) -> str:
    parts = [response.generator] if response.generator else []
    parts += [f"{name} {value}" for name, value in sorted(response.sampling.items())[:4]]
    if response.leak:
        parts.append(f"names itself: {response.leak}")
    return ", ".join(part[:60] for part in parts)


def _named(aggregator: str) -> str:
    """An aggregator in words; what is none of the table is a reviewer's decision."""
    method = AGGREGATORS.get(aggregator)
    return method.label if method else "decision"


def _say_consensus(consensus: Consensus, task: Task, options: ProjectSettings) -> str:
    """The consensus in words; of a rating, its means and the order it puts the answers in."""
    if task.kind == "rating" and len(task.response_ids) == 1 and consensus.ratings:
        return _say_means(consensus.ratings)
    if task.kind in ("rating", "checklist", "ranking", "best-worst"):
        order = Verdict(ranks=consensus.ranks, strength=0)
        said = kind("ranking").say(order, options=options, shown_order=canonical_order(task))
        means = _say_means(consensus.ratings) if task.kind == "rating" and consensus.ratings else ""
        return f"{said}; {means}" if means else said
    strength = 1 if len({rank for rank in consensus.ranks if rank}) > 1 else 0
    return kind(task.kind).say(
        Verdict(ranks=consensus.ranks, strength=strength),
        options=options,
        shown_order=canonical_order(task),
    )


def _say_means(ratings: dict[str, list[float | None]]) -> str:
    """Means of each attribute: "helpfulness: A 3.2, B 2.5"."""
    return "; ".join(
        f"{name}: "
        + ", ".join(
            f"{label} {'–' if mean is None else f'{mean:.1f}'}"
            for label, mean in zip(LABELS, means, strict=False)
        )
        for name, means in sorted(ratings.items())
    )


def _said(task: Task, votes: list[Judgment], *, options: ProjectSettings) -> list[Said]:
    submitted = set(
        Assignment.objects.filter(
            task=task, state=AssignmentState.SUBMITTED, rater__kind=Rater.Kind.HUMAN
        ).values_list("rater_id", flat=True)
    )
    known = _reliabilities(task.project_id, [vote.rater_id for vote in votes])
    lines = _lines(votes, options)
    most = steepest(votes, options)
    return [
        Said(
            judgment_id=vote.pk,
            rater_id=vote.rater_id,
            name=vote.rater.name,
            rater_kind=vote.rater.kind,
            is_excluded=vote.rater.is_excluded,
            is_simulated=vote.rater.is_simulated,
            verdict=say(vote, task, options),
            both_bad=vote.both_bad,
            why=vote.rationale,
            reasons=vote.reasons,
            seconds=None if vote.active_ms is None else vote.active_ms / 1000,
            at=vote.submitted_at,
            revision=vote.revision,
            is_counted=vote.is_counted,
            is_hit=vote.is_hit,
            can_go_back=vote.rater_id in submitted,
            mark=mark_of(vote, most=most) if task.kind == "pairwise" else None,
            lines=lines[vote.pk],
            reliability=known.get(vote.rater_id),
        )
        for vote in votes
    ]


def _lines(votes: list[Judgment], options: ProjectSettings) -> dict[int, list[Line]]:
    """Ratings of each verdict, saying where raters differ."""
    given: dict[str, list[list[int | None]]] = {}
    for vote in votes:
        for name, values in (vote.ratings or {}).items():
            given.setdefault(name, []).append(values)
    # jsonb keeps no order of keys: lines stand as the settings list them, others after.
    listed = [*options.attributes, *options.criteria, *options.failures]
    order = {name: at for at, name in enumerate(listed)}
    differs = {name: any(one != values[0] for one in values) for name, values in given.items()}
    return {
        vote.pk: [
            Line(
                name,
                [
                    (LABELS[at], "–" if value is None else str(value))
                    for at, value in enumerate(values)
                ],
                differs[name],
            )
            for name, values in sorted(
                (vote.ratings or {}).items(),
                key=lambda pair: (order.get(pair[0], len(order)), pair[0]),
            )
        ]
        for vote in votes
    }


# Rows of the raters' table over the whole project, as the latest quality run wrote them.
RELIABILITY: Final = """
    SELECT (r ->> 'id')::bigint, r -> 'reliability'
    FROM (SELECT figures FROM annotator_qualityreport
          WHERE project_id = %s ORDER BY created_at DESC LIMIT 1) report,
         jsonb_array_elements(report.figures #> '{slices,start|all,raters}') r
    WHERE (r ->> 'id')::bigint = ANY(%s)
"""


def _reliabilities(project_id: int, rater_ids: list[int]) -> dict[int, tuple[float, float, float]]:
    """Reliability with its interval of those raters the latest report knows."""
    if not rater_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(RELIABILITY, [project_id, rater_ids])
        rows = cursor.fetchall()
    found = {}
    for pk, text in rows:
        told = orjson.loads(text) if isinstance(text, str) else text
        if told and None not in (told.get("value"), told.get("low"), told.get("high")):
            found[pk] = (told["value"], told["low"], told["high"])
    return found
