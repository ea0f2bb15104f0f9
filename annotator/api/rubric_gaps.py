"""What a version of a rubric does not explain, for programs: pairs, and criteria that contradict."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest
from ninja import Field, Query, Router, Schema

from annotator.models import Role
from annotator.queries import rubric_gaps as queries
from annotator.queries import rubrics
from annotator.queries.access import access_or_404
from annotator.queries.rubric_gaps import Row
from annotator.services import rubric_gaps as service
from rubrics import gaps
from rubrics.intervals import Accuracy

MOST: Final = 200  # pairs of one answer

router = Router(tags=["rubrics"])


class PageIn(Schema):
    """``kind``: silent, contrary, unscored, or empty for the first two. ``after``: ``next``."""

    kind: str = Field("", max_length=20)
    after: int = Field(0, ge=0, lt=2**31)
    limit: int = Field(queries.PAGE, gt=0, le=MOST)


class EstimateOut(Schema):
    """A share with its 95 % interval, over ``groups`` prompts where pairs share one."""

    value: float
    low: float
    high: float
    n: int
    groups: int


class GapOut(Schema):
    """A pair that is not explained. ``margin`` is the rubric's, below 0 for the other side;
    ``speaks_for`` and ``against`` are ids of criteria, the strongest first."""

    prompt: int
    chosen: int
    rejected: int
    kind: str
    votes_for: int
    votes: int
    margin: float
    speaks_for: list[int]
    against: list[int]
    task: int | None
    is_asked: bool


class ContradictionOut(Schema):
    """Two criteria that differ on ``opposed`` of the ``both`` pairs that both tell apart.

    ``examples``: (prompt, chosen, rejected).
    """

    first: int
    second: int
    both: int
    opposed: int
    share: EstimateOut
    correlation: float
    examples: list[tuple[int, int, int]]


class InvertedOut(Schema):
    """A criterion whose weight or whose pairs go against its polarity; ``share`` of the pairs it
    tells apart go its way."""

    criterion: int
    share: EstimateOut | None
    by_weight: bool
    by_votes: bool


class GapsOut(Schema):
    """Counted on ``pairs_learned`` pairs, of which ``agreed`` have ``least_votes`` that agree.

    ``sure``: how far below 0 a margin is sure of the other side.
    """

    measurement: int
    pairs_learned: int
    agreed: int
    least_votes: int
    sure: float
    unmeasured: list[int]
    counts: dict[str, int]
    pairs: list[GapOut]
    next: int | None
    contradictions: list[ContradictionOut]
    inverted: list[InvertedOut]


@router.get("/{slug}/rubrics/{rubric_id}/versions/{number}/gaps", response=GapsOut)
def list_gaps(
    request: HttpRequest, slug: str, rubric_id: int, number: int, page: Query[PageIn]
) -> dict[str, Any]:
    """Pairs that the version does not explain, the surest votes first: pass ``next`` as ``after``.

    Only pairs that it could learn from: those of the test split stay unseen.
    """
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    version = rubrics.find(access.project, rubric_id, number)
    if version is None:
        raise Http404("no such version of a rubric in this project")
    found = service.basis(version)
    if found is None:
        raise service.not_measured(version)
    everything = queries.unexplained(found.sheet, found.weights)
    shown = queries.page(found, service.listed(found, page.kind), after=page.after, size=page.limit)
    return {
        "measurement": found.measurement,
        "pairs_learned": len(found.sheet.prompts),
        "agreed": everything.agreed,
        "least_votes": everything.least_votes,
        "sure": everything.sure,
        "unmeasured": [one.pk for one in found.unmeasured],
        "counts": everything.counts(),
        "pairs": [_pair(row) for row in shown.rows],
        "next": shown.next,
        "contradictions": [
            {
                "first": one.first,
                "second": one.second,
                "both": one.both,
                "opposed": one.opposed,
                "share": _estimate(one.share),
                "correlation": one.correlation,
                "examples": queries.ids_of(found.sheet, one.rows),
            }
            for one in gaps.contradictions(found.sheet, found.weights)
        ],
        "inverted": [
            {
                "criterion": one.criterion,
                "share": _estimate(one.share) if one.share else None,
                "by_weight": one.by_weight,
                "by_votes": one.by_votes,
            }
            for one in gaps.inverted(found.sheet, found.weights, found.polarities)
        ],
    }


def _pair(row: Row) -> dict[str, Any]:
    prompt, chosen, rejected = row.pair.ids
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "kind": row.kind,
        "votes_for": row.votes_for,
        "votes": row.votes,
        "margin": row.margin,
        "speaks_for": [one.pk for one in row.speak_for],
        "against": [one.pk for one in row.against],
        "task": row.pair.task_id,
        "is_asked": row.pair.is_asked,
    }


def _estimate(found: Accuracy) -> dict[str, Any]:
    low, high = found.interval
    return {"value": found.accuracy, "low": low, "high": high, "n": found.n, "groups": found.groups}
