"""Votes without the desk: judgments with their preferences, as submit and import write them."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from annotator.models import Judgment, Preference, Project, Prompt, Rater, Response, Task
from tests import factories

RANKS = {1: [1, 2], -1: [2, 1], 0: [1, 1]}


def vote(task: Task, by: Rater, outcome: int, *, strength: int = 1, **fields: Any) -> Preference:
    """One verdict on a pairwise task: 1 for the first of its responses, -1 for the second."""
    judgment = Judgment.objects.create(
        project_id=task.project_id,
        task=task,
        rater=by,
        ranks=RANKS[outcome],
        strength=strength if outcome else 0,
        submitted_at=timezone.now(),
        both_bad=fields.get("both_bad", False),
    )
    a, b = task.response_ids
    Task.objects.filter(pk=task.pk).update(judged=task.judged + 1)
    return Preference.objects.create(
        project_id=task.project_id,
        judgment=judgment,
        task=task,
        prompt_id=task.prompt_id,
        rater=by,
        a_id=a,
        b_id=b,
        outcome=outcome,
        strength=judgment.strength,
        is_gold=task.is_gold,
        **fields,
    )


def raters(
    project: Project, count: int, kind: str = Rater.Kind.IMPORTED, **fields: Any
) -> list[Rater]:
    return [
        Rater.objects.create(project=project, kind=kind, name=f"{kind} {number}", **fields)
        for number in range(1, count + 1)
    ]


def task_of(prompt: Prompt, first: Response, second: Response, **fields: Any) -> Task:
    """A pairwise task about two responses that are there already."""
    return Task.objects.create(
        project_id=prompt.project_id,
        prompt=prompt,
        response_ids=[first.pk, second.pk],
        content_hash=factories.digest("ballot", str(first.pk), str(second.pk)),
        **fields,
    )


def judged_pair(
    project: Project,
    outcomes: list[int],
    *,
    by: list[Rater],
    texts: tuple[str, str] = ("", ""),
    of: Prompt | None = None,
    **fields: Any,
) -> Task:
    """A new prompt, or ``of``, with two answers and one vote per outcome."""
    task = factories.pairwise_task(project, texts=texts, of=of, **fields)
    for rater, outcome in zip(by, outcomes, strict=False):
        vote(task, rater, outcome)
    return task
