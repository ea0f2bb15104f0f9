"""The draft that a run has made, and how far people are with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from annotator.models import Criterion, RubricVersion, Run


@dataclass(frozen=True)
class Version:
    """A version with its criteria counted by decision; ``criteria`` are those not rejected."""

    rubric_id: int
    number: int
    name: str
    is_draft: bool
    criteria: int
    accepted: int
    open: int
    figures: dict[str, Any]


def version_of(run: Run) -> Version | None:
    """What the run wrote or measured, as it stands now; None before that, or once it is gone."""
    about = Q(run=run) if run.kind == Run.Kind.RUBRIC else Q(measurements__run=run)
    found = RubricVersion.objects.filter(about).select_related("rubric").first()
    if found is None:
        return None
    decisions = Counter(found.criteria.values_list("decision", flat=True))
    accepted = decisions[Criterion.Decision.ACCEPTED]
    open_ = decisions[Criterion.Decision.PROPOSED]
    return Version(
        rubric_id=found.rubric_id,
        number=found.number,
        name=str(found),
        is_draft=found.is_draft,
        criteria=accepted + open_,
        accepted=accepted,
        open=open_,
        figures=found.figures,
    )
